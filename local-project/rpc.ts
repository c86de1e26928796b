/**
 * One call of a function over HTTP, by PostgREST's rules
 * (https://docs.postgrest.org/en/stable/references/api/functions.html): named arguments in, JSON out, in one
 * transaction as the caller's role, and in one round trip wherever the answer cannot make it roll back.
 */
import type { IncomingHttpHeaders } from "node:http";
import { type Database, quoteIdentifier, quoteLiteral, type Row, type Statements } from "./database.ts";
import { fromDatabaseError, HttpError, isPostgresError, refusal } from "./errors.ts";
import {
  chooseFunction,
  type ProjectFunction,
  type ProjectSchema,
  readSchema,
  takesWholeBody,
} from "./functions.ts";
import { queueCalls } from "./call-queue.ts";
import type { Caller } from "./keys.ts";
import type { RpcRequest, RpcResponse } from "./rpc-messages.ts";
import { type ResultShape, readShape, splitQuery, unsatisfiable } from "./result-shape.ts";

export interface RpcEndpoint {
  call(request: RpcRequest): Promise<RpcResponse>;
  /** The functions and roles of the database, read once and kept. Throws HttpError 503 where they cannot be read. */
  schema(): Promise<ProjectSchema>;
  /** Forget what is known of the functions: they may have changed. */
  reloadSchema(): void;
}

type CallArguments =
  | {
      readonly kind: "json";
      readonly names: readonly string[];
      readonly text: string;
      /** Plain values as PostgreSQL would read them out of the text, where every value is a plain one. */
      readonly plain: ReadonlyMap<string, string | null> | null;
    }
  | { readonly kind: "text"; readonly values: ReadonlyMap<string, string> };

interface Preferences {
  readonly countsExactly: boolean;
  readonly maxAffected: number | null;
}

interface Media {
  readonly single: boolean;
  readonly stripNulls: boolean;
  readonly contentType: string;
}

/** An unknown function makes the schema be read again, at most this often. */
const RELOAD_AT_MOST_EVERY_MS = 1000;
/** Bodies up to this many characters are looked at for plain values. */
const LONGEST_PLAIN = 8192;
/** Types that PostgreSQL reads from a JSON value's text: taking the text itself spares it the JSON. */
const PLAIN_TYPES = new Set([
  "text",
  "bigint",
  "integer",
  "numeric",
  "boolean",
  "uuid",
  "date",
  "timestamp with time zone",
]);
/** PostgreSQL's parsers recurse, and PGlite's stack is small. */
const DEEPEST_JSON = 500;

interface RpcEndpointOptions {
  /** Whether calls of a model that wait at the same time go to the database together; so unless it is false. */
  readonly batchesCalls?: boolean;
}

export function createRpcEndpoint(
  database: Database,
  { batchesCalls = true }: RpcEndpointOptions = {},
): RpcEndpoint {
  let known: Promise<ProjectSchema> | null = null;
  let readAtMs = 0;

  function schema(): Promise<ProjectSchema> {
    if (known) return known;
    readAtMs = performance.now();
    const reading = readSchema(database).catch((error: unknown) => {
      if (known === reading) known = null;
      throw refusal(
        503,
        "PGRST002",
        "Could not query the database for the schema cache. Retrying.",
        error instanceof Error ? error.message : null,
      );
    });
    known = reading;
    return reading;
  }

  async function choose(request: RpcRequest, names: readonly string[]): Promise<ProjectFunction> {
    const isPost = request.method === "POST";
    try {
      return chooseFunction(await schema(), request.functionName, names, isPost);
    } catch (error) {
      const unknown = error instanceof HttpError && error.body.code === "PGRST202";
      if (!unknown || performance.now() - readAtMs < RELOAD_AT_MOST_EVERY_MS) throw error;
      known = null;
      return chooseFunction(await schema(), request.functionName, names, isPost);
    }
  }

  async function attempt(request: RpcRequest): Promise<RpcResponse> {
    const media = readAccept(request.headers.accept);
    refuseOtherSchema(request);
    const preferences = readPreferences(request.headers.prefer);
    const { argumentValues, filters } = splitQuery(request.query);
    const given: CallArguments =
      request.method === "POST" ? readBody(request) : { kind: "text", values: argumentValues };
    const chosen = await choose(request, given.kind === "json" ? given.names : [...given.values.keys()]);
    refuseRole((await schema()).roles, request.caller);
    const range = request.method === "POST" ? undefined : request.headers.range;
    const shape = readShape(request.query, filters, range);
    const readOnly = request.method !== "POST" || !chosen.writes;
    const statements = buildCall(chosen, given, shape, media, preferences, request, readOnly);
    const row = await runCall(database, statements, chosen, media, preferences, readOnly);
    return respond(chosen, row, shape, media, preferences, request.method);
  }

  async function alone(request: RpcRequest): Promise<RpcResponse> {
    try {
      return await attempt(request);
    } catch (error) {
      // The function may have changed since it was read; nothing happened yet, so look and try once more.
      if (!isPostgresError(error) || error.code !== "42883") throw error;
      if (!error.message.startsWith(`function public.${request.functionName}(`)) throw error;
      known = null;
      return attempt(request);
    }
  }

  const answer = batchesCalls ? queueCalls(alone) : alone;

  return {
    schema,
    reloadSchema() {
      known = null;
    },
    async call(request) {
      try {
        return await answer(request);
      } catch (error) {
        throw fromDatabaseError(error, request.caller.role !== "anon");
      }
    },
  };
}

