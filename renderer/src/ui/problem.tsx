/** What is wrong at one place of a rule or a preset, the place in the words of the form. */
import type { ReactNode } from "react";
import { translated } from "../lib/language.ts";
import { capitalise, cleanText, clip, codeWords, counted } from "../lib/text.ts";
import { Section } from "./parts.tsx";
import css from "./versions.module.css";

interface Found {
  /** `conditions.all[0].value`, as the parser names it. */
  readonly path: string;
  readonly message: string;
  readonly fix: string;
}

export function ProblemLine({ problem }: { readonly problem: Found }): ReactNode {
  return (
    <>
      <b title={clip(cleanText(problem.path), 500) || undefined}>{placeWords(problem.path)}</b>:{" "}
      {translated(cleanText(`${problem.message} ${problem.fix}`))}
    </>
  );
}

/** The first of them, for the person who is writing. */
export function ProblemList({ problems }: { readonly problems: readonly Found[] }): ReactNode {
  if (problems.length === 0) return null;
  return (
    <Section title={counted(problems.length, "thing to mend", "things to mend")}>
      <ul style={{ margin: 0, paddingLeft: 16 }}>
        {problems.slice(0, 8).map((each) => (
          <li key={`${each.path}${each.message}`} className={css.problem}>
            <ProblemLine problem={each} />
          </li>
        ))}
      </ul>
    </Section>
  );
}

/** The labels of the form, where a key is not one by itself. */
const partWords: Readonly<Record<string, string>> = {
  rule_name: "Name",
  rule_type: "Kind",
  priority: "Order (lower runs first)",
  conditions: "When",
  action: "Then",
  applies_to: "For",
  fact: "what is compared",
  op: "the comparison",
  value: "the value",
  block: "Block the call",
  deflect: "Answer with a set reply",
  warn: "Warn the user",
  route: "Use another model",
  truncate: "Shorten the message",
  flag: "Flag the user for review",
  multiply_cost: "Count its tokens several times",
};

/** `conditions.any[1].all[0].value` → "When › condition 2.1 › the value". */
export function placeWords(path: string): string {
  const parts = [...cleanText(path).matchAll(/\[(\d+)\]|[^.[\]]+/g)];
  const words: string[] = [];
  const places: string[] = [];
  const isRule = parts[0]?.[0] === "conditions";
  for (const [part, index] of parts) {
    if (index !== undefined) places.push(String(Number(index) + 1));
    else if (!(isRule && /^(?:all|any|not)$/.test(part)))
      words.push(Object.hasOwn(partWords, part) ? (partWords[part] ?? "") : codeWords(part));
  }
  const place = places.join(".");
  if (place !== "") words.splice(1, 0, isRule ? `condition ${place}` : place);
  return words.length === 0 ? "The rule" : capitalise(clip(words.join(" › "), 200));
}
