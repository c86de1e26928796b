import { describe, expect, it } from "vitest";
import type { ConsoleClient } from "../../../../shared/contract/client.ts";
import type { UsageEvent } from "../../../../shared/contract/watch.ts";
import {
  addOlder,
  emptyFeed,
  olderFrom,
  receiveBatch,
  releaseWaiting,
  setHeld,
  setPaused,
  SHOWN_MAX,
  useFeed,
  WAITING_MAX,
} from "./feed.ts";

const event = (id: number): UsageEvent => ({
  event_id: id,
  kind: "authorized",
  at: "2026-11-22T12:00:00Z",
  request_id: `r${id}`,
  decision_id: id,
  user_id: "u",
  display_name: null,
  plan_id: null,
  decision: "allow",
  reason: null,
  requested_model: null,
  model: null,
  task_type: null,
  tokens: 1,
  input_tokens: null,
  output_tokens: null,
  cost_micros: null,
  currency: null,
});
const batch = (from: number, to: number) => ({
  events: Array.from({ length: to - from + 1 }, (_, index) => event(from + index)),
  caught_up: true,
});
const ids = (events: readonly UsageEvent[]): number[] => events.map((each) => each.event_id);

describe("the feed", () => {
  const settled = (call: number, id: number): UsageEvent => ({
    ...event(id),
    kind: "settled",
    decision_id: call,
    at: "2026-11-22T12:05:00Z",
    tokens: 7,
    cost_micros: 3,
  });
  it("has one row a call: what happens to a call later is shown in its row, which stays where it is", () => {
    let feed = receiveBatch(emptyFeed, batch(1, 3));
    feed = receiveBatch(feed, { events: [settled(2, 4), event(5)], caught_up: true });
    expect(ids(feed.shown)).toEqual([5, 3, 2, 1]);
    expect(feed.shown[2]).toMatchObject({ kind: "settled", tokens: 7, at: event(2).at, cost_micros: 3 });
    // Also while the feed is held, and of one that waits.
    feed = receiveBatch(setPaused(feed, true), { events: [event(6)], caught_up: true });
    feed = receiveBatch(feed, { events: [settled(6, 7), settled(1, 8)], caught_up: true });
    expect(setPaused(feed, false).shown.map(({ event_id: id, kind }) => [id, kind])).toEqual([
      [6, "settled"],
      [5, "authorized"],
      [3, "authorized"],
      [2, "settled"],
      [1, "settled"],
    ]);
  });
  it("loses no ending of a call whose row was on its way", () => {
    const feed = receiveBatch(receiveBatch(emptyFeed, batch(8, 9)), {
      events: [settled(4, 10)],
      caught_up: true,
    });
    expect(ids(feed.shown)).toEqual([9, 8]);
    expect(addOlder(feed, [event(5), event(4)], null).shown.at(-1)).toMatchObject({ kind: "settled" });
  });
  it("shows the newest first and takes no event twice", () => {
    let feed = receiveBatch(emptyFeed, batch(1, 3));
    feed = receiveBatch(feed, batch(2, 4));
    expect(ids(feed.shown)).toEqual([4, 3, 2, 1]);
  });
  it("shows an event that committed late, whatever its number, also while it is held", () => {
    let feed = receiveBatch(emptyFeed, { events: [event(10), event(12)], caught_up: true });
    feed = receiveBatch(feed, { events: [event(11), event(12)], caught_up: true });
    expect(ids(feed.shown)).toEqual([11, 12, 10]);
    feed = setPaused(feed, true);
    feed = receiveBatch(feed, { events: [event(9), event(10)], caught_up: true });
    expect(feed.waitingCount).toBe(1);
    expect(ids(setPaused(feed, false).shown)).toEqual([9, 11, 12, 10]);
  });
  it("misses no older row when the last one shown came late", () => {
    const feed = receiveBatch(emptyFeed, { events: [event(5), event(10), event(11)], caught_up: true });
    expect(olderFrom(feed.shown)).toBe(12);
    const older = [11, 10, 9, 8, 7, 6, 5, 4].map(event);
    expect(ids(addOlder(feed, older, null).shown)).toEqual([11, 10, 5, 9, 8, 7, 6, 4]);
  });
  it("starts over where the project was restored, and stays paused", () => {
    let feed = setPaused(receiveBatch(emptyFeed, batch(1, 9)), true);
    feed = receiveBatch(feed, { events: [event(3), event(4)], caught_up: true, restarted: true });
    expect(ids(feed.shown)).toEqual([4, 3]);
    expect(feed.isPaused).toBe(true);
  });
  it("keeps what comes while paused, counts it, and lets it in without a gap", () => {
    let feed = setPaused(receiveBatch(emptyFeed, batch(1, 2)), true);
    feed = receiveBatch(receiveBatch(feed, batch(3, 4)), batch(5, 5));
    expect(ids(feed.shown)).toEqual([2, 1]);
    expect(feed.waitingCount).toBe(3);
    feed = setPaused(feed, false);
    expect(ids(feed.shown)).toEqual([5, 4, 3, 2, 1]);
    expect(feed.waitingCount).toBe(0);
  });
  it("does not move a row under the pointer, and pausing outlasts the pointer", () => {
    let feed = setHeld(receiveBatch(emptyFeed, batch(1, 1)), true);
    feed = receiveBatch(feed, batch(2, 2));
    expect(ids(feed.shown)).toEqual([1]);
    feed = setHeld(setPaused(feed, true), false);
    expect(ids(feed.shown)).toEqual([1]);
    expect(ids(setPaused(feed, false).shown)).toEqual([2, 1]);
  });
  it("fills an empty screen even when the pointer rests there", () => {
    expect(ids(receiveBatch(setHeld(emptyFeed, true), batch(1, 2)).shown)).toEqual([2, 1]);
  });
  it("hides no gap when more waited than is kept: older rows are read again", () => {
    let feed = setPaused(receiveBatch(emptyFeed, batch(1, 10)), true);
    for (let from = 11; from < 11 + WAITING_MAX + 500; from += 500)
      feed = receiveBatch(feed, batch(from, from + 499));
    expect(feed.waiting).toHaveLength(WAITING_MAX);
    expect(feed.waitingCount).toBe(WAITING_MAX + 500);
    feed = releaseWaiting(feed);
    expect(feed.shown).toHaveLength(SHOWN_MAX);
    const newest = feed.shown[0]?.event_id ?? 0;
    expect(feed.shown.every((each, index) => each.event_id === newest - index)).toBe(true);
    expect(feed.hasOlder).toBe(true);
  });
  it("adds older pages below, without repeating", () => {
    const feed = addOlder(receiveBatch(emptyFeed, batch(5, 6)), [event(5), event(4), event(3)], null);
    expect(ids(feed.shown)).toEqual([6, 5, 4, 3]);
    expect(feed.hasOlder).toBe(false);
  });
  it("goes on where the last page ended, though it had no rows", () => {
    expect(addOlder(receiveBatch(emptyFeed, batch(500, 501)), [], 100)).toMatchObject({
      hasOlder: true,
      olderBefore: 100,
      wasEmptyPage: true,
    });
  });
  it("asks again for what is older, where the list was empty when it asked", () => {
    const empty = addOlder(emptyFeed, [], null);
    expect(empty.hasOlder).toBe(false);
    expect(receiveBatch(empty, batch(5, 6)).hasOlder).toBe(true);
  });
});

