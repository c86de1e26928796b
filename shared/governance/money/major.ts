import { fail, ok, type Result } from "../result.ts";
import { currencyExponent, normalizeCurrency } from "./currency.ts";
import type { In, MicroUnits, MinorUnits } from "./units.ts";

/** Why a text is not an exact amount. `message` is for people and says what to do. */
export interface AmountProblem {
  readonly code:
    | "empty"
    | "not_a_number"
    | "too_many_decimals"
    | "ambiguous_separator"
    | "scientific_notation"
    | "too_large"
    | "other_currency"
    | "unknown_currency";
  readonly message: string;
}

/** What is known of the file that an amount is in. */
export interface ParseMajorOptions {
  /** The file's decimal sign, where it is known; settles "1,234" and "1.234". Without it these are refused where they can mean two amounts. */
  readonly decimal?: "." | ",";
}

const problem = (code: AmountProblem["code"], message: string): Result<never, AmountProblem> =>
  fail({ code, message });

/**
 * Reads a decimal amount in major units ("1,234.50", "-500.00", "1 234,50", "12,34,567.00", "(12.00)", "12.00-", "$5.00")
 * as minor units, exactly and without floats. Refuses what cannot be exact: more decimals than the currency has ("500.50" yen), a number that a
 * spreadsheet shortened ("1.2E+05"), a separator that can mean two things ("1.234" dollars), the sign of another currency,
 * and 2^53 and beyond.
 */
export function parseMajor(
  text: string,
  currency: string,
  options: ParseMajorOptions = {},
): Result<MinorUnits, AmountProblem> {
  const code = normalizeCurrency(currency);
  if (!code)
    return problem(
      "unknown_currency",
      `"${currency}" is not a currency code; expected three letters such as usd.`,
    );
  const exponent = currencyExponent(code);
  const parsed = parseDecimal(withoutSign(text, code), exponent, options.decimal);
  if (parsed.ok) return ok(parsed.value as MinorUnits);
  const shown = text.length > 40 ? `${text.slice(0, 40)}…` : text;
  const messages: Record<AmountProblem["code"], string> = {
    empty: "The amount is empty.",
    not_a_number: `"${shown}" is not an amount.`,
    too_many_decimals: `"${shown}" has more decimals than ${code.toUpperCase()} has (${exponent}).`,
    ambiguous_separator: `"${shown}" can mean two amounts: say which sign marks the decimals, or export again with a decimal point.`,
    scientific_notation: `"${shown}" was shortened by a spreadsheet and its digits are lost: use the file as it was downloaded.`,
    other_currency: `"${shown}" is not in ${code.toUpperCase()}: the sign is another currency's.`,
    too_large: `"${shown}" is beyond what can be counted exactly.`,
    unknown_currency: "",
  };
  return problem(parsed.error, messages[parsed.error]);
}

const signs = new Map<string, readonly string[]>();

/** How a currency is written beside an amount: its code, and its sign where it is the home currency and elsewhere. */
function signsOf(code: string): readonly string[] {
  const known = signs.get(code);
  if (known) return known;
  const found = ["en-US", "en-CA", "de-DE"].flatMap((locale) =>
    (["symbol", "narrowSymbol"] as const).map(
      (currencyDisplay) =>
        new Intl.NumberFormat(locale, { style: "currency", currency: code, currencyDisplay })
          .formatToParts(0)
          .find(({ type }) => type === "currency")?.value ?? "",
    ),
  );
  const all = [...new Set([code.toUpperCase(), ...found])]
    .filter((each) => each !== "")
    .sort((a, b) => b.length - a.length);
  signs.set(code, all);
  return all;
}

