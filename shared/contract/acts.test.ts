import { expect, it } from "vitest";
import {
  accountState,
  actNamed,
  actNames,
  acts,
  configRecord,
  operations,
  rule,
  type SubjectName,
  subjects,
} from "./index.ts";

const records: Readonly<Record<SubjectName, readonly string[] | null>> = {
  user: Object.keys(accountState.shape),
  rule: Object.keys(rule.shape),
  // What acknowledging sets has no field of its own: the list has its time and its name.
  alert: null,
  config: Object.keys(configRecord.shape),
};

it.each(actNames)("%s is an operation of its subject's desk, and sets fields that its record has", (name) => {
  const act = actNamed(name);
  expect(operations[acts[name].operation].input).toBe(acts[name].input);
  expect(act.operation.split(".")[0]).toBe(subjects[act.subject].desk);
  const known = records[act.subject];
  if (known) for (const field of Object.keys(act.changes)) expect(known).toContain(field);
});

it("an undo is an act on the same subject, with the fields that act asks for", () => {
  const before = {
    is_blocked: true,
    block_reason: "spam",
    blocked_until: null,
    mode: "enforce",
    version: 3,
    kind: "plan",
    key: "pro",
    record: { plan_id: "pro" },
  };
  for (const name of actNames) {
    const act = actNamed(name);
    const undo = act.undo?.(before, { ...before, version: 4 }, new Date());
    if (!undo) continue;
    const back = actNamed(undo.act as typeof name);
    expect(back.subject).toBe(act.subject);
    for (const [field, schema] of Object.entries(back.fields))
      expect(
        (schema as unknown as { safeParse(value: unknown): { success: boolean } }).safeParse(
          undo.fields[field],
        ).success,
      ).toBe(true);
  }
});

it("a block that has ended by itself is not put back", () => {
  const now = new Date("2026-11-22T12:00:00Z");
  const undo = (until: string | null) =>
    actNamed("unblock_user").undo?.(
      { is_blocked: true, block_reason: "spam", blocked_until: until },
      {},
      now,
    );
  expect(undo("2026-11-22T11:00:00Z")).toBeNull();
  expect(undo("2026-11-22T13:00:00Z")).toMatchObject({ act: "block_user" });
  expect(undo(null)).toMatchObject({ act: "block_user", fields: { until: null } });
});
