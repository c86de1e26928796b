/**
 * The functions that can be called: what schema `public` has, and which one a call by argument names means.
 * Follows https://docs.postgrest.org/en/stable/references/api/functions.html.
 */
import type { Database, Row } from "./database.ts";
import { refusal } from "./errors.ts";

interface FunctionArgument {
  readonly name: string;
  /** As `format_type` writes it. */
  readonly type: string;
  readonly required: boolean;
  readonly variadic: boolean;
}

export interface ProjectFunction {
  readonly name: string;
  readonly arguments: readonly FunctionArgument[];
  /** `rows` has named columns (table, composite or out arguments), `json` is json or jsonb. */
  readonly returns: "void" | "rows" | "json" | "value";
  readonly returnsSet: boolean;
  /** A stable or immutable function runs in a read-only transaction. */
  readonly writes: boolean;
}

export interface ProjectSchema {
  readonly functions: ReadonlyMap<string, readonly ProjectFunction[]>;
  /** Every role, and whether a token may name it: whether Supabase's `authenticator` may become it. */
  readonly roles: ReadonlyMap<string, boolean>;
}

// Types are named as the calls will see them, so the search path is theirs.
const READ_FUNCTIONS = `
  select set_config('search_path', 'public, extensions', true);
  select p.proname,
    coalesce((
      select json_agg(json_build_object(
        'name', coalesce(p.proargnames[a.position], ''),
        'type', format_type(a.type, null),
        'variadic', coalesce(p.proargmodes[a.position] = 'v', false)) order by a.position)
      from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality as a(type, position)
      where coalesce(p.proargmodes[a.position], 'i') in ('i', 'b', 'v')), '[]'),
    p.pronargdefaults,
    case when p.prorettype = 'void'::regtype then 'void'
         when t.typtype = 'c' or b.typtype = 'c' or p.proargmodes && '{o,b,t}'::"char"[] then 'rows'
         when p.prorettype in ('json'::regtype, 'jsonb'::regtype) then 'json'
         else 'value' end,
    p.proretset, p.provolatile = 'v'
  from pg_proc p
  join pg_type t on t.oid = p.prorettype
  left join pg_type b on b.oid = t.typbasetype
  where p.pronamespace = 'public'::regnamespace and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype
    and p.prorettype <> 'event_trigger'::regtype`;

const READ_ROLES = `
  select r.rolname, not r.rolsuper and (r.rolname in ('anon', 'authenticated', 'service_role') or exists (
    select from pg_auth_members m join pg_roles a on a.oid = m.member
    where a.rolname = 'authenticator' and m.roleid = r.oid))
  from pg_roles r`;

export async function readSchema(database: Database): Promise<ProjectSchema> {
  const functions = new Map<string, ProjectFunction[]>();
  for (const row of await database.run(READ_FUNCTIONS)) {
    const one = toFunction(row);
    functions.set(one.name, [...(functions.get(one.name) ?? []), one]);
  }
  const roles = await database.run(READ_ROLES);
  return { functions, roles: new Map(roles.map(([name, allowed]) => [name ?? "", allowed === "t"])) };
}

function toFunction([name, argumentsJson, defaults, returns, returnsSet, writes]: Row): ProjectFunction {
  const listed = JSON.parse(argumentsJson ?? "[]") as { name: string; type: string; variadic: boolean }[];
  // Defaults always belong to the last input arguments.
  const firstOptional = listed.length - Number(defaults);
  return {
    name: name ?? "",
    arguments: listed.map((argument, index) => ({ ...argument, required: index < firstOptional })),
    returns: returns as ProjectFunction["returns"],
    returnsSet: returnsSet === "t",
    writes: writes === "t",
  };
}

/** A function whose only argument is an unnamed json one takes the whole body. */
export function takesWholeBody(one: ProjectFunction): boolean {
  const [only] = one.arguments;
  return one.arguments.length === 1 && only?.name === "" && (only.type === "json" || only.type === "jsonb");
}

/** The function that a call by these argument names means. Throws PGRST202 for none, PGRST203 for several. */
export function chooseFunction(
  schema: ProjectSchema,
  name: string,
  argumentNames: readonly string[],
  isPost: boolean,
): ProjectFunction {
  const named = schema.functions.get(name) ?? [];
  const given = new Set(argumentNames);
  const matching = named.filter(
    (one) =>
      one.arguments.every(
        (argument) => !argument.required || (argument.name !== "" && given.has(argument.name)),
      ) && argumentNames.every((given) => one.arguments.some((argument) => argument.name === given)),
  );
  const candidates = matching.length > 0 || !isPost ? matching : named.filter(takesWholeBody);
  if (candidates.length > 1) throw ambiguous(candidates);
  const [chosen] = candidates;
  if (!chosen) throw unknown(schema, name, argumentNames, isPost);
  return chosen;
}

function ambiguous(candidates: readonly ProjectFunction[]): Error {
  const listed = candidates.map(
    (one) => `public.${one.name}(${one.arguments.map(({ name, type }) => `${name} => ${type}`).join(", ")})`,
  );
  return refusal(
    300,
    "PGRST203",
    `Could not choose the best candidate function between: ${listed.join(", ")}`,
    null,
    "Try renaming the parameters or the function itself in the database so function overloading can be resolved",
  );
}

function unknown(
  schema: ProjectSchema,
  name: string,
  argumentNames: readonly string[],
  isPost: boolean,
): Error {
  const sorted = [...argumentNames].sort();
  const list = sorted.join(", ");
  const searched =
    sorted.length === 0 ? " without parameters" : ` with parameter${sorted.length > 1 ? "s" : ""} ${list}`;
  const overloads = schema.functions.get(name);
  const close = overloads
    ? closest(
        `(${list})`,
        overloads.map(
          (one) =>
            `(${one.arguments
              .map((a) => a.name)
              .sort()
              .join(", ")})`,
        ),
      )
    : closest(name, [...schema.functions.keys()]);
  return refusal(
    404,
    "PGRST202",
    `Could not find the function public.${name}${sorted.length === 0 ? " without parameters" : `(${list})`} in the schema cache`,
    `Searched for the function public.${name}${searched}${isPost ? " or with a single unnamed json/jsonb parameter" : ""}, but no matches were found in the schema cache.`,
    close === null ? null : `Perhaps you meant to call the function public.${overloads ? name : ""}${close}`,
  );
}

/** The candidate most like the text, by shared pairs of letters; null where none is much like it. */
function closest(text: string, candidates: readonly string[]): string | null {
  const pairs = (word: string): Set<string> => {
    const padded = `-${word.toLowerCase()}-`;
    return new Set(Array.from({ length: padded.length - 1 }, (_, index) => padded.slice(index, index + 2)));
  };
  const wanted = pairs(text.slice(0, 1000));
  let best: { candidate: string; score: number } | null = null;
  for (const candidate of candidates) {
    const own = pairs(candidate);
    const shared = [...own].filter((pair) => wanted.has(pair)).length;
    const score = (2 * shared) / (own.size + wanted.size);
    if (score > (best?.score ?? 0.4)) best = { candidate, score };
  }
  return best?.candidate ?? null;
}
