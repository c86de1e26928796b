/**
 * The outbox. An operator's act is written here first, then sent once under its command id. Without a connection it
 * waits, also over restarts. If somebody else changed the same thing in the meantime, a person decides.
 */
import { randomUUID } from "node:crypto";
import { z } from "zod";
import {
  accountState,
  actNamed,
  configRecord,
  type Failure,
  type Intent,
  rule,
  type Seen,
  type SubjectName,
} from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Backend } from "../../backend/backend.ts";
import { isUnreachable } from "../../backend/failures.ts";
import type { OutboxEntry } from "../../store/intents.ts";
import type { Store } from "../../store/store.ts";

interface NewIntent {
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

interface Acted {
  readonly intent: Intent;
  /** What the project answered; null while the intent waits. */
  readonly answer: unknown;
}

interface OutboxOptions {
  readonly store: Store;
  readonly now: () => Date;
  readonly onChange: () => void;
  readonly onConflict: (intent: Intent) => void;
}

/** An act older than this is not sent: the operator may not want it any more. */
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
  "read_only",
]);

export type Outbox = ReturnType<typeof createOutbox>;

interface OutboxState extends OutboxOptions {
  /** One sender at a time: order is kept, nothing goes out twice. */
  sending: Promise<unknown>;
}

export function createOutbox(options: OutboxOptions) {
  const outbox: OutboxState = { ...options, sending: Promise.resolve() };
  return {
    list: (profileId: string): Intent[] => list(outbox, profileId),

    /** Writes the intent, then tries to send it. The same command again answers what came of the first. */
    submit: (
      profileId: string,
      backend: Backend | null,
      wanted: NewIntent,
    ): Promise<Result<Acted, Failure>> => submit(outbox, profileId, backend, wanted),

    /** Sends what waits, oldest first, and stops at the first that cannot be sent now. */
    sendPending: (profileId: string, backend: Backend): Promise<void> =>
      serially(outbox, () => sendPending(outbox, profileId, backend)),

    /** A person's decision on a conflict or failure. */
    resolve: (
      profileId: string,
      backend: Backend | null,
      commandId: string,
      choice: "mine" | "theirs",
    ): Promise<Result<Intent[], Failure>> =>
      serially(outbox, () => resolve(outbox, profileId, backend, commandId, choice)),
  };
}

function list({ store }: OutboxState, profileId: string): Intent[] {
  return store.listIntents(profileId).map(toIntent).reverse();
}

function keep(outbox: OutboxState, entry: OutboxEntry): OutboxEntry {
  outbox.store.putIntent(entry);
  outbox.onChange();
  return entry;
}

function serially<T>(outbox: OutboxState, work: () => Promise<T>): Promise<T> {
  const next = outbox.sending.then(work, work);
  outbox.sending = next.catch(() => {});
  return next;
}

async function submit(
  outbox: OutboxState,
  profileId: string,
  backend: Backend | null,
  wanted: NewIntent,
): Promise<Result<Acted, Failure>> {
  const { store } = outbox;
  const existing = store.getIntent(wanted.command_id);
  if (existing) {
    return isSameAct(existing, profileId, wanted) ? ok(actedBy(existing)) : fail(reused);
  }
  if (store.listPendingIntents(profileId).length >= maxPending) return fail(tooMany);
  keep(outbox, { ...wanted, profile_id: profileId, ...unsent(outbox.now()) });
  if (backend) await serially(outbox, () => send(outbox, backend, wanted.command_id));
  const entry = store.getIntent(wanted.command_id);
  if (!entry) return fail(gone);
  return ok(actedBy(entry));
}

function actedBy(entry: OutboxEntry): Acted {
  return { intent: toIntent(entry), answer: entry.status === "acknowledged" ? entry.theirs : null };
}

function isSameAct(existing: OutboxEntry, profileId: string, wanted: NewIntent): boolean {
  return (
    existing.kind === wanted.kind &&
    existing.subject === wanted.subject &&
    existing.profile_id === profileId &&
    JSON.stringify(existing.payload) === JSON.stringify(wanted.payload)
  );
}

async function sendPending(outbox: OutboxState, profileId: string, backend: Backend): Promise<void> {
  for (const { command_id: id } of outbox.store.listPendingIntents(profileId)) {
    await send(outbox, backend, id);
    if (outbox.store.getIntent(id)?.status === "pending") break;
  }
}

