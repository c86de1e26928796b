// @vitest-environment jsdom
/** The workbook read back from its bytes with nothing of what wrote it; the page as a browser parses it. */
import { inflateRawSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { ReconciliationRun } from "../../../../shared/contract/index.ts";
import type {
  Correction,
  Difference,
  DifferenceClass,
} from "../../../../shared/governance/reconciliation/index.ts";
import { reportPage } from "./exports-page.ts";
import { type Exported, reportSheets } from "./exports-report.ts";
import { type WorkbookCell, writeWorkbook } from "./exports-workbook.ts";
import type { ReportHead } from "./messages.ts";

const hostile = [
  '=HYPERLINK("http://evil.example","open")',
  "+1+1",
  "-2+3",
  "@SUM(A1)",
  "\t=1",
  "</t></is></c><script>alert(1)</script>",
  '"><img src=x onerror=alert(1)>',
  "a\u0000b\u0007c",
  "_x000D_",
  "lone \ud800 surrogate",
  "שלום \u202eevil",
  "naïve 漢字 👩‍💻",
  "line\nbreak & <tag>",
];

function difference(n: number, words: string, changes: Partial<Difference> = {}): Difference {
  const correction: Correction = {
    action: "grant",
    books: true,
    words: `Grant it. ${words}`,
    tokens: 500,
    user_id: words,
    customer_id: null,
    lot_id: null,
    pack_id: null,
    grant_kind: "purchase",
    charge_id: `ch_${n}`,
    payment_intent_id: null,
    checkout_session_id: null,
    invoice_id: null,
    dispute_id: null,
    amount_minor: 1234,
    currency: "usd",
    refunded_minor: null,
    disputed_minor: null,
  };
  return {
    difference_id: `PAID_NOT_GRANTED/ch_${n}`,
    class: "PAID_NOT_GRANTED",
    blocks: true,
    amount_minor: 1234,
    currency: "usd",
    tokens: -500,
    occurred_at: "2026-10-05T12:00:00Z",
    age_days: 3,
    user_id: words,
    stripe: null,
    ledger: null,
    trail: [],
    explanation: words,
    correction,
    suggestion: null,
    ...changes,
  };
}

const tieOut = (currency: string, gross: number, unexplained: number | null = 0) => ({
  currency,
  source: "balance" as const,
  opening_minor: null,
  gross_minor: gross,
  refunds_minor: 0,
  disputes_minor: 0,
  reversals_minor: 0,
  fees_minor: -3,
  payouts_minor: 0,
  other_minor: 0,
  net_minor: gross - 3,
  closing_minor: null,
  unexplained_minor: unexplained,
  rows: 1,
});

function exported(differences: () => Iterable<Difference>, count: number, words = "plain"): Exported {
  const rows = { rows: 1, matched: 0, in_differences: 1, merged: 0, duplicates: 0, excluded: { fee: 2 } };
  const report: ReportHead = {
    report_version: 1,
    period: { from: "2026-10-01T00:00:00Z", to: "2026-11-01T00:00:00Z" },
    tied_out: false,
    inputs: [
      {
        name: words,
        kind: "unified_payments",
        sha256: "a".repeat(64),
        bytes: 10,
        rows: 1,
        window: { from: "2026-10-05T12:00:00Z", to: "2026-10-05T12:00:00Z" },
        time_zone: "UTC",
        delimiter: ",",
        missing_columns: [{ column: words, use: words, where: words }],
        unknown_columns: [],
      },
    ],
    ledger_input: { sha256: null, records: 0, window: null },
    watermark: "2026-11-02T00:00:00Z",
    stripe_rows: rows,
    ledger_rows: rows,
    matched_by_pass: [],
    tie_out: [tieOut("bhd", 1234), tieOut("jpy", 500), tieOut("usd", 123456789, -10)],
    bridge: [
      {
        currency: "usd",
        stripe_gross_minor: 1234,
        stripe_count: 1,
        lines: [{ class: "PAID_NOT_GRANTED" as DifferenceClass, count: 1, amount_minor: 1234 }],
        besides_minor: 0,
        ledger_minor: 0,
        ledger_count: 0,
        matched_minor: 0,
        matched_count: 0,
        unexplained_minor: 0,
      },
    ],
    roll_forward: [],
    deferred_revenue: [],
    classes: [
      {
        class: "PAID_NOT_GRANTED",
        count,
        blocks: true,
        oldest_at: "2026-10-05T12:00:00Z",
        at_stake: [{ currency: "usd", amount_minor: 1234 }],
        tokens_at_stake: 500,
      },
    ],
    warnings: [{ code: "w", file: words, row: 2, column: null, message: words }],
    differences_total: count,
  };
  const run: ReconciliationRun = {
    run_id: "run-1",
    started_at: "2026-11-02T00:00:00Z",
    finished_at: "2026-11-02T00:01:00Z",
    status: "finished",
    phase: "finished",
    stripe_rows: 1,
    ledger_rows: 1,
    progress: 1,
    file_names: [words],
    from: "2026-10-01",
    to: "2026-10-31",
    differences: count,
    tied_out: false,
    failure: null,
  };
  return { run, report, differences, closed: null };
}

/** Entries of a zip by its central directory (PKWARE APPNOTE 6.3, 4.3.12). */
function unzip(bytes: Buffer): Map<string, string> {
  const entries = new Map<string, string>();
  let at = bytes.readUInt32LE(bytes.lastIndexOf(Buffer.from("PK\u0005\u0006", "latin1")) + 16);
  for (; bytes.readUInt32LE(at) === 0x02014b50; ) {
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((offset) =>
      bytes.readUInt16LE(at + offset),
    );
    const name = bytes.toString("utf8", at + 46, at + 46 + (nameLength ?? 0));
    const local = bytes.readUInt32LE(at + 42);
    const start = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28);
    const packed = bytes.subarray(start, start + bytes.readUInt32LE(at + 20));
    entries.set(name, (bytes.readUInt16LE(at + 10) === 0 ? packed : inflateRawSync(packed)).toString("utf8"));
    at += 46 + (nameLength ?? 0) + (extraLength ?? 0) + (commentLength ?? 0);
  }
  return entries;
}

