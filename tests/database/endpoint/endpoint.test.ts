import { rmSync } from "node:fs";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createEmptyDatabase } from "../../support/database.ts";
import { startFixtureProject, type TestProject, writeFixtureResources } from "../../support/endpoint.ts";
import { postgresUrls } from "../../support/project.ts";

const urls = postgresUrls();

interface Rule {
  /** What the documentation says, in its words or near. */
  readonly rule: string;
  readonly path: string;
  readonly method?: string;
  readonly body?: unknown;
  /** Sent as it is. */
  readonly raw?: string | Uint8Array<ArrayBuffer>;
  readonly headers?: Record<string, string>;
  readonly as?: "anon" | "authenticated" | "service_role";
  readonly status: number;
  /** The JSON of the answer, or "" for none. */
  readonly answer?: unknown;
  readonly answerHeaders?: Record<string, string | null>;
}

const error = (code: string, message: unknown, details: unknown = null, hint: unknown = null) => ({
  code,
  message,
  details,
  hint,
});
const some = expect.any(String) as unknown;
const OBJECT = { accept: "application/vnd.pgrst.object+json" };

// https://docs.postgrest.org/en/stable/references/api/functions.html
const FUNCTIONS: Rule[] = [
  {
    rule: "POST: named arguments come from the JSON body",
    path: "add",
    body: { a: 1, b: 2 },
    status: 200,
    answer: 3,
  },
  { rule: "POST: argument order does not matter", path: "add", body: { b: 2, a: 1 }, status: 200, answer: 3 },
  { rule: "POST: an empty body is no arguments", path: "greet", raw: "", status: 200, answer: "hello world" },
  {
    rule: "POST: form-urlencoded arguments",
    path: "add",
    raw: "a=1&b=2",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    status: 200,
    answer: 3,
  },
  {
    rule: "GET: arguments come from the query string",
    path: "add?a=1&b=2",
    method: "GET",
    status: 200,
    answer: 3,
  },
  { rule: "HEAD: the same without a body", path: "add?a=1&b=2", method: "HEAD", status: 200, answer: "" },
  {
    rule: "an argument with a default can be left out",
    path: "greet",
    body: {},
    status: 200,
    answer: "hello world",
  },
  {
    rule: "a null argument is given, not left out",
    path: "greet",
    body: { p_name: null },
    status: 200,
    answer: null,
  },
  {
    rule: "a JSON value becomes the argument's type",
    path: "types",
    body: {
      p_at: "2026-01-02T03:04:05Z",
      p_ids: [1, 2],
      p_amount: 12.345678901234567,
      p_flag: true,
      p_big: 9007199254740991,
    },
    status: 200,
    answer: {
      at: "2026-01-02T03:04:05",
      ids: [1, 2],
      amount: 12.345678901234567,
      flag: true,
      big: 9007199254740991,
    },
  },
  {
    rule: "a query string's text becomes the argument's type",
    path: "types?p_at=2026-01-02T03:04:05Z&p_ids={1,2}&p_amount=1.5&p_flag=true&p_big=7",
    method: "GET",
    status: 200,
    answer: { at: "2026-01-02T03:04:05", ids: [1, 2], amount: 1.5, flag: true, big: 7 },
  },
  {
    rule: "a large number reaches the function exactly as written",
    path: "echo",
    raw: '{"p_value": {"n": 9007199254740993}}',
    status: 200,
    answer: { n: 9007199254740993n.toString() },
  },
  {
    rule: "a variadic argument takes an array",
    path: "total",
    body: { n: [1, 2, 3] },
    status: 200,
    answer: 6,
  },
  {
    rule: "a single unnamed json argument takes the whole body",
    path: "whole",
    body: { any: "thing" },
    status: 200,
    answer: { got: { any: "thing" } },
  },
  {
    rule: "a single unnamed json argument takes an array too",
    path: "whole",
    body: [1],
    status: 200,
    answer: { got: [1] },
  },
  {
    rule: "scalar: the bare value",
    path: "greet",
    body: { p_name: "Ada" },
    status: 200,
    answer: "hello Ada",
  },
  { rule: "null scalar: null", path: "no_text", body: {}, status: 200, answer: null },
  { rule: "null json: null", path: "no_json", body: {}, status: 200, answer: null },
  {
    rule: "void: 204 and no body",
    path: "nothing",
    body: {},
    status: 204,
    answer: "",
    answerHeaders: { "content-type": null },
  },
  {
    rule: "setof: an array",
    path: "people",
    body: {},
    status: 200,
    answer: [
      { id: 1, name: "Ada", age: 36, nick: null },
      { id: 2, name: "Bob", age: 20, nick: "b" },
      { id: 3, name: "Cyd", age: 70, nick: "c" },
    ],
  },
  {
    rule: "returns table: an array of objects",
    path: "people_table",
    body: { p_older_than: 30 },
    status: 200,
    answer: [
      { name: "Ada", age: 36 },
      { name: "Cyd", age: 70 },
    ],
  },
  { rule: "empty set: []", path: "people_table", body: { p_older_than: 99 }, status: 200, answer: [] },
  {
    rule: "setof scalar: an array of values",
    path: "numbers",
    body: { n: 3 },
    status: 200,
    answer: [1, 2, 3],
  },
  {
    rule: "composite: one object",
    path: "person",
    body: { p_id: 2 },
    status: 200,
    answer: { id: 2, name: "Bob", age: 20, nick: "b" },
  },
  {
    rule: "one OUT argument: an object",
    path: "out_one?num=5",
    method: "GET",
    status: 200,
    answer: { num_plus_one: 6 },
  },
  {
    rule: "several OUT arguments: an object",
    path: "out_many",
    method: "GET",
    status: 200,
    answer: { one: 1, two: "two" },
  },
  {
    rule: "overloads are told apart by argument names",
    path: "overloaded",
    body: { a: 1, b: 2 },
    status: 200,
    answer: "ab",
  },
  {
    rule: "overloads are told apart by argument names (fewer)",
    path: "overloaded",
    body: { a: 1 },
    status: 200,
    answer: "a",
  },
  {
    rule: "overloads that differ by type alone: 300 PGRST203",
    path: "ambiguous",
    body: { a: 1 },
    status: 300,
    answer: error(
      "PGRST203",
      "Could not choose the best candidate function between: public.ambiguous(a => integer), public.ambiguous(a => text)",
      null,
      "Try renaming the parameters or the function itself in the database so function overloading can be resolved",
    ),
  },
  {
    rule: "unknown function: 404 PGRST202",
    path: "nowhere_near",
    body: {},
    status: 404,
    answer: error(
      "PGRST202",
      "Could not find the function public.nowhere_near without parameters in the schema cache",
      "Searched for the function public.nowhere_near without parameters or with a single unnamed json/jsonb parameter, but no matches were found in the schema cache.",
    ),
  },
  {
    rule: "unknown function with a near name: a hint",
    path: "gret",
    body: {},
    status: 404,
    answer: error("PGRST202", some, some, "Perhaps you meant to call the function public.greet"),
  },
  {
    rule: "missing argument: 404 PGRST202",
    path: "add",
    body: { a: 1 },
    status: 404,
    answer: error(
      "PGRST202",
      "Could not find the function public.add(a) in the schema cache",
      some,
      "Perhaps you meant to call the function public.add(a, b)",
    ),
  },
  {
    rule: "extra argument: 404 PGRST202",
    path: "add",
    body: { a: 1, b: 2, c: 3 },
    status: 404,
    answer: error(
      "PGRST202",
      "Could not find the function public.add(a, b, c) in the schema cache",
      "Searched for the function public.add with parameters a, b, c or with a single unnamed json/jsonb parameter, but no matches were found in the schema cache.",
      some,
    ),
  },
  {
    rule: "a trigger function cannot be called",
    path: "notify_change",
    body: {},
    status: 404,
    answer: error("PGRST202", some, some, null),
  },
  {
    rule: "a table is not exposed",
    path: "/rest/v1/people",
    method: "GET",
    status: 404,
    answer: error("PGRST205", "Could not find the table 'public.people' in the schema cache"),
  },
  {
    rule: "other methods: 405 PGRST101",
    path: "add",
    method: "DELETE",
    status: 405,
    answer: error("PGRST101", "Cannot use the DELETE method on RPC"),
  },
  {
    rule: "another schema: 406 PGRST106",
    path: "add",
    body: { a: 1, b: 2 },
    headers: { "content-profile": "governance" },
    status: 406,
    answer: error(
      "PGRST106",
      "Invalid schema: governance",
      null,
      "Only the following schemas are exposed: public",
    ),
  },
];

