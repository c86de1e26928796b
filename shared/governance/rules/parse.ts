import { fail, ok, type Result } from "../result.ts";
import { type FactName, factNames, factType, type Operator, operatorsOf, planKeys } from "./facts.ts";
import { isRecord } from "../values.ts";
import { nearestWord, type Problem, show, suggest } from "./problems.ts";
import { countCharacters, soughtPhrase } from "./text.ts";
import type { Action, Condition, Leaf, LeafValue, Rule, RuleMode } from "./types.ts";

/** Bounds of a rule. Source: docs/RULES.md, "Leaves" and "Bounds of a rule". */
export const ruleBounds = {
  leaves: 200,
  /** Values in the conditions of a rule (groups, lists and all they hold), and characters of all their texts. */
  values: 10_000,
  characters: 100_000,
  /** A lone leaf is depth 1. */
  depth: 20,
  listItems: 1_000,
  nameCharacters: 100,
  typeCharacters: 64,
  textCharacters: 1_000,
  messageCharacters: 2_000,
  modelCharacters: 200,
  /** Plan and scope ids. */
  idCharacters: 255,
  blockMinutes: 525_600,
  truncateWords: 100_000,
} as const;

const allOperators: readonly Operator[] = [...operatorsOf.number, "contains", "matches_any"];
const ruleModes: readonly RuleMode[] = ["enforce", "shadow", "off"];
const ruleKeys = [
  "rule_name",
  "rule_type",
  "conditions",
  "action",
  "priority",
  "mode",
  "is_active",
  "applies_to",
  "version",
] as const;
const actionKeys = ["block", "warn", "truncate", "route", "flag", "deflect", "multiply_cost"] as const;
/** Groups without leaves could still be endless: no real rule comes near this. */
const maximalNodes = 1_000;

/**
 * Collects every problem of an input rather than the first, and gives up where there are too many to read.
 */
class Reader {
  readonly problems: Problem[] = [];
  leaves = 0;
  nodes = 0;

  report(path: string, message: string, fix: string): undefined {
    if (this.problems.length < 50) this.problems.push({ path, message, fix });
    return undefined;
  }

  text(value: unknown, path: string, maximum: number, minimum = 1): string | undefined {
    if (typeof value !== "string") return this.report(path, `${show(value)} is not text.`, "Write a text.");
    const length = countCharacters(value.slice(0, 2 * maximum + 2));
    if (length < minimum || length > maximum)
      return this.report(
        path,
        value === "" ? "The text is empty." : `The text is longer than ${maximum} characters.`,
        `Write 1 to ${maximum} characters.`,
      );
    if (value.includes("\0") || !value.isWellFormed())
      return this.report(
        path,
        "The text holds characters that cannot be stored.",
        "Remove NUL and broken characters.",
      );
    return value;
  }

