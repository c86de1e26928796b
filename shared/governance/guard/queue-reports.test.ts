/** What the project learns of a backend's queue: when it changes, one report at a time, and never in anybody's way. */
import { expect, it } from "vitest";
import { createGuard } from "./guard.ts";
import { memoryStore } from "./settlements.ts";
import type { QueuedSettlement, RpcClient } from "./types.ts";

const owed = (id: string, parked?: string): QueuedSettlement => ({
  id,
  request_id: id,
  function: "settle_usage",
  args: { p_request_id: id, p_input_tokens: 1, p_output_tokens: 1 },
  queued_at_ms: 1_000,
  ...(parked ? { parked } : {}),
});

/** A guard over a project that is away until the test ends that, with what it reported of its queue. */
async function guardWith(entries: readonly QueuedSettlement[], options: { readonly name?: string } = {}) {
  const store = memoryStore();
  for (const entry of entries) await store.put(entry);
  const told: Record<string, unknown>[] = [];
  const state = { isAway: false };
  const client: RpcClient = {
    rpc: async (name, args) => {
      if (name === "report_guard_queue") told.push(args);
      if (state.isAway) throw new Error("away");
      return {
        data: name === "settle_usage" ? { status: "settled", charged_tokens: 2 } : null,
        error: null,
        status: 200,
      };
    },
  };
  const guard = createGuard({
    client,
    store,
    now: () => 61_000,
    timer: (run, ms) => {
      const timer = setTimeout(run, Math.min(ms, 5));
      return () => clearTimeout(timer);
    },
    newId: () => crypto.randomUUID(),
    batch: { mostCalls: 1 },
    rpcRetries: 0,
    ...options,
  });
  return { guard, told, state };
}
const soon = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20));

it("reports at the start what is parked, under the name of its store, and nothing where nothing changed", async () => {
  const { guard, told } = await guardWith([owed("a", "refused")], { name: "shop" });
  await guard.drain();
  await soon();
  expect(told).toEqual([{ p_backend: "shop", p_waiting: 0, p_parked: 1, p_oldest_seconds: null }]);
  const empty = await guardWith([]);
  await empty.guard.drain();
  await soon();
  await empty.guard.drain();
  await soon();
  expect(empty.told).toEqual([{ p_backend: "backend", p_waiting: 0, p_parked: 0, p_oldest_seconds: null }]);
});

it("reports how long the oldest waits while the project is away, and that nothing waits once it is back", async () => {
  const { guard, told, state } = await guardWith([owed("a"), owed("b")]);
  state.isAway = true;
  await guard.drain();
  await soon();
  expect(told.at(-1)).toMatchObject({ p_waiting: 2, p_oldest_seconds: 60 });
  state.isAway = false;
  await guard.idle();
  await soon();
  expect(told.at(-1)).toMatchObject({ p_waiting: 0, p_parked: 0 });
  expect(guard.queueLength).toBe(0);
});
