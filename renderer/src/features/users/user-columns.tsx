/** The columns of the user table, whole and beside an open user. */
import type { ReactNode } from "react";
import type { AccountFigure, AccountRow } from "../../../../shared/contract/users.ts";
import { accountSigns } from "../../lib/signs.ts";
import { cleanText, clip } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { Cost, Id, Meter, PlanName, SafeText, Tag, Time, Tokens, UserName } from "../../ui/parts.tsx";
import css from "./users.module.css";

const nameColumn: Column<AccountRow> = {
  id: "name",
  header: "Name",
  width: 168,
  grow: 2,
  fixed: true,
  sort: "name",
  cell: (row) => (
    <span className={css.nameCell}>
      <UserName name={row.display_name} id={row.user_id} />
      {accountSigns(row).map((sign) => (
        <Tag key={sign.word} tone={sign.tone} title={sign.word}>
          {sign.word}
        </Tag>
      ))}
    </span>
  ),
};
const usedColumn: Column<AccountRow> = {
  id: "used",
  header: "Used",
  width: 106,
  sort: "usage_percent",
  hint: "Of the day's or the month's limit, whichever is higher; of the month's allowance without a limit",
  cell: (row) => (
    <Meter
      percent={row.usage_percent}
      stops={row.usage_of !== "allowance"}
      label={
        row.usage_of === "allowance"
          ? "Used of the month's allowance; other tokens are spent after it"
          : row.usage_of === "monthly_limit"
            ? "Used of the month's limit"
            : "Used of the day's limit"
      }
    />
  ),
};
/** No column holds more digits: a figure that is cut reads as a smaller one. */
const tokens = (value: number): ReactNode => <Tokens value={value} compact={value >= 100_000_000} />;

/** The figures: the compiler asks for each. */
const figures: Readonly<Record<AccountFigure, Omit<Column<AccountRow>, "id" | "sort" | "align">>> = {
  tokens_today: {
    header: "Today",
    width: 82,
    hint: "Tokens, in the user's own day",
    cell: (row) => tokens(row.tokens_today),
  },
  tokens_this_month: {
    header: "This month",
    width: 92,
    cell: (row) => tokens(row.tokens_this_month),
  },
  cost_this_month_micros: {
    header: "Cost, month",
    width: 98,
    cell: (row) => <Cost micros={row.cost_this_month_micros} currency={row.currency} />,
  },
  available: {
    header: "Free",
    width: 92,
    hint: "Tokens that can be used now",
    cell: (row) => tokens(row.available),
  },
  debt: { header: "Debt", width: 80, hidden: true, cell: (row) => tokens(row.debt) },
};

export const columns: readonly Column<AccountRow>[] = [
  nameColumn,
  {
    id: "email",
    header: "E-mail",
    width: 120,
    grow: 1.3,
    cell: (row) => (row.email ? <SafeText text={row.email} length={80} /> : null),
  },
  { id: "plan", header: "Plan", width: 88, grow: 0.4, cell: (row) => <PlanName id={row.plan_id} /> },
  ...Object.entries(figures).map(
    ([id, figure]): Column<AccountRow> => ({ ...figure, id, sort: id, align: "right" }),
  ),
  usedColumn,
  {
    id: "active",
    header: "Last active",
    width: 96,
    align: "right",
    sort: "last_activity",
    cell: (row) => <Time at={row.last_activity} />,
  },
  {
    id: "id",
    header: "User id",
    width: 130,
    hidden: true,
    cell: (row) => <Id value={row.user_id} head={10} tail={4} copy={false} />,
  },
  {
    id: "zone",
    header: "Time zone",
    width: 110,
    hidden: true,
    cell: (row) => clip(cleanText(row.timezone), 40),
  },
  {
    id: "since",
    header: "Since",
    width: 120,
    hidden: true,
    sort: "created_at",
    cell: (row) => <Time at={row.created_at} form="short" />,
  },
];
export const narrowColumns: readonly Column<AccountRow>[] = [
  {
    ...nameColumn,
    width: 120,
    // The line below the name distinguishes two users of the same name.
    cell: (row) => (
      <>
        {nameColumn.cell(row)}
        <div className={css.below}>
          <SafeText text={row.email ? `${row.email} · ${row.user_id}` : row.user_id} length={120} />
        </div>
      </>
    ),
  },
  { ...usedColumn, width: 100 },
];
