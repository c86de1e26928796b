/**
 * Whole documents and every function under attack: events of Stripe, rules, presets, cursors with one part replaced by
 * what no one expects. Seeded, so that a fault comes again.
 */
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startLocalProject } from "../../../local-project/index.ts";
import { readPreset } from "../../../local-project/migrations.ts";
import { seedRandom } from "../../../local-project/sample-data/random.ts";
import { hostile, type Reply, Target } from "../../support/attack-target.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

let target: Target;
let sql: pg.Client;
beforeAll(async () => {
  const { url, ownerUrl } = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
  target = new Target(await startLocalProject({ databaseUrl: ownerUrl }));
  sql = new pg.Client({ connectionString: url });
  await sql.connect();
  await target.ask("upsert_account", { p_user_id: "victim" });
});
afterAll(async () => {
  await target?.project.stop();
  await sql?.end();
});

function faultOf({ status, body }: Reply): string | null {
  if (status >= 500 || body?.code?.startsWith("XX")) return "5xx";
  if (status >= 400 && !body?.message) return "no words";
  if (status >= 400 && body.code?.startsWith("PT") && !body.hint) return "no hint";
  return null;
}

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type Path = readonly (string | number)[];

/** Every place in a document, the inner nodes too. */
function placesIn(node: Json, path: Path = []): Path[] {
  if (node === null || typeof node !== "object") return [path];
  const children = Array.isArray(node) ? [...node.entries()] : Object.entries(node);
  return [path, ...children.flatMap(([key, child]) => placesIn(child, [...path, key]))];
}

const MARK = "\u0001here\u0001";
/** The document as JSON text, with the JSON text `replacement` at `path`; undefined removes what is there. */
function withPart(document: Json, path: Path, replacement: string | undefined): string {
  const copy = structuredClone(document);
  const [last] = path.slice(-1);
  if (last === undefined) return replacement ?? "null";
  // The path was read from this very document.
  const parent = path
    .slice(0, -1)
    .reduce<Json>((node, key) => (node as Record<string, Json>)[key] as Json, copy) as Record<string, Json>;
  if (replacement === undefined) {
    if (Array.isArray(parent)) parent.splice(Number(last), 1);
    else delete parent[last];
    return JSON.stringify(copy);
  }
  parent[last] = MARK;
  return JSON.stringify(copy).replace(JSON.stringify(MARK), () => replacement);
}

/** Some of the (place, value) pairs of a document, the same each time. */
function variations(document: Json, howMany: number): { what: string; json: string }[] {
  const random = seedRandom(4711, JSON.stringify(document).length, howMany);
  const places = placesIn(document);
  const values: [string, string | undefined][] = [["nothing", undefined], ...Object.entries(hostile)];
  return Array.from({ length: howMany }, () => {
    const path = random.pick(places);
    const [name, value] = random.pick(values);
    return { what: `${path.join(".")} = ${name}`, json: withPart(document, path, value) };
  });
}

