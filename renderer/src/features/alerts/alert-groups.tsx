/** Open alerts, alike ones as one line: what waits for an operator comes before users' own limits. */
import { Button, Checkbox, Popover, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { AlertAction, AlertGroup } from "../../../../shared/contract/alerts.ts";
import { alertSentence, alertTitle } from "../../lib/alert-sentences.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { formatTokens } from "../../lib/format.ts";
import { useKeys } from "../../lib/keys.ts";
import { useMayAct, useLive, useProjectCurrency } from "../../lib/live.ts";
import { navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { cleanText, clip, counted } from "../../lib/text.ts";
import { type Column, DataTable } from "../../ui/data-table.tsx";
import { CheckIcon } from "../../ui/icons.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { Facts, SafeText, Section, Tag, Time, UserName } from "../../ui/parts.tsx";
import { DetailBar, DetailScroll, SideDetail } from "../../ui/side-detail.tsx";
import { EmptyView, ErrorView, FailureLine, Skeleton, StaleLine } from "../../ui/states.tsx";
import { toFailure } from "../../lib/console.tsx";
import { listSign, severitySign } from "./alert-words.ts";
import { Causes } from "./causes.tsx";
import css from "./alerts.module.css";
import { DeliveryLine } from "./delivery-line.tsx";
import { type AlertFilter, alertsAddress, askedFilter, Filters, readFilter } from "./filters.tsx";

/** Alerts come by themselves; this is for when no wake-up does. */
const fallbackMs = 30_000;

/** The name that similar alerts share: that of a limit at any percent. */
const groupTitle = ({ kind, alert_name: name }: Pick<AlertGroup, "kind" | "alert_name">): string =>
  alertTitle({ kind, alert_name: name, threshold: null });

/** "Ann, Bob and 198 more". */
function whoWords({ who, users }: Pick<AlertGroup, "who" | "users">): string {
  if (users === 0) return "—";
  const named = who.slice(0, 2).map(({ display_name: name, user_id: id }) => clip(cleanText(name ?? id), 30));
  const more = users - named.length;
  return more > 0 ? `${named.join(", ")} and ${formatTokens(more)} more` : named.join(", ");
}

export function AlertGroups({ tabs }: { readonly tabs: ReactNode }): ReactNode {
  const place = usePlace();
  const filter = readFilter(place.query);
  const isFiltered = filter.severity !== undefined || filter.kind !== undefined;
  const openId = place.parts[1] === "group" ? (place.parts[2] ?? null) : null;
  const isSample = useLive((state) => state.connection?.project?.sample_data ?? false);
  const query = useCall(
    "alerts.groups",
    { filter: askedFilter(filter) },
    { refetchMs: fallbackMs, keepPrevious: true },
  );
  const delivery = useCall(
    "alerts.list",
    { show: "undelivered", before_id: null, limit: 1 },
    { refetchMs: fallbackMs },
  ).data?.delivery;
  const [picked, setPicked] = useState<ReadonlySet<string>>(new Set());
  const groups = query.data?.groups ?? [];
  const chosen = groups.filter(({ group_id: id }) => picked.has(id));
  const opened = groups.find(({ group_id: id }) => id === openId);
  const toggle = (group: AlertGroup): void => {
    const next = new Set(picked);
    if (!next.delete(group.group_id)) next.add(group.group_id);
    setPicked(next);
  };
  const failure = query.error ? toFailure(query.error) : null;
  const open = (group: AlertGroup): void =>
    navigate(alertsAddress("open", filter, { group: group.group_id }), { replace: openId !== null });
  const close = (): void => navigate(alertsAddress("open", filter));
  const list = (
    <>
      {tabs}
      <div className={css.filters}>
        <Filters show="open" filter={filter} />
        {chosen.length > 0 ? (
          <GroupActs groups={chosen} onDone={() => setPicked(new Set())} />
        ) : query.data ? (
          <span className={css.quiet}>
            {query.data.open === 0
              ? "Nothing waits for an operator"
              : `${counted(query.data.open, "alert")} ${query.data.open === 1 ? "waits" : "wait"} for an operator`}
            {query.data.users_own > 0
              ? `; ${formatTokens(query.data.users_own)} about users' own limits`
              : ""}
          </span>
        ) : null}
      </div>
      {query.data?.as_of ? <StaleLine asOf={query.data.as_of} /> : null}
      {failure && query.data ? <FailureLine failure={failure} onRetry={() => void query.refetch()} /> : null}
      {delivery ? <DeliveryLine delivery={delivery} isSample={isSample} show="open" /> : null}
      {!query.data && failure ? (
        <ErrorView failure={failure} onRetry={() => void query.refetch()} />
      ) : (
        <DataTable
          id="alert-groups"
          label="Open alerts, alike ones together"
          columns={groupColumns(picked, toggle)}
          rows={groups}
          rowKey={({ group_id: id }) => id}
          onOpen={open}
          onPick={toggle}
          openKey={openId}
          keys
          columnMenu
          empty={
            query.data ? (
              <EmptyView title="No open alerts">
                {isFiltered
                  ? "None of this severity and kind."
                  : "Everything is acknowledged or resolved. New alerts appear here by themselves."}
              </EmptyView>
            ) : (
              <Skeleton lines={8} />
            )
          }
          footer={<span>{counted(groups.length, "group")}; x selects a line</span>}
        />
      )}
    </>
  );
  return (
    <SideDetail
      id="alerts"
      list={list}
      minListWidth={460}
      detailLabel="Alert"
      onClose={close}
      detail={
        openId === null ? null : (
          <>
            <DetailBar title={opened ? groupTitle(opened) : "Alerts"} onClose={close} />
            <DetailScroll>
              {opened ? (
                <GroupDetail group={opened} filter={filter} />
              ) : query.data ? (
                <EmptyView title="None of these is open any more" />
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

function groupColumns(
  picked: ReadonlySet<string>,
  toggle: (group: AlertGroup) => void,
): readonly Column<AlertGroup>[] {
  return [
    {
      id: "pick",
      header: "",
      width: 34,
      fixed: true,
      cell: (group) => (
        <Checkbox
          aria-label={`Select ${groupTitle(group)}`}
          size="xs"
          checked={picked.has(group.group_id)}
          onClick={(event) => event.stopPropagation()}
          onChange={() => toggle(group)}
        />
      ),
    },
    {
      id: "severity",
      header: "Severity",
      width: 98,
      fixed: true,
      cell: (group) => {
        const sign = group.snoozed_until ? ({ tone: "grey", word: "snoozed" } as const) : listSign(group);
        return (
          <Tag tone={sign.tone} dot plain>
            {sign.word}
          </Tag>
        );
      },
    },
    {
      id: "what",
      header: "What",
      width: 150,
      grow: 1.4,
      fixed: true,
      cell: (group) => <SafeText text={groupTitle(group)} />,
    },
    {
      id: "count",
      header: "How many",
      width: 76,
      align: "right",
      cell: ({ count }) => formatTokens(count),
    },
    { id: "who", header: "Who", width: 150, grow: 1.4, cell: (group) => whoWords(group) },
    { id: "last", header: "Latest", width: 84, cell: ({ last_at: at }) => <Time at={at} /> },
    {
      id: "owner",
      header: "Owner",
      width: 80,
      grow: 0.5,
      cell: ({ owners }) =>
        owners.length > 0 ? (
          <SafeText text={owners.join(", ")} length={40} />
        ) : (
          <span className={css.quiet}>—</span>
        ),
    },
  ];
}

const snoozes = [
  { label: "1 hour", hours: 1 },
  { label: "4 hours", hours: 4 },
  { label: "1 day", hours: 24 },
  { label: "1 week", hours: 168 },
] as const;
const done: Readonly<Record<AlertAction, string>> = {
  acknowledge: "acknowledged",
  resolve: "resolved",
  snooze: "snoozed",
  take: "taken",
  give_up: "given up",
};

/** What can be done with all alerts of these lines at once. */
function GroupActs({
  groups,
  onDone,
}: {
  readonly groups: readonly AlertGroup[];
  readonly onDone?: () => void;
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const isLive = useMayAct();
  const [asks, setAsks] = useState<"resolve" | "snooze" | null>(null);
  const [reason, setReason] = useState("");
  const ids = groups.flatMap(({ alert_event_ids: each }) => each).slice(0, 2000);
  const count = groups.reduce((sum, group) => sum + group.count, 0);
  const isMine = groups.every(({ owners }) => owners.length > 0);

  async function decide(action: AlertAction, more: { reason?: string; until?: string } = {}): Promise<void> {
    setAsks(null);
    const result = await client.call("alerts.decide", {
      command_id: crypto.randomUUID(),
      alert_event_ids: ids,
      action,
      reason: more.reason ?? null,
      until: more.until ?? null,
    });
    if (!result.ok) return showFailure(`Not ${done[action]}`, result.error);
    showDone(`${counted(result.value.changed, "alert")} ${done[action]}`);
    setReason("");
    onDone?.();
    for (const key of ["alerts.groups", "alerts.list", "watch.overview"])
      void queries.invalidateQueries({ queryKey: [key] });
  }
  // The keys belong to the line that is open.
  useKeys({ a: () => void decide("acknowledge") }, onDone === undefined && isLive && ids.length > 0);
  return (
    <div className={css.buttons}>
      <Button
        variant="filled"
        disabled={!isLive}
        leftSection={<CheckIcon size={14} />}
        title={onDone ? undefined : "Acknowledge (a)"}
        onClick={() => void decide("acknowledge")}
      >
        {count === 1 ? "Acknowledge" : `Acknowledge ${formatTokens(ids.length)}`}
      </Button>
      <Popover opened={asks === "resolve"} onChange={() => setAsks(null)} trapFocus>
        <Popover.Target>
          <Button disabled={!isLive} onClick={() => setAsks("resolve")}>
            Resolve…
          </Button>
        </Popover.Target>
        <Popover.Dropdown>
          <form
            className={css.ask}
            onSubmit={(event) => {
              event.preventDefault();
              void decide("resolve", { reason: reason.trim() });
            }}
          >
            <TextInput
              label="What became of it"
              description="Kept with the alerts and in the audit."
              w={300}
              maxLength={1000}
              value={reason}
              onChange={(event) => setReason(event.currentTarget.value)}
            />
            <Button type="submit" variant="filled" disabled={reason.trim().length < 3}>
              Resolve
            </Button>
          </form>
        </Popover.Dropdown>
      </Popover>
      <Popover opened={asks === "snooze"} onChange={() => setAsks(null)} trapFocus>
        <Popover.Target>
          <Button disabled={!isLive} onClick={() => setAsks("snooze")}>
            Snooze…
          </Button>
        </Popover.Target>
        <Popover.Dropdown>
          <div className={css.buttons}>
            {snoozes.map(({ label, hours }) => (
              <Button
                key={label}
                onClick={() =>
                  void decide("snooze", { until: new Date(Date.now() + hours * 3_600_000).toISOString() })
                }
              >
                {label}
              </Button>
            ))}
          </div>
        </Popover.Dropdown>
      </Popover>
      <Button disabled={!isLive} onClick={() => void decide(isMine ? "give_up" : "take")}>
        {isMine ? "Give up" : "Take"}
      </Button>
    </div>
  );
}

function GroupDetail({
  group,
  filter,
}: {
  readonly group: AlertGroup;
  readonly filter: AlertFilter;
}): ReactNode {
  const currency = useProjectCurrency();
  const sign = severitySign(group.severity);
  return (
    <div className={css.alert}>
      <p className={css.said}>
        <SafeText text={alertSentence(group.newest, currency)} length={400} />
      </p>
      <GroupActs key={group.group_id} groups={[group]} />
      <Facts
        rows={[
          [
            "Severity",
            <Tag key="s" tone={sign.tone}>
              {sign.word}
            </Tag>,
          ],
          ["For", group.needs_operator ? "operators" : "the users themselves: shown in each one's alerts"],
          [
            "How many",
            `${counted(group.count, "alert")}${group.users > 0 ? `, ${counted(group.users, "user")}` : ""}`,
          ],
          ["First", <Time key="f" at={group.first_at} form="full" />],
          ["Latest", <Time key="l" at={group.last_at} form="full" />],
          [
            "Owner",
            group.owners.length > 0 ? (
              <SafeText key="o" text={group.owners.join(", ")} length={80} />
            ) : (
              "nobody"
            ),
          ],
          ...(group.snoozed_until
            ? ([["Snoozed until", <Time key="z" at={group.snoozed_until} form="full" />]] as const)
            : []),
        ]}
      />
      {group.needs_operator ? <Causes alertEventId={group.newest_id} /> : null}
      {group.who.length > 0 ? (
        <Section title={group.users > group.who.length ? `The latest ${group.who.length} users` : "Users"}>
          <ul className={css.who}>
            {group.who.map(({ user_id: id, display_name: name }) => (
              <li key={id}>
                <a href={`#${placeAddress(["users", id])}`}>
                  <UserName name={name} id={id} />
                </a>
              </li>
            ))}
          </ul>
        </Section>
      ) : null}
      <a href={`#${alertsAddress("each", { ...filter, kind: group.kind }, { id: group.newest_id })}`}>
        {group.count === 1 ? "Who was notified, and the call behind it" : "See each, with who was notified"}
      </a>
    </div>
  );
}
