/**
 * Inputs that no caller should send, made by the thousand for every function that the product has in `public`, and a
 * way to try them in the server, a few hundred in one round trip.
 */
import pg from "pg";
import { readPreset } from "../../../local-project/migrations.ts";
import * as stripe from "../stripe/events.ts";
import { dice } from "../dice.ts";

type Random = () => number;
type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

interface Parameter {
  readonly name: string;
  readonly type: string;
  readonly isOptional: boolean;
}
interface SqlFunction {
  readonly name: string;
  readonly parameters: readonly Parameter[];
}

/** A text, or one that would be long to send: `repeat` says which, and how often. */
type Argument = string | null | { readonly repeat: readonly [text: string, times: number] };
export interface Call {
  readonly sql: string;
  readonly arguments: readonly Argument[];
}
/** What became of a call: `answered`, or its SQLSTATE with hint and message. */
export interface Outcome {
  readonly state: string;
  readonly hint: string;
  readonly message: string;
}

/** Every function of ours in `public`, from the catalogue: one that is added is attacked without being named here. */
export async function publicFunctions(client: pg.Client): Promise<SqlFunction[]> {
  const { rows } = await client.query<{ name: string; parameters: Parameter[] }>(`
    select p.proname as name, coalesce((
      select jsonb_agg(jsonb_build_object('name', p.proargnames[u.n], 'type', format_type(u.t, null), 'isOptional', u.n > p.pronargs - p.pronargdefaults) order by u.n)
      from unnest(p.proargtypes) with ordinality u(t, n)), '[]') as parameters
    from pg_proc p where p.pronamespace = 'public'::regnamespace and p.prokind = 'f'
      and p.proowner = (select nspowner from pg_namespace where nspname = 'governance') order by 1`);
  return rows;
}

const from = <T>(list: readonly T[], random: Random): T => list[Math.floor(random() * list.length)] as T;

const oddTexts = [
  "",
  " ",
  "\t\n",
  "null",
  "NaN",
  "-1",
  "0",
  "'; drop table governance.accounts; --",
  "$$",
  "\\",
  "%s%n",
  "_",
  "😀👩‍👩‍👧",
  "😀".repeat(80),
  "‮right to left‬",
  "שלום عالم",
  "\u0001\u007f\u0085",
  "a\u0300".repeat(90),
  "ﬁ",
  "İıſ",
  "x".repeat(255),
  "y".repeat(256),
  "z".repeat(2_001),
  "\ufffe",
  "\u{10ffff}",
  "Mars/Phobos",
  "FOO+3",
  "posix/UTC",
  "infinity",
  "-infinity",
  "2026-02-30",
  "4713-01-01 BC",
  "294276-12-31",
  "e30=",
  "1.0.-.0.-.0.0",
  "1.9.9:9:.9.-.0.0",
  "2.0.1:1:.0.-.0.0.0.0",
  "pg_class",
  "governance.accounts",
  "public.chat_messages",
];
const oddNumbers = [
  "0",
  "1",
  "-1",
  "7",
  "100",
  "5000",
  "0.5",
  "1.5",
  "2147483647",
  "2147483648",
  "-2147483648",
  "9007199254740991",
  "9007199254740992",
  "9007199254740993",
  "-9007199254740993",
  "9223372036854775807",
  "9223372036854775808",
  "-9223372036854775808",
  "1e400",
  "-1e-400",
  "NaN",
  "Infinity",
  "",
  "abc",
];
const oddTimes = [
  "infinity",
  "-infinity",
  "now",
  "2026-11-25T00:00:00Z",
  "2030-01-01",
  "1999-01-01",
  "2028-02-29T23:59:59.999999Z",
  "2027-02-29",
  "4714-11-24 BC",
  "294276-12-31",
  "2026-01-01 25:00",
  "2026-01-01T00:00:00 Mars/Phobos",
  "never",
  "",
];
const oddParts: readonly Json[] = [
  null,
  true,
  0,
  -1,
  1.5,
  1e300,
  -(2 ** 63),
  2 ** 53,
  "",
  " ",
  "text",
  "NaN",
  "😀",
  "‮",
  "x".repeat(2_001),
  [],
  {},
  [null],
  [[[]]],
  { plan: "moon" },
  { "": "" },
];
/** JSON texts that only a careless client writes; PostgreSQL refuses some of them before any function is entered. */
const brokenJson = [
  "",
  "{",
  "nul",
  "[]",
  "null",
  "7",
  '"x"',
  '{"a":"\\u0000"}',
  '{"user_id":"\\u0000"}',
  '{"a":"\\ud800"}',
  '{"a":1e400000}',
  '{"a":1,"a":2}',
  `${"[".repeat(900)}${"]".repeat(900)}`,
];

