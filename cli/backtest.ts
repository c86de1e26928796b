/** `npm run backtest`: replays a draft rule over a project's past calls, and says whom it would have hit. */
import { createReadStream, createWriteStream, existsSync, readFileSync } from "node:fs";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { parse as parseYaml } from "yaml";
import { z } from "zod";
import { createBackend } from "../electron/main/backend/backend.ts";
import { listPresets, readPreset } from "../local-project/migrations.ts";
import type { Failure } from "../shared/contract/index.ts";
import {
  type BacktestReport,
  compileRules,
  countCharacters,
  describeProblem,
  describeRule,
  formatCount,
  formatMicro,
  isReplayEvent,
  type PriceBook,
  parsePrices,
  parseRules,
  type ReplayEvent,
  type Result,
  type Rule,
  startBacktest,
} from "../shared/governance/index.ts";

const HELP = `npm run backtest -- --rules FILE (--url URL | --events FILE) [options]

Replays draft rules over past calls: who would have been stopped, warned or sent to another model, what that saves,
and which paying customers it hits. Nothing is changed anywhere.

  --rules FILE         the draft, YAML or JSON: a rule, a list of rules, or a preset with rules
  --url URL            the project: its events, and the rules in force that the draft is laid over by name.
                       The service-role key is read from GOVERNANCE_SERVICE_ROLE_KEY
  --events FILE        events as NDJSON instead (- for standard input), as usage_events_since answers them with
                       the filter {"facts": true}
  --current FILE       the rules in force, where there is no --url; without it the draft stands alone
  --alone              replays the draft's rules alone, not laid over those in force
  --since D            events from this day or moment on (with --url; default: the last 7 days)
  --save-events FILE   keeps the events read, to replay them again with --events
  --prices NAME        prices of this preset, for what reroutes cost: ${presetNames()}
  --paying PLAN,…      plans whose customers pay
  --examples N         changed decisions to list (default 20)
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
class BadCall extends Error {}

interface Call {
  readonly rules: string;
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

function readCall(): Call | null {
  const text = { type: "string" } as const;
  const flag = { type: "boolean" } as const;
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        rules: text,
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
    throw new BadCall((error as Error).message);
  }
  if (values.help) return null;
  if (values.rules === undefined) throw new BadCall("--rules is missing: name the file with the draft.");
  if ((values.url === undefined) === (values.events === undefined))
    throw new BadCall("Say where the events are: either --url or --events.");
  if (values.url !== undefined && (!/^https?:\/\//.test(values.url) || !URL.canParse(values.url)))
    throw new BadCall(`--url "${values.url}" is not an address like https://project.supabase.co.`);
  const key = process.env["GOVERNANCE_SERVICE_ROLE_KEY"] ?? process.env["SUPABASE_SERVICE_ROLE_KEY"] ?? "";
  if (values.url !== undefined && key === "")
    throw new BadCall("The service-role key is missing: set GOVERNANCE_SERVICE_ROLE_KEY in the environment.");
  const since = values.since ?? new Date(Date.now() - 7 * 86_400_000).toISOString();
  if (Number.isNaN(Date.parse(since))) throw new BadCall(`--since "${since}" is not a day or a moment.`);
  const examples = Number(values.examples ?? 20);
  if (!Number.isSafeInteger(examples) || examples < 0) throw new BadCall("--examples is a whole number.");
  return {
    rules: values.rules,
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
  throw new BadCall(
    `${from} does not hold:\n${parsed.error.map((problem) => `  ${describeProblem(problem)}`).join("\n")}`,
  );
}

function readRules(path: string): readonly Rule[] {
  if (!existsSync(path)) throw new BadCall(`There is no file ${path}.`);
  let content: unknown;
  try {
    content = parseYaml(readFileSync(path, "utf8"));
  } catch (error) {
    throw new BadCall(`${path} is neither YAML nor JSON: ${(error as Error).message}`);
  }
  return rulesOf(content, path);
}

function readPrices(name: string): PriceBook {
  const preset = readPreset(name) as { prices?: unknown; currency?: string };
  const prices = (Array.isArray(preset.prices) ? preset.prices : []) as Record<string, unknown>[];
  const parsed = parsePrices(
    prices.map((price) => ({ currency: preset.currency ?? "usd", effective_from: "1970-01-01", ...price })),
  );
  if (!parsed.ok)
    throw new BadCall(`The prices of ${name} do not hold: ${parsed.error.map(describeProblem).join(" ")}`);
  return parsed.value;
}

const page = z.object({ events: z.array(z.unknown()), next_cursor: z.string().nullable() });

