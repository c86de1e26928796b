/** Whatever is handed to a function: an answer, or a refusal of ours; never a crash, and nothing half done. */
import pg from "pg";
import { describe, expect, it } from "vitest";
import { installedVersions } from "./desk.ts";
import { dice, expectSoundBooks, isFull, openProject } from "./enforcement-support.ts";

const inputsEach = isFull ? 10_000 : 300;

const functions: Readonly<Record<string, readonly string[]>> = {
  authorize_usage: ["text", "text", "text", "bigint", "text", "text", "text", "text", "numeric"],
  settle_usage: ["text", "bigint", "bigint", "text", "jsonb"],
  release_usage: ["text", "text"],
  record_token_usage: ["text", "bigint", "numeric", "text"],
  upsert_account: ["text", "text", "text", "text", "text", "jsonb"],
  update_user_token_balance: ["text", "bigint", "text", "text", "jsonb", "text", "timestamptz"],
  get_user_token_balance: ["text"],
  get_user_transaction_history: ["text", "int", "bigint"],
  verify_ledger: ["text"],
  save_rule: ["text", "jsonb", "int", "text"],
  apply_preset: ["jsonb"],
  flag_user: ["text", "text", "text", "text"],
  block_user: ["text", "text", "text", "timestamptz", "text"],
  unblock_user: ["text", "text", "text", "text"],
  usage_events_since: ["text", "int", "jsonb"],
  list_rules: [],
};

type Random = () => number;
const from = <T>(list: readonly T[], random: Random): T => list[Math.floor(random() * list.length)] as T;
const long = "x".repeat(1_048_576);

