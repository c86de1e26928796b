import { Checkbox, TextInput, Textarea } from "@mantine/core";
import type { ReactNode } from "react";
import type { RuleProblem } from "../../../../shared/contract/rules.ts";
import { problemAt } from "./condition-editor.tsx";
import { type Definition, isObject, type Path, textOf } from "./definition.ts";
import css from "./editor.module.css";

interface Field {
  readonly key: string;
  readonly label: string;
  readonly type: "text" | "long" | "whole" | "number";
  readonly hint?: string;
  readonly isOptional?: boolean;
}
const reasonField: Field = {
  key: "reason",
  label: "Reason",
  type: "text",
  hint: "A code for receipts and figures, such as too_many_messages.",
};
const effects: readonly {
  readonly kind: string;
  readonly label: string;
  readonly fresh: Definition;
  readonly fields: readonly Field[];
}[] = [
  {
    kind: "block",
    label: "Block the call",
    fresh: { reason: "" },
    fields: [
      reasonField,
      {
        key: "message",
        label: "Shown to the user",
        type: "long",
        isOptional: true,
        hint: "Left out: a standard message.",
      },
      {
        key: "minutes",
        label: "Minutes",
        type: "whole",
        isOptional: true,
        hint: "All calls of the user are blocked for so long. Left out: this one alone.",
      },
    ],
  },
  {
    kind: "deflect",
    label: "Answer with a set reply",
    fresh: { message: "" },
    fields: [{ key: "message", label: "Reply", type: "long" }],
  },
  {
    kind: "warn",
    label: "Warn the user",
    fresh: { message: "" },
    fields: [{ key: "message", label: "Warning", type: "long" }],
  },
  {
    kind: "route",
    label: "Use another model",
    fresh: { model: "" },
    fields: [{ key: "model", label: "Model", type: "text" }],
  },
  {
    kind: "truncate",
    label: "Shorten the message",
    fresh: { words: 500 },
    fields: [{ key: "words", label: "To … words", type: "whole" }],
  },
  { kind: "flag", label: "Flag the user for review", fresh: { reason: "" }, fields: [reasonField] },
  {
    kind: "multiply_cost",
    label: "Count its tokens several times",
    fresh: { by: 2 },
    fields: [{ key: "by", label: "Times", type: "number", hint: "0.001 to 1000." }],
  },
];

const readField = (type: Field["type"], text: string): unknown => {
  if (text.trim() === "") return undefined;
  const isNumber = type === "whole" || type === "number";
  return isNumber && /^\d+(\.\d+)?$/.test(text.trim()) ? Number(text) : text;
};

/** What the rule does: any number of effects, each with its fields. */
export function ActionEditor({
  action,
  problems,
  models,
  set,
}: {
  readonly action: unknown;
  readonly problems: readonly RuleProblem[];
  readonly models: readonly string[];
  readonly set: (path: Path, value: unknown) => void;
}): ReactNode {
  const chosen = isObject(action) ? action : {};
  const whole = problems.find((each) => each.path === "action");
  return (
    <div className={css.effects}>
      {effects.map(({ kind, label, fresh, fields }) => {
        const effect = chosen[kind];
        return (
          <div key={kind}>
            <Checkbox
              label={label}
              checked={effect !== undefined}
              onChange={(event) => set(["action", kind], event.currentTarget.checked ? fresh : undefined)}
            />
            {isObject(effect) ? (
              <div className={css.fields}>
                {fields.map((field) => (
                  <EffectField
                    key={field.key}
                    field={field}
                    value={effect[field.key]}
                    error={problemAt(problems, ["action", kind, field.key])}
                    models={kind === "route" ? models : []}
                    onChange={(value) => set(["action", kind, field.key], value)}
                  />
                ))}
              </div>
            ) : null}
          </div>
        );
      })}
      {whole ? (
        <div className={css.error} role="alert">
          {whole.message} {whole.fix}
        </div>
      ) : null}
    </div>
  );
}

function EffectField({
  field,
  value,
  error,
  models,
  onChange,
}: {
  readonly field: Field;
  readonly value: unknown;
  readonly error: string | null;
  readonly models: readonly string[];
  readonly onChange: (value: unknown) => void;
}): ReactNode {
  const shared = {
    label: field.isOptional ? `${field.label} (optional)` : field.label,
    description: field.hint,
    error,
    value: textOf(value),
  };
  if (field.type === "long")
    return (
      <Textarea
        {...shared}
        autosize
        minRows={1}
        maxRows={5}
        onChange={(event) => onChange(event.currentTarget.value || (field.isOptional ? undefined : ""))}
      />
    );
  return (
    <>
      <TextInput
        {...shared}
        list={models.length > 0 ? "models-to-use" : undefined}
        styles={field.type === "text" ? {} : { wrapper: { width: 180 } }}
        onChange={(event) => {
          const read = readField(field.type, event.currentTarget.value);
          onChange(read ?? (field.isOptional ? undefined : ""));
        }}
      />
      {models.length > 0 ? (
        <datalist id="models-to-use">
          {models.map((model) => (
            <option key={model} value={model} />
          ))}
        </datalist>
      ) : null}
    </>
  );
}