function refuseRole(roles: ReadonlyMap<string, boolean>, { role }: Caller): void {
  const allowed = roles.get(role);
  if (allowed) return;
  if (allowed === undefined) throw refusal(401, "22023", `role "${role}" does not exist`);
  throw refusal(403, "42501", `permission denied to set role "${role}"`);
}

function refuseOtherSchema({ method, headers }: RpcRequest): void {
  const profile = headers[method === "POST" ? "content-profile" : "accept-profile"];
  if (profile !== undefined && profile !== "public") {
    throw refusal(
      406,
      "PGRST106",
      `Invalid schema: ${String(profile)}`,
      null,
      "Only the following schemas are exposed: public",
    );
  }
}

function readAccept(accept: string | undefined): Media {
  const wanted = (accept ?? "*/*").split(",").map((one) => one.trim().toLowerCase());
  for (const one of wanted) {
    const [type = "", ...parameters] = one.split(";").map((part) => part.trim());
    const stripNulls = parameters.includes("nulls=stripped");
    const suffix = `${stripNulls ? ";nulls=stripped" : ""}; charset=utf-8`;
    if (["application/json", "*/*", "application/*", ""].includes(type)) {
      return { single: false, stripNulls: false, contentType: "application/json; charset=utf-8" };
    }
    if (type === "application/vnd.pgrst.object+json" || type === "application/vnd.pgrst.object") {
      return { single: true, stripNulls, contentType: `application/vnd.pgrst.object+json${suffix}` };
    }
    if (type === "application/vnd.pgrst.array+json" || type === "application/vnd.pgrst.array") {
      return { single: false, stripNulls, contentType: `application/vnd.pgrst.array+json${suffix}` };
    }
  }
  throw refusal(406, "PGRST107", `None of these media types are available: ${wanted.join(", ")}`);
}

function readPreferences(prefer: string | string[] | undefined): Preferences {
  const asked = String(prefer ?? "")
    .split(",")
    .map((one) => one.trim());
  const affected = asked.find((one) => /^max-affected=\d+$/.test(one))?.slice("max-affected=".length);
  return {
    countsExactly: asked.some((one) => ["count=exact", "count=planned", "count=estimated"].includes(one)),
    maxAffected: affected !== undefined && asked.includes("handling=strict") ? Number(affected) : null,
  };
}

function readBody({ body, headers }: RpcRequest): CallArguments {
  const type = (headers["content-type"] ?? "application/json").split(";")[0]?.trim().toLowerCase();
  if (type === "application/x-www-form-urlencoded") {
    return { kind: "text", values: splitQuery(new URLSearchParams(decode(body))).argumentValues };
  }
  if (type !== "application/json" && type !== "application/vnd.pgrst.object+json") {
    throw refusal(400, "PGRST102", `Content-Type not acceptable: ${type}`);
  }
  const text = decode(body).trim();
  if (text === "") return { kind: "json", names: [], text: "{}", plain: null };
  refuseDeepJson(text);
  let value: unknown;
  try {
    value = text.length > LONGEST_PLAIN ? JSON.parse(text) : parseNumbersAsWritten(text);
  } catch {
    throw refusal(400, "PGRST102", "Empty or invalid json");
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    // Only a function that takes the whole body can use it.
    return { kind: "json", names: [], text, plain: null };
  }
  return { kind: "json", names: Object.keys(value), text, plain: plainValues(text, value) };
}

/** A number of a body, kept as it was written: JSON.parse would round it. */
class WrittenNumber {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}

