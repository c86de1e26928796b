/**
 * A plain model of usage: a list of uses, each with its moment and the one day that it was stamped with
 * (supabase/CONVENTIONS.md, Time). Every total is a sum over the list. Dates come from the runtime's own time zone
 * database, not from PostgreSQL's.
 */
export interface Use {
  readonly user: string;
  readonly atMs: number;
  /** The account's own day at the settlement, or the date in its zone at the import. */
  readonly day: string;
  readonly tokens: number;
  readonly model: string;
  readonly conversation: string;
  readonly isImported: boolean;
}

const formats = new Map<string, Intl.DateTimeFormat>();

/** The date on the wall of a zone. */
export function dateIn(zone: string, atMs: number): string {
  let format = formats.get(zone);
  if (!format) {
    format = new Intl.DateTimeFormat("en-CA", {
      timeZone: zone,
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
    });
    formats.set(zone, format);
  }
  return format.format(atMs);
}

const later = (one: string, other: string): string => (one > other ? one : other);

const mondays = new Map<string, string>();

/** Monday of the week, first of the month, or the day itself. */
export function firstDay(period: "day" | "week" | "month", day: string): string {
  if (period === "day") return day;
  if (period === "month") return `${day.slice(0, 7)}-01`;
  const known = mondays.get(day);
  if (known !== undefined) return known;
  const date = new Date(`${day}T00:00:00Z`);
  date.setUTCDate(date.getUTCDate() - ((date.getUTCDay() + 6) % 7));
  const monday = date.toISOString().slice(0, 10);
  mondays.set(day, monday);
  return monday;
}

export class ZoneModel {
  readonly uses: Use[] = [];
  private readonly accounts = new Map<string, { zone: string; day: string; isGone: boolean }>();
  nowMs: number;

  constructor(nowMs: number) {
    this.nowMs = nowMs;
  }

  get users(): readonly string[] {
    return [...this.accounts.keys()];
  }

  zoneOf(user: string): string {
    return this.account(user).zone;
  }

  /** The account's own day now: the date in its zone, and never before a day that it has had. */
  dayOf(user: string): string {
    const account = this.account(user);
    // A zone that is gone keeps the day that is under way; the next one is UTC's.
    if (account.isGone && dateIn(account.zone, this.nowMs) > account.day) {
      account.zone = "UTC";
      account.isGone = false;
    }
    if (!account.isGone) account.day = later(account.day, dateIn(account.zone, this.nowMs));
    return account.day;
  }

  setZone(user: string, zone: string): void {
    const known = this.accounts.get(user);
    if (known) this.dayOf(user);
    this.accounts.set(user, {
      zone,
      day: later(known?.day ?? "", dateIn(zone, this.nowMs)),
      isGone: false,
    });
  }

  /** The server no longer knows the user's zone. */
  loseZone(user: string): void {
    this.dayOf(user);
    this.account(user).isGone = true;
  }

  settle(user: string, tokens: number, model: string, conversation: string): void {
    const day = this.dayOf(user);
    this.uses.push({ user, atMs: this.nowMs, day, tokens, model, conversation, isImported: false });
  }

  import(user: string, atMs: number, tokens: number, model: string, conversation: string): void {
    const { zone, isGone } = this.account(user);
    const day = dateIn(isGone ? "UTC" : zone, atMs);
    this.uses.push({ user, atMs, day, tokens, model, conversation, isImported: true });
  }

  private account(user: string): { zone: string; day: string; isGone: boolean } {
    const account = this.accounts.get(user);
    if (!account) throw new Error(`The model has no account ${user}.`);
    return account;
  }
}

/** Tokens by a key, keys without tokens left out. */
export function sumBy<T>(items: readonly T[], key: (item: T) => string, tokens: (item: T) => number) {
  const sums: Record<string, number> = {};
  for (const item of items) sums[key(item)] = (sums[key(item)] ?? 0) + tokens(item);
  return sums;
}
