/** What an act changes of an account: before, after, line by line. */
import type { ReactNode } from "react";
import type { Effects, Snapshot } from "../../../shared/contract/corrections.ts";
import type { Balance } from "../../../shared/contract/users.ts";
import { formatChange, formatTokens } from "../lib/format.ts";
import { cleanText, clip } from "../lib/text.ts";
import { Note } from "./parts.tsx";
import css from "./correction.module.css";

/** What somebody else changed while the form was open. */
export function ChangedSince({
  before,
  after,
}: {
  readonly before: Snapshot;
  readonly after: Snapshot;
}): ReactNode {
  const lines = effectLines({ before, after });
  return (
    <Note tone="amber" role="alert">
      {lines.length === 0
        ? "Somebody changed this user since you looked; balance, plan, limits and blocks are the same."
        : `Changed since you looked: ${lines.map(([name, was, is]) => `${name} ${was} → ${is}`).join("; ")}.`}{" "}
      What you see now is what will happen.
    </Note>
  );
}

const balanceNames: readonly (readonly [key: keyof Balance, name: string])[] = [
  ["available", "Free"],
  ["reserved", "Held"],
  ["subscription", "Subscription"],
  ["purchased", "Purchased"],
  ["promotional", "Promotional"],
  ["debt", "Debt"],
];

/** The name of a line, its value before and after, and the difference. */
export type EffectLine = readonly [name: string, was: string, is: string, change: string];

const isSoWords = { true: "yes", false: "no" } as const;

/** What changes, line by line. */
function effectLines(effects: Pick<Effects, "before" | "after">): readonly EffectLine[] {
  const { before, after } = effects;
  const lines: [string, string, string, string][] = [];
  if (before.plan_id !== after.plan_id)
    lines.push(["Plan", cleanText(before.plan_name), cleanText(after.plan_name), ""]);
  if (before.next_plan?.plan_id !== after.next_plan?.plan_id)
    lines.push([
      "Plan, next month",
      before.next_plan ? cleanText(before.next_plan.name) : "stays",
      after.next_plan ? cleanText(after.next_plan.name) : "stays",
      "",
    ]);
  for (const [key, name] of [
    ["is_blocked", "Blocked"],
    ["is_flagged", "Flagged"],
  ] as const)
    if ((before[key] ?? false) !== (after[key] ?? false))
      lines.push([name, isSoWords[`${before[key] ?? false}`], isSoWords[`${after[key] ?? false}`], ""]);
  for (const [key, name] of balanceNames) {
    const [was, is] = [before.balance[key] as number, after.balance[key] as number];
    if (was !== is) lines.push([name, formatTokens(was), formatTokens(is), formatChange(is - was)]);
  }
  for (const [key, name] of [
    ["daily", "Daily limit"],
    ["monthly", "Monthly limit"],
  ] as const) {
    const [was, is] = [before.limits[key].limit, after.limits[key].limit];
    if (was !== is)
      lines.push([
        name,
        was === null ? "no limit" : formatTokens(was),
        is === null ? "no limit" : formatTokens(is),
        "",
      ]);
  }
  return lines;
}

/** How the user notices the act: by a mail, word for word, else by what their product shows. */
function seenByUser(effects: Effects): string {
  if (effects.user_messages && effects.user_messages.length > 0)
    return `the mail ${effects.user_messages.map((text) => `“${clip(cleanText(text), 300)}”`).join(", ")}`;
  if (effectLines(effects).length === 0) return "nothing.";
  // Older projects do not answer with it.
  return effects.user_messages === undefined
    ? "the new figures, wherever your product shows them."
    : "the new figures, wherever your product shows them. No mail is sent.";
}

export function EffectsView({ effects }: { readonly effects: Effects }): ReactNode {
  const lines = effectLines(effects);
  return (
    <>
      {lines.length === 0 ? (
        <p className={css.quiet}>The balance, the plan and the limits stay as they are.</p>
      ) : (
        <EffectLines lines={lines} />
      )}
      <p className={css.seen}>The user sees: {seenByUser(effects)}</p>
    </>
  );
}

export function EffectLines({ lines }: { readonly lines: readonly EffectLine[] }): ReactNode {
  const isCounted = lines.some(([, , , change]) => change !== "");
  return (
    <table className={css.effects} data-words={!isCounted || undefined} aria-label="What changes">
      <thead>
        <tr>
          <th>What changes</th>
          <th>now</th>
          <th>then</th>
          {isCounted ? <th /> : null}
        </tr>
      </thead>
      <tbody>
        {lines.map(([name, was, is, change]) => (
          <tr key={name}>
            <th>{name}</th>
            <td>{was}</td>
            <td>
              <b>{is}</b>
            </td>
            {isCounted ? <td className={css.quiet}>{change}</td> : null}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
