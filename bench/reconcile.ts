/**
 * Reconciling 1,000,000 Stripe rows with 1,000,000 ledger rows, all passes and classes, against only streaming both
 * files through Papa Parse; and Stripe's events against pgbench's simple-update on the same server.
 */
import { execFile } from "node:child_process";
import {
  createReadStream,
  createWriteStream,
  existsSync,
  mkdtempSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import Papa from "papaparse";
import pg from "pg";
import { openInputFile } from "../electron/main/console/finance/input-file.ts";
import { type InputFile, reconcile } from "../shared/governance/reconciliation/index.ts";
import { createProjectDatabase } from "../tests/support/database.ts";
import { findPostgres, startPostgres } from "../tests/support/postgres.ts";
import { alternate, type BenchResult, median, round } from "./measure.ts";

const runFile = promisify(execFile);
const HEADER =
  "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Converted Amount,Converted Amount Refunded,Converted Currency,Decline Reason,Description,Fee,Refunded date (UTC),Statement Descriptor,Status,Seller Message,Taxes On Fee,Card ID,Customer ID,Customer Description,Customer Email,Invoice ID,Transfer";
const LEDGER_HEADER =
  "transaction_id,record_type,user_id,tokens,created_at,lot_id,grant_kind,tokens_remaining,amount_minor,currency,pack_id,charge_id,payment_intent_id,customer_id";

/** Files as Stripe and the ledger make them, the ledger's a little out of order; one grant in a thousand is missing. */
async function generate(folder: string, rows: number): Promise<void> {
  const stripe = createWriteStream(join(folder, `stripe-${rows}.csv`));
  const ledger = createWriteStream(join(folder, `ledger-${rows}.csv`));
  const write = async (to: NodeJS.WritableStream, lines: string[]): Promise<void> => {
    const text = `${lines.join("\n")}\n`;
    lines.length = 0;
    if (!to.write(text)) await new Promise((resolve) => to.once("drain", resolve));
  };
  const pad = (value: number, length: number): string => String(value).padStart(length, "0");
  const s = [HEADER];
  const l = [LEDGER_HEADER];
  const facts = (i: number): { id: string; day: string; time: string; customer: number } => ({
    id: `3Nq${pad((i * 7919) % 1e9, 9)}LkdIwHu7ix${pad(i % 100, 2)}`,
    day: pad(1 + Math.floor((i / rows) * 28), 2),
    time: `${pad(Math.floor((i * 24) / rows) % 24, 2)}:${pad(i % 60, 2)}:${pad((i * 7) % 60, 2)}`,
    customer: (i * 31) % 50_000,
  });
  for (let i = 0; i < rows; i++) {
    const { id, day, time, customer } = facts(i);
    const refunded = i % 20 === 0 ? "1.00" : "0.00";
    s.push(
      `ch_${id},2026-10-${day} ${time},2.00,${refunded},gbp,true,2.00,${refunded},gbp,,"Top-up, 320,000 tokens",0.23,,EXAMPLE,Paid,Payment complete.,0.00,card_1${id},cus_${pad(customer, 14)},,user${customer}@example.com,,po_1Nq${pad(i % 5000, 20)}`,
    );
    // Webhooks overtake one another: neighbours within sixteen change places.
    const j = i - (i % 16) + ((i * 5) % 16);
    const at = j < rows ? j : i;
    const other = facts(at);
    if (at % 1000 !== 1) {
      const created = `2026-10-${other.day}T${other.time}.123456+00:00`;
      const ids = `ch_${other.id},pi_${other.id},cus_${pad(other.customer, 14)}`;
      const isRefunded = at % 20 === 0;
      l.push(
        `${at * 2 + 1},grant,user_${other.customer},320000,${created},${at * 2 + 1},purchase,${isRefunded ? 160000 : 320000},200,gbp,topup,${ids}`,
      );
      if (isRefunded)
        l.push(
          `${at * 2 + 2},refund,user_${other.customer},-160000,${created},${at * 2 + 1},,,100,gbp,topup,${ids}`,
        );
    }
    if (s.length >= 5_000) {
      await write(stripe, s);
      await write(ledger, l);
    }
  }
  if (s.length > 0) await write(stripe, s);
  if (l.length > 0) await write(ledger, l);
  stripe.end();
  ledger.end();
  await Promise.all([finished(stripe), finished(ledger)]);
}

const open = (path: string): InputFile => openInputFile(path, path, statSync(path).size);

async function reconcileFiles(folder: string, rows: number): Promise<void> {
  const result = await reconcile({
    stripeFiles: [open(join(folder, `stripe-${rows}.csv`))],
    ledger: open(join(folder, `ledger-${rows}.csv`)),
    period: { from: "2026-10-01", to: "2026-11-01" },
    options: {
      data_through: "2026-11-01",
      packs: [
        { pack_id: "topup", tokens: 320_000, price_minor: 200, currency: "gbp", valid_from: "2026-01-01" },
      ],
    },
  });
  if (!result.ok) throw new Error(JSON.stringify(result.error));
  const { stripe_rows: counts, bridge, classes } = result.value;
  const missing = Math.floor((rows - 2) / 1000) + 1;
  if (counts.matched !== rows - missing || bridge[0]?.unexplained_minor !== 0 || classes.length !== 1)
    throw new Error(`Wrong result: ${JSON.stringify({ counts, bridge, classes })}`);
}

async function parseFiles(folder: string, rows: number): Promise<void> {
  for (const name of [`stripe-${rows}.csv`, `ledger-${rows}.csv`]) {
    let seen = 0;
    await new Promise<void>((resolve, reject) => {
      Papa.parse(createReadStream(join(folder, name), { highWaterMark: 1 << 20 }), {
        step: () => {
          seen++;
        },
        complete: () => resolve(),
        error: reject,
      });
    });
    if (seen < rows) throw new Error(`Papa Parse saw ${seen} rows of ${name}`);
  }
}

interface Measured {
  /** Of the processor, all threads together: what else the machine does changes it little. */
  readonly ms: number;
  /** Of the thread that answers, which is what one waits for where a processor is free for each other thread. */
  readonly threadMs: number;
  readonly wallMs: number;
  readonly peakMb: number;
}

/** In a process of its own, so that neither warms the other up and memory is its own. */
async function measure(what: "ours" | "papa", folder: string, rows: number): Promise<Measured> {
  const { stdout } = await runFile(process.execPath, [
    fileURLToPath(import.meta.url),
    what,
    folder,
    String(rows),
  ]);
  return JSON.parse(stdout) as Measured;
}

async function benchFiles(): Promise<BenchResult[]> {
  const folder = mkdtempSync(join(tmpdir(), "bench-reconcile-"));
  const rows = 1_000_000;
  try {
    for (const size of [rows, rows / 10, rows / 100]) await generate(folder, size);
    let peakMb = 0;
    const measured = { ours: [] as Measured[], papa: [] as Measured[] };
    const wallOf = async (what: "ours" | "papa"): Promise<number> => {
      const one = await measure(what, folder, rows);
      if (what === "ours") peakMb = Math.max(peakMb, one.peakMb);
      measured[what].push(one);
      return one.wallMs;
    };
    const { ours, floor, ratio } = await alternate(
      3,
      () => wallOf("ours"),
      () => wallOf("papa"),
    );
    const middle = (what: "ours" | "papa", field: keyof Measured): number =>
      median(measured[what].map((one) => one[field]));
    const whole = middle("ours", "ms");
    const medianOf = async (size: number): Promise<number> => {
      const times: number[] = [];
      for (let i = 0; i < 3; i++) times.push((await measure("ours", folder, size)).ms);
      return median(times);
    };
    const tenth = await medianOf(rows / 10);
    const hundredth = await medianOf(rows / 100);
    return [
      {
        bench: "reconcile 1M × 1M rows ÷ streaming both files through Papa Parse, by the clock",
        ratio: round(ratio),
        better: "lower",
        required: 0.8,
        aim: 0.5,
        figures: {
          ours_ms: round(ours, 0),
          papa_ms: round(floor, 0),
          thread_ratio: round(middle("ours", "threadMs") / middle("papa", "threadMs")),
          processor_ratio: round(whole / middle("papa", "ms")),
          rows,
        },
      },
      {
        bench: "reconcile 1M × 1M: peak memory ÷ 600 MB",
        ratio: round(peakMb / 600),
        better: "lower",
        required: 1,
        figures: { peak_mb: round(peakMb, 0) },
      },
      {
        bench: "reconcile: the processor's time a row at 1M ÷ at 100k and at 10k rows, the worse",
        ratio: round(Math.max(whole / (10 * tenth), whole / (100 * hundredth))),
        better: "lower",
        required: 1.5,
        figures: { ms_1m: round(whole, 0), ms_100k: round(tenth, 0), ms_10k: round(hundredth, 0) },
      },
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function findPgbench(): string | null {
  return ["/usr/lib/postgresql/15/bin/pgbench", "/usr/bin/pgbench"].find((path) => existsSync(path)) ?? null;
}

/**
 * A paid checkout of a new payment for one of 1,000 users, as a text that is sent and parsed. The spaces keep pgbench
 * from taking what follows a colon for a variable.
 */
const EVENT_SCRIPT = `\\set n random(1, 1000000000000000000)
\\set user random(1, 1000)
select process_stripe_event(format('{"id": "evt_%1$s", "object": "event", "created": 1790000000, "livemode": true, "type": "checkout.session.completed", "data": {"object": {"id": "cs_live_%1$s", "object": "checkout.session", "mode": "payment", "payment_status": "paid", "amount_total": 200, "currency": "gbp", "payment_intent": "pi_%1$s", "customer": "cus_%2$s", "created": 1790000000, "metadata": {"user_id": "b%2$s", "pack_id": "top-up", "tokens": "320000"}}}}', :n::bigint, :user::int)::jsonb);
`;
const USERS_SQL =
  "do $$ begin for i in 1..1000 loop perform upsert_account('b' || i, 'full'); end loop; end $$";

/** What was measured is the whole work: every event that was sent has granted its pack. */
async function assertGranted(url: string): Promise<void> {
  const db = new pg.Client({ connectionString: url });
  await db.connect();
  const { rows } = await db.query<{ events: number; lots: number }>(
    "select (select count(*)::int from governance.webhook_events_processed) as events, (select count(*)::int from governance.stripe_lots) as lots",
  );
  await db.end();
  const [{ events, lots } = { events: 0, lots: 0 }] = rows;
  if (events === 0 || lots !== events) throw new Error(`${events} events granted ${lots} lots`);
}

async function benchEvents(): Promise<BenchResult[]> {
  const pgbench = findPgbench();
  if (pgbench === null) {
    console.error(
      "stripe events: pgbench is not installed (Debian: postgresql-15), so there is no floor to measure against.",
    );
    return [];
  }
  const server = await startPostgres({
    version: findPostgres(15) ? 15 : 18,
    settings: { fsync: "on", synchronous_commit: "on", shared_buffers: "256MB" },
  });
  const folder = mkdtempSync(join(tmpdir(), "bench-events-"));
  try {
    const { ownerUrl } = await createProjectDatabase(server.url(), { preset: "athro" });
    const owner = new pg.Client({ connectionString: ownerUrl });
    await owner.connect();
    await owner.query(USERS_SQL);
    await owner.end();
    const floorUrl = await server.createDatabase();
    await runFile(pgbench, ["-i", "-q", "-s", "10", floorUrl]);
    const script = join(folder, "event.sql");
    writeFileSync(script, EVENT_SCRIPT);
    // Of the first second, in which each connection reads its plans, nothing counts.
    const tps = async (args: readonly string[], url: string): Promise<number> => {
      const shared = ["-n", "-M", "prepared", "-c", "8", "-j", "2", "-T", "5", "-P", "1"];
      const { stderr } = await runFile(pgbench, [...shared, ...args, url]);
      const seconds = [...stderr.matchAll(/^progress: [\d.]+ s, ([\d.]+) tps/gm)].slice(1);
      return seconds.reduce((sum, [, found]) => sum + Number(found), 0) / seconds.length;
    };
    const { ours, floor, ratio, ratios } = await alternate(
      9,
      () => tps(["-f", script], ownerUrl),
      () => tps(["-N"], floorUrl),
    );
    await assertGranted(ownerUrl);
    return [
      {
        bench: "process_stripe_event, a new payment each ÷ pgbench simple-update, 8 connections",
        ratio: round(ratio),
        better: "higher",
        required: 0.3,
        figures: {
          worst_round: round(Math.min(...ratios)),
          events_per_second: round(ours, 0),
          simple_update_per_second: round(floor, 0),
          postgres: server.version,
        },
      },
    ];
  } finally {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

export async function run(): Promise<readonly BenchResult[]> {
  return [...(await benchFiles()), ...(await benchEvents())];
}

const [what, folder, rows] = process.argv.slice(2);
if (process.argv[1] === fileURLToPath(import.meta.url) && (what === "ours" || what === "papa")) {
  const started = performance.now();
  const before = process.cpuUsage();
  const threadBefore = process.threadCpuUsage();
  await (what === "ours" ? reconcileFiles : parseFiles)(folder ?? "", Number(rows));
  const wallMs = performance.now() - started;
  const sum = ({ user, system }: NodeJS.CpuUsage): number => (user + system) / 1000;
  const ms = sum(process.cpuUsage(before));
  const threadMs = sum(process.threadCpuUsage(threadBefore));
  process.stdout.write(
    JSON.stringify({ ms, threadMs, wallMs, peakMb: process.resourceUsage().maxRSS / 1000 }),
  );
}