function parseNumbersAsWritten(text: string): unknown {
  const reviver = (_: string, value: unknown, context?: { source?: string }): unknown =>
    typeof value === "number" ? new WrittenNumber(context?.source ?? String(value)) : value;
  return JSON.parse(text, reviver);
}

/** The values as text, or null where one is not plain: those are left to PostgreSQL's own JSON. */
function plainValues(text: string, value: object): ReadonlyMap<string, string | null> | null {
  if (text.length > LONGEST_PLAIN) return null;
  const plain = new Map<string, string | null>();
  for (const [name, one] of Object.entries(value) as [string, unknown][]) {
    if (one === null) plain.set(name, null);
    else if (one instanceof WrittenNumber) plain.set(name, one.text);
    else if (typeof one === "boolean") plain.set(name, String(one));
    else if (typeof one === "string" && one.isWellFormed() && !one.includes("\0")) plain.set(name, one);
    else return null;
  }
  return plain;
}

function decode(body: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(body);
  } catch {
    throw refusal(400, "PGRST102", "Empty or invalid json", "The body is not UTF-8.");
  }
}

function refuseDeepJson(text: string): void {
  if (text.length < DEEPEST_JSON) return;
  let depth = 0;
  let quoted = false;
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (quoted) {
      if (code === 0x5c) index++;
      else if (code === 0x22) quoted = false;
    } else if (code === 0x22) quoted = true;
    else if (code === 0x7b || code === 0x5b) {
      depth++;
      if (depth > DEEPEST_JSON) {
        throw refusal(400, "PGRST102", "Empty or invalid json", `Nested deeper than ${DEEPEST_JSON} levels.`);
      }
    } else if (code === 0x7d || code === 0x5d) depth--;
  }
}

const claimsLiterals = new WeakMap<Caller, string>();

/** What PostgREST sets for the transaction (docs: references/transactions.html). */
function prelude({ caller, method, functionName, headers }: RpcRequest, readOnly: boolean): string {
  let claims = claimsLiterals.get(caller);
  if (claims === undefined) {
    claims = quoteLiteral(JSON.stringify(caller.claims));
    claimsLiterals.set(caller, claims);
  }
  const settings = [
    "set_config('search_path', 'public, extensions', true)",
    `set_config('role', ${quoteLiteral(caller.role)}, true)`,
    `set_config('request.jwt.claims', ${claims}, true)`,
    `set_config('request.method', '${method}', true)`,
    `set_config('request.path', ${quoteLiteral(`/rpc/${functionName}`)}, true)`,
    `set_config('request.headers', ${quoteLiteral(JSON.stringify(ownHeaders(headers)))}, true)`,
  ];
  if (readOnly) settings.push("set_config('transaction_read_only', 'on', true)");
  return `select ${settings.join(", ")}`;
}

/** Of the headers those that a caller made up: PostgREST passes on all, and no function here reads the others. */
function ownHeaders(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => name.startsWith("x-")));
}

/** The two statements of a call; the second returns one row: body, rows on this page, rows in all or null. */
function buildCall(
  chosen: ProjectFunction,
  given: CallArguments,
  shape: ResultShape,
  media: Media,
  preferences: Preferences,
  request: RpcRequest,
  readOnly: boolean,
): Statements {
  const before = prelude(request, readOnly);
  const { from, values } = argumentList(chosen, given);
  const call = `public.${quoteIdentifier(chosen.name)}(${values})`;
  const answersRows = chosen.returns === "rows";
  if (!answersRows && !chosen.returnsSet && shape.isPlain) {
    const text = {
      // Nothing of type void can be shown, yet the call must be evaluated.
      void: "case when value is null then 'null' end",
      json: media.stripNulls ? "json_strip_nulls(value::json)::text" : "value::text",
      value: `${asJson("value", media)}::text`,
    }[chosen.returns];
    return [
      before,
      `select coalesce(${text}, 'null'), 1, null from (select ${call} as value${from && ` from ${from}`}) as answer`,
    ];
  }
  const source = answersRows
    ? `select f.* from ${from && `${from}, `}lateral ${call} as f`
    : `select f.value from ${from && `${from}, `}lateral ${call} as f(value)`;
  const where = shape.conditions.length > 0 ? ` where ${shape.conditions.join(" and ")}` : "";
  const order = shape.order === "" ? "" : ` order by ${shape.order}`;
  const page = `${shape.limit === null ? "" : ` limit ${shape.limit}`}${shape.offset === 0 ? "" : ` offset ${shape.offset}`}`;
  const item = answersRows ? "page" : "page.value";
  const all = asJson(`json_agg(${item})`, media, true);
  const single = media.single || !chosen.returnsSet;
  const body = single ? `coalesce((${all} -> 0)::text, 'null')` : `coalesce(${all}::text, '[]')`;
  const total = preferences.countsExactly ? `(select count(*) from source${where})` : "null";
  return [
    before,
    `with source as (${source}) select ${body}, count(page), ${total} from (select ${shape.columns} from source${where}${order}${page}) as page`,
  ];
}

