import { Button } from "@mantine/core";
import { type ReactNode } from "react";
import type { CostAlert } from "../../../../shared/contract/alerts.ts";
import type { ConfigItemRecord } from "../../../../shared/contract/plans.ts";
import { alertKind } from "../../../../shared/governance/alerts/kinds.ts";
import { useCall } from "../../lib/console.tsx";
import { formatCost, formatTokens } from "../../lib/format.ts";
import { placeAddress } from "../../lib/router.ts";
import { capitalise, codeWords } from "../../lib/text.ts";
import { type Column } from "../../ui/data-table.tsx";
import { PlusIcon } from "../../ui/icons.tsx";
import { Meter, SafeText, Section, Tag, Time } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { DetailScroll } from "../../ui/side-detail.tsx";
import { QueryView, Skeleton, StaleLine } from "../../ui/states.tsx";
import { severitySign, thresholdWords, watchedWords } from "./alert-words.ts";
import css from "./alerts.module.css";

const setColumns: readonly Column<CostAlert>[] = [
  {
    id: "name",
    header: "Alert",
    width: 120,
    cell: (alert) => (
      <>
        <a
          href={`#${placeAddress(["plans", `alert:${alert.alert_name}`])}`}
          title="Change it; see when it would have been raised"
        >
          <SafeText text={capitalise(codeWords(alert.alert_name))} length={80} />
        </a>
        {alert.is_active ? null : <Tag tone="grey">off</Tag>}
      </>
    ),
  },
  { id: "watches", header: "Watches", width: 150, grow: 1, cell: (alert) => watchedWords(alert) },
  { id: "at", header: "Raised at", width: 150, cell: (alert) => thresholdWords(alert) },
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
    header: "Sent by",
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
    width: 120,
    cell: (alert) =>
      alert.last_triggered_at ? (
        <Time at={alert.last_triggered_at} form="short" />
      ) : (
        <span className={css.quiet}>never</span>
      ),
  },
];

/** Who is notified of which alerts. */
interface Route {
  readonly name: string;
  readonly severity: string;
  readonly kinds: readonly string[];
  readonly channels: readonly string[];
  readonly emails: readonly string[];
}

const texts = (value: unknown): readonly string[] =>
  Array.isArray(value) ? value.filter((each): each is string => typeof each === "string") : [];

const readRoute = ({ key, record }: Pick<ConfigItemRecord, "key" | "record">): Route => ({
  name: key,
  severity: typeof record["severity"] === "string" ? record["severity"] : "info",
  kinds: texts(record["kinds"]),
  channels: texts(record["channels"]),
  emails: texts(record["emails"]),
});

const routeColumns: readonly Column<Route>[] = [
  {
    id: "name",
    header: "Route",
    width: 120,
    cell: ({ name }) => (
      <a href={`#${placeAddress(["plans", `route:${name}`])}`}>
        <SafeText text={name} length={80} />
      </a>
    ),
  },
  {
    id: "of",
    header: "Kinds",
    width: 200,
    grow: 1,
    cell: ({ kinds }) =>
      kinds.length === 0
        ? "all that need an operator"
        : kinds.map((kind) => alertKind(kind)?.kind.title ?? codeWords(kind)).join(", "),
  },
  {
    id: "severity",
    header: "From severity",
    width: 90,
    cell: ({ severity }) => {
      const sign = severitySign(severity === "critical" || severity === "warning" ? severity : "info");
      return (
        <Tag tone={sign.tone} dot plain>
          {sign.word}
        </Tag>
      );
    },
  },
  { id: "by", header: "Sent by", width: 100, cell: ({ channels }) => channels.map(codeWords).join(", ") },
  {
    id: "to",
    header: "Addresses",
    width: 180,
    cell: ({ emails, channels }) =>
      emails.length > 0 ? (
        <SafeText text={emails.join(", ")} length={120} />
      ) : channels.includes("email") ? (
        <span className={css.quiet}>the operators' addresses</span>
      ) : null,
  },
];

function Routes(): ReactNode {
  const query = useCall("plans.list", {}, { refetchMs: 15_000 });
  const routes = (query.data?.records ?? [])
    .filter(({ kind, is_retired: isRetired }) => kind === "route" && !isRetired)
    .map(readRoute);
  return (
    <Section title="Who is notified of what">
      <div className={css.causes}>
        <PlainTable
          label="Routes of alerts"
          columns={routeColumns}
          rows={routes}
          rowKey={({ name }) => name}
          empty="No routes: alerts that operators always get go by the setting Channels to operators."
        />
        <div className={css.buttons}>
          <Button
            component="a"
            leftSection={<PlusIcon size={14} />}
            href={`#${placeAddress(["plans"], { kind: "route", do: "new" })}`}
          >
            New route
          </Button>
        </div>
      </div>
    </Section>
  );
}

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
            <div className={css.buttons}>
              <Button
                component="a"
                leftSection={<PlusIcon size={14} />}
                href={`#${placeAddress(["plans"], { kind: "alert", do: "new" })}`}
              >
                New alert
              </Button>
            </div>
            <p className={css.quiet}>
              Low balances, calls with high usage, limits nearly used and whatever needs a person are noticed
              without being set.
            </p>
            <Routes />
          </div>
        )}
      </QueryView>
    </DetailScroll>
  );
}
