import { DatabaseSync } from "node:sqlite";
import type { QueuedSettlement, SettlementStore } from "../../../shared/governance/guard/index.ts";

/**
 * Settlements in a file of Node's own SQLite (Node 22.5 and later, Deno 2.2 and later): for one machine with a disk. Each is on the
 * disk before it is sent. Several processes may share the file. Throws where the file cannot be opened.
 */
export function sqliteStore(path: string): SettlementStore {
  const db = new DatabaseSync(path);
  db.exec("pragma journal_mode = wal; pragma synchronous = full; pragma busy_timeout = 3000");
  db.exec("create table if not exists settlements (id text primary key, queued_at integer, entry text)");
  const put = db.prepare("insert or replace into settlements values (?, ?, ?)");
  const remove = db.prepare("delete from settlements where id = ?");
  const list = db.prepare("select entry from settlements order by queued_at, rowid");
  return {
    async put(entry) {
      put.run(entry.id, entry.queued_at_ms, JSON.stringify(entry));
    },
    async remove(id) {
      remove.run(id);
    },
    async list() {
      return list.all().map((row) => JSON.parse(String(row["entry"])) as QueuedSettlement);
    },
  };
}
