import { type ReactNode } from "react";
import type { CostAlert } from "../../../../shared/contract/alerts.ts";
import { useCall } from "../../lib/console.tsx";
import { formatCost, formatTokens } from "../../lib/format.ts";
import { capitalise, codeWords } from "../../lib/text.ts";
import { type Column } from "../../ui/data-table.tsx";
import { Meter, SafeText, Tag, Time } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { DetailScroll } from "../../ui/side-detail.tsx";
import { QueryView, Skeleton, StaleLine } from "../../ui/states.tsx";
import { thresholdWords, watchedWords } from "./alert-words.ts";
import css from "./alerts.module.css";

const setColumns: readonly Column<CostAlert>[] = [
  {
    id: "name",
    header: "Alert",
    width: 120,
    cell: (alert) => (
      <>
        <SafeText text={capitalise(codeWords(alert.alert_name))} length={80} />
        {alert.is_active ? null : <Tag tone="grey">off</Tag>}
      </>
    ),
  },
  { id: "watches", header: "Watches", width: 150, grow: 1, cell: (alert) => watchedWords(alert) },
  { id: "at", header: "Says so at", width: 150, cell: (alert) => thresholdWords(alert) },
  {
    id: "now",
    header: "Now",
    width: 130,
    cell: (alert) =>
      alert.percent !== null ? (
        <Meter
          percent={alert.percent}
          warnAt={Math.min(...alert.thresholds)}
          label={`Used of ${alert.alert_name}`}
        />
      ) : alert.value === null ? (
        <span className={css.quiet}>each user's own</span>
      ) : alert.metric === "cost_micros" ? (
        formatCost(alert.value, alert.currency)
      ) : (
        formatTokens(alert.value)
      ),
  },
  {
    id: "channels",
    header: "Tells by",
    width: 100,
    cell: (alert) =>
      alert.channels.length === 0 ? (
        <span className={css.quiet}>nobody</span>
      ) : (
        alert.channels.map(codeWords).join(", ")
      ),
  },
  {
    id: "last",
    header: "Last raised",
    width: 110,
    cell: (alert) =>
      alert.last_triggered_at ? (
        <Time at={alert.last_triggered_at} form="short" />
      ) : (
        <span className={css.quiet}>never</span>
      ),
  },
];

export function SetAlerts(): ReactNode {
  const query = useCall("alerts.set", {}, { refetchMs: 15_000 });
  return (
    <DetailScroll>
      <QueryView query={query} skeleton={<Skeleton lines={5} />}>
        {({ alerts, as_of: asOf }) => (
          <div className={css.alert}>
            {asOf ? <StaleLine asOf={asOf} /> : null}
            <PlainTable
              label="Alerts that are set"
              columns={setColumns}
              rows={alerts}
              rowKey={(alert) => alert.alert_name}
              empty="The preset sets no alerts."
            />
            <p className={css.quiet}>
              Alerts are part of the preset. Low balances, calls with high usage, limits nearly used and
              whatever needs a person are noticed without being set.
            </p>
          </div>
        )}
      </QueryView>
    </DetailScroll>
  );
}
