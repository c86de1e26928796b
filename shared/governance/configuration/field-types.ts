/** What the fields of a configuration are made of. */

/** What a field holds. Amounts are whole; `scale` says how a person writes them. */
export type FieldType =
  | { readonly is: "text"; readonly max: number }
  | {
      readonly is: "whole";
      readonly min: number;
      readonly max: number;
      /** tokens, days …: written behind the number. */
      readonly unit?: string;
      /** Written as an amount of money: minor units of the record's currency, or micro-units of the project's. */
      readonly money?: "minor" | "micros";
    }
  | { readonly is: "flag" }
  | { readonly is: "choice"; readonly of: readonly (readonly [value: string, words: string])[] }
  | { readonly is: "numbers"; readonly min: number; readonly max: number; readonly whole: boolean }
  | { readonly is: "texts"; readonly max: number; readonly each: number; readonly pattern?: RegExp }
  /** Several of these. */
  | { readonly is: "choices"; readonly of: readonly (readonly [value: string, words: string])[] }
  /** One plan, or several. */
  | { readonly is: "plan" }
  | { readonly is: "plans" }
  | { readonly is: "date" }
  /** What this console does not know: shown and kept as it is. */
  | { readonly is: "json" };

export interface Field {
  readonly name: string;
  readonly label: string;
  readonly hint?: string;
  readonly type: FieldType;
  /** The value where the record leaves the field out; undefined: the field is needed. */
  readonly otherwise?: unknown;
  /** What an empty field means, where it may be empty. */
  readonly empty?: string;
  /** Part of the record's name: set when it is made, and never after. */
  readonly isName?: boolean;
}

/** One of these codes; the table has the words of each. */
export const choice = (words: Readonly<Record<string, string>>): FieldType => ({
  is: "choice",
  of: Object.entries(words),
});

/** The largest whole number that is exact. */
export const most = Number.MAX_SAFE_INTEGER;
/** An amount of tokens. */
export const tokens = (min = 0): FieldType => ({ is: "whole", min, max: most, unit: "tokens" });
/** A text of at most so many characters. */
export const text = (max = 255): FieldType => ({ is: "text", max });
/** Of a channel. */
const channelPattern = /^[a-z][a-z0-9_]{0,31}$/;
/** Channels such as email and slack. */
export const channels: FieldType = { is: "texts", max: 20, each: 32, pattern: channelPattern };

/** E-mail addresses. */
export const emails: FieldType = {
  is: "texts",
  max: 50,
  each: 254,
  pattern: /^[^\s@<>(),;:\\"[\]]+@[^\s@<>(),;:\\"[\]]+$/,
};
