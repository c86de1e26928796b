/** Numbers and times as people read them. Exact forms are for hover, copy and tables; compact ones for tight places. */

const whole = new Intl.NumberFormat("en");

/** 1234567 → "1,234,567". */
export function formatTokens(tokens: number): string {
  return whole.format(tokens).replace("-", "−");
}

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
    if (Number(text) < 1000 || letter === "T") return `${sign}${whole.format(Number(text))}${letter}`;
  }
  return sign + whole.format(size);
}

/** Signed, for ledgers: "+1,000", "−250", "0". */
export function formatChange(tokens: number): string {
  return tokens > 0 ? `+${formatTokens(tokens)}` : formatTokens(tokens);
}

/** Micro-units as a decimal text, exact: 12345678 → "12.345678". */
function microsToDecimal(micros: number): string {
  const digits = String(Math.abs(micros)).padStart(7, "0");
  return `${micros < 0 ? "-" : ""}${digits.slice(0, -6)}.${digits.slice(-6)}`;
}

const moneyFormats = new Map<string, Intl.NumberFormat>();
function moneyFormat(currency: string, digits: number | undefined): Intl.NumberFormat {
  const key = `${currency}/${digits}`;
  let format = moneyFormats.get(key);
  if (!format) {
    const fraction =
      digits === undefined ? {} : { minimumFractionDigits: digits, maximumFractionDigits: digits };
    format = new Intl.NumberFormat("en-GB", { style: "currency", currency, ...fraction });
    moneyFormats.set(key, format);
  }
  return format;
}

function formatDecimalMoney(decimal: string, currency: string, digits?: number): string {
  const code = currency.trim().toUpperCase();
  // A code we cannot know is written out, not dropped.
  if (!/^[A-Z]{3}$/.test(code)) return `${decimal} ${code}`.trim();
  const text = moneyFormat(code, digits).format(decimal as Intl.StringNumericLiteral);
  return text.replace("-", "−").replaceAll("\u00a0", " ");
}

/** Cost in micro-units for people: "£12.35"; below ten cents with four decimals, so that a call's cost is not "£0.00", and "< £0.0001" for what is less still. */
export function formatCost(micros: number, currency: string): string {
  if (micros === 0) return formatDecimalMoney("0", currency, 2);
  const size = Math.abs(micros);
  if (size < 50) return `< ${formatDecimalMoney("0.0001", currency, 4)}`;
  return formatDecimalMoney(microsToDecimal(micros), currency, size < 100_000 ? 4 : 2);
}

/** All six decimals. */
export function formatExactCost(micros: number, currency: string): string {
  return formatDecimalMoney(microsToDecimal(micros), currency, 6);
}

/** Minor units (pence, cents, yen) for people. `exponent` is the currency's number of decimals. */
export function formatMinorMoney(amountMinor: number, currency: string, exponent: number): string {
  const digits = String(Math.abs(amountMinor)).padStart(exponent + 1, "0");
  const sign = amountMinor < 0 ? "-" : "";
  const decimal =
    exponent === 0 ? sign + digits : `${sign}${digits.slice(0, -exponent)}.${digits.slice(-exponent)}`;
  return formatDecimalMoney(decimal, currency, exponent);
}

export function formatPercent(percent: number): string {
  return `${whole.format(percent)} %`;
}

export function formatBytes(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  if (bytes < 999_500) return `${(bytes / 1e3).toFixed(bytes < 99_950 ? 1 : 0)} kB`;
  if (bytes < 999_500_000) return `${(bytes / 1e6).toFixed(1)} MB`;
  return `${(bytes / 1e9).toFixed(2)} GB`;
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
  if (ago < 86_400_000) return `${Math.floor(ago / 3_600_000)} h ago`;
  return `${whole.format(Math.floor(ago / 86_400_000))} d ago`;
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
  return dateFormat(zone, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false }).format(
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

/** 22 Nov 2026, 14:03:22 Europe/London: never without its zone. */
export function formatInstant(at: string | number, zone: string): string {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "an unknown time";
  return `${formatDay(at, zone)}, ${formatClock(at, zone)} ${zone}`;
}

/** 22 Nov, 14:03 within this year, else with the year. */
export function formatShortInstant(at: string | number, zone: string, nowMs: number): string {
  const day = formatDay(at, zone);
  const year = formatDay(nowMs, zone).slice(-4);
  return `${day.endsWith(year) ? day.slice(0, -5) : day}, ${formatHourMinute(at, zone)}`;
}

/** YYYY-MM-DD of an instant in a zone. */
export function isoDay(at: string | number, zone: string): string {
  const parts = dateFormat(zone, { year: "numeric", month: "2-digit", day: "2-digit" }).formatToParts(
    new Date(at),
  );
  const part = (type: string): string => parts.find((each) => each.type === type)?.value ?? "";
  return `${part("year")}-${part("month")}-${part("day")}`;
}

/** Moves a YYYY-MM-DD by whole days. */
export function addDays(day: string, days: number): string {
  const date = new Date(`${day}T00:00:00Z`);
  date.setUTCDate(date.getUTCDate() + days);
  return date.toISOString().slice(0, 10);
}
