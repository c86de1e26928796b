/** Acts on many users: how far each is, what came of it by user, and its stop, continuation and undo. */
import { Button, Popover, Progress, SegmentedControl, Textarea } from "@mantine/core";
import { keepPreviousData, useInfiniteQuery, useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { otherProject } from "../../../../shared/contract/connection.ts";
import type { Reply } from "../../../../shared/contract/basics.ts";
import { type BulkAct, type BulkRow, movesTokens } from "../../../../shared/contract/bulk.ts";
import type { ConsoleClient } from "../../../../shared/contract/client.ts";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import { useNow } from "../../lib/clock.ts";
import { callOrThrow, toFailure, useCall, useConsole } from "../../lib/console.tsx";
import { saveFile, toCsv } from "../../lib/csv.ts";
import { formatChange, formatDuration, formatTokens } from "../../lib/format.ts";
import { openProject, useMayAct } from "../../lib/live.ts";
import { placeAddress } from "../../lib/router.ts";
import { codeWords, counted } from "../../lib/text.ts";
import { useActSentence } from "../../ui/act-sentence.ts";
import { DownloadIcon } from "../../ui/icons.tsx";
import { showFailure } from "../../ui/notices.tsx";
import { Facts, Note, SafeText, Section, Tag, Time, UserLine } from "../../ui/parts.tsx";
import { MoreRows, PlainTable } from "../../ui/plain-table.tsx";
import { FailureLine, QueryView, Skeleton } from "../../ui/states.tsx";
import type { Tone } from "../../ui/theme.ts";
import { PagedTable } from "../../ui/paged-table.tsx";
import { PresetReasons } from "../../ui/preset-reasons.tsx";
import { translated } from "../../lib/language.ts";
import css from "./audit.module.css";

/** A step is kept several times a second: after so long without one, nobody is sending them. */
const SILENT_MS = 8_000;
const PAGE = 100;

const signs: Readonly<Record<BulkAct["status"], { readonly tone: Tone; readonly word: string }>> = {
  proposed: { tone: "amber", word: "waits for approval" },
  rejected: { tone: "grey", word: "rejected" },
  running: { tone: "blue", word: "running" },
  stopped: { tone: "amber", word: "stopped" },
  done: { tone: "green", word: "done" },
  undoing: { tone: "blue", word: "being undone" },
  undone: { tone: "grey", word: "undone" },
};
const rowSigns: Readonly<Record<BulkRow["status"], { readonly tone: Tone; readonly word: string }>> = {
  waiting: { tone: "grey", word: "not done" },
  done: { tone: "green", word: "done" },
  refused: { tone: "red", word: "refused" },
  undone: { tone: "grey", word: "undone" },
  kept: { tone: "amber", word: "not undone" },
};
const isUnderWay = ({ status }: BulkAct): boolean => status === "running" || status === "undoing";
const progressOf = (bulk: BulkAct): number =>
  bulk.status === "undoing" || bulk.status === "undone"
    ? (100 * bulk.undone) / Math.max(1, bulk.done)
    : (100 * (bulk.done + bulk.refused)) / Math.max(1, bulk.accounts);

export function ManyActs(): ReactNode {
  const client = useConsole();
  const sentence = useActSentence();
  const query = useInfiniteQuery({
    queryKey: ["bulk.list"],
    queryFn: ({ pageParam }) => callOrThrow(client, "bulk.list", { before_id: pageParam, limit: 50 }),
    initialPageParam: null as number | null,
    getNextPageParam: (page) => page.next_before_id,
    refetchInterval: 3_000,
  });
  const rows = query.data?.pages.flatMap((page) => page.bulks) ?? [];
  return (
    <PagedTable
      query={query}
      skeletonLines={6}
      label="Acts on many users, newest first"
      rows={rows}
      rowKey={(bulk) => String(bulk.bulk_id)}
      empty="Nothing has been done to many users at once yet. Users, Correct many… begins it."
      columns={[
        { id: "at", header: "When", width: 92, cell: (bulk) => <Time at={bulk.created_at} /> },
        {
          id: "what",
          header: "What and why",
          width: 240,
          grow: 1,
          cell: (bulk) => (
            <a href={`#${placeAddress(["audit", "many", String(bulk.bulk_id)])}`} className={css.who}>
              <span>
                {sentence({ ...bulk, undoes: null })}: {counted(bulk.accounts, "user")}
              </span>
              <span className={css.quiet}>
                <SafeText text={bulk.reason} length={120} /> — <SafeText text={bulk.operator} length={40} />
              </span>
            </a>
          ),
        },
        {
          id: "far",
          header: "How far",
          width: 130,
          align: "right",
          cell: (bulk) => `${bulk.done.toLocaleString("en")} of ${bulk.accounts.toLocaleString("en")}`,
        },
        {
          id: "status",
          header: "State",
          width: 130,
          cell: (bulk) => <Tag tone={signs[bulk.status].tone}>{signs[bulk.status].word}</Tag>,
        },
      ]}
    />
  );
}

export function ManyAct({ bulkId }: { readonly bulkId: number }): ReactNode {
  const [isMoving, setMoving] = useState(true);
  const query = useCall(
    "bulk.get",
    { bulk_id: bulkId, status: null, after_id: null, limit: 1 },
    { staleMs: 0, refetchMs: isMoving ? 500 : 5_000 },
  );
  const moving = query.data ? isUnderWay(query.data.bulk) : true;
  if (moving !== isMoving) setMoving(moving);
  return (
    <QueryView query={query} skeleton={<Skeleton lines={8} />}>
      {({ bulk, is_driven: isDriven, operator }) => (
        <>
          <Head bulk={bulk} isDriven={isDriven} operator={operator} />
          <Rows bulk={bulk} />
        </>
      )}
    </QueryView>
  );
}

function Head({
  bulk,
  isDriven,
  operator,
}: {
  readonly bulk: BulkAct;
  readonly isDriven: boolean;
  readonly operator: string;
}): ReactNode {
  const client = useConsole();
  const sentence = useActSentence();
  const isLive = useMayAct();
  const now = useNow(1_000);
  const isMine = bulk.operator === operator;
  const isSilent =
    isUnderWay(bulk) && !isDriven && now - Date.parse(bulk.stepped_at ?? bulk.created_at) > SILENT_MS;
  const elapsedMs = Math.max(0, now - Date.parse(bulk.created_at));
  const percent = progressOf(bulk);
  const leftMs =
    bulk.status === "running" && isDriven && percent > 5 ? (elapsedMs * (100 - percent)) / percent : null;
  const drive = async (): Promise<void> => {
    const driven = await client.call("bulk.drive", { bulk_id: bulk.bulk_id });
    if (!driven.ok) showFailure("Not continued", driven.error);
  };
  return (
    <section className={css.many} aria-label="Act on many users">
      <h1>
        {sentence({ ...bulk, undoes: null })}: {counted(bulk.accounts, "user")}{" "}
        <Tag tone={signs[bulk.status].tone}>{signs[bulk.status].word}</Tag>
      </h1>
      {bulk.status === "proposed" || bulk.status === "rejected" ? null : (
        <div aria-live="polite" className={css.who}>
          <Progress value={percent} aria-label="Progress" />
          <span>
            {bulk.status === "undoing" || bulk.status === "undone"
              ? `${bulk.undone.toLocaleString("en")} of ${bulk.done.toLocaleString("en")} taken back`
              : `${bulk.done.toLocaleString("en")} of ${bulk.accounts.toLocaleString("en")} done`}
            {bulk.refused > 0 ? `, ${bulk.refused.toLocaleString("en")} refused` : ""}
            {leftMs === null ? "" : `, about ${formatDuration(leftMs)} left`}
            {isUnderWay(bulk) ? ". It goes on while you look elsewhere." : ""}
          </span>
        </div>
      )}
      {isSilent ? (
        <Note tone="amber">
          Nobody is sending its steps: the console that did was closed or lost its connection. What was done
          is kept. <Button onClick={() => void drive()}>Go on from here</Button>
        </Note>
      ) : null}
      {bulk.status === "proposed" && bulk.why ? <Note tone="amber">{translated(bulk.why)}.</Note> : null}
      <Facts
        rows={[
          ["Reason", <SafeText key="reason" text={bulk.reason} length={400} />],
          [
            "By",
            <span key="by">
              <SafeText text={bulk.operator} length={60} />, <Time at={bulk.created_at} />
              {bulk.decided_by ? (
                <>
                  ; {bulk.status === "rejected" ? "rejected" : "approved"} by{" "}
                  <SafeText text={bulk.decided_by} length={60} />
                </>
              ) : null}
            </span>,
          ],
          ...(movesTokens(bulk.kind)
            ? [
                ["Tokens so far", formatChange(bulk.tokens)] as const,
                ["Tokens in all, as worked out", formatChange(bulk.plan.tokens)] as const,
              ]
            : []),
          ...(bulk.undone_by
            ? [
                [
                  "Undone by",
                  <span key="undone">
                    <SafeText text={bulk.undone_by} length={60} />:{" "}
                    <SafeText text={bulk.undo_reason ?? ""} length={200} />
                  </span>,
                ] as const,
              ]
            : []),
        ]}
      />
      <div className={css.buttons}>
        {bulk.status === "proposed" ? (
          <>
            {isMine ? null : <Change bulk={bulk} action="approve" label="Approve" isLive={isLive} />}
            <Change bulk={bulk} action="reject" label={isMine ? "Withdraw" : "Reject"} isLive={isLive} />
          </>
        ) : null}
        {bulk.status === "running" ? <Change bulk={bulk} action="stop" label="Stop" isLive={isLive} /> : null}
        {bulk.status === "stopped" ? (
          <Change bulk={bulk} action="go_on" label="Go on" isLive={isLive} />
        ) : null}
        {bulk.can_undo ? <Change bulk={bulk} action="undo" label="Undo the whole…" isLive={isLive} /> : null}
      </div>
    </section>
  );
}

type Action = "approve" | "reject" | "stop" | "go_on" | "undo";
/** Stopping and going on move nothing by themselves: they need no reason of their own. */
const ownReason: Partial<Record<Action, string>> = { stop: "Stopped by hand", go_on: "Gone on by hand" };
const reasonsOf: Readonly<Record<Action, readonly string[]>> = {
  approve: ["Checked with the ticket"],
  reject: ["Not justified", "No longer needed"],
  stop: [],
  go_on: [],
  undo: ["Wrong users", "Wrong amount", "Not needed after all"],
};

function Change({
  bulk,
  action,
  label,
  isLive,
}: {
  readonly bulk: BulkAct;
  readonly action: Action;
  readonly label: string;
  readonly isLive: boolean;
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [opened, setOpened] = useState(false);
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const fixed = ownReason[action];
  const isReady = reason.trim().length >= 3;
  const send = async (why: string): Promise<void> => {
    setBusy(true);
    const changed = await client.call("bulk.change", {
      command_id: crypto.randomUUID(),
      bulk_id: bulk.bulk_id,
      action,
      reason: why,
    });
    setBusy(false);
    if (changed.ok) setOpened(false);
    else showFailure("Not done", changed.error);
    await queries.invalidateQueries({
      predicate: ({ queryKey: [name] }) => typeof name === "string" && name.startsWith("bulk."),
    });
  };
  const button = (
    <Button
      disabled={!isLive}
      loading={busy}
      variant={action === "approve" || action === "go_on" ? "filled" : "default"}
      aria-haspopup={fixed ? undefined : "dialog"}
      onClick={() => (fixed ? void send(fixed) : setOpened(!opened))}
    >
      {label}
    </Button>
  );
  if (fixed) return button;
  return (
    <Popover opened={opened} onChange={setOpened} position="bottom-start" trapFocus returnFocus>
      <Popover.Target>{button}</Popover.Target>
      <Popover.Dropdown>
        <form
          className={css.change}
          aria-label={label}
          onSubmit={(event) => {
            event.preventDefault();
            if (isReady) void send(reason.trim());
          }}
        >
          {action === "undo" ? (
            <p className={css.quiet}>
              {counted(bulk.done - bulk.undone, "user")}
              {movesTokens(bulk.kind)
                ? `: ${formatTokens(Math.abs(bulk.tokens))} tokens ${bulk.tokens < 0 ? "come back" : "are taken back"}. What was spent of them since becomes debt.`
                : " are as they were before."}{" "}
              Whoever was changed since stays as they are, and is marked in the list.
            </p>
          ) : null}
          <Textarea
            label="Reason"
            autosize
            minRows={2}
            maxLength={1000}
            data-autofocus
            value={reason}
            onChange={(event) => setReason(event.currentTarget.value)}
          />
          <PresetReasons reasons={reasonsOf[action]} onPick={setReason} />
          <div className={css.buttons}>
            <Button onClick={() => setOpened(false)}>Cancel</Button>
            <Button type="submit" variant="filled" loading={busy} disabled={!isReady}>
              {label.replace("…", "")}
            </Button>
          </div>
        </form>
      </Popover.Dropdown>
    </Popover>
  );
}

/** All rows, not only those that were read. */
async function exportRows(
  client: ConsoleClient,
  of: { readonly bulk_id: number; readonly status: BulkRow["status"] | null },
): Promise<void> {
  const project = openProject();
  const all: BulkRow[] = [];
  let after: number | null = null;
  do {
    const page: Reply<OperationOutput<"bulk.get">> = await client.call("bulk.get", {
      ...of,
      after_id: after,
      limit: 1000,
    });
    if (!page.ok) return showFailure("Not exported", page.error);
    if (openProject() !== project) return showFailure("Not exported", otherProject);
    all.push(...page.value.rows);
    after = page.value.next_after_id;
  } while (after !== null);
  saveFile(
    `act-on-many-${of.bulk_id}.csv`,
    "text/csv",
    toCsv(
      ["user_id", "status", "tokens", "hint", "message"],
      all.map((row) => [row.user_id, row.status, row.tokens, row.hint, row.message]),
    ),
  );
}

function Rows({ bulk }: { readonly bulk: BulkAct }): ReactNode {
  const client = useConsole();
  const [status, setStatus] = useState<BulkRow["status"] | "all">("all");
  const of = { bulk_id: bulk.bulk_id, status: status === "all" ? null : status };
  const query = useInfiniteQuery({
    // By state too: what it was when it ended is read once more.
    queryKey: ["bulk.get", "rows", of, bulk.status],
    placeholderData: keepPreviousData,
    queryFn: ({ pageParam }) => callOrThrow(client, "bulk.get", { ...of, after_id: pageParam, limit: PAGE }),
    initialPageParam: null as number | null,
    getNextPageParam: (page) => page.next_after_id,
    refetchInterval: isUnderWay(bulk) ? 2_000 : false,
  });
  const rows = query.data?.pages.flatMap((page) => page.rows) ?? [];
  return (
    <Section
      title="By user"
      aside={
        <span className={css.buttons}>
          <SegmentedControl
            aria-label="Which users"
            data={[
              { value: "all", label: "All" },
              ...(["waiting", "done", "refused", "undone", "kept"] as const).map((value) => ({
                value,
                label: rowSigns[value].word,
              })),
            ]}
            value={status}
            onChange={(value) => setStatus(value as typeof status)}
          />
          <Button leftSection={<DownloadIcon size={14} />} onClick={() => void exportRows(client, of)}>
            Export
          </Button>
        </span>
      }
    >
      {query.error ? <FailureLine failure={toFailure(query.error)} /> : null}
      <PlainTable
        label="Result by user"
        rows={rows}
        rowKey={(row) => row.user_id ?? "gone"}
        empty={query.isLoading ? "Reading…" : "None."}
        columns={[
          {
            id: "user",
            header: "User",
            width: 200,
            grow: 1,
            cell: (row) =>
              row.user_id === null ? (
                "an account that is gone"
              ) : (
                <a href={`#${placeAddress(["users", row.user_id, "acts"])}`}>
                  <UserLine user={{ ...row, user_id: row.user_id }} />
                </a>
              ),
          },
          ...(movesTokens(bulk.kind)
            ? [
                {
                  id: "tokens",
                  header: "Tokens",
                  width: 90,
                  align: "right" as const,
                  cell: (row: BulkRow) => (row.tokens === null ? "" : formatChange(row.tokens)),
                },
              ]
            : []),
          {
            id: "status",
            header: "Result",
            width: 110,
            cell: (row) => <Tag tone={rowSigns[row.status].tone}>{rowSigns[row.status].word}</Tag>,
          },
          {
            id: "why",
            header: "Why not",
            width: 160,
            grow: 1,
            cell: (row) =>
              row.message ? (
                <SafeText text={row.message} length={160} />
              ) : row.hint ? (
                codeWords(row.hint)
              ) : null,
          },
        ]}
      />
      <MoreRows
        shown={rows.length}
        hasMore={query.hasNextPage}
        isLoading={query.isFetchingNextPage}
        onMore={() => void query.fetchNextPage()}
      />
    </Section>
  );
}
