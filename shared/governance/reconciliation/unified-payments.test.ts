import { describe, expect, it } from "vitest";
import { type LedgerRecord, type ReconcileOptions, type Report, reconcile } from "./index.ts";

const HEADER =
  "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Converted Amount,Converted Amount Refunded,Converted Currency,Decline Reason,Description,Fee,Refunded date (UTC),Statement Descriptor,Status,Seller Message,Taxes On Fee,Card ID,Customer ID,Customer Description,Customer Email,Invoice ID,Transfer";

interface Row {
  id?: string;
  created?: string;
  amount?: string;
  refunded?: string;
  currency?: string;
  captured?: string;
  status?: string;
  customer?: string;
  invoice?: string;
  description?: string;
}
const row = (r: Row): string =>
  [
    r.id ?? "",
    r.created ?? "2026-10-10 09:00:00",
    r.amount ?? "2.00",
    r.refunded ?? "0.00",
    r.currency ?? "gbp",
    r.captured ?? "true",
    r.amount ?? "2.00",
    r.refunded ?? "0.00",
    r.currency ?? "gbp",
    "",
    r.description ?? '"Top-up, 320,000 tokens"',
    "0.23",
    "",
    "",
    r.status ?? "Paid",
    "Payment complete.",
    "0.00",
    "card_1",
    r.customer ?? "cus_1",
    "",
    "ann@example.com",
    r.invoice ?? "",
    "",
  ].join(",");
const grant = (transaction_id: number, r: Partial<LedgerRecord>): LedgerRecord => ({
  transaction_id,
  record_type: "grant",
  grant_kind: "purchase",
  user_id: "u1",
  tokens: 320_000,
  tokens_remaining: 320_000,
  lot_id: transaction_id,
  created_at: "2026-10-10T09:00:05Z",
  amount_minor: 200,
  currency: "gbp",
  pack_id: "topup",
  customer_id: "cus_1",
  ...r,
});

async function* bytes(text: string, size = 97): AsyncGenerator<Uint8Array> {
  const all = new TextEncoder().encode(text);
  for (let i = 0; i < all.length; i += size) yield all.slice(i, i + size);
}
async function* records(list: readonly LedgerRecord[]): AsyncGenerator<readonly LedgerRecord[]> {
  for (let i = 0; i < list.length; i += 3) yield list.slice(i, i + 3);
}
const PACKS: ReconcileOptions = {
  packs: [{ pack_id: "topup", tokens: 320_000, price_minor: 200, currency: "gbp", valid_from: "2026-01-01" }],
  data_through: "2026-11-01",
};
async function run(
  rows: string[],
  ledger: LedgerRecord[],
  options: ReconcileOptions = PACKS,
): Promise<Report> {
  const result = await reconcile({
    stripeFiles: [
      { name: "unified_payments.csv", size_bytes: null, chunks: bytes(`${[HEADER, ...rows].join("\n")}\n`) },
    ],
    ledger: records(ledger),
    period: { from: "2026-10-01", to: "2026-11-01" },
    options,
  });
  if (!result.ok) throw new Error(JSON.stringify(result.error));
  return result.value;
}
const classes = (report: Report): string[] => report.differences.map((d) => `${d.difference_id} ${d.tokens}`);