async function resolve(
  outbox: OutboxState,
  profileId: string,
  backend: Backend | null,
  commandId: string,
  choice: "mine" | "theirs",
): Promise<Result<Intent[], Failure>> {
  const { store } = outbox;
  const entry = store.getIntent(commandId);
  if (!entry || entry.profile_id !== profileId) return fail(gone);
  if (entry.status === "acknowledged") return fail(done);
  store.removeIntent(commandId);
  if (choice === "mine") {
    const renewed = entry.status === "pending" ? entry : renew(entry, outbox.now());
    store.putIntent(renewed);
    if (backend) await send(outbox, backend, renewed.command_id);
  }
  outbox.onChange();
  return ok(list(outbox, profileId));
}

/** Sends one entry, if it is still to be sent, and keeps what came of it. */
async function send(outbox: OutboxState, backend: Backend, commandId: string): Promise<void> {
  const entry = outbox.store.getIntent(commandId);
  if (entry?.status !== "pending") return;
  if (outbox.now().toISOString() > entry.expires_at) {
    keep(outbox, { ...entry, status: "expired", failure: expired });
    return;
  }
  // Counted before it goes: after a crash it is known that it may have arrived.
  const tried = { ...entry, attempts: entry.attempts + 1 };
  outbox.store.putIntent(tried);
  const result = await backend.rpc(
    actNamed(entry.kind).rpc,
    { p_command_id: entry.command_id, ...entry.payload },
    z.unknown(),
  );
  if (result.ok) {
    keep(outbox, { ...tried, status: "acknowledged", failure: null, theirs: result.value ?? null });
    rebaseFollowing(outbox, tried, result.value);
  } else if (result.error.code === "version_conflict") {
    await mergeOrAsk(outbox, backend, tried, result.error);
  } else if (isSentLater(tried, result.error)) {
    keep(outbox, { ...tried, failure: result.error });
  } else {
    keep(outbox, { ...tried, status: "failed", failure: result.error });
  }
}

function isSentLater({ attempts }: OutboxEntry, failure: Failure): boolean {
  return (
    isUnreachable(failure) ||
    connectionCodes.has(failure.code) ||
    (failure.code === "project_error" && attempts < maxAttempts)
  );
}

/** After a conflict of versions: sends the act on the newer record, or leaves it to a person. */
async function mergeOrAsk(
  outbox: OutboxState,
  backend: Backend,
  tried: OutboxEntry,
  failure: Failure,
): Promise<void> {
  const theirs = readRecord(tried, failure.details);
  const merged = theirs === null || tried.attempts >= maxAttempts ? null : merge(tried, theirs);
  if (merged !== null) {
    outbox.store.putIntent(merged);
    return send(outbox, backend, tried.command_id);
  }
  outbox.onConflict(toIntent(keep(outbox, { ...tried, status: "conflict", theirs, failure: conflicted })));
}

/** What waits behind an act on the same record was made on top of it: what the act set is no conflict for it. */
function rebaseFollowing({ store }: OutboxState, sent: OutboxEntry, answer: unknown): void {
  const { subject, changes } = actNamed(sent.kind);
  const left = readRecord(sent, JSON.stringify(answer ?? null));
  if (left === null) return;
  for (const entry of store.listPendingIntents(sent.profile_id)) {
    const base = entry.base as Seen | null;
    if (base === null || entry.subject !== sent.subject || actNamed(entry.kind).subject !== subject) continue;
    const isNext = left["version"] === (base["version"] as number) + 1;
    // With others' changes in between only what the act set is known to be ours.
    const ours = Object.fromEntries(Object.keys(changes).map((field) => [field, left[field] ?? null]));
    store.putIntent(isNext ? rebased(entry, left) : { ...entry, base: { ...base, ...ours } });
  }
}

/** The state of an entry that nobody has tried to send. */
function unsent(at: Date) {
  return {
    status: "pending",
    created_at: at.toISOString(),
    expires_at: new Date(at.getTime() + lifetimeMs).toISOString(),
    attempts: 0,
    failure: null,
    theirs: null,
  } as const;
}

/** The same act under a new command, on top of what the project has now. */
function renew(entry: OutboxEntry, at: Date): OutboxEntry {
  return {
    ...rebased(entry, (entry.theirs ?? entry.base) as Seen | null),
    command_id: randomUUID(),
    ...unsent(at),
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
  config: configRecord.omit({ id: true }),
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
  advice: "Look at the current state, and do it again if it is still right.",
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
  advice: "Start the action again.",
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
