/**
 * Percents of a limit at which a call is warned: the highest reached by what is used with this call, or null.
 * Source: docs/RULES.md, step 10.
 */
export function warnPercent(
  used: number,
  need: number,
  limit: number | null,
  warnAt: readonly number[],
): number | null {
  if (limit === null || limit === 0) return null;
  let highest: number | null = null;
  // BigInt: limits may be near 2^53.
  for (const percent of warnAt)
    if (
      BigInt(used + need) * 100n >= BigInt(limit) * BigInt(percent) &&
      (highest === null || percent > highest)
    )
      highest = percent;
  return highest;
}
