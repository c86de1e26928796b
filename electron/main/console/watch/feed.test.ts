import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { StreamItem, UsageEvent } from "../../../../shared/contract/index.ts";
import { openStore, type Store } from "../../store/store.ts";
import { createFeed, matches } from "./feed.ts";

let folder: string;
let store: Store;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "console-feed-"));
  const opened = openStore(folder);
  if (!opened.ok) throw new Error(opened.error.message);
  store = opened.value.store;
});
afterEach(() => {
  store.close();
  rmSync(folder, { recursive: true, force: true });
});

function event(eventId: number, change: Partial<UsageEvent> = {}): UsageEvent {
  return {
    event_id: eventId,
    kind: "authorized",
    at: "2026-11-22T10:00:00Z",
    request_id: `r${eventId}`,
    decision_id: null,
    user_id: "ada",
    display_name: null,
    plan_id: null,
    decision: "allow",
    reason: null,
    requested_model: "gpt-4o",
    model: "gpt-4o-mini",
    task_type: null,
    tokens: 1,
    input_tokens: null,
    output_tokens: null,
    cost_micros: null,
    currency: null,
    ...change,
  };
}
const ids = (batches: readonly StreamItem<"feed">[]): number[] =>
  batches.flatMap(({ events }) => events.map(({ event_id }) => event_id));

test("a filter keeps what fits all of it, and a model is found as asked for and as used", () => {
  expect(matches({}, event(1))).toBe(true);
  expect(matches({ user_id: "ada", decision: "allow" }, event(1))).toBe(true);
  expect(matches({ user_id: "ada", decision: "block" }, event(1))).toBe(false);
  expect(matches({ model: "gpt-4o" }, event(1))).toBe(true);
  expect(matches({ model: "gpt-4o-mini" }, event(1))).toBe(true);
  expect(matches({ model: "claude" }, event(1))).toBe(false);
  expect(matches({ kinds: ["settled"] }, event(1))).toBe(false);
});

test("a new follower gets the newest 500 in batches of at most 500, and always a first batch", () => {
  const feed = createFeed(store);
  const empty: StreamItem<"feed">[] = [];
  feed.follow({}, null, (batch) => empty.push(batch));
  expect(empty).toHaveLength(1);
  feed.show("p");
  feed.seed(
    "p",
    Array.from({ length: 1_200 }, (_, index) => event(index + 1)),
  );
  const batches: StreamItem<"feed">[] = [];
  feed.follow({}, null, (batch) => batches.push(batch));
  expect(ids(batches)).toEqual(Array.from({ length: 500 }, (_, index) => 701 + index));
  const resumed: StreamItem<"feed">[] = [];
  feed.follow({}, 1, (batch) => resumed.push(batch));
  expect(ids(resumed)).toHaveLength(1_199);
  for (const { events } of [...batches, ...resumed]) expect(events.length).toBeLessThanOrEqual(500);
});

test("who comes back goes on behind the event last seen, also where a late one has a lower number", () => {
  const feed = createFeed(store);
  feed.show("p");
  feed.seed("p", [event(10), event(12), event(11), event(13)]);
  const resumed: StreamItem<"feed">[] = [];
  feed.follow({}, 12, (batch) => resumed.push(batch));
  expect(ids(resumed)).toEqual([11, 13]);
});

test("another project's feed starts over and carries its name", () => {
  const feed = createFeed(store);
  feed.show("p");
  feed.seed("p", [event(1)]);
  const batches: StreamItem<"feed">[] = [];
  feed.follow({}, null, (batch) => batches.push(batch));
  feed.show("q");
  expect(batches.map(({ profile_id: id, events }) => [id, events.length])).toEqual([
    ["p", 1],
    ["q", 0],
  ]);
  feed.show("p");
  expect(batches.at(-1)).toMatchObject({ profile_id: "p", events: [{ event_id: 1 }] });
});
