import { Button, Select } from "@mantine/core";
import { type ReactNode, useState } from "react";
import type { Tried } from "../../../shared/contract/corrections.ts";
import type { Receipt } from "../../../shared/contract/watch.ts";
import {
  describeFact,
  describeReceipt,
  describeRule,
  parseRule,
  type UserLanguage,
  userLanguageName,
  userLanguageOf,
  userLanguages,
  userText,
} from "../../../shared/governance/rules/index.ts";
import { isTimeZone } from "../../../shared/governance/time/zone.ts";
import { useNow } from "../lib/clock.ts";
import { useCall } from "../lib/console.tsx";
import { formatInstant, formatTokens } from "../lib/format.ts";
import { translated } from "../lib/language.ts";
import { linkHere, useIsLive } from "../lib/live.ts";
import { isOneOf } from "../lib/remember.ts";
import { placeAddress } from "../lib/router.ts";
import { decisionSign, modeSign } from "../lib/signs.ts";
import { cleanLines, cleanText, clip, codeWords, reasonWords } from "../lib/text.ts";
import { CheckIcon, CopyIcon, LinkIcon } from "./icons.tsx";
import { copyText, Facts, Id, SafeText, Section, Tag, Time, Tokens } from "./parts.tsx";
import css from "./receipt.module.css";
import { QueryView } from "./states.tsx";

/** The receipt's words without the marks around the rule's name, for tickets and mails. */
export function receiptSentence(receipt: Receipt, nowMs: number): string {
  return cleanText(describeReceipt(receipt, nowMs, codeWords)).replaceAll("*", "");
}

/** Everything a ticket needs about one decision. */
function receiptTicket(receipt: Receipt, nowMs: number): string {
  return [
    receiptSentence(receipt, nowMs),
    receipt.message ? `Shown to the user: “${cleanText(receipt.message)}”` : null,
    ...receipt.remedies.map((remedy) => `- ${cleanText(translated(remedy))}`),
    "",
    `User: ${receipt.user_id}`,
    `Request: ${receipt.request_id}`,
    `Decision: ${receipt.decision_id} (HTTP ${receipt.http_status}${receipt.reason ? `, ${receipt.reason}` : ""})`,
    `At: ${formatInstant(receipt.at, receipt.timezone)}`,
  ]
    .filter((line) => line !== null)
    .join("\n");
}

/** How the same call would be decided now, in a sentence. */
export function triedSentence(tried: Tried): string {
  const free = `${formatTokens(tried.balance.available)} free`;
  const unread = tried.had_message ? " Rules that read the message were not asked: it is not kept." : "";
  if (tried.decision === "block")
    return `Now it would be stopped again: ${tried.reason ? reasonWords(tried.reason) : "a rule"}, ${free}.${unread}`;
  return `Now it would pass${tried.decision === "warn" ? ", with a warning" : ""}: ${free}.${unread}`;
}

/** For the user, in their language: what happened, and what to do next. */
function receiptForUser(receipt: Receipt, tried: Tried | null, language: UserLanguage): string {
  const wouldPass = tried !== null && tried.decision !== "block";
  return cleanLines(
    userText(receipt, language, wouldPass, (at, locale) => {
      const zone = isTimeZone(receipt.timezone) ? receipt.timezone : "UTC";
      const moment = new Intl.DateTimeFormat(locale, {
        dateStyle: "long",
        timeStyle: "short",
        timeZone: zone,
      });
      return `${moment.format(new Date(at))} (${zone})`;
    }),
  );
}

/** How a stopped call would be decided now; nothing without a connection. */
export function useTried(receipt: Receipt) {
  const isLive = useIsLive();
  return useCall(
    "users.try_decision",
    { decision_id: receipt.decision_id },
    { enabled: receipt.decision === "block" && isLive, staleMs: 5000 },
  );
}

const isLanguage = isOneOf(...userLanguages);

