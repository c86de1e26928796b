import type { UsageEvent } from "../../../../shared/contract/watch.ts";
import { eventSign } from "../../lib/signs.ts";
import { cleanText, clip, codeWords } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { Cost, Id, PlanName, Reason, SafeText, Tag, Time, Tokens, UserName } from "../../ui/parts.tsx";
import css from "./watch.module.css";

/** The columns of the calls. */
export const columns: readonly Column<UsageEvent>[] = [
  { id: "at", header: "Time", width: 74, fixed: true, cell: (event) => <Time at={event.at} form="clock" /> },
  {
    id: "what",
    header: "What",
    width: 92,
    fixed: true,
    cell: (event) => {
      const sign = eventSign(event);
      return (
        <Tag tone={sign.tone} dot plain>
          {sign.word}
        </Tag>
      );
    },
  },
  {
    id: "user",
    header: "User",
    width: 120,
    grow: 1.5,
    fixed: true,
    cell: (event) => <UserName name={event.display_name} id={event.user_id} />,
  },
  {
    id: "tokens",
    header: "Tokens",
    width: 76,
    align: "right",
    hint: "Charged; held, asked for or given back where nothing was charged",
    cell: (event) => <Tokens value={event.tokens} />,
  },
  {
    id: "model",
    header: "Model",
    width: 120,
    grow: 1.3,
    cell: (event) => {
      const asked = event.requested_model;
      const used = event.model ?? asked;
      if (!used) return <span className={css.where}>—</span>;
      if (asked && asked !== used)
        return (
          <span title={`Asked for ${cleanText(asked)}, routed to ${cleanText(used)}`}>
            <span className={css.route}>{clip(cleanText(asked), 40)} → </span>
            {clip(cleanText(used), 40)}
          </span>
        );
      return <SafeText text={used} length={60} />;
    },
  },
  {
    id: "reason",
    header: "Reason",
    width: 110,
    grow: 1.1,
    cell: (event) => (event.reason ? <Reason reason={event.reason} /> : null),
  },
  {
    id: "task",
    header: "Task",
    width: 80,
    grow: 0.7,
    cell: (event) => (event.task_type ? codeWords(event.task_type) : null),
  },
  {
    id: "cost",
    header: "Cost",
    width: 104,
    align: "right",
    cell: (event) =>
      event.kind === "settled" ? (
        <Cost of="call" micros={event.cost_micros} currency={event.currency} />
      ) : null,
  },
  {
    id: "input",
    header: "Input",
    width: 70,
    align: "right",
    hidden: true,
    cell: (event) => <Tokens value={event.input_tokens} />,
  },
  {
    id: "output",
    header: "Output",
    width: 70,
    align: "right",
    hidden: true,
    cell: (event) => <Tokens value={event.output_tokens} />,
  },
  {
    id: "plan",
    header: "Plan",
    width: 80,
    grow: 0.5,
    hidden: true,
    cell: (event) => <PlanName id={event.plan_id} />,
  },
  {
    id: "request",
    header: "Request",
    width: 130,
    hidden: true,
    cell: (event) => <Id value={event.request_id} copy={false} />,
  },
];

/** Over several days, the time of day alone is ambiguous. */
export const datedColumns: readonly Column<UsageEvent>[] = columns.map((column) =>
  column.id === "at"
    ? { ...column, width: 120, cell: (event) => <Time at={event.at} form="short" /> }
    : column,
);
