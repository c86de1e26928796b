/** The small pieces every screen is made of: names, ids, numbers, times, signs. */
import { type ReactNode, useState } from "react";
import { useNow, useZone } from "../lib/clock.ts";
import {
  formatClock,
  formatCompact,
  formatCallCost,
  formatCost,
  formatExactCost,
  formatInstant,
  formatPercent,
  formatRelative,
  formatShortInstant,
  formatTokens,
} from "../lib/format.ts";
import { translated } from "../lib/language.ts";
import { planName, useLive } from "../lib/live.ts";
import { capitalise, cleanText, clip, reasonWords, shortenId } from "../lib/text.ts";
import { CheckIcon, CopyIcon, InfoIcon, WarningIcon } from "./icons.tsx";
import css from "./parts.module.css";
import type { Tone } from "./theme.ts";

/**
 * A name that somebody outside chose: isolated from the direction of the text around it, without invisible signs,
 * clipped, whole on hover. Falls back to the id, shortened.
 */
export function UserName({
  name,
  id,
}: {
  readonly name: string | null | undefined;
  readonly id?: string | null;
}): ReactNode {
  const clean = name ? cleanText(name) : "";
  if (clean)
    return (
      // Names are not unique: the tip tells two of the same apart.
      <bdi className={css.name} title={clip(clean, 2000) + (id ? ` · ${clip(cleanText(id), 200)}` : "")}>
        {clip(clean, 80)}
      </bdi>
    );
  if (id)
    return (
      <bdi className={`${css.name} ${css.id}`} title={clip(cleanText(id), 500)}>
        {shortenId(id, 14, 6) || "unnamed"}
      </bdi>
    );
  return <span className={css.unnamed}>unnamed</span>;
}

/** A name in a short list, where others may have the same one: then the end of the id stands beside it. */
export function NameAmong({
  user,
  others,
}: {
  readonly user: { readonly user_id: string; readonly display_name: string | null };
  readonly others: readonly { readonly user_id: string; readonly display_name: string | null }[];
}): ReactNode {
  const name = cleanText(user.display_name ?? "");
  const isShared = others.some(
    (other) => other.user_id !== user.user_id && cleanText(other.display_name ?? "") === name,
  );
  return (
    <span className={css.among}>
      <UserName name={user.display_name} id={user.user_id} />
      {isShared && name ? <small>{shortenId(user.user_id, 0, 6)}</small> : null}
    </span>
  );
}

/** A plan by its name, with its id in the tip; one that is gone, or has no name, by its id. */
export function PlanName({ id }: { readonly id: string | null }): ReactNode {
  const name = useLive((state) => (id === null ? "" : planName(state.connection?.project?.plans, id)));
  return id === null ? "—" : <span title={clip(cleanText(id), 200)}>{name}</span>;
}

/** A user in a table: names are not unique, so the e-mail is below and the id in the tip. */
export function UserLine({
  user,
}: {
  readonly user: {
    readonly user_id: string;
    readonly display_name: string | null;
    readonly email: string | null;
  };
}): ReactNode {
  return (
    <span className={css.userLine} title={user.user_id}>
      <UserName name={user.display_name} id={user.user_id} />
      {user.email ? (
        <span className={css.userEmail}>
          <SafeText text={user.email} length={60} />
        </span>
      ) : null}
    </span>
  );
}

/** Any other text from outside, on one line. */
export function SafeText({
  text,
  length = 300,
}: {
  readonly text: string;
  readonly length?: number;
}): ReactNode {
  const clean = cleanText(text);
  // Narrow places cut before that.
  return (
    <bdi title={clean.length > Math.min(length, 30) ? clip(clean, 2000) : undefined}>
      {clip(clean, length)}
    </bdi>
  );
}

/** Why a call was stopped or given back: a known code in words, or a person's or a rule's own words. */
export function Reason({ reason }: { readonly reason: string }): ReactNode {
  return <bdi title={clip(cleanText(reason), 2000)}>{clip(capitalise(reasonWords(reason)), 300)}</bdi>;
}

/** A time as a database or a log writes it: 2026-11-29T02:58:26.42+00:00, 2026-11-29 02:51:32.383+00. */
const writtenTime = /\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d(?::?\d\d)?)/g;

/** A text with times in it, each shown as times are. */
export function TimedText({
  text,
  length = 300,
}: {
  readonly text: string;
  readonly length?: number;
}): ReactNode {
  const clean = clip(cleanText(text), length);
  const parts: ReactNode[] = [];
  let from = 0;
  for (const { 0: written, index } of clean.matchAll(writtenTime)) {
    const at = written.replace(" ", "T").replace(/([+-]\d\d)$/, "$1:00");
    parts.push(clean.slice(from, index), <Time key={index} at={at} form="short" />);
    from = index + written.length;
  }
  return (
    <bdi>
      {parts}
      {clean.slice(from)}
    </bdi>
  );
}

export function CopyButton({
  text,
  label = "Copy",
  size = 14,
}: {
  readonly text: string | (() => string);
  readonly label?: string;
  readonly size?: number;
}): ReactNode {
  const [done, setDone] = useState(false);
  const copy = async (): Promise<void> => {
    await copyText(typeof text === "string" ? text : text());
    setDone(true);
    setTimeout(() => setDone(false), 1200);
  };
  return (
    <button
      type="button"
      className={css.copy}
      data-done={done || undefined}
      title={done ? "Copied" : label}
      aria-label={done ? "Copied" : label}
      onClick={(event) => {
        event.stopPropagation();
        void copy();
      }}
    >
      {done ? <CheckIcon size={size} /> : <CopyIcon size={size} />}
    </button>
  );
}

