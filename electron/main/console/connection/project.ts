/** Asks a project who it is, and whether this console and it fit together. */
import { type Failure, type ProjectInfo, projectInfo } from "../../../../shared/contract/index.ts";
import { fail, ok, type Result } from "../../../../shared/governance/result.ts";
import { type Backend, createBackend } from "../../backend/backend.ts";
import { checkKey, parseProjectUrl } from "./key-check.ts";
import { checkReplica } from "./replica-state.ts";

export interface ProjectAnswer {
  readonly project: ProjectInfo;
  /** Migrations of this console that the project has not. */
  readonly missing_migrations: readonly string[];
}

/** `migrations`: names of those this console came with, in order, each beginning with 14 digits. */
export async function askProject(
  backend: Backend,
  migrations: readonly string[],
  options: { readonly retries?: number; readonly timeoutMs?: number } = {},
): Promise<Result<ProjectAnswer, Failure>> {
  const answer = await backend.rpc("console_project_info", {}, projectInfo, options);
  if (!answer.ok) {
    if (answer.error.code === "missing_function") return fail(missing(migrations, answer.error.details));
    if (answer.error.code === "unexpected_answer") {
      return fail({
        code: "not_a_project",
        message: "What answers at this address is not a Supabase project with governance in it.",
        advice: "Check the address: https://<ref>.supabase.co, without a path.",
        details: answer.error.details,
      });
    }
    return answer;
  }
  const applied = answer.value.migrations ?? [];
  const known = new Set(migrations.map(versionOf));
  const foreign = applied.filter((name) => !known.has(versionOf(name)));
  if (foreign.length > 0) {
    return fail({
      code: "project_newer",
      message: "The project is newer than this console.",
      advice: "Update this console.",
      details: `Unknown here: ${foreign.join(", ")}`,
    });
  }
  const has = new Set(applied.map(versionOf));
  // A project whose tables were made by hand has no record to compare.
  const isRecorded = applied.length > 0;
  return ok({
    project: answer.value,
    missing_migrations: isRecorded ? migrations.filter((name) => !has.has(versionOf(name))) : [],
  });
}

interface TypedProject {
  readonly url: string;
  readonly key: string;
  /** A read replica's address, or nothing. */
  readonly readUrl: string;
}

export interface CheckedProject {
  /** Null where it has nothing of ours yet. */
  readonly project: ProjectInfo | null;
  readonly missing_migrations: readonly string[];
  readonly origin: string;
  readonly readOrigin: string | null;
}

/** A key and addresses that a person typed; every way they can be wrong is a failure of its own. */
export async function checkProject(
  { url, key, readUrl }: TypedProject,
  migrations: readonly string[],
  now: Date,
): Promise<Result<CheckedProject, Failure>> {
  const origin = parseProjectUrl(url);
  if (!origin.ok) return origin;
  const readOrigin = readUrl === "" ? ok(null) : parseProjectUrl(readUrl);
  if (!readOrigin.ok) return readOrigin;
  const kind = checkKey(key, origin.value, now);
  if (!kind.ok) return kind;
  const backend = createBackend({ url: origin.value, key });
  try {
    const answer = await askProject(backend, migrations, { retries: 1, timeoutMs: 10_000 });
    if (!answer.ok && answer.error.code !== "migrations_missing") return answer;
    if (readOrigin.value !== null) {
      const replica = await checkReplica(readOrigin.value, key);
      if (!replica.ok) return replica;
    }
    const found = answer.ok ? answer.value : { project: null, missing_migrations: migrations };
    return ok({ ...found, origin: origin.value, readOrigin: readOrigin.value });
  } finally {
    await backend.close();
  }
}

export function missing(names: readonly string[], details: string | null): Failure {
  return {
    code: "migrations_missing",
    message: "The project lacks migrations that this console needs.",
    advice:
      "Apply them from Settings, Connections, or with npm run migrate -- --database-url URL, then try again.",
    details: [...names, ...(details ? [details] : [])].join("\n") || null,
  };
}

function versionOf(name: string): string {
  return /^\d{14}/.exec(name)?.[0] ?? "";
}
