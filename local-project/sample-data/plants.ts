/** The differences that the sample plants in its payments, for a reconciliation to find. */
import type { DifferenceClass } from "../../shared/governance/reconciliation/index.ts";

/**
 * A payment on which the ledger and Stripe disagree on purpose, named for what it will be found as. The other two
 * classes are rows of Stripe's that belong to no payment.
 */
export type Plant = Exclude<DifferenceClass, "ORPHAN" | "UNKNOWN_CATEGORY">;

type DisputeStatus = "needs_response" | "won" | "lost";

/** A charge as Stripe has it. */
export interface Charge {
  readonly id: string;
  readonly transaction: string;
  readonly intent: string;
  readonly session: string | null;
  readonly invoice: string | null;
  readonly order: string;
  readonly customer: string;
  readonly name: string;
  readonly email: string;
  readonly created: number;
  readonly amount: number;
  readonly currency: string;
  readonly status: "Paid" | "Failed";
  /** In another currency than the customer's, where Stripe converted it. */
  readonly settled: { readonly amount: number; readonly currency: string } | null;
  readonly refunds: readonly { readonly id: string; readonly amount: number; readonly at: number }[];
  readonly dispute: {
    readonly id: string;
    readonly status: DisputeStatus;
    readonly opened: number;
    readonly closed: number | null;
  } | null;
  /** Missing from the net of its row. */
  readonly netOff: number;
}

/** Another charge of the same customer. */
type AnotherCharge = (fields: Partial<Charge> & Pick<Charge, "created">) => Charge;

const HOUR = 3600;
const DAY = 24 * HOUR;

/**
 * How Stripe's side differs from the ledger for each plant: by a change to the charge, or by another charge of the same
 * customer. Where the ledger is what is wrong, Stripe's side is left as it is. Null: the charge is in no file yet.
 */
export const stripeSide: Readonly<
  Record<Plant, ((charge: Charge, another: AnotherCharge) => Charge) | null>
> = {
  DUPLICATE_GRANT: (charge) => charge,
  TOKEN_QTY_MISMATCH: (charge) => charge,
  SUB_PERIOD_OVERLAP: (charge) => charge,
  TIMING: null,
  DISPUTE_WON_NOT_RESTORED: (charge) => disputed(charge, "won"),
  DISPUTE_NOT_HELD: (charge) => disputed(charge, "needs_response"),
  DISPUTE_LOST_NOT_CHARGED: (charge) => disputed(charge, "lost"),
  REFUND_OVER_REVERSED: (charge) => ({
    ...charge,
    refunds: charge.refunds.map((one) => ({ ...one, amount: Math.floor(one.amount / 2) })),
  }),
  REFUND_AFTER_SPEND: (charge) => refunded(charge, charge.amount),
  REFUND_NOT_REVERSED: (charge) => refunded(charge, Math.floor(charge.amount / 2)),
  AMOUNT_MISMATCH: (charge) => ({
    ...charge,
    amount: charge.amount - Math.max(1, Math.floor(charge.amount / 5)),
  }),
  CURRENCY_MISMATCH: (charge) => ({ ...charge, currency: charge.currency === "eur" ? "usd" : "eur" }),
  FX_ROUNDING: (charge) => ({
    ...charge,
    amount: charge.amount + 1,
    settled: {
      amount: Math.round((charge.amount + 1) * 0.87),
      currency: charge.currency === "chf" ? "usd" : "chf",
    },
  }),
  FEE_VARIANCE: (charge) => ({ ...charge, netOff: 10 }),
  GRANTED_NOT_PAID: (charge) => ({ ...charge, status: "Failed" }),
  DUPLICATE_CHARGE: ({ order, created }, another) => another({ order, created: created + 95 }),
  PAID_NOT_GRANTED: ({ created }, another) => another({ created: created + 5 * HOUR }),
  SUB_PERIOD_GAP: ({ id, created }, another) =>
    another({ invoice: `in_${id.slice(3)}`, session: null, amount: 2_000, created: created + 6 * HOUR }),
  TEST_MODE_LEAK: ({ id, created }, another) =>
    another({ session: `cs_test_${id.slice(3)}`, created: created + 7 * HOUR }),
};

/** Each has a user of its own, so that every class occurs, whatever else the history invents. */
export const plants = Object.keys(stripeSide) as readonly Plant[];

function refunded(charge: Charge, amount: number): Charge {
  return { ...charge, refunds: [{ id: `re_${charge.id.slice(3)}`, amount, at: charge.created + DAY }] };
}

function disputed(charge: Charge, status: DisputeStatus): Charge {
  const opened = charge.dispute?.opened ?? charge.created + DAY;
  const closed = status === "needs_response" ? null : opened + 12 * HOUR;
  return {
    ...charge,
    dispute: { id: charge.dispute?.id ?? `du_${charge.id.slice(3)}`, status, opened, closed },
  };
}