const parseXml = (text: string): XMLDocument => {
  const document = new DOMParser().parseFromString(text, "application/xml");
  expect(document.querySelector("parsererror")?.textContent ?? null).toBeNull();
  return document;
};

interface Book {
  readonly names: readonly string[];
  readonly cell: (sheet: string, place: string) => { text: string; type: string; format: string } | null;
  readonly xml: readonly string[];
}
async function read(bytes: Buffer): Promise<Book> {
  const entries = unzip(bytes);
  const file = (name: string): string => entries.get(name) ?? "";
  const sheets = [...parseXml(file("xl/workbook.xml")).querySelectorAll("sheet")];
  const relations = new Map(
    [...parseXml(file("xl/_rels/workbook.xml.rels")).querySelectorAll("Relationship")].map((one) => [
      one.getAttribute("Id"),
      `xl/${one.getAttribute("Target")}`,
    ]),
  );
  const styles = parseXml(file("xl/styles.xml"));
  const codes = new Map(
    [...styles.querySelectorAll("numFmt")].map((one) => [
      one.getAttribute("numFmtId"),
      one.getAttribute("formatCode"),
    ]),
  );
  const formats = [...styles.querySelectorAll("cellXfs xf")].map((xf) => {
    const id = xf.getAttribute("numFmtId");
    return `${codes.get(id) ?? id}${xf.getAttribute("quotePrefix") === "1" ? " quoted" : ""}`;
  });
  const byName = new Map(
    sheets.map((one) => [
      one.getAttribute("name") ?? "",
      parseXml(file(relations.get(one.getAttribute("r:id")) ?? "")),
    ]),
  );
  return {
    names: [...byName.keys()],
    cell(sheet, place) {
      const found = byName.get(sheet)?.querySelector(`c[r="${place}"]`);
      return found
        ? {
            text: found.textContent ?? "",
            type: found.getAttribute("t") ?? "n",
            format: formats[Number(found.getAttribute("s"))] ?? "",
          }
        : null;
    },
    xml: [...entries.values()],
  };
}

const column = (book: Book, name: string): string => {
  for (let i = 0; i < 26; i++) {
    const letter = String.fromCharCode(65 + i);
    if (book.cell("Differences", `${letter}1`)?.text === name) return letter;
  }
  throw new Error(`There is no column ${name}`);
};

