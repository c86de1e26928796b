/** Watch: the live feed, the figures of the last minutes, and why a call was decided as it was. */
import { z } from "zod";
import { decision, instant, operation, ruleMode, tokens, userId, whole } from "./basics.ts";

/** What happened, as the feed shows it: one call gives an `authorized` or `blocked` event, then one ending. */
export const usageEvent = z.looseObject({
  /** Position in the feed; strictly increasing for a reader that pages with cursors. */
  event_id: whole,
  kind: z.enum(["authorized", "blocked", "settled", "released", "expired", "quarantined"]),
  at: instant,
  request_id: z.string(),
  decision_id: whole.nullable(),
  user_id: z.string(),
  display_name: z.string().nullable(),
  plan_id: z.string().nullable(),
  decision: decision.nullable(),
  reason: z.string().nullable(),
  requested_model: z.string().nullable(),
  model: z.string().nullable(),
  task_type: z.string().nullable(),
  /** Held for `authorized`, asked for `blocked`, charged for `settled`, given back for the others. */
  tokens: tokens,
  input_tokens: tokens.nullable(),
  output_tokens: tokens.nullable(),
  cost_micros: whole.nullable(),
  currency: z.string().nullable(),
});
export type UsageEvent = z.infer<typeof usageEvent>;

/** A call's row with what happened to it since: it stays where and when it was decided. */
export function withEnd(call: UsageEvent, end: UsageEvent): UsageEvent {
  if (end.kind === "authorized" || end.kind === "blocked") return call;
  return { ...end, event_id: call.event_id, at: call.at, reason: call.reason ?? end.reason };
}

/** Events, oldest first, as calls, newest first: one row each. An ending whose decision is not among them is left out. */
export function callsOf(events: readonly UsageEvent[]): UsageEvent[] {
  const calls = new Map<number, UsageEvent>();
  for (const event of events) {
    const id = event.decision_id ?? event.event_id;
    const call = calls.get(id);
    if (event.kind === "authorized" || event.kind === "blocked") calls.set(id, event);
    else if (call) calls.set(id, withEnd(call, event));
  }
  return [...calls.values()].sort((a, b) => b.event_id - a.event_id);
}

export const usageEventPage = z.looseObject({
  events: z.array(usageEvent),
  next_cursor: z.string().nullable(),
  /** The project was restored: what the reader has with a higher event id is not of its history any more. */
  restarted_after: whole.nullable().optional(),
});

/** Filter of the live feed; an absent key means all. */
const feedFilter = z
  .object({
    user_id: userId.optional(),
    decision: decision.optional(),
    reason: z.string().max(200).optional(),
    model: z.string().max(200).optional(),
    kinds: z.array(usageEvent.shape.kind).max(6).optional(),
  })
  .strict();
export type FeedFilter = z.infer<typeof feedFilter>;

/** Filter of calls, figures and rankings. */
const callFilter = feedFilter.omit({ kinds: true });

/** From a moment up to another one, which is not part of it. */
const stretch = z.object({ from: instant, to: instant }).strict();
export type Stretch = z.infer<typeof stretch>;

/**
 * One step of time. Asked for: tokens of calls decided in it, before anybody knows what they use. Used: tokens of calls
 * settled in it, as charged. A call is asked for in one step and may be settled in another, so the two need not agree.
 */
const overviewStep = z.looseObject({
  start: instant,
  /** Decided in the step: allowed, warned and blocked. */
  calls: whole,
  /** Used: charged at settlements in the step, debt included. */
  settled_tokens: tokens,
  /** Held for calls that were allowed without a warning. */
  allowed_tokens: tokens,
  /** Held for calls that were allowed with a warning. */
  warned_tokens: tokens,
  /** Asked for by calls that were blocked: never used. */
  blocked_tokens: tokens,
  blocked_calls: whole,
  cost_micros: whole,
});
export type OverviewStep = z.infer<typeof overviewStep>;

