/** The core against what it could at best cost: rules against hand-written ifs, a backtest and usage against reading. */
import {
  compileRules,
  type Facts,
  parseRules,
  type ReplayEvent,
  readThreshold,
  readUsageStream,
  startBacktest,
  thresholdsOf,
} from "../shared/governance/index.ts";
import {
  byHand,
  factsOfCall,
  plainByHand,
  plainRules,
  plan,
  ruleRecords,
  type Verdict,
} from "./cases/rules.ts";
import { alternate, type BenchResult, round } from "./measure.ts";

const parsed = parseRules(ruleRecords.map((rule, index) => ({ priority: index, ...rule })));
if (!parsed.ok) throw new Error(JSON.stringify(parsed.error));
const rules = parsed.value;

const context = { plan, providerOf: () => null };

/** Time that this process has computed, in ms: what others do on the machine is not counted on either side. */
function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}

async function measureRules(
  bench: string,
  evaluate: (facts: Facts) => { readonly decision: string },
  hand: (facts: Facts) => { readonly decision: string },
  required: number,
): Promise<BenchResult> {
  const facts = Array.from({ length: 1_000 }, (_, index) => factsOfCall(index));
  let stopped = 0;
  const turns = 300;
  // Kept, as a caller would: else the floor's answers are never even made.
  let kept: { readonly decision: string } | null = null;
  // Two loops, one for each: a shared one would make both calls slow in the same way.
  const ours = (): number => {
    const started = cpuMs();
    for (let turn = 0; turn < turns; turn++)
      for (const each of facts) {
        kept = evaluate(each);
        if (kept.decision === "block") stopped++;
      }
    return ((cpuMs() - started) * 1e6) / (turns * facts.length);
  };
  const floor = (): number => {
    const started = cpuMs();
    for (let turn = 0; turn < turns; turn++)
      for (const each of facts) {
        kept = hand(each);
        if (kept.decision === "block") stopped++;
      }
    return ((cpuMs() - started) * 1e6) / (turns * facts.length);
  };
  const result = await alternate(7, ours, floor);
  return {
    bench,
    ratio: round(result.ratio),
    better: "lower",
    required,
    figures: {
      ours_ns: round(result.ours),
      floor_ns: round(result.floor),
      stopped,
      last: kept === null ? "" : "kept",
    },
  };
}

async function benchPlainRules(): Promise<BenchResult> {
  const plainParsed = parseRules(plainRules);
  if (!plainParsed.ok) throw new Error(JSON.stringify(plainParsed.error));
  const compiled = compileRules(plainParsed.value);
  for (let index = 0; index < 1_000; index++) {
    const ours = compiled.evaluate(factsOfCall(index), context);
    const hand = plainByHand(factsOfCall(index));
    if (ours.decision !== hand.decision || ours.warnings.length !== hand.warnings)
      throw new Error("The rules and the ifs differ");
  }
  return measureRules(
    "core: 20 bare comparisons ÷ the same by hand",
    (each) => compiled.evaluate(each, context),
    plainByHand,
    // An `if` on a bare comparison costs 2 ns: the hardest case for the limit that all rules have.
    10,
  );
}

async function benchRules(): Promise<BenchResult> {
  const compiled = compileRules(rules);
  for (let index = 0; index < 1_000; index++) {
    const each = factsOfCall(index);
    const ours = compiled.evaluate(each, context);
    const hand = byHand(each);
    const same: Verdict = { ...hand, warnings: ours.warnings.map((warning) => warning.message) };
    for (const key of Object.keys(hand) as (keyof Verdict)[])
      if (JSON.stringify(key === "warnings" ? same.warnings : ours[key]) !== JSON.stringify(hand[key]))
        throw new Error(`The rules and the ifs differ in ${key} on ${JSON.stringify(each)}`);
  }
  return measureRules(
    "core: 20 rules ÷ the same by hand",
    (each) => compiled.evaluate(each, context),
    byHand,
    10,
  );
}

/** Calls as in the feed, some with their settlements. */
function eventLines(): readonly string[] {
  const lines: string[] = [];
  for (let index = 0; lines.length < 20_000; index++) {
    const { message: _, ...facts } = factsOfCall(index);
    const blocked = index % 10 === 0;
    const base = {
      event_id: index,
      at: new Date(Date.UTC(2026, 5, 1) + index * 1_000).toISOString(),
      request_id: `request-${index}`,
      decision_id: index,
      user_id: `user-${index % 997}`,
      display_name: `User ${index % 997}`,
      plan_id: facts.plan,
      requested_model: facts.model,
      model: facts.model,
      task_type: facts.task_type,
      input_tokens: null,
      output_tokens: null,
      cost_micros: null,
      currency: "usd",
    };
    lines.push(
      JSON.stringify({
        ...base,
        kind: blocked ? "blocked" : "authorized",
        decision: blocked ? "block" : "allow",
        reason: blocked ? "daily_limit" : null,
        tokens: facts.estimated_tokens,
        facts,
        plan,
        local_day: "2026-06-01",
        matched: ["r04"],
      }),
    );
    if (!blocked)
      lines.push(
        JSON.stringify({
          ...base,
          kind: "settled",
          decision: "allow",
          reason: null,
          tokens: 700,
          input_tokens: 500,
          output_tokens: 200,
          cost_micros: 3_100,
        }),
      );
  }
  return lines;
}

