/** Every operation that a screen may ask for, and the desk that answers it. */
import type { About } from "../../../shared/contract/index.ts";
import { actHandlers } from "./acts.ts";
import { alertHandlers } from "./alerts/alerts.ts";
import { auditHandlers } from "./audit/audit.ts";
import { connectionHandlers } from "./connection/handlers.ts";
import { updateHandlers, type Updates } from "./settings/updates.ts";
import { type Installer, setupHandlers } from "./connection/setup.ts";
import { costsHandlers } from "./costs/costs.ts";
import type { DeskContext } from "./desk-context.ts";
import type { Handlers } from "./dispatch.ts";
import { financeHandlers } from "./finance/finance.ts";
import { paymentHandlers } from "./finance/payments.ts";
import type { createReconciliation } from "./finance/reconciliation.ts";
import { healthHandlers } from "./health/health.ts";
import type { createConfiguration } from "./plans/plans.ts";
import { priceHandlers, readCatalogue } from "./plans/prices.ts";
import type { createReplay } from "./rules/replay.ts";
import { ruleHandlers } from "./rules/rules.ts";
import { settingsHandlers } from "./settings/settings.ts";
import type { Shared } from "./shared.ts";
import { syncHandlers } from "./sync/sync.ts";
import type { BulkDriver } from "./users/bulk-driver.ts";
import { bulkHandlers } from "./users/bulk.ts";
import { correctionHandlers } from "./users/corrections.ts";
import { historyHandlers } from "./users/history.ts";
import type { Commands } from "./users/sent-once.ts";
import { userHandlers } from "./users/users.ts";
import type { createRail } from "./watch/rail.ts";
import { watchHandlers } from "./watch/watch.ts";

interface Parts {
  readonly desk: DeskContext;
  readonly commands: Commands;
  readonly bulk: BulkDriver;
  readonly reconciliation: ReturnType<typeof createReconciliation>;
  readonly replay: ReturnType<typeof createReplay>;
  readonly configuration: ReturnType<typeof createConfiguration>;
  readonly rail: ReturnType<typeof createRail>;
  /** YAML; left out: none. */
  readonly priceCatalogue: string | undefined;
  /** Null where a project's database cannot be prepared from here. */
  readonly installer: Installer | null;
  readonly updates: Updates;
  readonly shared: Shared;
  readonly about: Omit<About, "keychain">;
}

export function allHandlers(parts: Parts): Handlers {
  const { desk, commands, bulk, reconciliation, replay, configuration, rail, priceCatalogue, shared, about } =
    parts;
  return {
    ...connectionHandlers(desk.connection, (profileId) => reconciliation.forgetProject(profileId)),
    ...setupHandlers(desk.connection, parts.installer),
    ...watchHandlers(desk),
    ...alertHandlers(desk),
    ...auditHandlers(desk),
    ...costsHandlers(desk),
    ...healthHandlers(desk, about.migrations),
    ...userHandlers(desk),
    ...historyHandlers(desk),
    ...actHandlers(desk),
    ...correctionHandlers(desk, commands),
    ...bulkHandlers(desk, commands, bulk),
    ...ruleHandlers(desk),
    ...replay.handlers,
    ...configuration.handlers,
    ...priceHandlers(desk, readCatalogue(priceCatalogue ?? "prices: []")),
    ...reconciliation.handlers,
    ...paymentHandlers(desk),
    ...financeHandlers(desk, () => rail.refreshSoon()),
    ...syncHandlers(desk),
    ...updateHandlers(parts.updates),
    ...settingsHandlers(shared, about),
  };
}
