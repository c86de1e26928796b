/** From one day to another, both included, as the desks have it in their address. */
import { TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { daysIn } from "../lib/format.ts";
import { useSettledText } from "../lib/settled.ts";
import css from "./parts.module.css";

interface Days {
  /** YYYY-MM-DD. */
  readonly from: string;
  readonly to: string;
}

/** A year that is being typed is one of long ago: 0002, 0020, 0202. */
const earliest = "1970-01-01";

/** Days that a project answers at most: ten years. */
export const longestRange = 3_660;

/** Why these days cannot be shown, in a sentence; null where they can. */
export function rangeProblem({ from, to }: Days, longestDays = longestRange): string | null {
  if (from < earliest || to < earliest) return "Choose a day.";
  if (from > to) return "The end is before the start.";
  const days = daysIn({ from, to });
  return days > longestDays ? `At most ${longestDays.toLocaleString("en")} days.` : null;
}

/**
 * A date that is typed is another one at each key, so days are taken once they rest, and only where both fit: what is typed
 * into the one never turns the other, and nothing is shown that was not meant.
 */
export function DayRange({
  from,
  to,
  longestDays = longestRange,
  between,
  onChange,
}: Days & {
  readonly longestDays?: number;
  /** Shown between the two. */
  readonly between?: ReactNode;
  readonly onChange: (days: Days) => void;
}): ReactNode {
  const [problem, setProblem] = useState<string | null>(null);
  const days = useSettledText(`${from} ${to}`, (text) => {
    const next = split(text);
    const found = rangeProblem(next, longestDays);
    setProblem(found);
    if (found === null && (next.from !== from || next.to !== to)) onChange(next);
  });
  const typed = split(days.typed);
  const isWrong = problem !== null && days.isWaiting;
  const field = (name: keyof Days, label: string): ReactNode => (
    <TextInput
      type="date"
      aria-label={label}
      w={138}
      title={isWrong ? problem : undefined}
      error={isWrong}
      value={typed[name]}
      onChange={(event) => {
        const next = { ...typed, [name]: event.currentTarget.value };
        days.type(`${next.from} ${next.to}`);
      }}
      onBlur={() => days.isWaiting && days.settleNow()}
      onKeyDown={(event) => event.key === "Enter" && days.settleNow()}
    />
  );
  return (
    <span className={css.range}>
      {field("from", "From")}
      {between}
      {field("to", "To")}
      {isWrong ? <span role="alert">{problem}</span> : null}
    </span>
  );
}

function split(text: string): Days {
  const [from = "", to = ""] = text.split(" ");
  return { from, to };
}
