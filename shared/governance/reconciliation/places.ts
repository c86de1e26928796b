/** Where each row of both sides went. */
export const PENDING_ROW = 0;
export const MATCHED = 1;
export const IN_DIFFERENCE = 2;
/** An event that another file has too. */
export const MERGED = 3;
/** The same id again in one file. */
export const DUPLICATE = 4;
/** From here on: the index into EXCLUSIONS. */
export const EXCLUDED = 5;

/** Why a row is no matter of tokens, or none of this period. */
export const EXCLUSIONS = [
  "not_paid",
  "pending",
  "not_captured",
  "nothing_to_pay",
  "outside_period",
  "other_account",
  "other_sale",
  "fee",
  "payout",
  "other_movement",
  "refunded_in_full",
  "covered_by_payments",
  "not_covered",
  "promotional",
  "voided",
  "correction",
] as const;
export const exclude = (reason: (typeof EXCLUSIONS)[number]): number => EXCLUDED + EXCLUSIONS.indexOf(reason);
