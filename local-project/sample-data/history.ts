/**
 * What one sample user did up to now: a pure function of the seed, the person and the moment at which the history ends.
 * It plays the rules of the product (holds, lots spent in order, allowances by the local month, limits, expiry,
 * refunds, disputes), so that the history could have happened, and adds up.
 */
import {
  dayOf,
  localDay,
  localTime,
  localWeekday,
  monthOf,
  startOfDay,
} from "../../shared/governance/time/index.ts";
import type { Habit, Person } from "./people.ts";
import type { Plant } from "./plants.ts";
import { type Random, seedRandom } from "./random.ts";

/** What the project sells and allows, read from the project itself, so that any preset gives a fitting history. */
export interface Catalogue {
  /** From the smallest up; those without an allowance, whose tokens are agreed on, last. */
  readonly plans: readonly Plan[];
  readonly packs: readonly Pack[];
  readonly prices: readonly Price[];
  readonly estimates: readonly { readonly task_type: string; readonly tokens: number }[];
  readonly hold_minutes: number;
  /** Why the project's rules block; nobody in the history is blocked for anything else but limits. */
  readonly reasons: readonly string[];
}
interface Plan {
  readonly plan_id: string;
  readonly name: string;
  readonly monthly_allowance: number;
  readonly daily_limit: number | null;
  readonly monthly_limit: number | null;
  readonly allows_top_up: boolean;
  /** Months that an unspent allowance outlives its own month. */
  readonly rollover_months: number;
  readonly warn_at: readonly number[];
}
interface Pack {
  readonly pack_id: string;
  readonly tokens: number;
  readonly price_minor: number;
  readonly currency: string;
  /** Plans that may buy it; null for all that allow a top-up. */
  readonly plans: readonly string[] | null;
}
interface Price {
  readonly provider: string;
  readonly model: string;
  readonly input_micros_per_million: number;
  readonly output_micros_per_million: number;
}

type LotKind = "subscription" | "purchased" | "promotional";
export interface Lot {
  /** 1 for the account's first lot, and so on. */
  readonly lot: number;
  readonly kind: LotKind;
  readonly granted: number;
  readonly at: number;
  readonly expires_at: number | null;
  readonly description: string;
  readonly payment: Payment | null;
  remaining: number;
  frozen: number;
  spent: number;
  expired: number;
  clawed_back: number;
}

/** A payment, as Stripe and the ledger both know it. */
interface Payment {
  readonly charge_id: string;
  readonly payment_intent_id: string;
  readonly checkout_session_id: string | null;
  readonly invoice_id: string | null;
  readonly balance_transaction_id: string;
  readonly customer_id: string;
  /** Null for a subscription's invoice. */
  readonly pack_id: string | null;
  readonly tokens: number;
  readonly amount_minor: number;
  readonly currency: string;
  readonly at: number;
  /** The difference that a reconciliation is to find in it. */
  readonly plant: Plant | null;
}

type EntryType =
  | "subscription_grant"
  | "purchase"
  | "bonus"
  | "usage"
  | "expiry"
  | "refund"
  | "reversal"
  | "adjustment"
  | "debt_recovery";

/** A line of the ledger. `lots` says which lots it moved, by how much; the amounts add up to `amount`. */
export interface Entry {
  readonly at: number;
  readonly type: EntryType;
  readonly amount: number;
  readonly new_balance: number;
  readonly debt_after: number;
  readonly description: string | null;
  readonly reference: string | null;
  readonly lots: readonly (readonly [lot: number, amount: number])[];
  /** The call that a usage settles. */
  readonly call: Call | null;
}

/** Balance by kind, as a call's answer gives it. */
export interface Snapshot {
  readonly subscription: number;
  readonly purchased: number;
  readonly promotional: number;
  readonly reserved: number;
  readonly debt: number;
}

export interface Call {
  readonly request_id: string;
  readonly at: number;
  readonly conversation_id: string;
  /** Equal numbers are equal messages. */
  readonly message: number;
  readonly message_words: number;
  readonly task_type: string;
  readonly price: Price;
  readonly estimated_tokens: number;
  /** Why it was blocked; null for a call that was let through. */
  readonly reason: string | null;
  readonly warning: string | null;
  /** What the decision saw, before this call was counted. */
  readonly seen: {
    readonly tokens_today: number;
    readonly tokens_month: number;
    readonly cost_today: number;
    readonly cost_month: number;
    /** This message included, as are the next three. */
    readonly messages_today: number;
    readonly conversation_messages: number;
    readonly identical_messages: number;
    readonly rapid_messages: number;
    readonly seconds_since: number | null;
    readonly usage_percent: number | null;
  };
  readonly day_ends_at: number;
  readonly month_ends_at: number;
  /** With this call's hold. */
  readonly answer: Snapshot;
  status: "held" | "settled" | "released" | "expired" | "blocked";
  ended_at: number | null;
  input_tokens: number;
  output_tokens: number;
  cost_micros: number;
  end: Snapshot | null;
}

