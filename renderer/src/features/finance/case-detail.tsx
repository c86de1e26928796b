/** One difference as people work on it: both sides, what would be posted to the token, its history, and the acts. */
import { Button } from "@mantine/core";
import { type ReactNode, useState } from "react";
import type { FinanceCase, PostPreview } from "../../../../shared/contract/finance.ts";
import type { Difference } from "../../../../shared/governance/reconciliation/types.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { formatChange, formatTokens } from "../../lib/format.ts";
import { useIsLive } from "../../lib/live.ts";
import { placeAddress } from "../../lib/router.ts";
import { capitalise, codeWords } from "../../lib/text.ts";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { Facts, Note, SafeText, Section, Tag, Time, UserName } from "../../ui/parts.tsx";
import { PlainTable } from "../../ui/plain-table.tsx";
import { DetailBar, DetailScroll } from "../../ui/side-detail.tsx";
import { QueryView, StaleLine } from "../../ui/states.tsx";
import { CaseActs, useFinanceRefresh, useOperator, versionsOf } from "./case-acts.tsx";
import { BothSides, CopyDifference } from "./differences.tsx";
import css from "./finance.module.css";
import { className, entryText, minorMoney, statusSign } from "./words.ts";
import { translated } from "../../lib/language.ts";

/** The project keeps what a console sent: another one may have sent something else. */
function isDifference(value: unknown): value is Difference {
  const of = value as Difference | null;
  return (
    typeof of === "object" &&
    of !== null &&
    typeof of.explanation === "string" &&
    Array.isArray(of.trail) &&
    of.trail.every((step) => typeof step === "string") &&
    typeof of.correction?.words === "string" &&
    (of.stripe === null || Array.isArray(of.stripe?.rows)) &&
    (of.ledger === null || typeof of.ledger?.tokens === "number") &&
    (of.suggestion === null || typeof of.suggestion?.words === "string")
  );
}

export function CaseDetail({
  id,
  address,
  assignees,
  onClose,
}: {
  readonly id: string;
  readonly address: string;
  readonly assignees: readonly string[];
  readonly onClose: () => void;
}): ReactNode {
  const query = useCall("finance.case", { difference_id: id });
  return (
    <QueryView query={query}>
      {({ case: of, difference, as_of: asOf }) => (
        <Shown
          of={of}
          difference={isDifference(difference) ? difference : null}
          asOf={asOf}
          address={address}
          assignees={assignees}
          onClose={onClose}
        />
      )}
    </QueryView>
  );
}

