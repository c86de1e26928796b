import { Button, TextInput } from "@mantine/core";
import { type ReactNode, useCallback, useMemo, useState } from "react";
import type { RuleRecord } from "../../../../shared/contract/rules.ts";
import type { RuleNames } from "../../../../shared/governance/rules/index.ts";
import { orderRules, placeRule } from "../../../../shared/governance/rules/index.ts";
import { ruleDefinition } from "../../../../shared/contract/acts.ts";
import { useCall, useConsole } from "../../lib/console.tsx";
import { saveFile } from "../../lib/csv.ts";
import { leaveForRows, useKeys } from "../../lib/keys.ts";
import { readOnlyWords, useIsLive, useIsReadOnly, useLive } from "../../lib/live.ts";
import { navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { actorWords, capitalise, codeWords, counted } from "../../lib/text.ts";
import { afterActs, useAct } from "../../ui/acts.ts";
import { type Column, DataTable } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { PlusIcon, SearchIcon } from "../../ui/icons.tsx";
import { showFailure } from "../../ui/notices.tsx";
import { Time, Tokens } from "../../ui/parts.tsx";
import { DetailBar, SideDetail } from "../../ui/side-detail.tsx";
import { EmptyView, QueryView, Skeleton, StaleLine } from "../../ui/states.tsx";
import { ModeSwitch, type SetMode, useSetMode } from "./mode-switch.tsx";
import { RuleEditor } from "./rule-editor.tsx";
import { RulesHistory, RetiredRule } from "./rule-history.tsx";
import { RulePage, ruleSentence } from "./rule-page.tsx";
import { RuleImport } from "./rule-steps.tsx";
import css from "./rules.module.css";

/** The type under which a drag carries the rule's name. */
const dragged = "application/x-governance-rule";

function ruleColumns(
  names: RuleNames,
  setMode: SetMode,
  waiting: ReadonlySet<string>,
  isNarrow: boolean,
  drop: (name: string, onto: RuleRecord) => void,
): readonly Column<RuleRecord>[] {
  const all: readonly Column<RuleRecord>[] = [
    {
      id: "priority",
      header: "Order",
      width: 56,
      align: "right",
      fixed: true,
      hint: "Lower runs first",
      cell: (rule) => (
        <span
          className={css.order}
          draggable
          title="Drag to another place; or K and J on the open rule"
          onDragStart={(event) => event.dataTransfer.setData(dragged, rule.rule_name)}
        >
          {rule.priority}
        </span>
      ),
    },
    {
      id: "rule",
      header: "Rule",
      width: 200,
      grow: 1,
      fixed: true,
      cell: (rule) => {
        const sentence = ruleSentence(rule, names);
        return (
          <div
            className={css.rule}
            data-off={!rule.is_active || rule.mode === "off" || undefined}
            onDragOver={(event) => {
              if (event.dataTransfer.types.includes(dragged)) event.preventDefault();
            }}
            onDrop={(event) => {
              event.preventDefault();
              drop(event.dataTransfer.getData(dragged), rule);
            }}
          >
            <span className={css.name}>{capitalise(codeWords(rule.rule_name))}</span>
            <span className={css.words} title={sentence}>
              {sentence}
            </span>
          </div>
        );
      },
    },
    {
      id: "mode",
      header: "Mode",
      width: 216,
      fixed: true,
      cell: (rule) => <ModeSwitch record={rule} setMode={setMode} waits={waiting.has(rule.rule_name)} />,
    },
    {
      id: "matches",
      header: "Matches, 24 h",
      width: 96,
      align: "right",
      hint: "Enforced or in shadow",
      cell: (rule) => <Tokens value={rule.matches_24h} />,
    },
    { id: "version", header: "Version", width: 64, align: "right", cell: (rule) => `v${rule.version}` },
    {
      id: "changed",
      header: "Last change",
      width: 140,
      cell: (rule) => (
        <div className={css.rule}>
          <span>
            <Time at={rule.updated_at} />
          </span>
          {rule.updated_by ? (
            <span className={css.words} title={actorWords(rule.updated_by)}>
              {actorWords(rule.updated_by)}
            </span>
          ) : null}
        </div>
      ),
    },
  ];
  return isNarrow ? all.slice(0, 3) : all;
}

interface Placing {
  readonly after: (name: string, previous: string | null) => void;
  readonly by: (record: RuleRecord, steps: -1 | 1) => void;
}

/** Puts a rule in another place of the order. */
function usePlacing(rules: readonly RuleRecord[]): Placing {
  const runAct = useAct();
  const after = useCallback(
    (name: string, previous: string | null): void => {
      void (async () => {
        for (const { rule_name, priority } of placeRule(rules, name, previous)) {
          const seen = rules.find((each) => each.rule_name === rule_name);
          if (!seen) continue;
          const record = await afterActs("rule", seen);
          if (record.priority === priority) continue;
          const rule = { ...ruleDefinition(record), priority };
          if (!(await runAct("save_rule", record, { rule, reason: "Another place in the order" }))) break;
        }
      })();
    },
    [rules, runAct],
  );
  const by = useCallback(
    (record: RuleRecord, steps: -1 | 1): void => {
      const at = rules.findIndex((each) => each.rule_name === record.rule_name);
      const neighbour = rules[at + steps];
      if (!neighbour) return;
      after(record.rule_name, steps === 1 ? neighbour.rule_name : (rules[at - 2]?.rule_name ?? null));
    },
    [rules, after],
  );
  return { after, by };
}

const noRules: readonly RuleRecord[] = [];

/** The rules in the order they run: what each does, whether it acts, and how often it did. */
export function RulesDesk(): ReactNode {
  const place = usePlace();
  const doing = place.query.get("do");
  const ruleName = place.parts[1] ?? null;
  const query = useCall("rules.list", {}, { refetchMs: 10_000 });
  const project = useLive((state) => state.connection?.project ?? null);
  const intents = useLive((state) => state.intents);
  const setMode = useSetMode();
  const names: RuleNames = useMemo(
    () => ({
      plans: Object.fromEntries((project?.plans ?? []).map((plan) => [plan.plan_id, plan.name])),
      ...(project?.currency ? { currency: project.currency } : {}),
    }),
    [project],
  );
  const waiting = useMemo(
    () =>
      new Set(
        intents
          .filter(
            (intent) =>
              (intent.kind === "set_rule_mode" || intent.kind === "save_rule") && intent.status === "pending",
          )
          .map((intent) => intent.subject),
      ),
    [intents],
  );
  const isNarrow = ruleName !== null;
  const ordered = useMemo(
    () => orderRules((query.data?.rules ?? noRules).filter((rule) => !rule.is_retired)),
    [query.data],
  );
  const placing = usePlacing(ordered);
  const drop = useCallback(
    (name: string, onto: RuleRecord): void => {
      const [from, to] = [name, onto.rule_name].map((each) =>
        ordered.findIndex((rule) => rule.rule_name === each),
      );
      if (from === undefined || to === undefined || from < 0 || from === to) return;
      placing.after(name, from < to ? onto.rule_name : (ordered[to - 1]?.rule_name ?? null));
    },
    [ordered, placing],
  );
  const columns = useMemo(
    () => ruleColumns(names, setMode, waiting, isNarrow, drop),
    [names, setMode, waiting, isNarrow, drop],
  );
  const isReadOnly = useIsReadOnly();
  useKeys({ n: () => navigate("/rules?do=new") }, doing === null && !isReadOnly);

  return (
    <QueryView query={query} skeleton={<Skeleton lines={10} />}>
      {({ rules, as_of }) => {
        if (doing === "history") return <RulesHistory />;
        if (doing === "import") return <RuleImport rules={ordered} />;
        const named = (name: string | null): RuleRecord | null =>
          ordered.find((rule) => rule.rule_name === name) ?? null;
        if (doing === "new")
          return (
            <RuleEditor
              key={`new ${place.query.get("from") ?? ""}`}
              record={null}
              template={named(place.query.get("from"))}
              rules={ordered}
              names={names}
            />
          );
        if (doing === "edit" && named(ruleName))
          return (
            <RuleEditor
              key={ruleName}
              record={named(ruleName)}
              template={null}
              rules={ordered}
              names={names}
            />
          );
        return <RulesView {...{ rules, ordered, as_of, names, columns, placing, setMode, waiting }} />;
      }}
    </QueryView>
  );
}

/** The list, with the open rule beside it. */
function RulesView({
  rules,
  ordered,
  as_of,
  names,
  columns,
  placing,
  setMode,
  waiting,
}: {
  readonly rules: readonly RuleRecord[];
  readonly ordered: readonly RuleRecord[];
  readonly as_of: string;
  readonly names: RuleNames;
  readonly columns: readonly Column<RuleRecord>[];
  readonly placing: Placing;
  readonly setMode: SetMode;
  readonly waiting: ReadonlySet<string>;
}): ReactNode {
  const ruleName = usePlace().parts[1] ?? null;
  const isNarrow = ruleName !== null;
  const isReadOnly = useIsReadOnly();
  const isLive = useIsLive();
  const [text, setText] = useState("");
  const wanted = text.trim().toLowerCase();
  const close = (): void => navigate("/rules");
  const shown = wanted
    ? ordered.filter((rule) =>
        `${codeWords(rule.rule_name)} ${ruleSentence(rule, names)}`.toLowerCase().includes(wanted),
      )
    : ordered;
  const open = ordered.find((rule) => rule.rule_name === ruleName);
  const inForce = rules.filter((rule) => rule.is_active && rule.mode === "enforce").length;
  const inShadow = rules.filter((rule) => rule.is_active && rule.mode === "shadow").length;
  return (
    <SideDetail
      id="rules"
      initialWidth={460}
      minListWidth={420}
      detailLabel="Rule"
      onClose={close}
      list={
        <>
          <DeskBar title="Rules">
            <RuleSearch text={text} setText={setText} />
            <Grow />
            <span className={`${css.words} ${css.counts}`}>
              {inForce} enforced, {inShadow} in shadow, {rules.length - inForce - inShadow} off
            </span>
            {isNarrow ? null : <DeskButtons />}
            <Button
              variant="filled"
              leftSection={<PlusIcon size={14} />}
              title={isReadOnly ? readOnlyWords : "New rule (n)"}
              disabled={isReadOnly}
              onClick={() => navigate("/rules?do=new")}
            >
              New rule
            </Button>
          </DeskBar>
          {isLive ? null : <StaleLine asOf={as_of}>The rules as they were</StaleLine>}
          <DataTable
            id={isNarrow ? "rules-narrow" : "rules"}
            label="Rules in the order they run"
            columns={columns}
            rows={shown}
            rowKey={(rule) => rule.rule_name}
            rowHeight={46}
            keys
            openKey={ruleName}
            onOpen={(rule) =>
              navigate(placeAddress(["rules", rule.rule_name]), { replace: ruleName !== null })
            }
            empty={
              wanted ? (
                <EmptyView title="No rule fits" />
              ) : (
                <EmptyView title="No rules">
                  Calls are limited by plans and balances alone. A preset brings a set of rules.
                </EmptyView>
              )
            }
            footer={
              <span>
                {counted(shown.length, "rule")}. Before them an operator’s block is looked at; after them the
                plan’s limits, then the balance. The first rule that blocks wins.
              </span>
            }
          />
        </>
      }
      detail={
        ruleName === null ? null : open ? (
          <RulePage
            key={open.rule_name}
            record={open}
            names={names}
            setMode={setMode}
            move={placing.by}
            waits={waiting.has(open.rule_name)}
            onClose={close}
          />
        ) : (
          <>
            <DetailBar title={codeWords(ruleName)} onClose={close} />
            <RetiredRule ruleName={ruleName} />
          </>
        )
      }
    />
  );
}

function DeskButtons(): ReactNode {
  const client = useConsole();
  const download = async (what: "rules" | "preset"): Promise<void> => {
    const result =
      what === "preset"
        ? await client.call("rules.export_preset", {})
        : await client.call("rules.export", { rule_name: null });
    if (result.ok) saveFile(result.value.file_name, "application/yaml", result.value.text);
    else showFailure("Not exported", result.error);
  };
  return (
    <>
      <Button onClick={() => navigate("/rules?do=history")}>History</Button>
      <Button onClick={() => navigate("/rules?do=import")}>Import</Button>
      <Button title="The rules as a file" onClick={() => void download("rules")}>
        Export
      </Button>
      <Button
        title="Plans, packs, rules, prices, estimates, alerts and settings as a preset file"
        onClick={() => void download("preset")}
      >
        Export preset
      </Button>
    </>
  );
}

function RuleSearch({
  text,
  setText,
}: {
  readonly text: string;
  readonly setText: (text: string) => void;
}): ReactNode {
  return (
    <TextInput
      data-desk-search
      w={200}
      aria-label="Search rules"
      placeholder="Name or what it does"
      leftSection={<SearchIcon size={14} />}
      value={text}
      onChange={(event) => setText(event.currentTarget.value)}
      onKeyDown={(event) => {
        if (event.key === "Escape") {
          event.stopPropagation();
          if (text) setText("");
          else event.currentTarget.blur();
        } else if (event.key === "Enter" || event.key === "ArrowDown") leaveForRows(event.currentTarget);
      }}
    />
  );
}
