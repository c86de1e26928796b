/**
 * `npm run backtest`: replays draft rules or plans over a project's past calls, and says whom they would have hit and
 * what they would have cost.
 */
import { createReadStream, existsSync, readFileSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { parse as parseYaml } from "yaml";
import { z } from "zod";
import { createBackend } from "../electron/main/backend/backend.ts";
import { isUnreachable } from "../electron/main/backend/failures.ts";
import { listPresets, readPreset } from "../local-project/migrations.ts";
import type { Failure } from "../shared/contract/index.ts";
import {
  type BacktestReport,
  compileRules,
  countCharacters,
  describeProblem,
  describeReason,
  describeRule,
  formatCount,
  formatMicro,
  isReplayEvent,
  minorUnits,
  type PlanNumbers,
  type PlanSimulation,
  type PriceBook,
  parsePrices,
  parseRules,
  type ReplayEvent,
  type Result,
  type Rule,
  type Scenario,
  simulatePlans,
  startBacktest,
} from "../shared/governance/index.ts";

const HELP = `npm run backtest -- (--rules FILE | --plans FILE) (--url URL | --events FILE) [options]

Replays drafts over past calls. Nothing is changed anywhere.
Rules: who would have been stopped, warned or sent to another model, what that saves, and which paying customers it hits.
Plans: what other allowances, limits, prices or routes make of each plan's margin, and who would run out and when.

  --rules FILE         draft rules, YAML or JSON: a rule, a list of rules, or a preset with rules
  --plans FILE         draft plans, YAML or JSON; all keys but plan_id may be left out:
                         currency: usd                # of the plans' prices
                         plans:
                           - { plan_id: pro, monthly_allowance: 300000, daily_limit: null, monthly_limit: null,
                               price_minor: 2000, new_price_minor: 2500 }      # a month, now and then
                         routes: { gpt-4o: gpt-4o-mini }
                         prices: [{ provider: openai, model: gpt-4o, input_micros_per_million: 2000000, … }]
  --url URL            the project: its events, and the rules in force that the draft is laid over by name.
                       The service-role key is read from GOVERNANCE_SERVICE_ROLE_KEY
  --events FILE        events as NDJSON instead (- for standard input), as usage_events_since answers them with
                       the filter {"facts": true}
  --current FILE       the rules in force, where there is no --url; without it the draft stands alone
  --alone              replays the draft's rules alone, not laid over those in force
  --since D            events from this day or moment on (with --url; default: the last 7 days)
  --save-events FILE   keeps the events read, to replay them again with --events
  --prices NAME        the prices of models now, as in this preset, for what reroutes cost: ${presetNames()}
  --paying PLAN,…      plans whose customers pay
  --examples N         changed decisions, and accounts that run out, to list (default 20)
  --json               the whole report as JSON
  --help               this text

Exit code: 0 done, 1 the project or a file failed, 2 wrong arguments or a draft that does not hold.
`;

function presetNames(): string {
  try {
    return listPresets().join(", ");
  } catch {
    return "see supabase/presets";
  }
}

/** Wrong arguments or a draft that does not hold. */
class BadArguments extends Error {}

interface Arguments {
  readonly rules: string | null;
  readonly plans: string | null;
  readonly url: string | null;
  readonly key: string;
  readonly events: string | null;
  readonly current: string | null;
  readonly alone: boolean;
  readonly since: string;
  readonly saveEvents: string | null;
  readonly prices: string | null;
  readonly paying: ReadonlySet<string> | null;
  readonly examples: number;
  readonly json: boolean;
}

function readArguments(): Arguments | null {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        rules: text,
        plans: text,
        url: text,
        events: text,
        current: text,
        alone: flag,
        since: text,
        "save-events": text,
        prices: text,
        paying: text,
        examples: text,
        json: flag,
        help: flag,
      },
    }));
  } catch (error) {
    throw new BadArguments((error as Error).message);
  }
  if (values.help) return null;
  if (values.rules === undefined && values.plans === undefined)
    throw new BadArguments("--rules or --plans is missing: name the file with the draft.");
  if ((values.url === undefined) === (values.events === undefined))
    throw new BadArguments("Say where the events are: either --url or --events.");
  if (values.url !== undefined && (!/^https?:\/\//.test(values.url) || !URL.canParse(values.url)))
    throw new BadArguments(`--url "${values.url}" is not an address like https://project.supabase.co.`);
  const key = process.env["GOVERNANCE_SERVICE_ROLE_KEY"] ?? process.env["SUPABASE_SERVICE_ROLE_KEY"] ?? "";
  if (values.url !== undefined && key === "")
    throw new BadArguments(
      "The service-role key is missing: set GOVERNANCE_SERVICE_ROLE_KEY in the environment.",
    );
  const since = values.since ?? new Date(Date.now() - 7 * 86_400_000).toISOString();
  if (Number.isNaN(Date.parse(since))) throw new BadArguments(`--since "${since}" is not a day or a moment.`);
  const examples = Number(values.examples ?? 20);
  if (!Number.isSafeInteger(examples) || examples < 0)
    throw new BadArguments("--examples is a whole number.");
  return {
    rules: values.rules ?? null,
    plans: values.plans ?? null,
    url: values.url ?? null,
    key,
    events: values.events ?? null,
    current: values.current ?? null,
    alone: values.alone ?? false,
    since: new Date(since).toISOString(),
    saveEvents: values["save-events"] ?? null,
    prices: values.prices ?? null,
    paying: values.paying === undefined ? null : new Set(values.paying.split(",").map((plan) => plan.trim())),
    examples,
    json: values.json ?? false,
  };
}

function rulesOf(input: unknown, from: string): readonly Rule[] {
  const list =
    typeof input === "object" && input !== null && "rules" in input
      ? (input as { rules: unknown }).rules
      : Array.isArray(input)
        ? input
        : [input];
  const parsed = parseRules(list);
  if (parsed.ok) return parsed.value;
  throw new BadArguments(
    `${from} does not hold:\n${parsed.error.map((problem) => `  ${describeProblem(problem)}`).join("\n")}`,
  );
}

function readYaml(path: string): unknown {
  if (!existsSync(path)) throw new BadArguments(`There is no file ${path}.`);
  try {
    return parseYaml(readFileSync(path, "utf8"));
  } catch (error) {
    throw new BadArguments(`${path} is neither YAML nor JSON: ${(error as Error).message}`);
  }
}

const readRules = (path: string): readonly Rule[] => rulesOf(readYaml(path), path);

type PriceRecord = Readonly<Record<string, unknown>>;

/** The prices of a preset. */
function presetPrices(name: string): readonly PriceRecord[] {
  if (!listPresets().includes(name)) throw new BadArguments(`There is no preset ${name}: ${presetNames()}.`);
  const preset = readPreset(name) as { prices?: readonly PriceRecord[]; currency?: string };
  return (preset.prices ?? []).map((price) => ({ currency: preset.currency ?? "usd", ...price }));
}

function bookOf(prices: readonly PriceRecord[], from: string): PriceBook {
  const parsed = parsePrices(prices.map((price) => ({ effective_from: "1970-01-01", ...price })));
  if (parsed.ok) return parsed.value;
  throw new BadArguments(
    `The prices of ${from} do not hold:\n${parsed.error.map((each) => `  ${describeProblem(each)}`).join("\n")}`,
  );
}

const whole = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const plansFile = z.strictObject({
  currency: z
    .string()
    .regex(/^[A-Za-z]{3}$/)
    .default("usd"),
  plans: z
    .array(
      z.strictObject({
        plan_id: z.string().min(1),
        monthly_allowance: whole.optional(),
        daily_limit: whole.nullable().optional(),
        monthly_limit: whole.nullable().optional(),
        price_minor: whole.optional(),
        new_price_minor: whole.optional(),
      }),
    )
    .default([]),
  routes: z.record(z.string(), z.string()).default({}),
  prices: z.array(z.record(z.string(), z.unknown())).default([]),
});

/** The scenario of a plans file, over the prices that are in force. */
function readScenario(path: string, prices: readonly PriceRecord[] | null): Scenario {
  const parsed = plansFile.safeParse(readYaml(path) ?? {});
  if (!parsed.success)
    throw new BadArguments(
      `${path} does not hold:\n${parsed.error.issues.map((issue) => `  ${issue.path.join(".")}: ${issue.message}`).join("\n")}`,
    );
  const { currency, plans, routes, prices: changed } = parsed.data;
  if (Object.keys(routes).length > 0 && prices === null && changed.length === 0)
    throw new BadArguments("Routes need to know what models cost: name a preset with --prices.");
  const revenue = (key: "price_minor" | "new_price_minor") =>
    Object.fromEntries(
      plans.flatMap((plan) => {
        const price = plan[key];
        return price === undefined
          ? []
          : [[plan.plan_id, { monthly_price_minor: minorUnits(price), currency: currency.toLowerCase() }]];
      }),
    );
  const models = new Set(changed.map((price) => price["model"]));
  const left = (prices ?? []).filter((price) => !models.has(price["model"]));
  return {
    plans: Object.fromEntries(
      plans.map(({ plan_id, monthly_allowance, daily_limit, monthly_limit }) => [
        plan_id,
        // A key that is there and undefined would not be one that is left out.
        JSON.parse(JSON.stringify({ monthly_allowance, daily_limit, monthly_limit })) as Partial<PlanNumbers>,
      ]),
    ),
    revenue_now: revenue("price_minor"),
    revenue: revenue("new_price_minor"),
    routes,
    ...(prices === null ? {} : { prices_now: bookOf(prices, "the preset") }),
    ...(changed.length === 0
      ? {}
      : { prices: bookOf([...left, ...changed.map((price) => ({ currency, ...price }))], path) }),
  };
}

const page = z.object({ events: z.array(z.unknown()), next_cursor: z.string().nullable() });

/** A page should take about this long: short enough for any server's limit, long enough to get on. */
const pageMs = 1_500;
const mostAttempts = 8;

/**
 * The project's events, page by page: never all of them in memory. A page that takes long makes the next one smaller,
 * one that fails on its way is asked for again; the cursor sees to it that nothing is missed or comes twice.
 */
async function* projectEvents(given: Arguments): AsyncGenerator<unknown> {
  const backend = createBackend({ url: given.url ?? "", key: given.key });
  const progress = tellProgress();
  try {
    let cursor: string | null = null;
    let size = 500;
    for (let attempt = 1; ; ) {
      const startedAt = performance.now();
      const answer: Result<z.output<typeof page>, Failure> = await backend.rpc(
        "usage_events_since",
        { p_cursor: cursor, p_limit: size, p_filter: { facts: true, since: given.since } },
        page,
        { timeoutMs: 60_000 },
      );
      const tookMs = performance.now() - startedAt;
      if (!answer.ok) {
        // 57014: the server's own statement_timeout.
        const isSlow = answer.error.code === "timeout" || answer.error.details?.includes(" 57014 ") === true;
        if (attempt >= mostAttempts || (!isSlow && !isUnreachable(answer.error)))
          throw new Error([answer.error.message, answer.error.advice].filter(Boolean).join(" "));
        if (isSlow) size = Math.max(20, Math.floor(size / 4));
        else await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** attempt));
        attempt++;
        continue;
      }
      attempt = 1;
      const { events, next_cursor: nextCursor }: z.output<typeof page> = answer.value;
      progress(events);
      yield* events;
      // A page that is not full is the end for now: on a busy project there would always be one event more.
      if (events.length < size || nextCursor === null) return;
      cursor = nextCursor;
      size = Math.round(Math.min(5_000, Math.max(20, size * Math.min(2, pageMs / Math.max(1, tookMs)))));
    }
  } finally {
    progress(null);
    await backend.close();
  }
}

