/** Differences that the project keeps, of one run or of all: filter, select, read and decide side by side. */
import { Button, Checkbox, Select, TextInput } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { type ReactNode, useMemo, useState } from "react";
import type { CaseFilter, CaseStatus, FinanceCase } from "../../../../shared/contract/finance.ts";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import { callOrThrow, toFailure, useConsole } from "../../lib/console.tsx";
import { formatChange, formatTokens } from "../../lib/format.ts";
import { useKeys } from "../../lib/keys.ts";
import { useLive } from "../../lib/live.ts";
import { currentPlace, navigate, placeAddress } from "../../lib/router.ts";
import { useSettledText } from "../../lib/settled.ts";
import { capitalise, cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { type Column, DataTable } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { SearchIcon } from "../../ui/icons.tsx";
import { Id, Tag, UserName } from "../../ui/parts.tsx";
import { SideDetail } from "../../ui/side-detail.tsx";
import { EmptyView, ErrorView, FailureLine, Skeleton, StaleLine } from "../../ui/states.tsx";
import { BulkBar } from "./bulk.tsx";
import { CaseDetail } from "./case-detail.tsx";
import css from "./finance.module.css";
import { caseStatuses, className, minorMoney, moneyList, statusName, statusSign } from "./words.ts";

const PAGE = 200;
/** The most cases that one bulk act takes. */
const MOST_SELECTED = 1000;
const TO_DECIDE = "to_decide";
const NOBODY = "nobody";
const ages = [
  { value: "7", label: "Older than a week" },
  { value: "30", label: "Older than 30 days" },
  { value: "90", label: "Older than 90 days" },
];

function columnsFor(
  picked: ReadonlySet<string>,
  onPick: (of: FinanceCase) => void,
): readonly Column<FinanceCase>[] {
  return [
    {
      id: "pick",
      header: "",
      width: 34,
      fixed: true,
      cell: (each) => (
        <span className={css.pick} onClick={(event) => event.stopPropagation()}>
          <Checkbox
            aria-label={`Select ${className(each.class)}`}
            tabIndex={-1}
            checked={picked.has(each.difference_id)}
            onChange={() => onPick(each)}
          />
        </span>
      ),
    },
    {
      id: "class",
      sort: "class",
      header: "Class",
      width: 120,
      grow: 0.8,
      fixed: true,
      cell: (each) => <span title={className(each.class)}>{className(each.class)}</span>,
    },
    {
      id: "status",
      header: "Status",
      width: 108,
      fixed: true,
      cell: (each) => {
        const sign = statusSign(each);
        return (
          <Tag tone={sign.tone} title={sign.means} dot plain>
            {sign.word}
          </Tag>
        );
      },
    },
    {
      id: "money",
      sort: "money",
      header: "Money",
      width: 90,
      align: "right",
      hint: "Stripe's side less the ledger's",
      cell: (each) => (each.amount_minor === 0 ? "—" : minorMoney(each.amount_minor, each.currency)),
    },
    {
      id: "tokens",
      sort: "tokens",
      header: "Tokens",
      width: 96,
      align: "right",
      hint: "What the ledger has too many (+) or too few (−)",
      cell: (each) => (each.tokens === 0 ? "—" : formatChange(each.tokens)),
    },
    {
      id: "user",
      header: "User",
      width: 104,
      grow: 0.5,
      cell: (each) => (each.user_id ? <Id value={each.user_id} head={10} copy={false} /> : "—"),
    },
    {
      id: "age",
      sort: "age",
      header: "Age",
      width: 56,
      align: "right",
      hint: "Days since it happened",
      cell: (each) => `${each.age_days} d`,
    },
    {
      id: "assignee",
      header: "Assigned to",
      width: 104,
      grow: 0.4,
      cell: (each) => (each.assigned_to ? <UserName name={each.assigned_to} /> : "—"),
    },
    {
      id: "correction",
      header: "Correction",
      width: 104,
      grow: 0.5,
      cell: (each) => capitalise(codeWords(each.correction.action ?? "—")),
    },
  ];
}

const sorts = ["money", "tokens", "age", "class"] as const;

/** Which filter an address asks for. */
export function readFilter(query: URLSearchParams, runId: string | null): CaseFilter {
  const status = query.get("status") ?? TO_DECIDE;
  const age = Number(query.get("age") ?? "");
  const sort = sorts.find((each) => each === query.get("sort")) ?? null;
  const assignee = query.get("assignee");
  return {
    run_id: runId,
    undecided: status === TO_DECIDE ? true : null,
    status: caseStatuses.includes(status as CaseStatus) ? [status as CaseStatus] : null,
    class: query.get("class"),
    assigned_to: assignee === null ? null : assignee === NOBODY ? "" : assignee.replace(/^=/, ""),
    older_than_days: Number.isInteger(age) && age > 0 ? age : null,
    text: query.get("find")?.trim().slice(0, 200) || null,
    sort,
    descending: sort !== null && query.get("order") !== "up",
  };
}

/** The sort as the head of the table shows it: the oldest is the greatest age. */
function sortShown({ sort, descending }: CaseFilter) {
  return sort ? { sort: { key: sort, descending: sort === "age" ? !descending : descending } } : {};
}

/** The pages of the list that are read so far. */
function useCasePages(filter: CaseFilter) {
  const client = useConsole();
  return useInfiniteQuery({
    queryKey: ["finance.cases", filter],
    queryFn: ({ pageParam }) =>
      callOrThrow(client, "finance.cases", { filter, after: pageParam, limit: PAGE }),
    initialPageParam: null as string | null,
    getNextPageParam: (page) =>
      page.cases.length < PAGE ? null : (page.cases.at(-1)?.difference_id ?? null),
    staleTime: 2000,
  });
}

/** Which differences are picked, by id. */
function usePicked() {
  const [picked, setPicked] = useState<ReadonlySet<string>>(new Set());
  return {
    picked,
    setPicked,
    clear: () => setPicked(new Set()),
    pick: (of: FinanceCase) =>
      setPicked((before) => {
        const next = new Set(before);
        if (!next.delete(of.difference_id) && next.size < MOST_SELECTED) next.add(of.difference_id);
        return next;
      }),
  };
}

export function Cases({
  runId,
  base,
  query: place,
  openId,
}: {
  /** Null: of the whole project. */
  readonly runId: string | null;
  /** Where the list lives; a difference's address is below it. */
  readonly base: readonly string[];
  readonly query: URLSearchParams;
  readonly openId: string | null;
}): ReactNode {
  const text = place.toString();
  const filter = useMemo(() => readFilter(new URLSearchParams(text), runId), [text, runId]);
  const query = useCasePages(filter);
  const rows = query.data?.pages.flatMap((page) => page.cases) ?? [];
  const { picked, setPicked, clear, pick } = usePicked();
  const [firstPage] = query.data?.pages ?? [];
  // Cases that the filter hides are not acted on.
  const selected = rows.filter((each) => picked.has(each.difference_id));
  const params = Object.fromEntries(place);
  const address = (id: string | null): string => placeAddress([...base, ...(id ? [id] : [])], params);
  const choose = (change: Readonly<Record<string, string | null>>): void => {
    clear();
    navigate(placeAddress(base, { ...params, ...change }));
  };
  const close = (): void => navigate(address(null));
  useKeys({ Escape: () => (picked.size === 0 ? false : clear()) }, openId === null);

  if (!query.data || !firstPage)
    return query.error ? (
      <ErrorView failure={toFailure(query.error)} onRetry={() => void query.refetch()} />
    ) : (
      <Skeleton lines={10} />
    );
  const columns = columnsFor(picked, pick);
  return (
    <SideDetail
      id="cases"
      initialWidth={480}
      minListWidth={360}
      detailLabel="Difference"
      onClose={close}
      list={
        <>
          {selected.length > 0 ? (
            <BulkBar cases={selected} onClear={clear} />
          ) : (
            <CaseFilters
              page={firstPage}
              place={place}
              filter={filter}
              isOpen={openId !== null}
              choose={choose}
            />
          )}
          {firstPage.as_of ? <StaleLine asOf={firstPage.as_of} /> : null}
          {query.error ? (
            <FailureLine failure={toFailure(query.error)} onRetry={() => void query.refetch()} />
          ) : null}
          <DataTable
            id={openId ? "cases-narrow" : "cases"}
            label="Differences"
            columns={openId ? columns.slice(0, 4) : columns}
            rows={rows}
            rowKey={(each) => each.difference_id}
            keys
            openKey={openId}
            onOpen={(each) =>
              navigate(
                placeAddress([...base, each.difference_id], Object.fromEntries(currentPlace().query)),
                {
                  replace: openId !== null,
                },
              )
            }
            onPick={pick}
            {...sortShown(filter)}
            onSort={(key, descending) =>
              choose({ sort: key, order: (key === "age" ? !descending : descending) ? null : "up" })
            }
            onEnd={() => {
              if (query.hasNextPage && !query.isFetchingNextPage) void query.fetchNextPage();
            }}
            columnMenu={!openId}
            empty={<NoCases filter={filter} isFirst={Object.keys(firstPage.counts).length === 0} />}
            footer={
              <CasesFooter
                page={firstPage}
                shown={rows.length}
                isOpen={openId !== null}
                onSelect={() =>
                  setPicked(new Set(rows.slice(0, MOST_SELECTED).map((each) => each.difference_id)))
                }
              />
            }
          />
        </>
      }
      detail={
        openId === null ? null : (
          <CaseDetail
            key={openId}
            id={openId}
            address={address(openId)}
            assignees={firstPage.assignees}
            onClose={close}
          />
        )
      }
    />
  );
}

type CasePage = OperationOutput<"finance.cases">;

export function NoCases({
  filter,
  isFirst,
}: {
  readonly filter: CaseFilter;
  /** The project has no difference, decided or not. */
  readonly isFirst: boolean;
}): ReactNode {
  // Where the project keeps no run, the rail counts those of the last one that was made here.
  const unkept = useLive((state) => state.rail?.differences ?? 0);
  const isNarrowed =
    filter.text !== null ||
    filter.class !== null ||
    filter.assigned_to !== null ||
    filter.older_than_days !== null ||
    filter.undecided === null;
  return isNarrowed ? (
    <EmptyView title="None like this">Choose another status, class, person, age or text.</EmptyView>
  ) : filter.run_id === null && unkept > 0 ? (
    <EmptyView title="Nothing to decide in the project">
      On this machine alone, of the last reconciliation: {counted(unkept, "difference")}. Open it and keep it
      in the project to decide.
    </EmptyView>
  ) : filter.run_id === null && isFirst ? (
    <EmptyView
      title="No differences yet"
      actions={
        <Button component="a" href="#/finance/new">
          Reconcile
        </Button>
      }
    >
      They come from reconciliations that are kept in the project.
    </EmptyView>
  ) : (
    <EmptyView title="Nothing to decide">
      Every difference is verified, carried forward or written off.
    </EmptyView>
  );
}

function CaseFilters({
  page,
  place,
  filter,
  isOpen,
  choose,
}: {
  readonly page: CasePage;
  readonly place: URLSearchParams;
  readonly filter: CaseFilter;
  readonly isOpen: boolean;
  readonly choose: (change: Readonly<Record<string, string | null>>) => void;
}): ReactNode {
  const search = useSettledText(filter.text ?? "", (find) => choose({ find: find.trim() || null }));
  return (
    <DeskBar title="">
      <TextInput
        aria-label="Search differences"
        placeholder="Id, user or words"
        w={isOpen ? 120 : 160}
        leftSection={<SearchIcon size={14} />}
        maxLength={200}
        value={search.typed}
        onChange={(event) => search.type(event.currentTarget.value)}
        onKeyDown={(event) => event.key === "Enter" && search.settleNow()}
      />
      <Select
        aria-label="Status"
        w={isOpen ? 146 : 170}
        allowDeselect={false}
        data={[
          { value: TO_DECIDE, label: `To decide (${page.undecided.toLocaleString("en")})` },
          { value: "all", label: "All" },
          ...caseStatuses.map((status) => ({
            value: status as string,
            label: `${statusName(status)} (${(page.counts[status] ?? 0).toLocaleString("en")})`,
          })),
        ]}
        value={place.get("status") ?? TO_DECIDE}
        onChange={(value) => choose({ status: value === TO_DECIDE ? null : value })}
      />
      <Select
        aria-label="Class"
        placeholder="All classes"
        w={isOpen ? 130 : 190}
        clearable
        searchable
        data={Object.entries(page.classes).map(([code, count]) => ({
          value: code,
          label: `${className(code)} (${count.toLocaleString("en")})`,
        }))}
        value={filter.class}
        onChange={(value) => choose({ class: value })}
      />
      {isOpen ? null : (
        <>
          <Select
            aria-label="Assigned to"
            placeholder="Anybody"
            w={130}
            clearable
            searchable
            data={[
              { value: NOBODY, label: "Nobody" },
              ...page.assignees.map((name) => ({
                value: `=${name}`,
                label: clip(cleanText(name), 40),
              })),
            ]}
            value={place.get("assignee")}
            onChange={(value) => choose({ assignee: value })}
          />
          <Select
            aria-label="Age"
            placeholder="Any age"
            w={160}
            clearable
            data={ages}
            value={place.get("age")}
            onChange={(value) => choose({ age: value })}
          />
        </>
      )}
      <Grow />
    </DeskBar>
  );
}

function CasesFooter({
  page,
  shown,
  isOpen,
  onSelect,
}: {
  readonly page: CasePage;
  readonly shown: number;
  readonly isOpen: boolean;
  readonly onSelect: () => void;
}): ReactNode {
  return (
    <>
      <span>
        {shown < page.total ? `${shown.toLocaleString("en")} of ` : ""}
        {counted(page.total, "difference")}
        {isOpen ? "" : `: ${moneyList(page.money)}, ${formatTokens(page.tokens)} tokens at stake`}
      </span>
      {shown > 0 ? (
        <button type="button" className={css.linkButton} onClick={onSelect}>
          Select {shown < page.total ? "those shown" : "all"}
        </button>
      ) : null}
    </>
  );
}
