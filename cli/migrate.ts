/** `npm run migrate`: applies the migrations that are missing, and a preset if asked, and prints what it did. */
import { parseArgs } from "node:util";
import pg from "pg";
import { listPresets, MigrationError, migrate, pgConnection } from "../local-project/migrations.ts";

const HELP = `npm run migrate -- --database-url URL [--preset NAME]

Applies the governance migrations that the database does not have yet, each in one transaction.
Safe to run twice, and from two places at once. Nothing is changed where it refuses.

  --database-url URL   postgres://user:password@host:port/database, as the database's owner.
                       Read from DATABASE_URL where not given. For Supabase, add ?sslmode=no-verify
                       or name its certificate with sslrootcert.
  --preset NAME        afterwards makes this preset the whole configuration: ${presetNames()}
  --help               this text

Exit code: 0 done, 1 refused or failed, 2 wrong arguments.
`;

function presetNames(): string {
  try {
    return listPresets().join(", ");
  } catch {
    return "see supabase/presets";
  }
}

function fail(exitCode: 1 | 2, sentence: string): never {
  process.stderr.write(`${sentence}\n`);
  process.exit(exitCode);
}

interface Arguments {
  readonly databaseUrl: string;
  readonly preset: string | undefined;
}

function readArguments(): Arguments {
  let values: { "database-url"?: string; preset?: string; help?: boolean };
  try {
    ({ values } = parseArgs({
      options: { "database-url": { type: "string" }, preset: { type: "string" }, help: { type: "boolean" } },
    }));
  } catch (error) {
    return fail(2, `${(error as Error).message}\n\n${HELP}`);
  }
  if (values.help) {
    process.stdout.write(HELP);
    process.exit(0);
  }
  const databaseUrl = values["database-url"] ?? process.env.DATABASE_URL;
  if (!databaseUrl) return fail(2, `--database-url is missing.\n\n${HELP}`);
  if (!/^postgres(ql)?:\/\//.test(databaseUrl) || !URL.canParse(databaseUrl)) {
    return fail(2, "--database-url is not an address like postgres://user:password@host:port/database.");
  }
  if (values.preset !== undefined && !listPresets().includes(values.preset))
    return fail(2, `There is no preset "${values.preset}": ${presetNames()}.`);
  return { databaseUrl, preset: values.preset };
}

/** Reports what went wrong without the address, which may hold a password. */
function explainConnection(error: unknown, databaseUrl: string): string {
  const { hostname, port, username, pathname } = new URL(databaseUrl);
  const where = `${hostname}:${port || "5432"}${pathname} as ${decodeURIComponent(username) || "the default user"}`;
  const { code, message } = error as { code?: string; message?: string };
  const certificate = code === "SELF_SIGNED_CERT_IN_CHAIN" || code === "DEPTH_ZERO_SELF_SIGNED_CERT";
  const advice = certificate
    ? " Name the server's certificate with sslrootcert, or use ?sslmode=no-verify."
    : "";
  return `Cannot connect to ${where}: ${message || code || "no answer"}.${advice}`;
}

const { databaseUrl, preset } = readArguments();
const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 15_000 });
// A connection that breaks between queries is reported by the next one; without a listener it would end the process.
client.on("error", () => {});
try {
  await client.connect();
} catch (error) {
  fail(1, explainConnection(error, databaseUrl));
}
try {
  const outcome = await migrate(pgConnection(client), {
    ...(preset === undefined ? {} : { preset: { name: preset } }),
    onProgress: (sentence) => process.stdout.write(`${sentence}\n`),
  });
  if (outcome.applied.length === 0) {
    process.stdout.write(
      outcome.present === 1
        ? "Nothing to apply: the migration is there.\n"
        : `Nothing to apply: all ${outcome.present} migrations are there.\n`,
    );
  }
  // A restored dump has the migrations, and lacks the revokes that no dump carries.
  const { rows } = await client.query<{ closed: string[]; still_open: string[] }>(
    "select r -> 'closed' as closed, r -> 'still_open' as still_open from public.console_repair() r",
  );
  const [{ closed, still_open: stillOpen } = { closed: [], still_open: [] }] = rows;
  if (closed.length > stillOpen.length)
    process.stdout.write(
      `Closed ${closed.length - stillOpen.length} rights that anon or authenticated had on what is for the service alone.\n`,
    );
  if (stillOpen.length > 0)
    fail(1, `Still open, because another role granted it: ${stillOpen.join(", ")}. Revoke it as that role.`);
} catch (error) {
  fail(1, error instanceof MigrationError ? error.message : `Migrating failed: ${(error as Error).message}`);
} finally {
  await client.end().catch(() => {});
}
