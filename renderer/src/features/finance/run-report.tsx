/** The result of a reconciliation: statements in money and tokens, each line accounted for. */
import type { ReactNode } from "react";
import {
  DEFERRED_LINES,
  ROLL_FORWARD_LINES,
  type StatementLine,
  TIE_OUT_LINES,
} from "../../../../shared/governance/reconciliation/statements.ts";
import type {
  Bridge,
  ClassSummary,
  Report,
  RollForwardCheck,
} from "../../../../shared/governance/reconciliation/types.ts";
import { useCall } from "../../lib/console.tsx";
import { formatTokens } from "../../lib/format.ts";
import { placeAddress } from "../../lib/router.ts";
import { capitalise, counted } from "../../lib/text.ts";
import { CheckIcon, WarningIcon } from "../../ui/icons.tsx";
import { Facts, Note, Section, Tag, Time, TimedText, Tokens } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { Standing } from "./closing.tsx";
import css from "./finance.module.css";
import { classMeans, className, minorMoney } from "./words.ts";
import { translated } from "../../lib/language.ts";

function Statement<T>({
  label,
  columns,
  heading,
  lines,
  format,
}: {
  readonly label: string;
  readonly columns: readonly T[];
  readonly heading: (of: T) => string;
  readonly lines: readonly StatementLine<T>[];
  readonly format: (value: number, of: T) => string;
}): ReactNode {
  return (
    <div style={{ overflowX: "auto" }}>
      <table className={css.statement} aria-label={label}>
        <thead>
          <tr>
            <th />
            {columns.map((column) => (
              <th key={heading(column)}>{heading(column)}</th>
            ))}
          </tr>
        </thead>
        <tbody>
          {lines.map((line) => (
            <tr
              key={line.name}
              data-sum={line.kind === "sum" || undefined}
              data-check={line.kind === "check" || undefined}
            >
              <td>{line.name}</td>
              {columns.map((column) => {
                const value = line.value(column);
                const isCheck = line.kind === "check" && value !== null;
                return (
                  <td
                    key={heading(column)}
                    className={isCheck ? (value === 0 ? css.good : css.bad) : undefined}
                  >
                    {value === null ? (
                      <span className={css.quiet}>not known</span>
                    ) : (
                      format(value === 0 ? 0 : value, column)
                    )}
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const rollHeading = (each: RollForwardCheck): string =>
  capitalise(each.kind) + (each.currency ? `, ${each.currency.toUpperCase()}` : "");

export function ReportSummary({
  report,
  runId,
  isKept,
}: {
  readonly report: Report;
  readonly runId: string;
  /** Kept in the project: what was decided counts too. */
  readonly isKept: boolean;
}): ReactNode {
  const paid = report.roll_forward.filter((each) => each.currency !== null);
  // Of a kept run, what people decided counts beside the rows.
  const closing = useCall("finance.closing", { run_id: runId }, { enabled: isKept }).data ?? null;
  const isSettled = closing !== null && (closing.can_close || closing.run.is_closed);
  return (
    <div className={css.page}>
      <Verdict report={report} isSettled={isSettled} />
      {closing ? <Standing runId={runId} closing={closing} /> : null}
      <Section title="Differences by class">
        <ClassTable classes={report.classes} runId={runId} isSettled={isSettled} />
      </Section>
      <div className={css.statements}>
        {report.tie_out.length > 0 ? (
          <Section title="Stripe, from opening to closing">
            <Statement
              label="Stripe, from opening to closing"
              columns={report.tie_out}
              heading={(each) => each.currency.toUpperCase()}
              lines={
                report.tie_out.some((each) => each.source === "balance")
                  ? TIE_OUT_LINES
                  : TIE_OUT_LINES.filter(
                      (line) =>
                        line.name !== "Opening balance" &&
                        line.name !== "Closing balance" &&
                        line.name !== "Payouts",
                    )
              }
              format={(value, each) => minorMoney(value, each.currency)}
            />
            {report.tie_out.some((each) => each.source === "payments") ? (
              <span className={css.quiet}>
                From the list of payments: payouts and balances are not in it. A balance report has them.
              </span>
            ) : null}
          </Section>
        ) : null}
        {report.bridge.map((bridge) => (
          <Section
            key={bridge.currency}
            title={`From Stripe to the ledger, ${bridge.currency.toUpperCase()}`}
          >
            <BridgeTable bridge={bridge} />
          </Section>
        ))}
      </div>
      {report.roll_forward.length > 0 ? (
        <div className={css.statements}>
          <Section title="Tokens, from opening to closing">
            <Statement
              label="Tokens, from opening to closing"
              columns={report.roll_forward}
              heading={rollHeading}
              lines={ROLL_FORWARD_LINES}
              format={(value) => formatTokens(value)}
            />
          </Section>
          {paid.length > 0 ? (
            <Section title="Deferred revenue: money for tokens not yet used">
              <Statement
                label="Deferred revenue"
                columns={paid}
                heading={rollHeading}
                lines={DEFERRED_LINES}
                format={(value, each) => minorMoney(value, each.currency)}
              />
            </Section>
          ) : null}
        </div>
      ) : (
        <Note tone="grey">
          The roll-forward of tokens is not part of this report: the project did not give its totals for the
          period.
        </Note>
      )}
      {report.deferred_revenue.length > 0 && paid.length === 0 ? (
        <Section title="Deferred revenue, from the lots">
          <PlainTable
            label="Deferred revenue, from the lots"
            rows={report.deferred_revenue}
            rowKey={(each) => each.currency}
            empty=""
            columns={[
              { id: "c", header: "Currency", width: 80, cell: (each) => each.currency.toUpperCase() },
              { id: "l", header: "Lots", width: 80, align: "right", cell: (each) => formatTokens(each.lots) },
              {
                id: "t",
                header: "Tokens left",
                width: 100,
                align: "right",
                cell: (each) => <Tokens value={each.tokens_remaining} />,
              },
              {
                id: "d",
                header: "Stands for",
                width: 100,
                align: "right",
                cell: (each) => minorMoney(each.deferred_minor, each.currency),
              },
            ]}
          />
        </Section>
      ) : null}
    </div>
  );
}

function Verdict({
  report,
  isSettled,
}: {
  readonly report: Report;
  /** Every difference is decided and nothing is unexplained. */
  readonly isSettled: boolean;
}): ReactNode {
  const blocking = report.classes.filter((each) => each.blocks).reduce((sum, each) => sum + each.count, 0);
  const listed = report.classes.filter((each) => !each.blocks).reduce((sum, each) => sum + each.count, 0);
  const matched = report.matched_by_pass.reduce((sum, each) => sum + each.count, 0);
  return (
    <div style={{ display: "flex", flexDirection: "column", gap: 8 }}>
      <div className={css.verdict}>
        <span className={css.verdictWord} data-tied={report.tied_out || isSettled ? "yes" : "no"}>
          {report.tied_out || isSettled ? <CheckIcon size={20} /> : <WarningIcon size={20} />}
          {report.tied_out ? "Tied out" : isSettled ? "Tied out, but for what was decided" : "Not tied out"}
        </span>
        <span>
          {counted(matched, "match", "matches")}, {counted(blocking, "difference")}{" "}
          {isSettled ? "decided" : "to resolve"}
          {listed > 0 ? `, ${listed.toLocaleString("en")} only listed` : ""}
        </span>
        {report.tie_out.map((each) => {
          const bridge = report.bridge.find((of) => of.currency === each.currency);
          // A row whose net does not add up is a difference of its own: it explains what it leaves over.
          const explained =
            report.classes
              .find((of) => of.class === "FEE_VARIANCE")
              ?.at_stake.find((of) => of.currency === each.currency)?.amount_minor ?? 0;
          const rest = Math.abs(each.unexplained_minor ?? 0);
          const open = (rest !== 0 && rest !== explained) || (bridge?.unexplained_minor ?? 0) !== 0;
          const ties = !open && rest === 0 && (bridge?.lines.length ?? 0) === 0;
          return (
            <Tag key={each.currency} tone={open ? "red" : ties || isSettled ? "green" : "amber"}>
              {each.currency.toUpperCase()}:{" "}
              {open ? "unexplained rest" : ties ? "tied out" : isSettled ? "explained" : "explained, open"}
            </Tag>
          );
        })}
      </div>
      <Facts
        rows={[
          [
            "Period",
            <span key="p">
              <Time at={report.period.from} form="full" /> to <Time at={report.period.to} form="full" />
            </span>,
          ],
          [
            "Complete until",
            <span key="w">
              {report.watermark ? <Time at={report.watermark} form="full" /> : "not known"}
              <span className={css.quiet}>. A file cannot prove that nothing is missing from it.</span>
            </span>,
          ],
        ]}
      />
      {report.warnings.slice(0, 5).map((warning) => (
        <Note key={`${warning.code}${warning.file}${warning.row}`} tone="amber">
          <TimedText text={translated(warning.message)} length={400} />
          {warning.row ? ` (row ${warning.row.toLocaleString("en")})` : ""}
        </Note>
      ))}
    </div>
  );
}

function ClassTable({
  classes,
  runId,
  isSettled,
}: {
  readonly classes: readonly ClassSummary[];
  readonly runId: string;
  readonly isSettled: boolean;
}): ReactNode {
  const address = (code: string): string =>
    placeAddress(["finance", "runs", runId, "differences"], {
      class: code,
      status: isSettled ? "all" : null,
    });
  return (
    <PlainTable
      label="Differences by class"
      rows={classes.toSorted((a, b) => Number(b.blocks) - Number(a.blocks) || b.count - a.count)}
      rowKey={(each) => each.class}
      empty="No differences: both sides agree."
      columns={[
        {
          id: "class",
          header: "Class",
          width: 180,
          cell: (each) => <a href={`#${address(each.class)}`}>{className(each.class)}</a>,
        },
        {
          id: "means",
          header: "Means",
          width: 200,
          grow: 1,
          cell: (each) => <span className={css.quiet}>{classMeans(each.class)}</span>,
        },
        { id: "count", header: "Count", width: 60, align: "right", cell: (each) => formatTokens(each.count) },
        {
          id: "money",
          header: "Money at stake",
          width: 110,
          align: "right",
          cell: (each) =>
            each.at_stake.length === 0
              ? "—"
              : each.at_stake.map((of) => minorMoney(of.amount_minor, of.currency)).join(", "),
        },
        {
          id: "tokens",
          header: "Tokens at stake",
          width: 110,
          align: "right",
          cell: (each) => <Tokens value={each.tokens_at_stake} />,
        },
        {
          id: "age",
          header: "Oldest",
          width: 80,
          align: "right",
          cell: (each) => <Time at={each.oldest_at} />,
        },
        {
          id: "blocks",
          header: "",
          width: 70,
          cell: (each) =>
            !each.blocks ? (
              <Tag tone="grey">listed</Tag>
            ) : isSettled ? (
              <Tag tone="green">decided</Tag>
            ) : (
              <Tag tone="red">to resolve</Tag>
            ),
        },
      ]}
    />
  );
}

function BridgeTable({ bridge }: { readonly bridge: Bridge }): ReactNode {
  const money = (value: number): string => minorMoney(value, bridge.currency);
  return (
    <div style={{ overflowX: "auto" }}>
      <table className={css.statement} aria-label={`From Stripe to the ledger, ${bridge.currency}`}>
        <thead>
          <tr>
            <th />
            <th>Count</th>
            <th>Amount</th>
          </tr>
        </thead>
        <tbody>
          <tr>
            <td>Stripe, gross</td>
            <td>{formatTokens(bridge.stripe_count)}</td>
            <td>{money(bridge.stripe_gross_minor)}</td>
          </tr>
          <tr data-check>
            <td>of it matched</td>
            <td>{formatTokens(bridge.matched_count)}</td>
            <td>{money(bridge.matched_minor)}</td>
          </tr>
          {bridge.besides_minor ? (
            <tr>
              <td>Tax and other goods</td>
              <td />
              <td>{money(-bridge.besides_minor)}</td>
            </tr>
          ) : null}
          {bridge.lines.map((line) => (
            <tr key={line.class}>
              <td>{className(line.class)}</td>
              <td>{formatTokens(line.count)}</td>
              <td>{money(-line.amount_minor)}</td>
            </tr>
          ))}
          <tr data-sum>
            <td>The ledger's purchases</td>
            <td>{formatTokens(bridge.ledger_count)}</td>
            <td>{money(bridge.ledger_minor)}</td>
          </tr>
          <tr data-check>
            <td>Unexplained</td>
            <td />
            <td className={bridge.unexplained_minor === 0 ? css.good : css.bad}>
              {money(bridge.unexplained_minor)}
            </td>
          </tr>
        </tbody>
      </table>
    </div>
  );
}
