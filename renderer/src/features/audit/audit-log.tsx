/** The project's log: filtered by the address, exported whole, and checked against its seals. */
import { ActionIcon, Button, Select, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useInfiniteQuery } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { otherProject } from "../../../../shared/contract/connection.ts";
import type { AuditFilter, AuditRow } from "../../../../shared/contract/audit.ts";
import type { Reply } from "../../../../shared/contract/basics.ts";
import type { ConsoleClient } from "../../../../shared/contract/client.ts";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import { auditDetails, auditReason } from "../../lib/audit-words.ts";
import { useNow } from "../../lib/clock.ts";
import { callOrThrow, toFailure, useConsole } from "../../lib/console.tsx";
import { saveFile, toCsv } from "../../lib/csv.ts";
import { useKeys } from "../../lib/keys.ts";
import { openProject } from "../../lib/live.ts";
import { navigate, placeAddress } from "../../lib/router.ts";
import { capitalise, cleanText, clip, codeWords } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { Grow } from "../../ui/desk.tsx";
import { DownloadIcon, RefreshIcon } from "../../ui/icons.tsx";
import { showFailure } from "../../ui/notices.tsx";
import { SafeText, Time, TimedText, UserLine } from "../../ui/parts.tsx";
import { MoreRows, PlainTable } from "../../ui/plain-table.tsx";
import { ErrorView, FailureLine, Skeleton, StaleLine } from "../../ui/states.tsx";
import { CheckButton, CheckResult, useAuditCheck } from "./audit-check.tsx";
import css from "./audit.module.css";

const PAGE = 100;
/** As many as a workbook opens without trouble. */
const MOST_EXPORTED = 100_000;

const periods: Readonly<Record<string, { readonly label: string; readonly days: number | null }>> = {
  "1": { label: "Last 24 hours", days: 1 },
  "7": { label: "Last 7 days", days: 7 },
  "30": { label: "Last 30 days", days: 30 },
  all: { label: "Any time", days: null },
};
const names = ["by", "operator", "device", "user", "action", "days"] as const;
type Name = (typeof names)[number];
type SetQuery = (changed: Partial<Record<Name, string>>) => void;

/** The filter is in the address, so that a link shows the same. */
function useFilter(query: URLSearchParams) {
  const get = (key: Name): string => query.get(key) ?? "";
  const set: SetQuery = (changed) => {
    const all = Object.fromEntries(names.map((name) => [name, changed[name] ?? get(name)]));
    navigate(placeAddress(["audit"], all), { replace: true });
  };
  const [operator] = useDebouncedValue(get("operator").trim(), 300);
  const [user] = useDebouncedValue(get("user").trim(), 300);
  const nowMs = useNow(60_000);
  const days = periods[get("days")]?.days ?? null;
  // To the minute, so that the same question stays the same.
  const from =
    days === null ? null : new Date(Math.floor(nowMs / 60_000) * 60_000 - days * 86_400_000).toISOString();
  const filter: AuditFilter = {
    by: get("by") === "people" || get("by") === "rules" ? (get("by") as "people" | "rules") : null,
    operator: operator || null,
    device: get("device") || null,
    user_id: user || null,
    action: get("action") || null,
    from,
    to: null,
  };
  return { get, set, filter };
}

export function Log({ query }: { readonly query: URLSearchParams }): ReactNode {
  const client = useConsole();
  const { get, set, filter } = useFilter(query);
  const check = useAuditCheck();
  const found = useInfiniteQuery({
    queryKey: ["audit.list", filter],
    queryFn: ({ pageParam }) =>
      callOrThrow(client, "audit.list", { filter, before_id: pageParam, limit: PAGE }),
    initialPageParam: null as number | null,
    getNextPageParam: (page) => page.next_before_id,
  });
  useKeys({ r: () => void found.refetch() });
  const rows = found.data?.pages.flatMap((page) => page.entries) ?? [];
  const isNarrowed = Object.values(filter).some((value) => value !== null);
  return (
    <>
      <div className={css.filters}>
        <Filters get={get} set={set} />
        <Grow />
        <ActionIcon aria-label="Read again" title="Read again (r)" onClick={() => void found.refetch()}>
          <RefreshIcon size={14} />
        </ActionIcon>
        <CheckButton check={check} />
        <ExportButton filter={filter} isEmpty={rows.length === 0} />
      </div>
      <div className={css.body}>
        <CheckResult check={check} />
        {found.data?.pages[0]?.as_of ? <StaleLine asOf={found.data.pages[0].as_of} /> : null}
        {found.data === undefined ? (
          found.error ? (
            <ErrorView failure={toFailure(found.error)} onRetry={() => void found.refetch()} />
          ) : (
            <Skeleton lines={14} />
          )
        ) : (
          <>
            {found.error ? (
              <FailureLine failure={toFailure(found.error)} onRetry={() => void found.refetch()} />
            ) : null}
            <PlainTable
              label="Audit, newest first"
              columns={columns(set).filter(({ id }) => id !== "device" || rows.some(({ device }) => device))}
              rows={rows}
              rowKey={(row) => String(row.audit_id)}
              empty={
                isNarrowed
                  ? "Nothing fits these filters."
                  : "Nobody and no rule has acted in this project yet."
              }
            />
            <MoreRows
              shown={rows.length}
              hasMore={found.hasNextPage}
              isLoading={found.isFetchingNextPage}
              onMore={() => void found.fetchNextPage()}
            />
          </>
        )}
      </div>
    </>
  );
}

