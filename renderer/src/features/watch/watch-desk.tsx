import { ActionIcon, Button, Select } from "@mantine/core";
import { type ReactNode, useCallback, useEffect, useMemo, useState } from "react";
import type { FeedFilter } from "../../../../shared/contract/watch.ts";
import type { UsageEvent } from "../../../../shared/contract/watch.ts";
import { describeReason } from "../../../../shared/governance/rules/receipt.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { useKeys } from "../../lib/keys.ts";
import { useLive } from "../../lib/live.ts";
import { isFlag, isNumber, recall, remember, useRemembered } from "../../lib/remember.ts";
import { navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { eventSign, kindWords } from "../../lib/signs.ts";
import { capitalise, cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { type Column, DataTable } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { ArrowUpIcon, ChartIcon, CloseIcon, PauseIcon, PlayIcon } from "../../ui/icons.tsx";
import { showDone } from "../../ui/notices.tsx";
import { Cost, Id, SafeText, Tag, Time, Tokens, UserName } from "../../ui/parts.tsx";
import { ReceiptView } from "../../ui/receipt.tsx";
import { DetailBar, DetailScroll, SideDetail } from "../../ui/side-detail.tsx";
import { EmptyView, FailureLine, QueryView, Skeleton } from "../../ui/states.tsx";
import { UserPicker } from "../../ui/user-picker.tsx";
import { useFeed } from "./feed.ts";
import { FirstCall } from "./first-call.tsx";
import { Counters, OverviewCharts } from "./overview.tsx";
import css from "./watch.module.css";

const isFilter = (value: unknown): value is FeedFilter =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const windows = [
  { value: "15", label: "last 15 minutes" },
  { value: "60", label: "last hour" },
  { value: "360", label: "last 6 hours" },
  { value: "1440", label: "last 24 hours" },
];

const columns: readonly Column<UsageEvent>[] = [
  { id: "at", header: "Time", width: 74, fixed: true, cell: (event) => <Time at={event.at} form="clock" /> },
  {
    id: "what",
    header: "What",
    width: 92,
    fixed: true,
    cell: (event) => {
      const sign = eventSign(event);
      return (
        <Tag tone={sign.tone} dot plain>
          {sign.word}
        </Tag>
      );
    },
  },
  {
    id: "user",
    header: "User",
    width: 120,
    grow: 1.5,
    fixed: true,
    cell: (event) => <UserName name={event.display_name} id={event.user_id} />,
  },
  {
    id: "tokens",
    header: "Tokens",
    width: 76,
    align: "right",
    hint: "Held, asked for, charged or given back",
    cell: (event) => <Tokens value={event.tokens} />,
  },
  {
    id: "model",
    header: "Model",
    width: 120,
    grow: 1.3,
    cell: (event) => {
      const asked = event.requested_model;
      const used = event.model ?? asked;
      if (!used) return <span className={css.where}>—</span>;
      if (asked && asked !== used)
        return (
          <span title={`Asked for ${cleanText(asked)}, routed to ${cleanText(used)}`}>
            <span className={css.route}>{clip(cleanText(asked), 40)} → </span>
            {clip(cleanText(used), 40)}
          </span>
        );
      return <SafeText text={used} length={60} />;
    },
  },
  {
    id: "reason",
    header: "Reason",
    width: 110,
    grow: 1.1,
    cell: (event) =>
      event.reason ? <span title={event.reason}>{cleanText(describeReason(event.reason))}</span> : null,
  },
  {
    id: "task",
    header: "Task",
    width: 80,
    grow: 0.7,
    cell: (event) => (event.task_type ? codeWords(event.task_type) : null),
  },
  {
    id: "cost",
    header: "Cost",
    width: 104,
    align: "right",
    cell: (event) =>
      event.kind === "settled" ? <Cost micros={event.cost_micros} currency={event.currency} /> : null,
  },
  {
    id: "input",
    header: "Input",
    width: 70,
    align: "right",
    hidden: true,
    cell: (event) => <Tokens value={event.input_tokens} />,
  },
  {
    id: "output",
    header: "Output",
    width: 70,
    align: "right",
    hidden: true,
    cell: (event) => <Tokens value={event.output_tokens} />,
  },
  { id: "plan", header: "Plan", width: 80, grow: 0.5, hidden: true, cell: (event) => event.plan_id ?? "—" },
  {
    id: "request",
    header: "Request",
    width: 130,
    hidden: true,
    cell: (event) => <Id value={event.request_id} copy={false} />,
  },
];

const eventKey = (event: UsageEvent): string => String(event.event_id);

/** What happens now: figures, the chart, and every call as it is decided. */
export function WatchDesk(): ReactNode {
  const place = usePlace();
  const client = useConsole();
  const project = useLive((state) => state.connection?.profile?.profile_id ?? "");
  const watch = useWatch();
  const { filter, setFilter, overview, showFigures } = watch;
  useEffect(() => useFeed.getState().follow(client, project, filter), [client, project, filter]);
  const decisionId = place.parts[1] === "decisions" ? Number(place.parts[2]) : null;
  const openDecision = decisionId !== null && Number.isSafeInteger(decisionId) ? decisionId : null;
  const close = (): void => navigate("/watch");
  return (
    <SideDetail
      id="watch"
      list={
        <>
          <WatchBar watch={watch} />
          <QueryView query={overview} skeleton={<Skeleton lines={3} />}>
            {(data) => (
              <div className={css.figures}>
                <Counters overview={data} onBlocked={() => setFilter({ ...filter, decision: "block" })} />
                {showFigures ? (
                  <OverviewCharts
                    overview={data}
                    onReason={(reason) => setFilter({ ...filter, reason, decision: "block" })}
                  />
                ) : null}
              </div>
            )}
          </QueryView>
          <FeedTable watch={watch} openDecision={openDecision} openEvent={place.query.get("event")} />
        </>
      }
      minListWidth={460}
      detailLabel="Receipt"
      onClose={close}
      detail={
        openDecision === null ? null : (
          <>
            <DetailBar title={`Decision ${openDecision}`} onClose={close} />
            <DetailScroll>
              <ReceiptView
                key={openDecision}
                decisionId={openDecision}
                actions={(receipt) => (
                  <>
                    <Button component="a" href={`#${placeAddress(["users", receipt.user_id])}`}>
                      Open user
                    </Button>
                    <Button onClick={() => setFilter({ user_id: receipt.user_id })}>Only this user</Button>
                  </>
                )}
              />
            </DetailScroll>
          </>
        )
      }
    />
  );
}

type Watch = ReturnType<typeof useWatch>;

/** What is looked at: the filter of the feed, and the figures of the last minutes. */
function useWatch() {
  const place = usePlace();
  const [minutes, setMinutes] = useRemembered("watch.minutes", 60, isNumber);
  const [showFigures, setShowFigures] = useRemembered("watch.figures", true, isFlag);
  const overview = useCall("watch.overview", { minutes }, { refetchMs: 5000, keepPrevious: true });
  const [filter, setFilterState] = useState<FeedFilter>(() => ({
    ...recall("watch.filter", {}, isFilter),
    ...(place.query.get("user") ? { user_id: place.query.get("user") as string } : {}),
  }));
  const setFilter = useCallback((next: FeedFilter) => {
    const clean = Object.fromEntries(Object.entries(next).filter(([, value]) => value !== undefined));
    setFilterState(clean);
    remember("watch.filter", clean);
  }, []);
  return { minutes, setMinutes, showFigures, setShowFigures, overview, filter, setFilter };
}

function WatchBar({ watch }: { readonly watch: Watch }): ReactNode {
  const { minutes, setMinutes, showFigures, setShowFigures, filter, setFilter } = watch;
  const feed = useFeed();
  return (
    <DeskBar title="Watch">
      <Filters watch={watch} />
      {Object.keys(filter).length > 0 ? (
        <Button variant="subtle" leftSection={<CloseIcon size={13} />} onClick={() => setFilter({})}>
          Clear
        </Button>
      ) : null}
      <Grow />
      <Select
        aria-label="Time of the figures"
        w={128}
        data={windows}
        allowDeselect={false}
        value={String(minutes)}
        onChange={(value) => setMinutes(Number(value ?? 60))}
      />
      <ActionIcon
        aria-label={showFigures ? "Hide the charts" : "Show the charts"}
        title={showFigures ? "Hide the charts" : "Show the charts"}
        aria-pressed={showFigures}
        onClick={() => setShowFigures(!showFigures)}
      >
        <ChartIcon />
      </ActionIcon>
      <Button
        variant={feed.isPaused ? "filled" : "default"}
        leftSection={feed.isPaused ? <PlayIcon size={14} /> : <PauseIcon size={14} />}
        title={feed.isPaused ? "Go on (p)" : "Pause (p)"}
        onClick={() => feed.pause(!feed.isPaused)}
      >
        {feed.isPaused
          ? `Go on${feed.waitingCount > 0 ? `, ${feed.waitingCount.toLocaleString("en")} wait` : ""}`
          : "Pause"}
      </Button>
    </DeskBar>
  );
}

/** Reasons that can be chosen before any call was stopped for them. */
const usualReasons = [
  "insufficient_tokens",
  "daily_limit",
  "monthly_limit",
  "user_blocked",
  "spam_identical",
  "bot_behavior",
  "token_hogging",
  "off_topic",
];

function Filters({ watch: { filter, setFilter, overview } }: { readonly watch: Watch }): ReactNode {
  const shown = useFeed((state) => state.shown);
  const models = [...new Set(shown.slice(0, 500).flatMap((event) => event.model ?? []))].sort();
  const reasons = [
    ...new Set([...(overview.data?.reasons.map((each) => each.reason) ?? []), ...usualReasons]),
  ];
  return (
    <>
      <UserPicker
        userId={filter.user_id ?? null}
        onChange={(userId) => setFilter({ ...filter, user_id: userId ?? undefined })}
      />
      <Select
        aria-label="Decision"
        placeholder="Any decision"
        w={118}
        clearable
        data={[
          { value: "allow", label: "allowed" },
          { value: "warn", label: "warned" },
          { value: "block", label: "blocked" },
        ]}
        value={filter.decision ?? null}
        onChange={(value) =>
          setFilter({ ...filter, decision: (value as FeedFilter["decision"] | null) ?? undefined })
        }
      />
      <Select
        aria-label="What happened"
        placeholder="Anything"
        w={112}
        clearable
        data={Object.entries(kindWords).map(([value, label]) => ({ value, label }))}
        value={filter.kinds?.[0] ?? null}
        onChange={(value) =>
          setFilter({ ...filter, kinds: value ? [value as UsageEvent["kind"]] : undefined })
        }
      />
      <Select
        aria-label="Reason"
        placeholder="Any reason"
        w={140}
        clearable
        searchable
        data={reasons.map((value) => ({ value, label: capitalise(cleanText(describeReason(value))) }))}
        value={filter.reason ?? null}
        onChange={(value) => setFilter({ ...filter, reason: value ?? undefined })}
      />
      <Select
        aria-label="Model"
        placeholder="Any model"
        w={140}
        clearable
        searchable
        data={filter.model && !models.includes(filter.model) ? [filter.model, ...models] : models}
        value={filter.model ?? null}
        onChange={(value) => setFilter({ ...filter, model: value ?? undefined })}
      />
    </>
  );
}

function FeedTable({
  watch: { filter, setFilter },
  openDecision,
  openEvent,
}: {
  readonly watch: Watch;
  readonly openDecision: number | null;
  /** Of several events of that decision, the one that was clicked. */
  readonly openEvent: string | null;
}): ReactNode {
  const client = useConsole();
  const feed = useFeed();
  const [toTop, setToTop] = useState(0);
  const goToTop = useCallback(() => {
    useFeed.getState().release();
    setToTop((count) => count + 1);
  }, []);
  useKeys({ p: () => feed.pause(!feed.isPaused), t: goToTop });
  const openKey = useMemo(() => {
    if (openDecision === null) return null;
    if (openEvent) return openEvent;
    const event = feed.shown.find((each) => each.decision_id === openDecision);
    return event ? eventKey(event) : null;
  }, [openDecision, openEvent, feed.shown]);
  const open = useCallback(
    (event: UsageEvent) => {
      if (event.decision_id === null) return navigate(placeAddress(["users", event.user_id]));
      navigate(placeAddress(["watch", "decisions", String(event.decision_id)], { event: eventKey(event) }), {
        replace: openDecision !== null,
      });
    },
    [openDecision],
  );
  return (
    <>
      {feed.failure ? (
        <FailureLine failure={feed.failure} onRetry={() => void feed.loadOlder(client)} />
      ) : null}
      <DataTable
        id="feed"
        label="Calls, newest first"
        columns={columns}
        rows={feed.shown}
        rowKey={eventKey}
        rowHeight={26}
        onOpen={open}
        openKey={openKey}
        keys
        toTop={toTop}
        onHold={feed.hold}
        onEnd={() => void feed.loadOlder(client)}
        columnMenu
        pill={
          feed.waitingCount > 0 && !feed.isPaused ? (
            <Button variant="filled" radius="xl" leftSection={<ArrowUpIcon size={14} />} onClick={goToTop}>
              {feed.waitingCount.toLocaleString("en")} new
            </Button>
          ) : null
        }
        empty={<NoCalls isFiltered={Object.keys(filter).length > 0} onClear={() => setFilter({})} />}
        footer={<FeedFooter />}
      />
    </>
  );
}

function NoCalls({
  isFiltered,
  onClear,
}: {
  readonly isFiltered: boolean;
  readonly onClear: () => void;
}): ReactNode {
  const isCaughtUp = useFeed((state) => state.isCaughtUp);
  const isFirst = isCaughtUp && !isFiltered;
  useEffect(() => {
    if (!isFirst) return;
    // This page goes when a call comes: then it is the first.
    return () => {
      if (useFeed.getState().shown.length > 0) showDone("The first call has arrived.");
    };
  }, [isFirst]);
  if (!isCaughtUp) return <Skeleton lines={10} />;
  return isFiltered ? (
    <EmptyView
      title="No call fits this filter yet"
      actions={<Button onClick={onClear}>Clear the filter</Button>}
    >
      New calls that fit appear here as they happen.
    </EmptyView>
  ) : (
    <FirstCall />
  );
}

function FeedFooter(): ReactNode {
  const feed = useFeed();
  const older = feed.isLoadingOlder
    ? ", reading older ones…"
    : feed.hasOlder
      ? ", older ones as you scroll"
      : "";
  const still = feed.isPaused
    ? ", paused"
    : feed.isHeld && feed.waitingCount > 0
      ? ", standing still while you read"
      : "";
  return (
    <span>
      {counted(feed.shown.length, "event")}
      {older}
      {still}
      {feed.isCaughtUp ? "" : ", catching up"}
    </span>
  );
}