describe("every function of the service", () => {
  const byType: Readonly<Record<string, string>> = {
    text: '"victim"',
    bigint: "1",
    integer: "1",
    numeric: "0.5",
    boolean: "true",
    jsonb: "{}",
    "timestamp with time zone": '"2026-11-01T00:00:00Z"',
    date: '"2026-11-01"',
    "text[]": '["victim"]',
    "bigint[]": "[1]",
    uuid: '"00000000-0000-4000-8000-000000000000"',
  };

  const hardest = new Set([
    "null",
    "an empty text",
    "2^53 + 1",
    "-2^63",
    "the text -infinity",
    "an object",
    "NUL",
    "half a surrogate pair",
  ]);

  it("answers or refuses in words, whatever each argument is", async () => {
    const { rows } = await sql.query(`
      select p.proname as name, coalesce(p.proargnames[1:p.pronargs], '{}') as names,
        array(select format_type(t, null) from unnest(p.proargtypes) with ordinality u(t, n) order by n) as types
      from pg_proc p where p.pronamespace = 'public'::regnamespace and p.prokind = 'f' and has_function_privilege('service_role', p.oid, 'execute')
        and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
      order by 1`);
    const faults: string[] = [];
    for (const { name, names, types } of rows as { name: string; names: string[]; types: string[] }[]) {
      const plain = Object.fromEntries(
        names.map((parameter, index) => [parameter, byType[types[index] ?? ""] ?? "null"]),
      );
      const tries = [
        { what: "plain", parameters: plain },
        ...names.flatMap((parameter) =>
          Object.entries(hostile)
            // Every argument of every function: what hits hardest. The whole list is in attack.test.ts.
            .filter(([value]) => hardest.has(value))
            .map(([value, json]) => ({
              what: `${parameter} = ${value}`,
              parameters: { ...plain, [parameter]: json },
            })),
        ),
      ];
      for (const { what, parameters } of tries) {
        const reply = await target.send(name, parameters);
        const fault = faultOf(reply);
        if (fault)
          faults.push(
            `${fault}: ${name} ${what}: ${reply.status} ${JSON.stringify(reply.body).slice(0, 240)}`,
          );
      }
    }
    expect(faults).toEqual([]);
    await target.expectSoundLedger();
  });

  it("is closed to anon, and all but the user's own to authenticated", async () => {
    const { rows } = await sql.query(`
      select r.rolname as role, p.proname as name from pg_proc p cross join pg_roles r
      where p.pronamespace in ('public'::regnamespace, 'governance'::regnamespace) and r.rolname in ('anon', 'authenticated')
        and has_function_privilege(r.oid, p.oid, 'execute')
        and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')`);
    for (const { role, name } of rows as { role: string; name: string }[]) {
      expect([role, name]).toEqual(["authenticated", expect.stringMatching(/^my_/)]);
    }
  });

  it("owns no table that a role of the API can read or write, but the wake-ups", async () => {
    const { rows } = await sql.query(`
      select r.rolname as role, c.oid::regclass::text as name from pg_class c cross join pg_roles r
      where c.relnamespace = 'governance'::regnamespace and c.relkind in ('r', 'p', 'v') and r.rolname in ('anon', 'authenticated', 'service_role')
        and (has_table_privilege(r.oid, c.oid, 'select') or has_table_privilege(r.oid, c.oid, 'insert') or has_table_privilege(r.oid, c.oid, 'update') or has_table_privilege(r.oid, c.oid, 'delete'))`);
    expect(rows).toEqual([{ role: "service_role", name: "governance.signals" }]);
  });
});

describe("events of Stripe", () => {
  it("credit what was paid or nothing, whatever is in them", async () => {
    const { pack_id, tokens, price_minor, currency } = (
      await sql.query(
        "select pack_id, tokens::int, price_minor::int, currency from governance.packs where retired_at is null order by tokens limit 1",
      )
    ).rows[0] as { pack_id: string; tokens: number; price_minor: number; currency: string };
    const event = (id: string): Json => ({
      id: `evt_${id}`,
      object: "event",
      type: "checkout.session.completed",
      api_version: "2024-06-20",
      created: 1_795_000_000,
      livemode: true,
      data: {
        object: {
          id: `cs_live_${id}`,
          object: "checkout.session",
          mode: "payment",
          payment_status: "paid",
          status: "complete",
          amount_total: price_minor,
          currency,
          client_reference_id: "victim",
          customer: `cus_${id}`,
          payment_intent: `pi_${id}`,
          livemode: true,
          metadata: { user_id: "victim", pack_id, tokens: String(tokens) },
        },
      },
    });
    const faults: string[] = [];
    const balance = async (): Promise<number> =>
      target.ask<number>("get_user_token_balance", { p_user_id: "victim" });
    const before = await balance();
    expect(
      await target.send("process_stripe_event", { p_event: JSON.stringify(event("good")) }),
    ).toMatchObject({ status: 200, body: { status: "processed" } });
    expect(await balance()).toBe(before + tokens);

    let last = await balance();
    for (const [index, { what, json }] of variations(event("x"), 250).entries()) {
      // Each is a payment of its own, so that each may credit once.
      const reply = await target.send("process_stripe_event", {
        p_event: json.replaceAll('_x"', `_x${index}"`),
      });
      const fault = faultOf(reply);
      if (fault)
        faults.push(`${fault}: ${what}: ${reply.status} ${JSON.stringify(reply.body).slice(0, 240)}`);
      const now = await balance();
      if (now !== last && now !== last + tokens) faults.push(`credited ${now - last}: ${what}`);
      last = now;
    }
    expect(faults).toEqual([]);
    await target.expectSoundLedger();
  });
});

