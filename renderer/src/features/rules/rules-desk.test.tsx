import { fireEvent, screen, waitFor, within } from "@testing-library/react";
import { expect, it } from "vitest";
import type { RuleMode } from "../../../../shared/contract/basics.ts";
import type { RuleRecord } from "../../../../shared/contract/rules.ts";
import { answering, openProject, show } from "../../../test-render.tsx";
import { RuleEditor } from "./rule-editor.tsx";
import { RulesDesk } from "./rules-desk.tsx";
import { stopsOf } from "./threshold-slider.tsx";

const rule = (mode: RuleMode, version: number): RuleRecord => ({
  rule_name: "token_hogging",
  rule_type: "abuse",
  conditions: { all: [{ fact: "messages_today", op: ">", value: 100 }] },
  action: { block: { reason: "token_hogging" } },
  priority: 40,
  mode,
  is_active: true,
  applies_to: {},
  version,
  description: null,
  updated_at: "2026-11-22T10:00:00Z",
  updated_by: "preset default",
  matches_24h: 7,
});
const intent = (status: "acknowledged" | "pending") => ({
  command_id: "c",
  kind: "set_rule_mode",
  subject: "token_hogging",
  summary: "",
  status,
  created_at: "",
  expires_at: "",
  attempts: 0,
  failure: null,
  base: null,
  mine: null,
  theirs: null,
});

it("says what a rule does, switches it, and takes the switch back with the version it then has", async () => {
  let now = rule("enforce", 3);
  const client = answering({
    "rules.list": () => ({ ok: true, value: { rules: [now], as_of: "2026-11-22T12:00:00Z" } }),
    "rules.set_mode": ({ mode }: { mode: RuleMode }) => {
      now = rule(mode, now.version + 1);
      return { ok: true, value: { intent: intent("acknowledged"), rule: now } };
    },
  });
  show(client, <RulesDesk />);
  await screen.findByText("Block when more than 100 messages a day");
  const modes = screen.getByRole("group", { name: "Mode of token hogging" });
  fireEvent.click(within(modes).getByRole("button", { name: "Shadow" }));
  await screen.findByText("Token hogging is now shadow");
  expect(within(modes).getByRole("button", { name: "Shadow", pressed: true })).toBeTruthy();
  fireEvent.click(screen.getByRole("button", { name: "Undo" }));
  await waitFor(() =>
    expect(within(modes).getByRole("button", { name: "Enforce", pressed: true })).toBeTruthy(),
  );
  const sent = client.asked.filter((each) => each.name === "rules.set_mode").map((each) => each.input);
  expect(sent).toMatchObject([
    { mode: "shadow", expected_version: 3 },
    { mode: "enforce", expected_version: 4 },
  ]);
});

it("puts the switch back and says why when it was refused", async () => {
  const client = answering({
    "rules.list": () => ({ ok: true, value: { rules: [rule("enforce", 3)], as_of: "2026-11-22T12:00:00Z" } }),
    "rules.set_mode": () => ({
      ok: false,
      error: { code: "refused", message: "The key may not do this.", advice: "Use another.", details: null },
    }),
  });
  show(client, <RulesDesk />);
  await screen.findByText("Token hogging");
  const modes = screen.getByRole("group", { name: "Mode of token hogging" });
  fireEvent.click(within(modes).getByRole("button", { name: "Off" }));
  await screen.findByText(/The key may not do this/);
  await waitFor(() =>
    expect(within(modes).getByRole("button", { name: "Enforce", pressed: true })).toBeTruthy(),
  );
});

it("shows a rule that it cannot read instead of failing", async () => {
  const odd = { ...rule("enforce", 1), conditions: { fact: "phase_of_the_moon", op: "=", value: 1 } };
  const client = answering({
    "rules.list": () => ({ ok: true, value: { rules: [odd], as_of: "2026-11-22T12:00:00Z" } }),
  });
  show(client, <RulesDesk />);
  await screen.findByText(/cannot read the rule/);
});