// https://docs.postgrest.org/en/stable/references/transactions.html
const TRANSACTIONS: Rule[] = [
  {
    rule: "GET runs read-only: a writer answers 405",
    path: "add_person?p_name=Get",
    method: "GET",
    status: 405,
    answer: error("25006", "cannot execute INSERT in a read-only transaction"),
  },
  {
    rule: "POST of a stable function runs read-only",
    path: "stable_writer",
    body: { p_name: "Stable" },
    status: 405,
    answer: error("25006", "cannot execute INSERT in a read-only transaction"),
  },
  {
    rule: "what the caller is: role, claims, method and path",
    path: "who",
    body: {},
    as: "authenticated",
    status: 200,
    answer: {
      role: "authenticated",
      claims: expect.objectContaining({ sub: "ada", role: "authenticated" }) as unknown,
      method: "POST",
      path: "/rpc/who",
      read_only: "off",
    },
  },
  {
    rule: "an error takes back what the function wrote",
    path: "fail_after_writing",
    body: { p_name: "Gone" },
    status: 409,
    answer: error("PT409", "stop"),
  },
  { rule: "and it is gone", path: "people?name=eq.Gone", method: "GET", status: 200, answer: [] },
];

// https://docs.postgrest.org/en/stable/references/api/resource_representation.html
const REPRESENTATION: Rule[] = [
  {
    rule: "object+json of one row: the object",
    path: "people?id=eq.2",
    method: "GET",
    headers: OBJECT,
    status: 200,
    answer: { id: 2, name: "Bob", age: 20, nick: "b" },
    answerHeaders: { "content-type": "application/vnd.pgrst.object+json; charset=utf-8" },
  },
  {
    rule: "object+json of no row: 406 PGRST116",
    path: "people?id=eq.99",
    method: "GET",
    headers: OBJECT,
    status: 406,
    answer: error(
      "PGRST116",
      "Cannot coerce the result to a single JSON object",
      "The result contains 0 rows",
    ),
  },
  {
    rule: "object+json of two rows: 406 PGRST116",
    path: "add_person",
    body: { p_name: "Twin", p_times: 2 },
    headers: OBJECT,
    status: 406,
    answer: error(
      "PGRST116",
      "Cannot coerce the result to a single JSON object",
      "The result contains 2 rows",
    ),
  },
  {
    rule: "and the write of the refused call is taken back",
    path: "people?name=like.Twin*",
    method: "GET",
    status: 200,
    answer: [],
  },
  {
    rule: "object+json of a scalar: the value",
    path: "add",
    body: { a: 1, b: 2 },
    headers: OBJECT,
    status: 200,
    answer: 3,
  },
  {
    rule: "nulls=stripped leaves nulls out",
    path: "people?id=eq.1",
    method: "GET",
    headers: { accept: "application/vnd.pgrst.array+json;nulls=stripped" },
    status: 200,
    answer: [{ id: 1, name: "Ada", age: 36 }],
  },
  {
    rule: "a media type that is not spoken: 406 PGRST107",
    path: "people",
    method: "GET",
    headers: { accept: "text/csv" },
    status: 406,
    answer: error("PGRST107", "None of these media types are available: text/csv"),
  },
];

