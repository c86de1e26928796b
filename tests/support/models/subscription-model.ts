/**
 * Subscriptions as a project lives with them: tried, started, paid with tax or a coupon, refunded, failed, written off,
 * paused, upgraded, downgraded, cancelled at once or at the end of a period, begun again, two at once, never paid, or moved
 * to another user; alone or beside another price. `subscriptionHistory` draws one life and answers Stripe's events of it in
 * shapes of several API versions, each with the day of its delivery, some lost; `expectedAccounts` says, from the same
 * life, what each user has in the end. The model knows days, periods and plans, and nothing of lots, locks or order.
 */
import { event, type StripeEvent } from "../stripe/events.ts";
import { paidInvoice } from "../stripe/paid-invoice.ts";

const DAY = 86_400;
/** Tokens of a paid month last this much longer than the month: Stripe takes about an hour to collect the next one. */
const GRACE_DAYS = 1.5 / 24;
const PERIOD_DAYS = 30;
const TRIAL_DAYS = 14;

/** Plans of the test's preset; `end` is `on_cancel`. */
const plans = {
  free: { allowance: 0, price: 0, end: "keep" },
  basic: { allowance: 100_000, price: 2_000, end: "expire" },
  pro: { allowance: 300_000, price: 6_000, end: "expire" },
  loyal: { allowance: 70_000, price: 1_500, end: "keep" },
} as const;
type PlanId = keyof typeof plans;
const paidPlans = ["basic", "pro", "loyal"] as const;

export const subscriptionPreset = {
  name: "subscriptions",
  currency: "usd",
  default_plan: "free",
  settings: {},
  plans: Object.entries(plans).map(([plan_id, plan]) => ({
    plan_id,
    name: plan_id,
    monthly_allowance: plan.allowance,
    daily_limit: null,
    monthly_limit: null,
    allows_top_up: true,
    fail_mode: "closed",
    on_cancel: plan.end,
  })),
  packs: [],
  rules: [],
  prices: [],
  estimates: [],
  alerts: [],
};

interface PaidPeriod {
  readonly plan: PlanId;
  readonly from: number;
  /** Later where the period was begun again. */
  to: number;
  readonly net: number;
  /** Tokens that a refund took back. */
  refunded: number;
}

interface Subscription {
  readonly id: string;
  /** Of whom it is in the end. */
  owner: string;
  /** Invoices have the shape of before 2025-03-31. */
  readonly isOld: boolean;
  readonly paid: PaidPeriod[];
  endedOn: number | null;
}

interface Delivery {
  readonly day: number;
  readonly event: StripeEvent;
}

export interface History {
  /** The user, and a second one where a subscription is moved. */
  readonly users: readonly string[];
  readonly deliveries: readonly Delivery[];
  readonly subscriptions: readonly Subscription[];
}

export interface ExpectedAccount {
  readonly plan: PlanId;
  readonly subscription: number;
}

interface Line {
  readonly plan: PlanId;
  readonly from: number;
  readonly to: number;
  readonly amount: number;
  readonly isProration: boolean;
  readonly isSeats?: boolean;
}

/** Where a subscription's plan is written. */
type Naming = "metadata" | "lookup key" | "session";

/** Money of all invoices, net of tax, in minor units. */
export const expectedMoney = (history: History): number =>
  history.subscriptions.flatMap((one) => one.paid).reduce((sum, { net }) => sum + net, 0);

export function expectedAccounts(history: History, day: number): Record<string, ExpectedAccount> {
  return Object.fromEntries(
    history.users.map((user) => [
      user,
      expectedAccount(
        history.subscriptions.filter((one) => one.owner === user),
        day,
      ),
    ]),
  );
}

