/**
 * The outbox. An operator's act is written here first, then sent once under its command id. Without a connection it
 * waits, over restarts too; what somebody else changed in the meantime becomes a conflict for a person to decide.
 */
import { randomUUID } from "node:crypto";
import { z } from "zod";
import {
  accountDetail,
  actNamed,
  type Failure,
  type Intent,
  rule,
  type Seen,
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
/** An intent older than this waited, and others may have acted meanwhile. */
const freshMs = 10_000;
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
    const waited = now().getTime() - Date.parse(entry.created_at) > freshMs || entry.attempts > 0;
    if (waited && entry.base !== null && actNamed(entry.kind).conflict === "changed_fields") {
      const seen = await lookForConflict(backend, entry);
      if (seen !== null) {
        conflict(entry, seen);
        return;
      }
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
    } else if (result.error.code === "version_conflict") {
      conflict(tried, parseRule(result.error.details));
    } else if (isUnreachable(result.error) || connectionCodes.has(result.error.code)) {
      keep({ ...tried, failure: result.error });
    } else if (result.error.code === "project_error" && tried.attempts < maxAttempts) {
      keep({ ...tried, failure: result.error });
    } else {
      keep({ ...tried, status: "failed", failure: result.error });
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
  const theirs = (entry.theirs ?? entry.base) as Seen | null;
  const { rebase } = actNamed(entry.kind);
  return {
    ...entry,
    command_id: randomUUID(),
    status: "pending",
    attempts: 0,
    failure: null,
    base: theirs,
    theirs: null,
    created_at: at.toISOString(),
    expires_at: new Date(at.getTime() + lifetimeMs).toISOString(),
    payload: rebase ? { ...entry.payload, ...rebase(entry.payload, theirs ?? {}) } : entry.payload,
  };
}

const accountAnswer = accountDetail.pick({ account: true, audit: true });

/** The account as it is now, where others changed what the intent is about; else null. */
async function lookForConflict(backend: Backend, entry: OutboxEntry): Promise<unknown> {
  const now = await backend.rpc("console_get_account", { p_user_id: entry.subject }, accountAnswer);
  // Not to be told now: the send itself finds out why.
  if (!now.ok) return null;
  // It arrived, only its answer did not: sending it again gets that answer.
  const isOurs = now.value.audit.some(({ command_id: id }) => id === entry.command_id);
  if (isOurs) return null;
  const base = entry.base as Seen;
  const { account } = now.value;
  if (account.version === base.version) return null;
  return Object.keys(actNamed(entry.kind).changes).some(
    (field) => (account[field] ?? null) !== (base[field] ?? null),
  )
    ? account
    : null;
}

function parseRule(text: string | null): unknown {
  try {
    const parsed = rule.safeParse(JSON.parse(text ?? ""));
    return parsed.success ? parsed.data : null;
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
