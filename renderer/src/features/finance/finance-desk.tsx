import { Button, Menu, Progress } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useEffect, useState } from "react";
import type { FinanceCounts, KeptRun } from "../../../../shared/contract/finance.ts";
import type { ReconciliationRun } from "../../../../shared/contract/finance-runs.ts";
import type { OperationInput, OperationOutput } from "../../../../shared/contract/operations.ts";
import type { Report } from "../../../../shared/governance/reconciliation/types.ts";
import { useNow } from "../../lib/clock.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { fromBase64 } from "../../lib/base64.ts";
import { openPage, saveFile } from "../../lib/csv.ts";
import { formatDuration } from "../../lib/format.ts";
import { useIsLive } from "../../lib/live.ts";
import { placeAddress, usePlace } from "../../lib/router.ts";
import { cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { ChevronDownIcon, DownloadIcon, PlusIcon } from "../../ui/icons.tsx";
import { showFailure, showNotice } from "../../ui/notices.tsx";
import { Tag, Time, UserName } from "../../ui/parts.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { EmptyView, ErrorView, QueryView, Skeleton, StaleLine } from "../../ui/states.tsx";
import type { Tone } from "../../ui/theme.ts";
import { useFinanceRefresh } from "./case-acts.tsx";
import { Cases } from "./cases.tsx";
import { ClosedPeriods, ClosePage, periodText } from "./closing.tsx";
import { Compare } from "./compare.tsx";
import { Differences } from "./differences.tsx";
import css from "./finance.module.css";
import { NewRun } from "./new-run.tsx";
import { ReportInputs, ReportSummary } from "./run-report.tsx";
import { StripeEvents } from "./stripe-events.tsx";

function runSign(run: ReconciliationRun): { readonly tone: Tone; readonly word: string } {
  switch (run.status) {
    case "running":
      return { tone: "blue", word: "running" };
    case "failed":
      return { tone: "red", word: "failed" };
    case "cancelled":
      return { tone: "grey", word: "cancelled" };
    case "finished":
      if (run.tied_out) return { tone: "green", word: "tied out" };
      return {
        tone: "amber",
        word: run.differences === null ? "open" : counted(run.differences, "difference"),
      };
  }
}

/** A reconciliation in the list: made here, kept in the project, or both. */
interface Listed {
  readonly run_id: string;
  readonly at: string;
  readonly local: ReconciliationRun | null;
  readonly kept: KeptRun | null;
}

function listRuns(local: readonly ReconciliationRun[], kept: readonly KeptRun[]): readonly Listed[] {
  const keptById = new Map(kept.map((run) => [run.run_id, run]));
  const here = new Set(local.map((run) => run.run_id));
  return [
    ...local.map((run) => ({
      run_id: run.run_id,
      at: run.started_at,
      local: run,
      kept: keptById.get(run.run_id) ?? null,
    })),
    ...kept
      .filter((run) => !here.has(run.run_id))
      .map((run) => ({ run_id: run.run_id, at: run.created_at, local: null, kept: run })),
  ].toSorted((a, b) => Date.parse(b.at) - Date.parse(a.at));
}

/** Close a period: bring Stripe's exports, see every cent and token matched or explained, decide, close. */
export function FinanceDesk(): ReactNode {
  const place = usePlace();
  const runs = useCall("finance.runs", {}, { refetchMs: 5000 });
  const keptRuns = useCall("finance.kept_runs", {}, { refetchMs: 15_000 });
  const counts = useCall("finance.counts", {}, { refetchMs: 15_000 });
  const page = place.parts[1] ?? null;
  const isRun = page === "runs" || page === null;
  const kept = keptRuns.data?.runs ?? [];
  const list = listRuns(runs.data ?? [], kept);
  const shown = isRun ? (place.parts[2] ?? list[0]?.run_id ?? null) : null;
  const current = list.find((each) => each.run_id === shown) ?? null;
  const isRead = runs.data !== undefined && !keptRuns.isPending;
  return (
    <div className={css.layout}>
      <aside className={css.runs} aria-label="Reconciliations">
        <DeskBar title="Finance">
          <Grow />
          <Button component="a" href="#/finance/new" leftSection={<PlusIcon size={14} />}>
            New
          </Button>
        </DeskBar>
        <Sections page={page} counts={counts.data ?? null} />
        <div className={css.runList}>
          <QueryView query={runs}>
            {() =>
              list.length === 0 ? (
                <div className={css.runsHead}>
                  <span className={css.quiet}>No reconciliation yet.</span>
                </div>
              ) : (
                list.map((each) => (
                  <ListedRun key={each.run_id} of={each} isCurrent={shown === each.run_id} />
                ))
              )
            }
          </QueryView>
        </div>
      </aside>
      <div className={css.main}>
        {page === "cases" ? (
          <>
            <DeskBar title="Differences of all kept runs" />
            <Cases
              runId={null}
              base={["finance", "cases"]}
              query={place.query}
              openId={place.parts[2] ?? null}
            />
          </>
        ) : page === "periods" ? (
          <ClosedPeriods />
        ) : page === "events" ? (
          <StripeEvents openId={place.parts[2] ?? null} />
        ) : shown === null ? (
          page === "new" || isRead ? (
            <NewRun />
          ) : (
            <Skeleton />
          )
        ) : current?.local || !current?.kept ? (
          <Run
            key={shown}
            runId={shown}
            known={current?.local ?? null}
            kept={current?.kept ?? null}
            keptRuns={kept}
            isListRead={isRead && !runs.isFetching}
          />
        ) : (
          <KeptElsewhere key={shown} kept={current.kept} keptRuns={kept} />
        )}
      </div>
    </div>
  );
}

function Sections({
  page,
  counts,
}: {
  readonly page: string | null;
  readonly counts: FinanceCounts | null;
}): ReactNode {
  const sections = [
    { id: "cases", name: "Differences to decide", count: counts?.undecided ?? 0, tone: "amber" },
    { id: "events", name: "Stripe events waiting", count: counts?.stripe_events ?? 0, tone: "amber" },
    { id: "periods", name: "Closed periods", count: counts?.closed_periods ?? 0, tone: "grey" },
  ] as const;
  return (
    <nav className={css.sections} aria-label="Finance">
      {sections.map((each) => (
        <a
          key={each.id}
          href={`#${placeAddress(["finance", each.id])}`}
          aria-current={page === each.id ? "page" : undefined}
        >
          <span>{each.name}</span>
          {each.count > 0 ? <Tag tone={each.tone}>{each.count.toLocaleString("en")}</Tag> : null}
        </a>
      ))}
    </nav>
  );
}

function keptSign(of: KeptRun): { readonly tone: Tone; readonly word: string } {
  if (of.is_closed) return { tone: "green", word: "closed" };
  if (!of.is_complete) return { tone: "amber", word: "half kept" };
  return of.undecided > 0
    ? { tone: "amber", word: `${of.undecided.toLocaleString("en")} to decide` }
    : { tone: "green", word: "all decided" };
}

function ListedRun({ of, isCurrent }: { readonly of: Listed; readonly isCurrent: boolean }): ReactNode {
  const sign = of.kept ? keptSign(of.kept) : of.local ? runSign(of.local) : null;
  const names = of.local?.file_names ?? of.kept?.file_names ?? [];
  return (
    <a
      className={css.run}
      href={`#${placeAddress(["finance", "runs", of.run_id])}`}
      aria-current={isCurrent ? "page" : undefined}
    >
      <span className={css.runHead}>
        <Time at={of.at} form="short" />
        {sign ? <Tag tone={sign.tone}>{sign.word}</Tag> : null}
      </span>
      {of.kept ? <span>{periodText(of.kept.period_from, of.kept.period_to)}</span> : null}
      <span className={css.runFiles}>
        <bdi>{names.map((name) => clip(cleanText(name ?? ""), 60)).join(", ")}</bdi>
      </span>
    </a>
  );
}

/** Kept by another console, or so long ago that this one has forgotten it. */
function KeptElsewhere({
  kept,
  keptRuns,
}: {
  readonly kept: KeptRun;
  readonly keptRuns: readonly KeptRun[];
}): ReactNode {
  const query = useCall("finance.kept_run", { run_id: kept.run_id }, { staleMs: Number.POSITIVE_INFINITY });
  return (
    <QueryView query={query} skeleton={<Skeleton lines={12} />}>
      {({ report, as_of: asOf }) => (
        <>
          {asOf ? <StaleLine asOf={asOf} /> : null}
          <Result
            runId={kept.run_id}
            title={kept.file_names.map((name) => cleanText(name ?? "")).join(", ")}
            at={kept.created_at}
            differences={kept.differences}
            report={report}
            kept={kept}
            keptRuns={keptRuns}
            isHere={false}
          />
        </>
      )}
    </QueryView>
  );
}

function Run({
  runId,
  known,
  kept,
  keptRuns,
  isListRead,
}: {
  readonly runId: string;
  readonly known: ReconciliationRun | null;
  readonly kept: KeptRun | null;
  readonly keptRuns: readonly KeptRun[];
  readonly isListRead: boolean;
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [live, setLive] = useState<ReconciliationRun | null>(null);
  const run = live ?? known;
  const status = run?.status;
  useEffect(
    () =>
      client.follow("run", { run_id: runId }, (item) => {
        setLive(item);
        if (item.status === "running") return;
        // A finished run is in the list, and what it read of Stripe is kept.
        for (const name of ["finance.runs", "finance.stripe"])
          void queries.invalidateQueries({ queryKey: [name] });
      }),
    [client, queries, runId],
  );
  if (!run)
    return isListRead ? (
      <EmptyView title="There is no such reconciliation in this project" />
    ) : (
      <Skeleton lines={10} />
    );
  if (status === "running") return <Running run={run} />;
  if (status === "failed")
    return (
      <ErrorView
        failure={
          run.failure ?? {
            code: "failed",
            message: "The reconciliation failed.",
            advice: "Start it again.",
            details: null,
          }
        }
        actions={
          <Button component="a" variant="filled" href="#/finance/new">
            Start again
          </Button>
        }
      />
    );
  if (status === "cancelled")
    return (
      <EmptyView
        title="Cancelled"
        actions={
          <Button component="a" href="#/finance/new">
            Start again
          </Button>
        }
      >
        Nothing was changed.
      </EmptyView>
    );
  return <Finished runId={runId} kept={kept} keptRuns={keptRuns} />;
}

function Running({ run }: { readonly run: ReconciliationRun }): ReactNode {
  const client = useConsole();
  const now = useNow(1000);
  const elapsedMs = Math.max(0, now - Date.parse(run.started_at));
  const leftMs =
    run.progress !== null && run.progress > 0.05 && run.progress < 1
      ? (elapsedMs * (1 - run.progress)) / run.progress
      : null;
  const cancel = async (): Promise<void> => {
    const result = await client.call("finance.cancel_run", { run_id: run.run_id });
    if (!result.ok) showFailure("Not cancelled", result.error);
  };
  return (
    <div className={css.page}>
      <h1>Reconciling</h1>
      <div className={css.progress} aria-live="polite">
        <Progress
          value={run.progress === null ? 100 : run.progress * 100}
          animated={run.progress === null}
          aria-label="Progress"
        />
        <span>
          {codeWords(run.phase)}: {run.stripe_rows.toLocaleString("en")} Stripe rows,{" "}
          {run.ledger_rows.toLocaleString("en")} ledger records
        </span>
        <span className={css.quiet}>
          {formatDuration(elapsedMs)} so far{leftMs === null ? "" : `, about ${formatDuration(leftMs)} left`}.
          It goes on while you look elsewhere.
        </span>
        <div>
          <Button onClick={() => void cancel()}>Cancel</Button>
        </div>
      </div>
    </div>
  );
}

function isReport(value: unknown): value is Report {
  return typeof value === "object" && value !== null && (value as Report).report_version === 1;
}

function Finished({
  runId,
  kept,
  keptRuns,
}: {
  readonly runId: string;
  readonly kept: KeptRun | null;
  readonly keptRuns: readonly KeptRun[];
}): ReactNode {
  const query = useCall("finance.report", { run_id: runId }, { staleMs: Number.POSITIVE_INFINITY });
  return (
    <QueryView query={query} skeleton={<Skeleton lines={12} />}>
      {({ run, report }) => (
        <Result
          runId={runId}
          title={run.file_names.map(cleanText).join(", ")}
          at={run.finished_at ?? run.started_at}
          differences={run.differences ?? 0}
          report={report}
          kept={kept}
          keptRuns={keptRuns}
          isHere
        />
      )}
    </QueryView>
  );
}

function Result({
  runId,
  title,
  at,
  differences,
  report,
  kept,
  keptRuns,
  isHere,
}: {
  readonly runId: string;
  readonly title: string;
  readonly at: string;
  readonly differences: number;
  readonly report: unknown;
  readonly kept: KeptRun | null;
  readonly keptRuns: readonly KeptRun[];
  /** Made by this console: it has the rows, and can export them. */
  readonly isHere: boolean;
}): ReactNode {
  const place = usePlace();
  const tab = place.parts[3] ?? "summary";
  if (!isReport(report))
    return (
      <ErrorView
        failure={{
          code: "unknown_report",
          message: "This report was made by another version of the console.",
          advice: "Export it, or reconcile the same files again.",
          details: null,
        }}
      />
    );
  const isKept = kept?.is_complete === true;
  const tabs = [
    { id: "summary", name: "Summary" },
    { id: "differences", name: `Differences (${differences.toLocaleString("en")})` },
    { id: "inputs", name: "Inputs and matching" },
    ...(isKept
      ? [
          { id: "compare", name: "Compare" },
          { id: "close", name: kept.is_closed ? "Closed" : "Close the period" },
        ]
      : []),
  ];
  return (
    <>
      <DeskBar title={<bdi>{clip(title, 80)}</bdi>}>
        <span className={css.quiet}>
          <Time at={at} />
          {kept ? (
            <>
              , kept by <UserName name={kept.created_by} />
            </>
          ) : null}
        </span>
        <Grow />
        {isHere ? <Export runId={runId} /> : null}
      </DeskBar>
      {isHere && !isKept ? <KeepBar runId={runId} isHalf={kept !== null} /> : null}
      <nav className={css.tabs} aria-label="Report">
        {tabs.map((each) => (
          <a
            key={each.id}
            href={`#${placeAddress(["finance", "runs", runId, ...(each.id === "summary" ? [] : [each.id])])}`}
            aria-current={tab === each.id ? "page" : undefined}
          >
            {each.name}
          </a>
        ))}
      </nav>
      {tab === "differences" ? (
        isKept ? (
          <Cases
            key={runId}
            runId={runId}
            base={["finance", "runs", runId, "differences"]}
            query={place.query}
            openId={place.parts[4] ?? null}
          />
        ) : (
          <Differences
            runId={runId}
            report={report}
            differenceClass={place.query.get("class")}
            openId={place.parts[4] ?? null}
          />
        )
      ) : tab === "compare" && isKept ? (
        <Compare runId={runId} otherId={place.query.get("with")} runs={keptRuns} />
      ) : tab === "close" && isKept ? (
        <ClosePage runId={runId} />
      ) : (
        <div className={css.scroll}>
          {tab === "inputs" ? (
            <ReportInputs report={report} />
          ) : (
            <ReportSummary report={report} runId={runId} isKept={isKept} />
          )}
        </div>
      )}
    </>
  );
}

/** A run is work in progress on this machine until it is kept in the project, where all can decide. */
function KeepBar({ runId, isHalf }: { readonly runId: string; readonly isHalf: boolean }): ReactNode {
  const client = useConsole();
  const isLive = useIsLive();
  const refresh = useFinanceRefresh();
  const [progress, setProgress] = useState<{ readonly kept: number; readonly total: number } | null>(null);
  const keep = async (): Promise<void> => {
    setProgress({ kept: 0, total: 0 });
    for (;;) {
      const result = await client.call("finance.keep_run", { run_id: runId });
      if (!result.ok) {
        setProgress(null);
        return showFailure("Not kept wholly", result.error);
      }
      const { kept, total, is_complete: isComplete } = result.value;
      setProgress({ kept, total });
      if (!isComplete) continue;
      setProgress(null);
      refresh();
      const { verified, gone, reopened, not_looked_for: skipped } = result.value;
      return showNotice(
        reopened > 0 || skipped > 0 ? "warning" : "info",
        `Kept with ${counted(kept, "difference")}`,
        [
          verified > 0 ? `${counted(verified, "posted correction")} verified` : null,
          gone > 0 ? `${gone.toLocaleString("en")} gone by themselves` : null,
          reopened > 0 ? `${reopened.toLocaleString("en")} dealt with and still there, open again` : null,
          skipped > 0
            ? `${skipped.toLocaleString("en")} earlier ones not looked for: this run read fewer files or rows`
            : null,
        ]
          .filter((line) => line !== null)
          .join("; ") || "Decide them, then close the period.",
      );
    }
  };
  return (
    <div className={css.keep} role="region" aria-label="Keep this run">
      <span>
        {progress && progress.total > 0
          ? `Keeping: ${progress.kept.toLocaleString("en")} of ${progress.total.toLocaleString("en")} differences.`
          : isHalf
            ? "Only a part of this run is kept in the project."
            : "This run is on this machine alone. Keep it in the project to decide its differences and close the period."}
      </span>
      <Button variant="filled" loading={progress !== null} disabled={!isLive} onClick={() => void keep()}>
        {isHalf ? "Go on keeping" : "Keep in the project"}
      </Button>
    </div>
  );
}

type ExportFormat = OperationInput<"finance.export">["format"];

function Export({ runId }: { readonly runId: string }): ReactNode {
  const client = useConsole();
  const [busy, setBusy] = useState(false);
  const make = async (
    format: ExportFormat,
    hand: (file: OperationOutput<"finance.export">) => void,
  ): Promise<void> => {
    setBusy(true);
    const result = await client.call("finance.export", { run_id: runId, format });
    setBusy(false);
    if (result.ok) hand(result.value);
    else showFailure("Not exported", result.error);
  };
  const save = (format: ExportFormat): void =>
    void make(format, ({ file_name: name, media_type: type, text, encoding }) =>
      saveFile(name, type, encoding === "base64" ? fromBase64(text) : text),
    );
  const show = (): void =>
    void make("html", ({ file_name: name, media_type: type, text }) => {
      // A browser shows it in a tab of its own, ready to print; a window that opens none saves it.
      if (!openPage(type, text)) saveFile(name, type, text);
    });
  return (
    <Menu position="bottom-end">
      <Menu.Target>
        <Button
          loading={busy}
          leftSection={<DownloadIcon size={14} />}
          rightSection={<ChevronDownIcon size={13} />}
        >
          Export
        </Button>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Item onClick={show}>Page to print and sign</Menu.Item>
        <Menu.Item onClick={() => save("xlsx")}>Workbook (XLSX)</Menu.Item>
        <Menu.Item onClick={() => save("csv")}>Differences as CSV</Menu.Item>
        <Menu.Item onClick={() => save("json")}>Whole report as JSON</Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}
