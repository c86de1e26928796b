/** `npm run local-project`: the local project alone. One JSON line on stdout when ready, all else on stderr. */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { LocalProjectError, startLocalProject } from "../local-project/index.ts";
import { type SampleData, startSampleData } from "../local-project/sample-data/index.ts";

const HELP = `npm run local-project -- --port P --data-dir DIR [--preset NAME] [--sample-data] [--database-url URL]

A Supabase-compatible endpoint on 127.0.0.1 for rpc() and postgres_changes. When it is ready it prints one line:
{"url":"…","anonKey":"…","serviceRoleKey":"…","jwtSecret":"…","publishableKey":"…","secretKey":"…"}

  --port P             0, the default, takes any free port
  --data-dir DIR       where the embedded database keeps its files; made if missing
  --database-url URL   a PostgreSQL server to use instead (15 or newer); what it lacks is applied
  --preset NAME        the configuration to start with; "default" unless said
  --sample-data        fills an empty project with sample people and history, and keeps traffic going
  --pool-size N        connections at most with --database-url; 20 unless said
  --help               this text

JWT_SECRET in the environment sets the secret used with --database-url; else it is random.
Ctrl-C ends it: calls under way are answered and everything is written.
Exit code: 0 stopped, 1 failed, 2 it could not start as asked.
`;

// What is written here (the store, the embedded database, its secret) is for this user alone.
process.umask(0o077);

const log = (sentence: string): void => void process.stderr.write(`${sentence}\n`);

function fail(exitCode: 1 | 2, sentence: string): never {
  log(sentence);
  process.exit(exitCode);
}

interface Arguments {
  readonly port?: string;
  readonly "data-dir"?: string;
  readonly "database-url"?: string;
  readonly preset?: string;
  readonly "sample-data"?: boolean;
  readonly "pool-size"?: string;
  readonly help?: boolean;
}

function readArguments(): Arguments {
  try {
    const { values } = parseArgs({
      options: {
        port: { type: "string" },
        "data-dir": { type: "string" },
        "database-url": { type: "string" },
        preset: { type: "string" },
        "sample-data": { type: "boolean" },
        "pool-size": { type: "string" },
        help: { type: "boolean" },
      },
    });
    return values;
  } catch (error) {
    return fail(2, `${(error as Error).message}\n\n${HELP}`);
  }
}

function readWhole(
  name: string,
  text: string | undefined,
  lowest: number,
  highest: number,
): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < lowest || value > highest) {
    return fail(2, `--${name} takes a whole number from ${lowest} to ${highest}, not "${text}".`);
  }
  return value;
}

const values = readArguments();
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}
if (values["data-dir"] === undefined && values["database-url"] === undefined) {
  fail(2, `Name a data folder with --data-dir, or a server with --database-url.\n\n${HELP}`);
}
const port = readWhole("port", values.port, 0, 65_535) ?? 0;
const poolSize = readWhole("pool-size", values["pool-size"], 1, 1000);
const jwtSecret = process.env.JWT_SECRET;
if (jwtSecret !== undefined && jwtSecret.length < 32) fail(2, "JWT_SECRET must have at least 32 characters.");

const project = await startLocalProject({
  port,
  log,
  ...(values["data-dir"] === undefined ? {} : { dataDir: values["data-dir"] }),
  ...(values["database-url"] === undefined ? {} : { databaseUrl: values["database-url"] }),
  ...(values.preset === undefined ? {} : { preset: values.preset }),
  ...(poolSize === undefined ? {} : { poolSize }),
  ...(jwtSecret === undefined ? {} : { jwtSecret }),
}).catch((error: unknown) => {
  const { message } = error as Error;
  return fail(error instanceof LocalProjectError && error.isExpected ? 2 : 1, message);
});

let sampleData: SampleData | null = null;
let stopping = false;
async function stop(): Promise<void> {
  // A second Ctrl-C does not wait.
  if (stopping) process.exit(1);
  stopping = true;
  await sampleData?.stop();
  await project.stop();
  process.exit(0);
}
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => void stop().catch((error: unknown) => fail(1, (error as Error).message)));
}
// npm does not pass on every signal: what npm started ends when npm is gone, and frees its folder and port.
if (process.env.npm_lifecycle_event !== undefined) {
  const parent = process.ppid;
  setInterval(() => {
    if (process.ppid !== parent && !stopping)
      void stop().catch((error: unknown) => fail(1, (error as Error).message));
  }, 500).unref();
}
void project.ended.then((error) => {
  if (!stopping) fail(1, `The local project ended: ${error?.message ?? "it was stopped"}`);
});

const { url, anonKey, serviceRoleKey, publishableKey, secretKey } = project;
const line = { url, anonKey, serviceRoleKey, jwtSecret: project.jwtSecret, publishableKey, secretKey };
process.stdout.write(`${JSON.stringify(line)}\n`);
if (values["sample-data"]) {
  const dataDir = values["data-dir"];
  sampleData = startSampleData(
    project,
    dataDir === undefined ? {} : { stripeFolder: join(dataDir, "sample-stripe") },
  );
  await sampleData.filled;
  log(sampleData.status().problem ?? "The sample's history is complete; its users go on calling.");
}
