/** Numbers and times as people read them. Exact forms are for hover, copy and tables; compact ones for tight places. */

import {
  showCost,
  showCount,
  showDecimalMoney,
  showPercent,
} from "../../../shared/governance/money/shown.ts";
import { periodOfKey } from "../../../shared/governance/time/period.ts";
import { wordInLanguage } from "../../../shared/language/index.ts";

const whole = new Intl.NumberFormat("en");
/** With so many decimals. */
const fixed = (value: number, digits: number): string =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** Exact below 10,000, then three or four figures with k, M, B or T: 12.3k, 999.9k, 1.25M. */
export function formatCompact(value: number): string {
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  if (size < 10_000) return sign + whole.format(size);
  const units: readonly (readonly [number, string])[] = [
    [1e3, "k"],
    [1e6, "M"],
    [1e9, "B"],
    [1e12, "T"],
  ];
  for (const [unit, letter] of units) {
    const scaled = size / unit;
    const digits = unit > 1e3 && scaled < 9.995 ? 2 : 1;
    const text = scaled.toFixed(digits);
    // 999,950 must not read "1000.0k".
    if (Number(text) < 1000 || letter === "T")
      return `${sign}${whole.format(Number(text))}${wordInLanguage(letter)}`;
  }
  return sign + whole.format(size);
}

/** Signed, for ledgers: "+1,000", "−250", "0". */
export function formatChange(tokens: number): string {
  return tokens > 0 ? `+${formatTokens(tokens)}` : formatTokens(tokens);
}

/** 1234567 → "1,234,567". */
export const formatTokens = showCount;

/** A sum of costs, in micro-units, for people: "£12.35", always to the cent; "< £0.01" for what is less still. */
export const formatCost = (micros: number, currency: string): string => showCost(micros, currency);

/** What one call costs: always four decimals, so that it is not "£0.00" and a column of calls can be compared. */
export const formatCallCost = (micros: number, currency: string): string => showCost(micros, currency, 4);

/** All six decimals. */
export const formatExactCost = (micros: number, currency: string): string => showCost(micros, currency, 6);

/** Minor units (pence, cents, yen) for people. `exponent` is the currency's number of decimals. */
export function formatMinorMoney(amountMinor: number, currency: string, exponent: number): string {
  const digits = String(Math.abs(amountMinor)).padStart(exponent + 1, "0");
  const sign = amountMinor < 0 ? "-" : "";
  const decimal =
    exponent === 0 ? sign + digits : `${sign}${digits.slice(0, -exponent)}.${digits.slice(-exponent)}`;
  return showDecimalMoney(decimal, currency, exponent);
}

export const formatPercent = showPercent;

export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 999_500) return `${fixed(bytes / 1e3, bytes < 99_950 ? 1 : 0)} kB`;
  if (bytes < 999_500_000) return `${fixed(bytes / 1e6, 1)} MB`;
  return `${fixed(bytes / 1e9, 2)} GB`;
}