describe("the default dashboard export", () => {
  it("ties out when every payment has its grant", async () => {
    const report = await run(
      [
        row({ id: "ch_1" }),
        row({ id: "py_2" }),
        row({ id: "ch_3", amount: "1,234.50".replace(",", ""), currency: "usd" }),
      ],
      [
        grant(1, { charge_id: "ch_1" }),
        grant(2, { charge_id: "py_2" }),
        grant(3, { charge_id: "ch_3", amount_minor: 123450, currency: "usd", pack_id: null }),
      ],
    );
    expect(classes(report)).toEqual([]);
    expect(report.tied_out).toBe(true);
    expect(report.stripe_rows).toEqual({
      rows: 3,
      matched: 3,
      in_differences: 0,
      merged: 0,
      duplicates: 0,
      excluded: {},
    });
    expect(report.bridge).toMatchObject([
      {
        currency: "gbp",
        stripe_gross_minor: 400,
        ledger_minor: 400,
        matched_minor: 400,
        unexplained_minor: 0,
      },
      { currency: "usd", stripe_gross_minor: 123450, ledger_minor: 123450, unexplained_minor: 0 },
    ]);
    expect(report.tie_out).toMatchObject([
      { currency: "gbp", gross_minor: 400, fees_minor: -46, net_minor: 354 },
      { currency: "usd", gross_minor: 123450 },
    ]);
    expect(report.deferred_revenue).toEqual([
      { currency: "gbp", lots: 2, tokens_remaining: 640_000, deferred_minor: 400 },
      { currency: "usd", lots: 1, tokens_remaining: 320_000, deferred_minor: 123450 },
    ]);
  });

  it("takes what is deferred of a year paid in advance from the ledger, whatever tokens are left", async () => {
    const report = await run(
      [row({ id: "ch_1" }), row({ id: "ch_2" })],
      [
        grant(1, { charge_id: "ch_1", tokens_remaining: 0, deferred_minor: 150 }),
        grant(2, { charge_id: "ch_2", deferred_minor: 0 }),
      ],
    );
    expect(report.deferred_revenue).toEqual([
      { currency: "gbp", lots: 2, tokens_remaining: 320_000, deferred_minor: 150 },
    ]);
  });

  it("finds each difference in its class and none besides", async () => {
    const report = await run(
      [
        row({ id: "ch_ok" }),
        row({ id: "ch_lost_webhook" }),
        row({ id: "ch_failed", status: "Failed", captured: "false" }),
        row({ id: "ch_doubled" }),
        row({ id: "ch_price", amount: "1.50" }),
        row({ id: "ch_size" }),
        row({ id: "ch_euro" }),
        row({ id: "ch_refund", refunded: "1.00" }),
        row({ id: "ch_refund_ok", refunded: "1.00" }),
        row({ id: "ch_over", refunded: "0.50" }),
        row({ id: "ch_spent", refunded: "2.00", status: "Refunded" }),
        row({ id: "ch_sub", invoice: "in_1" }),
        row({ id: "ch_late", created: "2026-10-31 23:30:00" }),
        row({ id: "ch_odd", status: "Teleported" }),
        row({ id: "", status: "requires_payment_method", captured: "" }),
      ],
      [
        grant(1, { charge_id: "ch_ok" }),
        grant(2, { charge_id: "ch_failed" }),
        grant(3, { charge_id: "ch_absent" }),
        grant(4, { charge_id: "ch_doubled" }),
        grant(5, { charge_id: "ch_doubled", created_at: "2026-10-10T09:01:00Z" }),
        grant(6, { charge_id: "ch_price" }),
        grant(7, { charge_id: "ch_size", tokens: 300_000 }),
        grant(8, { charge_id: "ch_euro", currency: "eur" }),
        grant(9, { charge_id: "ch_refund" }),
        grant(10, { charge_id: "ch_refund_ok", tokens_remaining: 160_000 }),
        grant(11, { record_type: "refund", lot_id: 10, tokens: -160_000, charge_id: "ch_refund_ok" }),
        grant(12, { charge_id: "ch_over" }),
        grant(13, { record_type: "refund", lot_id: 12, tokens: -160_000 }),
        grant(14, { charge_id: "ch_spent", tokens_remaining: 20_000 }),
      ],
    );
    expect(classes(report)).toEqual([
      "PAID_NOT_GRANTED/ch_lost_webhook -320000",
      "GRANTED_NOT_PAID/entry-2 320000",
      "GRANTED_NOT_PAID/entry-3 320000",
      "DUPLICATE_GRANT/entry-5 320000",
      "AMOUNT_MISMATCH/ch_price 0",
      "TOKEN_QTY_MISMATCH/ch_size -20000",
      "CURRENCY_MISMATCH/ch_euro 0",
      "REFUND_NOT_REVERSED/ch_refund 160000",
      "REFUND_OVER_REVERSED/ch_over -80000",
      "REFUND_AFTER_SPEND/ch_spent 320000",
      "SUB_PERIOD_GAP/ch_sub 0",
      "TIMING/ch_late 0",
      "UNKNOWN_CATEGORY/ch_odd 0",
    ]);
    expect(report.tied_out).toBe(false);
    expect(report.bridge.map((line) => line.unexplained_minor)).toEqual([0, 0]);
    expect(report.stripe_rows).toMatchObject({ rows: 15, excluded: { not_paid: 1 } });
  });

  it("suggests, and only suggests, the one payment that fits a grant without ids", async () => {
    const report = await run([row({ id: "ch_1" })], [grant(1, {})]);
    expect(classes(report)).toEqual(["PAID_NOT_GRANTED/ch_1 0", "GRANTED_NOT_PAID/entry-1 320000"]);
    expect(report.differences[0]?.suggestion?.difference_id).toBe("GRANTED_NOT_PAID/entry-1");
    expect(report.tied_out).toBe(false);
  });
});
