/** What is new, told in one notice a minute at most: a burst of alerts is one matter to the person at the desk. */
import type { Notice } from "../../../../shared/contract/index.ts";

export interface News {
  readonly alerts: number;
  readonly flagged: number;
}

export interface NewsOptions {
  readonly tell: (notice: Notice) => void;
  readonly now: () => Date;
}

const nothing: News = { alerts: 0, flagged: 0 };
const pauseMs = 60_000;

export function createNews({ tell, now }: NewsOptions) {
  let untold = nothing;
  /** Milliseconds since 1970. */
  let toldAt = Number.NEGATIVE_INFINITY;
  let timer: NodeJS.Timeout | null = null;

  function tellNow(): void {
    timer = null;
    toldAt = now().getTime();
    const notice = noticeOf(untold);
    untold = nothing;
    tell(notice);
  }

  return {
    /** Tells it at once after a quiet minute; else with whatever else comes, when the minute is over. */
    add({ alerts, flagged }: News): void {
      if (alerts + flagged === 0) return;
      untold = { alerts: untold.alerts + alerts, flagged: untold.flagged + flagged };
      const waitMs = toldAt + pauseMs - now().getTime();
      if (waitMs <= 0) {
        if (timer) clearTimeout(timer);
        tellNow();
      } else timer ??= setTimeout(tellNow, waitMs);
    },
    /** Drops news that did not go out yet: it was about another project. */
    clear(): void {
      if (timer) clearTimeout(timer);
      timer = null;
      untold = nothing;
    },
  };
}

function noticeOf({ alerts, flagged }: News): Notice {
  const parts = [
    ...(alerts > 0 ? [alerts === 1 ? "1 new alert" : `${alerts} new alerts`] : []),
    ...(flagged > 0 ? [flagged === 1 ? "1 user flagged" : `${flagged} users flagged`] : []),
  ];
  const places = [
    ...(alerts > 0 ? ["Watch, Open alerts"] : []),
    ...(flagged > 0 ? ["Users, filter Flagged"] : []),
  ];
  return {
    level: alerts > 0 ? "warning" : "info",
    title: parts.join(", "),
    body: `See ${places.join(", and ")}.`,
  };
}
