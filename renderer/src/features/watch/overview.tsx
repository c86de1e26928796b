import { type ReactNode, useMemo } from "react";
import { Chart, type ChartTable } from "../../charts/chart.tsx";
import { stepName, tokensOverTime } from "../../charts/options.ts";
import type { Overview, OverviewStep, Stretch } from "../../../../shared/contract/watch.ts";
import { useZone } from "../../lib/clock.ts";
import {
  formatCompact,
  formatCost,
  formatExactCost,
  formatShortInstant,
  formatTokens,
} from "../../lib/format.ts";
import { placeAddress } from "../../lib/router.ts";
import { NameAmong, Reason, Tokens } from "../../ui/parts.tsx";
import { stepWords } from "./look.ts";
import { StoppedUser } from "./stopped-user.tsx";
import css from "./watch.module.css";

interface Counter {
  readonly name: string;
  readonly value: string;
  readonly exact?: string;
  readonly beside?: string;
  readonly tone?: "red" | "amber";
  readonly href?: string;
  readonly onPick?: () => void;
}

function counters(overview: Overview, onBlocked: () => void): readonly Counter[] {
  const share = overview.calls > 0 ? (100 * overview.blocked) / overview.calls : 0;
  return [
    {
      name: "Calls",
      value: formatCompact(overview.calls),
      beside: `${formatCompact(overview.warned)} warned`,
      exact: `${formatTokens(overview.calls)} calls, ${formatTokens(overview.warned)} of them with a warning`,
    },
    {
      name: "Blocked",
      value: formatCompact(overview.blocked),
      ...(overview.blocked > 0
        ? {
            beside: `${share.toLocaleString("en", { minimumFractionDigits: share < 10 ? 1 : 0, maximumFractionDigits: share < 10 ? 1 : 0 })} %`,
            tone: "red" as const,
          }
        : {}),
      onPick: onBlocked,
    },
    {
      name: "Tokens used",
      value: formatCompact(overview.settled_tokens),
      exact: `${formatTokens(overview.settled_tokens)} tokens charged for calls that ended`,
    },
    {
      name: "Cost",
      value: formatCost(overview.cost_micros, overview.currency),
      exact: formatExactCost(overview.cost_micros, overview.currency),
    },
    {
      name: "Active users",
      value: overview.active_users === null ? "—" : formatCompact(overview.active_users),
      ...(overview.active_users === null
        ? { exact: "Not counted for so long a time with a filter, or in the past" }
        : {}),
      href: "#/users?filter=active_today",
    },
    {
      name: "Open holds now",
      value: formatCompact(overview.open_holds),
      ...(overview.stuck_holds > 0
        ? { beside: `${overview.stuck_holds} stuck`, tone: "amber" as const }
        : { beside: `${formatCompact(overview.held_tokens)} tokens` }),
      exact: `${formatTokens(overview.held_tokens)} tokens held, ${overview.stuck_holds} holds past their time`,
    },
    {
      name: "Users blocked now",
      value: formatCompact(overview.blocked_users),
      beside: `${formatCompact(overview.flagged_users)} flagged`,
      exact: `${formatTokens(overview.blocked_users)} blocked, ${formatTokens(overview.flagged_users)} flagged, ${formatTokens(overview.users_in_debt)} in debt`,
      href: "#/users?filter=blocked",
    },
    {
      name: "Open alerts now",
      value: formatCompact(overview.open_alerts),
      ...(overview.open_alerts > 0 ? { tone: "red" as const } : {}),
      href: "#/alerts",
    },
  ];
}

export function Counters({
  overview,
  onBlocked,
}: {
  readonly overview: Overview;
  readonly onBlocked: () => void;
}): ReactNode {
  return (
    <div className={css.counters}>
      {counters(overview, onBlocked).map((counter) => {
        const body = (
          <>
            <span>{counter.name}</span>
            <strong>
              {counter.value}
              {counter.beside ? <small>{counter.beside}</small> : null}
            </strong>
          </>
        );
        const shared = { className: css.counter, "data-tone": counter.tone, title: counter.exact };
        if (counter.href)
          return (
            <a key={counter.name} href={counter.href} {...shared}>
              {body}
            </a>
          );
        if (counter.onPick)
          return (
            <button key={counter.name} type="button" onClick={counter.onPick} {...shared}>
              {body}
            </button>
          );
        return (
          <div key={counter.name} {...shared}>
            {body}
          </div>
        );
      })}
    </div>
  );
}

