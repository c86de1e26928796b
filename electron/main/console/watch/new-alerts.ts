/** Alerts that were raised since the last look, each once and in words of its own. */
import { z } from "zod";
import { alert } from "../../../../shared/contract/index.ts";
import { alertSentence, alertTitle } from "../../../../shared/governance/alerts/words.ts";
import type { DeskContext } from "../desk-context.ts";
import type { News } from "./news.ts";

const page = z.looseObject({ alerts: z.array(alert) });
/** Alerts commit in another order than they are numbered: so far back they are looked through again. */
const lookBack = 200;

export function createNewAlerts({ connection }: DeskContext) {
  /** Alerts up to this one were there at the first look: they are not new. Null before it. */
  let first: number | null = null;
  let newest = 0;
  let seen: ReadonlySet<number> = new Set();

  return {
    /** At the first look none are new. */
    async look(): Promise<News["alerts"]> {
      const [asked, profile] = [first, connection.profileId()];
      const answer = await connection.rpc(
        "console_alerts",
        {
          p_open_only: true,
          p_limit: asked === null ? 1 : lookBack,
          p_filter: {
            needs_operator: true,
            ...(asked === null ? {} : { after_id: Math.max(asked, newest - lookBack) }),
          },
        },
        page,
      );
      if (!answer.ok || connection.profileId() !== profile) return [];
      const { alerts } = answer.value;
      newest = Math.max(newest, alerts[0]?.alert_event_id ?? 0);
      if (asked === null) {
        first ??= newest;
        return [];
      }
      const found = alerts.filter(({ alert_event_id: id }) => !seen.has(id));
      const all = [...seen, ...found.map(({ alert_event_id: id }) => id)];
      seen = new Set(all.filter((id) => id > newest - 2 * lookBack));
      return found.toReversed().map((raised) => ({
        title: alertTitle(raised),
        ...(raised.user_id === null ? {} : { about: raised.display_name ?? raised.user_id }),
        body: alertSentence(raised),
        level: ({ critical: "error", warning: "warning", info: "info" } as const)[raised.severity],
        place: `/alerts/${raised.alert_event_id}?show=all`,
      }));
    },
    /** Another project. */
    reset(): void {
      first = null;
      newest = 0;
      seen = new Set();
    },
  };
}
