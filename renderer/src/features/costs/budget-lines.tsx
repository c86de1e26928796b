/** When each budget runs out: estimates, labelled as such. */
import type { ReactNode } from "react";
import type { CostAlert } from "../../../../shared/contract/alerts.ts";
import type { Costs } from "../../../../shared/contract/costs.ts";
import { runsOut } from "../../../../shared/governance/costs/forecast.ts";
import { useCall, useCalls } from "../../lib/console.tsx";
import { addDays, daysIn, formatCost, formatTokens } from "../../lib/format.ts";
import { bandWords, dayWords } from "../../lib/run-out.ts";
import { capitalise, cleanText, codeWords } from "../../lib/text.ts";
import { Note } from "../../ui/parts.tsx";
import { lastOfMonth } from "./ranges.ts";

const lookBackDays = 28;

/** From when an estimate needs the days: four weeks, or since the month began. */
export function lookBackFrom(today: string): string {
  const [first, lookBack] = [`${today.slice(0, 7)}-01`, addDays(today, -lookBackDays)];
  return lookBack < first ? lookBack : first;
}

/** The whole days before today to look back on, the oldest first: a project that began last week has no four weeks. */
export function pastDays(days: Costs["periods"], today: string): Costs["periods"] {
  const used = days.findIndex(({ calls }) => calls > 0);
  return days
    .slice(Math.max(used, 0))
    .filter(({ from }) => from >= addDays(today, -lookBackDays) && from < today);
}

/** The last day of a budget's period; null for a day, which is over before it could be foretold. */
function lastDay(period: string, today: string): string | null {
  if (period === "month") return lastOfMonth(today);
  if (period === "year") return `${today.slice(0, 4)}-12-31`;
  // Weeks begin on Monday.
  return period === "week" ? addDays(today, (7 - new Date(`${today}T00:00:00Z`).getUTCDay()) % 7) : null;
}

/** The budgets that the figures of the desk are of: all, or those of the one model, plan or scope that it shows. */
export function budgetsOf(
  alerts: readonly CostAlert[],
  filter: Readonly<Record<string, string>>,
): readonly CostAlert[] {
  const narrowed = Object.entries(filter).map(([key, value]) => `${key}:${value}`);
  return alerts.filter(
    ({ is_active: isActive, budget, value, scope_kind: kind, scope_id: id, period }) =>
      isActive &&
      budget !== null &&
      value !== null &&
      period !== "day" &&
      (narrowed.length === 0 || (narrowed.length === 1 && `${kind}:${id}` === narrowed[0])),
  );
}

/** The filter with which the costs desk shows the calls of a budget. */
export const filterOf = ({
  scope_kind: kind,
  scope_id: id,
}: Pick<CostAlert, "scope_kind" | "scope_id">): Readonly<Record<string, string>> =>
  id === null ? {} : { [kind]: id };

interface BudgetWords {
  readonly tone: "red" | "amber" | "green";
  readonly words: string;
  /** In how many days it is expected to be used up: the fewest are the most urgent. Infinity: not in this period. */
  readonly inDays: number;
}

/** The forecast of a budget, from the days that `lookBackFrom` begins; null where they are too few for one. */
export function budgetWords(
  each: Pick<
    CostAlert,
    "alert_name" | "metric" | "scope_kind" | "scope_id" | "period" | "budget" | "value" | "currency"
  >,
  days: Costs["periods"],
  today: string,
): BudgetWords | null {
  const isMoney = each.metric === "cost_micros";
  const budget = each.budget ?? 0;
  const left = budget - (each.value ?? 0);
  const sum = isMoney ? formatCost(budget, each.currency) : `${formatTokens(budget)} tokens`;
  const whose = Object.entries(filterOf(each)).map(([kind, id]) => ` (${codeWords(kind)} ${cleanText(id)})`);
  const name = `${codeWords(each.alert_name)}${whose.join("")}`;
  if (left <= 0) return { tone: "red", words: `${capitalise(name)}: all of ${sum} is used.`, inDays: 0 };
  const end = lastDay(each.period, today);
  if (end === null) return null;
  const used = (day: Costs["periods"][number]): number =>
    isMoney ? day.cost_micros : (day.charged_tokens ?? 0);
  // Today is a day to come: what it has used already is not left out twice.
  const usedToday = days.filter(({ from }) => from === today).reduce((total, day) => total + used(day), 0);
  const ends = runsOut(
    pastDays(days, today).map(used),
    left + usedToday,
    daysIn({ from: today, to: end }),
    usedToday,
  );
  if (ends === null) return null;
  const day = (n: number): string => dayWords(addDays(today, n - 1));
  return ends.expected === null
    ? {
        tone: "green",
        words: `Estimate: ${name} of ${sum} lasts until its period ends on ${dayWords(end)}${
          ends.earliest ? `, but may run out from ${day(ends.earliest)} on` : ""
        }.`,
        inDays: Number.POSITIVE_INFINITY,
      }
    : {
        tone: "amber",
        words: `Estimate: ${name} of ${sum} runs out on ${day(ends.expected)}, ${bandWords(ends, today)}.`,
        inDays: ends.expected,
      };
}

/** The most urgent first. */
export const byUrgency = (one: Pick<BudgetWords, "inDays">, other: Pick<BudgetWords, "inDays">): number =>
  one.inDays === other.inDays ? 0 : one.inDays - other.inDays;

/** The budgets of what the desk shows, each by the days of what it is of; the most urgent first. */
export function BudgetLines({
  today,
  filter,
}: {
  readonly today: string;
  readonly filter: Readonly<Record<string, string>>;
}): ReactNode {
  const alerts = useCall("alerts.set", {}, { staleMs: 60_000 }).data?.alerts ?? [];
  const budgets = budgetsOf(alerts, filter);
  const days = useCalls(
    "costs.get",
    budgets.map((each) => ({
      from: lookBackFrom(today),
      to: today,
      step: "day",
      by: "model",
      filter: filterOf(each),
    })),
    { staleMs: 60_000 },
  );
  return budgets
    .flatMap((each, index) => {
      const periods = days[index]?.data?.periods;
      const found = periods ? budgetWords(each, periods, today) : null;
      return found ? [{ ...found, key: each.alert_name }] : [];
    })
    .toSorted(byUrgency)
    .map(({ key, tone, words }) => (
      <Note key={key} tone={tone}>
        {words}
      </Note>
    ));
}
