/** What a user paid: amount, tokens, what was refunded or disputed, and the same payment at Stripe. */
import { useInfiniteQuery } from "@tanstack/react-query";
import type { ComponentProps, ReactNode } from "react";
import type { Payment } from "../../../../shared/contract/users.ts";
import { callOrThrow, useConsole } from "../../lib/console.tsx";
import { useIsLive } from "../../lib/live.ts";
import { money, paymentSigns, stripeLink } from "../../lib/payments.ts";
import { cleanText } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { Id, Tag, Time, Tokens } from "../../ui/parts.tsx";
import { PagedTable } from "../../ui/paged-table.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import css from "./users.module.css";

const columns: readonly Column<Payment>[] = [
  { id: "at", header: "Paid", width: 120, cell: (row) => <Time at={row.paid_at} form="short" /> },
  {
    id: "amount",
    header: "Amount",
    width: 80,
    align: "right",
    cell: (row) =>
      row.amount_minor !== null && row.currency ? money(row.amount_minor, row.currency) : <>—</>,
  },
  {
    id: "tokens",
    header: "Tokens",
    width: 80,
    align: "right",
    cell: (row) => <Tokens value={row.lots.reduce((sum, lot) => sum + lot.tokens, 0)} />,
  },
  {
    id: "left",
    header: "Left",
    width: 80,
    align: "right",
    hint: "Of these tokens, not spent and not taken back",
    cell: (row) => <Tokens value={row.lots.reduce((sum, lot) => sum + lot.remaining, 0)} />,
  },
  {
    id: "for",
    header: "For",
    width: 70,
    cell: (row) => {
      const pack = row.lots.find((lot) => lot.pack_id)?.pack_id;
      return pack ? cleanText(pack) : row["subscription_id"] ? "subscription" : null;
    },
  },
  {
    id: "state",
    header: "State",
    width: 120,
    grow: 1,
    cell: (row) => (
      <span className={css.tags}>
        {paymentSigns(row).map((sign) => (
          <Tag key={sign.word} tone={sign.tone}>
            {sign.word}
          </Tag>
        ))}
      </span>
    ),
  },
  {
    id: "charge",
    header: "Charge",
    width: 130,
    cell: (row) => {
      const id = row.charge_id ?? row.payment_intent_id ?? row.invoice_id;
      return id ? <Id value={id} head={8} tail={4} /> : null;
    },
  },
  {
    id: "stripe",
    header: "",
    width: 50,
    cell: (row) => {
      const link = stripeLink(row);
      return link ? (
        <a href={link} target="_blank" rel="noreferrer noopener" aria-label="Open this payment at Stripe">
          Stripe
        </a>
      ) : null;
    },
  },
];

/** The most payments that come with the page of a user (console_get_account). */
const onThePage = 50;

export function Payments({
  userId,
  payments,
}: {
  readonly userId: string;
  readonly payments: readonly Payment[];
}): ReactNode {
  const table = {
    label: "Payments, newest first",
    columns,
    rowKey: (row: Payment) => String(row.payment_id),
    empty: "This user has paid for nothing through Stripe.",
  };
  const isLive = useIsLive();
  return payments.length < onThePage || !isLive ? (
    <PlainTable {...table} rows={payments} />
  ) : (
    <ManyPayments userId={userId} table={table} />
  );
}

function ManyPayments({
  userId,
  table,
}: {
  readonly userId: string;
  readonly table: Omit<ComponentProps<typeof PlainTable<Payment>>, "rows">;
}): ReactNode {
  const client = useConsole();
  const query = useInfiniteQuery({
    queryKey: ["finance.payments", { user_id: userId }],
    queryFn: ({ pageParam }) =>
      callOrThrow(client, "finance.payments", {
        text: null,
        state: null,
        user_id: userId,
        before_id: pageParam,
        limit: 100,
      }),
    initialPageParam: null as number | null,
    getNextPageParam: (page) => page.next_before_id,
  });
  return (
    <PagedTable
      {...table}
      query={query}
      skeletonLines={8}
      rows={query.data?.pages.flatMap((page) => page.payments) ?? []}
    />
  );
}
