/** What restricts a user, and what waits: blocks, flags, debt, settlements, proposals, unsent acts. */
import { Fragment, type ReactNode } from "react";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import type { AccountState, DebtCause } from "../../../../shared/contract/users.ts";
import { useNow, useZone } from "../../lib/clock.ts";
import { useCall } from "../../lib/console.tsx";
import { formatDuration, formatInstant } from "../../lib/format.ts";
import { useLive } from "../../lib/live.ts";
import { placeAddress } from "../../lib/router.ts";
import { cleanText, clip, codeWords, counted, reasonWords } from "../../lib/text.ts";
import { useActSentence } from "../../ui/act-sentence.ts";
import { CorrectionButton, DecideButtons } from "../../ui/correction-form.tsx";
import { SyncIcon } from "../../ui/icons.tsx";
import { Id, Note, PlanName, SafeText, Time, TimedText, Tokens } from "../../ui/parts.tsx";
import css from "./users.module.css";

type Detail = OperationOutput<"users.get">;

export function Standing({ detail }: { readonly detail: Detail }): ReactNode {
  return (
    <>
      <SameEmail detail={detail} />
      <Blocks account={detail.account} />
      <Balances detail={detail} />
      <WaitingCalls detail={detail} />
      <Proposals userId={detail.account.user_id} />
      <Unsent userId={detail.account.user_id} />
    </>
  );
}

/** The ticket may be about the other account, and what was bought be there. */
function SameEmail({ detail: { same_email: others = [] } }: { readonly detail: Detail }): ReactNode {
  return others.length === 0 ? null : (
    <Note tone="blue">
      <b>The same e-mail has {counted(others.length, "other account")}</b>:{" "}
      {others.map((other, index) => (
        <Fragment key={other.user_id}>
          {index > 0 ? "; " : ""}
          <a href={`#${placeAddress(["users", other.user_id])}`}>
            <SafeText text={other.user_id} length={40} />
          </a>{" "}
          on <PlanName id={other.plan_id} />, last active <Time at={other.last_activity} />
        </Fragment>
      ))}
      .
    </Note>
  );
}

/** An operator's block, a rule's, and a flag. */
function Blocks({ account }: { readonly account: AccountState }): ReactNode {
  const zone = useZone(account.timezone);
  const now = useNow(1000);
  const until = (at: string): string =>
    ` until ${formatInstant(at, zone)}, for another ${formatDuration(Date.parse(at) - now)}`;
  return (
    <>
      {account.block_source === "operator" ? (
        <Note tone="red">
          <b>Blocked{account.blocked_by ? ` by ${clip(cleanText(account.blocked_by), 60)}` : ""}</b>
          {account.blocked_until ? until(account.blocked_until) : ", until someone unblocks"}
          {account.block_reason ? <>: “{<SafeText text={account.block_reason} />}”</> : "."}
        </Note>
      ) : null}
      {account.is_blocked && account.rule_blocked_until ? (
        <Note tone="red">
          <b>
            Blocked by the rule{" "}
            {account.block_rule ? (
              <a href={`#${placeAddress(["rules", account.block_rule])}`}>
                {codeWords(cleanText(account.block_rule))}
              </a>
            ) : null}
          </b>
          {until(account.rule_blocked_until)}. Unblocking lifts it too.
        </Note>
      ) : null}
      {account.is_flagged ? (
        <Note tone="amber">
          <b>{account.flagged_by === "rule" ? "Flagged for review by a rule" : "Flagged for review"}</b>
          {account.flagged_at ? (
            <>
              {" "}
              <Time at={account.flagged_at} zone={account.timezone} />
            </>
          ) : null}
          <Why reason={account.flag_reason} isRule={account.flagged_by === "rule"} />
        </Note>
      ) : null}
    </>
  );
}

/** A person's own words in quotes; a rule's code as words. */
function Why({ reason, isRule }: { readonly reason: string | null; readonly isRule: boolean }): ReactNode {
  if (!reason) return ".";
  return isRule ? `: ${reasonWords(reason)}.` : <>: “{<SafeText text={reason} />}”</>;
}

