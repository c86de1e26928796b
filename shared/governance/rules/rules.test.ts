import { describe, expect, it } from "vitest";
import {
  type Condition,
  compareBytes,
  compileRules,
  countWords,
  describeReceipt,
  describeRule,
  evaluateRules,
  type Facts,
  foldText,
  identityText,
  multiplyTokens,
  orderRules,
  parseRule,
  parseRules,
  phraseText,
  type ReceiptFacts,
  type Rule,
  readMessage,
  scoreComplexity,
  soughtPhrase,
  truncateToWords,
} from "../index.ts";
import { characterClass, combiningMarks, invisibles } from "./characters.ts";

const plan = { monthly_allowance: 50_000, daily_limit: 10_000, monthly_limit: null };
const context = { plan };

function rule(changes: Partial<Rule> & Pick<Rule, "conditions" | "action">): Rule {
  return {
    rule_name: "a_rule",
    rule_type: "custom",
    priority: 100,
    mode: "enforce",
    is_active: true,
    applies_to: {},
    version: 1,
    ...changes,
  };
}

const matches = (conditions: Condition, facts: Facts): boolean =>
  compileRules([rule({ conditions, action: { warn: { message: "m" } } })]).evaluate(facts, context)
    .decision === "warn";

describe("a leaf", () => {
  it.each<[Condition, Facts, boolean]>([
    [{ fact: "messages_today", op: ">", value: 100 }, { messages_today: 101 }, true],
    [{ fact: "messages_today", op: ">", value: 100 }, { messages_today: 100 }, false],
    [{ fact: "messages_today", op: ">=", value: 100 }, { messages_today: 100 }, true],
    [{ fact: "messages_today", op: "!=", value: 100 }, { messages_today: 100 }, false],
    [{ fact: "messages_today", op: "!=", value: 100 }, { messages_today: null }, false],
    [{ fact: "messages_today", op: "not_in", value: [1] }, {}, false],
    [{ not: { fact: "messages_today", op: "=", value: 100 } }, {}, true],
    [{ fact: "hour_utc", op: "between", value: [2, 5] }, { hour_utc: 5 }, true],
    [{ fact: "complexity", op: ">=", value: 0.7 }, { complexity: 0.7 }, true],
    [{ fact: "tokens_today", op: ">", value: { plan: "daily_limit" } }, { tokens_today: 10_001 }, true],
    [{ fact: "tokens_today", op: "!=", value: { plan: "monthly_limit" } }, { tokens_today: 1 }, false],
    [{ fact: "plan", op: "in", value: ["gold", "free"] }, { plan: "free" }, true],
    [{ fact: "plan", op: "=", value: "Gold" }, { plan: "gold" }, false],
    [{ fact: "is_flagged", op: "!=", value: true }, { is_flagged: false }, true],
    [{ fact: "is_flagged", op: "!=", value: true }, { is_flagged: null }, false],
    [{ fact: "message", op: "contains", value: ["Buy", "now"] }, { message: foldText("Buy it NOW!") }, true],
    [{ fact: "message", op: "contains", value: ["buy", "later"] }, { message: "buy it now" }, false],
    [{ fact: "message", op: "matches_any", value: ["home work"] }, { message: "my home-work, please" }, true],
    [{ fact: "message", op: "matches_any", value: ["work"] }, { message: "homework" }, false],
    [{ fact: "message", op: "matches_any", value: ["ÉCOLE"] }, { message: foldText("l’école") }, true],
    [{ all: [] }, {}, true],
    [{ any: [] }, {}, false],
  ])("%j on %j is %s", (condition, facts, expected) => {
    expect(matches(condition, facts)).toBe(expected);
  });
});

