/** What Watch shows: filters and time, as in its address. Figures, chart, rankings and list follow them. */
import type { FeedFilter, Stretch } from "../../../../shared/contract/watch.ts";
import { dayMs } from "../../lib/format.ts";
import { codeWords } from "../../lib/text.ts";

export type CallFilter = Omit<FeedFilter, "kinds">;

export interface Look {
  readonly filter: CallFilter;
  /** The last so many minutes; not looked at where there is a stretch. */
  readonly minutes: number;
  readonly stretch: Stretch | null;
}

export const windows = [
  { minutes: 15, label: "last 15 minutes" },
  { minutes: 60, label: "last hour" },
  { minutes: 360, label: "last 6 hours" },
  { minutes: 1_440, label: "last 24 hours" },
  { minutes: 10_080, label: "last 7 days" },
  { minutes: 43_200, label: "last 30 days" },
  { minutes: 129_600, label: "last 90 days" },
  { minutes: 525_600, label: "last year" },
] as const;
const usualMinutes = 60;

const decisions = ["allow", "warn", "block"] as const;

/** Invalid parts of an address are ignored, so that figures never follow a filter that is not shown. */
export function readLook(query: URLSearchParams): Look {
  const decision = decisions.find((each) => each === query.get("decision"));
  const text = (name: string): string | undefined => query.get(name)?.slice(0, 200) || undefined;
  const [userId, reason, model] = [text("user"), text("reason"), text("model")];
  const minutes = Number(query.get("last"));
  const [from, to] = [Date.parse(query.get("from") ?? ""), Date.parse(query.get("to") ?? "")];
  return {
    filter: {
      ...(userId ? { user_id: userId } : {}),
      ...(decision ? { decision } : {}),
      ...(reason ? { reason } : {}),
      ...(model ? { model } : {}),
    },
    minutes: windows.find((each) => each.minutes === minutes)?.minutes ?? usualMinutes,
    stretch:
      from < to && to - from <= 367 * dayMs
        ? { from: new Date(from).toISOString(), to: new Date(to).toISOString() }
        : null,
  };
}

export function lookQuery({ filter, minutes, stretch }: Look): Readonly<Record<string, string | undefined>> {
  return {
    user: filter.user_id,
    decision: filter.decision,
    reason: filter.reason,
    model: filter.model,
    last: minutes === usualMinutes ? undefined : String(minutes),
    from: stretch?.from,
    to: stretch?.to,
  };
}

/** "minute", "15 minutes", "day": the length of a step in words. */
export function stepWords(minutes: number): string {
  const units = [
    [10_080, "week"],
    [1_440, "day"],
    [60, "hour"],
    [1, "minute"],
  ] as const;
  for (const [length, name] of units)
    if (minutes % length === 0)
      return minutes === length
        ? codeWords(name)
        : `${(minutes / length).toLocaleString("en")} ${codeWords(`${name}s`)}`;
  return `${minutes} minutes`;
}
