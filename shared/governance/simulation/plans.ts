import { currencyExponent, type MicroUnits, type MinorUnits, microUnits } from "../money/index.ts";
import type { Plan } from "../plans/plan.ts";
import { costOfCall, type PriceBook } from "../pricing/prices.ts";
import { makeCounts } from "../usage/counts.ts";
import { isReplayEvent, type ReplayEvent } from "./events.ts";

/** What a month of a plan brings in. */
export interface PlanRevenue {
  /** What a customer pays a month, in minor units of `currency`. */
  readonly monthly_price_minor: MinorUnits;
  readonly currency: string;
}

/** One way things could be. */
export interface Scenario {
  readonly plans: readonly Plan[];
  readonly revenue: Readonly<Record<string, PlanRevenue>>;
  /** Costs by these prices instead of the recorded ones. */
  readonly prices?: PriceBook;
  /** Calls of a model go to another one; needs prices. */
  readonly routes?: Readonly<Record<string, string>>;
}

export interface PlanOutcome {
  readonly plan_id: string;
  readonly accounts: number;
  /** Account-months with a call in them: what revenue is counted by. */
  readonly active_months: number;
  readonly tokens_used: number;
  /** Tokens that the plan would not have covered: beyond allowance or limit. */
  readonly tokens_refused: number;
  readonly cost_micros: MicroUnits;
  readonly revenue_micros: MicroUnits;
  readonly margin_micros: MicroUnits;
  readonly accounts_running_out: number;
}

/** An account that would run out, first in time first. */
export interface RunsOut {
  readonly user_id: string;
  readonly plan_id: string;
  /** Instant of the first call that would not be covered. */
  readonly at: string;
  readonly why: "allowance" | "daily_limit" | "monthly_limit";
}

export interface PlanSimulation {
  readonly plans: readonly PlanOutcome[];
  readonly runs_out: readonly RunsOut[];
  readonly runs_out_total: number;
  readonly currency: string | null;
  /** Settled calls whose plan is not in the scenario, or that had no plan. */
  readonly calls_of_other_plans: number;
  /** Settled calls whose cost is not known. */
  readonly calls_without_cost: number;
}

export interface PlanSimulator {
  /** Takes an event, in order of the feed; only `settled` ones matter. */
  push(event: ReplayEvent): void;
  report(): PlanSimulation;
}

interface AccountMonth {
  day: string;
  month: string;
  dayTokens: number;
  monthTokens: number;
  ranOut: boolean;
}

interface Sums {
  accounts: number;
  activeMonths: number;
  used: number;
  refused: number;
  cost: number;
  runningOut: number;
}

/**
 * Replays real usage under a scenario: what each plan would cost and bring in, and which accounts would run out and
 * when. Usage stays as it was, except that what a plan does not cover is refused. Bought tokens are not known here, so
 * an account without an allowance is bound by its limits alone. Memory grows with accounts, not with events.
 */
export function simulatePlans(scenario: Scenario, examples = 100): PlanSimulator {
  const plans = new Map(scenario.plans.map((plan) => [plan.plan_id, plan]));
  const sums = new Map<string, Sums>(
    scenario.plans.map((plan) => [
      plan.plan_id,
      { accounts: 0, activeMonths: 0, used: 0, refused: 0, cost: 0, runningOut: 0 },
    ]),
  );
  const accounts = new Map<string, AccountMonth>();
  const runsOut: RunsOut[] = [];
  let runsOutTotal = 0;
  let others = 0;
  let withoutCost = 0;
  let currency: string | null = null;

  function costOfEvent(event: ReplayEvent): number | null {
    const model = event.model ?? "";
    const routed = scenario.routes?.[model] ?? model;
    if (
      !scenario.prices ||
      (routed === model &&
        event.cost_micros !== null &&
        event.cost_micros !== undefined &&
        !scenario.prices.byModel.has(model))
    )
      return event.cost_micros ?? null;
    const counts = makeCounts({ input: event.input_tokens ?? 0, output: event.output_tokens ?? 0 });
    const cost = counts.ok ? costOfCall(scenario.prices, routed, counts.value, Date.parse(event.at)) : null;
    return cost?.ok ? cost.value.cost_micros : (event.cost_micros ?? null);
  }

  return {
    push(event) {
      if (!isReplayEvent(event) || event.kind !== "settled") return;
      const plan = plans.get(event.plan_id ?? "");
      const sum = sums.get(event.plan_id ?? "");
      if (!plan || !sum) {
        others++;
        return;
      }
      currency ??= event.currency ?? null;
      const day = event.local_day ?? event.at.slice(0, 10);
      const month = day.slice(0, 7);
      let account = accounts.get(event.user_id);
      if (!account) {
        account = { day: "", month: "", dayTokens: 0, monthTokens: 0, ranOut: false };
        accounts.set(event.user_id, account);
        sum.accounts++;
      }
      if (account.month !== month) {
        account.month = month;
        account.monthTokens = 0;
        sum.activeMonths++;
      }
      if (account.day !== day) {
        account.day = day;
        account.dayTokens = 0;
      }
      const tokens = event.tokens;
      const why =
        plan.daily_limit !== null && account.dayTokens + tokens > plan.daily_limit
          ? "daily_limit"
          : plan.monthly_limit !== null && account.monthTokens + tokens > plan.monthly_limit
            ? "monthly_limit"
            : plan.monthly_allowance > 0 && account.monthTokens + tokens > plan.monthly_allowance
              ? "allowance"
              : null;
      if (why) {
        sum.refused += tokens;
        if (!account.ranOut) {
          account.ranOut = true;
          sum.runningOut++;
          runsOutTotal++;
          if (runsOut.length < examples)
            runsOut.push({ user_id: event.user_id, plan_id: plan.plan_id, at: event.at, why });
        }
        return;
      }
      account.dayTokens += tokens;
      account.monthTokens += tokens;
      sum.used += tokens;
      const cost = costOfEvent(event);
      if (cost === null) withoutCost++;
      else sum.cost += cost;
    },
    report: () => ({
      plans: scenario.plans.map((plan) => {
        const sum = sums.get(plan.plan_id) ?? {
          accounts: 0,
          activeMonths: 0,
          used: 0,
          refused: 0,
          cost: 0,
          runningOut: 0,
        };
        const paid = scenario.revenue[plan.plan_id];
        // A minor unit is 10^(6 − exponent) micro-units.
        const revenue = paid
          ? sum.activeMonths * paid.monthly_price_minor * 10 ** (6 - currencyExponent(paid.currency))
          : 0;
        return {
          plan_id: plan.plan_id,
          accounts: sum.accounts,
          active_months: sum.activeMonths,
          tokens_used: sum.used,
          tokens_refused: sum.refused,
          cost_micros: microUnits(sum.cost),
          revenue_micros: microUnits(revenue),
          margin_micros: microUnits(revenue - sum.cost),
          accounts_running_out: sum.runningOut,
        };
      }),
      runs_out: [...runsOut],
      runs_out_total: runsOutTotal,
      currency,
      calls_of_other_plans: others,
      calls_without_cost: withoutCost,
    }),
  };
}
