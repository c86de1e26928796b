import type { ReactNode } from "react";
import { daysLeft, forecastPeriod } from "../../../../shared/governance/costs/forecast.ts";
import { useCall } from "../../lib/console.tsx";
import { addDays, formatCost, formatDay } from "../../lib/format.ts";
import { capitalise, codeWords } from "../../lib/text.ts";
import { Note } from "../../ui/parts.tsx";
import css from "./costs.module.css";
import { daysIn, lastOfMonth } from "./ranges.ts";

const lookBackDays = 28;
const dayWords = (day: string): string => formatDay(`${day}T12:00:00Z`, "UTC");

/** Estimates: what this month comes to, and when its budgets run out. They say that they are estimates, and from what. */
export function ForecastLines({
  today,
  filter,
  currency,
}: {
  readonly today: string;
  readonly filter: Readonly<Record<string, string>>;
  readonly currency: string;
}): ReactNode {
  const first = `${today.slice(0, 7)}-01`;
  const lookBack = addDays(today, -lookBackDays);
  const from = lookBack < first ? lookBack : first;
  const query = useCall(
    "costs.get",
    { from, to: today, step: "day", by: "model", filter },
    { staleMs: 60_000 },
  );
  const budgets = useCall("alerts.set", {}, { staleMs: 60_000 }).data?.alerts ?? [];
  if (!query.data) return null;
  const days = query.data.periods;
  const used = days.findIndex(({ calls }) => calls > 0);
  // A project that began last week has no four weeks to look back on.
  const past = days
    .slice(Math.max(used, 0))
    .filter((each) => each.from >= lookBack && each.from < today)
    .map((each) => each.cost_micros);
  const monthSoFar = days
    .filter((each) => each.from >= first && each.from < today)
    .reduce((sum, each) => sum + each.cost_micros, 0);
  const end = lastOfMonth(today);
  const forecast = forecastPeriod(past, monthSoFar, daysIn({ from: today, to: end }));
  if (!forecast)
    return (
      <p className={css.quiet}>
        No estimate for the month yet: it needs seven whole days of use, and there{" "}
        {past.length === 1 ? "is" : "are"} {past.length}.
      </p>
    );
  const ofWhole = Object.keys(filter).length === 0;
  return (
    <div className={css.notes}>
      <Note tone="blue">
        Estimate: this month comes to about {formatCost(forecast.expected_micros, currency)}, four times in
        five between {formatCost(forecast.low_micros, currency)} and{" "}
        {formatCost(forecast.high_micros, currency)}, if its days go on like the last {forecast.days} (
        {formatCost(forecast.per_day_micros, currency)} a day).
      </Note>
      {ofWhole
        ? budgets
            .filter(
              ({ metric, scope, period, budget, is_active: isActive }) =>
                metric === "cost_micros" &&
                scope === "all" &&
                period === "month" &&
                budget !== null &&
                isActive,
            )
            .map((each) => {
              const left = daysLeft(each.budget ?? 0, each.value ?? 0, forecast.per_day_micros);
              const day = left === null ? null : addDays(today, left);
              const name = capitalise(codeWords(each.alert_name));
              const sum = formatCost(each.budget ?? 0, each.currency);
              return (
                <Note
                  key={each.alert_name}
                  tone={left === 0 ? "red" : day !== null && day <= end ? "amber" : "green"}
                >
                  {left === 0
                    ? `${name}: all of ${sum} is used.`
                    : day !== null && day <= end
                      ? `Estimate: ${name.toLowerCase()} of ${sum} runs out on ${dayWords(day)}.`
                      : `Estimate: ${name.toLowerCase()} of ${sum} lasts the month.`}
                </Note>
              );
            })
        : null}
    </div>
  );
}