/** Calls that hold tokens when the attack begins: some of them are ended by it. */
export const heldCalls = Array.from({ length: 60 }, (_, n) => `held-${n}`);

/** Names and words that exist or mean something, so that a call gets past the first checks. */
const people = ["user-1", "user-2", "user-3", "nobody"];
const words: Readonly<Record<string, readonly string[]>> = {
  p_user_id: people,
  p_request_id: [...heldCalls, "call-settled", "call-blocked", "call-released", "call-aside", "call-new"],
  p_model: ["gpt-4o", "gpt-4o-mini", "unheard-of"],
  p_plan_id: ["starter", "pro", "business", "enterprise"],
  p_pack_id: ["tokens-500k", "tokens-5m"],
  p_transaction_type: ["purchase", "usage", "refund", "adjustment", "bonus", "subscription_grant", "expiry"],
  p_action: ["settle", "release", "investigate", "assign", "note", "propose", "approve", "carry_forward"],
  p_timezone: ["UTC", "Europe/London", "Australia/Lord_Howe", "Pacific/Kiritimati"],
  p_period: ["day", "week", "month"],
  p_filter: ["all", "flagged", "blocked"],
  p_sort: ["name", "available", "used"],
  p_channel: ["email", "slack"],
  p_table: ["public.chat_messages", "chat_messages"],
  p_conversation_id: ["c-1", "c-2"],
  p_task_type: ["chat", "image"],
  p_amount: ["100", "-100", "-900000000"],
  p_run_id: ["run-1", "run-2"],
  p_difference_id: ["d-1", "d-2"],
  p_event_id: ["evt_quarantined", "evt_unknown"],
  p_operator: ["ann", "bob"],
};

const plainRule: Json = {
  rule_name: "daily_limit",
  rule_type: "limit",
  priority: 10,
  mode: "enforce",
  is_active: true,
  conditions: {
    all: [
      { fact: "tokens_today", op: ">=", value: { plan: "daily_limit" } },
      { any: [{ fact: "message", op: "contains", value: ["buy now", "spam"] }] },
      { not: { fact: "hour_local", op: "between", value: [2, 5] } },
    ],
  },
  action: {
    block: { reason: "odd", message: "No.", minutes: 5 },
    route: { model: "gpt-4o-mini" },
    multiply_cost: { by: 1.5 },
    truncate: { words: 5 },
  },
  applies_to: { plans: ["starter"], scopes: ["a"] },
};
const smallPreset: Json = {
  name: "hostile",
  currency: "usd",
  default_plan: "starter",
  settings: {
    hold_minutes: 15,
    complexity_words: ["why"],
    topics: [{ topic: "t", words: ["w"] }],
    settle_ceiling_tokens: 5_000,
  },
  plans: [
    {
      plan_id: "starter",
      name: "S",
      monthly_allowance: 50_000,
      daily_limit: 5_000,
      monthly_limit: null,
      warn_at: [80, 90],
      fail_mode: "closed",
      on_cancel: "keep",
    },
  ],
  packs: [{ pack_id: "p", tokens: 5, price_minor: 100, currency: "usd", plans: ["starter"] }],
  rules: [plainRule],
  prices: [
    {
      provider: "p",
      model: "gpt-4o",
      input_micros_per_million: 5,
      output_micros_per_million: 5,
      cached_input_micros_per_million: 1,
      currency: "usd",
      effective_from: "2024-01-01",
    },
  ],
  estimates: [{ task_type: "t", tokens: 5 }],
  alerts: [
    {
      alert_name: "a",
      metric: "cost_micros",
      scope: "all",
      period: "month",
      thresholds: [50, 90],
      budget: 5,
    },
  ],
};
const purchase = (name: string, userId: string): stripe.Purchase => ({
  name,
  userId,
  packId: "tokens-500k",
  tokens: 500_000,
  amountMinor: 500,
  currency: "usd",
  created: 1_790_000_000,
});
function stripeEvents(random: Random): Json {
  const p = purchase(`h${Math.floor(random() * 50)}`, from(people, random));
  const events = [
    stripe.event("checkout.session.completed", stripe.checkoutSession(p)),
    stripe.event("charge.succeeded", stripe.charge(p)),
    stripe.event("payment_intent.succeeded", stripe.paymentIntent(p)),
    stripe.event("charge.refunded", stripe.charge(p, { amount_refunded: 250, refunded: false })),
    stripe.event("charge.dispute.created", stripe.dispute(p, "needs_response")),
    stripe.event("charge.dispute.closed", stripe.dispute(p, "lost")),
  ];
  return from(events, random) as unknown as Json;
}

