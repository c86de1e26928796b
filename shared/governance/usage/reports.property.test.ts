/**
 * A call is found again in the report of whoever wrote it: nothing free, nothing twice, whatever lies within or beside
 * what. The conventions are in tests/support/models/usage-reports.ts; tests/database/usage holds the SQL to them too.
 */
import { expect, it } from "vitest";
import { strangeReports, usageReports } from "../../../tests/support/models/usage-reports.ts";
import { seeded, sized } from "../../../tests/support/size.ts";
import { readUsage } from "../index.ts";

it("reads each call as it was, from every convention's report", () => {
  for (const report of usageReports(seeded(7), sized(2_000, 100_000))) {
    const read = readUsage(report.response);
    const { input, output, cached, written, written1h, thought } = report;
    expect(read.ok ? read.value.counts : read.error, report.convention).toEqual({
      input_tokens: input,
      output_tokens: output,
      cached_input_tokens: cached,
      cache_write_tokens: written,
      ...(written1h > 0 ? { cache_write_1h_tokens: written1h } : {}),
      reasoning_tokens: thought,
    });
  }
});

it("never counts less than is reported, nor anything twice, however the parts disagree; nor does an estimate", () => {
  const seen = { read: 0, refused: 0 };
  for (const { response, parts, total, details } of strangeReports(seeded(5), sized(5_000, 1_000_000))) {
    const read = readUsage(response);
    const counts = read.ok ? read.value.counts : read.error.at_least;
    if (!counts) continue;
    seen[read.ok ? "read" : "refused"]++;
    const sum = counts.input_tokens + counts.output_tokens;
    const told = JSON.stringify(response);
    expect(sum, told).toBeGreaterThanOrEqual(Math.max(parts, total));
    expect(sum, told).toBeLessThanOrEqual(Math.max(parts, total) + details);
  }
  expect(Math.min(seen.read, seen.refused)).toBeGreaterThan(300);
});
