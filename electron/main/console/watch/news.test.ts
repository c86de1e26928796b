import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Notice } from "../../../../shared/contract/index.ts";
import { createNews } from "./news.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

function listen() {
  const shown: Notice[] = [];
  return { shown, news: createNews({ show: (notice) => shown.push(notice), now: () => new Date() }) };
}

const dispute = (name: string) => ({
  title: "Payment disputed",
  about: name,
  body: "As raised",
  level: "warning" as const,
  place: "/alerts/1?show=all",
});
const failed = {
  title: "A step of upkeep failed",
  body: "Upkeep failed at purge",
  level: "error" as const,
  place: "/alerts/2?show=all",
};

test("an alert after a quiet time is shown at once in words of its own, and so is one right after it", () => {
  const { shown, news } = listen();
  news.add({ alerts: [dispute("Ann")], flagged: 0 });
  news.add({ alerts: [failed], flagged: 0 });
  expect(shown).toEqual([
    {
      level: "warning",
      title: "Payment disputed",
      about: "Ann",
      body: "As raised",
      place: "/alerts/1?show=all",
    },
    {
      level: "error",
      title: "A step of upkeep failed",
      body: "Upkeep failed at purge",
      place: "/alerts/2?show=all",
    },
  ]);
});

test("a burst becomes one notice, a minute after the one before it", () => {
  const { shown, news } = listen();
  for (let second = 0; second < 50; second += 2) {
    news.add({ alerts: [dispute("Ann"), dispute("Bob")], flagged: second === 10 ? 1 : 0 });
    vi.advanceTimersByTime(2_000);
  }
  expect(shown).toHaveLength(2);
  vi.advanceTimersByTime(10_000);
  expect(shown.slice(2)).toEqual([
    { level: "warning", title: "48 new alerts", body: "48 Payment disputed", place: "/alerts" },
    {
      level: "info",
      title: "1 user flagged",
      body: "See Users, filter Flagged.",
      place: "/users?filter=flagged",
    },
  ]);
  vi.advanceTimersByTime(600_000);
  expect(shown).toHaveLength(4);
});

test("flagged users alone are no warning, and nothing new is no notice", () => {
  const { shown, news } = listen();
  news.add({ alerts: [], flagged: 0 });
  news.add({ alerts: [], flagged: 3 });
  expect(shown).toEqual([
    {
      level: "info",
      title: "3 users flagged",
      body: "See Users, filter Flagged.",
      place: "/users?filter=flagged",
    },
  ]);
});

test("news of one project never goes out in another", () => {
  const { shown, news } = listen();
  news.add({ alerts: [failed], flagged: 0 });
  news.add({ alerts: [failed, failed, failed, failed, failed], flagged: 0 });
  news.clear();
  vi.advanceTimersByTime(120_000);
  expect(shown).toHaveLength(1);
});
