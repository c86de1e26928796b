/** The amount and state of a payment, in words: the same on the user's page and on the finance desk. */
import { currencyExponent } from "../../../shared/governance/money/currency.ts";
import type { Payment } from "../../../shared/contract/users.ts";
import type { Tone } from "../ui/theme.ts";
import { formatMinorMoney, formatTokens } from "./format.ts";
import { codeWords } from "./text.ts";

export const money = (minor: number, currency: string): string =>
  formatMinorMoney(minor, currency, currencyExponent(currency));

/** The words of the state of a payment, the gravest first; empty where it was simply paid. */
export function paymentSigns(payment: Payment): readonly { readonly tone: Tone; readonly word: string }[] {
  const signs: { tone: Tone; word: string }[] = [];
  const states = new Set(payment.lots.map((lot) => lot.dispute_state));
  const frozen = payment.lots.reduce((sum, lot) => sum + lot.frozen, 0);
  if (states.has("clawed")) signs.push({ tone: "red", word: "dispute lost" });
  if (states.has("held"))
    signs.push({ tone: "amber", word: `disputed${frozen > 0 ? `, ${formatTokens(frozen)} held` : ""}` });
  if (states.has("released")) signs.push({ tone: "green", word: "dispute won" });
  for (const dispute of payment.lots.length === 0 ? payment.disputes : [])
    signs.push({ tone: "amber", word: `dispute ${codeWords(dispute.status)}` });
  if (payment.refunded_minor > 0 && payment.currency)
    signs.push({
      tone: "grey",
      word:
        payment.refunded_minor >= (payment.amount_minor ?? 0)
          ? "refunded"
          : `${money(payment.refunded_minor, payment.currency)} refunded`,
    });
  if (payment.amount_minor === null) signs.push({ tone: "amber", word: "not credited" });
  return signs;
}

/** The payment's page at Stripe. */
export function stripeLink(
  payment: Pick<Payment, "payment_intent_id" | "charge_id" | "invoice_id" | "livemode">,
): string | null {
  const id = payment.payment_intent_id ?? payment.charge_id;
  const test = payment.livemode === false ? "test/" : "";
  if (id) return `https://dashboard.stripe.com/${test}payments/${encodeURIComponent(id)}`;
  return payment.invoice_id
    ? `https://dashboard.stripe.com/${test}invoices/${encodeURIComponent(payment.invoice_id)}`
    : null;
}