function Shown({
  of,
  difference,
  asOf,
  address,
  assignees,
  onClose,
}: {
  readonly of: FinanceCase;
  readonly difference: Difference | null;
  readonly asOf: string | null;
  readonly address: string;
  readonly assignees: readonly string[];
  readonly onClose: () => void;
}): ReactNode {
  const operator = useOperator();
  const isLive = useIsLive();
  // The version that the preview was asked for: another version, another preview.
  const [previewed, setPreviewed] = useState<number | null>(null);
  const sign = statusSign(of);
  const { correction } = of;
  const words = typeof correction["words"] === "string" ? correction["words"] : "";
  // A correction moves what is at stake: one figure, before and after it is posted.
  const tokens = correction.books ? -of.tokens : 0;
  return (
    <>
      <DetailBar
        title={
          <span className={css.detailTitle}>
            {className(of.class)}
            <Tag tone={sign.tone} title={sign.means}>
              {sign.word}
            </Tag>
          </span>
        }
        onClose={onClose}
      />
      {asOf ? <StaleLine asOf={asOf} /> : null}
      <DetailScroll>
        <div className={css.detail}>
          {difference ? (
            <div>
              <SafeText text={translated(difference.explanation)} length={1000} />
            </div>
          ) : null}
          <Note tone={correction.books ? "blue" : "grey"}>
            <b>
              {of.status === "written_off"
                ? "Written off, instead of: "
                : of.resolution === "write_off"
                  ? "Proposed to be written off, instead of: "
                  : "Correction: "}
            </b>
            <SafeText text={words || "not known"} length={1000} />
            {tokens === 0 ? null : <span className={css.quiet}> ({formatChange(tokens)} tokens)</span>}
            {correction.books ? null : (
              <span className={css.quiet}>
                {" "}
                Nothing is booked: decide, or mend it in Stripe and reconcile again.
              </span>
            )}
          </Note>
          {isLive ? null : (
            <Note tone="amber">
              Offline. You can read on; decisions and corrections need the project and do not wait to be sent.
            </Note>
          )}
          <CaseActs
            key={`${of.version}`}
            of={of}
            operator={operator}
            assignees={assignees}
            onPost={() => setPreviewed(of.version)}
          />
          {previewed === of.version && (of.status === "proposed" || of.status === "approved") ? (
            <PostPanel of={of} onClose={() => setPreviewed(null)} />
          ) : null}
          <People of={of} />
          {difference ? (
            <BothSides difference={{ ...difference, tokens: of.tokens, user_id: of.user_id }} />
          ) : (
            <Facts
              rows={[
                ["Money at stake", minorMoney(of.amount_minor, of.currency)],
                ["Tokens at stake", of.tokens === 0 ? "—" : formatChange(of.tokens)],
                ["User", of.user_id ? <SafeText key="u" text={of.user_id} length={60} /> : "not known"],
              ]}
            />
          )}
          <History of={of} />
          {difference ? <CopyDifference difference={difference} address={address} /> : null}
        </div>
      </DetailScroll>
    </>
  );
}

function People({ of }: { readonly of: FinanceCase }): ReactNode {
  const rows: (readonly [string, ReactNode])[] = [
    ["Assigned to", of.assigned_to ? <UserName key="a" name={of.assigned_to} /> : "nobody"],
  ];
  if (of.proposed_by) rows.push(["Proposed by", <UserName key="p" name={of.proposed_by} />]);
  if (of.approved_by) rows.push(["Approved by", <UserName key="q" name={of.approved_by} />]);
  else if (of.needs_approver && of.is_undecided && of.status !== "posted")
    rows.push(["Approval", "needed: it is above the limit for one person"]);
  if (of.posted_by)
    rows.push([
      "Posted by",
      <span key="b">
        <UserName name={of.posted_by} /> <Time at={of.posted_at} />
      </span>,
    ]);
  if (of.times_carried > 0) rows.push(["Carried over", `${of.times_carried} times: a late item`]);
  rows.push(["Age", `${of.age_days.toLocaleString("en")} days`]);
  return <Facts rows={rows} />;
}

function History({ of }: { readonly of: FinanceCase }): ReactNode {
  return (
    <Section title="History">
      {of.history.length === 0 ? (
        <span className={css.quiet}>
          Found <Time at={of.opened_at} />. Nobody has done anything yet.
        </span>
      ) : (
        <ol className={css.history} aria-label="History">
          {of.history.toReversed().map((entry) => (
            <li key={`${entry.at}${entry.action}${entry.by}`}>
              <span>
                <UserName name={entry.by} /> {entryText(entry.action)} <Time at={entry.at} />
              </span>
              {entry.reason ? (
                <span className={css.quiet}>
                  <SafeText text={entry.reason} length={600} />
                </span>
              ) : null}
            </li>
          ))}
        </ol>
      )}
    </Section>
  );
}

