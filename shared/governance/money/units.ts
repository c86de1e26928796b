/**
 * Whole numbers that carry their unit in their type, so that tokens, minor units and micro-units cannot be mixed
 * by mistake. All are safe integers (below 2^53 in size); at run time they are plain numbers, so JSON needs no mapping.
 */
declare const unit: unique symbol;

/** Money in the smallest unit of its currency as Stripe counts it: pence, cents, yen, fils. */
export type MinorUnits = number & { readonly [unit]: "minor units" };
/** Money in millionths of the currency's major unit, for prices of AI calls: 1 USD = 1,000,000. */
export type MicroUnits = number & { readonly [unit]: "micro-units" };
/** AI tokens. */
export type Tokens = number & { readonly [unit]: "tokens" };

/** A number of this unit, or a plain one as records have it: one that carries another unit does not compile. */
export type In<U extends MinorUnits | MicroUnits | Tokens, T extends number> = T extends U
  ? T
  : T extends { readonly [unit]: string }
    ? never
    : T;

function whole(value: number, name: string): number {
  if (!Number.isSafeInteger(value))
    throw new RangeError(`${name} must be a whole number below 2^53, not ${value}`);
  return value === 0 ? 0 : value; // no negative zero in books
}

/** Asserts a whole number of minor units. Throws RangeError otherwise: check outside input before. */
export const minorUnits = (value: number): MinorUnits => whole(value, "minor units") as MinorUnits;
/** Asserts a whole number of micro-units. Throws RangeError otherwise. */
export const microUnits = (value: number): MicroUnits => whole(value, "micro-units") as MicroUnits;
/** Asserts a whole number of tokens. Throws RangeError otherwise. */
export const tokens = (value: number): Tokens => whole(value, "tokens") as Tokens;

/**
 * `whole × part ÷ of`, rounded down, exact beyond 2^53 in between; everything when `part ≥ of`. The rule for what a
 * refund takes back: cumulative, so several partial refunds add up to the same in any order. All arguments ≥ 0, of > 0.
 */
export function proRata<T extends number>(amount: T, part: number, of: number): T {
  if (part >= of) return amount;
  const product = amount * part;
  if (Number.isSafeInteger(product)) return ((product - (product % of)) / of) as T;
  return Number((BigInt(amount) * BigInt(part)) / BigInt(of)) as T;
}
