/** The watch desk: what happens now, what happened, and why. */
import { z } from "zod";
import {
  overview,
  receipt,
  rule,
  type SearchHit,
  searchHit,
  callsOf,
  usageEvent,
} from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type DeskContext, mayBeOld, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";
import { matches } from "./feed.ts";

const maxHits = 20;

const callsBefore = z.looseObject({
  calls: z.array(usageEvent),
  next_before_decision_id: z.number().int().nullable(),
});

export const eventsBefore = z.looseObject({
  events: z.array(usageEvent),
  next_before_event_id: z.number().int().nullable(),
});

export function watchHandlers(
  desk: DeskContext,
): Pick<Handlers, "watch.overview" | "watch.calls" | "watch.explain" | "search.everything"> {
  const { connection, store } = desk;
  return {
    "watch.overview": async ({ minutes, filter, stretch }) => {
      const answer = await readThrough(
        desk,
        `overview:${minutes}:${JSON.stringify([filter, stretch])}`,
        "console_overview",
        {
          p_minutes: minutes,
          p_filter: filter,
          p_from: stretch?.from ?? null,
          p_to: stretch?.to ?? null,
        },
        overview,
      );
      return answer.ok ? ok(answer.value.value) : answer;
    },
    "watch.calls": async ({ filter, stretch, before_decision_id: before, limit }) => {
      const page = await connection.rpc(
        "console_calls_before",
        {
          p_before_decision_id: before,
          p_limit: limit,
          p_filter: filter,
          p_from: stretch?.from ?? null,
          p_to: stretch?.to ?? null,
        },
        callsBefore,
        { retries: 1 },
      );
      const profileId = connection.profileId();
      if (page.ok || profileId === null || !mayBeOld(page.error, connection)) return page;
      // As far back as the feed's tail goes.
      const kept = callsOf(store.listFeedTail(profileId)).filter(
        (call) =>
          (before === null || call.event_id < before) &&
          (stretch === null ||
            (Date.parse(call.at) >= Date.parse(stretch.from) &&
              Date.parse(call.at) < Date.parse(stretch.to))) &&
          matches(filter, call),
      );
      const calls = kept.slice(0, limit);
      return ok({
        calls,
        next_before_decision_id: kept.length > limit ? (calls.at(-1)?.event_id ?? null) : null,
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
