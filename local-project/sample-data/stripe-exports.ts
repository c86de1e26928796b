/**
 * The Stripe side of the sample: the files a finance person would download from Stripe for the purchases in the
 * ledger, with one difference of each class planted, so that a reconciliation has something to find.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { formatMinor } from "../../shared/governance/money/index.ts";
import type { DifferenceClass } from "../../shared/governance/reconciliation/index.ts";
import type { RunSql } from "../database.ts";
import type { Plant } from "./people.ts";
import { seedRandom } from "./random.ts";

/** A planted difference: its class, and the Stripe object or ledger lot that it is about. */
export interface Planted {
  readonly class: DifferenceClass;
  readonly about: string;
}

export interface StripeExports {
  /** File name → content, as Stripe writes it. */
  readonly files: Readonly<Record<string, string>>;
  readonly planted: readonly Planted[];
}

/** Writes the files into a folder, made if missing; answers what is planted in them. */
export async function writeStripeExports(run: RunSql, folder: string): Promise<readonly Planted[]> {
  const { files, planted } = await makeStripeExports(run);
  mkdirSync(folder, { recursive: true });
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
  return planted;
}

/** A lot that money bought, as the database tells it. Times are seconds since 1970. */
interface PaidLot {
  readonly kind: "purchased" | "subscription";
  readonly display_name: string;
  readonly email: string;
  readonly amount_minor: number;
  readonly currency: string;
  readonly granted: number;
  readonly remaining: number;
  readonly at: number;
  readonly charge_id: string;
  readonly payment_intent_id: string;
  readonly checkout_session_id: string | null;
  readonly balance_transaction_id: string;
  readonly customer_id: string;
  readonly invoice_id: string | null;
  readonly plant: Plant | null;
  readonly dispute_state: "none" | "held" | "released" | "clawed";
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

type DisputeStatus = "needs_response" | "won" | "lost";

/** A charge as Stripe has it. */
interface Charge {
  readonly lot: PaidLot | null;
  readonly id: string;
  readonly transaction: string;
  readonly intent: string;
  session: string | null;
  readonly invoice: string | null;
  readonly order: string;
  readonly customer: string;
  readonly name: string;
  readonly email: string;
  readonly created: number;
  amount: number;
  currency: string;
  status: "Paid" | "Failed";
  /** In another currency than the customer's, where Stripe converted it. */
  settled: { readonly amount: number; readonly currency: string } | null;
  refunds: { readonly id: string; readonly amount: number; readonly at: number }[];
  dispute: {
    readonly id: string;
    readonly status: DisputeStatus;
    readonly opened: number;
    readonly closed: number | null;
  } | null;
  /** Missing from the net of its row. */
  netOff: number;
}

const HOUR = 3600;
const DAY = 24 * HOUR;

export async function makeStripeExports(run: RunSql): Promise<StripeExports> {
  const lots = await readPaidLots(run);
  const last = lots.reduce((latest, lot) => Math.max(latest, lot.at), 0);
  const random = seedRandom(last, "stripe");
  const planted: Planted[] = [];
  const made = new Map<string, Charge>();
  for (const lot of lots) {
    // Granted after the files were made.
    if (lot.plant === "late_grant") planted.push({ class: "TIMING", about: lot.charge_id });
    else if (!made.has(lot.charge_id)) made.set(lot.charge_id, chargeOf(lot));
  }
  const charges = [...made.values()];
  plantByLedger(charges, planted);
  plantInCharges(charges, planted, last);
  const extra = plantInRows(planted, last, () => random.id());
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
    select jsonb_build_object('kind', l.kind, 'display_name', a.display_name, 'email', a.email, 'amount_minor', l.amount_minor,
      'currency', l.currency, 'granted', l.granted, 'remaining', l.remaining, 'at', floor(extract(epoch from l.created_at)),
      'charge_id', l.stripe_charge_id, 'payment_intent_id', l.stripe_payment_intent_id, 'checkout_session_id', l.stripe_checkout_session_id,
      'balance_transaction_id', l.metadata -> 'balance_transaction_id', 'customer_id', l.metadata -> 'customer_id',
      'invoice_id', l.metadata -> 'invoice_id', 'plant', l.metadata -> 'plant', 'dispute_state', s.dispute_state,
      'refunds', (select coalesce(jsonb_agg(jsonb_build_object('refund_id', r.refund_id, 'amount_minor', r.amount_minor,
        'at', floor(extract(epoch from r.told_at))) order by r.told_at), '[]') from governance.stripe_refunds r where r.payment_id = s.payment_id),
      'disputes', (select coalesce(jsonb_agg(jsonb_build_object('dispute_id', d.dispute_id, 'status', d.status,
        'opened_at', floor(extract(epoch from coalesce((select min(x.created_at) from governance.purchase_records x where x.dispute_id = d.dispute_id), d.told_at))),
        'closed_at', case when d.stage = 3 then floor(extract(epoch from d.told_at)) end)), '[]') from governance.stripe_disputes d where d.payment_id = s.payment_id))::text
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
    lot,
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

/** What the ledger itself has wrong: the charges are right, and the classes are named for what will be found. */
function plantByLedger(charges: readonly Charge[], planted: Planted[]): void {
  const classes: Partial<Record<Plant, DifferenceClass>> = {
    duplicate_grant: "DUPLICATE_GRANT",
    wrong_quantity: "TOKEN_QTY_MISMATCH",
    subscription_overlap: "SUB_PERIOD_OVERLAP",
  };
  for (const { id, lot } of charges) {
    const name = lot?.plant ? classes[lot.plant] : undefined;
    if (name) planted.push({ class: name, about: id });
  }
}

/** Differences made by telling Stripe's side otherwise, each on a charge of its own. */
function plantInCharges(charges: Charge[], planted: Planted[], last: number): void {
  const free = charges
    .filter(({ lot }) => lot && lot.plant === null && lot.kind === "purchased")
    // The latest first: whatever period a person chooses is likely to hold them. Not so late as to be within the grace time.
    .filter(({ created }) => created < last - 2 * DAY)
    .reverse();
  const take = (fits: (lot: PaidLot) => boolean): Charge | null => {
    const place = free.findIndex(({ lot }) => lot !== null && fits(lot));
    return place < 0 ? null : (free.splice(place, 1)[0] ?? null);
  };
  const isPlain = (lot: PaidLot): boolean => lot.refunds.length === 0 && lot.disputes.length === 0;
  const plant = (
    name: DifferenceClass,
    fits: (lot: PaidLot) => boolean,
    change: (charge: Charge) => void,
  ): void => {
    const charge = take(fits);
    if (!charge) return;
    change(charge);
    planted.push({ class: name, about: charge.id });
  };
  const refund = (charge: Charge, amount: number): void => {
    charge.refunds = [{ id: `re_${charge.id.slice(3)}`, amount, at: charge.created + DAY }];
  };
  const dispute = (charge: Charge, status: DisputeStatus): void => {
    const opened = charge.dispute?.opened ?? charge.created + DAY;
    const closed = status === "needs_response" ? null : opened + 12 * HOUR;
    charge.dispute = { id: charge.dispute?.id ?? `du_${charge.id.slice(3)}`, status, opened, closed };
  };

  // The scarce ones first.
  plant(
    "DISPUTE_WON_NOT_RESTORED",
    (lot) => lot.dispute_state === "held" || lot.dispute_state === "clawed",
    (charge) => dispute(charge, "won"),
  );
  plant(
    "REFUND_OVER_REVERSED",
    (lot) => lot.refunds.length === 1 && lot.refunds[0]?.amount_minor === lot.amount_minor,
    (charge) => {
      charge.refunds = charge.refunds.map((one) => ({ ...one, amount: Math.floor(one.amount / 2) }));
    },
  );
  plant(
    "REFUND_AFTER_SPEND",
    (lot) => isPlain(lot) && lot.remaining < lot.granted / 2,
    (charge) => refund(charge, charge.amount),
  );
  plant(
    "REFUND_NOT_REVERSED",
    (lot) => isPlain(lot) && lot.remaining > lot.granted * 0.8,
    (charge) => refund(charge, Math.floor(charge.amount / 2)),
  );
  plant(
    "DISPUTE_NOT_HELD",
    (lot) => isPlain(lot) && lot.remaining > lot.granted * 0.5,
    (charge) => dispute(charge, "needs_response"),
  );
  plant("DISPUTE_LOST_NOT_CHARGED", isPlain, (charge) => dispute(charge, "lost"));
  plant("AMOUNT_MISMATCH", isPlain, (charge) => {
    charge.amount -= Math.max(1, Math.floor(charge.amount / 5));
  });
  plant("CURRENCY_MISMATCH", isPlain, (charge) => {
    charge.currency = charge.currency === "eur" ? "usd" : "eur";
  });
  plant("FX_ROUNDING", isPlain, (charge) => {
    charge.amount += 1;
    charge.settled = {
      amount: Math.round(charge.amount * 0.87),
      currency: charge.currency === "chf" ? "usd" : "chf",
    };
  });
  plant("FEE_VARIANCE", isPlain, (charge) => {
    charge.netOff = 10;
  });
  plant("GRANTED_NOT_PAID", isPlain, (charge) => {
    charge.status = "Failed";
  });
  const twice = take(isPlain);
  if (twice) {
    const twin = copyOf(twice, "2", twice.created + 95);
    charges.push({ ...twin, order: twice.order });
    planted.push({ class: "DUPLICATE_CHARGE", about: twin.id });
  }
  const model = take(isPlain);
  if (model) {
    const unknown = copyOf(model, "3", model.created + 5 * HOUR);
    const invoiced: Charge = {
      ...copyOf(model, "4", model.created + 6 * HOUR),
      invoice: `in_${model.id.slice(3)}`,
      session: null,
      amount: 2_000,
    };
    const test: Charge = {
      ...copyOf(model, "5", model.created + 7 * HOUR),
      session: `cs_test_${model.id.slice(3)}`,
    };
    charges.push(unknown, invoiced, test);
    planted.push({ class: "PAID_NOT_GRANTED", about: unknown.id });
    planted.push({ class: "SUB_PERIOD_GAP", about: invoiced.id });
    planted.push({ class: "TEST_MODE_LEAK", about: test.id });
  }
}

/** Another payment of the same customer, with ids of its own. */
function copyOf(charge: Charge, mark: string, created: number): Charge {
  const other = (id: string): string => `${id.slice(0, -2)}${mark}${mark}`;
  return {
    ...charge,
    lot: null,
    id: other(charge.id),
    transaction: other(charge.transaction),
    intent: other(charge.intent),
    session: charge.session ? other(charge.session) : null,
    order: `order-${mark}${charge.order.slice(-7)}`,
    created,
    refunds: [],
    dispute: null,
  };
}

type BalanceRow = Readonly<Record<(typeof BALANCE_COLUMNS)[number], string>>;

/** Rows of the balance that belong to nothing, or to nothing that is known. */
function plantInRows(planted: Planted[], last: number, newId: () => string): BalanceRow[] {
  const orphan = `re_${newId().slice(0, 24)}`;
  const strange = `txn_${newId().slice(0, 24)}`;
  planted.push({ class: "ORPHAN", about: orphan }, { class: "UNKNOWN_CATEGORY", about: strange });
  return [
    balanceRow({
      id: `txn_${newId().slice(0, 24)}`,
      at: last - 4 * DAY,
      currency: "usd",
      gross: -700,
      fee: 0,
      category: "refund",
      source: orphan,
      charge: `ch_${newId().slice(0, 24)}`,
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
  /** What the customer saw, signed. */
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