describe("a rule set", () => {
  it("stops at the first block, and keeps routes and truncations of earlier rules", () => {
    const seen = compileRules([
      rule({
        rule_name: "c",
        priority: 3,
        conditions: { all: [] },
        action: { block: { reason: "daily_limit", message: "Enough." } },
      }),
      rule({
        rule_name: "b",
        priority: 2,
        conditions: { fact: "provider", op: "=", value: "openai" },
        action: { truncate: { words: 500 }, warn: { message: "long" } },
      }),
      rule({ rule_name: "d", priority: 4, conditions: { all: [] }, action: { route: { model: "never" } } }),
      rule({
        rule_name: "a",
        priority: 1,
        conditions: { all: [] },
        action: { route: { model: "gpt-4o-mini" } },
      }),
    ]).evaluate({ model: "claude-3", provider: "anthropic" }, { plan, providerOf: () => "openai" });
    expect(seen).toMatchObject({
      decision: "block",
      reason: "daily_limit",
      http_status: 429,
      message: "Enough.",
      route: "gpt-4o-mini",
      truncate_to_words: 500,
      warnings: [{ rule_name: "b", message: "long" }],
    });
    expect(seen.matched.map((matched) => matched.rule_name)).toEqual(["a", "b", "c"]);
  });

  it("records a shadow rule without letting it change anything, not even a later rule's model", () => {
    const seen = compileRules([
      rule({
        rule_name: "shadow",
        mode: "shadow",
        priority: 1,
        conditions: { all: [] },
        action: { route: { model: "other" }, block: { reason: "daily_limit" } },
      }),
      rule({ conditions: { fact: "model", op: "=", value: "mine" }, action: { flag: { reason: "seen" } } }),
    ]).evaluate({ model: "mine" }, context);
    expect(seen.shadow_matched.map((matched) => matched.rule_name)).toEqual(["shadow"]);
    expect(seen).toMatchObject({ decision: "allow", route: null, flag: "seen" });
  });

  it("applies to the plans and scopes it names, and to all when it names none", () => {
    const compiled = compileRules([
      rule({
        conditions: { all: [] },
        action: { warn: { message: "m" } },
        applies_to: { plans: ["gold"], scopes: ["brand-1"] },
      }),
    ]);
    expect(compiled.evaluate({ plan: "gold", scope_id: "brand-1" }, context).decision).toBe("warn");
    expect(compiled.evaluate({ plan: "gold", scope_id: null }, context).decision).toBe("allow");
    expect(compiled.evaluate({ plan: "free", scope_id: "brand-1" }, context).decision).toBe("allow");
  });

  it("does not look at rules that are off or inactive", () => {
    const always = { conditions: { all: [] }, action: { warn: { message: "m" } } };
    const compiled = compileRules([rule({ ...always, mode: "off" }), rule({ ...always, is_active: false })]);
    expect(compiled.rules).toEqual([]);
    expect(compiled.evaluate({}, context).decision).toBe("allow");
  });

  it("runs in order of priority, then of the name's bytes", () => {
    const named = (rule_name: string, priority: number) => ({ rule_name, priority });
    const ordered = orderRules([
      named("b", 2),
      named("😀", 1),
      named("\uff21", 1),
      named("B", 1),
      named("a", 1),
    ]);
    expect(ordered.map((item) => item.rule_name)).toEqual(["B", "a", "\uff21", "😀", "b"]);
    expect(Math.sign(compareBytes("\uff21", "😀"))).toBe(
      Buffer.compare(Buffer.from("\uff21"), Buffer.from("😀")),
    );
  });

  it("says which leaf decided, and what it saw", () => {
    const { trace } = evaluateRules(
      [
        rule({
          conditions: {
            all: [
              { fact: "plan", op: "!=", value: "business" },
              { fact: "tokens_today", op: ">", value: { plan: "daily_limit" } },
              { fact: "messages_today", op: ">", value: 5 },
            ],
          },
          action: { block: { reason: "daily_limit" } },
        }),
      ],
      { plan: "gold", tokens_today: 9_000, messages_today: 3 },
      context,
    );
    expect(trace).toEqual([
      {
        rule_name: "a_rule",
        version: 1,
        mode: "enforce",
        matched: false,
        facts: { plan: "gold", tokens_today: 9_000, messages_today: 3 },
        decided_by: [
          {
            path: "conditions.all[1]",
            fact: "tokens_today",
            op: ">",
            value: { plan: "daily_limit" },
            plan_value: 10_000,
            seen: 9_000,
            matched: false,
          },
        ],
      },
    ]);
  });

  it("multiplies tokens exactly, rounding up once", () => {
    expect(multiplyTokens(10, [1_100, 1_100])).toBe(13);
    expect(multiplyTokens(Number.MAX_SAFE_INTEGER, [1_000_000, 1_000_000])).toBe(Number.MAX_SAFE_INTEGER);
    expect(multiplyTokens(0, [1_500])).toBe(0);
  });
});

