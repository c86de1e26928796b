/** Which days a reconciliation covers: days in UTC, both included. */

export const PERIOD_CHOICES = ["this_month", "last_month", "since_close", "files", "custom"] as const;
export type PeriodChoice = (typeof PERIOD_CHOICES)[number];

export interface Days {
  /** Empty where the files tell it. */
  readonly from: string;
  readonly to: string;
}

const dayMs = 86_400_000;
export const dayOf = (moment: number): string => new Date(moment).toISOString().slice(0, 10);

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
      // A period may end within a day: that day then belongs to the next one too, which tells what is left of it.
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
