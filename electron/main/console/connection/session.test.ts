/** A project that does not answer is asked again after a time, and at once where somebody asks for it. */
import { afterEach, expect, test, vi } from "vitest";
import type { Failure } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Backend } from "../../backend/backend.ts";
import { startSession } from "./session.ts";

const lost: Failure = { code: "offline", message: "Lost.", advice: null, details: null };

afterEach(() => void vi.useRealTimers());

test("whoever asks to try again while the project is asked in vain does not wait for the next time", async () => {
  vi.useFakeTimers();
  const asked: ((answer: Result<never, Failure>) => void)[] = [];
  const session = startSession({
    backend: {
      replica: null,
      rpc: () => new Promise((resolve) => asked.push(resolve)),
      close: async () => undefined,
    } as unknown as Backend,
    migrations: [],
    readNew: async () => ok(0),
    sendPending: async () => undefined,
    onSignal: () => undefined,
    onStatus: () => undefined,
    onProject: () => undefined,
    onReplica: () => undefined,
  });
  const answerInVain = async (): Promise<void> => {
    asked.at(-1)?.(fail(lost));
    await vi.advanceTimersByTimeAsync(0);
  };
  session.wake();
  await answerInVain();
  expect(asked).toHaveLength(2);
  // Once for each wish, not over and over.
  await answerInVain();
  expect(asked).toHaveLength(2);
  await vi.advanceTimersByTimeAsync(2_000);
  expect(asked).toHaveLength(3);
  const stopped = session.stop();
  await answerInVain();
  await stopped;
});