describe("configuration", () => {
  it("a rule with any part replaced is saved soundly or refused with its place, and calls go on", async () => {
    const rule: Json = {
      rule_name: "fuzzed",
      rule_type: "custom",
      priority: 50,
      mode: "enforce",
      is_active: true,
      description: "d",
      applies_to: { plans: ["nobody"], scopes: [] },
      conditions: {
        all: [
          { fact: "messages_today", op: ">", value: { plan: "daily_limit" } },
          {
            not: {
              any: [
                { fact: "message", op: "matches_any", value: ["spam", "eggs"] },
                { fact: "hour_utc", op: "between", value: [2, 6] },
              ],
            },
          },
        ],
      },
      action: { route: { model: "m" }, multiply_cost: { by: 1.5 }, warn: { message: "w" } },
    };
    const faults: string[] = [];
    for (const [index, { what, json }] of variations(rule, 200).entries()) {
      const reply = await target.send("save_rule", {
        p_command_id: `"fuzz-${index}"`,
        p_rule: json,
        p_operator: '"fuzzer"',
      });
      const fault = faultOf(reply);
      if (fault)
        faults.push(`${fault}: ${what}: ${reply.status} ${JSON.stringify(reply.body).slice(0, 240)}`);
      if (reply.status === 200) {
        const call = await target.send("authorize_usage", {
          p_request_id: `"fuzz-rule-${index}"`,
          p_user_id: '"fuzz-caller"',
          p_model: '"m"',
          p_estimated_tokens: "1",
          p_message: `"message ${index}"`,
        });
        if (call.status !== 200)
          faults.push(`broke calls: ${what}: ${call.status} ${JSON.stringify(call.body).slice(0, 240)}`);
      }
    }
    expect(faults).toEqual([]);
  });

  it("a preset with any part replaced is applied whole or not at all, and calls go on", async () => {
    const preset = readPreset("default") as Json;
    const faults: string[] = [];
    let digest = await configuration();
    for (const [index, { what, json }] of variations(preset, 70).entries()) {
      const reply = await target.send("apply_preset", { p_preset: json });
      const fault = faultOf(reply);
      if (fault)
        faults.push(`${fault}: ${what}: ${reply.status} ${JSON.stringify(reply.body).slice(0, 240)}`);
      const after = await configuration();
      if (reply.status >= 400 && after !== digest) faults.push(`half applied: ${what}`);
      digest = after;
      const call = await target.send("authorize_usage", {
        p_request_id: `"fuzz-preset-${index}"`,
        p_user_id: `"fuzz-user-${index}"`,
        p_model: '"m"',
        p_message: '"hello"',
      });
      // A preset without a default plan, or none at all, makes no accounts: that is said, not guessed.
      if (call.status !== 200 && call.body.hint !== "not_configured")
        faults.push(`broke calls: ${what}: ${call.status} ${JSON.stringify(call.body).slice(0, 240)}`);
    }
    expect(faults).toEqual([]);
    expect((await target.send("apply_preset", { p_preset: JSON.stringify(preset) })).status).toBe(200);
    await target.expectSoundLedger();
  });

  async function configuration(): Promise<string> {
    const { rows } = await sql.query(`select md5(
      (select coalesce(string_agg(p::text, '|' order by p.plan_id), '') from governance.plans p)
      || (select coalesce(string_agg(p::text, '|' order by p.pack_row_id), '') from governance.packs p)
      || (select coalesce(string_agg(p::text, '|' order by p.price_id), '') from governance.prices p)
      || (select coalesce(string_agg(r::text, '|' order by r.rule_name), '') from governance.rules r)
      || (select coalesce(string_agg(s::text, '|' order by s.key), '') from governance.settings s)
      || (select coalesce(string_agg(e::text, '|' order by e.task_type), '') from governance.estimates e)) as md5`);
    return rows[0].md5 as string;
  }
});

describe("cursors", () => {
  it("of the feed, bent in any place, are refused or read, and never hang", async () => {
    const { next_cursor } = await target.ask<{ next_cursor: string }>("usage_events_since", { p_limit: 3 });
    const random = seedRandom(4711, "cursor");
    const faults: string[] = [];
    for (let round = 0; round < 150; round++) {
      const characters = next_cursor.split("");
      for (let bends = random.whole(1, 3); bends > 0; bends--) {
        const at = random.whole(0, characters.length - 1);
        characters.splice(
          at,
          random.whole(0, 1),
          random.pick([..."0129.-:,xé".split(""), "", "99999999999999999999", "\u0000"]),
        );
      }
      const cursor = characters.join("");
      const started = Date.now();
      const reply = await target.send("usage_events_since", {
        p_cursor: JSON.stringify(cursor),
        p_limit: "5",
      });
      const fault = faultOf(reply) ?? (Date.now() - started > 30_000 ? "slow" : null);
      if (fault)
        faults.push(`${fault}: ${cursor}: ${reply.status} ${JSON.stringify(reply.body).slice(0, 240)}`);
    }
    expect(faults).toEqual([]);
  });
});
