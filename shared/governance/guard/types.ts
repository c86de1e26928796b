import type { Result } from "../result.ts";
import type { ReadUsage } from "../usage/response.ts";
import type { UsageProblem } from "../usage/counts.ts";
import type { EstimateLearner } from "../usage/estimate.ts";

/** Anything with supabase-js's `rpc`: the one way to the database. */
export interface RpcClient {
  rpc(name: string, args: Record<string, unknown>): PromiseLike<RpcReply>;
}

/** What supabase-js answers. */
export interface RpcReply {
  readonly data: unknown;
  readonly error: RpcError | null;
  /** HTTP status; 0 or absent when no answer came. */
  readonly status?: number;
}

/** An error as PostgREST reports it: SQLSTATE or its own code, and our word in `hint`. */
export interface RpcError {
  readonly message: string;
  readonly code?: string | null;
  readonly details?: unknown;
  readonly hint?: string | null;
}

/** Tokens by kind. `total = subscription + purchased + promotional = available + reserved`. */
export interface Balance {
  readonly available: number;
  readonly reserved: number;
  readonly subscription: number;
  readonly purchased: number;
  readonly promotional: number;
  readonly debt: number;
  readonly total: number;
}

/** A limit of the plan in tokens, with this call; `limit` and `remaining` are null where there is none. */
export interface LimitState {
  readonly limit: number | null;
  readonly used: number;
  readonly remaining: number | null;
  readonly resets_at: string;
}

/** What `authorize_usage` answers (docs/guides/integrate.md, "Every answer"). Tokens are whole. */
export interface AuthorizeAnswer {
  readonly request_id: string;
  readonly decision: "allow" | "warn" | "block";
  readonly reason: string | null;
  readonly http_status: number;
  readonly message: string | null;
  readonly requested_model: string;
  readonly model: string;
  readonly truncate_to_words: number | null;
  /** What the call is expected to use; `reserved_tokens` is that with the factors of rules. */
  readonly estimated_tokens?: number;
  readonly reserved_tokens: number;
  readonly expires_at: string | null;
  readonly retry_after_seconds: number | null;
  /** With `insufficient_tokens`: tokens needed, free, and missing. */
  readonly shortfall?: { readonly need: number; readonly have: number; readonly missing: number } | null;
  /** The plan that would help, and where to take it (the setting `upgrade_url`). */
  readonly upgrade: { readonly plan_id: string; readonly name: string; readonly url?: string } | null;
  /** Where the user can buy tokens (the setting `buy_url`), where that helps. */
  readonly buy_url?: string | null;
  /** Where a blocked user reaches a person (the setting `contact_url`). */
  readonly contact_url?: string | null;
  readonly balance: Balance | null;
  readonly limits?: { readonly daily: LimitState; readonly monthly: LimitState } | null;
  readonly warnings: readonly string[];
  /** Whether a call is made while nobody can be asked, by the user's plan. */
  readonly fail_mode?: "closed" | "open";
  readonly decision_id: number | null;
  readonly [key: string]: unknown;
}

/** A call to be guarded. */
export interface GuardRequest {
  /**
   * The key of this call; one is made where none is given. The same key is authorised and held once. A repeat that
   * reaches the provider again is another use, and is charged as such. Where no answer came, what the key may hold is
   * left to the repeat; without one it expires.
   */
  readonly request_id?: string;
  readonly user: string;
  readonly model: string;
  readonly task?: string;
  /** The user's message, for the rules about messages; never stored. Leave out for jobs. */
  readonly message?: string;
  readonly conversation?: string;
  /** Brand, team or project that the call is for. */
  readonly scope?: string;
  /** Tokens to hold, where the caller knows better than the estimates. */
  readonly estimated_tokens?: number;
  /** 0 to 1, where the caller has its own score. */
  readonly complexity?: number;
  /** Tokens of the whole prompt, where known: what a stream that broke before its usage came is charged for input. */
  readonly input_tokens?: number;
  /**
   * The caller may leave: a call that waits is not made then, one that runs is aborted as by its time-out, and a stream
   * is charged as if its reader had left it, and throws the signal's reason.
   */
  readonly signal?: StopSignal;
}