function expectedAccount(subscriptions: readonly Subscription[], day: number): ExpectedAccount {
  let subscription = 0;
  let current: { plan: PlanId; from: number } | null = null;
  for (const one of subscriptions) {
    // The plan that was paid last: an upgrade within a period counts from its day.
    const last = [...one.paid].sort((a, b) => a.from - b.from).at(-1);
    // A period gives the largest allowance that was paid for it, once.
    const largest = new Map<number, number>();
    for (const { plan, to } of one.paid)
      largest.set(to, Math.max(largest.get(to) ?? 0, plans[plan].allowance));
    const isGone = one.endedOn !== null && last !== undefined && plans[last.plan].end === "expire";
    const live = (to: number): boolean => !isGone && day < to + GRACE_DAYS;
    for (const [to, tokens] of largest) if (live(to)) subscription += tokens;
    for (const { to, refunded } of one.paid) if (live(to)) subscription -= refunded;
    if (one.endedOn === null && last && (!current || last.from > current.from))
      current = { plan: last.plan, from: last.from };
  }
  return { plan: current?.plan ?? "free", subscription };
}

interface HistoryOptions {
  readonly userId: string;
  readonly random: () => number;
  /** Seconds since 1970 of day 0. */
  readonly start: number;
  /** The last day on which anything happens; all is delivered by `lastDelivery`. */
  readonly lastDay: number;
  readonly lastDelivery: number;
}

/** One user's life with one to three subscriptions. */
export function subscriptionHistory(options: HistoryOptions): History {
  const { random, userId } = options;
  const life = new Life(options);
  let day = pick(random, 0, 10);
  const count = pick(random, 1, 3);
  for (let n = 0; n < count && day < options.lastDay; n++) {
    const endsOn = life.subscribe(`${userId}_${n}`, day);
    // The next one starts after this one ended, or beside it.
    day = random() < 0.5 ? endsOn + pick(random, 1, 20) : day + pick(random, 3, 40);
  }
  return { deliveries: life.deliveries, subscriptions: life.subscriptions, users: [...life.users] };
}

class Life {
  readonly deliveries: Delivery[] = [];
  readonly subscriptions: Subscription[] = [];
  readonly users: Set<string>;
  readonly #options: HistoryOptions;
  #invoices = 0;

  constructor(options: HistoryOptions) {
    this.#options = options;
    this.users = new Set([options.userId]);
  }

