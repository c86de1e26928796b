import { isoTime } from "../cells.ts";
import { RECORD_TYPES } from "../ledger-side.ts";
import {
  CHARGE,
  DISPUTE,
  DISPUTE_REVERSAL,
  DISPUTE_STATES,
  EVENT_NAMES,
  PAYMENT_STATES,
} from "../stripe-table.ts";
import { CLASSES, DIFFERENCE_CLASSES } from "../classes.ts";
import {
  type Correction,
  type CorrectionAction,
  type Difference,
  type LedgerSide,
  type StripeSide,
} from "../types.ts";
import type { Draft, Findings } from "./findings.ts";

const NOT_BOOKED: ReadonlySet<CorrectionAction> = new Set([
  "propose_refund",
  "investigate",
  "carry_forward",
  "exclude",
  "list",
]);

/** The differences as the report has them: in a fixed order, each under an id that the next run gives it again. */
export function writeDifferences(findings: Findings): Difference[] {
  const { side, links, currencies, times, stripe, ledger, drafts, text } = findings;
  const order = new Map(DIFFERENCE_CLASSES.map((name, i) => [name, i]));
  drafts.sort(
    (a, b) =>
      (order.get(a.class) as number) - (order.get(b.class) as number) ||
      (a.key < b.key ? -1 : a.key > b.key ? 1 : 0) ||
      a.occurred - b.occurred ||
      a.amount - b.amount ||
      a.tokens - b.tokens,
  );
  const ids = new Map<Draft, string>();
  const taken = new Map<string, number>();
  for (const draft of drafts) {
    const id = `${draft.class}/${draft.key}`;
    const nth = (taken.get(id) ?? 0) + 1;
    taken.set(id, nth);
    ids.set(draft, nth === 1 ? id : `${id}#${nth}`);
  }
  const rowsOf = new Map<number, number[]>();
  for (const draft of drafts) if (draft.event >= 0) rowsOf.set(draft.event, [draft.event]);
  for (let event = 0; event < side.table.length; event++) {
    const into = links.mergedInto[event];
    if (into >= 0) rowsOf.get(into)?.push(event);
  }
  return drafts.map((draft) => {
    const age = (times.to - draft.occurred) / 86_400;
    const event = draft.event;
    const record = draft.record;
    const isCharge = event >= 0 && stripe.kind[event] === CHARGE;
    const isDispute =
      event >= 0 && (stripe.kind[event] === DISPUTE || stripe.kind[event] === DISPUTE_REVERSAL);
    const fromEither = (column: "intent" | "session" | "invoice" | "customer"): string | null =>
      (event >= 0 ? text(stripe[column][event]) : null) ??
      (record >= 0 ? text(ledger[column][record]) : null);
    const correction: Correction = {
      action: draft.action,
      books: !NOT_BOOKED.has(draft.action),
      words: draft.words,
      tokens: draft.correctionTokens ?? null,
      user_id: record >= 0 ? text(ledger.user[record]) : event >= 0 ? text(stripe.user[event]) : null,
      customer_id: fromEither("customer"),
      lot_id: record >= 0 && ledger.lot[record] !== 0 ? ledger.lot[record] : null,
      grant_kind:
        draft.action !== "grant" ? null : draft.class === "SUB_PERIOD_GAP" ? "subscription" : "purchase",
      pack_id: draft.packId ?? (record >= 0 ? text(ledger.pack[record]) : null),
      charge_id:
        (event >= 0 ? text((isCharge ? stripe.object[event] : stripe.charge[event]) as number) : null) ??
        (record >= 0 ? text(ledger.charge[record]) : null),
      payment_intent_id: fromEither("intent"),
      checkout_session_id: fromEither("session"),
      invoice_id: fromEither("invoice"),
      dispute_id: isDispute ? text(stripe.object[event]) : null,
      amount_minor:
        draft.correctionAmount ?? (draft.action === "grant" && event >= 0 ? stripe.amount[event] : null),
      currency: currencies.code(draft.correctionCurrency ?? draft.currency) || null,
      refunded_minor: draft.refundedMinor ?? (isCharge ? links.refundedOf[event] : null),
      disputed_minor: isCharge ? links.disputedOf[event] : isDispute ? stripe.amount[event] : null,
    };
    const suggestion = draft.suggestion
      ? { difference_id: ids.get(draft.suggestion.draft) as string, words: draft.suggestion.words }
      : null;
    return {
      difference_id: ids.get(draft) as string,
      class: draft.class,
      blocks: draft.blocks ?? CLASSES[draft.class].blocks,
      amount_minor: draft.amount === 0 ? 0 : draft.amount,
      currency: currencies.code(draft.currency) || null,
      tokens: draft.tokens === 0 ? 0 : draft.tokens,
      occurred_at: isoTime(draft.occurred),
      age_days: Number.isFinite(age) ? Math.max(0, Math.floor(age)) : null,
      user_id: correction.user_id,
      stripe:
        draft.event < 0 ? null : stripeSide(findings, draft.event, rowsOf.get(draft.event) ?? [draft.event]),
      ledger: draft.record < 0 ? null : ledgerSide(findings, draft.record),
      trail: draft.trail,
      explanation: draft.explanation,
      correction,
      suggestion,
    };
  });
}

