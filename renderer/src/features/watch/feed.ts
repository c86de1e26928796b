import { create } from "zustand";
import type { ConsoleClient } from "../../../../shared/contract/client.ts";
import type { Failure } from "../../../../shared/contract/basics.ts";
import type { StreamItem } from "../../../../shared/contract/operations.ts";
import type { FeedFilter } from "../../../../shared/contract/watch.ts";
import type { UsageEvent } from "../../../../shared/contract/watch.ts";

/** Rows kept on the screen; what is older is read again from the project when the person scrolls there. */
export const SHOWN_MAX = 5_000;
/** Rows kept while the feed stands still. Beyond it the oldest are dropped here, and read again when wanted. */
export const WAITING_MAX = 20_000;

export interface FeedState {
  /** Newest first. */
  readonly shown: readonly UsageEvent[];
  /** Arrived while the feed stood still; newest first. */
  readonly waiting: readonly UsageEvent[];
  readonly waitingCount: number;
  /** The person paused it. */
  readonly isPaused: boolean;
  /** It stands still for the moment: a row is under the pointer, or the top is out of sight. */
  readonly isHeld: boolean;
  readonly isCaughtUp: boolean;
  /** Is there something older than the last shown row? */
  readonly hasOlder: boolean;
}

export const emptyFeed: FeedState = {
  shown: [],
  waiting: [],
  waitingCount: 0,
  isPaused: false,
  isHeld: false,
  isCaughtUp: false,
  hasOlder: true,
};

/**
 * A batch of the stream (oldest first) comes in. An event is never taken twice. Which ones are here is asked of the
 * events, not of their numbers: one whose transaction committed late has a lower number than others before it.
 */
export function receiveBatch(
  before: FeedState,
  batch: Pick<StreamItem<"feed">, "events" | "caught_up" | "begins_anew">,
): FeedState {
  const state = batch.begins_anew
    ? { ...emptyFeed, isPaused: before.isPaused, isHeld: before.isHeld }
    : before;
  const fresh = without(state, batch.events).reverse();
  const next = { ...state, isCaughtUp: batch.caught_up };
  if (fresh.length === 0) return next;
  // The first screenful goes straight in: there is no row yet that could jump.
  if ((state.isPaused || state.isHeld) && state.shown.length > 0) {
    return {
      ...next,
      waiting: [...fresh, ...state.waiting].slice(0, WAITING_MAX),
      waitingCount: state.waitingCount + fresh.length,
    };
  }
  return show(next, fresh);
}

function without(state: FeedState, events: readonly UsageEvent[]): UsageEvent[] {
  const here = new Set<number>();
  for (const { event_id: id } of state.shown) here.add(id);
  for (const { event_id: id } of state.waiting) here.add(id);
  return events.filter(({ event_id: id }) => !here.has(id) && here.add(id));
}

function show(state: FeedState, fresh: readonly UsageEvent[]): FeedState {
  const shown = [...fresh, ...state.shown];
  return {
    ...state,
    shown: shown.slice(0, SHOWN_MAX),
    hasOlder: state.hasOlder || shown.length > SHOWN_MAX,
  };
}

/** Lets in what waited. Where more waited than was kept, the older rows go, so that no gap is hidden between them. */
export function releaseWaiting(state: FeedState): FeedState {
  if (state.waitingCount === 0) return state;
  const hasGap = state.waitingCount > state.waiting.length;
  const base = { ...state, waiting: [], waitingCount: 0 };
  return show(hasGap ? { ...base, shown: [], hasOlder: true } : base, state.waiting);
}

export function setPaused(state: FeedState, isPaused: boolean): FeedState {
  const next = { ...state, isPaused };
  return isPaused || state.isHeld ? next : releaseWaiting(next);
}

export function setHeld(state: FeedState, isHeld: boolean): FeedState {
  if (state.isHeld === isHeld) return state;
  const next = { ...state, isHeld };
  return isHeld || state.isPaused ? next : releaseWaiting(next);
}

/** Older rows (newest first) from the project's history. */
export function addOlder(state: FeedState, events: readonly UsageEvent[], hasOlder: boolean): FeedState {
  return { ...state, shown: [...state.shown, ...without(state, events)], hasOlder };
}

/**
 * Where the page below the last row begins. History is read by number, and the last rows may have come late, with a
 * lower number than rows that are not here: so it begins above all of them, and what is here already is left out.
 */
export function olderFrom(shown: readonly UsageEvent[]): number | null {
  if (shown.length === 0) return null;
  return Math.max(...shown.slice(-50).map(({ event_id: id }) => id)) + 1;
}

interface FeedStore extends FeedState {
  readonly filter: FeedFilter;
  readonly failure: Failure | null;
  readonly isLoadingOlder: boolean;
  readonly stop: (() => void) | null;
  readonly project: string;
  readonly follow: (client: ConsoleClient, project: string, filter: FeedFilter) => void;
  readonly pause: (isPaused: boolean) => void;
  readonly hold: (isHeld: boolean) => void;
  readonly release: () => void;
  readonly loadOlder: (client: ConsoleClient) => Promise<void>;
}

/** The feed goes on while the person looks elsewhere; another filter or project starts it anew. */
export const useFeed = create<FeedStore>((set, get) => ({
  ...emptyFeed,
  filter: {},
  failure: null,
  isLoadingOlder: false,
  stop: null,
  project: "",
  follow(client, project, filter) {
    const state = get();
    if (state.stop && state.project === project && JSON.stringify(state.filter) === JSON.stringify(filter))
      return;
    state.stop?.();
    set({
      ...emptyFeed,
      isPaused: state.project === project && state.isPaused,
      filter,
      project,
      failure: null,
    });
    const stop = client.follow("feed", { filter, after_event_id: null }, (batch) =>
      // What is still on its way from the project before must not be taken for this one's.
      set((now) => (batch.profile_id === project ? receiveBatch(now, batch) : now)),
    );
    set({ stop });
  },
  pause: (isPaused) => set((state) => setPaused(state, isPaused)),
  hold: (isHeld) => set((state) => setHeld(state, isHeld)),
  release: () => set((state) => releaseWaiting(state)),
  async loadOlder(client) {
    const { shown, hasOlder, isLoadingOlder, filter, project } = get();
    const before = olderFrom(shown);
    if (before === null || !hasOlder || isLoadingOlder) return;
    set({ isLoadingOlder: true });
    const result = await client.call("watch.history", {
      filter,
      before_event_id: before,
      limit: 200,
    });
    set((state) => {
      if (state.project !== project || state.filter !== filter) return { isLoadingOlder: false };
      if (!result.ok) return { isLoadingOlder: false, failure: result.error };
      const { events, next_before_event_id: next } = result.value;
      return {
        ...addOlder(state, events, next !== null && events.length > 0),
        isLoadingOlder: false,
        failure: null,
      };
    });
  },
}));