function hostileText(random: Random): string | null {
  if (random() < 0.35)
    return from(
      [
        "user-1",
        "user-2",
        "call-1",
        "call-2",
        "gpt-4o",
        "purchase",
        "usage",
        "starter",
        "UTC",
        "Europe/London",
        "now",
        "adjustment",
      ],
      random,
    );
  return from(
    [
      null,
      "",
      " ",
      "\t\n",
      "null",
      "NaN",
      "0",
      "-1",
      "'; drop table governance.accounts; --",
      "$$",
      "\\",
      "%s%n",
      "😀".repeat(50),
      "\u202Eright to left",
      "\u0001\u007f",
      "a\u0300".repeat(90),
      "ﬁ",
      "İ",
      random() < 0.05 ? long : "y".repeat(256),
      "x".repeat(255),
      "Mars/Phobos",
      "FOO+3",
      "1.0.-.0.-.0.0",
      "1.9.9:9:.9.-.0.0",
      "2.0.1:1:.0.-.0.0.0.0",
      "\ud800".toWellFormed(),
      "call\u0000x",
    ],
    random,
  );
}
function hostileNumber(random: Random): string | null {
  return from(
    [
      null,
      "0",
      "1",
      "-1",
      "100",
      "5000",
      "9007199254740991",
      "9007199254740992",
      "9007199254740993",
      "-9007199254740993",
      "9223372036854775807",
      "-9223372036854775808",
      "9223372036854775808",
      "1e400",
      "0.5",
      "NaN",
      "",
      "abc",
      "2147483647",
      "2147483648",
    ],
    random,
  );
}
function hostileJson(random: Random, depth = 0): unknown {
  const chance = random();
  if (depth > 3 || chance < 0.4)
    return from<unknown>(
      [
        null,
        true,
        0,
        -1,
        1.5,
        1e300,
        2 ** 53,
        "",
        "text",
        "message",
        "model",
        "tokens_today",
        "=",
        ">",
        "between",
        "contains",
        "enforce",
        "x".repeat(2000),
        "😀",
        [],
      ],
      random,
    );
  if (chance < 0.55)
    return Array.from({ length: Math.floor(random() * 5) }, () => hostileJson(random, depth + 1));
  const keys = [
    "all",
    "any",
    "not",
    "fact",
    "op",
    "value",
    "plan",
    "block",
    "warn",
    "reason",
    "message",
    "minutes",
    "rule_name",
    "conditions",
    "action",
    "priority",
    "mode",
    "applies_to",
    "plans",
    "plan_id",
    "monthly_allowance",
    "prices",
    "model",
    "provider",
    "rules",
    "packs",
    "name",
    "currency",
    "settings",
    "topics",
    "words",
    "hold_minutes",
    "kinds",
    "since",
    "user_id",
    "cached_input_tokens",
    "reasoning_tokens",
    "by",
    "multiply_cost",
    "truncate",
    "alerts",
    "thresholds",
    "estimates",
    "tokens",
  ];
  return Object.fromEntries(
    Array.from({ length: 1 + Math.floor(random() * 4) }, () => [
      from(keys, random),
      hostileJson(random, depth + 1),
    ]),
  );
}
/** Near enough to a rule or a preset that the depths of the checks are reached. */
function almostRight(random: Random): unknown {
  const bent = (value: unknown): unknown => (random() < 0.15 ? hostileJson(random) : value);
  const rule = {
    rule_name: bent(`rule-${Math.floor(random() * 5)}`),
    priority: bent(Math.floor(random() * 100)),
    mode: bent(from(["enforce", "shadow", "off"], random)),
    conditions: bent({
      all: [
        bent({
          fact: bent(
            from(
              [
                "task_type",
                "model",
                "message",
                "tokens_today",
                "topic",
                "complexity",
                "provider",
                "hour_local",
              ],
              random,
            ),
          ),
          op: bent(from(["=", ">", "in", "contains", "between"], random)),
          value: bent(
            from<unknown>(["zz", 5, ["zz", "never said"], [1, 2], { plan: "daily_limit" }], random),
          ),
        }),
      ],
    }),
    action: bent({
      [from(["block", "warn", "flag", "route", "multiply_cost"], random)]: bent(
        from<unknown>([{ reason: "odd" }, { message: "words" }, { model: "m" }, { by: 1.5 }], random),
      ),
    }),
    applies_to: bent({ plans: bent(["starter"]) }),
  };
  if (random() < 0.5) return rule;
  return {
    name: bent("hostile"),
    currency: bent("usd"),
    plans: bent([bent({ plan_id: bent("starter"), monthly_allowance: bent(50_000), warn_at: bent([80]) })]),
    rules: bent(random() < 0.5 ? [rule] : []),
    prices: bent([
      bent({
        provider: "p",
        model: bent("gpt-4o"),
        input_micros_per_million: bent(5),
        output_micros_per_million: bent(5),
        effective_from: bent("2024-01-01"),
      }),
    ]),
    settings: bent({ hold_minutes: bent(15), topics: bent([{ topic: "t", words: bent(["w"]) }]) }),
    packs: bent([]),
    estimates: bent([bent({ task_type: "t", tokens: bent(5) })]),
    alerts: bent([]),
  };
}
function hostile(type: string, random: Random): string | null {
  switch (type) {
    case "text":
      return hostileText(random);
    case "jsonb":
      return random() < 0.05
        ? from(["", "{", "nul", '{"a":"\\u0000"}'], random)
        : JSON.stringify(random() < 0.6 ? almostRight(random) : hostileJson(random));
    case "timestamptz":
      return from(
        [
          null,
          "infinity",
          "-infinity",
          "2030-01-01",
          "1999-01-01",
          "4714-11-24 BC",
          "294276-12-31",
          "never",
          "",
        ],
        random,
      );
    default:
      return hostileNumber(random);
  }
}

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  it(`${inputsEach} generated inputs to each function: a stated error and no change, never class XX`, async () => {
    const project = await openProject(version, 1);
    for (const user of ["user-1", "user-2"]) await project.call("upsert_account", user);
    const client = await project.pool.connect();
    const outcomes = new Map<string, number>();
    const random = dice(version);
    const state = `select md5(string_agg(t::text, ',')) as state from (
      select md5(a::text) from governance.accounts a union all select md5(r::text) from governance.requests r union all
      select t.transaction_id::text from governance.token_transactions t union all select md5(x::text) from governance.rules x union all
      select md5(p::text) from governance.plans p order by 1) t`;
    for (const [name, types] of Object.entries(functions)) {
      for (
        let n = 0;
        n < (types.length === 0 ? 1 : name === "apply_preset" ? inputsEach / 3 : inputsEach);
        n += 1
      ) {
        // Trailing parameters may be left out: they have defaults.
        const given = types.slice(
          0,
          random() < 0.2 ? Math.max(1, Math.floor(random() * types.length)) : types.length,
        );
        const values = given.map((type) => hostile(type, random));
        const sample = n % 50 === 0;
        const before = sample ? (await client.query(state)).rows[0]?.state : null;
        let outcome = "answered";
        try {
          await client.query(
            `select public.${name}(${given.map((type, index) => `$${index + 1}::text::${type}`).join(", ")})`,
            values,
          );
        } catch (error) {
          if (!(error instanceof pg.DatabaseError)) {
            // The driver itself does not send U+0000 inside a text.
            outcome = "not sent";
          } else {
            outcome = error.code ?? "";
            const isStated = outcome.startsWith("PT4")
              ? /^[a-z_]+$/.test(error.hint ?? "")
              : outcome.startsWith("22") || outcome === "42883";
            expect([
              name,
              values.map((value) => value?.slice(0, 80)),
              outcome,
              error.message,
              isStated,
            ]).toEqual([name, values.map((value) => value?.slice(0, 80)), outcome, error.message, true]);
            if (sample) expect((await client.query(state)).rows[0]?.state).toBe(before);
          }
        }
        outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      }
    }
    client.release();
    expect([...outcomes.keys()]).toEqual(
      expect.arrayContaining(["answered", "PT400", "PT404", "PT409", "PT422"]),
    );
    await expectSoundBooks(project);
    await project.close();
  });
});