/** Counters of the account's local day or month. */
interface Period {
  /** First local date of the period. */
  readonly date: string;
  readonly ends_at: number;
  messages: number;
  calls: number;
  tokens: number;
  cost_micros: number;
}

export interface History {
  readonly person: Person;
  readonly plan: Plan;
  readonly joined_at: number;
  readonly lots: readonly Lot[];
  readonly entries: readonly Entry[];
  readonly calls: readonly Call[];
  readonly payments: readonly Payment[];
  readonly day: Period;
  readonly month: Period;
  readonly last_message_at: number | null;
  readonly last_activity_at: number | null;
  readonly rapid_messages: number;
  readonly balance: Snapshot;
  readonly flag: { readonly at: number; readonly reason: string } | null;
  readonly block: { readonly at: number; readonly reason: string } | null;
}

interface HistoryOptions {
  readonly seed: number;
  /** Local days before today that have history. */
  readonly days: number;
  /** Milliseconds since 1970; nothing in the history is later. */
  readonly endsAt: number;
}

/** Tokens read and written by a typical call of each kind, and how common it is; anything else is like chat. */
const shapes: Readonly<Record<string, readonly [input: number, output: number, weight: number]>> = {
  chat: [380, 260, 60],
  summarise: [2_100, 320, 12],
  summary: [2_100, 320, 12],
  translate: [520, 540, 8],
  code: [900, 760, 10],
  analysis: [1_500, 600, 6],
  image: [120, 900, 2],
};
const defaultShape = [420, 300, 6] as const;
export const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
export const DAY_MS = 24 * HOUR_MS;
const RAPID_MS = 2_000;
const AGREED_TOKENS = 20_000_000;
const dearestLast = (one: Price, other: Price): number =>
  one.output_micros_per_million - other.output_micros_per_million || (one.model < other.model ? -1 : 1);

export function inventHistory(person: Person, catalogue: Catalogue, options: HistoryOptions): History {
  return new Life(person, catalogue, options).live();
}

interface Moment {
  readonly at: number;
  readonly happen: () => void;
}

/** A run of calls made by a machine: the same text again and again, or too fast. */
interface Burst {
  readonly reason: string | null;
  readonly message: number;
  readonly identical: number;
}

/** One account's time, played forward. */
class Life {
  readonly #person: Person;
  readonly #catalogue: Catalogue;
  readonly #options: HistoryOptions;
  readonly #random: Random;
  readonly #plan: Plan;
  readonly #joinedAt: number;
  readonly #startsAt: number;
  readonly #lots: Lot[] = [];
  readonly #entries: Entry[] = [];
  readonly #calls: Call[] = [];
  readonly #payments: Payment[] = [];
  /** Latest first, so that the next one is taken from the end. */
  readonly #future: Moment[] = [];
  readonly #conversations = new Map<string, number>();
  #debt = 0;
  #reserved = 0;
  #day: Period;
  #month: Period;
  #lastMessageAt: number | null = null;
  #lastActivityAt: number | null = null;
  #rapid = 0;

  constructor(person: Person, catalogue: Catalogue, options: HistoryOptions) {
    this.#person = person;
    this.#catalogue = catalogue;
    this.#options = options;
    this.#random = seedRandom(options.seed, "history", person.user_id);
    const plan = planOf(person, catalogue.plans);
    if (!plan || catalogue.prices.length === 0) {
      throw new Error("Sample data needs a project with plans and prices: apply a preset first.");
    }
    this.#plan = plan;
    this.#joinedAt = options.endsAt - person.joined_days_ago * DAY_MS - this.#random.whole(0, 8 * HOUR_MS);
    this.#startsAt = Math.max(this.#joinedAt, options.endsAt - options.days * DAY_MS);
    this.#day = this.#newDay(this.#startsAt);
    this.#month = this.#newMonth(this.#startsAt);
  }

