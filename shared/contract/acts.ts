/**
 * Acts: what an operator may do that is kept in the outbox until the project has acknowledged it.
 *
 * Each act is described once: the function that does it, what the operator gives, what it changes, its words, and how it
 * is undone. The contract's operations, the outbox, the forms and the undo buttons follow from this table, so that
 * another act is another entry.
 */
import { z } from "zod";
import { mergeConfig } from "../governance/configuration/index.ts";
import { describeProblem, mergeDefinitions, parseRule } from "../governance/rules/index.ts";
import { commandId, type Failure, instant, reason, ruleMode, userId, whole } from "./basics.ts";

/** A record as it was seen: an account, a rule, an alert, or one of the configuration. */
export type Seen = Readonly<Record<string, unknown>>;

/** What an act is about: the field that names it, the parameter it is sent as, and the desk that shows it. */
export const subjects = {
  user: { field: "user_id", parameter: "p_user_id", schema: userId, desk: "users" },
  rule: { field: "rule_name", parameter: null, schema: z.string().max(200), desk: "rules" },
  alert: { field: "alert_event_id", parameter: "p_alert_event_id", schema: whole, desk: "alerts" },
  // Its kind and key: plan:gold.
  config: { field: "id", parameter: null, schema: z.string().min(3).max(520), desk: "plans" },
} as const;
export type SubjectName = keyof typeof subjects;

interface Description<Operation extends string, Subject extends SubjectName, Fields extends z.ZodRawShape> {
  /** Its name in the contract: the desk, then the verb. */
  readonly operation: Operation;
  readonly subject: Subject;
  /** What the operator gives beside the subject. */
  readonly fields: Fields;
  /** The project's function. */
  readonly rpc: string;
  /** Its parameters beside the command, the subject and the operator. */
  readonly parameters: (fields: z.output<z.ZodObject<Fields>>, seen: Seen | null) => Seen;
  /** The fields of the record that it sets, and to what: the screen shows it before the project has answered. */
  readonly changes: Readonly<Record<string, (fields: z.output<z.ZodObject<Fields>>) => unknown>>;
  /**
   * How another person's change is noticed. `version`: the function refuses another version than the one seen.
   * `none`: the first one stays.
   */
  readonly conflict: "version" | "none";
  /** For `version`: the parameters that follow from the record, for the record as it is now. */
  readonly rebase?: (parameters: Seen, theirs: Seen, base: Seen | null) => Seen;
  /**
   * True where a change of fields that the act does not set is no conflict: it is sent again for the newer version.
   * False where the act writes the whole record.
   */
  readonly mergesOtherChanges?: boolean;
  /** Refuses wrong input before anything is kept. */
  readonly check?: (fields: z.output<z.ZodObject<Fields>>, now: Date) => Failure | null;
  /** Whether a person is offered it, for a record as it is. */
  readonly isOffered: (seen: Seen) => boolean;
  readonly words: {
    /** On the button, and on the form. */
    readonly button: string;
    readonly title: string;
    /** The key that opens it, where it has one. */
    readonly key?: string;
    /** In the list of changes: an order. */
    readonly summary: (subject: string, fields: z.output<z.ZodObject<Fields>>) => string;
    /** When it was done; `when` writes an instant in the zone of the screen. */
    readonly done: (
      subject: string,
      fields: z.output<z.ZodObject<Fields>>,
      when: (at: string) => string,
    ) => string;
    readonly failed: (subject: string) => string;
    /** Below the reason, where there is one. */
    readonly hint?: string;
    /** Reasons to choose from. */
    readonly reasons?: readonly string[];
    readonly isDangerous?: boolean;
  };
  /** The act that takes it back, or null. `before` and `after`: the record as it was seen, and as it is. */
  readonly undo?: (
    before: Seen,
    after: Seen,
    now: Date,
  ) => { readonly act: string; readonly fields: Seen } | null;
}

type InputOf<Subject extends SubjectName, Fields extends z.ZodRawShape> = z.ZodObject<
  { command_id: typeof commandId } & {
    [Field in (typeof subjects)[Subject]["field"]]: (typeof subjects)[Subject]["schema"];
  } & { expected_version: z.ZodOptional<z.ZodNullable<typeof whole>> } & Fields,
  z.core.$strict
>;

function act<const Operation extends string, Subject extends SubjectName, Fields extends z.ZodRawShape>(
  description: Description<Operation, Subject, Fields>,
) {
  const { field, schema } = subjects[description.subject];
  const version = description.conflict === "version" ? { expected_version: whole.nullish() } : {};
  const input = z
    .object({ command_id: commandId, [field]: schema, ...version, ...description.fields })
    .strict();
  return { ...description, input: input as unknown as InputOf<Subject, Fields> };
}

