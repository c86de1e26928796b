/** What must hold for any input: planted differences are found and nothing else, order means nothing, no row is lost. */
import fc from "fast-check";
import Papa from "papaparse";
import { describe, expect, it } from "vitest";
import { CsvScanner } from "./csv-scanner.ts";
import { differencesCsv, type LedgerRecord, type Report, reconcile } from "./index.ts";
import { decodeUtf8 } from "./text.ts";

const HEADER =
  "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Fee,Status,Customer ID,Invoice ID,PaymentIntent ID,Checkout Session ID,Disputed Amount,Dispute Status,order_id (metadata)";

interface Row {
  id: string;
  created: string;
  amount: string;
  refunded: string;
  currency: string;
  status: string;
  invoice: string;
  intent: string;
  session: string;
  disputed: string;
  disputeStatus: string;
  order: string;
}
interface Case {
  readonly rows: Row[];
  readonly records: LedgerRecord[];
  /** `CLASS/key` of the differences it must give. */
  readonly expected: string[];
}

const TOKENS = 320_000;
const row = (n: number, changes: Partial<Row> = {}): Row => ({
  id: `ch_${n}`,
  created: "2026-10-10 09:00:00",
  amount: "2.00",
  refunded: "0.00",
  currency: "gbp",
  status: "Paid",
  invoice: "",
  intent: `pi_${n}`,
  session: `cs_live_${n}`,
  disputed: "",
  disputeStatus: "",
  order: "",
  ...changes,
});
/** Entry numbers: ten for each case, so that ids do not depend on the order. */
const record = (n: number, k: number, changes: Partial<LedgerRecord> = {}): LedgerRecord => ({
  transaction_id: n * 10 + k,
  record_type: "grant",
  grant_kind: "purchase",
  user_id: `user_${n}`,
  tokens: TOKENS,
  tokens_remaining: TOKENS,
  lot_id: n * 10 + 1,
  created_at: "2026-10-10T09:00:05.123Z",
  amount_minor: 200,
  currency: "gbp",
  pack_id: "topup",
  charge_id: `ch_${n}`,
  ...changes,
});
const later = (n: number, k: number, type: LedgerRecord["record_type"], tokens: number): LedgerRecord =>
  record(n, k, {
    record_type: type,
    tokens,
    tokens_remaining: null,
    pack_id: null,
    amount_minor: null,
    currency: null,
    grant_kind: null,
  });

