import { Button } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import type { ConfigChange, ConfigItemRecord, ConfigStepRecord } from "../../../../shared/contract/plans.ts";
import {
  type ConfigKind,
  configWarnings,
  describeField,
  fieldsOf,
} from "../../../../shared/governance/configuration/index.ts";
import { useNow } from "../../lib/clock.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { useIsReadOnly, useProjectCurrency } from "../../lib/live.ts";
import { navigate, placeAddress } from "../../lib/router.ts";
import { capitalise, cleanText, clip, counted } from "../../lib/text.ts";
import { useAct } from "../../ui/acts.ts";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { showDone, showFailure } from "../../ui/notices.tsx";
import { Note, Tag, Time } from "../../ui/parts.tsx";
import { usePropose } from "../../ui/propose.ts";
import { ReasonForm } from "../../ui/reason-form.tsx";
import { DetailScroll } from "../../ui/side-detail.tsx";
import { QueryView, Skeleton } from "../../ui/states.tsx";
import type { Tone } from "../../ui/theme.ts";
import { OlderPages, StepLine, VersionLine, VersionList, VersionPage } from "../../ui/versions.tsx";
import { asWanted, fullTitle, kindWords, moneyOf } from "./kinds.ts";
import { LookAhead } from "./look-ahead.tsx";
import css from "./plans.module.css";

const ConfigLine = ({
  change,
  withName = false,
  children,
}: {
  readonly change: ConfigChange;
  readonly withName?: boolean;
  readonly children: ReactNode;
}): ReactNode => (
  <VersionLine
    change={change}
    retired={change.kind === "setting" ? "unset" : "retired"}
    link={
      withName ? (
        <a href={`#${placeAddress(["plans", change.id], { tab: "history" })}`}>
          {clip(capitalise(cleanText(fullTitle(change.kind, change.key, change.record))), 80)}
        </a>
      ) : null
    }
  >
    {children}
  </VersionLine>
);

function Changes({
  kind,
  recordKey,
  children,
}: {
  readonly kind: ConfigKind | null;
  readonly recordKey: string | null;
  readonly children: (change: ConfigChange) => ReactNode;
}): ReactNode {
  return (
    <OlderPages>
      {(before, onMore) => (
        <ChangesPage key={before ?? "first"} asked={{ kind, key: recordKey, before }} onMore={onMore}>
          {children}
        </ChangesPage>
      )}
    </OlderPages>
  );
}

function ChangesPage({
  asked,
  onMore,
  children,
}: {
  readonly asked: {
    readonly kind: ConfigKind | null;
    readonly key: string | null;
    readonly before: number | null;
  };
  readonly onMore: ((before: number) => void) | null;
  readonly children: (change: ConfigChange) => ReactNode;
}): ReactNode {
  const query = useCall("plans.changes", asked);
  return (
    <VersionPage query={query} before={asked.before} onMore={onMore} nothing="Nothing was changed yet">
      {children}
    </VersionPage>
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
        <ConfigLine key={change.version_id} change={change}>
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
        </ConfigLine>
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
              <ConfigLine key={change.version_id} change={change} withName>
                <Button size="compact-xs" onClick={() => setChosen(change)}>
                  Everything as it was then
                </Button>
              </ConfigLine>
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
export function ConfigStepLine({
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
    <StepLine
      title={clip(capitalise(cleanText(title)), 80)}
      tone={tones[step.step]}
      word={words[step.step] ?? step.step}
      text={summary ? <span className={css.quiet}>{clip(cleanText(summary), 300)}</span> : null}
      difference={step.difference}
      problems={step.problems}
    >
      {children}
    </StepLine>
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
  const [commandId, setCommandId] = useState(() => crypto.randomUUID());
  const isReadOnly = useIsReadOnly();
  const list = useCall("plans.list", {});
  const propose = usePropose();
  if (steps.length + more.length === 0) return <Note tone="green">{nothing}</Note>;
  const changes = [...steps.map(asWanted), ...more];
  const apply = async (reason: string): Promise<boolean> => {
    const isDone = isProposed ? await propose(commandId, changes, reason) : await change(reason);
    // A change that was refused is sent again as another command.
    setCommandId(crypto.randomUUID());
    if (isDone) onDone();
    return isDone;
  };
  const change = async (reason: string): Promise<boolean> => {
    const result = await client.call("plans.apply", { command_id: commandId, changes, reason });
    for (const key of [
      "plans.list",
      "plans.changes",
      "plans.as_of",
      "plans.compare",
      "prices.review",
      "rules.list",
    ])
      void queries.invalidateQueries({ queryKey: [key] });
    if (!result.ok) {
      showFailure("Nothing was changed", result.error);
      return false;
    }
    showDone(`${counted(result.value.changed.length, "record")} changed`);
    return true;
  };
  const isWrong = steps.some(({ problems }) => problems.length > 0);
  const isProposed = changes.some(({ kind }) => list.data?.second_person_for.includes(kind));
  return (
    <>
      <VersionList>
        {steps.map((step) => (
          <ConfigStepLine key={`${step.kind}${step.key}`} step={step} {...(words ? { words } : {})} />
        ))}
      </VersionList>
      <Warnings steps={steps} records={list.data?.records ?? []} />
      <LookAhead changes={changes} />
      <ReasonForm label={button} className={css.save} disabled={isReadOnly || isWrong} onSubmit={apply}>
        {isProposed ? "Propose" : button}: {counted(changes.length, "record")}
      </ReasonForm>
    </>
  );
}

/** What is valid but may not be meant, once for all records that it applies to. */
function Warnings({
  steps,
  records,
}: {
  readonly steps: readonly ConfigStepRecord[];
  readonly records: readonly ConfigItemRecord[];
}): ReactNode {
  const nowMs = useNow(60_000);
  const names = new Map<string, string[]>();
  for (const { kind, key, record } of steps) {
    const before = records.find((each) => each.kind === kind && each.key === key)?.record ?? null;
    for (const warning of record === null ? [] : configWarnings(kind, record, before, new Date(nowMs)))
      names.set(warning, [...(names.get(warning) ?? []), clip(cleanText(fullTitle(kind, key, record)), 60)]);
  }
  return [...names].map(([warning, of]) => (
    <Note key={warning} tone="amber">
      {warning} ({of.length > 3 ? counted(of.length, "record") : of.join(", ")})
    </Note>
  ));
}