type Path = readonly (string | number)[];
function placesIn(node: Json, path: Path = []): Path[] {
  if (node === null || typeof node !== "object") return [path];
  const children: [string | number, Json][] = Array.isArray(node)
    ? [...node.entries()]
    : Object.entries(node);
  return [path, ...children.flatMap(([key, child]) => placesIn(child, [...path, key]))];
}
/** The document with one to three of its places replaced, removed or joined by a stranger. */
function bent(document: Json, random: Random): Json {
  let copy = structuredClone(document);
  for (let n = 0; n < 1 + Math.floor(random() * 3); n += 1) {
    const path = from(placesIn(copy), random);
    const last = path.at(-1);
    const part = structuredClone(from(oddParts, random));
    if (last === undefined) {
      if (random() < 0.1) copy = part;
      continue;
    }
    let parent: Json = copy;
    for (const key of path.slice(0, -1)) parent = (parent as Record<string, Json>)[key] as Json;
    if (Array.isArray(parent)) parent[Number(last)] = part;
    else if (random() < 0.2) delete (parent as Record<string, Json>)[last];
    else (parent as Record<string, Json>)[random() < 0.15 ? "stranger" : last] = part;
  }
  return copy;
}

/** A reconciliation as the desk keeps it. */
export const keptRun = {
  report: { tied_out: false, period: { from: "2026-01-01", to: "2026-02-01" } },
  differences: ["d-1", "d-2"].map((difference_id) => ({
    difference_id,
    class: "PAID_NOT_GRANTED",
    amount_minor: 500,
    currency: "usd",
    tokens: 5_000,
    occurred_at: "2026-01-05T00:00:00Z",
    correction: {
      action: "grant",
      user_id: "user-1",
      tokens: 5_000,
      charge_id: "ch_h1",
      amount_minor: 500,
      currency: "usd",
    },
  })),
};

const documents: Readonly<Record<string, (random: Random) => Json>> = {
  p_rule: (random) => ({
    ...(plainRule as Record<string, Json>),
    rule_name: `rule-${Math.floor(random() * 5)}`,
  }),
  p_preset: () => smallPreset,
  p_event: stripeEvents,
  p_metadata: () => ({
    cached_input_tokens: 1,
    cache_write_tokens: 1,
    cache_write_1h_tokens: 1,
    by_other_models: [{ model: "gpt-4o", input_tokens: 1, output_tokens: 1 }],
    reasoning_tokens: 1,
    stated_cost_micros: 5,
    service_tier: "batch",
  }),
  p_filter: (random) => ({
    user_id: from(people, random),
    kinds: ["blocked", "settled"],
    facts: true,
    reason: "daily_limit",
    since: "2026-01-01",
  }),
  p_columns: () => ({ id: "id", user_id: "user_id", created_at: "created_at", metadata: "metadata" }),
  p_details: () => ({ tokens: 5, resolution: "grant", assignee: "ann", until: "2026-12-01" }),
  p_report: () => keptRun.report,
  p_differences: (random) => [from(keptRun.differences, random)],
};

