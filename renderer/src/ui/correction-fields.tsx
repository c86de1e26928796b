/** What each kind of correction asks for, field by field. */
import { Select, TextInput } from "@mantine/core";
import { type ReactNode, useEffect, useEffectEvent, useId } from "react";
import type { BulkKind } from "../../../shared/contract/bulk.ts";
import type { CorrectionKind } from "../../../shared/contract/corrections.ts";
import { dayMs, viewerZone } from "../lib/format.ts";
import { useLive } from "../lib/live.ts";
import { cleanText, clip } from "../lib/text.ts";
import { AmountChips } from "./amount-chips.tsx";
import { type Amount, AmountInput } from "./amount-input.tsx";
import css from "./correction.module.css";

export const inDays = (days: number): string => new Date(Date.now() + days * dayMs).toISOString();

type Fields = Readonly<Record<string, unknown>>;

/** How a moment was chosen: kept beside it, so that a form that is opened again shows what it will send. */
const chosenKey = "chosen";

/** What a form asks for, without what only the form needs; null while nothing is asked for yet. */
export function askedOf({ [chosenKey]: _chosen, ...asked }: Fields): Fields | null {
  const raisesNothing =
    asked["kind"] === "raise_limit" && asked["daily_limit"] === null && asked["monthly_limit"] === null;
  return raisesNothing ? null : asked;
}

interface Typed {
  readonly fields: Fields;
  readonly set: (more: Readonly<Record<string, unknown>>) => void;
}

/** What a kind of correction, or of an act on many, asks for. */
export function CorrectionFields({
  kind,
  fields,
  set,
  plan,
  given,
}: Typed & {
  readonly kind: CorrectionKind | BulkKind;
  /** The plan the user is on; none where many are meant. */
  readonly plan: string;
  readonly given: Readonly<Record<string, unknown>>;
}): ReactNode {
  const typed = { fields, set };
  switch (kind) {
    case "give_tokens":
      return <GiveFields {...typed} />;
    case "take_tokens":
      return <AmountField {...typed} field="tokens" label="Tokens" autoFocus />;
    case "refund_call":
      return (
        <p className={css.quiet}>
          What the call was charged goes back to the lots it came from. The call itself, its cost and what it
          counts towards limits stay as they are.
        </p>
      );
    case "end_hold":
      return <HoldFields {...typed} given={given} />;
    case "raise_limit":
      return <LimitFields {...typed} />;
    case "change_plan":
      return <PlanFields {...typed} plan={plan} />;
    case "block_user":
      return (
        <WhenField
          {...typed}
          field="until"
          label="For how long"
          first="forever"
          choices={[
            { id: "1h", label: "1 hour", days: 1 / 24 },
            { id: "24h", label: "24 hours", days: 1 },
            { id: "7d", label: "7 days", days: 7 },
            { id: "forever", label: "until unblocked", days: null },
          ]}
        />
      );
    case "flag_user":
    case "unflag_user":
    case "unblock_user":
    case "note":
      return null;
  }
}

function AmountField({
  fields,
  set,
  field,
  label,
  min = 1,
  autoFocus = false,
}: Typed & {
  readonly field: string;
  readonly label: string;
  readonly min?: number;
  readonly autoFocus?: boolean;
}): ReactNode {
  return (
    <AmountInput
      label={label}
      min={min}
      autoFocus={autoFocus}
      value={fields[field] as Amount}
      onChange={(value) => set({ [field]: value })}
    />
  );
}

function ChoiceField({
  fields,
  set,
  field,
  label,
  values,
}: Typed & {
  readonly field: string;
  readonly label: string;
  readonly values: readonly (readonly [value: string, label: string])[];
}): ReactNode {
  const id = useId();
  return (
    <div className={css.field}>
      <span id={id}>{label}</span>
      <div className={css.presets} role="group" aria-labelledby={id}>
        {values.map(([value, name]) => (
          <button
            key={value}
            type="button"
            className={css.preset}
            aria-pressed={fields[field] === value}
            onClick={() => set({ [field]: value })}
          >
            {name}
          </button>
        ))}
      </div>
    </div>
  );
}

interface When {
  readonly id: string;
  readonly label: string;
  /** null: never. */
  readonly days: number | null;
}

interface Chosen {
  readonly id: string;
  /** The person's own text, where they took none of the choices. */
  readonly typed: string;
}

/** A moment as it was typed; undefined where nothing is done by it, with what is wrong in words. */
function readMoment(
  { id, typed }: Chosen,
  choices: readonly When[],
  longestDays: number | null,
): { readonly value: string | null | undefined; readonly error: string | null } {
  const choice = choices.find((each) => each.id === id);
  if (choice) return { value: choice.days === null ? null : inDays(choice.days), error: null };
  const at = new Date(typed);
  if (Number.isNaN(at.getTime())) return { value: undefined, error: null };
  if (at.getTime() <= Date.now()) return { value: undefined, error: "This time has passed." };
  if (longestDays !== null && at.toISOString() > inDays(longestDays))
    return { value: undefined, error: `At most ${longestDays.toLocaleString("en")} days from now.` };
  return { value: at.toISOString(), error: null };
}

