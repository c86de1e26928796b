import { notifyManager, type QueryClient, useQueryClient } from "@tanstack/react-query";
import { useCallback } from "react";
import {
  type ActName,
  actNamed,
  changesOf,
  ruleDefinition,
  type Seen,
  type SubjectName,
  subjects,
} from "../../../shared/contract/acts.ts";
import { otherProject } from "../../../shared/contract/connection.ts";
import type { ConsoleClient } from "../../../shared/contract/client.ts";
import type { OperationName, OperationOutput } from "../../../shared/contract/operations.ts";
import type { WantedChange } from "../../../shared/contract/plans.ts";
import type { Intent } from "../../../shared/contract/sync.ts";
import { showDone, showFailure } from "./notices.tsx";
import { askInProduction } from "./production-ask.tsx";
import { propose } from "./propose.ts";
import { resolveZone, useZoneChoice } from "../lib/clock.ts";
import { useConsole } from "../lib/console.tsx";
import { formatInstant } from "../lib/format.ts";
import { openProject, readOnlyWords, useLive } from "../lib/live.ts";
import { capitalise, cleanText, clip, codeWords } from "../lib/text.ts";

/** How the screen knows each kind of subject: its name, where its record is shown, and what to read again. */
interface Shown {
  readonly id: (record: Seen) => string | number;
  readonly name: (record: Seen) => string;
  readonly timeZone: (record: Seen) => string | null;
  /** The key of the record in an act's answer. */
  readonly answer: string | null;
  readonly put: (queries: QueryClient, record: Seen) => void;
  readonly queries: readonly OperationName[];
}
const shown: Readonly<Record<SubjectName, Shown>> = {
  user: {
    id: (account) => account["user_id"] as string,
    name: (account) =>
      clip(
        cleanText((account["display_name"] ?? "") as string) || cleanText(account["user_id"] as string),
        40,
      ),
    timeZone: (account) => account["timezone"] as string,
    answer: "account",
    put: (queries, account) =>
      queries.setQueryData<OperationOutput<"users.get">>(
        ["users.get", { user_id: account["user_id"] }],
        (now) => (now ? { ...now, account: { ...now.account, ...account } } : now),
      ),
    queries: ["users.get", "users.search", "users.decisions", "users.history", "users.try_decision"],
  },
  rule: {
    id: (rule) => rule["rule_name"] as string,
    name: (rule) => capitalise(codeWords(rule["rule_name"] as string)),
    timeZone: () => null,
    answer: "rule",
    put: (queries, rule) =>
      queries.setQueryData<OperationOutput<"rules.list">>(["rules.list", {}], (now) =>
        now
          ? {
              ...now,
              rules: now.rules.map((each) =>
                each.rule_name === rule["rule_name"] ? { ...each, ...rule } : each,
              ),
            }
          : now,
      ),
    queries: ["rules.list"],
  },
  alert: {
    id: (alert) => alert["alert_event_id"] as number,
    name: (alert) => String(alert["alert_event_id"]),
    timeZone: () => null,
    answer: null,
    put: () => undefined,
    queries: ["alerts.list", "watch.overview"],
  },
  config: {
    id: (record) => record["id"] as string,
    name: (record) => capitalise(clip(cleanText((record["id"] as string).replace(":", " ")), 80)),
    timeZone: () => null,
    answer: "config",
    put: (queries, record) =>
      queries.setQueryData<OperationOutput<"plans.list">>(["plans.list", {}], (now) =>
        now
          ? {
              ...now,
              records: now.records.map((each) => (each.id === record["id"] ? { ...each, ...record } : each)),
            }
          : now,
      ),
    queries: ["plans.list", "plans.changes", "prices.review", "alerts.set"],
  },
};

/** Does an act on a record as it was seen; answers whether it was done or waits to be sent. */
type RunAct = (
  name: ActName,
  record: Seen,
  fields: Seen,
  options?: {
    /** One id for one form: sending it again after a lost answer does it once. */
    readonly commandId?: string;
    readonly isUndo?: boolean;
    /** The project it is meant for, where that was not chosen just now: the one of the act that an undo takes back. */
    readonly project?: string;
    /** No notice when it was done at once: the screen shows it anyway. */
    readonly isQuiet?: boolean;
    /** A form with a reason has asked already. */
    readonly isAsked?: boolean;
  },
) => Promise<boolean>;

/**
 * Acts under way, by project and record, until the screen has drawn what they left: the next one on a record waits, and is done on
 * what the one before left. A key that is pressed between the answer and its drawing still has the record of before.
 */
const underWay = new Map<string, Promise<Seen | null>>();
const keyOf = (project: string, subject: SubjectName, record: Seen): string =>
  `${project} ${subject} ${shown[subject].id(record)}`;

/** The record as the act under way on it leaves it; as it is where none is. */
export async function afterActs<Record extends Seen>(subject: SubjectName, record: Record): Promise<Record> {
  const after = await underWay.get(keyOf(openProject(), subject, record));
  return after ? { ...record, ...after } : record;
}

/** Resolves when the screen has drawn what the cache holds now: the cache notifies in a task of its own. */
const drawn = (): Promise<void> =>
  new Promise((resolve) => {
    notifyManager.schedule(() => setTimeout(resolve));
  });

/** Does the act in its turn; answers the record that it left, or null where it was not done. */
function inTurn(key: string, act: (before: Seen | null) => Promise<Seen | null>): Promise<Seen | null> {
  const turn = (underWay.get(key) ?? Promise.resolve(null)).then(act);
  const rest = turn
    .catch(() => null)
    .finally(async () => {
      await drawn();
      if (underWay.get(key) === rest) underWay.delete(key);
    });
  underWay.set(key, rest);
  return turn;
}

