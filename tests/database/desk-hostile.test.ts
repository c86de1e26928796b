/** Nothing that reaches the desk's functions may be answered with a fault: a stated error, and nothing changed. */
import fc from "fast-check";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Desk, openDesk, use } from "./desk.ts";

interface Parameter {
  readonly name: string;
  readonly type: string;
}
interface Function {
  readonly name: string;
  readonly parameters: readonly Parameter[];
}

/** Refusals that PostgreSQL itself gives before a function is entered: a text that is no number, date or JSON. */
const badArgument = /^(22P02|22003|22007|22008|22021|22P05|22009|42883|42P01|54001)$/;

const oddTexts = [
  "",
  " ",
  "\t\n",
  "null",
  "NaN",
  "'",
  "\\",
  "%",
  "_",
  "'; drop table governance.accounts; --",
  "user-1",
  "😀👩‍👩‍👧",
  "‮abc",
  "İıſ",
  "x".repeat(300),
  "x".repeat(100_000),
  "e30=",
  "2026-02-30",
  "-infinity",
  "infinity",
  "4713-01-01 BC",
  "294276-12-31",
  "public.nothing",
  "pg_class",
  "day",
  "settle",
  "release",
];
const oddNumbers = [
  "0",
  "-1",
  "1",
  "7",
  "2147483647",
  "2147483648",
  "-2147483648",
  "9007199254740993",
  "9223372036854775807",
  "9223372036854775808",
  "-9223372036854775808",
  "1e400",
  "NaN",
  "1.5",
];
const oddJson = [
  "{}",
  "[]",
  "null",
  "1",
  '"x"',
  "[[[[]]]]",
  '{"user_id": 7}',
  '{"kinds": [1, null, {}]}',
  '{"kinds": ["blocked"]}',
  '{"reason": "\\u0001"}',
  '{"id": {}}',
  '{"a": "\\u0000"}',
  `{"user_id": "${"x".repeat(50_000)}"}`,
  "{",
];

function oddValue(type: string): fc.Arbitrary<string | null> {
  const list =
    type === "jsonb"
      ? oddJson
      : type === "boolean"
        ? ["true", "false", "maybe"]
        : /int|numeric/.test(type)
          ? oddNumbers
          : oddTexts;
  return fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...list) },
    { weight: 1, arbitrary: fc.constant(null) },
    {
      weight: 2,
      arbitrary: fc.string({ unit: "binary", maxLength: 40 }).filter((text) => !text.includes("\0")),
    },
  );
}

describe("the desk's functions under odd input", () => {
  let desk: Desk;
  let client: pg.Client;
  const functions: Function[] = [];
  beforeAll(async () => {
    desk = await openDesk(18);
    for (const user of ["user-1", "user-2"]) await use(desk, user, 100, { p_message: "hello" });
    await desk.rpc("authorize_usage", {
      p_request_id: "held",
      p_user_id: "user-1",
      p_model: "m",
      p_estimated_tokens: 10,
    });
    const { rows } = await desk.sql.query<{ name: string; names: string[] | null; types: string[] }>(`
      select p.proname as name, p.proargnames[1:p.pronargs] as names, array(select format_type(t, null) from unnest(p.proargtypes) t) as types
      from pg_proc p where p.pronamespace = 'public'::regnamespace and pg_get_userbyid(p.proowner) = 'project_owner'
        and (p.proname like 'console\\_%' or p.proname like 'my\\_%' or p.proname in ('explain_decision', 'calculate_user_token_usage', 'user_token_usage',
          'get_or_create_token_record', 'import_usage_history', 'claim_notifications', 'finish_notification'))`);
    for (const { name, names, types } of rows) {
      functions.push({
        name,
        parameters: (names ?? []).map((parameter, index) => ({
          name: parameter,
          type: types[index] ?? "text",
        })),
      });
    }
    client = new pg.Client({ connectionString: desk.ownerUrl });
    await client.connect();
    await client.query(`select set_config('request.jwt.claims', '{"sub": "user-1"}', false)`);
  });
  afterAll(async () => {
    await client.end();
    await desk.close();
  });

  it("know every one of them", () => {
    expect(functions.length).toBeGreaterThan(20);
  });

  it("answers, or refuses with a stated error and changes nothing", async () => {
    const seen = new Map<string, number>();
    for (const { name, parameters } of functions) {
      const inputs = fc.record(
        Object.fromEntries(parameters.map((parameter) => [parameter.name, oddValue(parameter.type)])),
      );
      for (const input of fc.sample(
        inputs,
        parameters.length === 0 ? 1 : Number(process.env["HOSTILE_CALLS"] ?? 60),
      )) {
        const keys = Object.keys(input);
        await client.query("begin");
        try {
          await client.query(
            `select public.${name}(${keys.map((key, index) => `${key} => $${index + 1}`).join(", ")})`,
            Object.values(input),
          );
          seen.set("answered", (seen.get("answered") ?? 0) + 1);
        } catch (error) {
          const code = error instanceof pg.DatabaseError ? (error.code ?? "") : String(error);
          if (!/^PT4\d\d$/.test(code) && !badArgument.test(code)) {
            throw new Error(
              `${name}(${JSON.stringify(input).slice(0, 2_000)}) gave ${code}: ${String(error)}`,
              { cause: error },
            );
          }
          seen.set(code, (seen.get(code) ?? 0) + 1);
        } finally {
          await client.query("rollback");
        }
      }
    }
    expect(seen.get("answered")).toBeGreaterThan(50);
    expect(seen.get("PT400")).toBeGreaterThan(50);
    expect(await desk.rpc("verify_ledger")).toMatchObject({ problems: [] });
  });

  it("refuses a token that names nobody, whatever it holds", async () => {
    for (const claims of [
      "",
      "{",
      "[]",
      "7",
      "null",
      "{}",
      '{"sub": null}',
      '{"sub": ""}',
      '{"sub": {}}',
      '{"sub": "   "}',
      `{"sub": "${"x".repeat(300)}"}`,
    ]) {
      await client.query("begin");
      await client.query("select set_config('request.jwt.claims', $1, true)", [claims]);
      const code = await client.query("select public.my_token_balance()").then(
        () => "answered",
        (error: pg.DatabaseError) => error.code,
      );
      await client.query("rollback");
      expect([claims, code]).toEqual([claims, "PT401"]);
    }
  });
});