/** Acts on a user are made on the account's version; what others changed of other fields is no conflict. */
const onAccount = {
  conflict: "version",
  mergesOtherChanges: true,
  rebase: (_parameters: Seen, theirs: Seen) => ({ p_expected_version: theirs["version"] }),
} as const;

/** When a rule that is changed for a while goes back by itself; left out: for good. */
const untilOfRule = instant.nullish();

/** Every act. The key is the name the outbox keeps. */
export const acts = {
  flag_user: act({
    operation: "users.flag",
    subject: "user",
    fields: { reason },
    rpc: "flag_user",
    parameters: (fields) => ({ p_reason: fields.reason }),
    changes: { is_flagged: () => true, flag_reason: ({ reason: why }) => why },
    ...onAccount,
    isOffered: (account) => account["is_flagged"] !== true,
    words: {
      button: "Flag",
      title: "Flag for review",
      key: "f",
      summary: (user) => `Flag ${user}`,
      done: (user) => `Flagged ${user} for review`,
      failed: () => "Not flagged",
      hint: "Kept in the audit.",
      reasons: ["Unusual use", "Possible account sharing", "Asked by finance"],
    },
    undo: () => ({ act: "unflag_user", fields: { reason: "Undo of the flag just set" } }),
  }),
  unflag_user: act({
    operation: "users.unflag",
    subject: "user",
    fields: { reason },
    rpc: "unflag_user",
    parameters: (fields) => ({ p_reason: fields.reason }),
    changes: { is_flagged: () => false, flag_reason: () => null },
    ...onAccount,
    isOffered: (account) => account["is_flagged"] === true,
    words: {
      button: "Clear flag",
      title: "Clear the flag",
      key: "f",
      summary: (user) => `Clear the flag of ${user}`,
      done: (user) => `Cleared the flag of ${user}`,
      failed: () => "Flag not cleared",
      hint: "Kept in the audit.",
      reasons: ["Reviewed: in order", "Flagged by mistake", "Talked with the user"],
    },
    undo: (before) => ({
      act: "flag_user",
      fields: { reason: before["flag_reason"] ?? "Undo of the cleared flag" },
    }),
  }),
  block_user: act({
    operation: "users.block",
    subject: "user",
    fields: { reason, until: instant.nullable() },
    rpc: "block_user",
    parameters: (fields) => ({ p_reason: fields.reason, p_until: fields.until }),
    changes: {
      is_blocked: () => true,
      block_reason: ({ reason: why }) => why,
      blocked_until: ({ until }) => until,
      block_source: () => "operator",
    },
    ...onAccount,
    check: (fields, now) =>
      fields.until !== null && !(Date.parse(fields.until) > now.getTime())
        ? {
            code: "invalid_argument",
            message: "The end of a block must be a time to come.",
            advice: "Choose a later time, or block until somebody unblocks.",
            details: null,
          }
        : null,
    // A rule's block ends soon: an operator may block for longer.
    isOffered: (account) => account["block_source"] !== "operator",
    words: {
      button: "Block",
      title: "Block",
      key: "b",
      summary: (user, { until }) => `Block ${user}${until === null ? "" : ` until ${until}`}`,
      done: (user, { until }, when) =>
        `Blocked ${user} ${until === null ? "until someone unblocks" : `until ${when(until)}`}`,
      failed: () => "Not blocked",
      hint: "Kept in the audit. The user sees only that the account is blocked.",
      reasons: ["Spam", "Automated use", "Abuse of the service", "Payment disputed"],
      isDangerous: true,
    },
    undo: (before, _after, now) =>
      standingBlock(before, now) ?? {
        act: "unblock_user",
        fields: { reason: "Undo of the block just made" },
      },
  }),
  unblock_user: act({
    operation: "users.unblock",
    subject: "user",
    fields: { reason },
    rpc: "unblock_user",
    parameters: (fields) => ({ p_reason: fields.reason }),
    changes: {
      is_blocked: () => false,
      block_reason: () => null,
      blocked_until: () => null,
      block_source: () => null,
    },
    ...onAccount,
    isOffered: (account) => account["is_blocked"] === true,
    words: {
      button: "Unblock",
      title: "Unblock",
      key: "b",
      summary: (user) => `Unblock ${user}`,
      done: (user) => `Unblocked ${user}`,
      failed: () => "Not unblocked",
      hint: "Kept in the audit.",
      reasons: ["Resolved with the user", "Blocked by mistake", "Payment received"],
    },
    undo: (before, _after, now) => standingBlock(before, now),
  }),
  note_user: act({
    operation: "users.note",
    subject: "user",
    fields: { reason },
    rpc: "console_act",
    parameters: (fields) => ({ p_act: { kind: "note" }, p_reason: fields.reason }),
    changes: {},
    // Notes do not replace each other.
    conflict: "none",
    isOffered: () => true,
    words: {
      button: "Note",
      title: "Write a note",
      key: "n",
      summary: (user) => `Note on ${user}`,
      done: (user) => `Noted on ${user}`,
      failed: () => "Note not written",
      hint: "Kept in the audit of this user, for colleagues.",
    },
  }),
  set_rule_mode: act({
    operation: "rules.set_mode",
    subject: "rule",
    fields: { mode: ruleMode, until: untilOfRule },
    rpc: "save_rule",
    parameters: ({ mode, until }, seen) => ({
      p_rule: ruleDefinition({ ...seen, mode }),
      ...(until ? { p_until: until } : {}),
    }),
    changes: {
      mode: ({ mode }) => mode,
      is_active: ({ mode }) => mode !== "off",
      back_at: ({ until }) => until ?? undefined,
    },
    conflict: "version",
    // The mode is set on the rule as somebody else left it.
    rebase: (parameters, theirs) => ({
      p_rule: ruleDefinition({ ...theirs, mode: (parameters["p_rule"] as Seen)["mode"] }),
      p_expected_version: theirs["version"],
    }),
    isOffered: () => true,
    words: {
      button: "Mode",
      title: "Set the mode",
      summary: (rule, { mode, until }) => `Set ${rule} to ${mode}${until ? ` until ${until}` : ""}`,
      done: (rule, { mode, until }, when) =>
        `${rule} is now ${modeWords[mode]}${until ? ` until ${when(until)}, then back by itself` : ""}`,
      failed: (rule) => `${rule} was not switched`,
    },
    undo: (before) => ({ act: "set_rule_mode", fields: { mode: before["mode"] } }),
  }),
  save_rule: act({
    operation: "rules.save",
    subject: "rule",
    fields: { rule: z.looseObject({}), reason: reason.nullish(), until: untilOfRule },
    rpc: "save_rule",
    parameters: ({ rule, reason: why, until }) => ({
      p_rule: ruleDefinition(rule),
      ...(why ? { p_reason: why } : {}),
      ...(until ? { p_until: until } : {}),
    }),
    changes: {
      rule_type: ({ rule }) => rule["rule_type"],
      conditions: ({ rule }) => rule["conditions"],
      action: ({ rule }) => rule["action"],
      priority: ({ rule }) => rule["priority"],
      mode: ({ rule }) => rule["mode"],
      is_active: ({ rule }) => rule["mode"] !== "off",
      applies_to: ({ rule }) => rule["applies_to"],
      description: ({ rule }) => rule["description"],
    },
    conflict: "version",
    rebase: (parameters, theirs, base) => ({
      p_rule: ruleDefinition(
        mergeDefinitions(parameters["p_rule"] as Seen, base && ruleDefinition(base), ruleDefinition(theirs)),
      ),
      p_expected_version: theirs["version"],
    }),
    check: ({ rule }) => {
      const parsed = parseRule(rule);
      if (parsed.ok) return null;
      return {
        code: "invalid_rule",
        message: parsed.error[0] ? describeProblem(parsed.error[0]) : "The rule does not hold.",
        advice: "Mend it where it is marked.",
        details: JSON.stringify(parsed.error),
      };
    },
    isOffered: () => true,
    words: {
      button: "Save",
      title: "Save the rule",
      summary: (rule) => `Change ${rule}`,
      done: (rule, { rule: { mode }, until }, when) =>
        `${rule} is saved${mode === "shadow" ? ", in shadow" : mode === "off" ? ", off" : ""}${until ? `, until ${when(until)}` : ""}`,
      failed: (rule) => `${rule} was not saved`,
    },
    undo: (before) =>
      before["version"]
        ? {
            act: "save_rule",
            fields: { rule: ruleDefinition(before), reason: "Undo of the change just made" },
          }
        : { act: "retire_rule", fields: { reason: "Undo of the rule just made" } },
  }),
  retire_rule: act({
    operation: "rules.retire",
    subject: "rule",
    fields: { reason },
    rpc: "console_retire_rule",
    parameters: ({ reason: why }, seen) => ({ p_rule_name: seen?.["rule_name"], p_reason: why }),
    changes: { is_retired: () => true },
    conflict: "version",
    rebase: (_parameters, theirs) => ({ p_expected_version: theirs["version"] }),
    isOffered: () => true,
    words: {
      button: "Retire",
      title: "Retire the rule",
      summary: (rule) => `Retire ${rule}`,
      done: (rule) => `${rule} is retired`,
      failed: (rule) => `${rule} was not retired`,
      hint: "It stays in the history, and can come back.",
      isDangerous: true,
    },
    undo: (before) => ({
      act: "save_rule",
      fields: { rule: ruleDefinition(before), reason: "Undo of the retirement" },
    }),
  }),
  save_config: act({
    operation: "plans.save",
    subject: "config",
    fields: {
      kind: z.string(),
      key: z.string(),
      record: z.record(z.string(), z.unknown()).nullable(),
      reason,
    },
    rpc: "console_save_config",
    parameters: ({ kind, key, record, reason: why }) => ({
      p_kind: kind,
      p_key: key,
      p_record: record,
      p_reason: why,
    }),
    changes: { record: ({ record }) => record, is_retired: ({ record }) => record === null },
    conflict: "version",
    rebase: (parameters, theirs, base) => ({
      p_record:
        parameters["p_record"] === null
          ? null
          : mergeConfig(
              parameters["p_record"] as Seen,
              (base?.["record"] ?? null) as Seen | null,
              theirs["record"] as Seen,
            ),
      p_expected_version: theirs["version"],
    }),
    isOffered: () => true,
    words: {
      button: "Save",
      title: "Save",
      summary: (id, { record }) => `${record === null ? "Retire" : "Change"} ${id.replace(":", " ")}`,
      done: (name, { record }) => `${name} is ${record === null ? "retired" : "saved"}`,
      failed: (name) => `${name} was not saved`,
    },
    undo: (before) => ({
      act: "save_config",
      fields: {
        kind: before["kind"],
        key: before["key"],
        record: before["version"] ? before["record"] : null,
        reason: "Undo of the change just made",
      },
    }),
  }),
  acknowledge_alert: act({
    operation: "alerts.acknowledge",
    subject: "alert",
    fields: {},
    rpc: "console_acknowledge_alert",
    parameters: () => ({}),
    changes: { acknowledged: () => true },
    // Who acknowledged it first stays in the record.
    conflict: "none",
    isOffered: (alert) => alert["acknowledged_at"] === null,
    words: {
      button: "Acknowledge",
      title: "Acknowledge",
      key: "a",
      summary: (alert) => `Acknowledge alert ${alert}`,
      done: () => "Acknowledged",
      failed: () => "Not acknowledged",
    },
  }),
} as const;

