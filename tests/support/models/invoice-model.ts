/**
 * Payments and invoices against plain arithmetic. `invoiceCase` draws an invoice with discounts, tax, a customer's balance,
 * other lines, quantities and several payments, or one that was paid outside of Stripe; `packCase` a pack sold by a
 * session, with tax or a promotion code, at once or later, or by a payment that was authorised for more than was captured.
 * Some are refunded or disputed. Both answer Stripe's events, in shapes of several API versions and some of them lost, and
 * what the books must say once all are delivered, in whatever order.
 */
import { event, type StripeEvent } from "../stripe/events.ts";

export interface MoneyCase {
  readonly events: readonly StripeEvent[];
  /** In words, for a failed comparison. */
  readonly words: string;
  readonly expected: {
    /** Tokens left of what was granted. */
    readonly tokens: number;
    /** Paid for tokens, net of tax, and what Stripe collected for them, in minor units. */
    readonly booked: number;
    readonly collected: number;
    /** How far each figure may be off for sharing among lines: 0 where all lines are for tokens. */
    readonly tolerance: number;
  };
}

type Random = () => number;
const beforeBasil = "2024-12-18.acacia";
const pick = (random: Random, from: number, to: number): number =>
  from + Math.floor(random() * (to - from + 1));

/** `part` of `whole` of some tokens, rounded down. */
const share = (tokens: number, part: number, whole: number): number =>
  part <= 0 ? 0 : part >= whole ? tokens : Number((BigInt(tokens) * BigInt(part)) / BigInt(whole));

interface Told {
  readonly events: StripeEvent[];
  tell(type: string, object: object, apiVersion?: string): void;
}
function teller(name: string, created: number): Told {
  const events: StripeEvent[] = [];
  return {
    events,
    tell: (type, object, apiVersion) =>
      void events.push(
        event(type, object, {
          id: `evt_${name}_${events.length}`,
          created: created + events.length,
          ...(apiVersion === undefined ? {} : { apiVersion }),
        }),
      ),
  };
}

/** A charge and what goes back of it; answers the money refunded and lost in the end. */
function chargeLife(
  told: Told,
  random: Random,
  name: string,
  amount: number,
  authorised = amount,
  isBeforeBasil = false,
): { refunded: number; lost: number } {
  // Before 2025-03-31 what was authorised and never captured is refunded, in Stripe's words.
  const released = isBeforeBasil ? authorised - amount : 0;
  const version = isBeforeBasil ? beforeBasil : undefined;
  const object = (refunded: number): object => ({
    id: `ch_${name}`,
    object: "charge",
    amount: authorised,
    amount_captured: amount,
    amount_refunded: refunded + released,
    refunded: refunded + released === (isBeforeBasil ? authorised : amount),
    captured: true,
    currency: "usd",
    payment_intent: `pi_${name}`,
    status: "succeeded",
  });
  // A first try may have failed; and what only confirms others may be lost.
  if (random() < 0.1)
    told.tell("charge.failed", { ...object(0), id: `ch_${name}_try`, status: "failed", captured: false });
  if (random() < 0.8)
    told.tell(authorised > amount ? "charge.captured" : "charge.succeeded", object(0), version);
  const release = {
    id: `re_${name}_release`,
    object: "refund",
    amount: released,
    currency: "usd",
    charge: `ch_${name}`,
    payment_intent: `pi_${name}`,
    status: "succeeded",
  };
  if (released > 0) told.tell("refund.created", release, version);
  let counted = 0;
  let refunded = 0;
  for (let n = 0; n < pick(random, 0, 2) && counted < amount; n++) {
    const part = pick(random, 1, amount - counted);
    counted += part;
    const refund = {
      id: `re_${name}_${n}`,
      object: "refund",
      amount: part,
      currency: "usd",
      charge: `ch_${name}`,
      payment_intent: `pi_${name}`,
    };
    const fails = random() < 0.2;
    const lost = random();
    // Before 2022-11-15 a charge lists its refunds, and a refund is told by its charge.
    const isOld = random() < 0.3 && (isBeforeBasil || authorised === amount);
    const pending = { ...refund, status: "pending" };
    if (lost > 0.1 && !isOld) told.tell("refund.created", pending);
    if (lost < 0.9 || isOld)
      told.tell(
        "charge.refunded",
        {
          ...(object(counted) as object),
          ...(isOld
            ? { refunds: { object: "list", data: released > 0 ? [pending, release] : [pending] } }
            : {}),
        },
        version,
      );
    told.tell(isOld ? "charge.refund.updated" : fails ? "refund.failed" : "refund.updated", {
      ...refund,
      status: fails ? "failed" : "succeeded",
    });
    if (!fails) refunded += part;
  }
  let lost = 0;
  // Seldom, a payment is disputed in two parts.
  for (let n = 0; n < 2 && random() < 0.25; n++) {
    // Told in another currency, a part cannot be known from the whole.
    const isForeign = random() < 0.2;
    const disputed = isForeign ? amount : pick(random, 1, amount);
    const dispute = {
      id: `dp_${name}_${n}`,
      object: "dispute",
      amount: isForeign ? pick(random, 1, amount) : disputed,
      currency: isForeign ? "eur" : "usd",
      charge: `ch_${name}`,
      payment_intent: `pi_${name}`,
    };
    told.tell("charge.dispute.created", { ...dispute, status: "needs_response" });
    const isLost = random() < 0.5;
    told.tell("charge.dispute.closed", { ...dispute, status: isLost ? "lost" : "won" });
    if (isLost) lost += disputed;
  }
  return { refunded, lost };
}

