import { ActionIcon, NativeSelect, TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";
import {
  booleanFacts,
  factType,
  numberFacts,
  operatorsOf,
  planKeys,
  textFacts,
} from "../../../../shared/governance/rules/index.ts";
import { capitalise, codeWords } from "../../lib/text.ts";
import { TrashIcon } from "../../ui/icons.tsx";
import {
  type Definition,
  exampleOf,
  isObject,
  isWeekday,
  operatorWords,
  readValue,
  textOf,
  unitOf,
  withFact,
  withOperator,
  writeValue,
} from "./definition.ts";
import css from "./editor.module.css";

const factLabel = (fact: string): string => capitalise(codeWords(fact).replace(/ micros$/, ""));
const group = (label: string, names: readonly string[]) => ({
  group: label,
  items: names
    .map((value) => ({ value, label: factLabel(value) }))
    .toSorted((a, b) => (a.label < b.label ? -1 : 1)),
});
const factChoices = [
  group("Figures", numberFacts),
  group("Texts", textFacts),
  group("Yes or no", booleanFacts),
];
const weekdays = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const planChoices = [
  { value: "", label: "the figure" },
  ...planKeys.map((key) => ({ value: key as string, label: `the plan’s ${codeWords(key)}` })),
];

export interface Suggestions {
  readonly plans: readonly string[];
  readonly models: readonly string[];
  readonly currency: string | undefined;
}

/** One comparison: a fact, how, and with what. */
export function LeafEditor({
  leaf,
  place,
  error,
  suggestions,
  onChange,
  onRemove,
  onAddAfter,
}: {
  readonly leaf: Definition;
  /** Its number among all, for screen readers. */
  readonly place: string;
  readonly error: string | null;
  readonly suggestions: Suggestions;
  readonly onChange: (leaf: Definition) => void;
  readonly onRemove: () => void;
  readonly onAddAfter: () => void;
}): ReactNode {
  const fact = textOf(leaf["fact"]);
  const op = textOf(leaf["op"]);
  const type = factType(fact);
  const operators: readonly string[] = type === null ? [op] : operatorsOf[type];
  const known = type !== null;
  return (
    <div className={css.leafBox}>
      <div className={css.leaf}>
        <NativeSelect
          size="xs"
          aria-label={`Fact of condition ${place}`}
          data={known ? factChoices : [{ value: fact, label: `Unknown: ${fact}` }, ...factChoices]}
          value={fact}
          onChange={(event) => onChange(withFact(leaf, event.currentTarget.value))}
        />
        {type === "boolean" ? (
          <NativeSelect
            size="xs"
            aria-label={`Value of condition ${place}`}
            data={["yes", "no"]}
            value={(leaf["value"] === true) === (op === "=") ? "yes" : "no"}
            onChange={(event) => onChange({ fact, op: "=", value: event.currentTarget.value === "yes" })}
          />
        ) : (
          <>
            <NativeSelect
              size="xs"
              aria-label={`Comparison of condition ${place}`}
              data={[...operators].map((value) => ({
                value,
                label: operatorWords[value as keyof typeof operatorWords] ?? value,
              }))}
              value={op}
              onChange={(event) => onChange(withOperator(leaf, event.currentTarget.value))}
            />
            <LeafValue
              leaf={leaf}
              place={place}
              error={error}
              suggestions={suggestions}
              onChange={onChange}
              onAddAfter={onAddAfter}
            />
          </>
        )}
        <ActionIcon aria-label={`Remove condition ${place}`} title="Remove" onClick={onRemove}>
          <TrashIcon size={14} />
        </ActionIcon>
      </div>
      {error ? (
        <div className={css.error} role="alert">
          {error}
        </div>
      ) : null}
    </div>
  );
}

function LeafValue({
  leaf,
  place,
  error,
  suggestions,
  onChange,
  onAddAfter,
}: {
  readonly leaf: Definition;
  readonly place: string;
  readonly error: string | null;
  readonly suggestions: Suggestions;
  readonly onChange: (leaf: Definition) => void;
  readonly onAddAfter: () => void;
}): ReactNode {
  const fact = textOf(leaf["fact"]);
  const op = textOf(leaf["op"]);
  const value = leaf["value"];
  const isNumber = factType(fact) === "number";
  const plan = isObject(value) && typeof value["plan"] === "string" ? value["plan"] : "";
  // Plans limit tokens alone, so no other fact can be compared with a limit of the plan.
  const takesPlan =
    plan !== "" || (fact.includes("tokens") && ["=", "!=", ">", ">=", "<", "<="].includes(op));
  // The text stays as it is typed while it means the same as the rule: "0." is on the way to "0.7".
  const [text, setText] = useState(() => writeValue(fact, op, value));
  const isAsTyped = isObject(value) || JSON.stringify(value) === JSON.stringify(readValue(fact, op, text));
  const shown = isAsTyped ? text : writeValue(fact, op, value);
  if (isWeekday(fact) && (op === "=" || op === "!="))
    return (
      <NativeSelect
        size="xs"
        aria-label={`Value of condition ${place}`}
        data={[
          ...(typeof value === "number" ? [] : [{ value: "", label: "choose a day" }]),
          ...weekdays.map((label, at) => ({ value: String(at + 1), label })),
        ]}
        value={textOf(value)}
        onChange={(event) => onChange({ ...leaf, value: Number(event.currentTarget.value) })}
      />
    );
  const list =
    fact === "plan" ? suggestions.plans : fact === "model" ? suggestions.models : ([] as readonly string[]);
  const listId = `suggestions-${place}`;
  return (
    <>
      {plan === "" ? (
        <TextInput
          size="xs"
          className={css.value}
          aria-label={`Value of condition ${place}`}
          placeholder={exampleOf(fact, op)}
          value={shown}
          error={error !== null}
          rightSection={
            unitOf(fact, suggestions.currency) ? (
              <span className={css.unit}>{unitOf(fact, suggestions.currency)}</span>
            ) : null
          }
          rightSectionWidth={46}
          list={list.length > 0 ? listId : undefined}
          inputMode={isNumber ? "decimal" : "text"}
          onChange={(event) => {
            setText(event.currentTarget.value);
            onChange({ ...leaf, value: readValue(fact, op, event.currentTarget.value) });
          }}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
            event.preventDefault();
            onAddAfter();
          }}
        />
      ) : null}
      {list.length > 0 ? (
        <datalist id={listId}>
          {list.map((each) => (
            <option key={each} value={each} />
          ))}
        </datalist>
      ) : null}
      {takesPlan ? (
        <NativeSelect
          size="xs"
          aria-label={`Compared with, condition ${place}`}
          data={planChoices}
          value={plan}
          onChange={(event) => {
            const key = event.currentTarget.value;
            onChange({ ...leaf, value: key === "" ? readValue(fact, op, shown) : { plan: key } });
          }}
        />
      ) : null}
    </>
  );
}
