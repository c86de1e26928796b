import { type ReactNode, useMemo } from "react";
import { Chart, type ChartTable } from "../../charts/chart.tsx";
import { tokensPerMinute } from "../../charts/options.ts";
import type { Overview, MinuteBucket } from "../../../../shared/contract/watch.ts";
import { describeReason } from "../../../../shared/governance/rules/receipt.ts";
import { useZone } from "../../lib/clock.ts";
import { formatCompact, formatCost, formatExactCost, formatTokens } from "../../lib/format.ts";
import { placeAddress } from "../../lib/router.ts";
import { capitalise, cleanText } from "../../lib/text.ts";
import { Tokens, UserName } from "../../ui/parts.tsx";
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
        ? { beside: `${share < 10 ? share.toFixed(1) : share.toFixed(0)} %`, tone: "red" as const }
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
      value: formatCompact(overview.active_users),
      href: "#/users?filter=active_today",
    },
    {
      name: "Open holds",
      value: formatCompact(overview.open_holds),
      ...(overview.stuck_holds > 0
        ? { beside: `${overview.stuck_holds} stuck`, tone: "amber" as const }
        : { beside: `${formatCompact(overview.held_tokens)} tokens` }),
      exact: `${formatTokens(overview.held_tokens)} tokens held, ${overview.stuck_holds} holds past their time`,
    },
    {
      name: "Users stopped",
      value: formatCompact(overview.blocked_users),
      beside: `${formatCompact(overview.flagged_users)} flagged`,
      exact: `${formatTokens(overview.blocked_users)} blocked, ${formatTokens(overview.flagged_users)} flagged, ${formatTokens(overview.users_in_debt)} in debt`,
      href: "#/users?filter=blocked",
    },
    {
      name: "Open alerts",
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

function minuteTable(minutes: readonly MinuteBucket[]): ChartTable {
  return {
    header: [
      "minute",
      "calls",
      "used tokens",
      "allowed tokens",
      "warned tokens",
      "blocked tokens",
      "blocked calls",
    ],
    rows: minutes.map((each) => [
      each.minute,
      each.calls,
      each.settled_tokens,
      each.allowed_tokens,
      each.warned_tokens,
      each.blocked_tokens,
      each.blocked_calls,
    ]),
    show: (value, column) => (column > 0 && typeof value === "number" ? formatTokens(value) : String(value)),
  };
}

export function OverviewCharts({
  overview,
  onReason,
}: {
  readonly overview: Overview;
  readonly onReason: (reason: string) => void;
}): ReactNode {
  const zone = useZone();
  const build = useMemo(() => tokensPerMinute(overview.minutes, zone), [overview.minutes, zone]);
  const table = useMemo(() => minuteTable(overview.minutes), [overview.minutes]);
  return (
    <div className={css.top}>
      <div>
        <Chart
          title="Tokens per minute: used, and asked for by decision"
          build={build}
          table={table}
          fileName="tokens-per-minute"
        />
      </div>
      <div>
        <h2>Why blocked</h2>
        {overview.reasons.length === 0 ? <span className={css.quiet}>Nothing was blocked.</span> : null}
        <div className={css.ranking}>
          {overview.reasons.slice(0, 6).map((each) => (
            <button
              key={each.reason}
              type="button"
              className={css.ranked}
              title={`Show calls blocked for ${each.reason}`}
              onClick={() => onReason(each.reason)}
            >
              <span>{capitalise(cleanText(describeReason(each.reason)))}</span>
              <Tokens value={each.calls} compact />
            </button>
          ))}
        </div>
      </div>
      <div>
        <h2>Most tokens</h2>
        {overview.top_users.length === 0 ? <span className={css.quiet}>No tokens were used.</span> : null}
        <div className={css.ranking}>
          {overview.top_users.slice(0, 6).map((user) => (
            <a key={user.user_id} className={css.ranked} href={`#${placeAddress(["users", user.user_id])}`}>
              <UserName name={user.display_name} id={user.user_id} />
              <Tokens value={user.tokens} compact />
            </a>
          ))}
        </div>
      </div>
    </div>
  );
}
