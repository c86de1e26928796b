import { Button, Select } from "@mantine/core";
import { useInfiniteQuery } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type {
  Difference,
  LedgerSide,
  Report,
  StripeSide,
} from "../../../../shared/governance/reconciliation/types.ts";
import { callOrThrow, toFailure, useConsole } from "../../lib/console.tsx";
import { formatChange, formatTokens } from "../../lib/format.ts";
import { navigate, placeAddress } from "../../lib/router.ts";
import { linkHere } from "../../lib/live.ts";
import { capitalise, cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { type Column, DataTable } from "../../ui/data-table.tsx";
import { DeskBar } from "../../ui/desk.tsx";
import { CheckIcon, CopyIcon, LinkIcon } from "../../ui/icons.tsx";
import { copyText, Facts, Id, Note, SafeText, Section, Tag, Time, Tokens } from "../../ui/parts.tsx";
import { DetailBar, DetailScroll, SideDetail } from "../../ui/side-detail.tsx";
import { EmptyView, ErrorView, FailureLine, Skeleton } from "../../ui/states.tsx";
import css from "./finance.module.css";
import { classMeans, className, differenceText, minorMoney } from "./words.ts";
import { translated } from "../../lib/language.ts";

const PAGE = 200;

const columns: readonly Column<Difference>[] = [
  {
    id: "class",
    header: "Class",
    width: 150,
    grow: 0.8,
    fixed: true,
    cell: (each) => (
      <Tag tone={each.blocks ? "red" : "grey"} dot plain>
        {className(each.class)}
      </Tag>
    ),
  },
  {
    id: "money",
    header: "Money",
    width: 90,
    align: "right",
    hint: "Stripe's side less the ledger's",
    cell: (each) => minorMoney(each.amount_minor, each.currency),
  },
  {
    id: "tokens",
    header: "Tokens",
    width: 96,
    align: "right",
    hint: "What the ledger has too many (+) or too few (−)",
    cell: (each) => (each.tokens === 0 ? "—" : formatChange(each.tokens)),
  },
  {
    id: "user",
    header: "User",
    width: 110,
    grow: 0.6,
    cell: (each) => (each.user_id ? <Id value={each.user_id} head={10} copy={false} /> : "—"),
  },
  {
    id: "payment",
    header: "Payment",
    width: 120,
    grow: 0.6,
    cell: (each) => {
      const id = each.stripe?.charge_id ?? each.stripe?.payment_intent_id ?? each.ledger?.charge_id ?? null;
      return id ? <Id value={id} head={9} copy={false} /> : "—";
    },
  },
  { id: "at", header: "When", width: 120, cell: (each) => <Time at={each.occurred_at} form="short" /> },
  {
    id: "age",
    header: "Age",
    width: 56,
    align: "right",
    hint: "Days to the end of the period",
    cell: (each) => (each.age_days === null ? "—" : `${each.age_days} d`),
  },
  {
    id: "correction",
    header: "Proposed",
    width: 110,
    grow: 0.7,
    cell: (each) => capitalise(codeWords(each.correction.action)),
  },
];

export function Differences({
  runId,
  report,
  differenceClass,
  openId,
}: {
  readonly runId: string;
  readonly report: Report;
  readonly differenceClass: string | null;
  readonly openId: string | null;
}): ReactNode {
  const client = useConsole();
  const query = useInfiniteQuery({
    queryKey: ["finance.differences", { run_id: runId, difference_class: differenceClass }],
    queryFn: ({ pageParam }) =>
      callOrThrow(client, "finance.differences", {
        run_id: runId,
        difference_class: differenceClass,
        offset: pageParam,
        limit: PAGE,
      }),
    initialPageParam: 0,
    getNextPageParam: (page, pages) => {
      const read = pages.reduce((sum, each) => sum + each.differences.length, 0);
      return page.differences.length > 0 && read < page.total ? read : null;
    },
  });
  const address = (id: string | null): string =>
    placeAddress(["finance", "runs", runId, "differences", ...(id ? [id] : [])], { class: differenceClass });
  if (!query.data)
    return query.error ? (
      <ErrorView failure={toFailure(query.error)} onRetry={() => void query.refetch()} />
    ) : (
      <Skeleton lines={10} />
    );
  const rows = query.data.pages.flatMap((page) => page.differences as Difference[]);
  const total = query.data.pages[0]?.total ?? 0;
  const open = openId ? rows.find((each) => each.difference_id === openId) : undefined;
  const close = (): void => navigate(address(null));
  return (
    <SideDetail
      id="differences"
      initialWidth={560}
      minListWidth={320}
      detailLabel="Difference"
      onClose={close}
      list={
        <>
          <DeskBar title="">
            <Select
              aria-label="Class"
              placeholder="All classes"
              w={260}
              clearable
              data={report.classes.map((each) => ({
                value: each.class,
                label: `${className(each.class)} (${each.count.toLocaleString("en")})`,
              }))}
              value={differenceClass}
              onChange={(value) =>
                navigate(placeAddress(["finance", "runs", runId, "differences"], { class: value }))
              }
            />
            <span className={css.quiet}>{differenceClass ? classMeans(differenceClass) : ""}</span>
          </DeskBar>
          {query.error ? (
            <FailureLine failure={toFailure(query.error)} onRetry={() => void query.refetch()} />
          ) : null}
          <DataTable
            id={openId ? "differences-narrow" : "differences"}
            label="Differences"
            columns={openId ? columns.slice(0, 3) : columns}
            rows={rows}
            rowKey={(each) => each.difference_id}
            keys
            openKey={openId}
            onOpen={(each) => navigate(address(each.difference_id), { replace: openId !== null })}
            onEnd={() => {
              if (query.hasNextPage && !query.isFetchingNextPage) void query.fetchNextPage();
            }}
            columnMenu={!openId}
            empty={<EmptyView title="No differences">Both sides agree on every line.</EmptyView>}
            footer={
              <span>
                {rows.length < total ? `${rows.length.toLocaleString("en")} of ` : ""}
                {counted(total, "difference")}
              </span>
            }
          />
        </>
      }
      detail={
        openId === null ? null : open ? (
          <DifferenceDetail
            key={open.difference_id}
            difference={open}
            address={address(open.difference_id)}
            onClose={close}
          />
        ) : (
          <>
            <DetailBar title="Difference" onClose={close} />
            <EmptyView title="This difference is not in the list">
              It may have been resolved in a later run, or lies further down: scroll the list or choose its
              class.
            </EmptyView>
          </>
        )
      }
    />
  );
}

function DifferenceDetail({
  difference,
  address,
  onClose,
}: {
  readonly difference: Difference;
  readonly address: string;
  readonly onClose: () => void;
}): ReactNode {
  const { correction } = difference;
  return (
    <>
      <DetailBar
        title={
          <span className={css.detailTitle}>
            {className(difference.class)}
            <Tag tone={difference.blocks ? "red" : "grey"}>{difference.blocks ? "to resolve" : "listed"}</Tag>
          </span>
        }
        onClose={onClose}
      />
      <DetailScroll>
        <div className={css.detail}>
          <div>
            <SafeText text={translated(difference.explanation)} length={1000} />
          </div>
          <Note tone={correction.books ? "blue" : "grey"}>
            <b>Proposed: </b>
            <SafeText text={translated(correction.words)} length={1000} />
            {correction.tokens === null || correction.tokens === 0 ? null : (
              <span className={css.quiet}> ({formatChange(correction.tokens)} tokens)</span>
            )}
            {correction.books ? null : <span className={css.quiet}> Nothing is booked.</span>}
          </Note>
          <BothSides difference={difference} />
          <CopyDifference difference={difference} address={address} />
        </div>
      </DetailScroll>
    </>
  );
}

/** Buttons that give a ticket what it needs. */
export function CopyDifference({
  difference,
  address,
}: {
  readonly difference: Difference;
  readonly address: string;
}): ReactNode {
  const [copied, setCopied] = useState<string | null>(null);
  const copy = (what: string, text: string): void => {
    void copyText(text);
    setCopied(what);
    setTimeout(() => setCopied(null), 1200);
  };
  return (
    <div className={css.buttons}>
      <Button
        leftSection={copied === "ticket" ? <CheckIcon size={14} /> : <CopyIcon size={14} />}
        onClick={() => copy("ticket", differenceText(difference))}
      >
        {copied === "ticket" ? "Copied" : "Copy for ticket"}
      </Button>
      <Button
        leftSection={copied === "link" ? <CheckIcon size={14} /> : <LinkIcon size={14} />}
        onClick={() => copy("link", linkHere(address))}
      >
        {copied === "link" ? "Copied" : "Copy link"}
      </Button>
    </div>
  );
}

/** Stripe's side and the ledger's, what is at stake, and what ties the two. */
export function BothSides({ difference }: { readonly difference: Difference }): ReactNode {
  return (
    <>
      <div className={css.sides}>
        <div className={css.side}>
          <h3>Stripe</h3>
          {difference.stripe ? (
            <StripeFacts side={difference.stripe} />
          ) : (
            <span className={css.quiet}>Nothing there.</span>
          )}
        </div>
        <div className={css.side}>
          <h3>Ledger</h3>
          {difference.ledger ? (
            <LedgerFacts side={difference.ledger} />
          ) : (
            <span className={css.quiet}>Nothing there.</span>
          )}
        </div>
      </div>
      <Facts
        rows={[
          ["Money at stake", minorMoney(difference.amount_minor, difference.currency)],
          ["Tokens at stake", difference.tokens === 0 ? "—" : formatChange(difference.tokens)],
          [
            "User",
            difference.user_id ? (
              <a key="u" href={`#${placeAddress(["users", difference.user_id])}`}>
                <SafeText text={difference.user_id} length={60} />
              </a>
            ) : (
              "not known"
            ),
          ],
          ["Difference", <Id key="d" value={difference.difference_id} head={30} tail={8} />],
        ]}
      />
      {difference.trail.length > 0 ? (
        <Section title="What ties the two, or was tried">
          <ol className={css.trail}>
            {difference.trail.map((step) => (
              <li key={step}>{clip(cleanText(step), 300)}</li>
            ))}
          </ol>
        </Section>
      ) : null}
      {difference.suggestion ? (
        <Note tone="amber">
          Perhaps: <SafeText text={translated(difference.suggestion.words)} length={500} />
        </Note>
      ) : null}
    </>
  );
}

const id = (value: string | null): ReactNode => (value ? <Id value={value} head={8} tail={4} /> : null);

/** Only what is known. */
function known(rows: readonly (readonly [string, ReactNode])[]): readonly (readonly [string, ReactNode])[] {
  return rows.filter(([, value]) => value !== null && value !== undefined && value !== "—");
}

function StripeFacts({ side }: { readonly side: StripeSide }): ReactNode {
  return (
    <Facts
      rows={known([
        ["Event", capitalise(codeWords(side.event))],
        ["Status", side.status ? codeWords(side.status) : null],
        ["Amount", minorMoney(side.amount_minor, side.currency)],
        ["Refunded", side.refunded_minor ? minorMoney(side.refunded_minor, side.currency) : null],
        ["Disputed", side.disputed_minor ? minorMoney(side.disputed_minor, side.currency) : null],
        ["Dispute", side.dispute_status ? codeWords(side.dispute_status) : null],
        ["At", side.created ? <Time key="at" at={side.created} form="short" /> : null],
        ["Charge", id(side.charge_id)],
        ["Intent", id(side.payment_intent_id)],
        ["Checkout", id(side.checkout_session_id)],
        ["Order", id(side.order_id)],
        ["Invoice", id(side.invoice_id)],
        ["Customer", id(side.customer_id)],
        [
          "Rows",
          side.rows.length > 0
            ? side.rows
                .slice(0, 4)
                .map((row) => `${clip(cleanText(row.file), 30)}:${formatTokens(row.row)}`)
                .join(", ")
            : null,
        ],
      ])}
    />
  );
}

function LedgerFacts({ side }: { readonly side: LedgerSide }): ReactNode {
  return (
    <Facts
      rows={known([
        ["Entry", capitalise(codeWords(side.record_type))],
        ["Tokens", <Tokens key="t" value={side.tokens} />],
        ["Reversed", side.tokens_reversed ? <Tokens key="r" value={side.tokens_reversed} /> : null],
        ["Left", side.tokens_remaining === null ? null : <Tokens key="l" value={side.tokens_remaining} />],
        ["Amount", minorMoney(side.amount_minor, side.currency)],
        ["Pack", side.pack_id],
        ["At", <Time key="a" at={side.created} form="short" />],
        ["Charge", id(side.charge_id)],
        ["Intent", id(side.payment_intent_id)],
        ["Entry no.", formatTokens(side.transaction_id)],
        ["Lot", side.lot_id === null ? null : formatTokens(side.lot_id)],
      ])}
    />
  );
}