/** A span in its two largest units: "45 s", "3 h 12 m", "2 d 4 h". Never negative. */
export function formatDuration(milliseconds: number): string {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return minutes < 5 && seconds % 60 ? `${minutes} m ${seconds % 60} s` : `${minutes} m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 ? `${hours} h ${minutes % 60} m` : `${hours} h`;
  const days = Math.floor(hours / 24);
  return days < 14 && hours % 24 ? `${days} d ${hours % 24} h` : `${whole.format(days)} d`;
}

/** "just now", "12 s ago", "3 h ago", "in 3 h 12 m". */
export function formatRelative(at: string | number, nowMs: number): string {
  const atMs = typeof at === "number" ? at : Date.parse(at);
  if (Number.isNaN(atMs)) return "at an unknown time";
  const away = atMs - nowMs;
  if (away > 1500) return `in ${formatDuration(away)}`;
  const ago = -away;
  if (ago < 5000) return "just now";
  if (ago < 60_000) return `${Math.floor(ago / 1000)} s ago`;
  if (ago < 3_600_000) return `${Math.floor(ago / 60_000)} m ago`;
  if (ago < dayMs) return `${Math.floor(ago / 3_600_000)} h ago`;
  return `${whole.format(Math.floor(ago / dayMs))} d ago`;
}

const dateFormats = new Map<string, Intl.DateTimeFormat>();
function dateFormat(zone: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  const key = `${zone}/${JSON.stringify(options)}`;
  let format = dateFormats.get(key);
  if (!format) {
    try {
      format = new Intl.DateTimeFormat("en-GB", { ...options, timeZone: zone });
    } catch {
      format = new Intl.DateTimeFormat("en-GB", { ...options, timeZone: "UTC" });
    }
    dateFormats.set(key, format);
  }
  return format;
}

/** The zone the machine is set to. */
export function viewerZone(): string {
  return Intl.DateTimeFormat().resolvedOptions().timeZone;
}

/** 14:03:22 */
export function formatClock(at: string | number, zone: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "—";
  return dateFormat(zone, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }).format(
    date,
  );
}

/** 14:03 */
export function formatHourMinute(at: string | number, zone: string): string {
  return formatClock(at, zone).slice(0, 5);
}

/** 22 Nov 2026 */
export function formatDay(at: string | number, zone: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "—";
  return dateFormat(zone, { day: "numeric", month: "short", year: "numeric" }).format(date);
}

/** 22 Nov */
export function formatShortDay(at: string | number, zone: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "—";
  return dateFormat(zone, { day: "numeric", month: "short" }).format(date);
}

/** Nov 2026 */
export function formatMonth(at: string | number, zone: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "—";
  return dateFormat(zone, { month: "short", year: "numeric" }).format(date);
}

/** A period by its key: "5 March 2027", "the week from 4 January 2027", "March 2027", "2027"; null for what is none. */
export function formatPeriod(key: string): string | null {
  const period = periodOfKey(key);
  if (period === null) return null;
  const said = (options: Intl.DateTimeFormatOptions): string =>
    dateFormat("UTC", { ...options, month: "long", year: "numeric" }).format(
      new Date(`${period.from}T00:00:00Z`),
    );
  const day = said({ day: "numeric" });
  return { day, week: `the week from ${day}`, month: said({}), year: key }[period.unit];
}

/** 22 Nov 2026, 14:03:22 Europe/London: never without its zone. */
export function formatInstant(at: string | number, zone: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "an unknown time";
  return `${formatDay(at, zone)}, ${formatClock(at, zone)} ${zone}`;
}

/** 22 Nov, 14:03 within this year, else with the year. */
export function formatShortInstant(at: string | number, zone: string, nowMs: number): string {
  if (Number.isNaN(new Date(at).getTime())) return "—";
  const isThisYear = isoDay(at, zone).slice(0, 4) === isoDay(nowMs, zone).slice(0, 4);
  const day = isThisYear ? formatShortDay(at, zone) : formatDay(at, zone);
  return `${day}, ${formatHourMinute(at, zone)}`;
}

/** YYYY-MM-DD of an instant in a zone. */
export function isoDay(at: string | number, zone: string): string {
  const parts = dateFormat(zone, { year: "numeric", month: "2-digit", day: "2-digit" }).formatToParts(
    new Date(at),
  );
  const part = (type: string): string => parts.find((each) => each.type === type)?.value ?? "";
  return `${part("year")}-${part("month")}-${part("day")}`;
}

export const dayMs = 86_400_000;

/** How many days these are, the first and the last included. */
export function daysIn({ from, to }: { readonly from: string; readonly to: string }): number {
  return Math.round((Date.parse(to) - Date.parse(from)) / dayMs) + 1;
}

/** Moves a YYYY-MM-DD by whole days. */
export function addDays(day: string, days: number): string {
  const date = new Date(`${day}T00:00:00Z`);
  date.setUTCDate(date.getUTCDate() + days);
  return date.toISOString().slice(0, 10);
}
