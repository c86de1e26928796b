import { type ReactNode, useCallback } from "react";
import type { RuleMode } from "../../../../shared/contract/basics.ts";
import type { RuleRecord } from "../../../../shared/contract/rules.ts";
import { codeWords } from "../../lib/text.ts";
import { useAct } from "../../ui/acts.ts";
import css from "./rules.module.css";

export type SetMode = (record: RuleRecord, mode: RuleMode) => Promise<void>;

/** Switches a rule at once, and offers to switch it back. */
export function useSetMode(): SetMode {
  const runAct = useAct();
  return useCallback(
    async (record, mode) => {
      const fields = { mode };
      if (record.mode !== mode) await runAct("set_rule_mode", record, fields);
    },
    [runAct],
  );
}

const modes: readonly { readonly mode: RuleMode; readonly label: string; readonly title: string }[] = [
  { mode: "enforce", label: "Enforce", title: "Changes decisions (e)" },
  { mode: "shadow", label: "Shadow", title: "Recorded only, changes nothing (s)" },
  { mode: "off", label: "Off", title: "Not looked at (o)" },
];

export function ModeSwitch({
  record,
  setMode,
  waits,
}: {
  readonly record: RuleRecord;
  readonly setMode: SetMode;
  readonly waits: boolean;
}): ReactNode {
  const current = record.is_active ? record.mode : "off";
  return (
    <span style={{ whiteSpace: "nowrap" }}>
      <span className={css.modes} role="group" aria-label={`Mode of ${codeWords(record.rule_name)}`}>
        {modes.map(({ mode, label, title }) => (
          <button
            key={mode}
            type="button"
            data-mode={mode}
            aria-pressed={current === mode}
            title={title}
            onClick={(event) => {
              event.stopPropagation();
              void setMode({ ...record, mode: current }, mode);
            }}
          >
            {label}
          </button>
        ))}
      </span>
      {waits ? <span className={css.waiting}>waits</span> : null}
    </span>
  );
}
