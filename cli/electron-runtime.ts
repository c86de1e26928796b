/** Whether Electron can show a window here, and its runtime, fetched where it is not there yet. */
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { repositoryDir } from "./build.ts";

const packageDir = join(repositoryDir, "node_modules/electron");
const probeMs = 3_000;
const fetchMs = 90_000;

type Runtime =
  | { readonly path: string }
  /** Why not, to follow "Electron's window cannot be shown: ". */
  | { readonly reason: string };

/** Where the runtime is installed, or null. */
export function installedRuntime(): string | null {
  try {
    const path = join(
      process.env.ELECTRON_OVERRIDE_DIST_PATH ?? join(packageDir, "dist"),
      readFileSync(join(packageDir, "path.txt"), "utf8"),
    );
    return existsSync(path) ? path : null;
  } catch {
    return null;
  }
}

/** Why this machine cannot show a window, or null. */
export function windowObstacle(
  platform: NodeJS.Platform = process.platform,
  env: Readonly<Record<string, string | undefined>> = process.env,
  userId: number | undefined = process.getuid?.(),
): string | null {
  if (platform !== "linux") return null;
  if (!env.DISPLAY && !env.WAYLAND_DISPLAY) return "there is no display";
  // Chromium's sandbox refuses root, and without the sandbox it is not started.
  if (userId === 0) return "the user is root";
  return null;
}

export async function findRuntime(log: (sentence: string) => void): Promise<Runtime> {
  const obstacle = windowObstacle();
  if (obstacle) return { reason: obstacle };
  const installed = installedRuntime();
  if (installed) return { path: installed };
  if (!existsSync(join(packageDir, "install.js"))) return { reason: "Electron is not installed" };
  if (!(await answers(downloadAddress()))) return { reason: "its runtime is not here and cannot be fetched" };
  log("Fetching Electron's runtime, once…");
  if (!(await runInstaller())) return { reason: "its runtime could not be fetched" };
  const fetched = installedRuntime();
  return fetched ? { path: fetched } : { reason: "its runtime could not be installed" };
}

/** What @electron/get would fetch from GitHub, or the mirror that is set, whose layout is its own. */
function downloadAddress(): string {
  const { ELECTRON_MIRROR, npm_config_electron_mirror } = process.env;
  const mirror = ELECTRON_MIRROR || npm_config_electron_mirror;
  if (mirror) return mirror;
  const { version } = JSON.parse(readFileSync(join(packageDir, "package.json"), "utf8")) as {
    version: string;
  };
  const name = `electron-v${version}-${process.platform}-${process.arch}.zip`;
  return `https://github.com/electron/electron/releases/download/v${version}/${name}`;
}

/** Any answer of the last host will do: without one the installer would try for minutes. */
async function answers(url: string): Promise<boolean> {
  try {
    await fetch(url, { method: "HEAD", signal: AbortSignal.timeout(probeMs) });
    return true;
  } catch {
    return false;
  }
}

function runInstaller(): Promise<boolean> {
  return new Promise((resolve) => {
    const installer = spawn(process.execPath, [join(packageDir, "install.js")], { stdio: "ignore" });
    const limit = setTimeout(() => installer.kill("SIGKILL"), fetchMs);
    installer.once("error", () => resolve(false));
    installer.once("exit", (code) => {
      clearTimeout(limit);
      resolve(code === 0);
    });
  });
}
