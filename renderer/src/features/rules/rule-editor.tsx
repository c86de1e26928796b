import { Button, Checkbox, NativeSelect, Textarea, TextInput } from "@mantine/core";
import { type ReactNode, useMemo, useState } from "react";
import { ruleDefinition } from "../../../../shared/contract/acts.ts";
import type { RuleProblem, RuleRecord } from "../../../../shared/contract/rules.ts";
import { parseRule, type RuleNames, ruleWarnings } from "../../../../shared/governance/rules/index.ts";
import { useKeys } from "../../lib/keys.ts";
import { useIsReadOnly, useLive } from "../../lib/live.ts";
import { navigate, placeAddress } from "../../lib/router.ts";
import { cleanText, codeWords } from "../../lib/text.ts";
import { useDraft } from "../../lib/unsent.ts";
import { useAct } from "../../ui/acts.ts";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { Kbd, Note, Section } from "../../ui/parts.tsx";
import { ProblemList } from "../../ui/problem.tsx";
import { ActionEditor } from "./action-editor.tsx";
import { ConditionEditor, problemAt } from "./condition-editor.tsx";
import {
  type Definition,
  insertAt,
  isObject,
  nameFrom,
  type Path,
  pathFrom,
  setAt,
  textOf,
} from "./definition.ts";
import { readDraft } from "./draft.ts";
import css from "./editor.module.css";
import type { Suggestions } from "./leaf-editor.tsx";
import { ReplayPanel } from "./replay-panel.tsx";

/** A new rule begins in shadow: it is recorded, and changes nothing until somebody enforces it. */
const newRule = (last: number): Definition => ({
  rule_name: "",
  rule_type: "custom",
  conditions: { all: [{ fact: "messages_today", op: ">", value: "" }] },
  action: {},
  priority: last + 10,
  mode: "shadow",
  applies_to: {},
});

const times = [
  { value: "", label: "for good" },
  { value: "1", label: "for 1 hour" },
  { value: "2", label: "for 2 hours" },
  { value: "8", label: "for 8 hours" },
  { value: "24", label: "for a day" },
  { value: "168", label: "for a week" },
];

/** A definition with a place for each part, however much of it a file or a person gave. */
const whole = (given: Definition): Definition =>
  isObject(given["conditions"]) && ("fact" in given["conditions"] || "not" in given["conditions"])
    ? { ...given, conditions: { all: [given["conditions"]] } }
    : given;

/** The rule as it is written, place by place. */
function useRuleDraft(record: RuleRecord | null, template: RuleRecord | null, rules: readonly RuleRecord[]) {
  const last = Math.max(0, ...rules.map((each) => each.priority));
  const begin = useMemo(
    (): Definition =>
      whole(
        record
          ? ruleDefinition(record)
          : template
            ? {
                ...ruleDefinition(template),
                rule_name: `${template.rule_name}_copy`.slice(0, 100),
                mode: "shadow",
              }
            : newRule(last),
      ),
    [record, template, last],
  );
  const subject = record ? `rule:${record.rule_name}` : template ? `copy:${template.rule_name}` : "rule:";
  const held = useDraft(subject, record, begin);
  const { draft, write } = held;
  const set = (path: Path, value: unknown): void => {
    const plus = path.indexOf("+");
    write(
      (plus < 0
        ? setAt(draft, path, value)
        : insertAt(draft, path.slice(0, plus), Number(path[plus + 1]), value)) as Definition,
    );
  };
  return { ...held, set };
}