/** Debt with its causes, a low balance, and a plan that lets calls through when it cannot be asked. */
function Balances({ detail }: { readonly detail: Detail }): ReactNode {
  const { account, balance } = detail;
  return (
    <>
      {balance.debt > 0 ? (
        <Note tone="red">
          <b>
            Owes <Tokens value={balance.debt} /> tokens
          </b>
          . The next grant pays it first.
          <ul className={css.causes}>
            {detail.debt_causes.map((cause) => (
              <li key={cause.transaction_id}>
                <Tokens value={cause.tokens} /> {causeWords(cause)},{" "}
                <Time at={cause.at} zone={account.timezone} />
                {cause.charge_id ? (
                  <>
                    {" "}
                    (<Id value={cause.charge_id} />)
                  </>
                ) : null}
              </li>
            ))}
          </ul>
        </Note>
      ) : null}
      {balance.debt === 0 && balance.available < detail.low_balance_tokens ? (
        <Note tone="amber">
          <b>Low balance</b>: <Tokens value={balance.available} /> tokens are free, fewer than{" "}
          <Tokens value={detail.low_balance_tokens} />.
        </Note>
      ) : null}
      {detail.plan["fail_mode"] === "open" ? (
        <Note tone="blue">
          The plan <b>fails open</b>: if governance cannot be asked, this user's calls go on unmetered.
        </Note>
      ) : null}
    </>
  );
}

function WaitingCalls({ detail: { account, waiting } }: { readonly detail: Detail }): ReactNode {
  return waiting.map((call) => (
    <Note key={call.request_id} tone="red">
      <b>A settlement waits for a person</b>: the call <Id value={call.request_id} /> reported{" "}
      <Tokens value={(call.input_tokens ?? 0) + (call.output_tokens ?? 0)} /> tokens, above the ceiling.
      Nothing is charged yet.{" "}
      <span className={css.inlineActs}>
        {(["settle", "release"] as const).map((action) => (
          <CorrectionButton
            key={action}
            kind="end_hold"
            userId={account.user_id}
            plan={account.plan_id}
            fields={{ request_id: call.request_id, action }}
            isReported
            label={action === "settle" ? "Settle…" : "Drop…"}
          />
        ))}
      </span>
    </Note>
  ));
}

function Proposals({ userId }: { readonly userId: string }): ReactNode {
  const sentence = useActSentence();
  const pending = useCall(
    "users.acts",
    { mine: false, user_id: userId, status: "proposed", before_id: null, limit: 20 },
    { refetchMs: 5000 },
  );
  return pending.data?.acts.map((each) => (
    <Note key={each.act_id} tone="amber">
      <b>Waits for a second person</b>: {sentence(each)}, proposed by{" "}
      <SafeText text={each.operator} length={60} />: “<SafeText text={each.reason} />”{" "}
      <DecideButtons act={each} isMine={each.operator === pending.data?.operator} />
    </Note>
  ));
}

function Unsent({ userId }: { readonly userId: string }): ReactNode {
  const waiting = useLive((state) => state.intents).filter(
    (intent) => intent.subject === userId && (intent.status === "pending" || intent.status === "conflict"),
  );
  return waiting.map((intent) => (
    <Note key={intent.command_id} tone="amber">
      <SyncIcon size={13} style={{ verticalAlign: "-2px" }} />{" "}
      <TimedText text={intent.summary} length={200} />:{" "}
      {intent.status === "conflict"
        ? "conflicts with a newer change, see “to resolve” above"
        : "done here, waits to be sent"}
      .
    </Note>
  ));
}

/** Why something is owed, after the count of tokens. */
function causeWords(cause: DebtCause): string {
  switch (cause.cause) {
    case "usage":
      return "used beyond the balance";
    case "refund":
      return "were spent already when their payment was refunded";
    case "dispute_clawback":
      return "were spent already when the dispute of their payment was lost";
    default:
      return cause.description ? cleanText(cause.description) : codeWords(cause.cause);
  }
}
