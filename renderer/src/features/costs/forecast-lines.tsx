import type { ReactNode } from "react";
import { forecastPeriod } from "../../../../shared/governance/costs/forecast.ts";
import { useCall } from "../../lib/console.tsx";
import { daysIn, formatCost } from "../../lib/format.ts";
import { Note } from "../../ui/parts.tsx";
import { BudgetLines, lookBackFrom, pastDays } from "./budget-lines.tsx";
import css from "./costs.module.css";
import { lastOfMonth } from "./ranges.ts";

/**
 * Estimates: what this month comes to, and when its budgets run out. Labelled as estimates, with what they are based
 * on.
 */
export function ForecastLines({
  today,
  filter,
  currency,
}: {
  readonly today: string;
  readonly filter: Readonly<Record<string, string>>;
  readonly currency: string;
}): ReactNode {
  const query = useCall(
    "costs.get",
    { from: lookBackFrom(today), to: today, step: "day", by: "model", filter },
    { staleMs: 60_000 },
  );
  if (!query.data) return null;
  const days = query.data.periods;
  const past = pastDays(days, today).map((each) => each.cost_micros);
  const monthSoFar = days
    .filter((each) => each.from >= `${today.slice(0, 7)}-01` && each.from < today)
    .reduce((sum, each) => sum + each.cost_micros, 0);
  const costToday = days.find((each) => each.from === today)?.cost_micros ?? 0;
  const forecast = forecastPeriod(
    past,
    monthSoFar,
    daysIn({ from: today, to: lastOfMonth(today) }),
    costToday,
  );
  const low = formatCost(forecast?.low_micros ?? 0, currency);
  const high = formatCost(forecast?.high_micros ?? 0, currency);
  return (
    <div className={css.notes}>
      {forecast && low === high ? (
        <Note tone="blue">
          Estimate: this month comes to about {low}, if its days go on like the last {forecast.days} (
          {formatCost(forecast.per_day_micros, currency)} a day).
        </Note>
      ) : forecast ? (
        <Note tone="blue">
          Estimate: this month comes to about {formatCost(forecast.expected_micros, currency)}, 80 % likely
          between {low} and {high}, if its days go on like the last {forecast.days} (
          {formatCost(forecast.per_day_micros, currency)} a day).
        </Note>
      ) : (
        <p className={css.quiet}>
          No estimate for the month yet: it needs seven whole days of use, and there{" "}
          {past.length === 1 ? "is" : "are"} {past.length}.
        </p>
      )}
      <BudgetLines today={today} filter={filter} />
    </div>
  );
}
