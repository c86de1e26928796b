/** Ranges of days, as the costs desk has them in its address. Days are YYYY-MM-DD. */
import type { CostStep } from "../../../../shared/contract/costs.ts";
import { addDays, daysIn } from "../../lib/format.ts";
import { rangeProblem } from "../../ui/day-range.tsx";

export interface Range {
  readonly from: string;
  readonly to: string;
}

export const presets = [
  { id: "7", label: "7 days" },
  { id: "30", label: "30 days" },
  { id: "90", label: "90 days" },
  { id: "month", label: "This month" },
  { id: "last", label: "Last month" },
  { id: "365", label: "A year" },
] as const;
export type PresetId = (typeof presets)[number]["id"];

export function presetRange(id: PresetId, today: string): Range {
  const first = `${today.slice(0, 7)}-01`;
  if (id === "month") return { from: first, to: today };
  if (id === "last") {
    const to = addDays(first, -1);
    return { from: `${to.slice(0, 7)}-01`, to };
  }
  return { from: addDays(today, 1 - Number(id)), to: today };
}

const isDay = (text: string | null): text is string =>
  text !== null && /^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(`${text}T00:00:00Z`));

/** From the address; 30 days where it names none, or none that there is. */
export function readRange(
  query: URLSearchParams,
  today: string,
): Range & { readonly preset: PresetId | null } {
  const [from, to] = [query.get("from"), query.get("to")];
  if (isDay(from) && isDay(to) && rangeProblem({ from, to }) === null) return { from, to, preset: null };
  const preset = presets.find(({ id }) => id === query.get("range"))?.id ?? "30";
  return { ...presetRange(preset, today), preset };
}

/** The step that gives a chart that can be read. */
export function fittingStep(range: Range): CostStep {
  const days = daysIn(range);
  return days <= 62 ? "day" : days <= 400 ? "week" : "month";
}

export function lastOfMonth(day: string): string {
  const date = new Date(`${day.slice(0, 7)}-01T00:00:00Z`);
  date.setUTCMonth(date.getUTCMonth() + 1);
  return addDays(date.toISOString().slice(0, 10), -1);
}

/** "+12 %", "-3.0 %", or words where there was nothing before. */
export function changeWords(now: number, before: number): string {
  if (before === 0) return now === 0 ? "as before: none" : "none before";
  const percent = (100 * (now - before)) / before;
  const digits = Math.abs(percent) < 10 ? 1 : 0;
  const rounded = percent.toLocaleString("en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  return `${percent >= 0 ? "+" : ""}${rounded} %`;
}

/** The same with what it was before, where there was something. */
export function changeSince(now: number, before: number, shownBefore: string): string {
  const change = changeWords(now, before);
  return before === 0 ? change : `${change} (before: ${shownBefore})`;
}