// https://docs.postgrest.org/en/stable/references/api/tables_views.html and pagination_count.html
const RESULTS: Rule[] = [
  {
    rule: "select: columns, aliases, casts",
    path: "people?select=who:name,age::text&id=eq.2",
    method: "GET",
    status: 200,
    answer: [{ who: "Bob", age: "20" }],
  },
  {
    rule: "filters of a GET stand beside its arguments",
    path: "people_table?p_older_than=30&name=eq.Cyd",
    method: "GET",
    status: 200,
    answer: [{ name: "Cyd", age: 70 }],
  },
  {
    rule: "filters of a POST are in the query string",
    path: "people_table?age=lt.50",
    body: { p_older_than: 30 },
    status: 200,
    answer: [{ name: "Ada", age: 36 }],
  },
  {
    rule: "in, not, is, like",
    path: "people?select=id&id=in.(1,2)&nick=not.is.null&name=like.B*",
    method: "GET",
    status: 200,
    answer: [{ id: 2 }],
  },
  {
    rule: "order: direction and nulls",
    path: "people?select=nick&order=nick.desc.nullslast",
    method: "GET",
    status: 200,
    answer: [{ nick: "c" }, { nick: "b" }, { nick: null }],
  },
  {
    rule: "limit and offset",
    path: "people?select=id&order=id&limit=1&offset=1",
    method: "GET",
    status: 200,
    answer: [{ id: 2 }],
    answerHeaders: { "content-range": "1-1/*" },
  },
  {
    rule: "count=exact: the total, and 206 for a part",
    path: "people?select=id&order=id&limit=1",
    method: "GET",
    headers: { prefer: "count=exact" },
    status: 206,
    answer: [{ id: 1 }],
    answerHeaders: { "content-range": "0-0/3", "preference-applied": "count=exact" },
  },
  {
    rule: "count=exact of everything: 200",
    path: "people?select=id&order=id",
    method: "GET",
    headers: { prefer: "count=exact" },
    status: 200,
    answer: [{ id: 1 }, { id: 2 }, { id: 3 }],
    answerHeaders: { "content-range": "0-2/3" },
  },
  {
    rule: "Range header of a GET",
    path: "people?select=id&order=id",
    method: "GET",
    headers: { range: "1-2" },
    status: 200,
    answer: [{ id: 2 }, { id: 3 }],
    answerHeaders: { "content-range": "1-2/*" },
  },
  {
    rule: "a range the wrong way round: 416 PGRST103",
    path: "people",
    method: "GET",
    headers: { range: "2-1" },
    status: 416,
    answer: error("PGRST103", "Requested range not satisfiable", some),
  },
  {
    rule: "an offset past a known total: 416 PGRST103",
    path: "people?offset=9",
    method: "GET",
    headers: { prefer: "count=exact" },
    status: 416,
    answer: error(
      "PGRST103",
      "Requested range not satisfiable",
      "An offset of 9 was requested, but there are only 3 rows.",
    ),
  },
  {
    rule: "a negative limit: 416 PGRST103",
    path: "people?limit=-1",
    method: "GET",
    status: 416,
    answer: error(
      "PGRST103",
      "Requested range not satisfiable",
      "Limit should be greater than or equal to zero.",
    ),
  },
  {
    rule: "an unknown column: 400 42703",
    path: "people?select=shoe",
    method: "GET",
    status: 400,
    answer: error("42703", some),
  },
  {
    rule: "a quote in a column name stays a name",
    path: `people?select=${encodeURIComponent('na"me')}`,
    method: "GET",
    status: 400,
    answer: error("PGRST100", some, some),
  },
  {
    rule: "a quote in a filter stays a value",
    path: `people?name=eq.${encodeURIComponent("x' or '1'='1")}`,
    method: "GET",
    status: 200,
    answer: [],
  },
  {
    rule: "an operator that is not spoken: 400 PGRST100",
    path: "people?name=fts.x",
    method: "GET",
    status: 400,
    answer: error("PGRST100", some, some),
  },
  {
    rule: "max-affected, strict: 400 PGRST124 and taken back",
    path: "add_person",
    body: { p_name: "Many", p_times: 3 },
    headers: { prefer: "handling=strict,max-affected=2" },
    status: 400,
    answer: error(
      "PGRST124",
      "Query result exceeds max-affected preference constraint",
      "The query affects 3 rows",
    ),
  },
  {
    rule: "max-affected of a scalar: 400 PGRST128",
    path: "add",
    body: { a: 1, b: 1 },
    headers: { prefer: "handling=strict,max-affected=2" },
    status: 400,
    answer: error("PGRST128", some),
  },
];