function stepTable(steps: readonly OverviewStep[], zone: string, currency: string): ChartTable {
  const last = Date.parse(steps.at(-1)?.start ?? "");
  return {
    header: [
      "from",
      "calls",
      "used tokens",
      "allowed tokens",
      "warned tokens",
      "blocked tokens",
      "blocked calls",
      "cost (micro-units)",
    ],
    rows: steps.map((each) => [
      each.start,
      each.calls,
      each.settled_tokens,
      each.allowed_tokens,
      each.warned_tokens,
      each.blocked_tokens,
      each.blocked_calls,
      each.cost_micros,
    ]),
    show: (value, column) =>
      typeof value !== "number"
        ? formatShortInstant(String(value), zone, last)
        : column === 7
          ? formatCost(value, currency)
          : formatTokens(value),
  };
}

export function OverviewCharts({
  overview,
  onReason,
  onStretch,
  onOnlyUser,
}: {
  readonly overview: Overview;
  readonly onReason: (reason: string) => void;
  readonly onStretch: (stretch: Stretch) => void;
  readonly onOnlyUser: (userId: string) => void;
}): ReactNode {
  const zone = useZone();
  const { steps, step_minutes: minutes } = overview;
  const [stopped, top] = [overview.most_stopped.slice(0, 5), overview.top_users.slice(0, 5)];
  // A user alone is counted call by call.
  const isRanked = minutes >= 60 && overview.most_stopped.length + overview.top_users.length > 2;
  const byDays = isRanked
    ? "Added up over the days on which a user was among the first 50 of all."
    : undefined;
  const build = useMemo(() => tokensOverTime(steps, minutes, zone), [steps, minutes, zone]);
  const table = useMemo(() => stepTable(steps, zone, overview.currency), [steps, zone, overview.currency]);
  const where = minutes >= 1440 ? " (days of UTC)" : "";
  return (
    <div className={css.top}>
      <div>
        <Chart
          title={`Tokens per ${stepWords(minutes)}${where}: used, and asked for by decision`}
          build={build}
          table={table}
          fileName={`tokens-${overview.from.slice(0, 10)}`}
          onPick={(index) => {
            const step = steps[index];
            if (!step) return;
            const start = Date.parse(step.start);
            onStretch({
              from: new Date(start).toISOString(),
              to: new Date(start + minutes * 60_000).toISOString(),
            });
          }}
        />
      </div>
      <div>
        <h2>Why blocked</h2>
        {overview.reasons.length === 0 ? <span className={css.quiet}>Nothing was blocked.</span> : null}
        <div className={css.ranking}>
          {overview.reasons.slice(0, 5).map((each) => (
            <button
              key={each.reason}
              type="button"
              className={css.ranked}
              title={`Show calls blocked for ${each.reason}`}
              onClick={() => onReason(each.reason)}
            >
              <Reason reason={each.reason} />
              <Tokens value={each.calls} compact />
            </button>
          ))}
        </div>
      </div>
      <div>
        <h2 title={byDays}>Stopped most often</h2>
        {overview.most_stopped.length === 0 ? <span className={css.quiet}>Nobody was stopped.</span> : null}
        <div className={css.ranking}>
          {stopped.map((user) => (
            <StoppedUser
              key={user.user_id}
              stopped={user}
              others={stopped}
              onOnly={() => onOnlyUser(user.user_id)}
            />
          ))}
        </div>
      </div>
      <div>
        <h2 title={byDays}>Most tokens</h2>
        {overview.top_users.length === 0 ? <span className={css.quiet}>No tokens were used.</span> : null}
        <div className={css.ranking}>
          {top.map((user) => (
            <a key={user.user_id} className={css.ranked} href={`#${placeAddress(["users", user.user_id])}`}>
              <NameAmong user={user} others={top} />
              <Tokens value={user.tokens} compact />
            </a>
          ))}
        </div>
      </div>
    </div>
  );
}

/** "28 Nov, 10:00 to 12:00", as in the pill beside the filters. */
export function stretchWords({ from, to }: Stretch, zone: string): string {
  const minutes = (Date.parse(to) - Date.parse(from)) / 60_000;
  if (minutes % 1440 === 0 && from.slice(11, 19) === "00:00:00") {
    const last = new Date(Date.parse(to) - 1).toISOString();
    const first = stepName(from, 1440, zone);
    return minutes === 1440 ? `${first} (UTC)` : `${first} to ${stepName(last, 1440, zone)} (UTC)`;
  }
  return `${stepName(from, 60, zone)} to ${stepName(to, minutes > 1440 ? 60 : 1, zone)}`;
}