describe("a malformed rule", () => {
  const good = {
    rule_name: "r",
    conditions: { fact: "messages_today", op: ">", value: 100 },
    action: { block: { reason: "token_hogging" } },
  };
  const problemsOf = (input: unknown): string[] => {
    const parsed = parseRule(input);
    return parsed.ok
      ? []
      : parsed.error.map((problem) => `${problem.path} | ${problem.message} | ${problem.fix}`);
  };

  it("is none when the keys left out have defaults", () => {
    const parsed = parseRule(good);
    expect(parsed.ok && parsed.value).toMatchObject({
      rule_type: "custom",
      priority: 100,
      mode: "enforce",
      is_active: true,
      applies_to: {},
      version: 0,
    });
  });

  it.each<[string, unknown, RegExp]>([
    ["null", null, /is not an object/],
    ["a list", [], /is not an object/],
    [
      "unknown fact",
      { ...good, conditions: { all: [{ fact: "message_today", op: ">", value: 1 }] } },
      /^conditions\.all\[0\]\.fact \| Unknown fact "message_today"\. \| Did you mean "messages_today"\?$/,
    ],
    [
      "wrong op for the type",
      { ...good, conditions: { fact: "plan", op: ">", value: "a" } },
      /^conditions\.op .*does not go with "plan", which is text/,
    ],
    [
      "text for a number",
      { ...good, conditions: { fact: "messages_today", op: ">", value: "100" } },
      /conditions\.value .*without quotes/,
    ],
    [
      "NaN",
      { ...good, conditions: { fact: "messages_today", op: ">", value: Number.NaN } },
      /conditions\.value/,
    ],
    ["2^53", { ...good, conditions: { fact: "messages_today", op: ">", value: 2 ** 53 } }, /below 2\^53/],
    ["two sayings", { ...good, conditions: { all: [], any: [] } }, /several things at once/],
    [
      "leaf with a stray key",
      { ...good, conditions: { ...good.conditions, vlaue: 3 } },
      /Did you mean "value"/,
    ],
    [
      "empty phrase",
      { ...good, conditions: { fact: "message", op: "contains", value: ["--"] } },
      /no letter or digit/,
    ],
    ["no action", { ...good, action: {} }, /does nothing/],
    [
      "block and deflect",
      { ...good, action: { block: { reason: "a" }, deflect: { message: "b" } } },
      /exclude each other/,
    ],
    ["a factor of four decimals", { ...good, action: { multiply_cost: { by: 1.0001 } } }, /three decimals/],
    ["a misspelt key", { ...good, prioritty: 3 }, /^prioritty .* Did you mean "priority"\?/],
    ["a name of NUL", { ...good, rule_name: "\0" }, /cannot be stored/],
    [
      "an unknown plan number",
      { ...good, conditions: { fact: "tokens_today", op: ">", value: { plan: "dayly_limit" } } },
      /Did you mean "daily_limit"/,
    ],
  ])("is refused with its path and its fix: %s", (_, input, expected) => {
    expect(problemsOf(input).join("\n")).toMatch(expected);
  });

  it("is refused at 201 leaves, at depth 21, and when it contains itself", () => {
    const leaf = good.conditions;
    expect(problemsOf({ ...good, conditions: { any: Array.from({ length: 200 }, () => leaf) } })).toEqual([]);
    expect(
      problemsOf({ ...good, conditions: { any: Array.from({ length: 1000 }, () => leaf) } }),
    ).toHaveLength(1);
    const deep = (levels: number): unknown => (levels === 1 ? leaf : { not: deep(levels - 1) });
    expect(problemsOf({ ...good, conditions: deep(20) })).toEqual([]);
    expect(problemsOf({ ...good, conditions: deep(21) }).join()).toMatch(/nested too deep/);
    const cycle: { all: unknown[] } = { all: [leaf] };
    cycle.all.push(cycle, cycle);
    expect(problemsOf({ ...good, conditions: cycle })).not.toEqual([]);
  });

  it("is refused where its conditions hold too much in all", () => {
    const leaf = (value: unknown) => ({ fact: "message", op: "matches_any", value });
    const parse = (conditions: unknown) =>
      parseRule({ rule_name: "big", conditions, action: { warn: { message: "m" } } }).ok;
    const phrases = Array.from({ length: 1_000 }, (_, index) => `word${index}`);
    expect(parse({ any: Array.from({ length: 5 }, () => leaf(phrases)) })).toBe(true);
    expect(parse({ any: Array.from({ length: 12 }, () => leaf(phrases)) })).toBe(false);
    expect(parse({ any: [leaf(Array.from({ length: 101 }, () => "x".repeat(1_000)))] })).toBe(false);
  });

  it("names the rule's place in a list, and a name used twice", () => {
    const parsed = parseRules([good, good, { ...good, rule_name: "" }]);
    expect(parsed.ok ? [] : parsed.error.map((problem) => problem.path)).toEqual([
      "[1].rule_name",
      "[2].rule_name",
    ]);
  });
});