const leaf = '{"fact":"model","op":"=","value":"m"}';
/** As JSON text: recursion over them in the test itself would be what fails. */
const manyLeaves = (leaves: number): string => `{"any":[${Array(leaves).fill(leaf).join(",")}]}`;
const manyLevels = (levels: number): string =>
  `${'{"not":{"all":['.repeat(levels)}${leaf}${"]}}".repeat(levels)}`;
const hugeRules = [...[90, 1_000, 5_000].map(manyLeaves), ...[5, 10, 100, 1_000, 3_000].map(manyLevels)].map(
  (conditions) => `{"rule_name":"huge","conditions":${conditions},"action":{"block":{"reason":"huge"}}}`,
);
const hugeDocuments: Readonly<Record<string, readonly string[]>> = {
  p_rule: hugeRules,
  p_preset: hugeRules.map((rule) => `{"name":"huge","plans":[{"plan_id":"a"}],"rules":[${rule}]}`),
};

const nested = `${'{"a":'.repeat(3_000)}1${"}".repeat(3_000)}`;

/** What a sensible caller could send. */
function plausible({ name, type }: Parameter, random: Random, sequence: number): Argument {
  switch (type) {
    case "text":
      return /command_id|idempotency_key/.test(name)
        ? `command-${random() < 0.1 ? sequence % 7 : sequence}`
        : from(words[name] ?? ["user-1", "ann", "looked at", "held-1", "d-1"], random);
    case "jsonb":
      return JSON.stringify(documents[name]?.(random) ?? {});
    case "timestamp with time zone":
    case "date":
      return from(["2026-11-25", "2026-10-01", "2028-02-29", "2030-01-01"], random);
    case "boolean":
      return from(["true", "false"], random);
    case "text[]":
      return from(["{d-1}", "{d-1,d-2}", "{user-1}"], random);
    case "numeric":
      return from(["0", "0.5", "1"], random);
    default:
      return from(words[name] ?? ["1", "2", "7", "100", "250"], random);
  }
}

function hostile({ name, type }: Parameter, random: Random): Argument {
  const chance = random();
  if (chance < 0.1) return null;
  switch (type) {
    case "text":
      // A megabyte is slow to read and to check: now and then.
      if (chance < 0.104) return { repeat: [from(["x", "😀", " a"], random), 524_288] };
      if (chance < 0.25)
        return String.fromCodePoint(
          ...Array.from({ length: 1 + Math.floor(random() * 12) }, () => 1 + Math.floor(random() * 0x2fff)),
        );
      return from(oddTexts, random);
    case "jsonb":
      if (chance < 0.17) return from(brokenJson, random);
      if (chance < 0.18) return from(hugeDocuments[name] ?? [nested], random);
      if (chance < 0.19) return JSON.stringify({ message: "x".repeat(20_000), [name]: "y".repeat(20_000) });
      return JSON.stringify(bent((documents[name] ?? (() => ({})))(random), random));
    case "timestamp with time zone":
    case "date":
      return from(oddTimes, random);
    case "boolean":
      return from(["maybe", "", "2"], random);
    case "text[]":
      return from(["{}", '{"",null}', "{d-1,d-1}", "{{a,b},{c,d}}", "{", "[2:3]={a,b}", ""], random);
    default:
      return from(oddNumbers, random);
  }
}

