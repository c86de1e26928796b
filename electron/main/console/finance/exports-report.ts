/** A report as the sheets of a workbook. */
import {
  CLASSES,
  DEFERRED_LINES,
  type Difference,
  ROLL_FORWARD_LINES,
  type StatementLine,
  TIE_OUT_LINES,
} from "../../../../shared/governance/reconciliation/index.ts";
import type { ReconciliationRun } from "../../../../shared/contract/index.ts";
import type { Sheet, WorkbookCell } from "./exports-workbook.ts";
import type { ReportHead } from "./messages.ts";

/** What an export is made from. Differences are asked for again each time: they are too many to hold. */
export interface Exported {
  readonly run: ReconciliationRun;
  readonly report: ReportHead;
  readonly differences: () => Iterable<Difference>;
  /** The closed period that this run belongs to; null where it is not closed or that could not be asked. */
  readonly closed: ClosedPeriod | null;
}

export interface ClosedPeriod {
  readonly seal: string;
  readonly closed_at: string;
  readonly closed_by: string;
  readonly sign_off: string | null;
}

const money = (minor: number | null, currency: string | null): WorkbookCell =>
  minor === null ? null : currency === null ? (minor === 0 ? null : minor) : { minor, currency };
const code = (currency: string | null): string => currency?.toUpperCase() ?? "";
const yes = (is: boolean): string => (is ? "yes" : "no");
const at = (time: string | null): WorkbookCell => (time === null ? null : { at: time });

export function reportSheets(exported: Exported): Sheet[] {
  const { report } = exported;
  return [
    { name: "Summary", widths: [34, 26, 20, 14, 14, 22], head: null, rows: () => summaryRows(exported) },
    statementSheet("Tie-out", report.tie_out, TIE_OUT_LINES, (each) => each.currency, [
      ["Source", (each) => each.source],
      ["Rows", (each) => each.rows],
    ]),
    {
      name: "Bridge",
      widths: [12, 34, 12, 18],
      head: ["Currency", "Line", "Count", "Amount"],
      rows: () => bridgeRows(report),
    },
    {
      name: "Roll-forward",
      widths: [16, 12, 16, 26, 18, 18],
      head: ["Kind", "Currency", "Statement", "Line", "Tokens", "Amount"],
      rows: () => rollForwardRows(report),
    },
    {
      name: "Differences",
      widths: differenceColumns.map(([, width]) => width),
      head: differenceColumns.map(([name]) => name),
      *rows() {
        for (const difference of exported.differences())
          yield differenceColumns.map(([, , read]) => read(difference));
      },
    },
    {
      name: "Inputs",
      widths: [34, 30, 66, 14, 12, 20, 20, 14, 60],
      head: [
        "Name",
        "Kind",
        "SHA-256",
        "Bytes",
        "Rows",
        "From (UTC)",
        "To (UTC)",
        "Time zone",
        "Missing columns",
      ],
      rows: () => inputRows(report),
    },
  ];
}

function* summaryRows({ run, report, closed }: Exported): Generator<readonly WorkbookCell[]> {
  const { stripe_rows: stripe, ledger_rows: ledger, stripe_api: api } = report;
  yield [{ bold: "Reconciliation of Stripe with the token ledger" }];
  yield ["Period from (UTC, included)", at(report.period.from)];
  yield ["Period to (UTC, excluded)", at(report.period.to)];
  yield ["Result", report.tied_out ? "tied out" : "not tied out"];
  yield ["Run", run.run_id];
  yield ["Made (UTC)", at(run.finished_at)];
  yield ["Stripe is known through (UTC)", at(report.watermark)];
  if (api) {
    yield ["Stripe account", `${api.account_id}, ${api.mode} mode`];
    yield ["Stripe API version", api.api_version];
  }
  yield ["Seal of the closed period", closed?.seal ?? "not closed"];
  if (closed) {
    yield ["Closed (UTC)", at(closed.closed_at), closed.closed_by];
    if (closed.sign_off) yield ["Sign-off", closed.sign_off];
  }
  yield [];
  yield ["", "Rows", "Matched", "In differences", "Told twice", "Set aside"].map((bold) => ({ bold }));
  for (const [name, rows] of [
    ["Stripe", stripe],
    ["Ledger", ledger],
  ] as const)
    yield [
      name,
      rows.rows,
      rows.matched,
      rows.in_differences,
      rows.merged + rows.duplicates,
      Object.values(rows.excluded).reduce((sum, count) => sum + count, 0),
    ];
  yield [];
  yield ["Class", "Means", "Count", "Blocks", "Tokens at stake", "At stake"].map((bold) => ({ bold }));
  for (const one of report.classes) {
    const { name, means } = CLASSES[one.class];
    const [first, ...more] = one.at_stake;
    yield [
      name,
      means,
      one.count,
      yes(one.blocks),
      one.tokens_at_stake,
      first ? money(first.amount_minor, first.currency) : null,
      code(first?.currency ?? null),
    ];
    for (const stake of more)
      yield [null, null, null, null, null, money(stake.amount_minor, stake.currency), code(stake.currency)];
  }
  yield [];
  yield ["Deferred revenue of open lots", "Lots", "Tokens left", "Amount"].map((bold) => ({ bold }));
  for (const line of report.deferred_revenue)
    yield [code(line.currency), line.lots, line.tokens_remaining, money(line.deferred_minor, line.currency)];
  if (report.warnings.length === 0) return;
  yield [];
  yield [{ bold: "To know" }];
  for (const { file, row, message } of report.warnings)
    yield [[file, row === null ? "" : `row ${row}`].filter(Boolean).join(", "), message];
}

