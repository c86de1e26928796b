/** `npm run doctor`: whether a project is well, one line a check, with what to do. */
import { parseArgs } from "node:util";
import { compareClocks, compareMigrations } from "../electron/main/console/health/checks.ts";
import { createBackend } from "../electron/main/backend/backend.ts";
import { readMigrations } from "../local-project/migrations.ts";
import { z } from "zod";
import { health, type HealthCheck } from "../shared/contract/health.ts";

const HELP = `npm run doctor -- --url URL [--json] [--fix]

Whether a project is well: one line a check, with what to do where it is not.

  --url URL   the project's address; its service-role key is read from GOVERNANCE_SERVICE_ROLE_KEY
  --json      one JSON object instead of lines: {well, checks: [{check, ok, found, advice}], sizes}
  --fix       first puts right what can be put right without a person: open rights, the service's
              grants, Realtime's publication, the schedule of upkeep
  --help      this text

Exit code: 0 well, 1 not well or not reached, 2 bad input.
`;

const projectInfo = z.looseObject({ migrations: z.array(z.string()) });
const repaired = z.looseObject({
  closed: z.array(z.string()),
  still_open: z.array(z.string()),
  published: z.boolean(),
});

function refuse(sentence: string): never {
  process.stderr.write(`${sentence}\n`);
  process.exit(2);
}

interface Arguments {
  readonly url: string;
  readonly key: string;
  readonly json: boolean;
  readonly fix: boolean;
}

function readArguments(): Arguments {
  let values: { url?: string; json?: boolean; fix?: boolean; help?: boolean };
  try {
    ({ values } = parseArgs({
      options: {
        url: { type: "string" },
        json: { type: "boolean" },
        fix: { type: "boolean" },
        help: { type: "boolean" },
      },
    }));
  } catch (error) {
    return refuse(`${(error as Error).message}\n\n${HELP}`);
  }
  if (values.help) {
    process.stdout.write(HELP);
    process.exit(0);
  }
  if (!values.url) return refuse(`--url is missing.\n\n${HELP}`);
  if (!URL.canParse(values.url) || !/^https?:$/.test(new URL(values.url).protocol))
    return refuse("--url is not an address like https://abc.supabase.co.");
  const key = process.env.GOVERNANCE_SERVICE_ROLE_KEY ?? process.env.SUPABASE_SERVICE_ROLE_KEY ?? "";
  if (key === "")
    return refuse("The service-role key is missing: set GOVERNANCE_SERVICE_ROLE_KEY in the environment.");
  return { url: values.url, key, json: values.json ?? false, fix: values.fix ?? false };
}

const { url, key, json, fix } = readArguments();
const backend = createBackend({ url, key });
const checks: HealthCheck[] = [];
const notes: string[] = [];
let sizes: Readonly<Record<string, number>> | null = null;

if (fix) {
  const answer = await backend.rpc("console_repair", {}, repaired);
  if (answer.ok) {
    const { closed, published } = answer.value;
    if (closed.length > 0) notes.push(`Closed ${closed.length} rights, such as ${closed[0]}.`);
    if (published) notes.push("Realtime carries the wake-ups now.");
    if (notes.length === 0) notes.push("Nothing to put right.");
  } else checks.push({ check: "fix", ok: false, found: answer.error.message, advice: answer.error.advice });
}
const askedAt = Date.now();
const answer = await backend.rpc("console_health", {}, health, { retries: 1 });
if (answer.ok) {
  const info = await backend.rpc("console_project_info", {}, projectInfo, { retries: 1 });
  checks.push(
    { check: "reached", ok: true, found: `The project answers at ${new URL(url).host}`, advice: null },
    info.ok
      ? compareMigrations(
          readMigrations().map(({ version, name }) => `${version}_${name}`),
          info.value.migrations,
        )
      : { check: "migrations", ok: false, found: info.error.message, advice: info.error.advice },
    compareClocks(answer.value.server_time, askedAt, Date.now()),
    ...answer.value.checks.map(({ check, ok, found, advice }) => ({ check, ok, found, advice })),
  );
  ({ sizes } = answer.value);
} else checks.push({ check: "reached", ok: false, found: answer.error.message, advice: answer.error.advice });

const well = checks.every(({ ok }) => ok);
if (json) process.stdout.write(`${JSON.stringify({ well, checks, sizes, fixed: notes })}\n`);
else {
  for (const note of notes) process.stdout.write(`${note}\n`);
  for (const { check, ok, found, advice } of checks)
    process.stdout.write(`${ok ? "well " : "NOT  "} ${check}: ${found}${advice ? `. ${advice}` : ""}\n`);
}
process.exitCode = well ? 0 : 1;
