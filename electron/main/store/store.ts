/**
 * What the console keeps on this machine: settings, profiles (never keys), the last answers for offline reading,
 * the feed's tail and cursor, reconciliation runs, and the outbox.
 */
import type { DatabaseSync } from "node:sqlite";
import type { Failure } from "../../../shared/contract/index.ts";
import { ok, type Result } from "../../../shared/governance/result.ts";
import { openDatabase } from "./database.ts";
import { storeFeedTail } from "./feed-tail.ts";
import { storeIntents } from "./intents.ts";
import { storeProfiles } from "./profiles.ts";
import { storeRuns } from "./runs.ts";
import { storeSnapshots } from "./snapshots.ts";
import { prepareSql } from "./sql.ts";

export type Store = ReturnType<typeof createStore>;

interface OpenedStore {
  readonly store: Store;
  readonly path: string;
  readonly note: string | null;
}

export function openStore(dataDir: string, now?: () => Date): Result<OpenedStore, Failure> {
  const opened = openDatabase(dataDir, now);
  if (!opened.ok) return opened;
  const { database, path, note } = opened.value;
  return ok({ store: createStore(database), path, note });
}

function createStore(database: DatabaseSync) {
  const sql = prepareSql(database);
  return {
    close: (): void => database.close(),
    ...storeProfiles(sql),
    ...storeSnapshots(sql),
    ...storeFeedTail(sql),
    ...storeIntents(sql),
    ...storeRuns(sql),
  };
}
