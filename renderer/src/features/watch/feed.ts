import { create } from "zustand";
import type { ConsoleClient } from "../../../../shared/contract/client.ts";
import type { Failure } from "../../../../shared/contract/basics.ts";
import type { StreamItem } from "../../../../shared/contract/operations.ts";
import { type Stretch, type UsageEvent, withEnd } from "../../../../shared/contract/watch.ts";
import type { CallFilter } from "./look.ts";

/** Rows kept on the screen; what is older is read again from the project when the person scrolls there. */
export const SHOWN_MAX = 5_000;
/** Rows kept while the feed is held. Beyond it the oldest are dropped here, and read again when wanted. */
export const WAITING_MAX = 20_000;

/** Endings kept for calls whose row is still on its way here. */
const ENDINGS_KEPT = 500;

interface FeedState {
  /** Calls, newest first, each as it is now. */
  readonly shown: readonly UsageEvent[];
  /** Arrived while the feed was held; newest first. */
  readonly waiting: readonly UsageEvent[];
  readonly waitingCount: number;
  /** The person paused it. */
  readonly isPaused: boolean;
  /** It is held for the moment: a row is under the pointer, or the top is out of sight. */
  readonly isHeld: boolean;
  readonly isCaughtUp: boolean;
  /** Is there something older than the last shown row? */
  readonly hasOlder: boolean;
  /** Where to go on reading what is older: a page of a rare filter may end far before the last row. Null: at that row. */
  readonly olderBefore: number | null;
  /** The last page of what is older had no rows, and was not the last. */
  readonly wasEmptyPage: boolean;
  /** The last endings, oldest first. */
  readonly endings: readonly UsageEvent[];
}

export const emptyFeed: FeedState = {
  shown: [],
  waiting: [],
  waitingCount: 0,
  isPaused: false,
  isHeld: false,
  isCaughtUp: false,
  hasOlder: true,
  olderBefore: null,
  wasEmptyPage: false,
  endings: [],
};

const isEnding = ({ kind }: UsageEvent): boolean => kind !== "authorized" && kind !== "blocked";

/** Puts endings into the rows of their calls, where these are. */
function end(rows: readonly UsageEvent[], endings: readonly UsageEvent[]): readonly UsageEvent[] {
  if (endings.length === 0 || rows.length === 0) return rows;
  const byCall = new Map(endings.map((each) => [each.decision_id, each]));
  return rows.map((row) => {
    const ending = byCall.get(row.decision_id);
    return ending ? withEnd(row, ending) : row;
  });
}

/**
 * A batch of the stream (oldest first) comes in: a decision is a new row, an ending changes its call's row. A call is
 * never taken twice. Which ones are here is asked of the rows, not of their numbers: one whose transaction committed
 * late has a lower number than others before it.
 */
