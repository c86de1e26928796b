import { readFileSync } from "node:fs";

/** The fields of /proc/PID/schedstat in milliseconds; null where the system does not count them. */
function schedule(pid: number): readonly number[] | null {
  try {
    return readFileSync(`/proc/${pid}/schedstat`, "utf8")
      .split(" ")
      .map((nanoseconds) => Number(nanoseconds) / 1e6);
  } catch {
    return null;
  }
}

/**
 * The processor time that a process used so far, in milliseconds. Unlike the clock it does not go on while other
 * processes have the processor. Where the system does not count it, the clock.
 */
export function usedProcessor(pid: number): number {
  return schedule(pid)?.[0] ?? performance.now();
}

/**
 * How long a process could run and was given no processor, in milliseconds. A busy machine makes every holder of a lock
 * wait so, which says nothing of the code. Where the system does not count it, none.
 */
export function waitedForProcessor(pid: number): number {
  return schedule(pid)?.[1] ?? 0;
}
