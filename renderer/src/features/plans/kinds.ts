import type { WantedChange } from "../../../../shared/contract/plans.ts";
import {
  configKinds,
  type ConfigKind,
  configFields,
  type ConfigRecord,
  type Field,
  settingFields,
} from "../../../../shared/governance/configuration/index.ts";

/** The words of the desk for each kind of record. */
interface KindWords {
  readonly one: string;
  readonly many: string;
  /** After a number. */
  readonly several: string;
  /** The fields that the list shows beside the name. */
  readonly columns: readonly string[];
  readonly about: string;
}

export const kindWords: Readonly<Record<ConfigKind, KindWords>> = {
  plan: {
    one: "plan",
    many: "Plans",
    several: "plans",
    columns: ["monthly_allowance", "daily_limit", "monthly_limit", "upgrade_to"],
    about: "What an account may use. Users of a retired plan keep it; nobody new comes onto it.",
  },
  pack: {
    one: "pack",
    many: "Packs",
    several: "packs",
    columns: ["tokens", "price_minor", "plans"],
    about: "Tokens for sale. A payment is checked against the price of its day.",
  },
  price: {
    one: "price",
    many: "Prices",
    several: "prices",
    columns: ["input_micros_per_million", "cached_input_micros_per_million", "output_micros_per_million"],
    about: "What models cost, from a day on. Calls that were settled keep their cost.",
  },
  estimate: {
    one: "estimate",
    many: "Estimates",
    several: "estimates",
    columns: ["tokens"],
    about: "Tokens to hold for a task whose caller gives no estimate.",
  },
  topic: {
    one: "topic",
    many: "Topics",
    several: "topics",
    columns: ["words"],
    about: "Words that show what a message is about; rules read the topic.",
  },
  alert: {
    one: "alert",
    many: "Alerts",
    several: "alerts",
    columns: ["metric", "scope", "period", "budget", "thresholds"],
    about: "Budgets and thresholds, and who is notified.",
  },
  route: {
    one: "route",
    many: "Alert routes",
    several: "routes",
    columns: ["severity", "kinds", "channels", "emails"],
    about:
      "Who is notified of which alerts. Alerts that operators always get, and that no route takes, go by the setting Channels to operators.",
  },
  setting: {
    one: "setting",
    many: "Settings",
    several: "settings",
    columns: ["value"],
    about: "Numbers and lists that the project works by. What is not set has its default.",
  },
  project: {
    one: "project",
    many: "Project",
    several: "projects",
    columns: ["currency", "default_plan"],
    about: "The currency, and the plan of new users.",
  },
};

/** The kinds that have a page in the desk; the project's own record is among the settings. */
export const pages = configKinds.filter((kind) => kind !== "project");

/** How a record is called: the setting's words, else its name and what distinguishes it. */
export function titleOf(kind: ConfigKind, key: string, record: ConfigRecord | null): string {
  if (kind === "setting") return settingFields.get(key)?.label ?? key;
  if (kind === "project") return "The project";
  const name = record?.[kind === "price" ? "model" : "name"];
  return (kind === "plan" || kind === "price") && typeof name === "string" ? name : key;
}

/** The same with its kind before it, for places where kinds are mixed. */
export const fullTitle = (kind: ConfigKind, key: string, record: ConfigRecord | null): string =>
  kind === "project" || kind === "setting"
    ? titleOf(kind, key, record)
    : `${kindWords[kind].one} ${kind === "price" ? key : titleOf(kind, key, record)}`;

/** A new record of a kind: what may be left out as it is otherwise, the rest empty. */
export function emptyRecord(kind: ConfigKind, currency: string, today: string): ConfigRecord {
  if (kind === "setting") return {};
  const fields: readonly Field[] = configFields[kind];
  const given = fields.flatMap(({ name, otherwise }): [string, unknown][] =>
    otherwise === undefined || otherwise === null ? [] : [[name, otherwise]],
  );
  return {
    ...Object.fromEntries(given),
    ...(kind === "price" ? { effective_from: today } : {}),
    ...(fields.some(({ name }) => name === "currency") ? { currency } : {}),
  };
}

/** The kind and key of an id such as `plan:gold`; null where it is none. */
export function readId(id: string): { readonly kind: ConfigKind; readonly key: string } | null {
  const at = id.indexOf(":");
  const kind = id.slice(0, at);
  return at > 0 && Object.hasOwn(kindWords, kind)
    ? { kind: kind as ConfigKind, key: id.slice(at + 1) }
    : null;
}

/** The currency that a record's money is in: a pack's own, else the project's. */
export function moneyOf(kind: ConfigKind, record: ConfigRecord | null | undefined, project: string): string {
  const own = record?.["currency"];
  return (kind === "pack" || kind === "price") && typeof own === "string" && own !== "" ? own : project;
}

/** A step or a proposed change as the bare change that is asked for. */
export const asWanted = ({ kind, key, record, expected_version }: WantedChange): WantedChange => ({
  kind,
  key,
  record,
  expected_version,
});
