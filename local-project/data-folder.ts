/**
 * The folder that one local project lives in: `project.json` (its secret, readable by its owner alone), `lock`
 * (held while a process has it open) and `postgres/` (PGlite's files). PGlite takes no lock of its own, and two
 * openers would lose rows.
 */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { newJwtSecret } from "./keys.ts";

interface ProjectRecord {
  /** Of this file and the folder's layout. */
  readonly format: 1;
  readonly jwtSecret: string;
  /** Seconds since 1970; the keys are issued at this time. */
  readonly createdAtSeconds: number;
  /** The preset applied last, or null. */
  readonly preset: string | null;
  /** False until `postgres/` is complete: an incomplete one may be thrown away. */
  readonly ready: boolean;
}

export interface DataFolder {
  readonly path: string;
  readonly postgresPath: string;
  readonly record: ProjectRecord;
  save(change: Partial<ProjectRecord>): void;
  /** Lets another process open the folder. */
  release(): void;
}

/** The folder cannot be used; the message is one sentence for the person who named it. */
export class DataFolderError extends Error {
  override readonly name = "DataFolderError";
}

const FORMAT = 1;

/** Opens or makes the folder and holds it until released. `postgresMajor` is the version that will read it. */
export function openDataFolder(folder: string, postgresMajor: number): DataFolder {
  const path = resolve(folder);
  const recordPath = join(path, "project.json");
  const postgresPath = join(path, "postgres");
  refuseForeign(path, recordPath);
  const release = lock(path);
  try {
    let record = readRecord(path, recordPath);
    const save = (change: Partial<ProjectRecord>): void => {
      record = { ...record, ...change };
      writeRecord(path, recordPath, record);
    };
    save({});
    if (record.ready) refuseOtherPostgres(path, postgresPath, postgresMajor);
    return {
      path,
      postgresPath,
      get record() {
        return record;
      },
      save,
      release,
    };
  } catch (error) {
    release();
    throw error;
  }
}

function refuseForeign(path: string, recordPath: string): void {
  try {
    makeFolder(path);
    if (!statSync(path).isDirectory()) throw new DataFolderError(`${path} is not a folder.`);
    const others = readdirSync(path).filter((name) => name !== "lock");
    if (others.length > 0 && !existsSync(recordPath)) {
      throw new DataFolderError(
        `${path} holds other files and is not a local project's data folder: name an empty or a new folder.`,
      );
    }
    // Made before, or by hand, with modes that let other users look in: what is in it is for its owner alone.
    const { mode } = statSync(path);
    if (process.platform !== "win32" && (mode & 0o077) !== 0) chmodSync(path, mode & 0o700);
  } catch (error) {
    throw explain(path, error);
  }
}

/** Step by step: Node's own `recursive` never returns where a folder like /proc refuses. */
function makeFolder(path: string): void {
  if (existsSync(path)) return;
  makeFolder(dirname(path));
  mkdirSync(path, { mode: 0o700 });
}

/**
 * A lock that dies with its process: SQLite's lock on a file, which the system lets go when the process ends. The
 * file itself says who holds it.
 */
function lock(path: string): () => void {
  const lockPath = join(path, "lock");
  let file: DatabaseSync | null = null;
  try {
    file = new DatabaseSync(lockPath);
    file.exec("pragma busy_timeout = 0; pragma journal_mode = delete");
    file.exec("begin immediate; create table if not exists holder (pid integer)");
    file.exec(`delete from holder; insert into holder values (${process.pid}); commit; begin immediate`);
    const held = file;
    return () => {
      if (held.isOpen) held.close();
    };
  } catch (error) {
    const busy = /locked|busy/i.test((error as Error).message);
    const holder = busy && file ? readHolder(file) : null;
    file?.close();
    if (!busy) throw explain(path, error);
    const who = holder === null ? "another process" : `process ${holder}`;
    throw new DataFolderError(
      `${path} is in use by ${who}: stop it, or name another folder with --data-dir.`,
    );
  }
}

function readHolder(file: DatabaseSync): number | null {
  try {
    const row = file.prepare("select pid from holder").get();
    return typeof row?.pid === "number" ? row.pid : null;
  } catch {
    return null;
  }
}

function readRecord(path: string, recordPath: string): ProjectRecord {
  if (!existsSync(recordPath)) {
    return {
      format: FORMAT,
      jwtSecret: newJwtSecret(),
      createdAtSeconds: Math.floor(Date.now() / 1000),
      preset: null,
      ready: false,
    };
  }
  let found: Partial<Record<keyof ProjectRecord, unknown>>;
  try {
    found = JSON.parse(readFileSync(recordPath, "utf8")) as typeof found;
  } catch (error) {
    if (error instanceof SyntaxError) throw new DataFolderError(`${recordPath} is damaged: it is not JSON.`);
    throw explain(path, error);
  }
  const { format, jwtSecret, createdAtSeconds, preset, ready } = found;
  if (typeof format === "number" && format > FORMAT) {
    throw new DataFolderError(`${path} was made by a newer version of this program: update the program.`);
  }
  if (
    format !== FORMAT ||
    typeof jwtSecret !== "string" ||
    jwtSecret.length < 32 ||
    typeof createdAtSeconds !== "number"
  ) {
    throw new DataFolderError(`${recordPath} is damaged or not a local project's.`);
  }
  return {
    format,
    jwtSecret,
    createdAtSeconds,
    preset: typeof preset === "string" ? preset : null,
    ready: ready === true,
  };
}

function writeRecord(path: string, recordPath: string, record: ProjectRecord): void {
  try {
    const draft = `${recordPath}.new`;
    writeFileSync(draft, `${JSON.stringify(record, null, 2)}\n`, { mode: 0o600 });
    chmodSync(draft, 0o600);
    renameSync(draft, recordPath);
  } catch (error) {
    throw explain(path, error);
  }
}

function refuseOtherPostgres(path: string, postgresPath: string, wanted: number): void {
  let major: number;
  try {
    major = Number(readFileSync(join(postgresPath, "PG_VERSION"), "utf8"));
  } catch (error) {
    throw new DataFolderError(
      `${path} is damaged: its database files are missing (${(error as Error).message}).`,
    );
  }
  if (major !== wanted) {
    const advice = major > wanted ? "update the program" : "export it with the version that made it";
    throw new DataFolderError(`${path} was made by PostgreSQL ${major}, and this is ${wanted}: ${advice}.`);
  }
}

function explain(path: string, error: unknown): Error {
  if (error instanceof DataFolderError) return error;
  const { code, message } = error as { code?: string; message: string };
  const reason =
    code === "EACCES" || code === "EPERM" || code === "EROFS" || /readonly|unable to open/i.test(message)
      ? "this user may not write there"
      : code === "ENOTDIR" || code === "EEXIST"
        ? "a file is in its way"
        : code === "ENOENT"
          ? "it cannot be made there"
          : message;
  return new DataFolderError(`${path} cannot be the data folder: ${reason}.`);
}
