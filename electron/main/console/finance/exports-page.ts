/**
 * A report as one page for paper: complete in itself, no script, nothing fetched, every text escaped. A4, with a place
 * for signatures and the seal of the closed period.
 */
import { formatMoney } from "../../../../shared/governance/money/index.ts";
import {
  type Bridge,
  CLASSES,
  DEFERRED_LINES,
  type Difference,
  ROLL_FORWARD_LINES,
  type StatementLine,
  TIE_OUT_LINES,
} from "../../../../shared/governance/reconciliation/index.ts";
import type { Exported } from "./exports-report.ts";

/** The workbook has all of them; paper shows the first, and how many there are. */
const maxDifferences = 1_000;

/** Text that is HTML already. */
class Html {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}
type Part = string | number | null | undefined | Html | readonly Part[];

/** Escapes every value. */
function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Html {
  return new Html(strings.reduce((text, string, i) => text + write(parts[i - 1]) + string));
}
function write(part: Part): string {
  if (part === null || part === undefined) return "";
  if (part instanceof Html) return part.text;
  if (typeof part === "object") return part.map(write).join("");
  return (
    String(part)
      .toWellFormed()
      // Control characters, and the marks that turn the direction of what follows.
      // oxlint-disable-next-line no-control-regex
      .replace(/[\u0000-\u0008\u000b-\u001f\u007f\u202a-\u202e\u2066-\u2069]/g, "\ufffd")
      .replaceAll("&", "&amp;")
      .replaceAll("<", "&lt;")
      .replaceAll(">", "&gt;")
      .replaceAll('"', "&quot;")
      .replaceAll("'", "&#39;")
  );
}

const count = (value: number): string => String(value).replace(/\B(?=(\d{3})+$)/g, ",");
const time = (iso: string | null | undefined): string =>
  iso ? `${iso.slice(0, 10)} ${iso.slice(11, 16)} UTC` : "not known";
const day = (iso: string): string => iso.slice(0, 10);
/** The period's end is excluded: on paper it is its last day. */
const lastDay = (iso: string): string => day(new Date(Date.parse(iso) - 1).toISOString());
const plural = (n: number, one: string): string => `${count(n)} ${n === 1 ? one : `${one}s`}`;