/** One of every kind of thing that happens, and of every class. */
const CASES: Readonly<Record<string, (n: number) => Case>> = {
  matched_by_charge: (n) => ({ rows: [row(n)], records: [record(n, 1)], expected: [] }),
  matched_by_intent: (n) => ({
    rows: [row(n)],
    records: [record(n, 1, { charge_id: null, payment_intent_id: `pi_${n}` })],
    expected: [],
  }),
  matched_by_session: (n) => ({
    rows: [row(n)],
    records: [record(n, 1, { charge_id: null, checkout_session_id: `cs_live_${n}` })],
    expected: [],
  }),
  matched_by_order: (n) => ({
    rows: [row(n, { order: `o_${n}` })],
    records: [record(n, 1, { charge_id: null, order_id: `o_${n}` })],
    expected: [],
  }),
  refunded: (n) => ({
    rows: [row(n, { refunded: "0.50" })],
    records: [record(n, 1), later(n, 2, "refund", -80_000)],
    expected: [],
  }),
  refund_given_back: (n) => ({
    rows: [row(n)],
    records: [record(n, 1), later(n, 2, "refund", -80_000), later(n, 3, "restoration", 80_000)],
    expected: [],
  }),
  dispute_open: (n) => ({
    rows: [row(n, { disputed: "2.00", disputeStatus: "under_review" })],
    records: [record(n, 1), later(n, 2, "dispute_hold", -TOKENS)],
    expected: [],
  }),
  dispute_won: (n) => ({
    rows: [row(n, { disputed: "2.00", disputeStatus: "won" })],
    records: [record(n, 1), later(n, 2, "dispute_hold", -TOKENS), later(n, 3, "dispute_release", TOKENS)],
    expected: [],
  }),
  dispute_lost: (n) => ({
    rows: [row(n, { disputed: "2.00", disputeStatus: "lost" })],
    records: [record(n, 1), later(n, 2, "dispute_hold", -TOKENS), later(n, 3, "dispute_clawback", -TOKENS)],
    expected: [],
  }),
  not_paid: (n) => ({ rows: [row(n, { status: "Failed" })], records: [], expected: [] }),
  refunded_and_never_granted: (n) => ({
    rows: [row(n, { refunded: "2.00", status: "Refunded" })],
    records: [],
    expected: [],
  }),
  outside: (n) => ({
    rows: [row(n, { created: "2026-09-10 09:00:00" })],
    records: [record(n + 0, 5, { charge_id: `ch_before_${n}`, created_at: "2026-09-01T00:00:00Z" })],
    expected: [],
  }),
  corrected: (n) => ({
    rows: [],
    records: [record(n, 1, { charge_id: `ch_gone_${n}` }), later(n, 2, "adjustment", -TOKENS)],
    expected: [],
  }),
  promotional: (n) => ({
    rows: [],
    records: [record(n, 1, { charge_id: `ch_gone_${n}` }), later(n, 2, "promotional", 0)],
    expected: [],
  }),
  paid_not_granted: (n) => ({ rows: [row(n)], records: [], expected: [`PAID_NOT_GRANTED/ch_${n}`] }),
  granted_not_paid: (n) => ({
    rows: [],
    records: [record(n, 1, { charge_id: `ch_gone_${n}` })],
    expected: [`GRANTED_NOT_PAID/entry-${n * 10 + 1}`],
  }),
  granted_for_failed: (n) => ({
    rows: [row(n, { status: "Failed" })],
    records: [record(n, 1)],
    expected: [`GRANTED_NOT_PAID/entry-${n * 10 + 1}`],
  }),
  duplicate_grant: (n) => ({
    rows: [row(n)],
    records: [
      record(n, 1),
      record(n, 2, { lot_id: n * 10 + 2, charge_id: null, payment_intent_id: `pi_${n}` }),
    ],
    expected: [`DUPLICATE_GRANT/entry-${n * 10 + 2}`],
  }),
  duplicate_charge: (n) => ({
    rows: [
      row(n, { order: `o_${n}` }),
      row(n, { id: `ch_${n}_again`, intent: `pi_${n}_again`, session: "", order: `o_${n}` }),
    ],
    records: [record(n, 1)],
    expected: [`DUPLICATE_CHARGE/ch_${n}_again`],
  }),
  amount: (n) => ({
    rows: [row(n, { amount: "1.99" })],
    records: [record(n, 1)],
    expected: [`AMOUNT_MISMATCH/ch_${n}`],
  }),
  quantity: (n) => ({
    rows: [row(n)],
    records: [record(n, 1, { tokens: 300_000 })],
    expected: [`TOKEN_QTY_MISMATCH/ch_${n}`],
  }),
  currency: (n) => ({
    rows: [row(n, { currency: "eur" })],
    records: [record(n, 1)],
    expected: [`CURRENCY_MISMATCH/ch_${n}`],
  }),
  refund_missing: (n) => ({
    rows: [row(n, { refunded: "0.50" })],
    records: [record(n, 1)],
    expected: [`REFUND_NOT_REVERSED/ch_${n}`],
  }),
  refund_too_much: (n) => ({
    rows: [row(n, { refunded: "0.50" })],
    records: [record(n, 1), later(n, 2, "refund", -160_000)],
    expected: [`REFUND_OVER_REVERSED/ch_${n}`],
  }),
  refund_after_spend: (n) => ({
    rows: [row(n, { refunded: "2.00" })],
    records: [record(n, 1, { tokens_remaining: 10 })],
    expected: [`REFUND_AFTER_SPEND/ch_${n}`],
  }),
  dispute_not_held: (n) => ({
    rows: [row(n, { disputed: "2.00", disputeStatus: "needs_response" })],
    records: [record(n, 1)],
    expected: [`DISPUTE_NOT_HELD/ch_${n}`],
  }),
  dispute_not_restored: (n) => ({
    rows: [row(n, { disputed: "2.00", disputeStatus: "won" })],
    records: [record(n, 1), later(n, 2, "dispute_hold", -TOKENS)],
    expected: [`DISPUTE_WON_NOT_RESTORED/ch_${n}`],
  }),
  inquiry_held: (n) => ({
    rows: [row(n, { disputed: "2.00", disputeStatus: "warning_needs_response" })],
    records: [record(n, 1), later(n, 2, "dispute_hold", -TOKENS)],
    expected: [`DISPUTE_WON_NOT_RESTORED/ch_${n}`],
  }),
  dispute_not_charged: (n) => ({
    rows: [row(n, { disputed: "2.00", disputeStatus: "lost" })],
    records: [record(n, 1), later(n, 2, "dispute_hold", -TOKENS)],
    expected: [`DISPUTE_LOST_NOT_CHARGED/ch_${n}`],
  }),
  period_gap: (n) => ({
    rows: [row(n, { invoice: `in_${n}` })],
    records: [],
    expected: [`SUB_PERIOD_GAP/ch_${n}`],
  }),
  period_overlap: (n) => ({
    rows: [row(n, { invoice: `in_${n}` })],
    records: [1, 2].map((k) =>
      record(n, k, {
        lot_id: n * 10 + k,
        grant_kind: "subscription",
        pack_id: null,
        invoice_id: `in_${n}`,
        invoice_line_id: `il_${n}`,
        charge_id: k === 1 ? `ch_${n}` : null,
      }),
    ),
    expected: [`SUB_PERIOD_OVERLAP/entry-${n * 10 + 2}`],
  }),
  timing: (n) => ({
    rows: [row(n, { created: "2026-10-31 23:30:00" })],
    records: [],
    expected: [`TIMING/ch_${n}`],
  }),
  unknown_category: (n) => ({
    rows: [row(n, { status: "Levitating" })],
    records: [],
    expected: [`UNKNOWN_CATEGORY/ch_${n}`],
  }),
  orphan: (n) => ({
    rows: [],
    records: [later(n, 2, "refund", -5)].map((r) => ({ ...r, charge_id: `ch_gone_${n}` })),
    expected: [`ORPHAN/entry-${n * 10 + 2}`],
  }),
  test_mode: (n) => ({
    rows: [row(n, { session: `cs_test_${n}` })],
    records: [],
    expected: [`TEST_MODE_LEAK/ch_${n}`],
  }),
  test_grant: (n) => ({
    rows: [],
    records: [record(n, 1, { charge_id: `ch_gone_${n}`, livemode: false })],
    expected: [`TEST_MODE_LEAK/entry-${n * 10 + 1}`],
  }),
};
const caseNames = Object.keys(CASES);

