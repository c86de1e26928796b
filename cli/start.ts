/** `npm start` and `npm run start:browser`: the console in Electron's window, or served to the browser. */
import { spawn } from "node:child_process";
import { resolve as resolvePath } from "node:path";
import { parseArgs } from "node:util";
import { type BrowserHost, PortError, startBrowserHost } from "../electron/browser-host/index.ts";
import { composeConsole } from "../electron/main/compose.ts";
import { conventionalDataDir } from "../electron/main/store/data-dir.ts";
import { BuildError, ensureBuilt, rendererDir, repositoryDir } from "./build.ts";
import { findRuntime } from "./electron-runtime.ts";
import { hasScreen, openBrowser } from "./open-browser.ts";
import { whenAskedToEnd } from "./when-asked-to-end.ts";

const HELP = `npm start [-- options]             the console in its window, or in the browser where Electron cannot run
npm run start:browser [-- options] the console in the browser

  --port N           port of the browser console on 127.0.0.1; any free one unless given
  --no-open          do not open the browser
  --data-dir DIR     where settings, the local store and the local project are kept:
                     ${conventionalDataDir()}
  --no-sample-data   an empty local project
  --help             this text

Exit code: 0 ended as asked, 1 could not start, 2 wrong arguments.
`;

interface Arguments {
  readonly browser: boolean;
  readonly port: number;
  readonly open: boolean;
  readonly dataDir: string;
  readonly sampleData: boolean;
}

/** stdout carries the one line with the address; every other message goes to stderr. */
const log = (sentence: string): void => void process.stderr.write(`${sentence}\n`);

function fail(exitCode: 1 | 2, sentence: string): never {
  log(sentence);
  process.exit(exitCode);
}

function readArguments(): Arguments {
  try {
    const { values } = parseArgs({
      options: {
        browser: { type: "boolean", default: false },
        port: { type: "string", default: "0" },
        open: { type: "boolean", default: true },
        "data-dir": { type: "string", default: conventionalDataDir() },
        "sample-data": { type: "boolean", default: true },
        help: { type: "boolean", default: false },
      },
      allowNegative: true,
    });
    if (values.help) {
      process.stdout.write(HELP);
      process.exit(0);
    }
    const port = Number(values.port);
    if (!/^\d+$/.test(values.port) || port > 65_535) {
      return fail(2, `--port ${values.port} is not a port. Give a whole number from 0 to 65535.`);
    }
    return {
      browser: values.browser,
      port,
      open: values.open,
      dataDir: resolvePath(values["data-dir"]),
      sampleData: values["sample-data"],
    };
  } catch (error) {
    return fail(2, `${(error as Error).message}\n\n${HELP}`);
  }
}

// What is written here (the store, the embedded database, its secret) is for this user alone.
process.umask(0o077);

const options = readArguments();

async function serveToBrowser(): Promise<void> {
  const composed = composeConsole({
    dataDir: options.dataDir,
    host: "browser",
    sampleData: options.sampleData,
    resourcesDir: repositoryDir,
    log,
  });
  if (!composed.ok) {
    const { message, advice, details } = composed.error;
    return fail(1, [message, advice, details].filter(Boolean).join("\n"));
  }
  const served = composed.value;
  let isStopping = false;
  let host: BrowserHost | null = null;
  const stop = async (): Promise<void> => {
    // A second Ctrl-C does not wait.
    if (isStopping) process.exit(1);
    isStopping = true;
    await host?.close();
    await served.close();
    process.exit(0);
  };
  whenAskedToEnd(() => void stop());
  try {
    // The port first: one that is taken is refused before anything starts. Nobody has the link before the page is built.
    host = await startBrowserHost({
      dispatcher: served.dispatcher,
      rendererDir,
      port: options.port,
      log,
    });
    served.start();
    await ensureBuilt(log);
  } catch (error) {
    await host?.close();
    await served.close();
    if (error instanceof PortError || error instanceof BuildError) fail(1, error.message);
    throw error;
  }
  const link = host.createLink();
  process.stdout.write(`Console ready at ${link}\n`);
  if (options.open && hasScreen()) openBrowser(link);
}

async function showWindow(electronPath: string): Promise<never> {
  await ensureBuilt(log);
  const args = [repositoryDir, `--data-dir=${options.dataDir}`];
  if (!options.sampleData) args.push("--no-sample-data");
  const electron = spawn(electronPath, args, { stdio: ["ignore", "ignore", "inherit"] });
  whenAskedToEnd(() => electron.kill("SIGTERM"));
  const code = await new Promise<number>((resolve, reject) => {
    electron.once("error", reject);
    electron.once("exit", (exitCode, signal) => resolve(signal ? 0 : (exitCode ?? 1)));
  });
  process.exit(code);
}

if (options.browser) {
  await serveToBrowser();
} else {
  const runtime = await findRuntime(log);
  if ("path" in runtime) {
    log("Opening the console in its window.");
    await showWindow(runtime.path).catch((error: unknown) => fail(1, (error as Error).message));
  } else {
    log(`Electron's window cannot be shown here: ${runtime.reason}. The console is served to the browser.`);
    await serveToBrowser();
  }
}
