/** Files whose header does not say that their times are UTC: whether the grants that followed their payments fit. */
import type { Links } from "./link/index.ts";
import type { LedgerTable } from "./ledger-side.ts";
import { CHARGE, PAID, type StripeSide } from "./stripe-table.ts";
import type { InputProblem } from "./types.ts";

const MINUTE = 60;
const QUARTER = 15 * MINUTE;
/** No grant comes before its payment. */
const AFTER = -25 * MINUTE;
/** The first zones west of Europe: a shift in between may be a webhook that came late. */
const BEFORE = 165 * MINUTE;

/** Stripe's reports are made in the account's own time zone unless UTC is asked for: their days are then other days. */
export function warnOfTimeZones(
  side: StripeSide,
  ledgerTable: LedgerTable,
  { mergedInto, claims }: Links,
  warn: (problem: InputProblem) => void,
): void {
  const stripe = side.table.columns;
  const ledger = ledgerTable.columns;
  const lags = side.files.map(({ time_zone }) => (time_zone === "UTC" ? null : ([] as number[])));
  if (lags.every((list) => list === null)) return;
  for (let row = 0; row < side.table.length; row++) {
    const list = lags[stripe.file[row]];
    if (!list || stripe.kind[row] !== CHARGE || stripe.state[row] !== PAID) continue;
    const record = claims.first[mergedInto[row] >= 0 ? mergedInto[row] : row];
    if (record < 0 || ledger.charged[record] > 0) continue;
    list.push(ledger.created[record] - stripe.created[row]);
  }
  for (const [file, list] of lags.entries()) {
    if (!list || list.length < 3) continue;
    const off = list.filter(
      (lag) =>
        lag < AFTER || (lag > BEFORE && Math.abs(lag - Math.round(lag / QUARTER) * QUARTER) < 5 * MINUTE),
    );
    if (off.length * 2 < list.length) continue;
    const middle = off.sort((a, b) => a - b)[Math.floor(off.length / 2)];
    const hours = Math.abs(Math.round(middle / QUARTER) / 4);
    warn({
      code: "other_time_zone",
      file: side.files[file].name,
      row: null,
      column: null,
      message:
        middle < 0
          ? `Most payments are dated ${hours} hours after the grants that they paid for: the times are not UTC, and days and months end elsewhere. Export the file again with UTC as time zone.`
          : `Most payments are dated ${hours} hours before the grants that they paid for: the times are not UTC, and days and months end elsewhere. Export the file again with UTC as time zone.`,
    });
  }
}
