/** The watch desk: what happens now, what happened, and why. */
import { z } from "zod";
import { overview, receipt, searchHit, usageEvent } from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type Desk, readThrough } from "../desk.ts";
import type { Handlers } from "../dispatch.ts";

export const eventsBefore = z.looseObject({
  events: z.array(usageEvent),
  next_before_event_id: z.number().int().nullable(),
});

export function watchHandlers(
  desk: Desk,
): Pick<Handlers, "watch.overview" | "watch.history" | "decisions.explain" | "search.everything"> {
  const { connection } = desk;
  return {
    "watch.overview": async ({ minutes }) => {
      const answer = await readThrough(
        desk,
        `overview:${minutes}`,
        "console_overview",
        { p_minutes: minutes },
        overview,
      );
      return answer.ok ? ok(answer.value.value) : answer;
    },
    "watch.history": ({ filter, before_event_id: before, limit }) =>
      connection.rpc(
        "console_events_before",
        { p_before_event_id: before, p_limit: limit, p_filter: filter },
        eventsBefore,
        { retries: 1 },
      ),
    "decisions.explain": async ({ decision_id: decisionId }) => {
      const answer = await readThrough(
        desk,
        `receipt:${decisionId}`,
        "explain_decision",
        { p_decision_id: decisionId },
        receipt,
      );
      return answer.ok ? ok(answer.value.value) : answer;
    },
    "search.everything": ({ query }) => {
      if (query.trim() === "") return ok([]);
      return connection.rpc("console_search", { p_query: query, p_limit: 20 }, z.array(searchHit), {
        retries: 1,
      });
    },
  };
}
