import { Button, Checkbox, NativeSelect } from "@mantine/core";
import { type ReactNode, useState } from "react";
import type { ConfigStepRecord } from "../../../../shared/contract/plans.ts";
import type { RuleRecord, RuleStep } from "../../../../shared/contract/rules.ts";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { saveFile } from "../../lib/csv.ts";
import { useLive } from "../../lib/live.ts";
import { navigate } from "../../lib/router.ts";
import { capitalise, cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { showFailure } from "../../ui/notices.tsx";
import { Note, Section } from "../../ui/parts.tsx";
import { EmptyView, QueryView, Skeleton } from "../../ui/states.tsx";
import { StepLine, VersionList } from "../../ui/versions.tsx";
import { ApplySteps, ConfigStepLine } from "./history.tsx";
import css from "./plans.module.css";

/** Where the project differs from a preset, ours or a file's; what is chosen is taken over, all or nothing. */
export function PresetsPage(): ReactNode {
  const client = useConsole();
  const presets = useCall("plans.presets", {});
  const inForce = useLive((state) => state.connection?.project?.preset ?? null);
  const [chosen, setChosen] = useState<string | null>(null);
  const [file, setFile] = useState<{ readonly name: string; readonly text: string } | null>(null);
  const ours = presets.data?.some(({ name }) => name === inForce) ? inForce : null;
  const name = chosen ?? ours ?? presets.data?.[0]?.name ?? null;
  const download = async (): Promise<void> => {
    const result = await client.call("rules.export_preset", {});
    if (result.ok) saveFile(result.value.file_name, "application/yaml", result.value.text);
    else showFailure("Not exported", result.error);
  };
  return (
    <>
      <DeskBar title="Presets">
        <NativeSelect
          size="xs"
          aria-label="Preset to compare with"
          data={[
            ...(file ? [{ value: "", label: clip(cleanText(file.name), 60) }] : []),
            ...(presets.data ?? []).map((each) => ({
              value: each.name,
              label: each.name === inForce ? `${each.name} (this project began with it)` : each.name,
            })),
          ]}
          value={file ? "" : (name ?? "")}
          onChange={(event) => {
            setFile(null);
            setChosen(event.currentTarget.value);
          }}
        />
        <label className={css.file}>
          <span className={css.quiet}>or a file</span>{" "}
          <input
            type="file"
            accept=".yaml,.yml,.json"
            aria-label="Preset file"
            onChange={(event) => {
              const [given] = event.currentTarget.files ?? [];
              if (given) void given.text().then((text) => setFile({ name: given.name, text }));
            }}
          />
        </label>
        <Grow />
        <Button title="The whole configuration in force as a preset file" onClick={() => void download()}>
          Export
        </Button>
        <Button onClick={() => navigate("/plans")}>Back</Button>
      </DeskBar>
      <div className={css.wideContent}>
        {file || name ? (
          <Compared
            key={file ? `file ${file.name}` : name}
            preset={file ? null : name}
            text={file ? file.text : null}
          />
        ) : (
          <EmptyView title="Choose a preset" />
        )}
      </div>
    </>
  );
}

function Compared({
  preset,
  text,
}: {
  readonly preset: string | null;
  readonly text: string | null;
}): ReactNode {
  const query = useCall("plans.compare", { preset, text }, { keepPrevious: true });
  const rules = useCall("rules.list", {});
  return (
    <QueryView query={query} skeleton={<Skeleton lines={8} />}>
      {(compared) => <Choices compared={compared} rules={rules.data?.rules ?? []} />}
    </QueryView>
  );
}

const keyOf = ({ kind, key }: { readonly kind: string; readonly key: string }): string => `${kind} ${key}`;

function Choices({
  compared,
  rules,
}: {
  readonly compared: OperationOutput<"plans.compare">;
  readonly rules: readonly RuleRecord[];
}): ReactNode {
  const steps = compared.steps.filter(({ step }) => step !== "same");
  const ruleSteps = compared.rules.filter(({ kind }) => kind !== "same");
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [isApplying, setApplying] = useState(false);
  if (steps.length + ruleSteps.length === 0)
    return <Note tone="green">The project matches {cleanText(compared.name)}.</Note>;
  const choose = (key: string, isChosen: boolean): void => {
    const next = new Set(chosen);
    if (isChosen) next.add(key);
    else next.delete(key);
    setChosen(next);
  };
  const all = [
    ...steps.filter(({ problems }) => problems.length === 0).map(keyOf),
    ...ruleSteps.filter(({ kind }) => kind !== "wrong").map((step) => `rule ${step.rule_name}`),
  ];
  if (isApplying)
    return (
      <>
        <Button style={{ alignSelf: "flex-start" }} onClick={() => setApplying(false)}>
          Choose again
        </Button>
        <ApplySteps
          steps={steps.filter((step) => chosen.has(keyOf(step)))}
          more={ruleSteps
            .filter((step) => chosen.has(`rule ${step.rule_name}`))
            .map((step) => ruleChange(step, rules))}
          button="Take over"
          nothing="Nothing is chosen."
          onDone={() => {
            setApplying(false);
            setChosen(new Set());
          }}
        />
        {ruleSteps.some((step) => chosen.has(`rule ${step.rule_name}`)) ? (
          <VersionList>
            {ruleSteps
              .filter((step) => chosen.has(`rule ${step.rule_name}`))
              .map((step) => (
                <RuleLine key={step.rule_name} step={step} />
              ))}
          </VersionList>
        ) : null}
      </>
    );
  return (
    <>
      <div className={css.row}>
        <span>
          The project differs from {cleanText(compared.name)} in{" "}
          {counted(steps.length + ruleSteps.length, "record")}.
        </span>
        <Button size="compact-xs" onClick={() => setChosen(new Set(chosen.size === all.length ? [] : all))}>
          {chosen.size === all.length ? "Choose none" : "Choose all"}
        </Button>
        <Button variant="filled" disabled={chosen.size === 0} onClick={() => setApplying(true)}>
          Look at {counted(chosen.size, "change")}
        </Button>
      </div>
      <StepList steps={steps} chosen={chosen} choose={choose} />
      {ruleSteps.length > 0 ? (
        <Section title="Rules">
          <VersionList>
            {ruleSteps.map((step) => (
              <RuleLine key={step.rule_name} step={step}>
                <Checkbox
                  aria-label={`Take over rule ${codeWords(step.rule_name)}`}
                  disabled={step.kind === "wrong"}
                  checked={chosen.has(`rule ${step.rule_name}`)}
                  onChange={(event) => choose(`rule ${step.rule_name}`, event.currentTarget.checked)}
                />
              </RuleLine>
            ))}
          </VersionList>
        </Section>
      ) : null}
    </>
  );
}

function StepList({
  steps,
  chosen,
  choose,
}: {
  readonly steps: readonly ConfigStepRecord[];
  readonly chosen: ReadonlySet<string>;
  readonly choose: (key: string, isChosen: boolean) => void;
}): ReactNode {
  return (
    <VersionList label="Where the project differs">
      {steps.map((step) => (
        <ConfigStepLine
          key={keyOf(step)}
          step={step}
          words={{ new: "not here", changed: "differs", retired: "only here: taken over, it is retired" }}
        >
          <Checkbox
            aria-label={`Take over ${step.kind} ${step.key}`}
            disabled={step.problems.length > 0}
            checked={chosen.has(keyOf(step))}
            onChange={(event) => choose(keyOf(step), event.currentTarget.checked)}
          />
        </ConfigStepLine>
      ))}
    </VersionList>
  );
}

function RuleLine({ step, children }: { readonly step: RuleStep; readonly children?: ReactNode }): ReactNode {
  return (
    <StepLine
      title={capitalise(codeWords(step.rule_name))}
      tone={step.kind === "wrong" || step.kind === "retired" ? "red" : "amber"}
      word={step.kind}
      text={step.sentence && step.kind === "new" ? <span>{cleanText(step.sentence)}</span> : null}
      difference={step.difference}
      problems={step.problems}
    >
      {children}
    </StepLine>
  );
}

function ruleChange(step: RuleStep, rules: readonly RuleRecord[]) {
  const current = rules.find(({ rule_name }) => rule_name === step.rule_name);
  return {
    kind: "rule" as const,
    key: step.rule_name,
    record: step.rule as Record<string, unknown> | null,
    expected_version: current?.version ?? 0,
  };
}