  /** Draws a subscription from its start; answers the day on which it ended or was last looked at. */
  subscribe(name: string, startDay: number): number {
    const { random, lastDay } = this.#options;
    const one: Subscription = {
      id: `sub_${name}`,
      owner: this.#options.userId,
      isOld: random() < 0.3,
      paid: [],
      endedOn: null,
    };
    this.subscriptions.push(one);
    // Whole days and a fraction of its own: no two subscriptions start at the same moment.
    const start = startDay + this.subscriptions.length / 100;
    const naming: Naming = random() < 0.6 ? "metadata" : random() < 0.5 ? "lookup key" : "session";
    let plan: PlanId = this.#plan();
    if (naming === "session") this.#checkout(start, one, plan);
    this.#tell(start, "customer.subscription.created", this.#subscription(one, naming, plan, "active"));
    if (random() < 0.15) {
      // Never paid: the first payment fails and Stripe gives up.
      this.#fail(start, one);
      this.#end(one, naming, plan, start + 1);
      return startDay + 1;
    }
    let credit = 0;
    let from = start;
    if (random() < 0.2) {
      // Tried for two weeks, or until they paid before that.
      this.#pay(start, one, naming, plan, [
        { plan, from, to: from + TRIAL_DAYS, amount: 0, isProration: false },
      ]);
      from += random() < 0.5 ? TRIAL_DAYS : pick(random, 3, 12);
    }
    for (let to = from; from <= lastDay; from = to) {
      to = from + PERIOD_DAYS;
      if (from > start && random() < 0.06) {
        // Paused: Stripe voids what it would have collected, and the subscription stays active.
        const paused = { pause_collection: { behavior: "void", resumes_at: null } };
        this.#update(from - 1, one, naming, plan, "active", paused);
        this.#invoice(from, "invoice.voided", one, "void");
        this.#update(to - 1, one, naming, plan, "active", { pause_collection: null });
      } else if (from > start && random() < 0.12) {
        this.#fail(from, one);
        // Written off: it may be paid all the same.
        if (random() < 0.3) this.#invoice(from + 1, "invoice.marked_uncollectible", one, "uncollectible");
        this.#update(from + 1, one, naming, plan, "unpaid");
        if (random() < 0.4 && from + 9 <= lastDay)
          // Paid late: for the period that is under way.
          this.#pay(from + pick(random, 2, 8), one, naming, plan, [
            { plan, from, to, amount: plans[plan].price, isProration: false },
          ]);
      } else {
        const price = plans[plan].price;
        const used = Math.min(credit, price);
        const line = { plan, from, to, amount: price, isProration: false };
        // A credit is on the customer's balance, or a line of the next invoice.
        if (used > 0 && random() < 0.5)
          this.#pay(from, one, naming, plan, [{ ...line, amount: -used, isProration: true }, line]);
        else this.#pay(from, one, naming, plan, [line, ...this.#seats(naming, line)], used);
        credit -= used;
        if (random() < 0.08) this.#move(from + pick(random, 1, 29) + 0.3, one, naming, plan);
        if (one.paid.at(-1)?.refunded === 0 && naming !== "session" && random() < 0.3) {
          const changeDay = from + pick(random, 2, 20);
          if (changeDay <= lastDay)
            [plan, credit, to] = this.#change(one, naming, plan, changeDay, to, credit);
        }
      }
      if (random() < 0.25) {
        const isAtEnd = random() < 0.4;
        const endDay = isAtEnd ? to : from + pick(random, 21, 30);
        if (isAtEnd && to > lastDay) continue;
        // Cancelled for the end of the period, or thought better of first.
        const atEnd = (cancel_at_period_end: boolean): object => ({ cancel_at_period_end });
        if (isAtEnd) this.#update(to - 9, one, naming, plan, "active", atEnd(true));
        if (isAtEnd && random() < 0.4) {
          this.#update(to - 8, one, naming, plan, "active", atEnd(false));
          continue;
        }
        this.#end(one, naming, plan, isAtEnd ? to : Math.min(endDay, lastDay));
        return Math.ceil(endDay);
      }
    }
    return lastDay + 1;
  }

  /** An upgrade is invoiced at once; a downgrade leaves a credit for the next invoice. */
  #change(
    one: Subscription,
    naming: Naming,
    from: PlanId,
    day: number,
    to: number,
    credit: number,
  ): [PlanId, number, number] {
    const next = paidPlans[(paidPlans.indexOf(from as "basic") + 1) % paidPlans.length] ?? "basic";
    const left = (to - day) / PERIOD_DAYS;
    const back = Math.floor(plans[from].price * left);
    const more = Math.floor(plans[next].price * left);
    this.#update(day, one, naming, next, "active");
    const unused = { plan: from, from: day, to, amount: -back, isProration: true };
    if (plans[next].price > plans[from].price && this.#options.random() < 0.3) {
      // The period begins again: what the old one gave goes on into it.
      const end = day + PERIOD_DAYS;
      for (const period of one.paid) if (period.to === to) period.to = end;
      this.#pay(day, one, naming, next, [
        unused,
        { plan: next, from: day, to: end, amount: plans[next].price, isProration: false },
      ]);
      return [next, credit, end];
    }
    this.#pay(day, one, naming, next, [
      unused,
      { plan: next, from: day, to, amount: more, isProration: true },
    ]);
    return [next, credit + Math.max(back - more, 0), to];
  }

  /** The project writes another user into the subscription's metadata. */
  #move(day: number, one: Subscription, naming: Naming, plan: PlanId): void {
    const { userId, lastDay } = this.#options;
    if (day > lastDay) return;
    one.owner = one.owner === userId ? `${userId}_other` : userId;
    this.users.add(one.owner);
    this.#update(day, one, naming, plan, "active");
  }

  #update(
    day: number,
    one: Subscription,
    naming: Naming,
    plan: PlanId,
    status: string,
    changes: object = {},
  ): void {
    this.#tell(day, "customer.subscription.updated", {
      ...this.#subscription(one, naming, plan, status),
      ...changes,
    });
  }

  #pay(
    day: number,
    one: Subscription,
    naming: Naming,
    plan: PlanId,
    lines: readonly Line[],
    fromBalance = 0,
  ): void {
    const { random } = this.#options;
    const number = ++this.#invoices;
    const subtotal = lines.reduce((sum, line) => sum + line.amount, 0);
    // With a coupon or tax, where nothing else makes the sum hard to follow.
    const isPlain = lines.length === 1 && fromBalance === 0 && subtotal > 0;
    const discount = isPlain && random() < 0.2 ? Math.floor(subtotal * (random() < 0.3 ? 1 : random())) : 0;
    const tax =
      isPlain && random() < 0.2 ? Math.round(((subtotal - discount) * pick(random, 5, 25)) / 100) : 0;
    const total = subtotal - discount + tax;
    const paid = Math.max(total - fromBalance, 0);
    const name = `${one.id.slice(4)}_${number}`;
    const sold = lines.filter((line) => line.amount >= 0 && !line.isSeats).at(-1);
    const seats = lines.find((line) => line.isSeats);
    const net = seats && sold ? Math.trunc((paid * sold.amount) / (sold.amount + seats.amount)) : paid - tax;
    if (sold) one.paid.push({ plan: sold.plan, from: sold.from, to: sold.to, net, refunded: 0 });
    const metadata = this.#metadata(one, naming, plan);
    const invoice = paidInvoice({
      name,
      paid,
      subtotal,
      total,
      tax,
      discount,
      metadata,
      subscription: one.id,
      customer: this.#customer(one),
      isOld: one.isOld,
      lines: lines.map((line) => ({
        ...line,
        start: this.#seconds(line.from),
        end: this.#seconds(line.to),
        metadata: naming === "metadata" ? { ...metadata, plan_id: line.plan } : metadata,
        price: line.isSeats ? { id: "price_seats", lookup_key: "seats" } : priceOf(naming, line.plan),
      })),
    });
    // Stripe tells a paid invoice twice, under two names; an endpoint may hear of one alone.
    const heard = random();
    if (heard < 0.9) this.#tell(day, "invoice.paid", invoice);
    if (heard > 0.7) this.#tell(day, "invoice.payment_succeeded", invoice);
    if (paid > 0 && isPlain && lines[0]?.isProration === false && random() < 0.08)
      this.#refund(
        Math.min(day + pick(random, 0, 20), this.#options.lastDelivery - 2),
        name,
        paid,
        one.paid.at(-1) as PaidPeriod,
      );
    if (paid > 0 && !one.isOld)
      this.#tell(day, "invoice_payment.paid", {
        id: `inpay_${name}`,
        object: "invoice_payment",
        invoice: `in_${name}`,
        amount_paid: paid,
        status: "paid",
        payment: { type: "payment_intent", payment_intent: `pi_${name}` },
      });
    if (paid > 0 && random() < 0.5)
      this.#tell(day, "charge.succeeded", {
        id: `ch_${name}`,
        object: "charge",
        amount: paid,
        amount_captured: paid,
        amount_refunded: 0,
        status: "succeeded",
        currency: "usd",
        payment_intent: `pi_${name}`,
        customer: this.#customer(one),
      });
  }

  #refund(day: number, name: string, paid: number, period: PaidPeriod): void {
    const { random } = this.#options;
    const amount = random() < 0.5 ? paid : pick(random, 1, paid);
    const refund = {
      id: `re_${name}`,
      object: "refund",
      amount,
      currency: "usd",
      charge: `ch_${name}`,
      payment_intent: `pi_${name}`,
    };
    const fails = random() < 0.2;
    this.#tell(day, "refund.created", { ...refund, status: "pending" });
    this.#tell(day + 1, fails ? "refund.failed" : "refund.updated", {
      ...refund,
      status: fails ? "failed" : "succeeded",
    });
    if (!fails) period.refunded = Math.floor((plans[period.plan].allowance * amount) / paid);
  }

  #fail(day: number, one: Subscription): void {
    this.#invoice(day, "invoice.payment_failed", one, "open");
  }

  /** An invoice of which nothing was paid. */
  #invoice(day: number, type: string, one: Subscription, status: string): void {
    this.#tell(day, type, {
      id: `in_${one.id}_open_${day}`,
      object: "invoice",
      status,
      customer: this.#customer(one),
      amount_due: 2_000,
      amount_paid: 0,
    });
  }

  #end(one: Subscription, naming: Naming, plan: PlanId, day: number): void {
    one.endedOn = day;
    this.#tell(day, "customer.subscription.deleted", {
      ...this.#subscription(one, naming, plan, "canceled"),
      ended_at: this.#seconds(day),
    });
  }

  #checkout(day: number, one: Subscription, plan: PlanId): void {
    this.#tell(day, "checkout.session.completed", {
      id: `cs_${one.id}`,
      object: "checkout.session",
      mode: "subscription",
      status: "complete",
      payment_status: "paid",
      subscription: one.id,
      payment_intent: null,
      customer: this.#customer(one),
      client_reference_id: this.#options.userId,
      metadata: { user_id: this.#options.userId, plan_id: plan },
    });
  }

  #subscription(one: Subscription, naming: Naming, plan: PlanId, status: string): Record<string, unknown> {
    const price = { ...priceOf(naming, plan), metadata: {} };
    const seats = {
      id: `si_seats_${one.id}`,
      price: { id: "price_seats", lookup_key: "seats", metadata: {} },
    };
    return {
      id: one.id,
      object: "subscription",
      status,
      customer: this.#customer(one),
      metadata: this.#metadata(one, naming, plan),
      items: {
        object: "list",
        data: [seats, { id: `si_${one.id}`, price }].slice(naming === "lookup key" ? 0 : 1),
      },
    };
  }

  /** What is sold beside the plan, where prices tell the two apart. */
  #seats(naming: Naming, line: Line): Line[] {
    const { random } = this.#options;
    if (naming !== "lookup key" || random() < 0.6) return [];
    return [{ ...line, amount: 100 * pick(random, 1, 20), isSeats: true }];
  }

  #metadata(one: Subscription, naming: Naming, plan: PlanId): Record<string, string> {
    if (naming === "session" && this.users.size === 1) return {};
    return { user_id: one.owner, ...(naming === "metadata" ? { plan_id: plan } : {}) };
  }

  /** Delivered at once, late, or twice; of what others tell too, some never. */
  #tell(day: number, type: string, object: object): void {
    const { random, lastDelivery } = this.#options;
    const isTold = ["charge.succeeded", "invoice.payment_failed", "refund.created"].includes(type);
    if (isTold && random() < 0.1) return;
    const created = this.#seconds(day);
    const sent = event(type, object, {
      created,
      id: `evt_${this.#options.userId}_${this.deliveries.length}`,
    });
    const arrives = (): number => (random() < 0.2 ? Math.min(day + pick(random, 1, 45), lastDelivery) : day);
    this.deliveries.push({ day: arrives(), event: sent });
    if (random() < 0.2) this.deliveries.push({ day: arrives(), event: sent });
  }

  #customer = (one: Subscription): string => `cus_${one.id}`;
  #plan = (): PlanId => paidPlans[pick(this.#options.random, 0, 2)] ?? "basic";
  #seconds = (day: number): number => Math.round(this.#options.start + day * DAY);
}

const priceOf = (naming: Naming, plan: PlanId): { id: string; lookup_key: string | null } =>
  naming === "lookup key" ? { id: `price_${plan}`, lookup_key: plan } : { id: "price_1", lookup_key: null };

const pick = (random: () => number, from: number, to: number): number =>
  from + Math.floor(random() * (to - from + 1));
