/** Replays past usage under plans and prices as they would be: margin now and then, who runs out and when. */
import type { z } from "zod";
import type { Failure, SimulationRun, WantedChange } from "../../../../shared/contract/index.ts";
import {
  type ConfigRecord,
  type PlanNumbers,
  parsePrices,
  type PlanRevenue,
  minorUnits,
  type Scenario,
} from "../../../../shared/governance/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { notConnected } from "../connection/link.ts";
import type { Answer, DeskContext } from "../desk-context.ts";
import type { Handlers, Log } from "../dispatch.ts";
import { createJudgedRuns } from "../rules/judged-runs.ts";
import type { PastJudge } from "../rules/past-judge.ts";
import type { configAnswer } from "./records.ts";

export interface SimulationOptions {
  readonly desk: DeskContext;
  readonly judge: PastJudge;
  readonly log: Log;
}

type Configuration = z.output<typeof configAnswer>;
type Asked = Parameters<Handlers["plans.simulate"]>[0];

/** The numbers of a plan's record that decide. */
function planNumbers(record: ConfigRecord): Partial<PlanNumbers> {
  const number = (name: string): number | null => {
    const value = record[name];
    return typeof value === "number" ? value : null;
  };
  return {
    monthly_allowance: number("monthly_allowance") ?? 0,
    daily_limit: number("daily_limit"),
    monthly_limit: number("monthly_limit"),
  };
}

/** Prices as they are, and as the changes leave them. */
function priceLists(
  { records }: Configuration,
  changes: readonly WantedChange[],
): { readonly now: readonly ConfigRecord[]; readonly wanted: readonly ConfigRecord[] } {
  const now = records.filter(({ kind }) => kind === "price");
  const wanted = new Map(
    changes.filter(({ kind }) => kind === "price").map(({ key, record }) => [key, record]),
  );
  const kept = now.filter(({ key }) => !wanted.has(key)).map(({ record }) => record);
  const changed = [...wanted.values()].filter((record) => record !== null);
  return { now: now.map(({ record }) => record), wanted: [...kept, ...changed] };
}

function scenarioOf(configuration: Configuration, asked: Asked, currency: string): Scenario | null {
  const revenue = (given: Readonly<Record<string, number>>): Record<string, PlanRevenue> =>
    Object.fromEntries(
      Object.entries(given).map(([plan, amount]) => [
        plan,
        { monthly_price_minor: minorUnits(amount), currency },
      ]),
    );
  const plans = asked.changes.flatMap(({ kind, key, record }) =>
    kind === "plan" && record !== null ? [[key, planNumbers(record)] as const] : [],
  );
  const lists = priceLists(configuration, asked.changes);
  const [now, wanted] = [parsePrices(lists.now), parsePrices(lists.wanted)];
  if (!now.ok || !wanted.ok) return null;
  const changesPrices = asked.changes.some(({ kind }) => kind === "price");
  return {
    plans: Object.fromEntries(plans),
    revenue_now: revenue(asked.revenue_now),
    revenue: revenue(asked.revenue),
    prices_now: now.value,
    // The same book where no price changes: what a call cost stays what it cost.
    prices: changesPrices ? wanted.value : now.value,
  };
}

export function createSimulation(
  { desk, judge, log }: SimulationOptions,
  read: () => Promise<Result<Answer<Configuration>, Failure>>,
) {
  const runs = createJudgedRuns<SimulationRun>({ judge, log, what: "simulation" });
  const start = async (asked: Asked): Promise<Result<SimulationRun, Failure>> => {
    const { since, until } = asked;
    const project = desk.connection.current();
    if (project.profileId === null) return fail(notConnected);
    const configuration = await read();
    if (!configuration.ok) return configuration;
    const currency = desk.connection.state().project?.currency ?? "usd";
    const scenario = scenarioOf(configuration.value.value, asked, currency);
    if (scenario === null) return fail(unreadablePrices);
    const run = runs.start(
      { since, until, report: null },
      { project, since, until, job: { is: "plans", scenario } },
      ({ result, events }) =>
        result.of.is === "plans" ? { report: result.of.report, ...(events > 0 ? { events } : {}) } : null,
    );
    return ok(run);
  };
  return {
    follow: (id: string, emit: (run: SimulationRun) => void) => runs.follow(id, emit),
    handlers: {
      "plans.simulate": (asked) =>
        Date.parse(asked.since) < Date.parse(asked.until) ? start(asked) : fail(wrongPeriod),
      "plans.simulate_cancel": ({ run_id }) => runs.cancel(run_id),
    } satisfies Pick<Handlers, "plans.simulate" | "plans.simulate_cancel">,
  };
}

const unreadablePrices: Failure = {
  code: "unreadable_prices",
  message: "These prices cannot be read.",
  advice: "Mend them where they are marked.",
  details: null,
};
const wrongPeriod: Failure = {
  code: "invalid_argument",
  message: "The time to simulate ends before it begins.",
  advice: null,
  details: null,
};