  whole(value: unknown, path: string, low: number, high: number): number | undefined {
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= low && value <= high)
      return value === 0 ? 0 : value;
    return this.report(
      path,
      `${show(value)} is not allowed here.`,
      `Write a whole number from ${low} to ${high}.`,
    );
  }

  /** A number that every runtime reads alike: whole below 2^53, or at most 15 significant digits. */
  number(value: unknown, path: string): number | undefined {
    if (typeof value !== "number")
      return this.report(path, `${show(value)} is not a number.`, "Write a number, without quotes.");
    if (Number.isSafeInteger(value)) return value === 0 ? 0 : value;
    const size = Math.abs(value);
    if (size > 1e-300 && size < 1e300 && Number(value.toPrecision(15)) === value) return value;
    return this.report(
      path,
      `${show(value)} cannot be compared exactly.`,
      "Write a whole number below 2^53, or at most 15 significant digits.",
    );
  }

  keys(value: Readonly<Record<string, unknown>>, path: string, known: readonly string[]): void {
    for (const key of Object.keys(value))
      if (!known.includes(key))
        this.report(join(path, key), `Unknown key ${show(key)}.`, suggest(key, known));
  }

  object(value: unknown, path: string, example: string): Readonly<Record<string, unknown>> | undefined {
    if (isRecord(value)) return value;
    return this.report(path, `${show(value)} is not an object.`, `Write ${example}.`);
  }

  reason(value: unknown, path: string): string | undefined {
    if (typeof value === "string" && /^[a-z][a-z0-9_]{0,63}$/.test(value)) return value;
    return this.report(
      path,
      `${show(value)} is not a reason code.`,
      'Write a lower-case word such as "daily_limit": letters, digits and _, at most 64.',
    );
  }

  condition(value: unknown, path: string, depth: number): Condition | undefined {
    if (++this.nodes > maximalNodes) {
      if (this.nodes === maximalNodes + 1)
        this.report(path, "The conditions are too many.", `Keep to ${ruleBounds.leaves} conditions.`);
      return undefined;
    }
    if (depth > ruleBounds.depth)
      return this.report(path, "The conditions are nested too deep.", `Keep to ${ruleBounds.depth} levels.`);
    const node = this.object(
      value,
      path,
      'a condition such as {"fact":"messages_today","op":">","value":100}',
    );
    if (!node) return undefined;
    const groups = ["all", "any", "not"].filter((key) => Object.hasOwn(node, key));
    if (groups.length + (Object.hasOwn(node, "fact") ? 1 : 0) > 1)
      return this.report(
        path,
        "The condition says several things at once.",
        'Put each in a list: {"all":[…]}.',
      );
    switch (groups[0]) {
      case "all":
      case "any": {
        this.keys(node, path, [groups[0]]);
        const list = node[groups[0]];
        const at = join(path, groups[0]);
        if (!Array.isArray(list))
          return this.report(at, `${show(list)} is not a list.`, `Write {"${groups[0]}":[…]}.`);
        const parsed: Condition[] = [];
        for (const [index, item] of list.entries()) {
          const child = this.condition(item, `${at}[${index}]`, depth + 1);
          if (child) parsed.push(child);
          if (this.nodes > maximalNodes || this.leaves > ruleBounds.leaves) break;
        }
        return groups[0] === "all" ? { all: parsed } : { any: parsed };
      }
      case "not": {
        this.keys(node, path, ["not"]);
        const child = this.condition(node["not"], join(path, "not"), depth + 1);
        return child && { not: child };
      }
      default:
        return this.leaf(node, path);
    }
  }

  leaf(node: Readonly<Record<string, unknown>>, path: string): Leaf | undefined {
    if (++this.leaves > ruleBounds.leaves) {
      if (this.leaves === ruleBounds.leaves + 1)
        this.report(path, "The rule has too many conditions.", `Keep to ${ruleBounds.leaves}.`);
      return undefined;
    }
    this.keys(node, path, ["fact", "op", "value"]);
    const { fact, op, value } = node;
    if (typeof fact !== "string")
      return this.report(
        join(path, "fact"),
        fact === undefined ? "A condition needs a fact." : `${show(fact)} is not a fact.`,
        `Use one of: ${factNames.join(", ")}.`,
      );
    const type = factType(fact);
    if (!type)
      return this.report(join(path, "fact"), `Unknown fact ${show(fact)}.`, suggest(fact, factNames));
    if (typeof op !== "string" || !(allOperators as readonly string[]).includes(op))
      return this.report(
        join(path, "op"),
        op === undefined ? "A condition needs an operator." : `Unknown operator ${show(op)}.`,
        typeof op === "string"
          ? suggest(op, operatorsOf[type])
          : `Use one of: ${operatorsOf[type].join(", ")}.`,
      );
    const operator = op as Operator;
    if (!(operatorsOf[type] as readonly Operator[]).includes(operator))
      return this.report(
        join(path, "op"),
        `"${operator}" does not go with "${fact}", which is ${type === "text" ? "text" : `a ${type}`}.`,
        `Use one of: ${operatorsOf[type].join(", ")}.`,
      );
    const read = this.leafValue(type, operator, value, join(path, "value"));
    return read === undefined ? undefined : { fact: fact as FactName, op: operator, value: read };
  }

  leafValue(
    type: "number" | "text" | "boolean",
    op: Operator,
    value: unknown,
    path: string,
  ): LeafValue | undefined {
    if (op === "contains" || op === "matches_any") return this.phrases(value, path);
    if (op === "between") {
      if (!Array.isArray(value) || value.length !== 2)
        return this.report(path, `${show(value)} is not a range.`, "Write [low, high], both included.");
      const low = this.number(value[0], `${path}[0]`);
      const high = this.number(value[1], `${path}[1]`);
      if (low === undefined || high === undefined) return undefined;
      return [low, high];
    }
    if (op === "in" || op === "not_in") {
      if (!Array.isArray(value))
        return this.report(path, `${show(value)} is not a list.`, "Write [a, b, …].");
      if (value.length > ruleBounds.listItems)
        return this.report(path, `The list has ${value.length} items.`, `Keep to ${ruleBounds.listItems}.`);
      const items = value.map((item: unknown, index) =>
        type === "number"
          ? this.number(item, `${path}[${index}]`)
          : this.text(item, `${path}[${index}]`, ruleBounds.textCharacters, 0),
      );
      return items.includes(undefined) ? undefined : (items as number[] | string[]);
    }
    switch (type) {
      case "boolean":
        return typeof value === "boolean"
          ? value
          : this.report(
              path,
              `${show(value)} is neither true nor false.`,
              "Write true or false, without quotes.",
            );
      case "text":
        return this.text(value, path, ruleBounds.textCharacters, 0);
      case "number":
        if (!isRecord(value)) return this.number(value, path);
        this.keys(value, path, ["plan"]);
        return typeof value["plan"] === "string" && (planKeys as readonly string[]).includes(value["plan"])
          ? { plan: value["plan"] as (typeof planKeys)[number] }
          : this.report(
              join(path, "plan"),
              `${show(value["plan"])} is not a number of a plan.`,
              suggest(String(value["plan"]), planKeys),
            );
    }
  }

  phrases(value: unknown, path: string): string | readonly string[] | undefined {
    const list: readonly unknown[] = Array.isArray(value) ? value : [value];
    if (list.length > ruleBounds.listItems)
      return this.report(path, `The list has ${list.length} phrases.`, `Keep to ${ruleBounds.listItems}.`);
    const read = list.map((item, index) => {
      const at = Array.isArray(value) ? `${path}[${index}]` : path;
      const phrase = this.text(item, at, ruleBounds.textCharacters);
      if (phrase !== undefined && soughtPhrase(phrase) === " ")
        return this.report(at, `${show(phrase)} holds no letter or digit.`, "Write a word or a phrase.");
      return phrase;
    });
    if (read.includes(undefined)) return undefined;
    return Array.isArray(value) ? (read as string[]) : read[0];
  }

  action(value: unknown): Action | undefined {
    const before = this.problems.length;
    const action = this.object(value, "action", 'an action such as {"block":{"reason":"daily_limit"}}');
    if (!action) return undefined;
    this.keys(action, "action", actionKeys);
    if (!actionKeys.some((key) => action[key] !== undefined))
      return this.report("action", "The rule does nothing.", `Use one or more of: ${actionKeys.join(", ")}.`);
    const read: { -readonly [K in keyof Action]: Action[K] } = {};
    const part = (key: (typeof actionKeys)[number], keys: readonly string[], example: string) => {
      if (action[key] === undefined) return undefined;
      const given = this.object(action[key], `action.${key}`, example);
      if (given) this.keys(given, `action.${key}`, keys);
      return given;
    };
    const message = (given: unknown, path: string) => this.text(given, path, ruleBounds.messageCharacters);

    const block = part("block", ["reason", "message", "minutes"], '{"reason":"daily_limit","message":"…"}');
    if (block) {
      const reason = this.reason(block["reason"], "action.block.reason");
      const words = isGiven(block["message"]) ? message(block["message"], "action.block.message") : undefined;
      const minutes = isGiven(block["minutes"])
        ? this.whole(block["minutes"], "action.block.minutes", 1, ruleBounds.blockMinutes)
        : undefined;
      if (reason !== undefined)
        read.block = {
          reason,
          ...(words === undefined ? {} : { message: words }),
          ...(minutes === undefined ? {} : { minutes }),
        };
    }
    const deflect = part("deflect", ["message", "reason"], '{"message":"…"}');
    if (deflect) {
      const words = message(deflect["message"], "action.deflect.message");
      const reason =
        deflect["reason"] === undefined ? undefined : this.reason(deflect["reason"], "action.deflect.reason");
      if (words !== undefined) read.deflect = { message: words, ...(reason === undefined ? {} : { reason }) };
    }
    if (block && deflect)
      this.report("action", "block and deflect exclude each other.", "Keep one of them, or make two rules.");
    const warn = part("warn", ["message"], '{"message":"…"}');
    if (warn) {
      const words = message(warn["message"], "action.warn.message");
      if (words !== undefined) read.warn = { message: words };
    }
    const truncate = part("truncate", ["words"], '{"words":500}');
    if (truncate) {
      const words = this.whole(truncate["words"], "action.truncate.words", 1, ruleBounds.truncateWords);
      if (words !== undefined) read.truncate = { words };
    }
    const route = part("route", ["model"], '{"model":"gpt-4o-mini"}');
    if (route) {
      const model = this.text(route["model"], "action.route.model", ruleBounds.modelCharacters);
      if (model !== undefined) read.route = { model };
    }
    const flag = part("flag", ["reason"], '{"reason":"looks_like_a_bot"}');
    if (flag) {
      const reason = this.reason(flag["reason"], "action.flag.reason");
      if (reason !== undefined) read.flag = { reason };
    }
    const multiply = part("multiply_cost", ["by"], '{"by":1.5}');
    if (multiply) {
      const by = multiply["by"];
      if (typeof by === "number" && by >= 0.001 && by <= 1000 && Number(by.toFixed(3)) === by)
        read.multiply_cost = { by };
      else
        this.report(
          "action.multiply_cost.by",
          `${show(by)} is not a factor.`,
          "Write a number from 0.001 to 1000 with at most three decimals.",
        );
    }
    return this.problems.length === before ? read : undefined;
  }

  appliesTo(value: unknown): Rule["applies_to"] | undefined {
    if (!isGiven(value)) return {};
    const given = this.object(value, "applies_to", '{"plans":["gold"]}');
    if (!given) return undefined;
    this.keys(given, "applies_to", ["plans", "scopes"]);
    const read: { plans?: string[]; scopes?: string[] } = {};
    for (const key of ["plans", "scopes"] as const) {
      const list = given[key];
      if (!isGiven(list)) continue;
      const at = `applies_to.${key}`;
      if (!Array.isArray(list) || list.length > ruleBounds.listItems) {
        this.report(
          at,
          `${show(list)} is not a list of ids.`,
          `Write a list of at most ${ruleBounds.listItems}.`,
        );
        continue;
      }
      const ids = list.map((id: unknown, index) => this.text(id, `${at}[${index}]`, ruleBounds.idCharacters));
      read[key] = ids.filter((id) => id !== undefined);
    }
    return read;
  }
}

