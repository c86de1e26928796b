/**
 * Calls of a model that wait at the same time travel to the database together, each answered as if it had come alone:
 * `batchCalls` of the guard, in front of the functions `_many`. A call that finds none under way goes at once and alone.
 */
import { type BatchingClient, batchCalls, type RpcReply } from "../shared/governance/index.ts";
import { isRecord } from "../shared/governance/values.ts";
import { fromDatabaseError, HttpError } from "./errors.ts";
import type { Caller } from "./keys.ts";
import type { RpcRequest, RpcResponse } from "./rpc-messages.ts";

const isText = (value: unknown): boolean => typeof value === "string";
const isCount = (value: unknown): boolean => Number.isSafeInteger(value);
const isNumber = (value: unknown): boolean => typeof value === "number";
const isAny = (): boolean => true;

interface Parameters {
  readonly must: readonly string[];
  /** Of each argument that the call may have. */
  readonly types: Readonly<Record<string, (value: unknown) => boolean>>;
}

/**
 * The arguments that a call must have, and the JSON type of each that it may have. A call with any other is answered by
 * its single function: PostgreSQL refuses a wrong type there in its own words, a batch in ours.
 */
const parameters: Readonly<Record<string, Parameters>> = {
  authorize_usage: {
    must: ["p_request_id", "p_user_id", "p_model"],
    types: {
      p_request_id: isText,
      p_user_id: isText,
      p_model: isText,
      p_estimated_tokens: isCount,
      p_message: isText,
      p_conversation_id: isText,
      p_task_type: isText,
      p_scope_id: isText,
      p_complexity: isNumber,
    },
  },
  settle_usage: {
    must: ["p_request_id", "p_input_tokens", "p_output_tokens"],
    types: {
      p_request_id: isText,
      p_input_tokens: isCount,
      p_output_tokens: isCount,
      p_model: isText,
      p_metadata: isAny,
    },
  },
  release_usage: { must: ["p_request_id"], types: { p_request_id: isText, p_reason: isText } },
};
/** Queues of so many kinds of caller are kept; there is one service key. */
const MOST_CALLERS = 20;
/** The endpoint has no timeout of its own, and neither has a call that waits for a batch. */
const NEVER_MS = 2_000_000_000;

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const timer = (run: () => void, ms: number): (() => void) => {
  const timeout = setTimeout(run, ms).unref();
  return () => clearTimeout(timeout);
};

/**
 * The arguments of a call that may travel with others; null for any other. Only what JSON.stringify writes as it came:
 * a number that JavaScript would round, or a key that is there twice, is left to PostgreSQL.
 */
function argumentsOf({
  method,
  functionName,
  query,
  headers,
  body,
  caller,
}: RpcRequest): Record<string, unknown> | null {
  const known = Object.hasOwn(parameters, functionName) ? parameters[functionName] : undefined;
  if (!known || method !== "POST" || caller.role !== "service_role" || query.size > 0) return null;
  const type = (headers["content-type"] ?? "application/json").split(";")[0]?.trim();
  const accepts = headers.accept ?? "*/*";
  if (type !== "application/json" || headers.prefer || headers["content-profile"] || headers.range)
    return null;
  if (accepts !== "*/*" && accepts !== "application/json") return null;
  const text = body.toString();
  try {
    const value: unknown = JSON.parse(text);
    if (!isRecord(value) || JSON.stringify(value) !== text) return null;
    const { must, types } = known;
    const isFit =
      must.every((name) => Object.hasOwn(value, name)) &&
      Object.entries(value).every(
        ([name, one]) => Object.hasOwn(types, name) && (one === null || types[name]?.(one)),
      );
    return isFit ? value : null;
  } catch {
    return null;
  }
}

/** An answer that a whole batch got instead of its slots: none of it has happened, and each call goes by itself. */
const failedBatches = new WeakSet<object>();

/** Answers a call by itself (`alone`), or with those that wait. */
export function queueCalls(
  alone: (request: RpcRequest) => Promise<RpcResponse>,
): (request: RpcRequest) => Promise<RpcResponse> {
  const queues = new Map<string, BatchingClient>();
  const requests = new WeakMap<object, RpcRequest>();

  async function together(name: string, args: object, caller: Caller): Promise<RpcReply> {
    try {
      const { body, status, headers } = await alone({
        method: "POST",
        functionName: name,
        query: new URLSearchParams(),
        headers: {},
        body: Buffer.from(JSON.stringify(args)),
        caller,
      });
      const slots = (JSON.parse(body) as unknown[]).map((slot) =>
        typeof slot === "object" && slot !== null && "error" in slot
          ? slot
          : { status, headers, body: JSON.stringify(slot) },
      );
      return { data: slots, error: null, status };
    } catch (error) {
      const { status, body } = fromDatabaseError(error, true);
      const reply = {
        data: null,
        status,
        error: { code: String(body["code"]), message: String(body.message), hint: null },
      };
      failedBatches.add(reply);
      return reply;
    }
  }

  function queueOf(caller: Caller): BatchingClient {
    const key = JSON.stringify(caller.claims);
    const known = queues.get(key);
    if (known) return known;
    if (queues.size >= MOST_CALLERS) queues.clear();
    const queue = batchCalls(
      {
        rpc: async (name, args) => {
          const request = requests.get(args);
          if (!request) return together(name, args, caller);
          return { data: await alone(request), error: null, status: 200 };
        },
      },
      { timer, rpcTimeoutMs: NEVER_MS },
    );
    queues.set(key, queue);
    return queue;
  }

  return async (request) => {
    const args = argumentsOf(request);
    if (!args) return alone(request);
    requests.set(args, request);
    // Calls that arrived in the same moment are read first, and go with this one.
    await nextTurn();
    const reply = await queueOf(request.caller).rpc(request.functionName, args);
    if (reply.error === null) return reply.data as RpcResponse;
    if (failedBatches.has(reply)) return alone(request);
    const { code, message, hint, details } = reply.error;
    if (!code)
      throw new HttpError(reply.status ?? 503, {
        code: "PGRST003",
        message,
        details: null,
        hint: hint ?? null,
      });
    throw fromDatabaseError(
      {
        code,
        message,
        severity: "ERROR",
        ...(typeof hint === "string" ? { hint } : {}),
        // Our own errors have a detail, empty where there is nothing to say; a batch's slot has null for both.
        ...(typeof details === "string" ? { detail: details } : code.startsWith("PT") ? { detail: "" } : {}),
      },
      true,
    );
  };
}
