/** A report as a terminal shows it: the statements first, then what is different. */
import { formatMoney } from "../shared/governance/money/index.ts";
import {
  type Bridge,
  CLASSES,
  type ClassSummary,
  type Period,
  type Report,
  type RowCounts,
  type TieOut,
  TIE_OUT_LINES,
} from "../shared/governance/reconciliation/index.ts";

type Line = readonly [name: string, value: string];

export function summary(report: Report): string {
  const { period, stripe_rows: stripe, ledger_rows: ledger } = report;
  const blocks = [
    [
      `Period ${days(period)}: ${report.tied_out ? "tied out" : "differences"}.`,
      rowsLine("Stripe", "row", stripe),
      rowsLine("Ledger", "record", ledger),
    ],
    ...report.tie_out.map(tieOutLines),
    ...report.bridge.map(bridgeLines),
    report.classes.length === 0 ? [] : ["Differences", ...table(report.classes.map(classLine))],
  ];
  return `${blocks
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join("\n"))
    .join("\n\n")}\n`;
}

/** From the first to the last day, both included; for a period that is not of whole days its two moments, the last excluded. */
function days({ from, to }: Period): string {
  const last = new Date(Date.parse(to) - 1).toISOString();
  return [from, to].every((moment) => /T00:00:00(\.000)?Z$/.test(moment))
    ? `${from.slice(0, 10)} to ${last.slice(0, 10)} (UTC)`
    : `from ${from} until ${to}`;
}

/** Where every row went: the parts add up. */
function rowsLine(side: string, one: string, rows: RowCounts): string {
  const parts: Line[] = [
    ["matched", count(rows.matched)],
    ["also in another file", count(rows.merged)],
    ["with the same id again", count(rows.duplicates)],
    ["in differences", count(rows.in_differences)],
    ...Object.entries(rows.excluded).map(
      ([why, n]): Line => [`set aside (${why.replaceAll("_", " ")})`, count(n)],
    ),
  ];
  const shown = parts
    .filter(([name, n]) => n !== "0" || name === "matched")
    .map(([name, n]) => `${n} ${name}`);
  return `${side}: ${count(rows.rows)} ${one}${rows.rows === 1 ? "" : "s"}: ${shown.join(", ")}.`;
}

const count = (n: number): string => n.toLocaleString("en-US");

/** Lines that are nothing are left out; what must be nothing is always there. */
function tieOutLines(tieOut: TieOut): string[] {
  const currency = tieOut.currency.toUpperCase();
  const of = tieOut.source === "balance" ? "Stripe's balance" : "Stripe's payments";
  const lines = TIE_OUT_LINES.flatMap(({ name, value, kind }): Line[] => {
    const minor = value(tieOut);
    return minor === null || (minor === 0 && kind === undefined)
      ? []
      : [[name, formatMoney(minor, tieOut.currency)]];
  });
  return [`${of}, ${currency}`, ...table(lines)];
}

function bridgeLines(bridge: Bridge): string[] {
  const money = (minor: number): string => formatMoney(minor, bridge.currency);
  return [
    `From Stripe to the ledger, ${bridge.currency.toUpperCase()}`,
    ...table([
      [`Stripe, gross (${count(bridge.stripe_count)})`, money(bridge.stripe_gross_minor)],
      ...(bridge.besides_minor === 0
        ? []
        : [["less: tax and other goods", money(-bridge.besides_minor)] as const]),
      ...bridge.lines.map(
        (line): Line => [
          `less: ${CLASSES[line.class].name} (${count(line.count)})`,
          money(-line.amount_minor),
        ],
      ),
      [`Ledger (${count(bridge.ledger_count)})`, money(bridge.ledger_minor)],
      ["Unexplained", money(bridge.unexplained_minor)],
    ]),
  ];
}

function classLine(one: ClassSummary): Line {
  const stake = [
    ...one.at_stake.map(({ amount_minor, currency }) => formatMoney(amount_minor, currency)),
    ...(one.tokens_at_stake === 0 ? [] : [`${count(one.tokens_at_stake)} tokens`]),
  ];
  return [
    `${CLASSES[one.class].name} (${one.class}): ${count(one.count)}${one.blocks ? "" : " (listed)"}`,
    stake.length === 0 ? CLASSES[one.class].means : stake.join(", "),
  ];
}

function table(lines: readonly Line[]): string[] {
  const widest = (column: 0 | 1): number => Math.max(0, ...lines.map((line) => line[column].length));
  const isMoney = lines.every(([, value]) => /^-?[\d,.]+ [A-Z]{3}$/.test(value));
  return lines.map(
    ([name, value]) => `  ${name.padEnd(widest(0))}  ${isMoney ? value.padStart(widest(1)) : value}`,
  );
}
