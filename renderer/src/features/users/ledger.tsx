/** A user's ledger: searched, each entry with where it came from, and its proof at the press of a button. */
import { Button, Select, TextInput } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { Failure } from "../../../../shared/contract/basics.ts";
import type { LedgerEntry, LedgerFilter, LedgerProof } from "../../../../shared/contract/history.ts";
import { callOrThrow, useConsole } from "../../lib/console.tsx";
import { saveFile } from "../../lib/csv.ts";
import { formatChange } from "../../lib/format.ts";
import { useIsLive } from "../../lib/live.ts";
import { stripeLink } from "../../lib/payments.ts";
import { changeQuery, placeAddress, usePlace } from "../../lib/router.ts";
import { useSettledText } from "../../lib/settled.ts";
import { capitalise, cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { CheckIcon, DownloadIcon, SearchIcon } from "../../ui/icons.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { Id, Note, SafeText, Time, Tokens } from "../../ui/parts.tsx";
import { PagedTable } from "../../ui/paged-table.tsx";
import { FailureLine } from "../../ui/states.tsx";
import { BalanceExplained } from "./balance-explained.tsx";
import css from "./users.module.css";

const PAGE = 50;
const types = [
  "usage",
  "purchase",
  "subscription_grant",
  "bonus",
  "refund",
  "adjustment",
  "reversal",
  "expiry",
  "debt_recovery",
] as const;

export function Ledger({ userId, zone }: { readonly userId: string; readonly zone: string }): ReactNode {
  const client = useConsole();
  const { query: address } = usePlace();
  const text = (address.get("find") ?? "").trim();
  const search = useSettledText(text, (find) => changeQuery({ find: find.trim() }));
  const type = types.find((each) => each === address.get("type")) ?? null;
  const filter: LedgerFilter = { type, text: text || null, from: null, to: null };
  const query = useInfiniteQuery({
    queryKey: ["users.ledger", { user_id: userId, filter }],
    queryFn: ({ pageParam }) =>
      callOrThrow(client, "users.ledger", { user_id: userId, filter, before_id: pageParam, limit: PAGE }),
    initialPageParam: null as number | null,
    getNextPageParam: (page) => page.next_before_id,
  });
  const rows = query.data?.pages.flatMap((page) => page.entries) ?? [];
  return (
    <div className={css.column}>
      <div className={css.chips}>
        <TextInput
          aria-label="Search the ledger"
          placeholder="Id, description or reason"
          leftSection={<SearchIcon size={14} />}
          maxLength={200}
          value={search.typed}
          onChange={(event) => search.type(event.currentTarget.value)}
          onKeyDown={(event) => event.key === "Enter" && search.settleNow()}
        />
        <Select
          aria-label="Type of entry"
          placeholder="Every type"
          w={160}
          clearable
          data={types.map((value) => ({ value, label: capitalise(codeWords(value)) }))}
          value={type}
          onChange={(value) => changeQuery({ type: value })}
        />
        <ExportStatement userId={userId} />
        <Verify userId={userId} />
      </div>
      <BalanceExplained userId={userId} zone={zone} />
      <PagedTable
        query={query}
        skeletonLines={8}
        label="Ledger, newest first"
        columns={columns(userId, zone)}
        rows={rows}
        rowKey={(row) => String(row.transaction_id)}
        empty={
          text || type
            ? query.hasNextPage
              ? "Nothing in the entries looked at so far."
              : "No entry fits."
            : "The ledger is empty: nothing was granted or used yet."
        }
        more={
          rows.length === 0 && query.hasNextPage ? (
            <Button mt={8} onClick={() => void query.fetchNextPage()} loading={query.isFetchingNextPage}>
              Look further back
            </Button>
          ) : undefined
        }
      />
    </div>
  );
}

type Proof =
  | { readonly state: "none" | "checking" }
  | { readonly state: "checked"; readonly proof: LedgerProof; readonly at: string }
  | { readonly state: "failed"; readonly failure: Failure };

/** The whole ledger as a file that anybody can check without this project. */
function ExportStatement({ userId }: { readonly userId: string }): ReactNode {
  const client = useConsole();
  const isLive = useIsLive();
  const [busy, setBusy] = useState(false);
  const save = async (): Promise<void> => {
    setBusy(true);
    const answer = await client.call("users.statement", { user_id: userId });
    setBusy(false);
    if (!answer.ok) return showFailure("The statement was not written", answer.error);
    const { file_name: name, text, entries } = answer.value;
    saveFile(name, "application/x-ndjson", text);
    showDone(
      `${counted(entries, "entry", "entries")} written. npm run statement -- --check checks the file.`,
    );
  };
  return (
    <Button
      leftSection={<DownloadIcon size={14} />}
      disabled={!isLive}
      loading={busy}
      title={isLive ? "Every entry with its hash, oldest first: anybody can verify it" : "Needs a connection"}
      onClick={() => void save()}
    >
      Export statement
    </Button>
  );
}

/** Checks this account's chain and everything that must follow from it. */
function Verify({ userId }: { readonly userId: string }): ReactNode {
  const client = useConsole();
  const isLive = useIsLive();
  const [proof, setProof] = useState<Proof>({ state: "none" });
  const verify = async (): Promise<void> => {
    setProof({ state: "checking" });
    const answer = await client.call("users.verify", { user_id: userId });
    setProof(
      answer.ok
        ? { state: "checked", proof: answer.value, at: new Date().toISOString() }
        : { state: "failed", failure: answer.error },
    );
  };
  return (
    <>
      <Button
        leftSection={<CheckIcon size={14} />}
        disabled={!isLive}
        title={isLive ? "Checks every hash, balance, lot and counter of this account" : "Needs a connection"}
        loading={proof.state === "checking"}
        onClick={() => void verify()}
      >
        Verify this account
      </Button>
      {proof.state === "failed" ? (
        <FailureLine failure={proof.failure} onRetry={() => void verify()} />
      ) : null}
      {proof.state === "checked" ? (
        <div className={css.proof} role="status">
          <Verdict proof={proof.proof} at={proof.at} />
        </div>
      ) : null}
    </>
  );
}

function Verdict({ proof, at }: { readonly proof: LedgerProof; readonly at: string }): ReactNode {
  const entries = proof.entries_checked.toLocaleString("en");
  if (proof.problems.length === 0)
    return (
      <Note tone="green">
        <b>Sound</b>: {entries} {proof.entries_checked === 1 ? "entry" : "entries"}, hash by hash, and the
        balances, lots and counters that follow from them. Checked <Time at={at} />.
      </Note>
    );
  return (
    <Note tone="red">
      <b>
        {proof.problems.length.toLocaleString("en")} {proof.problems.length === 1 ? "fault" : "faults"} in{" "}
        {entries} entries
      </b>
      . Change nothing by hand; give this list to whoever looks after the database.
      <ul className={css.causes}>
        {proof.problems.slice(0, 20).map((each, index) => (
          <li key={index}>
            {capitalise(codeWords(each.problem))}
            {Object.entries(each)
              .filter(([key]) => key !== "problem" && key !== "user_id")
              .map(([key, value]) => `, ${codeWords(key)} ${clip(cleanText(String(value)), 60)}`)
              .join("")}
          </li>
        ))}
      </ul>
    </Note>
  );
}

const columns = (userId: string, zone: string): readonly Column<LedgerEntry>[] => [
  {
    id: "id",
    header: "Entry",
    width: 60,
    cell: (row) => <Id value={String(row.transaction_id)} copy={false} />,
  },
  {
    id: "at",
    header: "When",
    width: 120,
    cell: (row) => <Time at={row.created_at} form="short" zone={zone} />,
  },
  { id: "type", header: "Type", width: 90, cell: (row) => capitalise(codeWords(row.transaction_type)) },
  {
    id: "from",
    header: "From",
    width: 140,
    grow: 1,
    cell: (row) => (
      <>
        <Origin entry={row} userId={userId} />
        {row.description ? (
          <div className={css.quiet}>
            <SafeText text={row.description} length={160} />
          </div>
        ) : null}
      </>
    ),
  },
  {
    id: "amount",
    header: "Change",
    width: 80,
    align: "right",
    cell: (row) => (
      <span
        className={css.amount}
        data-sign={row.amount > 0 ? "plus" : "minus"}
        title={row.lots
          .map((lot) => `${formatChange(lot.tokens)} ${lot.kind ?? ""} (lot ${lot.lot_id})`)
          .join(", ")}
      >
        {formatChange(row.amount)}
      </span>
    ),
  },
  {
    id: "after",
    header: "Balance after",
    width: 90,
    align: "right",
    cell: (row) => <Tokens value={row.new_balance} />,
  },
];

function Origin({ entry, userId }: { readonly entry: LedgerEntry; readonly userId: string }): ReactNode {
  const { origin } = entry;
  const id = origin.id === null ? "" : clip(cleanText(String(origin.id)), 60);
  const text = (key: string): string | null =>
    typeof origin[key] === "string" ? (origin[key] as string) : null;
  switch (origin.kind) {
    case "call":
      return (
        <>
          call{" "}
          <a href={`#${placeAddress(["users", userId, "decisions", String(origin["decision_id"])])}`}>{id}</a>
        </>
      );
    case "payment":
    case "refund":
    case "dispute": {
      const link = stripeLink({
        payment_intent_id: text("payment_intent_id"),
        charge_id: text("charge_id"),
        invoice_id: text("invoice_id"),
        livemode: origin["livemode"] !== false,
      });
      return (
        <>
          {origin.kind}{" "}
          {link ? (
            <a href={link} target="_blank" rel="noreferrer noopener" title="At Stripe">
              {id}
            </a>
          ) : (
            id
          )}
        </>
      );
    }
    case "act":
      return (
        <>
          <a href={`#${placeAddress(["users", userId, "acts"])}`}>act {id}</a>
          {text("operator") ? ` by ${clip(cleanText(text("operator") ?? ""), 60)}` : ""}
        </>
      );
    case "allowance":
      return "the plan's allowance";
    case "expiry":
      return "lots that expired";
    case "debt":
      return "debt that was paid";
    case "backend":
      return id ? `the product's backend, ${id}` : "the product's backend";
  }
}
