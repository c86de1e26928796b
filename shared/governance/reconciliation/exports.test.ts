/** Stripe's exports in all their forms, as downloaded and as spreadsheets leave them. Headers as in RECONCILIATION facts. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { parseTime } from "./cells.ts";
import { inspectExports, type LedgerRecord, type ReconcileOptions, type Report, reconcile } from "./index.ts";

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);
async function* bytes(data: Uint8Array | string, size = 61): AsyncGenerator<Uint8Array> {
  const all = typeof data === "string" ? encode(data) : data;
  for (let i = 0; i < all.length; i += size) yield all.slice(i, i + size);
}
type Files = Readonly<Record<string, string | Uint8Array>>;
const open = (files: Files, size?: number) =>
  Object.entries(files).map(([name, data]) => ({ name, size_bytes: data.length, chunks: bytes(data, size) }));
async function* records(list: readonly LedgerRecord[]): AsyncGenerator<LedgerRecord> {
  yield* list;
}
async function run(
  files: Files,
  ledger: readonly LedgerRecord[] = [],
  options: ReconcileOptions = {},
  size?: number,
): Promise<Report> {
  const result = await reconcile({
    stripeFiles: open(files, size),
    ledger: records(ledger),
    period: { from: "2026-10-01", to: "2026-11-01" },
    options: { data_through: "2026-11-01", ...options },
  });
  if (!result.ok) throw new Error(JSON.stringify(result.error));
  return result.value;
}
async function refusal(
  files: Files,
  options: ReconcileOptions = {},
): Promise<{ code: string; row: number | null; column: string | null; message: string }> {
  const result = await reconcile({
    stripeFiles: open(files),
    ledger: records([]),
    period: { from: "2026-10-01", to: "2026-11-01" },
    options,
  });
  if (result.ok) throw new Error("It was accepted.");
  const [problem] = result.error.problems;
  if (!problem) throw new Error("No problem was named.");
  return problem;
}
let entries = 0;
const grant = (r: Partial<LedgerRecord>): LedgerRecord => ({
  transaction_id: ++entries,
  record_type: "grant",
  grant_kind: "purchase",
  user_id: "u1",
  tokens: 1_000,
  tokens_remaining: 1_000,
  lot_id: r.lot_id ?? 1_000 + entries,
  created_at: "2026-10-10T09:00:05Z",
  amount_minor: 200,
  currency: "gbp",
  ...r,
});
const found = (report: Report): string[] => report.differences.map((d) => d.difference_id);

const PAYMENTS =
  "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Fee,Status,Customer ID,Invoice ID";
const ALL = `${PAYMENTS},PaymentIntent ID,Checkout Session ID,Client Reference ID,Disputed Amount,Dispute Status,Invoice Number`;
const ITEMIZED_ALL =
  "balance_transaction_id,created_utc,available_on_utc,currency,gross,fee,net,reporting_category,source_id,description,customer_facing_amount,customer_facing_currency,charge_id,payment_intent_id";
const PAYOUT =
  "automatic_payout_id,automatic_payout_effective_at,balance_transaction_id,created_utc,created,available_on_utc,available_on,currency,gross,fee,net,reporting_category,source_id,description,charge_id,payment_intent_id";
const HISTORY =
  "id,Type,Source,Amount,Fee,Net,Currency,Created (UTC),Available On (UTC),Description,Customer Facing Amount,Customer Facing Currency,Transfer,Transfer Date (UTC),Transfer Group,order_id (metadata)";
const DISPUTES =
  "id,Description,Dispute Created (UTC),Charge Created (UTC),Dispute Amount,Dispute Currency,Charge Amount,Charge Currency,Charge ID,Reason,Status,Payment Intent";
const csv = (...lines: string[]): string => `${lines.join("\n")}\n`;

describe("each export", () => {
  it.each([
    ["unified_payments", csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,2.00,0.00,gbp,true,0.23,Paid,cus_1,")],
    [
      "unified_payments",
      csv(
        "id,Description,Seller Message,Created (UTC),Amount,Amount Refunded,Currency,Converted Amount,Converted Amount Refunded,Fee,Converted Currency,Status,Customer ID",
        "ch_1,x,ok,2026-10-10 09:00,2.00,0.00,gbp,2.00,0.00,0.23,gbp,Paid,cus_1",
      ),
    ],
    [
      "balance_history",
      csv(HISTORY, "txn_1,charge,ch_1,2.00,0.23,1.77,gbp,2026-10-10 09:00,2026-10-12 00:00,x,,,,,,"),
    ],
    [
      "balance_change_itemized",
      csv(ITEMIZED_ALL, "txn_1,2026-10-10 09:00:00,2026-10-12,gbp,2.00,0.23,1.77,charge,ch_1,x,,,ch_1,pi_1"),
    ],
    [
      "payout_reconciliation_itemized",
      csv(
        PAYOUT,
        "po_1,2026-10-15 00:00:00,txn_1,2026-10-10 09:00:00,2026-10-10 11:00:00,2026-10-12,2026-10-12,gbp,2.00,0.23,1.77,charge,ch_1,x,ch_1,pi_1",
      ),
    ],
  ])("%s is told by its header, and read right to the minor unit", async (kind, text) => {
    for (const size of [7, 61, 100_000]) {
      const report = await run({ "x.csv": text }, [grant({ charge_id: "ch_1" })], {}, size);
      expect(report.inputs[0]).toMatchObject({
        kind,
        rows: 1,
        window: { from: "2026-10-10T09:00:00Z", to: "2026-10-10T09:00:00Z" },
      });
      expect(found(report)).toEqual([]);
      expect(report.bridge).toMatchObject([
        { currency: "gbp", stripe_gross_minor: 200, matched_minor: 200, unexplained_minor: 0 },
      ]);
      expect(report.tie_out).toMatchObject([{ gross_minor: 200, fees_minor: -23, net_minor: 177 }]);
      expect(report.tied_out).toBe(true);
    }
  });

  it("names what it lacks and where Stripe offers it", async () => {
    const report = await run({
      "x.csv": csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,2.00,0.00,gbp,true,0.23,Failed,cus_1,"),
    });
    expect(report.inputs[0]?.missing_columns.map(({ column }) => column)).toEqual([
      "PaymentIntent ID",
      "Checkout Session ID",
      "Dispute Status",
    ]);
    expect(report.inputs[0]?.missing_columns[0]?.where).toContain("All columns");
    expect(await refusal({ "x.csv": csv(PAYMENTS.replace(",Currency", ""), "") })).toMatchObject({
      code: "missing_column",
      row: 1,
      column: "currency",
    });
    expect(await refusal({ "x.csv": csv("name,age", "a,1") })).toMatchObject({
      code: "unknown_export",
      row: 1,
    });
    const inspected = await inspectExports(
      open({
        "a.csv": csv(
          `${PAYMENTS},Shoe Size,color (metadata)`,
          "ch_1,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,,,44,red",
        ),
      }),
    );
    expect(inspected.ok && inspected.value[0]?.unknown_columns).toEqual(["Shoe Size"]);
  });

  it("reports the same event once, however many files have it", async () => {
    const report = await run(
      {
        "payments.csv": csv(
          ALL,
          "ch_1,2026-10-10 09:00:00,2.00,1.00,gbp,true,0.23,Refunded,cus_1,,pi_1,cs_1,,,,",
          "ch_2,2026-10-10 10:00:00,2.00,0.00,gbp,true,0.23,Paid,cus_1,,pi_2,cs_2,,2.00,lost,",
        ),
        "history.csv": csv(
          HISTORY,
          "txn_1,charge,ch_1,2.00,0.23,1.77,gbp,2026-10-10 09:00,2026-10-12 00:00,x,,,,,,",
          "txn_2,refund,re_1,-1.00,0.00,-1.00,gbp,2026-10-11 09:00,2026-10-12 00:00,x,,,,,,",
          "txn_3,charge,ch_2,2.00,0.23,1.77,gbp,2026-10-10 10:00,2026-10-12 00:00,x,,,,,,",
          "txn_4,adjustment,du_1,-2.00,15.00,-17.00,gbp,2026-10-12 10:00,2026-10-12 00:00,x,,,,,,",
          "txn_5,payout,po_1,-0.54,0.00,-0.54,gbp,2026-10-20 10:00,2026-10-20 00:00,x,,,,,,",
          "txn_6,stripe_fee,,-0.10,0.00,-0.10,gbp,2026-10-20 10:00,2026-10-20 00:00,x,,,,,,",
        ),
        "itemized.csv": csv(
          ITEMIZED_ALL,
          "txn_1,2026-10-10 09:00:00,2026-10-12,gbp,2.00,0.23,1.77,charge,ch_1,x,,,ch_1,pi_1",
        ),
        "disputes.csv": csv(
          DISPUTES,
          "du_1,x,2026-10-12 10:00,2026-10-10 10:00,2.00,gbp,2.00,gbp,ch_2,fraudulent,lost,pi_2",
        ),
      },
      [
        grant({ charge_id: "ch_1", lot_id: 1, tokens_remaining: 500 }),
        grant({ record_type: "refund", lot_id: 1, tokens: -500, refund_id: "re_1", amount_minor: 100 }),
        grant({ charge_id: "ch_2", lot_id: 2, tokens_remaining: 0 }),
        grant({ record_type: "dispute_clawback", lot_id: 2, tokens: -1_000, dispute_id: "du_1" }),
      ],
      { opening_balances: { gbp: 10_000 } },
    );
    expect(found(report)).toEqual([]);
    expect(report.stripe_rows).toMatchObject({ rows: 10, merged: 4, excluded: { fee: 1, payout: 1 } });
    expect(report.tie_out).toEqual([
      {
        currency: "gbp",
        source: "balance",
        opening_minor: 10_000,
        gross_minor: 400,
        refunds_minor: -100,
        disputes_minor: -200,
        reversals_minor: 0,
        fees_minor: -46 - 1_500 - 10,
        payouts_minor: -54,
        other_minor: 0,
        net_minor: 400 - 100 - 200 - 1_556 - 54,
        closing_minor: 10_000 + 400 - 100 - 200 - 1_556 - 54,
        unexplained_minor: 0,
        rows: 6,
      },
    ]);
  });
});

describe("currencies", () => {
  it("have their own decimals, in either case, with and without thousands separators", async () => {
    const report = await run(
      {
        "x.csv": csv(
          PAYMENTS,
          "ch_1,2026-10-10 09:00:00,500.00,0.00,JPY,true,0,Paid,,",
          "ch_2,2026-10-10 09:00:00,1.234,0.000,kwd,true,0,Paid,,",
          'ch_3,2026-10-10 09:00:00,"1,234.50",0.00,usd,true,0,Paid,,',
          "ch_4,2026-10-10 09:00:00,500,0,jpy,TRUE,0,Paid,,",
        ),
      },
      [
        grant({ charge_id: "ch_1", amount_minor: 500, currency: "jpy" }),
        grant({ charge_id: "ch_2", amount_minor: 1234, currency: "kwd" }),
        grant({ charge_id: "ch_3", amount_minor: 123_450, currency: "usd" }),
        grant({ charge_id: "ch_4", amount_minor: 500, currency: "JPY" }),
      ],
    );
    expect(found(report)).toEqual([]);
    expect(report.tied_out).toBe(true);
  });

  it("may differ between what was paid and what was settled; one minor unit of rounding is only listed", async () => {
    const header =
      "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Converted Amount,Converted Currency,Fee,Status";
    const report = await run(
      {
        "x.csv": csv(
          header,
          "ch_same,2026-10-10 09:00:00,2.00,0.00,usd,true,1.58,gbp,0.23,Paid",
          "ch_settled,2026-10-10 09:00:00,2.00,0.00,usd,true,1.58,gbp,0.23,Paid",
          "ch_other,2026-10-10 09:00:00,2.00,0.00,usd,true,1.58,gbp,0.23,Paid",
        ),
      },
      [
        grant({ charge_id: "ch_same", amount_minor: 200, currency: "usd" }),
        grant({ charge_id: "ch_settled", amount_minor: 157, currency: "gbp" }),
        grant({ charge_id: "ch_other", amount_minor: 200, currency: "eur" }),
      ],
    );
    expect(found(report)).toEqual(["CURRENCY_MISMATCH/ch_other", "FX_ROUNDING/ch_settled"]);
    expect(report.differences.map((d) => d.blocks)).toEqual([true, false]);
    for (const line of report.bridge) expect(line.unexplained_minor).toBe(0);
  });
});

describe("the same payments in every form that Stripe and spreadsheets give them", () => {
  // Amounts without a pattern, in currencies of two, no and three decimals; a fee that Stripe gave back is negative.
  const payments = Array.from({ length: 300 }, (_, i) => {
    const [currency, decimals] =
      (
        [
          ["gbp", 2],
          ["jpy", 0],
          ["kwd", 3],
        ] as const
      )[i % 3] ?? (["gbp", 2] as const);
    const amount = (i * 7_919_317) % 2_500_000;
    return { id: `ch_${i}`, currency, decimals, amount, fee: i % 50 === 7 ? -31 : Math.floor(amount / 40) };
  });
  /** By hand, without any of the code that reads it. */
  const major = (minor: number, decimals: number, point = ".", thousands = ""): string => {
    const digits = String(Math.abs(minor)).padStart(decimals + 1, "0");
    const whole = digits.slice(0, digits.length - decimals).replace(/\B(?=(\d{3})+$)/g, thousands);
    return `${minor < 0 ? "-" : ""}${whole}${decimals > 0 ? point + digits.slice(-decimals) : ""}`;
  };
  type Payment = (typeof payments)[number];
  const form = (header: string, line: (p: Payment) => string, end = "\n", start = ""): string =>
    `${start}${[header, ...payments.map(line)].join(end)}${end}`;
  const day = "2026-10-10 09:00:00";
  const forms: Record<string, string> = {
    "default columns": form(
      "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Converted Amount,Converted Amount Refunded,Converted Currency,Decline Reason,Description,Fee,Refunded date (UTC),Statement Descriptor,Status,Seller Message,Taxes On Fee,Card ID,Customer ID,Customer Description,Customer Email,Invoice ID,Transfer",
      (p) =>
        `${p.id},${day},${major(p.amount, p.decimals)},0.00,${p.currency},true,${major(p.amount, p.decimals)},0.00,${p.currency},,"Top-up, 320,000 tokens",${major(p.fee, p.decimals)},,EXAMPLE,Paid,Payment complete.,0.00,card_1,cus_1,,a@example.com,,`,
    ),
    "all columns": form(
      "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Converted Amount,Converted Amount Refunded,Converted Currency,Decline Reason,Description,Fee,Is Link,Link Funding,Mode,PaymentIntent ID,Payment Source Type,Refunded date (UTC),Statement Descriptor,Status,Seller Message,Taxes On Fee,Card ID,Card Last4,Card Brand,Customer ID,Customer Email,Disputed Amount,Dispute Status,Invoice ID,Invoice Number,Checkout Session ID,Client Reference ID,Transfer,user_id (metadata)",
      (p) =>
        `${p.id},${day},${major(p.amount, p.decimals)},0.00,${p.currency},true,${major(p.amount, p.decimals)},0.00,${p.currency},,,${major(p.fee, p.decimals)},false,,Live,pi_${p.id},card,,,Paid,,0.00,card_1,4242,Visa,cus_1,,,,,,cs_live_${p.id},,,u1`,
    ),
    "saved again by a spreadsheet": form(
      "id;Created date (UTC);Amount;Amount Refunded;Currency;Captured;Fee;Status",
      (p) =>
        `${p.id};10.10.2026 09:00;${major(p.amount, p.decimals, ",", ".")};0;${p.currency.toUpperCase()};TRUE;${major(p.fee, p.decimals, ",", ".")};Paid`,
      "\r\n",
      "\ufeff",
    ),
    itemized: form(
      "balance_transaction_id,created,available_on,currency,gross,fee,net,reporting_category,description,charge_id",
      (p) =>
        `txn_${p.id},${day},2026-10-12,${p.currency},${major(p.amount, p.decimals)},${major(p.fee, p.decimals)},${major(p.amount - p.fee, p.decimals)},charge,x,${p.id}`,
    ),
    "balance history": form(
      HISTORY,
      (p) =>
        `txn_${p.id},charge,${p.id},"${major(p.amount, p.decimals, ".", ",")}",${major(p.fee, p.decimals)},"${major(p.amount - p.fee, p.decimals, ".", ",")}",${p.currency},2026-10-10 09:00,2026-10-12 00:00,x,,,,,,`,
    ),
  };
  const of = (currency: string): Payment[] => payments.filter((p) => p.currency === currency);
  const sum = (list: readonly Payment[], what: (p: Payment) => number): number =>
    list.reduce((total, p) => total + what(p), 0);

  it.each(Object.entries(forms))("%s: every amount right to the minor unit", async (name, text) => {
    const ledger = payments.map((p, i) =>
      grant({
        transaction_id: i + 1,
        lot_id: i + 1,
        charge_id: p.id,
        amount_minor: p.amount,
        currency: p.currency,
        pack_id: null,
      }),
    );
    const options = name.includes("spreadsheet") ? { decimal: "," as const } : {};
    const report = await run({ "x.csv": text }, ledger, options);
    expect(found(report)).toEqual([]);
    expect(report.stripe_rows).toMatchObject({ rows: 300, matched: 300 });
    const currencies = ["gbp", "jpy", "kwd"];
    expect(report.bridge).toMatchObject(
      currencies.map((currency) => ({
        currency,
        stripe_gross_minor: sum(of(currency), (p) => p.amount),
        ledger_minor: sum(of(currency), (p) => p.amount),
        unexplained_minor: 0,
      })),
    );
    expect(report.tie_out).toMatchObject(
      currencies.map((currency) => ({
        currency,
        gross_minor: sum(of(currency), (p) => p.amount),
        fees_minor: -sum(of(currency), (p) => p.fee),
        net_minor: sum(of(currency), (p) => p.amount - p.fee),
      })),
    );
    expect(report.tied_out).toBe(true);
  });
});