const line = (r: Row): string =>
  [
    r.id,
    r.created,
    r.amount,
    r.refunded,
    r.currency,
    "true",
    "0.10",
    r.status,
    "cus_1",
    r.invoice,
    r.intent,
    r.session,
    r.disputed,
    r.disputeStatus,
    r.order,
  ].join(",");

async function run(
  rows: readonly Row[],
  ledger: readonly LedgerRecord[],
  chunk = 4096,
  page = 100,
): Promise<Report> {
  const bytes = new TextEncoder().encode(`${[HEADER, ...rows.map(line)].join("\n")}\n`);
  async function* file(): AsyncGenerator<Uint8Array> {
    for (let i = 0; i < bytes.length; i += chunk) yield bytes.slice(i, i + chunk);
  }
  async function* pages(): AsyncGenerator<readonly LedgerRecord[]> {
    for (let i = 0; i < ledger.length; i += page) yield ledger.slice(i, i + page);
  }
  const result = await reconcile({
    stripeFiles: [{ name: "unified_payments.csv", size_bytes: bytes.length, chunks: file() }],
    ledger: pages(),
    period: { from: "2026-10-01", to: "2026-11-01" },
    options: {
      data_through: "2026-11-01",
      livemode: true,
      packs: [
        { pack_id: "topup", tokens: TOKENS, price_minor: 200, currency: "gbp", valid_from: "2026-01-01" },
      ],
    },
  });
  if (!result.ok) throw new Error(JSON.stringify(result.error));
  return result.value;
}
const parts = (counts: Report["stripe_rows"]): number =>
  counts.matched +
  counts.in_differences +
  counts.merged +
  counts.duplicates +
  Object.values(counts.excluded).reduce((a, b) => a + b, 0);
