import type { ReactNode } from "react";
import { capitalise, cleanText, clip } from "../lib/text.ts";
import css from "./difference.module.css";

/** The changes of a record, part by part: removed with a minus, added with a plus. */
export function DifferenceView({
  difference,
}: {
  readonly difference: readonly {
    readonly part: string;
    readonly removed: readonly string[];
    readonly added: readonly string[];
  }[];
}): ReactNode {
  return (
    <dl className={css.difference}>
      {difference.map((each) => (
        <div key={each.part} style={{ display: "contents" }}>
          <dt>{capitalise(each.part)}</dt>
          <dd>
            {each.removed.map((line) => (
              <div key={`-${line}`} className={css.removed}>
                {clip(cleanText(line), 600)}
              </div>
            ))}
            {each.added.map((line) => (
              <div key={`+${line}`} className={css.added}>
                {clip(cleanText(line), 600)}
              </div>
            ))}
          </dd>
        </div>
      ))}
    </dl>
  );
}
