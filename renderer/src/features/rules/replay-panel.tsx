import { Button, Checkbox, NativeSelect } from "@mantine/core";
import { type ReactNode, useEffect, useRef, useState } from "react";
import type { ReplayRun, RuleRecord } from "../../../../shared/contract/rules.ts";
import { describeFact, type RuleNames } from "../../../../shared/governance/rules/index.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { useLive, useOpenProject } from "../../lib/live.ts";
import { isNumber, useRemembered } from "../../lib/remember.ts";
import { cleanText, codeWords, counted } from "../../lib/text.ts";
import { showFailure } from "../../ui/notices.tsx";
import { Note, Section, Time } from "../../ui/parts.tsx";
import { RunState } from "../../ui/run-state.tsx";
import { pathFrom, setAt } from "./definition.ts";
import css from "./editor.module.css";
import { ReplayReport } from "./replay-report.tsx";
import { ThresholdSlider } from "./threshold-slider.tsx";

const dayMs = 86_400_000;
const periods = [
  { value: "1", label: "the last day" },
  { value: "7", label: "the last 7 days" },
  { value: "30", label: "the last 30 days" },
  { value: "90", label: "the last 90 days" },
];
const isList = (value: unknown): value is string[] | null =>
  value === null || (Array.isArray(value) && value.every((each) => typeof each === "string"));

/** A replay that was started here goes on when one looks elsewhere; it is found again by its project and rule. */
const startedRuns = new Map<
  string,
  { readonly run_id: string; readonly since: string; readonly until: string }
>();

/** Replays the rule over past calls: whom it would have stopped, what that saves, and at which number. */
export function ReplayPanel({
  definition,
  names,
  shadow,
  onThreshold,
}: {
  /** The rule in shadow, whose own matches are shown beside the prediction; null where it is not in shadow. */
  readonly shadow: RuleRecord | null;
  readonly definition: Readonly<Record<string, unknown>>;
  readonly names: RuleNames;
  /** Takes over another number; null where the rule is only looked at. */
  readonly onThreshold: ((path: string, value: number) => void) | null;
}): ReactNode {
  const client = useConsole();
  const ruleName = typeof definition["rule_name"] === "string" ? definition["rule_name"] : "";
  const [days, setDays] = useRemembered("replay.days", 7, isNumber);
  const [paying, setPaying] = usePaying();
  const [path, setPath] = useState<string | null>(null);
  const started = `${useOpenProject()} ${ruleName}`;
  const [runId, setRunId] = useState<string | null>(() => startedRuns.get(started)?.run_id ?? null);
  const [judged, setJudged] = useState<string | null>(null);
  const run = useRun(runId);
  const isRunning = run?.status === "running";

  const start = async (draft: Readonly<Record<string, unknown>>, place: string | null): Promise<void> => {
    const last = startedRuns.get(started);
    const spanMs = days * dayMs;
    // The same past again is not read again: its end stays where it was for an hour.
    const isSame =
      last !== undefined &&
      Date.parse(last.until) - Date.parse(last.since) === spanMs &&
      Date.now() - Date.parse(last.until) < 3_600_000;
    const until = isSame ? last.until : new Date().toISOString();
    const since = isSame ? last.since : new Date(Date.parse(until) - spanMs).toISOString();
    const result = await client.call("rules.replay_start", {
      rule: draft,
      since,
      until,
      paying_plans: [...paying],
      path: place,
    });
    if (!result.ok) return showFailure("Not replayed", result.error);
    startedRuns.set(started, { run_id: result.value.run_id, since, until });
    setJudged(JSON.stringify(draft));
    setRunId(result.value.run_id);
  };
  const cancel = async (): Promise<void> => {
    if (run === null) return;
    const result = await client.call("rules.replay_cancel", { run_id: run.run_id });
    if (!result.ok) showFailure("Not cancelled", result.error);
  };
  return (
    <>
      <Section title="On the past">
        <div className={css.groupHead}>
          <NativeSelect
            size="xs"
            aria-label="Time to replay"
            data={periods}
            value={String(days)}
            onChange={(event) => setDays(Number(event.currentTarget.value))}
          />
          {isRunning ? (
            <Button onClick={() => void cancel()}>Cancel</Button>
          ) : (
            <Button variant="filled" onClick={() => void start(definition, path)}>
              Replay
            </Button>
          )}
        </div>
        <PayingPlans paying={paying} setPaying={setPaying} />
      </Section>
      {run ? <RunState run={run} what="replay" /> : null}
      {run?.status === "finished" && run.report ? (
        <>
          {judged !== null && judged !== JSON.stringify(definition) ? (
            <Note tone="amber">The rule was changed since this replay: replay it again.</Note>
          ) : null}
          <CurveSection
            run={run}
            names={names}
            onPath={(place) => {
              setPath(place);
              void start(definition, place);
            }}
            onUse={
              onThreshold === null
                ? null
                : (place, value) => {
                    onThreshold(place, value);
                    // The past is still there: what the number really does is judged at once.
                    const draft = setAt(definition, [...pathFrom(place), "value"], value);
                    void start(draft as Readonly<Record<string, unknown>>, place);
                  }
            }
          />
          <ReplayReport run={run} names={names} />
          {shadow ? <ShadowBeside record={shadow} run={run} /> : null}
        </>
      ) : null}
    </>
  );
}

