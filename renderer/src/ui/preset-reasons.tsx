/** The usual reasons of an act, one press each. */
import type { ReactNode } from "react";
import css from "./act-form.module.css";

export function PresetReasons({
  reasons,
  onPick,
}: {
  readonly reasons: readonly string[];
  readonly onPick: (reason: string) => void;
}): ReactNode {
  return (
    <div className={css.presets}>
      {reasons.map((each) => (
        <button key={each} type="button" className={css.preset} onClick={() => onPick(each)}>
          {each}
        </button>
      ))}
    </div>
  );
}
