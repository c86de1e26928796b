/** Asks whether a call may be made. */
import { fail, ok, type Result } from "../result.ts";
import { isRecord } from "../values.ts";
import { estimateCall } from "../usage/estimate.ts";
import type { Admission } from "./call-context.ts";
import type { Charges } from "./charges.ts";
import { ask, reasonToStop, type RpcFailure } from "./rpc.ts";
import { safely, storable } from "./safely.ts";
import type {
  AuthorizeAnswer,
  BatchingClient,
  GuardFailure,
  GuardOptions,
  GuardProblem,
  GuardRequest,
} from "./types.ts";

const rememberedUsers = 10_000;

function isAnswer(value: unknown): value is AuthorizeAnswer {
  return (
    isRecord(value) &&
    (value["decision"] === "allow" || value["decision"] === "warn" || value["decision"] === "block") &&
    typeof value["http_status"] === "number" &&
    (value["decision"] === "block" ||
      (typeof value["model"] === "string" &&
        Number.isSafeInteger(value["reserved_tokens"]) &&
        Number.isSafeInteger(value["estimated_tokens"] ?? 0)))
  );
}

/** What names something, and is kept as it is given. */
const names = ["request_id", "user", "model", "conversation", "task", "scope"] as const;

/** What is wrong with a request before anybody is asked, or null. Input of users need not have its declared type. */
function misuseOf(request: GuardRequest): GuardFailure | null {
  for (const [name, least] of [
    ["estimated_tokens", 1],
    ["input_tokens", 0],
  ] as const) {
    const count = request[name] ?? least;
    if (!Number.isSafeInteger(count) || count < least)
      return {
        kind: "misuse",
        http_status: 400,
        reason: `invalid_argument: ${name} is a whole number of tokens from ${least} up to 2^53 - 1, not ${count}`,
      };
  }
  const message: unknown = request.message ?? "";
  if (typeof message !== "string")
    return {
      kind: "misuse",
      http_status: 400,
      reason: `invalid_argument: message is a text, not of type ${typeof message}`,
    };
  for (const name of names) {
    const text: unknown = request[name];
    // Altered, the name would be another user's, or another call's.
    if (typeof text === "string" && text !== storable(text))
      return {
        kind: "misuse",
        http_status: 400,
        reason: `invalid_argument: ${name} has a character that no database keeps: U+0000 or half a surrogate pair`,
      };
  }
  return null;
}

/** The arguments of authorize_usage that the request gives. */
function argumentsOf(requestId: string, request: GuardRequest): Record<string, unknown> {
  const args: Record<string, unknown> = {
    p_request_id: requestId,
    p_user_id: request.user,
    p_model: request.model,
  };
  const given: readonly [string, unknown][] = [
    ["p_estimated_tokens", request.estimated_tokens],
    // Judged by rules and never kept: an emoji that a field's end cut in two is no reason to refuse its writer.
    ["p_message", typeof request.message === "string" ? storable(request.message) : request.message],
    ["p_conversation_id", request.conversation],
    ["p_task_type", request.task],
    ["p_scope_id", request.scope],
    ["p_complexity", request.complexity],
  ];
  for (const [name, value] of given) if (value !== undefined) args[name] = value;
  return args;
}

/** Fail modes of users by the last answer, for the time when nobody can be asked. */
function keepFailModes() {
  const failModes = new Map<string, "closed" | "open">();
  return {
    get: (user: string): "closed" | "open" | undefined => failModes.get(user),
    remember(user: string, answer: AuthorizeAnswer): void {
      const mode = answer["fail_mode"];
      if (mode !== "open" && mode !== "closed") return;
      failModes.delete(user);
      failModes.set(user, mode);
      if (failModes.size > rememberedUsers) {
        const oldest = failModes.keys().next();
        if (!oldest.done) failModes.delete(oldest.value);
      }
    },
  };
}

