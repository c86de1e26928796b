/** Two kept runs beside each other: what is new, gone, changed, the same. */
import { Select } from "@mantine/core";
import type { ReactNode } from "react";
import type { KeptRun, RunComparison } from "../../../../shared/contract/finance.ts";
import { useCall } from "../../lib/console.tsx";
import { formatChange } from "../../lib/format.ts";
import { navigate, placeAddress } from "../../lib/router.ts";
import { cleanText, clip } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { DataTable } from "../../ui/data-table.tsx";
import { DeskBar } from "../../ui/desk.tsx";
import { Id, Tag, Time } from "../../ui/parts.tsx";
import { EmptyView, QueryView } from "../../ui/states.tsx";
import type { Tone } from "../../ui/theme.ts";
import { periodText } from "./period.ts";
import css from "./finance.module.css";
import { className, minorMoney, statusName } from "./words.ts";

type Row = RunComparison["rows"][number];
const tones: Readonly<Record<Row["how"], Tone>> = {
  new: "red",
  gone: "green",
  changed: "amber",
  same: "grey",
};

const columns: readonly Column<Row>[] = [
  {
    id: "how",
    header: "",
    width: 84,
    cell: (row) => <Tag tone={tones[row.how]}>{row.how}</Tag>,
  },
  { id: "class", header: "Class", width: 160, grow: 0.6, cell: (row) => className(row.class) },
  {
    id: "id",
    header: "Difference",
    width: 160,
    grow: 1,
    cell: (row) => <Id value={row.difference_id.replace(/^[A-Z_]+\//, "")} head={14} copy={false} />,
  },
  {
    id: "money",
    header: "Money before → now",
    width: 150,
    align: "right",
    cell: (row) =>
      row.amount_before === row.amount_now
        ? minorMoney(row.amount_now, row.currency)
        : `${minorMoney(row.amount_before, row.currency)} → ${minorMoney(row.amount_now, row.currency)}`,
  },
  {
    id: "tokens",
    header: "Tokens before → now",
    width: 170,
    align: "right",
    cell: (row) => {
      const text = (value: number | null): string =>
        value === null ? "—" : value === 0 ? "0" : formatChange(value);
      return row.tokens_before === row.tokens_now
        ? text(row.tokens_now)
        : `${text(row.tokens_before)} → ${text(row.tokens_now)}`;
    },
  },
  { id: "status", header: "Today", width: 110, cell: (row) => (row.status ? statusName(row.status) : "—") },
];

export function Compare({
  runId,
  otherId,
  runs,
}: {
  readonly runId: string;
  readonly otherId: string | null;
  readonly runs: readonly KeptRun[];
}): ReactNode {
  const others = runs.filter((run) => run.run_id !== runId && run.is_complete);
  const own = runs.find((run) => run.run_id === runId);
  // The one before it, of the same period if there is one.
  const chosen =
    otherId ??
    (
      others.find((run) => run.period_from === own?.period_from && run.period_to === own.period_to) ??
      others[0]
    )?.run_id ??
    null;
  if (chosen === null)
    return (
      <EmptyView title="Nothing to compare with">
        Keep another run, for instance one of the same files after corrections were posted.
      </EmptyView>
    );
  return (
    <>
      <DeskBar title="">
        <span className={css.quiet}>This run against</span>
        <Select
          aria-label="The other run"
          w={480}
          allowDeselect={false}
          data={others.map((run) => ({
            value: run.run_id,
            label: `${periodText(run.period_from, run.period_to)}, kept ${new Date(run.created_at).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" })} by ${clip(cleanText(run.created_by), 30)}`,
          }))}
          value={chosen}
          onChange={(value) => navigate(placeAddress(["finance", "runs", runId, "compare"], { with: value }))}
        />
      </DeskBar>
      <Compared runId={runId} otherId={chosen} other={runs.find((run) => run.run_id === chosen) ?? null} />
    </>
  );
}

function Compared({
  runId,
  otherId,
  other,
}: {
  readonly runId: string;
  readonly otherId: string;
  readonly other: KeptRun | null;
}): ReactNode {
  const query = useCall("finance.compare_runs", { run_id: runId, other_run_id: otherId });
  return (
    <QueryView query={query}>
      {({ counts, rows }) => {
        const total = counts.new + counts.gone + counts.changed + counts.same;
        return (
          <DataTable
            id="compare"
            label="Compared"
            columns={columns}
            rows={rows}
            rowKey={(row) => row.difference_id}
            keys
            onOpen={(row) =>
              navigate(placeAddress(["finance", "cases", row.difference_id], { status: "all" }))
            }
            empty={<EmptyView title="Neither run has a difference" />}
            footer={
              <span>
                {counts.new.toLocaleString("en")} new, {counts.gone.toLocaleString("en")} gone,{" "}
                {counts.changed.toLocaleString("en")} changed, {counts.same.toLocaleString("en")} the same
                {rows.length < total ? `; the first ${rows.length.toLocaleString("en")} are shown` : ""}
                {other ? (
                  <>
                    {" "}
                    (the other read the ledger <Time at={other.ledger_read_at} />)
                  </>
                ) : null}
              </span>
            }
          />
        );
      }}
    </QueryView>
  );
}
