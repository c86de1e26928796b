import { Button, SegmentedControl } from "@mantine/core";
import { useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { Alert, Notification } from "../../../../shared/contract/alerts.ts";
import { alertAmount, alertThreshold } from "../../../../shared/governance/alerts/words.ts";
import { alertTitle } from "../../lib/alert-sentences.ts";
import { callOrThrow, toFailure, useConsole } from "../../lib/console.tsx";
import { useKeys } from "../../lib/keys.ts";
import { useLive, useProjectCurrency } from "../../lib/live.ts";
import { navigate, usePlace } from "../../lib/router.ts";
import { counted } from "../../lib/text.ts";
import { type Column, DataTable } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { useAct } from "../../ui/acts.ts";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { SafeText, Tag, Time, UserName } from "../../ui/parts.tsx";
import { DetailBar, DetailScroll, SideDetail } from "../../ui/side-detail.tsx";
import { EmptyView, ErrorView, FailureLine, Skeleton, StaleLine } from "../../ui/states.tsx";
import { deliverySign, listSign } from "./alert-words.ts";
import { AlertGroups } from "./alert-groups.tsx";
import { AlertDetail } from "./alert-detail.tsx";
import css from "./alerts.module.css";
import { DeliveryLine } from "./delivery-line.tsx";
import {
  type AlertFilter,
  alertsAddress,
  askedFilter,
  Filters,
  readFilter,
  type Show,
  shows,
} from "./filters.tsx";
import { SetAlerts } from "./set-alerts.tsx";

const PAGE = 100;
/** The list behind the count of open alerts, with who was notified; and the alerts that are set. */
export function AlertsDesk(): ReactNode {
  const place = usePlace();
  const asked = place.query.get("show");
  const show = shows.find((each) => each === asked) ?? "open";
  const filter = readFilter(place.query);
  const tabs = (
    <DeskBar title="Alerts">
      <SegmentedControl
        aria-label="Which alerts"
        value={show}
        onChange={(value) => navigate(alertsAddress(value as Show, filter))}
        data={[
          { value: "open", label: "Open" },
          { value: "each", label: "One by one" },
          { value: "all", label: "All" },
          { value: "undelivered", label: "Not delivered" },
          { value: "set", label: "Set alerts" },
        ]}
      />
      <Grow />
    </DeskBar>
  );
  if (show === "set")
    return (
      <>
        {tabs}
        <SetAlerts />
      </>
    );
  if (show === "open") return <AlertGroups tabs={tabs} />;
  return (
    <AlertList
      key={`${show} ${filter.severity} ${filter.kind}`}
      show={show}
      filter={filter}
      tabs={tabs}
      openId={Number(place.parts[1] ?? Number.NaN)}
    />
  );
}

function alertColumns(currency: string, waiting: ReadonlySet<string>, show: Show): readonly Column<Alert>[] {
  return [
    {
      id: "severity",
      header: "Severity",
      width: 98,
      fixed: true,
      cell: (alert) => {
        const sign = listSign(alert);
        return (
          <Tag tone={sign.tone} dot plain>
            {sign.word}
          </Tag>
        );
      },
    },
    { id: "age", header: "Raised", width: 84, fixed: true, cell: ({ created_at: at }) => <Time at={at} /> },
    {
      id: "what",
      header: "What",
      width: 140,
      grow: 1.4,
      fixed: true,
      cell: (alert) => <SafeText text={alertTitle(alert)} />,
    },
    {
      id: "user",
      header: "User",
      width: 100,
      grow: 1.2,
      cell: ({ user_id: id, display_name: name }) =>
        id ? <UserName name={name} id={id} /> : <span className={css.quiet}>—</span>,
    },
    {
      id: "value",
      header: "Value",
      width: 76,
      align: "right",
      cell: (alert) => alertAmount(alert, alert.value, currency),
    },
    {
      id: "threshold",
      header: "Threshold",
      width: 76,
      align: "right",
      cell: (alert) => alertThreshold(alert, currency),
    },
    {
      id: "delivery",
      header: "Notified",
      width: 138,
      hint: "Whether its messages were delivered",
      cell: (alert) => {
        const sign = deliverySign(alert);
        return (
          <Tag tone={sign.tone} dot plain>
            {sign.word}
          </Tag>
        );
      },
    },
    // Of the open ones only those whose act waits to be sent have a state to show.
    ...(show === "each" && waiting.size === 0 ? [] : [acknowledgedColumn(waiting)]),
  ];
}

function acknowledgedColumn(waiting: ReadonlySet<string>): Column<Alert> {
  return {
    id: "seen",
    header: "Acknowledged",
    width: 110,
    grow: 0.6,
    cell: (alert) =>
      waiting.has(String(alert.alert_event_id)) ? (
        <span className={css.pending}>waits to be sent</span>
      ) : alert.acknowledged_at ? (
        <span className={css.quiet}>
          <SafeText text={alert.acknowledged_by ?? "yes"} length={40} />
        </span>
      ) : null,
  };
}

/** The alerts as they are read page by page, the one that is open, and what can be done with them. */
function useAlertList(show: Exclude<Show, "set" | "open">, filter: AlertFilter, openId: number) {
  const client = useConsole();
  const queries = useQueryClient();
  const runAct = useAct();
  const intents = useLive((state) => state.intents);
  const waiting = new Set(
    intents
      .filter((each) => each.kind === "acknowledge_alert" && each.status === "pending")
      .map((each) => each.subject),
  );
  const query = useInfiniteQuery({
    queryKey: ["alerts.list", { show, filter }],
    queryFn: ({ pageParam }) =>
      callOrThrow(client, "alerts.list", {
        show: show === "each" ? "open" : show,
        before_id: pageParam,
        limit: PAGE,
        filter: askedFilter(filter),
      }),
    initialPageParam: null as number | null,
    getNextPageParam: (page) => page.next_before_id,
    // Alerts come by themselves; this is for when no wake-up does.
    refetchInterval: 30_000,
  });
  // One that was just acknowledged, or has left the list, stays beside it while it is looked at.
  const [kept, setKept] = useState<Alert | null>(null);
  const rows = query.data?.pages.flatMap((page) => page.alerts) ?? [];
  const found = rows.find((each) => each.alert_event_id === openId);
  const opened = found ?? (kept?.alert_event_id === openId ? kept : null);
  if (found && found !== kept) setKept(found);

  const refresh = (): void => {
    for (const key of ["alerts.list", "watch.overview"]) void queries.invalidateQueries({ queryKey: [key] });
  };
  const openAlert = (alert: Alert): void =>
    navigate(alertsAddress(show, filter, { id: alert.alert_event_id }), { replace: !Number.isNaN(openId) });

  async function acknowledge(alert: Alert): Promise<void> {
    if (alert.acknowledged_at || waiting.has(String(alert.alert_event_id))) return;
    const place = rows.findIndex((each) => each.alert_event_id === alert.alert_event_id);
    // The list shows it by itself.
    if (!(await runAct("acknowledge_alert", alert, {}, { isQuiet: true }))) return;
    // On to the next one: a list of open alerts is worked through.
    const next = rows[place + 1] ?? rows[place - 1];
    if (show === "each" && next) openAlert(next);
  }

  async function sendAgain(notification: Notification): Promise<void> {
    const result = await client.call("alerts.send_again", {
      command_id: crypto.randomUUID(),
      notification_id: notification.notification_id,
    });
    if (!result.ok) return showFailure("Not queued again", result.error);
    showDone("Queued again: the next deliverer sends it");
    refresh();
  }

  useKeys({ a: () => (opened ? void acknowledge(opened) : false) });

  return { query, rows, waiting, opened, openAlert, acknowledge, sendAgain };
}

function AlertList({
  show,
  filter,
  tabs,
  openId,
}: {
  readonly show: Exclude<Show, "set" | "open">;
  readonly filter: AlertFilter;
  readonly tabs: ReactNode;
  /** NaN: no detail is open. */
  readonly openId: number;
}): ReactNode {
  const currency = useProjectCurrency();
  const isSample = useLive((state) => state.connection?.project?.sample_data ?? false);
  const { query, rows, waiting, opened, openAlert, acknowledge, sendAgain } = useAlertList(
    show,
    filter,
    openId,
  );
  const first = query.data?.pages[0];
  const failure = query.error ? toFailure(query.error) : null;
  const list = (
    <>
      {tabs}
      <div className={css.filters}>
        <Filters show={show} filter={filter} />
      </div>
      {first?.as_of ? <StaleLine asOf={first.as_of} /> : null}
      {failure && query.data ? <FailureLine failure={failure} onRetry={() => void query.refetch()} /> : null}
      {first ? <DeliveryLine delivery={first.delivery} isSample={isSample} show={show} /> : null}
      {!query.data && failure ? (
        <ErrorView failure={failure} onRetry={() => void query.refetch()} />
      ) : (
        <DataTable
          id="alerts"
          label="Alerts, newest first"
          columns={alertColumns(currency, waiting, show)}
          rows={rows}
          rowKey={(alert) => String(alert.alert_event_id)}
          onOpen={openAlert}
          openKey={Number.isNaN(openId) ? null : String(openId)}
          keys
          columnMenu
          onEnd={() => {
            if (query.hasNextPage && !query.isFetchingNextPage) void query.fetchNextPage();
          }}
          empty={
            query.data ? (
              <NoAlerts
                show={show}
                isFiltered={filter.severity !== undefined || filter.kind !== undefined}
                queued={query.data.pages[0]?.delivery.queued ?? 0}
              />
            ) : (
              <Skeleton lines={8} />
            )
          }
          footer={
            <span>
              {counted(rows.length, "alert")}
              {query.hasNextPage ? ", older ones as you scroll" : ""}
            </span>
          }
        />
      )}
    </>
  );
  const close = (): void => navigate(alertsAddress(show, filter));
  return (
    <SideDetail
      id="alerts"
      list={list}
      minListWidth={460}
      detailLabel="Alert"
      onClose={close}
      detail={
        Number.isNaN(openId) ? null : (
          <>
            <DetailBar title={opened ? alertTitle(opened) : `Alert ${openId}`} onClose={close} />
            <DetailScroll>
              {opened ? (
                <AlertDetail
                  alert={opened}
                  currency={currency}
                  waits={waiting.has(String(opened.alert_event_id))}
                  onAcknowledge={() => void acknowledge(opened)}
                  onSendAgain={(notification) => void sendAgain(notification)}
                />
              ) : query.data ? (
                <EmptyView title="This alert is not in the list">
                  It may have been acknowledged, or be older than what is loaded.
                </EmptyView>
              ) : (
                <Skeleton lines={6} />
              )}
            </DetailScroll>
          </>
        )
      }
    />
  );
}

function NoAlerts({
  show,
  isFiltered,
  queued,
}: {
  readonly show: Show;
  readonly isFiltered: boolean;
  readonly queued: number;
}): ReactNode {
  if (isFiltered)
    return (
      <EmptyView title="No such alerts">There are none of this severity and kind in this list.</EmptyView>
    );
  if (show === "each")
    return (
      <EmptyView title="No open alerts">
        Every alert is acknowledged. New alerts appear here by themselves.
      </EmptyView>
    );
  if (show === "undelivered")
    return (
      <EmptyView
        title={
          queued > 0
            ? `No message was given up; ${counted(queued, "message")} queued`
            : "Everything was delivered"
        }
      >
        Messages that were given up appear here with the reason, and can be sent again.
      </EmptyView>
    );
  return (
    <EmptyView
      title="No alerts yet"
      actions={
        <Button component="a" href={`#${alertsAddress("set")}`}>
          See what is watched
        </Button>
      }
    >
      Alerts are raised by budgets, limits nearly used, sudden use, and what needs a person.
    </EmptyView>
  );
}