/** The number that can be dragged, and which one where a rule has several. */
function CurveSection({
  run,
  names,
  onPath,
  onUse,
}: {
  readonly run: ReplayRun;
  readonly names: RuleNames;
  readonly onPath: (path: string) => void;
  readonly onUse: ((path: string, value: number) => void) | null;
}): ReactNode {
  const { curve, thresholds } = run;
  if (!curve) return null;
  return (
    <Section
      title="At another number"
      aside={
        thresholds.length > 1 ? (
          <NativeSelect
            size="xs"
            aria-label="Number to drag"
            data={thresholds.map((each) => ({
              value: each.path,
              label: cleanText(describeFact(each.fact, each.value, names) ?? codeWords(each.fact)),
            }))}
            value={curve.path}
            onChange={(event) => onPath(event.currentTarget.value)}
          />
        ) : null
      }
    >
      <ThresholdSlider
        key={`${run.run_id}${curve.path}`}
        curve={curve}
        currency={run.report?.currency ?? names.currency ?? null}
        onUse={onUse === null ? null : (value) => onUse(curve.path, value)}
      />
    </Section>
  );
}

/** What the rule really matched in shadow, beside what the replay finds for the same hours. */
function ShadowBeside({ record, run }: { readonly record: RuleRecord; readonly run: ReplayRun }): ReactNode {
  const query = useCall("rules.hits", { rule_name: record.rule_name });
  if (!query.data || !run.report) return null;
  const from = Math.max(Date.parse(run.since), Date.parse(query.data.now) - 47 * 3_600_000);
  const seen = query.data.hours
    .filter((hour) => Date.parse(hour.hour) >= from - 3_600_000)
    .reduce((all, hour) => all + hour.shadow, 0);
  const matched = run.report.rules.find((each) => each.rule_name === record.rule_name)?.matched ?? 0;
  return (
    <Note tone="violet">
      In shadow it really matched {counted(seen, "call")} (last two days at most, since{" "}
      <Time at={record.updated_at} form="short" />
      ); the replay of {counted(Math.round((Date.parse(run.until) - Date.parse(run.since)) / dayMs), "day")}{" "}
      says {counted(matched, "call")}.
    </Note>
  );
}

function useRun(runId: string | null): ReplayRun | null {
  const client = useConsole();
  const [run, setRun] = useState<ReplayRun | null>(null);
  const last = useRef<string | null>(null);
  useEffect(() => {
    if (runId === null) return;
    last.current = runId;
    return client.follow("replay", { run_id: runId }, (item) => {
      if (last.current === item.run_id) setRun(item);
    });
  }, [client, runId]);
  return run;
}

/** Which plans' users pay: remembered; until somebody chooses, all but the plan that new users get. */
function usePaying(): readonly [ReadonlySet<string>, (paying: readonly string[]) => void] {
  const project = useLive((state) => state.connection?.project ?? null);
  const [kept, keep] = useRemembered<string[] | null>(`replay.paying.${useOpenProject()}`, null, isList);
  const all = (project?.plans ?? []).map((plan) => plan.plan_id);
  const usual = all.filter((id) => id !== project?.["default_plan"]);
  return [new Set(kept ?? usual), (paying) => keep([...paying])];
}

function PayingPlans({
  paying,
  setPaying,
}: {
  readonly paying: ReadonlySet<string>;
  readonly setPaying: (paying: readonly string[]) => void;
}): ReactNode {
  const project = useLive((state) => state.connection?.project ?? null);
  return (
    <div className={css.chips} role="group" aria-label="Plans whose users pay">
      <span className={css.quiet}>Who pays:</span>
      {(project?.plans ?? []).map((plan) => (
        <Checkbox
          key={plan.plan_id}
          label={cleanText(plan.name)}
          checked={paying.has(plan.plan_id)}
          onChange={(event) => {
            const others = [...paying].filter((id) => id !== plan.plan_id);
            setPaying(event.currentTarget.checked ? [...others, plan.plan_id] : others);
          }}
        />
      ))}
    </div>
  );
}
