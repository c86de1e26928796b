import { Button, NativeSelect } from "@mantine/core";
import type { ReactNode } from "react";
import type { UserMessage } from "../../../../shared/contract/plans.ts";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import { settingFields } from "../../../../shared/governance/configuration/index.ts";
import { useCall } from "../../lib/console.tsx";
import { useIsLive } from "../../lib/live.ts";
import { navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { cleanLines, clip, counted } from "../../lib/text.ts";
import { type Column, DataTable } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { Note, SafeText, Tag } from "../../ui/parts.tsx";
import { DetailBar, DetailScroll, SideDetail } from "../../ui/side-detail.tsx";
import { EmptyView, QueryView, Skeleton, StaleLine } from "../../ui/states.tsx";
import css from "./plans.module.css";

interface MessageWords {
  readonly title: string;
  /** When it is sent. */
  readonly when: string;
}

/** By the words of the catalogue (shared/governance/rules/user-words.ts). */
const messageWords: Readonly<Record<string, MessageWords>> = {
  "message.purchase": { title: "Purchase confirmed", when: "A pack is paid and its tokens are there." },
  "message.renewal": { title: "Payment for a plan", when: "An invoice is paid and its tokens are there." },
  "message.subscription_keep": {
    title: "Subscription ended, tokens kept",
    when: "On plans that keep tokens when a subscription ends.",
  },
  "message.subscription_convert": {
    title: "Subscription ended, tokens converted",
    when: "On plans that turn what is left into bought tokens.",
  },
  "message.subscription_expire": {
    title: "Subscription ended, tokens expired",
    when: "On plans whose tokens expire when a subscription ends.",
  },
  "message.refund": { title: "Taken back: refund", when: "A payment was refunded." },
  "message.dispute": { title: "Taken back: dispute", when: "A dispute was decided against you." },
  "message.support": { title: "Taken back: support", when: "An operator took tokens, or finance did." },
  "alert.low_balance": {
    title: "Low balance",
    when: "The balance falls below the setting for a low balance; once a day at most.",
  },
  "alert.daily_limit": { title: "Daily limit nearly used", when: "A percentage of the plan is reached." },
  "alert.monthly_limit": { title: "Monthly limit nearly used", when: "A percentage of the plan is reached." },
  "alert.allowance": { title: "Allowance nearly used", when: "A percentage of the plan is reached." },
  "alert.negative_balance": { title: "Debt", when: "Where an alert on debt writes to users." },
  "alert.high_usage": { title: "High usage", when: "Where an alert on high usage writes to users." },
  "alert.usage_spike": { title: "Sudden use", when: "Where an alert on sudden use writes to users." },
  "alert.user_budget": { title: "A user’s budget", when: "Where an alert on budgets writes to users." },
};
const wordsOf = ({ word }: UserMessage): MessageWords => messageWords[word] ?? { title: word, when: "" };

/** What mails lack where a setting has no value. */
const lacks: Readonly<Record<string, string>> = {
  unsubscribe_url: "Mails have no link that turns them off.",
  buy_url: "Mails about a low balance have no link to buy.",
  upgrade_url: "No mail leads to your plans.",
  contact_url: "Mails about tokens taken back do not say how to reach you.",
};

const columns: readonly Column<UserMessage>[] = [
  {
    id: "message",
    header: "Mail",
    width: 220,
    grow: 1,
    fixed: true,
    cell: (message) => (
      <div className={css.name}>
        <span>{wordsOf(message).title}</span>
        <span className={css.quiet} title={wordsOf(message).when}>
          {wordsOf(message).when}
        </span>
      </div>
    ),
  },
  {
    id: "state",
    header: "State",
    width: 150,
    cell: (message) => (
      <div className={css.name}>
        <span>{message.is_sent ? <Tag tone="green">sent</Tag> : <Tag tone="grey">not sent</Tag>}</span>
        {message.turned_off_by > 0 ? (
          <span className={css.quiet}>{counted(message.turned_off_by, "user")} turned it off</span>
        ) : null}
      </div>
    ),
  },
];

/** The place of this page: which mail, in which language, as text or as mail programs show it. */
function usePreview() {
  const { query } = usePlace();
  const [message, language, form] = [query.get("message"), query.get("language"), query.get("as")];
  const go = (change: Record<string, string>): void =>
    navigate(
      placeAddress(["plans"], {
        do: "messages",
        ...(message === null ? {} : { message }),
        ...(language === null ? {} : { language }),
        ...(form === null ? {} : { as: form }),
        ...change,
      }),
      { replace: true },
    );
  return { message, language, form: form === "text" ? "text" : "mail", go } as const;
}

/** Every mail that users can get, as it would be sent. */
export function MessagesPage(): ReactNode {
  const { language } = usePreview();
  const query = useCall("plans.messages", { language }, { keepPrevious: true });
  return (
    <QueryView query={query} skeleton={<Skeleton lines={10} />}>
      {(answer) => <Messages answer={answer} />}
    </QueryView>
  );
}

function Messages({ answer }: { readonly answer: OperationOutput<"plans.messages"> }): ReactNode {
  const preview = usePreview();
  const isLive = useIsLive();
  const { messages } = answer;
  // The first is open until another is chosen, or none.
  const open = messages.find(({ word }) => word === (preview.message ?? messages[0]?.word)) ?? null;
  const close = (): void => preview.go({ message: "" });
  return (
    <SideDetail
      id="user-messages"
      initialWidth={560}
      minListWidth={360}
      detailLabel="Mail"
      onClose={close}
      list={
        <>
          <DeskBar title="Mails to users">
            <NativeSelect
              size="xs"
              aria-label="Language"
              data={answer.languages.map((each) => ({ value: each.language, label: each.name }))}
              value={answer.language}
              onChange={(event) => preview.go({ language: event.currentTarget.value })}
            />
            <Grow />
            <Button onClick={() => navigate("/plans?kind=setting")}>Back</Button>
          </DeskBar>
          {isLive ? null : <StaleLine asOf={answer.as_of}>The mails as they were</StaleLine>}
          <Lacks answer={answer} />
          <DataTable
            id="user-messages"
            label="Mails"
            columns={columns}
            rows={messages}
            rowKey={({ word }) => word}
            rowHeight={46}
            keys
            openKey={open?.word ?? null}
            onOpen={({ word }) => preview.go({ message: word })}
            empty={<EmptyView title="No mails" />}
            footer={
              <span>
                <a href={`#${placeAddress(["plans", "setting:user_messages"])}`}>Which are sent</a> is a
                setting. Each user can turn each topic off.
              </span>
            }
          />
        </>
      }
      detail={open ? <Preview key={open.word} message={open} from={answer.from} onClose={close} /> : null}
    />
  );
}

/** Settings without a value that mails would be better with, and where to give them one. */
function Lacks({ answer }: { readonly answer: OperationOutput<"plans.messages"> }): ReactNode {
  const lacking = answer.missing.filter((key) => Object.hasOwn(lacks, key));
  if (lacking.length === 0 && answer.is_mail_on) return null;
  return (
    <div className={css.lacks}>
      <Note tone="amber" role="status">
        {answer.is_mail_on ? null : (
          <div>
            No mail is sent to users.{" "}
            <a href={`#${placeAddress(["plans", "setting:user_warning_channels"])}`}>
              {settingFields.get("user_warning_channels")?.label}
            </a>
          </div>
        )}
        {lacking.map((key) => (
          <div key={key}>
            {lacks[key]}{" "}
            <a href={`#${placeAddress(["plans", `setting:${key}`])}`}>{settingFields.get(key)?.label}</a>
          </div>
        ))}
      </Note>
    </div>
  );
}

function Preview({
  message,
  from,
  onClose,
}: {
  readonly message: UserMessage;
  readonly from: string | null;
  readonly onClose: () => void;
}): ReactNode {
  const { form, go } = usePreview();
  return (
    <>
      <DetailBar title={wordsOf(message).title} onClose={onClose}>
        <NativeSelect
          size="xs"
          aria-label="Shown as"
          data={[
            { value: "mail", label: "As mail programs show it" },
            { value: "text", label: "As plain text" },
          ]}
          value={form}
          onChange={(event) => go({ as: event.currentTarget.value })}
        />
      </DetailBar>
      <DetailScroll>
        <div className={css.page}>
          <dl className={css.head}>
            <dt>From</dt>
            <dd>
              {from === null ? (
                <span className={css.quiet}>
                  MAIL_FROM of whoever delivers.{" "}
                  <a href={`#${placeAddress(["plans", "setting:mail_from"])}`}>
                    {settingFields.get("mail_from")?.label}
                  </a>
                </span>
              ) : (
                <SafeText text={from} length={200} />
              )}
            </dd>
            <dt>Subject</dt>
            <dd>
              <SafeText text={message.subject} length={200} />
            </dd>
          </dl>
          {form === "text" ? (
            <pre className={css.text}>{clip(cleanLines(message.text), 5_000)}</pre>
          ) : (
            // Nothing in it runs, is clicked or is loaded: it is looked at.
            <iframe className={css.mail} title={message.subject} srcDoc={message.html} sandbox="" inert />
          )}
          <span className={css.quiet}>
            To an invented user in London on the plan for new users. The link that turns such mails off is
            each user’s own.
          </span>
        </div>
      </DetailScroll>
    </>
  );
}