/** Says on the error stream how far reading has come, where it takes a while; null when it is over. */
function tellProgress(): (events: readonly unknown[] | null) => void {
  const { stderr } = process;
  const everyMs = stderr.isTTY ? 500 : 10_000;
  let saidAt = performance.now();
  let read = 0;
  return (events) => {
    if (events === null) {
      if (stderr.isTTY) stderr.write("\r\u001b[K");
      return;
    }
    read += events.length;
    const last = events.at(-1);
    if (performance.now() - saidAt < everyMs || !isReplayEvent(last)) return;
    saidAt = performance.now();
    const words = printable(`${formatCount(read)} events read, up to ${moment(last.at)}`);
    stderr.write(stderr.isTTY ? `\r${words}\u001b[K` : `${words}\n`);
  };
}

async function* fileEvents(path: string): AsyncGenerator<unknown> {
  if (path !== "-" && !existsSync(path)) throw new BadArguments(`There is no file ${path}.`);
  const input = path === "-" ? process.stdin : createReadStream(path);
  for await (const line of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
    if (line.trim() === "") continue;
    try {
      yield JSON.parse(line);
    } catch {
      yield null; // counted as malformed
    }
  }
}

/** Keeps events in a file that is there only when it is whole: an earlier one, even the one being read, stays till then. */
async function keepEvents(path: string) {
  const part = `${path}.part`;
  const file = await open(part, "w").catch((error: Error) => {
    throw new BadArguments(`--save-events: ${path} cannot be written (${error.message}).`);
  });
  let lines: string[] = [];
  const flush = async (): Promise<void> => {
    await file.appendFile(lines.join(""));
    lines = [];
  };
  return {
    async write(event: ReplayEvent): Promise<void> {
      if (lines.push(`${JSON.stringify(event)}\n`) >= 1_000) await flush();
    },
    async finish(): Promise<void> {
      await flush();
      await rename(part, path);
    },
    /** What is not finished is nothing. */
    async close(): Promise<void> {
      await file.close();
      await rm(part, { force: true });
    },
  };
}