describe("the feed that is followed", () => {
  /** A console whose batches and pages the test sends. */
  function followed() {
    const streams: { readonly send: (batch: object) => void; isFollowed: boolean }[] = [];
    let answer = (_calls: readonly UsageEvent[]): void => {};
    const client = {
      follow: (_name: string, _input: object, send: (batch: object) => void) => {
        const stream = { send, isFollowed: true };
        streams.push(stream);
        return () => (stream.isFollowed = false);
      },
      call: () =>
        new Promise((resolve) => {
          answer = (calls) => resolve({ ok: true, value: { calls, next_before_decision_id: null } });
        }),
    };
    return {
      client: client as unknown as ConsoleClient,
      streams,
      answer: (...numbers: number[]) => answer(numbers.map(event)),
    };
  }
  const filter = {};

  it("puts a page of older calls below the row it was asked for, or nowhere: a gap is read again", async () => {
    const { client, streams, answer } = followed();
    useFeed.getState().follow(client, "gap", filter, null);
    streams[0]?.send({ profile_id: "gap", ...batch(101, 110) });
    useFeed.getState().pause(true);
    // More comes than is kept: what is shown goes when it is let in.
    for (let from = 111; from < 111 + WAITING_MAX + 500; from += 500)
      streams[0]?.send({ profile_id: "gap", ...batch(from, from + 499) });
    const page = useFeed.getState().loadOlder(client);
    useFeed.getState().pause(false);
    const last = useFeed.getState().shown.at(-1)?.event_id;
    answer(100, 99, 98);
    await page;
    const { shown, hasOlder, isLoadingOlder } = useFeed.getState();
    expect(shown.at(-1)?.event_id).toBe(last);
    expect([hasOlder, isLoadingOlder]).toEqual([true, false]);
  });

  it("ends where another project is opened, and begins from its tail when one comes back", () => {
    const { client, streams } = followed();
    const follow = () => useFeed.getState().follow(client, "mine", filter, null);
    follow();
    streams[0]?.send({ profile_id: "mine", ...batch(1, 2) });
    // None is open yet, as where the console starts again: the same feed goes on.
    streams[0]?.send({ profile_id: null, events: [], caught_up: false });
    follow();
    expect(streams.map(({ isFollowed }) => isFollowed)).toEqual([true]);

    streams[0]?.send({ profile_id: "other", ...batch(900, 901) });
    expect(ids(useFeed.getState().shown)).toEqual([2, 1]);
    follow();
    expect(streams.map(({ isFollowed }) => isFollowed)).toEqual([false, true]);
    expect(useFeed.getState().shown).toEqual([]);
  });
});