it("gives the length of the slider to numbers that change something, not to the few with very many calls", () => {
  const points = Array.from({ length: 1000 }, (_, value) => ({
    value,
    calls: 0,
    // Most calls are below ten; one account has a call for each number up to a thousand.
    newly: 1000 - value + (value < 10 ? (10 - value) * 5000 : 0),
    users: 1,
    paying_users: 0,
    tokens: 0,
    cost_micros: 0,
  }));
  const values = stopsOf(points, 417).map((point) => point.value);
  expect(values.slice(0, 11)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  expect(values).toContain(417);
  expect(values.at(-1)).toBe(999);
  expect(values.length).toBeLessThan(25);
});

it("warns of a condition that any number meets, and of a text that names the number of before", async () => {
  const client = answering({});
  const record: RuleRecord = {
    ...rule("enforce", 3),
    action: { block: { reason: "token_hogging", message: "No more than 100 messages a day, please." } },
  };
  show(client, <RuleEditor record={record} template={null} rules={[record]} names={{}} />);
  const value = await screen.findByLabelText("Value of condition 1");
  expect(screen.queryByText(/Any number meets|still names/)).toBeNull();
  fireEvent.change(value, { target: { value: "-5" } });
  await screen.findByText("Any number meets “more than -5 messages a day”: it leaves no call out.");
  await screen.findByText("The text for the user still names 100.");
});

const priority = () => screen.getByLabelText<HTMLInputElement>("Order (lower runs first)");
const edit = (client: ReturnType<typeof answering>, record: RuleRecord) =>
  show(client, <RuleEditor record={record} template={null} rules={[record]} names={{}} />);

it("keeps a draft on the version that it was written on: a newer one is said, and is not overwritten", async () => {
  const client = answering({
    "rules.save": () => ({
      ok: false,
      error: { code: "version_conflict", message: "There is a newer one.", advice: "", details: null },
    }),
  });
  openProject("a");
  let editor = edit(client, rule("enforce", 3));
  fireEvent.change(priority(), { target: { value: "41" } });
  editor.unmount();

  // A colleague saves meanwhile.
  editor = edit(client, rule("enforce", 4));
  expect(priority().value).toBe("41");
  screen.getByText(/Somebody saved version 4 while you were writing on 3/);
  fireEvent.change(screen.getByLabelText("Why"), { target: { value: "earlier in the order" } });
  fireEvent.submit(screen.getByRole("form", { name: "Save the rule" }));
  await waitFor(() => expect(client.asked).toHaveLength(1));
  expect(client.asked[0]?.input).toMatchObject({ expected_version: 3 });

  fireEvent.click(screen.getByRole("button", { name: "Start over" }));
  expect(priority().value).toBe("40");
  expect(screen.queryByText(/Somebody saved/)).toBeNull();
});

it("shows a draft and a replay in their own project alone", async () => {
  const followed: unknown[] = [];
  const client = {
    ...answering({ "rules.replay_start": () => ({ ok: true, value: { run_id: "run-of-a" } }) }),
    follow: (_name: string, input: unknown) => {
      followed.push(input);
      return () => {};
    },
  };
  openProject("a");
  let editor = edit(client, rule("enforce", 3));
  fireEvent.change(priority(), { target: { value: "41" } });
  fireEvent.click(screen.getByRole("button", { name: "Replay" }));
  await waitFor(() => expect(followed).toEqual([{ run_id: "run-of-a" }]));
  editor.unmount();

  openProject("b");
  editor = edit(client, rule("enforce", 3));
  expect(priority().value).toBe("40");
  expect(followed).toHaveLength(1);
  editor.unmount();

  openProject("a");
  edit(client, rule("enforce", 3));
  expect(priority().value).toBe("41");
  expect(followed).toHaveLength(2);
});
