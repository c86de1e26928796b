/** What backends owe the project, as their guards report it. */
import type { ReactNode } from "react";
import type { HealthDetails } from "../../../../shared/contract/health.ts";
import { formatTokens } from "../../lib/format.ts";
import type { Column } from "../../ui/data-table.tsx";
import { SafeText, Section, Time } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import css from "./health.module.css";

type GuardRow = HealthDetails["guards"][number];
const guardColumns: readonly Column<GuardRow>[] = [
  {
    id: "backend",
    header: "Backend",
    width: 150,
    grow: 1,
    cell: ({ backend }) => <SafeText text={backend} length={80} />,
  },
  {
    id: "waiting",
    header: "Waiting",
    width: 80,
    align: "right",
    cell: ({ waiting }) => formatTokens(waiting),
  },
  {
    id: "parked",
    header: "Parked",
    width: 80,
    align: "right",
    cell: ({ parked }) =>
      parked > 0 ? <span className={css.late}>{formatTokens(parked)}</span> : formatTokens(parked),
  },
  {
    id: "oldest",
    header: "Oldest waits since",
    width: 130,
    cell: ({ oldest_at: at }) => (at ? <Time at={at} /> : "—"),
  },
  { id: "reported", header: "Last report", width: 110, cell: ({ reported_at: at }) => <Time at={at} /> },
];

export function Guards({ guards }: { readonly guards: readonly GuardRow[] }): ReactNode {
  return (
    <Section title="Settlements that backends owe">
      <PlainTable
        label="Queues of backends"
        columns={guardColumns}
        rows={guards}
        rowKey={({ backend }) => backend}
        empty="No backend has reported a queue yet. A guard reports when it starts, and when settlements wait or are parked."
      />
    </Section>
  );
}
