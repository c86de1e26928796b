/**
 * Gives a project of somebody's own what this product needs in it: looks first, then applies, over one connection to
 * its database that ends when that is done. The password is in no message and kept nowhere.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import {
  listPresets,
  type Look,
  lookAt,
  MigrationError,
  migrate,
  migrationsAsFile,
  pgConnection,
  publicObjects,
  readMigrations,
  readPreset,
} from "./migrations.ts";

interface DatabaseAddress {
  /** postgresql://user@host:port/database; a password in it is used where no other is given. */
  readonly address: string;
  readonly password: string;
  /** The server's certificate authority, as PEM; empty: those this machine trusts. */
  readonly certificate: string;
  readonly skips_certificate: boolean;
}

/** It could not be done. `code` is for the screen, the message and advice for the person. */
class InstallError extends Error {
  override readonly name = "InstallError";
  readonly code: string;
  readonly advice: string | null;
  constructor(code: string, message: string, advice: string | null = null) {
    super(message);
    this.code = code;
    this.advice = advice;
  }
}

interface Preset {
  readonly name: string;
  readonly description: string;
  readonly content: Readonly<Record<string, unknown>>;
}

const loopback: ReadonlySet<string> = new Set(["127.0.0.1", "localhost", "[::1]", "::1"]);
const connectMs = 15_000;

export function createInstaller(resourcesDir: string) {
  return {
    /** What the migrations make in `public` and `governance`. */
    makes(): { readonly migrations: string[]; readonly functions: number; readonly tables: number } {
      const migrations = readMigrations(resourcesDir);
      const made = new Set(
        migrations.flatMap(({ sql }) => publicObjects(sql)).map(({ identity }) => identity),
      );
      const tables = new Set(
        migrations.flatMap(({ sql }) =>
          [...sql.matchAll(/^create (?:unlogged )?table (governance\.\w+)/gim)].map(([, name]) => name),
        ),
      );
      return {
        migrations: migrations.map(({ version, name }) => `${version}_${name}`),
        functions: made.size,
        tables: tables.size,
      };
    },
    look: (database: DatabaseAddress): Promise<Look> =>
      withDatabase(database, (client) => lookAt(pgConnection(client), resourcesDir)),
    apply: (database: DatabaseAddress): Promise<readonly string[]> =>
      withDatabase(database, async (client) => {
        const { applied } = await migrate(pgConnection(client), { resourcesDir });
        // PostgREST answers with the new functions once it has read the schema again.
        await client.query("notify pgrst, 'reload schema'");
        return applied;
      }),
    sql: (): string => migrationsAsFile(resourcesDir),
    presets: (): Preset[] =>
      listPresets(resourcesDir).map((name) => ({
        name,
        description: firstWords(readFileSync(join(resourcesDir, "presets", `${name}.yaml`), "utf8")),
        content: readPreset(name, resourcesDir) as Record<string, unknown>,
      })),
  };
}

/** The comment that a preset's file begins with. */
function firstWords(yaml: string): string {
  const lines = yaml.split("\n");
  const end = lines.findIndex((line) => !line.startsWith("#"));
  return lines
    .slice(0, Math.max(end, 0))
    .map((line) => line.replace(/^#\s?/, ""))
    .join(" ");
}

async function withDatabase<T>(
  database: DatabaseAddress,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client(settingsOf(database));
  // A connection that breaks between queries is reported by the next one.
  client.on("error", () => {});
  try {
    await client.connect();
    return await work(client);
  } catch (error) {
    throw error instanceof MigrationError
      ? new InstallError("migration_refused", error.message)
      : explain(error, database);
  } finally {
    await client.end().catch(() => {});
  }
}

/** Read here, so that nothing in the address can turn encryption off or name a file of this machine. */
export function settingsOf({
  address,
  password,
  certificate,
  skips_certificate,
}: DatabaseAddress): pg.ClientConfig {
  const wrong = (message: string): InstallError =>
    new InstallError(
      "wrong_address",
      message,
      "It looks like postgresql://postgres@db.<ref>.supabase.co:5432/postgres; the dashboard shows it under Connect.",
    );
  if (!/^postgres(ql)?:\/\//.test(address)) throw wrong("A database's address begins with postgresql://.");
  if (!URL.canParse(address)) throw wrong("This is not an address.");
  const url = new URL(address);
  if (url.hostname === "") throw wrong("The address names no host.");
  const inAddress = decode(url.password);
  const used = password !== "" ? password : /^\[.*\]$/.test(inAddress) ? "" : inAddress;
  if (used === "") throw new InstallError("missing_password", "The database's password is missing.");
  const isHere = loopback.has(url.hostname);
  return {
    host: url.hostname.replace(/^\[|\]$/g, ""),
    port: Number(url.port || 5432),
    user: decode(url.username) || "postgres",
    database: decode(url.pathname.slice(1)) || "postgres",
    password: used,
    connectionTimeoutMillis: connectMs,
    application_name: "Token Governance",
    // Off this machine the connection is always encrypted, and the server proves who it is unless a person decided.
    ssl: isHere
      ? false
      : { rejectUnauthorized: !skips_certificate, ...(certificate.trim() === "" ? {} : { ca: certificate }) },
  };
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

const certificateCodes: ReadonlySet<string> = new Set([
  "SELF_SIGNED_CERT_IN_CHAIN",
  "DEPTH_ZERO_SELF_SIGNED_CERT",
  "UNABLE_TO_VERIFY_LEAF_SIGNATURE",
  "UNABLE_TO_GET_ISSUER_CERT_LOCALLY",
  "CERT_HAS_EXPIRED",
  "ERR_TLS_CERT_ALTNAME_INVALID",
]);

function explain(error: unknown, database: DatabaseAddress): InstallError {
  if (error instanceof InstallError) return error;
  const { code = "", message = "" } = error as { code?: string; message?: string };
  const { hostname, port } = new URL(database.address);
  const where = `${hostname}:${port || "5432"}`;
  if (certificateCodes.has(code)) {
    return new InstallError(
      "certificate",
      `The certificate of ${where} cannot be checked, so the password was not sent.`,
      "Give Supabase's certificate (dashboard: Database, SSL configuration, Download certificate), or go on without checking it.",
    );
  }
  if (code === "28P01" || code === "28000" || /password authentication failed|SASL/i.test(message)) {
    return new InstallError(
      "wrong_password",
      `${where} refused the user or the password.`,
      "This is the database's password, not the key: the dashboard can set a new one under Database, Settings.",
    );
  }
  if (code === "42501") {
    return new InstallError(
      "not_owner",
      "This role may not create what is needed.",
      "Connect as postgres, the database's owner.",
    );
  }
  if (["ENOTFOUND", "EAI_AGAIN", "ENETUNREACH", "EHOSTUNREACH"].includes(code)) {
    return new InstallError(
      "unknown_host",
      `${where} cannot be reached from here.`,
      "Supabase's direct address answers over IPv6 alone: take the session pooler's, under Connect.",
    );
  }
  return new InstallError(
    "offline",
    `No connection to ${where}: ${clean(message || code || "no answer", database)}`,
    "Check the address and the port, then try again.",
  );
}

function clean(text: string, { password }: DatabaseAddress): string {
  return (password.length < 3 ? text : text.replaceAll(password, "…")).slice(0, 300);
}