/** All but the order of the rows. */
const comparable = (report: Report): unknown =>
  JSON.parse(
    JSON.stringify({ ...report, inputs: null, warnings: null }, (key, value: unknown) =>
      key === "rows" && Array.isArray(value) ? value.length : value,
    ),
  );

describe("for any mixture of payments, refunds, disputes and mistakes", () => {
  it("finds exactly what was planted, loses no row, and does not care about the order of either side", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom(...caseNames), { minLength: 1, maxLength: 60 }),
        fc.infiniteStream(fc.nat()),
        fc.integer({ min: 1, max: 3000 }),
        async (names, numbers, chunk) => {
          const made = names.map((name, n) => (CASES[name] as (n: number) => Case)(n + 1));
          const rows = made.flatMap((one) => one.rows);
          const records = made.flatMap((one) => one.records);
          const expected = made.flatMap((one) => one.expected).sort();
          const report = await run(rows, records, chunk);
          expect(report.differences.map((d) => d.difference_id).sort()).toEqual(expected);
          expect(parts(report.stripe_rows)).toBe(rows.length);
          expect(parts(report.ledger_rows)).toBe(records.length);
          for (const bridge of report.bridge) expect(bridge.unexplained_minor).toBe(0);
          expect(report.tied_out).toBe(report.differences.every((d) => !d.blocks));

          const shuffled = <T>(list: readonly T[]): T[] =>
            list
              .map((value) => ({ value, at: numbers.next().value as number }))
              .sort((a, b) => a.at - b.at)
              .map(({ value }) => value);
          const again = await run(shuffled(rows), shuffled(records), 1 + (chunk % 777), 7);
          expect(comparable(again)).toEqual(comparable(report));
        },
      ),
      { numRuns: 150 },
    );
  });

  it("finds every class at least once in one run", async () => {
    const made = caseNames.map((name, n) => (CASES[name] as (n: number) => Case)(n + 1));
    const report = await run(
      made.flatMap((one) => one.rows),
      made.flatMap((one) => one.records),
    );
    // Fees and conversions have exports of their own: exports.test.ts.
    expect(report.classes.map((c) => c.class)).toHaveLength(19);
    expect(report.differences.map((d) => d.difference_id).sort()).toEqual(
      made.flatMap((one) => one.expected).sort(),
    );
    const lines = [...differencesCsv(report.differences)];
    expect(lines).toHaveLength(report.differences.length + 1);
    for (const difference of report.differences) {
      expect(difference.explanation.length).toBeGreaterThan(20);
      expect(difference.correction.words.length).toBeGreaterThan(10);
      expect(difference.trail.length).toBeGreaterThan(0);
    }
  });

  it("takes a record or a row that comes twice once", async () => {
    const report = await run([row(1), row(1), row(2)], [record(1, 1), record(1, 1), record(2, 1)]);
    expect(report.differences).toEqual([]);
    expect([report.stripe_rows.duplicates, report.ledger_rows.duplicates]).toEqual([1, 1]);
  });

  it("stays linear where one key repeats in every row", async () => {
    const many = Array.from({ length: 20_000 }, (_, n) => n + 1);
    const started = performance.now();
    const report = await run(
      many.map((n) => row(n, { invoice: "in_same", session: "cs_live_same", order: "o_same" })),
      many.map((n) =>
        record(n, 1, {
          charge_id: null,
          invoice_id: "in_same",
          checkout_session_id: "cs_live_same",
          order_id: "o_same",
        }),
      ),
    );
    expect(parts(report.stripe_rows)).toBe(20_000);
    expect(report.bridge[0]?.unexplained_minor).toBe(0);
    expect(performance.now() - started).toBeLessThan(30_000);
  });
});

