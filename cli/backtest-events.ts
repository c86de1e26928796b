/** The past calls that a backtest replays: read from a project or a file, and kept for another time. */
import { createReadStream, existsSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { createBackend } from "../electron/main/backend/backend.ts";
import { usageEventPages } from "../electron/main/backend/usage-events.ts";
import { formatCount, isReplayEvent, type ReplayEvent } from "../shared/governance/index.ts";
import { type Arguments, BadArguments } from "./backtest-arguments.ts";
import { moment, printable } from "./backtest-text.ts";

const mostAttempts = 8;

/** The project's events, as they are read: never all of them in memory. */
export async function* projectEvents(given: Arguments): AsyncGenerator<unknown> {
  const backend = createBackend({ url: given.url ?? "", key: given.key });
  const progress = showProgress();
  try {
    const pages = usageEventPages(backend, { since: given.since, mostAttempts });
    for (;;) {
      const next = await pages.next();
      if (next.done) {
        if (next.value === null) return;
        throw new Error([next.value.message, next.value.advice].filter(Boolean).join(" "));
      }
      progress(next.value);
      yield* next.value;
    }
  } finally {
    progress(null);
    await backend.close();
  }
}

/** Writes to the error stream how far reading has come, if it takes long; null ends it. */
function showProgress(): (events: readonly unknown[] | null) => void {
  const { stderr } = process;
  const everyMs = stderr.isTTY ? 500 : 10_000;
  let shownAt = performance.now();
  let read = 0;
  return (events) => {
    if (events === null) {
      if (stderr.isTTY) stderr.write("\r\u001b[K");
      return;
    }
    read += events.length;
    const last = events.at(-1);
    if (performance.now() - shownAt < everyMs || !isReplayEvent(last)) return;
    shownAt = performance.now();
    const words = printable(`${formatCount(read)} events read, up to ${moment(last.at)}`);
    stderr.write(stderr.isTTY ? `\r${words}\u001b[K` : `${words}\n`);
  };
}

export async function* fileEvents(path: string): AsyncGenerator<unknown> {
  if (path !== "-" && !existsSync(path)) throw new BadArguments(`There is no file ${path}.`);
  const input = path === "-" ? process.stdin : createReadStream(path);
  for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line.trim() === "") continue;
    try {
      yield JSON.parse(line);
    } catch {
      yield null; // counted as malformed
    }
  }
}

/** Keeps events in a file that appears only when it is whole; an earlier one, even the one being read, stays until then. */
export async function keepEvents(path: string) {
  const part = `${path}.part`;
  const file = await open(part, "w").catch((error: Error) => {
    throw new BadArguments(`--save-events: ${path} cannot be written (${error.message}).`);
  });
  let lines: string[] = [];
  const flush = async (): Promise<void> => {
    await file.appendFile(lines.join(""));
    lines = [];
  };
  return {
    async write(event: ReplayEvent): Promise<void> {
      if (lines.push(`${JSON.stringify(event)}\n`) >= 1_000) await flush();
    },
    async finish(): Promise<void> {
      await flush();
      await rename(part, path);
    },
    /** An unfinished file is removed. */
    async close(): Promise<void> {
      await file.close();
      await rm(part, { force: true });
    },
  };
}
