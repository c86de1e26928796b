/** What `authorize_usage` answers to a call that may run. */
export function allowed(args: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return {
    request_id: args["p_request_id"],
    decision: "allow",
    reason: null,
    http_status: 200,
    message: null,
    model: args["p_model"],
    truncate_to_words: null,
    reserved_tokens: 400,
    balance: null,
    upgrade: null,
    retry_after_seconds: null,
    warnings: [],
  };
}
