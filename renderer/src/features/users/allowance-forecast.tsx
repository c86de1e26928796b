/** When the period's allowance runs out: an estimate, and called one. */
import type { ReactNode } from "react";
import type { AccountDetail } from "../../../../shared/contract/users.ts";
import { runsOut } from "../../../../shared/governance/costs/forecast.ts";
import { useNow } from "../../lib/clock.ts";
import { useCall } from "../../lib/console.tsx";
import { addDays, daysIn, formatTokens, isoDay } from "../../lib/format.ts";
import { bandWords, dayWords } from "../../lib/run-out.ts";
import css from "./users.module.css";

const lookBackDays = 28;

/** What an estimate of a user's allowance says, from their days; null where there is nothing to estimate. */
export function allowanceWords(
  detail: Pick<AccountDetail, "lots" | "limits" | "plan">,
  byDay: readonly { readonly day: string; readonly charged_tokens?: number | undefined }[],
  today: string,
  zone: string,
): string | null {
  const open = detail.lots.filter((lot) => lot.kind === "subscription" && lot.remaining > 0);
  const left = open.reduce((sum, lot) => sum + lot.remaining, 0);
  if (detail.plan.monthly_allowance === 0 && left === 0) return null;
  if (left === 0) return "All of the period's allowance is used.";
  // A period ends when its tokens do, else with the month.
  const ends = open.map((lot) => lot.expires_at).filter((at) => at !== null);
  const end = ends.toSorted()[0] ?? detail.limits.monthly.resets_at;
  // Days of the user's: where a month ends at midnight in the west, UTC has the next date already.
  const lastDay = isoDay(Date.parse(end) - 1, zone);
  const within = Math.max(1, daysIn({ from: today, to: lastDay }));
  const used = new Map(byDay.map((each) => [each.day, each.charged_tokens ?? 0]));
  const first = byDay.map((each) => each.day).toSorted()[0];
  const past = Array.from({ length: lookBackDays }, (_, n) => addDays(today, n - lookBackDays))
    .filter((day) => first !== undefined && day >= first)
    .map((day) => used.get(day) ?? 0);
  // Today is a day to come, whatever it has used already.
  const usedToday = used.get(today) ?? 0;
  const found = runsOut(past, left + usedToday, Math.min(within, 400), usedToday);
  if (!found) return null;
  const usual = `if days go on like the last ${found.days} (${formatTokens(found.per_day)} tokens a day)`;
  return found.expected === null
    ? `Estimate: the allowance lasts the period${
        found.earliest ? `, but may run out from ${dayWords(addDays(today, found.earliest - 1))} on` : ""
      }, ${usual}.`
    : `Estimate: the allowance runs out on ${dayWords(addDays(today, found.expected - 1))}, ${bandWords(found, today)}, ${usual}.`;
}

export function AllowanceForecast({ detail }: { readonly detail: AccountDetail }): ReactNode {
  const today = isoDay(useNow(60_000), detail.account.timezone);
  const usage = useCall(
    "users.usage",
    { user_id: detail.account.user_id, from: addDays(today, -lookBackDays), to: today },
    { staleMs: 60_000 },
  ).data;
  const words = usage ? allowanceWords(detail, usage.by_day, today, detail.account.timezone) : null;
  return words ? <span className={css.quiet}>{words}</span> : null;
}
