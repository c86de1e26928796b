/**
 * Tools that only the packages need, each with a lock file of its own in packages/tools: Bun and Next.js to run them in,
 * and what makes the pages of their API. Too large to come with every `npm ci`.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const execute = promisify(execFile);

/** The tool's folder, installed; null where it is not and the registry cannot be reached. */
export async function openTool(name: "bun" | "next" | "api"): Promise<string | null> {
  const folder = join(here, "tools", name);
  if (existsSync(join(folder, "node_modules/.package-lock.json"))) return folder;
  try {
    await execute("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"], {
      cwd: folder,
      timeout: 240_000,
    });
    // Its package looks for the program that fits the machine when it is installed.
    if (name === "bun") await execute(process.execPath, ["node_modules/bun/install.js"], { cwd: folder });
    return folder;
  } catch (error) {
    console.warn(`${name} cannot be had here: ${(error as Error).message.split("\n")[0]}`);
    return null;
  }
}
