import { Checkbox, PasswordInput, TextInput } from "@mantine/core";
import type { ReactNode } from "react";
import type { Failure } from "../../../../shared/contract/basics.ts";
import { type Profile, type ProfileColor, profileColors } from "../../../../shared/contract/connection.ts";
import { CopyButton } from "../../ui/parts.tsx";
import { failureText } from "../../ui/states.tsx";
import { codeWords } from "../../lib/text.ts";
import css from "./settings.module.css";

/** How a project is called, marked and guarded on this machine. */
export type Marks = Pick<Profile, "name" | "is_production" | "is_read_only" | "color">;

export function KeyField({
  label = "Service-role key",
  description,
  value,
  onChange,
}: {
  readonly label?: string;
  readonly description: string;
  readonly value: string;
  readonly onChange: (value: string) => void;
}): ReactNode {
  return (
    <PasswordInput
      label={label}
      placeholder="sb_secret_… or a key that starts with eyJ"
      description={description}
      autoComplete="off"
      value={value}
      onChange={(event) => onChange(event.currentTarget.value)}
    />
  );
}

export function ReplicaField({
  value,
  onChange,
}: {
  readonly value: string;
  readonly onChange: (value: string) => void;
}): ReactNode {
  return (
    <TextInput
      label="Read replica (optional)"
      placeholder="https://abcdefghijkl-rr-eu-west-1-aaaaa.supabase.co"
      description="Lists, search and the feed are read there; every act still goes to the project itself."
      value={value}
      onChange={(event) => onChange(event.currentTarget.value)}
    />
  );
}

export function MarkFields({
  marks,
  onChange,
}: {
  readonly marks: Marks;
  readonly onChange: (change: Partial<Marks>) => void;
}): ReactNode {
  return (
    <>
      <TextInput
        label="Name"
        placeholder="How you call it"
        maxLength={200}
        value={marks.name}
        onChange={(event) => onChange({ name: event.currentTarget.value })}
      />
      <Checkbox
        label="This is production"
        description="Marks every screen in red, so that nobody takes it for a test."
        checked={marks.is_production}
        onChange={(event) => onChange({ is_production: event.currentTarget.checked })}
      />
      <Checkbox
        label="For reading only"
        description="Nothing is ever changed in this project from this machine: no act, no rule, no posting."
        checked={marks.is_read_only}
        onChange={(event) => onChange({ is_read_only: event.currentTarget.checked })}
      />
      <fieldset className={css.colors}>
        <legend>Colour</legend>
        {([null, ...profileColors] as const).map((color) => (
          <label key={color ?? "none"} title={codeWords(color ?? "none")}>
            <input
              type="radio"
              name="project-color"
              aria-label={codeWords(color ?? "none")}
              checked={marks.color === color}
              onChange={() => onChange({ color })}
            />
            {color === null ? (
              <span className={css.noColor}>none</span>
            ) : (
              <span className={css.swatch} style={colorStyle(color)} />
            )}
          </label>
        ))}
      </fieldset>
    </>
  );
}

/** The colour of a project's mark, in both themes. */
export function colorStyle(color: ProfileColor | null): { background?: string } {
  return color === null ? {} : { background: `var(--c-${color}-mark)` };
}

export function FailureWords({ failure }: { readonly failure: Failure }): ReactNode {
  return (
    <>
      <b>{failure.message}</b> {failure.advice}{" "}
      <CopyButton text={() => failureText(failure)} label="Copy details" />
    </>
  );
}