describe("the workbook", () => {
  test("has the six sheets, amounts as numbers with the digits of their currency, and times as times", async () => {
    const book = await read(await writeWorkbook(reportSheets(exported(() => [difference(1, "plain")], 1))));
    expect(book.names).toEqual(["Summary", "Tie-out", "Bridge", "Roll-forward", "Differences", "Inputs"]);
    expect(["B3", "C3", "D3"].map((place) => book.cell("Tie-out", place))).toEqual([
      { text: "1.234", type: "n", format: "#,##0.000;[Red]\\-#,##0.000" },
      { text: "500", type: "n", format: "#,##0;[Red]\\-#,##0" },
      { text: "1234567.89", type: "n", format: "#,##0.00;[Red]\\-#,##0.00" },
    ]);
    // Unexplained; what is not known is said, not shown as nothing.
    expect(book.cell("Tie-out", "D12")?.text).toBe("-0.10");
    expect(book.cell("Tie-out", "B2")?.text).toBe("not known");
    expect(book.cell("Differences", `${column(book, "Amount")}2`)?.text).toBe("12.34");
    expect(book.cell("Differences", `${column(book, "Tokens")}2`)).toMatchObject({ text: "-500", type: "n" });
    const time = book.cell("Differences", `${column(book, "Occurred (UTC)")}2`);
    expect(time?.format).toContain("yyyy");
    expect(Math.round((Number(time?.text) - 25_569) * 86_400_000)).toBe(Date.parse("2026-10-05T12:00:00Z"));
    expect(book.cell("Inputs", "C2")?.text).toBe("a".repeat(64));
  });

  test("runs no formula, whatever a text begins with, and keeps every text as it was", async () => {
    const book = await read(
      await writeWorkbook(
        reportSheets(
          exported(() => hostile.map((words, n) => difference(n, words)), hostile.length, hostile[0]),
        ),
      ),
    );
    for (const xml of book.xml) {
      const document = parseXml(xml);
      expect(document.querySelectorAll("f")).toHaveLength(0);
      expect(document.querySelectorAll("script, img")).toHaveLength(0);
    }
    hostile.forEach((words, n) => {
      const cell = book.cell("Differences", `${column(book, "What is different")}${n + 2}`);
      const kept = words.replaceAll("\u0000", "\ufffd").replaceAll("\u0007", "\ufffd").toWellFormed();
      expect(cell?.text.replaceAll("_x005F_", "_")).toBe(kept);
      expect(cell).toMatchObject({ type: "inlineStr", format: expect.stringContaining("quoted") });
    });
  });

  test("gives the thread to others while it writes, and asks for rows only when it needs them", async () => {
    let turns = 0;
    let asked = 0;
    let isDone = false;
    const count = (): void => {
      turns++;
      if (!isDone) setImmediate(count);
    };
    setImmediate(count);
    function* many(): Generator<Difference> {
      for (let n = 0; n < 20_000; n++) {
        asked = n + 1;
        yield difference(n, "plain");
      }
    }
    const bytes = await writeWorkbook(reportSheets(exported(many, 20_000)));
    isDone = true;
    expect(asked).toBe(20_000);
    expect(turns).toBeGreaterThan(30);
    expect(bytes.length).toBeLessThan(3_000_000);
  });

  test("goes on in another sheet where one cannot hold the rows", async () => {
    const bytes = await writeWorkbook(
      [
        {
          name: "Long",
          widths: [10],
          head: ["n"],
          *rows(): Generator<readonly WorkbookCell[]> {
            for (let n = 1; n <= 1_001; n++) yield [n];
          },
        },
      ],
      1_000,
    );
    const entries = unzip(bytes);
    expect(entries.get("xl/workbook.xml")).toContain('name="Long 2"');
    const second = parseXml(entries.get("xl/worksheets/sheet2.xml") ?? "");
    expect([...second.querySelectorAll("row")].map((row) => row.textContent)).toEqual(["n", "1000", "1001"]);
  });
});

describe("the page", () => {
  const parse = (page: string): Document => new DOMParser().parseFromString(page, "text/html");

  test("shows every text as text: no element, attribute or direction comes from a name", () => {
    const document = parse(
      reportPage(exported(() => hostile.map((words, n) => difference(n, words)), hostile.length, hostile[5])),
    );
    expect(document.querySelectorAll("script, img, a, iframe, object, link, form")).toHaveLength(0);
    const allowed = new Set(["class", "lang", "charset", "name", "content", "http-equiv"]);
    for (const element of document.querySelectorAll("*"))
      for (const name of element.getAttributeNames()) expect(allowed, name).toContain(name);
    const text = document.body.textContent ?? "";
    expect(text).toContain("</t></is></c><script>alert(1)</script>");
    for (const sign of ["\u0000", "\u202e"]) expect(text).not.toContain(sign);
    expect(document.querySelector("meta[http-equiv]")?.getAttribute("content")).toContain(
      "default-src 'none'",
    );
  });

  test("writes the statements in each currency's own digits, and what does not add up", () => {
    const document = parse(reportPage(exported(() => [difference(1, "plain")], 1)));
    const cells = [...document.querySelectorAll("section:first-of-type tbody tr")].map((row) =>
      [...row.children].map((cell) => cell.textContent),
    );
    expect(cells).toContainEqual(["Payments, gross", "1.234 BHD", "500 JPY", "1,234,567.89 USD"]);
    expect(cells).toContainEqual(["Unexplained", "0.000 BHD", "0 JPY", "-0.10 USD"]);
    expect(document.body.textContent).toContain("Not tied out: 1 difference");
    expect(document.title).toBe("Reconciliation 2026-10-01 – 2026-10-31");
  });

  test("lists a thousand differences and says how many more there are", () => {
    function* many(): Generator<Difference> {
      for (let n = 0; n < 100_000; n++) yield difference(n, "plain");
    }
    const document = parse(reportPage(exported(many, 100_000)));
    expect(document.querySelectorAll(".differences tbody tr")).toHaveLength(1_000);
    expect(document.body.textContent).toContain("99,000 more are in the workbook");
  });

  test("carries the seal of a closed period, and room for two signatures", () => {
    const seal = "5ea1".repeat(16);
    const closed = {
      seal,
      closed_at: "2026-11-03T10:00:00Z",
      closed_by: "Fay",
      sign_off: "All in order",
    };
    const document = parse(reportPage({ ...exported(() => [], 0), closed }));
    expect(document.querySelector(".seal")?.textContent).toBe(seal);
    expect(document.querySelector(".signatures")?.textContent).toMatch(
      /Fay.*All in order.*Prepared by.*Approved by/s,
    );
    expect(parse(reportPage(exported(() => [], 0))).querySelector(".seal")).toBeNull();
  });
});
