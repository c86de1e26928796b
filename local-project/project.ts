/**
 * Opens a database and serves it: PGlite in a data folder, or a PostgreSQL server. Runs inside the worker thread
 * (worker.ts); everything else goes through `startLocalProject` in index.ts.
 */
import { createHash, randomUUID } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { PGlite } from "@electric-sql/pglite";
import { pg_trgm } from "@electric-sql/pglite/contrib/pg_trgm";
import { type DataFolder, DataFolderError, openDataFolder } from "./data-folder.ts";
import { type Database, pgliteDatabase, postgresDatabase, type RunSql } from "./database.ts";
import { startHttpServer } from "./http-server.ts";
import { createGate, issueKeys, newJwtSecret, type ProjectKeys } from "./keys.ts";
import { defaultResourcesDir, MigrationError, migrate, readMigrations, readPreset } from "./migrations.ts";
import { createRealtime, REALTIME_CHANNEL } from "./realtime.ts";
import { createRpcEndpoint } from "./rpc.ts";
import { unpack } from "./unpack.ts";
import { startUpkeep } from "./upkeep.ts";

export interface LocalProjectOptions {
  /** 0 for any free port. */
  readonly port?: number;
  /** Where PGlite keeps its files; made if missing. Needed unless `databaseUrl` is given. */
  readonly dataDir?: string;
  /** A PostgreSQL server to use instead of PGlite. */
  readonly databaseUrl?: string;
  /** Applied when the database is made, and again where another one is named. `default` unless said. */
  readonly preset?: string;
  /** Signs the tokens; for `databaseUrl` alone, else the data folder has its own. A random one unless given. */
  readonly jwtSecret?: string;
  /** Connections at most, for `databaseUrl`. */
  readonly poolSize?: number;
  /** Whether calls of a model that wait at the same time go to the database together: so unless it is false. */
  readonly batchesCalls?: boolean;
  /** Holds `migrations/` and `presets/`; the checkout's `supabase/` unless said. */
  readonly resourcesDir?: string;
  /** Holds bootstrap.sql and realtime.sql; this folder unless said. */
  readonly sqlDir?: string;
  /** Where the prepared database is kept, so that a second project starts fast. */
  readonly cacheDir?: string;
  /** Between two rounds of upkeep: a minute unless said; null for none, where a test looks at every row. */
  readonly upkeepIntervalMs?: number | null;
}

/** Where a project answers and the keys it takes. */
export interface ProjectAddress extends ProjectKeys {
  readonly url: string;
}

interface ServedProject {
  readonly address: ProjectAddress;
  /** Statements in the project's own database, past every check of the endpoint: for sample data alone. */
  readonly run: RunSql;
  stop(): Promise<void>;
}

/** What the person who started it did wrong, in one sentence; the command ends with 2. */
class UsageError extends Error {
  override readonly name = "UsageError";
}

const OWNER = "project_owner";
const UPKEEP_INTERVAL_MS = 60_000;
const PGLITE_POSTGRES_MAJOR = 18;
/** As in package.json, which a bundle does not have. */
export const PGLITE_VERSION = "0.5.16";
const KEPT_SNAPSHOTS = 8;
// The same extensions at every open, or PGlite cannot read what it wrote.
const EXTENSIONS = { pg_trgm };

interface Context {
  readonly options: LocalProjectOptions;
  readonly resourcesDir: string;
  readonly sqlDir: string;
  readonly log: (sentence: string) => void;
}

export async function serveProject(
  options: LocalProjectOptions,
  log: (sentence: string) => void,
): Promise<ServedProject> {
  const context: Context = {
    options,
    resourcesDir: options.resourcesDir ?? defaultResourcesDir,
    sqlDir: options.sqlDir ?? import.meta.dirname,
    log,
  };
  return options.databaseUrl === undefined ? serveFolder(context) : serveServer(context, options.databaseUrl);
}

async function serveFolder(context: Context): Promise<ServedProject> {
  const { options } = context;
  if (!options.dataDir)
    throw new UsageError("Name a data folder with --data-dir, or a server with --database-url.");
  const folder = openDataFolder(options.dataDir, PGLITE_POSTGRES_MAJOR);
  try {
    const db = await openPglite(context, folder);
    const { jwtSecret, createdAtSeconds } = folder.record;
    const database = pgliteDatabase(db);
    return await serve(context, database, jwtSecret, createdAtSeconds, () => folder.release());
  } catch (error) {
    folder.release();
    throw error;
  }
}

