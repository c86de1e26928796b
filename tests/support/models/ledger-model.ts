/**
 * What the books must say, in a hundred lines of memory: accounts of lots, holds and debt, moved by the same calls
 * as the database. It knows nothing of SQL, rules or messages; where it and the database differ, one of them is wrong.
 */

type Kind = "subscription" | "promotional" | "purchased";
interface Lot {
  readonly kind: Kind;
  readonly expiresAt: number | null;
  /** Lots made later are spent later. */
  readonly madeAt: number;
  readonly place: number;
  remaining: number;
}
interface Call {
  readonly user: string;
  readonly estimate: number;
  readonly answer: Answer;
  status: "held" | "blocked" | "settled" | "released" | "expired" | "quarantined";
  readonly expiresAt: number;
  ended: { readonly key: string; readonly answer: Answer } | null;
}
interface Account {
  readonly lots: Lot[];
  debt: number;
  dayTokens: number;
  dayEndsAt: number;
  monthEndsAt: number;
}
interface State {
  readonly accounts: Map<string, Account>;
  readonly calls: Map<string, Call>;
  readonly commands: Map<string, { readonly key: string; readonly answer: Answer }>;
}

/** The part of an answer that the model can know; `refused` is the hint of an error. */
type Answer = Readonly<Record<string, unknown>>;

const DAY = 86_400_000;
const order: Readonly<Record<Kind, number>> = { subscription: 0, promotional: 1, purchased: 2 };
const dayEnd = (now: number): number => (Math.floor(now / DAY) + 1) * DAY;
function monthEnd(now: number): number {
  const date = new Date(now);
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 1);
}

interface Plan {
  /** Tokens a month. */
  readonly allowance: number;
  readonly dailyLimit: number | null;
  /** A settlement above it is set aside. */
  readonly ceiling: number;
  readonly holdMs: number;
}

class Refusal extends Error {}

export class LedgerModel {
  #state: State = { accounts: new Map(), calls: new Map(), commands: new Map() };
  /** The clock, in milliseconds; it may go back. */
  now: number;
  readonly #plan: Plan;
  constructor(now: number, plan: Plan) {
    this.now = now;
    this.#plan = plan;
  }

  /** A refused call leaves everything as it was, what it would have brought up to the moment too. */
  #attempt(work: () => Answer): Answer {
    const before = structuredClone(this.#state);
    try {
      return work();
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#state = before;
      return { refused: error.message };
    }
  }

