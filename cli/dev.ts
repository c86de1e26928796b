/**
 * `npm run dev`: the console in the browser while it is worked on. A saved file of the renderer is in the page at once
 * (Vite's hot reload); a saved file of the console starts its process again, and the page goes on with its session.
 */
import { type ChildProcess, fork } from "node:child_process";
import { watch } from "node:fs";
import { join, resolve as resolvePath } from "node:path";
import { parseArgs } from "node:util";
import { repositoryDir } from "./build.ts";
import type { DevNews, DevStart } from "./dev-console.ts";
import { noncePlaceholder, serveRenderer } from "./dev-renderer.ts";
import { hasScreen, openBrowser } from "./open-browser.ts";
import { whenAskedToEnd } from "./when-asked-to-end.ts";

const HELP = `npm run dev [-- options]   the console in the browser, with hot reload

  --port N           port on 127.0.0.1; any free one unless given
  --no-open          do not open the browser
  --data-dir DIR     settings, local store and local project of development: out/dev
  --no-sample-data   an empty local project
  --help             this text

The parts of the screens in every state: /gallery.html at the same address.
`;

/** What the console's process is made of; the renderer beside them is Vite's. */
const watched = ["electron", "local-project", "shared", "supabase"];
const ignored = /\.(test\.tsx?|md|tsbuildinfo)$|~$/;

const { values } = parseArgs({
  options: {
    port: { type: "string", default: "0" },
    open: { type: "boolean", default: true },
    "data-dir": { type: "string", default: join(repositoryDir, "out/dev") },
    "sample-data": { type: "boolean", default: true },
    help: { type: "boolean", default: false },
  },
  allowNegative: true,
});
if (values.help) {
  process.stdout.write(HELP);
  process.exit(0);
}

const log = (sentence: string): void => void process.stderr.write(`${sentence}\n`);

const renderer = await serveRenderer(log);

const sessions = new Set<string>();
let port = Number(values.port);
let child: ChildProcess | null = null;
let isFirst = true;
let isEnding = false;
let isStopping = false;

function start(): void {
  isEnding = false;
  const startedAt = performance.now();
  const running = fork(join(repositoryDir, "cli/dev-console.ts"), {
    cwd: repositoryDir,
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    env: { NODE_COMPILE_CACHE: join(repositoryDir, "out/compile-cache"), ...process.env },
  });
  child = running;
  const given: DevStart = {
    dataDir: resolvePath(values["data-dir"]),
    sampleData: values["sample-data"],
    port,
    vitePort: renderer.port,
    noncePlaceholder,
    sessions: [...sessions],
  };
  running.send(given);
  running.on("message", (news: DevNews) => {
    if (news.type === "session") sessions.add(news.sha256);
    else {
      port = news.port;
      const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
      if (isFirst) {
        process.stdout.write(`Console ready at ${news.link}\n`);
        if (values.open && hasScreen()) openBrowser(news.link);
      } else log(`Console started again in ${seconds} s.`);
      isFirst = false;
    }
  });
  running.once("exit", (code) => {
    child = null;
    if (isStopping) return;
    if (isEnding) start();
    else if (code !== 0) log("The console ended. Save a file to start it again.");
  });
}

/** Ends the process that runs, then starts the next: one at a time holds the data folder. */
function restart(): void {
  if (isEnding || isStopping) return;
  const running = child;
  if (!running) return start();
  isEnding = true;
  // Closing the local project takes seconds; its data folder and its locks survive a process that is killed.
  const limit = setTimeout(() => running.kill("SIGKILL"), 200);
  running.once("exit", () => clearTimeout(limit));
  running.kill("SIGTERM");
}

let timer: ReturnType<typeof setTimeout> | null = null;
for (const folder of watched)
  watch(join(repositoryDir, folder), { recursive: true }, (_event, file) => {
    if (file === null || ignored.test(file) || isStopping) return;
    if (timer) clearTimeout(timer);
    // An editor writes a file in several steps.
    timer = setTimeout(restart, 50);
  });

async function stop(): Promise<void> {
  if (isStopping) process.exit(1);
  isStopping = true;
  const running = child;
  if (running) {
    const ended = new Promise((resolve) => running.once("exit", resolve));
    running.kill("SIGTERM");
    await ended;
  }
  await renderer.close();
  process.exit(0);
}
whenAskedToEnd(() => void stop());

start();
