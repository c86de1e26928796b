import { useQueryClient } from "@tanstack/react-query";
import type { WantedChange } from "../../../../shared/contract/plans.ts";
import { useConsole } from "../../lib/console.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";

/** Proposes changes to a second person; answers whether that was done. */
export function usePropose(): (
  commandId: string,
  changes: readonly WantedChange[],
  reason: string,
) => Promise<boolean> {
  const client = useConsole();
  const queries = useQueryClient();
  return async (commandId, changes, reason) => {
    const result = await client.call("plans.propose", {
      command_id: commandId,
      changes: [...changes],
      reason,
    });
    if (!result.ok) {
      showFailure("Not proposed", result.error);
      return false;
    }
    void queries.invalidateQueries({ queryKey: ["plans.proposals"] });
    showDone("Proposed: a second person approves it under Plans, Proposals");
    return true;
  };
}
