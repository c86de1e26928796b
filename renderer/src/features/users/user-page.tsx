import { Button } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { type ActName, actNamed, actNames } from "../../../../shared/contract/acts.ts";
import { type CorrectionKind, correctionWords } from "../../../../shared/contract/corrections.ts";
import type { Failure } from "../../../../shared/contract/basics.ts";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import type { AccountDetail, Balance, DebtCause } from "../../../../shared/contract/users.ts";
import type { Receipt } from "../../../../shared/contract/watch.ts";
import { useNow, useZone } from "../../lib/clock.ts";
import { toFailure, useCall } from "../../lib/console.tsx";
import { formatDuration, formatInstant, formatShortInstant, viewerZone } from "../../lib/format.ts";
import { useKeys } from "../../lib/keys.ts";
import { useIsLive, useLive } from "../../lib/live.ts";
import { absoluteAddress, navigate, placeAddress } from "../../lib/router.ts";
import { accountSigns } from "../../lib/signs.ts";
import { cleanText, clip, codeWords } from "../../lib/text.ts";
import { BlockIcon, ChevronLeftIcon, FlagIcon, NoteIcon, SyncIcon, UnblockIcon } from "../../ui/icons.tsx";
import { ActButton } from "../../ui/act-form.tsx";
import {
  CopyButton,
  copyText,
  Cost,
  Id,
  Meter,
  Note,
  SafeText,
  Section,
  Tag,
  Time,
  Tokens,
  UserName,
} from "../../ui/parts.tsx";
import { ReceiptView } from "../../ui/receipt.tsx";
import { DetailBar, DetailScroll } from "../../ui/side-detail.tsx";
import { ErrorView, Skeleton, StaleLine } from "../../ui/states.tsx";
import { ActList } from "../../ui/act-list.tsx";
import { CorrectionButton, DecideButtons, useActSentence } from "../../ui/correction-form.tsx";
import { History } from "./history.tsx";
import { LastStop } from "./last-stop.tsx";
import { Payments } from "./payments.tsx";
import { Ledger } from "./ledger.tsx";
import { Audit, DecisionList, LotsAndHolds } from "./user-lists.tsx";
import { useOffer } from "../../lib/offered.ts";
import { UserUsage } from "./user-usage.tsx";
import css from "./users.module.css";

const userActs = actNames.filter((name) => actNamed(name).subject === "user");
const icons: Partial<Record<ActName, ReactNode>> = {
  flag_user: <FlagIcon size={14} />,
  block_user: <BlockIcon size={14} />,
  unblock_user: <UnblockIcon size={14} />,
  unflag_user: <FlagIcon size={14} />,
  note_user: <NoteIcon size={14} />,
};

/** Corrections that concern the user as a whole; those of a call or a hold stand beside it. */
const userCorrections = ["give_tokens", "take_tokens", "change_plan", "raise_limit"] as const;

const tabs = [
  { id: "overview", name: "Overview" },
  { id: "history", name: "History" },
  { id: "decisions", name: "Decisions" },
  { id: "ledger", name: "Ledger" },
  { id: "lots", name: "Lots and holds" },
  { id: "payments", name: "Payments" },
  { id: "usage", name: "Usage" },
  { id: "acts", name: "Acts" },
  { id: "audit", name: "Audit" },
] as const;

function NoUser({
  failure,
  onRetry,
}: {
  readonly failure: Failure;
  readonly onRetry: () => void;
}): ReactNode {
  const isUnknown = failure.code === "unknown_user" || failure.code === "not_found";
  return (
    <ErrorView
      failure={
        isUnknown
          ? {
              ...failure,
              message: "There is no such user in this project.",
              advice: "Search for the name or e-mail; the id may belong to another project.",
            }
          : failure
      }
      onRetry={onRetry}
    />
  );
}