export function reportPage(exported: Exported): string {
  const { run, report, closed } = exported;
  const { stripe_api: api } = report;
  const title = `Reconciliation ${day(report.period.from)} – ${lastDay(report.period.to)}`;
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<style>${new Html(style)}</style>
</head>
<body>
<header>
  <p class="kicker">Stripe against the token ledger</p>
  <h1>${title}</h1>
  <p class="result ${report.tied_out ? "good" : "open"}">${
    report.tied_out
      ? "Tied out: every line matched, listed or carried forward"
      : `Not tied out: ${plural(report.differences_total, "difference")}`
  }</p>
  <dl class="facts">
    <div><dt>Period</dt><dd>${day(report.period.from)} – ${lastDay(report.period.to)}, UTC</dd></div>
    <div><dt>Made</dt><dd>${time(run.finished_at)}</dd></div>
    <div><dt>Stripe known through</dt><dd>${time(report.watermark)}</dd></div>
    <div><dt>Stripe</dt><dd>${plural(report.stripe_rows.rows, "row")}, ${count(report.stripe_rows.matched)} matched</dd></div>
    <div><dt>Ledger</dt><dd>${plural(report.ledger_rows.rows, "record")}, ${count(report.ledger_rows.matched)} matched</dd></div>
    <div><dt>Run</dt><dd class="id">${run.run_id}</dd></div>
    ${api ? html`<div><dt>Stripe account</dt><dd>${api.account_id}, ${api.mode} mode, API ${api.api_version}</dd></div>` : null}
  </dl>
</header>

<section><h2>Cash at Stripe</h2>${statement(
    report.tie_out,
    TIE_OUT_LINES,
    (each) => each.currency.toUpperCase(),
    (value, each) => formatMoney(value, each.currency),
  )}</section>
<section><h2>From Stripe's payments to the ledger's</h2>${report.bridge.map(bridge)}</section>
${section(
  report.roll_forward.length > 0,
  "Tokens, from opening to closing",
  statement(report.roll_forward, ROLL_FORWARD_LINES, rollHeading, (value) => count(value)),
)}
${section(
  report.roll_forward.some(({ currency }) => currency !== null),
  "Deferred revenue",
  statement(
    report.roll_forward.filter(({ currency }) => currency !== null),
    DEFERRED_LINES,
    rollHeading,
    (value, each) => formatMoney(value, each.currency ?? ""),
  ),
)}
${section(
  report.classes.length > 0,
  "Differences by class",
  html`<table><thead><tr><th>Class</th><th>What it means</th><th class="n">Count</th><th class="n">At stake</th><th class="n">Tokens</th><th>Oldest</th></tr></thead><tbody>${report.classes.map(
    (one) =>
      html`<tr><td>${CLASSES[one.class].name}${one.blocks ? null : html` <small>(listed)</small>`}</td><td>${CLASSES[one.class].means}</td><td class="n">${count(one.count)}</td><td class="n">${one.at_stake.map(({ amount_minor, currency }) => html`<div>${formatMoney(amount_minor, currency)}</div>`)}</td><td class="n">${count(one.tokens_at_stake)}</td><td class="d">${one.oldest_at ? day(one.oldest_at) : ""}</td></tr>`,
  )}</tbody></table>`,
)}
<section class="signatures"><h2>Sign-off</h2>
  ${
    closed
      ? html`<p>This period was closed on ${time(closed.closed_at)} by ${closed.closed_by}${closed.sign_off ? html`: “${closed.sign_off}”` : null}.</p><p>Seal (SHA-256)</p><p class="seal">${closed.seal}</p>`
      : html`<p>This period has not been closed with this run. When it is, its seal is shown here.</p>`
  }
  <div class="lines"><div><span>Prepared by</span></div><div><span>Date</span></div><div><span>Approved by</span></div><div><span>Date</span></div></div>
</section>
${section(report.differences_total > 0, "The differences", differences(exported), "break")}
<section><h2>What went in</h2>${inputs(exported)}</section>
${section(
  report.warnings.length > 0,
  "To know",
  html`<ul>${report.warnings.map(({ file, row, message }) => html`<li>${[file, row === null ? "" : `row ${row}`].filter(Boolean).join(", ")}: ${message}</li>`)}</ul>`,
)}
</body>
</html>
`;
  return page.text;
}

const section = (isShown: boolean, title: string, content: Html, name = ""): Html | null =>
  isShown ? html`<section class="${name}"><h2>${title}</h2>${content}</section>` : null;

const rollHeading = (each: { readonly kind: string; readonly currency: string | null }): string =>
  [each.kind, each.currency?.toUpperCase()].filter(Boolean).join(", ");

/** Columns that paper has room for; more go below. */
const columnsAcross = 4;

function statement<T>(
  columns: readonly T[],
  lines: readonly StatementLine<T>[],
  heading: (of: T) => string,
  format: (value: number, of: T) => string,
): Html {
  const tables: Html[] = [];
  for (let at = 0; at < columns.length; at += columnsAcross) {
    const shown = columns.slice(at, at + columnsAcross);
    tables.push(
      html`<table class="statement"><thead><tr><th></th>${shown.map((one) => html`<th class="n">${heading(one)}</th>`)}</tr></thead><tbody>${lines.map(
        (line) =>
          html`<tr class="${line.kind ?? ""}"><td>${line.name}</td>${shown.map((one) => {
            const value = line.value(one);
            const sign = line.kind !== "check" || value === null ? "" : value === 0 ? "zero" : "off";
            return html`<td class="n ${sign}">${value === null ? html`<small>not known</small>` : format(value, one)}</td>`;
          })}</tr>`,
      )}</tbody></table>`,
    );
  }
  return columns.length === 0 ? html`<p>No rows in this period.</p>` : html`${tables}`;
}

function bridge(one: Bridge): Html {
  const money = (minor: number): string => formatMoney(minor, one.currency);
  const row = (name: string, n: number | null, minor: number, kind = ""): Html =>
    html`<tr class="${kind}"><td>${name}</td><td class="n">${n === null ? "" : count(n)}</td><td class="n ${kind === "check" ? (minor === 0 ? "zero" : "off") : ""}">${money(minor)}</td></tr>`;
  return html`<table class="statement"><thead><tr><th>${one.currency.toUpperCase()}</th><th class="n">Count</th><th class="n">Amount</th></tr></thead><tbody>${row("Stripe, gross", one.stripe_count, one.stripe_gross_minor)}${one.besides_minor ? row("less: tax and other goods", null, -one.besides_minor) : ""}${one.lines.map(
    (line) => row(`less: ${CLASSES[line.class].name.toLowerCase()}`, line.count, -line.amount_minor),
  )}${row("Ledger", one.ledger_count, one.ledger_minor, "sum")}${row("Unexplained", null, one.unexplained_minor, "check")}</tbody></table>`;
}

function differences({ report, differences: all }: Exported): Html {
  const rows: Html[] = [];
  for (const one of all()) {
    if (rows.length === maxDifferences) break;
    rows.push(differenceRow(one));
  }
  const left = report.differences_total - rows.length;
  return html`<table class="differences"><thead><tr><th>Class</th><th>What is different, and what is proposed</th><th class="n">Amount</th><th class="n">Tokens</th><th class="n">Days</th></tr></thead><tbody>${rows}</tbody></table>${
    left > 0 ? html`<p>${count(left)} more are in the workbook and the CSV file of this run.</p>` : null
  }`;
}

function differenceRow(one: Difference): Html {
  const ids = [one.user_id, one.correction.charge_id, one.ledger && `entry ${one.ledger.transaction_id}`];
  return html`<tr><td>${CLASSES[one.class].name}</td><td>${one.explanation} <em>${one.correction.words}</em><div class="id">${ids.filter(Boolean).join(" · ")}</div></td><td class="n">${one.currency === null ? "" : formatMoney(one.amount_minor, one.currency)}</td><td class="n">${count(one.tokens)}</td><td class="n">${one.age_days ?? ""}</td></tr>`;
}

function inputs({ report }: Exported): Html {
  return html`<table><thead><tr><th>Input</th><th class="n">Rows</th><th>From – to (UTC)</th></tr></thead><tbody>${report.inputs.map(
    (one) =>
      html`<tr><td>${one.name}<div class="id hash">SHA-256 ${one.sha256 ?? "not known"}</div></td><td class="n">${count(one.rows)}</td><td>${one.window ? `${time(one.window.from)} – ${time(one.window.to)}` : "no rows"}</td></tr>`,
  )}<tr><td>Ledger</td><td class="n">${count(report.ledger_input.records)}</td><td>${report.ledger_input.window ? `${time(report.ledger_input.window.from)} – ${time(report.ledger_input.window.to)}` : "no records"}</td></tr></tbody></table>`;
}

const style = `
@page { size: A4; margin: 16mm 15mm 18mm; @bottom-left { content: "Token Governance"; font: 8pt system-ui, sans-serif; color: #555 } @bottom-right { content: counter(page) " / " counter(pages); font: 8pt system-ui, sans-serif; color: #555 } }
* { box-sizing: border-box }
html { color-scheme: light; background: #fff }
body { margin: 0 auto; max-width: 180mm; padding: 8mm 0; color: #111; background: #fff; font: 9.5pt/1.4 system-ui, "Segoe UI", "Noto Sans", "Helvetica Neue", Arial, sans-serif; font-variant-numeric: tabular-nums }
@media print { body { max-width: none; padding: 0 } }
@media screen and (max-width: 180mm) { body { padding: 5mm } }
h1 { margin: 0; font-size: 18pt; line-height: 1.2; font-weight: 650 }
h2 { margin: 0 0 2mm; font-size: 11.5pt; font-weight: 650; break-after: avoid }
p { margin: 0 0 2mm }
small { color: #555; font-size: 8.5pt }
.kicker { margin: 0 0 1mm; color: #555 }
.result { display: inline-block; margin: 3mm 0; padding: 1.2mm 3mm; border: 1px solid; border-radius: 1mm; font-weight: 600 }
.good { color: #0b5d2a; border-color: #0b5d2a; background: #eef8f1 }
.open { color: #7a4500; border-color: #7a4500; background: #fdf5e8 }
.facts { display: grid; grid-template-columns: 1fr 1fr; gap: 1mm 8mm; margin: 0 }
.facts div { display: flex; gap: 3mm }
.facts dt { flex: 0 0 36mm; color: #555 }
.facts dd { margin: 0; overflow-wrap: anywhere }
section { margin-top: 7mm }
table { width: 100%; border-collapse: collapse; margin-bottom: 4mm }
thead { display: table-header-group }
tr { break-inside: avoid }
th { text-align: left; font-weight: 600; border-bottom: 1px solid #111; padding: 1mm 2mm 1mm 0; vertical-align: bottom }
td { border-bottom: 1px solid #ddd; padding: 1mm 2mm 1mm 0; vertical-align: top; overflow-wrap: anywhere }
th:last-child, td:last-child { padding-right: 0 }
.n { text-align: right; white-space: nowrap; overflow-wrap: normal }
.d { white-space: nowrap; overflow-wrap: normal }
.hash { font-size: 7.2pt; white-space: nowrap }
.statement { break-inside: avoid }
.sum td { border-top: 1px solid #111; font-weight: 600 }
.check td { font-weight: 600 }
.zero { color: #0b5d2a }
.off { color: #9b1c1c }
.differences td:first-child { width: 32mm }
.id, .seal { font: 8pt/1.35 ui-monospace, "Cascadia Mono", Menlo, Consolas, "Noto Sans Mono", monospace; color: #444; overflow-wrap: anywhere }
.seal { color: #111; font-size: 9pt; padding: 2mm; border: 1px solid #111 }
.signatures { break-inside: avoid }
.lines { display: grid; grid-template-columns: 3fr 1fr; gap: 12mm 8mm; margin-top: 12mm }
.lines div { border-top: 1px solid #111; padding-top: 1mm; color: #555; font-size: 8.5pt }
@media print { .break { break-before: page; margin-top: 0 } }
`;
