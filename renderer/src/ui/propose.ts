import { type QueryClient, useQueryClient } from "@tanstack/react-query";
import type { ConsoleClient } from "../../../shared/contract/client.ts";
import type { WantedChange } from "../../../shared/contract/plans.ts";
import { useConsole } from "../lib/console.tsx";
import { showDone, showFailure } from "./notices.tsx";

/** Proposes changes to a second person; returns whether that was done. */
export async function propose(
  client: ConsoleClient,
  queries: QueryClient,
  commandId: string,
  changes: readonly WantedChange[],
  reason: string,
): Promise<boolean> {
  const result = await client.call("plans.propose", { command_id: commandId, changes: [...changes], reason });
  if (!result.ok) {
    showFailure("Not proposed", result.error);
    return false;
  }
  void queries.invalidateQueries({ queryKey: ["plans.proposals"] });
  showDone("Proposed: a second person approves it under Plans, Proposals");
  return true;
}

/** The same on the screen's connection. */
export function usePropose(): (
  commandId: string,
  changes: readonly WantedChange[],
  reason: string,
) => Promise<boolean> {
  const client = useConsole();
  const queries = useQueryClient();
  return (commandId, changes, reason) => propose(client, queries, commandId, changes, reason);
}
