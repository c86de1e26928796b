import { CLASS_WORDS } from "../../../../shared/governance/reconciliation/statements.ts";
import type { DifferenceClass, Difference } from "../../../../shared/governance/reconciliation/types.ts";
import { currencyExponent } from "../../../../shared/governance/money/currency.ts";
import { formatMinorMoney } from "../../lib/format.ts";
import { codeWords, capitalise } from "../../lib/text.ts";

export function className(code: string): string {
  return CLASS_WORDS[code as DifferenceClass]?.[0] ?? capitalise(codeWords(code.toLowerCase()));
}
export function classMeans(code: string): string {
  return CLASS_WORDS[code as DifferenceClass]?.[1] ?? "";
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

/** What a ticket needs to know about one difference. */
export function differenceText(difference: Difference): string {
  return [
    `${className(difference.class)} (${difference.class})`,
    difference.explanation,
    `Proposed: ${difference.correction.words}`,
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