/** What the call is given. */
export interface CallContext {
  readonly request_id: string;
  /** The model to use: the requested one, or where a rule sent it. */
  readonly model: string;
  /** The message, shortened where a rule asks for it; undefined without one. */
  readonly message: string | undefined;
  readonly truncate_to_words: number | null;
  /**
   * Runs when the call takes too long or nobody reads its stream any more: stop the provider there. Given later than
   * that, it runs at once.
   */
  readonly onAbort: (run: () => void) => void;
}

/** Why a call was not made or did not end well. */
export type GuardFailure =
  /** The decision was block: `answer` says all. */
  | {
      readonly kind: "blocked";
      readonly http_status: number;
      readonly reason: string;
      readonly answer: AuthorizeAnswer;
    }
  /** No decision could be had and the plan's fail mode is closed. */
  | { readonly kind: "unavailable"; readonly http_status: 503; readonly reason: string }
  /** The caller's `signal` was aborted before the call was made; `cause` is the signal's reason. */
  | {
      readonly kind: "aborted";
      readonly http_status: 499;
      readonly reason: string;
      readonly cause: unknown;
    }
  /** The database refused the question: a mistake of the caller's. */
  | { readonly kind: "misuse"; readonly http_status: number; readonly reason: string }
  /** The provider's call threw; its tokens were given back, but for usage that the error reports. */
  | {
      readonly kind: "call_failed";
      readonly http_status: 502;
      readonly reason: string;
      readonly cause: unknown;
    }
  /** The provider's call took longer than allowed. If it ends after all, it is settled then; else its hold expires. */
  | { readonly kind: "call_timed_out"; readonly http_status: 504; readonly reason: string };

/** How a settlement ended, once it did. */
export type SettlementOutcome =
  | {
      readonly status: "settled" | "released" | "quarantined";
      readonly answer: Readonly<Record<string, unknown>>;
    }
  /** Kept in the store (in memory, where the store fails); sent again when the database is back. */
  | { readonly status: "queued" }
  /** Refused for good (see `parked`): a person must look. */
  | { readonly status: "parked"; readonly reason: string };

/** A call that was made. Its settlement is on its way. */
export interface Guarded<T> {
  readonly value: T;
  readonly request_id: string;
  /** null when the database was away and the plan's fail mode is open. */
  readonly answer: AuthorizeAnswer | null;
  /** Never rejects. The response need not wait for it. */
  readonly settlement: Promise<SettlementOutcome>;
}

/** A guarded call, or why it was not made or did not end well. */
export type GuardResult<T> = Result<Guarded<T>, GuardFailure>;

/** One settlement that is still owed to the database. Plain JSON. */
export interface QueuedSettlement {
  /**
   * The id of the entry in its store. A request id would not do: a repeated key may owe twice. A repeat of a key that
   * had ended already (the provider was asked twice, so it was used twice) is charged under it.
   */
  readonly id: string;
  readonly request_id: string;
  readonly function: "settle_usage" | "release_usage";
  readonly args: Readonly<Record<string, unknown>>;
  readonly queued_at_ms: number;
  /**
   * On settlements: how the call was asked for, without its message. A call that the database does not know is
   * authorised by it now.
   */
  readonly call_args?: Readonly<Record<string, unknown>>;
  /** Why it can never be sent; such entries are kept for a person and not tried again. */
  readonly parked?: string;
}

/** Where settlements wait, by their `id`. Must survive a restart to keep the promise that none is lost. */
export interface SettlementStore {
  /** Adds the entry, or replaces the one of the same `id`. */
  put(entry: QueuedSettlement): Promise<void>;
  /** Removes the entry of this `id`; nothing where there is none. */
  remove(id: string): Promise<void>;
  /** All entries, oldest first. */
  list(): Promise<readonly QueuedSettlement[]>;
}

/** Something a person should know of; never an exception. */
export interface GuardProblem {
  readonly kind:
    | "usage_unknown"
    /** A call threw without usage after its provider may have worked; its tokens were given back. */
    | "released_unsure"
    /** A call was cut off and its usage is not known; what was expected of it is charged. */
    | "settled_unsure"
    | "settlement_parked"
    | "settlement_quarantined"
    | "store_failed"
    | "ran_unauthorized"
    | "malformed_answer";
  readonly request_id: string;
  readonly message: string;
}

