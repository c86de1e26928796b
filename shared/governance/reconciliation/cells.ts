import { currencyExponent, parseMajor } from "../money/index.ts";
import { decodeUtf8 } from "./text.ts";

/** Reading of single cells from bytes. NaN means "cannot be read"; the caller knows row and column. */

const ZERO = 0x30;
const NINE = 0x39;

const POWERS = [1, 10, 100, 1000];

/** Minor units of a decimal amount; 0 for an empty cell. The plain form is read from the bytes, the rest by parseMajor. */
export function readAmount(
  bytes: Uint8Array,
  start: number,
  end: number,
  currency: string,
  exponent: number,
  decimal: "." | "," | undefined,
): number {
  if (start >= end) return 0;
  let at = start;
  const negative = bytes[at] === 0x2d;
  if (negative) at++;
  let value = 0;
  let decimals = -1;
  const plain = end - at <= 16 && decimal !== ",";
  if (plain && at < end) {
    for (; at < end; at++) {
      const digit = bytes[at];
      if (digit >= ZERO && digit <= NINE) {
        value = value * 10 + (digit - ZERO);
        if (decimals >= 0) decimals++;
      } else if (digit === 0x2e && decimals < 0) decimals = 0;
      else break;
    }
    if (at === end && decimals <= exponent && decimals !== 0 && bytes[end - 1] !== 0x2e) {
      const whole = value * POWERS[exponent - (decimals < 0 ? 0 : decimals)];
      if (whole > Number.MAX_SAFE_INTEGER) return Number.NaN;
      return whole === 0 ? 0 : negative ? -whole : whole;
    }
  }
  const parsed = parseMajor(decodeUtf8(bytes, start, end), currency, decimal ? { decimal } : {});
  if (parsed.ok) return parsed.value;
  return parsed.error.code === "empty" ? 0 : Number.NaN;
}

/** Why readAmount gave NaN, in words. */
export function amountProblem(
  bytes: Uint8Array,
  start: number,
  end: number,
  currency: string,
  decimal: "." | "," | undefined,
): string {
  const parsed = parseMajor(decodeUtf8(bytes, start, end), currency, decimal ? { decimal } : {});
  return parsed.ok ? "" : parsed.error.message;
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

/** The day asked for last, as yyyymmdd: rows that follow one another are mostly of one day. */
let lastDay = 0;
let lastDayIs = 0;

function epochSeconds(
  year: number,
  month: number,
  day: number,
  hour: number,
  minute: number,
  second: number,
): number {
  if (month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 || minute > 59 || second > 60)
    return Number.NaN;
  const named = year * 10_000 + month * 100 + day;
  if (named !== lastDay) {
    const days = daysFromCivil(year, month, day);
    // 31 April would roll over into May: refuse it.
    if (day > 28 && daysFromCivil(month === 12 ? year + 1 : year, month === 12 ? 1 : month + 1, 1) <= days)
      return Number.NaN;
    lastDay = named;
    lastDayIs = days;
  }
  return lastDayIs * 86_400 + hour * 3600 + minute * 60 + second;
}

const digits2 = (bytes: Uint8Array, at: number): number => {
  const a = bytes[at] - ZERO;
  const b = bytes[at + 1] - ZERO;
  return a >= 0 && a <= 9 && b >= 0 && b <= 9 ? a * 10 + b : Number.NaN;
};

/** Whether what follows the seconds is a fraction or nothing, then Z or +00:00, as the database writes it. */
function endsInUtc(bytes: Uint8Array, at: number, end: number): boolean {
  if (bytes[at] === 0x2e) {
    at++;
    while (at < end && bytes[at] >= ZERO && bytes[at] <= NINE) at++;
  }
  if (end - at === 1) return bytes[at] === 0x5a;
  return end - at === 6 && bytes[at] === 0x2b && digits2(bytes, at + 1) === 0 && digits2(bytes, at + 4) === 0;
}

/**
 * Seconds since 1970 (UTC) of `YYYY-MM-DD[ T]HH:MM[:SS]`, the only form that Stripe's exports use, or of what
 * spreadsheets and the database make of it. NaN where it cannot be read or can be read in two ways.
 */
export function readTime(
  bytes: Uint8Array,
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
    const year = digits2(bytes, start) * 100 + digits2(bytes, start + 2);
    const second = length >= 19 ? digits2(bytes, start + 17) : 0;
    const time = epochSeconds(
      year,
      digits2(bytes, start + 5),
      digits2(bytes, start + 8),
      digits2(bytes, start + 11),
      digits2(bytes, start + 14),
      second,
    );
    if (time === time) return time;
  }
  return parseTime(decodeUtf8(bytes, start, end), dateOrder);
}

/** As readTime, from text: also ISO 8601 with a zone or fractions, dates alone, `31.12.2024 09:30`, and slashes if the order is known. */
export function parseTime(raw: string, dateOrder?: "dmy" | "mdy"): number {
  const text = raw.trim();
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
    /^(\d{1,2})([./])(\d{1,2})\2(\d{4}|\d{2})(?:[ ,]+(\d{1,2}):(\d\d)(?::(\d\d))?\s*([AaPp][Mm])?)?$/.exec(
      text,
    );
  if (!local) return Number.NaN;
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

/** Currencies seen, as small numbers: 0 is none. */
export class Currencies {
  private readonly codes: string[] = [""];
  private readonly exponents: number[] = [2];
  private readonly byBytes = new Map<number, number>();

  /** Number of the currency in these bytes, in either case; −1 where it is no code. */
  read(bytes: Uint8Array, start: number, end: number): number {
    while (start < end && bytes[start] === 0x20) start++;
    while (end > start && bytes[end - 1] === 0x20) end--;
    if (start === end) return 0;
    if (end - start !== 3) return -1;
    const key = ((bytes[start] | 0x20) << 16) | ((bytes[start + 1] | 0x20) << 8) | (bytes[start + 2] | 0x20);
    const known = this.byBytes.get(key);
    if (known !== undefined) return known;
    const code = String.fromCharCode(key >> 16, (key >> 8) & 0xff, key & 0xff);
    if (!/^[a-z]{3}$/.test(code)) return -1;
    this.byBytes.set(key, this.codes.length);
    this.codes.push(code);
    this.exponents.push(currencyExponent(code));
    return this.codes.length - 1;
  }

  readText(code: string | null | undefined): number {
    if (!code) return 0;
    const bytes = new Uint8Array(code.length);
    for (let i = 0; i < code.length; i++) bytes[i] = code.charCodeAt(i) > 127 ? 0 : code.charCodeAt(i);
    return this.read(bytes, 0, bytes.length);
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
