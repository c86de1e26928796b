/** A guard over a database that answers by script, for tests of what can go wrong between them. */
import {
  createGuard,
  type GuardOptions,
  type GuardProblem,
  memoryStore,
  type RpcReply,
} from "../../shared/governance/index.ts";

/** A database that answers by script: what it was asked is kept, what it does can be made to fail. */
export function scriptedDatabase() {
  const asked: { name: string; args: Record<string, unknown> }[] = [];
  const held = new Map<string, string>();
  /** The parameters that a settlement was made with: others under its key are a conflict. */
  const parameters = new Map<string, string>();
  let fault:
    | ((name: string, args: Record<string, unknown>) => RpcReply | "lost" | "silent" | "throws" | null)
    | null = null;
  const allow = (args: Record<string, unknown>): Record<string, unknown> => ({
    request_id: args["p_request_id"],
    decision: "allow",
    reason: null,
    http_status: 200,
    message: null,
    requested_model: args["p_model"],
    model: "routed-model",
    truncate_to_words: 3,
    reserved_tokens: 500,
    expires_at: null,
    retry_after_seconds: null,
    upgrade: null,
    balance: null,
    warnings: [],
    decision_id: 1,
    fail_mode: "open",
  });
  let answer: (args: Record<string, unknown>) => Record<string, unknown> = allow;

  function execute(name: string, args: Record<string, unknown>): RpcReply {
    const id = String(args["p_request_id"]);
    if (name === "authorize_usage") {
      const given = answer(args);
      if (given?.["decision"] !== "block") held.set(id, held.get(id) ?? "held");
      return { data: given, error: null, status: 200 };
    }
    const state = held.get(id);
    if (!state) return refusal(404, "unknown_request");
    if (name === "settle_usage") {
      if (state === "released") return refusal(409, "already_released");
      const given = JSON.stringify(args);
      if (state.startsWith("settled") && parameters.get(id) !== given)
        return refusal(409, "idempotency_conflict");
      parameters.set(id, given);
      held.set(id, `settled ${Number(args["p_input_tokens"]) + Number(args["p_output_tokens"])}`);
      return { data: { status: "settled" }, error: null, status: 200 };
    }
    if (state.startsWith("settled")) return refusal(409, "already_settled");
    held.set(id, "released");
    return { data: { status: "released" }, error: null, status: 200 };
  }

  const refusal = (status: number, hint: string): RpcReply => ({
    data: null,
    status,
    error: { code: `PT${status}`, message: hint, hint },
  });
  return {
    asked,
    held,
    refusal,
    answerWith: (next: typeof answer) => void (answer = next),
    allow,
    failWith: (next: typeof fault) => void (fault = next),
    client: {
      async rpc(name: string, args: Record<string, unknown>): Promise<RpcReply> {
        if (!name.endsWith("_many")) return this.one(name, args);
        const slots: unknown[] = [];
        for (const call of args["p_calls"] as Record<string, unknown>[]) {
          const given = Object.fromEntries(Object.entries(call).map(([key, value]) => [`p_${key}`, value]));
          const { data, error } = await this.one(name.slice(0, -"_many".length), given);
          // Without a code it is not the database's: then the whole batch has no answer.
          if (error && !error.code) return { data: null, error, status: 0 };
          slots.push(error ? { error: { details: null, ...error } } : data);
        }
        return { data: slots, error: null, status: 200 };
      },
      one(name: string, args: Record<string, unknown>): Promise<RpcReply> {
        asked.push({ name, args });
        const failing = fault?.(name, args) ?? null;
        if (failing === "silent") return new Promise(() => undefined);
        if (failing === "throws") return Promise.reject(new TypeError("fetch failed"));
        if (failing === "lost") {
          execute(name, args);
          return Promise.resolve({ data: null, status: 0, error: { message: "socket hang up", code: "" } });
        }
        return Promise.resolve(failing ?? execute(name, args));
      },
    },
  };
}

let serial = 0;
/** The guard with short times, its store, and the problems that it reports. */
export function makeGuard(
  database: ReturnType<typeof scriptedDatabase>,
  changes: Partial<GuardOptions> = {},
) {
  const problems: GuardProblem[] = [];
  const store = memoryStore();
  const guard = createGuard({
    client: database.client,
    store,
    now: () => 1_000,
    timer: (run, ms) => {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    },
    newId: () => `request-${++serial}`,
    retryDelayMs: 1,
    rpcTimeoutMs: 50,
    callTimeoutMs: 60,
    chunkTimeoutMs: 40,
    onProblem: (problem) => void problems.push(problem),
    ...changes,
  });
  return { guard, store: changes.store ?? store, problems };
}

/** A provider's answer that used so many tokens. */
export const completion = (input: number, output: number) => ({
  usage: { prompt_tokens: input, completion_tokens: output, total_tokens: input + output },
});
/** A call of a user's. */
export const request = { user: "ann", model: "gpt-4o", message: "one two three four" };
/** What the database was asked, in order. */
export const calls = (database: ReturnType<typeof scriptedDatabase>): string[] =>
  database.asked.map(({ name }) => name);
export const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
