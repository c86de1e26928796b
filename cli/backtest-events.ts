/** The past calls that a backtest replays: read from a project or a file, and kept for another time. */
import { createReadStream, existsSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { z } from "zod";
import { createBackend } from "../electron/main/backend/backend.ts";
import { isUnreachable } from "../electron/main/backend/failures.ts";
import type { Failure } from "../shared/contract/index.ts";
import { formatCount, isReplayEvent, type ReplayEvent, type Result } from "../shared/governance/index.ts";
import { type Arguments, BadArguments } from "./backtest-arguments.ts";
import { moment, printable } from "./backtest-text.ts";

const page = z.object({ events: z.array(z.unknown()), next_cursor: z.string().nullable() });

/** A page should take about this long: short enough for any server's limit, long enough to get on. */
const pageMs = 1_500;
const mostAttempts = 8;

/**
 * The project's events, page by page: never all of them in memory. A page that takes long makes the next one smaller,
 * one that fails on its way is asked for again; the cursor makes sure that none is missed or comes twice.
 */
export async function* projectEvents(given: Arguments): AsyncGenerator<unknown> {
  const backend = createBackend({ url: given.url ?? "", key: given.key });
  const progress = showProgress();
  try {
    let cursor: string | null = null;
    let size = 500;
    for (let attempt = 1; ; ) {
      const startedAt = performance.now();
      const answer: Result<z.output<typeof page>, Failure> = await backend.rpc(
        "usage_events_since",
        { p_cursor: cursor, p_limit: size, p_filter: { facts: true, since: given.since } },
        page,
        { timeoutMs: 60_000 },
      );
      const tookMs = performance.now() - startedAt;
      if (!answer.ok) {
        // 57014: the server's own statement_timeout.
        const isSlow = answer.error.code === "timeout" || answer.error.details?.includes(" 57014 ") === true;
        if (attempt >= mostAttempts || (!isSlow && !isUnreachable(answer.error)))
          throw new Error([answer.error.message, answer.error.advice].filter(Boolean).join(" "));
        if (isSlow) size = Math.max(20, Math.floor(size / 4));
        else await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** attempt));
        attempt++;
        continue;
      }
      attempt = 1;
      const { events, next_cursor: nextCursor }: z.output<typeof page> = answer.value;
      progress(events);
      yield* events;
      // A page that is not full is the end for now: on a busy project there would always be one event more.
      if (events.length < size || nextCursor === null) return;
      cursor = nextCursor;
      size = Math.round(Math.min(5_000, Math.max(20, size * Math.min(2, pageMs / Math.max(1, tookMs)))));
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
