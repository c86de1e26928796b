/** The day something runs out, in words. */
import type { RunOut } from "../../../shared/governance/costs/forecast.ts";
import { addDays, formatDay } from "./format.ts";

/** A date without a time, the same in every zone. */
export const dayWords = (day: string): string => formatDay(`${day}T12:00:00Z`, "UTC");

/** The band around the day, the first of the days to come being `today`. */
export function bandWords({ earliest, latest }: RunOut, today: string): string {
  const from = dayWords(addDays(today, (earliest ?? 1) - 1));
  return latest === null
    ? `80 % likely not before ${from}`
    : `80 % likely between ${from} and ${dayWords(addDays(today, latest - 1))}`;
}
