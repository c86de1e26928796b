import {
  createGuard as createCoreGuard,
  type Guard,
  type GuardOptions,
  memoryStore,
  type RpcClient,
} from "../../../shared/governance/guard/index.ts";
import { connect, type Project } from "./connect.ts";

/**
 * What a guard is made of. The clock, the timers and the ids are the runtime's own, and `waitUntil` is Supabase's where
 * it exists. `store` is memory by default, which a crash empties: give one that lasts in production.
 */
export type GuardSettings = Omit<GuardOptions, "client" | "store" | "now" | "timer" | "newId"> &
  Partial<Pick<GuardOptions, "store" | "now" | "timer" | "newId">> &
  (Project | { readonly client: RpcClient });

/** Supabase's runtime may put a function to sleep once it has answered. */
function edgeWaitUntil(): GuardOptions["waitUntil"] {
  const runtime = (globalThis as { EdgeRuntime?: { waitUntil?: (promise: Promise<unknown>) => void } })
    .EdgeRuntime;
  return runtime?.waitUntil ? (promise) => runtime.waitUntil?.(promise) : undefined;
}

/** Makes a guard over a project: `createGuard({ url, key })`, or with supabase-js `createGuard({ client })`. */
export function createGuard(settings: GuardSettings): Guard {
  const client = "client" in settings ? settings.client : connect(settings);
  const waitUntil = settings.waitUntil ?? edgeWaitUntil();
  return createCoreGuard({
    store: memoryStore(),
    now: Date.now,
    timer: (run, ms) => {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    },
    newId: () => crypto.randomUUID(),
    ...settings,
    client,
    ...(waitUntil ? { waitUntil } : {}),
  });
}