async function rulesInForce(given: Arguments): Promise<readonly Rule[]> {
  if (given.alone) return [];
  if (given.current !== null) return readRules(given.current);
  if (given.url === null) return [];
  const backend = createBackend({ url: given.url, key: given.key });
  try {
    const answer = await backend.rpc("list_rules", {}, z.unknown(), { retries: 5, timeoutMs: 60_000 });
    if (!answer.ok) throw new Error([answer.error.message, answer.error.advice].filter(Boolean).join(" "));
    return rulesOf(answer.value, "The project's list of rules");
  } finally {
    await backend.close();
  }
}

/** The draft laid over the rules in force: a rule of the same name is replaced. */
function laidOver(current: readonly Rule[], draft: readonly Rule[]): readonly Rule[] {
  const names = new Set(draft.map((rule) => rule.rule_name));
  return [...current.filter((rule) => !names.has(rule.rule_name)), ...draft];
}

function table(rows: readonly (readonly string[])[], rightFrom = 1): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((row) => countCharacters(row[column] ?? ""))),
  );
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) => {
        const space = " ".repeat(Math.max(0, (widths[column] ?? 0) - countCharacters(cell)));
        return column >= rightFrom ? space + cell : cell + space;
      })
      .join("  ")
      .trimEnd();
  return rows.map(line).join("\n");
}

