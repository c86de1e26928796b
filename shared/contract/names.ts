/**
 * The names of the map in operations.ts, without its schemas: the preload needs the names alone, and must stay small.
 */
import type { OperationName, StreamName } from "./operations.ts";

const operationNameSet: Record<OperationName, true> = {
  "connection.state": true,
  "connection.profiles": true,
  "connection.check": true,
  "connection.add": true,
  "connection.select": true,
  "connection.remove": true,
  "connection.retry": true,
  "connection.sample_traffic": true,
  "watch.overview": true,
  "watch.history": true,
  "decisions.explain": true,
  "accounts.search": true,
  "accounts.get": true,
  "accounts.usage": true,
  "accounts.ledger": true,
  "accounts.decisions": true,
  "accounts.flag": true,
  "accounts.block": true,
  "accounts.unblock": true,
  "rules.list": true,
  "rules.set_mode": true,
  "reconciliation.open_upload": true,
  "reconciliation.upload_chunk": true,
  "reconciliation.start": true,
  "reconciliation.cancel": true,
  "reconciliation.runs": true,
  "reconciliation.report": true,
  "reconciliation.differences": true,
  "reconciliation.export": true,
  "sync.intents": true,
  "sync.resolve": true,
  "search.everything": true,
  "settings.get": true,
  "settings.set": true,
  "settings.about": true,
};
const streamNameSet: Record<StreamName, true> = {
  connection: true,
  rail: true,
  intents: true,
  feed: true,
  reconciliation: true,
  notices: true,
};

/** Every operation and no other: the compiler refuses a missing or a foreign name. */
export const operationNames = Object.keys(operationNameSet) as readonly OperationName[];
export const streamNames = Object.keys(streamNameSet) as readonly StreamName[];
