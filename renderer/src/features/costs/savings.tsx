import type { ReactNode } from "react";
import type { Costs } from "../../../../shared/contract/costs.ts";
import { formatCost } from "../../lib/format.ts";
import { counted } from "../../lib/text.ts";
import { Note } from "../../ui/parts.tsx";

const words = {
  routing: (calls: string, isMore: boolean) =>
    `${isMore ? "more" : ""} by sending ${calls} to another model than was asked for`,
  caching: (calls: string) => `by cached input of ${calls}`,
  rules: (calls: string) => `by ${calls} that rules stopped`,
} as const;

/** What rules, routing and caching saved: estimates, labelled as such. Nothing where nothing was saved. */
export function Savings({ costs: { savings, currency } }: { readonly costs: Costs }): ReactNode {
  const parts = (["routing", "caching", "rules"] as const).flatMap((kind) => {
    const saved = savings[kind];
    if (!saved || saved.saved_micros === 0) return [];
    const calls = counted(saved.calls, "call");
    return [
      saved.saved_micros < 0
        ? `${formatCost(-saved.saved_micros, currency)} ${words.routing(calls, true).trim()}`
        : `${formatCost(saved.saved_micros, currency)} ${words[kind](calls, false).trim()}`,
    ];
  });
  if (parts.length === 0) return null;
  return (
    <Note tone="green">
      <span title="Routing: the same tokens at the price of the model asked for. Caching: cached input at the price of plain input. Rules: the tokens a stopped call asked for, at the mean price of its model.">
        Estimate of what was saved: {parts.join("; ")}.
      </span>
    </Note>
  );
}
