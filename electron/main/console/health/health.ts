/** The health desk: whether all is well, also as it was last seen while the project cannot be reached. */
import { health, healthDetails, healthOperations, projectInfo } from "../../../../shared/contract/index.ts";
import { ok } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";
import { compareClocks, compareMigrations } from "./checks.ts";

const verifyTimeoutMs = 10 * 60_000;

export function healthHandlers(
  desk: DeskContext,
  migrations: readonly string[],
): Pick<Handlers, "health.get" | "health.verify_ledger"> {
  return {
    "health.get": async () => {
      const askedAt = desk.now().getTime();
      const checks = await readThrough(desk, "health", "console_health", {}, health);
      const answeredAt = desk.now().getTime();
      if (!checks.ok) return checks;
      const details = await readThrough(desk, "health_details", "console_health_details", {}, healthDetails);
      if (!details.ok) return details;
      const info = await readThrough(desk, "health_project", "console_project_info", {}, projectInfo);
      const applied = info.ok ? (info.value.value.migrations ?? []) : [];
      const asOf = checks.value.as_of;
      return ok({
        checks: [
          ...checks.value.value.checks,
          // A project whose tables were made by hand keeps no record of migrations.
          ...(applied.length > 0 ? [compareMigrations(migrations, applied)] : []),
          // An earlier answer does not show how the clocks differ now.
          ...(asOf === null ? [compareClocks(checks.value.value.server_time, askedAt, answeredAt)] : []),
        ],
        sizes: checks.value.value.sizes,
        details: details.value.value,
        as_of: asOf,
      });
    },
    "health.verify_ledger": ({ command_id: commandId }) =>
      desk.connection.rpc(
        "console_verify_ledger",
        { p_command_id: commandId, p_operator: desk.operator() },
        healthOperations["health.verify_ledger"].output,
        { timeoutMs: verifyTimeoutMs },
      ),
  };
}
