import { Checkbox, NativeSelect, Textarea, TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { joinNumbers, plainNumber, splitNumbers, typedNumber } from "../../lib/typed.ts";
import { decimal, type Field, readDecimal } from "../../../../shared/governance/configuration/index.ts";
import { currencyExponent } from "../../../../shared/governance/money/currency.ts";
import { cleanText } from "../../lib/text.ts";
import css from "./plans.module.css";

interface PlanChoice {
  readonly plan_id: string;
  readonly name: string;
}

interface InputProps {
  readonly field: Field;
  readonly value: unknown;
  readonly error: string | null;
  /** The name of an existing record, which cannot be changed. */
  readonly isFixed: boolean;
  readonly plans: readonly PlanChoice[];
  /** Of the record, for amounts of money. */
  readonly currency: string;
  readonly onChange: (value: unknown) => void;
}

/** How a person writes the value, and what is meant by what is written; null: not a value yet. */
function written(
  field: Field,
  currency: string,
): {
  readonly show: (value: unknown) => string;
  readonly read: (text: string) => unknown;
} {
  const { type } = field;
  if (type.is === "whole" && type.money) {
    const places = type.money === "micros" ? 6 : currencyExponent(currency || "usd");
    return {
      show: (value) => (typeof value === "number" ? typedNumber(decimal(value, places)) : said(value)),
      read: (text) => readDecimal(plainNumber(text) ?? "", places) ?? text,
    };
  }
  if (type.is === "whole")
    return {
      show: (value) => (typeof value === "number" ? value.toLocaleString("en") : said(value)),
      read: (text) => {
        const plain = plainNumber(text);
        return plain !== null && /^\d{1,16}$/.test(plain) ? Number(plain) : text;
      },
    };
  if (type.is === "numbers")
    return {
      show: (value) => (Array.isArray(value) ? joinNumbers(value.map(String)) : said(value)),
      read: (text) =>
        splitNumbers(text).map((each) => {
          const plain = plainNumber(each);
          return plain === null ? each : Number(plain);
        }),
    };
  if (type.is === "texts")
    return {
      show: (value) => (Array.isArray(value) ? value.map(String).join("\n") : said(value)),
      read: (text) =>
        text
          .split("\n")
          .map((each) => each.trim())
          .filter(Boolean),
    };
  if (type.is === "json")
    return {
      show: (value) => (value === undefined ? "" : JSON.stringify(value, null, 2)),
      read: (text) => {
        try {
          return JSON.parse(text) as unknown;
        } catch {
          return undefined;
        }
      },
    };
  return { show: said, read: (text) => text };
}

const said = (value: unknown): string =>
  value === undefined || value === null
    ? ""
    : typeof value === "string"
      ? value
      : typeof value === "number"
        ? String(value)
        : JSON.stringify(value);

/** One field of a record: what it is, how it is written, what is wrong with it. */
export function FieldInput(props: InputProps): ReactNode {
  const { field, value, error, isFixed, plans, onChange } = props;
  const { type } = field;
  const common = { label: field.label, description: field.hint, error, disabled: isFixed };
  if (type.is === "flag")
    return (
      <Checkbox
        label={field.label}
        description={field.hint}
        checked={value === true}
        disabled={isFixed}
        onChange={(event) => onChange(event.currentTarget.checked)}
      />
    );
  if (type.is === "choice" || type.is === "plan")
    return (
      <NativeSelect
        {...common}
        data={[
          ...(field.empty !== undefined || value === undefined
            ? [{ value: "", label: field.empty ?? "choose" }]
            : []),
          ...(type.is === "choice"
            ? type.of.map(([each, words]) => ({ value: each, label: words }))
            : plans.map((plan) => ({ value: plan.plan_id, label: cleanText(plan.name) }))),
        ]}
        value={said(value)}
        onChange={(event) => onChange(event.currentTarget.value === "" ? null : event.currentTarget.value)}
      />
    );
  if (type.is === "plans")
    return (
      <ChoicesInput {...props} of={plans.map(({ plan_id: id, name }) => [id, cleanText(name)] as const)} />
    );
  if (type.is === "choices") return <ChoicesInput {...props} of={type.of} />;
  return <WrittenInput {...props} />;
}

function ChoicesInput({
  field,
  value,
  error,
  of,
  onChange,
}: InputProps & { readonly of: readonly (readonly [value: string, words: string])[] }): ReactNode {
  const chosen = Array.isArray(value) ? value.map(String) : [];
  return (
    <fieldset className={css.plans}>
      <legend>
        {field.label} <span className={css.quiet}>({chosen.length === 0 ? field.empty : "these alone"})</span>
      </legend>
      {of.map(([each, words]) => (
        <Checkbox
          key={each}
          label={words}
          checked={chosen.includes(each)}
          onChange={(event) => {
            const others = chosen.filter((other) => other !== each);
            onChange(event.currentTarget.checked ? [...others, each] : others);
          }}
        />
      ))}
      {error ? <div className={css.error}>{error}</div> : null}
    </fieldset>
  );
}

/** A field that is typed: what was typed stays as it is while it means the same. */
function WrittenInput({ field, value, error, isFixed, currency, onChange }: InputProps): ReactNode {
  const { show, read } = written(field, currency);
  const [typed, setTyped] = useState<string | null>(null);
  const meansTheSame =
    typed !== null && JSON.stringify(typed === "" ? null : read(typed)) === JSON.stringify(value ?? null);
  const text = typed !== null && meansTheSame ? typed : show(value);
  const { type } = field;
  const unit = type.is === "whole" ? (type.money ? currency.toUpperCase() : (type.unit ?? null)) : null;
  const change = (next: string): void => {
    setTyped(next);
    const isEmpty = next.trim() === "";
    onChange(isEmpty && type.is !== "texts" && type.is !== "numbers" ? null : read(next));
  };
  const common = {
    label: field.label,
    description: field.hint,
    error,
    disabled: isFixed,
    value: text,
    placeholder: field.empty,
  };
  return type.is === "texts" || type.is === "json" ? (
    <Textarea
      {...common}
      className={css.wide}
      autosize
      minRows={3}
      maxRows={14}
      spellCheck={false}
      onChange={(event) => change(event.currentTarget.value)}
    />
  ) : (
    <TextInput
      {...common}
      inputMode={type.is === "whole" ? "decimal" : "text"}
      rightSection={unit === null ? null : <span className={css.unit}>{unit}</span>}
      rightSectionWidth={unit === null ? undefined : 12 + unit.length * 7}
      onChange={(event) => change(event.currentTarget.value)}
    />
  );
}
