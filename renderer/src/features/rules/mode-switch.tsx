import { NativeSelect } from "@mantine/core";
import { type ReactNode, useCallback } from "react";
import type { RuleMode } from "../../../../shared/contract/basics.ts";
import type { RuleRecord } from "../../../../shared/contract/rules.ts";
import { readOnlyWords, useIsReadOnly } from "../../lib/live.ts";
import { codeWords } from "../../lib/text.ts";
import { afterActs, useAct } from "../../ui/acts.ts";
import css from "./rules.module.css";

export type SetMode = (record: RuleRecord, mode: RuleMode, until?: string) => Promise<void>;

/** Switches a rule at once, and offers to switch it back. */
export function useSetMode(): SetMode {
  const runAct = useAct();
  return useCallback(
    async (seen, mode, until) => {
      const record = await afterActs("rule", seen);
      const fields = { mode, ...(until === undefined ? {} : { until }) };
      if (record.mode !== mode || until !== undefined) await runAct("set_rule_mode", record, fields);
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
  const isReadOnly = useIsReadOnly();
  return (
    <span style={{ whiteSpace: "nowrap" }}>
      <span className={css.modes} role="group" aria-label={`Mode of ${codeWords(record.rule_name)}`}>
        {modes.map(({ mode, label, title }) => (
          <button
            key={mode}
            type="button"
            data-mode={mode}
            aria-pressed={current === mode}
            title={isReadOnly ? readOnlyWords : title}
            disabled={isReadOnly}
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

const whiles = [
  { value: "", label: "For a while…" },
  ...[1, 2, 8, 24].map((hours) => ({ value: `off ${hours}`, label: `Off for ${hours} h` })),
  { value: "shadow 2", label: "Shadow for 2 h" },
  { value: "shadow 24", label: "Shadow for 24 h" },
];

/** Another mode for a while: the project puts the rule back by itself. */
export function ForAWhile({
  record,
  setMode,
}: {
  readonly record: RuleRecord;
  readonly setMode: SetMode;
}): ReactNode {
  const isReadOnly = useIsReadOnly();
  return (
    <NativeSelect
      disabled={isReadOnly}
      size="xs"
      aria-label="Another mode for a while"
      title="The project puts it back by itself"
      data={whiles}
      value=""
      onChange={(event) => {
        const [mode = "", hours = ""] = event.currentTarget.value.split(" ");
        const until = new Date(Date.now() + Number(hours) * 3_600_000).toISOString();
        if (mode === "off" || mode === "shadow") void setMode(record, mode, until);
      }}
    />
  );
}
