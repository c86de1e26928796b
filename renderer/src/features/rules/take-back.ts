import { useQueryClient } from "@tanstack/react-query";
import { useCallback } from "react";
import type { RuleRecord } from "../../../../shared/contract/rules.ts";
import { useConsole } from "../../lib/console.tsx";
import { afterActs, useAct } from "../../ui/acts.ts";
import { showFailure } from "../../ui/notices.tsx";

/** Returns a rule to the version before the one in force; a new rule is retired. */
export function useTakeBack(): (record: RuleRecord) => Promise<void> {
  const client = useConsole();
  const runAct = useAct();
  const queries = useQueryClient();
  return useCallback(
    async (seen) => {
      const record = await afterActs("rule", seen);
      const result = await client.call("rules.changes", { rule_name: record.rule_name, before: null });
      if (!result.ok) return showFailure("Not taken back", result.error);
      const before = result.value.changes.find((change) => change.version < record.version);
      if (before && !before.is_retired)
        await runAct("save_rule", record, {
          rule: before.rule,
          reason: `Taken back to version ${before.version}`,
        });
      else await runAct("retire_rule", record, { reason: "Taken back: the rule was new" });
      void queries.invalidateQueries({ queryKey: ["rules.changes"] });
    },
    [client, queries, runAct],
  );
}
