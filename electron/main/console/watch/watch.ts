/** The watch desk: what happens now, what happened, and why. */
import { z } from "zod";
import {
  overview,
  receipt,
  rule,
  type SearchHit,
  searchHit,
  usageEvent,
} from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type DeskContext, mayBeOld, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";
import { matches } from "./feed.ts";

const maxHits = 20;

export const eventsBefore = z.looseObject({
  events: z.array(usageEvent),
  next_before_event_id: z.number().int().nullable(),
});

export function watchHandlers(
  desk: DeskContext,
): Pick<Handlers, "watch.overview" | "watch.history" | "watch.explain" | "search.everything"> {
  const { connection, store } = desk;
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
    "watch.history": async ({ filter, before_event_id: before, limit }) => {
      const page = await connection.rpc(
        "console_events_before",
        { p_before_event_id: before, p_limit: limit, p_filter: filter },
        eventsBefore,
        { retries: 1 },
      );
      const profileId = connection.profileId();
      if (page.ok || profileId === null || !mayBeOld(page.error, connection)) return page;
      // As far back as the feed's tail goes.
      const kept = store
        .listFeedTail(profileId)
        .filter((event) => (before === null || event.event_id < before) && matches(filter, event))
        .toReversed();
      const events = kept.slice(0, limit);
      return ok({
        events,
        next_before_event_id: kept.length > limit ? (events.at(-1)?.event_id ?? null) : null,
      });
    },
    "watch.explain": async ({ decision_id: decisionId }) => {
      const answer = await readThrough(
        desk,
        `receipt:${decisionId}`,
        "explain_decision",
        { p_decision_id: decisionId },
        receipt,
      );
      return answer.ok ? ok(answer.value.value) : answer;
    },
    "search.everything": async ({ query }) => {
      if (query.trim() === "") return ok([]);
      const found = await connection.rpc(
        "console_search",
        { p_query: query, p_limit: maxHits },
        z.array(searchHit),
        {
          retries: 1,
        },
      );
      const profileId = connection.profileId();
      if (found.ok || profileId === null || !mayBeOld(found.error, connection)) return found;
      return ok(searchKept(store, profileId, query));
    },
  };
}

/** Users and rules that were seen here, by a part of their name or id. */
function searchKept(store: DeskContext["store"], profileId: string, query: string): SearchHit[] {
  const needle = query.trim().toLowerCase();
  const fits = (...texts: (string | null)[]): boolean =>
    texts.some((text) => text?.toLowerCase().includes(needle));
  const users = store
    .listAccountsSeen(profileId)
    .filter(({ account }) => fits(account.user_id, account.display_name, account.email))
    .map(
      ({ account }): SearchHit => ({
        kind: "user",
        id: account.user_id,
        title: account.display_name ?? account.user_id,
        subtitle: account.email,
      }),
    );
  const kept = z.array(rule).safeParse(store.getSnapshot(profileId, "rules")?.value);
  const rules = (kept.success ? kept.data : [])
    .filter(({ rule_name }) => fits(rule_name))
    .map(
      ({ rule_name, rule_type }): SearchHit => ({
        kind: "rule",
        id: rule_name,
        title: rule_name,
        subtitle: rule_type,
      }),
    );
  return [...users, ...rules].slice(0, maxHits);
}
