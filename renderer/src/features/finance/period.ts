/** Which days a reconciliation covers: days in UTC, both included. */
import { dayMs } from "../../lib/format.ts";

export const PERIOD_CHOICES = ["this_month", "last_month", "since_close", "files", "custom"] as const;
export type PeriodChoice = (typeof PERIOD_CHOICES)[number];

export interface Days {
  /** Empty where the files define it. */
  readonly from: string;
  readonly to: string;
}

const dayOf = (moment: number): string => new Date(moment).toISOString().slice(0, 10);

/** The days of a choice. `closedTo` is where the last closed period ends, that moment excluded. */
export function daysOf(choice: PeriodChoice, now: number, closedTo: string | null, custom: Days): Days {
  const today = new Date(now);
  const [year, month] = [today.getUTCFullYear(), today.getUTCMonth()];
  switch (choice) {
    case "this_month":
      return { from: dayOf(Date.UTC(year, month, 1)), to: dayOf(now) };
    case "last_month":
      return { from: dayOf(Date.UTC(year, month - 1, 1)), to: dayOf(Date.UTC(year, month, 1) - dayMs) };
    case "since_close":
      // A period may end within a day: that day then belongs to the next one too, which covers the rest of it.
      return { from: closedTo ? dayOf(Date.parse(closedTo)) : "", to: dayOf(now) };
    case "files":
      return { from: "", to: "" };
    case "custom":
      return custom;
  }
}

/** Why a period cannot be used, in a sentence; null where it can. */
export function periodProblem({ from, to }: Days, isStripeRead: boolean): string | null {
  if (from !== "" && to !== "" && from > to) return "The end is before the start.";
  if (isStripeRead && (from === "" || to === "")) return "To read Stripe, both days are needed.";
  return null;
}

/** "November 2026" for a whole month, else its days. Periods are days in UTC, the end not included. */
export function periodName(from: string, to: string): string {
  const first = new Date(from);
  const [year, month] = [first.getUTCFullYear(), first.getUTCMonth()];
  if (Date.parse(from) === Date.UTC(year, month, 1) && Date.parse(to) === Date.UTC(year, month + 1, 1))
    return first.toLocaleDateString("en-GB", { month: "long", year: "numeric", timeZone: "UTC" });
  return periodText(from, to);
}

/** People name the last day. */
export function periodText(from: string, to: string): string {
  const day = (ms: number): string =>
    new Date(ms).toLocaleDateString("en-GB", {
      day: "numeric",
      month: "short",
      year: "numeric",
      timeZone: "UTC",
    });
  const [first, last] = [day(Date.parse(from)), day(Date.parse(to) - 1)];
  return first === last ? first : `${first} to ${last}`;
}

/** The same of a run's days, both included; null where only its files define them. */
export function daysName({
  from,
  to,
}: {
  readonly from: string | null;
  readonly to: string | null;
}): string | null {
  if (!from || !to) return null;
  return periodName(`${from}T00:00:00Z`, new Date(Date.parse(`${to}T00:00:00Z`) + dayMs).toISOString());
}
