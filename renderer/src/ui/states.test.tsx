import { screen } from "@testing-library/react";
import type { ReactNode } from "react";
import { expect, it, vi } from "vitest";
import { useCall } from "../lib/console.tsx";
import { answering, show } from "../../test-render.tsx";
import { UserName } from "./parts.tsx";
import { ErrorBoundary, QueryView } from "./states.tsx";

function About(): ReactNode {
  return (
    <QueryView query={useCall("settings.about", {})}>{(about) => <p>version {about.version}</p>}</QueryView>
  );
}

it("says what happened and what to do, and shows what it can still show", async () => {
  const failure = {
    code: "offline",
    message: "The project is away.",
    advice: "Wait.",
    details: "ECONNREFUSED",
  };
  show(answering({ "settings.about": () => ({ ok: false, error: failure }) }), <About />);
  await screen.findByText("The project is away.");
  expect(screen.getByText("Wait.")).toBeTruthy();
  expect(screen.getByText("ECONNREFUSED")).toBeTruthy();
});

it("turns a transport that breaks in its own way into words", async () => {
  show(
    answering({
      "settings.about": () => {
        throw new TypeError("socket hang up");
      },
    }),
    <About />,
  );
  await screen.findByText(/Something went wrong that the console did not expect/);
});

it("keeps one broken screen from taking the others down, and knows a replaced build", () => {
  const quiet = vi.spyOn(console, "error").mockImplementation(() => {});
  const Broken = (): ReactNode => {
    throw new TypeError("Failed to fetch dynamically imported module: /assets/x.js");
  };
  show(
    answering({}),
    <>
      <p>beside it</p>
      <ErrorBoundary>
        <Broken />
      </ErrorBoundary>
    </>,
  );
  expect(screen.getByText("beside it")).toBeTruthy();
  expect(screen.getByText(/was updated while this page was open/)).toBeTruthy();
  quiet.mockRestore();
});

it("shows a name as isolated text, and an id where there is none to see", () => {
  const { container } = show(
    answering({}),
    <>
      <UserName name={"<b>x</b>\u202eevil"} id="u1" />
      <UserName name={"\u202e\u200b"} id="user-0123456789-0123456789-0123456789" />
      <UserName name={"W".repeat(10_000)} id="u3" />
    </>,
  );
  const names = [...container.querySelectorAll("bdi")];
  expect(names.map((name) => name.textContent)).toEqual([
    "<b>x</b>evil",
    "user-012345678…456789",
    `${"W".repeat(79)}…`,
  ]);
  expect(container.querySelector("b")).toBeNull();
});
