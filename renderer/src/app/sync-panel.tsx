import { Button, Popover } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { actNamed, subjects } from "../../../shared/contract/acts.ts";
import type { Intent } from "../../../shared/contract/sync.ts";
import { useConsole } from "../lib/console.tsx";
import { useLive } from "../lib/live.ts";
import { formatTokens } from "../lib/format.ts";
import { placeAddress } from "../lib/router.ts";
import { cleanText, clip, codeWords, counted } from "../lib/text.ts";
import { SyncIcon } from "../ui/icons.tsx";
import { showFailure } from "../ui/notices.tsx";
import { Tag, Time, TimedText } from "../ui/parts.tsx";
import type { Tone } from "../ui/theme.ts";
import css from "./shell.module.css";

const signs: Record<Intent["status"], { readonly tone: Tone; readonly word: string }> = {
  pending: { tone: "amber", word: "waiting" },
  acknowledged: { tone: "green", word: "done" },
  conflict: { tone: "red", word: "conflict" },
  failed: { tone: "red", word: "failed" },
  expired: { tone: "grey", word: "expired" },
};

/** What waits to be sent, and what needs a person. */
export function SyncPill(): ReactNode {
  const intents = useLive((state) => state.intents);
  const pending = intents.filter((each) => each.status === "pending").length;
  const trouble = intents.filter((each) => each.status === "conflict" || each.status === "failed").length;
  const tone = trouble > 0 ? "red" : pending > 0 ? "amber" : "grey";
  const words =
    trouble > 0
      ? counted(trouble, "to resolve", "to resolve")
      : pending > 0
        ? `${pending} waiting`
        : "All sent";
  const rank: Record<Intent["status"], number> = {
    conflict: 0,
    failed: 0,
    pending: 1,
    expired: 2,
    acknowledged: 3,
  };
  const shown = [...intents]
    .sort((a, b) => rank[a.status] - rank[b.status] || b.created_at.localeCompare(a.created_at))
    .slice(0, 50);
  return (
    <Popover position="bottom-end">
      <Popover.Target>
        <button type="button" className={css.pill} data-tone={tone} aria-label={`Changes: ${words}`}>
          <SyncIcon size={14} />
          {words}
        </button>
      </Popover.Target>
      <Popover.Dropdown>
        <div className={css.panel}>
          <div className={css.panelHead}>
            <h2>Your changes</h2>
            <a href="#/audit/mine">All my acts, with undo</a>
          </div>
          {shown.length === 0 ? (
            <span style={{ color: "var(--c-muted)" }}>
              Nothing waits. What you change while offline is kept here and sent once, when the project
              answers.
            </span>
          ) : (
            <div className={css.intents}>
              {shown.map((each) => (
                <IntentCard key={each.command_id} intent={each} />
              ))}
            </div>
          )}
        </div>
      </Popover.Dropdown>
    </Popover>
  );
}

function IntentCard({ intent }: { readonly intent: Intent }): ReactNode {
  const client = useConsole();
  const [busy, setBusy] = useState(false);
  const sign = signs[intent.status];
  const address = placeAddress([subjects[actNamed(intent.kind).subject].desk, intent.subject]);
  const resolve = async (choice: "mine" | "theirs"): Promise<void> => {
    setBusy(true);
    const result = await client.call("sync.resolve", { command_id: intent.command_id, choice });
    setBusy(false);
    // What is left comes by the stream, of whichever project is open by then.
    if (!result.ok) showFailure("Not resolved", result.error);
  };
  const needsPerson =
    intent.status === "conflict" || intent.status === "failed" || intent.status === "expired";
  return (
    <div className={css.intent}>
      <div className={css.intentHead}>
        <span>
          <a href={`#${address}`}>
            <TimedText text={intent.summary} length={200} />
          </a>
        </span>
        <Tag tone={sign.tone}>{sign.word}</Tag>
      </div>
      <div className={css.intentMeta}>
        <Time at={intent.created_at} />
        {intent.status === "pending" && intent.attempts > 0
          ? `, tried ${counted(intent.attempts, "time")}`
          : ""}
        {intent.status === "pending" ? (
          <>
            , kept for sending until <Time at={intent.expires_at} form="short" />
          </>
        ) : null}
      </div>
      {intent.failure && intent.status !== "acknowledged" ? (
        <div>
          {intent.failure.message} {intent.failure.advice}
        </div>
      ) : null}
      {intent.status === "conflict" ? (
        <ThreeWay base={intent.base} mine={intent.mine} theirs={intent.theirs} />
      ) : null}
      {needsPerson ? (
        <div className={css.buttons}>
          <Button variant="filled" loading={busy} onClick={() => void resolve("mine")}>
            {intent.status === "conflict" ? "Send mine on top" : "Send again"}
          </Button>
          <Button loading={busy} onClick={() => void resolve("theirs")}>
            {intent.status === "conflict" ? "Keep what is there" : "Drop it"}
          </Button>
        </div>
      ) : null}
    </div>
  );
}

const QUIET_KEYS = new Set([
  "version",
  "version_id",
  "updated_at",
  "matches_24h",
  "created_at",
  "id",
  "kind",
  "key",
  "at",
  "reason",
  "is_retired",
]);

/** The same keys side by side: what was seen, what is wanted, what is there now. Only keys that differ. */
export function threeWayRows(
  base: unknown,
  mine: unknown,
  theirs: unknown,
): readonly (readonly [string, string, string, string])[] {
  const record = (value: unknown): Record<string, unknown> => {
    if (typeof value !== "object" || value === null) return { value };
    // A record of the configuration is compared field by field.
    const { record: fields, ...rest } = value as Record<string, unknown>;
    return typeof fields === "object" && fields !== null
      ? { ...rest, ...(fields as Record<string, unknown>) }
      : (value as Record<string, unknown>);
  };
  const [a, b, c] = [record(base), record(mine), record(theirs)];
  const text = (value: unknown): string =>
    value === undefined || value === null
      ? "—"
      : typeof value === "number"
        ? formatTokens(value)
        : clip(cleanText(typeof value === "string" ? value : JSON.stringify(value)), 120);
  const keys = [...new Set([...Object.keys(b), ...Object.keys(c), ...Object.keys(a)])];
  return keys
    .filter((key) => !QUIET_KEYS.has(key))
    .map((key) => {
      // An act names only what it changes; the rest stays as it is there.
      const wanted = key === "by" ? "you" : key in b ? b[key] : c[key];
      return [key, text(a[key]), text(wanted), text(c[key])] as const;
    })
    .filter(([, was, wanted, now]) => wanted !== now || was !== now);
}

function ThreeWay(props: {
  readonly base: unknown;
  readonly mine: unknown;
  readonly theirs: unknown;
}): ReactNode {
  const rows = threeWayRows(props.base, props.mine, props.theirs);
  return (
    <div className={css.threeWay}>
      <b />
      <b>you saw</b>
      <b>you want</b>
      <b>now there</b>
      {rows.map(([key, was, wanted, now]) => (
        <span key={key} style={{ display: "contents" }}>
          <b>{codeWords(key)}</b>
          <span>
            <TimedText text={was} />
          </span>
          <span data-differs={wanted !== now || undefined}>
            <TimedText text={wanted} />
          </span>
          <span data-differs={was !== now || undefined}>
            <TimedText text={now} />
          </span>
        </span>
      ))}
    </div>
  );
}
