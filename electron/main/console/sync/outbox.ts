/**
 * The outbox. An operator's act is written here first, then sent once under its command id. Without a connection it
 * waits, over restarts too; what somebody else changed in the meantime becomes a conflict for a person to decide.
 */
import { randomUUID } from "node:crypto";
import { z } from "zod";
import {
  accountState,
  actNamed,
  type Failure,
  type Intent,
  rule,
  type Seen,
  type SubjectName,
} from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Backend } from "../../backend/backend.ts";
import { isUnreachable } from "../../backend/failures.ts";
import type { OutboxEntry, Store } from "../../store/store.ts";

export interface NewIntent {
  readonly command_id: string;
  readonly kind: Intent["kind"];
  readonly subject: string;
  readonly summary: string;
  /** The arguments of the kind's function but the command id. */
  readonly payload: Readonly<Record<string, unknown>>;
  /** What the operator saw, and wants. */
  readonly base: Readonly<Record<string, unknown>> | null;
  readonly mine: Readonly<Record<string, unknown>>;
}

export interface Acted {
  readonly intent: Intent;
  /** What the project answered; null while the intent waits. */
  readonly answer: unknown;
}

export interface OutboxOptions {
  readonly store: Store;
  readonly now: () => Date;
  readonly onChange: (intents: Intent[]) => void;
  readonly onConflict: (intent: Intent) => void;
}

/** How long an act still says what the operator means. */
const lifetimeMs = 24 * 3_600_000;
const maxPending = 1_000;
const maxAttempts = 5;

/** Refusals of the connection, not of the act: it waits until that is put right. */
const connectionCodes: ReadonlySet<string> = new Set([
  "wrong_key",
  "expired_key",
  "wrong_role",
  "missing_function",
  "busy",
  "cancelled",
]);

export type Outbox = ReturnType<typeof createOutbox>;

export function createOutbox({ store, now, onChange, onConflict }: OutboxOptions) {
  /** One sender at a time: order is kept, nothing goes out twice. */
  let sending: Promise<unknown> = Promise.resolve();
  /** Answers of intents that were acknowledged while someone waits for them. */
  const answers = new Map<string, unknown>();

  function list(profileId: string): Intent[] {
    return store.listIntents(profileId).map(toIntent).reverse();
  }

  function keep(entry: OutboxEntry): OutboxEntry {
    store.putIntent(entry);
    onChange(list(entry.profile_id));
    return entry;
  }

  function serially<T>(work: () => Promise<T>): Promise<T> {
    const next = sending.then(work, work);
    sending = next.catch(() => {});
    return next;
  }

  /** Sends one entry, if it is still to be sent, and keeps what came of it. */
  async function send(backend: Backend, commandId: string): Promise<void> {
    const entry = store.getIntent(commandId);
    if (entry?.status !== "pending") return;
    if (now().toISOString() > entry.expires_at) {
      keep({ ...entry, status: "expired", failure: expired });
      return;
    }
    // Counted before it goes: after a crash it is known that it may have arrived.
    const tried = { ...entry, attempts: entry.attempts + 1 };
    store.putIntent(tried);
    const result = await backend.rpc(
      actNamed(entry.kind).rpc,
      { p_command_id: entry.command_id, ...entry.payload },
      z.unknown(),
    );
    if (result.ok) {
      answers.set(commandId, result.value);
      keep({ ...tried, status: "acknowledged", failure: null, theirs: result.value ?? null });
      rebaseFollowing(tried, result.value);
    } else if (result.error.code === "version_conflict") {
      const theirs = readRecord(tried, result.error.details);
      const merged = theirs === null || tried.attempts >= maxAttempts ? null : merge(tried, theirs);
      if (merged === null) {
        conflict(tried, theirs);
      } else {
        store.putIntent(merged);
        await send(backend, commandId);
      }
    } else if (isUnreachable(result.error) || connectionCodes.has(result.error.code)) {
      keep({ ...tried, failure: result.error });
    } else if (result.error.code === "project_error" && tried.attempts < maxAttempts) {
      keep({ ...tried, failure: result.error });
    } else {
      keep({ ...tried, status: "failed", failure: result.error });
    }
  }

  /** What waits behind an act on the same record was made on top of it: what the act set is no conflict for it. */
  function rebaseFollowing(sent: OutboxEntry, answer: unknown): void {
    const { subject, changes } = actNamed(sent.kind);
    const left = readRecord(sent, JSON.stringify(answer ?? null));
    if (left === null) return;
    for (const entry of store.listPendingIntents(sent.profile_id)) {
      const base = entry.base as Seen | null;
      if (base === null || entry.subject !== sent.subject || actNamed(entry.kind).subject !== subject)
        continue;
      const isNext = left["version"] === (base["version"] as number) + 1;
      // With others' changes in between only what the act set is known to be ours.
      const ours = Object.fromEntries(Object.keys(changes).map((field) => [field, left[field] ?? null]));
      store.putIntent(isNext ? rebased(entry, left) : { ...entry, base: { ...base, ...ours } });
    }
  }

  function conflict(entry: OutboxEntry, theirs: unknown): void {
    const kept = keep({ ...entry, status: "conflict", theirs, failure: conflicted });
    onConflict(toIntent(kept));
  }

  return {
    list,

    /** Writes the intent, then tries to send it. The same command again answers what came of the first. */
    async submit(
      profileId: string,
      backend: Backend | null,
      wanted: NewIntent,
    ): Promise<Result<Acted, Failure>> {
      const existing = store.getIntent(wanted.command_id);
      if (existing) {
        const isSame =
          existing.kind === wanted.kind &&
          existing.subject === wanted.subject &&
          existing.profile_id === profileId &&
          JSON.stringify(existing.payload) === JSON.stringify(wanted.payload);
        return isSame ? ok({ intent: toIntent(existing), answer: existing.theirs }) : fail(reused);
      }
      if (store.listPendingIntents(profileId).length >= maxPending) {
        return fail(tooMany);
      }
      const at = now();
      keep({
        ...wanted,
        profile_id: profileId,
        status: "pending",
        created_at: at.toISOString(),
        expires_at: new Date(at.getTime() + lifetimeMs).toISOString(),
        attempts: 0,
        failure: null,
        theirs: null,
      });
      if (backend) await serially(() => send(backend, wanted.command_id));
      const entry = store.getIntent(wanted.command_id);
      if (!entry) return fail(gone);
      const answer = answers.get(wanted.command_id) ?? null;
      answers.delete(wanted.command_id);
      return ok({ intent: toIntent(entry), answer });
    },

    /** Sends what waits, oldest first, and stops at the first that cannot be sent now. */
    sendPending(profileId: string, backend: Backend): Promise<void> {
      return serially(async () => {
        for (const { command_id: id } of store.listPendingIntents(profileId)) {
          await send(backend, id);
          answers.delete(id);
          if (store.getIntent(id)?.status === "pending") break;
        }
      });
    },

    /** A person's decision on a conflict or failure. */
    resolve(
      profileId: string,
      backend: Backend | null,
      commandId: string,
      choice: "mine" | "theirs",
    ): Promise<Result<Intent[], Failure>> {
      return serially(async () => {
        const entry = store.getIntent(commandId);
        if (!entry || entry.profile_id !== profileId) return fail(gone);
        if (entry.status === "acknowledged") return fail(done);
        store.removeIntent(commandId);
        if (choice === "mine") {
          const renewed = entry.status === "pending" ? entry : renew(entry, now());
          store.putIntent(renewed);
          if (backend) await send(backend, renewed.command_id);
          answers.delete(renewed.command_id);
        }
        const intents = list(profileId);
        onChange(intents);
        return ok(intents);
      });
    },
  };
}

