/** Who did what to whom, when and why; one's own acts with their undo; and what waits for a second person. */
import { ActionIcon, Button, Select, TextInput } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useInfiniteQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import type { AuditFilter, AuditRow } from "../../../../shared/contract/audit.ts";
import { useNow } from "../../lib/clock.ts";
import { callOrThrow, toFailure, useConsole } from "../../lib/console.tsx";
import { saveFile, toCsv } from "../../lib/csv.ts";
import { useKeys } from "../../lib/keys.ts";
import { navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { capitalise, cleanText, clip, codeWords } from "../../lib/text.ts";
import { ActList } from "../../ui/act-list.tsx";
import type { Column } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { DownloadIcon, RefreshIcon } from "../../ui/icons.tsx";
import { SafeText, Time, UserName } from "../../ui/parts.tsx";
import { MoreRows, PlainTable } from "../../ui/plain-table.tsx";
import { ErrorView, FailureLine, Skeleton, StaleLine } from "../../ui/states.tsx";
import { ManyAct, ManyActs } from "./many.tsx";
import css from "./audit.module.css";

const PAGE = 100;
const tabs = [
  { id: "log", name: "Log" },
  { id: "mine", name: "My acts" },
  { id: "waiting", name: "Waiting for approval" },
  { id: "many", name: "Many at once" },
] as const;

export function AuditDesk(): ReactNode {
  const place = usePlace();
  const tab = tabs.find(({ id }) => id === place.parts[1])?.id ?? "log";
  const bulkId = /^\d{1,15}$/.exec(place.parts[2] ?? "")?.[0];
  return (
    <>
      <DeskBar title="Audit">
        <nav className={css.tabs} aria-label="Parts of the audit">
          {tabs.map(({ id, name }) => (
            <a
              key={id}
              href={`#${placeAddress(["audit", ...(id === "log" ? [] : [id])])}`}
              aria-current={tab === id ? "page" : undefined}
            >
              {name}
            </a>
          ))}
        </nav>
        <Grow />
      </DeskBar>
      {tab === "log" ? (
        <Log query={place.query} />
      ) : tab === "many" ? (
        <div className={css.body}>
          {bulkId ? <ManyAct key={bulkId} bulkId={Number(bulkId)} /> : <ManyActs />}
        </div>
      ) : (
        <div className={css.body}>
          <ActList mine={tab === "mine"} userId={null} status={tab === "waiting" ? "proposed" : null} />
        </div>
      )}
    </>
  );
}

const periods: Readonly<Record<string, { readonly label: string; readonly days: number | null }>> = {
  "1": { label: "Last 24 hours", days: 1 },
  "7": { label: "Last 7 days", days: 7 },
  "30": { label: "Last 30 days", days: 30 },
  all: { label: "Any time", days: null },
};

/** The filter stands in the address, so that a link shows the same. */
function Log({ query }: { readonly query: URLSearchParams }): ReactNode {
  const client = useConsole();
  const get = (key: string): string => query.get(key) ?? "";
  const set = (changed: Readonly<Record<string, string>>): void => {
    const names = ["by", "operator", "user", "action", "days"];
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
    user_id: user || null,
    action: get("action") || null,
    from,
    to: null,
  };
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
        {get("action") ? (
          <Button variant="subtle" onClick={() => set({ action: "" })}>
            Only: {codeWords(get("action"))} ×
          </Button>
        ) : null}
        <Grow />
        <ActionIcon aria-label="Read again" title="Read again (r)" onClick={() => void found.refetch()}>
          <RefreshIcon size={14} />
        </ActionIcon>
        <Button
          leftSection={<DownloadIcon size={14} />}
          disabled={rows.length === 0}
          onClick={() => saveFile("audit.csv", "text/csv", auditCsv(rows))}
        >
          Export these
        </Button>
      </div>
      <div className={css.body}>
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
              columns={columns((action) => set({ action }))}
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

/** What else an entry keeps, on one line. */
function detailsText(row: AuditRow): string {
  return Object.entries(row.details)
    .filter(([key, value]) => key !== "act_id" && value !== null && value !== "")
    .map(([key, value]) =>
      // What has parts of its own is in the export.
      typeof value === "string" || typeof value === "number" || typeof value === "boolean"
        ? `${codeWords(key)} ${cleanText(String(value))}`
        : codeWords(key),
    )
    .join(", ");
}

const columns = (onAction: (action: string) => void): readonly Column<AuditRow>[] => [
  { id: "at", header: "When", width: 110, cell: (row) => <Time at={row.at} form="short" /> },
  {
    id: "who",
    header: "Who",
    width: 110,
    cell: (row) =>
      row.operator ? (
        <SafeText text={row.operator} length={40} />
      ) : (
        <span className={css.quiet}>{row.rule_name ? codeWords(cleanText(row.rule_name)) : "upkeep"}</span>
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
        onClick={() => onAction(row.action)}
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
        <a href={`#${placeAddress(["users", row.user_id, "audit"])}`} className={css.who} title={row.user_id}>
          <UserName name={row.display_name} id={row.user_id} />
          {row.email ? (
            <span className={css.quiet}>
              <SafeText text={row.email} length={40} />
            </span>
          ) : null}
        </a>
      ) : null,
  },
  {
    id: "why",
    header: "Why",
    width: 220,
    grow: 1,
    cell: (row) => (
      <span className={css.what}>
        {row.reason ? <SafeText text={row.reason} length={300} /> : null}{" "}
        <span className={css.quiet}>{clip(detailsText(row), 200)}</span>
      </span>
    ),
  },
];

export function auditCsv(rows: readonly AuditRow[]): string {
  return toCsv(
    ["audit_id", "at", "operator", "action", "user_id", "rule_name", "reason", "command_id", "details"],
    rows.map((row) => [
      row.audit_id,
      row.at,
      row.operator,
      row.action,
      row.user_id,
      row.rule_name,
      row.reason,
      row.command_id ?? null,
      JSON.stringify(row.details),
    ]),
  );
}
