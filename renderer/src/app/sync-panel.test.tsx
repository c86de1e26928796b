import { act, fireEvent, screen } from "@testing-library/react";
import { expect, it } from "vitest";
import { answering, openProject, show } from "../../test-render.tsx";
import type { Intent } from "../../../shared/contract/sync.ts";
import { useLive } from "../lib/live.ts";
import { SyncPill } from "./sync-panel.tsx";

const intent = (id: string): Intent => ({
  command_id: id,
  kind: "flag_user",
  subject: "u1",
  summary: `Flag ${id}`,
  status: "failed",
  created_at: "2026-11-22T12:00:00Z",
  expires_at: "2026-11-23T12:00:00Z",
  attempts: 1,
  failure: null,
  base: null,
  mine: null,
  theirs: null,
});

it("keeps the list of the project that is open when a decision on one of another is answered late", async () => {
  let answer = (_value: unknown): void => {};
  const client = answering({ "sync.resolve": () => new Promise((resolve) => (answer = resolve)) });
  openProject("a");
  useLive.setState({ intents: [intent("of-a"), intent("also-of-a")] });
  show(client, <SyncPill />);
  fireEvent.click(screen.getByRole("button", { name: /^Changes/ }));
  fireEvent.click((await screen.findAllByRole("button", { name: "Drop it" }))[0] as HTMLElement);
  await expect.poll(() => client.asked.length).toBe(1);
  act(() => {
    openProject("b");
    useLive.setState({ intents: [intent("of-b")] });
  });
  await act(async () => {
    answer({ ok: true, value: [intent("also-of-a")] });
    await new Promise((resolve) => setTimeout(resolve));
  });
  expect(useLive.getState().intents.map(({ command_id: id }) => id)).toEqual(["of-b"]);
});
