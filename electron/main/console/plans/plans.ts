/** The plans desk: the configuration in force, its history, what a change would do, and the way there and back. */
import { z } from "zod";
import {
  configOperations,
  configPreview,
  configProposal,
  type ConfigStepRecord,
  type Failure,
  rule as ruleRecord,
  userMessages,
} from "../../../../shared/contract/index.ts";
import {
  checkConfig,
  compareConfig,
  type ConfigRecord,
  type ConfigStep,
  presetRecords,
  stepsBetween,
} from "../../../../shared/governance/configuration/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { type DeskContext, readThrough, withWaiting } from "../desk-context.ts";
import type { Handlers } from "../dispatch.ts";
import { compareAsWhole } from "../rules/rule-files.ts";
import { ruleNames } from "../rules/rules.ts";
import { readPreset } from "./preset-files.ts";
import { configId, notThere, readConfiguration, toConfigRecord, version, type Version } from "./records.ts";
import { createSimulation, type SimulationOptions } from "./simulation.ts";

interface ConfigurationOptions extends SimulationOptions {
  /** The presets that this console came with, as YAML. */
  readonly presets: readonly { readonly name: string; readonly text: string }[];
}

const pageSize = 50;

const proposals = z.looseObject({ proposals: z.array(configProposal) });

const currencyOf = (desk: DeskContext): string =>
  desk.connection.state().project?.currency.toLowerCase() ?? "usd";

/** Steps as the screen shows them: with differences in words, and what does not hold. */
function toSteps(
  steps: readonly ConfigStep[],
  now: readonly Version[],
  wanted: readonly { readonly kind: string; readonly key: string; readonly record: ConfigRecord }[],
  currency: string,
): ConfigStepRecord[] {
  const versions = new Map(now.map((each) => [configId(each), each.version]));
  const named = wanted.find(({ kind }) => kind === "project")?.record["currency"];
  const around = {
    currency: typeof named === "string" ? named : currency,
    plans: wanted.filter(({ kind }) => kind === "plan").map(({ key }) => key),
  };
  return steps.map(({ kind, key, step, before, record }) => ({
    kind,
    key,
    step,
    record: record === null ? null : { ...record },
    expected_version: versions.get(configId({ kind, key })) ?? 0,
    difference:
      step === "changed" && before && record ? compareConfig(kind, key, before, record, currency) : [],
    problems:
      record === null || step === "same"
        ? []
        : checkConfig(kind, key, record, around).map((each) => ({ ...each })),
  }));
}

type ConfigHandlers = Pick<Handlers, Exclude<keyof typeof configOperations, "plans.save">>;

export function createConfiguration(options: ConfigurationOptions) {
  const { desk } = options;
  const simulation = createSimulation(options, () => readConfiguration(desk));
  const handlers: ConfigHandlers = {
    ...readHandlers(options),
    ...changeHandlers(desk),
    ...simulation.handlers,
  };
  return { handlers, follow: simulation.follow };
}

function readHandlers({
  desk,
  presets,
}: ConfigurationOptions): Pick<
  ConfigHandlers,
  | "plans.list"
  | "plans.changes"
  | "plans.as_of"
  | "plans.presets"
  | "plans.compare"
  | "plans.messages"
  | "plans.proposals"
