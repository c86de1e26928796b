/**
 * The console with the project it starts on: the only place where it meets the local project, and the only one that
 * starts sample data, which is given the local project alone.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { About, Failure } from "../../shared/contract/index.ts";
import type { Result } from "../../shared/governance/result.ts";
import { startLocalProject } from "../../local-project/index.ts";
import { createInstaller } from "../../local-project/installer.ts";
import { readMigrations } from "../../local-project/migrations.ts";
import { type SampleData, startSampleData } from "../../local-project/sample-data/index.ts";
import type { LocalProject } from "./console/connection/local.ts";
import type { Console, ConsoleOptions } from "./console/console.ts";
import { type Consoles, createConsole, openConsoles } from "./console/consoles.ts";
import type { Log } from "./console/dispatch.ts";
import type { Updates } from "./console/settings/updates.ts";
import { stripeEndpoint } from "./console/finance/stripe-source-client.ts";

interface ComposeOptions {
  readonly dataDir: string;
  readonly host: About["host"];
  /** Whether an empty local project is filled with sample people and traffic by itself; else once a person asks. */
  readonly sampleData: boolean;
  /** What the program came with: `supabase/`, `local-project/` (its SQL) and package.json. */
  readonly resourcesDir: string;
  /** The workers' entries where the program is bundled. */
  readonly workerUrls?: { readonly localProject: URL; readonly reconciliation: URL; readonly replay: URL };
  /** Left out where something else than this program brings its newer versions. */
  readonly updates?: Updates;
  readonly log: Log;
  /** Writes a report that stays on this machine. */
  readonly reportCrash?: (what: string, details: string) => void;
}

/** For a host with one project at a time. */
export function composeConsole(options: ComposeOptions): Result<Console, Failure> {
  return createConsole(consoleOptions(options));
}

/** For a host with a window for each project. */
export function composeConsoles(options: ComposeOptions): Result<Consoles, Failure> {
  return openConsoles(consoleOptions(options));
}

function consoleOptions(options: ComposeOptions): ConsoleOptions {
  const { dataDir, host, resourcesDir, log } = options;
  const supabaseDir = join(resourcesDir, "supabase");
  const { version } = JSON.parse(readFileSync(join(resourcesDir, "package.json"), "utf8")) as {
    version: string;
  };
  return {
    dataDir,
    host,
    version,
    log,
    migrations: readMigrations(supabaseDir).map(({ version: number, name }) => `${number}_${name}`),
    priceCatalogue: readFileSync(join(supabaseDir, "prices", "catalogue.yaml"), "utf8"),
    presets: readdirSync(join(supabaseDir, "presets"))
      .filter((name) => name.endsWith(".yaml"))
      .map((name) => ({
        name: name.slice(0, -".yaml".length),
        text: readFileSync(join(supabaseDir, "presets", name), "utf8"),
      })),
    ...(options.workerUrls
      ? {
          reconciliationWorkerUrl: options.workerUrls.reconciliation,
          replayWorkerUrl: options.workerUrls.replay,
        }
      : {}),
    installer: createInstaller(supabaseDir),
    ...(options.updates ? { updates: options.updates } : {}),
    startLocalProject: () => startLocal(options, supabaseDir),
    ...stripeEndpointOf(process.env),
  };
}

function stripeEndpointOf(environment: NodeJS.ProcessEnv): Pick<ConsoleOptions, "stripeEndpoint"> {
  const { endpoint } = stripeEndpoint(environment);
  return endpoint ? { stripeEndpoint: endpoint } : {};
}

async function startLocal(options: ComposeOptions, supabaseDir: string): Promise<LocalProject> {
  const { dataDir, resourcesDir, workerUrls, log } = options;
  const projectDir = join(dataDir, "local-project");
  const project = await startLocalProject({
    dataDir: projectDir,
    resourcesDir: supabaseDir,
    sqlDir: join(resourcesDir, "local-project"),
    log,
    // A checkout keeps its prepared database for all who start it; a packaged program has no folder of its own to write.
    ...(workerUrls ? { workerUrl: workerUrls.localProject, cacheDir: join(dataDir, "cache") } : {}),
  });
  void project.ended.then((error) => {
    if (error) options.reportCrash?.("the local project", error.stack ?? error.message);
  });
  let sample: SampleData | null = null;
  return {
    url: project.url,
    serviceRoleKey: project.serviceRoleKey,
    ended: project.ended,
    sampleTraffic: {
      startsItself: options.sampleData,
      start() {
        if (sample) return sample.resume();
        const started = startSampleData(project, { stripeFolder: join(dataDir, "sample-stripe") });
        sample = started;
        void started.filled.then(() => {
          const { problem, stripe_folder: folder } = started.status();
          if (problem) log(problem);
          else if (folder) log(`Stripe's exports for the sample data are in ${folder}.`);
        });
      },
      stop: () => sample?.pause(),
      status: () => sample?.status() ?? { running: false, calls: 0, filling: null },
    },
    async stop() {
      await sample?.stop();
      await project.stop();
    },
  };
}
