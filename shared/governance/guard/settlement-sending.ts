/** One settlement on its way to the database, and what its answer means. */
import { fail, type Result } from "../result.ts";
import { isRecord } from "../values.ts";
import { ask, type RpcFailure } from "./rpc.ts";
import type {
  BatchingClient,
  GuardOptions,
  GuardProblem,
  QueuedSettlement,
  SettlementOutcome,
} from "./types.ts";

/** The guard's options with a client that sends what waits together. */
export type SendingOptions = GuardOptions & { readonly client: BatchingClient };

/** The outcome: the database has the settlement, cannot be asked now, or will never take it. */
type Sent =
  | { readonly kind: "done"; readonly outcome: SettlementOutcome }
  | { readonly kind: "queued" }
  | { readonly kind: "refused"; readonly reason: string };

/** Charges a call whose own key cannot take it: authorised now, under a key that can. It was used already, so it asks for as little as can be held. */
async function chargeAs(
  options: SendingOptions,
  requestId: string,
  entry: QueuedSettlement,
  callArgs: NonNullable<QueuedSettlement["call_args"]>,
  retries: number | undefined,
): Promise<Result<unknown, RpcFailure>> {
  const authorized = await ask(
    options,
    "authorize_usage",
    { ...callArgs, p_request_id: requestId, p_estimated_tokens: 1 },
    retries,
  );
  if (!authorized.ok && authorized.error.kind !== "refused") return authorized;
  const answer = authorized.ok && isRecord(authorized.value) ? authorized.value : {};
  if (answer["decision"] === "block")
    return fail({
      kind: "refused",
      http_status: 409,
      reason: String(answer["reason"]),
      message: "The call was made, and the database would have stopped it.",
    });
  const metadata = isRecord(entry.args["p_metadata"]) ? entry.args["p_metadata"] : {};
  // Not authorised under this key for another reason: then the settlement is refused as well, with the reason.
  return ask(
    options,
    entry.function,
    requestId === entry.request_id
      ? entry.args
      : {
          ...entry.args,
          p_request_id: requestId,
          p_metadata: { ...metadata, repeat_of: entry.request_id },
        },
    retries,
  );
}

/** Sends one settlement or release, under another key where its own cannot take it. */
export async function sendSettlement(
  options: SendingOptions,
  report: (problem: GuardProblem) => void,
  entry: QueuedSettlement,
  retries?: number,
): Promise<Sent> {
  let answer = await ask(options, entry.function, entry.args, retries);
  if (!answer.ok && answer.error.kind === "refused" && entry.call_args) {
    const { reason } = answer.error;
    if (reason === "unknown_request")
      answer = await chargeAs(options, entry.request_id, entry, entry.call_args, retries);
    else if (reason === "already_released" || reason === "idempotency_conflict")
      answer = await chargeAs(options, entry.id, entry, entry.call_args, retries);
  }
  if (answer.ok) {
    const record = isRecord(answer.value) ? answer.value : {};
    const status = record["status"];
    // A gateway's empty page is not an answer of the database: supabase-js takes a 404 without a body for success.
    if (typeof status !== "string") {
      report({
        kind: "malformed_answer",
        request_id: entry.request_id,
        message: `The answer is not one that ${entry.function} gives.`,
      });
      return { kind: "queued" };
    }
    if (status === "quarantined")
      report({
        kind: "settlement_quarantined",
        request_id: entry.request_id,
        message: "The settlement is beyond the ceiling and waits for a person.",
      });
    return {
      kind: "done",
      outcome: {
        status:
          status === "quarantined"
            ? "quarantined"
            : entry.function === "settle_usage"
              ? "settled"
              : "released",
        answer: record,
      },
    };
  }
  // A project that is not set up must be put right by a person: keep trying rather than lose what is owed.
  if (answer.error.kind !== "refused") return { kind: "queued" };
  // Nothing was held under this key, or it has ended already: then there is nothing to give back.
  if (entry.function === "release_usage")
    return { kind: "done", outcome: { status: "released", answer: {} } };
  return { kind: "refused", reason: `${answer.error.reason}: ${answer.error.message}` };
}