async function benchBacktest(events: number): Promise<BenchResult> {
  const lines = eventLines();
  const draft = compileRules(rules);
  let checked = 0;
  const read = (take: (event: ReplayEvent) => void): number => {
    const started = cpuMs();
    for (let index = 0; index < events; index++)
      take(JSON.parse(lines[index % lines.length] as string) as ReplayEvent);
    return cpuMs() - started;
  };
  let judged = 0;
  const result = await alternate(
    5,
    () => {
      const backtest = startBacktest({ draft });
      const took = read((event) => backtest.push(event));
      judged = backtest.report().judged;
      return took;
    },
    () => read((event) => void (checked += event.tokens)),
  );
  return {
    bench: `core: backtest of ${events} events × 20 rules ÷ parsing them`,
    ratio: round(result.ratio),
    better: "lower",
    required: 5,
    figures: { ours_ms: round(result.ours, 0), floor_ms: round(result.floor, 0), judged, checked },
  };
}

/** A number is dragged over past calls: they are read once, and every step of the drag is a look into the curve. */
async function benchThreshold(events: number): Promise<BenchResult> {
  const lines = eventLines();
  const read = parseRules([
    {
      rule_name: "dragged",
      conditions: { all: [{ fact: "estimated_tokens", op: ">", value: 500 }] },
      action: { block: { reason: "dragged" } },
    },
  ]);
  const rule = read.ok ? read.value[0] : undefined;
  const threshold = rule && thresholdsOf(rule)[0];
  if (!rule || !threshold) throw new Error("The rule has no number to drag.");
  const past = Array.from({ length: events }, (_, index) => ({
    ...(JSON.parse(lines[index % lines.length] as string) as ReplayEvent),
    request_id: `r${index >> 1}`,
  }));
  let checked = 0;
  let points = 0;
  const result = await alternate(
    5,
    () => {
      const started = cpuMs();
      const reader = readThreshold(rule, threshold);
      for (const event of past) reader.push(event);
      points = reader.curve().points.length;
      return cpuMs() - started;
    },
    () => {
      const started = cpuMs();
      for (let index = 0; index < events; index++)
        checked += (JSON.parse(lines[index % lines.length] as string) as ReplayEvent).tokens;
      return cpuMs() - started;
    },
  );
  return {
    bench: `core: every value of a dragged number over ${events} events ÷ parsing them`,
    ratio: round(result.ratio),
    better: "lower",
    required: 2,
    figures: { ours_ms: round(result.ours, 0), floor_ms: round(result.floor, 0), points, checked },
  };
}

async function benchUsage(): Promise<BenchResult> {
  const chunk = (content: string, usage: unknown): string =>
    JSON.stringify({
      id: "chatcmpl-123",
      object: "chat.completion.chunk",
      created: 1_694_268_190,
      model: "gpt-4o-mini",
      system_fingerprint: "fp_44709d6fcb",
      choices: usage ? [] : [{ index: 0, delta: { content }, logprobs: null, finish_reason: null }],
      usage,
    });
  const lines = Array.from({ length: 9_999 }, (_, index) => chunk(` word${index}`, null));
  lines.push(chunk("", { prompt_tokens: 900, completion_tokens: 9_999, total_tokens: 10_899 }));
  async function* stream(): AsyncGenerator<unknown> {
    for (const line of lines) yield JSON.parse(line);
  }
  const turns = 10;
  let total = 0;
  const time = async (once: () => Promise<void>): Promise<number> => {
    const started = cpuMs();
    for (let turn = 0; turn < turns; turn++) await once();
    return (cpuMs() - started) / turns;
  };
  const result = await alternate(
    7,
    () =>
      time(async () => {
        const usage = readUsageStream();
        for await (const each of stream()) usage.push(each);
        const read = usage.result();
        if (!read.ok) throw new Error(read.error.message);
        total += read.value.counts.output_tokens;
      }),
    () =>
      time(async () => {
        for await (const each of stream()) if (each === null) total++;
      }),
  );
  return {
    bench: "core: usage of a 10,000-chunk stream ÷ reading it",
    ratio: round(result.ratio),
    better: "lower",
    required: 1.5,
    figures: { ours_ms: round(result.ours), floor_ms: round(result.floor), total },
  };
}

export async function run(): Promise<readonly BenchResult[]> {
  return [
    await benchRules(),
    await benchPlainRules(),
    await benchBacktest(1_000_000),
    await benchThreshold(100_000),
    await benchUsage(),
  ];
}