/** The same act under a new command, on top of what the project has now. */
function renew(entry: OutboxEntry, at: Date): OutboxEntry {
  return {
    ...rebased(entry, (entry.theirs ?? entry.base) as Seen | null),
    command_id: randomUUID(),
    status: "pending",
    attempts: 0,
    failure: null,
    theirs: null,
    created_at: at.toISOString(),
    expires_at: new Date(at.getTime() + lifetimeMs).toISOString(),
  };
}

/** The same act, based on this record. */
function rebased(entry: OutboxEntry, base: Seen | null): OutboxEntry {
  const { rebase } = actNamed(entry.kind);
  return {
    ...entry,
    base,
    payload:
      rebase && base
        ? { ...entry.payload, ...rebase(entry.payload, base, entry.base as Seen | null) }
        : entry.payload,
  };
}

/** The act on the newer record, where others changed nothing that it sets; else null: a person decides. */
function merge(entry: OutboxEntry, theirs: Seen): OutboxEntry | null {
  const { mergesOtherChanges, changes } = actNamed(entry.kind);
  const base = entry.base as Seen | null;
  if (!mergesOtherChanges || base === null) return null;
  const isTouched = Object.keys(changes).some((field) => (theirs[field] ?? null) !== (base[field] ?? null));
  return isTouched ? null : rebased(entry, theirs);
}

const records: Readonly<Record<SubjectName, z.ZodObject | null>> = {
  // Without what is not the account's own state: balance and limits change with every call.
  user: z.object(accountState.shape),
  rule,
  alert: null,
};

/** The record that a refusal's details or an answer carry; null where they carry none. */
function readRecord(entry: OutboxEntry, text: string | null): Seen | null {
  try {
    const read = JSON.parse(text ?? "") as Seen | null;
    return records[actNamed(entry.kind).subject]?.safeParse(read?.["account"] ?? read).data ?? null;
  } catch {
    return null;
  }
}

function toIntent({ profile_id: _profile, payload: _payload, ...intent }: OutboxEntry): Intent {
  return intent;
}

const expired: Failure = {
  code: "expired",
  message: "This waited so long for a connection that it was not sent.",
  advice: "Look at how things stand now, and do it again if it is still right.",
  details: null,
};
const conflicted: Failure = {
  code: "version_conflict",
  message: "Somebody else changed this in the meantime.",
  advice: "Compare what you wanted with what is there now, and choose.",
  details: null,
};
const reused: Failure = {
  code: "idempotency_conflict",
  message: "This command was used before for something else.",
  advice: "Start the action anew.",
  details: null,
};
const gone: Failure = {
  code: "not_found",
  message: "This action is not waiting any more.",
  advice: "It may have been decided in another window.",
  details: null,
};
const done: Failure = {
  code: "already_done",
  message: "The project has done this already.",
  advice: null,
  details: null,
};
const tooMany: Failure = {
  code: "outbox_full",
  message: "Too many actions wait for a connection.",
  advice: "Connect first, or drop some that wait.",
  details: null,
};
