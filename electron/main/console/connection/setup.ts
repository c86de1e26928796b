/** The first connection: what a project lacks is looked at, applied and configured from here, if a person wants that. */
import {
  type Failure,
  type PresetChoice,
  projectInfo,
  type ProjectInfo,
} from "../../../../shared/contract/index.ts";
import type { DatabaseInput } from "../../../../shared/contract/setup.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { z } from "zod";
import type { Handlers } from "../dispatch.ts";
import type { Connection } from "./connection.ts";
import { parseProjectUrl } from "./key-check.ts";

/** Reaches a project's database, as the composition root knows how. Throws an error with `code` and `advice`. */
export interface Installer {
  makes(): { readonly migrations: string[]; readonly functions: number; readonly tables: number };
  look(database: DatabaseInput): Promise<{
    readonly serverVersion: string;
    readonly present: number;
    readonly missing: readonly string[];
    readonly inTheWay: readonly string[];
  }>;
  apply(database: DatabaseInput): Promise<readonly string[]>;
  sql(): string;
  presets(): {
    readonly name: string;
    readonly description: string;
    readonly content: Readonly<Record<string, unknown>>;
  }[];
}

type SetupHandlers = Pick<Handlers, Extract<keyof Handlers, `setup.${string}`>>;

export function setupHandlers(connection: Connection, installer: Installer | null): SetupHandlers {
  /** One at a time: two would only wait for each other's lock. */
  let isApplying = false;
  const attempt = async <T>(work: (installer: Installer) => Promise<T> | T): Promise<Result<T, Failure>> => {
    if (!installer) return fail(noInstaller);
    try {
      return ok(await work(installer));
    } catch (error) {
      const { code, message, advice } = error as { code?: unknown; message?: string; advice?: string | null };
      if (advice === undefined) throw error;
      return fail({ code: String(code), message: message ?? "", advice, details: null });
    }
  };
  return {
    "setup.plan": ({ url }) =>
      attempt((found) => {
        const { migrations, functions, tables } = found.makes();
        return { migrations, makes: { functions, tables }, address: usualAddress(url) };
      }),
    "setup.look": (database) =>
      attempt(async (found) => {
        const look = await found.look(database);
        return {
          server_version: look.serverVersion,
          present: look.present,
          missing: [...look.missing],
          in_the_way: [...look.inTheWay],
        };
      }),
    "setup.apply": async (database) => {
      if (isApplying) return fail(applying);
      isApplying = true;
      try {
        return await attempt(async (found) => ({ applied: [...(await found.apply(database))] }));
      } finally {
        isApplying = false;
      }
    },
    "setup.sql": () => attempt((found) => ({ name: "token-governance.sql", text: found.sql() })),
    "setup.presets": () => attempt((found) => found.presets().map(choiceOf)),
    "setup.apply_preset": async ({ name }) => {
      const presets = await attempt((found) => found.presets());
      if (!presets.ok) return presets;
      const preset = presets.value.find((each) => each.name === name);
      if (!preset) return fail(unknownPreset);
      const project = connection.current();
      const info = await project.rpc("console_project_info", {}, projectInfo);
      if (!info.ok) return info;
      if (isConfigured(info.value)) return fail(configured);
      const applied = await project.rpc("apply_preset", { p_preset: preset.content }, z.unknown());
      if (!applied.ok) return applied;
      await connection.askAgain();
      return ok({ name });
    },
  };
}

/** A preset replaces plans, rules and prices whole: it is for a project that has none. */
function isConfigured({ plans }: Pick<ProjectInfo, "plans">): boolean {
  return plans.length > 0;
}

/** A hosted project's database answers at an address that follows from the project's own. */
function usualAddress(url: string): string | null {
  const origin = parseProjectUrl(url);
  if (!origin.ok) return null;
  const ref = /^https:\/\/([a-z0-9]+)\.supabase\.(co|in|red)$/.exec(origin.value);
  return ref ? `postgresql://postgres@db.${ref[1]}.supabase.${ref[2]}:5432/postgres` : null;
}

const listed = z.array(z.looseObject({})).catch([]);
const planLine = z.object({ name: z.string(), monthly_allowance: z.number().int().nullable().catch(null) });

function choiceOf({ name, description, content }: ReturnType<Installer["presets"]>[number]): PresetChoice {
  return {
    name,
    description,
    currency: z.string().catch("usd").parse(content["currency"]),
    plans: listed.parse(content["plans"]).flatMap((plan) => {
      const read = planLine.safeParse(plan);
      return read.success ? [read.data] : [];
    }),
    rules: listed.parse(content["rules"]).length,
  };
}

const noInstaller: Failure = {
  code: "no_installer",
  message: "This console cannot prepare a database.",
  advice: "Use npm run migrate, or supabase db push.",
  details: null,
};
const applying: Failure = {
  code: "busy",
  message: "Migrations are being applied already.",
  advice: "Wait until they are.",
  details: null,
};
const unknownPreset: Failure = {
  code: "not_found",
  message: "There is no such preset.",
  advice: null,
  details: null,
};
const configured: Failure = {
  code: "configured",
  message: "The project is configured already; a preset would replace its plans, rules and prices.",
  advice: "Change them under Rules and Settings, or apply a preset with npm run migrate.",
  details: null,
};