// https://docs.postgrest.org/en/stable/references/errors.html
const ERRORS: Rule[] = [
  ...[
    ["08000", 503],
    ["09000", 500],
    ["0L000", 403],
    ["0P000", 403],
    ["23503", 409],
    ["23505", 409],
    ["25006", 405],
    ["25000", 500],
    ["28000", 403],
    ["2D000", 500],
    ["38000", 500],
    ["39000", 500],
    ["3B000", 500],
    ["40001", 500],
    ["53400", 500],
    ["53000", 503],
    ["54000", 500],
    ["55000", 500],
    ["57014", 500],
    ["58000", 500],
    ["F0000", 500],
    ["HV000", 500],
    ["P0001", 400],
    ["P0002", 500],
    ["XX000", 500],
    ["42883", 404],
    ["42P01", 404],
    ["42P17", 500],
    ["42501", 403],
    ["21000", 500],
    ["22023", 400],
    ["22P02", 400],
    ["23502", 400],
    ["PT402", 402],
    ["PT429", 429],
    ["PT403", 403],
    ["PTABC", 500],
  ].map(
    ([code, status]): Rule => ({
      rule: `SQLSTATE ${code}: ${status}`,
      path: "fail",
      body: { p_code: code },
      status: Number(status),
      answer: error(String(code), "no"),
    }),
  ),
  {
    rule: "PTxyz: the status, with detail and hint",
    path: "fail",
    body: {
      p_code: "PT402",
      p_message: "Payment Required",
      p_detail: "have 1, need 2",
      p_hint: "insufficient_tokens",
    },
    status: 402,
    answer: error("PT402", "Payment Required", "have 1, need 2", "insufficient_tokens"),
  },
  {
    rule: "PGRST: message and detail say the whole answer",
    path: "fail",
    body: {
      p_code: "PGRST",
      p_message: '{"code":"123","message":"Payment Required","details":"Quota exceeded","hint":"Upgrade"}',
      p_detail: '{"status":402,"headers":{"X-Powered-By":"Nerd Rage"}}',
    },
    status: 402,
    answer: error("123", "Payment Required", "Quota exceeded", "Upgrade"),
    answerHeaders: { "x-powered-by": "Nerd Rage" },
  },
  {
    rule: "PGRST with a detail that is not JSON: 500 PGRST121",
    path: "fail",
    body: { p_code: "PGRST", p_message: '{"code":"1","message":"m"}', p_detail: "x" },
    status: 500,
    answer: error("PGRST121", some, "Invalid JSON value for DETAIL: 'x'", some),
  },
  {
    rule: "42501 is 401 for anon",
    path: "server_only",
    body: {},
    as: "anon",
    status: 401,
    answer: error("42501", "permission denied for function server_only"),
  },
  {
    rule: "42501 is 403 for others",
    path: "server_only",
    body: {},
    as: "authenticated",
    status: 403,
    answer: error("42501", "permission denied for function server_only"),
  },
  {
    rule: "an error of the server keeps its code",
    path: "divide",
    body: { a: 1, b: 0 },
    status: 400,
    answer: error("22012", "division by zero"),
  },
];

