/**
 * Opens the console's SQLite file. One process holds it at a time: the lock is SQLite's own, so it goes with the
 * process however it ends. A damaged file is kept aside and created again, with what could still be read of it.
 */
import { chmodSync, existsSync, mkdirSync, readdirSync, renameSync, statSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { fail, ok, type Result } from "../../../shared/governance/result.ts";
import type { Failure } from "../../../shared/contract/index.ts";

/** Each entry brings the store from its index to the next version. Never edit one that was released. */
const migrations: readonly string[] = [
  `
  create table settings (key text primary key, value text not null) strict;
  create table profiles (
    profile_id text primary key,
    name text not null,
    url text not null,
    kind text not null,
    is_production integer not null,
    key_storage text not null,
    added_at text not null
  ) strict;
  -- The last answer to a question, shown with its age while the project cannot be reached.
  create table snapshots (
    profile_id text not null,
    name text not null,
    value text not null,
    at text not null,
    primary key (profile_id, name)
  ) strict;
  create index snapshots_age on snapshots (profile_id, at);
  create table accounts_seen (
    profile_id text not null,
    user_id text not null,
    row text not null,
    at text not null,
    primary key (profile_id, user_id)
  ) strict;
  create index accounts_seen_age on accounts_seen (profile_id, at);
  create table feed_tail (
    profile_id text not null,
    event_id integer not null,
    event text not null,
    primary key (profile_id, event_id)
  ) strict;
  create table cursors (profile_id text primary key, cursor text not null) strict;
  create table outbox (
    command_id text primary key,
    profile_id text not null,
    kind text not null,
    subject text not null,
    summary text not null,
    status text not null,
    created_at text not null,
    expires_at text not null,
    attempts integer not null default 0,
    failure text,
    payload text not null,
    base text,
    mine text,
    theirs text
  ) strict;
  create index outbox_status on outbox (profile_id, status, created_at);
  create table runs (
    run_id text primary key,
    profile_id text not null,
    run text not null,
    report text,
    started_at text not null
  ) strict;
  create table differences (
    run_id text not null,
    position integer not null,
    class text not null,
    difference text not null,
    primary key (run_id, position)
  ) strict, without rowid;
  create index differences_class on differences (run_id, class, position);
  `,
  "alter table profiles add column read_url text",
  `
  alter table profiles add column is_read_only integer not null default 0;
  alter table profiles add column color text;
  `,
];
const storeVersion = migrations.length;

/** What is read out of a damaged file where it still can be: what nobody else has. */
const irreplaceable = ["settings", "profiles", "outbox"] as const;

interface OpenedDatabase {
  readonly database: DatabaseSync;
  readonly path: string;
  /** What a person should know about how it was opened, e.g. that a damaged one was kept aside. */
  readonly note: string | null;
}

export function openDatabase(
  dataDir: string,
  now: () => Date = () => new Date(),
): Result<OpenedDatabase, Failure> {
  const path = join(dataDir, "console.sqlite");
  try {
    makeFolder(resolve(dataDir));
    closeToOthers(resolve(dataDir));
  } catch (error) {
    return fail(unwritable(dataDir, error));
  }
  try {
    return ok({ database: openFile(path), path, note: null });
  } catch (error) {
    if (error instanceof NewerStore) return fail(newer(path, error.version));
    if (isBusy(error)) return fail(inUse(dataDir));
    if (!isDamage(error)) return fail(unwritable(dataDir, error));
  }
  try {
    const kept = keepAside(path, now());
    const database = openFile(path);
    const saved = salvage(database, kept);
    const note = `The local store was damaged. It was kept as ${kept} and created again${saved > 0 ? `, with ${saved} settings, profiles and pending intents read out of it` : ""}.`;
    return ok({ database, path, note });
  } catch (error) {
    return fail(unwritable(dataDir, error));
  }
}

/** Not mkdir's `recursive`: in some folders (/proc) it never returns. */
function makeFolder(path: string): void {
  if (existsSync(path)) return;
  makeFolder(dirname(path));
  mkdirSync(path, { mode: 0o700 });
}

/** A folder that other users may look into, perhaps made before the console was: closed, with what is ours in it. */
function closeToOthers(folder: string): void {
  if (process.platform === "win32") return;
  const names = readdirSync(folder);
  const ours = names.filter((name) => name.startsWith("console.sqlite"));
  for (const path of [
    // Not a folder that holds other things already, such as a home.
    ...(ours.length > 0 || names.length === 0 ? [folder] : []),
    ...ours.map((name) => join(folder, name)),
  ]) {
    const { mode } = statSync(path);
    if ((mode & 0o077) !== 0) chmodSync(path, mode & 0o700);
  }
}

class NewerStore extends Error {
  readonly version: number;
  constructor(version: number) {
    super(`store version ${version}`);
    this.version = version;
  }
}

function openFile(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { timeout: 300 });
  try {
    // What a project can answer again survives a crash of the process; the outbox also a loss of power (store.ts).
    // Exclusive before WAL: the lock is held from the first access to the end of the process.
    database.exec("pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = normal");
    database.exec("begin exclusive; commit");
    const check = database.prepare("pragma quick_check(1)").get() as { quick_check: string };
    if (check.quick_check !== "ok") throw Object.assign(new Error(check.quick_check), { errcode: 11 });
    const { user_version: version } = database.prepare("pragma user_version").get() as {
      user_version: number;
    };
    if (version > storeVersion) throw new NewerStore(version);
    for (let at = version; at < storeVersion; at++) {
      database.exec(`begin; ${migrations[at]}; pragma user_version = ${at + 1}; commit`);
    }
    if (process.platform !== "win32") chmodSync(path, 0o600);
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

function keepAside(path: string, at: Date): string {
  const stamp = at.toISOString().replace(/[:.]/g, "-");
  const kept = path.replace(/\.sqlite$/, `.damaged-${stamp}.sqlite`);
  for (const suffix of ["", "-wal", "-shm"]) {
    if (existsSync(path + suffix)) renameSync(path + suffix, kept + suffix);
  }
  return kept;
}

/** Copies what is still readable; a table that is not is left. Answers how many rows. */
function salvage(database: DatabaseSync, damagedPath: string): number {
  let saved = 0;
  for (const table of irreplaceable) {
    let damaged: DatabaseSync | null = null;
    try {
      damaged = new DatabaseSync(damagedPath, { readOnly: true });
      for (const row of damaged.prepare(`select * from ${table}`).iterate()) {
        const names = Object.keys(row);
        database
          .prepare(
            `insert or ignore into ${table} (${names.join(", ")}) values (${names.map(() => "?").join(", ")})`,
          )
          .run(...Object.values(row));
        saved++;
      }
    } catch {
      // As far as it could be read.
    } finally {
      damaged?.close();
    }
  }
  return saved;
}

const errcode = (error: unknown): number => ((error as { errcode?: number }).errcode ?? 0) & 0xff;
const isBusy = (error: unknown): boolean => [5, 6].includes(errcode(error));
/** SQLITE_CORRUPT, SQLITE_NOTADB. */
const isDamage = (error: unknown): boolean => [11, 26].includes(errcode(error));

function inUse(dataDir: string): Failure {
  return {
    code: "data_folder_in_use",
    message: `Another console is using the data folder ${dataDir}.`,
    advice: "Use that one, close it, or name another folder with --data-dir.",
    details: null,
  };
}

function newer(path: string, version: number): Failure {
  return {
    code: "data_folder_newer",
    message: `The data folder was written by a newer console (store version ${version}, this one knows ${storeVersion}).`,
    advice: "Update this console, or name another folder with --data-dir. Nothing was changed.",
    details: path,
  };
}

function unwritable(dataDir: string, error: unknown): Failure {
  return {
    code: "data_folder_unwritable",
    message: `The data folder ${dataDir} cannot be written.`,
    advice: "Give this account the right to write there, or name another folder with --data-dir.",
    details: (error as Error).message,
  };
}