/** Writes a rule: its parts on the left, what they come to on the right, sentence and definition. */
export function RuleEditor({
  record,
  template,
  rules,
  names,
}: {
  /** Null for a new rule. */
  readonly record: RuleRecord | null;
  /** A rule to begin a new one from. */
  readonly template: RuleRecord | null;
  readonly rules: readonly RuleRecord[];
  readonly names: RuleNames;
}): ReactNode {
  const { draft, base, isDirty, write, set, forget } = useRuleDraft(record, template, rules);
  const read = useMemo(() => readDraft(draft, names), [draft, names]);
  // Nothing is called wrong before anybody wrote anything.
  const problems = isDirty || record ? read.problems : [];
  const was = useMemo(() => (base ? parseRule(ruleDefinition(base)) : null), [base]);
  const warnings = read.rule ? ruleWarnings(read.rule, was?.ok ? was.value : null, names) : [];
  const suggestions = useSuggestions(rules);
  const leave = (): void => navigate(placeAddress(record ? ["rules", record.rule_name] : ["rules"]));
  useKeys({ Escape: leave });
  const isTaken = !record && rules.some((each) => each.rule_name === draft["rule_name"]);
  return (
    <div className={css.editor}>
      <DeskBar title={record ? `Change ${codeWords(record.rule_name)}` : "New rule"}>
        <Grow />
        {isDirty ? (
          <Button variant="subtle" onClick={forget}>
            Start over
          </Button>
        ) : null}
        <Button onClick={leave}>Back</Button>
      </DeskBar>
      {record && base && record.version !== base.version ? (
        <Note tone="amber" role="status">
          Somebody saved version {record.version} while you were writing on {base.version}. When you save,
          both are shown side by side; nothing is overwritten.
        </Note>
      ) : null}
      <div className={css.columns}>
        <div className={css.form}>
          <HeadFields draft={draft} isNew={!record} isTaken={isTaken} problems={problems} set={set} />
          <Section title="When">
            <ConditionEditor
              condition={draft["conditions"]}
              path={["conditions"]}
              problems={problems}
              suggestions={suggestions}
              set={set}
            />
          </Section>
          <Section title="Then">
            <ActionEditor
              action={draft["action"]}
              problems={problems}
              models={suggestions.models}
              set={set}
            />
          </Section>
          <Audience draft={draft} problems={problems} set={set} />
        </div>
        <div className={css.side}>
          <Section title="In words">
            <div className={css.sentence} role="status" aria-label="The rule in words">
              {cleanText(read.sentence)}
            </div>
            {warnings.map((warning) => (
              <Note key={warning} tone="amber">
                {cleanText(warning)}
              </Note>
            ))}
          </Section>
          <ProblemList problems={problems} />
          {read.rule ? (
            <ReplayPanel
              definition={draft}
              names={names}
              shadow={null}
              onThreshold={(place, value) => set([...pathFrom(place), "value"], value)}
            />
          ) : null}
          <DefinitionPane draft={draft} onChange={write} />
        </div>
      </div>
      <SaveBar
        draft={draft}
        base={base}
        canSave={read.rule !== null && !isTaken}
        onMode={(mode) => set(["mode"], mode)}
        onSaved={(name) => {
          forget();
          navigate(placeAddress(["rules", name]), { replace: true });
        }}
      />
    </div>
  );
}

function useSuggestions(rules: readonly RuleRecord[]): Suggestions {
  const project = useLive((state) => state.connection?.project ?? null);
  return useMemo(() => {
    const models = new Set<string>();
    // Models that rules name already; the price table is not read for a list of choices.
    const collect = (value: unknown): void => {
      if (Array.isArray(value)) for (const each of value) collect(each);
      else if (isObject(value)) {
        if (value["fact"] === "model")
          for (const each of [value["value"]].flat()) if (typeof each === "string") models.add(each);
        if (typeof value["model"] === "string") models.add(value["model"]);
        for (const each of Object.values(value)) collect(each);
      }
    };
    for (const each of rules) collect([each.conditions, each.action]);
    return {
      plans: (project?.plans ?? []).map((plan) => plan.plan_id),
      models: [...models].toSorted(),
      currency: project?.currency ?? undefined,
    };
  }, [rules, project]);
}

function HeadFields({
  draft,
  isNew,
  isTaken,
  problems,
  set,
}: {
  readonly draft: Definition;
  readonly isNew: boolean;
  readonly isTaken: boolean;
  readonly problems: readonly RuleProblem[];
  readonly set: (path: Path, value: unknown) => void;
}): ReactNode {
  const name = textOf(draft["rule_name"]);
  return (
    <div className={css.head}>
      {isNew ? (
        <TextInput
          label="Name"
          data-autofocus
          autoFocus
          placeholder="too_many_messages"
          value={name}
          error={
            isTaken
              ? "There is a rule of this name. Open it to change it, or choose another."
              : name !== ""
                ? problemAt(problems, ["rule_name"])
                : null
          }
          onChange={(event) => set(["rule_name"], nameFrom(event.currentTarget.value))}
        />
      ) : null}
      <TextInput
        label="Order (lower runs first)"
        inputMode="numeric"
        value={textOf(draft["priority"])}
        error={problemAt(problems, ["priority"])}
        onChange={(event) => {
          const text = event.currentTarget.value.trim();
          set(["priority"], /^-?\d+$/.test(text) ? Number(text) : text);
        }}
      />
      <TextInput
        label="Kind"
        value={textOf(draft["rule_type"])}
        error={problemAt(problems, ["rule_type"])}
        onChange={(event) => set(["rule_type"], event.currentTarget.value)}
      />
      <TextInput
        className={css.wide}
        label="What it is for (optional)"
        value={textOf(draft["description"])}
        onChange={(event) => set(["description"], event.currentTarget.value || undefined)}
      />
    </div>
  );
}

