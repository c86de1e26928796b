/** The arguments of `npm run backtest`. */
import { parseArgs } from "node:util";
import { listPresets } from "../local-project/migrations.ts";

export const HELP = `npm run backtest -- (--rules FILE | --plans FILE) (--url URL | --events FILE) [options]

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

export function presetNames(): string {
  try {
    return listPresets().join(", ");
  } catch {
    return "see supabase/presets";
  }
}

/** Wrong arguments or an invalid draft. */
export class BadArguments extends Error {}

export interface Arguments {
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

export function readArguments(): Arguments | null {
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
