import { Button, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { ConfigChange, ConfigItemRecord, ConfigStepRecord } from "../../../../shared/contract/plans.ts";
import {
  type ConfigKind,
  describeField,
  fieldsOf,
} from "../../../../shared/governance/configuration/index.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { useIsReadOnly, useProjectCurrency } from "../../lib/live.ts";
import { navigate, placeAddress } from "../../lib/router.ts";
import { capitalise, cleanText, clip, counted } from "../../lib/text.ts";
import { useAct } from "../../ui/acts.ts";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { DifferenceView } from "../../ui/difference.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { Note, SafeText, Tag, Time } from "../../ui/parts.tsx";
import { DetailScroll } from "../../ui/side-detail.tsx";
import { EmptyView, QueryView, Skeleton } from "../../ui/states.tsx";
import type { Tone } from "../../ui/theme.ts";
import { fullTitle, kindWords, moneyOf } from "./kinds.ts";
import { LookAhead } from "./look-ahead.tsx";
import css from "./plans.module.css";
import { usePropose } from "../../ui/propose.ts";

function ChangeLine({
  change,
  withName,
  children,
}: {
  readonly change: ConfigChange;
  readonly withName: boolean;
  readonly children?: ReactNode;
}): ReactNode {
  const title = fullTitle(change.kind, change.key, change.record);
  return (
    <li>
      <div className={css.versionHead}>
        {withName ? (
          <a href={`#${placeAddress(["plans", change.id], { tab: "history" })}`}>
            {clip(capitalise(cleanText(title)), 80)}
          </a>
        ) : null}
        <b>v{change.version}</b>
        <span className={css.quiet}>
          <Time at={change.at} form="short" />
          {change.by ? ` by ${clip(cleanText(change.by), 60)}` : ""}
        </span>
        <span>{children}</span>
      </div>
      {change.reason ? <SafeText text={change.reason} length={400} /> : null}
      {change.is_retired ? (
        <span>
          <Tag tone="grey">{change.kind === "setting" ? "unset" : "retired"}</Tag>
        </span>
      ) : change.difference === null ? (
        <span>
          <Tag tone="blue">{change.version === 1 ? "new" : "came back"}</Tag>
        </span>
      ) : (
        <DifferenceView difference={change.difference} />
      )}
    </li>
  );
}

function Changes({
  kind,
  recordKey,
  children,
}: {
  readonly kind: ConfigKind | null;
  readonly recordKey: string | null;
  readonly children: (change: ConfigChange) => ReactNode;
}): ReactNode {
  const [cursors, setCursors] = useState<readonly (number | null)[]>([null]);
  return cursors.map((before, at) => (
    <ChangesPage
      key={before ?? "first"}
      kind={kind}
      recordKey={recordKey}
      before={before}
      onMore={at === cursors.length - 1 ? (next) => setCursors([...cursors, next]) : null}
    >
      {children}
    </ChangesPage>
  ));
}

function ChangesPage({
  kind,
  recordKey,
  before,
  onMore,
  children,
}: {
  readonly kind: ConfigKind | null;
  readonly recordKey: string | null;
  readonly before: number | null;
  readonly onMore: ((before: number) => void) | null;
  readonly children: (change: ConfigChange) => ReactNode;
}): ReactNode {
  const query = useCall("plans.changes", { kind, key: recordKey, before });
  return (
    <QueryView query={query} skeleton={<Skeleton lines={6} />}>
      {({ changes, has_more }) => (
        <>
          <ul className={css.versions}>{changes.map(children)}</ul>
          {changes.length === 0 && before === null ? <EmptyView title="Nothing was changed yet" /> : null}
          {has_more && onMore ? (
            <Button onClick={() => onMore(changes.at(-1)?.version_id ?? 0)}>Show older</Button>
          ) : null}
        </>
      )}
    </QueryView>
  );
}

/** Every version of one record, with who, why and what changed; any of them can come back. */
export function RecordHistory({
  kind,
  id,
  record,
}: {
  readonly kind: ConfigKind;
  readonly id: string;
  /** Null where it is retired. */
  readonly record: ConfigItemRecord | null;
}): ReactNode {
  const runAct = useAct();
  const queries = useQueryClient();
  const isReadOnly = useIsReadOnly();
  const key = id.slice(kind.length + 1);
  return (
    <Changes kind={kind} recordKey={key}>
      {(change) => (
        <ChangeLine key={change.version_id} change={change} withName={false}>
          {change.version === record?.version ? (
            <Tag tone="green">in force</Tag>
          ) : change.is_retired ? null : (
            <Button
              size="compact-xs"
              disabled={isReadOnly}
              onClick={() => {
                void runAct("save_config", record ?? { id, kind, key, version: 0, record: {} }, {
                  kind,
                  key,
                  record: change.record,
                  reason: `Return to version ${change.version}`,
                }).then(() => queries.invalidateQueries({ queryKey: ["plans.changes"] }));
              }}
            >
              Return to this
            </Button>
          )}
        </ChangeLine>
      )}
    </Changes>
  );
}

/** A record that is not in force: its history, from which it can come back. */
export function RetiredRecord({ kind, id }: { readonly kind: ConfigKind; readonly id: string }): ReactNode {
  return (
    <DetailScroll>
      <div className={css.page}>
        <Note tone="grey">This {kindWords[kind].one} is not in force. Any version of it can come back.</Note>
        <RecordHistory kind={kind} id={id} record={null} />
      </div>
    </DetailScroll>
  );
}

/** Every change of everything; all can return to the moment after any of them. */
export function ConfigHistory(): ReactNode {
  const [chosen, setChosen] = useState<ConfigChange | null>(null);
  return (
    <>
      <DeskBar title="History of plans, prices and settings">
        <Grow />
        <Button onClick={() => navigate("/plans")}>Back</Button>
      </DeskBar>
      <div className={css.wideContent}>
        {chosen ? (
          <ReturnTo key={chosen.version_id} change={chosen} onDone={() => setChosen(null)} />
        ) : (
          <Changes kind={null} recordKey={null}>
            {(change) => (
              <ChangeLine key={change.version_id} change={change} withName>
                <Button size="compact-xs" onClick={() => setChosen(change)}>
                  Everything as it was then
                </Button>
              </ChangeLine>
            )}
          </Changes>
        )}
      </div>
    </>
  );
}

function ReturnTo({
  change,
  onDone,
}: {
  readonly change: ConfigChange;
  readonly onDone: () => void;
}): ReactNode {
  const query = useCall("plans.as_of", { version_id: change.version_id });
  return (
    <>
      <div className={css.row}>
        <span>
          Everything as it was right after <Time at={change.at} form="short" />
        </span>
        <Button onClick={onDone}>Back to the history</Button>
      </div>
      <QueryView query={query} skeleton={<Skeleton lines={6} />}>
        {({ steps }) => (
          <ApplySteps
            steps={steps.filter(({ step }) => step !== "same")}
            button="Return to this"
            words={{ new: "comes back", changed: "changes back", retired: "is retired" }}
            nothing="Everything is as it was then."
            onDone={onDone}
          />
        )}
      </QueryView>
    </>
  );
}

const tones: Readonly<Record<ConfigStepRecord["step"], Tone>> = {
  new: "blue",
  changed: "amber",
  retired: "red",
  same: "grey",
};

/** What would become of one record. */
export function StepLine({
  step,
  words = {},
  children,
}: {
  readonly step: ConfigStepRecord;
  readonly words?: Partial<Readonly<Record<ConfigStepRecord["step"], string>>>;
  readonly children?: ReactNode;
}): ReactNode {
  const currency = useProjectCurrency();
  const title = fullTitle(step.kind, step.key, step.record);
  const summary =
    step.step === "new" && step.record
      ? fieldsOf(step.kind, step.key)
          .filter((field) => !field.isName && (step.record?.[field.name] ?? null) !== null)
          .slice(0, 4)
          .map(
            (field) =>
              `${field.label}: ${describeField(field, step.record?.[field.name], moneyOf(step.kind, step.record, currency))}`,
          )
          .join("; ")
      : null;
  return (
    <li>
      <div className={css.versionHead}>
        {children}
        <b>{clip(capitalise(cleanText(title)), 80)}</b>
        <Tag tone={tones[step.step]}>{words[step.step] ?? step.step}</Tag>
      </div>
      {summary ? <span className={css.quiet}>{clip(cleanText(summary), 300)}</span> : null}
      {step.difference.length > 0 ? <DifferenceView difference={step.difference} /> : null}
      {step.problems.map((problem) => (
        <div key={`${problem.path}${problem.message}`} className={css.error}>
          <code>{cleanText(problem.path)}</code>: {cleanText(`${problem.message} ${problem.fix}`)}
        </div>
      ))}
    </li>
  );
}

const nothingMore: readonly never[] = [];

/** Many steps at once: what each does, whom they touch, and one button that does all or nothing. */
export function ApplySteps({
  steps,
  more = nothingMore,
  button,
  words,
  nothing,
  onDone,
}: {
  readonly steps: readonly ConfigStepRecord[];
  /** Changes of rules that go with them. */
  readonly more?: readonly {
    readonly kind: "rule";
    readonly key: string;
    readonly record: Record<string, unknown> | null;
    readonly expected_version: number | null;
  }[];
  readonly button: string;
  readonly words?: Partial<Readonly<Record<ConfigStepRecord["step"], string>>>;
  readonly nothing: string;
  readonly onDone: () => void;
}): ReactNode {
  const client = useConsole();
  const queries = useQueryClient();
  const [reason, setReason] = useState("");
  const [busy, setBusy] = useState(false);
  const [commandId, setCommandId] = useState(() => crypto.randomUUID());
  const isReadOnly = useIsReadOnly();
  const list = useCall("plans.list", {});
  const propose = usePropose();
  if (steps.length + more.length === 0) return <Note tone="green">{nothing}</Note>;
  const changes = [
    ...steps.map(({ kind, key, record, expected_version }) => ({ kind, key, record, expected_version })),
    ...more,
  ];
  const apply = async (): Promise<void> => {
    setBusy(true);
    if (isProposed) {
      const isDone = await propose(commandId, changes, reason);
      setBusy(false);
      setCommandId(crypto.randomUUID());
      return isDone ? onDone() : undefined;
    }
    const result = await client.call("plans.apply", { command_id: commandId, changes, reason });
    setBusy(false);
    setCommandId(crypto.randomUUID());
    for (const key of ["plans.list", "plans.changes", "plans.as_of", "plans.compare", "rules.list"])
      void queries.invalidateQueries({ queryKey: [key] });
    if (!result.ok) return showFailure("Nothing was changed", result.error);
    showDone(`${counted(result.value.changed.length, "record")} changed`);
    onDone();
  };
  const isWrong = steps.some(({ problems }) => problems.length > 0);
  const isProposed = changes.some(({ kind }) => list.data?.second_person_for.includes(kind));
  return (
    <>
      <ul className={css.versions}>
        {steps.map((step) => (
          <StepLine key={`${step.kind}${step.key}`} step={step} {...(words ? { words } : {})} />
        ))}
      </ul>
      <LookAhead changes={changes} />
      <form
        className={css.save}
        aria-label={button}
        onSubmit={(event) => {
          event.preventDefault();
          void apply();
        }}
      >
        <TextInput
          aria-label="Why"
          placeholder="Why"
          maxLength={1000}
          value={reason}
          onChange={(event) => setReason(event.currentTarget.value)}
        />
        <Button
          type="submit"
          variant="filled"
          loading={busy}
          disabled={isReadOnly || reason.trim().length < 3 || isWrong}
        >
          {isProposed ? "Propose" : button}: {counted(changes.length, "record")}
        </Button>
      </form>
    </>
  );
}
