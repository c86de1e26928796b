import { Button, Popover, Textarea, TextInput } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { z } from "zod";
import { type ActName, actNamed, type Seen } from "../../../shared/contract/acts.ts";
import { useNow, useZone } from "../lib/clock.ts";
import { formatShortInstant, viewerZone } from "../lib/format.ts";
import { readOnlyWords, useIsReadOnly } from "../lib/live.ts";
import { capitalise, codeWords } from "../lib/text.ts";
import { useUnsent } from "../lib/unsent.ts";
import { ActEffectsView, actEffects } from "./act-effects.tsx";
import { PresetReasons } from "./preset-reasons.tsx";
import { ProductionLine } from "./production-ask.tsx";
import css from "./act-form.module.css";
import { useAct } from "./acts.ts";
import { plainNumber } from "../lib/typed.ts";

interface Term {
  readonly id: string;
  readonly label: string;
  /** null: no end; undefined: asked for. */
  readonly hours: number | null | undefined;
}
const terms: readonly Term[] = [
  { id: "1h", label: "1 hour", hours: 1 },
  { id: "24h", label: "24 hours", hours: 24 },
  { id: "7d", label: "7 days", hours: 168 },
  { id: "forever", label: "until unblocked", hours: null },
  { id: "custom", label: "other…", hours: undefined },
];

type Read = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: string };

/** The end of a term as chosen; an error in words when it cannot be. Custom times are the viewer's own. */
export function termEnd(termId: string, custom: string, nowMs: number): Read {
  const hours = terms.find((term) => term.id === termId)?.hours;
  if (hours === null) return { ok: true, value: null };
  if (hours !== undefined) return { ok: true, value: new Date(nowMs + hours * 3_600_000).toISOString() };
  const at = custom ? new Date(custom).getTime() : Number.NaN;
  if (Number.isNaN(at)) return { ok: false, error: "Choose a day and time." };
  if (at <= nowMs) return { ok: false, error: "This time has passed." };
  return { ok: true, value: new Date(at).toISOString() };
}

/** A button whose form opens in its place. */
export function ActButton({
  act,
  record,
  icon,
  opened,
  onOpened,
}: {
  readonly act: ActName;
  readonly record: Seen;
  readonly icon: ReactNode;
  readonly opened: boolean;
  readonly onOpened: (opened: boolean) => void;
}): ReactNode {
  const isReadOnly = useIsReadOnly();
  return (
    <Popover opened={opened} onChange={onOpened} position="bottom-end" trapFocus returnFocus>
      <Popover.Target>
        <Button
          leftSection={icon}
          aria-haspopup="dialog"
          disabled={isReadOnly}
          title={isReadOnly ? readOnlyWords : undefined}
          onClick={() => onOpened(!opened)}
        >
          {actNamed(act).words.button}
        </Button>
      </Popover.Target>
      <Popover.Dropdown>
        {opened ? <ActForm act={act} record={record} onDone={() => onOpened(false)} /> : null}
      </Popover.Dropdown>
    </Popover>
  );
}

/** Whom or what it is about. */
const subjectOf = (record: Seen): string =>
  ["user_id", "rule_name", "alert_event_id", "difference_id", "id"]
    .map((key) => JSON.stringify(record[key] ?? null))
    .join(" ");

