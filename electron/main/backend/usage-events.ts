/** Past calls as the project keeps them, for a replay: in the console's thread and on the command line. */
import { z } from "zod";
import type { Failure } from "../../../shared/contract/index.ts";
import type { Result } from "../../../shared/governance/result.ts";
import type { Backend } from "./backend.ts";
import { isUnreachable } from "./failures.ts";

const page = z.object({ events: z.array(z.unknown()), next_cursor: z.string().nullable() });
/** A page should take about this long: short enough for any server's limit, long enough to get on. */
const pageMs = 1_500;

/**
 * The project's events since a moment, page by page, with what a replay needs; ends with the failure that it could not
 * get past, or null. A page that takes long makes the next one smaller, one that fails on its way is asked for again; the
 * cursor makes sure that none is missed or comes twice.
 */
export async function* usageEventPages(
  backend: Pick<Backend, "rpc">,
  {
    since,
    mostAttempts,
    isCancelled = () => false,
  }: { readonly since: string; readonly mostAttempts: number; readonly isCancelled?: () => boolean },
): AsyncGenerator<readonly unknown[], Failure | null> {
  let cursor: string | null = null;
  let size = 500;
  for (let attempt = 1; !isCancelled(); ) {
    const startedAt = performance.now();
    const answer: Result<z.output<typeof page>, Failure> = await backend.rpc(
      "usage_events_since",
      { p_cursor: cursor, p_limit: size, p_filter: { facts: true, since } },
      page,
      { timeoutMs: 60_000 },
    );
    const tookMs = performance.now() - startedAt;
    if (!answer.ok) {
      // 57014: the server's own statement_timeout.
      const isSlow = answer.error.code === "timeout" || answer.error.details?.includes(" 57014 ") === true;
      if (attempt >= mostAttempts || (!isSlow && !isUnreachable(answer.error))) return answer.error;
      if (isSlow) size = Math.max(20, Math.floor(size / 4));
      else await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** attempt));
      attempt += 1;
      continue;
    }
    attempt = 1;
    const { events, next_cursor: next }: z.output<typeof page> = answer.value;
    yield events;
    // A page that is not full is the end for now: on a busy project there would always be one event more.
    if (events.length < size || next === null) return null;
    cursor = next;
    size = Math.round(Math.min(5_000, Math.max(20, size * Math.min(2, pageMs / Math.max(1, tookMs)))));
  }
  return null;
}
