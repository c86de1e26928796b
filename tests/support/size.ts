/**
 * How much generated tests try. Each run of `npm test` tries enough to catch a fault that was put in again; before a
 * release, `TESTS=whole` tries the size at which a fault was once found. `TESTS=10000` tries that many of everything.
 * `SEED=7` starts every generator elsewhere.
 */
export function sized(usual: number, whole: number): number {
  const asked = process.env["TESTS"];
  if (asked === undefined || asked === "") return usual;
  if (asked === "whole") return whole;
  const count = Number(asked);
  if (!Number.isInteger(count) || count < 1)
    throw new Error(`TESTS is "whole" or a count of one or more, not "${asked}".`);
  return count;
}

/** Where a generator starts: always the same, so that a failure comes again, unless `SEED` asks for another. */
export function seeded(usual: number): number {
  return Number(process.env["SEED"] ?? usual);
}

/** How long a test may take: hours where another size than the usual one is asked for, which only a run by hand does. */
export function testTimeout(usualMs: number): number {
  return process.env["TESTS"] ? 12 * 60 * 60 * 1000 : usualMs;
}