/** A statement with a column for each of its currencies. */
function statementSheet<T>(
  name: string,
  columns: readonly T[],
  lines: readonly StatementLine<T>[],
  currencyOf: (of: T) => string,
  more: readonly (readonly [string, (of: T) => WorkbookCell])[],
): Sheet {
  return {
    name,
    widths: [26, ...columns.map(() => 20)],
    head: ["", ...columns.map((one) => code(currencyOf(one)))],
    *rows() {
      for (const line of lines)
        yield [line.name, ...columns.map((one) => money(line.value(one), currencyOf(one)) ?? "not known")];
      for (const [label, read] of more) yield [label, ...columns.map(read)];
    },
  };
}

function* bridgeRows({ bridge }: ReportHead): Generator<readonly WorkbookCell[]> {
  for (const b of bridge) {
    const line = (name: string, count: number | null, minor: number): WorkbookCell[] => [
      code(b.currency),
      name,
      count,
      money(minor, b.currency),
    ];
    yield line("Stripe, gross", b.stripe_count, b.stripe_gross_minor);
    if (b.besides_minor) yield line("less: tax and other goods", null, -b.besides_minor);
    for (const one of b.lines) yield line(`less: ${CLASSES[one.class].name}`, one.count, -one.amount_minor);
    yield line("Ledger", b.ledger_count, b.ledger_minor);
    yield line("Unexplained", null, b.unexplained_minor);
    yield line("Matched", b.matched_count, b.matched_minor);
  }
}

function* rollForwardRows({ roll_forward: lines }: ReportHead): Generator<readonly WorkbookCell[]> {
  for (const one of lines) {
    for (const line of ROLL_FORWARD_LINES)
      yield [one.kind, code(one.currency), "Tokens", line.name, line.value(one), null];
    if (one.currency === null) continue;
    for (const line of DEFERRED_LINES)
      yield [
        one.kind,
        code(one.currency),
        "Deferred revenue",
        line.name,
        null,
        money(line.value(one), one.currency),
      ];
  }
}

const differenceColumns: readonly (readonly [string, number, (d: Difference) => WorkbookCell])[] = [
  ["Class", 24, (d) => CLASSES[d.class].name],
  ["Code", 24, (d) => d.class],
  ["Blocks", 8, (d) => yes(d.blocks)],
  ["Occurred (UTC)", 20, (d) => at(d.occurred_at)],
  ["Age, days", 10, (d) => d.age_days],
  ["Currency", 10, (d) => code(d.currency)],
  ["Amount", 14, (d) => money(d.amount_minor, d.currency)],
  ["Tokens", 14, (d) => d.tokens],
  ["User", 26, (d) => d.user_id],
  ["Charge", 30, (d) => d.correction.charge_id],
  ["Payment intent", 30, (d) => d.correction.payment_intent_id],
  ["Paid", 14, (d) => money(d.stripe?.amount_minor ?? null, d.stripe?.currency ?? null)],
  ["Paid in", 10, (d) => code(d.stripe?.currency ?? null)],
  ["In the ledger", 14, (d) => money(d.ledger?.amount_minor ?? null, d.ledger?.currency ?? null)],
  ["In the ledger in", 14, (d) => code(d.ledger?.currency ?? null)],
  ["Ledger entry", 14, (d) => (d.ledger ? String(d.ledger.transaction_id) : null)],
  ["What is different", 70, (d) => d.explanation],
  ["Proposed", 60, (d) => d.correction.words],
  ["Suggestion", 40, (d) => d.suggestion?.words ?? null],
  ["Stripe rows", 40, (d) => d.stripe?.rows.map(({ file, row }) => `${file}:${row}`).join(" ") ?? null],
  ["Difference", 44, (d) => d.difference_id],
];

function* inputRows(report: ReportHead): Generator<readonly WorkbookCell[]> {
  for (const input of report.inputs)
    yield [
      input.name,
      input.kind,
      input.sha256,
      input.bytes,
      input.rows,
      at(input.window?.from ?? null),
      at(input.window?.to ?? null),
      input.time_zone,
      input.missing_columns.map(({ column, where }) => `${column} (${where})`).join("; "),
    ];
  const { ledger_input: ledger } = report;
  yield [
    "Ledger",
    "the project's records",
    ledger.sha256,
    null,
    ledger.records,
    at(ledger.window?.from ?? null),
    at(ledger.window?.to ?? null),
    "UTC",
    null,
  ];
}
