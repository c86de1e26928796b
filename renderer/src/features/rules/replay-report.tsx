import type { ReactNode } from "react";
import type { ReplayRun } from "../../../../shared/contract/rules.ts";
import type { RuleNames } from "../../../../shared/governance/rules/index.ts";
import type { BacktestReport } from "../../../../shared/governance/simulation/index.ts";
import { formatDay, formatTokens } from "../../lib/format.ts";
import { placeAddress } from "../../lib/router.ts";
import { capitalise, cleanText, codeWords, counted } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { Cost, Facts, Note, Section, Time, Tokens, UserName } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import css from "./editor.module.css";

type Day = BacktestReport["days"][number];
type Plan = BacktestReport["plans"][number];
type Changed = BacktestReport["changed"][number];

/** What the draft would have changed, in figures, by day and plan, with examples. */
export function ReplayReport({
  run,
  names,
}: {
  readonly run: ReplayRun;
  readonly names: RuleNames;
}): ReactNode {
  const { report } = run;
  if (!report) return null;
  const currency = report.currency ?? names.currency ?? null;
  if (report.judged === 0)
    return (
      <Note tone="amber">
        No call of this time can be judged: there was none, or its facts were not kept.
      </Note>
    );
  return (
    <>
      <Summary report={report} ruleName={run.rule_name} currency={currency} />
      <Section title="By day (UTC)">
        <PlainTable<Day>
          label="Replay by day"
          rows={report.days}
          rowKey={(day) => day.day}
          empty="No day."
          columns={[
            { id: "day", header: "Day", width: 84, cell: ({ day }) => formatDay(`${day}T00:00:00Z`, "UTC") },
            {
              id: "calls",
              header: "Calls",
              width: 60,
              align: "right",
              cell: (day) => <Tokens value={day.calls} />,
            },
            {
              id: "newly",
              header: "Newly stopped",
              width: 70,
              align: "right",
              cell: (day) => <Tokens value={day.newly_stopped} />,
            },
            {
              id: "tokens",
              header: "Tokens saved",
              width: 80,
              align: "right",
              cell: (day) => <Tokens value={day.tokens_saved} />,
            },
          ]}
        />
      </Section>
      <Section title="By plan">
        <PlainTable<Plan>
          label="Replay by plan"
          rows={report.plans}
          rowKey={(plan) => plan.plan_id ?? ""}
          empty="No plan."
          columns={planColumns(names, currency)}
        />
      </Section>
      <Section
        title="Examples"
        aside={
          report.changed_total > report.changed.length
            ? `${report.changed.length} of ${formatTokens(report.changed_total)}`
            : null
        }
      >
        <PlainTable<Changed>
          label="Changed decisions"
          rows={report.changed}
          rowKey={(each) => each.request_id}
          empty="No decision would have been another."
          columns={exampleColumns}
        />
      </Section>
    </>
  );
}

function Summary({
  report,
  ruleName,
  currency,
}: {
  readonly report: BacktestReport;
  readonly ruleName: string;
  readonly currency: string | null;
}): ReactNode {
  const impact = report.rules.find((each) => each.rule_name === ruleName);
  const overlap = Object.entries(impact?.overlap ?? {});
  return (
    <Section title="It would have">
      <Facts
        rows={[
          [
            "Matched",
            <span key="m">
              {counted(impact?.matched ?? 0, "call")} of {counted(impact?.users ?? 0, "user")}
            </span>,
          ],
          [
            "Newly stopped",
            <b key="s">
              {counted(report.newly_stopped, "call")} of {counted(report.users_newly_stopped, "user")},{" "}
              {formatTokens(report.paying_users_newly_stopped ?? 0)} paying
            </b>,
          ],
          [
            "Let through",
            `${counted(report.newly_allowed, "call")} that ${report.newly_allowed === 1 ? "was" : "were"} stopped`,
          ],
          ...(report.newly_warned > 0
            ? [["Newly warned", counted(report.newly_warned, "call")] as const]
            : []),
          ...(report.rerouted > 0
            ? [["Sent to another model", counted(report.rerouted, "call")] as const]
            : []),
          ["Tokens saved", <Tokens key="t" value={report.tokens_saved} />],
          ["Cost saved", <Cost key="c" micros={report.cost_saved_micros} currency={currency} />],
          [
            "Matches beside it",
            overlap.length === 0
              ? "no other rule"
              : overlap
                  .slice(0, 4)
                  .map(([name, times]) => `${codeWords(name)} ${formatTokens(times)}`)
                  .join(", "),
          ],
          [
            "Judged",
            `${counted(report.judged, "call")} of ${counted(report.users, "user")}${report.without_facts > 0 ? `; ${formatTokens(report.without_facts)} without facts left out` : ""}`,
          ],
        ]}
      />
      {Object.entries(report.facts_missing).map(([fact, calls]) => (
        <Note key={fact} tone="amber">
          {capitalise(codeWords(fact))} is not known of {counted(calls, "call")}:{" "}
          {fact === "message" ? "messages are never kept" : "no rule in force read it then"}. The rule would
          hit more than is shown.
        </Note>
      ))}
    </Section>
  );
}

const planColumns = (names: RuleNames, currency: string | null): readonly Column<Plan>[] => [
  {
    id: "plan",
    header: "Plan",
    width: 80,
    grow: 1,
    cell: (plan) => cleanText(names.plans?.[plan.plan_id ?? ""] ?? plan.plan_id ?? "no plan"),
  },
  {
    id: "newly",
    header: "Newly stopped",
    width: 70,
    align: "right",
    cell: (plan) => <Tokens value={plan.newly_stopped} />,
  },
  {
    id: "users",
    header: "Users",
    width: 50,
    align: "right",
    cell: (plan) => <Tokens value={plan.users_newly_stopped} />,
  },
  {
    id: "cost",
    header: "Cost saved",
    width: 70,
    align: "right",
    cell: (plan) => <Cost micros={plan.cost_saved_micros} currency={currency} />,
  },
];

const exampleColumns: readonly Column<Changed>[] = [
  { id: "at", header: "When", width: 80, cell: (each) => <Time at={each.at} /> },
  {
    id: "user",
    header: "User",
    width: 90,
    cell: (each) => (
      <a href={`#${placeAddress(["users", each.user_id])}`}>
        <UserName name={null} id={each.user_id} />
      </a>
    ),
  },
  {
    id: "words",
    header: "What",
    width: 140,
    grow: 1,
    cell: (each) => <span className={css.wrap}>{cleanText(each.words)}</span>,
  },
];
