/** The audit desk: the project's log, the last pages that were looked at also while offline. */
import { auditOperations } from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

export function auditHandlers(desk: DeskContext): Pick<Handlers, "audit.list"> {
  return {
    "audit.list": async ({ filter, before_id: beforeId, limit }) => {
      const answer = await readThrough(
        desk,
        `audit:${JSON.stringify(filter)}:${beforeId}:${limit}`,
        "console_audit",
        { p_filter: filter, p_before_id: beforeId, p_limit: limit },
        auditOperations["audit.list"].output.omit({ as_of: true }),
      );
      return answer.ok ? ok({ ...answer.value.value, as_of: answer.value.as_of }) : answer;
    },
  };
}