function asJson(expression: string, { stripNulls }: Media, isJson = false): string {
  const json = isJson ? expression : `to_json(${expression})`;
  return stripNulls ? `json_strip_nulls(${json})` : json;
}

function argumentList(chosen: ProjectFunction, given: CallArguments): { from: string; values: string } {
  if (given.kind === "json" && takesWholeBody(chosen)) {
    return { from: "", values: `${quoteLiteral(given.text)}::${chosen.arguments[0]?.type ?? "json"}` };
  }
  const isGiven = (name: string): boolean =>
    given.kind === "json" ? given.names.includes(name) : given.values.has(name);
  const used = chosen.arguments.filter(({ name }) => isGiven(name));
  if (used.length === 0) return { from: "", values: "" };
  const plain =
    given.kind === "text"
      ? given.values
      : used.every(({ type, variadic }) => PLAIN_TYPES.has(type) && !variadic)
        ? given.plain
        : null;
  const value = (name: string, type: string): string => {
    if (plain === null) return `j.${quoteIdentifier(name)}`;
    const text = plain.get(name) ?? null;
    return `${text === null ? "null" : quoteLiteral(text)}::${type}`;
  };
  const values = used
    .map(
      ({ name, type, variadic }) =>
        `${variadic ? "variadic " : ""}${quoteIdentifier(name)} := ${value(name, type)}`,
    )
    .join(", ");
  if (plain !== null || given.kind === "text") return { from: "", values };
  const columns = used.map(({ name, type }) => `${quoteIdentifier(name)} ${type}`).join(", ");
  return { from: `json_to_record(${quoteLiteral(given.text)}::json) as j(${columns})`, values };
}

async function runCall(
  database: Database,
  statements: Statements,
  chosen: ProjectFunction,
  media: Media,
  { maxAffected }: Preferences,
  readOnly: boolean,
): Promise<Row> {
  if (maxAffected !== null && !chosen.returnsSet) {
    throw refusal(
      400,
      "PGRST128",
      "Function must return SETOF or TABLE when max-affected preference is used with handling=strict",
    );
  }
  const mayRollBack = chosen.returnsSet && (media.single || maxAffected !== null);
  // A read-only transaction cannot be shared with a call that writes.
  if (!mayRollBack && !readOnly) return firstRow(await database.runShared(statements));
  if (!mayRollBack) return firstRow(await database.run(statements.join(";")));
  return database.transaction(async (run) => {
    const row = firstRow(await run(statements.join(";")));
    const rows = Number(row[1]);
    if (maxAffected !== null && rows > maxAffected) {
      throw refusal(
        400,
        "PGRST124",
        "Query result exceeds max-affected preference constraint",
        `The query affects ${rows} rows`,
      );
    }
    if (media.single && rows !== 1) {
      throw refusal(
        406,
        "PGRST116",
        "Cannot coerce the result to a single JSON object",
        `The result contains ${rows} rows`,
      );
    }
    return row;
  });
}

function firstRow(rows: readonly Row[]): Row {
  return rows[0] ?? ["null", "0", null];
}

function respond(
  chosen: ProjectFunction,
  [body, rowsText, totalText]: Row,
  shape: ResultShape,
  media: Media,
  preferences: Preferences,
  method: RpcRequest["method"],
): RpcResponse {
  const rows = Number(rowsText);
  const total = totalText === null || totalText === undefined ? null : Number(totalText);
  const upper = shape.offset + rows - 1;
  const span = total !== 0 && shape.offset <= upper ? `${shape.offset}-${upper}` : "*";
  const headers: Record<string, string> = { "content-range": `${span}/${total ?? "*"}` };
  if (preferences.countsExactly) headers["preference-applied"] = "count=exact";
  if (total !== null && shape.offset > total) {
    throw unsatisfiable(`An offset of ${shape.offset} was requested, but there are only ${total} rows.`);
  }
  if (chosen.returns === "void" && !chosen.returnsSet) return { status: 204, headers, body: "" };
  headers["content-type"] = media.contentType;
  const status = total !== null && rows < total ? 206 : 200;
  return { status, headers, body: method === "HEAD" ? "" : (body ?? "null") };
}