describe("the CSV scanner", () => {
  it("reads any table as Papa Parse does, whatever the chunks, quotes, separators and line ends", () => {
    const cell = fc
      .oneof(
        fc.string({ maxLength: 12 }),
        fc.constantFrom("", '"', '""', "a,b", "x;y", "line\nbreak", "cr\r\nlf", "é", "💥", " "),
      )
      .map((text) => text.replaceAll("\u0000", ""));
    fc.assert(
      fc.property(
        fc
          .integer({ min: 2, max: 6 })
          .chain((width) =>
            fc.array(fc.array(cell, { minLength: width, maxLength: width }), { minLength: 1, maxLength: 12 }),
          ),
        fc.constantFrom(",", ";", "\t"),
        fc.constantFrom("\n", "\r\n"),
        fc.integer({ min: 1, max: 40 }),
        (rows, delimiter, newline, size) => {
          const width = rows[0]?.length ?? 2;
          const header = Array.from({ length: width }, (_, i) => `column${i}`);
          const table = [header, ...rows.filter((cells) => cells.some((text) => text !== ""))];
          const text = Papa.unparse(table, { delimiter, newline, quotes: true }) + newline;
          const seen: string[][] = [];
          const scanner = new CsvScanner("x", {
            onHeader: (cells) => void seen.push(cells),
            onRow: (found) =>
              void seen.push(
                Array.from({ length: found.columns }, (_, i) =>
                  decodeUtf8(found.bytes, found.starts[i] as number, found.ends[i] as number),
                ),
              ),
            onWarning: () => undefined,
          });
          const bytes = new TextEncoder().encode(text);
          for (let i = 0; i < bytes.length; i += size) scanner.push(bytes.subarray(i, i + size));
          scanner.finish();
          expect(seen).toEqual(table.map((cells) => cells.map((one) => one.toWellFormed())));
        },
      ),
      { numRuns: 500 },
    );
  });

  it("never breaks in any other way than by naming the problem, whatever the bytes", async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 400 }), fc.boolean(), async (noise, withHeader) => {
        const head = new TextEncoder().encode(withHeader ? `${HEADER}\n` : "");
        async function* file(): AsyncGenerator<Uint8Array> {
          yield head;
          yield noise;
        }
        async function* nothing(): AsyncGenerator<LedgerRecord> {}
        const result = await reconcile({
          stripeFiles: [{ name: "x", size_bytes: null, chunks: file() }],
          ledger: nothing(),
          period: { from: "2026-10-01", to: "2026-11-01" },
        });
        if (!result.ok) expect(result.error.problems[0]?.message).toMatch(/\w/);
      }),
      { numRuns: 500 },
    );
  });
});

describe("differences.csv", () => {
  it("holds nothing that a spreadsheet would run", async () => {
    const evil = "=HYPERLINK(1)";
    const report = await run([row(1, { id: evil, intent: "+1", session: "@x" })], []);
    const text = [...differencesCsv(report.differences)].join("");
    const cells = Papa.parse<string[]>(text).data.flat();
    expect(cells).toContain(`'${evil}`);
    for (const cell of cells) expect(cell).not.toMatch(/^[=+@]|^-(?!\d+(\.\d+)?$)/);
  });
});
