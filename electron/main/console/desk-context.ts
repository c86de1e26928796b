/** What every desk gets: the project, the local store, and who acts. */
import type { z } from "zod";
import { actNamed, type SubjectName } from "../../../shared/contract/acts.ts";
import { type Failure, isReached } from "../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../shared/governance/result.ts";
import { isUnreachable } from "../backend/failures.ts";
import type { Store } from "../store/store.ts";
import type { Connection } from "./connection/connection.ts";
import { notConnected } from "./connection/link.ts";
import type { Outbox } from "./sync/outbox.ts";

export interface DeskContext {
  readonly store: Store;
  readonly connection: Connection;
  readonly outbox: Outbox;
  readonly operator: () => string;
  readonly now: () => Date;
}

export interface Answer<T> {
  readonly value: T;
  /** When the project answered this; null where it was just now. */
  readonly as_of: string | null;
}

/** Reads from the project and keeps the answer; while it cannot be reached, answers what was kept, with its age. */
export async function readThrough<S extends z.ZodType>(
  { store, connection, now }: DeskContext,
  snapshotName: string,
  rpcName: string,
  parameters: Readonly<Record<string, unknown>>,
  schema: S,
): Promise<Result<Answer<z.output<S>>, Failure>> {
  const profileId = connection.profileId();
  if (profileId === null) return fail(notConnected);
  const answer = await connection.rpc(rpcName, parameters, schema, { retries: 1 });
  if (answer.ok) {
    store.putSnapshot(profileId, snapshotName, answer.value, now().toISOString());
    return ok({ value: answer.value, as_of: null });
  }
  if (!mayBeOld(answer.error, connection)) return answer;
  const kept = store.getSnapshot(profileId, snapshotName);
  const parsed = kept === null ? null : schema.safeParse(kept.value);
  return kept && parsed?.success ? ok({ value: parsed.data, as_of: kept.at }) : fail(notKept(answer.error));
}

/** Puts on records that were kept here the operators' acts on them that wait to be sent: the screen shows them as done. */
export function withWaiting(
  { store, connection }: DeskContext,
  subject: SubjectName,
): <Kept extends object>(id: string, record: Kept) => Kept {
  const profileId = connection.profileId();
  const waiting = profileId === null ? [] : store.listPendingIntents(profileId);
  const ours = waiting.filter(({ kind }) => actNamed(kind).subject === subject);
  return (id, record) =>
    ours
      .filter((intent) => intent.subject === id)
      .reduce((now, { base, mine }) => ({ ...now, ...changes(base, mine) }), record);
}

/** What an act changes of the record that it was made on. */
function changes(base: unknown, mine: unknown): object {
  const before = new Map(Object.entries(base ?? {}));
  return Object.fromEntries(
    Object.entries(mine ?? {}).filter(
      ([name, value]) => JSON.stringify(value) !== JSON.stringify(before.get(name)),
    ),
  );
}

/** True where the last answer may be shown instead: the project could not be asked. */
export function mayBeOld(failure: Failure, connection: Connection): boolean {
  return isUnreachable(failure) || !isReached(connection.state().status);
}

function notKept(failure: Failure): Failure {
  return isUnreachable(failure)
    ? {
        ...failure,
        message: `${failure.message} This was not looked at before, so nothing of it is kept here.`,
      }
    : failure;
}
