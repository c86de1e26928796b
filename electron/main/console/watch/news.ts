/** What is new: a few alerts each in words of their own, a burst together with what else comes within a minute. */
import type { Notice } from "../../../../shared/contract/index.ts";

export interface News {
  readonly alerts: readonly {
    /** What it is: alike ones have the same. */
    readonly title: string;
    /** The user's name. */
    readonly about?: string;
    readonly body: string;
    readonly level: Notice["level"];
    /** Where it is. */
    readonly place: string;
  }[];
  readonly flagged: number;
}

interface NewsOptions {
  readonly show: (notice: Notice) => void;
  readonly now: () => Date;
}

const nothing: News = { alerts: [], flagged: 0 };
const pauseMs = 60_000;
/** Up to so many alerts within a minute are shown one by one. */
const fewAlerts = 3;

export function createNews({ show, now }: NewsOptions) {
  let pending = nothing;
  /** Milliseconds since 1970. */
  let shownAt = Number.NEGATIVE_INFINITY;
  let alertsShown = 0;
  let timer: NodeJS.Timeout | null = null;

  function showNow(): void {
    timer = null;
    shownAt = now().getTime();
    alertsShown = 0;
    const { alerts, flagged } = pending;
    pending = nothing;
    if (alerts.length <= fewAlerts) showEach(alerts);
    else show(together(alerts));
    if (flagged > 0)
      show({
        level: "info",
        title: flagged === 1 ? "1 user flagged" : `${flagged} users flagged`,
        body: "See Users, filter Flagged.",
        place: "/users?filter=flagged",
      });
  }

  function showEach(alerts: News["alerts"]): void {
    for (const alert of alerts) show(alert);
    alertsShown += alerts.length;
  }

  return {
    /** Shows it at once after a quiet minute, and always the first few alerts; otherwise when the minute is over. */
    add({ alerts, flagged }: News): void {
      if (alerts.length + flagged === 0) return;
      const waitMs = shownAt + pauseMs - now().getTime();
      if (waitMs > 0 && pending.alerts.length === 0 && alertsShown + alerts.length <= fewAlerts) {
        showEach(alerts);
        if (flagged === 0) return;
        pending = { alerts: [], flagged: pending.flagged + flagged };
      } else pending = { alerts: [...pending.alerts, ...alerts], flagged: pending.flagged + flagged };
      if (waitMs <= 0) {
        if (timer) clearTimeout(timer);
        showNow();
      } else timer ??= setTimeout(showNow, waitMs);
    },
    /** Drops notices that were not shown yet: they were about another project. */
    clear(): void {
      if (timer) clearTimeout(timer);
      timer = null;
      pending = nothing;
    },
  };
}

/** The most urgent first. */
const levels = ["error", "warning", "info"] as const;

/** "48 new alerts": "40 Payment disputed, 8 Budget". */
function together(alerts: News["alerts"]): Notice {
  const counts = new Map<string, number>();
  for (const { title } of alerts) counts.set(title, (counts.get(title) ?? 0) + 1);
  return {
    level: levels.find((level) => alerts.some((each) => each.level === level)) ?? "info",
    title: `${alerts.length} new alerts`,
    body: [...counts]
      .toSorted(([, a], [, b]) => b - a)
      .slice(0, 5)
      .map(([title, count]) => `${count} ${title}`)
      .join(", "),
    place: "/alerts",
  };
}
