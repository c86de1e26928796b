/**
 * Everything the screen may ask of the console, and every stream it may follow: the only door between them. Each desk
 * has a file; here they are one map. Inputs are parsed where they arrive, outputs where they leave; both transports
 * (Electron ipc, WebSocket) use this map and nothing else.
 *
 * Expected failures are values: every operation answers a {@link Reply}.
 */
import type { z } from "zod";
import { alertsOperations, alertsStreams } from "./alerts.ts";
import { auditOperations } from "./audit.ts";
import { bulkOperations } from "./bulk.ts";
import { connectionOperations, connectionStreams } from "./connection.ts";
import { correctionsOperations } from "./corrections.ts";
import { costsOperations } from "./costs.ts";
import { financeOperations } from "./finance.ts";
import { runOperations, runStreams } from "./finance-runs.ts";
import { historyOperations } from "./history.ts";
import { configOperations, configStreams } from "./plans.ts";
import { paymentOperations } from "./payments.ts";
import { pricesOperations } from "./prices.ts";
import { railStreams } from "./rail.ts";
import { rulesOperations, rulesStreams } from "./rules.ts";
import { searchOperations } from "./search.ts";
import { healthOperations } from "./health.ts";
import { setupOperations } from "./setup.ts";
import { settingsOperations, settingsStreams } from "./settings.ts";
import { syncOperations, syncStreams } from "./sync.ts";
import { updatesOperations, updatesStreams } from "./updates.ts";
import { usersOperations } from "./users.ts";
import { watchOperations, watchStreams } from "./watch.ts";

export const operations = {
  ...connectionOperations,
  ...setupOperations,
  ...watchOperations,
  ...usersOperations,
  ...historyOperations,
  ...correctionsOperations,
  ...bulkOperations,
  ...rulesOperations,
  ...pricesOperations,
  ...configOperations,
  ...alertsOperations,
  ...auditOperations,
  ...healthOperations,
  ...costsOperations,
  ...runOperations,
  ...financeOperations,
  ...paymentOperations,
  ...settingsOperations,
  ...updatesOperations,
  ...syncOperations,
  ...searchOperations,
} as const;

export const streams = {
  ...connectionStreams,
  ...watchStreams,
  ...alertsStreams,
  ...runStreams,
  ...rulesStreams,
  ...configStreams,
  ...syncStreams,
  ...railStreams,
  ...updatesStreams,
  ...settingsStreams,
} as const;

export type Operations = typeof operations;
export type OperationName = keyof Operations;
export type OperationInput<N extends OperationName> = z.input<Operations[N]["input"]>;
export type OperationOutput<N extends OperationName> = z.infer<Operations[N]["output"]>;
export type Streams = typeof streams;
export type StreamName = keyof Streams;
export type StreamInput<N extends StreamName> = z.input<Streams[N]["input"]>;
export type StreamItem<N extends StreamName> = z.infer<Streams[N]["item"]>;