/** Whether conditions stay within their bounds in total: each phrase of a rule costs memory in every connection. */
function isWithinTotals(conditions: unknown): boolean {
  let values = 0;
  let characters = 0;
  const left: unknown[] = [conditions];
  while (left.length > 0) {
    const value = left.pop();
    values++;
    if (typeof value === "string") characters += countCharacters(value);
    else if (typeof value === "object" && value !== null)
      for (const item of Object.values(value)) left.push(item);
    if (values > ruleBounds.values || characters > ruleBounds.characters) return false;
  }
  return true;
}

function join(path: string, key: string): string {
  return path === "" ? key : `${path}.${key}`;
}

/** JSON has two ways to leave a key out. */
function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null;
}

/**
 * Reads a rule from outside (a form, a file, the database). Answers the rule with defaults filled in, or every
 * problem with its path and its fix. Keys of the record that are not part of a rule's meaning (`updated_at`, …)
 * are left out; a key that looks like a misspelt one is a problem.
 */
export function parseRule(input: unknown): Result<Rule, readonly Problem[]> {
  const reader = new Reader();
  const record = reader.object(input, "", 'a rule: {"rule_name":…,"conditions":…,"action":…}');
  if (!record) return fail(reader.problems);
  for (const key of Object.keys(record)) {
    const meant = (ruleKeys as readonly string[]).includes(key) ? null : nearestWord(key, ruleKeys);
    if (meant && !Object.hasOwn(record, meant))
      reader.report(key, `Unknown key ${show(key)}.`, `Did you mean "${meant}"?`);
  }
  const name = reader.text(record["rule_name"], "rule_name", ruleBounds.nameCharacters);
  const type = isGiven(record["rule_type"])
    ? reader.text(record["rule_type"], "rule_type", ruleBounds.typeCharacters)
    : "custom";
  const isWithin = isWithinTotals(record["conditions"]);
  if (!isWithin)
    reader.report(
      "conditions",
      "The conditions hold too much.",
      `Keep to ${ruleBounds.values} values and ${ruleBounds.characters} characters of text in all.`,
    );
  const conditions = isWithin ? reader.condition(record["conditions"], "conditions", 1) : undefined;
  const action = reader.action(record["action"]);
  const priority = isGiven(record["priority"])
    ? reader.whole(record["priority"], "priority", -2_147_483_648, 2_147_483_647)
    : 100;
  const mode = isGiven(record["mode"]) ? record["mode"] : "enforce";
  if (!(ruleModes as readonly unknown[]).includes(mode))
    reader.report("mode", `${show(mode)} is not a mode.`, suggest(String(mode), ruleModes));
  const isActive = isGiven(record["is_active"]) ? record["is_active"] : true;
  if (typeof isActive !== "boolean")
    reader.report("is_active", `${show(isActive)} is neither true nor false.`, "Write true or false.");
  const appliesTo = reader.appliesTo(record["applies_to"]);
  const version = isGiven(record["version"])
    ? reader.whole(record["version"], "version", 0, 2_147_483_647)
    : 0;
  if (
    reader.problems.length > 0 ||
    name === undefined ||
    type === undefined ||
    !conditions ||
    !action ||
    priority === undefined ||
    !appliesTo ||
    version === undefined
  )
    return fail(reader.problems);
  return ok({
    rule_name: name,
    rule_type: type,
    conditions,
    action,
    priority,
    mode: mode as RuleMode,
    is_active: isActive as boolean,
    applies_to: appliesTo,
    version,
  });
}

/** Reads a list of rules; paths start with the rule's place (`[3].action`). Two rules of one name are a problem. */
export function parseRules(input: unknown): Result<readonly Rule[], readonly Problem[]> {
  if (!Array.isArray(input))
    return fail([{ path: "", message: `${show(input)} is not a list of rules.`, fix: "Write [rule, …]." }]);
  const rules: Rule[] = [];
  const problems: Problem[] = [];
  const seen = new Map<string, number>();
  for (const [index, item] of input.entries()) {
    const parsed = parseRule(item);
    if (!parsed.ok) {
      for (const problem of parsed.error)
        problems.push({
          ...problem,
          path: problem.path === "" ? `[${index}]` : `[${index}].${problem.path}`,
        });
      continue;
    }
    const twin = seen.get(parsed.value.rule_name);
    if (twin !== undefined)
      problems.push({
        path: `[${index}].rule_name`,
        message: `Rule [${twin}] has the same name.`,
        fix: "Give each rule its own name.",
      });
    seen.set(parsed.value.rule_name, index);
    rules.push(parsed.value);
  }
  return problems.length > 0 ? fail(problems) : ok(rules);
}