/** Copies also where the clipboard API is not allowed. */
export async function copyText(text: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

/** An id in monospace, shortened in the middle, with its copy button. */
export function Id({
  value,
  head = 8,
  tail = 4,
  copy = true,
}: {
  readonly value: string;
  readonly head?: number;
  readonly tail?: number;
  readonly copy?: boolean;
}): ReactNode {
  const text = (
    <bdi className={css.id} title={clip(cleanText(value), 600)}>
      {shortenId(value, head, tail)}
    </bdi>
  );
  if (!copy) return text;
  return (
    <span className={css.copyable}>
      {text}
      <CopyButton text={value} label="Copy the whole id" />
    </span>
  );
}

export function Tokens({
  value,
  compact = false,
}: {
  readonly value: number | null | undefined;
  readonly compact?: boolean;
}): ReactNode {
  if (value === null || value === undefined) return <span className={css.none}>—</span>;
  const exact = formatTokens(value);
  const shown = compact ? formatCompact(value) : exact;
  return <span title={shown === exact ? undefined : `${exact} tokens`}>{shown}</span>;
}

export function Cost({
  micros,
  currency,
  of = "sum",
}: {
  /** A column of single calls has four decimals throughout, a sum the cents. */
  readonly of?: "call" | "sum";
  readonly micros: number | null | undefined;
  readonly currency: string | null | undefined;
}): ReactNode {
  if (micros === null || micros === undefined || !currency)
    return (
      <span className={css.none} title="No price is known for this call">
        —
      </span>
    );
  return (
    <span className={css.cost} title={formatExactCost(micros, currency)}>
      {(of === "call" ? formatCallCost : formatCost)(micros, currency)}
    </span>
  );
}

/** A time: relative in running text, absolute with its zone on hover. */
export function Time({
  at,
  form = "relative",
  zone: accountZone,
}: {
  readonly at: string | null | undefined;
  readonly form?: "relative" | "clock" | "short" | "full";
  /** The account's own zone, for those who chose to see it. */
  readonly zone?: string | null;
}): ReactNode {
  const zone = useZone(accountZone);
  const now = useNow(form === "relative" ? 1000 : 60_000);
  if (!at) return <span className={css.none}>—</span>;
  const full = formatInstant(at, zone);
  const shown =
    form === "relative"
      ? formatRelative(at, now)
      : form === "clock"
        ? formatClock(at, zone)
        : form === "short"
          ? formatShortInstant(at, zone, now)
          : full;
  return (
    <time dateTime={at} title={form === "relative" ? full : `${full} (${formatRelative(at, now)})`}>
      {shown}
    </time>
  );
}

/** A word with its colour; the sign is never colour alone. */
export function Tag({
  tone,
  children,
  plain = false,
  dot = false,
  title,
}: {
  readonly tone: Tone;
  readonly children: ReactNode;
  readonly plain?: boolean;
  readonly dot?: boolean;
  readonly title?: string | undefined;
}): ReactNode {
  return (
    <span className={css.tag} data-tone={tone} data-plain={plain || undefined} title={title}>
      {dot ? <span className={css.dot} /> : null}
      {children}
    </span>
  );
}

/** Use of a limit as a bar with its figure. */
export function Meter({
  percent,
  warnAt = 80,
  label,
  stops = true,
}: {
  readonly percent: number | null | undefined;
  readonly warnAt?: number;
  readonly label?: string;
  /** Whether anything stops at 100 %: only then is it red. */
  readonly stops?: boolean;
}): ReactNode {
  if (percent === null || percent === undefined)
    return (
      <span className={css.none} title="No limit">
        no limit
      </span>
    );
  const tone = !stops ? "blue" : percent >= 100 ? "red" : percent >= warnAt ? "amber" : "blue";
  return (
    <span
      className={css.meter}
      role="meter"
      aria-valuenow={percent}
      aria-valuemin={0}
      aria-valuemax={100}
      aria-label={label ?? "Used"}
    >
      <span className={css.track}>
        <span className={css.fill} data-tone={tone} style={{ width: `${Math.min(100, percent)}%` }} />
      </span>
      <span
        className={css.percent}
        title={label ? `${label}: ${formatPercent(percent)}` : formatPercent(percent)}
      >
        {percent > 999 ? "> 999 %" : formatPercent(percent)}
      </span>
    </span>
  );
}

export function Section({
  title,
  aside,
  children,
}: {
  readonly title: ReactNode;
  readonly aside?: ReactNode;
  readonly children: ReactNode;
}): ReactNode {
  return (
    <section className={css.section}>
      <header>
        <h2>{title}</h2>
        {aside ? <div>{aside}</div> : null}
      </header>
      {children}
    </section>
  );
}

/** Name and value pairs. */
export function Facts({ rows }: { readonly rows: readonly (readonly [string, ReactNode])[] }): ReactNode {
  return (
    <dl className={css.facts}>
      {rows.map(([name, value]) => (
        <div key={name} style={{ display: "contents" }}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** One quiet line with the state. */
export function Note({
  tone,
  children,
  role,
}: {
  readonly tone: Tone;
  readonly children: ReactNode;
  readonly role?: "alert" | "status";
}): ReactNode {
  return (
    <div className={css.note} data-tone={tone} role={role}>
      {tone === "red" || tone === "amber" ? <WarningIcon /> : <InfoIcon />}
      <div>{children}</div>
    </div>
  );
}

/** Why a second person decides, in the database's words. */
export function ProposalNote({ why }: { readonly why: string }): ReactNode {
  return <Note tone="amber">{translated(why)}. You propose it; nothing moves until then.</Note>;
}

export function Kbd({ children }: { readonly children: ReactNode }): ReactNode {
  return <kbd className={css.kbd}>{children}</kbd>;
}