/** Figures: sums over the time asked for, and states as they are now. Source: console_overview. */
export const overview = z.looseObject({
  at: instant,
  /** The time that is shown: `to` is not part of it. */
  from: instant,
  to: instant,
  step_minutes: whole,
  /** Decided in this time; `blocked` and `warned` are among them. */
  calls: whole,
  blocked: whole,
  warned: whole,
  /** Used in this time: the sum of `steps`. */
  settled_tokens: tokens,
  /** Cost of what was used, in micro-units of `currency`; models without a price cost nothing here. */
  cost_micros: whole,
  currency: z.string(),
  /** Users with a call in this time; null where it is not known. */
  active_users: whole.nullable(),
  /** Now: calls that hold tokens, and how many they hold. */
  open_holds: whole,
  held_tokens: tokens,
  /** Now: holds past their time. */
  stuck_holds: whole,
  /** Now. */
  flagged_users: whole,
  blocked_users: whole,
  users_in_debt: whole,
  /** Now: alerts still shown that nobody has acknowledged. */
  open_alerts: whole,
  /** Oldest first, without gaps. */
  steps: z.array(overviewStep),
  /** Most frequent reasons of blocks in this time. */
  reasons: z.array(z.looseObject({ reason: z.string(), calls: whole })),
  /** Models of the calls decided in this time, the most used first. */
  models: z.array(z.looseObject({ model: z.string(), calls: whole })),
  /** Who used most: tokens as charged, debt included. */
  top_users: z.array(z.looseObject({ user_id: z.string(), display_name: z.string().nullable(), tokens })),
  /** Who was stopped most often, with the most frequent reason. */
  most_stopped: z.array(
    z.looseObject({
      user_id: z.string(),
      display_name: z.string().nullable(),
      calls: whole,
      reason: z.string(),
      is_flagged: z.boolean(),
      is_blocked: z.boolean(),
    }),
  ),
});
export type Overview = z.infer<typeof overview>;

/** One rule's line in a receipt. */
export const ruleTrace = z.looseObject({
  rule_name: z.string(),
  version: whole,
  mode: ruleMode,
  matched: z.boolean(),
  /** The facts the rule read, as they were. */
  facts: z.record(z.string(), z.unknown()),
  /** The rule itself in that version, for shared/governance's words; absent in answers of older projects. */
  rule: z.unknown().optional(),
});

export const receipt = z.looseObject({
  decision_id: whole,
  request_id: z.string(),
  user_id: z.string(),
  at: instant,
  decision,
  reason: z.string().nullable(),
  message: z.string().nullable(),
  http_status: whole,
  rule_name: z.string().nullable(),
  rule_version: whole.nullable(),
  estimated_tokens: tokens,
  /** What the call needs, what there is for it, the difference; null where tokens were not the matter. */
  shortfall: z.looseObject({ need: tokens, have: tokens, missing: tokens }).nullable(),
  limit: z.looseObject({ window: z.string(), limit: tokens, used: tokens }).nullable(),
  clears_at: instant.nullable(),
  timezone: z.string(),
  currency: z.string().nullish(),
  rules: z.array(ruleTrace),
  /** What would have to change for this call to pass, in plain sentences. */
  remedies: z.array(z.string()),
  /** The user's, and where they can buy, upgrade or reach a person, where that would help; absent in older projects. */
  language: z.string().nullish(),
  buy_url: z.string().nullish(),
  contact_url: z.string().nullish(),
  upgrade: z.looseObject({ name: z.string(), url: z.string().nullish() }).nullish(),
});
export type Receipt = z.infer<typeof receipt>;

export const watchOperations = {
  /** The last `minutes`, or a stretch of time that is given. */
  "watch.overview": operation(
    z
      .object({
        minutes: z.number().int().min(5).max(527_040),
        filter: callFilter,
        stretch: stretch.nullable(),
      })
      .strict(),
    overview,
  ),
  /** A page of calls, newest first: one row a call, as an event whose `kind` is where the call is now. */
  "watch.calls": operation(
    z
      .object({
        filter: callFilter,
        stretch: stretch.nullable(),
        before_decision_id: whole.nullable(),
        limit: z.number().int().min(1).max(500),
      })
      .strict(),
    z.object({ calls: z.array(usageEvent), next_before_decision_id: whole.nullable() }),
  ),
  "watch.explain": operation(z.object({ decision_id: whole }).strict(), receipt),
} as const;

export const watchStreams = {
  /**
   * The live feed: first the newest events (at most 500), then batches as they happen, oldest first inside a
   * batch. After a reconnect it goes on behind `after_event_id`, the last event seen. When another project is
   * chosen, a batch with its `profile_id` starts over; when the project was restored, one with `restarted`.
   */
  feed: {
    input: z.object({ filter: feedFilter, after_event_id: whole.nullable() }).strict(),
    item: z.object({
      profile_id: z.string().nullable(),
      events: z.array(usageEvent).max(500),
      /** False while older events are still being read. */
      caught_up: z.boolean(),
      /** Forget the events before this batch: they may not be of this project's history any more. */
      restarted: z.boolean().optional(),
    }),
  },
} as const;
