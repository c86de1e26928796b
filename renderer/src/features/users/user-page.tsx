import { Button } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { type ActName, actNamed, actNames } from "../../../../shared/contract/acts.ts";
import { type CorrectionKind, correctionWords } from "../../../../shared/contract/corrections.ts";
import type { Failure } from "../../../../shared/contract/basics.ts";
import type { AccountDetail, AccountState } from "../../../../shared/contract/users.ts";
import type { Receipt } from "../../../../shared/contract/watch.ts";
import { useZone } from "../../lib/clock.ts";
import { toFailure, useCall } from "../../lib/console.tsx";
import { useKeys } from "../../lib/keys.ts";
import { useIsReadOnly, useMayAct } from "../../lib/live.ts";
import { navigate, placeAddress } from "../../lib/router.ts";
import { accountSigns } from "../../lib/signs.ts";
import { cleanText, clip } from "../../lib/text.ts";
import { BlockIcon, ChevronLeftIcon, FlagIcon, NoteIcon, UnblockIcon } from "../../ui/icons.tsx";
import { ActButton } from "../../ui/act-form.tsx";
import { copyText, Section, Tag, UserName } from "../../ui/parts.tsx";
import { showNotice } from "../../ui/notices.tsx";
import { ReceiptView } from "../../ui/receipt.tsx";
import { DetailBar, DetailScroll } from "../../ui/side-detail.tsx";
import { ErrorView, Skeleton, StaleLine } from "../../ui/states.tsx";
import { ActList } from "../../ui/act-list.tsx";
import { CorrectionButton } from "../../ui/correction-form.tsx";
import { History } from "./history.tsx";
import { LastStop } from "./last-stop.tsx";
import { Payments } from "./payments.tsx";
import { Ledger } from "./ledger.tsx";
import { Audit, DecisionList, LotsAndHolds } from "./user-lists.tsx";
import { useOffer } from "../../lib/offered.ts";
import { Standing } from "./user-standing.tsx";
import { Identity, Summary } from "./user-summary.tsx";
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

/** Corrections that concern the user as a whole; those of a call or a hold are beside it. */
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

const needsConnection =
  "Tokens, plans and limits need a connection. Flags, blocks and notes are kept and sent later.";

/** What can be done to the user: by button, by key and from the palette. */
function useUserActs(userId: string, account: AccountState | undefined) {
  const [act, setAct] = useState<ActName | CorrectionKind | null>(null);
  const isLive = useMayAct();
  const isReadOnly = useIsReadOnly();
  const offered = userActs.filter((name) => account && actNamed(name).isOffered(account));
  useKeys(
    {
      ...Object.fromEntries(
        offered.map((name) => [actNamed(name).words.key ?? name, () => isReadOnly || setAct(name)]),
      ),
      ...Object.fromEntries(
        userCorrections.flatMap((kind) => {
          const { key } = correctionWords[kind];
          return key
            ? [
                [
                  key,
                  () =>
                    isLive
                      ? setAct(kind)
                      : showNotice("info", "This needs a connection to the project.", needsConnection),
                ],
              ]
            : [];
        }),
      ),
      c: () => void copyText(userId),
    },
    account !== undefined,
  );
  const named = [
    ...(isReadOnly ? [] : offered).map((name) => ({ name, title: actNamed(name).words.button })),
    ...(account && isLive
      ? userCorrections.map((name) => ({ name, title: correctionWords[name].title }))
      : []),
  ];
  const who = clip(cleanText(account?.display_name ?? "") || userId, 40);
  useOffer(`${who} ${named.map(({ name }) => name).join(" ")}`, () =>
    named.map(({ name, title }) => ({
      id: name,
      label: `${title}: ${who}`,
      words: "act correct user",
      // The palette gives the focus back first; then the form takes it.
      run: () => setTimeout(() => setAct(name), 150),
    })),
  );
  // A form whose act ends late closes itself, and no other that was opened meanwhile.
  const open = (name: ActName | CorrectionKind, opened: boolean): void =>
    setAct((current) => (opened ? name : current === name ? null : current));
  return { act, open, offered, isLive };
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
  const account = query.data?.account;
  const address = placeAddress(["users", userId]);
  const { act, open, offered, isLive } = useUserActs(userId, account);
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
          <span className={css.title}>
            <UserName name={account.display_name} id={account.user_id} />
            {signs.map((sign) => (
              <Tag key={sign.word} tone={sign.tone} title={sign.word}>
                {sign.word}
              </Tag>
            ))}
          </span>
        }
        onClose={onClose}
      >
        {offered.map((name) => (
          <ActButton
            key={name}
            act={name}
            record={account}
            icon={icons[name]}
            opened={act === name}
            onOpened={(opened) => open(name, opened)}
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
                onOpened={(opened) => open(kind, opened)}
              />
            ))}
            {isLive ? null : <span className={css.quiet}>{needsConnection}</span>}
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
            <OneDecision decisionId={decision} address={address} plan={account.plan_id} />
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
      return <Payments userId={account.user_id} payments={detail.payments} />;
    case "acts":
      return <ActList mine={false} userId={account.user_id} status={null} />;
    case "audit":
      return <Audit userId={account.user_id} entries={detail.audit} />;
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

/** The receipt of one call, with what can be put right about it. */
function OneDecision({
  decisionId,
  address,
  plan,
}: {
  readonly decisionId: number;
  readonly address: string;
  readonly plan: string;
}): ReactNode {
  return (
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
        key={decisionId}
        decisionId={decisionId}
        actions={(receipt) => <CallCorrections receipt={receipt} plan={plan} />}
      />
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