const HOSTILE: Rule[] = [
  {
    rule: "malformed JSON: 400 PGRST102",
    path: "add",
    raw: '{"a":',
    status: 400,
    answer: error("PGRST102", "Empty or invalid json"),
  },
  {
    rule: "a body that is not UTF-8",
    path: "add",
    raw: new Uint8Array([0x7b, 0xff, 0x7d]),
    status: 400,
    answer: error("PGRST102", "Empty or invalid json", "The body is not UTF-8."),
  },
  {
    rule: "a content type that is not spoken",
    path: "add",
    raw: "<a/>",
    headers: { "content-type": "text/xml" },
    status: 400,
    answer: error("PGRST102", "Content-Type not acceptable: text/xml"),
  },
  {
    rule: "NUL in a text argument",
    path: "greet",
    raw: '{"p_name":"a\\u0000b"}',
    status: 400,
    answer: error("22P05", some, some),
  },
  {
    rule: "NUL in a jsonb argument",
    path: "echo",
    raw: '{"p_value":"a\\u0000b"}',
    status: 400,
    answer: error("22P05", some, some),
  },
  {
    rule: "NUL in a query string",
    path: "greet?p_name=a%00b",
    method: "GET",
    status: 400,
    answer: error("22021", some),
  },
  {
    rule: "NUL in the function's name",
    path: "gr%00eet",
    body: {},
    status: 404,
    answer: error("PGRST202", some, some, expect.anything()),
  },
  {
    rule: "a lone surrogate in a text argument",
    path: "greet",
    raw: '{"p_name":"\\ud800"}',
    status: 400,
    answer: error("22P02", some, some),
  },
  {
    rule: "a lone surrogate in a jsonb argument",
    path: "echo",
    raw: '{"p_value":"\\udc00"}',
    status: 400,
    answer: error("22P02", some, some),
  },
  {
    rule: "a broken percent escape",
    path: "gr%E0%A4eet",
    body: {},
    status: 400,
    answer: error("PGRST125", some),
  },
  {
    rule: "JSON nested too deeply",
    path: "echo",
    raw: `{"p_value":${"[".repeat(100_000)}${"]".repeat(100_000)}}`,
    status: 400,
    answer: error("PGRST102", some, "Nested deeper than 500 levels."),
  },
  {
    rule: "a string of 1 MB",
    path: "text_length",
    body: { p_text: "x".repeat(1_000_000) },
    status: 200,
    answer: 1_000_000,
  },
  {
    rule: "a body past the limit: 413",
    path: "text_length",
    body: { p_text: "x".repeat(10 * 1024 * 1024) },
    status: 413,
    answer: error("PGRST102", "The body is too large", some),
  },
  {
    rule: "a body that is no object",
    path: "add",
    raw: "[1,2]",
    status: 404,
    answer: error("PGRST202", some, some, null),
  },
  {
    rule: "a number too large for its type",
    path: "add",
    body: { a: 1e300, b: 1 },
    status: 400,
    answer: error(expect.stringMatching(/^22/) as unknown as string, some),
  },
  {
    rule: "quotes and backslashes stay text",
    path: "greet",
    body: { p_name: `'; drop table fixture.people; -- \\' "` },
    status: 200,
    answer: `hello '; drop table fixture.people; -- \\' "`,
  },
  {
    rule: "__proto__ is an unknown argument like any other",
    path: "greet",
    raw: '{"__proto__":1}',
    status: 404,
    answer: error("PGRST202", some, some, null),
  },
];

const databases = [
  { name: "PGlite", server: null },
  { name: "PostgreSQL 18", server: urls[18] },
  ...(urls[15] ? [{ name: "PostgreSQL 15", server: urls[15] }] : []),
];

