/**
 * Each provider's usage as its documentation gives it, stored with its source (samples.json): read exactly, by the shape
 * that is named, and named in docs/guides/integrate.md.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type ReadUsage, readUsage, readUsageStream, type UsageProblem } from "./index.ts";
import type { Result } from "../result.ts";

interface Sample {
  readonly provider: string;
  readonly source: string;
  readonly shape: string;
  readonly counts: Readonly<Record<string, number>>;
  readonly response?: unknown;
  readonly stream?: readonly unknown[];
}
const read = (path: string): string => readFileSync(new URL(path, import.meta.url), "utf8");
const samples = JSON.parse(read("./samples.json")) as readonly Sample[];
const page = read("../../../docs/guides/integrate.md");

function usageOf({ response, stream }: Sample): Result<ReadUsage, UsageProblem> {
  if (!stream) return readUsage(response);
  const reader = readUsageStream();
  for (const chunk of stream) reader.push(chunk);
  return reader.result();
}

describe("usage as it comes over the wire", () => {
  it.each(samples.map((sample) => [sample.provider, sample] as const))("of %s is read", (_name, sample) => {
    expect(sample.source).toMatch(/^https:/);
    const usage = usageOf(sample);
    expect(usage).toMatchObject({ ok: true, value: { shape: sample.shape } });
    expect(usage.ok && usage.value.counts).toMatchObject(sample.counts);
  });

  it.each(samples.filter(({ stream }) => stream).map((sample) => [sample.provider, sample] as const))(
    "of %s, cut off before its last event, is said to be unknown and never taken for zero",
    (_name, { stream = [], counts }) => {
      const reader = readUsageStream();
      for (const chunk of stream.slice(0, -1)) reader.push(chunk);
      expect(reader.result().ok).toBe(false);
      expect(counts["output_tokens"]).toBeGreaterThan(0);
      expect(reader.partial().text_length).toBeGreaterThan(0);
    },
  );

  it("is on the page for backend engineers, provider by provider", () => {
    const names = samples.map(({ provider }) => provider.split(/[ ,']/)[0] ?? "");
    expect(names.filter((name) => !page.includes(name))).toEqual([]);
  });
});
