/** The drafts that a backtest replays, and the rules and prices in force that they are laid over. */
import { existsSync, readFileSync } from "node:fs";
import { parse as parseYaml } from "yaml";
import { z } from "zod";
import { createBackend } from "../electron/main/backend/backend.ts";
import { listPresets, readPreset } from "../local-project/migrations.ts";
import {
  describeProblem,
  minorUnits,
  type PlanNumbers,
  type PriceBook,
  parsePrices,
  parseRules,
  type Rule,
  type Scenario,
} from "../shared/governance/index.ts";
import { type Arguments, BadArguments, presetNames } from "./backtest-arguments.ts";

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

export const readRules = (path: string): readonly Rule[] => rulesOf(readYaml(path), path);

type PriceRecord = Readonly<Record<string, unknown>>;

/** The prices of a preset. */
export function presetPrices(name: string): readonly PriceRecord[] {
  if (!listPresets().includes(name)) throw new BadArguments(`There is no preset ${name}: ${presetNames()}.`);
  const preset = readPreset(name) as { prices?: readonly PriceRecord[]; currency?: string };
  return (preset.prices ?? []).map((price) => ({ currency: preset.currency ?? "usd", ...price }));
}

export function bookOf(prices: readonly PriceRecord[], from: string): PriceBook {
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
export function readScenario(path: string, prices: readonly PriceRecord[] | null): Scenario {
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
        // A key set to undefined does not count as left out.
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

export async function rulesInForce(given: Arguments): Promise<readonly Rule[]> {
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
export function laidOver(current: readonly Rule[], draft: readonly Rule[]): readonly Rule[] {
  const names = new Set(draft.map((rule) => rule.rule_name));
  return [...current.filter((rule) => !names.has(rule.rule_name)), ...draft];
}
