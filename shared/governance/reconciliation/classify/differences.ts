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
    const into = links.mergedInto[e];
    if (into >= 0) rowsOf.get(into)?.push(e);
  }
  return drafts.map((d) => {
    const age = (frame.to - d.occurred) / 86_400;
    const e = d.event;
    const r = d.record;
    const isCharge = e >= 0 && s.kind[e] === CHARGE;
    const isDispute = e >= 0 && (s.kind[e] === DISPUTE || s.kind[e] === DISPUTE_REVERSAL);
    const told = (column: "intent" | "session" | "invoice" | "customer"): string | null =>
      (e >= 0 ? text(s[column][e]) : null) ?? (r >= 0 ? text(l[column][r]) : null);
    const correction: Correction = {
      action: d.action,
      books: !NOT_BOOKED.has(d.action),
      words: d.words,
      tokens: d.correctionTokens ?? null,
      user_id: r >= 0 ? text(l.user[r]) : e >= 0 ? text(s.user[e]) : null,
      customer_id: told("customer"),
      lot_id: r >= 0 && l.lot[r] !== 0 ? l.lot[r] : null,
      pack_id: d.packId ?? (r >= 0 ? text(l.pack[r]) : null),
      charge_id:
        (e >= 0 ? text((isCharge ? s.object[e] : s.charge[e]) as number) : null) ??
        (r >= 0 ? text(l.charge[r]) : null),
      payment_intent_id: told("intent"),
      checkout_session_id: told("session"),
      invoice_id: told("invoice"),
      dispute_id: isDispute ? text(s.object[e]) : null,
      amount_minor: d.correctionAmount ?? (d.action === "grant" && e >= 0 ? s.amount[e] : null),
      currency: currencies.code(d.correctionCurrency ?? d.currency) || null,
      refunded_minor: d.refundedMinor ?? (isCharge ? links.refundedOf[e] : null),
      disputed_minor: isCharge ? links.disputedOf[e] : isDispute ? s.amount[e] : null,
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
  const charge = s.kind[e] === CHARGE;
  const refunded = charge ? links.refundedOf[e] : 0;
  const disputed = charge ? links.disputedOf[e] : 0;
  const dispute = charge ? links.disputeOf[e] : s.dispute[e];
  return {
    event: EVENT_NAMES[s.kind[e]],
    object_id: text(s.object[e]),
    charge_id: charge ? text(s.object[e]) : text(s.charge[e]),
    payment_intent_id: text(s.intent[e]),
    checkout_session_id: text(s.session[e]),
    order_id: text(s.order[e]) ?? text(s.reference[e]),
    invoice_id: text(s.invoice[e]),
    customer_id: text(s.customer[e]),
    amount_minor: s.amount[e],
    currency: currencies.code(s.currency[e]) || null,
    refunded_minor: refunded > 0 ? refunded : null,
    disputed_minor: disputed > 0 ? disputed : null,
    dispute_status: DISPUTE_STATES[dispute] || null,
    status: charge ? PAYMENT_STATES[s.state[e]] : text(s.category[e]),
    created: isoTime(s.created[e]),
    rows: rows
      .map((row) => ({ file: side.files[s.file[row]]?.name ?? "", row: s.row[row] }))
      .sort((a, b) => (a.file === b.file ? a.row - b.row : a.file < b.file ? -1 : 1)),
  };
}

function ledgerSide(findings: Findings, r: number): LedgerSide {
  const { links, currencies, interner, l, text, granted } = findings;
  return {
    record_type: RECORD_TYPES[l.type[r]] as LedgerSide["record_type"],
    transaction_id: l.transaction[r],
    lot_id: l.lot[r] || null,
    user_id: interner.text(l.user[r]),
    tokens: granted(r),
    tokens_reversed: links.reversed[r] + links.clawed[r],
    tokens_remaining: l.remaining[r] < 0 ? null : l.remaining[r],
    amount_minor: l.amount[r] < 0 ? null : l.amount[r],
    currency: currencies.code(l.currency[r]) || null,
    pack_id: text(l.pack[r]),
    charge_id: text(l.charge[r]),
    payment_intent_id: text(l.intent[r]),
    created: isoTime(l.created[r]) as string,
  };
}
