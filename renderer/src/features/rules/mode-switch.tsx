import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useCallback } from "react";
import type { OperationOutput } from "../../../../shared/contract/operations.ts";
import type { RuleMode } from "../../../../shared/contract/basics.ts";
import type { RuleRecord } from "../../../../shared/contract/rules.ts";
import { useConsole } from "../../lib/console.tsx";
import { modeSign } from "../../lib/signs.ts";
import { capitalise, codeWords } from "../../lib/text.ts";
import { showDone, showFailure } from "../../ui/notices.tsx";
import css from "./rules.module.css";

export type SetMode = (record: RuleRecord, mode: RuleMode) => Promise<void>;

/** Switches a rule at once, and offers to switch it back. */
export function useSetMode(): SetMode {
  const client = useConsole();
  const queries = useQueryClient();
  return useCallback(
    async (record, mode) => {
      const put = (changed: RuleRecord): void => {
        queries.setQueryData<OperationOutput<"rules.list">>(["rules.list", {}], (now) =>
          now
            ? {
                ...now,
                rules: now.rules.map((rule) => (rule.rule_name === changed.rule_name ? changed : rule)),
              }
            : now,
        );
      };
      const send = async (from: RuleRecord, to: RuleMode, offerUndo: boolean): Promise<void> => {
        put({ ...from, mode: to });
        const result = await client.call("rules.set_mode", {
          command_id: crypto.randomUUID(),
          rule_name: from.rule_name,
          mode: to,
          expected_version: from.version,
        });
        if (!result.ok) {
          put(from);
          showFailure(`${capitalise(codeWords(from.rule_name))} was not switched`, result.error);
          void queries.invalidateQueries({ queryKey: ["rules.list"] });
          return;
        }
        const { intent, rule } = result.value;
        if (rule) put({ ...rule, matches_24h: rule.matches_24h ?? from.matches_24h });
        void queries.invalidateQueries({ queryKey: ["rules.list"] });
        const waits = intent.status === "pending" ? "; waits to be sent" : "";
        if (intent.status === "conflict") {
          showFailure(
            `${capitalise(codeWords(from.rule_name))} was changed by someone else`,
            intent.failure ?? {
              code: "version_conflict",
              message: "The rule has a newer version.",
              advice: "Look at both under “to resolve” at the top.",
              details: null,
            },
          );
          return;
        }
        const done = `${capitalise(codeWords(from.rule_name))} is now ${modeSign(to).word}${waits}`;
        const now = rule ?? { ...from, mode: to };
        showDone(done, offerUndo ? { run: () => void send(now, from.mode, false) } : undefined);
      };
      if (record.mode !== mode) await send(record, mode, true);
    },
    [client, queries],
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
