/** Estimates of what a period will cost, from its days so far. Pure; amounts are whole micro-units. */

export interface Forecast {
  /** So far, and the usual day for each day that is left. */
  readonly expected_micros: number;
  /** Four times in five the period ends between these, if its days go on as they did. */
  readonly low_micros: number;
  readonly high_micros: number;
  /** The usual day: the mean of the days looked at. */
  readonly per_day_micros: number;
  /** How many days that is from. */
  readonly days: number;
}

/** Fewer days than this say nothing about the next. */
const fewestDays = 7;
/** Of a normal distribution, between -z and z lie four fifths. */
const z = 1.2816;

/**
 * `past`: the cost of each whole day before today, the latest last. `soFar`: of the period up to now. `left`: days of
 * the period that are not over, today among them, so that today's part counts once: it is left out of `soFar`.
 * Null where there are too few days.
 */
export function forecastPeriod(past: readonly number[], soFar: number, left: number): Forecast | null {
  const days = past.length;
  if (days < fewestDays) return null;
  const mean = past.reduce((sum, each) => sum + each, 0) / days;
  const variance = past.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (days - 1);
  // The mean is itself an estimate: its own spread grows with the days it stands for.
  const spread = z * Math.sqrt(variance * (left + left ** 2 / days));
  const expected = soFar + mean * left;
  return {
    expected_micros: Math.round(expected),
    low_micros: Math.round(Math.max(soFar, expected - spread)),
    high_micros: Math.round(expected + spread),
    per_day_micros: Math.round(mean),
    days,
  };
}

/** How many whole days a budget lasts at the usual day's cost; null where it is not used up at all. 0: used up. */
export function daysLeft(budget: number, used: number, perDay: number): number | null {
  if (used >= budget) return 0;
  return perDay > 0 ? Math.floor((budget - used) / perDay) : null;
}
