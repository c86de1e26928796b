/** One reconciliation in a thread of its own, so that the console stays responsive. It has no key and no network. */
import { createHash } from "node:crypto";
import { parentPort, workerData } from "node:worker_threads";
import {
  type InputFile,
  type LedgerRecord,
  type Period,
  reconcile,
  type ReconcileProgress,
  stripeApiFiles,
} from "../../../../shared/governance/reconciliation/index.ts";
import { openInputFile } from "./input-file.ts";
import type { FromWorker, Job, ToWorker } from "./messages.ts";
import { openStripeCache, stripeAccountRecords } from "./stripe-source-cache.ts";

const port = parentPort;
if (!port) throw new Error("worker.ts runs in a worker thread only.");
const job = workerData as Job;
const say = (message: FromWorker): void => port.postMessage(message);

const signal = { aborted: false };
const inbox: ToWorker[] = [];
let onArrival: (() => void) | null = null;
port.on("message", (message: ToWorker) => {
  if (message.type === "cancel") signal.aborted = true;
  inbox.push(message);
  onArrival?.();
});

async function receive<T extends ToWorker["type"]>(type: T): Promise<Extract<ToWorker, { type: T }> | null> {
  for (;;) {
    const message = inbox.shift();
    if (message?.type === "cancel") return null;
    if (message?.type === type) return message as Extract<ToWorker, { type: T }>;
    await new Promise<void>((resolve) => {
      onArrival = resolve;
    });
  }
}

const cache = job.stripe && openStripeCache(job.stripe.path);

function openFiles(): InputFile[] {
  const files = job.files.map(({ name, path, size_bytes }) => openInputFile(name, path, size_bytes));
  if (!job.stripe || !cache) return files;
  const { account_id, mode, since } = job.stripe;
  return [
    ...files,
    ...stripeApiFiles(stripeAccountRecords(cache, { account_id, livemode: mode === "live" }, since)),
  ];
}

async function* readLedger(): AsyncGenerator<readonly LedgerRecord[]> {
  for (;;) {
    say({ type: "next_page" });
    const page = await receive("page");
    if (!page) return;
    yield page.records;
    if (page.is_last) return;
  }
}

async function* nothing(): AsyncGenerator<readonly LedgerRecord[]> {}

let lastProgressAt = 0;
function onProgress(progress: ReconcileProgress): void {
  const now = Date.now();
  if (now - lastProgressAt < 100) return;
  lastProgressAt = now;
  say({ type: "progress", progress });
}

const dayMs = 86_400_000;
const always: Period = { from: "2000-01-01T00:00:00Z", to: "2100-01-01T00:00:00Z" };
const startOf = (day: string): string => `${day}T00:00:00.000Z`;
const dayAfter = (day: string): string => new Date(Date.parse(startOf(day)) + dayMs).toISOString();

/**
 * The period asked for; where an end is open, the days that the files cover. Null when it failed; the failure is
 * reported.
 */
async function findPeriod(): Promise<Period | null> {
  const asked = { from: job.from && startOf(job.from), to: job.to && dayAfter(job.to) };
  if (asked.from !== null && asked.to !== null) return { from: asked.from, to: asked.to };
  const looked = await reconcile({
    stripeFiles: openFiles(),
    ledger: nothing(),
    period: always,
    onProgress,
    signal,
  });
  if (!looked.ok) {
    if (looked.error.code === "cancelled") say({ type: "cancelled" });
    else say({ type: "bad_input", problems: looked.error.problems });
    return null;
  }
  const windows = looked.value.inputs.flatMap(({ window }) => (window ? [window] : []));
  const first = windows.map(({ from }) => from).toSorted()[0];
  const last = windows
    .map(({ to }) => to)
    .toSorted()
    .at(-1);
  return {
    from: asked.from ?? (first ? startOf(first.slice(0, 10)) : always.from),
    to: asked.to ?? (last ? dayAfter(last.slice(0, 10)) : always.to),
  };
}

const pageSize = 2_000;

async function run(): Promise<void> {
  const period = await findPeriod();
  if (!period) return;
  say({ type: "period", period });
  const facts = await receive("facts");
  if (!facts) return say({ type: "cancelled" });
  const result = await reconcile({
    stripeFiles: openFiles(),
    ledger: readLedger(),
    period,
    options: {
      create_sha256: () => createHash("sha256"),
      ...(job.stripe
        ? {
            account_id: job.stripe.account_id,
            data_from: new Date(job.stripe.since * 1000).toISOString(),
            data_through: job.stripe.data_through,
          }
        : {}),
      ...(facts.packs ? { packs: facts.packs } : {}),
      ...(facts.known_payments ? { known_payments: facts.known_payments } : {}),
      ...(facts.roll_forward ? { roll_forward: facts.roll_forward } : {}),
    },
    onProgress,
    signal,
  });
  if (!result.ok) {
    if (result.error.code === "cancelled" || signal.aborted) say({ type: "cancelled" });
    else say({ type: "bad_input", problems: result.error.problems });
    return;
  }
  const { differences, ...head } = result.value;
  for (let from = 0; from < differences.length; from += pageSize) {
    say({ type: "differences", from, differences: differences.slice(from, from + pageSize) });
  }
  say({ type: "done", report: { ...head, differences_total: differences.length }, period });
}

await run();
cache?.close();
port.close();