/** The two texts of a receipt, one for the user and one for a colleague, and its link. */
export function ReceiptCopies({ receipt }: { readonly receipt: Receipt }): ReactNode {
  const now = useNow(1000);
  const tried = useTried(receipt).data ?? null;
  // The user's own language, until the agent chooses another one for this receipt.
  const [chosen, setLanguage] = useState<UserLanguage | null>(null);
  const language = chosen ?? userLanguageOf(receipt.language);
  const link = placeAddress(["watch", "decisions", String(receipt.decision_id)]);
  return (
    <>
      {receipt.decision === "block" ? (
        <span className={css.forUser}>
          <TimedCopy
            label="Copy for the user"
            text={() => receiptForUser(receipt, tried, language)}
            icon={<CopyIcon size={14} />}
          />
          <Select
            aria-label="Language of the text for the user"
            w={104}
            allowDeselect={false}
            data={userLanguages.map((value) => ({ value, label: userLanguageName(value) }))}
            value={language}
            onChange={(value) => isLanguage(value) && setLanguage(value)}
          />
        </span>
      ) : null}
      <TimedCopy
        label="Copy for ticket"
        text={() =>
          [receiptTicket(receipt, now), tried ? triedSentence(tried) : null, linkHere(link)]
            .filter(Boolean)
            .join("\n")
        }
        icon={<CopyIcon size={14} />}
      />
      <TimedCopy label="Copy link" text={() => linkHere(link)} icon={<LinkIcon size={14} />} />
    </>
  );
}

function TriedNow({ tried }: { readonly tried: Tried }): ReactNode {
  return (
    <p className={css.now} data-tone={tried.decision === "block" ? "red" : "green"}>
      {triedSentence(tried)}
    </p>
  );
}

/** Why a call was stopped or let through: verdict, what would change it, every rule with what it saw. */
export function ReceiptView({
  decisionId,
  actions,
}: {
  readonly decisionId: number;
  /** Buttons of the place where it is shown. */
  readonly actions?: (receipt: Receipt) => ReactNode;
}): ReactNode {
  const query = useCall("watch.explain", { decision_id: decisionId }, { staleMs: 30_000 });
  return (
    <QueryView query={query}>{(receipt) => <ReceiptBody receipt={receipt} actions={actions} />}</QueryView>
  );
}

function ReceiptBody({
  receipt,
  actions,
}: {
  readonly receipt: Receipt;
  readonly actions: ((receipt: Receipt) => ReactNode) | undefined;
}): ReactNode {
  const now = useNow(1000);
  const tried = useTried(receipt);
  const sign = decisionSign(receipt.decision);
  const [said, ...rest] = splitEmphasis(describeReceipt(receipt, now, codeWords));
  const matched = receipt.rules.filter((rule) => rule.matched);
  const others = receipt.rules.filter((rule) => !rule.matched);
  return (
    <div className={css.receipt}>
      <div className={css.verdict} data-tone={sign.tone}>
        <p>
          {said}
          {rest.map((part, index) => (index % 2 === 0 ? <em key={index}>{part}</em> : part))}
        </p>
        {receipt.message ? (
          <p className={css.said}>
            Shown to the user: “<SafeText text={receipt.message} />”
          </p>
        ) : null}
      </div>
      {tried.data ? <TriedNow tried={tried.data} /> : null}
      <div className={css.actions}>
        <ReceiptCopies receipt={receipt} />
        {actions?.(receipt)}
      </div>
      {receipt.remedies.length > 0 ? (
        <Section title={receipt.decision === "block" ? "What would let it pass" : "What to know"}>
          <ul className={css.remedies}>
            {receipt.remedies.map((remedy) => (
              <li key={remedy}>
                <SafeText text={translated(remedy)} length={500} />
              </li>
            ))}
          </ul>
        </Section>
      ) : null}
      <Section title="The call">
        <Facts
          rows={[
            ["User", <Id key="u" value={receipt.user_id} head={18} tail={6} />],
            ["At", <Time key="t" at={receipt.at} form="full" zone={receipt.timezone} />],
            ["Asked for", <span key="e">{formatTokens(receipt.estimated_tokens)} tokens</span>],
            [
              "Answer",
              `HTTP ${receipt.http_status}${receipt.reason ? `, ${reasonWords(receipt.reason)}` : ""}`,
            ],
            ...(receipt.limit
              ? ([
                  [
                    `Limit of the ${receipt.limit.window === "monthly" ? "month" : "day"}`,
                    <span key="l">
                      <Tokens value={receipt.limit.used} /> of <Tokens value={receipt.limit.limit} /> used
                    </span>,
                  ],
                ] as const)
              : []),
            ...(receipt.shortfall
              ? ([
                  [
                    "Shortfall",
                    <span key="s">
                      needs <Tokens value={receipt.shortfall.need} /> {receipt.limit ? "more" : "tokens"}, has{" "}
                      <Tokens value={receipt.shortfall.have} />: <Tokens value={receipt.shortfall.missing} />{" "}
                      missing
                    </span>,
                  ],
                ] as const)
              : []),
            ...(receipt.clears_at
              ? ([
                  ["Clears", <Time key="c" at={receipt.clears_at} form="full" zone={receipt.timezone} />],
                ] as const)
              : []),
            ["Request", <Id key="r" value={receipt.request_id} head={14} tail={6} />],
            ["Decision", <Id key="d" value={String(receipt.decision_id)} />],
          ]}
        />
      </Section>
      {matched.length > 0 ? (
        <Section title={`Rules that matched (${matched.length})`}>
          <RuleTraces rules={matched} deciding={receipt.rule_name} currency={receipt.currency} />
        </Section>
      ) : null}
      {others.length > 0 ? (
        <Section title={`Looked at, did not match (${others.length})`}>
          <RuleTraces rules={others} deciding={null} currency={receipt.currency} />
        </Section>
      ) : null}
    </div>
  );
}