describe.each(databases)("the endpoint on $name", ({ server }) => {
  let project: TestProject;
  let resourcesDir: string;
  const tokens: Record<string, string> = {};

  beforeAll(async () => {
    resourcesDir = writeFixtureResources();
    project = await startFixtureProject({
      resourcesDir,
      ...(server === null ? {} : { databaseUrl: await createEmptyDatabase(server) }),
    });
    tokens.anon = project.anonKey;
    tokens.service_role = project.serviceRoleKey;
    tokens.authenticated = await project.sign({ role: "authenticated", sub: "ada" });
  });
  afterAll(async () => {
    await project.remove();
    rmSync(resourcesDir, { recursive: true });
  });

  async function send(
    path: string,
    init: Omit<RequestInit, "headers"> & { headers?: Record<string, string> } = {},
    token = project.serviceRoleKey,
  ): Promise<Response> {
    const address = path.startsWith("/") ? `${project.url}${path}` : `${project.url}/rest/v1/rpc/${path}`;
    return fetch(address, {
      ...init,
      headers: {
        apikey: project.anonKey,
        authorization: `Bearer ${token}`,
        "content-type": "application/json",
        ...init.headers,
      },
    });
  }

  async function expectRule({
    path,
    method = "POST",
    body,
    raw,
    headers = {},
    as = "service_role",
    ...expected
  }: Rule) {
    const init: Omit<RequestInit, "headers"> & { headers: Record<string, string> } = {
      method,
      headers: { "content-type": "application/json", ...headers },
    };
    if (method === "POST") init.body = raw ?? JSON.stringify(body);
    const response = await send(path, init, tokens[as]);
    const text = await response.text();
    expect.soft(response.status, text.slice(0, 500)).toBe(expected.status);
    if (expected.answer === "") expect.soft(text).toBe("");
    // Exactly as sent: JSON.parse would round what is compared as text.
    else if (path === "echo" && response.ok) expect.soft(text).toContain("9007199254740993");
    else if ("answer" in expected) expect.soft(JSON.parse(text)).toEqual(expected.answer);
    for (const [name, value] of Object.entries(expected.answerHeaders ?? {})) {
      expect.soft(response.headers.get(name), name).toBe(value);
    }
  }

  describe("functions, as PostgREST documents them", () => {
    it.each(FUNCTIONS)("$rule", expectRule);
  });
  describe("transactions, as PostgREST documents them", () => {
    it.each(TRANSACTIONS)("$rule", expectRule);
  });
  describe("representations, as PostgREST documents them", () => {
    it.each(REPRESENTATION)("$rule", expectRule);
  });
  describe("results, as PostgREST documents them", () => {
    it.each(RESULTS)("$rule", expectRule);
  });
  describe("errors, as PostgREST documents them", () => {
    it.each(ERRORS)("$rule", expectRule);
  });
  describe("hostile input is refused below 500", () => {
    it.each(HOSTILE)("$rule", expectRule);
  });

  // https://docs.postgrest.org/en/stable/references/auth.html and Supabase's gateway
  describe("keys and tokens", () => {
    const call = async (headers: Record<string, string>, query = "") => {
      const response = await fetch(`${project.url}/rest/v1/rpc/who${query}`, {
        method: "POST",
        body: "{}",
        headers: { "content-type": "application/json", ...headers },
      });
      return {
        status: response.status,
        body: (await response.json()) as Record<string, unknown>,
        headers: response.headers,
      };
    };
    const withToken = (token: string) => call({ apikey: project.anonKey, authorization: `Bearer ${token}` });

    it("no apikey: 401 in the gateway's words", async () => {
      expect(await call({})).toMatchObject({
        status: 401,
        body: {
          message: "No API key found in request",
          hint: "No `apikey` request header or url param was found.",
        },
      });
    });
    it("an unknown apikey: 401 in the gateway's words", async () => {
      expect(await call({ apikey: "x" })).toMatchObject({
        status: 401,
        body: { message: "Invalid API key" },
      });
    });
    it("the apikey alone names the role, in the header or the query string", async () => {
      expect(await call({ apikey: project.anonKey })).toMatchObject({ status: 200, body: { role: "anon" } });
      expect(await call({ apikey: project.serviceRoleKey })).toMatchObject({
        body: { role: "service_role" },
      });
      expect(await call({}, `?apikey=${project.anonKey}`)).toMatchObject({ body: { role: "anon" } });
    });
    it("Supabase's newer keys are taken as what they stand for", async () => {
      expect(project.secretKey).toMatch(/^sb_secret_[\w-]{31}$/);
      const bearer = (key: string) => call({ apikey: key, authorization: `Bearer ${key}` });
      expect(await bearer(project.secretKey)).toMatchObject({ status: 200, body: { role: "service_role" } });
      expect(await bearer(project.publishableKey)).toMatchObject({ status: 200, body: { role: "anon" } });
      expect(await bearer(`${project.secretKey.slice(0, -1)}!`)).toMatchObject({ status: 401 });
      const user = { apikey: project.publishableKey, authorization: `Bearer ${tokens.authenticated}` };
      expect(await call(user)).toMatchObject({ status: 200, body: { role: "authenticated" } });
    });
    it("the Authorization header's role wins over the apikey's", async () => {
      expect(await withToken(project.serviceRoleKey)).toMatchObject({
        status: 200,
        body: { role: "service_role" },
      });
    });
    it("a token without a role is anon", async () => {
      expect(await withToken(await project.sign({ sub: "x" }))).toMatchObject({
        status: 200,
        body: { role: "anon" },
      });
    });
    it("an expired token: 401 PGRST303", async () => {
      const expired = await project.sign({ role: "service_role", exp: Math.floor(Date.now() / 1000) - 60 });
      const { status, body, headers } = await withToken(expired);
      expect({ status, body }).toEqual({ status: 401, body: error("PGRST303", "JWT expired") });
      expect(headers.get("www-authenticate")).toBe(
        'Bearer error="invalid_token", error_description="JWT expired"',
      );
      expect(await call({ apikey: expired })).toMatchObject({ status: 401, body: { code: "PGRST303" } });
    });
    it("a token that expired within 30 seconds is taken: clocks differ", async () => {
      const token = await project.sign({ role: "anon", exp: Math.floor(Date.now() / 1000) - 10 });
      expect(await withToken(token)).toMatchObject({ status: 200 });
    });
    it.each([
      ["signed with another secret", "signature"],
      ["not of three parts", "parts"],
      ["garbage in three parts", "garbage"],
      ["with the algorithm none", "none"],
    ])("a token %s: 401 PGRST301", async (_, kind) => {
      const none = `${Buffer.from('{"alg":"none"}').toString("base64url")}.${Buffer.from('{"role":"service_role"}').toString("base64url")}.`;
      const token = {
        signature: await project.sign({ role: "service_role" }, "another secret of thirty-two characters"),
        parts: "x.y",
        garbage: "x.y.z",
        none,
      }[kind];
      expect(await withToken(token ?? "")).toMatchObject({
        status: 401,
        body: { code: "PGRST301", details: kind === "signature" ? some : null },
      });
    });
    it("a token that is not valid yet, or from the future: 401 PGRST303", async () => {
      const later = Math.floor(Date.now() / 1000) + 600;
      expect(await withToken(await project.sign({ nbf: later }))).toMatchObject({
        status: 401,
        body: error("PGRST303", "JWT not yet valid"),
      });
      expect(await withToken(await project.sign({ iat: later }))).toMatchObject({
        status: 401,
        body: error("PGRST303", "JWT issued at future"),
      });
    });
    it("a role that does not exist: 401 22023", async () => {
      expect(await withToken(await project.sign({ role: "nobody" }))).toMatchObject({
        status: 401,
        body: error("22023", 'role "nobody" does not exist'),
      });
    });
    it("a role that the endpoint may not take, superuser above all: 403 42501", async () => {
      expect(await withToken(await project.sign({ role: "postgres" }))).toMatchObject({
        status: 403,
        body: error("42501", 'permission denied to set role "postgres"'),
      });
      expect(await withToken(await project.sign({ role: "project_owner" }))).toMatchObject({ status: 403 });
    });
    it("a quote in a claim stays text", async () => {
      const token = await project.sign({ role: "authenticated", sub: "a'b\\'c" });
      expect(await withToken(token)).toMatchObject({ status: 200, body: { claims: { sub: "a'b\\'c" } } });
    });
  });

  describe("the gateway", () => {
    it("answers a preflight from a loopback origin, and refuses other origins", async () => {
      const preflight = await send("add", {
        method: "OPTIONS",
        headers: { origin: "http://localhost:5173", "access-control-request-headers": "apikey, x-thing" },
      });
      expect(preflight.status).toBe(204);
      expect(preflight.headers.get("access-control-allow-origin")).toBe("http://localhost:5173");
      expect(preflight.headers.get("access-control-allow-headers")).toBe("apikey, x-thing");
      const foreign = await send("add", {
        method: "POST",
        body: "{}",
        headers: { origin: "https://evil.example" },
      });
      expect(foreign.status).toBe(403);
      expect(foreign.headers.get("access-control-allow-origin")).toBeNull();
    });
    it("lists the functions at the root, as OpenAPI", async () => {
      const response = await send("/rest/v1/");
      expect(response.headers.get("content-type")).toContain("application/openapi+json");
      const { paths } = (await response.json()) as { paths: Record<string, unknown> };
      expect(Object.keys(paths)).toContain("/rpc/add");
    });
    it("knows nothing but /rest/v1 and /realtime/v1", async () => {
      expect((await send("/storage/v1/bucket")).status).toBe(404);
      expect((await send("/rest/v1/rpc/add/more")).status).toBe(404);
    });
    it("answers many calls at once, each as its own caller", async () => {
      const roles = ["anon", "authenticated", "service_role"];
      const answers = await Promise.all(
        Array.from({ length: 90 }, async (_, index) => {
          const response = await send("who", { method: "POST", body: "{}" }, tokens[roles[index % 3] ?? ""]);
          return ((await response.json()) as { role: string }).role;
        }),
      );
      expect(answers).toEqual(Array.from({ length: 90 }, (_, index) => roles[index % 3]));
    });
  });

  it("lets no failing call spoil those that came at the same time", async () => {
    const outcomes = await Promise.all(
      Array.from({ length: 60 }, async (_, index) => {
        const failing = index % 3 === 0;
        const init = { method: "POST", body: JSON.stringify({ p_name: `Crowd-${index}` }) };
        const response = await send(failing ? "fail_after_writing" : "add_person", init, tokens.service_role);
        const body = (await response.json()) as { name: string }[];
        return failing ? response.status : body[0]?.name;
      }),
    );
    const wanted = Array.from({ length: 60 }, (_, index) => (index % 3 === 0 ? 409 : `Crowd-${index}`));
    expect(outcomes).toEqual(wanted);
    const kept = (await (
      await send("people?select=name&name=like.Crowd*", { method: "GET" })
    ).json()) as unknown[];
    expect(kept).toHaveLength(40);
  });

  describe("unmodified supabase-js", () => {
    let service: SupabaseClient;
    let user: SupabaseClient;
    beforeAll(() => {
      const auth = { persistSession: false, autoRefreshToken: false };
      service = createClient(project.url, project.serviceRoleKey, { auth });
      user = createClient(project.url, project.anonKey, {
        auth,
        accessToken: async () => tokens.authenticated ?? "",
      });
    });

    it("calls with arguments, by POST, GET and HEAD", async () => {
      expect((await service.rpc("add", { a: 1, b: 2 })).data).toBe(3);
      expect((await service.rpc("add", { a: 1, b: 2 }, { get: true })).data).toBe(3);
      expect((await service.rpc("total", { n: [1, 2] }, { get: true })).data).toBe(3);
      const head = await service.rpc("people", {}, { head: true, count: "exact" }).lt("id", 4);
      expect(head).toMatchObject({ data: null, error: null, count: 3, status: 200 });
    });
    it("sends the user's token", async () => {
      expect((await user.rpc("who")).data).toMatchObject({ role: "authenticated", claims: { sub: "ada" } });
    });
    it("gives void as null with 204", async () => {
      expect(await service.rpc("nothing")).toMatchObject({ data: null, error: null, status: 204 });
    });
    it("shapes results: select, filters, order, range, single, maybeSingle, count", async () => {
      const { data, count } = await service
        .rpc("people", {}, { count: "exact" })
        .select("id, name")
        .gte("age", 30)
        .order("age", { ascending: false })
        .range(0, 0);
      expect({ data, count }).toEqual({ data: [{ id: 3, name: "Cyd" }], count: 2 });
      expect((await service.rpc("people").eq("id", 1).single()).data).toMatchObject({ name: "Ada" });
      expect((await service.rpc("people").eq("id", 99).single()).error).toMatchObject({ code: "PGRST116" });
      expect(await service.rpc("people").eq("id", 99).maybeSingle()).toMatchObject({
        data: null,
        error: null,
      });
    });
    it("gets errors with code, message, details and hint", async () => {
      const { error: failure, status } = await service.rpc("fail", {
        p_code: "PT429",
        p_message: "Slow down",
        p_detail: "d",
        p_hint: "h",
      });
      expect(status).toBe(429);
      expect(failure).toMatchObject({ code: "PT429", message: "Slow down", details: "d", hint: "h" });
    });
    it("reads the functions' list", async () => {
      expect(
        (await fetch(`${project.url}/rest/v1/`, { method: "HEAD", headers: { apikey: project.anonKey } }))
          .status,
      ).toBe(200);
    });
  });

  it("sees a function made after it started, and one that changed", async () => {
    // PGlite has one connection, and the endpoint has it: nobody else can change its functions.
    if (project.databaseUrl === null) return;
    const client = new pg.Client({ connectionString: project.databaseUrl });
    await client.connect();
    try {
      expect((await send("newcomer", { method: "POST", body: "{}" })).status).toBe(404);
      await client.query("create function public.newcomer() returns int language sql as 'select 1'");
      const answer = async (body: string): Promise<unknown> =>
        (await send("newcomer", { method: "POST", body })).json();
      await expect.poll(() => answer("{}")).toBe(1);
      await client.query("drop function public.newcomer()");
      await client.query(
        "create function public.newcomer(a int default 5) returns int language sql as 'select a'",
      );
      await client.query("notify pgrst, 'reload schema'");
      await expect.poll(() => answer('{"a":7}')).toBe(7);
    } finally {
      await client.end();
    }
  });
});