> {
  const { connection } = desk;
  return {
    "plans.list": async () => {
      const answer = await readConfiguration(desk);
      if (!answer.ok) return answer;
      const { value, as_of: asOf } = answer.value;
      const done = withWaiting(desk, "config");
      const records = value.records.map(toConfigRecord).map((each) => done(each.id, each));
      return ok({
        records,
        latest_version_id: value.latest_version_id,
        second_person_for: value.second_person_for,
        as_of: asOf ?? desk.now().toISOString(),
      });
    },
    "plans.changes": async ({ kind, key, before }) => {
      const answer = await readThrough(
        desk,
        `configuration-changes:${kind ?? ""}:${key ?? ""}:${before ?? ""}`,
        "console_config_changes",
        { p_kind: kind, p_key: key, p_before: before, p_limit: pageSize },
        z.looseObject({ changes: z.array(version.extend({ before: version.nullable() })) }),
      );
      if (!answer.ok) return answer;
      const { changes } = answer.value.value;
      const currency = currencyOf(desk);
      return ok({
        changes: changes.map(({ before: was, ...change }) => ({
          ...change,
          id: configId(change),
          difference:
            was === null || was.is_retired || change.is_retired
              ? change.is_retired
                ? []
                : null
              : compareConfig(change.kind, change.key, was.record, change.record, currency),
        })),
        has_more: changes.length === pageSize,
        as_of: answer.value.as_of ?? desk.now().toISOString(),
      });
    },
    "plans.as_of": async ({ version_id }) => {
      const [then, now] = await Promise.all([
        connection.rpc("console_config_as_of", { p_version_id: version_id }, z.array(version), {
          retries: 1,
        }),
        readConfiguration(desk),
      ]);
      if (!then.ok) return then;
      if (!now.ok) return now;
      const inForce = now.value.value.records;
      return ok({
        steps: toSteps(stepsBetween(inForce, then.value), inForce, then.value, currencyOf(desk)),
      });
    },
    "plans.presets": () => ok(presets.map(({ name }) => ({ name }))),
    "plans.compare": async ({ preset, text }) => {
      const found = preset === null ? text : presets.find(({ name }) => name === preset)?.text;
      if (found === null || found === undefined) return fail(notThere(`preset:${preset ?? ""}`));
      const read = readPreset(found);
      if (!read.ok) return read;
      const [now, rules] = await Promise.all([
        readConfiguration(desk),
        readThrough(desk, "rules", "list_rules", {}, z.array(ruleRecord)),
      ]);
      if (!now.ok) return now;
      if (!rules.ok) return rules;
      const inForce = now.value.value.records;
      const wanted = presetRecords(read.value);
      const given = Array.isArray(read.value["rules"]) ? (read.value["rules"] as unknown[]) : [];
      return ok({
        name: typeof read.value["name"] === "string" ? read.value["name"] : "a file",
        steps: toSteps(stepsBetween(inForce, wanted), inForce, wanted, currencyOf(desk)),
        rules: compareAsWhole(given, rules.value.value, ruleNames(desk)),
      });
    },
    "plans.messages": async ({ language }) => {
      const answer = await readThrough(
        desk,
        `user-messages:${language ?? ""}`,
        "console_messages",
        { p_language: language },
        userMessages,
      );
      if (!answer.ok) return answer;
      return ok({ ...answer.value.value, as_of: answer.value.as_of ?? desk.now().toISOString() });
    },
    "plans.proposals": async () => {
      const answer = await readThrough(
        desk,
        "configuration-proposals",
        "console_config_proposals",
        {},
        proposals,
      );
      return answer.ok ? ok({ proposals: answer.value.value.proposals }) : answer;
    },
  };
}

function changeHandlers(
  desk: DeskContext,
): Pick<ConfigHandlers, "plans.preview" | "plans.apply" | "plans.propose" | "plans.decide"> {
  const { connection } = desk;
  const woken = <T>(answer: Result<T, Failure>): Result<T, Failure> => {
    if (answer.ok) connection.wake();
    return answer;
  };
  return {
    "plans.preview": ({ changes }) =>
      connection.rpc("console_preview_config", { p_changes: changes }, configPreview, {
        retries: 1,
        timeoutMs: 60_000,
      }),
    "plans.apply": async ({ command_id, changes, reason }) =>
      woken(
        await connection.rpc(
          "console_apply_config",
          { p_command_id: command_id, p_changes: changes, p_reason: reason, p_operator: desk.operator() },
          configOperations["plans.apply"].output,
          { retries: 3, timeoutMs: 60_000 },
        ),
      ),
    "plans.propose": async ({ command_id, changes, reason }) =>
      woken(
        await connection.rpc(
          "console_propose_config",
          { p_command_id: command_id, p_changes: changes, p_reason: reason, p_operator: desk.operator() },
          configProposal,
          { retries: 3 },
        ),
      ),
    "plans.decide": async ({ command_id, proposal_id, approve, reason }) =>
      woken(
        await connection.rpc(
          "console_decide_config",
          {
            p_command_id: command_id,
            p_proposal_id: proposal_id,
            p_approve: approve,
            p_reason: reason,
            p_operator: desk.operator(),
          },
          configProposal,
          { retries: 3, timeoutMs: 60_000 },
        ),
      ),
  };
}