export type ActName = keyof typeof acts;
export const actNames = Object.keys(acts) as [ActName, ...ActName[]];
type ActOf<Subject extends SubjectName> = {
  [Name in ActName]: (typeof acts)[Name]["subject"] extends Subject ? Name : never;
}[ActName];
export type ActInput<Name extends ActName> = z.output<(typeof acts)[Name]["input"]>;

/** An act without its exact types, as the outbox and the forms use it. */
type AnyAct = Description<string, SubjectName, z.ZodRawShape>;
export const actNamed = (name: ActName): AnyAct => acts[name] as unknown as AnyAct;

/** What an act sets, with what the operator gave. */
export const changesOf = (name: ActName, fields: Seen): Seen =>
  Object.fromEntries(Object.entries(actNamed(name).changes).map(([key, value]) => [key, value(fields)]));

/** The contract's operations of the acts on one subject, each with this output. */
export function actOperations<Subject extends SubjectName, Output extends z.ZodType>(
  subject: Subject,
  output: Output,
) {
  const found = Object.values(acts).filter((each) => each.subject === subject);
  return Object.fromEntries(found.map(({ operation, input }) => [operation, { input, output }])) as {
    [Name in ActOf<Subject> as (typeof acts)[Name]["operation"]]: {
      input: (typeof acts)[Name]["input"];
      output: Output;
    };
  };
}

/** The block that a record had and that would still be in force, as the act that makes it; a rule's as an operator's. */
function standingBlock(before: Seen, now: Date): { readonly act: string; readonly fields: Seen } | null {
  const until = (before["blocked_until"] ?? null) as string | null;
  if (before["is_blocked"] !== true || (until !== null && Date.parse(until) <= now.getTime())) return null;
  return { act: "block_user", fields: { reason: before["block_reason"] ?? "Block put back", until } };
}

const modeWords = { enforce: "enforced", shadow: "shadow", off: "off" } as const;

/** What `save_rule` takes of a rule as `list_rules` gives it. */
export function ruleDefinition(rule: Seen): Seen {
  const { rule_name, rule_type, conditions, action, priority, mode, applies_to, description } = rule;
  const given = { rule_type, priority, applies_to, description };
  return {
    rule_name,
    conditions,
    action,
    mode: mode ?? "enforce",
    is_active: mode !== "off",
    ...Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  };
}
