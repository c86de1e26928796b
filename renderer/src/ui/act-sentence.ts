import type { AccountAct } from "../../../shared/contract/corrections.ts";
import { useZone } from "../lib/clock.ts";
import { formatInstant, formatTokens } from "../lib/format.ts";
import { planName, useLive } from "../lib/live.ts";
import { capitalise, cleanText, clip, codeWords } from "../lib/text.ts";

/** An act in a line: "Give 1,000 promotional tokens until 1 Mar 2027". */
export function useActSentence(): (act: Pick<AccountAct, "kind" | "fields" | "undoes">) => string {
  const zone = useZone(null);
  const plans = useLive((state) => state.connection?.project?.plans);
  return (act) => {
    const { fields } = act;
    const count = typeof fields["tokens"] === "number" ? `${formatTokens(fields["tokens"])} ` : "";
    const text = (key: string): string => {
      const field = fields[key];
      return typeof field === "string" ? clip(cleanText(field), 60) : "";
    };
    const words: Readonly<Record<string, () => string>> = {
      give_tokens: () =>
        `give ${count}${text("lot_kind") || "promotional"} tokens` +
        (fields["expires_at"] ? ` until ${formatInstant(text("expires_at"), zone)}` : ""),
      take_tokens: () => `take ${count}tokens`,
      refund_call: () => `refund the call ${text("request_id")}`,
      end_hold: () => `${text("action")} the hold of ${text("request_id")}`,
      change_plan: () =>
        `move to the plan ${planName(plans, text("plan_id"))}` +
        (fields["when"] === "next_period" ? " when their next month begins" : ""),
      raise_limit: () =>
        `raise ${(["daily_limit", "monthly_limit"] as const)
          .filter((key) => typeof fields[key] === "number")
          .map(
            (key) =>
              `the ${key === "daily_limit" ? "daily" : "monthly"} limit to ${formatTokens(fields[key] as number)}`,
          )
          .join(" and ")} until ${formatInstant(text("until"), zone)}`,
      flag_user: () => "flag for review",
      unflag_user: () => "clear the flag",
      block_user: () =>
        `block ${fields["until"] ? `until ${formatInstant(text("until"), zone)}` : "until someone unblocks"}`,
      unblock_user: () => "unblock",
      note: () => "note",
    };
    const said = words[act.kind]?.() ?? codeWords(act.kind);
    return act.undoes === null ? capitalise(said) : `Undo: ${said}`;
  };
}
