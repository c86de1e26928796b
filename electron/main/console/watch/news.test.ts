import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Notice } from "../../../../shared/contract/index.ts";
import { createNews } from "./news.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function listen() {
  const told: Notice[] = [];
  return { told, news: createNews({ tell: (notice) => told.push(notice), now: () => new Date() }) };
}

test("the first news after a quiet time goes out at once", () => {
  const { told, news } = listen();
  news.add({ alerts: 1, flagged: 0 });
  expect(told).toEqual([{ level: "warning", title: "1 new alert", body: "See Watch, Open alerts." }]);
});

test("a burst becomes one notice, a minute after the one before it", () => {
  const { told, news } = listen();
  for (let second = 0; second < 50; second += 2) {
    news.add({ alerts: 2, flagged: second === 10 ? 1 : 0 });
    vi.advanceTimersByTime(2_000);
  }
  expect(told).toHaveLength(1);
  vi.advanceTimersByTime(10_000);
  expect(told).toHaveLength(2);
  expect(told[1]).toEqual({
    level: "warning",
    title: "48 new alerts, 1 user flagged",
    body: "See Watch, Open alerts, and Users, filter Flagged.",
  });
  vi.advanceTimersByTime(600_000);
  expect(told).toHaveLength(2);
});

test("flagged users alone are no warning, and nothing new is no notice", () => {
  const { told, news } = listen();
  news.add({ alerts: 0, flagged: 0 });
  news.add({ alerts: 0, flagged: 3 });
  expect(told).toEqual([{ level: "info", title: "3 users flagged", body: "See Users, filter Flagged." }]);
});

test("news of one project never goes out in another", () => {
  const { told, news } = listen();
  news.add({ alerts: 1, flagged: 0 });
  news.add({ alerts: 5, flagged: 0 });
  news.clear();
  vi.advanceTimersByTime(120_000);
  expect(told).toHaveLength(1);
});
