/** A seeded generator of random numbers: the same seed gives the same sample on every machine. */
export interface Random {
  /** At least 0, below 1. */
  next(): number;
  /** A whole number from `low` to `high`, both included. */
  whole(low: number, high: number): number;
  /** True with this probability. */
  chance(probability: number): boolean;
  pick<Item>(items: readonly Item[]): Item;
  /** An item by its weight. */
  weighted<Item>(choices: readonly (readonly [item: Item, weight: number])[]): Item;
  /** How many events happen where `mean` are expected. */
  poisson(mean: number): number;
  /** A positive whole number around `median`, with a long upper tail; `spread` 0.5 is mild, 1 is wide. */
  lognormal(median: number, spread: number): number;
  /** A 32-character hexadecimal id. */
  id(): string;
}

/** FNV-1a: turns a name into a seed, so that each person and day has a stream of their own. */
function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let index = 0; index < text.length; index++) {
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  }
  return value >>> 0;
}

/** `seedRandom(7, "user-12", "2026-11-22")`: independent streams for different names. */
export function seedRandom(seed: number, ...names: readonly (string | number)[]): Random {
  // sfc32, a small generator that passes PractRand.
  let a = seed >>> 0;
  let b = hash(names.join("\u0000"));
  let c = 0x9e3779b9;
  let counter = 1;
  const bits = (): number => {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = ((c << 21) | (c >>> 11)) + sum;
    return sum >>> 0;
  };
  for (let round = 0; round < 12; round++) bits();

  const next = (): number => bits() / 0x1_0000_0000;
  const whole = (low: number, high: number): number => low + Math.floor(next() * (high - low + 1));
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return {
    next,
    whole,
    chance: (probability) => next() < probability,
    pick: (items) => {
      const item = items[whole(0, items.length - 1)];
      if (item === undefined) throw new Error("Nothing to pick from.");
      return item;
    },
    weighted: (choices) => {
      let point = next() * choices.reduce((sum, [, weight]) => sum + weight, 0);
      for (const [item, weight] of choices) {
        point -= weight;
        if (point < 0) return item;
      }
      const last = choices.at(-1);
      if (!last) throw new Error("Nothing to choose from.");
      return last[0];
    },
    poisson: (mean) => {
      const floor = Math.exp(-mean);
      let count = 0;
      for (let product = next(); product > floor; product *= next()) count++;
      return count;
    },
    lognormal: (median, spread) => Math.max(1, Math.round(median * Math.exp(spread * normal()))),
    id: () => Array.from({ length: 4 }, () => bits().toString(16).padStart(8, "0")).join(""),
  };
}
