import { currencyExponent, minorUnits, parseMajor } from "../money/index.ts";
import { ok } from "../result.ts";
import type { Bytes } from "./interner.ts";
import { decodeUtf8 } from "./text.ts";

/** Reading of single cells from bytes; the caller knows row and column. */

const ZERO = 0x30;
const NINE = 0x39;

const DOT = 0x2e;
const POWERS = [1, 10, 100, 1000];

/** Minor units of an amount in its plain form, digits and a decimal point; NaN for any other, which readAmount knows. */
export function readPlainAmount(bytes: Uint8Array, start: number, end: number, exponent: number): number {
  const isNegative = bytes[start] === 0x2d;
  let at = isNegative ? start + 1 : start;
  if (end - at > 16 || at >= end) return Number.NaN;
  let value = 0;
  let point = -1;
  for (; at < end; at++) {
    const byte = bytes[at];
    if (byte >= ZERO && byte <= NINE) value = value * 10 + (byte - ZERO);
    else if (byte === DOT && point < 0) point = at;
    else return Number.NaN;
  }
  const decimals = point < 0 ? 0 : end - 1 - point;
  if (decimals > exponent || (point >= 0 && decimals === 0)) return Number.NaN;
  const whole = value * POWERS[exponent - decimals];
  if (whole > Number.MAX_SAFE_INTEGER) return Number.NaN;
  return isNegative && whole !== 0 ? -whole : whole;
}

/** Minor units of an amount in any form; 0 for an empty cell. */
export function readAmount(
  bytes: Uint8Array,
  start: number,
  end: number,
  currency: string,
  decimal: "." | "," | undefined,
): ReturnType<typeof parseMajor> {
  const parsed = parseMajor(decodeUtf8(bytes, start, end), currency, decimal ? { decimal } : {});
  return !parsed.ok && parsed.error.code === "empty" ? ok(minorUnits(0)) : parsed;
}

/** Days from 1970-01-01 of a civil date, proleptic Gregorian (Howard Hinnant, "chrono-compatible low-level date algorithms"). */
function daysFromCivil(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  const dayOfEra = yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear;
  return era * 146_097 + dayOfEra - 719_468;
}

/** A cache of one day: rows that follow one another are mostly of the same one. The day as yyyymmdd, and in days since 1970. */
let lastDay = 0;
let lastDayNumber = 0;

function epochSeconds(
  year: number,
  month: number,
  day: number,
  hour: number,
  minute: number,
  second: number,
): number {
  // Years of another calendar (2569 of the Buddhist one), or a spreadsheet's first day of all: no time of a payment.
  if (year < 1970 || year > 2199) return Number.NaN;
  if (month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60)
    return Number.NaN;
  const named = year * 10_000 + month * 100 + day;
  if (named !== lastDay) {
    const days = daysFromCivil(year, month, day);
    // 31 April would roll over into May: refuse it.
    if (day > 28 && daysFromCivil(month === 12 ? year + 1 : year, month === 12 ? 1 : month + 1, 1) <= days)
      return Number.NaN;
    lastDay = named;
    lastDayNumber = days;
  }
  return lastDayNumber * 86_400 + hour * 3600 + minute * 60 + second;
}

/** Two digits as a number; 100 or more where they are none. */
function twoDigits(bytes: Uint8Array, at: number): number {
  const tens = bytes[at] - ZERO;
  const ones = bytes[at + 1] - ZERO;
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : 100;
}

/** Whether what follows the seconds is a fraction or nothing, then Z or +00:00, as the database writes it. */
function endsInUtc(bytes: Uint8Array, at: number, end: number): boolean {
  if (bytes[at] === DOT) {
    at++;
    while (at < end && bytes[at] >= ZERO && bytes[at] <= NINE) at++;
  }
  if (end - at === 1) return bytes[at] === 0x5a;
  return (
    end - at === 6 && bytes[at] === 0x2b && twoDigits(bytes, at + 1) === 0 && twoDigits(bytes, at + 4) === 0
  );
}

/**
 * Seconds since 1970 (UTC) of `YYYY-MM-DD[ T]HH:MM[:SS]`, the only form that Stripe's exports use, or of what
 * spreadsheets and the database make of it. NaN where it cannot be read or can be read in two ways.
 */
export function readTime(
  { bytes }: Bytes,
  start: number,
  end: number,
  dateOrder: "dmy" | "mdy" | undefined,
): number {
  const length = end - start;
  if (
    bytes[start + 4] === 0x2d &&
    bytes[start + 7] === 0x2d &&
    (length === 16 || length === 19 || (length > 19 && endsInUtc(bytes, start + 19, end)))
  ) {
    const century = twoDigits(bytes, start);
    const year = twoDigits(bytes, start + 2);
    const time =
      year >= 100
        ? Number.NaN
        : epochSeconds(
            century * 100 + year,
            twoDigits(bytes, start + 5),
            twoDigits(bytes, start + 8),
            twoDigits(bytes, start + 11),
            twoDigits(bytes, start + 14),
            length >= 19 ? twoDigits(bytes, start + 17) : 0,
          );
    if (!Number.isNaN(time)) return time;
  }
  return parseTime(decodeUtf8(bytes, start, end), dateOrder);
}

