/**
 * The built application in its window: on Electron where its runtime is installed and can show a window, elsewhere on
 * the stand-in. Both are started and driven the same way, so a spec cannot tell which one it has, unless it asks.
 */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { _electron, type ElectronApplication, type Page } from "@playwright/test";
import { ensureBuilt, repositoryDir } from "../../cli/build.ts";
import { installedRuntime, windowObstacle } from "../../cli/electron-runtime.ts";
import { compileQuickly } from "../support/compile-quickly.ts";

const installed = installedRuntime();
const obstacle = installed === null ? "Electron's runtime is not installed here" : windowObstacle();
export const isStandIn = obstacle !== null;
export const runtimeInWords = isStandIn
  ? `the built main, preload and renderer ran on the STAND-IN for Electron's runtime, not on Electron: ${obstacle}`
  : "the built main, preload and renderer ran on Electron itself";

/** Where the page's own address begins. */
export const pageOrigin = isStandIn ? "https://console.app.invalid" : "app://console";

export interface Desktop {
  readonly app: ElectronApplication;
  readonly page: Page;
  /** What the main process and Chromium wrote to stderr. */
  said(): string;
  close(): Promise<void>;
}

interface DesktopOptions {
  readonly dataDir: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Another folder of the application than the repository: one that was made worse, to see that it shows. */
  readonly appDir?: string;
}

/** The command of the stand-in: a file, as Electron's binary is one. */
function standInCommand(folder: string): string {
  const path = join(folder, "stand-in");
  const file = (name: string): string => fileURLToPath(new URL(`./runtime/${name}`, import.meta.url));
  const node = `"${process.execPath}" ${compileQuickly} --disable-warning=ExperimentalWarning`;
  writeFileSync(
    path,
    `#!/bin/sh\ninspect=\nfor each; do [ "$each" = --inspect=0 ] && inspect=$each; done\nexec ${node} $inspect --import "${file("register.ts")}" "${file("start.ts")}" "$@"\n`,
  );
  chmodSync(path, 0o700);
  return path;
}

export async function launchDesktop({
  dataDir,
  args = [],
  env = {},
  appDir = repositoryDir,
}: DesktopOptions): Promise<Desktop> {
  await ensureBuilt(() => {});
  const folder = mkdtempSync(join(tmpdir(), "stand-in-"));
  const app = await _electron.launch({
    executablePath: isStandIn ? standInCommand(folder) : (installed ?? ""),
    args: [appDir, `--data-dir=${dataDir}`, ...args],
    env: { ...(process.env as Record<string, string>), ...env },
    acceptDownloads: true,
    timeout: 60_000,
  });
  let said = "";
  app.process().stderr?.on("data", (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-100_000);
  });
  const page = await app.firstWindow();
  // A window begins empty, and gets its page a moment later.
  await page.waitForURL((url) => url.href.startsWith(`${pageOrigin}/`), { waitUntil: "load" });
  return {
    app,
    page,
    said: () => said,
    async close() {
      await app.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