function stripeSide(findings: Findings, event: number, rows: readonly number[]): StripeSide {
  const { side, links, currencies, stripe, text } = findings;
  const charge = stripe.kind[event] === CHARGE;
  const refunded = charge ? links.refundedOf[event] : 0;
  const disputed = charge ? links.disputedOf[event] : 0;
  const dispute = charge ? links.disputeOf[event] : stripe.dispute[event];
  return {
    event: EVENT_NAMES[stripe.kind[event]],
    object_id: text(stripe.object[event]),
    charge_id: charge ? text(stripe.object[event]) : text(stripe.charge[event]),
    payment_intent_id: text(stripe.intent[event]),
    checkout_session_id: text(stripe.session[event]),
    order_id: text(stripe.order[event]) ?? text(stripe.reference[event]),
    invoice_id: text(stripe.invoice[event]),
    customer_id: text(stripe.customer[event]),
    amount_minor: stripe.amount[event],
    currency: currencies.code(stripe.currency[event]) || null,
    refunded_minor: refunded > 0 ? refunded : null,
    disputed_minor: disputed > 0 ? disputed : null,
    dispute_status: DISPUTE_STATES[dispute] || null,
    status: charge ? PAYMENT_STATES[stripe.state[event]] : text(stripe.category[event]),
    created: isoTime(stripe.created[event]),
    rows: rows
      .map((row) => ({ file: side.files[stripe.file[row]]?.name ?? "", row: stripe.row[row] }))
      .sort((a, b) => (a.file === b.file ? a.row - b.row : a.file < b.file ? -1 : 1)),
  };
}

function ledgerSide(findings: Findings, record: number): LedgerSide {
  const { links, currencies, interner, ledger, text, granted } = findings;
  return {
    record_type: RECORD_TYPES[ledger.type[record]] as LedgerSide["record_type"],
    transaction_id: ledger.transaction[record],
    lot_id: ledger.lot[record] || null,
    user_id: interner.text(ledger.user[record]),
    tokens: granted(record),
    tokens_reversed: links.reversed[record] + links.clawed[record],
    tokens_remaining: ledger.remaining[record] < 0 ? null : ledger.remaining[record],
    amount_minor: ledger.amount[record] < 0 ? null : ledger.amount[record],
    currency: currencies.code(ledger.currency[record]) || null,
    pack_id: text(ledger.pack[record]),
    charge_id: text(ledger.charge[record]),
    payment_intent_id: text(ledger.intent[record]),
    created: isoTime(ledger.created[record]) as string,
  };
}
