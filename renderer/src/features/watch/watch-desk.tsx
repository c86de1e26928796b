import { ActionIcon, Button, Select } from "@mantine/core";
import { type ReactNode, useCallback, useEffect, useMemo, useState } from "react";
import type { UsageEvent } from "../../../../shared/contract/watch.ts";
import { useZone } from "../../lib/clock.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { useKeys } from "../../lib/keys.ts";
import { useOpenProject } from "../../lib/live.ts";
import { isFlag, recall, remember, useRemembered } from "../../lib/remember.ts";
import { currentPlace, navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { capitalise, counted, reasonWords } from "../../lib/text.ts";
import { DataTable } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { ArrowUpIcon, ChartIcon, CloseIcon, PauseIcon, PlayIcon } from "../../ui/icons.tsx";
import { showDone } from "../../ui/notices.tsx";
import { ReceiptView } from "../../ui/receipt.tsx";
import { DetailBar, DetailScroll, SideDetail } from "../../ui/side-detail.tsx";
import { EmptyView, FailureLine, QueryView, Skeleton } from "../../ui/states.tsx";
import { UserPicker } from "../../ui/user-picker.tsx";
import { useFeed } from "./feed.ts";
import { FirstCall } from "./first-call.tsx";
import { type CallFilter, type Look, lookQuery, readLook, windows } from "./look.ts";
import { Counters, OverviewCharts, stretchWords } from "./overview.tsx";
import { columns, datedColumns } from "./watch-columns.tsx";
import css from "./watch.module.css";

const eventKey = (event: UsageEvent): string => String(event.event_id);

/** What happens and happened: figures, the chart, rankings, and every call. */
export function WatchDesk(): ReactNode {
  const place = usePlace();
  const client = useConsole();
  const project = useOpenProject();
  const watch = useWatch();
  const { look, setFilter, setLook, overview, showFigures } = watch;
  const { filter, stretch } = look;
  useEffect(
    () => useFeed.getState().follow(client, project, filter, stretch),
    [client, project, filter, stretch],
  );
  const decisionId = place.parts[1] === "decisions" ? Number(place.parts[2]) : null;
  const openDecision = decisionId !== null && Number.isSafeInteger(decisionId) ? decisionId : null;
  const close = (): void => navigate(placeAddress(["watch"], lookQuery(look)));
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
                    onStretch={(next) => setLook({ ...look, stretch: next })}
                    onOnlyUser={(userId) => setFilter({ ...filter, user_id: userId })}
                  />
                ) : null}
              </div>
            )}
          </QueryView>
          <FeedTable watch={watch} openDecision={openDecision} />
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

const isLook = (value: unknown): value is Readonly<Record<string, string>> =>
  typeof value === "object" &&
  value !== null &&
  Object.values(value).every((each) => typeof each === "string");

/** What is shown, from the address; where it names nothing, what was shown last. */
function useWatch() {
  const { address, parts, query } = usePlace();
  const text = query.toString();
  const look = useMemo(() => readLook(new URLSearchParams(text)), [text]);
  const [showFigures, setShowFigures] = useRemembered("watch.figures", true, isFlag);
  useEffect(() => {
    if (parts[0] !== "watch") return;
    const last = recall("watch.look", {}, isLook);
    if (address === "/watch" && Object.keys(last).length > 0)
      navigate(placeAddress(["watch"], last), { replace: true });
    // Only when the desk is opened: a filter that the person clears later stays cleared.
    // oxlint-disable-next-line react-hooks/exhaustive-deps -- see above
  }, []);
  const setLook = useCallback((next: Look) => {
    const { stretch: _, ...kept } = next;
    remember("watch.look", lookQuery({ ...kept, stretch: null }));
    navigate(placeAddress(currentPlace().parts, lookQuery(next)));
  }, []);
  const setFilter = useCallback(
    (next: CallFilter) => {
      const filter = Object.fromEntries(Object.entries(next).filter(([, value]) => value !== undefined));
      setLook({ ...look, filter });
    },
    [look, setLook],
  );
  const { minutes, filter, stretch } = look;
  const overview = useCall(
    "watch.overview",
    { minutes, filter, stretch },
    // A year moves less in five seconds than an hour does.
    { refetchMs: stretch ? false : minutes <= 1_440 ? 5_000 : 30_000, keepPrevious: true },
  );
  return { look, setLook, setFilter, showFigures, setShowFigures, overview };
}