async function openPglite(context: Context, folder: DataFolder): Promise<PGlite> {
  const { options, log } = context;
  const made = folder.record.ready ? null : await makeDatabase(context, folder);
  const db = made ?? (await openExisting(folder));
  const other = options.preset !== undefined && options.preset !== folder.record.preset;
  try {
    // A folder made by an older version gets what it does not have yet.
    await migrate(db, {
      resourcesDir: context.resourcesDir,
      role: OWNER,
      onProgress: log,
      ...(other && options.preset !== undefined ? { preset: { name: options.preset } } : {}),
    });
    if (other) folder.save({ preset: options.preset ?? null });
    return db;
  } catch (error) {
    await db.close();
    throw error;
  }
}

async function openExisting(folder: DataFolder): Promise<PGlite> {
  try {
    return await PGlite.create({ dataDir: folder.postgresPath, extensions: EXTENSIONS });
  } catch (error) {
    throw new DataFolderError(`${folder.path} cannot be opened: ${(error as Error).message}.`);
  }
}

/** Makes the database: from the prepared one where there is one, else from nothing, and prepares it. */
async function makeDatabase(context: Context, folder: DataFolder): Promise<PGlite> {
  const { options, log, resourcesDir, sqlDir } = context;
  const preset = options.preset ?? "default";
  // The leftovers of an interrupted start are no database.
  rmSync(folder.postgresPath, { recursive: true, force: true });
  const snapshot = snapshotPath(context, preset);
  const prepared = readSnapshot(snapshot, log);
  if (prepared) {
    unpack(prepared, folder.postgresPath);
    const db = await PGlite.create({ dataDir: folder.postgresPath, extensions: EXTENSIONS });
    folder.save({ ready: true, preset });
    return db;
  }
  log("Making the database: the first time takes some seconds.");
  const db = await PGlite.create({ dataDir: folder.postgresPath, extensions: EXTENSIONS });
  try {
    await db.exec(readFileSync(join(sqlDir, "bootstrap.sql"), "utf8"));
    await migrate(db, { resourcesDir, role: OWNER, preset: { name: preset }, onProgress: log });
    folder.save({ ready: true, preset });
    // Else each project made from it would begin by doing the migrations over, from the log of what was written.
    await db.exec("checkpoint");
    writeSnapshot(snapshot, new Uint8Array(await (await db.dumpDataDir("gzip")).arrayBuffer()), log);
    return db;
  } catch (error) {
    await db.close();
    throw error;
  }
}

/** Named by all that went into it, so that a change of any makes another. */
function snapshotPath({ options, resourcesDir, sqlDir }: Context, preset: string): string {
  const ingredients = JSON.stringify([
    PGLITE_VERSION,
    readFileSync(join(sqlDir, "bootstrap.sql"), "utf8"),
    readMigrations(resourcesDir),
    readPreset(preset, resourcesDir),
  ]);
  const name = createHash("sha256").update(ingredients).digest("hex").slice(0, 24);
  const folder = options.cacheDir ?? join(import.meta.dirname, "../.local/cache");
  return join(folder, `project-${name}.tar.gz`);
}

function readSnapshot(path: string, log: (sentence: string) => void): Uint8Array | null {
  if (!existsSync(path)) return null;
  try {
    // Unpacked completely before anything is written: gzip's checksum shows a damaged file.
    // In large pieces: it is 45 MB, and joining thousands of small ones takes as long as unzipping.
    return gunzipSync(readFileSync(path), { chunkSize: 1 << 22 });
  } catch (error) {
    log(`The prepared database ${path} cannot be used and is made again: ${(error as Error).message}.`);
    return null;
  }
}

function writeSnapshot(path: string, bytes: Uint8Array, log: (sentence: string) => void): void {
  try {
    mkdirSync(join(path, ".."), { recursive: true });
    const draft = `${path}.${randomUUID()}`;
    writeFileSync(draft, bytes);
    renameSync(draft, path);
    forgetOldSnapshots(dirname(path));
  } catch (error) {
    log(`The prepared database could not be kept for the next time: ${(error as Error).message}.`);
  }
}

/** Each change of a migration leaves one that nobody asks for again. */
function forgetOldSnapshots(folder: string): void {
  const newestFirst = readdirSync(folder)
    .filter((name) => /^project-[0-9a-f]{24}\.tar\.gz$/.test(name))
    .map((name) => ({ path: join(folder, name), at: statSync(join(folder, name)).mtimeMs }))
    .sort((a, b) => b.at - a.at);
  for (const { path } of newestFirst.slice(KEPT_SNAPSHOTS)) rmSync(path, { force: true });
}