/** A moment to come: some days from now, or one that is typed. */
function WhenField({
  fields,
  set,
  field,
  label,
  choices,
  first,
  longestDays = null,
}: Typed & {
  readonly field: string;
  readonly label: string;
  readonly choices: readonly When[];
  /** The choice that is preselected. */
  readonly first: string;
  readonly longestDays?: number | null;
}): ReactNode {
  const id = useId();
  const chosen = (fields[chosenKey] as Chosen | undefined) ?? { id: first, typed: "" };
  const { error } = readMoment(chosen, choices, longestDays);
  const choose = (next: Chosen): void =>
    set({ [chosenKey]: next, [field]: readMoment(next, choices, longestDays).value });
  // A form that is opened again counts from now: "in 7 days" is not a day less because it was left for one.
  const countAgain = useEffectEvent(() => {
    if (typeof fields[field] === "string") choose(chosen);
  });
  useEffect(() => countAgain(), []);
  return (
    <div className={css.field}>
      <span id={id}>{label}</span>
      <div className={css.presets} role="group" aria-labelledby={id}>
        {[...choices, { id: "custom", label: "other…" }].map((each) => (
          <button
            key={each.id}
            type="button"
            className={css.preset}
            aria-pressed={chosen.id === each.id}
            onClick={() => choose({ id: each.id, typed: chosen.typed })}
          >
            {each.label}
          </button>
        ))}
      </div>
      {chosen.id === "custom" ? (
        <TextInput
          type="datetime-local"
          label="Until"
          description={`Your time, ${viewerZone()}`}
          value={chosen.typed}
          error={error}
          onChange={(event) => choose({ id: "custom", typed: event.currentTarget.value })}
        />
      ) : null}
    </div>
  );
}

const lifetimes: readonly When[] = [
  { id: "never", label: "never", days: null },
  { id: "7d", label: "in 7 days", days: 7 },
  { id: "30d", label: "in 30 days", days: 30 },
  { id: "90d", label: "in 90 days", days: 90 },
];

function GiveFields({ fields, set }: Typed): ReactNode {
  return (
    <>
      <AmountField fields={fields} set={set} field="tokens" label="Tokens" autoFocus />
      <AmountChips
        tokens={typeof fields["tokens"] === "number" ? fields["tokens"] : null}
        onPick={(tokens) => set({ tokens })}
      />
      <ChoiceField
        fields={fields}
        set={set}
        field="lot_kind"
        label="Kind"
        values={[
          ["promotional", "promotional"],
          ["purchased", "purchased"],
          ["subscription", "subscription"],
        ]}
      />
      <WhenField
        fields={fields}
        set={set}
        field="expires_at"
        label="They expire"
        choices={lifetimes}
        first="never"
      />
    </>
  );
}

function HoldFields({
  fields,
  set,
  given,
}: Typed & { readonly given: Readonly<Record<string, unknown>> }): ReactNode {
  return (
    <>
      {given["action"] === undefined ? (
        <ChoiceField
          fields={fields}
          set={set}
          field="action"
          label="How it ends"
          values={[
            ["release", "give the tokens back"],
            ["settle", "charge what was used"],
          ]}
        />
      ) : null}
      {fields["action"] === "settle" ? (
        <div className={css.pair}>
          <AmountField
            fields={fields}
            set={set}
            field="input_tokens"
            label="Input tokens"
            min={0}
            autoFocus
          />
          <AmountField fields={fields} set={set} field="output_tokens" label="Output tokens" min={0} />
        </div>
      ) : null}
    </>
  );
}

const raises: readonly When[] = ([1, 3, 7, 30] as const).map((days) => ({
  id: String(days),
  label: days === 1 ? "in a day" : `in ${days} days`,
  days,
}));

function LimitFields({ fields, set }: Typed): ReactNode {
  return (
    <>
      <div className={css.pair}>
        <AmountField fields={fields} set={set} field="daily_limit" label="Daily limit" autoFocus />
        <AmountField fields={fields} set={set} field="monthly_limit" label="Monthly limit" />
      </div>
      <WhenField
        fields={fields}
        set={set}
        field="until"
        label="It is the plan’s again, by itself"
        choices={raises}
        first="1"
        longestDays={365}
      />
    </>
  );
}

function PlanFields({ fields, set, plan }: Typed & { readonly plan: string }): ReactNode {
  const plans = useLive((state) => state.connection?.project?.plans) ?? [];
  return (
    <>
      <Select
        label="Plan"
        data-autofocus
        searchable
        comboboxProps={{ withinPortal: false }}
        data={plans
          .filter(({ plan_id: id }) => id !== plan)
          .map((each) => ({
            value: each.plan_id,
            label: clip(cleanText(each.name || each.plan_id), 60),
          }))}
        value={typeof fields["plan_id"] === "string" ? fields["plan_id"] : null}
        onChange={(value) => set({ plan_id: value })}
      />
      <ChoiceField
        fields={fields}
        set={set}
        field="when"
        label="When"
        values={[
          ["now", "now"],
          ["next_period", "when their next month begins"],
        ]}
      />
    </>
  );
}