describe("what spreadsheets and people do to files", () => {
  it("is read through: semicolons, CRLF, a byte order mark, TRUE, decimal commas, sep=, quotes and reordered columns", async () => {
    const text =
      "\ufeffStatus;Currency;id;Captured;Amount Refunded;Amount;Created date (UTC);Description\r\n" +
      'Paid;GBP;ch_1;TRUE;0,00;"1.234,50";10.10.2026 09:00;"a ""quoted"";\r\nbroken line"\r\n' +
      "\r\n";
    for (const size of [1, 3, 5_000]) {
      const report = await run(
        { "x.csv": text },
        [grant({ charge_id: "ch_1", amount_minor: 123_450 })],
        {},
        size,
      );
      expect(found(report)).toEqual([]);
      expect(report.inputs[0]).toMatchObject({ delimiter: ";", rows: 1 });
    }
    const withHint = await run(
      {
        "x.csv": csv(
          "sep=;",
          PAYMENTS.replaceAll(",", ";"),
          "ch_1;2026-10-10 09:00:00;2.00;0.00;gbp;true;0;Paid;;",
        ),
      },
      [grant({ charge_id: "ch_1" })],
    );
    expect(withHint.tied_out).toBe(true);
    const withTabs = await run(
      {
        "x.csv": csv(
          PAYMENTS.replaceAll(",", "\t"),
          "ch_1\t2026-10-10 09:00:00\t2.00\t0.00\tgbp\ttrue\t0\tPaid\t\t",
        ),
      },
      [grant({ charge_id: "ch_1" })],
    );
    expect(withTabs.inputs[0]?.delimiter).toBe("tab");
    // Excel's "Unicode text" is UTF-16 with tabs.
    const wide = Buffer.from(
      csv(
        PAYMENTS.replaceAll(",", "\t"),
        "ch_1\t2026-10-10 09:00:00\t2.00\t0.00\tgbp\ttrue\t0\tPaid\tJörg 請求\t",
      ),
      "utf16le",
    );
    const marked = Buffer.concat([Buffer.from([0xff, 0xfe]), wide]);
    for (const bytes of [wide, marked, Buffer.from(marked).swap16()])
      for (const size of [1, 7, 5_000]) {
        const report = await run(
          { "x.txt": new Uint8Array(bytes) },
          [grant({ charge_id: "ch_1" })],
          {},
          size,
        );
        expect(report.tied_out).toBe(true);
        expect(report.inputs[0]).toMatchObject({ delimiter: "tab", rows: 1 });
      }
  });

  it("without the id column can only suggest, and says so", async () => {
    const header = "Created date (UTC);Amount;Amount Refunded;Currency;Captured;Status;Customer ID";
    const report = await run({ "x.csv": csv(header, "2026-10-10 09:00;2,00;0,00;gbp;TRUE;Paid;cus_1") }, [
      grant({ charge_id: "ch_1", customer_id: "cus_1" }),
    ]);
    expect(report.classes.map((c) => c.class)).toEqual(["PAID_NOT_GRANTED", "GRANTED_NOT_PAID"]);
    expect(report.differences[0]?.suggestion).not.toBeNull();
    expect(report.warnings.map((w) => w.code)).toContain("no_id");
    expect(report.inputs[0]?.missing_columns[0]?.column).toBe("id");
  });

  it.each([
    ["empty", "", "empty", null],
    ["only blank lines", "\n\r\n\n", "empty", null],
    ["XLSX", new Uint8Array([0x50, 0x4b, 3, 4, 20, 0, 0, 0, 8, 0]), "not_csv", null],
    ["gzip", new Uint8Array([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]), "not_csv", null],
    ["a web page", "<!DOCTYPE html><html></html>", "not_csv", 1],
    ["JSON", '{"object":"list"}', "not_csv", 1],
    [
      "binary in a row",
      `${PAYMENTS}\nch_1,2026-10-10 09:00:00,2.00\u0000,0.00,gbp,true,0,Paid,,\n`,
      "binary",
      2,
    ],
    ["cut in a row", `${PAYMENTS}\nch_1,2026-10-10 09:00:00,2.0`, "cut_off", 2],
    ["cut in a quote", `${PAYMENTS}\nch_1,2026-10-10 09:00:00,"2.0`, "cut_off", 2],
    [
      "a row too wide",
      csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,1,234.50,0.00,gbp,true,0,Paid,,"),
      "ragged_row",
      2,
    ],
    [
      "text after a quote",
      csv(PAYMENTS, '"ch_1"x,2026-10-10 09:00:00,1,0,gbp,true,0,Paid,,'),
      "stray_quote",
      2,
    ],
    ["encoded twice (BOM)", `\u00ef\u00bb\u00bf${PAYMENTS}\n`, "encoded_twice", 1],
    ["CSV inside CSV", `"${PAYMENTS}"\n"ch_1,x"\n`, "encoded_twice", 1],
    ["two columns of one name", csv(`${PAYMENTS},Amount`, ""), "duplicate_column", 1],
    [
      "an amount that is none",
      csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,two,0.00,gbp,true,0,Paid,,"),
      "bad_amount",
      2,
    ],
    ["half a yen", csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,2.50,0.00,jpy,true,0,Paid,,"), "bad_amount", 2],
    [
      "digits lost by a spreadsheet",
      csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,1.2E+05,0.00,gbp,true,0,Paid,,"),
      "bad_amount",
      2,
    ],
    [
      "more than can be counted",
      csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,99999999999999.99,0.00,gbp,true,0,Paid,,"),
      "bad_amount",
      2,
    ],
    [
      "a negative payment",
      csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,-2.00,0.00,gbp,true,0,Paid,,"),
      "negative_amount",
      2,
    ],
    [
      "a currency that is none",
      csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,2.00,0.00,pounds,true,0,Paid,,"),
      "bad_currency",
      2,
    ],
    [
      "a day that does not exist",
      csv(PAYMENTS, "ch_1,2026-02-30 09:00:00,2.00,0.00,gbp,true,0,Paid,,"),
      "bad_time",
      2,
    ],
    [
      "a year of another calendar",
      csv(PAYMENTS, "ch_1,2569-10-05 09:00:00,2.00,0.00,gbp,true,0,Paid,,"),
      "bad_time",
      2,
    ],
    [
      "a date in two orders",
      csv(PAYMENTS, "ch_1,03/04/2026 09:00,2.00,0.00,gbp,true,0,Paid,,"),
      "bad_time",
      2,
    ],
  ])("is refused with row and what to do: %s", async (_name, data, code, row) => {
    const problem = await refusal({ "x.csv": data });
    expect(problem).toMatchObject({ code, row });
    // A row is never named without its column.
    if (row === 2) expect(problem.column).toEqual(expect.any(String));
    expect(problem.message.length).toBeGreaterThan(20);
  });

  it("names the column too, and every bad file at once", async () => {
    expect(
      await refusal({ "x.csv": csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,2.00,x,gbp,true,0,Paid,,") }),
    ).toMatchObject({ row: 2, column: "Amount Refunded" });
    const result = await reconcile({
      stripeFiles: open({ "a.csv": "", "b.csv": csv(PAYMENTS, "ch_1,,1,0,gbp,true,0,Paid,,") }),
      ledger: records([]),
      period: { from: "2026-10-01", to: "2026-11-01" },
    });
    expect(!result.ok && result.error.problems.map((p) => [p.file, p.code])).toEqual([
      ["a.csv", "empty"],
      ["b.csv", "bad_time"],
    ]);
  });

  it("settles dates with slashes where the order is given", async () => {
    const text = csv(PAYMENTS, "ch_1,03/10/2026 09:00,2.00,0.00,gbp,true,0,Paid,,");
    expect((await run({ "x.csv": text }, [], { date_order: "dmy" })).inputs[0]?.window?.from).toBe(
      "2026-10-03T09:00:00Z",
    );
  });

  it("reads slashes after the year, as spreadsheets of East Asia write them", async () => {
    for (const time of ["2026/10/3 9:00", "2026/10/03 09:00:00", "2026/10/03"])
      expect(
        (await run({ "x.csv": csv(PAYMENTS, `ch_1,${time},2.00,0.00,gbp,true,0,Paid,,`) }, [])).inputs[0]
          ?.window?.from,
      ).toMatch(/^2026-10-03T0[09]:00:00Z$/);
  });

  it("reads every day and minute as spreadsheets of many countries write them, or asks for the order", () => {
    const two = (value: number): string => String(value).padStart(2, "0");
    fc.assert(
      fc.property(
        fc.integer({ min: Date.UTC(2015, 0, 1) / 60_000, max: Date.UTC(2040, 0, 1) / 60_000 }),
        (minute) => {
          const at = new Date(minute * 60_000);
          const [year, month, day] = [at.getUTCFullYear(), at.getUTCMonth() + 1, at.getUTCDate()];
          const [hour, minutes] = [at.getUTCHours(), two(at.getUTCMinutes())];
          const half = `${hour % 12 || 12}:${minutes}`;
          const noon = hour < 12 ? "a" : "p";
          for (const written of [
            `${year}-${two(month)}-${two(day)} ${hour}:${minutes}`,
            `${year}-${month}-${day} ${hour}:${minutes}:00`,
            `${year}/${month}/${day} ${two(hour)}:${minutes}`,
            `${year}. ${two(month)}. ${two(day)}. ${hour}:${minutes}`,
            `${year}.${two(month)}.${two(day)} ${two(hour)}:${minutes}:00`,
            `${day}.${month}.${year} ${hour}.${minutes}`,
          ])
            expect(parseTime(written), written).toBe(minute * 60);
          for (const [order, first, second] of [
            ["dmy", day, month],
            ["mdy", month, day],
          ] as const)
            for (const written of [
              `${two(first)}-${two(second)}-${year} ${two(hour)}:${minutes}`,
              `${first}-${second}-${year} ${hour}.${minutes}`,
              `${first}/${second}/${year} ${half}:00 ${noon.toUpperCase()}M`,
              `${first}/${second}/${year} ${half} ${noon}.\u00a0m.`,
            ]) {
              expect(parseTime(written, order), written).toBe(minute * 60);
              if (day < 13 && day !== month) expect(parseTime(written), written).toBeNaN();
            }
          expect(parseTime(`${two(day)}-${two(month)}-${two(year % 100)} ${hour}:${minutes}`)).toBeNaN();
        },
      ),
    );
  });

  it("warns of text that was encoded twice, with row and column, and goes on", async () => {
    const report = await run({
      "x.csv": csv(
        `${PAYMENTS},Description`,
        "ch_1,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Failed,,,fine",
        "ch_2,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Failed,,,CafÃ©",
      ),
    });
    expect(report.warnings).toContainEqual(
      expect.objectContaining({ code: "encoded_twice", row: 3, column: "Description" }),
    );
  });

  it("warns where the files do not reach the period", async () => {
    const one = (day: string): string => csv(PAYMENTS, `ch_1,${day} 09:00:00,2.00,0.00,gbp,true,0,Failed,,`);
    expect((await run({ "x.csv": one("2026-08-10") })).warnings.map((w) => w.code)).toEqual([
      "period_not_covered",
    ]);
    const result = await reconcile({
      stripeFiles: open({ "x.csv": one("2026-10-10") }),
      ledger: records([]),
      period: { from: "2026-10-01", to: "2026-11-01" },
    });
    expect(result.ok && result.value.warnings.map((w) => w.code)).toEqual(["starts_late", "ends_early"]);
    // Read from Stripe in the morning of the period's last day: complete until then, though nobody has paid since the tenth.
    for (const [through, codes] of [
      ["2026-10-31T00:09:00Z", []],
      ["2026-10-30T23:00:00Z", ["ends_early"]],
    ] as const) {
      const read = await reconcile({
        stripeFiles: open({ "x.csv": one("2026-10-10") }),
        ledger: records([]),
        period: { from: "2026-10-01", to: "2026-11-01" },
        options: { data_from: "2026-10-01T00:00:00Z", data_through: through },
      });
      expect(read.ok && read.value.warnings.map((w) => w.code)).toEqual(codes);
    }
  });
});

describe("rows that are not simple payments", () => {
  it("each find their place: blank ids, uncaptured, pending, duplicates, test mode, other accounts, odd statuses", async () => {
    const report = await run(
      {
        "x.csv": csv(
          ALL,
          ",2026-10-10 09:00:00,2.00,0.00,gbp,,0,requires_payment_method,cus_1,,pi_1,,,,,",
          ",2026-10-10 09:00:00,2.00,0.00,gbp,,0,succeeded,cus_1,,pi_paid,,,,,",
          "ch_3,2026-10-10 09:00:00,2.00,0.00,gbp,false,0,Uncaptured,cus_1,,,,,,,",
          "ch_4,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Pending,cus_1,,,,,,,",
          "ch_5,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,cus_1,,,,,,,",
          "ch_5,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,cus_1,,,,,,,",
          "ch_6,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,cus_1,,,cs_test_6,,,,",
          "ch_3MmlLrOtherAcct10snN0B15,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,cus_1,,,,,,,",
          "ch_3MmlLrLkdIwHu7ix0snN0B15,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,cus_1,,,,,,,",
          "ch_9,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Levitating,cus_1,,,,,,,",
          "ch_10,2026-09-10 09:00:00,2.00,0.00,gbp,true,0,Paid,cus_1,,,,,,,",
        ),
      },
      [
        grant({ payment_intent_id: "pi_paid" }),
        grant({ charge_id: "ch_5" }),
        grant({ charge_id: "ch_3MmlLrLkdIwHu7ix0snN0B15" }),
        grant({ charge_id: "ch_test", livemode: false }),
      ],
      { account_id: "acct_1M2JTkLkdIwHu7ix", livemode: true },
    );
    expect(found(report)).toEqual([
      "UNKNOWN_CATEGORY/ch_9",
      "TEST_MODE_LEAK/ch_6",
      expect.stringMatching(/^TEST_MODE_LEAK\/entry-/),
    ]);
    expect(report.stripe_rows).toEqual({
      rows: 11,
      matched: 3,
      in_differences: 2,
      merged: 0,
      duplicates: 1,
      excluded: { not_paid: 1, pending: 1, not_captured: 1, outside_period: 1, other_account: 1 },
    });
  });

  it("of test mode are the ordinary thing where there is nothing else", async () => {
    const text = csv(
      PAYMENTS,
      "ch_1,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,,",
      "ch_2,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,,",
    );
    const records = [1, 2].map((n) =>
      grant({ charge_id: `ch_${n}`, checkout_session_id: `cs_test_${n}`, livemode: false }),
    );
    expect(found(await run({ "x.csv": text }, records))).toEqual([]);
    const [first, second] = records as [LedgerRecord, LedgerRecord];
    expect(found(await run({ "x.csv": text }, [{ ...first, livemode: true }, second]))).toEqual([
      "PAID_NOT_GRANTED/ch_2",
      expect.stringMatching(/^TEST_MODE_LEAK/),
    ]);
  });

  it("whose arithmetic is off block the tie-out, and a balance row of no known category is asked about", async () => {
    const report = await run({
      "x.csv": csv(
        HISTORY,
        "txn_1,payout,po_1,-2.00,0.00,-1.99,gbp,2026-10-10 09:00,2026-10-12 00:00,x,,,,,,",
        "txn_2,moon_tax,x_1,-2.00,0.00,-2.00,gbp,2026-10-10 09:00,2026-10-12 00:00,x,,,,,,",
      ),
    });
    expect(found(report)).toEqual(["FEE_VARIANCE/txn_1", "UNKNOWN_CATEGORY/txn_2"]);
    expect(report.tie_out[0]?.unexplained_minor).toBe(1);
    expect(report.tied_out).toBe(false);
  });

  it("that claim one id with two amounts are asked about, and one of them is used", async () => {
    const report = await run(
      {
        "x.csv": csv(
          PAYMENTS,
          "ch_1,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,,",
          "ch_1,2026-10-10 09:00:00,3.00,0.00,gbp,true,0,Paid,,",
        ),
      },
      [grant({ charge_id: "ch_1" })],
    );
    expect(found(report)).toEqual(["ORPHAN/ch_1-300-gbp"]);
  });

  it("of two files that claim one id with two amounts are asked about too; an older list of the same payment is not", async () => {
    const row = (amount: string, refunded: string, currency: string, status: string): string =>
      `ch_1,2026-10-10 09:00:00,${amount},${refunded},${currency},true,0,${status},,`;
    for (const [first, second, difference] of [
      [row("2.00", "0.00", "gbp", "Paid"), row("3.00", "0.00", "gbp", "Paid"), "ORPHAN/ch_1-300-gbp"],
      [row("2.00", "0.00", "gbp", "Paid"), row("2.00", "0.00", "usd", "Paid"), "ORPHAN/ch_1-200-usd"],
      [row("2.00", "0.00", "gbp", "Paid"), row("2.00", "2.00", "gbp", "Refunded"), "REFUND_NOT_REVERSED"],
      [row("3.00", "0.00", "gbp", "Uncaptured"), row("2.00", "0.00", "gbp", "Paid"), null],
      [row("2.00", "0.00", "gbp", "Paid"), row("2.00", "0.00", "GBP", "succeeded"), null],
    ] as const)
      for (const texts of [
        [first, second],
        [second, first],
      ]) {
        const files = Object.fromEntries(texts.map((text, n) => [`${n}.csv`, csv(PAYMENTS, text)]));
        const report = await run(files, [grant({ charge_id: "ch_1" })]);
        const differences = found(report).map((one) => (difference?.includes("/") ? one : one.split("/")[0]));
        expect(differences, `${first} and ${second}`).toEqual(difference === null ? [] : [difference]);
      }
    const moved = (net: string): string =>
      csv(
        HISTORY,
        `txn_1,charge,ch_1,${net},0.00,${net},gbp,2026-10-10 09:00,2026-10-12 00:00,x,,,,,,`,
        `txn_2,payout,po_1,-1.00,0.00,-1.00,gbp,2026-10-11 09:00,2026-10-12 00:00,${net},,,,,,`,
      );
    const report = await run({ "a.csv": moved("2.00"), "b.csv": moved("3.00") }, [
      grant({ charge_id: "ch_1" }),
    ]);
    expect(report.tied_out).toBe(false);
    expect(found(report).filter((one) => one.startsWith("ORPHAN"))).toHaveLength(1);
  });

  it("that are refunds without their charge are matched by refund id, or asked about", async () => {
    const text = csv(
      HISTORY,
      "txn_1,refund,re_1,-1.00,0.00,-1.00,gbp,2026-10-10 09:00,2026-10-12 00:00,x,,,,,,",
      "txn_2,refund,re_2,-1.00,0.00,-1.00,gbp,2026-10-10 09:00,2026-10-12 00:00,x,,,,,,",
    );
    const report = await run({ "x.csv": text }, [
      grant({ lot_id: 9, created_at: "2026-09-01T00:00:00Z" }),
      grant({ record_type: "refund", lot_id: 9, tokens: -500, refund_id: "re_1", amount_minor: 100 }),
    ]);
    expect(found(report)).toEqual(["REFUND_NOT_REVERSED/re_2"]);
    expect(report.ledger_rows).toMatchObject({ matched: 1, excluded: { outside_period: 1 } });
  });

  it("that pay for two lots at once match both by their exact sum", async () => {
    const report = await run(
      { "x.csv": csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,5.00,0.00,gbp,true,0,Paid,,") },
      [
        grant({ charge_id: "ch_1", amount_minor: 200 }),
        grant({ charge_id: "ch_1", amount_minor: 300 }),
        grant({ charge_id: "ch_1", amount_minor: 300 }),
      ],
    );
    expect(found(report)).toEqual([expect.stringMatching(/^DUPLICATE_GRANT\/entry-/)]);
    expect(report.matched_by_pass.find((pass) => pass.pass === 6)?.count).toBe(2);
    expect(report.bridge[0]?.unexplained_minor).toBe(0);
  });

  it("that are subscription invoices match by invoice; a period granted twice is an overlap", async () => {
    const line = { grant_kind: "subscription" as const, invoice_id: "in_1", invoice_line_id: "il_1" };
    const report = await run(
      {
        "x.csv": csv(
          PAYMENTS,
          "ch_1,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,,in_1",
          "ch_2,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,,in_2",
        ),
      },
      [grant(line), grant(line)],
    );
    expect(found(report)).toEqual([
      "SUB_PERIOD_GAP/ch_2",
      expect.stringMatching(/^SUB_PERIOD_OVERLAP\/entry-/),
    ]);
  });
});

describe("a grant without a payment", () => {
  const late = grant({ charge_id: "ch_x", created_at: "2026-10-10T15:00:00Z" });
  const judge = async (text: string): Promise<string[]> => {
    const result = await reconcile({
      stripeFiles: open({ "x.csv": text }),
      ledger: records([late]),
      period: { from: "2026-10-10", to: "2026-10-11" },
    });
    if (!result.ok) throw new Error(JSON.stringify(result.error));
    expect(result.value.tied_out).toBe(result.value.classes[0]?.class === "TIMING");
    return result.value.classes.map((c) => c.class);
  };
  it("is one for a Dashboard export, and only young for a report that lags half a day", async () => {
    expect(await judge(csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Failed,,"))).toEqual([
      "GRANTED_NOT_PAID",
    ]);
    expect(
      await judge(
        csv(
          "balance_transaction_id,created,available_on,currency,gross,fee,net,reporting_category,description",
          "txn_1,2026-10-10 16:00:00,2026-10-12,gbp,-2.00,0.00,-2.00,payout,x",
        ),
      ),
    ).toEqual(["TIMING"]);
  });
});

describe("a run", () => {
  it("reports progress and can be cancelled, and then says nothing", async () => {
    const text = csv(
      PAYMENTS,
      ...Array.from({ length: 200 }, (_, i) => `ch_${i},2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,,`),
    );
    const signal = { aborted: false };
    let seen = 0;
    const result = await reconcile({
      stripeFiles: open({ "x.csv": text }),
      ledger: records([]),
      period: { from: "2026-10-01", to: "2026-11-01" },
      signal,
      onProgress: (progress) => {
        seen++;
        expect(progress.bytes_total).toBe(text.length);
        if (progress.stripe_rows > 50) signal.aborted = true;
      },
    });
    expect(seen).toBeGreaterThan(5);
    expect(result).toEqual({ ok: false, error: { code: "cancelled", problems: [] } });
  });

  it("refuses a ledger record that is not one, naming it", async () => {
    for (const [bad, column] of [
      [{ ...grant({}), tokens: 1.5 }, "tokens"],
      [{ ...grant({}), record_type: "gift" }, "record_type"],
      [{ ...grant({}), created_at: "yesterday" }, "created_at"],
      [{ ...grant({}), amount_minor: 2 ** 53 }, "amount_minor"],
      [{ ...grant({}), currency: "pounds" }, "currency"],
    ] as const) {
      const result = await reconcile({
        stripeFiles: open({ "x.csv": csv(PAYMENTS, "ch_1,2026-10-10 09:00:00,2.00,0.00,gbp,true,0,Paid,,") }),
        ledger: records([bad as LedgerRecord]),
        period: { from: "2026-10-01", to: "2026-11-01" },
      });
      expect(!result.ok && result.error.problems[0]).toMatchObject({
        code: "bad_ledger_record",
        file: "ledger",
        row: 1,
        column,
      });
    }
  });
});
