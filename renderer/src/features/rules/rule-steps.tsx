import { Button, Checkbox, NativeSelect } from "@mantine/core";
import { type ReactNode, useRef, useState } from "react";
import type { RuleRecord, RuleStep } from "../../../../shared/contract/rules.ts";
import { useConsole } from "../../lib/console.tsx";
import { navigate } from "../../lib/router.ts";
import { capitalise, cleanText, codeWords, counted } from "../../lib/text.ts";
import { useAct } from "../../ui/acts.ts";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { showFailure } from "../../ui/notices.tsx";
import { Note } from "../../ui/parts.tsx";
import { EmptyView } from "../../ui/states.tsx";
import type { Tone } from "../../ui/theme.ts";
import { StepLine, VersionList } from "../../ui/versions.tsx";
import css from "./editor.module.css";

const tones: Readonly<Record<RuleStep["kind"], Tone>> = {
  new: "blue",
  changed: "amber",
  same: "grey",
  retired: "red",
  wrong: "red",
};

/** What would become of one rule, by a file or a return. */
export function RuleStepView({
  step,
  words = {},
  children,
}: {
  readonly step: RuleStep;
  readonly words?: Partial<Readonly<Record<RuleStep["kind"], string>>>;
  readonly children?: ReactNode;
}): ReactNode {
  return (
    <StepLine
      title={capitalise(codeWords(step.rule_name))}
      tone={tones[step.kind]}
      word={words[step.kind] ?? step.kind}
      text={step.sentence && step.kind !== "changed" ? <div>{cleanText(step.sentence)}</div> : null}
      difference={step.difference}
      problems={step.problems}
    >
      {children}
    </StepLine>
  );
}

/** Reads a file of rules, shows what each would change, and takes over those that are chosen. */
export function RuleImport({ rules }: { readonly rules: readonly RuleRecord[] }): ReactNode {
  const client = useConsole();
  const runAct = useAct();
  const input = useRef<HTMLInputElement>(null);
  const [steps, setSteps] = useState<readonly RuleStep[] | null>(null);
  const [fileName, setFileName] = useState("");
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [mode, setMode] = useState("shadow");
  const [busy, setBusy] = useState(false);
  const read = async (file: File): Promise<void> => {
    // The steps of an earlier file must not be taken for this one's.
    setSteps(null);
    const result = await client.call("rules.read_file", { text: await file.text() });
    if (!result.ok) return showFailure(`${file.name} was not read`, result.error);
    setFileName(file.name);
    setSteps(result.value);
    setChosen(
      new Set(
        result.value
          .filter((step) => step.kind === "new" || step.kind === "changed")
          .map((step) => step.rule_name),
      ),
    );
  };
  const takeOver = async (): Promise<void> => {
    setBusy(true);
    for (const step of steps ?? []) {
      if (!chosen.has(step.rule_name) || !step.rule) continue;
      const current = rules.find((each) => each.rule_name === step.rule_name);
      const isDone = await runAct(
        "save_rule",
        current ?? { rule_name: step.rule_name, version: 0 },
        {
          rule: { ...step.rule, ...(mode === "as written" ? {} : { mode, is_active: true }) },
          reason: `From the file ${fileName}`.slice(0, 200),
        },
        { isQuiet: true },
      );
      if (!isDone) break;
    }
    setBusy(false);
    navigate("/rules");
  };
  const canChoose = (step: RuleStep): boolean => step.kind === "new" || step.kind === "changed";
  return (
    <div className={css.editor}>
      <DeskBar title="Import rules">
        <Grow />
        <Button onClick={() => navigate("/rules")}>Back</Button>
      </DeskBar>
      <div className={css.page}>
        <input
          ref={input}
          type="file"
          accept=".yaml,.yml,.json"
          aria-label="File of rules"
          onChange={(event) => {
            const [file] = event.currentTarget.files ?? [];
            if (file) void read(file);
          }}
        />
        {steps === null ? (
          <EmptyView title="Choose a file">
            YAML or JSON: a rule, a list of rules, or a preset. Nothing changes until you take rules over.
          </EmptyView>
        ) : (
          <>
            {steps.some((step) => step.kind === "wrong") ? (
              <Note tone="red">Rules that do not hold are left out; mend them in the file.</Note>
            ) : null}
            <VersionList>
              {steps.map((step, at) => (
                <RuleStepView key={`${step.rule_name}${at}`} step={step} words={{ same: "as it is here" }}>
                  <Checkbox
                    aria-label={`Take over ${codeWords(step.rule_name)}`}
                    disabled={!canChoose(step)}
                    checked={chosen.has(step.rule_name) && canChoose(step)}
                    onChange={(event) => {
                      const next = new Set(chosen);
                      if (event.currentTarget.checked) next.add(step.rule_name);
                      else next.delete(step.rule_name);
                      setChosen(next);
                    }}
                  />
                </RuleStepView>
              ))}
            </VersionList>
            <div className={css.groupHead}>
              <NativeSelect
                size="xs"
                aria-label="Mode of what is taken over"
                data={[
                  { value: "shadow", label: "in shadow" },
                  { value: "as written", label: "in the mode of the file" },
                ]}
                value={mode}
                onChange={(event) => setMode(event.currentTarget.value)}
              />
              <Button
                variant="filled"
                loading={busy}
                disabled={chosen.size === 0}
                onClick={() => void takeOver()}
              >
                Take over {counted(chosen.size, "rule")}
              </Button>
            </div>
          </>
        )}
      </div>
    </div>
  );
}
