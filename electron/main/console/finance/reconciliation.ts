/** The finance desk's runs: brings in exports or reads Stripe, matches them against the ledger in a thread, keeps them. */
import { randomUUID } from "node:crypto";
import type { Failure, Notice, ReconciliationRun, runOperations } from "../../../../shared/contract/index.ts";
import { fail, ok } from "../../../../shared/governance/result.ts";
import type { Keychain } from "../../keychain/keychain.ts";
import { notConnected } from "../connection/link.ts";
import type { DeskContext } from "../desk-context.ts";
import type { Handlers, Log } from "../dispatch.ts";
import type { Topic } from "../topic.ts";
import {
  type ActiveRun,
  type ActiveRuns,
  addRun,
  crashRun,
  findRun,
  finishRun,
  followRun,
  updateRun,
} from "./active-runs.ts";
import type { Job, ToWorker } from "./messages.ts";
import { exportRun } from "./run-export.ts";
import { badPeriod, noRun, noSource, oneAtATime, openPeriod } from "./run-failures.ts";
import { startThread } from "./run-thread.ts";
import type { StripeEndpoint } from "./stripe-source-client.ts";
import { createStripeDesk, type StripeDesk } from "./stripe-source-desk.ts";
import type { StripeProgress, StripeReading } from "./stripe-source.ts";
import type { Uploads } from "./uploads.ts";