function left(granted: number, paid: number, { refunded, lost }: { refunded: number; lost: number }): number {
  if (refunded === 0 && lost === 0) return granted;
  const reversed = share(granted, refunded, paid);
  return granted - reversed - Math.min(share(granted, lost, paid), granted - reversed);
}

interface Pack {
  readonly packId: string;
  readonly tokens: number;
  readonly price: number;
}

/** A pack of the preset: by a Checkout Session or by a PaymentIntent, which may be authorised for more. */
export function packCase(
  name: string,
  userId: string,
  pack: Pack,
  random: Random,
  created: number,
): MoneyCase {
  const told = teller(name, created);
  return random() < 0.5
    ? sessionCase(told, name, userId, pack, random)
    : captureCase(told, name, userId, pack, random, created);
}

function captureCase(
  told: Told,
  name: string,
  userId: string,
  pack: Pack,
  random: Random,
  created: number,
): MoneyCase {
  const authorised = pack.price + pick(random, 0, 2) * 400;
  const isBeforeBasil = random() < 0.5;
  told.tell(
    "payment_intent.succeeded",
    {
      id: `pi_${name}`,
      object: "payment_intent",
      amount: authorised,
      amount_received: pack.price,
      created,
      currency: "usd",
      status: "succeeded",
      latest_charge: `ch_${name}`,
      metadata: { user_id: userId, pack_id: pack.packId },
    },
    isBeforeBasil ? beforeBasil : undefined,
  );
  const back = chargeLife(told, random, name, pack.price, authorised, isBeforeBasil);
  return {
    events: told.events,
    words: `captured ${pack.price} of ${authorised}, refunded ${back.refunded}, lost ${back.lost}`,
    expected: {
      tokens: left(pack.tokens, pack.price, back),
      booked: pack.price,
      collected: pack.price,
      tolerance: 0,
    },
  };
}

function sessionCase(told: Told, name: string, userId: string, pack: Pack, random: Random): MoneyCase {
  const discount = random() < 0.3 ? (random() < 0.3 ? pack.price : pick(random, 1, pack.price)) : 0;
  const isInclusive = random() < 0.5;
  const percent = random() < 0.5 ? 0 : pick(random, 5, 25);
  const net = pack.price - discount;
  const tax = isInclusive
    ? net - Math.round((net * 100) / (100 + percent))
    : Math.round((net * percent) / 100);
  const total = isInclusive ? net : net + tax;
  const session = {
    id: `cs_live_${name}`,
    object: "checkout.session",
    mode: "payment",
    status: "complete",
    payment_status: total === 0 ? "no_payment_required" : "paid",
    amount_subtotal: pack.price,
    amount_total: total,
    total_details: { amount_discount: discount, amount_shipping: 0, amount_tax: tax },
    currency: "usd",
    payment_intent: total === 0 ? null : `pi_${name}`,
    customer: `cus_${name}`,
    client_reference_id: random() < 0.5 ? userId : null,
    metadata: { user_id: userId, pack_id: pack.packId },
  };
  // A bank's payment comes days after the session.
  const isLater = total > 0 && random() < 0.3;
  if (isLater) told.tell("checkout.session.completed", { ...session, payment_status: "unpaid" });
  told.tell(isLater ? "checkout.session.async_payment_succeeded" : "checkout.session.completed", session);
  if (total > 0 && random() < 0.7)
    told.tell("payment_intent.succeeded", {
      id: `pi_${name}`,
      object: "payment_intent",
      amount: total,
      amount_received: total,
      currency: "usd",
      status: "succeeded",
      latest_charge: `ch_${name}`,
      metadata: {},
    });
  const back = total > 0 ? chargeLife(told, random, name, total) : { refunded: 0, lost: 0 };
  return {
    events: told.events,
    words: `session of ${pack.price}-${discount}, tax ${tax}${isInclusive ? " within" : ""}, paid ${total}, refunded ${back.refunded}, lost ${back.lost}`,
    expected: {
      tokens: left(pack.tokens, total, back),
      booked: total - tax,
      collected: total,
      tolerance: 0,
    },
  };
}

