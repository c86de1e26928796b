import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  dayOf,
  isTimeZone,
  localClock,
  localDay,
  localTime,
  localWeekday,
  monthOf,
  startOfDay,
  zoneOffsetMs,
} from "../index.ts";

const ms = (text: string): number => Date.parse(text);
const hours = (period: { startMs: number; endMs: number }): number =>
  (period.endMs - period.startMs) / 3_600_000;

const zones = [
  "UTC",
  "Europe/London",
  "America/New_York",
  "Asia/Kolkata",
  "Asia/Kathmandu",
  "Pacific/Auckland",
  "Pacific/Kiritimati",
  "Pacific/Pago_Pago",
  "America/St_Johns",
  "Australia/Lord_Howe",
  "Africa/Cairo",
  "America/Sao_Paulo",
  "Asia/Beirut",
];

describe("a local day", () => {
  it.each([
    ["Europe/London", "2026-03-29T12:00:00Z", "2026-03-29T00:00:00.000Z", 23],
    ["Europe/London", "2026-10-25T12:00:00Z", "2026-10-24T23:00:00.000Z", 25],
    ["America/New_York", "2026-03-08T12:00:00Z", "2026-03-08T05:00:00.000Z", 23],
    ["Australia/Lord_Howe", "2026-10-04T02:00:00Z", "2026-10-03T13:30:00.000Z", 23.5],
    ["Asia/Kolkata", "2026-06-01T18:30:00Z", "2026-06-01T18:30:00.000Z", 24],
    ["Pacific/Kiritimati", "2026-06-01T10:00:00Z", "2026-06-01T10:00:00.000Z", 24],
  ])("in %s around %s starts at %s and lasts %d hours", (zone, at, start, length) => {
    const day = dayOf(ms(at), zone);
    expect(new Date(day.startMs).toISOString()).toBe(start);
    expect(hours(day)).toBe(length);
  });

  it("starts at the jump where the clock skips midnight, as PostgreSQL has it", () => {
    // Cairo goes from 00:00 to 01:00 on 24 April 2026.
    expect(new Date(startOfDay(2026, 4, 24, "Africa/Cairo")).toISOString()).toBe("2026-04-23T22:00:00.000Z");
    expect(localClock(startOfDay(2026, 4, 24, "Africa/Cairo"), "Africa/Cairo")).toBe("01:00");
  });

  it("starts at the second midnight where there are two, as PostgreSQL has it", () => {
    // In the Azores the clock goes back from 01:00 to 00:00 on 25 October 2026.
    expect(new Date(startOfDay(2026, 10, 25, "Atlantic/Azores")).toISOString()).toBe(
      "2026-10-25T01:00:00.000Z",
    );
  });

  it("lasts until the second midnight, as the database counts it; so does a month", () => {
    // In Havana the clock goes back from 01:00 to 00:00 on 1 November 2026, and on 7 November 2027.
    const span = ({ startMs, endMs }: { startMs: number; endMs: number }): string[] =>
      [startMs, endMs].map((at) => new Date(at).toISOString().slice(0, 16));
    expect(span(dayOf(ms("2027-11-07T04:29:59Z"), "America/Havana"))).toEqual([
      "2027-11-06T04:00",
      "2027-11-07T05:00",
    ]);
    expect(span(monthOf(ms("2026-11-01T04:29:59Z"), "America/Havana"))).toEqual([
      "2026-10-01T04:00",
      "2026-11-01T05:00",
    ]);
  });

  it("holds the instant, begins where the one before ended, and shows one date, in every zone", () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...zones),
        fc.date({ min: new Date("1995-01-01"), max: new Date("2037-01-01"), noInvalidDate: true }),
        (zone, date) => {
          const at = date.getTime();
          const day = dayOf(at, zone);
          expect(day.startMs <= at && at < day.endMs).toBe(true);
          expect(localDay(day.endMs - 1, zone)).toBe(localDay(at, zone));
          expect(dayOf(day.startMs - 1, zone).endMs).toBe(day.startMs);
          expect(Math.abs(hours(day) - 24)).toBeLessThanOrEqual(1);
          expect(
            at + zoneOffsetMs(at, zone) >=
              Date.UTC(localTime(at, zone).year, localTime(at, zone).month - 1, localTime(at, zone).day),
          ).toBe(true);
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe("a local month", () => {
  it.each([
    ["UTC", "2028-02-29T23:59:59Z", "2028-02-01T00:00:00.000Z", "2028-03-01T00:00:00.000Z"],
    ["Europe/London", "2026-03-31T23:30:00Z", "2026-03-31T23:00:00.000Z", "2026-04-30T23:00:00.000Z"],
    ["America/New_York", "2026-12-31T23:00:00Z", "2026-12-01T05:00:00.000Z", "2027-01-01T05:00:00.000Z"],
  ])("in %s around %s is from %s to %s", (zone, at, start, end) => {
    const month = monthOf(ms(at), zone);
    expect([new Date(month.startMs).toISOString(), new Date(month.endMs).toISOString()]).toEqual([
      start,
      end,
    ]);
  });
});

describe("time zones", () => {
  it("are known by name, and anything else is not", () => {
    expect(["Europe/London", "UTC", "Asia/Kolkata"].every(isTimeZone)).toBe(true);
    for (const zone of ["", "Mars/Olympus", "Europe/London\0", "x".repeat(10_000), "../etc/passwd"])
      expect(isTimeZone(zone)).toBe(false);
    expect(() => localDay(0, "Mars/Olympus")).toThrow(RangeError);
  });

  it("count Monday as 1 and Sunday as 7", () => {
    expect(localWeekday(ms("2026-06-01T00:30:00Z"), "UTC")).toBe(1);
    expect(localWeekday(ms("2026-06-01T00:30:00Z"), "America/New_York")).toBe(7);
  });
});
