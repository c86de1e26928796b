import type { ReactNode } from "react";
import type { ConfigEffect, WantedChange } from "../../../../shared/contract/plans.ts";
import { useCall } from "../../lib/console.tsx";
import { formatCost, formatTokens } from "../../lib/format.ts";
import { useIsLive, useProjectCurrency } from "../../lib/live.ts";
import { cleanText, counted } from "../../lib/text.ts";
import { Note, Section } from "../../ui/parts.tsx";
import { QueryView, Skeleton } from "../../ui/states.tsx";
import css from "./plans.module.css";

/** What a change touches, a sentence for each thing worth knowing. */
export function effectSentences(
  effect: ConfigEffect,
  change: Pick<WantedChange, "record">,
  currency: string,
): string[] {
  const isRetired = change.record === null;
  switch (effect.kind) {
    case "plan": {
      const users = effect.users ?? 0;
      const [now, then] = [effect.allowance_tokens ?? 0, effect.would_allowance_tokens ?? 0];
      return [
        `${counted(users, "user")} ${users === 1 ? "is" : "are"} on this plan${isRetired && users > 0 ? "; they keep it, and nobody new comes onto it" : ""}.`,
        ...(isRetired || now === then
          ? []
          : [
              `Allowances of all together: ${formatTokens(now)} tokens a month now, ${formatTokens(then)} from each user’s next month (${then > now ? "+" : "−"}${formatTokens(Math.abs(then - now))}).`,
            ]),
        ...((effect.above_daily ?? 0) > 0
          ? [`${counted(effect.above_daily ?? 0, "user")} used more today already: stopped at once.`]
          : []),
        ...((effect.above_monthly ?? 0) > 0
          ? [`${counted(effect.above_monthly ?? 0, "user")} used more this month already: stopped at once.`]
          : []),
      ];
    }
    case "price": {
      const [was, would] = [effect.cost_micros ?? 0, effect.would_cost_micros ?? 0];
      return [
        `${counted(effect.calls ?? 0, "call")} used this model in the last 30 days (${formatTokens(effect.tokens ?? 0)} tokens).`,
        ...((effect.calls ?? 0) === 0
          ? []
          : isRetired
            ? ["Without a price its calls count as costing nothing, and an alert is raised."]
            : [
                `They cost ${formatCost(was, currency)}; at this price about ${formatCost(would, currency)} (${would >= was ? "+" : "−"}${formatCost(Math.abs(would - was), currency)}).`,
              ]),
      ];
    }
    case "pack":
      return [
        `${counted(effect.checkouts ?? 0, "checkout")} of it by ${counted(effect.buyers ?? 0, "user")} in the last 30 days.`,
        ...((effect.open_checkouts ?? 0) > 0
          ? [
              `${counted(effect.open_checkouts ?? 0, "checkout")} of the last day is open: its payment is checked against the price of its day.`,
            ]
          : []),
      ];
    case "estimate":
      return [
        `${counted(effect.calls ?? 0, "call")} of this task in the last 30 days${effect.mean_tokens ? `, ${formatTokens(effect.mean_tokens)} tokens each on average` : ""}.`,
      ];
    case "topic":
      return [
        (effect.rules ?? 0) === 0
          ? "No rule that is on reads topics."
          : `${counted(effect.rules ?? 0, "rule")} that ${effect.rules === 1 ? "is" : "are"} on read${effect.rules === 1 ? "s" : ""} topics.`,
      ];
    default:
      return [];
  }
}

/** Before it goes live: whom it touches, what it costs, and what the project would refuse. Nothing is changed. */
export function LookAhead({ changes }: { readonly changes: readonly WantedChange[] }): ReactNode {
  const isLive = useIsLive();
  const currency = useProjectCurrency();
  const query = useCall(
    "plans.preview",
    { changes: [...changes] },
    { enabled: isLive && changes.length > 0, keepPrevious: true, staleMs: 30_000 },
  );
  if (changes.length === 0) return null;
  if (!isLive)
    return (
      <Note tone="amber">
        Offline: whom it touches is known when the project answers. A change that you save waits, and is
        checked against your colleagues’ when it is sent.
      </Note>
    );
  return (
    <Section title="Before it goes live">
      <QueryView query={query} skeleton={<Skeleton lines={2} />}>
        {({ problem, effects }) => (
          <>
            {problem ? (
              <Note tone="red" role="alert">
                The project would refuse this: {cleanText(problem.message)}
              </Note>
            ) : null}
            <ul className={css.effects} aria-label="Whom it touches">
              {effects.flatMap((effect) => {
                const change = changes.find(({ kind, key }) => kind === effect.kind && key === effect.key);
                return effectSentences(effect, change ?? { record: {} }, currency).map((sentence) => (
                  <li key={`${effect.kind}${effect.key}${sentence}`}>{sentence}</li>
                ));
              })}
            </ul>
          </>
        )}
      </QueryView>
    </Section>
  );
}