/** Everything about one user, and what can be done. */
export function UserPage({
  userId,
  tab,
  item,
  onClose,
}: {
  readonly userId: string;
  readonly tab: string;
  /** Inside a tab: the decision that is open. */
  readonly item: string | null;
  readonly onClose: () => void;
}): ReactNode {
  const query = useCall("users.get", { user_id: userId }, { refetchMs: 5000 });
  const [act, setAct] = useState<ActName | CorrectionKind | null>(null);
  const isLive = useIsLive();
  const account = query.data?.account;
  const address = placeAddress(["users", userId]);
  useKeys(
    {
      ...Object.fromEntries(
        userActs
          .filter((name) => account && actNamed(name).isOffered(account))
          .map((name) => [actNamed(name).words.key ?? name, () => setAct(name)]),
      ),
      ...Object.fromEntries(
        userCorrections.flatMap((kind) => {
          const { key } = correctionWords[kind];
          return key && isLive ? [[key, () => setAct(kind)]] : [];
        }),
      ),
      c: () => void copyText(userId),
    },
    account !== undefined,
  );
  const offered = [
    ...userActs
      .filter((name) => account && actNamed(name).isOffered(account))
      .map((name) => ({ name, title: actNamed(name).words.button })),
    ...(account && isLive
      ? userCorrections.map((name) => ({ name, title: correctionWords[name].title }))
      : []),
  ];
  const who = clip(cleanText(account?.display_name ?? "") || userId, 40);
  useOffer(`${who} ${offered.map(({ name }) => name).join(" ")}`, () =>
    offered.map(({ name, title }) => ({
      id: name,
      label: `${title}: ${who}`,
      words: "act correct user",
      // The palette gives the focus back first; then the form takes it.
      run: () => setTimeout(() => setAct(name), 150),
    })),
  );
  const decision = tab === "decisions" && item ? Number(item) : null;
  useKeys({ Escape: () => navigate(`${address}/decisions`) }, decision !== null);

  if (!query.data || !account)
    return (
      <>
        <DetailBar title={<UserName name={null} id={userId} />} onClose={onClose} />
        {query.error ? (
          <NoUser failure={toFailure(query.error)} onRetry={() => void query.refetch()} />
        ) : (
          <Skeleton lines={10} />
        )}
      </>
    );
  const signs = accountSigns({ ...account, debt: query.data.balance.debt });
  return (
    <>
      <DetailBar
        title={
          <span style={{ display: "flex", alignItems: "center", gap: 8, fontSize: 15 }}>
            <UserName name={account.display_name} id={account.user_id} />
            {signs.map((sign) => (
              <Tag key={sign.word} tone={sign.tone}>
                {sign.word}
              </Tag>
            ))}
          </span>
        }
        onClose={onClose}
      >
        {userActs
          .filter((name) => actNamed(name).isOffered(account))
          .map((name) => (
            <ActButton
              key={name}
              act={name}
              record={account}
              icon={icons[name]}
              opened={act === name}
              onOpened={(opened) => setAct(opened ? name : null)}
            />
          ))}
      </DetailBar>
      {query.data.as_of ? <StaleLine asOf={query.data.as_of} /> : null}
      <DetailScroll>
        <div className={css.page}>
          <Identity detail={query.data} />
          <div className={css.acts} role="group" aria-label="Corrections">
            {userCorrections.map((kind) => (
              <CorrectionButton
                key={kind}
                kind={kind}
                userId={account.user_id}
                plan={account.plan_id}
                opened={act === kind}
                onOpened={(opened) => setAct(opened ? kind : null)}
              />
            ))}
          </div>
          <Standing detail={query.data} />
          {decision === null ? <LastStop userId={account.user_id} /> : null}
          <Summary detail={query.data} />
          <nav className={css.tabs} aria-label="About this user">
            {tabs.map((each) => (
              <a
                key={each.id}
                href={`#${each.id === "overview" ? address : `${address}/${each.id}`}`}
                aria-current={tab === each.id ? "page" : undefined}
              >
                {each.name}
              </a>
            ))}
          </nav>
          {decision !== null ? (
            <div style={{ margin: "-8px -14px 0" }}>
              <Button
                variant="subtle"
                ml={10}
                leftSection={<ChevronLeftIcon size={14} />}
                component="a"
                href={`#${address}/decisions`}
              >
                All decisions
              </Button>
              <ReceiptView
                key={decision}
                decisionId={decision}
                actions={(receipt) => <CallCorrections receipt={receipt} plan={account.plan_id} />}
              />
            </div>
          ) : (
            <TabBody tab={tab} detail={query.data} />
          )}
        </div>
      </DetailScroll>
    </>
  );
}

