import { Button, MantineProvider } from "@mantine/core";
import { fireEvent, render, screen } from "@testing-library/react";
import type { ReactNode } from "react";
import { expect, it } from "vitest";
import { theme } from "./theme.ts";

it("a button that waits keeps the focus and takes no press; in a form the others do not send", () => {
  let sent = 0;
  let cancelled = 0;
  const form = (busy: boolean): ReactNode => (
    <MantineProvider theme={theme} env="test">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          sent += 1;
        }}
      >
        <Button onClick={() => (cancelled += 1)}>Cancel</Button>
        <Button type="submit" loading={busy}>
          Give
        </Button>
        <Button disabled>Never</Button>
      </form>
    </MantineProvider>
  );
  const { rerender } = render(form(false));
  const give = screen.getByRole("button", { name: "Give" });
  give.focus();
  fireEvent.click(give);
  fireEvent.click(screen.getByRole("button", { name: "Cancel" }));
  expect([sent, cancelled]).toEqual([1, 1]);

  rerender(form(true));
  // jsdom keeps the focus on what is disabled; a browser does not.
  expect(give).toHaveProperty("disabled", false);
  expect(give.getAttribute("aria-disabled")).toBe("true");
  fireEvent.click(give);
  expect(sent).toBe(1);

  rerender(form(false));
  expect(document.activeElement).toBe(give);
  expect(give.getAttribute("aria-disabled")).toBeNull();
  expect(screen.getByRole("button", { name: "Never" })).toHaveProperty("disabled", true);
});
