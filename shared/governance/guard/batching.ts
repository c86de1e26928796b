import { isRecord } from "../values.ts";
import { type Call, createQueue } from "./batch-queue.ts";
import { tooManyWaiting, within } from "./rpc.ts";
import type {
  BatchingClient,
  BatchOptions,
  GuardOptions,
  PendingReply,
  RpcClient,
  RpcReply,
} from "./types.ts";

/** Functions of a call that take many calls at once, under the same name with `_many`. */
const batched: ReadonlySet<string> = new Set(["authorize_usage", "settle_usage", "release_usage"]);
/** `_many` takes no more. */
const mostEver = 500;
/** A batch that takes longer than this no longer keeps other accounts' calls waiting: one locked account must not. */
const slowAfterMs = 250;
/** Slow batches and others under way at once, as a multiple of `mostBatches`: a slow database is not flooded. */
const mostSlow = 4;
/**
 * A batch is not made smaller than this to give other batches a share: each has a cost of its own, as high as that of two
 * calls in it (docs/scale.md).
 */
const smallestShare = 4;
const mostRemembered = 10_000;
/** Callers answered by one batch ask again within as many turns of the microtask queue, and travel together again. */
const turnsToGather = 64;
/** In `hint` of a slot of a batch: another transaction holds the account's lock, and the batch does not wait for it. */
const accountBusy = "account_busy";
/** What PostgreSQL's JSON cannot hold would refuse the whole batch: NUL and halves of surrogate pairs. */
const unfitForBatch = /\\u(?:0000|d[89a-f])/;

/** Keeps the value under its key, and no more than so many. */
function remember<T>(kept: Map<string, T>, key: string, value: T): void {
  kept.delete(key);
  kept.set(key, value);
  if (kept.size <= mostRemembered) return;
  const oldest = kept.keys().next();
  if (!oldest.done) kept.delete(oldest.value);
}

/** Bytes of a text in UTF-8. */
function utf8Bytes(text: string): number {
  let bytes = text.length;
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    // Half of a pair: four bytes for the two.
    if (code > 0x7f) bytes += code > 0x7ff && (code < 0xd800 || code > 0xdfff) ? 2 : 1;
  }
  return bytes;
}

/** Arguments as `_many` takes them: without the p_ of the parameters. */
const asCall = (args: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(args).map(([name, value]) => [name.replace(/^p_/, ""), value]));

/** Whether the database, or a gateway before it, refused the content of a batch: a smaller one may pass. */
const isAboutContent = ({ error, status }: RpcReply): boolean =>
  error !== null && (status === 413 || /^(PT400|22...)$/.test(error.code ?? ""));

/** The answer in a slot of a batch, in the form that the single function has. */
function replyOf(slot: unknown, status: number | undefined): RpcReply {
  if (!isRecord(slot) || !isRecord(slot["error"]))
    return { data: slot, error: null, ...(status ? { status } : {}) };
  const { code, message, hint, details } = slot["error"];
  const state = String(code);
  return {
    data: null,
    // As PostgREST maps them: ours name their status, errors about data are the caller's, the rest the server's.
    status: /^PT\d{3}$/.test(state) ? Number(state.slice(2)) : /^2[23]/.test(state) ? 400 : 500,
    error: { code: state, message: String(message), hint: typeof hint === "string" ? hint : null, details },
  };
}

/** What is remembered of requests: their accounts, and which had no answer. */
function rememberRequests(mostCalls: number) {
  /**
   * The account of a request, for its settlement, which does not name it. Where it is forgotten, only the order is
   * lost.
   */
  const accounts = new Map<string, string>();
  /** Requests whose batch had no answer, and in how large a one they may go. */
  const wary = new Map<string, number>();

  function accountOf(args: Record<string, unknown>): string {
    const requestId = String(args["p_request_id"]);
    const user = args["p_user_id"];
    if (typeof user !== "string") return accounts.get(requestId) ?? `request ${requestId}`;
    const account = `user ${user}`;
    remember(accounts, requestId, account);
    return account;
  }

  /** A batch had no answer: those of its calls that are asked again go in smaller ones, alone at last. */
  function beWary(batch: readonly Call[]): void {
    for (const { name, args } of batch)
      remember(wary, `${name} ${String(args["p_request_id"])}`, Math.max(1, Math.floor(batch.length / 4)));
  }

  return {
    accountOf,
    beWary,
    /** How many calls may go in one batch with this one. */
    mostWith: (name: string, args: Record<string, unknown>): number =>
      wary.get(`${name} ${String(args["p_request_id"])}`) ?? mostCalls,
  };
}

interface Traveller {
  readonly send: (name: string, args: Record<string, unknown>) => PromiseLike<RpcReply>;
  /** The batch had no answer. */
  readonly onUnanswered: (batch: readonly Call[]) => void;
  /** The call's account is locked by another transaction. */
  readonly onBusy: (call: Call) => void;
}

