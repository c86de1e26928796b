/** HTTP statuses of decisions. Source: docs/RULES.md, "Status of a block". */
const statusByReason = new Map<string, 402 | 429>([
  ["insufficient_tokens", 402],
  ["daily_limit", 429],
  ["monthly_limit", 429],
  ["budget_exhausted", 429],
  ["spam_identical", 429],
  ["bot_behavior", 429],
  ["token_hogging", 429],
  ["rate_limited", 429],
]);

/** The HTTP status of a block with this reason: 402, 429, or 403 for every other one. */
export function statusOfBlock(reason: string): 402 | 403 | 429 {
  return statusByReason.get(reason) ?? 403;
}