/** Asks for what an act needs, field by field, and does it. */
export function ActForm({
  act,
  record,
  onDone,
}: {
  readonly act: ActName;
  readonly record: Seen;
  readonly onDone: () => void;
}): ReactNode {
  const runAct = useAct();
  const { fields, words } = actNamed(act);
  // One id for one form: sending it again after a lost answer does it once.
  const [commandId] = useState(() => crypto.randomUUID());
  const [typed, setTyped, forget] = useUnsent<Readonly<Record<string, string>>>(
    `${act} ${subjectOf(record)}`,
    () => ({ until: "24h" }),
  );
  const finish = (): void => {
    forget();
    onDone();
  };
  const [errors, setErrors] = useState<Readonly<Record<string, string>>>({});
  const [busy, setBusy] = useState(false);
  const now = useNow(60_000);
  const zone = useZone(typeof record["timezone"] === "string" ? record["timezone"] : "UTC");
  const type = (field: string, text: string): void => {
    setTyped((before) => ({ ...before, [field]: text }));
    setErrors(({ [field.split(".")[0] ?? field]: _gone, ...others }) => others);
  };

  const end = termEnd(typed["until"] ?? "", typed["until.custom"] ?? "", now);
  const effects = end.ok
    ? actEffects(act, record, end.value as string | null, (at) => formatShortInstant(at, zone, now))
    : null;
  const submit = async (): Promise<void> => {
    // Enter in a text does not press the button, which takes no press while it waits.
    if (busy) return;
    const read = Object.keys(fields).map((field) => [field, readField(field, fields[field], typed)] as const);
    const wrong = read.flatMap(([field, each]) => (each.ok ? [] : [[field, each.error] as const]));
    setErrors(Object.fromEntries(wrong));
    if (wrong.length > 0) return;
    setBusy(true);
    const given = Object.fromEntries(read.map(([field, each]) => [field, each.ok ? each.value : null]));
    const isDone = await runAct(act, record, given, { commandId, isAsked: true });
    setBusy(false);
    if (isDone) finish();
  };
  return (
    <form
      className={css.form}
      aria-label={words.title}
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <h2>{words.title}</h2>
      {Object.entries(fields).map(([field, schema]) => {
        const props = { act, field, schema, typed, error: errors[field] ?? null, type, submit };
        if (field === "reason") return <ReasonField key={field} {...props} />;
        if (field === "until") return <TermField key={field} {...props} />;
        return <OtherField key={field} {...props} />;
      })}
      {effects ? <ActEffectsView effects={effects} /> : null}
      <ProductionLine />
      <div className={css.buttons}>
        <Button onClick={finish}>Cancel</Button>
        <Button type="submit" variant="filled" color={words.isDangerous ? "danger" : "accent"} loading={busy}>
          {words.title}
        </Button>
      </div>
    </form>
  );
}

/** What was typed, as the act's own schema reads it. */
function readField(field: string, schema: unknown, typed: Readonly<Record<string, string>>): Read {
  if (field === "until") return termEnd(typed["until"] ?? "", typed["until.custom"] ?? "", Date.now());
  const text = typed[field] ?? "";
  const parsed = (schema as z.ZodType).safeParse(
    isNumber(schema) ? Number(plainNumber(text) ?? Number.NaN) : text,
  );
  if (parsed.success) return { ok: true, value: parsed.data };
  return { ok: false, error: parsed.error.issues[0]?.message ?? "This cannot be used." };
}

const isNumber = (schema: unknown): boolean => schema instanceof z.ZodNumber;

interface FieldProps {
  readonly act: ActName;
  readonly field: string;
  readonly schema: unknown;
  readonly typed: Readonly<Record<string, string>>;
  readonly error: string | null;
  readonly type: (field: string, text: string) => void;
  readonly submit: () => Promise<void>;
}

function ReasonField({ act, field, typed, error, type, submit }: FieldProps): ReactNode {
  const { words } = actNamed(act);
  return (
    <>
      <Textarea
        label="Reason"
        description={words.hint}
        data-autofocus
        autosize
        spellCheck
        minRows={2}
        maxRows={6}
        maxLength={1000}
        value={typed[field] ?? ""}
        error={error}
        onChange={(event) => type(field, event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey) {
            event.preventDefault();
            void submit();
          }
        }}
      />
      <PresetReasons reasons={words.reasons ?? []} onPick={(reason) => type(field, reason)} />
    </>
  );
}

function TermField({ field, typed, error, type }: FieldProps): ReactNode {
  return (
    <div style={{ display: "flex", flexDirection: "column", gap: 6 }}>
      <span id="act-term">For how long</span>
      <div className={css.presets} role="group" aria-labelledby="act-term">
        {terms.map((each) => (
          <button
            key={each.id}
            type="button"
            className={css.preset}
            aria-pressed={typed[field] === each.id}
            onClick={() => type(field, each.id)}
          >
            {each.label}
          </button>
        ))}
      </div>
      {typed[field] === "custom" ? (
        <TextInput
          type="datetime-local"
          label="Until"
          description={`Your time, ${viewerZone()}`}
          value={typed[`${field}.custom`] ?? ""}
          error={error}
          onChange={(event) => type(`${field}.custom`, event.currentTarget.value)}
        />
      ) : null}
    </div>
  );
}

/** A field without a form of its own: a number, or a line of text. */
function OtherField({ field, typed, error, type }: FieldProps): ReactNode {
  const label = capitalise(codeWords(field));
  const value = typed[field] ?? "";
  return (
    <TextInput
      label={label}
      value={value}
      error={error}
      onChange={(event) => type(field, event.currentTarget.value)}
    />
  );
}