describe("text", () => {
  it("folds by the written table alone", () => {
    expect(foldText("ÀÉÎ ŽŸ ΑΣ ЖЯ İ ẞ Ａ ﬁ")).toBe("àéî žÿ ας".replace("ς", "σ") + " жя İ ẞ a fi");
  });
  it("finds phrases between separators only", () => {
    expect(phraseText("hello,  «wörld»…")).toBe(" hello wörld ");
    expect(phraseText("")).toBe(" ");
  });
  it.each([
    ["赌博", "我们去赌博吧", true],
    ["赌博", "赌 博", false],
    ["iphone手机", "我的iPhone手机。", true],
    ["phone", "我的iPhone手机。", false],
    ["カジノ", "ｵﾝﾗｲﾝｶｼﾞﾉへようこそ", true],
    ["พนัน", "การพนันออนไลน์", true],
    ["ການພະນັນ", "ຫຼິ້ນການພະນັນ", true],
    ["လောင်းကစား", "အွန်လိုင်းလောင်းကစားရုံ", true],
    ["ល្បែង", "លេងល្បែងស៊ីសង", true],
    ["도박", "도박을 하자", false],
    ["bet", "a better bet!", true],
    ["bet", "a better one", false],
    ["bet", "to b\u200be\u00adt", true],
    ["赌博", "赌\u2060博", true],
    ["พนัน", "การพ\u200bนัน", true],
    ["free tokens", "free \ufefftok\u{e0041}ens", true],
  ])("finds %s in %s: %s", (phrase, message, isFound) => {
    expect(phraseText(foldText(message)).includes(soughtPhrase(phrase))).toBe(isFound);
  });
  it.each([
    ["", 0],
    ["  two\u00a0words\n", 2],
    ["我们去赌博吧。", 6],
    ["「你好」，world!", 3],
    ["สวัสดีครับ", 2],
    ["สวัสดีครับผม", 3],
    ["도박을 하자", 2],
    ["iPhone手机 - 2", 5],
  ])("counts the words of %j as %i", (message, words) => {
    expect(countWords(message)).toBe(words);
  });
  it("cuts a message after a word, in any script", () => {
    expect(truncateToWords("one\n two  three", 2)).toBe("one two");
    expect(truncateToWords("one\n two", 2)).toBe("one\n two");
    expect(truncateToWords("我们去，赌博吧", 3)).toBe("我们去，");
    expect(truncateToWords("สวัสดีครับผม", 1)).toBe("สวัสด");
  });
  it("judges the first 20,000 characters, and keeps 30 combining marks in a row", () => {
    expect(foldText("É".repeat(20_001))).toBe("é".repeat(20_000));
    expect(foldText("ﷺ".repeat(20_000))).toHaveLength(20_000);
    expect(foldText(`x${"\u0316".repeat(31)}y`)).toBe(`x${"\u0316".repeat(30)}y`);
    const long = "a ".repeat(10_000);
    expect(identityText(`${long}x`)).not.toBe(identityText(`${long}y`));
  });
  it("takes a message for the same whatever invisible characters are put into it", () => {
    for (const invisible of "\u00ad\u200b\u200d\u200f\u202e\u2060\u3164\ufe0f\ufeff\u{e0020}")
      for (const message of [
        `${invisible}buy now`,
        `bu${invisible}y now`,
        `buy ${invisible} now${invisible}`,
      ])
        expect(identityText(message)).toBe("buy now");
    expect(identityText("\u200b")).toBe("");
  });
  it("knows every invisible character of this runtime's Unicode", () => {
    const isListed = new RegExp(`^[${characterClass(invisibles)}]$`, "u");
    const differing: string[] = [];
    for (let code = 0; code < 0x11_0000; code++) {
      const character = String.fromCodePoint(code);
      if (/\p{Default_Ignorable_Code_Point}/u.test(character) !== isListed.test(character))
        differing.push(code.toString(16));
    }
    expect(differing).toEqual([]);
  });
  it("knows every combining mark of this runtime's Unicode", () => {
    const isListed = new RegExp(`^[${characterClass(combiningMarks)}]$`, "u");
    const missing: string[] = [];
    for (let code = 0; code < 0x11_0000; code++) {
      const character = String.fromCodePoint(code);
      if (/\p{M}/u.test(character) && !isListed.test(character)) missing.push(code.toString(16));
    }
    expect(missing).toEqual([]);
  });
  it("takes time that grows with the message, not faster", () => {
    // Each took minutes, or froze the process, when all of it was folded.
    const marks = `a${"\u0301\u0316".repeat(1_000_000)}`;
    const started = performance.now();
    for (const message of [marks, "ﷺ".repeat(1_300_000), "Ӿ".repeat(2_000_000), "我a".repeat(1_000_000)])
      readMessage(message, { complexity_words: ["why"], topics: [{ topic: "x", words: ["赌博"] }] });
    expect(performance.now() - started).toBeLessThan(10_000);
  });
  it("scores 200 characters with three of the words as 0.733", () => {
    const message = "explain why compare ".padEnd(200, "x");
    expect(scoreComplexity(message, ["explain", "why", "compare", "Explain"])).toBe(0.733);
    expect(scoreComplexity("x".repeat(5000), ["a", "b", "c", "d"])).toBe(0.4);
  });
  it("keeps a given complexity to three decimals, half up", () => {
    const rounded = (value: number) => readMessage(null, {}, value).complexity;
    expect([0.0005, 0.0004999, 0.7335, 1, 0, 1e-9, 0.9995, 0.12345].map(rounded)).toEqual([
      0.001, 0, 0.734, 1, 0, 0, 1, 0.123,
    ]);
  });
});