/** The amount without its currency's sign or code, before or after it; as it was where it has none. */
function withoutSign(raw: string, code: string): string {
  const text = raw.trim();
  if (text.length > 64 || /^[-+\u2212(]?[\d.,]+\)?$/.test(text)) return text;
  for (const sign of signsOf(code)) {
    const lead = /^[-+\u2212(]?\s*/.exec(text)?.[0] ?? "";
    const rest = text.slice(lead.length);
    if (rest.toUpperCase().startsWith(sign.toUpperCase()))
      return lead.trim() + rest.slice(sign.length).trim();
    const tail = text.endsWith(")") ? ")" : "";
    const body = text.slice(0, text.length - tail.length).trimEnd();
    if (body.toUpperCase().endsWith(sign.toUpperCase())) return body.slice(0, -sign.length).trim() + tail;
  }
  return text;
}

/** Digits, groups of three, one decimal sign. The shape decides which sign is which; where it cannot, it is refused. */
function parseDecimal(
  raw: string,
  exponent: number,
  decimal: "." | "," | undefined,
): Result<number, AmountProblem["code"]> {
  let text = raw.trim();
  if (text === "") return fail("empty");
  if (text.length > 64) return fail("not_a_number");
  if (/^[-+\u2212(]*\s*(?:[A-Z]{0,3}\p{Sc}|[A-Z]{3}\b)|(?:\p{Sc}|\b[A-Z]{3})\)?$/u.test(text))
    return fail("other_currency");
  if (/^[-+]?[\d.,]+e[-+]?\d+$/i.test(text)) return fail("scientific_notation");
  let negative = false;
  const brackets = /^\((.*)\)$/.exec(text); // accountants' minus
  if (brackets) {
    negative = true;
    text = brackets[1] ?? "";
  }
  // Before or after the number, as accounting programs write it.
  const sign = /^[-+\u2212]|[-\u2212]$/.exec(text)?.[0];
  if (sign) {
    if (brackets) return fail("not_a_number");
    negative = sign !== "+";
    text = text.startsWith(sign) ? text.slice(1) : text.slice(0, -1).trimEnd();
  }
  // Spaces (also the narrow and the hard one) and apostrophes only ever group.
  text = text.replace(/(?<=\d)[ \u00a0\u202f'\u2019](?=\d{3}(?:\D|$))/g, "");
  if (!/^[\d.,]*\d[\d.,]*$/.test(text)) return fail("not_a_number");

  const dots = text.split(".").length - 1;
  const commas = text.split(",").length - 1;
  let point: string;
  if (dots && commas) {
    point = text.lastIndexOf(".") > text.lastIndexOf(",") ? "." : ",";
    if (decimal && decimal !== point) return fail("ambiguous_separator");
  } else if (decimal) {
    point = decimal;
  } else if (dots + commas === 0) {
    point = ".";
  } else {
    const only = dots ? "." : ",";
    const other = dots ? "," : ".";
    const last = text.length - text.lastIndexOf(only) - 1;
    if (dots + commas > 1)
      point = other; // several of one sign can only group
    else if (last !== 3 || /^0*[.,]/.test(text))
      point = only; // a group has three digits and nobody groups a zero
    else if (only === "," && exponent !== 3)
      point = other; // "1,234" has no cents to lose
    else if (only === "." && exponent === 3)
      point = only; // how Stripe writes three decimals
    else return fail("ambiguous_separator");
  }
  const group = point === "." ? "," : ".";
  const at = text.indexOf(point);
  if (at !== text.lastIndexOf(point)) return fail("not_a_number");
  const head = at < 0 ? text : text.slice(0, at);
  let tail = at < 0 ? "" : text.slice(at + 1);
  if (tail.includes(group)) return fail("not_a_number");
  // Groups of three; in India of two above the thousands ("12,34,567.00").
  if (head.includes(group) && !/^\d{1,3}(?:[.,]\d{3})+$|^\d{1,2}(?:,\d{2})+,\d{3}$/.test(head))
    return fail("not_a_number");
  if (tail.length > exponent) {
    if (/[1-9]/.test(tail.slice(exponent))) return fail("too_many_decimals");
    tail = tail.slice(0, exponent);
  }
  const minor = Number(head.replaceAll(group, "") + tail.padEnd(exponent, "0"));
  if (!Number.isSafeInteger(minor)) return fail("too_large");
  return ok(negative && minor !== 0 ? -minor : minor);
}

/** Minor units as a decimal with a point and no grouping: 123450 usd → "1234.50". For files and exact text. */
export function formatMinor<T extends number>(amountMinor: T & In<MinorUnits, T>, currency: string): string {
  return withPoint(amountMinor, currencyExponent(currency));
}

/** Minor units for people: 123450 usd → "1,234.50 USD". */
export function formatMoney<T extends number>(amountMinor: T & In<MinorUnits, T>, currency: string): string {
  const [head = "", tail] = withPoint(amountMinor, currencyExponent(currency)).split(".");
  const grouped = head.replace(/\B(?=(\d{3})+$)/g, ",");
  return `${tail === undefined ? grouped : `${grouped}.${tail}`} ${currency.toUpperCase()}`;
}

/** Micro-units as a decimal with a point, without needless zeros but with at least two decimals: 2500000 → "2.50". */
export function formatMicro<T extends number>(amountMicros: T & In<MicroUnits, T>): string {
  return withPoint(amountMicros, 6).replace(/0{1,4}$/, "");
}

function withPoint(amount: number, exponent: number): string {
  if (!Number.isSafeInteger(amount)) throw new RangeError(`An amount must be a whole number, not ${amount}`);
  const digits = String(Math.abs(amount)).padStart(exponent + 1, "0");
  const sign = amount < 0 ? "-" : "";
  if (exponent === 0) return sign + digits;
  return `${sign}${digits.slice(0, -exponent)}.${digits.slice(-exponent)}`;
}
