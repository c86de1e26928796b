/** Operations of a console as the screen calls them, with their types. */
import type { Console } from "../../electron/main/console/console.ts";
import type {
  OperationInput,
  OperationName,
  OperationOutput,
  ReconciliationRun,
  Reply,
} from "../../shared/contract/index.ts";
import { expect } from "vitest";

export async function call<N extends OperationName>(
  console_: Console,
  name: N,
  input: OperationInput<N>,
): Promise<Reply<OperationOutput<N>>> {
  return (await console_.dispatcher.call(name, input)) as Reply<OperationOutput<N>>;
}

/** The answer, where it must be one. */
export async function value<N extends OperationName>(
  console_: Console,
  name: N,
  input: OperationInput<N>,
): Promise<OperationOutput<N>> {
  const result = await call(console_, name, input);
  if (!result.ok) throw new Error(`${name}: ${result.error.message} ${result.error.details}`);
  return result.value;
}

/** A run as it ended. */
export async function endOfRun(console_: Console, runId: string): Promise<ReconciliationRun> {
  const seen: ReconciliationRun[] = [];
  const follow = console_.dispatcher.follow("run", { run_id: runId }, (item) =>
    seen.push(item as ReconciliationRun),
  );
  await expect.poll(() => seen.at(-1)?.status, { timeout: 60_000 }).not.toBe("running");
  if (follow.ok) follow.value();
  return seen.at(-1) as ReconciliationRun;
}

/**
 * The shortest of at most five tries, in milliseconds; `enoughMs` ends them. A busy machine is late now and then; what
 * comes late by itself is late each time.
 */
export async function shortestOfFive(enoughMs: number, tryOnce: () => Promise<number>): Promise<number> {
  let shortest = Number.POSITIVE_INFINITY;
  for (let tries = 0; tries < 5 && shortest >= enoughMs; tries++)
    shortest = Math.min(shortest, await tryOnce());
  return shortest;
}
