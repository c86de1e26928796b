/** How far a project's read replica is behind its primary, asked now and then. */
import { z } from "zod";
import type { ConnectionState, Failure } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { type Backend, createBackend } from "../../backend/backend.ts";

const replication = z.looseObject({
  is_replica: z.boolean(),
  server_time: z.string(),
  wal_position: z.number(),
  replayed_at: z.string().nullable(),
});

export type ReplicaState = NonNullable<ConnectionState["replica"]>;

const askEveryMs = 5_000;

/**
 * Asks the primary first, then the replica: one that has replayed what the primary had written by then is not behind.
 * Otherwise it is behind by the age of the last transaction that it replayed.
 */
async function askReplica(backend: Backend): Promise<ReplicaState | null> {
  if (!backend.replica) return null;
  const primary = await backend.rpc("console_replication", {}, replication);
  const replica = await backend.replica.rpc("console_replication", {}, replication);
  if (!replica.ok) return { lag_seconds: null, failure: replica.error };
  if (!primary.ok) return { lag_seconds: null, failure: null };
  if (replica.value.wal_position >= primary.value.wal_position) return { lag_seconds: 0, failure: null };
  const replayedAtMs = Date.parse(replica.value.replayed_at ?? "");
  const lagMs = Date.parse(replica.value.server_time) - replayedAtMs;
  return {
    lag_seconds: Number.isFinite(lagMs) ? Math.max(0, Math.round(lagMs / 1000)) : null,
    failure: null,
  };
}

/** Asks now and at intervals, while the project can be reached; answers how to stop. */
export function followReplica(
  backend: Backend,
  isReachable: () => boolean,
  onAnswer: (replica: ReplicaState | null) => void,
): () => void {
  let isStopped = false;
  const ask = async (): Promise<void> => {
    if (!backend.replica || !isReachable()) return;
    const answer = await askReplica(backend);
    if (!isStopped) onAnswer(answer);
  };
  const timer = setInterval(() => void ask(), askEveryMs);
  timer.unref();
  void ask();
  return () => {
    isStopped = true;
    clearInterval(timer);
  };
}

/** Whether an address that a person named is a read replica that takes the project's key. */
export async function checkReplica(readUrl: string, key: string): Promise<Result<object, Failure>> {
  const backend = createBackend({ url: readUrl, key, readUrl });
  try {
    const answer = await backend.replica?.rpc("console_replication", {}, replication, { timeoutMs: 10_000 });
    if (!answer) return ok({});
    if (!answer.ok) {
      return fail({ ...answer.error, message: `The read replica: ${answer.error.message}` });
    }
    if (answer.value.is_replica) return ok({});
    return fail({
      code: "not_a_replica",
      message: "What answers at the replica's address is a primary, not a read replica.",
      advice: "Copy the address of the read replica, or leave the field empty.",
      details: null,
    });
  } finally {
    await backend.close();
  }
}