interface Line {
  readonly amount: number;
  readonly discount: number;
  readonly tokens: number;
  readonly object: Record<string, unknown>;
}

/** An invoice of a subscription whose lines, prices or subscription name tokens. */
export function invoiceCase(name: string, userId: string, random: Random, created: number): MoneyCase {
  const told = teller(name, created);
  const isInclusive = random() < 0.5;
  const taxPercent = random() < 0.5 ? 0 : pick(random, 5, 25);
  const withDiscount = random() < 0.4;
  // Tokens of the subscription: Stripe copies its metadata to each line.
  const ofSubscription = random() < 0.2 ? pick(random, 1, 50) * 1_000 : 0;
  const metadata = { user_id: userId, ...(ofSubscription ? { tokens: String(ofSubscription) } : {}) };
  const isOld = random() < 0.3;
  const lines = Array.from({ length: pick(random, 1, 4) }, (_, n) => {
    const isForTokens = n === 0 || random() < 0.6;
    const quantity = isForTokens ? pick(random, 1, 3) : 1;
    const amount = pick(random, 1, 40) * 100 * quantity;
    const discount = withDiscount ? Math.floor((amount * pick(random, 0, 90)) / 100) : 0;
    const copied = ofSubscription ? metadata : null;
    return makeLine(name, n, { isForTokens, quantity, amount, discount, created, random, copied, isOld });
  });
  const subtotal = lines.reduce((sum, line) => sum + line.amount, 0);
  const discount = lines.reduce((sum, line) => sum + line.discount, 0);
  const net = subtotal - discount;
  const tax = isInclusive
    ? net - Math.round((net * 100) / (100 + taxPercent))
    : Math.round((net * taxPercent) / 100);
  const total = isInclusive ? net : net + tax;
  const isOutside = random() < 0.1;
  const balance = !isOutside && random() < 0.3 ? pick(random, 0, total) : 0;
  const paid = total - balance;
  const payments = isOutside ? [] : parts(paid, isOld ? 1 : pick(random, 1, 3), random);
  const taxes = tax > 0 ? [{ amount: tax, inclusive: isInclusive }] : [];
  const invoice = {
    id: `in_${name}`,
    object: "invoice",
    status: "paid",
    customer: `cus_${name}`,
    currency: "usd",
    amount_due: paid,
    amount_paid: paid,
    subtotal,
    total,
    total_excluding_tax: total - tax,
    total_discount_amounts: discount > 0 ? [{ amount: discount, discount: "di_1" }] : [],
    starting_balance: -balance,
    ending_balance: 0,
    paid_out_of_band: isOutside,
    metadata: {},
    ...(isOld
      ? {
          subscription: `sub_${name}`,
          subscription_details: { metadata },
          payment_intent: payments.length > 0 ? `pi_${name}_0` : null,
          charge: payments.length > 0 && random() < 0.5 ? `ch_${name}_0` : null,
          tax,
          total_tax_amounts: taxes,
        }
      : {
          parent: {
            type: "subscription_details",
            subscription_details: { subscription: `sub_${name}`, metadata },
          },
          total_taxes: taxes,
        }),
    lines: { object: "list", has_more: false, data: lines.map((line) => line.object) },
  };
  // A paid invoice is told under two names; an endpoint may hear of one alone.
  const heard = random();
  if (heard < 0.9) told.tell("invoice.paid", invoice);
  if (heard > 0.7) told.tell("invoice.payment_succeeded", invoice);
  const back = { refunded: 0, lost: 0 };
  for (const [n, amount] of payments.entries()) {
    if (!isOld)
      told.tell("invoice_payment.paid", {
        id: `inpay_${name}_${n}`,
        object: "invoice_payment",
        invoice: `in_${name}`,
        amount_paid: amount,
        status: "paid",
        payment: { type: "payment_intent", payment_intent: `pi_${name}_${n}` },
      });
    const { refunded, lost } = chargeLife(told, random, `${name}_${n}`, amount);
    back.refunded += refunded;
    back.lost += lost;
  }
  const sold = lines.filter((line) => line.tokens > 0);
  const soldNet = sold.reduce((sum, line) => sum + line.amount - line.discount, 0);
  const paidNet = total === 0 ? 0 : paid - Math.floor((tax * paid) / total);
  return {
    events: told.events,
    words: `${isOld ? "old, " : ""}${isOutside ? "paid outside, " : ""}${ofSubscription ? `${ofSubscription} a period, ` : ""}lines ${lines.map((l) => `${l.amount}-${l.discount}:${l.tokens}`).join(" ")}, tax ${tax}${isInclusive ? " within" : ""}, balance ${balance}, paid ${paid}, refunded ${back.refunded}, lost ${back.lost}`,
    expected: {
      tokens: ofSubscription
        ? left(ofSubscription, paid, back)
        : sold.reduce((sum, line) => sum + left(line.tokens, paid, back), 0),
      booked: net === 0 ? 0 : (paidNet * soldNet) / net,
      collected: net === 0 || isOutside ? 0 : (paid * soldNet) / net,
      tolerance: sold.length === lines.length ? 0 : sold.length + 1,
    },
  };
}