  live(): History {
    this.#at(this.#startsAt, () => this.#giveAllowance(this.#startsAt));
    this.#planDays();
    this.#at(this.#options.endsAt, () => this.#roll(this.#options.endsAt));
    for (let moment = this.#future.pop(); moment; moment = this.#future.pop()) moment.happen();
    return {
      person: this.#person,
      plan: this.#plan,
      joined_at: this.#joinedAt,
      lots: this.#lots,
      entries: this.#entries,
      calls: this.#calls,
      payments: this.#payments,
      day: this.#day,
      month: this.#month,
      last_message_at: this.#lastMessageAt,
      last_activity_at: this.#lastActivityAt,
      rapid_messages: this.#rapid,
      balance: this.#snapshot(),
      ...this.#judge(),
    };
  }

  // ---- what is going to happen ----

  #planDays(): void {
    const random = this.#random;
    const { year, month, day } = localTime(this.#options.endsAt, this.#person.timezone);
    for (let back = 0; back <= this.#options.days; back++) {
      this.#planDay(startOfDay(year, month, day - back, this.#person.timezone));
    }
    if (this.#person.plant) this.#planPlant(this.#person.plant);
    if (this.#person.habit === "near_limit") this.#planToday(30, 3 * MINUTE_MS, 0.6 + 0.36 * random.next());
    // The rule counts a hundred messages: a few are left for live traffic.
    if (this.#person.habit === "token_hog") this.#planToday(97, MINUTE_MS, 0.9);
    if (this.#person.habit === "short_of_tokens") {
      const at = this.#options.endsAt - random.whole(20 * MINUTE_MS, 90 * MINUTE_MS);
      this.#at(at, () => this.#moveAway(at, random.whole(60, 400)));
    }
    if (random.chance(0.12)) {
      const at = Math.round(this.#startsAt + random.next() * (this.#options.endsAt - this.#startsAt));
      const tokens = random.pick([5_000, 10_000, 25_000]);
      const expires = at + random.pick([14, 30, 60]) * DAY_MS;
      const why = random.pick(["Welcome bonus", "Referral bonus", "Apology for last week's outage"]);
      this.#at(at, () => {
        this.#roll(at);
        this.#grant("promotional", tokens, at, expires, why);
      });
    }
  }

  #planDay(midnight: number): void {
    const { timezone, habit, conversations_per_day, weekend_share, peak_hour } = this.#person;
    const random = this.#random;
    const weekday = localWeekday(midnight, timezone);
    // People take to the product: seven calls in ten at the start of the history, all of them now.
    const age = Math.min(1, (this.#options.endsAt - midnight) / (this.#options.days * DAY_MS));
    const part = (1.05 - 0.3 * age) * (weekday > 5 ? weekend_share : 1);
    const conversations = random.poisson(conversations_per_day * part);
    for (let count = 0; count < conversations; count++) {
      const hour = peak_hour + (random.next() + random.next() + random.next() - 1.5) * 7;
      this.#planConversation(Math.round(midnight + (((hour % 24) + 24) % 24) * HOUR_MS));
    }
    if (habit === "spammer" && random.chance(0.5)) this.#planBurst(midnight, 16, 9_000, true);
    if (habit === "bot" && random.chance(0.5)) this.#planBurst(midnight, 30, 900, false);
  }

  /** Calls up to now, so that this person stands where live traffic should find them; within part of the day's limit. */
  #planToday(howMany: number, everyMs: number, part: number): void {
    let conversation_id = "";
    const price = this.#model();
    for (let count = howMany; count > 0; count--) {
      if ((howMany - count) % 9 === 0) conversation_id = `conv-${this.#random.id().slice(0, 12)}`;
      const inConversation = conversation_id;
      const at = this.#options.endsAt - 6 * MINUTE_MS - count * everyMs;
      this.#at(at, () => {
        this.#roll(at);
        const { daily_limit } = this.#plan;
        if (daily_limit !== null && this.#day.tokens + this.#reserved > part * daily_limit - 600) return;
        this.#call(at, inConversation, "chat", price);
      });
    }
  }

  #planConversation(start: number): void {
    const random = this.#random;
    const conversation_id = `conv-${random.id().slice(0, 12)}`;
    const task_type = this.#taskType();
    const price = this.#model();
    const messages = 1 + random.poisson(3.4);
    let at = start;
    for (let message = 0; message < messages; message++) {
      const then = at;
      this.#at(then, () => this.#call(then, conversation_id, task_type, price));
      at += random.whole(25_000, 4 * MINUTE_MS);
    }
  }

  #planBurst(midnight: number, howMany: number, everyMs: number, isOneMessage: boolean): void {
    const random = this.#random;
    const start = midnight + random.whole(0, 22 * HOUR_MS);
    const conversation_id = `conv-${random.id().slice(0, 12)}`;
    const message = random.whole(1, 1e9);
    const price = this.#model();
    for (let count = 1; count <= howMany; count++) {
      const at = start + count * everyMs;
      const burst: Burst = isOneMessage
        ? { reason: count >= 10 ? "spam_identical" : null, message, identical: count }
        : { reason: count >= 20 ? "bot_behavior" : null, message: random.whole(1, 1e9), identical: 1 };
      this.#at(at, () => this.#call(at, conversation_id, "chat", price, burst));
    }
  }

