import type { CaseStatus, FinanceCase } from "../../../../shared/contract/finance.ts";
import { CLASSES, type DifferenceClass } from "../../../../shared/governance/reconciliation/classes.ts";
import type { Difference } from "../../../../shared/governance/reconciliation/types.ts";
import { currencyExponent } from "../../../../shared/governance/money/currency.ts";
import { formatMinorMoney } from "../../lib/format.ts";
import { codeWords, capitalise } from "../../lib/text.ts";
import type { Tone } from "../../ui/theme.ts";
import { translated } from "../../lib/language.ts";

export function className(code: string): string {
  return CLASSES[code as DifferenceClass]?.name ?? capitalise(codeWords(code.toLowerCase()));
}
export function classMeans(code: string): string {
  return CLASSES[code as DifferenceClass]?.means ?? "";
}

/** Minor units for people; a dash where there is no amount. */
export function minorMoney(
  amountMinor: number | null | undefined,
  currency: string | null | undefined,
): string {
  if (amountMinor === null || amountMinor === undefined) return "—";
  if (!currency) return amountMinor === 0 ? "—" : String(amountMinor);
  return formatMinorMoney(amountMinor, currency, currencyExponent(currency));
}

const statusWords: Readonly<Record<CaseStatus, readonly [tone: Tone, word: string, means: string]>> = {
  open: ["red", "open", "Nobody has decided yet."],
  investigating: ["amber", "investigating", "Somebody looks into it."],
  proposed: ["amber", "proposed", "Waits to be posted, or for a second person."],
  approved: ["blue", "approved", "A second person agreed: it can be posted."],
  posted: ["blue", "posted", "Booked. A run of the same files will verify it."],
  verified: ["green", "verified", "Gone in a later run."],
  carried_forward: ["violet", "carried forward", "Comes back as a late item of the next period."],
  written_off: ["grey", "written off", "Left as it is, with a reason."],
};
export const caseStatuses = Object.keys(statusWords) as readonly CaseStatus[];
export function statusSign(
  of: Pick<FinanceCase, "status" | "resolution" | "blocks"> & Partial<Pick<FinanceCase, "correction">>,
): {
  readonly tone: Tone;
  readonly word: string;
  readonly means: string;
} {
  const [tone, word, means] = statusWords[of.status];
  if (of.status === "proposed" && of.resolution === "write_off")
    return { tone, word: "to write off", means: "Proposed to be written off: waits for a second person." };
  if (of.status === "proposed" && of.correction?.["undoes"] !== undefined)
    return { tone, word: "to undo", means: "Proposed to undo what was posted: waits to be posted." };
  if (!of.blocks && of.status === "open")
    return { tone: "grey", word: "listed", means: "To know: it does not keep the period open." };
  return { tone, word: codeWords(word), means };
}
export const statusName = (status: CaseStatus): string => capitalise(codeWords(statusWords[status][1]));

/** An entry of a case's history in words. */
const entryWords: Readonly<Record<string, string>> = {
  investigate: "began to investigate",
  assign: "assigned it",
  note: "noted",
  propose: "proposed the correction",
  propose_write_off: "proposed to write it off",
  undo: "proposed to undo what was posted",
  approve: "approved",
  posted: "posted the correction",
  carry_forward: "carried it forward",
  write_off: "wrote it off",
  reopen: "opened it again",
  reopened: "kept a run in which it is still there",
  verified: "kept a run in which it is gone",
  gone: "kept a run in which it is gone by itself",
  carried_over: "closed the period: it came over as a late item",
};
export const entryText = (action: string): string => entryWords[action] ?? codeWords(action);

/** Sums of several currencies, in one text. */
export function moneyList(
  list: readonly { readonly currency: string; readonly amount_minor: number }[],
): string {
  return list.length === 0
    ? "no money"
    : list.map((of) => minorMoney(of.amount_minor, of.currency)).join(", ");
}

/** What a ticket needs to know about one difference. */
export function differenceText(difference: Difference): string {
  return [
    `${className(difference.class)} (${difference.class})`,
    translated(difference.explanation),
    `Proposed: ${translated(difference.correction.words)}`,
    `At stake: ${minorMoney(difference.amount_minor, difference.currency)}, ${difference.tokens} tokens`,
    difference.user_id ? `User: ${difference.user_id}` : null,
    difference.stripe?.charge_id ? `Charge: ${difference.stripe.charge_id}` : null,
    difference.stripe?.payment_intent_id ? `Payment intent: ${difference.stripe.payment_intent_id}` : null,
    difference.ledger ? `Ledger entry: ${difference.ledger.transaction_id}` : null,
    `Difference: ${difference.difference_id}`,
  ]
    .filter((line) => line !== null)
    .join("\n");
}