describe("words", () => {
  const names = { plans: { business: "Business", gold: "Gold", gold_plus: "Gold+" }, currency: "gbp" };
  it.each<[string, Parameters<typeof rule>[0]]>([
    [
      "Block when more than 100 messages a day, except Business",
      {
        conditions: {
          all: [
            { fact: "messages_today", op: ">", value: 100 },
            { fact: "plan", op: "!=", value: "business" },
          ],
        },
        action: { block: { reason: "token_hogging" } },
      },
    ],
    [
      "Use gpt-4o-mini when between 02:00 and 06:00 UTC, for Gold+",
      {
        conditions: { fact: "hour_utc", op: "between", value: [2, 5] },
        action: { route: { model: "gpt-4o-mini" } },
        applies_to: { plans: ["gold_plus"] },
      },
    ],
    [
      "Block for 30 m and flag for review when at least 10 identical messages (shadow: recorded only)",
      {
        conditions: { fact: "identical_messages", op: ">=", value: 10 },
        action: { block: { reason: "spam_identical", minutes: 30 }, flag: { reason: "spam" } },
        mode: "shadow",
      },
    ],
    [
      "Warn when tokens used today exceed the plan's daily limit or (more than 2.50 GBP spent today and the topic is “homework”)",
      {
        conditions: {
          any: [
            { fact: "tokens_today", op: ">", value: { plan: "daily_limit" } },
            {
              all: [
                { fact: "cost_today_micros", op: ">", value: 2_500_000 },
                { fact: "topic", op: "=", value: "homework" },
              ],
            },
          ],
        },
        action: { warn: { message: "m" } },
      },
    ],
    [
      "Shorten the message to 500 words always (off)",
      { conditions: { all: [] }, action: { truncate: { words: 500 } }, mode: "off" },
    ],
  ])("%s", (sentence, given) => {
    expect(describeRule(rule(given), names)).toBe(sentence);
  });

  describe("give a receipt whose figures add up", () => {
    const now = Date.parse("2026-11-22T20:48:00Z");
    const base = {
      decision: "block" as const,
      reason: "daily_limit",
      rule_name: null,
      rule_version: null,
      estimated_tokens: 1_240,
      shortfall: null,
      limit: null,
      clears_at: null,
      timezone: "Europe/London",
      currency: "usd",
      rules: [],
    };
    const line = (rule_name: string, facts: Record<string, unknown>) => ({
      rule_name,
      matched: true,
      facts,
    });

    it.each<[string, string, Partial<ReceiptFacts>]>([
      [
        "a limit that is overrun already",
        "Stopped by *daily limit* (v3): 10,240 of 10,000 tokens used today; needs 1,240 more, has 0. Clears at 00:00 Europe/London, in 3 h 12 m.",
        {
          rule_name: "daily_limit",
          rule_version: 3,
          shortfall: { need: 1_240, have: 0, missing: 1_240 },
          limit: { window: "daily", limit: 10_000, used: 10_240 },
          clears_at: "2026-11-23T00:00:00Z",
        },
      ],
      [
        "a limit with something left",
        "Stopped by *monthly limit*: 95,500 of 100,000 tokens used this month; needs 5,000 more, has 4,500. Clears at 2026-12-01 00:00 Europe/London, in 8 d 4 h.",
        {
          reason: "monthly_limit",
          shortfall: { need: 5_000, have: 4_500, missing: 500 },
          limit: { window: "monthly", limit: 100_000, used: 95_500 },
          clears_at: "2026-12-01T00:00:00Z",
        },
      ],
      [
        "a call that no day could take",
        "Stopped by *daily limit*: 0 of 10,000 tokens used today; needs 200,000 more, has 10,000. Does not clear by itself: the call asks for more than the whole daily limit.",
        {
          shortfall: { need: 200_000, have: 10_000, missing: 190_000 },
          limit: { window: "daily", limit: 10_000, used: 0 },
        },
      ],
      [
        "too few tokens",
        "Stopped by *too few tokens*: needs 9,000 tokens, has 5,000; 4,000 are missing. Clears when tokens are added.",
        { reason: "insufficient_tokens", shortfall: { need: 9_000, have: 5_000, missing: 4_000 } },
      ],
      [
        "an operator's block with an end",
        "Stopped by *an operator's block*. Clears at 21:48 Europe/London, in 1 h.",
        { reason: "user_blocked", clears_at: "2026-11-22T21:48:00Z" },
      ],
      [
        "an operator's block without one",
        "Stopped by *an operator's block*. Clears when an operator lifts it.",
        { reason: "user_blocked" },
      ],
      [
        "a rule that counts",
        "Stopped by *spam identical* (v1): 10 identical messages. Clears at 21:03 Europe/London, in 15 m.",
        {
          reason: "spam_identical",
          rule_name: "spam_identical",
          rule_version: 1,
          rules: [line("spam_identical", { identical_messages: 10, message: "(not kept)" })],
          clears_at: "2026-11-22T21:03:00Z",
        },
      ],
      [
        "a rule's block that has ended",
        "Stopped by *spam identical* (v1): blocked for a while since an earlier call. Cleared at 2026-11-21 21:03 Europe/London.",
        {
          reason: "spam_identical",
          rule_name: "spam_identical",
          rule_version: 1,
          clears_at: "2026-11-21T21:03:00Z",
        },
      ],
      [
        "a rule's block that outlives its call",
        "Stopped by *spam identical* (v1): blocked for a while since an earlier call.",
        { reason: "spam_identical", rule_name: "spam_identical", rule_version: 1 },
      ],
      [
        "a budget, in money",
        "Stopped by *team budget* (v2): 1,234.50 USD spent this month, 101 messages today.",
        {
          reason: "budget_exhausted",
          rule_name: "team_budget",
          rule_version: 2,
          rules: [line("team_budget", { cost_this_month_micros: 1_234_500_000, messages_today: 101 })],
        },
      ],
    ])("%s", (_case, sentence, facts) => {
      expect(describeReceipt({ ...base, ...facts }, now)).toBe(sentence);
    });
  });
});
