/** The audit desk: the project's log, the pages that were read last can be read offline. */
import { auditCheck, auditOperations } from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";

/** A log of millions of entries is hashed whole. */
const verifyTimeoutMs = 10 * 60_000;

export function auditHandlers(desk: DeskContext): Pick<Handlers, "audit.list" | "audit.verify"> {
  return {
    "audit.verify": ({ command_id: commandId }) =>
      desk.connection.rpc(
        "console_verify_audit",
        { p_command_id: commandId, p_operator: desk.operator() },
        auditCheck,
        { timeoutMs: verifyTimeoutMs },
      ),
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
