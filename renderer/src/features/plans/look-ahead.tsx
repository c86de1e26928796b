import type { ReactNode } from "react";
import type { ConfigEffect, RaisedAlerts, WantedChange } from "../../../../shared/contract/plans.ts";
import { alertKind } from "../../../../shared/governance/alerts/kinds.ts";
import { useCall } from "../../lib/console.tsx";
import { formatCost, formatDuration, formatTokens } from "../../lib/format.ts";
import { useIsLive, useProjectCurrency } from "../../lib/live.ts";
import type { ConfigKind } from "../../../../shared/governance/configuration/index.ts";
import { dayWords } from "../../lib/run-out.ts";
import { capitalise, cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { Note, Section } from "../../ui/parts.tsx";
import { QueryView, Skeleton } from "../../ui/states.tsx";
import { fullTitle } from "./kinds.ts";
import css from "./plans.module.css";

/** What a change touches, a sentence for each thing worth knowing. */
function effectSentences(
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
          : effect.is_superseded
            ? ["A later price is in force: this one changes no call to come."]
            : isRetired
              ? ["Without a price its calls count as costing nothing, and an alert is raised."]
              : [
                  Math.abs(would - was) < 10_000
                    ? `They cost ${formatCost(was, currency)}, and about the same at this price.`
                    : `They cost ${formatCost(was, currency)}; at this price about ${formatCost(would, currency)} (${would >= was ? "+" : "−"}${formatCost(Math.abs(would - was), currency)}).`,
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
    case "route":
      return isRetired ? [] : routeSentences(effect);
    case "alert":
      return raisedSentences(effect);
    default:
      return [];
  }
}

/** How many alerts a route would have sent, and which kinds most. */
function routeSentences({ alerts: count, alert_kinds: kinds }: ConfigEffect): string[] {
  const most = Object.entries(kinds ?? {}).toSorted(([, a], [, b]) => b - a);
  const named = most
    .slice(0, 5)
    .map(([kind, n]) => `${alertKind(kind)?.kind.title ?? codeWords(kind)}: ${formatTokens(n)}`);
  return [`It would have sent ${counted(count ?? 0, "alert")} in the last 30 days.`, ...named];
}

/** When an alert would have been raised as it is wanted, beside how it is now. */
function raisedSentences({ raised, raised_now: now }: ConfigEffect): string[] {
  return [
    ...(raised ? [raisedSentence(raised)] : []),
    ...(now ? [`As it is now: ${alertCount(now)}.`] : []),
    ...(raised?.latest ?? []).slice(0, 5).map(({ day, threshold, user_id: user }) => {
      const [at, reached] = [dayWords(day), threshold.toLocaleString("en")];
      return typeof user === "string"
        ? `${at}: threshold ${reached}, user ${clip(cleanText(user), 60)}.`
        : `${at}: threshold ${reached}.`;
    }),
  ];
}

function alertCount({ times, times_at_most: atMost }: RaisedAlerts): string {
  const most = counted(Math.max(times, atMost ?? 0), "alert");
  return (atMost ?? 0) > times ? `${times.toLocaleString("en")} to ${most}` : most;
}

function raisedSentence(raised: RaisedAlerts): string {
  const { since, since_at: sinceAt, times, users, is_part: isPart } = raised;
  const alerts = alertCount(raised);
  const when = sinceAt
    ? `In the last ${formatDuration(Date.now() - Date.parse(sinceAt))}`
    : `Since ${dayWords(since)}`;
  if (users === null || times === 0) return `${when} it would have raised ${alerts}.`;
  const about = counted(users, "user");
  return isPart
    ? `${when} it would have raised ${alerts} about ${about}, at least: of so many users, those that used most were looked at.`
    : `${when} it would have raised ${alerts} about ${about}.`;
}

/** Whether anybody or anything uses what is changed. */
const isUsed = ({
  users,
  calls,
  checkouts,
  open_checkouts,
  rules,
  alerts,
  raised,
  raised_now: now,
}: ConfigEffect): boolean =>
  [users, calls, checkouts, open_checkouts, rules, alerts, raised?.times, now?.times].some(
    (count) => (count ?? 0) > 0,
  );

/** The effects of changes: each under its name where there are several, and what nobody uses as a number. */
function Effects({
  effects,
  changes,
}: {
  readonly effects: readonly ConfigEffect[];
  readonly changes: readonly WantedChange[];
}): ReactNode {
  const currency = useProjectCurrency();
  const isOne = changes.length === 1;
  const measured = effects.filter((effect) => effectSentences(effect, { record: {} }, currency).length > 0);
  const shown = isOne ? measured : measured.filter(isUsed);
  const others = measured.length - shown.length;
  return (
    <ul className={css.effects} aria-label="Whom it touches">
      {shown.flatMap((effect) => {
        const change = changes.find(({ kind, key }) => kind === effect.kind && key === effect.key);
        const name = capitalise(
          cleanText(fullTitle(effect.kind as ConfigKind, effect.key, change?.record ?? null)),
        );
        return effectSentences(effect, change ?? { record: {} }, currency).map((sentence) => (
          <li key={`${effect.kind}${effect.key}${sentence}`}>
            {isOne ? null : <b>{clip(name, 80)}: </b>}
            {sentence}
          </li>
        ));
      })}
      {others > 0 ? <li>{counted(others, "record")} that nobody uses now</li> : null}
    </ul>
  );
}

/** Before it goes live: whom it touches, what it costs, and what the project would refuse. Nothing is changed. */
export function LookAhead({ changes }: { readonly changes: readonly WantedChange[] }): ReactNode {
  const isLive = useIsLive();
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
            <Effects effects={effects} changes={changes} />
          </>
        )}
      </QueryView>
    </Section>
  );
}