export function receiveBatch(
  before: FeedState,
  batch: Pick<StreamItem<"feed">, "events" | "caught_up" | "restarted">,
): FeedState {
  const state = batch.restarted ? { ...emptyFeed, isPaused: before.isPaused, isHeld: before.isHeld } : before;
  const endings = batch.events.filter(isEnding);
  const starts = batch.events.filter((event) => !isEnding(event));
  const fresh = end(without(state, starts).reverse(), endings);
  const next = {
    ...state,
    isCaughtUp: batch.caught_up,
    shown: end(state.shown, endings),
    waiting: end(state.waiting, endings),
    endings: endings.length === 0 ? state.endings : [...state.endings, ...endings].slice(-ENDINGS_KEPT),
  };
  if (fresh.length === 0) return next;
  // The first screenful goes straight in: there is no row yet that could jump.
  if ((state.isPaused || state.isHeld) && state.shown.length > 0) {
    return {
      ...next,
      waiting: [...fresh, ...next.waiting].slice(0, WAITING_MAX),
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
    // A list that was empty when its past was read may have got one since, as while sample data is written.
    hasOlder: state.hasOlder || state.shown.length === 0 || shown.length > SHOWN_MAX,
    olderBefore: shown.length > SHOWN_MAX ? null : state.olderBefore,
  };
}

/** Lets in what waited. Where more waited than was kept, the older rows go, so that no gap is hidden between them. */
export function releaseWaiting(state: FeedState): FeedState {
  if (state.waitingCount === 0) return state;
  const hasGap = state.waitingCount > state.waiting.length;
  const base = { ...state, waiting: [], waitingCount: 0 };
  return show(hasGap ? { ...base, shown: [], hasOlder: true, olderBefore: null } : base, state.waiting);
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

/** Older rows (newest first) from the project's history. One may have ended while it was on its way. */
export function addOlder(
  state: FeedState,
  calls: readonly UsageEvent[],
  olderBefore: number | null,
): FeedState {
  const found = end(without(state, calls), state.endings);
  const hasOlder = olderBefore !== null;
  const shown = [...state.shown, ...found];
  return { ...state, shown, hasOlder, olderBefore, wasEmptyPage: hasOlder && found.length === 0 };
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
  readonly filter: CallFilter;
  readonly stretch: Stretch | null;
  readonly failure: Failure | null;
  readonly isLoadingOlder: boolean;
  readonly stop: (() => void) | null;
  readonly project: string;
  readonly follow: (
    client: ConsoleClient,
    project: string,
    filter: CallFilter,
    stretch: Stretch | null,
  ) => void;
  readonly pause: (isPaused: boolean) => void;
  readonly hold: (isHeld: boolean) => void;
  readonly release: () => void;
  readonly loadOlder: (client: ConsoleClient) => Promise<void>;
}

/** The feed goes on while the person looks elsewhere; another filter, time or project starts it over. */
export const useFeed = create<FeedStore>((set, get) => ({
  ...emptyFeed,
  filter: {},
  stretch: null,
  failure: null,
  isLoadingOlder: false,
  stop: null,
  project: "",
  follow(client, project, filter, stretch) {
    const state = get();
    const isSame = JSON.stringify([state.filter, state.stretch]) === JSON.stringify([filter, stretch]);
    if (state.stop && state.project === project && isSame) return;
    state.stop?.();
    set({
      ...emptyFeed,
      // A stretch that is over does not change: it is read, not followed.
      isCaughtUp: stretch !== null,
      isPaused: state.project === project && state.isPaused,
      isLoadingOlder: false,
      filter,
      stretch,
      project,
      failure: null,
    });
    const stop =
      stretch === null
        ? client.follow("feed", { filter, after_event_id: null }, (batch) => {
            if (batch.profile_id === project) return set((now) => receiveBatch(now, batch));
            if (batch.profile_id === null) return;
            // Another project was opened. Its events are not taken for this one's; and after a loss the connection goes on
            // behind the last event that came, a number that means nothing in this project. So this feed has ended.
            stop();
            if (get().stop === stop) set({ stop: null });
          })
        : () => undefined;
    set({ stop });
  },
  pause: (isPaused) => set((state) => setPaused(state, isPaused)),
  hold: (isHeld) => set((state) => setHeld(state, isHeld)),
  release: () => set((state) => releaseWaiting(state)),
  async loadOlder(client) {
    const { shown, hasOlder, olderBefore, isLoadingOlder, filter, stretch, project } = get();
    if (!hasOlder || isLoadingOlder) return;
    set({ isLoadingOlder: true });
    const last = shown.at(-1)?.event_id;
    const result = await client.call("watch.calls", {
      filter,
      stretch,
      before_decision_id: olderBefore ?? olderFrom(shown),
      limit: 200,
    });
    set((state) => {
      // Another filter began its own.
      if (state.project !== project || state.filter !== filter || state.stretch !== stretch) return {};
      if (!result.ok) return { isLoadingOlder: false, failure: result.error };
      // What waited was let in meanwhile and the rows above this page went: below others it would hide a gap.
      if (last !== undefined && state.shown.at(-1)?.event_id !== last) return { isLoadingOlder: false };
      const { calls, next_before_decision_id: next } = result.value;
      return {
        ...addOlder(state, calls, next),
        isLoadingOlder: false,
        failure: null,
      };
    });
  },
}));