  #account(user: string, isMade: boolean): Account {
    const known = this.#state.accounts.get(user);
    if (!known && !isMade) throw new Refusal("unknown_user");
    const account = known ?? {
      lots: [],
      debt: 0,
      dayTokens: 0,
      dayEndsAt: dayEnd(this.now),
      monthEndsAt: monthEnd(this.now),
    };
    if (!known) {
      this.#state.accounts.set(user, account);
      this.#grant(user, account, "subscription", this.#plan.allowance, account.monthEndsAt);
    }
    this.#roll(user, account);
    return account;
  }

  #roll(user: string, account: Account): void {
    for (const call of this.#state.calls.values())
      if (call.user === user && call.status === "held" && call.expiresAt <= this.now) call.status = "expired";
    this.#payDebt(user, account);
    // Tokens that are held outlive their lot.
    const expired = account.lots.filter((lot) => lot.expiresAt !== null && lot.expiresAt <= this.now);
    expired.sort((a, b) => (a.expiresAt ?? 0) - (b.expiresAt ?? 0) || a.place - b.place);
    for (const lot of expired)
      lot.remaining -= Math.min(lot.remaining, this.total(user) - this.reserved(user));
    if (account.dayEndsAt <= this.now) {
      account.dayEndsAt = dayEnd(this.now);
      account.dayTokens = 0;
    }
    if (account.monthEndsAt <= this.now) {
      account.monthEndsAt = monthEnd(this.now);
      this.#grant(user, account, "subscription", this.#plan.allowance, account.monthEndsAt);
    }
  }

  #grant(user: string, account: Account, kind: Kind, tokens: number, expiresAt: number | null): number {
    account.lots.push({ kind, expiresAt, madeAt: this.now, place: account.lots.length, remaining: tokens });
    return this.#payDebt(user, account);
  }

  /** Nobody owes and has free tokens at once. */
  #payDebt(user: string, account: Account): number {
    const paid = Math.min(account.debt, this.total(user) - this.reserved(user));
    this.#spend(account, paid);
    account.debt -= paid;
    return paid;
  }

  #spend(account: Account, tokens: number): void {
    const inOrder = account.lots
      .filter((lot) => lot.remaining > 0)
      .sort(
        (a, b) =>
          (a.expiresAt ?? Number.POSITIVE_INFINITY) - (b.expiresAt ?? Number.POSITIVE_INFINITY) ||
          order[a.kind] - order[b.kind] ||
          a.madeAt - b.madeAt ||
          a.place - b.place,
      );
    let left = tokens;
    for (const lot of inOrder) {
      const take = Math.min(left, lot.remaining);
      lot.remaining -= take;
      left -= take;
    }
    if (left > 0) throw new Error("The model spent what was not there.");
  }

  total(user: string): number {
    return (this.#state.accounts.get(user)?.lots ?? []).reduce((sum, lot) => sum + lot.remaining, 0);
  }
  reserved(user: string): number {
    return [...this.#state.calls.values()].reduce(
      (sum, call) => sum + (call.user === user && call.status === "held" ? call.estimate : 0),
      0,
    );
  }
  balance(user: string): Answer {
    const account = this.#state.accounts.get(user);
    const kind = (wanted: Kind): number =>
      (account?.lots ?? []).reduce((sum, lot) => sum + (lot.kind === wanted ? lot.remaining : 0), 0);
    const [total, reserved] = [this.total(user), this.reserved(user)];
    return {
      available: total - reserved,
      reserved,
      subscription: kind("subscription"),
      purchased: kind("purchased"),
      promotional: kind("promotional"),
      debt: account?.debt ?? 0,
      total,
    };
  }
  /** Remaining tokens of each lot, oldest first. */
  lots(user: string): number[] {
    return (this.#state.accounts.get(user)?.lots ?? []).map((lot) => lot.remaining);
  }
  users(): string[] {
    return [...this.#state.accounts.keys()];
  }
  /** Every call with what became of it. */
  statuses(): Record<string, string> {
    return Object.fromEntries([...this.#state.calls].map(([id, call]) => [id, call.status]));
  }

  authorize(id: string, user: string, estimate: number): Answer {
    return this.#attempt(() => {
      const account = this.#account(user, true);
      const known = this.#state.calls.get(id);
      if (known) {
        if (known.user !== user || known.estimate !== estimate) throw new Refusal("idempotency_conflict");
        return known.answer;
      }
      const { dailyLimit, holdMs } = this.#plan;
      const used = account.dayTokens + this.reserved(user);
      const reason =
        dailyLimit !== null && used + estimate > dailyLimit
          ? "daily_limit"
          : estimate > this.total(user) - this.reserved(user)
            ? "insufficient_tokens"
            : null;
      const before = this.balance(user);
      const answer = {
        reason,
        reserved_tokens: reason === null ? estimate : 0,
        balance:
          reason === null
            ? {
                ...before,
                available: Number(before["available"]) - estimate,
                reserved: Number(before["reserved"]) + estimate,
              }
            : before,
      };
      this.#state.calls.set(id, {
        user,
        estimate,
        answer,
        status: reason === null ? "held" : "blocked",
        expiresAt: this.now + holdMs,
        ended: null,
      });
      return answer;
    });
  }

  settle(id: string, input: number, output: number): Answer {
    return this.#attempt(() => {
      const call = this.#state.calls.get(id);
      if (!call) throw new Refusal("unknown_request");
      const account = this.#account(call.user, false);
      const key = `${input} ${output}`;
      if (call.status === "settled" || call.status === "quarantined") {
        if (call.ended?.key !== key) throw new Refusal("idempotency_conflict");
        return call.ended.answer;
      }
      if (call.status === "released") throw new Refusal("already_released");
      if (call.status === "blocked") throw new Refusal("not_authorized");
      const held = call.status === "held" ? call.estimate : 0;
      const charged = input + output;
      let answer: Answer;
      if (charged > this.#plan.ceiling) {
        call.status = "quarantined";
        answer = { status: call.status, charged_tokens: 0, released_tokens: held, debt_tokens: 0 };
      } else {
        call.status = "settled";
        const take = Math.min(charged, this.total(call.user) - this.reserved(call.user));
        this.#spend(account, take);
        account.debt += charged - take;
        account.dayTokens += charged;
        answer = {
          status: call.status,
          charged_tokens: charged,
          released_tokens: Math.max(held - charged, 0),
          debt_tokens: charged - take,
        };
      }
      this.#payDebt(call.user, account);
      call.ended = { key, answer: { ...answer, balance: this.balance(call.user) } };
      return call.ended.answer;
    });
  }

  release(id: string, reason: string): Answer {
    return this.#attempt(() => {
      const call = this.#state.calls.get(id);
      if (!call) throw new Refusal("unknown_request");
      const account = this.#account(call.user, false);
      if (call.status === "settled" || call.status === "quarantined") throw new Refusal("already_settled");
      if (call.status === "blocked") throw new Refusal("not_authorized");
      if (call.status === "expired") return { status: "expired", released_tokens: 0 };
      if (call.status === "released") {
        if (call.ended?.key !== reason) throw new Refusal("idempotency_conflict");
        return call.ended.answer;
      }
      call.status = "released";
      this.#payDebt(call.user, account);
      call.ended = {
        key: reason,
        answer: { status: "released", released_tokens: call.estimate, balance: this.balance(call.user) },
      };
      return call.ended.answer;
    });
  }

  change(user: string, tokens: number, type: string, key: string, expiresAt: number | null): Answer {
    return this.#attempt(() => {
      if (expiresAt !== null && (tokens < 0 || expiresAt <= this.now)) throw new Refusal("invalid_argument");
      const account = this.#account(user, false);
      const parameters = JSON.stringify([user, tokens, type, expiresAt]);
      const done = this.#state.commands.get(key);
      if (done) {
        if (done.key !== parameters) throw new Refusal("idempotency_conflict");
        return done.answer;
      }
      const previous = this.total(user);
      let answer: Answer;
      if (tokens > 0) {
        const kind =
          type === "purchase" ? "purchased" : type === "subscription_grant" ? "subscription" : "promotional";
        const recovered = this.#grant(user, account, kind, tokens, expiresAt);
        answer = { previous_balance: previous, new_balance: previous + tokens, debt_recovered: recovered };
      } else {
        if (-tokens > previous - this.reserved(user)) throw new Refusal("insufficient_tokens");
        this.#spend(account, -tokens);
        answer = { previous_balance: previous, new_balance: previous + tokens };
      }
      this.#state.commands.set(key, { key: parameters, answer });
      return answer;
    });
  }

  /** Upkeep: every account is brought up to the moment. */
  maintain(): void {
    for (const [user, account] of this.#state.accounts) this.#roll(user, account);
  }
}
