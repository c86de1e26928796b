/**
 * Local days and months of a named time zone, through Intl alone. Instants are milliseconds since 1970 UTC.
 * Weeks start on Monday (1). Source: docs/RULES.md, "Facts"; the server's clock decides, so nothing here asks
 * what time it is.
 */

/** The wall clock of a zone at an instant. */
export interface LocalTime {
  readonly year: number;
  /** 1–12. */
  readonly month: number;
  /** 1–31. */
  readonly day: number;
  /** 0–23. */
  readonly hour: number;
  readonly minute: number;
  readonly second: number;
}

const formats = new Map<string, Intl.DateTimeFormat>();

function formatOf(zone: string): Intl.DateTimeFormat {
  let format = formats.get(zone);
  if (!format) {
    // Throws RangeError for a zone that does not exist: see isTimeZone.
    format = new Intl.DateTimeFormat("en-GB-u-ca-gregory-nu-latn", {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
      era: "short",
    });
    // Zone names come from accounts, so hostile ones must not make this grow: there are about 600 true ones.
    if (formats.size >= 1_000) formats.clear();
    formats.set(zone, format);
  }
  return format;
}

/** True for a zone name this runtime knows, e.g. "Europe/London" or "UTC". */
export function isTimeZone(zone: string): boolean {
  try {
    formatOf(zone);
    return true;
  } catch {
    return false;
  }
}

/** The wall clock of a zone. Throws RangeError for an unknown zone or an instant that is not one. */
export function localTime(instantMs: number, zone: string): LocalTime {
  const parts: Record<string, number> = {};
  let before = false;
  for (const part of formatOf(zone).formatToParts(instantMs)) {
    if (part.type === "era") before = part.value.startsWith("B");
    else if (part.type !== "literal") parts[part.type] = Number(part.value);
  }
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts;
  return { year: before ? 1 - year : year, month, day, hour, minute, second };
}

/** Milliseconds by which the zone's wall clock is ahead of UTC. */
export function zoneOffsetMs(instantMs: number, zone: string): number {
  const { year, month, day, hour, minute, second } = localTime(instantMs, zone);
  const wall = Date.UTC(year, month - 1, day, hour, minute, second);
  return wall - Math.floor(instantMs / 1000) * 1000;
}

/** The local date as "2026-11-22". */
export function localDay(instantMs: number, zone: string): string {
  const { year, month, day } = localTime(instantMs, zone);
  return `${String(year).padStart(4, "0")}-${String(month).padStart(2, "0")}-${String(day).padStart(2, "0")}`;
}

/** 1 (Monday) to 7 (Sunday). */
export function localWeekday(instantMs: number, zone: string): number {
  const { year, month, day } = localTime(instantMs, zone);
  return new Date(Date.UTC(year, month - 1, day)).getUTCDay() || 7;
}

/**
 * The instant of a local midnight, as PostgreSQL reads `date::timestamp at time zone`: where midnight comes twice it is
 * the second; where the clock jumps over it, the one by the clock before the jump. Days and months beyond their range
 * carry over (32 October is 1 November).
 */
export function startOfDay(year: number, month: number, day: number, zone: string): number {
  const wall = Date.UTC(year, month - 1, day);
  // Offsets run from −12 h to +14 h, so the zone's rules around midnight are those of these two instants.
  const before = wall - zoneOffsetMs(wall - 24 * 3_600_000, zone);
  const after = wall - zoneOffsetMs(wall + 24 * 3_600_000, zone);
  const isMidnight = (instantMs: number): boolean => instantMs + zoneOffsetMs(instantMs, zone) === wall;
  return isMidnight(after) ? after : before;
}

/** A span of local time as instants: `start` included, `end` not. */
export interface LocalPeriod {
  readonly startMs: number;
  readonly endMs: number;
}

/** The span that holds an instant: where midnight comes twice, what lies between the two is of the span before. */
function spanAround(instantMs: number, startOf: (place: number) => number): LocalPeriod {
  const place = instantMs < startOf(0) ? -1 : 0;
  return { startMs: startOf(place), endMs: startOf(place + 1) };
}

/** The local day around an instant. 23 or 25 hours long where the clocks change. */
export function dayOf(instantMs: number, zone: string): LocalPeriod {
  const { year, month, day } = localTime(instantMs, zone);
  return spanAround(instantMs, (place) => startOfDay(year, month, day + place, zone));
}

/** The local month around an instant. */
export function monthOf(instantMs: number, zone: string): LocalPeriod {
  const { year, month } = localTime(instantMs, zone);
  return spanAround(instantMs, (place) => startOfDay(year, month + place, 1, zone));
}

/** Local clock to the minute, as "00:00". */
export function localClock(instantMs: number, zone: string): string {
  const { hour, minute } = localTime(instantMs, zone);
  return `${String(hour).padStart(2, "0")}:${String(minute).padStart(2, "0")}`;
}