function WatchBar({ watch }: { readonly watch: Watch }): ReactNode {
  const { look, setLook, showFigures, setShowFigures } = watch;
  const { filter, minutes, stretch } = look;
  const zone = useZone();
  const feed = useFeed();
  return (
    <DeskBar title="Watch">
      <Filters watch={watch} />
      {Object.keys(filter).length > 0 || stretch ? (
        <Button
          variant="subtle"
          leftSection={<CloseIcon size={13} />}
          onClick={() => setLook({ ...look, filter: {}, stretch: null })}
        >
          Clear
        </Button>
      ) : null}
      <Grow />
      {stretch ? (
        <Button
          variant="default"
          title="Back to the live view"
          rightSection={<CloseIcon size={13} />}
          onClick={() => setLook({ ...look, stretch: null })}
        >
          {stretchWords(stretch, zone)}
        </Button>
      ) : (
        <Select
          aria-label="Time"
          w={120}
          data={windows.map((each) => ({ value: String(each.minutes), label: each.label }))}
          allowDeselect={false}
          value={String(minutes)}
          onChange={(value) => setLook({ ...look, minutes: Number(value ?? 60) })}
        />
      )}
      <ActionIcon
        aria-label={showFigures ? "Hide the charts" : "Show the charts"}
        title={showFigures ? "Hide the charts" : "Show the charts"}
        aria-pressed={showFigures}
        onClick={() => setShowFigures(!showFigures)}
      >
        <ChartIcon />
      </ActionIcon>
      <Button
        disabled={stretch !== null}
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

function Filters({ watch: { look, setFilter, overview } }: { readonly watch: Watch }): ReactNode {
  const { filter } = look;
  const models = (overview.data?.models.map((each) => each.model) ?? []).toSorted();
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
          setFilter({ ...filter, decision: (value as CallFilter["decision"] | null) ?? undefined })
        }
      />
      <Select
        aria-label="Reason"
        placeholder="Any reason"
        w={132}
        clearable
        searchable
        data={reasons.map((value) => ({ value, label: capitalise(reasonWords(value)) }))}
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
  watch: { look, setLook, overview },
  openDecision,
}: {
  readonly watch: Watch;
  readonly openDecision: number | null;
}): ReactNode {
  const client = useConsole();
  const feed = useFeed();
  const [toTop, setToTop] = useState(0);
  const goToTop = useCallback(() => {
    useFeed.getState().release();
    setToTop((count) => count + 1);
  }, []);
  useKeys({ p: () => feed.pause(!feed.isPaused), t: goToTop });
  // The list ends where the figures begin.
  const since = overview.data && !overview.isPlaceholderData ? Date.parse(overview.data.from) : null;
  const { shown, hasOlder, isCaughtUp, isLoadingOlder, failure } = feed;
  const rows = useMemo(() => {
    const end = since === null ? -1 : shown.findIndex(({ at }) => Date.parse(at) < since);
    return end === -1 ? shown : shown.slice(0, end);
  }, [shown, since]);
  const hasMore = hasOlder && rows.length === shown.length;
  // A page of a rare filter may have no rows: then the next one follows by itself.
  const isBare = shown.length === 0 || feed.wasEmptyPage;
  const goesOn = isBare && hasMore && isCaughtUp && !isLoadingOlder && failure === null;
  useEffect(() => {
    if (goesOn) void useFeed.getState().loadOlder(client);
  }, [goesOn, client]);
  const open = useCallback(
    (event: UsageEvent) => {
      if (event.decision_id === null) return navigate(placeAddress(["users", event.user_id]));
      navigate(placeAddress(["watch", "decisions", String(event.decision_id)], lookQuery(look)), {
        replace: openDecision !== null,
      });
    },
    [openDecision, look],
  );
  return (
    <>
      {failure ? <FailureLine failure={failure} onRetry={() => void feed.loadOlder(client)} /> : null}
      <DataTable
        id="feed"
        label="Calls, newest first"
        columns={look.stretch || look.minutes > 1440 ? datedColumns : columns}
        rows={rows}
        rowKey={eventKey}
        rowHeight={26}
        onOpen={open}
        openKey={openDecision === null ? null : String(openDecision)}
        keys
        toTop={toTop}
        onHold={feed.hold}
        onEnd={() => {
          if (hasMore) void feed.loadOlder(client);
        }}
        columnMenu
        pill={
          feed.waitingCount > 0 && !feed.isPaused ? (
            <Button variant="filled" radius="xl" leftSection={<ArrowUpIcon size={14} />} onClick={goToTop}>
              {feed.waitingCount.toLocaleString("en")} new
            </Button>
          ) : null
        }
        empty={<NoCalls look={look} setLook={setLook} />}
        footer={<FeedFooter count={rows.length} hasMore={hasMore} />}
      />
    </>
  );
}

function NoCalls({ look, setLook }: Pick<Watch, "look" | "setLook">): ReactNode {
  const { isCaughtUp, hasOlder, failure, shown } = useFeed();
  const isFiltered = Object.keys(look.filter).length > 0;
  const isRead = isCaughtUp && (shown.length > 0 || !hasOlder || failure !== null);
  const isFirst = isRead && !isFiltered && look.stretch === null && shown.length === 0 && failure === null;
  useEffect(() => {
    if (!isFirst) return;
    // This page goes when a call comes: then it is the first.
    return () => {
      if (useFeed.getState().shown.length > 0) showDone("The first call has arrived.");
    };
  }, [isFirst]);
  if (!isRead) return <Skeleton lines={10} />;
  if (isFirst) return <FirstCall />;
  const wider = windows.find(({ minutes }) => minutes > look.minutes);
  return (
    <EmptyView
      title={isFiltered ? "No call of this time fits the filter" : "No call in this time"}
      actions={
        <>
          {isFiltered ? (
            <Button onClick={() => setLook({ ...look, filter: {} })}>Clear the filter</Button>
          ) : null}
          {look.stretch ? (
            <Button onClick={() => setLook({ ...look, stretch: null })}>Back to now</Button>
          ) : wider ? (
            <Button onClick={() => setLook({ ...look, minutes: wider.minutes })}>
              Look at the {wider.label}
            </Button>
          ) : null}
        </>
      }
    >
      {look.stretch ? null : "New calls appear here as they happen."}
    </EmptyView>
  );
}

function FeedFooter({ count, hasMore }: { readonly count: number; readonly hasMore: boolean }): ReactNode {
  const feed = useFeed();
  const older = feed.isLoadingOlder ? ", reading older ones…" : hasMore ? ", older ones as you scroll" : "";
  const still = feed.isPaused
    ? ", paused"
    : feed.isHeld && feed.waitingCount > 0
      ? ", held while you read"
      : "";
  return (
    <span>
      {counted(count, "call")}
      {older}
      {still}
      {feed.isCaughtUp ? "" : ", catching up"}
    </span>
  );
}