/** The project's events, page by page: never all of them in memory. */
async function* projectEvents(call: Call): AsyncGenerator<unknown> {
  const backend = createBackend({ url: call.url ?? "", key: call.key });
  try {
    let cursor: string | null = null;
    for (;;) {
      const answer: Result<z.output<typeof page>, Failure> = await backend.rpc(
        "usage_events_since",
        { p_cursor: cursor, p_limit: 2_000, p_filter: { facts: true, since: call.since } },
        page,
        { retries: 3, timeoutMs: 60_000 },
      );
      if (!answer.ok) throw new Error(answer.error.message);
      yield* answer.value.events;
      cursor = answer.value.next_cursor;
      if (answer.value.events.length === 0 || cursor === null) return;
    }
  } finally {
    await backend.close();
  }
}

async function* fileEvents(path: string): AsyncGenerator<unknown> {
  if (path !== "-" && !existsSync(path)) throw new BadCall(`There is no file ${path}.`);
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

async function rulesInForce(call: Call): Promise<readonly Rule[]> {
  if (call.alone) return [];
  if (call.current !== null) return readRules(call.current);
  if (call.url === null) return [];
  const backend = createBackend({ url: call.url, key: call.key });
  try {
    const answer = await backend.rpc("list_rules", {}, z.unknown(), { retries: 3, timeoutMs: 60_000 });
    if (!answer.ok) throw new Error(answer.error.message);
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

function describe(report: BacktestReport, rules: readonly Rule[], draft: readonly Rule[]): string {
  const money = (micros: number): string =>
    `${formatMicro(micros)}${report.currency ? ` ${report.currency.toUpperCase()}` : ""}`;
  const count = formatCount;
  const drafted = new Set(draft.map((rule) => rule.rule_name));
  const lines: string[] = [];
  lines.push("Draft");
  for (const rule of draft) lines.push(`  ${rule.rule_name}: ${describeRule(rule)}`);
  lines.push("");
  lines.push(
    `${count(report.judged)} calls judged${report.from ? `, ${report.from} to ${report.to}` : ""}; ${count(report.users)} users.`,
  );
  const aside: string[] = [];
  if (report.without_facts > 0) aside.push(`${count(report.without_facts)} without facts`);
  if (report.stopped_by_operator > 0)
    aside.push(`${count(report.stopped_by_operator)} stopped by an operator`);
  if (report.malformed > 0) aside.push(`${count(report.malformed)} malformed`);
  if (aside.length > 0) lines.push(`Set aside: ${aside.join(", ")}.`);
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
  if (rules.length > shown.length) lines.push(`${rules.length - shown.length} other rules matched nothing.`);
  if (report.changed.length > 0) {
    lines.push("");
    lines.push(`Changed decisions (${count(report.changed.length)} of ${count(report.changed_total)}):`);
    lines.push(
      table(
        [
          ["at", "user", "plan", "request", "what"],
          ...report.changed.map((each) => [
            each.at,
            each.user_id,
            each.plan_id ?? "",
            each.request_id,
            each.words,
          ]),
        ],
        5,
      ),
    );
  }
  return `${lines.join("\n")}\n`;
}

/** What came from outside must not steer the terminal. */
const printable = (text: string): string =>
  text.replace(/[\p{Cc}\p{Bidi_Control}]/gu, (character) => (character === "\n" ? character : "\ufffd"));

async function main(): Promise<number> {
  const call = readCall();
  if (!call) {
    process.stdout.write(HELP);
    return 0;
  }
  const draft = readRules(call.rules);
  const rules = laidOver(await rulesInForce(call), draft);
  const backtest = startBacktest({
    draft: compileRules(rules),
    examples: call.examples,
    ...(call.prices === null ? {} : { prices: readPrices(call.prices) }),
    ...(call.paying === null ? {} : { paying_plans: call.paying }),
  });
  const save = call.saveEvents === null ? null : createWriteStream(call.saveEvents);
  for await (const event of call.events === null ? projectEvents(call) : fileEvents(call.events)) {
    backtest.push(event as ReplayEvent);
    if (save && isReplayEvent(event) && !save.write(`${JSON.stringify(event)}\n`)) await once(save, "drain");
  }
  if (save) {
    save.end();
    await once(save, "close");
  }
  const report = backtest.report();
  process.stdout.write(
    call.json ? `${JSON.stringify(report, null, 2)}\n` : printable(describe(report, rules, draft)),
  );
  return 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(
    `${printable((error as Error).message)}${error instanceof BadCall ? "\n\nSee npm run backtest -- --help." : ""}\n`,
  );
  process.exitCode = error instanceof BadCall ? 2 : 1;
}
