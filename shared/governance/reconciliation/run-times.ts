import { isoTime, parseTime } from "./cells.ts";
import { BadInput, fileProblem } from "./problem.ts";
import type { StripeSide } from "./stripe-table.ts";
import type { InputProblem, ReconcileOptions } from "./types.ts";

const HOUR = 3600;

/** The times by which a run decides, in seconds since 1970. */
export interface RunTimes {
  /** The period, `to` excluded. What came about later is not judged in it; it can only settle what is open. */
  readonly from: number;
  readonly to: number;
  /** The stretch that the Stripe files cover. */
  readonly coveredFrom: number;
  readonly coveredTo: number;
  /** The latest moment that the Stripe files know of. */
  readonly watermark: number;
  /** A payment after this may still get its grant. */
  readonly grantedBy: number;
  /** A grant before this may belong to a payment from before the files begin. */
  readonly paidSince: number;
}

/** A time of the options; null where it is not given. */
function optionTime(
  options: ReconcileOptions,
  name: "data_from" | "data_through" | "ledger_through",
): number | null {
  const text = options[name];
  if (text === undefined || text === "") return null;
  const time = parseTime(text);
  if (Number.isNaN(time)) throw new BadInput(fileProblem(`bad_${name}`, "", `"${text}" is not a time.`));
  return time;
}

/** The times of a run; warns where the files do not cover the period. */
export function findRunTimes(
  side: StripeSide,
  from: number,
  to: number,
  options: ReconcileOptions,
  warn: (problem: InputProblem) => void,
): RunTimes {
  const window = coveredWindow(side);
  const through = optionTime(options, "data_through");
  const ledgerThrough = optionTime(options, "ledger_through");
  // A Dashboard export is complete up to the moment when it was made, so without other word the files cover the chosen
  // period, with a warning where their rows do not reach. Stripe's reports lag: with one of them among the files, they
  // cover only what is older than the last row by that lag.
  const isReport = side.files.some((file) => file.kind.endsWith("_itemized"));
  const known = isReport ? window.last - (options.report_lag_hours ?? 12) * HOUR : window.last;
  const since = optionTime(options, "data_from");
  const coveredFrom = since ?? Math.min(from, window.first);
  const grace = (options.grace_hours ?? 1) * HOUR;
  warnOfGaps(side, { from, to }, window, through, since, warn);
  return {
    from,
    to,
    coveredFrom,
    coveredTo: through ?? (isReport ? known : to),
    watermark: through ?? known,
    grantedBy: (ledgerThrough ?? to) - grace,
    paidSince: coveredFrom + grace,
  };
}

/** The first and the last row of the files about payments. */
function coveredWindow(side: StripeSide): { readonly first: number; readonly last: number } {
  let first = Number.POSITIVE_INFINITY;
  let last = Number.NEGATIVE_INFINITY;
  for (const file of side.files) {
    if (file.kind === "disputes" || file.window === null) continue;
    first = Math.min(first, parseTime(file.window.from));
    last = Math.max(last, parseTime(file.window.to));
  }
  return { first, last };
}

function warnOfGaps(
  side: StripeSide,
  { from, to }: { readonly from: number; readonly to: number },
  { first, last }: ReturnType<typeof coveredWindow>,
  through: number | null,
  since: number | null,
  warn: (problem: InputProblem) => void,
): void {
  const names = side.files.map((file) => file.name).join(", ");
  if (last === Number.NEGATIVE_INFINITY) {
    warn(
      fileProblem(
        "no_payments",
        names,
        "No file has payments: only refunds and disputes can be judged. Add the Payments or a balance export.",
      ),
    );
    return;
  }
  // Files that are said to be complete may reach further than their rows: nothing may have happened there.
  const reachesFrom = Math.min(since ?? first, first);
  const reachesTo = Math.max(through ?? last, last);
  const isSaidToCover = since !== null && since <= from && through !== null && through > from;
  if ((last < from || first >= to) && !isSaidToCover) {
    warn(
      fileProblem(
        "period_not_covered",
        names,
        `The files have no rows in the period; they reach from ${isoTime(first)} to ${isoTime(last)}. Export them again for the period.`,
      ),
    );
    return;
  }
  if (reachesFrom > from + 24 * HOUR)
    warn(
      fileProblem(
        "starts_late",
        names,
        `The first row is of ${isoTime(first)}, the period begins ${isoTime(from)}. What lies before is not known from these files.`,
      ),
    );
  if (reachesTo < to - 24 * HOUR)
    warn(
      fileProblem(
        "ends_early",
        names,
        `The last row is of ${isoTime(last)}, the period ends ${isoTime(to)}. What lies after is not known from these files.`,
      ),
    );
}
