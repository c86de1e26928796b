/** What real exports have that clean ones have not, each with what the report must say of it. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { describe, expect, it } from "vitest";
import { CATEGORIES, DISPUTE_STATUS, PAYMENT_STATUS } from "./categories.ts";
import {
  inspectExports,
  type LedgerRecord,
  type PackPrice,
  reconcile,
  type ReconcileOptions,
  type Report,
} from "./index.ts";

const period = { from: "2026-10-01", to: "2026-11-01" };
const file = (text: string, name = "export.csv") => ({
  name,
  size_bytes: null,
  chunks: (async function* () {
    yield new TextEncoder().encode(text);
  })(),
});
async function run(
  texts: readonly string[],
  ledger: readonly LedgerRecord[],
  options: ReconcileOptions = {},
): Promise<Report> {
  const result = await reconcile({
    stripeFiles: texts.map((text, i) => file(text, `${i}.csv`)),
    ledger: (async function* () {
      yield ledger;
    })(),
    period,
    options: { data_through: "2026-11-30", ...options },
  });
  if (!result.ok) throw new Error(JSON.stringify(result.error));
  return result.value;
}
const ids = (report: Report): string[] => report.differences.map((d) => d.difference_id);

const grant = (changes: Partial<LedgerRecord> = {}): LedgerRecord => ({
  transaction_id: 1,
  record_type: "grant",
  user_id: "u1",
  tokens: 1000,
  created_at: "2026-10-05T10:01:00Z",
  lot_id: 1,
  grant_kind: "purchase",
  amount_minor: 1000,
  currency: "usd",
  charge_id: "ch_A",
  tokens_remaining: 1000,
  ...changes,
});
const back = (id: number, tokens: number, changes: Partial<LedgerRecord> = {}): LedgerRecord => ({
  transaction_id: id,
  record_type: "refund",
  user_id: "u1",
  tokens: -tokens,
  created_at: "2026-10-20T10:00:00Z",
  lot_id: 1,
  charge_id: "ch_A",
  ...changes,
});
const PACKS: readonly PackPrice[] = [
  { pack_id: "pack", tokens: 1000, price_minor: 1000, currency: "usd", valid_from: "2020-01-01" },
];

const PAYMENTS = "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Fee,Status";
const CONVERTED =
  "id,Created date (UTC),Amount,Amount Refunded,Currency,Captured,Converted Amount,Converted Amount Refunded,Converted Currency,Fee,Status";
const HISTORY = "id,Type,Source,Amount,Fee,Net,Currency,Created (UTC),Available On (UTC),Description";
const ITEMIZED =
  "balance_transaction_id,created_utc,currency,gross,fee,net,reporting_category,source_id,charge_id,payment_intent_id";

describe("the payments list", () => {
  it("has the tax on Stripe's fee in a column of its own", async () => {
    const report = await run(
      [
        `${CONVERTED},Taxes On Fee\nch_A,2026-10-05 10:00:00,10.00,0.00,usd,true,356.53,0.00,thb,23.60,Paid,1.65\n`,
      ],
      [grant()],
    );
    expect(report.tie_out).toMatchObject([{ currency: "thb", fees_minor: -2525, net_minor: 33128 }]);
  });

  it("shows what a refund in another currency came to at the rate of its own day", async () => {
    const report = await run(
      [`${CONVERTED}\nch_A,2026-10-05 10:00:00,10.00,5.00,usd,true,15.00,7.80,aud,0.60,Partially refunded\n`],
      [grant(), back(2, 500)],
    );
    expect(report.tie_out).toMatchObject([{ refunds_minor: -780, net_minor: 1500 - 780 - 60 }]);
    expect(report.tied_out).toBe(true);
  });

  it("says in Mode, or in livemode, which rows are of test mode: they are left out, and nothing is granted", async () => {
    for (const [column, test, live] of [
      ["Mode", "Test", "Live"],
      ["Mode", "test mode", "live mode"],
      ["livemode", "false", "true"],
    ] as const) {
      const report = await run(
        [
          `${PAYMENTS},${column}\nch_A,2026-10-05 10:00:00,10.00,0.00,usd,true,0.59,Paid,${live}\nch_T,2026-10-06 10:00:00,10.00,0.00,usd,true,0.59,Paid,${test}\n`,
        ],
        [grant()],
        { packs: PACKS },
      );
      expect(ids(report)).toEqual(["TEST_MODE_LEAK/ch_T"]);
      expect(report.tie_out).toMatchObject([{ gross_minor: 1000 }]);
    }
  });

  it("reports disputes: what is disputed or lost has left the balance, what was won is back", async () => {
    const netOf = async (
      status: string,
      record: LedgerRecord["record_type"] | null,
      more = "",
    ): Promise<unknown> => {
      const ledger = record === null ? [grant()] : [grant(), { ...back(2, 1000), record_type: record }];
      const report = await run(
        [
          `${PAYMENTS},Disputed Amount,Dispute Status${more && ",Disputed date (UTC)"}\nch_A,2026-10-05 10:00:00,10.00,0.00,usd,true,0.59,Paid,10.00,${status}${more}\n`,
        ],
        ledger,
      );
      const [line] = report.tie_out;
      return [line?.disputes_minor, line?.reversals_minor, line?.net_minor, report.tied_out];
    };
    expect(await netOf("lost", "dispute_clawback")).toEqual([-1000, 0, -59, true]);
    expect(await netOf("appeal_under_review", "dispute_clawback")).toEqual([-1000, 0, -59, true]);
    expect(await netOf("needs_response", "dispute_hold")).toEqual([-1000, 0, -59, true]);
    expect(await netOf("won", "dispute_release")).toEqual([-1000, 1000, 941, true]);
    expect(await netOf("warning_needs_response", null)).toEqual([0, 0, 941, true]);
    // Opened after the period: no matter of it.
    expect(await netOf("lost", null, ",2026-11-03 10:00:00")).toEqual([0, 0, 941, true]);
  });

  it("shows what was never captured as refunded, or names what was captured", async () => {
    const uncaptured = await run(
      [`${PAYMENTS}\nch_A,2026-10-05 10:00:00,20.00,10.00,usd,true,0.59,Paid\n`],
      [grant()],
    );
    expect([uncaptured.tied_out, uncaptured.tie_out[0]?.net_minor]).toEqual([true, 941]);
    const named = await run(
      [`${PAYMENTS},Amount Captured\nch_A,2026-10-05 10:00:00,20.00,15.00,usd,true,0.59,Paid,10.00\n`],
      [grant(), back(2, 500)],
    );
    expect([named.tied_out, named.tie_out[0]?.gross_minor, named.tie_out[0]?.net_minor]).toEqual([
      true,
      1000,
      441,
    ]);
  });

  it("has refunds of a later period on payments of this one: they are judged there", async () => {
    const text = `${PAYMENTS},Refunded date (UTC)\nch_A,2026-10-05 10:00:00,10.00,10.00,usd,true,0.59,Refunded,2026-11-04 10:00:00\n`;
    const open = await run([text], [grant()]);
    expect([open.tied_out, open.tie_out[0]?.refunds_minor]).toEqual([true, 0]);
    const taken = await run([text], [grant(), back(2, 1000, { created_at: "2026-11-04T10:01:00Z" })]);
    expect(taken.tied_out).toBe(true);
  });

  it("has a column for each spelling of a metadata key, filled in different rows", async () => {
    const report = await run(
      [
        `${PAYMENTS},order_id (metadata),orderId (metadata)\nch_A,2026-10-05 10:00:00,10.00,0.00,usd,true,0.59,Paid,,O-2\nch_B,2026-10-06 10:00:00,10.00,0.00,usd,true,0.59,Paid,O-1,\n`,
      ],
      [
        grant({ charge_id: null, order_id: "O-2" }),
        grant({ transaction_id: 2, lot_id: 2, charge_id: null, order_id: "O-1" }),
      ],
    );
    expect(report.tied_out).toBe(true);
    expect(report.matched_by_pass.find(({ pass }) => pass === 4)?.count).toBe(2);
  });
});

describe("spreadsheets", () => {
  const row = (id: string): string => `${id},2026-10-05 10:00:00,10.00,0.00,usd,true,0.59,Paid`;

  it("end lines with CR alone", async () => {
    expect((await run([[PAYMENTS, row("ch_A")].join("\r") + "\r"], [grant()])).tied_out).toBe(true);
    expect((await run([["sep=,", PAYMENTS, row("ch_A")].join("\r")], [grant()])).tied_out).toBe(true);
    // A quoted cell keeps its line break, of either kind.
    const quoted = [`${PAYMENTS},Description`, `${row("ch_A")},"two\rlines"`].join("\r\n");
    expect((await run([quoted], [grant()])).stripe_rows.rows).toBe(1);
  });

  it("write amounts with the currency's sign, with groups, and with brackets for minus", async () => {
    for (const amount of ["$10.00", "US$10.00", "10.00 USD", '"10,00"', "$10"]) {
      const report = await run([`${PAYMENTS}\n${row("ch_A").replace("10.00", amount)}\n`], [grant()]);
      expect(report.tied_out, amount).toBe(true);
    }
    const cells = (id: string, type: string, amount: string, fee: string, net: string): string =>
      `${id},${type},ch_A,"${amount}",${fee},"${net}",usd,2026-10-05 10:00,2026-10-07 00:00,x`;
    const balance = [
      HISTORY,
      cells("txn_1", "charge", "$1,234.56", "$1.00", "$1,233.56"),
      cells("txn_2", "refund", "($1,234.56)", "0.00", "($1,234.56)"),
    ];
    const report = await run(
      [balance.join("\n")],
      [grant({ amount_minor: 123_456 }), back(2, 1000, { amount_minor: 123_456, currency: "usd" })],
    );
    expect(report.tie_out).toMatchObject([
      { gross_minor: 123_456, refunds_minor: -123_456, fees_minor: -100 },
    ]);
    await expect(run([`${PAYMENTS}\n${row("ch_A").replace("10.00", "€10.00")}\n`], [])).rejects.toThrow(
      "another currency",
    );
  });

  it("put marks around ids that nobody sees, or that keep them texts", async () => {
    for (const id of ["'ch_A", '"=""ch_A"""', "\u200bch_A", "ch_A\u00a0", "\u2060ch_A\u200b"])
      expect((await run([`${PAYMENTS}\n${row(id)}\n`], [grant()])).tied_out, JSON.stringify(id)).toBe(true);
  });

  it("shorten ids that look like numbers: they link nothing, and are named", async () => {
    const header = `${PAYMENTS},order_id (metadata)`;
    const orders = ["1.23457E+15", "1,23457E+15"];
    const rows = orders.map((order, n) => `${row(`ch_${n}`)},"${order}"`);
    const report = await run(
      [[header, ...rows, ""].join("\n")],
      [grant({ charge_id: null, order_id: "1.23457E+15" })],
    );
    expect(report.matched_by_pass.filter(({ count }) => count > 0)).toEqual([]);
    expect(report.warnings).toContainEqual(expect.objectContaining({ code: "shortened_id", row: 2 }));
  });

  it("are put together: the header comes again, and rows of both files count once", async () => {
    for (const again of [PAYMENTS, `\ufeff${PAYMENTS}`, PAYMENTS.toUpperCase(), `${PAYMENTS},,`]) {
      const report = await run([[PAYMENTS, row("ch_A"), again, row("ch_A"), ""].join("\n")], [grant()]);
      expect(report.tied_out, again).toBe(true);
      expect(report.warnings).toContainEqual(
        expect.objectContaining({
          code: "repeated_header",
          row: 3,
          message: expect.stringMatching(/count once/),
        }),
      );
    }
    await expect(
      run([[PAYMENTS, row("ch_A"), `${PAYMENTS},Mode`, `${row("ch_B")},live`].join("\n")], []),
    ).rejects.toThrow("another_header");
  });

  it("end lines in several ways within one file, and leave empty columns and lines behind", async () => {
    const rows = [row("ch_A"), row("ch_B"), row("ch_C"), row("ch_D")];
    const ledger = ["A", "B", "C", "D"].map((name, n) =>
      grant({ transaction_id: n + 1, lot_id: n + 1, charge_id: `ch_${name}` }),
    );
    const ends = ["\n", "\r\n", "\r"];
    for (const first of ends)
      for (const second of ends)
        for (const third of ends) {
          const text =
            PAYMENTS + first + rows.slice(0, 2).join(second) + third + rows.slice(2).join(first) + "\n";
          expect((await run([text], ledger)).tied_out, JSON.stringify([first, second, third])).toBe(true);
        }
    const wide = [`${PAYMENTS},,,`, `${row("ch_A")},,,`, "   ", `"ch_B"${row("ch_B").slice(4)}, ,`].join(
      "\r",
    );
    expect((await run([wide], ledger.slice(0, 2))).stripe_rows.matched).toBe(2);
  });

  it("with times of another zone, or a line above the header, are refused with what to do", async () => {
    const other = PAYMENTS.replace("(UTC)", "(America/New_York)");
    await expect(run([`${other}\n${row("ch_A")}\n`], [])).rejects.toThrow(
      "The times are of America/New_York",
    );
    await expect(run([`Payments of October,,,\n${PAYMENTS}\n${row("ch_A")}\n`], [])).rejects.toThrow(
      "remove what is above",
    );
  });

  it("add lines of totals, and empty ones: left out, with a warning that names the row", async () => {
    for (const total of [
      "Total,,10.00,0.00,,,0.59,",
      ",,10.00,0.00,,,0.59,",
      "Summe:,,10.00,,usd,,,",
      "SUM,,,,,,,",
    ]) {
      const report = await run([`${PAYMENTS}\n${row("ch_A")}\n,,,,,,,\n${total}\n`], [grant()]);
      expect(report.tied_out).toBe(true);
      expect(report.warnings.filter(({ code }) => code === "total_line")).toMatchObject([{ row: 4 }]);
    }
    // A row of a payment without its time is no total.
    await expect(run([`${PAYMENTS}\nch_A,,10.00,0.00,usd,true,0.59,Paid\n`], [])).rejects.toThrow("bad_time");
  });
});

describe("movements of the balance", () => {
  it("take a bank debit out again that failed after it was booked", async () => {
    const itemized = `${ITEMIZED}\ntxn_1,2026-10-05 10:00:00,usd,10.00,0.08,9.92,charge,ch_A,ch_A,pi_A\ntxn_2,2026-10-09 10:00:00,usd,-10.00,-0.08,-9.92,charge_failure,ch_A,ch_A,pi_A\n`;
    const history = `${HISTORY}\ntxn_1,payment,ch_A,10.00,0.08,9.92,usd,2026-10-05 10:00,2026-10-07 00:00,x\ntxn_2,payment_failure_refund,ch_A,-10.00,-0.08,-9.92,usd,2026-10-09 10:00,2026-10-09 00:00,x\n`;
    for (const text of [itemized, history]) {
      const granted = await run([text], [grant()]);
      expect(granted.differences).toMatchObject([
        { class: "GRANTED_NOT_PAID", tokens: 1000, correction: { action: "reverse", tokens: -1000 } },
      ]);
      expect((await run([text], [])).tied_out).toBe(true);
      expect((await run([text], [grant(), back(2, 1000)])).tied_out).toBe(true);
    }
    // The payment is in an older file: the failure alone tells.
    const alone = `${ITEMIZED}\ntxn_2,2026-10-09 10:00:00,usd,-10.00,-0.08,-9.92,charge_failure,ch_A,ch_A,pi_A\n`;
    expect(ids(await run([alone], [grant({ created_at: "2026-09-20T10:00:00Z" })]))).toEqual([
      "GRANTED_NOT_PAID/entry-1",
    ]);
  });

  it("bring back a refund that failed, as refund_failure or, on older accounts, as adjustment", async () => {
    const restored = back(3, -1000, { record_type: "restoration" });
    for (const [type, source, description] of [
      ["refund_failure", "re_A", "x"],
      ["adjustment", "re_A", "x"],
      ["adjustment", "ch_A", "REFUND FAILURE (Credit back for ch_A)"],
    ]) {
      const text = `${HISTORY}\ntxn_1,charge,ch_A,10.00,0.59,9.41,usd,2026-10-05 10:00,2026-10-07 00:00,x\ntxn_2,refund,${source},-10.00,0.00,-10.00,usd,2026-10-10 10:00,2026-10-10 00:00,x\ntxn_3,${type},${source},10.00,0.00,10.00,usd,2026-10-15 10:00,2026-10-15 00:00,${description}\n`;
      const taken = back(2, 1000, { refund_id: "re_A", amount_minor: 1000, currency: "usd" });
      const right = await run([text], [grant(), taken, restored]);
      expect([right.tied_out, right.tie_out[0]?.reversals_minor]).toEqual([true, 1000]);
      // Not given back: too much is taken.
      expect((await run([text], [grant(), taken])).classes.map((c) => c.class)).toEqual([
        "REFUND_OVER_REVERSED",
      ]);
    }
  });

  it("name the charge as source of its refunds and disputes, in older files: each row is its own", async () => {
    for (const [a, b] of [
      ["2.50", "2.50"],
      ["2.00", "3.00"],
    ]) {
      const text = `${HISTORY}\ntxn_1,charge,ch_A,10.00,0.59,9.41,usd,2026-10-05 10:00,2026-10-07 00:00,x\ntxn_2,refund,ch_A,-${a},0.00,-${a},usd,2026-10-10 10:00,2026-10-10 00:00,x\ntxn_3,refund,ch_A,-${b},0.00,-${b},usd,2026-10-11 10:00,2026-10-11 00:00,x\n`;
      expect((await run([text], [grant(), back(2, 500)])).tied_out).toBe(true);
    }
    const dispute = `${HISTORY}\ntxn_1,charge,ch_A,10.00,0.59,9.41,usd,2026-10-05 10:00,2026-10-07 00:00,x\ntxn_2,adjustment,ch_A,-10.00,15.00,-25.00,usd,2026-10-10 10:00,2026-10-10 00:00,Chargeback withdrawal for ch_A\n`;
    expect(ids(await run([dispute], [grant()]))).toEqual(["DISPUTE_NOT_HELD/ch_A"]);
  });

  it("have several disputes of one payment: what was lost stays taken, what was won is free", async () => {
    const ledger = [
      grant(),
      grant({ transaction_id: 2, record_type: "dispute_hold", tokens: -1000, amount_minor: 300 }),
      grant({ transaction_id: 3, record_type: "dispute_clawback", tokens: -300, amount_minor: 300 }),
    ];
    const rows = [
      "txn_1,2026-10-05 10:00:00,usd,10.00,0.59,9.41,charge,ch_A,ch_A,pi_A",
      "txn_2,2026-10-06 10:00:00,usd,-3.00,15.00,-18.00,dispute,dp_a,ch_A,pi_A",
      "txn_3,2026-10-06 11:00:00,usd,-3.00,15.00,-18.00,dispute,dp_b,ch_A,pi_A",
      "txn_4,2026-10-20 10:00:00,usd,3.00,0.00,3.00,dispute_reversal,dp_b,ch_A,pi_A",
    ];
    for (const order of [rows, rows.toReversed()])
      expect((await run([[ITEMIZED, ...order, ""].join("\n")], ledger)).differences).toEqual([]);
  });

  it("have the part that was never captured beside the payment", async () => {
    const text = `${ITEMIZED}\ntxn_1,2026-10-05 10:00:00,usd,20.00,0.59,19.41,charge,ch_A,ch_A,pi_A\ntxn_2,2026-10-05 10:00:00,usd,-10.00,0.00,-10.00,partial_capture_reversal,re_A,ch_A,pi_A\n`;
    const report = await run([text], [grant()]);
    expect([report.tied_out, report.tie_out[0]?.gross_minor, report.tie_out[0]?.net_minor]).toEqual([
      true,
      1000,
      941,
    ]);
  });

  it("are of a kind that is known, whatever Stripe's SDK or its documentation names", () => {
    const folder = createRequire(import.meta.url)
      .resolve("stripe")
      .replace(/(?:cjs|esm)\/[^/]*$/, "");
    const named = (path: string, type: RegExp): string[] => {
      const found = type.exec(readFileSync(`${folder}esm/resources/${path}`, "utf8"))?.[1] ?? "";
      return [...found.matchAll(/'([a-z_]+)'/g)].map(([, name]) => name as string);
    };
    const types = named("BalanceTransactions.d.ts", /type Type = ([^;]+);/);
    const statuses = named("Disputes.d.ts", /type Status = ([^;]+);/);
    const categories = named("Reporting/ReportRuns.d.ts", /type ReportingCategory = ([^;]+);/);
    expect(types.length).toBeGreaterThan(40);
    expect(statuses.length).toBeGreaterThan(6);
    expect(categories.length).toBeGreaterThan(25);
    const documented =
      "charge_failure dispute dispute_reversal fee network_cost other_adjustment partial_capture_reversal platform_earning platform_earning_refund refund_failure risk_reserved_funds tax unreconciled_customer_funds connect_reserved_funds";
    expect(
      [...types, ...categories, ...documented.split(" ")].filter((name) => !Object.hasOwn(CATEGORIES, name)),
    ).toEqual([]);
    expect(statuses.filter((name) => !Object.hasOwn(DISPUTE_STATUS, name))).toEqual([]);
    const paid = [
      ...named("Charges.d.ts", /type Status = ([^;]+);/),
      ...named("PaymentIntents.d.ts", /type Status = ([^;]+);/),
    ];
    expect(paid.length).toBeGreaterThan(9);
    expect(paid.filter((name) => !Object.hasOwn(PAYMENT_STATUS, name))).toEqual([]);
  });
});

describe("sales of other things", () => {
  const rows = (marks: string, ...values: readonly string[]): string =>
    [
      `${PAYMENTS},Description${marks}`,
      ...values.map((value, i) => `ch_${i},2026-10-05 1${i}:00:00,10.00,0.00,usd,true,0.59,Paid,${value}`),
    ].join("\n") + "\n";

  it("are distinguished by the marks that sales of tokens carry, and are no differences", async () => {
    const report = await run(
      [rows(",pack_id (metadata),sku (metadata)", "x,,mug", "x,pack,", "x,,shirt")],
      [],
      { packs: PACKS },
    );
    expect(report.differences).toMatchObject([
      {
        difference_id: "PAID_NOT_GRANTED/ch_1",
        tokens: -1000,
        correction: { action: "grant", tokens: 1000 },
      },
    ]);
    expect(report.differences[0]?.explanation).toContain("its metadata names the pack pack");
    expect(report.stripe_rows.excluded).toMatchObject({ other_sale: 2 });
  });

  it("are known as sales of tokens where the metadata names how many", async () => {
    const report = await run([rows(",tokens (metadata)", "x,2500")], [], { packs: PACKS });
    expect(report.differences).toMatchObject([{ tokens: -2500, correction: { tokens: 2500 } }]);
  });

  it("are known as sales of tokens where granted payments sold the same", async () => {
    const report = await run(
      [rows("", "Token pack", "Token pack", "Mug")],
      [grant({ charge_id: "ch_0", pack_id: "pack" })],
      { packs: PACKS },
    );
    expect(report.differences).toMatchObject([
      { difference_id: "PAID_NOT_GRANTED/ch_1", correction: { action: "grant", tokens: 1000 } },
      { difference_id: "PAID_NOT_GRANTED/ch_2", correction: { action: "investigate", tokens: null } },
    ]);
    expect(report.differences[0]?.explanation).toContain('it sold "Token pack"');
  });

  it("are never taken for one of tokens by their price alone", async () => {
    const report = await run([rows("", "x")], [], { packs: PACKS });
    expect(report.differences).toMatchObject([
      { tokens: 0, correction: { action: "investigate", books: false, tokens: null, pack_id: null } },
    ]);
    expect(report.differences[0]?.explanation).toContain("which alone does not make it a sale of tokens");
  });
});

describe("invoices", () => {
  const INVOICED = `${PAYMENTS},Invoice ID`;
  const line = (id: number, minor: number, changes: Partial<LedgerRecord> = {}): LedgerRecord =>
    grant({
      transaction_id: id,
      lot_id: id,
      grant_kind: "subscription",
      amount_minor: minor,
      charge_id: null,
      invoice_id: "in_1",
      invoice_line_id: `il_${id}`,
      ...changes,
    });

  it("are paid by several payments: together they are what was booked", async () => {
    const two = `${INVOICED}\nch_A,2026-10-05 10:00:00,10.00,0.00,usd,true,0.50,Paid,in_1\nch_B,2026-10-05 10:05:00,10.00,0.00,usd,true,0.50,Paid,in_1\n`;
    expect((await run([two], [line(1, 2000)])).tied_out).toBe(true);
    const halfBack = two.replace(
      "10.00,0.00,usd,true,0.50,Paid,in_1\nch_B",
      "10.00,10.00,usd,true,0.50,Paid,in_1\nch_B",
    );
    expect(ids(await run([halfBack], [line(1, 2000)]))).toEqual(["REFUND_NOT_REVERSED/ch_A"]);
    expect((await run([halfBack], [line(1, 2000), back(2, 500, { charge_id: null })])).tied_out).toBe(true);
    // Really charged twice: each is what was booked.
    expect(ids(await run([two], [line(1, 1000)]))).toEqual(["DUPLICATE_CHARGE/ch_B"]);
  });

  it("have lines of their own: none is another's period, and money that is off is one difference", async () => {
    const paid = (minor: string): string =>
      `${INVOICED}\nch_A,2026-10-05 10:00:00,${minor},0.00,usd,true,0.50,Paid,in_1\n`;
    expect((await run([paid("30.00")], [line(1, 2000), line(2, 1000)])).tied_out).toBe(true);
    expect(ids(await run([paid("27.00")], [line(1, 2000), line(2, 1000)]))).toEqual(["AMOUNT_MISMATCH/ch_A"]);
    expect((await run([paid("27.00")], [line(1, 1800), line(2, 900)])).tied_out).toBe(true);
  });

  it("take tax and other things with the tokens: the bridge has them as a line", async () => {
    const paid = `${INVOICED}\nch_A,2026-10-05 10:00:00,11.90,0.00,usd,true,0.50,Paid,in_1\n`;
    const report = await run([paid], [line(1, 1190, { booked_minor: 1000 })]);
    expect([report.tied_out, report.bridge[0]?.besides_minor, report.bridge[0]?.ledger_minor]).toEqual([
      true,
      190,
      1000,
    ]);
  });

  it("cost nothing, or were paid outside of Stripe: no payment is missing", async () => {
    const other = `${INVOICED}\nch_X,2026-10-05 10:00:00,10.00,0.00,usd,true,0.50,Failed,\n`;
    const report = await run(
      [other],
      [
        line(1, 0),
        line(2, 0, { invoice_id: "in_2", booked_minor: 2000, covered_by: "paid outside of Stripe" }),
      ],
    );
    expect(report.tied_out).toBe(true);
    expect(report.ledger_rows.excluded).toMatchObject({ nothing_to_pay: 2 });
  });
});

describe("a header that is none of those that are read", () => {
  const said = async (header: string): Promise<string> => {
    const looked = await inspectExports([file(`${header}\n`)]);
    return looked.ok ? "read" : (looked.error.problems[0]?.message ?? "");
  };
  it("is named as the list of Stripe's that it is", async () => {
    expect(await said("id,Charge ID,Created (UTC),Amount,Currency,Status,Reason,Failure Reason")).toContain(
      '"Refunds"',
    );
    expect(
      await said(
        "id,Amount,Created (UTC),Currency,Arrival Date (UTC),Source Type,Status,Type,Method,Description",
      ),
    ).toContain('"Payouts"');
    expect(
      await said(
        "Type,ID,Created,Description,Amount,Currency,Converted Amount,Fees,Net,Converted Currency,Details",
      ),
    ).toContain('"Transactions of a payout"');
    // It has all columns that tell a balance, but not when the money moved.
    expect(
      await said(
        "payout_id,effective_at_utc,effective_at,balance_transaction_id,currency,gross,fee,net,reporting_category,description,payout_expected_arrival_date,payout_status,payout_type",
      ),
    ).toContain('"Payouts, itemized"');
  });
  it("is compared with the form that has most of its columns, and what it lacks is named", async () => {
    expect(
      await said(
        "id,Created date (UTC),Amount,Converted Amount,Description,Fee,Is Link,PaymentIntent ID,Statement Descriptor",
      ),
    ).toMatch(/nearest to "Payments \(Dashboard\)", but lacks: Amount Refunded, currency, Status/);
    expect(await said("milk,eggs")).not.toContain("nearest");
  });
});

describe("a month that begins", () => {
  const november = { from: "2026-11-01", to: "2026-12-01" };
  const other = "ch_B,2026-11-03 12:00:00,10.00,0.00,usd,true,0.59,Failed";
  async function judge(
    texts: readonly string[],
    changes: Partial<LedgerRecord>,
    options: ReconcileOptions = {},
  ): Promise<unknown[]> {
    const result = await reconcile({
      stripeFiles: texts.map((text, i) => file(text, `${i}.csv`)),
      ledger: (async function* () {
        yield [grant(changes)];
      })(),
      period: november,
      options: { data_through: "2026-12-05", ...options },
    });
    if (!result.ok) throw new Error(JSON.stringify(result.error));
    const { tied_out, differences } = result.value;
    return [tied_out, ...differences.map((d) => `${d.class}: ${d.correction.action}`)];
  }

  it("just after a payment of the last minute of the month before asks for nothing back", async () => {
    const midnight = { created_at: "2026-11-01T00:00:10Z" };
    const files = [`${PAYMENTS}\n${other}\n`];
    expect(await judge(files, midnight)).toEqual([true, "TIMING: carry_forward"]);
    // Files that begin earlier would have it.
    const earlier = "ch_C,2026-10-31 20:00:00,10.00,0.00,usd,true,0.59,Failed";
    const missing = [false, "GRANTED_NOT_PAID: reverse"];
    expect(await judge([`${PAYMENTS}\n${other}\n${earlier}\n`], midnight)).toEqual(missing);
    expect(await judge(files, midnight, { data_from: "2026-10-29" })).toEqual(missing);
    expect(await judge(files, { created_at: "2026-11-01T01:30:00Z" })).toEqual(missing);
  });

  it("has grants of bank debits that were made before, and took days", async () => {
    const debit = { created_at: "2026-11-04T08:00:00Z" };
    const files = [`${PAYMENTS}\n${other}\n`];
    const before = "2026-10-29T10:00:00Z";
    expect(await judge(files, { ...debit, charged_at: before })).toEqual([true, "TIMING: carry_forward"]);
    expect(await judge(files, { ...debit, charged_at: "2026-11-01T00:10:00Z" })).toEqual([
      false,
      "GRANTED_NOT_PAID: reverse",
    ]);
    const paid = "ch_A,2026-10-29 10:00:00,10.00,0.00,usd,true,0.08,Paid";
    expect(await judge([`${PAYMENTS}\n${other}\n${paid}\n`], { ...debit, charged_at: before })).toEqual([
      true,
    ]);
  });
});

describe("files of other languages", () => {
  it("say yes and no in them: test mode is left out, and what was never captured is not paid", async () => {
    const itemized = (yes: string, no: string): string =>
      `${ITEMIZED},livemode\ntxn_1,2026-10-05 10:00:00,usd,10.00,0.59,9.41,charge,ch_A,ch_A,pi_A,${yes}\ntxn_2,2026-10-05 10:00:00,usd,10.00,0.59,9.41,charge,ch_T,ch_T,pi_T,${no}\n`;
    for (const [yes, no] of [
      ["TRUE", "FALSE"],
      ["WAHR", "FALSCH"],
      ["VRAI", "FAUX"],
      ["VERDADERO", "FALSO"],
      ["WAAR", "ONWAAR"],
      ["ИСТИНА", "ЛОЖЬ"],
    ] as const) {
      const report = await run([itemized(yes, no)], [grant()]);
      expect([yes, report.tie_out[0]?.gross_minor, ids(report)]).toEqual([
        yes,
        1000,
        ["TEST_MODE_LEAK/ch_T"],
      ]);
      const captured = `${PAYMENTS}\nch_A,2026-10-05 10:00:00,10.00,0.00,usd,${yes},0.59,Paid\nch_B,2026-10-05 10:00:00,10.00,10.00,usd,${no},0.00,Refunded\n`;
      expect([no, (await run([captured], [grant()])).tie_out]).toMatchObject([no, [{ gross_minor: 1000 }]]);
    }
  });

  it("sum up in their own words", async () => {
    for (const word of [
      "Totale",
      "Insgesamt",
      "Zwischensumme",
      "Suma",
      "Totaal",
      "Итого",
      "合计",
      "Sub-total",
    ])
      expect(
        (
          await run(
            [
              `${PAYMENTS}\nch_A,2026-10-05 10:00:00,10.00,0.00,usd,true,0.59,Paid\n${word},,10.00,0.00,usd,,0.59,\n`,
            ],
            [grant()],
          )
        ).tied_out,
      ).toBe(true);
  });
});

describe("a report whose header does not name UTC", () => {
  const local = ITEMIZED.replace("created_utc", "created");
  const grants = Array.from({ length: 4 }, (_, n) =>
    grant({
      transaction_id: n + 1,
      lot_id: n + 1,
      charge_id: `ch_${n}`,
      created_at: `2026-10-0${n + 2}T10:00:30Z`,
    }),
  );
  const told = async (header: string, hour: (n: number) => string): Promise<unknown> => {
    const rows = grants.map(
      (_, n) => `txn_${n},2026-10-0${n + 2} ${hour(n)}:00,usd,10.00,0.59,9.41,charge,ch_${n},ch_${n},pi_${n}`,
    );
    const { warnings } = await run([`${header}\n${rows.join("\n")}\n`], grants, {
      data_from: "2026-10-01",
    });
    return warnings.map((one) => [one.code, /\d[\d.]* hours \w+/.exec(one.message)?.[0]]);
  };

  it("is asked for again where the grants that followed its payments show another time zone", async () => {
    expect(await told(local, () => "12:00")).toEqual([["other_time_zone", "2 hours after"]]);
    expect(await told(local, () => "06:00")).toEqual([["other_time_zone", "4 hours before"]]);
    expect(await told(local, () => "15:30")).toEqual([["other_time_zone", "5.5 hours after"]]);
    // Summer time ends in between.
    expect(await told(local, (n) => (n < 2 ? "12:00" : "11:00"))).toMatchObject([
      ["other_time_zone", expect.stringContaining("hours after")],
    ]);
  });

  it("is taken as it is where they fit, where a webhook came late, or where the header names it", async () => {
    expect(await told(local, () => "10:00")).toEqual([]);
    expect(await told(local, (n) => (n === 0 ? "04:17" : "09:58"))).toEqual([]);
    expect(await told(ITEMIZED, () => "10:00")).toEqual([]);
  });
});