/** `count` calls of a function with hostile arguments, one of them or all; the same for the same seed. */
export function* hostileCalls(called: SqlFunction, count: number, seed: number): Generator<Call> {
  const random = dice(seed);
  // Without parameters there is one way to call it.
  const calls = called.parameters.length === 0 ? 1 : count;
  for (let sequence = 0; sequence < calls; sequence += 1) {
    const given = called.parameters.filter(({ isOptional }) => !isOptional || random() < 0.85);
    // All that are given, or the one whose place comes up (the first check of a function would hide the others), or none.
    const chance = random();
    const place = chance < 0.4 ? null : chance < 0.9 ? Math.floor(random() * given.length) : -1;
    yield {
      sql: `select public.${called.name}(${given.map(({ name, type }, index) => `${name} => $1[${index + 1}]::${type}`).join(", ")})`,
      arguments: given.map((parameter, index) =>
        place === null || index === place
          ? hostile(parameter, random)
          : plausible(parameter, random, sequence),
      ),
    };
  }
}

/** Installs what tries calls in the server, for this connection alone. */
export async function installAttack(client: pg.Client): Promise<void> {
  await client.query(`
    create function pg_temp.try_calls(p_calls jsonb, p_is_kept boolean) returns jsonb language plpgsql as $body$
    declare
      v_call jsonb;
      v_arguments text[];
      v_outcomes jsonb[] := '{}';
      v_state text;
      v_hint text;
      v_message text;
    begin
      for v_call in select * from jsonb_array_elements(p_calls) loop
        begin
          select coalesce(array_agg(case when jsonb_typeof(x.a) = 'object' then repeat(x.a #>> '{repeat,0}', (x.a #>> '{repeat,1}')::int) else x.a #>> '{}' end order by x.n), '{}')
          into v_arguments from jsonb_array_elements(v_call -> 'arguments') with ordinality x(a, n);
          execute v_call ->> 'sql' using v_arguments;
          if not p_is_kept then raise exception using errcode = 'ZZ000'; end if;
          v_state := 'answered'; v_hint := ''; v_message := '';
        exception
          when sqlstate 'ZZ000' then
            v_state := 'answered'; v_hint := ''; v_message := '';
          when others then
            get stacked diagnostics v_state = returned_sqlstate, v_hint = pg_exception_hint, v_message = message_text;
        end;
        v_outcomes := v_outcomes || jsonb_build_object('state', v_state, 'hint', v_hint, 'message', left(v_message, 300));
      end loop;
      return to_jsonb(v_outcomes);
    end
    $body$`);
}

/** Tries calls one after the other. Refused ones leave nothing behind; answered ones only where they are to be kept. */
export async function tryCalls(
  client: pg.Client,
  calls: readonly Call[],
  isKept: boolean,
): Promise<readonly Outcome[]> {
  const { rows } = await client.query<{ outcomes: Outcome[] }>(
    "select pg_temp.try_calls($1, $2) as outcomes",
    [JSON.stringify(calls), isKept],
  );
  return rows[0]?.outcomes ?? [];
}

/**
 * Everything that a call could have left behind: the content of every table, the compiled rules, the locks and the
 * settings of the session. Equal before and after means that nothing has changed.
 */
export async function fingerprint(client: pg.Client): Promise<string> {
  const { rows: tables } = await client.query<{ name: string }>(
    "select oid::regclass::text as name from pg_class where relnamespace = 'governance'::regnamespace and relkind = 'r' order by 1",
  );
  const counts = tables.map(
    ({ name }) => `select '${name}', count(*), sum(hashtextextended(t::text, 0)::numeric) from ${name} t`,
  );
  const { rows } = await client.query<{ state: string }>(`
    select md5(string_agg(x::text, ',' order by x::text)) as state from (${counts.join(" union all ")}
      union all select 'functions', count(*), sum(hashtextextended(p.prosrc, 0)::numeric) from pg_proc p where p.pronamespace in ('governance'::regnamespace, 'public'::regnamespace)
      union all select 'locks', count(*), 0 from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()
      union all select current_setting('search_path') || current_setting('role') || current_setting('request.jwt.claims', true), 0, 0) x(name, rows, content)`);
  return rows[0]?.state ?? "";
}

export const defaultPreset = (): unknown => readPreset("default");
