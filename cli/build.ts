/** Builds out/ when it is missing, or was built from other sources (compared by content). */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import lockfile from "proper-lockfile";

export const repositoryDir = fileURLToPath(new URL("..", import.meta.url));
export const rendererDir = join(repositoryDir, "out/renderer");

const sources = [
  "renderer",
  "shared",
  "electron",
  "local-project",
  "cli/language",
  "electron.vite.config.ts",
  "package-lock.json",
];
const builtFiles = ["out/main/index.js", "out/preload/index.cjs", "out/renderer/index.html"];
const stampFile = join(repositoryDir, "out/build.sha256");

/** The build failed; the message holds the end of the builder's output. */
export class BuildError extends Error {
  override readonly name = "BuildError";
}

/** A hash of every source that goes into the build. A few hundred small files: some 30 ms. */
function hashSources(): string {
  const hash = createHash("sha256");
  const visit = (path: string): void => {
    const full = join(repositoryDir, path);
    if (!/\.[a-z0-9]+$/i.test(path)) {
      if (!existsSync(full)) return;
      for (const entry of readdirSync(full).sort()) visit(`${path}/${entry}`);
    } else if (!/\.(test\.tsx?|tsbuildinfo)$/.test(path)) {
      hash.update(`${path}\0`).update(readFileSync(full)).update("\0");
    }
  };
  for (const source of sources) visit(source);
  return hash.digest("hex");
}

function isBuilt(hash: string): boolean {
  return (
    builtFiles.every((file) => existsSync(join(repositoryDir, file))) &&
    existsSync(stampFile) &&
    readFileSync(stampFile, "utf8") === hash
  );
}

/** Resolves once out/ matches the sources. Two starts at once build once. */
export async function ensureBuilt(log: (sentence: string) => void): Promise<void> {
  const hash = hashSources();
  if (isBuilt(hash)) return;
  mkdirSync(join(repositoryDir, "out"), { recursive: true });
  const unlock = await lockfile.lock(join(repositoryDir, "out"), {
    stale: 20_000,
    retries: { retries: 600, minTimeout: 200, maxTimeout: 200 },
  });
  try {
    if (isBuilt(hash)) return;
    log("Building the console, once…");
    rmSync(stampFile, { force: true });
    await runBuilder();
    writeFileSync(stampFile, hash);
  } finally {
    await unlock();
  }
}

function runBuilder(): Promise<void> {
  const cli = join(repositoryDir, "node_modules/electron-vite/bin/electron-vite.js");
  return new Promise((resolve, reject) => {
    const builder = spawn(process.execPath, [cli, "build", "--logLevel", "warn"], {
      cwd: repositoryDir,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", FORCE_COLOR: "0" },
    });
    let output = "";
    const keep = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-5_000);
    };
    builder.stdout.on("data", keep);
    builder.stderr.on("data", keep);
    builder.once("error", reject);
    builder.once("exit", (code) => {
      if (code === 0) resolve();
      else reject(new BuildError(`The console could not be built:\n${output}`));
    });
  });
}
