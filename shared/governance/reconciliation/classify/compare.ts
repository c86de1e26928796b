import { SUBSCRIPTION_GRANT } from "../ledger-side.ts";
import { paidFor, paidForAll } from "../link/passes.ts";
import { IN_DIFFERENCE, MATCHED } from "../places.ts";
import { count, type Findings } from "./findings.ts";
import { createMoneyDifferences } from "./money-differences.ts";

type Pack = ReturnType<Findings["packs"]["named"]>;

/** A payment against the grants that belong to it: money, price at the time, tokens. */
export function createComparison(findings: Findings) {
  const { links, stripe, ledger, stripePlace, ledgerPlace, bridge, byPass, packs } = findings;
  const moneyDiffers = createMoneyDifferences(findings);
  const { money, eventKey, grantKey, granted, linkWords, paidAmount, partsOf, aboutEvent } = findings;

  /** One payment, one grant. */
  function compare(event: number, record: number): void {
    ledgerPlace[record] = MATCHED;
    const paid = paidAmount(event);
    const currency = stripe.currency[event];
    const pack = packs.named(ledger.pack[record], stripe.created[event]);
    const mispriced = isMispriced(event, record, pack) ? pack : null;
    if (paidFor(ledger, record) !== paid || ledger.currency[record] !== currency || mispriced !== null) {
      moneyDiffers(event, record, mispriced);
      return;
    }
    // Nearly all pairs are of one payment and one grant of the same money: done without a list.
    if (links.partsOf.size > 0 || !bridge.matchOne(event, record))
      bridge.pair(null, partsOf(event), [record]);
    if (!quantityDiffers(event, record, pack)) byPass[links.claimPass[record]]++;
  }

  /** One payment, several grants: lines of one invoice, or of one order. */
  function compareSum(event: number, records: readonly number[]): void {
    const paid = paidAmount(event);
    const booked = paidForAll(ledger, records);
    const [first] = records;
    const isSameCurrency = records.every((record) => ledger.currency[record] === stripe.currency[event]);
    if (booked === paid && isSameCurrency) {
      byPass[6] += records.length;
      bridge.pair(null, partsOf(event), records);
      for (const record of records) {
        ledgerPlace[record] = MATCHED;
        quantityDiffers(event, record, packs.named(ledger.pack[record], stripe.created[event]));
      }
      return;
    }
    stripePlace[event] = IN_DIFFERENCE;
    for (const record of records) ledgerPlace[record] = IN_DIFFERENCE;
    const name = isSameCurrency ? "AMOUNT_MISMATCH" : "CURRENCY_MISMATCH";
    bridge.pair(name, partsOf(event), records);
    aboutEvent(event, {
      class: name,
      record: first,
      amount: isSameCurrency ? paid - booked : paid,
      trail: records.map((record) => linkWords(record, event)),
      explanation: isSameCurrency
        ? `Paid ${money(paid, stripe.currency[event])}, but the ledger has ${money(booked, ledger.currency[first])} for it, in ${records.length} grants.`
        : `Paid ${money(paid, stripe.currency[event])}, but the ledger has ${records.length} grants for it in other currencies.`,
      action: "investigate",
      words: "Find out which of the grants is off; then relabel it, or refund the rest in Stripe.",
    });
  }

  /** Whether the payment is not the pack's price at the time, and nothing else explains it. */
  function isMispriced(event: number, record: number, pack: Pack): boolean {
    if (pack === null || pack.currencyIndex !== stripe.currency[event]) return false;
    if (links.relabelled[record] || stripe.settledOnly[event] === 1) return false;
    // Tax comes on top of the price, and a promotion code takes off it: the ledger knows what the tokens came to.
    if (ledger.booked[record] > 0 || ledger.paid[record] > 0) return false;
    return pack.price_minor !== paidAmount(event);
  }

  /** Tokens granted against the pack's, where the catalogue knows it. */
  function quantityDiffers(event: number, record: number, pack: Pack): boolean {
    if (!pack || ledger.kind[record] === SUBSCRIPTION_GRANT || pack.tokens === granted(record)) return false;
    ledgerPlace[record] = IN_DIFFERENCE;
    stripePlace[event] = IN_DIFFERENCE;
    const off = granted(record) - pack.tokens;
    const isOneOfSeveral = links.claims.next[links.claims.first[event]] >= 0;
    aboutEvent(event, {
      class: "TOKEN_QTY_MISMATCH",
      key: `${eventKey(event)}${isOneOfSeveral ? `-${grantKey(record)}` : ""}`,
      record,
      tokens: off,
      occurred: ledger.created[record],
      trail: [linkWords(record, event)],
      explanation: `Pack ${pack.pack_id} has ${count(pack.tokens)} tokens, but ${count(granted(record))} were granted.`,
      action: "adjust",
      words: off > 0 ? `Take back ${count(off)} tokens.` : `Grant the missing ${count(-off)} tokens.`,
      correctionTokens: -off,
    });
    return true;
  }

  return { compare, compareSum };
}
