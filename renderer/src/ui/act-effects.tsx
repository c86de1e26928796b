/** What an act on a user does, before it is done: the lines that change, and what the user sees of it. */
import type { ReactNode } from "react";
import type { ActName, Seen } from "../../../shared/contract/acts.ts";
import { standardMessage } from "../../../shared/governance/rules/index.ts";
import { EffectLines, type EffectLine } from "./correction-effects.tsx";
import css from "./correction.module.css";

interface ActEffects {
  readonly lines: readonly EffectLine[];
  readonly user: string;
}

const asRules = "decided by the rules";

/** `until`: the end of a block, null for none; `when` writes an instant. */
export function actEffects(
  act: ActName,
  account: Seen,
  until: string | null,
  when: (at: string) => string,
): ActEffects | null {
  const stopped = (end: unknown): string =>
    typeof end === "string" ? `stopped until ${when(end)}` : "stopped until someone unblocks";
  const calls = account["is_blocked"] === true ? stopped(account["blocked_until"]) : asRules;
  switch (act) {
    case "block_user":
      return {
        lines: [["Calls", calls, stopped(until), ""]],
        user: `each call is answered “${standardMessage("user_blocked")}”, or the same in their language.`,
      };
    case "unblock_user":
      return {
        lines: [
          ["Calls", calls, asRules, ""],
          ["Repeated messages", "counted", "counted from zero", ""],
        ],
        user: "the next call may pass. No mail is sent.",
      };
    case "flag_user":
    case "unflag_user": {
      const [no, yes] = ["no", "for review"];
      const isSet = act === "flag_user";
      return {
        lines: [["Flagged", isSet ? no : yes, isSet ? yes : no, ""]],
        user: "nothing, unless a rule asks for the flag.",
      };
    }
    case "note_user":
      return { lines: [], user: "nothing." };
    default:
      return null;
  }
}

export function ActEffectsView({ effects }: { readonly effects: ActEffects }): ReactNode {
  return (
    <>
      {effects.lines.length > 0 ? <EffectLines lines={effects.lines} /> : null}
      <p className={css.seen}>The user sees: {effects.user}</p>
    </>
  );
}