/** Sends a batch and answers each of its calls. Never rejects. */
async function travel(traveller: Traveller, batch: readonly Call[]): Promise<void> {
  const { send, onUnanswered, onBusy } = traveller;
  const [first] = batch;
  if (!first) return;
  try {
    if (batch.length === 1) {
      first.resolve(await send(first.name, first.args));
      return;
    }
    const reply = await send(`${first.name}_many`, { p_calls: batch.map(({ args }) => asCall(args)) });
    if (isAboutContent(reply)) {
      const half = Math.floor(batch.length / 2);
      await travel(traveller, batch.slice(0, half));
      await travel(traveller, batch.slice(half));
      return;
    }
    const slots = reply.error === null && Array.isArray(reply.data) ? reply.data : [];
    if (slots.length !== batch.length) onUnanswered(batch);
    for (const [place, call] of batch.entries()) {
      const answer = slots.length === batch.length ? replyOf(slots[place], reply.status) : reply;
      if (answer.error?.hint === accountBusy) onBusy(call);
      else call.resolve(answer);
    }
  } catch (cause) {
    onUnanswered(batch);
    for (const call of batch) call.reject(cause);
  }
}

const fullReply = (queue: { readonly size: number; readonly bytes: number }): RpcReply => ({
  data: null,
  status: 503,
  error: {
    code: "",
    hint: tooManyWaiting,
    message: `${queue.size.toLocaleString("en")} calls (${queue.bytes.toLocaleString("en")} bytes) wait for the database already.`,
  },
});

/**
 * Makes a client whose calls travel in batches: what waits while batches are under way goes with the next, a call that
 * finds none under way goes at once and alone. Each call is answered as its single function answers it, a call that is
 * refused harms no other, calls of one account keep their order. When a batch's answer is lost, each of its callers
 * gets an error, and asks again with the same request id.
 *
 * A full queue answers an error at once, with `too_many_waiting` as its hint.
 */
export function batchCalls(
  client: RpcClient,
  { timer, rpcTimeoutMs = 5_000 }: Pick<GuardOptions, "timer" | "rpcTimeoutMs">,
  options: BatchOptions = {},
): BatchingClient {
  const mostCalls = Math.min(mostEver, Math.max(1, options.mostCalls ?? 128));
  const mostBytes = options.mostBytes ?? 1_000_000;
  const mostBatches = Math.max(1, options.mostBatches ?? 2);
  const queue = createQueue({
    mostCalls,
    mostBytes,
    mostWaiting: options.mostWaiting ?? 10_000,
    mostWaitingBytes: options.mostWaitingBytes ?? 64_000_000,
  });
  const requests = rememberRequests(mostCalls);
  const accountsUnderWay = new Set<string>();
  let underWay = 0;
  let slow = 0;
  let isGathering = false;

  const traveller: Traveller = {
    send: (name, args) =>
      within(client.rpc(name, args), rpcTimeoutMs, timer, {
        data: null,
        status: 0,
        error: { code: "", message: `${name} did not answer in time.` },
      }),
    onUnanswered: requests.beWary,
    // The call waits for the account by itself, as a single call does.
    onBusy(call) {
      if (call.isCancelled) return;
      call.most = 1;
      queue.add(call);
    },
  };

  function start(): void {
    while (queue.size > 0 && underWay - slow < mostBatches && underWay < mostSlow * mostBatches) {
      // What waits is divided among the batches that may go: the database works on one while another waits for the disk,
      // or for this process.
      const mayGo = mostBatches - (underWay - slow);
      const batch = queue.nextBatch(accountsUnderWay, Math.max(smallestShare, Math.ceil(queue.size / mayGo)));
      if (batch.length === 0) return;
      const itsAccounts = new Set(batch.map(({ account }) => account));
      for (const account of itsAccounts) accountsUnderWay.add(account);
      underWay++;
      let isSlow = false;
      const stopWatching = timer(() => {
        isSlow = true;
        slow++;
        start();
      }, slowAfterMs);
      void travel(traveller, batch).then(() => {
        stopWatching();
        if (isSlow) slow--;
        underWay--;
        for (const account of itsAccounts) accountsUnderWay.delete(account);
        void gather();
      });
    }
  }

  async function gather(): Promise<void> {
    if (isGathering) return;
    isGathering = true;
    for (let turn = 0; turn < turnsToGather; turn++) await Promise.resolve();
    isGathering = false;
    start();
  }

  /** The call in the queue; an error where it cannot be there. */
  function enqueue(name: string, args: Record<string, unknown>): PendingReply {
    let call: Call | null = null;
    const reply = new Promise<RpcReply>((resolve, reject) => {
      const text = JSON.stringify(args);
      const bytes = utf8Bytes(text);
      if (queue.isFull(bytes)) {
        resolve(fullReply(queue));
        return;
      }
      const isAlone = bytes > mostBytes || unfitForBatch.test(text);
      const most = isAlone ? 1 : requests.mostWith(name, args);
      call = {
        name,
        args,
        account: requests.accountOf(args),
        bytes,
        most,
        wasPassedOver: false,
        isCancelled: false,
        resolve,
        reject,
      };
      queue.add(call);
      void gather();
    });
    const cancel = (): boolean => {
      if (!call) return false;
      call.isCancelled = true;
      return queue.leave(call);
    };
    return Object.assign(reply, { cancel });
  }

  return {
    rpc(name, args) {
      if (batched.has(name) && mostCalls > 1) return enqueue(name, args);
      return Object.assign(Promise.resolve(client.rpc(name, args)), { cancel: () => false });
    },
    get waiting() {
      return queue.size;
    },
  };
}
