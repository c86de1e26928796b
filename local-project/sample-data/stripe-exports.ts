/**
 * The Stripe side of the sample: the files a finance person would download from Stripe for the purchases in the
 * ledger, with one difference of each class planted, so that a reconciliation has something to find.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatMinor } from "../../shared/governance/money/index.ts";
import type { DifferenceClass } from "../../shared/governance/reconciliation/index.ts";
import type { RunSql } from "../database.ts";
import { type Charge, type Plant, stripeSide } from "./plants.ts";
import { seedRandom } from "./random.ts";

/** A planted difference: its class, and the Stripe object or ledger lot that it is about. */
interface Planted {
  readonly class: DifferenceClass;
  readonly about: string;
}

export interface StripeExports {
  /** File name → content, as Stripe writes it. */
  readonly files: Readonly<Record<string, string>>;
  readonly planted: readonly Planted[];
}

/** Writes the files into a folder, made if missing; returns the differences planted in them. */
export async function writeStripeExports(run: RunSql, folder: string): Promise<readonly Planted[]> {
  const { files, planted } = await makeStripeExports(run);
  mkdirSync(folder, { recursive: true });
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
  return planted;
}

/** A lot that money bought, from the database. Times are seconds since 1970. */
interface PaidLot {
  readonly display_name: string;
  readonly email: string;
  readonly amount_minor: number;
  readonly currency: string;
  readonly at: number;
  readonly charge_id: string;
  readonly payment_intent_id: string;
  readonly checkout_session_id: string | null;
  readonly balance_transaction_id: string;
  readonly customer_id: string;
  readonly invoice_id: string | null;
  readonly plant: Plant | null;
  readonly refunds: readonly {
    readonly refund_id: string;
    readonly amount_minor: number;
    readonly at: number;
  }[];
  readonly disputes: readonly {
    readonly dispute_id: string;
    readonly status: string;
    readonly opened_at: number;
    readonly closed_at: number | null;
  }[];
}

const DAY = 24 * 3600;

export async function makeStripeExports(run: RunSql): Promise<StripeExports> {
  const lots = await readPaidLots(run);
  const last = lots.reduce((latest, lot) => Math.max(latest, lot.at), 0);
  const random = seedRandom(last, "stripe");
  const newId = (): string => random.id().slice(0, 24);
  const planted: Planted[] = [];
  const charges: Charge[] = [];
  const made = new Set<string>();
  for (const lot of lots) {
    if (made.has(lot.charge_id)) continue;
    made.add(lot.charge_id);
    // Granted after the files were made.
    if (lot.plant === "TIMING") planted.push({ class: "TIMING", about: lot.charge_id });
    else charges.push(...chargesOf(lot, planted, newId));
  }
  const extra = plantInRows(planted, last, newId);
  const byTime = charges.sort((one, other) => one.created - other.created);
  return {
    files: {
      "unified_payments.csv": unifiedPayments(byTime),
      "itemized_balance_change.csv": itemizedBalance(byTime, extra, last),
      "disputes.csv": disputes(byTime),
    },
    planted,
  };
}

async function readPaidLots(run: RunSql): Promise<PaidLot[]> {
  const rows = await run(`
    select jsonb_build_object('display_name', a.display_name, 'email', a.email, 'amount_minor', l.amount_minor,
      'currency', l.currency, 'at', floor(extract(epoch from l.created_at)),
      'charge_id', l.stripe_charge_id, 'payment_intent_id', l.stripe_payment_intent_id, 'checkout_session_id', l.stripe_checkout_session_id,
      'balance_transaction_id', l.metadata -> 'balance_transaction_id', 'customer_id', l.metadata -> 'customer_id',
      'invoice_id', l.metadata -> 'invoice_id', 'plant', l.metadata -> 'plant',
      'refunds', (select coalesce(jsonb_agg(jsonb_build_object('refund_id', r.refund_id, 'amount_minor', r.amount_minor,
        'at', floor(extract(epoch from r.reported_at))) order by r.reported_at), '[]') from governance.stripe_refunds r where r.payment_id = s.payment_id),
      'disputes', (select coalesce(jsonb_agg(jsonb_build_object('dispute_id', d.dispute_id, 'status', d.status,
        'opened_at', floor(extract(epoch from coalesce((select min(x.created_at) from governance.purchase_records x where x.dispute_id = d.dispute_id), d.reported_at))),
        'closed_at', case when d.stage = 3 then floor(extract(epoch from d.reported_at)) end)), '[]') from governance.stripe_disputes d where d.payment_id = s.payment_id))::text
    from governance.lots l
    join governance.accounts a using (account_id)
    join governance.stripe_lots s using (lot_id)
    where l.metadata ->> 'sample_data' = 'true' and l.stripe_charge_id is not null
    order by l.created_at, l.lot_id`);
  return rows.map(([text]) => JSON.parse(text ?? "null") as PaidLot);
}

