/** A whole number as a person types or pastes it: read by the signs of their language, or refused. Never guessed. */
import { TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { formatTokens } from "../lib/format.ts";
import { plainNumber } from "../lib/typed.ts";

/** null: nothing is typed. undefined: what is typed is not an amount that can be used; it must not pass for nothing. */
export type Amount = number | null | undefined;

/** What is meant by the text, and what is wrong with it. */
export function readAmount(
  typed: string,
  min: number,
  max: number,
): { readonly value: Amount; readonly error: string | null } {
  if (typed.trim() === "") return { value: null, error: null };
  const plain = plainNumber(typed.trim().replace(/^\+/, ""));
  if (plain === null || !/^-?\d+$/.test(plain))
    return { value: undefined, error: `Write a whole number, like ${formatTokens(12_000)}.` };
  const value = Number(plain);
  if (value < min) return { value: undefined, error: `At least ${formatTokens(min)}.` };
  if (value > max) return { value: undefined, error: `At most ${formatTokens(max)}.` };
  return { value: value || 0, error: null };
}

export function AmountInput({
  label,
  description,
  value,
  min,
  max = Number.MAX_SAFE_INTEGER,
  autoFocus = false,
  onChange,
}: {
  readonly label: string;
  readonly description?: string;
  readonly value: Amount;
  readonly min: number;
  readonly max?: number;
  readonly autoFocus?: boolean;
  readonly onChange: (value: Amount) => void;
}): ReactNode {
  const [typed, setTyped] = useState("");
  const read = readAmount(typed, min, max);
  // A number that came another way, by a press on a round one, takes the place of what was typed.
  const isTyped = read.value === (value ?? (read.error === null ? null : undefined));
  return (
    <TextInput
      label={label}
      description={description}
      inputMode={min < 0 ? "text" : "numeric"}
      autoComplete="off"
      data-autofocus={autoFocus || undefined}
      value={isTyped ? typed : typeof value === "number" ? formatTokens(value) : ""}
      error={isTyped ? read.error : null}
      onChange={(event) => {
        setTyped(event.currentTarget.value);
        onChange(readAmount(event.currentTarget.value, min, max).value);
      }}
      onBlur={() => typeof value === "number" && setTyped(formatTokens(value))}
    />
  );
}