/** "Stopped by *daily limit*: …" → ["Stopped by ", "daily limit", ": …"]: odd parts are emphasised. */
function splitEmphasis(text: string): readonly string[] {
  const match = /^([^*]*)\*(.+?)\*([\s\S]*)$/.exec(cleanText(text));
  return match ? [match[1] ?? "", match[2] ?? "", match[3] ?? ""] : [cleanText(text)];
}

type Trace = Receipt["rules"][number];

/** The rule as it was in that version, in one sentence; null where the project does not answer with it. */
function traceSentence(trace: Trace, currency: string | null | undefined): string | null {
  if (typeof trace.rule !== "object" || trace.rule === null) return null;
  const parsed = parseRule({ ...trace.rule, rule_name: trace.rule_name });
  if (!parsed.ok) return null;
  // Its mode is beside it.
  const rule = { ...parsed.value, mode: "enforce" as const, is_active: true };
  return cleanText(describeRule(rule, currency ? { currency } : {}));
}

/** A fact as the rule saw it: figures in words ("10 identical messages"), texts beside their name. */
function FactSeen({
  fact,
  value,
  currency,
}: {
  readonly fact: string;
  readonly value: unknown;
  readonly currency: string | null | undefined;
}): ReactNode {
  const words = describeFact(fact, value, currency ? { currency } : {});
  if (words !== null) return <span>{words}</span>;
  const text =
    value === null || value === undefined ? "—" : typeof value === "string" ? value : JSON.stringify(value);
  return (
    <>
      {codeWords(fact)} <span>{clip(cleanText(text), 60)}</span>
    </>
  );
}

function RuleTraces({
  rules,
  deciding,
  currency,
}: {
  readonly rules: readonly Trace[];
  readonly deciding: string | null;
  readonly currency: string | null | undefined;
}): ReactNode {
  return (
    <div className={css.trace}>
      {rules.map((rule) => {
        const mode = modeSign(rule.mode);
        const sentence = traceSentence(rule, currency);
        return (
          <div
            key={rule.rule_name}
            className={css.rule}
            data-matched={rule.matched || undefined}
            data-deciding={rule.rule_name === deciding || undefined}
          >
            {rule.matched ? (
              <CheckIcon size={14} aria-label="matched" style={{ color: "var(--c-text)" }} />
            ) : (
              <span style={{ color: "var(--c-faint)" }}>–</span>
            )}
            <b>
              <a href={`#${placeAddress(["rules", rule.rule_name])}`}>{codeWords(rule.rule_name)}</a>{" "}
              <span className={css.version}>v{rule.version}</span>
            </b>
            {rule.mode === "enforce" ? <span /> : <Tag tone={mode.tone}>{mode.word}</Tag>}
            {sentence ? <div className={css.sentence}>{clip(sentence, 300)}</div> : null}
            {Object.keys(rule.facts).length > 0 ? (
              <div className={css.facts}>
                saw
                {Object.entries(rule.facts).map(([fact, value]) => (
                  <span key={fact}>
                    <FactSeen fact={fact} value={value} currency={currency} />
                  </span>
                ))}
              </div>
            ) : null}
          </div>
        );
      })}
    </div>
  );
}

function TimedCopy({
  label,
  text,
  icon,
}: {
  readonly label: string;
  readonly text: () => string;
  readonly icon: ReactNode;
}): ReactNode {
  const [done, setDone] = useState(false);
  return (
    <Button
      leftSection={done ? <CheckIcon size={14} /> : icon}
      onClick={async () => {
        await copyText(text());
        setDone(true);
        setTimeout(() => setDone(false), 1200);
      }}
    >
      {done ? "Copied" : label}
    </Button>
  );
}
