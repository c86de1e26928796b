/** What is behind an alert: from the figure to the users, models and rules that made it. */
import type { ReactNode } from "react";
import type { AlertCauses } from "../../../../shared/contract/alerts.ts";
import { useCall } from "../../lib/console.tsx";
import { formatCost, formatTokens } from "../../lib/format.ts";
import { useProjectCurrency } from "../../lib/live.ts";
import { placeAddress } from "../../lib/router.ts";
import { codeWords } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { SafeText, Section, UserName } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import css from "./alerts.module.css";

type Figures = Pick<AlertCauses["models"][number], "calls" | "tokens" | "cost_micros">;

interface Cause extends Figures {
  readonly key: string;
  readonly name: ReactNode;
  readonly address: string;
}

export function Causes({ alertEventId }: { readonly alertEventId: number }): ReactNode {
  const { data } = useCall("alerts.causes", { alert_event_id: alertEventId }, { staleMs: 30_000 });
  if (!data) return null;
  const { from, to, users, models, rules } = data;
  if (users.length + models.length + rules.length === 0) return null;
  const only = users.length === 1 ? (users[0]?.user_id ?? null) : null;
  return (
    <Section title="What is behind it">
      <div className={css.causes}>
        <CauseTable
          title="Users"
          causes={users.map((user) => ({
            ...user,
            key: user.user_id,
            name: <UserName name={user.display_name} id={user.user_id} />,
            address: placeAddress(["users", user.user_id]),
          }))}
        />
        <CauseTable
          title="Models"
          causes={models.map((model) => ({
            ...model,
            key: model.model,
            name: <SafeText text={model.model} length={80} />,
            address: placeAddress(["watch"], { model: model.model, user: only, from, to }),
          }))}
        />
        <CauseTable
          title="Rules that matched"
          causes={rules.map((rule) => ({
            ...rule,
            key: rule.rule_name,
            name: <SafeText text={codeWords(rule.rule_name)} length={80} />,
            address: placeAddress(["rules", rule.rule_name]),
          }))}
        />
        <a href={`#${placeAddress(["watch"], { user: only, from, to })}`}>Each call on Watch</a>
      </div>
    </Section>
  );
}

function CauseTable({
  title,
  causes,
}: {
  readonly title: string;
  readonly causes: readonly Cause[];
}): ReactNode {
  const currency = useProjectCurrency();
  const columns: readonly Column<Cause>[] = [
    {
      id: "name",
      header: title,
      width: 150,
      grow: 1,
      cell: ({ name, address }) => <a href={`#${address}`}>{name}</a>,
    },
    { id: "calls", header: "Calls", width: 60, align: "right", cell: ({ calls }) => formatTokens(calls) },
    // Calls that were stopped used nothing.
    ...(causes.every(({ tokens, cost_micros: cost }) => tokens === 0 && cost === 0)
      ? []
      : ([
          {
            id: "tokens",
            header: "Tokens",
            width: 80,
            align: "right",
            cell: ({ tokens }) => formatTokens(tokens),
          },
          {
            id: "cost",
            header: "Cost",
            width: 80,
            align: "right",
            cell: ({ cost_micros: cost }) => formatCost(cost, currency),
          },
        ] satisfies Column<Cause>[])),
  ];
  return causes.length === 0 ? null : (
    <PlainTable label={title} columns={columns} rows={causes} rowKey={({ key }) => key} empty="" />
  );
}