/** "2026-11-22 14:05:09", UTC. */
const moment = (at: string): string =>
  Number.isNaN(Date.parse(at)) ? at : new Date(at).toISOString().slice(0, 19).replace("T", " ");

/** Money as people read it: to the cent, and exactly where it is less than one. */
const moneyIn =
  (currency: string | null) =>
  (micros: number): string => {
    const cents = Math.round(micros / 10_000) * 10_000;
    return `${formatMicro(Math.abs(micros) < 10_000 ? micros : cents)}${currency ? ` ${currency.toUpperCase()}` : ""}`;
  };

function describe(
  report: BacktestReport,
  rules: readonly Rule[],
  draft: readonly Rule[],
  hasPrices: boolean,
): string {
  const money = moneyIn(report.currency);
  const count = formatCount;
  const drafted = new Set(draft.map((rule) => rule.rule_name));
  const lines: string[] = [];
  lines.push("Draft");
  for (const rule of draft) lines.push(`  ${rule.rule_name}: ${describeRule(rule)}`);
  lines.push("");
  lines.push(
    `${count(report.judged)} calls of ${count(report.users)} users judged${report.from && report.to ? `, ${moment(report.from)} to ${moment(report.to)} UTC` : ""}.`,
  );
  const aside: string[] = [];
  if (report.without_facts > 0) aside.push(`${count(report.without_facts)} without facts`);
  if (report.stopped_by_operator > 0)
    aside.push(`${count(report.stopped_by_operator)} stopped by an operator`);
  if (report.malformed > 0) aside.push(`${count(report.malformed)} malformed`);
  if (aside.length > 0) lines.push(`Set aside: ${aside.join(", ")}.`);
  for (const [fact, calls] of Object.entries(report.facts_missing))
    lines.push(
      `Not known of ${count(calls)} calls: ${fact}, ${fact === "message" ? "which is never kept" : "which no rule in force read then"}. Rules that read it show too few hits.`,
    );
  if (!hasPrices && rules.some((rule) => rule.action.route))
    lines.push("What reroutes save is not known: name the prices with --prices.");
  else if (report.rerouted_without_cost > 0)
    lines.push(
      `What ${count(report.rerouted_without_cost)} reroutes save is not known: no price is known for them then.`,
    );
  lines.push("");
  lines.push(
    table([
      ["", "was", "would be"],
      ["allowed", count(report.was.allow), count(report.would_be.allow)],
      ["warned by a rule", count(report.was.warn), count(report.would_be.warn)],
      ["stopped", count(report.was.block), count(report.would_be.block)],
    ]),
  );
  lines.push("");
  lines.push(
    table([
      ["newly stopped", count(report.newly_stopped), `of ${count(report.users_newly_stopped)} users`],
      [
        "newly let through",
        count(report.newly_allowed),
        `about ${count(report.tokens_newly_expected)} tokens`,
      ],
      ["newly warned", count(report.newly_warned), ""],
      ["sent to another model", count(report.rerouted), ""],
      ["shortened", count(report.truncated), ""],
      ["newly flagged users", count(report.newly_flagged_users), ""],
      ["tokens saved", count(report.tokens_saved), ""],
      ["cost saved", money(report.cost_saved_micros), ""],
      [
        "paying users newly stopped",
        report.paying_users_newly_stopped === null ? "?" : count(report.paying_users_newly_stopped),
        report.paying_users_newly_stopped === null ? "say which plans pay: --paying" : "",
      ],
    ]),
  );
  lines.push("");
  const shown = report.rules.filter((rule) => rule.matched > 0 || drafted.has(rule.rule_name));
  lines.push(
    table(
      [
        ["rule", "", "matched", "stops", "newly", "users", "tokens saved", "cost saved", "together with"],
        ...shown.map((rule) => [
          rule.rule_name,
          `${drafted.has(rule.rule_name) ? "draft" : ""}${rule.mode === "shadow" ? " shadow" : ""}`.trim(),
          count(rule.matched),
          count(rule.stopped),
          count(rule.newly_stopped),
          count(rule.users),
          count(rule.tokens_saved),
          money(rule.cost_saved_micros),
          Object.entries(rule.overlap)
            .slice(0, 3)
            .map(([name, times]) => `${name} ${count(times)}`)
            .join(", "),
        ]),
      ],
      2,
    ),
  );
  if (rules.length > shown.length)
    lines.push(
      `${rules.length - shown.length} other rule${rules.length - shown.length === 1 ? "" : "s"} matched nothing.`,
    );
  if (report.changed.length > 0) {
    lines.push("");
    lines.push(`Changed decisions (${count(report.changed.length)} of ${count(report.changed_total)}):`);
    lines.push(
      table(
        [
          ["at (UTC)", "user", "plan", "what", "request"],
          ...report.changed.map((each) => [
            moment(each.at),
            each.user_id,
            each.plan_id ?? "",
            each.words,
            each.request_id,
          ]),
        ],
        5,
      ),
    );
  }
  return `${lines.join("\n")}\n`;
}

