/**
 * Where a run keeps its databases and all else that it throws away. A run makes and deletes some hundred thousand files,
 * and on a disk that alone can be a fifth of its processor time: so in memory where there is plenty, else where the system
 * keeps such files.
 */
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface Scratch {
  readonly folder: string;
  /** For the runners, so that tests put their folders there. */
  readonly env: Readonly<Record<string, string>>;
  remove(): void;
}

const inMemory = "/dev/shm";

/** Some hundred databases of 16 MB, the logs of six servers of half a GB each, and the processes of a run. */
const plenty = 16 * 1024 ** 3;

export function makeScratch(): Scratch {
  const isInMemory = process.env["TMPDIR"] === undefined && hasPlentyOfMemory();
  const folder = mkdtempSync(join(isInMemory ? inMemory : tmpdir(), "governance-tests-"));
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  process.once("exit", remove);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));
  // PostgreSQL's own user has its folders in it too.
  if (isInMemory) chmodSync(folder, 0o1777);
  return { folder, env: isInMemory ? { TMPDIR: folder } : {}, remove };
}

/** PostgreSQL's programs are copied there and must be allowed to run, which a container may forbid. */
function hasPlentyOfMemory(): boolean {
  if (process.platform !== "linux" || !existsSync(inMemory)) return false;
  const mount = readFileSync("/proc/mounts", "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .findLast(([, path]) => path === inMemory);
  if (mount?.[2] !== "tmpfs" || mount[3]?.split(",").includes("noexec")) return false;
  const { bavail, bsize } = statfsSync(inMemory);
  return Math.min(bavail * bsize, process.availableMemory()) > plenty;
}
