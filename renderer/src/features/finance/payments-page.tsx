/** Payments as a list: found by whatever is known, the state of each, the lot it bought, the difference about it. */
import { Select, TextInput } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { type ListedPayment, paymentState } from "../../../../shared/contract/payments.ts";
import { callOrThrow, toFailure, useConsole } from "../../lib/console.tsx";
import { money, paymentSigns, stripeLink } from "../../lib/payments.ts";
import { changeQuery, navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { useSettledText } from "../../lib/settled.ts";
import { cleanText, counted } from "../../lib/text.ts";
import { type Column, DataTable } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { OutIcon, SearchIcon } from "../../ui/icons.tsx";
import { Id, Tag, Time, Tokens, UserName } from "../../ui/parts.tsx";
import { EmptyView, ErrorView, FailureLine, Skeleton } from "../../ui/states.tsx";
import css from "./finance.module.css";
import { className } from "./words.ts";

const PAGE = 100;
const stateWords = {
  no_user: "Without a user",
  not_credited: "Not credited",
  refunded: "Refunded",
  disputed: "Disputed",
  difference: "With a difference to decide",
} as const;

const decided: ReadonlySet<string> = new Set(["verified", "carried_forward", "written_off"]);

const columns: readonly Column<ListedPayment>[] = [
  {
    id: "at",
    header: "Paid",
    // A day of last year has its year: all of December in January.
    width: 136,
    fixed: true,
    cell: (row) => <Time at={row.paid_at} form="short" />,
  },
  {
    id: "user",
    header: "User",
    width: 96,
    grow: 1,
    fixed: true,
    cell: (row) =>
      row.user_id === null ? (
        <Tag tone="amber">no user</Tag>
      ) : (
        <a
          href={`#${placeAddress(["users", row.user_id, "payments"])}`}
          onClick={(event) => event.stopPropagation()}
        >
          <UserName name={row.display_name} id={row.user_id} />
        </a>
      ),
  },
  {
    id: "amount",
    header: "Amount",
    width: 78,
    align: "right",
    cell: (row) => (row.amount_minor !== null && row.currency ? money(row.amount_minor, row.currency) : "—"),
  },
  {
    id: "tokens",
    header: "Tokens",
    width: 84,
    align: "right",
    hint: "Bought by it",
    cell: (row) => <Tokens value={row.lots.reduce((sum, lot) => sum + lot.tokens, 0)} />,
  },
  {
    id: "left",
    header: "Left",
    width: 84,
    align: "right",
    hint: "Of these tokens, not spent and not taken back",
    cell: (row) => <Tokens value={row.lots.reduce((sum, lot) => sum + lot.remaining, 0)} />,
  },
  {
    id: "for",
    header: "For",
    width: 98,
    cell: (row) => {
      const pack = row.lots.find((lot) => lot.pack_id)?.pack_id;
      return pack ? cleanText(pack) : row["subscription_id"] ? "subscription" : null;
    },
  },
  {
    id: "state",
    header: "State",
    width: 80,
    grow: 0.7,
    cell: (row) => {
      const signs = paymentSigns(row);
      return (
        <span className={css.tags}>
          {signs.length === 0 ? <Tag tone="green">paid</Tag> : null}
          {signs.map((sign) => (
            <Tag key={sign.word} tone={sign.tone}>
              {sign.word}
            </Tag>
          ))}
        </span>
      );
    },
  },
  {
    id: "difference",
    header: "Difference",
    width: 80,
    grow: 0.8,
    cell: (row) => (
      <span className={css.tags}>
        {row.differences.map((each) => (
          <a
            key={each.difference_id}
            href={`#${placeAddress(["finance", "cases", each.difference_id], { status: "all" })}`}
            onClick={(event) => event.stopPropagation()}
          >
            <Tag tone={decided.has(each.status) || !each.blocks ? "grey" : "amber"}>
              {className(each.class)}
            </Tag>
          </a>
        ))}
      </span>
    ),
  },
  {
    id: "charge",
    header: "Charge",
    width: 136,
    cell: (row) => {
      const id = row.charge_id ?? row.payment_intent_id ?? row.invoice_id;
      const link = stripeLink(row);
      return (
        <span style={{ whiteSpace: "nowrap" }}>
          {id ? <Id value={id} head={6} tail={4} /> : null}{" "}
          {link ? (
            <a
              href={link}
              target="_blank"
              rel="noreferrer noopener"
              aria-label="Open this payment at Stripe"
              title="Open this payment at Stripe"
              onClick={(event) => event.stopPropagation()}
            >
              <OutIcon size={14} />
            </a>
          ) : null}
        </span>
      );
    },
  },
  { id: "order", header: "Order", width: 110, hidden: true, cell: (row) => row.order_id ?? "—" },
  { id: "customer", header: "Customer", width: 130, hidden: true, cell: (row) => row.customer_id ?? "—" },
  { id: "email", header: "E-mail", width: 150, hidden: true, cell: (row) => cleanText(row.email ?? "—") },
];

export function PaymentsPage(): ReactNode {
  const client = useConsole();
  const { query: address } = usePlace();
  const text = (address.get("find") ?? "").trim();
  const state = paymentState.options.find((each) => each === address.get("state")) ?? null;
  const search = useSettledText(text, (find) => changeQuery({ find: find.trim() || null }));
  const query = useInfiniteQuery({
    queryKey: ["finance.payments", { text, state }],
    queryFn: ({ pageParam }) =>
      callOrThrow(client, "finance.payments", {
        text: text || null,
        state,
        before_id: pageParam,
        limit: PAGE,
      }),
    initialPageParam: null as number | null,
    getNextPageParam: (page) => page.next_before_id,
  });
  const rows = query.data?.pages.flatMap((page) => page.payments) ?? [];
  return (
    <>
      <DeskBar title="Payments">
        <TextInput
          aria-label="Search payments"
          placeholder="Charge, invoice, order, customer, user or e-mail"
          w={320}
          leftSection={<SearchIcon size={14} />}
          maxLength={255}
          value={search.typed}
          onChange={(event) => search.type(event.currentTarget.value)}
          onKeyDown={(event) => event.key === "Enter" && search.settleNow()}
        />
        <Select
          aria-label="State"
          placeholder="Any state"
          w={210}
          clearable
          data={paymentState.options.map((value) => ({ value, label: stateWords[value] }))}
          value={state}
          onChange={(value) => changeQuery({ state: value })}
        />
        <Grow />
      </DeskBar>
      {query.data === undefined ? (
        query.error ? (
          <ErrorView failure={toFailure(query.error)} onRetry={() => void query.refetch()} />
        ) : (
          <Skeleton lines={10} />
        )
      ) : (
        <>
          {query.error ? (
            <FailureLine failure={toFailure(query.error)} onRetry={() => void query.refetch()} />
          ) : null}
          <DataTable
            id="payments"
            label="Payments, the newest first"
            columns={columns}
            rows={rows}
            rowKey={(row) => String(row.payment_id)}
            keys
            columnMenu
            onOpen={(row) => {
              const [difference] = row.differences;
              if (row.user_id !== null) navigate(placeAddress(["users", row.user_id, "payments"]));
              else if (difference)
                navigate(placeAddress(["finance", "cases", difference.difference_id], { status: "all" }));
            }}
            onEnd={() => {
              if (query.hasNextPage && !query.isFetchingNextPage) void query.fetchNextPage();
            }}
            empty={
              text || state ? (
                <EmptyView title="No payment like this">
                  A whole id finds its payment; so do a name and an e-mail.
                </EmptyView>
              ) : (
                <EmptyView title="No payment yet">Payments appear here as Stripe reports them.</EmptyView>
              )
            }
            footer={
              <span>
                {counted(rows.length, "payment")}
                {query.hasNextPage ? ", older ones as you scroll" : ""}
              </span>
            }
          />
        </>
      )}
    </>
  );
}