/** Does an act; answers the record that it left, or null where it was not done. */
async function perform(
  client: ConsoleClient,
  queries: QueryClient,
  run: RunAct,
  project: string,
  [name, record, fields, options = {}]: Parameters<RunAct>,
): Promise<Seen | null> {
  const act = actNamed(name);
  const subject = shown[act.subject];
  const title = subject.name(record);
  // A person may take long to answer the question, or to press Undo.
  if (openProject() !== project) {
    showFailure(act.words.failed(title), otherProject);
    return null;
  }
  if (useLive.getState().connection?.profile?.is_read_only) {
    showFailure(act.words.failed(title), readOnly);
    return null;
  }
  const refresh = (): void => {
    for (const key of subject.queries) void queries.invalidateQueries({ queryKey: [key] });
  };
  // The answer may come when another project is open, which can have a record of the same name.
  const put = (left: Seen): void => {
    if (openProject() === project) subject.put(queries, left);
  };
  put({ ...record, ...changesOf(name, fields) });
  const result = await client.call(
    act.operation as OperationName,
    {
      command_id: options.commandId ?? crypto.randomUUID(),
      [subjects[act.subject].field]: subject.id(record),
      ...(act.conflict === "version" ? { expected_version: record["version"] ?? null } : {}),
      ...fields,
    } as never,
  );
  if (!result.ok) {
    put(record);
    refresh();
    if (
      result.error.code === "approval_needed" &&
      openProject() === project &&
      (await proposeInstead(client, queries, name, record, fields))
    )
      return null;
    showFailure(act.words.failed(title), result.error);
    return null;
  }
  const answer = result.value as unknown as { readonly intent: Intent } & Seen;
  const after = {
    ...record,
    ...changesOf(name, fields),
    ...(subject.answer === null ? {} : (answer[subject.answer] as Seen | null)),
  };
  const { intent } = answer;
  put(intent.status === "conflict" ? record : after);
  refresh();
  if (intent.status === "conflict") {
    showFailure(`${title} was changed by someone else`, intent.failure ?? conflict);
    return null;
  }
  const waits = intent.status === "pending" ? "; waits to be sent" : "";
  if (options.isQuiet && waits === "") return after;
  const undo = options.isUndo ? null : (act.undo?.(record, after, new Date()) ?? null);
  const when = (at: string): string =>
    formatInstant(at, resolveZone(useZoneChoice.getState().choice, subject.timeZone(record)));
  showDone(
    `${act.words.done(title, fields, when)}${waits}`,
    undo
      ? { run: () => void run(undo.act as ActName, after, undo.fields, { isUndo: true, project }) }
      : undefined,
  );
  return after;
}

/**
 * Where the project wants a second person for such a change, it is proposed instead. Answers whether it was; a change
 * for a while cannot be.
 */
async function proposeInstead(
  client: ConsoleClient,
  queries: QueryClient,
  name: ActName,
  record: Seen,
  fields: Seen,
): Promise<boolean> {
  const change = changeOf(name, record, fields);
  if (change === null) return false;
  // What was refused does not wait for a decision of its own.
  const refused = useLive
    .getState()
    .intents.find(
      (intent) =>
        intent.kind === name && intent.status === "failed" && intent.failure?.code === "approval_needed",
    );
  if (refused) await client.call("sync.resolve", { command_id: refused.command_id, choice: "theirs" });
  const said = fields["reason"];
  const reason =
    typeof said === "string" && said.length >= 3
      ? said
      : actNamed(name).words.summary(codeWords(change.key), fields);
  return await propose(client, queries, crypto.randomUUID(), [change], reason);
}

/** The act as a change that can be proposed; null where it cannot. */
function changeOf(name: ActName, record: Seen, fields: Seen): WantedChange | null {
  const version = typeof record["version"] === "number" ? record["version"] : 0;
  if (name === "save_config") {
    const { kind, key, record: wanted } = fields as unknown as WantedChange;
    return { kind, key, record: wanted, expected_version: version };
  }
  const key = record["rule_name"];
  if (typeof key !== "string" || fields["until"]) return null;
  const rule =
    name === "retire_rule"
      ? null
      : name === "set_rule_mode"
        ? ruleDefinition({ ...record, mode: fields["mode"] })
        : name === "save_rule"
          ? ruleDefinition(fields["rule"] as Seen)
          : undefined;
  if (rule === undefined) return null;
  return { kind: "rule", key, record: rule === null ? null : { ...rule }, expected_version: version };
}

/** Runs acts: shown at once, put back where the project refuses, taken back with one click where the act can be. */
export function useAct(): RunAct {
  const client = useConsole();
  const queries = useQueryClient();
  return useCallback(
    async function run(name, record, fields, options) {
      const act = actNamed(name);
      const project = options?.project ?? openProject();
      // An undo needs no confirmation; acts on alerts do not change how the project works.
      if (act.subject !== "alert" && !options?.isAsked && !options?.isUndo) {
        const what = act.words.summary(shown[act.subject].name(record), fields);
        if (!(await askInProduction(what))) return false;
      }
      const after = await inTurn(keyOf(project, act.subject, record), (before) =>
        perform(client, queries, run, project, [name, before ?? record, fields, options]),
      );
      return after !== null;
    },
    [client, queries],
  );
}

const readOnly = { code: "read_only", message: `${readOnlyWords}.`, advice: null, details: null };

const conflict = {
  code: "version_conflict",
  message: "There is a newer version.",
  advice: "Look at both under “to resolve” at the top.",
  details: null,
};