function chargeOf(lot: PaidLot): Charge {
  const [dispute] = lot.disputes;
  return {
    id: lot.charge_id,
    transaction: lot.balance_transaction_id,
    intent: lot.payment_intent_id,
    session: lot.checkout_session_id,
    invoice: lot.invoice_id,
    order: `order-${lot.charge_id.slice(-8)}`,
    customer: lot.customer_id,
    name: lot.display_name,
    email: lot.email,
    // The money comes first, the tokens moments after.
    created: lot.at - 12,
    amount: lot.amount_minor,
    currency: lot.currency,
    status: "Paid",
    settled: null,
    refunds: lot.refunds.map((refund) => ({
      id: refund.refund_id,
      amount: refund.amount_minor,
      at: refund.at,
    })),
    dispute: dispute
      ? {
          id: dispute.dispute_id,
          status: dispute.status === "won" ? "won" : dispute.status === "lost" ? "lost" : "needs_response",
          opened: dispute.opened_at,
          closed: dispute.closed_at,
        }
      : null,
    netOff: 0,
  };
}

/** The charge that paid for a lot as Stripe has it, and the one that a planted difference adds. */
function chargesOf(lot: PaidLot, planted: Planted[], newId: () => string): Charge[] {
  const charge = chargeOf(lot);
  // A sample of an earlier version may name plants that are not known any more: those are left out.
  const change = lot.plant ? stripeSide[lot.plant] : null;
  if (!lot.plant || !change) return [charge];
  const changed = change(charge, (fields) => ({
    ...charge,
    id: `ch_${newId()}`,
    transaction: `txn_${newId()}`,
    intent: `pi_${newId()}`,
    session: `cs_live_${newId()}`,
    order: `order-${newId()}`,
    ...fields,
  }));
  planted.push({ class: lot.plant, about: changed.id });
  return changed.id === charge.id ? [changed] : [charge, changed];
}

type BalanceRow = Readonly<Record<(typeof BALANCE_COLUMNS)[number], string>>;

/** Rows of the balance that belong to nothing, or to nothing that is known. */
function plantInRows(planted: Planted[], last: number, newId: () => string): BalanceRow[] {
  const orphan = `re_${newId()}`;
  const strange = `txn_${newId()}`;
  planted.push({ class: "ORPHAN", about: orphan }, { class: "UNKNOWN_CATEGORY", about: strange });
  return [
    balanceRow({
      id: `txn_${newId()}`,
      at: last - 4 * DAY,
      currency: "usd",
      gross: -700,
      fee: 0,
      category: "refund",
      source: orphan,
      charge: `ch_${newId()}`,
      description: "REFUND FOR CHARGE",
    }),
    balanceRow({
      id: strange,
      at: last - 5 * DAY,
      currency: "usd",
      gross: 1_234,
      fee: 0,
      category: "partner_settlement",
      description: "Partner settlement",
    }),
  ];
}

// ---- the files ----

const PAYMENT_COLUMNS =
  "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Converted Amount,Converted Amount Refunded,Converted Currency,Decline Reason,Description,Fee,Refunded date (UTC),Statement Descriptor,Status,Seller Message,Taxes On Fee,Card ID,Customer ID,Customer Description,Customer Email,Invoice ID,Transfer";

