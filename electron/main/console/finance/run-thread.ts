/** The thread that matches one run: starts it, gives it the ledger page by page, and keeps what it finds. */
import { Worker } from "node:worker_threads";
import type { Notice } from "../../../../shared/contract/index.ts";
import type { Period, ReconcileProgress } from "../../../../shared/governance/reconciliation/index.ts";
import { notConnected } from "../connection/link.ts";
import type { Topic } from "../topic.ts";
import { type ActiveRun, type ActiveRuns, crashRun, finishRun, updateRun } from "./active-runs.ts";
import type { FromWorker, Job, ReportHead, ToWorker } from "./messages.ts";
import { readFacts, readLedger, readProjectTime } from "./project-reads.ts";
import { badInput, crashed } from "./run-failures.ts";
import type { StripeReading } from "./stripe-source.ts";

interface ThreadOptions {
  readonly runs: ActiveRuns;
  readonly active: ActiveRun;
  readonly job: Job;
  /** How Stripe's API was read; null where files are the source. */
  readonly reading: StripeReading | null;
  readonly notices: Topic<Notice>;
  /** The worker's entry where the program is bundled. */
  readonly workerUrl: URL | null;
}

interface RunThread extends ThreadOptions {
  readonly worker: Worker;
  /** The ledger's pages, once the period is known. */
  ledger: ReturnType<typeof readLedger> | null;
}

export function startThread(options: ThreadOptions): void {
  const { runs, active, job } = options;
  const worker = new Worker(options.workerUrl ?? new URL("./worker.ts", import.meta.url), {
    workerData: job,
  });
  active.worker = worker;
  const thread: RunThread = { ...options, worker, ledger: null };
  worker.on("message", (message: FromWorker) => {
    onMessage(thread, message).catch((error: unknown) => crashRun(runs, active, error));
  });
  worker.on("error", (error) => crashRun(runs, active, error));
  worker.on("exit", (code) => {
    if (code === 0) return;
    const isCancelled = active.stop.signal.aborted;
    finishRun(
      runs,
      active,
      isCancelled ? { status: "cancelled" } : { status: "failed", failure: crashed(`exit ${code}`) },
    );
  });
}

function post({ worker }: RunThread, message: ToWorker): void {
  worker.postMessage(message);
}

async function onMessage(thread: RunThread, message: FromWorker): Promise<void> {
  const { runs, active } = thread;
  switch (message.type) {
    case "progress":
      return showProgress(runs, active, message.progress);
    case "period":
      return openLedger(thread, message.period);
    case "next_page":
      return sendPage(thread);
    case "differences":
      return runs.store.putDifferences(
        active.run.run_id,
        message.from,
        message.differences.map((difference) => ({ class: difference.class, difference })),
      );
    case "bad_input":
      return finishRun(runs, active, { status: "failed", failure: badInput(message.problems) });
    case "cancelled":
      return finishRun(runs, active, { status: "cancelled" });
    case "done":
      return finishWithReport(thread, message.report);
  }
}

function showProgress(runs: ActiveRuns, active: ActiveRun, progress: ReconcileProgress): void {
  const { stage, file, stripe_rows, ledger_records, bytes_read, bytes_total } = progress;
  updateRun(runs, active, {
    phase: file === null ? stage : `${stage}: ${file}`,
    stripe_rows,
    ledger_rows: ledger_records,
    // The progress is that of the files; the length of the ledger is not known.
    progress: stage === "reading_stripe" && bytes_total ? Math.min(1, bytes_read / bytes_total) : null,
  });
}

async function openLedger(thread: RunThread, period: Period): Promise<void> {
  const { runs, active } = thread;
  const { project } = active;
  updateRun(runs, active, {
    phase: "reading_ledger",
    from: period.from.slice(0, 10),
    to: lastDay(period.to),
    ledger_read_at: await readProjectTime(project),
  });
  thread.ledger = readLedger(project, period);
  post(thread, { type: "facts", ...(await readFacts(project, period)) });
}

async function sendPage(thread: RunThread): Promise<void> {
  const page = await thread.ledger?.next();
  if (!page) return;
  if (page.done)
    finishRun(thread.runs, thread.active, { status: "failed", failure: page.value ?? notConnected });
  else post(thread, { type: "page", ...page.value });
}

function finishWithReport(thread: RunThread, matched: ReportHead): void {
  const report = withStripeReading(thread, matched);
  finishRun(
    thread.runs,
    thread.active,
    {
      status: "finished",
      phase: "finished",
      progress: 1,
      stripe_rows: report.stripe_rows.rows,
      ledger_rows: report.ledger_rows.rows,
      differences: report.differences_total,
      tied_out: report.tied_out,
    },
    report,
  );
  thread.notices.publish({
    level: report.tied_out ? "info" : "warning",
    title: report.tied_out ? "Reconciled: it ties out" : "Reconciled: there are differences",
    body: `${report.differences_total} differences in ${report.stripe_rows.rows} Stripe rows and ${report.ledger_rows.rows} ledger records.`,
  });
}

/** The report with how Stripe was read, where its API was the source. */
function withStripeReading({ job, reading }: RunThread, report: ReportHead): ReportHead {
  if (!reading || !job.stripe) return report;
  return {
    ...report,
    stripe_api: {
      account_id: job.stripe.account_id,
      mode: job.stripe.mode,
      api_version: reading.api_version,
      data_through: job.stripe.data_through,
      objects_read: reading.objects,
      requests: reading.requests,
    },
  };
}

/** The last day before the exclusive end of a period. */
function lastDay(end: string): string {
  return new Date(Date.parse(end) - 1).toISOString().slice(0, 10);
}
