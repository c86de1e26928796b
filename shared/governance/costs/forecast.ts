/** Estimates of what a period will cost, from its days so far. Pure; amounts are whole micro-units. */

interface Forecast {
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

/** Fewer days than this are too few for an estimate. */
const fewestDays = 7;
/** Of a normal distribution, between -z and z lie four fifths. */
const z = 1.2816;

/**
 * `past`: the cost of each whole day before today, the latest last. `soFar`: of the period before today. `left`: days
 * of the period that are not over, today among them. `today`: what today cost already; a day that cost more than usual
 * is taken as it is. Null where there are too few days.
 */
export function forecastPeriod(
  past: readonly number[],
  soFar: number,
  left: number,
  today = 0,
): Forecast | null {
  const days = past.length;
  if (days < fewestDays) return null;
  const mean = past.reduce((sum, each) => sum + each, 0) / days;
  const variance = past.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (days - 1);
  const beyondUsual = Math.max(0, today - mean);
  const open = beyondUsual > 0 ? left - 1 : left;
  // The mean is itself an estimate: its own spread grows with the days it stands for.
  const spread = z * Math.sqrt(variance * (open + open ** 2 / days));
  const expected = soFar + mean * left + beyondUsual;
  return {
    expected_micros: Math.round(expected),
    low_micros: Math.round(Math.max(soFar + today, expected - spread)),
    high_micros: Math.round(expected + spread),
    per_day_micros: Math.round(mean),
    days,
  };
}

/** In which of the days to come, counted from 1, something runs out; null: not within the days asked for. */
export interface RunOut {
  readonly expected: number | null;
  /** Four times in five not before this one… */
  readonly earliest: number | null;
  /** … and not after this one. */
  readonly latest: number | null;
  /** The usual day, and how many days that is from. */
  readonly per_day: number;
  readonly days: number;
}

/**
 * When what was left as today began is used up, if the days `within` go on like those past. `today`: what today used
 * already. Null where there are too few days.
 */
export function runsOut(past: readonly number[], left: number, within: number, today = 0): RunOut | null {
  const usual = forecastPeriod(past, 0, 1);
  if (!usual) return null;
  /** The first day by whose end so much may have been used. */
  const first = (figure: "expected_micros" | "low_micros" | "high_micros"): number | null => {
    for (let day = 1; day <= within; day++)
      if ((forecastPeriod(past, 0, day, today)?.[figure] ?? 0) >= left) return day;
    return null;
  };
  const isUsed = usual.per_day_micros > 0;
  return {
    expected: isUsed ? first("expected_micros") : null,
    earliest: isUsed ? first("high_micros") : null,
    latest: isUsed ? first("low_micros") : null,
    per_day: usual.per_day_micros,
    days: usual.days,
  };
}