/**
 * As readTime, from text: also ISO 8601 with a zone or fractions, dates alone, `31.12.2024 09:30`, `2024/12/31 9:30`, and
 * other slashes and dashes if the order is known.
 */
export function parseTime(raw: string, dateOrder?: "dmy" | "mdy"): number {
  // The year first, as spreadsheets write it: with any sign, without the leading zeros.
  const text = raw
    .trim()
    .replace(
      /^(\d{4})([/-]|\. ?)(\d{1,2})\2(\d{1,2})(?!\d)\.?(?: +(\d:))?/,
      (_, year: string, _sign: string, month: string, day: string, hour?: string) =>
        `${year}-${month.padStart(2, "0")}-${day.padStart(2, "0")}${hour ? ` 0${hour}` : ""}`,
    );
  const iso =
    /^(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?)?\s*(Z|UTC|[-+]\d\d(?::?\d\d)?)?$/i.exec(
      text,
    );
  if (iso) {
    const time = epochSeconds(
      Number(iso[1]),
      Number(iso[2]),
      Number(iso[3]),
      Number(iso[4] ?? 0),
      Number(iso[5] ?? 0),
      Number(iso[6] ?? 0),
    );
    const zone = /^([-+])(\d\d):?(\d\d)?$/.exec(iso[7] ?? "");
    if (!zone) return time;
    const offset = Number(zone[2]) * 3600 + Number(zone[3] ?? 0) * 60;
    return zone[1] === "-" ? time + offset : time - offset;
  }
  const local =
    /^(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})(?:[ ,]+(\d{1,2})[:.](\d\d)(?:[:.](\d\d))?\s*(?:([AaPp])\.?\s?[Mm]\.?)?)?$/.exec(
      text,
    );
  // With dashes two digits may be the year, first or last.
  if (!local || (local[2] === "-" && (local[4] ?? "").length === 2)) return Number.NaN;
  const first = Number(local[1]);
  const second = Number(local[3]);
  const order = local[2] === "." ? "dmy" : (dateOrder ?? (first > 12 ? "dmy" : second > 12 ? "mdy" : null));
  if (order === null) return Number.NaN;
  const [day, month] = order === "dmy" ? [first, second] : [second, first];
  const year = Number(local[4]) + ((local[4] ?? "").length === 2 ? 2000 : 0);
  let hour = Number(local[5] ?? 0);
  if (local[8]) hour = (hour % 12) + (/p/i.test(local[8]) ? 12 : 0);
  return epochSeconds(year, month, day, hour, Number(local[6] ?? 0), Number(local[7] ?? 0));
}

/** ISO 8601 in UTC of seconds since 1970; null for NaN. */
export function isoTime(seconds: number): string | null {
  return Number.isFinite(seconds) ? new Date(seconds * 1000).toISOString().replace(".000Z", "Z") : null;
}

/** Three letters as one number, in lower case. */
const codeKey = (bytes: Uint8Array, at: number): number =>
  (bytes[at] << 16) | (bytes[at + 1] << 8) | bytes[at + 2] | 0x202020;

/** Currencies seen, as small numbers: 0 is none. */
export class Currencies {
  private readonly codes: string[] = [""];
  private readonly exponents: number[] = [2];
  /** Of the code that was read last, in lower case: mostly it comes again. */
  private lastKey = -1;
  private last = -1;

  /** Number of the currency in these bytes, in either case; −1 where it is no code. */
  read({ bytes }: Bytes, start: number, end: number): number {
    if (end - start === 3 && codeKey(bytes, start) === this.lastKey) return this.last;
    return this.readAny(bytes, start, end);
  }

  private readAny(bytes: Uint8Array, start: number, end: number): number {
    while (start < end && bytes[start] === 0x20) start++;
    while (end > start && bytes[end - 1] === 0x20) end--;
    if (start === end) return 0;
    if (end - start !== 3) return -1;
    const key = codeKey(bytes, start);
    const code = String.fromCharCode(key >> 16, (key >> 8) & 0xff, key & 0xff);
    if (!/^[a-z]{3}$/.test(code)) return -1;
    let index = this.codes.indexOf(code);
    if (index < 0) {
      index = this.codes.length;
      this.codes.push(code);
      this.exponents.push(currencyExponent(code));
    }
    this.lastKey = key;
    this.last = index;
    return index;
  }

  readText(code: string | null | undefined): number {
    if (!code) return 0;
    const bytes = new Uint8Array(code.length);
    for (let i = 0; i < code.length; i++) bytes[i] = code.charCodeAt(i) > 127 ? 0 : code.charCodeAt(i);
    return this.readAny(bytes, 0, bytes.length);
  }

  code(index: number): string {
    return this.codes[index] ?? "";
  }

  exponent(index: number): number {
    return this.exponents[index] ?? 2;
  }

  get count(): number {
    return this.codes.length;
  }
}