/** Whether tokens are held, by the reply to the question. */
function holdAfter(reply: Result<unknown, RpcFailure>): Admission["hold"] {
  if (!reply.ok) return reply.error.kind === "unknown" ? "unknown" : "none";
  if (!isAnswer(reply.value)) return "unknown";
  return reply.value.decision === "block" ? "none" : "held";
}

/** Asks the database whether a call may be made; where it cannot be asked, the fail mode learnt last decides. */
export function createAdmission(
  options: GuardOptions & { readonly client: BatchingClient },
  { release }: Pick<Charges, "release">,
  report: (problem: GuardProblem) => void,
) {
  const failModes = keepFailModes();
  type Asked = Omit<Admission, "answer" | "expected_tokens">;

  function onAnswer(asked: Asked, answer: AuthorizeAnswer): Result<Admission, GuardFailure> {
    failModes.remember(asked.request.user, answer);
    if (answer.decision === "block")
      return fail({
        kind: "blocked",
        http_status: answer.http_status,
        reason: answer.reason ?? "blocked",
        answer,
      });
    // What is held has a rule's factor in it already, which settling would put in once more.
    return ok({ ...asked, answer, expected_tokens: answer.estimated_tokens ?? answer.reserved_tokens });
  }

  /** The caller left before the call was made. */
  function leave(asked: Asked): Result<never, GuardFailure> {
    void release(asked, "the caller left");
    return fail({
      kind: "aborted",
      http_status: 499,
      reason: "The caller left before the call was made.",
      cause: reasonToStop(asked.request.signal),
    });
  }

  /** Nobody could be asked, or the answer cannot be read: the user's fail mode decides. */
  function onSilence(
    asked: Asked,
    known: number | null,
    reply: Result<unknown, RpcFailure>,
  ): Result<Admission, GuardFailure> {
    const { request_id: requestId, request } = asked;
    const why = reply.ok ? "The answer is not one that authorize_usage gives." : reply.error.message;
    if (reply.ok) report({ kind: "malformed_answer", request_id: requestId, message: why });
    const mode = safely(() => options.failMode?.(request.user)) ?? failModes.get(request.user) ?? "closed";
    if (mode === "open") {
      report({ kind: "ran_unauthorized", request_id: requestId, message: why });
      const estimate = estimateCall({ estimated_tokens: known, message: request.message ?? null }, {});
      return ok({ ...asked, answer: null, expected_tokens: estimate.tokens });
    }
    void release(asked, "no answer to authorize_usage");
    return fail({ kind: "unavailable", http_status: 503, reason: why });
  }

  async function admit(requestId: string, request: GuardRequest): Promise<Result<Admission, GuardFailure>> {
    const misuse = misuseOf(request);
    if (misuse) return fail(misuse);
    const args = argumentsOf(requestId, request);
    const isRepeatable = request.request_id !== undefined;
    const learnt =
      request.estimated_tokens === undefined && !isRepeatable
        ? safely(() => options.learner?.estimate(request.task ?? null, request.model))
        : null;
    if (learnt) args["p_estimated_tokens"] = Math.max(1, learnt.tokens);
    const reply = await ask(options, "authorize_usage", args, options.rpcRetries, request.signal);
    const asked: Asked = {
      request_id: requestId,
      request,
      args,
      hold: holdAfter(reply),
      is_learnt: Boolean(learnt),
      is_repeatable: isRepeatable,
    };
    if (request.signal?.aborted) return leave(asked);
    if (reply.ok && isAnswer(reply.value)) return onAnswer(asked, reply.value);
    if (!reply.ok && reply.error.kind === "refused")
      return fail({
        kind: "misuse",
        http_status: reply.error.http_status,
        reason: `${reply.error.reason}: ${reply.error.message}`,
      });
    return onSilence(asked, request.estimated_tokens ?? learnt?.tokens ?? null, reply);
  }

  return { admit, leave };
}
