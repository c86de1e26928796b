/**
 * The live feed: reads the project's events by cursor, keeps a tail, and hands each screen what it has not seen.
 */
import {
  type Failure,
  type FeedFilter,
  otherProject,
  type StreamItem,
  type UsageEvent,
  usageEventPage,
} from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Backend } from "../../backend/backend.ts";
import { maxFeedTail } from "../../store/feed-tail.ts";
import type { Store } from "../../store/store.ts";

/** The contract's bound for one batch. */
const maxBatch = 500;
const pageSize = 500;

export function matches(filter: FeedFilter, event: UsageEvent): boolean {
  return (
    (filter.user_id === undefined || event.user_id === filter.user_id) &&
    (filter.decision === undefined || event.decision === filter.decision) &&
    (filter.reason === undefined || event.reason === filter.reason) &&
    (filter.model === undefined || event.model === filter.model || event.requested_model === filter.model) &&
    (filter.kinds === undefined || filter.kinds.includes(event.kind))
  );
}

/** An event as screens get it: what only a replay reads stays in the store. */
function withoutFacts(event: UsageEvent): UsageEvent {
  const { facts: _facts, plan: _plan, local_day: _day, matched: _matched, ...shown } = event;
  return shown as UsageEvent;
}

type Batch = StreamItem<"feed">;

interface Follower {
  readonly filter: FeedFilter;
  readonly emit: (batch: Batch) => void;
}

export type Feed = ReturnType<typeof createFeed>;

export function createFeed(store: Store) {
  const followers = new Set<Follower>();
  let profileId: string | null = null;
  /** Oldest first. */
  let tail: UsageEvent[] = [];
  let isCaughtUp = false;

  function send(follower: Follower, events: readonly UsageEvent[], hasRestarted = false): void {
    const wanted = events.filter((event) => matches(follower.filter, event));
    for (let from = 0; from < wanted.length || from === 0; from += maxBatch) {
      follower.emit({
        profile_id: profileId,
        events: wanted.slice(from, from + maxBatch),
        caught_up: isCaughtUp && from + maxBatch >= wanted.length,
        ...(hasRestarted && from === 0 ? { restarted: true } : {}),
      });
    }
  }

  function append(read: readonly UsageEvent[]): void {
    const known = new Set(tail.map(({ event_id: id }) => id));
    const events = read.filter(({ event_id: id }) => !known.has(id)).map(withoutFacts);
    tail = tail.concat(events);
    if (tail.length > maxFeedTail) tail = tail.slice(-maxFeedTail);
    if (events.length > 0) for (const follower of followers) send(follower, events);
  }

  return {
    /** Shows another project's feed: its tail as it was left, until it is read on. */
    show(nextProfileId: string | null): void {
      profileId = nextProfileId;
      tail = profileId === null ? [] : store.listFeedTail(profileId).map(withoutFacts);
      isCaughtUp = false;
      for (const follower of followers) send(follower, tail.slice(-maxBatch));
    },

    /** Reads what the project has and this console has not. The cursor moves with what was kept. */
    async readNew(
      backend: Backend,
      startCursor: () => Promise<Result<string | null, Failure>>,
    ): Promise<Result<number, Failure>> {
      const id = profileId;
      if (id === null) return ok(0);
      let cursor = store.getCursor(id);
      if (cursor === null) {
        const start = await startCursor();
        if (!start.ok) return start;
        cursor = start.value;
      }
      let read = 0;
      for (;;) {
        const page = await backend.rpc(
          "usage_events_since",
          // With their facts: what is kept is what a replay without a connection judges.
          { p_cursor: cursor, p_limit: pageSize, p_filter: { facts: true } },
          usageEventPage,
          { retries: 2 },
        );
        if (!page.ok) {
          isCaughtUp = false;
          return page;
        }
        if (profileId !== id) return fail(otherProject);
        const { events, next_cursor: next, restarted_after: restartedAfter } = page.value;
        if (typeof restartedAfter === "number") {
          // The project was restored. What is kept here may never have happened there: begin as a new console does.
          store.forgetFeed(id);
          tail = [];
          isCaughtUp = false;
          const start = await startCursor();
          for (const follower of followers) send(follower, tail.slice(-maxBatch), true);
          if (!start.ok) return start;
          cursor = start.value;
          continue;
        }
        if (next !== null && next !== cursor) store.putEvents(id, events, next);
        const wasCaughtUp = isCaughtUp;
        isCaughtUp = events.length < pageSize;
        append(events);
        if (isCaughtUp && !wasCaughtUp && events.length === 0)
          for (const follower of followers) send(follower, []);
        read += events.length;
        if (isCaughtUp || next === null || next === cursor) return ok(read);
        cursor = next;
      }
    },

    /** First the newest events (or what came after `afterEventId`), then batches as they happen. */
    follow(filter: FeedFilter, afterEventId: number | null, emit: (batch: Batch) => void): () => void {
      const follower = { filter, emit };
      // By place, not by number: an event that committed late comes after events with higher numbers.
      const place = tail.findIndex((event) => event.event_id === afterEventId);
      const known =
        afterEventId === null
          ? tail
          : place >= 0
            ? tail.slice(place + 1)
            : tail.filter((event) => event.event_id > afterEventId);
      const wanted = known.filter((event) => matches(filter, event));
      send(follower, afterEventId === null ? wanted.slice(-maxBatch) : wanted);
      followers.add(follower);
      return () => followers.delete(follower);
    },

    lastEventId: (): number | null => tail.at(-1)?.event_id ?? null,
    isEmpty: (): boolean => tail.length === 0,
    /** Puts older events of a project in front of its empty tail, e.g. at the first connection. */
    seed(ofProfile: string, events: readonly UsageEvent[]): void {
      if (tail.length > 0 || profileId !== ofProfile) return;
      store.putEvents(profileId, events, null);
      append(events);
    },
  };
}
