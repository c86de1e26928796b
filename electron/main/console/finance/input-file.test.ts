/** Files of a reconciliation that are read side by side, each but the first in a thread of its own. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Worker } from "node:worker_threads";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type InputFile,
  reconcile,
  type ReconcileInput,
} from "../../../../shared/governance/reconciliation/index.ts";
import { openInputFile } from "./input-file.ts";
import { readChunks } from "./read-chunks.ts";

const PAYMENTS = "id,Created date (UTC),Amount,Amount Refunded,Currency,Status,Customer ID";
const HISTORY = "id,Type,Source,Amount,Fee,Net,Currency,Created (UTC)";
const LEDGER =
  "transaction_id,record_type,user_id,tokens,created_at,lot_id,grant_kind,amount_minor,currency,pack_id,charge_id";
/** As large as a thread is worth it, whatever the file is. */
const LARGE = 16 << 20;

let folder: string;
beforeAll(() => {
  process.on("worker", onWorker);
  folder = mkdtempSync(join(tmpdir(), "input-files-"));
});
afterAll(() => {
  process.off("worker", onWorker);
  rmSync(folder, { recursive: true, force: true });
});

function write(name: string, content: string | Buffer): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}
const csv = (...lines: readonly string[]): string => `${lines.join("\n")}\n`;
const utf16 = (text: string): Buffer =>
  Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from(text, "utf16le")]);
const payment = (n: number, currency = "gbp"): string =>
  `ch_${n},2026-10-10 09:00:00,2.00,0.00,${currency},Paid,"cus_""${n}"", Ltd"`;

/** Each currency comes first in another file, so that none has the same number in two. */
const stripeFiles = () => ({
  "a.csv": csv(PAYMENTS, payment(1), payment(2, "usd"), payment(3, "eur")),
  "b.csv": utf16(
    csv(HISTORY, "txn_4,charge,ch_4,2.00,0.10,1.90,EUR,2026-10-11 09:00:00").replaceAll("\n", "\r\n"),
  ),
  "c.csv": `\ufeff${csv(PAYMENTS, payment(5, "jpy").replaceAll("2.00", "200"), payment(6, "usd"), payment(1)).replaceAll(",", ";").replaceAll('""; Ltd', '"", Ltd')}`,
});
const grant = (n: number, currency: string): string =>
  `${n},grant,user_${n},1000,2026-10-10T09:00:05Z,${n},purchase,200,${currency},topup,ch_${n}`;
const ledger = csv(
  LEDGER,
  grant(6, "usd"),
  grant(5, "jpy"),
  grant(4, "eur"),
  grant(2, "gbp"),
  grant(9, "usd"),
);

type Open = (name: string, path: string, bytes: number) => InputFile;
const here: Open = (name, path, size_bytes) => ({ name, size_bytes, chunks: readChunks(path) });

const inputOf = (
  stripe: Readonly<Record<string, string | Buffer>>,
  ledgerFile: string,
  open: Open,
  rest: Partial<ReconcileInput> = {},
): ReconcileInput => ({
  stripeFiles: Object.entries(stripe).map(([name, content]) => open(name, write(name, content), LARGE)),
  ledger: open("ledger.csv", write("ledger.csv", ledgerFile), LARGE),
  period: { from: "2026-10-01", to: "2026-11-01" },
  options: { data_through: "2026-11-01", create_sha256: () => createHash("sha256") },
  ...rest,
});
/** Threads that were started, and that run. */
const threads = { started: 0, running: 0 };
function onWorker(worker: Worker): void {
  threads.started++;
  threads.running++;
  worker.once("exit", () => threads.running--);
}

describe("files that are read side by side", () => {
  it("give the same report as one after the other: currencies, quotes, UTF-16, hashes and warnings", async () => {
    const alone = await reconcile(inputOf(stripeFiles(), ledger, here));
    expect(threads.started).toBe(0);
    const together = await reconcile(inputOf(stripeFiles(), ledger, openInputFile));
    expect(together).toEqual(alone);
    expect(threads).toEqual({ started: 3, running: 0 });
    if (!alone.ok) throw new Error(JSON.stringify(alone.error));
    expect(alone.value.inputs.map(({ rows, sha256 }) => [rows, sha256?.length])).toEqual([
      [3, 64],
      [1, 64],
      [3, 64],
    ]);
    expect(alone.value.bridge.map(({ currency, stripe_count }) => [currency, stripe_count])).toEqual([
      ["eur", 2],
      ["gbp", 1],
      ["jpy", 1],
      ["usd", 2],
    ]);
  });

  it("are refused together, each by its row, before the ledger is judged", async () => {
    const files = {
      ...stripeFiles(),
      "b.csv": csv(HISTORY, "txn_4,charge,ch_4,much,0.10,1.90,eur,2026-10-11 09:00:00"),
      "c.csv": `${csv(PAYMENTS, payment(1))}"ch_2,2026`,
    };
    const result = await reconcile(inputOf(files, csv(LEDGER, "x"), openInputFile));
    expect(!result.ok && result.error.problems).toMatchObject([
      { file: "b.csv", row: 2, column: "Amount", code: "bad_amount" },
      { file: "c.csv", row: 3, code: "cut_off" },
    ]);
    expect(result).toEqual(await reconcile(inputOf(files, csv(LEDGER, "x"), here)));
    expect(threads.running).toBe(0);
  });

  it("are refused for the ledger's row, where only that is wrong", async () => {
    const bad = ledger.replace("eur", "euro");
    const result = await reconcile(inputOf(stripeFiles(), bad, openInputFile));
    expect(!result.ok && result.error.problems).toMatchObject([
      { file: "ledger.csv", row: 4, column: "currency" },
    ]);
  });

  it("say which file is gone, and leave no thread behind", async () => {
    const input = inputOf(stripeFiles(), ledger, openInputFile);
    rmSync(join(folder, "c.csv"));
    await expect(reconcile(input)).rejects.toMatchObject({ code: "ENOENT" });
    expect(threads.running).toBe(0);
  });

  it("are left when a thread ends without an answer", async () => {
    const file = openInputFile("a.csv", write("a.csv", stripeFiles()["a.csv"]), LARGE);
    const reading = file.read_apart?.({ of: "stripe", options: {}, is_hashed: false }, () => undefined);
    await reading?.stop();
    await expect(reading?.done).rejects.toThrow("The thread that read a.csv ended without an answer");
  });

  it.each(["a.csv", "b.csv", "ledger.csv"])("can be cancelled while %s is read", async (which) => {
    const list = (header: string, count: number, line: (n: number) => string): string =>
      csv(header, Array.from({ length: count }, (_, n) => line(n + 1)).join("\n"));
    const files = {
      "a.csv": list(PAYMENTS, 20_000, (n) => payment(n)),
      "b.csv": list(PAYMENTS, 150_000, (n) => payment(n)),
    };
    const grants = list(LEDGER, 300_000, (n) => grant(n, "gbp"));
    const signal = { aborted: false };
    const seen: string[] = [];
    const result = await reconcile(
      inputOf(files, grants, openInputFile, {
        signal,
        onProgress: ({ file }) => {
          if (file !== null && seen.at(-1) !== file) seen.push(file);
          if (file === which) signal.aborted = true;
        },
      }),
    );
    expect(result).toEqual({ ok: false, error: { code: "cancelled", problems: [] } });
    expect(seen.at(-1)).toBe(which);
    expect(threads.running).toBe(0);
  });
});
