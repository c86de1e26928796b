/** Wake-ups by Realtime and by polling: each signal once. */
import { afterEach, expect, test, vi } from "vitest";
import { followSignals, type SignalBeats } from "./signals.ts";

afterEach(() => void vi.useRealTimers());

test("what Realtime delivers while the signals are read is not undone by the older reading", async () => {
  vi.useFakeTimers();
  const readings: ((beats: SignalBeats) => void)[] = [];
  const rung: string[] = [];
  const signals = followSignals(
    () => new Promise((resolve) => readings.push(resolve)),
    (topic) => rung.push(topic),
  );
  readings.at(-1)?.({ feed: 5, alerts: 1 });
  await vi.advanceTimersByTimeAsync(500);
  signals.heard("feed", 7);
  readings.at(-1)?.({ feed: 6, alerts: 1 });
  await vi.advanceTimersByTimeAsync(0);
  expect(rung).toEqual(["feed"]);
  // Realtime is still trusted: the next reading is seconds away, and finds nothing that was missed.
  await vi.advanceTimersByTimeAsync(2_500);
  expect(readings).toHaveLength(2);
  await vi.advanceTimersByTimeAsync(500);
  readings.at(-1)?.({ feed: 7, alerts: 2 });
  await vi.advanceTimersByTimeAsync(0);
  expect(rung).toEqual(["feed", "alerts"]);
  signals.stop();
});
