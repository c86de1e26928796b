/** The finance desk: brings in exports, matches them against the ledger in a worker, keeps the runs. */
import { randomUUID } from "node:crypto";
import { Worker } from "node:worker_threads";
import { z } from "zod";
import type { Failure, Notice, ReconciliationRun, runOperations } from "../../../../shared/contract/index.ts";
import {
  type Difference,
  differencesCsv,
  type InputProblem,
  type LedgerRecord,
  type PackPrice,
  type Period,
  type ReconcileProgress,
  type RollForwardLine,
} from "../../../../shared/governance/reconciliation/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { redact } from "../../backend/redact.ts";
import type { Keychain } from "../../keychain/keychain.ts";
import { notConnected } from "../connection/connection.ts";
import type { DeskContext } from "../desk-context.ts";
import type { Handlers, Log } from "../dispatch.ts";
import type { Topic } from "../topic.ts";
import { reportPage } from "./exports-page.ts";
import { type ClosedPeriod, reportSheets } from "./exports-report.ts";
import { writeWorkbook } from "./exports-workbook.ts";
import type { FromWorker, Job, ReportHead, ToWorker } from "./messages.ts";
import type { StripeEndpoint } from "./stripe-source-client.ts";
import { createStripeDesk } from "./stripe-source-desk.ts";
import type { StripeProgress, StripeReading } from "./stripe-source.ts";
import { createUploads } from "./uploads.ts";

export interface ReconciliationOptions {
  readonly desk: DeskContext;
  readonly dataDir: string;
  /** The worker's entry where the program is bundled. */
  readonly workerUrl: URL | null;
  readonly keychain: () => Promise<Keychain>;
  /** For tests: a Stripe on this machine. */
  readonly stripeEndpoint?: StripeEndpoint;
  readonly log: Log;
  readonly onChange: () => void;
  readonly notices: Topic<Notice>;
}

type ReconciliationHandlers = Pick<Handlers, keyof typeof runOperations>;

interface RunningRun {
  run: ReconciliationRun;
  readonly profileId: string;
  /** Null while Stripe is read: the thread has no network. */
  worker: Worker | null;
  readonly stop: AbortController;
}

/** What a run was asked for. */
interface RunRequest extends Pick<Job, "files" | "from" | "to"> {
  readonly isStripeRead: boolean;
}

const ledgerPage = z.looseObject({
  records: z.array(z.looseObject({ transaction_id: z.number().int() })),
  next_cursor: z.string().nullable(),
});
const closedPeriod = z.looseObject({
  run_id: z.string(),
  seal: z.string(),
  closed_at: z.string(),
  closed_by: z.string(),
  sign_off: z.string().nullable(),
});
const ledgerPageSize = 5_000;
const workbookType = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet";
/** Matching does not look at messages: after this the thread is ended from outside. */
const cancelPatienceMs = 2_000;