function TabBody({ tab, detail }: { readonly tab: string; readonly detail: AccountDetail }): ReactNode {
  const { account, currency } = detail;
  const zone = useZone(account.timezone);
  switch (tab) {
    case "decisions":
      return <DecisionList userId={account.user_id} currency={currency} zone={zone} />;
    case "history":
      return <History userId={account.user_id} zone={zone} />;
    case "ledger":
      return <Ledger userId={account.user_id} zone={zone} />;
    case "lots":
      return <LotsAndHolds detail={detail} />;
    case "payments":
      return <Payments payments={detail.payments} />;
    case "acts":
      return <ActList mine={false} userId={account.user_id} status={null} />;
    case "audit":
      return <Audit entries={detail.audit} />;
    case "usage":
      return <UserUsage userId={account.user_id} timezone={account.timezone} currency={currency} breakdown />;
    default:
      return (
        <>
          <Section
            title="Recent decisions"
            aside={<a href={`#${placeAddress(["users", account.user_id, "decisions"])}`}>All</a>}
          >
            <DecisionList userId={account.user_id} currency={currency} zone={zone} limit={8} />
          </Section>
          <UserUsage
            userId={account.user_id}
            timezone={account.timezone}
            currency={currency}
            breakdown={false}
          />
        </>
      );
  }
}

function Identity({ detail }: { readonly detail: AccountDetail }): ReactNode {
  const { account, plan } = detail;
  return (
    <div className={css.identity}>
      <span>
        id <Id value={account.user_id} head={18} tail={6} />
      </span>
      {account.email ? (
        <span>
          <b>
            <SafeText text={account.email} length={60} />
          </b>
          <CopyButton text={account.email} label="Copy the e-mail address" />
        </span>
      ) : null}
      <span>
        plan <b>{clip(cleanText(plan.name || plan.plan_id), 40)}</b>
      </span>
      <span>
        lives in <b>{clip(cleanText(account.timezone), 40)}</b>
      </span>
      <span>
        since{" "}
        <b>
          <Time at={account.created_at} form="short" />
        </b>
      </span>
      <span>
        last active{" "}
        <b>
          <Time at={detail.last_activity} />
        </b>
      </span>
      <span>
        link{" "}
        <CopyButton
          text={() => absoluteAddress(placeAddress(["users", account.user_id]))}
          label="Copy the link to this user"
        />
      </span>
    </div>
  );
}

/** What can be put right about one call: charged wrongly, held for nothing, or waiting for a person. */
function CallCorrections({ receipt, plan }: { readonly receipt: Receipt; readonly plan: string }): ReactNode {
  const given = { userId: receipt.user_id, plan };
  const call = { request_id: receipt.request_id };
  if (receipt.status === "settled")
    return <CorrectionButton kind="refund_call" {...given} fields={call} label="Refund…" />;
  if (receipt.status === "held" || receipt.status === "quarantined")
    return (
      <>
        <CorrectionButton
          kind="end_hold"
          {...given}
          fields={{ ...call, action: "release" }}
          label={receipt.status === "held" ? "Release…" : "Drop…"}
        />
        <CorrectionButton
          kind="end_hold"
          {...given}
          fields={{ ...call, action: "settle" }}
          isReported={receipt.status === "quarantined"}
          label="Settle…"
        />
      </>
    );
  return null;
}

/** Blocks, flags, debt and what waits to be sent, said in sentences. */
function Standing({ detail }: { readonly detail: OperationOutput<"users.get"> }): ReactNode {
  const { account, balance } = detail;
  const zone = useZone(account.timezone);
  const now = useNow(1000);
  const sentence = useActSentence();
  const pending = useCall(
    "users.acts",
    { mine: false, user_id: account.user_id, status: "proposed", before_id: null, limit: 20 },
    { refetchMs: 5000 },
  );
  const until = (at: string): string =>
    ` until ${formatInstant(at, zone)}, for another ${formatDuration(Date.parse(at) - now)}`;
  const waiting = useLive((state) => state.intents).filter(
    (intent) =>
      intent.subject === account.user_id && (intent.status === "pending" || intent.status === "conflict"),
  );
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
          <b>Flagged for review</b>
          {account.flagged_at ? (
            <>
              {" "}
              <Time at={account.flagged_at} zone={account.timezone} />
            </>
          ) : null}
          {account.flag_reason ? <>: “{<SafeText text={account.flag_reason} />}”</> : "."}
        </Note>
      ) : null}
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
      {detail.waiting.map((call) => (
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
      ))}
      {pending.data?.acts.map((each) => (
        <Note key={each.act_id} tone="amber">
          <b>Waits for a second person</b>: {sentence(each)}, proposed by{" "}
          <SafeText text={each.operator} length={60} />: “<SafeText text={each.reason} />”{" "}
          <DecideButtons act={each} isMine={each.operator === pending.data?.operator} />
        </Note>
      ))}
      {waiting.map((intent) => (
        <Note key={intent.command_id} tone="amber">
          <SyncIcon size={13} style={{ verticalAlign: "-2px" }} /> {clip(cleanText(intent.summary), 200)}:{" "}
          {intent.status === "conflict"
            ? "conflicts with a newer change, see “to resolve” above"
            : "done here, waits to be sent"}
          .
        </Note>
      ))}
    </>
  );
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

