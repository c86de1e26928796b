import { ActionIcon, Checkbox, Select, TextInput } from "@mantine/core";
import { type ReactNode, useMemo, useState } from "react";
import type { AccountFilter, AccountRow } from "../../../../shared/contract/users.ts";
import { useCall } from "../../lib/console.tsx";
import { hitAddress } from "../../lib/hit-address.ts";
import { leaveForRows, useKeys } from "../../lib/keys.ts";
import { useLive } from "../../lib/live.ts";
import { searchable } from "../../lib/pasted.ts";
import { navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { cleanText, clip } from "../../lib/text.ts";
import { type Column, DataTable } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { ChevronLeftIcon, ChevronRightIcon, CloseIcon, RefreshIcon, SearchIcon } from "../../ui/icons.tsx";
import { SafeText, Time } from "../../ui/parts.tsx";
import { SideDetail } from "../../ui/side-detail.tsx";
import { EmptyView, QueryView, Skeleton, StaleLine } from "../../ui/states.tsx";
import { CorrectMany } from "./bulk-dialog.tsx";
import { columns, narrowColumns } from "./user-columns.tsx";
import { UserPage } from "./user-page.tsx";
import { isFilter } from "./user-criteria.ts";
import { SavedViews } from "./saved-views.tsx";
import { useStayingRow } from "./staying-row.ts";
import { type UserSearch, useUserSearch } from "./user-search.ts";
import css from "./users.module.css";

const filters: readonly { readonly value: AccountFilter; readonly label: string }[] = [
  { value: "all", label: "All" },
  { value: "flagged", label: "Flagged" },
  { value: "blocked", label: "Blocked" },
  { value: "near_limit", label: "Near limit" },
  { value: "low_balance", label: "Low balance" },
  { value: "in_debt", label: "In debt" },
  { value: "disputed", label: "Disputed" },
  { value: "active_today", label: "Active today" },
];

function pickColumn(picked: Picked): Column<AccountRow> {
  return {
    id: "pick",
    header: "",
    width: 30,
    fixed: true,
    cell: (row) => (
      <span className={css.pick} onClick={(event) => event.stopPropagation()}>
        <Checkbox
          aria-label={`Choose ${clip(cleanText(row.display_name ?? "") || row.user_id, 60)}`}
          tabIndex={-1}
          checked={picked.ids.has(row.user_id)}
          onChange={() => picked.toggle(row)}
        />
      </span>
    ),
  };
}

interface Picked {
  readonly ids: ReadonlySet<string>;
  readonly toggle: (row: AccountRow) => void;
}

/** Find a user among a million; the page of one beside the list. */
export function UsersDesk(): ReactNode {
  const place = usePlace();
  const userId = place.parts[1] ?? null;
  const isOpen = userId !== null;
  const search = useUserSearch(isOpen);
  const [ids, setIds] = useState<ReadonlySet<string>>(new Set());
  const picked: Picked = {
    ids,
    toggle: ({ user_id: id }) =>
      setIds((before) => {
        const next = new Set(before);
        if (!next.delete(id)) next.add(id);
        return next;
      }),
  };
  useKeys({ Escape: () => (ids.size === 0 ? false : setIds(new Set())) }, !isOpen);
  const close = (): void => navigate("/users");
  const open = (row: AccountRow): void => {
    const tab = place.parts[2];
    navigate(placeAddress(["users", row.user_id, ...(tab && isOpen ? [tab] : [])]), { replace: isOpen });
  };
  return (
    <SideDetail
      id="users"
      list={
        <>
          <SearchBar search={search} isOpen={isOpen} picked={picked} />
          <UserTable search={search} openId={userId} onOpen={open} picked={picked} />
        </>
      }
      minListWidth={300}
      initialWidth={800}
      minWidth={480}
      detailLabel="User"
      onClose={close}
      detail={
        userId === null ? null : (
          <UserPage
            key={userId}
            userId={userId}
            tab={place.parts[2] ?? "overview"}
            item={place.parts[3] ?? null}
            onClose={close}
          />
        )
      }
    />
  );
}

const activity: readonly { readonly value: string; readonly label: string }[] = [
  { value: "0", label: "Active or not" },
  { value: "1", label: "Active in 24 h" },
  { value: "7", label: "Active in 7 days" },
  { value: "30", label: "Active in 30 days" },
  { value: "90", label: "Active in 90 days" },
];

function SearchBar({
  search,
  isOpen,
  picked,
}: {
  readonly search: UserSearch;
  readonly isOpen: boolean;
  readonly picked: Picked;
}): ReactNode {
  const { filter, setFilter, planId, setPlanId, days, setDays } = search;
  const plans = useLive((state) => state.connection?.project?.plans) ?? [];
  return (
    <DeskBar title="Users">
      <SearchBox search={search} placeholder={isOpen ? "Find a user" : "Name, e-mail or id"} />
      <Select
        aria-label="Filter"
        w={isOpen ? 112 : 130}
        allowDeselect={false}
        data={[...filters]}
        value={filter}
        onChange={(value) => isFilter(value) && setFilter(value)}
      />
      {isOpen ? null : (
        <>
          <Select
            aria-label="Plan"
            placeholder="Any plan"
            w={130}
            clearable
            data={plans.map((plan) => ({
              value: plan.plan_id,
              label: clip(cleanText(plan.name || plan.plan_id), 40),
            }))}
            value={planId || null}
            onChange={(value) => setPlanId(value ?? "")}
          />
          <Select
            aria-label="Active since"
            w={150}
            allowDeselect={false}
            data={
              activity.some(({ value }) => value === String(days))
                ? [...activity]
                : [...activity, { value: String(days), label: `Active in ${days} days` }]
            }
            value={String(days)}
            onChange={(value) => setDays(Number(value ?? 0))}
          />
          <SavedViews search={search} />
          <Grow />
          <CorrectMany search={search} picked={picked.ids} />
        </>
      )}
    </DeskBar>
  );
}

function SearchBox({
  search: { text },
  placeholder,
}: {
  readonly search: UserSearch;
  readonly placeholder: string;
}): ReactNode {
  return (
    <TextInput
      className={css.search}
      data-desk-search
      aria-label="Search users"
      placeholder={placeholder}
      leftSection={<SearchIcon size={14} />}
      rightSection={
        text.typed ? (
          <ActionIcon
            aria-label="Clear the search"
            onClick={() => {
              text.type("");
              text.settleNow();
            }}
          >
            <CloseIcon size={13} />
          </ActionIcon>
        ) : null
      }
      value={text.typed}
      onChange={(event) => text.type(searchable(event.currentTarget.value))}
      onKeyDown={(event) => {
        if (event.key === "Enter") {
          text.settleNow();
          leaveForRows(event.currentTarget);
        } else if (event.key === "Escape") {
          event.stopPropagation();
          if (text.typed) {
            text.type("");
            text.settleNow();
          } else event.currentTarget.blur();
        } else if (event.key === "ArrowDown") leaveForRows(event.currentTarget);
      }}
    />
  );
}

function UserTable({
  search,
  openId,
  onOpen,
  picked,
}: {
  readonly search: UserSearch;
  readonly openId: string | null;
  readonly onOpen: (row: AccountRow) => void;
  readonly picked: Picked;
}): ReactNode {
  const wide = useMemo(() => [pickColumn(picked), ...columns], [picked]);
  const { found, sort, descending, setOrder, setHeld } = search;
  const isOpen = openId !== null;
  const listed = useStayingRow(found.data?.accounts ?? [], openId, search.key);
  // The open row shows what its page shows, at once.
  const open = useCall("users.get", { user_id: openId ?? "" }, { enabled: isOpen });
  const rows = listed.rows.map((row) =>
    row.user_id === openId && open.data ? { ...row, ...open.data.account } : row,
  );
  return (
    <QueryView query={found} skeleton={<Skeleton lines={14} />}>
      {(page) => (
        <>
          {page.as_of ? (
            <StaleLine asOf={page.as_of}>Only users seen on this machine, as they were</StaleLine>
          ) : null}
          {page.is_close ? (
            <div className={css.close} role="status">
              No user is called exactly “{clip(cleanText(search.answered.searched), 60)}”. These are close to
              it.
            </div>
          ) : null}
          {page.is_by_id ? (
            <div className={css.close} role="status">
              Found by what is theirs in “{clip(cleanText(search.answered.searched), 60)}”: an id, an e-mail,
              a payment, a call or a customer.
            </div>
          ) : null}
          {listed.isKept ? (
            <div className={css.close} role="status">
              The open user no longer fits this list and stays until another is opened.
            </div>
          ) : null}
          <DataTable
            id={isOpen ? "users-narrow" : "users"}
            label="Users"
            columns={isOpen ? narrowColumns : wide}
            {...(isOpen ? {} : { onPick: picked.toggle })}
            rows={rows}
            rowKey={(row) => row.user_id}
            rowHeight={isOpen ? 44 : 30}
            onOpen={onOpen}
            openKey={openId}
            onHold={setHeld}
            keys
            isWaiting={found.isPlaceholderData}
            columnMenu={!isOpen}
            sort={{ key: sort, descending }}
            onSort={setOrder}
            empty={<NoUsers search={search} />}
            footer={<Pages search={search} isOpen={isOpen} />}
          />
        </>
      )}
    </QueryView>
  );
}

function NoUsers({ search: { found, answered, isNarrowed, clear } }: { readonly search: UserSearch }) {
  const { searched, filter } = answered;
  // Not shown while a search is under way.
  if (found.isPlaceholderData) return <EmptyView title="Searching…" />;
  if (!isNarrowed)
    return (
      <EmptyView title="No users yet">
        A user appears here with the first call that your product asks for.
      </EmptyView>
    );
  return (
    <>
      <EmptyView
        title="No user fits"
        actions={
          <button type="button" className={css.preset} onClick={clear}>
            Show all users
          </button>
        }
      >
        {searched
          ? `Nobody's name, e-mail or id contains “${clip(cleanText(searched), 60)}”${filter === "all" ? "" : " among these"}.`
          : "Nobody is in this group now."}
      </EmptyView>
      {searched ? <Elsewhere query={searched} /> : null}
    </>
  );
}

/** Where else the text was found: in a payment nobody was credited for, a Stripe event that waits, a difference. */
function Elsewhere({ query }: { readonly query: string }): ReactNode {
  const found = useCall("search.everything", { query }, { staleMs: 5000 });
  const hits = (found.data ?? []).filter(({ kind }) => kind !== "user" && kind !== "rule");
  if (hits.length === 0) return null;
  return (
    <section className={css.elsewhere} aria-label="Found elsewhere">
      <h2>No user has it, but it is known</h2>
      <ul>
        {hits.map((hit) => (
          <li key={`${hit.kind} ${hit.id}`}>
            <a href={`#${hitAddress(hit)}`}>
              <SafeText text={hit.title} length={60} />
            </a>
            {hit.subtitle ? (
              <span className={css.quiet}>
                {" "}
                <SafeText text={hit.subtitle} length={160} />
              </span>
            ) : null}
          </li>
        ))}
      </ul>
    </section>
  );
}

/** Which rows these are, how old they are, and the way to others. */
function Pages({ search, isOpen }: { readonly search: UserSearch; readonly isOpen: boolean }): ReactNode {
  const { found, limit, setLimit, pagesBefore, goBack, goNext, next } = search;
  const page = found.data;
  const first = pagesBefore * limit + 1;
  const shown = page?.accounts.length ?? 0;
  return (
    <>
      <span>
        {!page || shown === 0
          ? ""
          : `${first.toLocaleString("en")}–${(first + shown - 1).toLocaleString("en")} of ${page.total_is_exact ? "" : "about "}${page.total.toLocaleString("en")}`}
        {found.isPlaceholderData ? ", searching…" : ""}
        {isOpen ? "" : shown === 0 ? "Read " : ", read "}
        {isOpen ? null : <Time at={new Date(found.dataUpdatedAt).toISOString()} />}
      </span>
      <ActionIcon
        aria-label="Read the list again"
        title="Read the list again (r)"
        onClick={() => void found.refetch()}
      >
        <RefreshIcon size={14} />
      </ActionIcon>
      <span className={css.pages}>
        {isOpen ? null : (
          <Select
            aria-label="Rows a page"
            w={104}
            allowDeselect={false}
            data={["20", "50", "100"].map((value) => ({ value, label: `${value} a page` }))}
            value={String(limit)}
            onChange={(value) => setLimit(Number(value ?? 20))}
          />
        )}
        <ActionIcon
          aria-label="Page before"
          title="Page before ([)"
          disabled={pagesBefore === 0}
          onClick={goBack}
        >
          <ChevronLeftIcon />
        </ActionIcon>
        <ActionIcon aria-label="Next page" title="Next page (])" disabled={next === null} onClick={goNext}>
          <ChevronRightIcon />
        </ActionIcon>
      </span>
    </>
  );
}
