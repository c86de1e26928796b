import { Button } from "@mantine/core";
import { type ReactNode, useState } from "react";
import { ruleDefinition } from "../../../../shared/contract/acts.ts";
import type { RuleRecord } from "../../../../shared/contract/rules.ts";
import {
  type Action,
  type Condition,
  describeCondition,
  describeProblem,
  describeRule,
  parseRule,
  type Problem,
  type Rule,
  type RuleNames,
  standardMessage,
} from "../../../../shared/governance/rules/index.ts";
import { useCall } from "../../lib/console.tsx";
import { formatTokens } from "../../lib/format.ts";
import { useKeys } from "../../lib/keys.ts";
import { readOnlyWords, useIsReadOnly, useLive } from "../../lib/live.ts";
import { actorWords, capitalise, cleanText, clip, codeWords, counted, reasonWords } from "../../lib/text.ts";
import { CopyButton, Facts, Note, SafeText, Section, Time, Tokens } from "../../ui/parts.tsx";
import { ProblemLine } from "../../ui/problem.tsx";
import { DetailBar, DetailScroll } from "../../ui/side-detail.tsx";
import { navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { ActButton } from "../../ui/act-form.tsx";
import { TrashIcon, UndoIcon } from "../../ui/icons.tsx";
import tabs from "../../ui/tabs.module.css";
import { ForAWhile, ModeSwitch, type SetMode } from "./mode-switch.tsx";
import { RuleHistory } from "./rule-history.tsx";
import { ReplayPanel } from "./replay-panel.tsx";
import { RuleHitsView } from "./rule-hits.tsx";
import css from "./rules.module.css";
import { useTakeBack } from "./take-back.ts";

type ReadRule =
  | { readonly ok: true; readonly rule: Rule }
  | { readonly ok: false; readonly problems: readonly Problem[] };

function readRule(record: RuleRecord): ReadRule {
  const parsed = parseRule(record);
  return parsed.ok ? { ok: true, rule: parsed.value } : { ok: false, problems: parsed.error };
}

/** One sentence for a rule, without its mode, which is shown beside it. */
export function ruleSentence(record: RuleRecord, names: RuleNames): string {
  const read = readRule(record);
  if (!read.ok) return "This console cannot read the rule; the project may be newer.";
  return cleanText(describeRule({ ...read.rule, mode: "enforce", is_active: true }, names));
}

const pages = [
  { id: "", name: "Rule" },
  { id: "hits", name: "Matches" },
  { id: "replay", name: "Replay" },
  { id: "history", name: "History" },
] as const;

export function RulePage({
  record,
  names,
  setMode,
  move,
  waits,
  onClose,
}: {
  readonly record: RuleRecord;
  readonly names: RuleNames;
  readonly setMode: SetMode;
  /** Moves the rule one place up (-1) or down (1) in the order. */
  readonly move: (record: RuleRecord, by: -1 | 1) => void;
  readonly waits: boolean;
  readonly onClose: () => void;
}): ReactNode {
  const place = usePlace();
  const tab = place.query.get("tab") ?? "";
  const takeBack = useTakeBack();
  const isReadOnly = useIsReadOnly();
  const [isRetiring, setRetiring] = useState(false);
  const edit = (): void => navigate(placeAddress(["rules", record.rule_name], { do: "edit" }));
  const copy = (): void => navigate(placeAddress(["rules"], { do: "new", from: record.rule_name }));
  useKeys({
    e: () => void setMode(record, "enforce"),
    s: () => void setMode(record, "shadow"),
    o: () => void setMode(record, "off"),
    c: edit,
    d: copy,
    z: () => void takeBack(record),
    K: () => move(record, -1),
    J: () => move(record, 1),
  });
  return (
    <>
      <DetailBar title={capitalise(codeWords(record.rule_name))} onClose={onClose}>
        <ModeSwitch record={record} setMode={setMode} waits={waits} />
      </DetailBar>
      <DetailScroll>
        <div className={css.page}>
          <div className={css.acts}>
            <Button onClick={edit} title="Change the rule (c)">
              Change
            </Button>
            <Button onClick={copy} title="Begin a new rule from this one (d)">
              Duplicate
            </Button>
            <Button
              leftSection={<UndoIcon size={14} />}
              title={isReadOnly ? readOnlyWords : "Return to the version before (z)"}
              disabled={isReadOnly}
              onClick={() => void takeBack(record)}
            >
              Take back
            </Button>
            <ForAWhile record={record} setMode={setMode} />
            <ActButton
              act="retire_rule"
              record={record}
              icon={<TrashIcon size={14} />}
              opened={isRetiring}
              onOpened={setRetiring}
            />
          </div>
          {waits ? <Waiting record={record} /> : null}
          {record.back_at ? (
            <Note tone="amber" role="status">
              Changed for a while: it goes back by itself <Time at={record.back_at} />.
            </Note>
          ) : null}
          <nav className={tabs.tabs} aria-label="Pages of the rule">
            {pages.map((page) => (
              <a
                key={page.id}
                href={`#${placeAddress(["rules", record.rule_name], { tab: page.id || null })}`}
                aria-current={tab === page.id ? "page" : undefined}
              >
                {page.name}
              </a>
            ))}
          </nav>
          {tab === "hits" ? (
            <RuleHitsView ruleName={record.rule_name} />
          ) : tab === "replay" ? (
            <ReplayPanel
              definition={ruleDefinition(record)}
              names={names}
              shadow={record.mode === "shadow" ? record : null}
              onThreshold={null}
            />
          ) : tab === "history" ? (
            <RuleHistory ruleName={record.rule_name} record={record} />
          ) : (
            <WhatItDoes record={record} names={names} />
          )}
        </div>
      </DetailScroll>
    </>
  );
}

const outcomes: readonly (readonly [string, string])[] = [
  ["block", "stopped"],
  ["deflect", "answered with its message"],
  ["route", "sent to another model"],
  ["truncate", "shortened"],
  ["warn", "warned"],
  ["flag", "flagged for review"],
];

/** What a change that waits to be sent will do, as far as the last sync shows. */
function Waiting({ record }: { readonly record: RuleRecord }): ReactNode {
  const syncedAt = useLive((state) => state.connection?.last_sync_at ?? null);
  const action = (record.action ?? {}) as Readonly<Record<string, unknown>>;
  const done = outcomes.filter(([kind]) => kind in action).map(([, words]) => words);
  const matches = record.matches_24h;
  const mode = record.is_active ? record.mode : "off";
  const becomes =
    mode === "enforce"
      ? `Such calls are ${done.join(", ") || "looked at"} once it is sent.`
      : mode === "shadow"
        ? "Such calls pass and are recorded once it is sent."
        : "Such calls pass and are not looked at once it is sent.";
  return (
    <Note tone="amber" role="status">
      Waits to be sent.{" "}
      {matches === null || matches === undefined ? null : (
        <>
          By the last sync, <Time at={syncedAt} form="short" />, it matched {counted(matches, "call")} in 24
          hours.{" "}
        </>
      )}
      {becomes}
      <Predicted key={`${mode} ${record.version}`} record={record} />
    </Note>
  );
}

/** The change over the calls that the last sync kept on this machine, replayed by the core. */
function Predicted({ record }: { readonly record: RuleRecord }): ReactNode {
  const change = useCall("rules.predict", { rule_name: record.rule_name }, { staleMs: 0 });
  if (!change.data || change.data.calls === 0) return null;
  const { calls, since, matched, users, more_stopped, more_warned, more_rerouted } = change.data;
  const isSame = more_stopped === 0 && more_warned === 0 && more_rerouted === 0;
  return (
    <>
      {" "}
      Replayed over the {counted(calls, "call")} kept here, since <Time at={since} form="short" />: it matches{" "}
      {matched === 0 ? "none" : `${counted(matched, "call")} of ${counted(users, "user")}`}
      <Difference count={more_stopped} more="more are stopped" fewer="fewer are stopped" />
      <Difference count={more_warned} more="more are warned" fewer="fewer are warned" />
      <Difference count={more_rerouted} more="more go to another model" fewer="fewer go to another model" />
      {isSame ? "; no call is decided otherwise" : null}.
    </>
  );
}

function Difference({
  count,
  more,
  fewer,
}: {
  readonly count: number;
  readonly more: string;
  readonly fewer: string;
}): ReactNode {
  return count === 0 ? null : (
    <>
      {"; "}
      {formatTokens(Math.abs(count))} {count > 0 ? more : fewer}
    </>
  );
}

function WhatItDoes({
  record,
  names,
}: {
  readonly record: RuleRecord;
  readonly names: RuleNames;
}): ReactNode {
  const read = readRule(record);
  const [showJson, setShowJson] = useState(false);
  const definition = JSON.stringify(
    {
      rule_name: record.rule_name,
      rule_type: record.rule_type,
      conditions: record.conditions,
      action: record.action,
      priority: record.priority,
      mode: record.mode,
      applies_to: record.applies_to,
      version: record.version,
    },
    null,
    2,
  );
  return (
    <>
      <div className={css.sentence}>{ruleSentence(record, names)}.</div>
      {record.mode === "shadow" ? (
        <Note tone="violet">
          In shadow: every match is recorded and shows in receipts, and no call is changed by it.
        </Note>
      ) : null}
      {record.description ? <SafeText text={record.description} length={500} /> : null}
      {read.ok ? (
        <>
          <Section title="When">
            <ul className={css.tree}>
              <ConditionTree condition={read.rule.conditions} names={names} />
            </ul>
          </Section>
          <Section title="Then">
            <Effects action={read.rule.action} />
          </Section>
        </>
      ) : (
        <Note tone="red">
          The rule cannot be read here:
          <ul>
            {read.problems.slice(0, 10).map((problem) => (
              <li key={describeProblem(problem)}>
                <ProblemLine problem={problem} />
              </li>
            ))}
          </ul>
        </Note>
      )}
      <AboutRule record={record} names={names} />
      <Section
        title={
          <a
            href="#definition"
            role="button"
            aria-expanded={showJson}
            onClick={(event) => {
              event.preventDefault();
              setShowJson(!showJson);
            }}
          >
            {showJson ? "Hide the definition" : "Show the definition"}
          </a>
        }
        aside={<CopyButton text={definition} label="Copy the definition" />}
      >
        {showJson ? <pre className={css.json}>{definition}</pre> : null}
      </Section>
    </>
  );
}

function AboutRule({ record, names }: { readonly record: RuleRecord; readonly names: RuleNames }): ReactNode {
  const plans = record.applies_to.plans ?? [];
  const scopes = record.applies_to.scopes ?? [];
  return (
    <Section title="About it">
      <Facts
        rows={[
          [
            "For",
            plans.length + scopes.length === 0
              ? "every call"
              : [
                  plans.length > 0
                    ? `plans ${plans.map((id) => cleanText(names.plans?.[id] ?? id)).join(", ")}`
                    : "",
                  scopes.length > 0 ? `scopes ${scopes.map(cleanText).join(", ")}` : "",
                ]
                  .filter(Boolean)
                  .join("; "),
          ],
          ["Order", `${record.priority} (lower runs first)`],
          ["Kind", codeWords(record.rule_type)],
          ["Version", String(record.version)],
          [
            "Last change",
            <span key="c">
              <Time at={record.updated_at} />
              {record.updated_by ? ` by ${actorWords(record.updated_by)}` : ""}
            </span>,
          ],
          ["Matches, 24 h", <Tokens key="m" value={record.matches_24h} />],
          [
            "Name",
            <span key="n">
              <code>{clip(cleanText(record.rule_name), 100)}</code> <CopyButton text={record.rule_name} />
            </span>,
          ],
        ]}
      />
    </Section>
  );
}

function ConditionTree({
  condition,
  names,
}: {
  readonly condition: Condition;
  readonly names: RuleNames;
}): ReactNode {
  if ("fact" in condition) return <li>{capitalise(cleanText(describeCondition(condition, names)))}</li>;
  if ("not" in condition)
    return (
      <li>
        <span className={css.join}>not</span>
        <ul className={css.tree}>
          <ConditionTree condition={condition.not} names={names} />
        </ul>
      </li>
    );
  const isAll = "all" in condition;
  const children = isAll ? condition.all : condition.any;
  if (children.length === 0) return <li>{isAll ? "Always" : "Never"}</li>;
  if (children.length === 1 && children[0]) return <ConditionTree condition={children[0]} names={names} />;
  return (
    <li>
      <span className={css.join}>{isAll ? "all of" : "any of"}</span>
      <ul className={css.tree}>
        {children.map((child, index) => (
          <ConditionTree key={index} condition={child} names={names} />
        ))}
      </ul>
    </li>
  );
}

function Effects({ action }: { readonly action: Action }): ReactNode {
  const effects: ReactNode[] = [];
  const said = (text: string): ReactNode => (
    <div className={css.said}>
      Shown to the user: “<SafeText text={text} length={500} />”
    </div>
  );
  if (action.block)
    effects.push(
      <>
        Block the call: {reasonWords(action.block.reason)}
        {action.block.minutes === undefined
          ? ""
          : `, and all calls for ${action.block.minutes.toLocaleString("en")} minutes`}
        .{said(action.block.message ?? standardMessage(action.block.reason))}
      </>,
    );
  if (action.deflect)
    effects.push(
      <>
        Answer with a set reply, without calling a model.
        {said(action.deflect.message)}
      </>,
    );
  if (action.warn)
    effects.push(
      <>
        Let it pass with a warning.
        {said(action.warn.message)}
      </>,
    );
  if (action.route)
    effects.push(
      <>
        Use the model <code>{clip(cleanText(action.route.model), 100)}</code> instead.
      </>,
    );
  if (action.truncate)
    effects.push(<>Shorten the message to {action.truncate.words.toLocaleString("en")} words.</>);
  if (action.flag) effects.push(<>Flag the user for review: {reasonWords(action.flag.reason)}.</>);
  if (action.multiply_cost) effects.push(<>Count its tokens {action.multiply_cost.by} times.</>);
  return (
    <ul className={css.effects}>
      {effects.map((effect, index) => (
        <li key={index}>{effect}</li>
      ))}
    </ul>
  );
}