interface ReconciliationOptions {
  readonly desk: DeskContext;
  readonly dataDir: string;
  /** Those of all projects of the data folder. */
  readonly uploads: Uploads;
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

/** What the desk works with. */
interface RunDesk {
  readonly options: ReconciliationOptions;
  readonly uploads: Uploads;
  readonly stripe: StripeDesk;
  readonly runs: ActiveRuns;
}

/** What a run was asked for. */
interface RunRequest extends Pick<Job, "files" | "from" | "to"> {
  readonly isStripeRead: boolean;
}

/** While matching the thread reads no messages: after this time it is ended from outside. */
const cancelPatienceMs = 2_000;

export function createReconciliation(options: ReconciliationOptions) {
  const { desk, log, onChange, dataDir, uploads } = options;
  const { store, connection, now } = desk;
  const stripe = createStripeDesk({
    store,
    keychain: options.keychain,
    profileId: connection.profileId,
    dataDir,
    now,
    ...(options.stripeEndpoint ? { endpoint: options.stripeEndpoint } : {}),
  });
  const runs: ActiveRuns = { store, now, log, onChange, byId: new Map(), followers: new Map() };

  return {
    handlers: runHandlers({ options, uploads, stripe, runs }),
    /** Of the newest finished run. */
    openDifferences: (): number =>
      store.listRuns(connection.profileId() ?? "").find(({ status }) => status === "finished")?.differences ??
      0,
    isRunning: (): boolean => runs.byId.size > 0,
    follow: (runId: string, emit: (run: ReconciliationRun) => void): (() => void) =>
      followRun(runs, runId, emit),
    /** Removes a project's key and what was read with it. */
    forgetProject: (profileId: string): Promise<void> => stripe.forget(profileId),
    async close(): Promise<void> {
      for (const active of runs.byId.values()) {
        active.stop.abort(new Error("closed"));
        finishRun(runs, active, { status: "cancelled" });
      }
    },
  };
}

function runHandlers(desk: RunDesk): ReconciliationHandlers {
  const { uploads, stripe, runs } = desk;
  const { store, connection } = desk.options.desk;
  return {
    ...stripe.handlers,
    "finance.open_upload": ({ file_name: name, size_bytes: size }) => uploads.open(name, size),
    "finance.upload_chunk": ({ upload_id: id, offset_bytes: offset, base64 }) =>
      uploads.append(id, offset, base64),
    "finance.brought_file": ({ upload_id: id }) => uploads.broughtFile(id),
    "finance.start_run": ({ upload_ids: ids, stripe_api: isStripeRead = false, from, to }) => {
      const project = connection.current();
      const { profileId } = project;
      if (profileId === null || !project.backend()) return fail(connection.state().failure ?? notConnected);
      if (from !== null && to !== null && to < from) return fail(badPeriod);
      if (isStripeRead && (from === null || to === null)) return fail(openPeriod);
      if (!isStripeRead && ids.length === 0) return fail(noSource);
      if ([...runs.byId.values()].some((one) => one.profileId === profileId)) return fail(oneAtATime);
      const files = uploads.take(ids);
      if (!files.ok) return files;
      return ok(startRun(desk, { profileId, project }, { files: files.value, from, to, isStripeRead }));
    },
    "finance.cancel_run": ({ run_id: runId }) => {
      const active = runs.byId.get(runId);
      if (active) cancelRun(runs, active);
      const run = findRun(runs, runId);
      return run ? ok(run) : fail(noRun);
    },
    "finance.runs": () =>
      ok(store.listRuns(connection.profileId() ?? "").map((run) => runs.byId.get(run.run_id)?.run ?? run)),
    "finance.report": ({ run_id: runId }) => {
      const run = findRun(runs, runId);
      return run ? ok({ run, report: store.getRun(runId)?.report ?? null }) : fail(noRun);
    },
    "finance.differences": ({ run_id: runId, difference_class: name, offset, limit }) =>
      findRun(runs, runId) ? ok(store.pageDifferences(runId, name, offset, limit)) : fail(noRun),
    "finance.export": ({ run_id: runId, format }) => exportRun(store, connection.current(), runId, format),
  };
}

function startRun(
  desk: RunDesk,
  { profileId, project }: Pick<ActiveRun, "profileId" | "project">,
  request: RunRequest,
): ReconciliationRun {
  const account = request.isStripeRead ? desk.stripe.connection(profileId) : null;
  const active: ActiveRun = {
    profileId,
    project,
    worker: null,
    stop: new AbortController(),
    run: {
      run_id: randomUUID(),
      started_at: desk.runs.now().toISOString(),
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
  addRun(desk.runs, active);
  if (request.isStripeRead)
    readStripeThenMatch(desk, active, request).catch((error: unknown) => crashRun(desk.runs, active, error));
  else match(desk, active, { ...request, stripe: null }, null);
  return active.run;
}

async function readStripeThenMatch(desk: RunDesk, active: ActiveRun, request: RunRequest): Promise<void> {
  const { runs, stripe } = desk;
  const read = await stripe.read(active.profileId, request.from ?? "", active.stop.signal, (progress) =>
    showStripeProgress(runs, active, progress),
  );
  if (!runs.byId.has(active.run.run_id)) return;
  if (!read.ok) return finishRun(runs, active, endOf(read.error));
  const { input, reading } = read.value;
  const through = new Date(reading.through * 1000).toISOString();
  match(desk, active, { ...request, stripe: { ...input, data_through: through } }, reading);
}

function match(desk: RunDesk, active: ActiveRun, job: Job, reading: StripeReading | null): void {
  const { notices, workerUrl } = desk.options;
  startThread({ runs: desk.runs, active, job, reading, notices, workerUrl });
}

function endOf(failure: Failure): Partial<ReconciliationRun> {
  return failure.code === "cancelled" ? { status: "cancelled" } : { status: "failed", failure };
}

function showStripeProgress(
  runs: ActiveRuns,
  active: ActiveRun,
  { resource, objects, fraction }: StripeProgress,
): void {
  updateRun(runs, active, {
    phase: `reading ${resource.replaceAll("_", " ")} from Stripe`,
    stripe_rows: objects,
    progress: fraction,
  });
}

function cancelRun(runs: ActiveRuns, active: ActiveRun): void {
  active.stop.abort(new Error("cancelled"));
  active.worker?.postMessage({ type: "cancel" } satisfies ToWorker);
  setTimeout(() => finishRun(runs, active, { status: "cancelled" }), cancelPatienceMs).unref();
  updateRun(runs, active, { phase: "cancelling" });
}