/** Dashboard › Payments › Export, default columns. */
function unifiedPayments(charges: readonly Charge[]): string {
  const lines = charges.map((charge) => {
    const settled = charge.settled ?? charge;
    const refunded = charge.refunds.reduce((sum, one) => sum + one.amount, 0);
    const isPaid = charge.status === "Paid";
    const refundedSettled = Math.round((refunded * settled.amount) / charge.amount);
    return [
      charge.id,
      utc(charge.created),
      formatMinor(charge.amount, charge.currency),
      formatMinor(refunded, charge.currency),
      charge.currency,
      isPaid ? "true" : "false",
      formatMinor(settled.amount, settled.currency),
      formatMinor(refundedSettled, settled.currency),
      settled.currency,
      isPaid ? "" : "insufficient_funds",
      charge.invoice ? "Subscription update" : "Token pack",
      formatMinor(isPaid ? feeOf(settled.amount) : 0, settled.currency),
      charge.refunds[0] ? utc(charge.refunds[0].at) : "",
      "TOKEN GOVERNANCE",
      isPaid ? (refunded >= charge.amount ? "Refunded" : "Paid") : "Failed",
      isPaid ? "Payment complete." : "The bank returned the decline code insufficient_funds.",
      formatMinor(0, settled.currency),
      `card_${charge.id.slice(3)}`,
      charge.customer,
      charge.name,
      charge.email,
      charge.invoice ?? "",
      "",
    ];
  });
  return csv([PAYMENT_COLUMNS.split(","), ...lines]);
}

const BALANCE_COLUMNS = [
  "balance_transaction_id",
  "created_utc",
  "available_on_utc",
  "currency",
  "gross",
  "fee",
  "net",
  "reporting_category",
  "source_id",
  "description",
  "customer_facing_amount",
  "customer_facing_currency",
  "charge_id",
  "payment_intent_id",
  "checkout_session_id",
  "invoice_id",
  "customer_id",
  "payment_metadata[order_id]",
] as const;

interface Movement {
  readonly id: string;
  readonly at: number;
  readonly currency: string;
  readonly gross: number;
  readonly fee: number;
  readonly category: string;
  readonly description: string;
  readonly source?: string;
  readonly charge?: string;
  readonly netOff?: number;
  readonly of?: Charge;
  /** The amount that the customer saw, signed. */
  readonly facing?: { readonly amount: number; readonly currency: string };
}

function balanceRow(one: Movement): BalanceRow {
  const { of } = one;
  return {
    balance_transaction_id: one.id,
    created_utc: utc(one.at),
    available_on_utc: utc(one.at + 2 * DAY),
    currency: one.currency,
    gross: formatMinor(one.gross, one.currency),
    fee: formatMinor(one.fee, one.currency),
    net: formatMinor(one.gross - one.fee - (one.netOff ?? 0), one.currency),
    reporting_category: one.category,
    source_id: one.source ?? "",
    description: one.description,
    customer_facing_amount: one.facing ? formatMinor(one.facing.amount, one.facing.currency) : "",
    customer_facing_currency: one.facing?.currency ?? "",
    charge_id: one.charge ?? of?.id ?? "",
    payment_intent_id: of?.intent ?? "",
    checkout_session_id: of?.session ?? "",
    invoice_id: of?.invoice ?? "",
    customer_id: of?.customer ?? "",
    "payment_metadata[order_id]": of?.order ?? "",
  };
}