/** Done and rolled back in the project: what is shown is what will happen. */
function PostPanel({ of, onClose }: { readonly of: FinanceCase; readonly onClose: () => void }): ReactNode {
  const client = useConsole();
  const refresh = useFinanceRefresh();
  const [busy, setBusy] = useState(false);
  const query = useCall("finance.preview_post", { difference_id: of.difference_id }, { staleMs: 0 });
  const post = async (): Promise<void> => {
    setBusy(true);
    const result = await client.call("finance.post", {
      difference_ids: [of.difference_id],
      versions: versionsOf([of]),
    });
    setBusy(false);
    refresh();
    if (!result.ok) return showFailure("Not posted", result.error);
    const [refused] = result.value.refused;
    if (refused) return showFailure("Not posted", refused.failure);
    showDone("Posted to the ledger. Reconcile the same files again to verify it.");
    onClose();
  };
  return (
    <div className={css.panel} role="region" aria-label="What posting does">
      <h3>What posting does</h3>
      <QueryView query={query}>
        {(preview) => (
          <>
            <Effects preview={preview} />
            {preview.why_approver ? <Note tone="amber">{translated(preview.why_approver)}.</Note> : null}
            <div className={css.buttons}>
              <Button
                variant="filled"
                loading={busy}
                disabled={preview.needs_approver === true}
                onClick={() => void post()}
              >
                Post to the ledger
              </Button>
              <Button onClick={onClose}>Not now</Button>
            </div>
          </>
        )}
      </QueryView>
    </div>
  );
}

function Effects({ preview }: { readonly preview: PostPreview }): ReactNode {
  const accounts = preview.accounts ?? [];
  if (accounts.length === 0)
    return (
      <span className={css.quiet}>Nothing in the ledger would change: it is as it should be already.</span>
    );
  return (
    <>
      {accounts.map((account) => (
        <div key={account.user_id} className={css.account}>
          <a href={`#${placeAddress(["users", account.user_id])}`}>
            <UserName name={account.name} id={account.user_id} />
          </a>
          <PlainTable
            label="Entries"
            rows={account.entries}
            rowKey={(entry) => `${entry.type}${entry.amount}${entry.new_balance}${entry.debt_after}`}
            empty="No entry: only what the payment is known as changes."
            columns={[
              { id: "t", header: "Entry", width: 90, cell: (entry) => capitalise(codeWords(entry.type)) },
              {
                id: "a",
                header: "Tokens",
                width: 90,
                align: "right",
                cell: (entry) => formatChange(entry.amount),
              },
              {
                id: "b",
                header: "Balance before → after",
                width: 160,
                align: "right",
                grow: 1,
                cell: (entry) =>
                  `${formatTokens(entry.previous_balance)} → ${formatTokens(entry.new_balance)}`,
              },
              {
                id: "d",
                header: "Debt after",
                width: 80,
                align: "right",
                cell: (entry) => formatTokens(entry.debt_after),
              },
            ]}
          />
          {account.lots.length > 0 ? (
            <ul className={css.lots} aria-label="Lots">
              {account.lots.map((lot) => (
                <li key={lot.lot_id}>
                  {lot.before === null ? "New lot" : `Lot ${lot.lot_id}`} ({lot.after.kind}):{" "}
                  {lotChange(lot.before, lot.after)}
                </li>
              ))}
            </ul>
          ) : null}
        </div>
      ))}
    </>
  );
}

type Lot = NonNullable<PostPreview["accounts"]>[number]["lots"][number]["after"];

/** Which figures of a lot change, from what to what. */
export function lotChange(before: Lot | null, after: Lot): string {
  const figures = ["granted", "remaining", "frozen", "clawed_back"] as const;
  const changes = figures
    .filter((name) => (before?.[name] ?? 0) !== after[name])
    .map((name) => `${codeWords(name)} ${formatTokens(before?.[name] ?? 0)} → ${formatTokens(after[name])}`);
  if (before && before.kind !== after.kind) changes.push(`${before.kind} → ${after.kind}`);
  if (
    before
      ? before.amount_minor !== after.amount_minor || before.currency !== after.currency
      : after.amount_minor
  )
    changes.push(
      `paid ${minorMoney(before?.amount_minor, before?.currency)} → ${minorMoney(after.amount_minor, after.currency)}`,
    );
  return changes.join(", ") || "no figure changes";
}