const balanceKinds: readonly {
  readonly key: "subscription" | "purchased" | "promotional";
  readonly color: string;
}[] = [
  { key: "subscription", color: "var(--c-blue-mark)" },
  { key: "purchased", color: "var(--c-green-mark)" },
  { key: "promotional", color: "var(--c-grey-mark)" },
];

function BalanceCard({ balance }: { readonly balance: Balance }): ReactNode {
  const total = Math.max(1, balance.total);
  return (
    <div>
      <h2>Balance</h2>
      <div>
        <span className={css.big}>
          <Tokens value={balance.available} />
        </span>{" "}
        <span className={css.quiet}>
          tokens free
          {balance.reserved > 0 ? (
            <>
              , <Tokens value={balance.reserved} /> held
            </>
          ) : null}
        </span>
      </div>
      <div className={css.stack} aria-hidden="true">
        {balanceKinds.map(({ key, color }) =>
          balance[key] > 0 ? (
            <span key={key} style={{ width: `${(100 * balance[key]) / total}%`, background: color }} />
          ) : null,
        )}
      </div>
      <div className={css.kinds}>
        {balanceKinds.map(({ key, color }) => (
          <div key={key}>
            <i style={{ background: color }} />
            <span>{key}</span>
            <span>
              <Tokens value={balance[key]} />
            </span>
          </div>
        ))}
      </div>
    </div>
  );
}

function LimitLine({
  name,
  window,
  zone,
}: {
  readonly name: string;
  readonly window: AccountDetail["limits"]["daily"];
  readonly zone: string;
}): ReactNode {
  const now = useNow(1000);
  const percent =
    window.limit === null ? null : window.limit === 0 ? 100 : Math.floor((100 * window.used) / window.limit);
  return (
    <div className={css.limit}>
      <div>
        <span>{name}</span>
        <span>
          <Tokens value={window.used} />
          {window.limit === null ? (
            <span className={css.quiet}> used, no limit</span>
          ) : (
            <span className={css.quiet}>
              {" "}
              of <Tokens value={window.limit} />
            </span>
          )}
        </span>
      </div>
      {percent === null ? null : <Meter percent={percent} label={`${name} used`} />}
      <span className={css.quiet} title={formatInstant(window.resets_at, zone)}>
        {window.remaining === null ? null : (
          <>
            <Tokens value={window.remaining} /> left,{" "}
          </>
        )}
        resets in {formatDuration(Date.parse(window.resets_at) - now)}:{" "}
        {formatShortInstant(window.resets_at, zone, now)} {zone}
        {zone === viewerZone() ? "" : `, ${formatShortInstant(window.resets_at, viewerZone(), now)} for you`}
      </span>
    </div>
  );
}

function Summary({ detail }: { readonly detail: AccountDetail }): ReactNode {
  return (
    <div className={css.summary}>
      <BalanceCard balance={detail.balance} />
      <div>
        <h2>Limits</h2>
        <LimitLine name="Today" window={detail.limits.daily} zone={detail.account.timezone} />
        <LimitLine name="This month" window={detail.limits.monthly} zone={detail.account.timezone} />
        {detail.account.raised ? (
          <span className={css.quiet}>
            Raised by an operator until {formatInstant(detail.account.raised.until, detail.account.timezone)};
            then the plan’s again.
          </span>
        ) : null}
        {detail.account.next_plan ? (
          <span className={css.quiet}>
            Moves to {clip(cleanText(detail.account.next_plan.name), 40)} on{" "}
            {formatInstant(detail.account.next_plan.at, detail.account.timezone)}. To cancel: Acts, Undo.
          </span>
        ) : null}
      </div>
      <div>
        <h2>Use</h2>
        <div>
          <span className={css.big}>
            <Cost micros={detail.cost_this_month_micros} currency={detail.currency} />
          </span>{" "}
          <span className={css.quiet}>this month</span>
        </div>
        <div>
          <Cost micros={detail.cost_today_micros} currency={detail.currency} />{" "}
          <span className={css.quiet}>today</span>
        </div>
        <div>
          {detail.messages_today.toLocaleString("en")} <span className={css.quiet}>messages today</span>
        </div>
        <div>
          <Tokens value={detail.plan.monthly_allowance} />{" "}
          <span className={css.quiet}>tokens a month in the plan</span>
        </div>
      </div>
    </div>
  );
}