function describePlans(report: PlanSimulation): string {
  const money = moneyIn(report.currency);
  const count = formatCount;
  const orNone = (micros: number | null): string => (micros === null ? "?" : money(micros));
  const lines = ["Plans"];
  const sides = report.plans.flatMap((plan) => [
    [
      plan.plan_id,
      "now",
      count(plan.accounts),
      count(plan.active_months),
      count(plan.now.tokens_used),
      money(plan.now.cost_micros),
      orNone(plan.now.revenue_micros),
      orNone(plan.now.margin_micros),
    ],
    [
      "",
      "would be",
      "",
      "",
      count(plan.would_be.tokens_used),
      money(plan.would_be.cost_micros),
      orNone(plan.would_be.revenue_micros),
      orNone(plan.would_be.margin_micros),
    ],
  ]);
  lines.push(
    table(
      [["plan", "", "accounts", "months", "tokens used", "model cost", "revenue", "margin"], ...sides],
      2,
    ),
  );
  if (report.plans.some((plan) => plan.now.revenue_micros === null))
    lines.push(
      "A revenue of ? needs the plan's price_minor; a margin of ? a price in the currency of the cost.",
    );
  lines.push("");
  lines.push(
    table([
      ["plan", "calls refused", "their tokens", "accounts running out", "calls gained", "expected tokens"],
      ...report.plans.map((plan) => [
        plan.plan_id,
        count(plan.calls_refused),
        count(plan.tokens_refused),
        count(plan.accounts_running_out),
        count(plan.calls_gained),
        count(plan.tokens_gained),
      ]),
    ]),
  );
  if (report.calls_not_judged > 0)
    lines.push(`${count(report.calls_not_judged)} calls without a plan or without facts are not judged.`);
  if (report.calls_without_cost > 0)
    lines.push(`${count(report.calls_without_cost)} calls have no known cost: they count as free.`);
  if (report.runs_out.length > 0) {
    lines.push("");
    lines.push(`Would run out (${count(report.runs_out.length)} of ${count(report.runs_out_total)}):`);
    lines.push(
      table(
        [
          ["at (UTC)", "user", "plan", "why"],
          ...report.runs_out.map((each) => [
            moment(each.at),
            each.user_id,
            each.plan_id,
            describeReason(each.why),
          ]),
        ],
        4,
      ),
    );
  }
  return `${lines.join("\n")}\n`;
}

