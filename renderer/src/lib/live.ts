import type { QueryClient } from "@tanstack/react-query";
import { create } from "zustand";
import type { ConsoleClient, TransportStatus } from "../../../shared/contract/client.ts";
import {
  type ConnectionState,
  isReached,
  type ProjectInfo,
  staysLive,
} from "../../../shared/contract/connection.ts";
import type { RailCounts } from "../../../shared/contract/rail.ts";
import type { OperationName, StreamItem } from "../../../shared/contract/operations.ts";
import type { Intent } from "../../../shared/contract/sync.ts";
import { absoluteAddress } from "./router.ts";
import { cleanText, clip } from "./text.ts";

/** What the console sends without being asked, kept for every screen. */
export interface LiveState {
  readonly transport: TransportStatus;
  /** Since when the transport is what it is. */
  readonly transportSinceMs: number;
  readonly connection: ConnectionState | null;
  readonly rail: RailCounts | null;
  readonly intents: readonly Intent[];
}

export const useLive = create<LiveState>(() => ({
  transport: "connecting",
  transportSinceMs: Date.now(),
  connection: null,
  rail: null,
  intents: [],
}));

type Notice = StreamItem<"notices">;

const projectOf = ({ connection }: LiveState): string => connection?.profile?.profile_id ?? "";

/** The project that is open, by its profile; empty where none is. What outlives a screen is kept under it. */
export const openProject = (): string => projectOf(useLive.getState());
export const useOpenProject = (): string => useLive(projectOf);

/** Answers about this machine: they are the same in each project. */
const ofMachine: ReadonlySet<unknown> = new Set<OperationName>([
  "connection.profiles",
  "settings.about",
  "settings.get",
  "setup.plan",
]);

/** Follows the console's small streams; returns the way to stop. */
export function startLive(
  client: ConsoleClient,
  queries: QueryClient,
  onNotice: (notice: Notice) => void,
): () => void {
  let wasLive = false;
  const stops = [
    client.onStatus((transport) => {
      const before = useLive.getState().transport;
      if (transport !== before) useLive.setState({ transport, transportSinceMs: Date.now() });
      if (transport === "open" && before === "lost") void queries.invalidateQueries();
    }),
    client.follow("connection", {}, (connection) => {
      const before = useLive.getState().connection;
      useLive.setState({ connection });
      if (before?.profile?.profile_id !== connection.profile?.profile_id) {
        // Nothing of one project may be shown under the name of another. A part of the screen that stays would go on
        // looking at an answer that is removed: what is of the machine stays too.
        if (before) queries.removeQueries({ predicate: ({ queryKey: [name] }) => !ofMachine.has(name) });
      } else if (connection.status === "live" && !wasLive) {
        void queries.invalidateQueries();
      }
      // A slow answer loses nothing: to read everything again then would make a slow project slower.
      wasLive = staysLive(wasLive, connection.status);
    }),
    client.follow("rail", {}, (rail) => useLive.setState({ rail })),
    client.follow("intents", {}, (intents) => {
      const settled = (list: readonly Intent[]): string =>
        list.map((each) => `${each.command_id}${each.status}`).join();
      if (settled(intents) !== settled(useLive.getState().intents)) {
        for (const key of [
          "users.get",
          "users.search",
          "rules.list",
          "plans.list",
          "alerts.list",
          "alerts.groups",
        ])
          void queries.invalidateQueries({ queryKey: [key] });
      }
      useLive.setState({ intents });
    }),
    client.follow("alerts", {}, () => {
      for (const key of ["alerts.groups", "alerts.list"]) void queries.invalidateQueries({ queryKey: [key] });
    }),
    client.follow("settings", {}, (settings) => queries.setQueryData(["settings.get", {}], settings)),
    client.follow("notices", {}, onNotice),
  ];
  return () => {
    for (const stop of stops) stop();
  };
}

/** A link to a screen of the project that is open, for a ticket or a chat. */
export function linkHere(address: string): string {
  return absoluteAddress(address, useLive.getState().connection?.profile ?? null);
}

/** A plan's name; its id where the plan is gone or has no name. */
export function planName(plans: ProjectInfo["plans"] | undefined, id: string): string {
  return clip(cleanText(plans?.find((plan) => plan.plan_id === id)?.name ?? "") || cleanText(id), 40);
}

/** The currency of the project, for places whose record does not name one. */
export function useProjectCurrency(): string {
  return useLive((state) => state.connection?.project?.currency ?? "");
}

/** How much of the sample's past is written, 0 to 99 %; null where there is none, and once it is all there. */
export function useSampleFilling(): number | null {
  return useLive(({ connection }) => {
    const filling = connection?.profile?.kind === "local" ? connection.sample_traffic?.filling : null;
    return filling === null || filling === undefined || filling >= 1 ? null : Math.floor(100 * filling);
  });
}

/** Can the project be reached now? Reading goes on from the local store when not. */
export function useIsLive(): boolean {
  return useLive((state) => state.transport === "open" && isReached(state.connection?.status));
}

/** Nothing is changed in this project from here: the console refuses it, and the screen does not offer it. */
export function useIsReadOnly(): boolean {
  return useLive((state) => state.connection?.profile?.is_read_only === true);
}

export const readOnlyWords = "This project is open for reading only";

/** Why the project cannot be changed right now, in words; null where it can. */
export function useWhyNot(): string | null {
  const isLive = useIsLive();
  const isReadOnly = useIsReadOnly();
  if (isReadOnly) return readOnlyWords;
  return isLive ? null : "Needs a connection to the project";
}

export function useMayAct(): boolean {
  return useWhyNot() === null;
}