function Filters({ get, set }: { readonly get: (key: Name) => string; readonly set: SetQuery }): ReactNode {
  return (
    <>
      <Select
        aria-label="By whom"
        w={150}
        allowDeselect={false}
        data={[
          { value: "", label: "Everybody" },
          { value: "people", label: "Operators" },
          { value: "rules", label: "Rules and upkeep" },
        ]}
        value={get("by")}
        onChange={(value) => set({ by: value ?? "" })}
      />
      <TextInput
        aria-label="Operator"
        placeholder="Operator"
        data-desk-search
        w={140}
        maxLength={255}
        value={get("operator")}
        onChange={(event) => set({ operator: event.currentTarget.value })}
      />
      <TextInput
        aria-label="User id"
        placeholder="User id"
        w={150}
        maxLength={255}
        value={get("user")}
        onChange={(event) => set({ user: event.currentTarget.value })}
      />
      <Select
        aria-label="Period"
        w={140}
        allowDeselect={false}
        data={Object.entries(periods).map(([value, { label }]) => ({ value, label }))}
        value={periods[get("days")] ? get("days") : "all"}
        onChange={(value) => set({ days: value ?? "all" })}
      />
      {(["action", "device"] as const).map((name) =>
        get(name) ? (
          <Button key={name} variant="subtle" onClick={() => set({ [name]: "" })}>
            Only: {name === "action" ? codeWords(get(name)) : clip(cleanText(get(name)), 30)} ×
          </Button>
        ) : null,
      )}
    </>
  );
}

/** Exports all that fit the filter, not only those that were read. */
function ExportButton({
  filter,
  isEmpty,
}: {
  readonly filter: AuditFilter;
  readonly isEmpty: boolean;
}): ReactNode {
  const client = useConsole();
  const [count, setCount] = useState<number | null>(null);
  const run = async (): Promise<void> => {
    setCount(0);
    const all = await readAll(client, filter, setCount);
    setCount(null);
    if (all) saveFile("audit.csv", "text/csv", auditCsv(all));
  };
  return (
    <Button
      leftSection={<DownloadIcon size={14} />}
      disabled={isEmpty || count !== null}
      title={`All that fit these filters, at most ${MOST_EXPORTED.toLocaleString("en")}`}
      onClick={() => void run()}
    >
      {count === null ? "Export" : `Reading… ${count.toLocaleString("en")}`}
    </Button>
  );
}

async function readAll(
  client: ConsoleClient,
  filter: AuditFilter,
  onCount: (count: number) => void,
): Promise<readonly AuditRow[] | null> {
  const project = openProject();
  const all: AuditRow[] = [];
  let before: number | null = null;
  do {
    const page: Reply<OperationOutput<"audit.list">> = await client.call("audit.list", {
      filter,
      before_id: before,
      limit: 1000,
    });
    if (!page.ok) {
      showFailure("Not exported", page.error);
      return null;
    }
    if (openProject() !== project) {
      showFailure("Not exported", otherProject);
      return null;
    }
    all.push(...page.value.entries);
    onCount(all.length);
    before = page.value.next_before_id;
  } while (before !== null && all.length < MOST_EXPORTED);
  return all;
}

const columns = (set: SetQuery): readonly Column<AuditRow>[] => [
  { id: "at", header: "When", width: 120, cell: (row) => <Time at={row.at} form="short" /> },
  {
    id: "who",
    header: "Who",
    width: 110,
    cell: (row) =>
      row.operator ? (
        <SafeText text={row.operator} length={40} />
      ) : (
        <span className={css.quiet}>
          {row.rule_name
            ? codeWords(cleanText(row.rule_name))
            : row.action === "user_preferences"
              ? "the user"
              : "upkeep"}
        </span>
      ),
  },
  {
    id: "did",
    header: "Did",
    width: 130,
    cell: (row) => (
      <button
        type="button"
        className={css.action}
        title="Show only these"
        onClick={() => set({ action: row.action })}
      >
        {capitalise(codeWords(row.action))}
      </button>
    ),
  },
  {
    id: "whom",
    header: "To whom",
    width: 160,
    cell: (row) =>
      row.user_id ? (
        <a href={`#${placeAddress(["users", row.user_id, "audit"])}`}>
          <UserLine user={{ ...row, user_id: row.user_id }} />
        </a>
      ) : null,
  },
  {
    id: "device",
    header: "From",
    width: 110,
    cell: (row) =>
      row.device ? (
        <button
          type="button"
          className={css.action}
          title={`${row.device}: show only these`}
          onClick={() => set({ device: row.device ?? "" })}
        >
          <SafeText text={row.device} length={18} />
        </button>
      ) : null,
  },
  {
    id: "why",
    header: "Why",
    width: 140,
    grow: 1,
    cell: (row) => (
      <span className={css.what}>
        {row.reason ? <SafeText text={auditReason(row) ?? ""} length={300} /> : null}{" "}
        <span className={css.quiet}>
          <TimedText text={auditDetails(row)} length={200} />
        </span>
      </span>
    ),
  },
];

function auditCsv(rows: readonly AuditRow[]): string {
  return toCsv(
    [
      "audit_id",
      "at",
      "operator",
      "action",
      "user_id",
      "rule_name",
      "reason",
      "command_id",
      "device",
      "details",
    ],
    rows.map((row) => [
      row.audit_id,
      row.at,
      row.operator,
      row.action,
      row.user_id,
      row.rule_name,
      row.reason,
      row.command_id ?? null,
      row.device ?? null,
      JSON.stringify(row.details),
    ]),
  );
}