function Audience({
  draft,
  problems,
  set,
}: {
  readonly draft: Definition;
  readonly problems: readonly RuleProblem[];
  readonly set: (path: Path, value: unknown) => void;
}): ReactNode {
  const project = useLive((state) => state.connection?.project ?? null);
  const applies = isObject(draft["applies_to"]) ? draft["applies_to"] : {};
  const listed = (value: unknown): readonly string[] =>
    Array.isArray(value) ? (value as unknown[]).map(String) : [];
  const plans = listed(applies["plans"]);
  const scopes = listed(applies["scopes"]);
  const known = project?.plans ?? [];
  const gone = plans.filter((id) => !known.some((plan) => plan.plan_id === id));
  return (
    <Section title="For" aside={plans.length + scopes.length === 0 ? "every call" : null}>
      <div className={css.effects}>
        {[...known, ...gone.map((id) => ({ plan_id: id, name: `${id} (no such plan now)` }))].map((plan) => (
          <Checkbox
            key={plan.plan_id}
            label={cleanText(plan.name)}
            checked={plans.includes(plan.plan_id)}
            onChange={(event) => {
              const others = plans.filter((id) => id !== plan.plan_id);
              const next = event.currentTarget.checked ? [...others, plan.plan_id] : others;
              set(["applies_to", "plans"], next.length > 0 ? next : undefined);
            }}
          />
        ))}
        <TextInput
          label="Scopes, by comma (optional)"
          value={scopes.join(", ")}
          error={problemAt(problems, ["applies_to"])}
          onChange={(event) => {
            const next = event.currentTarget.value
              .split(",")
              .map((each) => each.trim())
              .filter(Boolean);
            set(["applies_to", "scopes"], next.length > 0 ? next : undefined);
          }}
        />
      </div>
    </Section>
  );
}

function saysTheSame(text: string, draft: Definition): boolean {
  try {
    return JSON.stringify(JSON.parse(text)) === JSON.stringify(draft);
  } catch {
    return false;
  }
}

/** The definition as JSON; what is typed there becomes the rule as soon as it can be read. */
function DefinitionPane({
  draft,
  onChange,
}: {
  readonly draft: Definition;
  readonly onChange: (definition: Definition) => void;
}): ReactNode {
  const written = JSON.stringify(draft, null, 2);
  const [typed, setTyped] = useState<string | null>(null);
  const [error, setError] = useState<string | null>(null);
  // What was typed stays as it is while it means the same, or cannot be read.
  const shown = typed !== null && (error !== null || saysTheSame(typed, draft)) ? typed : written;
  return (
    <Section title="Definition">
      <Textarea
        className={css.json}
        aria-label="Definition as JSON"
        autosize
        minRows={8}
        maxRows={30}
        spellCheck={false}
        value={shown}
        error={error}
        onChange={(event) => {
          const text = event.currentTarget.value;
          setTyped(text);
          try {
            const read: unknown = JSON.parse(text);
            if (!isObject(read)) throw new Error("A rule is an object in braces.");
            setError(null);
            onChange(read);
          } catch (problem) {
            setError((problem as Error).message);
          }
        }}
        onBlur={() => {
          if (error !== null) return;
          setTyped(null);
        }}
      />
    </Section>
  );
}

function SaveBar({
  draft,
  base,
  canSave,
  onMode,
  onSaved,
}: {
  readonly draft: Definition;
  readonly base: RuleRecord | null;
  readonly canSave: boolean;
  readonly onMode: (mode: string) => void;
  readonly onSaved: (name: string) => void;
}): ReactNode {
  const runAct = useAct();
  const isReadOnly = useIsReadOnly();
  const [reason, setReason] = useState("");
  const [hours, setHours] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [commandId, setCommandId] = useState(() => crypto.randomUUID());
  const name = textOf(draft["rule_name"]);
  const save = async (): Promise<void> => {
    if (!canSave || busy) return;
    if (reason.trim().length < 3) return setError("Say in a few words why: it stays in the history.");
    setBusy(true);
    const isDone = await runAct(
      "save_rule",
      base ?? { rule_name: name, version: 0 },
      {
        rule: draft,
        reason: reason.trim(),
        ...(hours === "" ? {} : { until: new Date(Date.now() + Number(hours) * 3_600_000).toISOString() }),
      },
      { commandId },
    );
    setBusy(false);
    // What was refused is another command when it is sent again, changed.
    setCommandId(crypto.randomUUID());
    if (isDone) onSaved(name);
  };
  useKeys({ "mod+s": () => void save() });
  return (
    <form
      className={css.saveBar}
      aria-label="Save the rule"
      onSubmit={(event) => {
        event.preventDefault();
        void save();
      }}
    >
      <TextInput
        aria-label="Why"
        placeholder="Why this change"
        maxLength={1000}
        value={reason}
        error={error}
        onChange={(event) => {
          setReason(event.currentTarget.value);
          setError(null);
        }}
      />
      <NativeSelect
        size="xs"
        aria-label="Mode"
        data={[
          { value: "shadow", label: "Shadow: only recorded" },
          { value: "enforce", label: "Enforce" },
          { value: "off", label: "Off" },
        ]}
        value={textOf(draft["mode"]) || "enforce"}
        onChange={(event) => onMode(event.currentTarget.value)}
      />
      <NativeSelect
        size="xs"
        aria-label="For how long"
        title="After this time the rule goes back by itself to what it was"
        data={times}
        value={hours}
        onChange={(event) => setHours(event.currentTarget.value)}
      />
      <Button type="submit" variant="filled" loading={busy} disabled={!canSave || isReadOnly}>
        {base ? "Save" : "Save the new rule"}
      </Button>
      <Kbd>Ctrl S</Kbd>
    </form>
  );
}