function makeLine(
  name: string,
  n: number,
  draw: {
    readonly isForTokens: boolean;
    readonly quantity: number;
    readonly amount: number;
    readonly discount: number;
    readonly created: number;
    readonly random: Random;
    /** The subscription's metadata, where it names the tokens. */
    readonly copied: object | null;
    readonly isOld: boolean;
  },
): Line {
  const { amount, discount, quantity, created } = draw;
  const each = pick(draw.random, 1, 50) * 1_000;
  // A line names its tokens; a price names those of one piece.
  const byPrice = draw.isForTokens && !draw.copied && draw.random() < 0.5;
  const tokens = draw.isForTokens ? (byPrice ? each * quantity : each) : 0;
  // Sold once: Stripe writes the moment as a period without length.
  const isOnce = !draw.isForTokens || (!draw.copied && draw.random() < 0.2);
  return {
    amount,
    discount,
    tokens,
    object: {
      id: `il_${name}_${n}`,
      object: "line_item",
      amount,
      currency: "usd",
      quantity,
      discount_amounts: discount > 0 ? [{ amount: discount, discount: "di_1" }] : [],
      metadata:
        draw.copied && draw.isForTokens
          ? draw.copied
          : draw.isForTokens && !byPrice
            ? { tokens: String(tokens) }
            : {},
      ...(byPrice ? { price: { id: `price_${name}_${n}`, metadata: { tokens: String(each) } } } : {}),
      period: { start: created, end: isOnce ? created : created + 30 * 86_400 },
      ...(draw.isOld
        ? {
            type: isOnce ? "invoiceitem" : "subscription",
            subscription: `sub_${name}`,
            proration: false,
          }
        : {
            parent: !isOnce
              ? {
                  type: "subscription_item_details",
                  subscription_item_details: { proration: false, subscription: `sub_${name}` },
                }
              : { type: "invoice_item_details", invoice_item_details: { proration: false } },
          }),
    },
  };
}

/** A sum in so many parts above zero, or fewer. */
function parts(sum: number, count: number, random: Random): number[] {
  const found: number[] = [];
  let rest = sum;
  for (let n = count; n > 1 && rest > 1; n--) {
    const part = pick(random, 1, rest - 1);
    found.push(part);
    rest -= part;
  }
  return rest > 0 ? [...found, rest] : found;
}
