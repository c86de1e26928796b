/** The result of a reconciliation: statements in money and tokens, each line accounted for. */
import type { ReactNode } from "react";
import type { InputManifest, Report, RowCounts } from "../../../../shared/governance/reconciliation/types.ts";
import { formatBytes, formatTokens } from "../../lib/format.ts";
import { cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { Facts, Note, Section, Time } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import css from "./finance.module.css";

const kindNames: Readonly<Record<InputManifest["kind"], string>> = {
  unified_payments: "Payments (Dashboard)",
  balance_history: "Balance history",
  balance_change_itemized: "Itemized balance change",
  payout_reconciliation_itemized: "Itemized payout reconciliation",
  disputes: "Disputes",
};

function Rows({ title, counts }: { readonly title: string; readonly counts: RowCounts }): ReactNode {
  const excluded = Object.entries(counts.excluded);
  return (
    <Section title={title}>
      <Facts
        rows={[
          ["Rows", formatTokens(counts.rows)],
          ["Matched", formatTokens(counts.matched)],
          ["In differences", formatTokens(counts.in_differences)],
          ["Also in another file", formatTokens(counts.merged)],
          ["Same id again", formatTokens(counts.duplicates)],
          ...excluded.map(
            ([reason, count]) => [`Set aside: ${codeWords(reason)}`, formatTokens(count)] as const,
          ),
        ]}
      />
    </Section>
  );
}

/** How Stripe's API was read, where it was a source. */
interface ReadByApi {
  readonly stripe_api?: {
    readonly account_id: string;
    readonly mode: string;
    readonly api_version: string;
    readonly data_through: string;
    readonly objects_read: number;
    readonly requests: number;
  };
}

export function ReportInputs({ report }: { readonly report: Report & ReadByApi }): ReactNode {
  const { stripe_api: api } = report;
  return (
    <div className={css.page}>
      {api ? (
        <Section title="Stripe's API">
          <Facts
            rows={[
              ["Account", `${cleanText(api.account_id)}, ${cleanText(api.mode)} mode`],
              ["Complete through", <Time key="t" at={api.data_through} form="full" />],
              [
                "Read for this run",
                `${counted(api.objects_read, "object")} in ${counted(api.requests, "request")}; the rest was here`,
              ],
              ["API version", cleanText(api.api_version)],
            ]}
          />
        </Section>
      ) : null}
      {report.inputs.map((input) => (
        <Section key={`${input.name} ${input.sha256}`} title={<bdi>{clip(cleanText(input.name), 120)}</bdi>}>
          <Facts
            rows={[
              ["Taken as", kindNames[input.kind] ?? codeWords(input.kind)],
              ["Rows", `${formatTokens(input.rows)}, ${formatBytes(input.bytes)}`],
              [
                "Covers",
                input.window ? (
                  <span key="w">
                    <Time at={input.window.from} form="full" /> to <Time at={input.window.to} form="full" />
                  </span>
                ) : (
                  "no rows"
                ),
              ],
              ["Times", input.time_zone],
              ["SHA-256", <code key="h">{input.sha256 ?? "—"}</code>],
            ]}
          />
          {input.missing_columns.length > 0 ? (
            <Note tone="grey">
              Would show more with:
              <ul style={{ margin: "4px 0 0", paddingLeft: 18 }}>
                {input.missing_columns.map((missing) => (
                  <li key={missing.column}>
                    <code>{clip(cleanText(missing.column), 80)}</code>: {clip(cleanText(missing.use), 200)}{" "}
                    <span className={css.quiet}>({clip(cleanText(missing.where), 200)})</span>
                  </li>
                ))}
              </ul>
            </Note>
          ) : null}
        </Section>
      ))}
      <div className={css.statements}>
        <Rows title="Where Stripe's rows went" counts={report.stripe_rows} />
        <Rows title="Where the ledger's records went" counts={report.ledger_rows} />
      </div>
      <Section title="How they were matched">
        <PlainTable
          label="Matches by pass"
          rows={report.matched_by_pass}
          rowKey={(each) => String(each.pass)}
          empty="Nothing matched."
          columns={[
            { id: "pass", header: "Pass", width: 50, align: "right", cell: (each) => String(each.pass) },
            { id: "by", header: "By", width: 200, grow: 1, cell: (each) => clip(cleanText(each.by), 120) },
            {
              id: "n",
              header: "Matches",
              width: 80,
              align: "right",
              cell: (each) => formatTokens(each.count),
            },
          ]}
        />
      </Section>
    </div>
  );
}