export function createReconciliation(options: ReconciliationOptions) {
  const { desk, log, onChange, notices } = options;
  const { store, connection, now } = desk;
  const uploads = createUploads(options.dataDir);
  const stripe = createStripeDesk({
    store,
    keychain: options.keychain,
    profileId: connection.profileId,
    dataDir: options.dataDir,
    now,
    ...(options.stripeEndpoint ? { endpoint: options.stripeEndpoint } : {}),
  });
  const running = new Map<string, RunningRun>();
  const followers = new Map<string, Set<(run: ReconciliationRun) => void>>();

  function publish(active: RunningRun, change: Partial<ReconciliationRun>): void {
    active.run = { ...active.run, ...change };
    for (const emit of followers.get(active.run.run_id) ?? []) emit(active.run);
  }

  function finish(
    active: RunningRun,
    change: Partial<ReconciliationRun>,
    report: ReportHead | null = null,
  ): void {
    if (!running.delete(active.run.run_id)) return;
    publish(active, { ...change, finished_at: now().toISOString() });
    store.putRun(active.profileId, { run: active.run, report });
    void active.worker?.terminate();
    onChange();
  }

  function onProgress(active: RunningRun, progress: ReconcileProgress): void {
    const { stage, file, stripe_rows, ledger_records, bytes_read, bytes_total } = progress;
    publish(active, {
      phase: file === null ? stage : `${stage}: ${file}`,
      stripe_rows,
      ledger_rows: ledger_records,
      // Reading the files is what can be foreseen; the ledger's length is not known.
      progress: stage === "reading_stripe" && bytes_total ? Math.min(1, bytes_read / bytes_total) : null,
    });
  }

  function onStripeProgress(active: RunningRun, { resource, objects, fraction }: StripeProgress): void {
    publish(active, {
      phase: `reading ${resource.replaceAll("_", " ")} from Stripe`,
      stripe_rows: objects,
      progress: fraction,
    });
  }

  /** The ledger's pages for the worker, one when it asks for one. */
  async function* readLedger(
    period: Period,
  ): AsyncGenerator<{ records: LedgerRecord[]; is_last: boolean }, Failure | null> {
    let cursor: string | null = null;
    for (;;) {
      const page: Result<z.output<typeof ledgerPage>, Failure> = await connection.rpc(
        "console_ledger_purchases_since",
        { p_cursor: cursor, p_limit: ledgerPageSize, p_from: period.from, p_to: period.to },
        ledgerPage,
        { retries: 3, timeoutMs: 60_000 },
      );
      if (!page.ok) return page.error;
      const { records } = page.value;
      const next: string | null = page.value.next_cursor;
      const isLast: boolean = records.length < ledgerPageSize || next === null || next === cursor;
      yield { records: records as unknown as LedgerRecord[], is_last: isLast };
      if (isLast) return null;
      cursor = next;
    }
  }

  /** Before the ledger is read: a correction that is posted later was not seen. */
  async function readProjectTime(): Promise<string | null> {
    const info = await connection.rpc(
      "console_project_info",
      {},
      z.looseObject({ server_time: z.string() }),
      { retries: 1 },
    );
    return info.ok ? info.value.server_time : null;
  }

  /** Facts that make the report fuller; a project that cannot tell them is reconciled without. */
  async function readFacts(
    period: Period,
  ): Promise<{ packs: PackPrice[] | null; roll_forward: RollForwardLine[] | null }> {
    const anyList = z.array(z.looseObject({}));
    const [packs, rollForward] = await Promise.all([
      connection.rpc("console_pack_prices", {}, anyList, { retries: 1 }),
      connection.rpc("console_token_roll_forward", { p_from: period.from, p_to: period.to }, anyList, {
        retries: 1,
        timeoutMs: 60_000,
      }),
    ]);
    return {
      packs: packs.ok ? (packs.value as unknown as PackPrice[]) : null,
      roll_forward: rollForward.ok ? (rollForward.value as unknown as RollForwardLine[]) : null,
    };
  }

  function start(profileId: string, request: RunRequest): ReconciliationRun {
    const account = request.isStripeRead ? stripe.connection(profileId) : null;
    const active: RunningRun = {
      profileId,
      worker: null,
      stop: new AbortController(),
      run: {
        run_id: randomUUID(),
        started_at: now().toISOString(),
        finished_at: null,
        status: "running",
        phase: "reading_stripe",
        stripe_rows: 0,
        ledger_rows: 0,
        progress: 0,
        file_names: [
          ...(account ? [`Stripe API (${account.account_id}, ${account.mode} mode)`] : []),
          ...request.files.map(({ name }) => name),
        ],
        from: request.from,
        to: request.to,
        differences: null,
        tied_out: null,
        failure: null,
      },
    };
    running.set(active.run.run_id, active);
    store.putRun(profileId, { run: active.run, report: null });
    if (!request.isStripeRead) launch(active, { ...request, stripe: null }, null);
    else readStripe(active, request).catch((error: unknown) => broke(active, error));
    return active.run;
  }

  async function readStripe(active: RunningRun, request: RunRequest): Promise<void> {
    const read = await stripe.read(active.profileId, request.from ?? "", active.stop.signal, (progress) =>
      onStripeProgress(active, progress),
    );
    if (!running.has(active.run.run_id)) return;
    if (!read.ok)
      return finish(
        active,
        read.error.code === "cancelled" ? { status: "cancelled" } : { status: "failed", failure: read.error },
      );
    const { input, reading } = read.value;
    const through = new Date(reading.through * 1000).toISOString();
    launch(active, { ...request, stripe: { ...input, data_through: through } }, reading);
  }

  function broke(active: RunningRun, error: unknown): void {
    log(redact(`error in a reconciliation: ${(error as Error).stack ?? String(error)}`));
    finish(active, { status: "failed", failure: crashed(redact((error as Error).message)) });
  }

  /** Gives the job to a thread of its own. */
  function launch(active: RunningRun, job: Job, reading: StripeReading | null): void {
    const worker = new Worker(options.workerUrl ?? new URL("./worker.ts", import.meta.url), {
      workerData: job,
    });
    active.worker = worker;
    const tell = (message: ToWorker): void => worker.postMessage(message);
    let ledger: ReturnType<typeof readLedger> | null = null;

    async function onMessage(message: FromWorker): Promise<void> {
      switch (message.type) {
        case "progress":
          return onProgress(active, message.progress);
        case "period":
          publish(active, {
            phase: "reading_ledger",
            from: message.period.from.slice(0, 10),
            to: lastDay(message.period.to),
            ledger_read_at: await readProjectTime(),
          });
          ledger = readLedger(message.period);
          return tell({ type: "facts", ...(await readFacts(message.period)) });
        case "next_page": {
          const page = await ledger?.next();
          if (!page) return;
          if (page.done) finish(active, { status: "failed", failure: page.value ?? notConnected });
          else tell({ type: "page", ...page.value });
          return;
        }
        case "differences":
          return store.putDifferences(
            active.run.run_id,
            message.from,
            message.differences.map((difference) => ({ class: difference.class, difference })),
          );
        case "bad_input":
          return finish(active, { status: "failed", failure: badInput(message.problems) });
        case "cancelled":
          return finish(active, { status: "cancelled" });
        case "done": {
          const report: ReportHead =
            reading && job.stripe
              ? {
                  ...message.report,
                  stripe_api: {
                    account_id: job.stripe.account_id,
                    mode: job.stripe.mode,
                    api_version: reading.api_version,
                    data_through: job.stripe.data_through,
                    objects_read: reading.objects,
                    requests: reading.requests,
                  },
                }
              : message.report;
          finish(
            active,
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
          notices.publish({
            level: report.tied_out ? "info" : "warning",
            title: report.tied_out ? "Reconciled: it ties out" : "Reconciled: there are differences",
            body: `${report.differences_total} differences in ${report.stripe_rows.rows} Stripe rows and ${report.ledger_rows.rows} ledger records.`,
          });
        }
      }
    }
    worker.on("message", (message: FromWorker) => {
      onMessage(message).catch((error: unknown) => broke(active, error));
    });
    worker.on("error", (error) => broke(active, error));
    worker.on("exit", (code) => {
      if (code !== 0)
        finish(
          active,
          active.stop.signal.aborted
            ? { status: "cancelled" }
            : { status: "failed", failure: crashed(`exit ${code}`) },
        );
    });
  }

  function findRun(runId: string): ReconciliationRun | null {
    return running.get(runId)?.run ?? store.getRun(runId)?.run ?? null;
  }

  function* allDifferences(runId: string): Generator<Difference> {
    for (let offset = 0; ; offset += 1_000) {
      const { differences } = store.pageDifferences(runId, null, offset, 1_000);
      yield* differences as Difference[];
      if (differences.length < 1_000) return;
    }
  }

  /** The period that was closed with a run; null where there is none, or the project cannot be asked now. */
  async function closedBy(runId: string): Promise<ClosedPeriod | null> {
    const periods = await connection.rpc("console_closed_periods", {}, z.array(closedPeriod));
    return (periods.ok && periods.value.find((period) => period.run_id === runId)) || null;
  }

  const handlers: ReconciliationHandlers = {
    ...stripe.handlers,
    "finance.open_upload": ({ file_name: name, size_bytes: size }) => uploads.open(name, size),
    "finance.upload_chunk": ({ upload_id: id, offset_bytes: offset, base64 }) =>
      uploads.append(id, offset, base64),
    "finance.start_run": ({ upload_ids: ids, stripe_api: isStripeRead = false, from, to }) => {
      const profileId = connection.profileId();
      if (profileId === null || !connection.backend())
        return fail(connection.state().failure ?? notConnected);
      if (from !== null && to !== null && to < from) return fail(badPeriod);
      if (isStripeRead && (from === null || to === null)) return fail(openPeriod);
      if (!isStripeRead && ids.length === 0) return fail(noSource);
      if ([...running.values()].some((one) => one.profileId === profileId)) return fail(oneAtATime);
      const files = uploads.take(ids);
      return files.ok ? ok(start(profileId, { files: files.value, from, to, isStripeRead })) : files;
    },
    "finance.cancel_run": ({ run_id: runId }) => {
      const active = running.get(runId);
      if (active) {
        active.stop.abort(new Error("cancelled"));
        active.worker?.postMessage({ type: "cancel" } satisfies ToWorker);
        setTimeout(() => finish(active, { status: "cancelled" }), cancelPatienceMs).unref();
        publish(active, { phase: "cancelling" });
      }
      const run = findRun(runId);
      return run ? ok(run) : fail(noRun);
    },
    "finance.runs": () =>
      ok(store.listRuns(connection.profileId() ?? "").map((run) => running.get(run.run_id)?.run ?? run)),
    "finance.report": ({ run_id: runId }) => {
      const run = findRun(runId);
      if (!run) return fail(noRun);
      return ok({ run, report: store.getRun(runId)?.report ?? null });
    },
    "finance.differences": ({ run_id: runId, difference_class: name, offset, limit }) =>
      findRun(runId) ? ok(store.pageDifferences(runId, name, offset, limit)) : fail(noRun),
    "finance.export": async ({ run_id: runId, format }) => {
      const stored = store.getRun(runId);
      if (!stored) return fail(noRun);
      if (stored.run.status !== "finished") return fail(notFinished);
      const report = stored.report as ReportHead;
      const differences = (): Generator<Difference> => allDifferences(runId);
      const name = `reconciliation-${stored.run.from ?? "start"}-${stored.run.to ?? "end"}`;
      const file = (ending: string, type: string, text: string, encoding: "utf8" | "base64" = "utf8") =>
        ok({ file_name: `${name}.${ending}`, media_type: type, text, encoding });
      switch (format) {
        case "csv":
          return file("csv", "text/csv", [...differencesCsv(differences())].join(""));
        case "json":
          return file(
            "json",
            "application/json",
            JSON.stringify({ ...report, differences: [...differences()] }, null, 2),
          );
        case "html":
        case "xlsx": {
          const exported = { run: stored.run, report, differences, closed: await closedBy(runId) };
          if (format === "html") return file("html", "text/html", reportPage(exported));
          const bytes = await writeWorkbook(reportSheets(exported));
          return file("xlsx", workbookType, bytes.toString("base64"), "base64");
        }
      }
    },
  };

  return {
    handlers,
    /** Of the newest finished run. */
    openDifferences: (): number =>
      store.listRuns(connection.profileId() ?? "").find(({ status }) => status === "finished")?.differences ??
      0,
    follow(runId: string, emit: (run: ReconciliationRun) => void): () => void {
      const set = followers.get(runId) ?? new Set();
      followers.set(runId, set.add(emit));
      const run = findRun(runId);
      if (run) emit(run);
      return () => {
        set.delete(emit);
        if (set.size === 0) followers.delete(runId);
      };
    },
    /** The key and what was read of a project that is removed. */
    forgetProject: (profileId: string): Promise<void> => stripe.forget(profileId, true),
    async close(): Promise<void> {
      for (const active of running.values()) {
        active.stop.abort(new Error("closed"));
        finish(active, { status: "cancelled" });
      }
      uploads.close();
    },
  };
}

function lastDay(end: string): string {
  return new Date(Date.parse(end) - 1).toISOString().slice(0, 10);
}

function badInput(problems: readonly InputProblem[]): Failure {
  const lines = problems.map(
    ({ file, row, column, message }) =>
      `${file}${row === null ? "" : `, row ${row}`}${column === null ? "" : `, column ${column}`}: ${message}`,
  );
  return {
    code: problems[0]?.code ?? "bad_input",
    message: lines[0] ?? "A file cannot be read.",
    advice: lines.length > 1 ? `There are ${lines.length} problems; the details name them all.` : null,
    details: lines.slice(0, 200).join("\n") || null,
  };
}

const crashed = (details: string): Failure => ({
  code: "internal",
  message: "The reconciliation broke off.",
  advice: "Try again. If it happens again, report it with these details.",
  details,
});
const badPeriod: Failure = {
  code: "invalid_argument",
  message: "The period ends before it begins.",
  advice: "Choose a last day not before the first.",
  details: null,
};
const openPeriod: Failure = {
  code: "invalid_argument",
  message: "To read Stripe's API, the period needs a first and a last day.",
  advice: "Choose a month, or both days.",
  details: null,
};
const noSource: Failure = {
  code: "invalid_argument",
  message: "There is nothing to reconcile with.",
  advice: "Bring an export from Stripe, or connect Stripe.",
  details: null,
};
const oneAtATime: Failure = {
  code: "busy",
  message: "A reconciliation is running already.",
  advice: "Wait for it, or cancel it.",
  details: null,
};
const noRun: Failure = {
  code: "not_found",
  message: "This run is not kept here.",
  advice: "The last 30 runs are kept. Run it again.",
  details: null,
};
const notFinished: Failure = {
  code: "not_ready",
  message: "This run has no result.",
  advice: "Run it again.",
  details: null,
};
