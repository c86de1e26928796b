import { Button, TextInput } from "@mantine/core";
import { type ReactNode, useDeferredValue, useMemo, useState } from "react";
import type { ConfigItemRecord, WantedChange } from "../../../../shared/contract/plans.ts";
import {
  checkConfig,
  compareConfig,
  type ConfigKind,
  configKey,
  type ConfigProblem,
  type ConfigRecord,
  configWarnings,
  type Field,
  fieldsOf,
  settingFields,
  wholeRecord,
} from "../../../../shared/governance/configuration/index.ts";
import { useNow } from "../../lib/clock.ts";
import { useKeys } from "../../lib/keys.ts";
import { readOnlyWords, useIsLive, useIsReadOnly, useLive } from "../../lib/live.ts";
import { navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { capitalise, cleanText, clip } from "../../lib/text.ts";
import { type Draft, useDraft } from "../../lib/unsent.ts";
import { useAct } from "../../ui/acts.ts";
import { DifferenceView } from "../../ui/difference.tsx";
import { Note, Section, Tag } from "../../ui/parts.tsx";
import { DetailBar, DetailScroll } from "../../ui/side-detail.tsx";
import tabs from "../../ui/tabs.module.css";
import { FieldInput } from "./field-input.tsx";
import { RecordHistory } from "./history.tsx";
import { emptyRecord, kindWords, moneyOf, titleOf } from "./kinds.ts";
import { LookAhead } from "./look-ahead.tsx";
import css from "./plans.module.css";
import { usePropose } from "../../ui/propose.ts";
import { SimulationPanel } from "./simulation-panel.tsx";

type RecordDraft = Draft<ConfigItemRecord, ConfigRecord>;

interface Around {
  readonly records: readonly ConfigItemRecord[];
  /** Kinds whose changes need a second person. */
  readonly secondPersonFor: readonly string[];
}

/** One record: its fields, what a change of it would do, and its history. */
export function RecordPage({
  kind,
  record,
  template = null,
  settingKey = null,
  around,
  onClose,
}: {
  readonly kind: ConfigKind;
  /** Null for a new one. */
  readonly record: ConfigItemRecord | null;
  /** A record to begin a new one from. */
  readonly template?: ConfigRecord | null;
  /** For a setting that is not set: which. */
  readonly settingKey?: string | null;
  readonly around: Around;
  readonly onClose: () => void;
}): ReactNode {
  const tab = usePlace().query.get("tab") ?? "";
  const words = kindWords[kind];
  const title = record
    ? titleOf(kind, record.key, record.record)
    : settingKey
      ? titleOf(kind, settingKey, null)
      : `New ${words.one}`;
  return (
    <>
      <DetailBar title={clip(cleanText(title), 80)} onClose={onClose}>
        {record ? <span className={css.quiet}>v{record.version}</span> : null}
        {record === null && settingKey ? <Tag tone="grey">has its default</Tag> : null}
        {record && kind !== "setting" && kind !== "project" ? (
          <Button
            title={kind === "price" ? "A price from another day" : "Begin a new one from this"}
            onClick={() => navigate(placeAddress(["plans"], { kind, do: "new", from: record.id }))}
          >
            {kind === "price" ? "New price" : "Duplicate"}
          </Button>
        ) : null}
      </DetailBar>
      <DetailScroll>
        <div className={css.page}>
          {record ? (
            <nav className={tabs.tabs} aria-label="Pages of the record">
              {[
                ["", "Change"],
                ["history", "History"],
              ].map(([page = "", name]) => (
                <a
                  key={page}
                  href={`#${placeAddress(["plans", record.id], { tab: page || null })}`}
                  aria-current={tab === page ? "page" : undefined}
                >
                  {name}
                </a>
              ))}
            </nav>
          ) : null}
          {record && tab === "history" ? (
            <RecordHistory kind={kind} id={record.id} record={record} />
          ) : (
            <RecordEditor
              kind={kind}
              record={record}
              template={template}
              settingKey={settingKey}
              around={around}
              onClose={onClose}
            />
          )}
        </div>
      </DetailScroll>
    </>
  );
}

function RecordEditor({
  kind,
  record,
  template,
  settingKey,
  around,
  onClose,
}: {
  readonly kind: ConfigKind;
  readonly record: ConfigItemRecord | null;
  readonly template: ConfigRecord | null;
  readonly settingKey: string | null;
  readonly around: Around;
  readonly onClose: () => void;
}): ReactNode {
  const project = useLive((state) => state.connection?.project ?? null);
  const currency = project?.currency.toLowerCase() ?? "usd";
  const [today] = useState(() => new Date().toISOString().slice(0, 10));
  const begin = useMemo(
    (): ConfigRecord =>
      settingKey
        ? { key: settingKey, value: settingFields.get(settingKey)?.otherwise ?? null }
        : (template ?? emptyRecord(kind, currency, today)),
    [kind, currency, settingKey, template, today],
  );
  const draft = useDraft(
    `config:${record?.id ?? `${kind}:${settingKey ? `+${settingKey}` : "+"}`}`,
    record,
    record?.record ?? begin,
  );
  const wanted = record?.key ?? settingKey ?? configKey(kind, draft.draft);
  const state = useDraftState(kind, wanted, draft, record, currency, around);
  const plans = around.records
    .filter((each) => each.kind === "plan" && !each.is_retired)
    .map((each) => ({ plan_id: each.key, name: titleOf("plan", each.key, each.record) }));
  return (
    <>
      {record && draft.isDirty && draft.base && record.version !== draft.base.version ? (
        <Note tone="amber" role="status">
          Somebody saved version {record.version} while you were writing on {draft.base.version}. When you
          save, both are shown side by side; nothing is overwritten.
        </Note>
      ) : null}
      <div className={css.fields}>
        {fieldsOf(kind, wanted, draft.draft).map((field: Field) => (
          <FieldInput
            key={field.name}
            field={kind === "setting" ? { ...field, label: titleOf(kind, wanted, null) } : field}
            value={draft.draft[field.name]}
            error={state.isChanged || !record ? problemOf(state.problems, field.name, draft.isDirty) : null}
            isFixed={record !== null && field.isName === true}
            plans={plans}
            currency={moneyOf(kind, draft.draft, currency)}
            onChange={(value) => draft.write({ ...draft.draft, [field.name]: value })}
          />
        ))}
      </div>
      {state.warnings.map((warning) => (
        <Note key={warning} tone="amber">
          {warning}
        </Note>
      ))}
      {state.isTaken ? (
        <Note tone="red">There is a {kindWords[kind].one} of this name. Open it to change it.</Note>
      ) : null}
      {state.difference.length > 0 ? (
        <Section title="What changes">
          <DifferenceView difference={state.difference} />
        </Section>
      ) : null}
      <LookAhead changes={state.settled} />
      {kind === "plan" || kind === "price" ? <SimulationPanel changes={state.settled} /> : null}
      <SaveBar
        kind={kind}
        wanted={wanted}
        draft={draft}
        state={state}
        needsSecondPerson={
          around.secondPersonFor.includes(kind) ||
          (wanted === "second_person_for" && around.secondPersonFor.length > 0)
        }
        record={record}
        onClose={onClose}
      />
    </>
  );
}

/** What is wrong with a field. A new record that nobody has touched is not called wrong. */
function problemOf(problems: readonly ConfigProblem[], name: string, isDirty: boolean): string | null {
  const found = isDirty ? problems.find(({ path }) => path === name) : undefined;
  return found ? `${found.message} ${found.fix}` : null;
}

interface DraftState {
  readonly problems: readonly ConfigProblem[];
  readonly warnings: readonly string[];
  readonly difference: ReturnType<typeof compareConfig>;
  readonly isChanged: boolean;
  readonly isTaken: boolean;
  readonly canSave: boolean;
  /** The change once it is valid; empty until then. */
  readonly settled: readonly WantedChange[];
  readonly whole: ConfigRecord;
}

function useDraftState(
  kind: ConfigKind,
  key: string,
  { draft, base, isDirty }: RecordDraft,
  record: ConfigItemRecord | null,
  currency: string,
  { records }: Around,
): DraftState {
  const plans = records.filter((each) => each.kind === "plan" && !each.is_retired).map((each) => each.key);
  const nowMs = useNow(60_000);
  const problems = checkConfig(kind, key, draft, { currency, plans });
  const whole = wholeRecord(kind, key, draft, currency);
  const before = base?.record ?? null;
  const difference =
    before === null || problems.length > 0 ? [] : compareConfig(kind, key, before, whole, currency);
  const isChanged = isDirty && (before === null || difference.length > 0 || problems.length > 0);
  const isTaken = record === null && isDirty && records.some((each) => each.id === `${kind}:${key}`);
  const canSave = problems.length === 0 && !isTaken && (before === null || difference.length > 0);
  const text = useDeferredValue(
    canSave && isDirty
      ? JSON.stringify([{ kind, key, record: whole, expected_version: base?.version ?? 0 }])
      : "[]",
  );
  const settled = useMemo(() => JSON.parse(text) as WantedChange[], [text]);
  return {
    problems,
    warnings: isChanged && problems.length === 0 ? configWarnings(kind, whole, before, new Date(nowMs)) : [],
    difference,
    isChanged,
    isTaken,
    canSave,
    settled,
    whole,
  };
}

function SaveBar({
  kind,
  wanted,
  draft,
  state,
  needsSecondPerson,
  record,
  onClose,
}: {
  readonly kind: ConfigKind;
  readonly wanted: string;
  readonly draft: RecordDraft;
  readonly state: DraftState;
  readonly needsSecondPerson: boolean;
  readonly record: ConfigItemRecord | null;
  readonly onClose: () => void;
}): ReactNode {
  const runAct = useAct();
  const propose = usePropose();
  const isLive = useIsLive();
  const isReadOnly = useIsReadOnly();
  const [reason, setReason] = useState("");
  const [error, setError] = useState<string | null>(null);
  const [busy, setBusy] = useState(false);
  const [commandId, setCommandId] = useState(() => crypto.randomUUID());
  const id = `${kind}:${wanted}`;
  const send = async (value: ConfigRecord | null): Promise<void> => {
    if (busy) return;
    if (reason.trim().length < 3) return setError("Say in a few words why: it stays in the history.");
    setBusy(true);
    const version = draft.base?.version ?? 0;
    const isDone = needsSecondPerson
      ? await propose(
          commandId,
          [{ kind, key: wanted, record: value === null ? null : { ...value }, expected_version: version }],
          reason,
        )
      : await runAct(
          "save_config",
          draft.base ?? { id, kind, key: wanted, version: 0, record: {} },
          { kind, key: wanted, record: value, reason: reason.trim() },
          { commandId },
        );
    setBusy(false);
    setCommandId(crypto.randomUUID());
    if (!isDone) return;
    setReason("");
    draft.forget();
    if (value === null || needsSecondPerson) onClose();
    else navigate(placeAddress(["plans", id]), { replace: true });
  };
  useKeys({ "mod+s": () => void (state.canSave && draft.isDirty && !isReadOnly && send(state.whole)) });
  return (
    <form
      className={css.save}
      aria-label="Save"
      onSubmit={(event) => {
        event.preventDefault();
        if (state.canSave) void send(state.whole);
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
      <Button
        type="submit"
        variant="filled"
        loading={busy}
        disabled={isReadOnly || !state.canSave || !draft.isDirty || (needsSecondPerson && !isLive)}
        title={isReadOnly ? readOnlyWords : needsSecondPerson ? "A second person approves it" : "Ctrl S"}
      >
        {needsSecondPerson ? "Propose" : "Save"}
      </Button>
      {draft.isDirty ? (
        <Button variant="subtle" onClick={draft.forget}>
          Start over
        </Button>
      ) : null}
      {record && kind !== "project" && !isReadOnly ? (
        <RetireButton
          label={kind === "setting" ? "Unset" : "Retire"}
          record={record}
          onRetire={() => void send(null)}
        />
      ) : null}
    </form>
  );
}

/** Retiring asks once more, beside what it would touch. */
function RetireButton({
  label,
  record,
  onRetire,
}: {
  readonly label: string;
  readonly record: ConfigItemRecord;
  readonly onRetire: () => void;
}): ReactNode {
  const [isAsking, setAsking] = useState(false);
  const changes = useMemo(
    (): WantedChange[] => [
      { kind: record.kind, key: record.key, record: null, expected_version: record.version },
    ],
    [record],
  );
  if (!isAsking) return <Button onClick={() => setAsking(true)}>{label}…</Button>;
  return (
    <div className={css.wide}>
      <LookAhead changes={changes} />
      <div className={css.row}>
        <Button color="red" variant="filled" onClick={onRetire}>
          {label} {cleanText(capitalise(record.key))}
        </Button>
        <Button variant="subtle" onClick={() => setAsking(false)}>
          Keep it
        </Button>
      </div>
    </div>
  );
}
