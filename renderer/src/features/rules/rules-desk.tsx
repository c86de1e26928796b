import { TextInput } from "@mantine/core";
import { type ReactNode, useMemo, useState } from "react";
import type { RuleRecord } from "../../../../shared/contract/rules.ts";
import type { RuleNames } from "../../../../shared/governance/rules/index.ts";
import { orderRules } from "../../../../shared/governance/rules/index.ts";
import { useCall } from "../../lib/console.tsx";
import { useIsLive, useLive } from "../../lib/live.ts";
import { navigate, placeAddress, usePlace } from "../../lib/router.ts";
import { capitalise, cleanText, clip, codeWords, counted } from "../../lib/text.ts";
import { type Column, DataTable } from "../../ui/data-table.tsx";
import { DeskBar, Grow } from "../../ui/desk.tsx";
import { SearchIcon } from "../../ui/icons.tsx";
import { Time, Tokens } from "../../ui/parts.tsx";
import { DetailBar, SideDetail } from "../../ui/side-detail.tsx";
import { EmptyView, QueryView, Skeleton, StaleLine } from "../../ui/states.tsx";
import { ModeSwitch, type SetMode, useSetMode } from "./mode-switch.tsx";
import { RulePage, ruleSentence } from "./rule-page.tsx";
import css from "./rules.module.css";

function ruleColumns(
  names: RuleNames,
  setMode: SetMode,
  waiting: ReadonlySet<string>,
  isNarrow: boolean,
): readonly Column<RuleRecord>[] {
  const all: readonly Column<RuleRecord>[] = [
    {
      id: "priority",
      header: "Order",
      width: 56,
      align: "right",
      fixed: true,
      hint: "Lower runs first",
      cell: (rule) => <span className={css.order}>{rule.priority}</span>,
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
          <div className={css.rule} data-off={!rule.is_active || rule.mode === "off" || undefined}>
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
            <span className={css.words} title={cleanText(rule.updated_by)}>
              {clip(cleanText(rule.updated_by), 60)}
            </span>
          ) : null}
        </div>
      ),
    },
  ];
  return isNarrow ? all.slice(0, 3) : all;
}

/** The rules in the order they run: what each does, whether it acts, and how often it did. */
export function RulesDesk(): ReactNode {
  const place = usePlace();
  const ruleName = place.parts[1] ?? null;
  const query = useCall("rules.list", {}, { refetchMs: 10_000 });
  const project = useLive((state) => state.connection?.project ?? null);
  const intents = useLive((state) => state.intents);
  const isLive = useIsLive();
  const setMode = useSetMode();
  const [text, setText] = useState("");
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
          .filter((intent) => intent.kind === "set_rule_mode" && intent.status === "pending")
          .map((intent) => intent.subject),
      ),
    [intents],
  );
  const isNarrow = ruleName !== null;
  const columns = useMemo(
    () => ruleColumns(names, setMode, waiting, isNarrow),
    [names, setMode, waiting, isNarrow],
  );
  const close = (): void => navigate("/rules");
  const wanted = text.trim().toLowerCase();

  return (
    <QueryView query={query} skeleton={<Skeleton lines={10} />}>
      {({ rules, as_of }) => {
        const ordered = orderRules(rules);
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
                  <span className={css.words}>
                    {inForce} enforced, {inShadow} in shadow, {rules.length - inForce - inShadow} off
                  </span>
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
                      {counted(shown.length, "rule")}. Before them an operator’s block is looked at; after
                      them the plan’s limits, then the balance. The first rule that blocks wins.
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
                  waits={waiting.has(open.rule_name)}
                  onClose={close}
                />
              ) : (
                <>
                  <DetailBar title={codeWords(ruleName)} onClose={close} />
                  <EmptyView title="There is no such rule">
                    It may have been retired by a newer preset.
                  </EmptyView>
                </>
              )
            }
          />
        );
      }}
    </QueryView>
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
        } else if (event.key === "Enter" || event.key === "ArrowDown")
          document.querySelector<HTMLElement>('[role="grid"]')?.focus();
      }}
    />
  );
}
