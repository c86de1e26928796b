import { Button, Menu, Progress } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useEffect, useState } from "react";
import { otherProject } from "../../../../shared/contract/connection.ts";
import type { KeptRun } from "../../../../shared/contract/finance.ts";
import type { ReconciliationRun } from "../../../../shared/contract/finance-runs.ts";
import type { OperationInput, OperationOutput } from "../../../../shared/contract/operations.ts";
import type { Report } from "../../../../shared/governance/reconciliation/types.ts";
import { useNow } from "../../lib/clock.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { fromBase64 } from "../../lib/base64.ts";
import { openPage, saveFile } from "../../lib/csv.ts";
import { formatDuration } from "../../lib/format.ts";
import { openProject, useMayAct } from "../../lib/live.ts";
import { placeAddress, usePlace } from "../../lib/router.ts";
import { cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { ChevronDownIcon, DownloadIcon } from "../../ui/icons.tsx";
import { showFailure, showNotice } from "../../ui/notices.tsx";
import { Time, UserName } from "../../ui/parts.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { EmptyView, ErrorView, QueryView, Skeleton } from "../../ui/states.tsx";
import { useFinanceRefresh } from "./case-acts.tsx";
import { Cases } from "./cases.tsx";
import { ClosePage } from "./closing.tsx";
import { Compare } from "./compare.tsx";
import { Differences } from "./differences.tsx";
import css from "./finance.module.css";
import { daysName, periodName } from "./period.ts";
import { ReportSummary } from "./run-report.tsx";
import { ReportInputs } from "./run-inputs.tsx";

export function Run({
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
        <RunResult
          runId={runId}
          title={
            kept
              ? periodName(kept.period_from, kept.period_to)
              : (daysName(run) ?? run.file_names.map(cleanText).join(", "))
          }
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

export function RunResult({
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
export function KeepBar({ runId, isHalf }: { readonly runId: string; readonly isHalf: boolean }): ReactNode {
  const client = useConsole();
  const isLive = useMayAct();
  const refresh = useFinanceRefresh();
  const [progress, setProgress] = useState<{ readonly kept: number; readonly total: number } | null>(null);
  const keep = async (): Promise<void> => {
    setProgress({ kept: 0, total: 0 });
    const project = openProject();
    for (;;) {
      const result = await client.call("finance.keep_run", { run_id: runId });
      if (!result.ok) {
        setProgress(null);
        return showFailure("Not kept wholly", result.error);
      }
      const { kept, total, is_complete: isComplete } = result.value;
      setProgress({ kept, total });
      if (!isComplete && openProject() === project) continue;
      setProgress(null);
      if (!isComplete) return showFailure("Not kept wholly", otherProject);
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
