/** Round amounts of tokens, one press each. */
import type { ReactNode } from "react";
import { formatTokens } from "../lib/format.ts";
import css from "./correction.module.css";

const amounts = [1_000, 10_000, 100_000, 1_000_000] as const;

export function AmountChips({
  tokens,
  onPick,
}: {
  /** What is chosen now. */
  readonly tokens: number | null;
  readonly onPick: (tokens: number) => void;
}): ReactNode {
  return (
    <div className={css.presets} role="group" aria-label="Round amounts">
      {amounts.map((each) => (
        <button
          key={each}
          type="button"
          className={css.preset}
          aria-pressed={tokens === each}
          onClick={() => onPick(each)}
        >
          {formatTokens(each)}
        </button>
      ))}
    </div>
  );
}
