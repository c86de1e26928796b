import { isoTime, parseTime } from "./cells.ts";
import { BadInput, fileProblem } from "./problem.ts";
import type { StripeSide } from "./stripe-table.ts";
import type { InputProblem, ReconcileOptions } from "./types.ts";

const HOUR = 3600;

/** The times that a run is decided in, in seconds since 1970. */
export interface Frame {
  /** The period, `to` excluded. What came about later is not judged in it; it can only settle what is open. */
  readonly from: number;
  readonly to: number;
  /** What the Stripe files cover. */
  readonly coveredFrom: number;
  readonly coveredTo: number;
  /** Of the last thing that they know. */
  readonly watermark: number;
  /** A payment after this may still get its grant. */
  readonly grantedBy: number;
  /** A grant before this may be of a payment that the files begin too late for. */
  readonly paidSince: number;
}

/** A time of the options; NaN where it is not given. */
function optionTime(
  options: ReconcileOptions,
  name: "data_from" | "data_through" | "ledger_through",
): number {
  const text = options[name];
  if (text === undefined || text === "") return Number.NaN;
  const time = parseTime(text);
  if (time !== time) throw new BadInput(fileProblem(`bad_${name}`, "", `"${text}" is not a time.`));
  return time;
}

/** What the files cover, and how far it falls short of the period. */
export function makeFrame(
  side: StripeSide,
  from: number,
  to: number,
  options: ReconcileOptions,
  warn: (problem: InputProblem) => void,
): Frame {
  const window = coveredWindow(side);
  const through = optionTime(options, "data_through");
  const ledgerThrough = optionTime(options, "ledger_through");
  // A Dashboard export knows all until it was made; Stripe's reports lag, and one of them makes the whole look younger.
  // For the rest the chosen period and exports count, with a warning where the rows do not reach.
  const isReport = side.files.some((file) => file.kind.endsWith("_itemized"));
  const known = isReport ? window.last - (options.report_lag_hours ?? 12) * HOUR : window.last;
  const since = optionTime(options, "data_from");
  const coveredFrom = since === since ? since : Math.min(from, window.first);
  const grace = (options.grace_hours ?? 1) * HOUR;
  warnOfGaps(side, { from, to }, window, through, since, warn);
  return {
    from,
    to,
    coveredFrom,
    coveredTo: through === through ? through : isReport ? known : to,
    watermark: through === through ? through : known,
    grantedBy: (ledgerThrough === ledgerThrough ? ledgerThrough : to) - grace,
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
  through: number,
  since: number,
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
  // What is known to be complete reaches further than its rows: there may have been none.
  const reachesFrom = since < first ? since : first;
  const reachesTo = through > last ? through : last;
  if ((last < from || first >= to) && !(since <= from && through > from)) {
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
