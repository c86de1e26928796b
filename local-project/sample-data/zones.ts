/** Local days in any time zone, quickly enough for tens of thousands of moments. */

export const MINUTE_MS = 60_000;
export const HOUR_MS = 60 * MINUTE_MS;
export const DAY_MS = 24 * HOUR_MS;

const formats = new Map<string, Intl.DateTimeFormat>();
/** Offset in milliseconds for the whole UTC day, or null on a day on which the zone's clocks change. */
const dayOffsets = new Map<string, number | null>();

function computeOffsetMs(zone: string, atMs: number): number {
  let format = formats.get(zone);
  if (!format) {
    format = new Intl.DateTimeFormat("en-US", {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "numeric",
      day: "numeric",
      hour: "numeric",
      minute: "numeric",
      second: "numeric",
    });
    formats.set(zone, format);
  }
  const part: Record<string, number> = {};
  for (const { type, value } of format.formatToParts(atMs)) part[type] = Number(value);
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = part;
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(atMs / 1000) * 1000;
}

function offsetMs(zone: string, atMs: number): number {
  const dayStart = Math.floor(atMs / DAY_MS) * DAY_MS;
  const key = `${zone} ${dayStart}`;
  let offset = dayOffsets.get(key);
  if (offset === undefined) {
    const first = computeOffsetMs(zone, dayStart);
    offset = first === computeOffsetMs(zone, dayStart + DAY_MS) ? first : null;
    dayOffsets.set(key, offset);
  }
  return offset ?? computeOffsetMs(zone, atMs);
}

/** `2026-11-22`: the date on the wall there and then. */
export function localDate(zone: string, atMs: number): string {
  return new Date(atMs + offsetMs(zone, atMs)).toISOString().slice(0, 10);
}

/** 0 to 23. */
export function localHour(zone: string, atMs: number): number {
  return new Date(atMs + offsetMs(zone, atMs)).getUTCHours();
}

/** The instant at which that local date begins (the first one, where clocks go back over midnight). */
export function localMidnight(zone: string, date: string): number {
  const wall = Date.parse(`${date}T00:00:00Z`);
  const guess = wall - offsetMs(zone, wall);
  return wall - offsetMs(zone, guess);
}

/** First day of the month after that of `date`. */
export function nextMonth(date: string): string {
  const [year = 0, month = 1] = date.split("-").map(Number);
  return new Date(Date.UTC(year, month, 1)).toISOString().slice(0, 10);
}

export function nextDay(date: string): string {
  return new Date(Date.parse(`${date}T00:00:00Z`) + DAY_MS).toISOString().slice(0, 10);
}