/** What came from outside must not steer the terminal. */
const printable = (text: string): string =>
  text.replace(/[\p{Cc}\p{Bidi_Control}]/gu, (character) => (character === "\n" ? character : "\ufffd"));

async function main(): Promise<number> {
  const given = readArguments();
  if (!given) {
    process.stdout.write(HELP);
    return 0;
  }
  const prices = given.prices === null ? null : presetPrices(given.prices);
  const draft = given.rules === null ? null : readRules(given.rules);
  const plans =
    given.plans === null ? null : simulatePlans(readScenario(given.plans, prices), given.examples);
  const rules = draft === null ? [] : laidOver(await rulesInForce(given), draft);
  const backtest =
    draft === null
      ? null
      : startBacktest({
          draft: compileRules(rules),
          examples: given.examples,
          ...(prices === null ? {} : { prices: bookOf(prices, "the preset") }),
          ...(given.paying === null ? {} : { paying_plans: given.paying }),
        });
  const save = given.saveEvents === null ? null : await keepEvents(given.saveEvents);
  try {
    for await (const event of given.events === null ? projectEvents(given) : fileEvents(given.events)) {
      backtest?.push(event as ReplayEvent);
      plans?.push(event as ReplayEvent);
      if (save && isReplayEvent(event)) await save.write(event);
    }
    await save?.finish();
  } finally {
    await save?.close();
  }
  const report = backtest?.report();
  const simulation = plans?.report();
  if (given.json)
    process.stdout.write(
      `${JSON.stringify({ ...report, ...(simulation ? { plan_simulation: simulation } : {}) }, null, 2)}\n`,
    );
  else
    process.stdout.write(
      printable(
        [
          report && draft ? describe(report, rules, draft, prices !== null) : null,
          simulation ? describePlans(simulation) : null,
        ]
          .filter((text) => text !== null)
          .join("\n"),
      ),
    );
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(
    `${printable((error as Error).message)}${error instanceof BadArguments ? "\n\nSee npm run backtest -- --help." : ""}\n`,
  );
  process.exitCode = error instanceof BadArguments ? 2 : 1;
}