  #at(at: number, happen: () => void): void {
    if (at < this.#startsAt || at > this.#options.endsAt) return;
    let low = 0;
    let high = this.#future.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const there = this.#future[middle];
      // Of two at once, the one planned first happens first.
      if (there && there.at >= at) low = middle + 1;
      else high = middle;
    }
    let place = low;
    while (place > 0 && this.#future[place - 1]?.at === at) place--;
    this.#future.splice(place, 0, { at, happen });
  }

  // ---- one AI call ----

  #call(at: number, conversation_id: string, task_type: string, price: Price, burst?: Burst): void {
    // Nothing is left in flight where the history ends.
    if (at > this.#options.endsAt - 5 * MINUTE_MS) return;
    this.#roll(at);
    const random = this.#random;
    const estimate = this.#catalogue.estimates.find((one) => one.task_type === task_type)?.tokens ?? 300;
    const byRule = burst?.reason ?? (this.#isOffTopic() ? "off_topic" : null);
    const reason =
      byRule !== null && this.#catalogue.reasons.includes(byRule) ? byRule : this.#refusal(estimate);
    const sinceMs = this.#lastMessageAt === null ? null : at - this.#lastMessageAt;
    this.#rapid = sinceMs !== null && sinceMs < RAPID_MS ? this.#rapid + 1 : 1;
    this.#lastMessageAt = at;
    this.#lastActivityAt = at;
    const inConversation = (this.#conversations.get(conversation_id) ?? 0) + 1;
    this.#conversations.set(conversation_id, inConversation);
    const seen: Call["seen"] = {
      tokens_today: this.#day.tokens + this.#reserved,
      tokens_month: this.#month.tokens + this.#reserved,
      cost_today: this.#day.cost_micros,
      cost_month: this.#month.cost_micros,
      messages_today: this.#day.messages + 1,
      conversation_messages: inConversation,
      identical_messages: burst?.identical ?? 1,
      rapid_messages: this.#rapid,
      seconds_since: sinceMs === null ? null : sinceMs / 1000,
      usage_percent: this.#usagePercent(),
    };
    for (const period of [this.#day, this.#month]) {
      period.messages++;
      period.calls++;
    }
    const warning = reason ? null : this.#warning(estimate);
    if (!reason) this.#reserved += estimate;
    const call: Call = {
      request_id: `req-${random.id()}`,
      at,
      conversation_id,
      message: burst?.message ?? random.whole(1, 1e9),
      message_words: Math.min(480, random.lognormal(18, 0.9)),
      task_type,
      price,
      estimated_tokens: estimate,
      reason,
      warning,
      seen,
      day_ends_at: this.#day.ends_at,
      month_ends_at: this.#month.ends_at,
      answer: this.#snapshot(),
      status: reason ? "blocked" : "held",
      ended_at: null,
      input_tokens: 0,
      output_tokens: 0,
      cost_micros: 0,
      end: null,
    };
    this.#calls.push(call);
    if (reason === "insufficient_tokens") this.#considerBuying(at, 0.6);
    else if (this.#available() < this.#plan.monthly_allowance / 10) this.#considerBuying(at, 0.05);
    if (!reason) this.#planEnd(call, burst !== undefined);
  }

  #planEnd(call: Call, isSmall: boolean): void {
    const { input, output } = this.#size(call.task_type, isSmall);
    const fate = this.#random.next();
    const holdMs = this.#catalogue.hold_minutes * MINUTE_MS;
    const expiresAt = call.at + holdMs;
    const isLost = fate > 0.996 && expiresAt < this.#options.endsAt;
    const tookMs = Math.min(3 * MINUTE_MS, this.#random.lognormal(1_200, 0.6) + output * 6);
    const at = isLost ? expiresAt : call.at + tookMs;
    const status = isLost ? "expired" : fate < 0.015 ? "released" : "settled";
    this.#at(at, () => this.#end(call, at, status, input, output));
  }

  #end(
    call: Call,
    at: number,
    status: "settled" | "released" | "expired",
    input: number,
    output: number,
  ): void {
    this.#roll(at);
    this.#reserved -= call.estimated_tokens;
    call.status = status;
    call.ended_at = at;
    if (status === "settled") {
      // A call never takes more than there is: what a stream would have cut short.
      const room = this.#available();
      call.input_tokens = Math.min(input, room);
      call.output_tokens = Math.min(output, room - call.input_tokens);
      call.cost_micros = costMicros(call.price, call.input_tokens, call.output_tokens);
      this.#spend(call, at);
    }
    this.#payDebt(at, call.request_id);
    call.end = this.#snapshot();
  }

  #size(task_type: string, isSmall: boolean): { input: number; output: number } {
    const random = this.#random;
    const { habit } = this.#person;
    const [input, output] = shapes[task_type] ?? defaultShape;
    if (isSmall) return { input: random.whole(20, 60), output: random.whole(20, 60) };
    if (habit === "token_hog" && random.chance(0.15)) {
      return { input: random.whole(9_000, 26_000), output: random.whole(2_000, 7_000) };
    }
    if (habit === "near_limit") {
      const target = this.#plan.daily_limit ?? this.#plan.monthly_allowance / 22;
      const total = Math.min(20_000, Math.max(120, Math.round(target * (0.08 + 0.16 * random.next()))));
      return { input: Math.round(total * 0.6), output: Math.round(total * 0.4) };
    }
    if (habit === "short_of_tokens") {
      const total = Math.max(80, Math.round(this.#available() * (0.1 + 0.25 * random.next())));
      return {
        input: Math.min(4_000, Math.round(total * 0.6)),
        output: Math.min(2_500, Math.round(total * 0.4)),
      };
    }
    // Who pays for more sends more.
    const allowance = this.#plan.monthly_allowance || AGREED_TOKENS / 12;
    const scale = Math.min(3, Math.max(0.5, (allowance / 200_000) ** 0.3));
    return { input: random.lognormal(input * scale, 0.55), output: random.lognormal(output * scale, 0.6) };
  }

  #refusal(need: number): string | null {
    const { daily_limit, monthly_limit } = this.#plan;
    if (daily_limit !== null && this.#day.tokens + this.#reserved + need > daily_limit) return "daily_limit";
    if (monthly_limit !== null && this.#month.tokens + this.#reserved + need > monthly_limit) {
      return "monthly_limit";
    }
    return need > this.#available() ? "insufficient_tokens" : null;
  }

  #warning(need: number): string | null {
    for (const [name, limit, period] of [
      ["daily", this.#plan.daily_limit, this.#day],
      ["monthly", this.#plan.monthly_limit, this.#month],
    ] as const) {
      if (!limit) continue;
      const percent = Math.floor((100 * (period.tokens + this.#reserved + need)) / limit);
      const reached = this.#plan.warn_at.findLast((one) => one <= percent);
      if (reached !== undefined) return `${reached}% of the ${name} limit is used.`;
    }
    return null;
  }

  /** The fact usage_percent of docs/RULES.md. */
  #usagePercent(): number | null {
    const { daily_limit, monthly_limit, monthly_allowance } = this.#plan;
    const part = (used: number, limit: number | null): number | null =>
      limit === null ? null : limit === 0 ? 100 : Math.floor((100 * (used + this.#reserved)) / limit);
    const ofLimits = [part(this.#day.tokens, daily_limit), part(this.#month.tokens, monthly_limit)].filter(
      (one) => one !== null,
    );
    if (ofLimits.length > 0) return Math.max(...ofLimits);
    return monthly_allowance === 0 ? null : part(this.#month.tokens, monthly_allowance);
  }

  #isOffTopic(): boolean {
    if (this.#person.habit === "token_hog") return false;
    return this.#random.chance(this.#person.habit === "off_topic" ? 0.5 : 0.002);
  }

  #taskType(): string {
    const known = this.#catalogue.estimates.map((one) => one.task_type);
    if (known.length === 0) return "chat";
    return this.#random.weighted(known.map((name) => [name, (shapes[name] ?? defaultShape)[2]] as const));
  }

  #model(): Price {
    return pickModel(this.#random, this.#catalogue.prices, this.#person.plan_rank);
  }

  // ---- lots, ledger, limits ----

  #sum(kind?: LotKind): number {
    return this.#lots.reduce(
      (sum, lot) => sum + (kind === undefined || lot.kind === kind ? lot.remaining : 0),
      0,
    );
  }

  #available(): number {
    return this.#sum() - this.#reserved;
  }

  #snapshot(): Snapshot {
    return {
      subscription: this.#sum("subscription"),
      purchased: this.#sum("purchased"),
      promotional: this.#sum("promotional"),
      reserved: this.#reserved,
      debt: this.#debt,
    };
  }

  #newDay(at: number): Period {
    const { timezone } = this.#person;
    const ends_at = dayOf(at, timezone).endMs;
    return { date: localDay(at, timezone), ends_at, messages: 0, calls: 0, tokens: 0, cost_micros: 0 };
  }

  #newMonth(at: number): Period {
    const { timezone } = this.#person;
    const { startMs, endMs } = monthOf(at, timezone);
    return {
      date: localDay(startMs, timezone),
      ends_at: endMs,
      messages: 0,
      calls: 0,
      tokens: 0,
      cost_micros: 0,
    };
  }

  /** Ends the lots, the day and the month that ran out by now, as the first call after it does. */
  #roll(at: number): void {
    for (const lot of this.#lots) {
      if (lot.expires_at === null || lot.expires_at > at || lot.remaining === 0) continue;
      const amount = lot.remaining;
      lot.remaining = 0;
      lot.expired += amount;
      this.#record("expiry", at, -amount, "Expired", [[lot.lot, -amount]]);
    }
    if (at >= this.#day.ends_at) this.#day = this.#newDay(at);
    if (at >= this.#month.ends_at) {
      this.#month = this.#newMonth(at);
      this.#giveAllowance(at);
    }
  }

  #giveAllowance(at: number): void {
    const { monthly_allowance, rollover_months } = this.#plan;
    if (monthly_allowance === 0) {
      // Such a plan's tokens are agreed on with its customer: enough for a year, given once.
      if (this.#lots.length === 0) this.#grant("subscription", AGREED_TOKENS, at, null, "Yearly agreement");
      return;
    }
    let expires = this.#month.ends_at;
    for (let month = 0; month < rollover_months; month++)
      expires = monthOf(expires, this.#person.timezone).endMs;
    this.#grant("subscription", monthly_allowance, at, expires, "Monthly allowance", {
      reference: `allowance ${this.#month.date.slice(0, 7)}`,
    });
  }

  #grant(
    kind: LotKind,
    tokens: number,
    at: number,
    expires_at: number | null,
    description: string,
    { reference = null, payment = null }: { reference?: string | null; payment?: Payment | null } = {},
  ): Lot {
    const lot: Lot = {
      lot: this.#lots.length + 1,
      kind,
      granted: tokens,
      at,
      expires_at,
      description,
      payment,
      remaining: tokens,
      frozen: 0,
      spent: 0,
      expired: 0,
      clawed_back: 0,
    };
    this.#lots.push(lot);
    const type = { subscription: "subscription_grant", purchased: "purchase", promotional: "bonus" } as const;
    this.#record(type[kind], at, tokens, description, [[lot.lot, tokens]], reference);
    this.#payDebt(at, reference);
    return lot;
  }

  #spend(call: Call, at: number): void {
    const tokens = call.input_tokens + call.output_tokens;
    const taken = this.#takeFromLots(tokens);
    for (const period of [this.#day, this.#month]) {
      period.tokens += tokens;
      period.cost_micros += call.cost_micros;
    }
    this.#lastActivityAt = at;
    this.#record("usage", at, 0 - tokens, null, taken, call.request_id, call);
  }

  /** Nobody owes and has free tokens at once. */
  #payDebt(at: number, reference: string | null): void {
    const tokens = Math.min(this.#debt, this.#available());
    if (tokens <= 0) return;
    const taken = this.#takeFromLots(tokens);
    this.#debt -= tokens;
    this.#record("debt_recovery", at, -tokens, "Debt paid", taken, reference);
  }

  /** Soonest expiry first, then subscription, promotional, purchased, then oldest. */
  #takeFromLots(tokens: number): [lot: number, amount: number][] {
    const kinds: readonly LotKind[] = ["subscription", "promotional", "purchased"];
    const inOrder = this.#lots
      .filter((lot) => lot.remaining > 0)
      .sort(
        (one, other) =>
          (one.expires_at ?? Number.MAX_SAFE_INTEGER) - (other.expires_at ?? Number.MAX_SAFE_INTEGER) ||
          kinds.indexOf(one.kind) - kinds.indexOf(other.kind) ||
          one.lot - other.lot,
      );
    const taken: [number, number][] = [];
    let left = tokens;
    for (const lot of inOrder) {
      if (left === 0) break;
      const amount = Math.min(left, lot.remaining);
      lot.remaining -= amount;
      lot.spent += amount;
      left -= amount;
      taken.push([lot.lot, -amount]);
    }
    return taken;
  }

  /** All but so many tokens leave the account. */
  #moveAway(at: number, rest: number): void {
    this.#roll(at);
    const tokens = this.#available() - rest;
    if (tokens <= 0) return;
    const taken = this.#takeFromLots(tokens);
    this.#record("adjustment", at, -tokens, "Moved to the team's shared account", taken);
  }

  #record(
    type: EntryType,
    at: number,
    amount: number,
    description: string | null,
    lots: readonly (readonly [number, number])[],
    reference: string | null = null,
    call: Call | null = null,
  ): void {
    const new_balance = this.#sum();
    this.#entries.push({
      at,
      type,
      amount,
      new_balance,
      debt_after: this.#debt,
      description,
      reference,
      lots,
      call,
    });
  }

  // ---- money ----

  #considerBuying(at: number, willingness: number): void {
    const random = this.#random;
    const { habit } = this.#person;
    if (habit === "spammer" || habit === "bot" || habit === "short_of_tokens") return;
    if (this.#payments.some((payment) => at - payment.at < DAY_MS) || !random.chance(willingness)) return;
    const packs = this.#catalogue.packs.filter((pack) =>
      pack.plans ? pack.plans.includes(this.#plan.plan_id) : this.#plan.allows_top_up,
    );
    if (packs.length === 0) return;
    const pack = random.weighted(packs.map((one, index) => [one, 1 / (index + 1) ** 2] as const));
    const paidAt = at + random.whole(2 * MINUTE_MS, 3 * HOUR_MS);
    this.#at(paidAt, () => {
      const payment = this.#pay(pack, paidAt);
      const lot = this.#grantPaid(payment, paidAt);
      const fate = random.next();
      const refundAt = paidAt + random.whole(DAY_MS, 5 * DAY_MS);
      if (fate < 0.05) this.#planRefund(payment, lot, pack.price_minor, refundAt);
      else if (fate < 0.08) this.#planRefund(payment, lot, Math.round(pack.price_minor / 2), refundAt);
      else if (fate < 0.14) this.#planDispute(payment, lot);
    });
  }

  #pay(pack: Pack | null, at: number, plant: Plant | null = null): Payment {
    const random = this.#random;
    const id = (prefix: string): string => `${prefix}_${random.id().slice(0, 24)}`;
    const payment: Payment = {
      charge_id: id("ch"),
      payment_intent_id: id("pi"),
      checkout_session_id: pack ? id("cs_live") : null,
      invoice_id: pack ? null : id("in"),
      balance_transaction_id: id("txn"),
      customer_id: id("cus").slice(0, 18),
      pack_id: pack?.pack_id ?? null,
      tokens: pack?.tokens ?? Math.max(50_000, this.#plan.monthly_allowance),
      amount_minor: pack?.price_minor ?? 2_000,
      currency: pack?.currency ?? this.#catalogue.packs[0]?.currency ?? "usd",
      at,
      plant,
    };
    this.#payments.push(payment);
    return payment;
  }

  #grantPaid(payment: Payment, at: number, tokens = payment.tokens): Lot {
    this.#roll(at);
    const reference = payment.charge_id;
    if (payment.pack_id === null) {
      return this.#grant("subscription", tokens, at, this.#month.ends_at, "Subscription", {
        reference,
        payment,
      });
    }
    return this.#grant("purchased", tokens, at, null, `Pack ${payment.pack_id}`, { reference, payment });
  }

  /** A payment for a reconciliation to find, and what the ledger has wrong about it or had done about it by then. */
  #planPlant(plant: Plant): void {
    const { packs } = this.#catalogue;
    // The tokens held for a dispute are many: enough that one person alone may not give them back.
    const pack = (plant === "DISPUTE_WON_NOT_RESTORED" ? packs.at(-1) : packs[0]) ?? null;
    const isSubscription = plant === "SUB_PERIOD_OVERLAP";
    if (!isSubscription && !pack) return;
    // Stripe's reports do not reach the latest moments yet.
    const at =
      this.#options.endsAt -
      (plant === "TIMING" ? 25 * MINUTE_MS : this.#random.whole(3 * DAY_MS, 9 * DAY_MS));
    this.#at(at, () => {
      const payment = this.#pay(isSubscription ? null : pack, at, plant);
      const lot = this.#grantPaid(
        payment,
        at,
        payment.tokens + (plant === "TOKEN_QTY_MISMATCH" ? 50_000 : 0),
      );
      if (plant === "DUPLICATE_GRANT" || plant === "SUB_PERIOD_OVERLAP") this.#grantPaid(payment, at);
      if (plant === "REFUND_AFTER_SPEND") this.#at(at + HOUR_MS, () => this.#moveAway(at + HOUR_MS, 100));
      if (plant === "REFUND_OVER_REVERSED") this.#planRefund(payment, lot, payment.amount_minor, at + DAY_MS);
      if (plant === "DISPUTE_WON_NOT_RESTORED") this.#planFreeze(lot, at + DAY_MS, this.#newDisputeId());
    });
  }

  #planRefund(payment: Payment, lot: Lot, amount_minor: number, at: number): void {
    const refund_id = `re_${this.#random.id().slice(0, 24)}`;
    this.#at(at, () => {
      this.#roll(at);
      const tokens = Math.floor((payment.tokens * amount_minor) / payment.amount_minor);
      this.#clawBack(lot, tokens, at, "refund", `Refund of ${payment.charge_id}`, refund_id);
    });
  }

  #planDispute(payment: Payment, lot: Lot): void {
    const at = payment.at + this.#random.whole(2 * DAY_MS, 8 * DAY_MS);
    const closedAt = at + this.#random.whole(4 * DAY_MS, 14 * DAY_MS);
    const outcome = this.#random.pick(["won", "lost"] as const);
    const dispute_id = this.#newDisputeId();
    this.#planFreeze(lot, at, dispute_id);
    this.#at(closedAt, () => {
      this.#roll(closedAt);
      if (outcome === "won") this.#thaw(lot, closedAt, dispute_id);
      else {
        const tokens = payment.tokens - lot.clawed_back;
        this.#clawBack(lot, tokens, closedAt, "reversal", `Dispute lost: ${payment.charge_id}`, dispute_id);
      }
    });
  }

  #newDisputeId(): string {
    return `du_${this.#random.id().slice(0, 24)}`;
  }

  #planFreeze(lot: Lot, at: number, dispute_id: string): void {
    this.#at(at, () => {
      this.#roll(at);
      this.#freeze(lot, at, dispute_id);
    });
  }

  #freeze(lot: Lot, at: number, dispute_id: string): void {
    // Tokens that are held by a call in flight stay: it lasts seconds, and is settled from them.
    const amount = Math.min(lot.remaining, this.#available());
    if (amount <= 0) return;
    lot.remaining -= amount;
    lot.frozen += amount;
    this.#record("reversal", at, -amount, "Dispute opened: frozen", [[lot.lot, -amount]], dispute_id);
  }

  #thaw(lot: Lot, at: number, dispute_id: string): void {
    const amount = lot.frozen;
    if (amount === 0) return;
    lot.frozen = 0;
    lot.remaining += amount;
    this.#record("reversal", at, amount, "Dispute won: thawed", [[lot.lot, amount]], dispute_id);
    this.#payDebt(at, dispute_id);
  }

  /** Frozen tokens first, then the rest of the lot; tokens that were spent already become a debt. */
  #clawBack(
    lot: Lot,
    tokens: number,
    at: number,
    type: EntryType,
    description: string,
    reference: string,
  ): void {
    const frozen = Math.min(tokens, lot.frozen);
    const taken = Math.max(0, Math.min(tokens - frozen, lot.remaining, this.#available()));
    lot.frozen -= frozen;
    lot.remaining -= taken;
    lot.clawed_back += frozen + taken;
    this.#debt += tokens - frozen - taken;
    this.#record(type, at, 0 - taken, description, taken > 0 ? [[lot.lot, -taken]] : [], reference);
    this.#payDebt(at, reference);
  }

  // ---- acts of operators ----

  #judge(): Pick<History, "flag" | "block"> {
    const at = this.#options.endsAt - this.#random.whole(2 * HOUR_MS, 3 * DAY_MS);
    const reasons: Partial<Record<Habit, string>> = {
      bot: "Messages faster than a person types",
      token_hog: "Very large calls: asked what for",
    };
    const reason = reasons[this.#person.habit];
    if (reason && at > this.#joinedAt) return { flag: { at, reason }, block: null };
    // Their calls end where the block begins.
    if (this.#person.habit !== "dormant" || !this.#random.chance(0.15)) return { flag: null, block: null };
    const later = Math.max(at, (this.#lastActivityAt ?? at) + MINUTE_MS);
    if (later > this.#options.endsAt) return { flag: null, block: null };
    return {
      flag: { at: later, reason: "Card used by several accounts" },
      block: { at: later, reason: "Suspected card fraud, under review" },
    };
  }
}

/** The plan by its rank; who lives at a limit has the smallest plan with one. */
export function planOf(person: Person, plans: readonly Plan[]): Plan | undefined {
  const limited = person.habit === "near_limit" ? plans.find((plan) => plan.daily_limit !== null) : undefined;
  return limited ?? plans[Math.min(person.plan_rank, plans.length - 1)];
}

/** Cheap models are used most; the dear ones by those who pay. */
export function pickModel(random: Random, prices: readonly Price[], planRank: number): Price {
  const reach = planRank === 0 ? 0.35 : Math.min(1, 0.5 + 0.2 * planRank);
  const within = [...prices].sort(dearestLast).slice(0, Math.max(1, Math.ceil(prices.length * reach)));
  return random.weighted(within.map((price, index) => [price, 1 / (index + 1)] as const));
}

/** As `settle_usage` computes it: whole micro-units, rounded half up once a call. */
function costMicros(price: Price, input: number, output: number): number {
  const exact = input * price.input_micros_per_million + output * price.output_micros_per_million;
  return Math.floor((exact + 500_000) / 1_000_000);
}
