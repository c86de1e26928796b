import { paidFor } from "../link/passes.ts";
import { IN_DIFFERENCE } from "../places.ts";
import type { PackPrice } from "../types.ts";
import type { Findings, Finding } from "./findings.ts";

/** Compares a payment's money with its grant's: currency, amount, price at that time. The first that differs is the class. */
export function createMoneyDifferences(
  findings: Findings,
): (event: number, record: number, mispriced: PackPrice | null) => void {
  const { stripe, ledger } = findings;
  const { money, paidAmount } = findings;
  const { different, rounded, amountMismatch } = createDrafts(findings);
  return moneyDiffers;

  /** Currency, amount, price at the time: the first that is off is the class. */
  function moneyDiffers(event: number, record: number, mispriced: PackPrice | null): void {
    const currency = stripe.currency[event];
    const amount = paidAmount(event);
    const booked = paidFor(ledger, record);
    if (booked >= 0 && ledger.currency[record] !== currency) currencyDiffers(event, record);
    else if (booked >= 0 && booked !== amount) amountDiffers(event, record);
    else if (mispriced !== null)
      amountMismatch(
        event,
        record,
        amount - mispriced.price_minor,
        `Paid ${money(amount, currency)}, but pack ${mispriced.pack_id} cost ${money(mispriced.price_minor, currency)} then.`,
        "Find out why (a voucher, an old price); accept it by relabelling, or settle the rest in Stripe.",
      );
    else
      amountMismatch(
        event,
        record,
        amount,
        `The grant belongs to this payment of ${money(amount, currency)}, but the ledger has no amount for it.`,
        relabel(event, record),
      );
  }

  function relabel(event: number, record: number): string {
    const amount = money(paidAmount(event), stripe.currency[event]);
    return `Relabel entry ${ledger.transaction[record]} as ${amount}.`;
  }

  function currencyDiffers(event: number, record: number): void {
    const currency = stripe.currency[event];
    const amount = paidAmount(event);
    const ledgerCurrency = ledger.currency[record];
    const booked = paidFor(ledger, record);
    const isSettled = stripe.cashCurrency[event] === ledgerCurrency && stripe.cash[event] !== 0;
    const off = Math.abs(stripe.cash[event]) - booked;
    const isSettledOnly = stripe.settledOnly[event] === 1;
    if (isSettled && Math.abs(off) <= 1) {
      rounded(
        event,
        record,
        off,
        ledgerCurrency,
        `Paid as ${money(amount, currency)}, booked as settled, ${money(booked, ledgerCurrency)}${off === 0 ? "" : `: ${money(off, ledgerCurrency)} of rounding in the conversion`}.`,
      );
      return;
    }
    different(event, record, {
      class: "CURRENCY_MISMATCH",
      amount,
      explanation: isSettledOnly
        ? `Stripe's row has ${money(amount, currency)} as settled, the ledger has ${money(booked, ledgerCurrency)}; what the customer paid is not in this export.`
        : `Paid ${money(amount, currency)}, but the ledger has ${money(booked, ledgerCurrency)}.`,
      action: isSettledOnly ? "investigate" : "relabel",
      words: isSettledOnly
        ? "Export with the column Customer Facing Amount, or add the Payments export."
        : relabel(event, record),
      correctionAmount: amount,
      correctionCurrency: currency,
    });
  }

  function amountDiffers(event: number, record: number): void {
    const currency = stripe.currency[event];
    const amount = paidAmount(event);
    const booked = paidFor(ledger, record);
    const isConverted =
      stripe.cashCurrency[event] !== currency &&
      stripe.cashCurrency[event] !== 0 &&
      stripe.settledOnly[event] === 0;
    if (isConverted && Math.abs(amount - booked) === 1)
      rounded(
        event,
        record,
        amount - booked,
        currency,
        `One minor unit of rounding in a conversion: paid ${money(amount, currency)}, booked ${money(booked, currency)}.`,
      );
    else
      amountMismatch(
        event,
        record,
        amount - booked,
        `Paid ${money(amount, currency)}, but the ledger has ${money(booked, currency)} for it.`,
        `Find out why; then relabel entry ${ledger.transaction[record]} as ${money(amount, currency)}, or refund the rest in Stripe.`,
      );
  }
}

/** The differences themselves: each takes both rows to it, and its money off the bridge. */
function createDrafts({
  stripe,
  stripePlace,
  ledgerPlace,
  bridge,
  linkWords,
  paidAmount,
  partsOf,
  aboutEvent,
}: Findings) {
  function different(event: number, record: number, finding: Omit<Finding, "trail">): void {
    ledgerPlace[record] = IN_DIFFERENCE;
    stripePlace[event] = IN_DIFFERENCE;
    bridge.pair(finding.class, partsOf(event), [record]);
    aboutEvent(event, { record, trail: [linkWords(record, event)], ...finding });
  }

  function rounded(event: number, record: number, off: number, currency: number, explanation: string): void {
    different(event, record, {
      class: "FX_ROUNDING",
      amount: off,
      currency,
      explanation,
      action: "list",
      words: "Nothing to book.",
    });
  }

  function amountMismatch(
    event: number,
    record: number,
    off: number,
    explanation: string,
    words: string,
  ): void {
    different(event, record, {
      class: "AMOUNT_MISMATCH",
      amount: off,
      explanation,
      action: "relabel",
      words,
      correctionAmount: paidAmount(event),
      correctionCurrency: stripe.currency[event],
    });
  }

  return { different, rounded, amountMismatch };
}
