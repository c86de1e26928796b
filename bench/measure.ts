/**
 * How we measure: two things side by side in alternating rounds of one run, so that a machine whose speed
 * drifts slows both; the figure is the median of the rounds' ratios.
 */

/** One line of `npm run bench`. */
export interface BenchResult {
  readonly bench: string;
  /** ours ÷ floor, as the bench's name says; whether more or less is better is `better`. */
  readonly ratio: number;
  readonly better: "higher" | "lower";
  /** The ratio that is required, where the issue names one, and the one aimed at. */
  readonly required?: number;
  readonly aim?: number;
  /** Median figures of both sides with their unit, and whatever else explains the ratio. */
  readonly figures: Readonly<Record<string, number | string>>;
}

export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("The median of nothing is not known.");
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}

interface Rounds {
  readonly ours: number;
  readonly floor: number;
  /** Median of the rounds' own ratios ours ÷ floor. */
  readonly ratio: number;
  /** The ratios of all rounds that count. */
  readonly ratios: readonly number[];
}

/**
 * Measures `ours` and `floor` in turn, `rounds` times after one round that does not count. Each function
 * answers its figure (seconds, calls a second …: the same unit for both).
 */
export async function alternate(
  rounds: number,
  ours: () => Promise<number> | number,
  floor: () => Promise<number> | number,
): Promise<Rounds> {
  await ours();
  await floor();
  const figures = { ours: [] as number[], floor: [] as number[], ratio: [] as number[] };
  for (let round = 0; round < rounds; round += 1) {
    // The order changes each round, so that neither always runs on the warmer machine.
    const first = round % 2 === 0;
    const a = first ? await ours() : undefined;
    const b = await floor();
    const ourFigure = a ?? (await ours());
    figures.ours.push(ourFigure);
    figures.floor.push(b);
    figures.ratio.push(ourFigure / b);
  }
  return {
    ours: median(figures.ours),
    floor: median(figures.floor),
    ratio: median(figures.ratio),
    ratios: figures.ratio,
  };
}

export function round(value: number, digits = 3): number {
  return Number(value.toFixed(digits));
}
