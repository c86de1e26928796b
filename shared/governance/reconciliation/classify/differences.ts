import { isoTime } from "../cells.ts";
import { RECORD_TYPES } from "../ledger-side.ts";
import {
  CHARGE,
  DISPUTE,
  DISPUTE_REVERSAL,
  DISPUTE_STATES,
  EVENT_NAMES,
  PAYMENT_STATES,
} from "../stripe-side.ts";
import {
  type Correction,
  type CorrectionAction,
  DIFFERENCE_CLASSES,
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
  const { side, links, currencies, frame, s, l, drafts, text } = findings;
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
  for (const d of drafts) {
    const id = `${d.class}/${d.key}`;
    const times = (taken.get(id) ?? 0) + 1;
    taken.set(id, times);
    ids.set(d, times === 1 ? id : `${id}#${times}`);
  }
  const rowsOf = new Map<number, number[]>();
  for (const d of drafts) if (d.event >= 0) rowsOf.set(d.event, [d.event]);
  for (let e = 0; e < side.table.length; e++) {
    const into = links.mergedInto[e] as number;
    if (into >= 0) rowsOf.get(into)?.push(e);
  }
  return drafts.map((d) => {
    const age = (frame.to - d.occurred) / 86_400;
    const e = d.event;
    const r = d.record;
    const isCharge = e >= 0 && (s.kind[e] as number) === CHARGE;
    const isDispute =
      e >= 0 && ((s.kind[e] as number) === DISPUTE || (s.kind[e] as number) === DISPUTE_REVERSAL);
    const told = (column: "intent" | "session" | "invoice" | "customer"): string | null =>
      (e >= 0 ? text(s[column][e] as number) : null) ?? (r >= 0 ? text(l[column][r] as number) : null);
    const correction: Correction = {
      action: d.action,
      books: !NOT_BOOKED.has(d.action),
      words: d.words,
      tokens: d.correctionTokens ?? null,
      user_id: r >= 0 ? text(l.user[r] as number) : e >= 0 ? text(s.user[e] as number) : null,
      customer_id: told("customer"),
      lot_id: r >= 0 && (l.lot[r] as number) !== 0 ? (l.lot[r] as number) : null,
      pack_id: d.packId ?? (r >= 0 ? text(l.pack[r] as number) : null),
      charge_id:
        (e >= 0 ? text((isCharge ? s.object[e] : s.charge[e]) as number) : null) ??
        (r >= 0 ? text(l.charge[r] as number) : null),
      payment_intent_id: told("intent"),
      checkout_session_id: told("session"),
      invoice_id: told("invoice"),
      dispute_id: isDispute ? text(s.object[e] as number) : null,
      amount_minor: d.correctionAmount ?? (d.action === "grant" && e >= 0 ? (s.amount[e] as number) : null),
      currency: currencies.code(d.correctionCurrency ?? d.currency) || null,
      refunded_minor: d.refundedMinor ?? (isCharge ? (links.refundedOf[e] as number) : null),
      disputed_minor: isCharge ? (links.disputedOf[e] as number) : isDispute ? (s.amount[e] as number) : null,
    };
    const suggestion = d.suggestion
      ? { difference_id: ids.get(d.suggestion.draft) as string, words: d.suggestion.words }
      : null;
    return {
      difference_id: ids.get(d) as string,
      class: d.class,
      blocks: d.blocks ?? true,
      amount_minor: d.amount === 0 ? 0 : d.amount,
      currency: currencies.code(d.currency) || null,
      tokens: d.tokens === 0 ? 0 : d.tokens,
      occurred_at: isoTime(d.occurred),
      age_days: Number.isFinite(age) ? Math.max(0, Math.floor(age)) : null,
      user_id: correction.user_id,
      stripe: d.event < 0 ? null : stripeSide(findings, d.event, rowsOf.get(d.event) ?? [d.event]),
      ledger: d.record < 0 ? null : ledgerSide(findings, d.record),
      trail: d.trail,
      explanation: d.explanation,
      correction,
      suggestion,
    };
  });
}

function stripeSide(findings: Findings, e: number, rows: readonly number[]): StripeSide {
  const { side, links, currencies, s, text } = findings;
  const charge = (s.kind[e] as number) === CHARGE;
  const refunded = charge ? (links.refundedOf[e] as number) : 0;
  const disputed = charge ? (links.disputedOf[e] as number) : 0;
  const dispute = charge ? (links.disputeOf[e] as number) : (s.dispute[e] as number);
  return {
    event: EVENT_NAMES[s.kind[e] as number] as string,
    object_id: text(s.object[e] as number),
    charge_id: charge ? text(s.object[e] as number) : text(s.charge[e] as number),
    payment_intent_id: text(s.intent[e] as number),
    checkout_session_id: text(s.session[e] as number),
    order_id: text(s.order[e] as number) ?? text(s.reference[e] as number),
    invoice_id: text(s.invoice[e] as number),
    customer_id: text(s.customer[e] as number),
    amount_minor: s.amount[e] as number,
    currency: currencies.code(s.currency[e] as number) || null,
    refunded_minor: refunded > 0 ? refunded : null,
    disputed_minor: disputed > 0 ? disputed : null,
    dispute_status: DISPUTE_STATES[dispute] || null,
    status: charge ? (PAYMENT_STATES[s.state[e] as number] as string) : text(s.category[e] as number),
    created: isoTime(s.created[e] as number),
    rows: rows
      .map((row) => ({ file: side.files[s.file[row] as number]?.name ?? "", row: s.row[row] as number }))
      .sort((a, b) => (a.file === b.file ? a.row - b.row : a.file < b.file ? -1 : 1)),
  };
}

function ledgerSide(findings: Findings, r: number): LedgerSide {
  const { links, currencies, interner, l, text, granted } = findings;
  return {
    record_type: RECORD_TYPES[l.type[r] as number] as LedgerSide["record_type"],
    transaction_id: l.transaction[r] as number,
    lot_id: (l.lot[r] as number) || null,
    user_id: interner.text(l.user[r] as number),
    tokens: granted(r),
    tokens_reversed: (links.reversed[r] as number) + (links.clawed[r] as number),
    tokens_remaining: (l.remaining[r] as number) < 0 ? null : (l.remaining[r] as number),
    amount_minor: (l.amount[r] as number) < 0 ? null : (l.amount[r] as number),
    currency: currencies.code(l.currency[r] as number) || null,
    pack_id: text(l.pack[r] as number),
    charge_id: text(l.charge[r] as number),
    payment_intent_id: text(l.intent[r] as number),
    created: isoTime(l.created[r] as number) as string,
  };
}
