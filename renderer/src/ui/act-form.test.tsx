import { fireEvent, screen } from "@testing-library/react";
import { expect, it } from "vitest";
import { answering, show } from "../../test-render.tsx";
import { ActForm, termEnd } from "./act-form.tsx";

const now = Date.parse("2026-11-22T12:00:00Z");

it("ends a block at the end of its term, or never", () => {
  expect(termEnd("1h", "", now)).toEqual({ ok: true, value: "2026-11-22T13:00:00.000Z" });
  expect(termEnd("7d", "", now)).toEqual({ ok: true, value: "2026-11-29T12:00:00.000Z" });
  expect(termEnd("forever", "", now)).toEqual({ ok: true, value: null });
});

it("refuses a custom end that is missing or past", () => {
  expect(termEnd("custom", "", now)).toEqual({ ok: false, error: "Choose a day and time." });
  expect(termEnd("custom", "2020-01-01T00:00", now)).toEqual({ ok: false, error: "This time has passed." });
  expect(termEnd("custom", "2999-01-01T00:00", now).ok).toBe(true);
});

const account = { user_id: "u1", display_name: "Una", timezone: "UTC", is_blocked: false, version: 3 };

it("asks for what an act needs, sends it once, and takes it back with the act that undoes it", async () => {
  const client = answering({
    "users.block": () => ({ ok: true, value: { intent: { status: "acknowledged" }, account: null } }),
    "users.unblock": () => ({ ok: true, value: { intent: { status: "acknowledged" }, account: null } }),
  });
  let isDone = false;
  show(client, <ActForm act="block_user" record={account} onDone={() => (isDone = true)} />);
  // Before it is done: what it does, and what the user sees of it.
  expect(screen.getByRole("table", { name: "What changes" }).textContent).toMatch(
    /decided by the rules.*stopped until/,
  );
  screen.getByText(/The user sees: each call is answered “Your access is paused/);
  fireEvent.click(screen.getByRole("button", { name: "Block" }));
  await screen.findByText("Give a reason of at least 3 characters.");
  expect(client.asked).toEqual([]);
  fireEvent.click(screen.getByRole("button", { name: "Spam" }));
  fireEvent.click(screen.getByRole("button", { name: "until unblocked" }));
  fireEvent.click(screen.getByRole("button", { name: "Block" }));
  await screen.findByText("Blocked Una until someone unblocks");
  expect(isDone).toBe(true);
  expect(client.asked.map(({ name, input }) => ({ name, input }))).toMatchObject([
    { name: "users.block", input: { user_id: "u1", reason: "Spam", until: null } },
  ]);
  fireEvent.click(screen.getByRole("button", { name: "Undo" }));
  await screen.findByText("Unblocked Una");
  expect(client.asked.at(-1)).toMatchObject({ name: "users.unblock", input: { user_id: "u1" } });
});

it("keeps what was written where a key or a click beside the form closes it, of this user alone; Cancel and sending forget it", async () => {
  const client = answering({
    "users.block": () => ({ ok: true, value: { intent: { status: "acknowledged" }, account: null } }),
  });
  const reason = () => screen.getByLabelText<HTMLTextAreaElement>("Reason");
  const open = (record: typeof account, onDone = () => {}) =>
    show(client, <ActForm act="block_user" record={record} onDone={onDone} />);
  const una = { ...account, user_id: "kept-1" };
  let form = open(una);
  fireEvent.change(reason(), { target: { value: "Two tickets tell of the same" } });
  form.unmount();

  form = open({ ...account, user_id: "kept-2" });
  expect(reason().value).toBe("");
  form.unmount();

  form = open(una);
  expect(reason().value).toBe("Two tickets tell of the same");
  fireEvent.click(screen.getByRole("button", { name: "Cancel" }));
  form.unmount();

  form = open(una);
  expect(reason().value).toBe("");
  fireEvent.change(reason(), { target: { value: "Spam in two tickets" } });
  form.unmount();
  let isDone = false;
  form = open(una, () => (isDone = true));
  fireEvent.click(screen.getByRole("button", { name: "Block" }));
  await expect.poll(() => isDone).toBe(true);
  form.unmount();

  open(una);
  expect(reason().value).toBe("");
});

it("sends once, though Enter is held down while the answer is on its way", async () => {
  let answer = (_value: unknown): void => {};
  const client = answering({ "users.block": () => new Promise((resolve) => (answer = resolve)) });
  let done = 0;
  show(client, <ActForm act="block_user" record={account} onDone={() => (done += 1)} />);
  const reason = screen.getByLabelText("Reason");
  fireEvent.change(reason, { target: { value: "Spam in two tickets" } });
  for (let press = 0; press < 3; press += 1) fireEvent.keyDown(reason, { key: "Enter" });
  await expect.poll(() => client.asked.length).toBe(1);
  answer({ ok: true, value: { intent: { status: "acknowledged" }, account: null } });
  await expect.poll(() => done).toBe(1);
  expect(client.asked).toHaveLength(1);
});
