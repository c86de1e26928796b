import { fireEvent, screen } from "@testing-library/react";
import { expect, it } from "vitest";
import { answering, show } from "../../../test-render.tsx";
import { startRouter } from "../../lib/router.ts";
import { UsersDesk } from "./users-desk.tsx";

it("says that nobody is found only of the text that was searched, never of one that is on its way", async () => {
  history.replaceState(null, "", "#/users");
  startRouter();
  let answer: (() => void) | null = null;
  const nobody = (isClose: boolean) => ({
    ok: true,
    value: {
      accounts: [],
      total: 0,
      total_is_exact: true,
      next_cursor: null,
      is_close: isClose,
      is_by_id: false,
      as_of: null,
    },
  });
  const client = answering({
    "users.search": ({ query }: { query: string }) =>
      query === "second"
        ? new Promise((resolve) => {
            answer = () => resolve(nobody(false));
          })
        : nobody(query === "first"),
    "search.everything": () => ({ ok: true, value: [] }),
  });
  show(client, <UsersDesk />);
  const box = await screen.findByRole("textbox", { name: "Search users" });
  const search = (text: string): void => {
    fireEvent.change(box, { target: { value: text } });
    fireEvent.keyDown(box, { key: "Enter" });
  };
  search("first");
  await screen.findByText(/Nobody's name, e-mail or id contains “first”/);

  search("second");
  await screen.findByText("Searching…");
  expect(screen.queryByText(/contains “second”/)).toBeNull();
  expect(screen.queryByText(/No user is called exactly “second”/)).toBeNull();

  await expect.poll(() => answer).not.toBeNull();
  (answer as unknown as () => void)();
  await screen.findByText(/Nobody's name, e-mail or id contains “second”/);
});
