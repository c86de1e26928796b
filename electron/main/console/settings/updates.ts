/** Newer versions of this program, as the shell fetches them; none where something else brings them. */
import type {
  Failure,
  UpdateChannel,
  updatesOperations,
  UpdateState,
} from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import type { Handlers } from "../dispatch.ts";

export interface Updates {
  follow(emit: (state: UpdateState) => void): () => void;
  check(): Promise<UpdateState>;
  setChannel(channel: UpdateChannel): Promise<UpdateState>;
  stayAt(version: string | null): Promise<UpdateState>;
  restart(): Promise<Result<Record<string, unknown>, Failure>>;
}

export function updateHandlers(updates: Updates): Pick<Handlers, keyof typeof updatesOperations> {
  return {
    "updates.check": async () => ok(await updates.check()),
    "updates.set_channel": async ({ channel }) => ok(await updates.setChannel(channel)),
    "updates.stay_at": async ({ version }) => ok(await updates.stayAt(version)),
    "updates.restart": () => updates.restart(),
  };
}

export const updatesOff = (current: string, why: string): UpdateState => ({
  status: "off",
  why,
  current,
  channel: "stable",
  version: null,
  notes: null,
  progress: null,
  checked_at: null,
  earlier: [],
  stays_at: null,
  failure: null,
});

/** The browser host and a checkout: they are as new as what they were started from. */
export function noUpdates(
  current: string,
  why = "It runs from a folder: a newer version comes with that.",
): Updates {
  const state = updatesOff(current, why);
  return {
    follow: (emit) => {
      emit(state);
      return () => {};
    },
    check: async () => state,
    setChannel: async () => state,
    stayAt: async () => state,
    restart: async () =>
      fail({ code: "no_update", message: "No newer version is ready.", advice: null, details: null }),
  };
}
