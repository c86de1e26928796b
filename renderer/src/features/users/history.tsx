/** Everything that happened to a user, on one line of time, which filters. */
import { useInfiniteQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { type HistoryItem, type HistoryKind, historyKinds } from "../../../../shared/contract/history.ts";
import { alertSentence, alertTitle } from "../../lib/alert-sentences.ts";
import { callOrThrow, useConsole } from "../../lib/console.tsx";
import { formatChange, formatTokens } from "../../lib/format.ts";
import { changeQuery, placeAddress, usePlace } from "../../lib/router.ts";
import { capitalise, cleanText, codeWords } from "../../lib/text.ts";
import { money, stripeLink } from "../../lib/payments.ts";
import type { Column } from "../../ui/data-table.tsx";
import { Reason, SafeText, Tag, Time } from "../../ui/parts.tsx";
import { PagedTable } from "../../ui/paged-table.tsx";
import type { Tone } from "../../ui/theme.ts";
import { collapseStops, type HistoryRow } from "./history-rows.ts";
import css from "./users.module.css";

/** Calls that were stopped alike are one row: a page of them may be few. */
const PAGE = 200;

const kindWords: Readonly<Record<HistoryKind, { readonly many: string; readonly word: string }>> = {
  stopped: { many: "Calls stopped", word: "stopped" },
  purchase: { many: "Purchases", word: "paid" },
  refund: { many: "Refunds", word: "refunded" },
  dispute: { many: "Disputes", word: "disputed" },
  grant: { many: "Grants", word: "tokens" },
  act: { many: "Acts", word: "act" },
  alert: { many: "Alerts", word: "alert" },
  message: { many: "Messages", word: "message" },
};

export function History({ userId, zone }: { readonly userId: string; readonly zone: string }): ReactNode {
  const client = useConsole();
  const asked = (usePlace().query.get("show") ?? "").split(",");
  const chosen = historyKinds.filter((kind) => asked.includes(kind));
  const kinds = chosen.length === 0 ? null : chosen;
  const query = useInfiniteQuery({
    queryKey: ["users.history", { user_id: userId, kinds }],
    queryFn: ({ pageParam }) =>
      callOrThrow(client, "users.history", { user_id: userId, kinds, cursor: pageParam, limit: PAGE }),
    initialPageParam: null as string | null,
    getNextPageParam: (page) => page.next_cursor,
  });
  const choose = (kind: HistoryKind): void =>
    changeQuery({
      show: historyKinds.filter((each) => (each === kind) !== chosen.includes(each)).join(),
    });
  const items = query.data?.pages.flatMap((page) => page.items) ?? [];
  const rows = collapseStops(items);
  return (
    <>
      <div className={css.chips} role="group" aria-label="What to show">
        <button
          type="button"
          className={css.preset}
          aria-pressed={kinds === null}
          onClick={() => changeQuery({ show: null })}
        >
          Everything
        </button>
        {historyKinds.map((kind) => (
          <button
            key={kind}
            type="button"
            className={css.preset}
            aria-pressed={chosen.includes(kind)}
            onClick={() => choose(kind)}
          >
            {kindWords[kind].many}
          </button>
        ))}
      </div>
      <PagedTable
        query={query}
        skeletonLines={8}
        label="History, newest first"
        columns={columns(userId, zone)}
        rows={rows}
        rowKey={({ item }) => item.key}
        empty={kinds === null ? "Nothing has happened to this account yet." : "Nothing of this kind."}
      />
    </>
  );
}

function sign(item: HistoryItem): { readonly tone: Tone; readonly word: string } {
  const { word } = kindWords[item.kind];
  switch (item.kind) {
    case "stopped":
      return { tone: "red", word };
    case "purchase":
      return item.tokens === null ? { tone: "amber", word: "not credited" } : { tone: "green", word };
    case "refund":
      return { tone: "grey", word: item.state === "succeeded" ? word : `refund ${item.state}` };
    case "dispute":
      return item.is_lost ? { tone: "red", word: "dispute lost" } : { tone: "amber", word };
    case "alert":
      return { tone: item.severity === "critical" ? "red" : "amber", word };
    case "message":
      return item.status === "failed" ? { tone: "red", word: "not delivered" } : { tone: "grey", word };
    case "act":
      if (item.action === "user_preferences") return { tone: "grey", word: "user" };
      return { tone: "blue", word: item.operator === null ? "rule" : word };
    case "grant":
      return { tone: item.amount > 0 ? "green" : "grey", word };
  }
}

const columns = (userId: string, zone: string): readonly Column<HistoryRow>[] => [
  {
    id: "at",
    header: "When",
    width: 120,
    cell: ({ item }) => <Time at={item.at} form="short" zone={zone} />,
  },
  {
    id: "kind",
    header: "What",
    width: 92,
    cell: ({ item }) => {
      const { tone, word } = sign(item);
      return (
        <Tag tone={tone} dot plain>
          {word}
        </Tag>
      );
    },
  },
  { id: "said", header: "Details", width: 160, grow: 1, cell: (row) => <Said row={row} userId={userId} /> },
  {
    id: "amount",
    header: "Tokens or money",
    width: 110,
    align: "right",
    cell: ({ item }) => <Amount item={item} />,
  },
];

function Amount({ item }: { readonly item: HistoryItem }): ReactNode {
  switch (item.kind) {
    case "grant":
      return (
        <span className={css.amount} data-sign={item.amount > 0 ? "plus" : "minus"}>
          {formatChange(item.amount)}
        </span>
      );
    case "purchase":
      return item.amount_minor !== null && item.currency ? money(item.amount_minor, item.currency) : null;
    case "refund":
    case "dispute":
      return item.currency ? money(item.amount_minor, item.currency) : null;
    default:
      return null;
  }
}

function Said({ row, userId }: { readonly row: HistoryRow; readonly userId: string }): ReactNode {
  const { item, count, since } = row;
  const here = (...parts: string[]): string => `#${placeAddress(["users", userId, ...parts])}`;
  switch (item.kind) {
    case "stopped":
      return (
        <>
          <a href={here("decisions", String(item.decision_id))}>
            {item.reason ? <Reason reason={item.reason} /> : "A rule"}
          </a>
          {item.rule_name && item.rule_name !== item.reason ? (
            <span className={css.quiet}> by {codeWords(cleanText(item.rule_name))}</span>
          ) : null}
          {count > 1 ? (
            <span className={css.quiet}>
              , {formatTokens(count)} calls since <Time at={since} form="short" />
            </span>
          ) : null}
        </>
      );
    case "purchase":
      return (
        <>
          {item.tokens === null ? "No tokens were granted for it" : `${formatTokens(item.tokens)} tokens`}
          {item.pack_id ? <span className={css.quiet}> {cleanText(item.pack_id)}</span> : null}{" "}
          <AtStripe item={item} />
        </>
      );
    case "refund":
      return <AtStripe item={item} />;
    case "dispute":
      return (
        <>
          {capitalise(codeWords(item.status))} <AtStripe item={item} />
        </>
      );
    case "grant":
      return (
        <>
          <a href={`#${placeAddress(["users", userId, "ledger"], { find: String(item.transaction_id) })}`}>
            {capitalise(codeWords(item.transaction_type))}
          </a>{" "}
          {item.description ? <SafeText text={item.description} length={160} /> : null}
          {item.debt > 0 ? (
            <span className={css.quiet}>, {formatTokens(item.debt)} still owed after it</span>
          ) : null}
        </>
      );
    case "act":
      return (
        <>
          {capitalise(codeWords(item.action))}
          <span className={css.quiet}>
            {" "}
            by{" "}
            {item.operator === null ? (
              item.rule_name ? (
                codeWords(cleanText(item.rule_name))
              ) : item.action === "user_preferences" ? (
                "the user"
              ) : (
                "upkeep"
              )
            ) : (
              <SafeText text={item.operator} length={60} />
            )}
          </span>
          {item.reason ? (
            <>
              : <SafeText text={item.reason} length={200} />
            </>
          ) : null}
        </>
      );
    case "alert": {
      const alert = { ...item, kind: item.alert_kind };
      return (
        <>
          <a
            className={css.inText}
            href={`#${placeAddress(["alerts", String(item.alert_event_id)], { show: "all" })}`}
          >
            <SafeText text={alertTitle(alert)} length={80} />
          </a>
          : <SafeText text={alertSentence(alert, "")} length={400} />
        </>
      );
    }
    case "message":
      return (
        <>
          <SafeText text={item.subject} length={160} />
          <span className={css.quiet}>
            {" "}
            by {codeWords(cleanText(item.channel))}
            {item.recipient ? (
              <>
                {" "}
                to <SafeText text={item.recipient} length={80} />
              </>
            ) : null}
            {messageStates[item.status]}
          </span>
        </>
      );
  }
}

/** The outcome of a message, shown after it. */
const messageStates: Readonly<Record<Extract<HistoryItem, { kind: "message" }>["status"], string>> = {
  queued: ", waits to be sent",
  sent: "",
  failed: ", could not be sent",
  withdrawn: ", not sent: turned off before",
};

function AtStripe({
  item,
}: {
  readonly item: Extract<HistoryItem, { kind: "purchase" | "refund" | "dispute" }>;
}): ReactNode {
  const link = stripeLink(item);
  const id =
    item.kind === "dispute"
      ? item.dispute_id
      : item.kind === "refund" && item.refund_id
        ? item.refund_id
        : (item.charge_id ?? item.payment_intent_id ?? item.invoice_id ?? "");
  return link ? (
    <a href={link} target="_blank" rel="noreferrer noopener">
      {cleanText(id)} at Stripe
    </a>
  ) : (
    cleanText(id)
  );
}
