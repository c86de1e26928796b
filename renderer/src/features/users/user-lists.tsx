/** The lists of a user's page: decisions, ledger, lots, holds, audit. */
import { useInfiniteQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import type { AccountDetail, AuditEntry, DecisionRow, Hold, Lot } from "../../../../shared/contract/users.ts";
import { auditDetails, auditReason } from "../../lib/audit-words.ts";
import { callOrThrow, useConsole } from "../../lib/console.tsx";
import { navigate, placeAddress } from "../../lib/router.ts";
import { statusSign } from "../../lib/signs.ts";
import { capitalise, cleanText, clip, codeWords } from "../../lib/text.ts";
import type { Column } from "../../ui/data-table.tsx";
import { Cost, Id, Reason, SafeText, Section, Tag, Time, TimedText, Tokens } from "../../ui/parts.tsx";
import { PagedTable } from "../../ui/paged-table.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { CorrectionButton } from "../../ui/correction-form.tsx";
import css from "./users.module.css";

const PAGE = 50;

function decisionColumns(currency: string, zone: string): readonly Column<DecisionRow>[] {
  return [
    { id: "at", header: "When", width: 120, cell: (row) => <Time at={row.at} form="short" zone={zone} /> },
    {
      id: "status",
      header: "What",
      width: 84,
      cell: (row) => {
        const sign = statusSign(row.status);
        return (
          <Tag tone={row.decision === "warn" && row.status === "settled" ? "amber" : sign.tone} dot plain>
            {sign.word}
          </Tag>
        );
      },
    },
    {
      id: "why",
      header: "Why",
      width: 150,
      grow: 1,
      cell: (row) => {
        if (row.reason)
          return (
            <>
              <Reason reason={row.reason} />
              {row.rule_name ? (
                <span className={css.quiet}>
                  {/* Most rules are called what they stop for; said twice it only fills the line. */}
                  {row.rule_name === row.reason ? " " : ` by ${codeWords(row.rule_name)} `}v{row.rule_version}
                </span>
              ) : null}
            </>
          );
        const warning = row.warnings[0];
        return warning ? <SafeText text={warning} length={120} /> : null;
      },
    },
    {
      id: "model",
      header: "Model",
      width: 90,
      cell: (row) =>
        (row.model ?? row.requested_model) ? (
          <SafeText text={row.model ?? row.requested_model ?? ""} length={40} />
        ) : (
          "—"
        ),
    },
    {
      id: "tokens",
      header: "Tokens",
      width: 70,
      align: "right",
      hint: "Charged, or asked for where nothing was charged",
      cell: (row) => <Tokens value={row.charged_tokens ?? row.estimated_tokens} />,
    },
    {
      id: "cost",
      header: "Cost",
      width: 60,
      align: "right",
      cell: (row) =>
        row.status === "settled" ? <Cost of="call" micros={row.cost_micros} currency={currency} /> : null,
    },
  ];
}

export function DecisionList({
  userId,
  currency,
  zone,
  limit,
}: {
  readonly userId: string;
  readonly currency: string;
  readonly zone: string;
  /** Only the newest so many, without paging. */
  readonly limit?: number;
}): ReactNode {
  const client = useConsole();
  const query = useInfiniteQuery({
    queryKey: ["users.decisions", { user_id: userId, limit: limit ?? PAGE }],
    queryFn: ({ pageParam }) =>
      callOrThrow(client, "users.decisions", {
        user_id: userId,
        before_id: pageParam,
        limit: limit ?? PAGE,
      }),
    initialPageParam: null as number | null,
    getNextPageParam: (page) => page.next_before_id,
    refetchInterval: limit ? 5000 : false,
  });
  const rows = query.data?.pages.flatMap((page) => page.decisions) ?? [];
  return (
    <PagedTable
      query={query}
      skeletonLines={5}
      label="Decisions, newest first"
      columns={decisionColumns(currency, zone)}
      rows={rows}
      rowKey={(row) => String(row.decision_id)}
      onOpen={(row) => navigate(placeAddress(["users", userId, "decisions", String(row.decision_id)]))}
      empty="No calls yet."
      {...(limit ? { more: null } : {})}
    />
  );
}

const lotColumns: readonly Column<Lot>[] = [
  { id: "kind", header: "Kind", width: 80, cell: (lot) => capitalise(lot.kind) },
  {
    id: "what",
    header: "From",
    width: 120,
    grow: 1,
    cell: (lot) => (lot.description ? <SafeText text={lot.description} length={120} /> : null),
  },
  { id: "at", header: "Granted", width: 120, cell: (lot) => <Time at={lot.created_at} form="short" /> },
  {
    id: "ends",
    header: "Expires",
    width: 120,
    cell: (lot) =>
      lot.expires_at ? <Time at={lot.expires_at} form="short" /> : <span className={css.quiet}>never</span>,
  },
  {
    id: "granted",
    header: "Tokens",
    width: 80,
    align: "right",
    cell: (lot) => <Tokens value={lot.granted} />,
  },
  { id: "left", header: "Left", width: 80, align: "right", cell: (lot) => <Tokens value={lot.remaining} /> },
  {
    id: "frozen",
    header: "Frozen",
    width: 70,
    align: "right",
    hint: "Held back by a dispute",
    cell: (lot) => (lot.frozen > 0 ? <Tokens value={lot.frozen} /> : <span className={css.quiet}>0</span>),
  },
];

const holdColumns = (userId: string, plan: string): readonly Column<Hold>[] => [
  {
    id: "id",
    header: "Request",
    width: 120,
    grow: 1,
    cell: (hold) => <Id value={hold.request_id} head={12} />,
  },
  {
    id: "model",
    header: "Model",
    width: 90,
    cell: (hold) => (hold.model ? clip(cleanText(hold.model), 40) : "—"),
  },
  { id: "at", header: "Since", width: 90, cell: (hold) => <Time at={hold.created_at} /> },
  { id: "ends", header: "Given back", width: 90, cell: (hold) => <Time at={hold.expires_at} /> },
  {
    id: "tokens",
    header: "Tokens",
    width: 80,
    align: "right",
    cell: (hold) => <Tokens value={hold.reserved_tokens} />,
  },
  {
    id: "acts",
    header: "",
    width: 150,
    align: "right",
    cell: (hold) => (
      <span className={css.rowActs}>
        {(["release", "settle"] as const).map((action) => (
          <CorrectionButton
            key={action}
            kind="end_hold"
            userId={userId}
            plan={plan}
            fields={{ request_id: hold.request_id, action }}
            label={action === "release" ? "Release…" : "Settle…"}
            variant="subtle"
          />
        ))}
      </span>
    ),
  },
];

export function LotsAndHolds({ detail }: { readonly detail: AccountDetail }): ReactNode {
  return (
    <>
      <Section title="Lots, in the order they are spent">
        <PlainTable
          label="Lots"
          columns={lotColumns}
          rows={detail.lots}
          rowKey={(lot) => String(lot.lot_id)}
          empty="No live lots: this account has no tokens."
        />
      </Section>
      <Section title="Holds of calls that run now">
        <PlainTable
          label="Holds"
          columns={holdColumns(detail.account.user_id, detail.account.plan_id)}
          rows={detail.holds}
          rowKey={(hold) => hold.request_id}
          empty="No call is running."
        />
      </Section>
    </>
  );
}

function AuditWhy({ entry }: { readonly entry: AuditEntry }): ReactNode {
  const reason = auditReason(entry);
  const details = auditDetails(entry);
  return (
    <>
      {reason ? <SafeText text={reason} length={300} /> : null}
      {details ? (
        <div className={css.quiet}>
          <TimedText text={details} length={200} />
        </div>
      ) : null}
    </>
  );
}

const auditColumns: readonly Column<AuditEntry>[] = [
  { id: "at", header: "When", width: 120, cell: (entry) => <Time at={entry.at} form="short" /> },
  {
    id: "who",
    header: "Who",
    width: 90,
    cell: (entry) =>
      entry.operator ? (
        <SafeText text={entry.operator} length={40} />
      ) : (
        <span className={css.quiet}>rules</span>
      ),
  },
  { id: "what", header: "Did", width: 90, cell: (entry) => capitalise(codeWords(entry.action)) },
  {
    id: "why",
    header: "Why",
    width: 160,
    grow: 1,
    cell: (entry) => <AuditWhy entry={entry} />,
  },
];

export function Audit({
  userId,
  entries,
}: {
  readonly userId: string;
  readonly entries: readonly AuditEntry[];
}): ReactNode {
  return (
    <>
      <PlainTable
        label="Audit, newest first"
        columns={auditColumns}
        rows={entries}
        rowKey={(entry) => String(entry.audit_id)}
        empty="No operator and no rule has acted on this account."
      />
      {entries.length < 50 ? null : (
        <p className={css.quiet}>
          The newest 50. <a href={`#${placeAddress(["audit"], { user: userId })}`}>All, in the audit’s log</a>
        </p>
      )}
    </>
  );
}
