import { Button, Menu, Progress } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useEffect, useState } from "react";
import type {
  OperationInput,
  OperationOutput,
  ReconciliationRun,
} from "../../../../shared/contract/operations.ts";
import type { Report } from "../../../../shared/governance/reconciliation/types.ts";
import { useNow } from "../../lib/clock.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { fromBase64 } from "../../lib/base64.ts";
import { openPage, saveFile } from "../../lib/csv.ts";
import { formatDuration } from "../../lib/format.ts";
import { placeAddress, usePlace } from "../../lib/router.ts";
import { cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { ChevronDownIcon, DownloadIcon, PlusIcon } from "../../ui/icons.tsx";
import { showFailure } from "../../ui/notices.tsx";
import { Tag, Time } from "../../ui/parts.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { EmptyView, ErrorView, QueryView, Skeleton } from "../../ui/states.tsx";
import type { Meaning } from "../../ui/theme.ts";
import { Differences } from "./differences.tsx";
import css from "./finance.module.css";
import { NewRun } from "./new-run.tsx";
import { ReportInputs, ReportSummary } from "./run-report.tsx";

function runSign(run: ReconciliationRun): { readonly meaning: Meaning; readonly word: string } {
  switch (run.status) {
    case "running":
      return { meaning: "blue", word: "running" };
    case "failed":
      return { meaning: "red", word: "failed" };
    case "cancelled":
      return { meaning: "grey", word: "cancelled" };
    case "finished":
      if (run.tied_out) return { meaning: "green", word: "tied out" };
      return {
        meaning: "amber",
        word: run.differences === null ? "open" : counted(run.differences, "difference"),
      };
  }
}

/** Close a period: bring Stripe's exports, see every cent and token matched or explained. */
export function FinanceDesk(): ReactNode {
  const place = usePlace();
  const runs = useCall("reconciliation.runs", {}, { refetchMs: 5000 });
  const wantsNew = place.parts[1] === "new";
  const runId = place.parts[1] === "runs" ? (place.parts[2] ?? null) : null;
  const latest = runs.data?.[0]?.run_id ?? null;
  const shown = wantsNew ? null : (runId ?? latest);
  return (
    <div className={css.layout}>
      <aside className={css.runs} aria-label="Reconciliations">
        <DeskBar title="Finance">
          <Grow />
          <Button component="a" href="#/finance/new" leftSection={<PlusIcon size={14} />}>
            New
          </Button>
        </DeskBar>
        <div className={css.runList}>
          <QueryView query={runs}>
            {(list) =>
              list.length === 0 ? (
                <div className={css.runsHead}>
                  <span className={css.quiet}>No reconciliation yet.</span>
                </div>
              ) : (
                list.map((run) => {
                  const sign = runSign(run);
                  return (
                    <a
                      key={run.run_id}
                      className={css.run}
                      href={`#${placeAddress(["finance", "runs", run.run_id])}`}
                      aria-current={shown === run.run_id ? "page" : undefined}
                    >
                      <span className={css.runHead}>
                        <Time at={run.started_at} form="short" />
                        <Tag meaning={sign.meaning}>{sign.word}</Tag>
                      </span>
                      <span className={css.runFiles}>
                        <bdi>{run.file_names.map((name) => clip(cleanText(name), 60)).join(", ")}</bdi>
                      </span>
                    </a>
                  );
                })
              )
            }
          </QueryView>
        </div>
      </aside>
      <div className={css.main}>
        {shown === null ? (
          wantsNew || runs.data ? (
            <NewRun />
          ) : (
            <Skeleton />
          )
        ) : (
          <Run
            key={shown}
            runId={shown}
            known={runs.data?.find((run) => run.run_id === shown) ?? null}
            isListRead={runs.data !== undefined && !runs.isFetching}
          />
        )}
      </div>
    </div>
  );
}

function Run({
  runId,
  known,
  isListRead,
}: {
  readonly runId: string;
  readonly known: ReconciliationRun | null;
  readonly isListRead: boolean;
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [live, setLive] = useState<ReconciliationRun | null>(null);
  const run = live ?? known;
  const status = run?.status;
  useEffect(
    () =>
      client.follow("reconciliation", { run_id: runId }, (item) => {
        setLive(item);
        if (item.status !== "running") void queries.invalidateQueries({ queryKey: ["reconciliation.runs"] });
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
  return <Finished runId={runId} />;
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
    const result = await client.call("reconciliation.cancel", { run_id: run.run_id });
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

function Finished({ runId }: { readonly runId: string }): ReactNode {
  const place = usePlace();
  const query = useCall("reconciliation.report", { run_id: runId }, { staleMs: Number.POSITIVE_INFINITY });
  const tab = place.parts[3] ?? "summary";
  return (
    <QueryView query={query} skeleton={<Skeleton lines={12} />}>
      {({ run, report }) => {
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
        const tabs = [
          { id: "summary", name: "Summary" },
          { id: "differences", name: `Differences (${(run.differences ?? 0).toLocaleString("en")})` },
          { id: "inputs", name: "Inputs and matching" },
        ];
        return (
          <>
            <DeskBar title={<bdi>{clip(run.file_names.map(cleanText).join(", "), 80)}</bdi>}>
              <span className={css.quiet}>
                <Time at={run.finished_at ?? run.started_at} />
              </span>
              <Grow />
              <Export runId={runId} />
            </DeskBar>
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
              <Differences
                runId={runId}
                report={report}
                differenceClass={place.query.get("class")}
                openId={place.parts[4] ?? null}
              />
            ) : (
              <div className={css.scroll}>
                {tab === "inputs" ? (
                  <ReportInputs report={report} />
                ) : (
                  <ReportSummary report={report} runId={runId} />
                )}
              </div>
            )}
          </>
        );
      }}
    </QueryView>
  );
}

type ExportFormat = OperationInput<"reconciliation.export">["format"];

function Export({ runId }: { readonly runId: string }): ReactNode {
  const client = useConsole();
  const [busy, setBusy] = useState(false);
  const make = async (
    format: ExportFormat,
    hand: (file: OperationOutput<"reconciliation.export">) => void,
  ): Promise<void> => {
    setBusy(true);
    const result = await client.call("reconciliation.export", { run_id: runId, format });
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