/** A call that was cut off: its provider may have worked, and nothing reported what it used. */
export interface UnsureCall {
  readonly request_id: string;
  readonly user: string;
  /** The model that was to be asked. */
  readonly model: string;
  /** How it ended, in words. */
  readonly reason: string;
  /** What was thrown; undefined where the call never ended. */
  readonly cause: unknown;
}

/**
 * What becomes of a call that was cut off without usage: its estimate is charged, its tokens are given back, or the
 * provider's own record decides. Of a record (the provider's response, or anything with its usage) the counts are read
 * and charged; null says that the provider did no work; where it rejects or reports no counts, the estimate is charged.
 */
export type UnsureSetting = "estimate" | "release" | ((call: UnsureCall) => Promise<unknown>);

/** How calls travel together (`batchCalls`). */
export interface BatchOptions {
  /** Calls in one batch, at most 500. Default 128; 1 sends every call by itself. */
  readonly mostCalls?: number;
  /** Bytes in one batch; a larger call goes by itself. Default 1,000,000. */
  readonly mostBytes?: number;
  /** Batches under way at once, but for slow ones. Default 2. */
  readonly mostBatches?: number;
  /** Calls that may wait for a batch; a call more is refused at once. Default 10,000. */
  readonly mostWaiting?: number;
  /** Bytes that may wait. Default 64,000,000. */
  readonly mostWaitingBytes?: number;
}

/** An answer under way. */
export interface PendingReply extends Promise<RpcReply> {
  /** Stops waiting for the answer; true where the call had not been sent, and never will be. */
  cancel(): boolean;
}

/** A client whose calls travel in batches. */
export interface BatchingClient extends RpcClient {
  rpc(name: string, args: Record<string, unknown>): PendingReply;
  /** Calls that wait for a batch. */
  readonly waiting: number;
}

/** What the guard needs of an AbortSignal. */
export interface StopSignal {
  readonly aborted: boolean;
  /** Why it was aborted. */
  readonly reason?: unknown;
  addEventListener(type: "abort", run: () => void): void;
  removeEventListener(type: "abort", run: () => void): void;
}

/** What a guard is made of: the database, a store, and the runtime's clock, timer and ids. Times are ms. */
export interface GuardOptions {
  readonly client: RpcClient;
  readonly store: SettlementStore;
  /**
   * What the project's Health calls this backend's queue, "backend" by default. Each store has a name of its own; the
   * processes that share one share its name.
   */
  readonly name?: string;
  /** The current time in ms since 1970. */
  readonly now: () => number;
  /** Calls `run` after `ms` unless the answer is called before: setTimeout and clearTimeout. */
  readonly timer: (run: () => void, ms: number) => () => void;
  /** A new unguessable key: crypto.randomUUID. */
  readonly newId: () => string;
  /** How long one question to the database may take. Default 5,000. */
  readonly rpcTimeoutMs?: number;
  /** How often a question with an unknown outcome is asked again, with the same key. Default 3. */
  readonly rpcRetries?: number;
  /** Pause before the first repeat; it doubles each time. Default 100. */
  readonly retryDelayMs?: number;
  /** How calls that wait for the database travel together. */
  readonly batch?: BatchOptions;
  /** How long a call may take. Default 300,000. */
  readonly callTimeoutMs?: number;
  /** What becomes of a call that timed out, was stopped, or lost its connection. Default "estimate". */
  readonly unsure?: UnsureSetting;
  /** How long a stream may be silent. Default 60,000. */
  readonly chunkTimeoutMs?: number;
  /**
   * What to do for a user when no decision can be had; by default the fail mode of the user's plan, as last known, else
   * closed.
   */
  readonly failMode?: (user: string) => "closed" | "open";
  /** Keeps the process awake until a settlement was sent: an Edge runtime's waitUntil. */
  readonly waitUntil?: (promise: Promise<unknown>) => void;
  readonly onProblem?: (problem: GuardProblem) => void;
  /**
   * Learns what calls really use, and says what to hold for a call that gives neither `estimated_tokens` nor
   * `request_id` (a repeated key must repeat its parameters). Without it the database's own estimates hold.
   */
  readonly learner?: EstimateLearner;
}

/** How to read counts from a result that is not a provider's own response. */
export interface CallOptions<T> {
  readonly readUsage?: (value: T) => Result<ReadUsage, UsageProblem>;
}
