/** Runs the acts of shared/contract/acts.ts: an operation each, through the outbox. */
import {
  accountState,
  type ActInput,
  type ActName,
  acts,
  actNamed,
  actNames,
  changesOf,
  type Failure,
  rule,
  type Seen,
  type SubjectName,
  subjects,
} from "../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../shared/governance/result.ts";
import { readOnly } from "../backend/reading.ts";
import { notConnected } from "./connection/link.ts";
import type { DeskContext } from "./desk-context.ts";
import type { Handlers } from "./dispatch.ts";
import { answeredConfig, findConfig } from "./plans/records.ts";
import { findRule } from "./rules/rules.ts";
import { seenAccount } from "./users/users.ts";

type ActHandlers = Pick<Handlers, (typeof acts)[ActName]["operation"]>;

/** What each kind of subject needs: the record as the operator saw it, and the record in the function's answer. */
interface Subject {
  readonly seen: (
    context: DeskContext,
    profileId: string,
    input: Seen,
  ) => Promise<Result<Seen | null, Failure>> | Result<Seen | null, Failure>;
  readonly answered: (answer: unknown) => Seen;
}
const bySubject: Readonly<Record<SubjectName, Subject>> = {
  user: {
    seen: (context, _profileId, input) => ok(seenAccount(context, input["user_id"] as string)),
    answered: (answer) => ({
      account: accountState.safeParse((answer as Seen | null)?.["account"] ?? answer).data ?? null,
    }),
  },
  rule: {
    // Version 0 is a rule that is not there yet.
    seen: (context, profileId, input) =>
      input["expected_version"] === 0
        ? ok(null)
        : findRule(context, profileId, input["rule_name"] as string, input["expected_version"] as number),
    answered: (answer) => ({ rule: rule.safeParse(answer).data ?? null }),
  },
  alert: { seen: () => ok(null), answered: () => ({}) },
  config: {
    seen: (context, profileId, input) =>
      input["expected_version"] === 0
        ? ok(null)
        : findConfig(context, profileId, input["id"] as string, input["expected_version"] as number),
    answered: (answer) => ({ config: answeredConfig(answer) }),
  },
};

export function actHandlers(context: DeskContext): ActHandlers {
  return Object.fromEntries(
    actNames.map((name) => [
      acts[name].operation,
      (input: ActInput<ActName>) => runAct(context, name, input),
    ]),
  ) as unknown as ActHandlers;
}

async function runAct(context: DeskContext, name: ActName, input: Seen): Promise<Result<Seen, Failure>> {
  const { connection, outbox } = context;
  const act = actNamed(name);
  const { field, parameter } = subjects[act.subject];
  const { command_id: commandId, [field]: subject, ...fields } = input;
  const refused = act.check?.(fields, context.now());
  if (refused) return fail(refused);
  const project = connection.current();
  const { profileId } = project;
  if (profileId === null) return fail(notConnected);
  if (connection.state().profile?.is_read_only) return fail(readOnly);
  const { seen: lookUp, answered } = bySubject[act.subject];
  const seen = await lookUp(context, profileId, input);
  if (!seen.ok) return seen;
  const acted = await outbox.submit(profileId, project.backend(), {
    command_id: commandId as string,
    kind: name,
    subject: String(subject),
    summary: act.words.summary(String(subject), fields),
    payload: {
      ...(parameter === null ? {} : { [parameter]: subject }),
      // Made on the version that the screen showed, or that was last seen here.
      ...(act.conflict === "version"
        ? { p_expected_version: fields["expected_version"] ?? seen.value?.["version"] ?? null }
        : {}),
      p_operator: context.operator(),
      ...act.parameters(fields, seen.value),
    },
    base: seen.value,
    mine: { ...seen.value, ...changesOf(name, fields) },
  });
  if (!acted.ok) return acted;
  const { intent, answer } = acted.value;
  if (intent.status === "failed" && intent.failure) return fail(intent.failure);
  if (intent.status === "acknowledged") connection.wake();
  return ok({ intent, ...answered(answer) });
}