/** Reports › Balance › Balance change from activity, itemized, with the columns that tie rows to payments. */
function itemizedBalance(charges: readonly Charge[], extra: readonly BalanceRow[], last: number): string {
  const rows: BalanceRow[] = [...extra];
  const paidOut = new Map<string, number>();
  const add = (movement: Movement): void => {
    rows.push(balanceRow(movement));
    paidOut.set(movement.currency, (paidOut.get(movement.currency) ?? 0) + movement.gross - movement.fee);
  };
  for (const charge of charges) {
    if (charge.status !== "Paid") continue;
    const settled = charge.settled ?? charge;
    const { currency } = settled;
    const inSettled = (amount: number): number => Math.round((amount * settled.amount) / charge.amount);
    const facing = (amount: number) => ({ amount, currency: charge.currency });
    add({
      id: charge.transaction,
      at: charge.created,
      currency,
      gross: settled.amount,
      fee: feeOf(settled.amount),
      category: "charge",
      description: charge.invoice ? "Subscription update" : "Token pack",
      source: charge.id,
      netOff: charge.netOff,
      of: charge,
      facing: facing(charge.amount),
    });
    for (const refund of charge.refunds) {
      add({
        id: `txn_${refund.id.slice(3)}`,
        at: refund.at,
        currency,
        gross: -inSettled(refund.amount),
        fee: 0,
        category: "refund",
        description: `REFUND FOR CHARGE (${charge.id})`,
        source: refund.id,
        of: charge,
        facing: facing(-refund.amount),
      });
    }
    const { dispute } = charge;
    if (!dispute) continue;
    const withdrawal = { currency, source: dispute.id, of: charge } as const;
    add({
      ...withdrawal,
      id: `txn_${dispute.id.slice(3)}`,
      at: dispute.opened,
      gross: -settled.amount,
      fee: 1_500,
      category: "dispute",
      description: `Chargeback withdrawal for ${charge.id}`,
      facing: facing(-charge.amount),
    });
    if (dispute.status !== "won") continue;
    add({
      ...withdrawal,
      id: `txn_${dispute.id.slice(3, -1)}w`,
      at: dispute.closed ?? dispute.opened + DAY,
      gross: settled.amount,
      fee: -1_500,
      category: "dispute_reversal",
      description: `Chargeback reversal for ${charge.id}`,
      facing: facing(charge.amount),
    });
  }
  // One payout a currency, for most of what came in.
  for (const [currency, net] of paidOut) {
    if (net < 10_000) continue;
    const gross = -Math.floor(net * 0.9);
    rows.push(
      balanceRow({
        id: `txn_payout${currency}${last}`,
        at: last - DAY,
        currency,
        gross,
        fee: 0,
        category: "payout",
        source: `po_${currency}${last}`,
        description: "STRIPE PAYOUT",
      }),
    );
  }
  rows.sort((one, other) =>
    one.created_utc < other.created_utc ? -1 : one.created_utc > other.created_utc ? 1 : 0,
  );
  return csv([[...BALANCE_COLUMNS], ...rows.map((row) => BALANCE_COLUMNS.map((column) => row[column]))]);
}

const DISPUTE_COLUMNS =
  "id,Description,Dispute Created (UTC),Charge Created (UTC),Dispute Amount,Dispute Currency,Charge Amount,Charge Currency,Charge ID,Reason,Status,Payment Intent,Customer ID,Customer Email";

/** Dashboard › Disputes › Export. */
function disputes(charges: readonly Charge[]): string {
  const lines = charges.flatMap((charge) =>
    charge.dispute
      ? [
          [
            charge.dispute.id,
            "Token pack",
            utc(charge.dispute.opened),
            utc(charge.created),
            formatMinor(charge.amount, charge.currency),
            charge.currency,
            formatMinor(charge.amount, charge.currency),
            charge.currency,
            charge.id,
            "fraudulent",
            charge.dispute.status,
            charge.intent,
            charge.customer,
            charge.email,
          ],
        ]
      : [],
  );
  return csv([DISPUTE_COLUMNS.split(","), ...lines]);
}

/** 2.9 % and 30 minor units. */
const feeOf = (amount: number): number => Math.round(amount * 0.029) + 30;

/** `2026-11-22 09:30:00`, as Stripe's exports write it. */
const utc = (seconds: number): string =>
  new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ");

/** As Stripe writes it: quoted where needed, not made safe for spreadsheets. */
function csv(rows: readonly (readonly string[])[]): string {
  const cell = (text: string): string => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return rows.map((row) => `${row.map(cell).join(",")}\n`).join("");
}