async function serveServer(context: Context, databaseUrl: string): Promise<ServedProject> {
  const { options, log } = context;
  if (!/^postgres(ql)?:\/\//.test(databaseUrl) || !URL.canParse(databaseUrl)) {
    throw new UsageError(
      "--database-url is not an address like postgres://user:password@host:port/database.",
    );
  }
  const database = postgresDatabase(databaseUrl, {
    log,
    ...(options.poolSize === undefined ? {} : { poolSize: options.poolSize }),
  });
  try {
    const [recovery] = await database.run("select pg_is_in_recovery()").catch((error: unknown) => {
      throw new UsageError(`Cannot use the server named by --database-url: ${(error as Error).message}.`);
    });
    const isReplica = recovery?.[0] === "t";
    if (isReplica) log("This is a read replica: it is served as it is, without upkeep and wake-ups.");
    else await prepareServer(context, database);
    const now = Math.floor(Date.now() / 1000);
    return await serve(context, database, options.jwtSecret ?? newJwtSecret(), now, () => {}, isReplica);
  } catch (error) {
    await database.close().catch(() => {});
    throw error;
  }
}

async function prepareServer(
  { options, resourcesDir, sqlDir, log }: Context,
  database: Database,
): Promise<void> {
  const [facts] = await database
    .run(
      `select (select rolsuper from pg_roles where rolname = current_user),
         (select count(*) from pg_roles where rolname in ('anon', 'authenticated', 'service_role', 'authenticator')) = 4
           and to_regnamespace('auth') is not null,
         (select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'governance')`,
    )
    .catch((error: unknown) => {
      throw new UsageError(`Cannot use the server named by --database-url: ${(error as Error).message}.`);
    });
  const [isSuperuser, isSupabaseLike, owner] = facts ?? [];
  if (isSuperuser === "t" && isSupabaseLike !== "t") {
    log("This is a plain PostgreSQL: giving it what a new Supabase project has.");
    const bootstrap = readFileSync(join(sqlDir, "bootstrap.sql"), "utf8");
    await database.withConnection((connection) => connection.exec(bootstrap));
  }
  // Objects that a superuser creates must not belong to the superuser.
  const [hasOwner] = await database.run(
    `select exists (select from pg_roles where rolname = '${OWNER}')
       and pg_get_userbyid(datdba) = '${OWNER}' from pg_database where datname = current_database()`,
  );
  const role = isSuperuser === "t" ? (owner ?? (hasOwner?.[0] === "t" ? OWNER : undefined)) : undefined;
  await database.withConnection((connection) =>
    migrate(connection, {
      resourcesDir,
      onProgress: log,
      ...(role ? { role } : {}),
      preset: { name: options.preset ?? "default", ifFresh: options.preset === undefined },
    }),
  );
}

async function serve(
  { options, log, sqlDir }: Context,
  database: Database,
  jwtSecret: string,
  issuedAtSeconds: number,
  release: () => void,
  isReplica = false,
): Promise<ServedProject> {
  const keys = await issueKeys(jwtSecret, issuedAtSeconds);
  const gate = createGate(keys);
  const rpc = createRpcEndpoint(
    database,
    options.batchesCalls === undefined ? {} : { batchesCalls: options.batchesCalls },
  );
  const triggersSql = readFileSync(join(sqlDir, "realtime.sql"), "utf8");
  const realtime = await createRealtime({
    database,
    gate,
    log,
    triggersSql: isReplica ? null : triggersSql,
  });
  // A replica cannot listen: its readers are woken by the primary.
  if (!isReplica) {
    await database.listen(
      ["pgrst", REALTIME_CHANNEL],
      (channel, payload) => (channel === "pgrst" ? rpc.reloadSchema() : realtime.onNotification(payload)),
      () => {
        rpc.reloadSchema();
        realtime.onReconnect();
      },
    );
  }
  await rpc.schema();
  const server = await startHttpServer({
    port: options.port ?? 0,
    gate,
    rpc,
    log,
    onRealtime: (request, socket, head, url) => realtime.accept(request, socket, head, url),
  }).catch((error: unknown) => {
    const { code, message } = error as { code?: string; message: string };
    throw new UsageError(
      code === "EADDRINUSE"
        ? `Port ${options.port} is in use: name another with --port.`
        : `Cannot listen on port ${options.port}: ${message}.`,
    );
  });
  const { upkeepIntervalMs = UPKEEP_INTERVAL_MS } = options;
  // A project made of other migrations than ours has none.
  const [hasUpkeep] = await database.run("select to_regprocedure('public.run_maintenance()') is not null");
  const upkeep =
    !isReplica && upkeepIntervalMs !== null && hasUpkeep?.[0] === "t"
      ? startUpkeep({ run: database.run, intervalMs: upkeepIntervalMs, log })
      : null;
  return {
    address: { url: `http://127.0.0.1:${server.port}`, ...keys },
    run: database.run,
    async stop() {
      await upkeep?.stop();
      realtime.close();
      await server.close();
      await database.close();
      release();
    },
  };
}

/** True for an error whose message is for the person who started the project, without a stack. */
export function isExpected(error: unknown): boolean {
  return error instanceof UsageError || error instanceof DataFolderError || error instanceof MigrationError;
}
