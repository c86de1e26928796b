/**
 * The comparison of the core with a database: generated rule sets, accounts and histories run through
 * `authorize_usage`, `settle_usage` and the rest on a server, and through the core's AccountModel; every answer is
 * compared. `SEED` gives other cases, `TESTS` another number.
 */
import { seeded } from "../size.ts";
import { expect } from "vitest";
import type { SqlConnection } from "../../../local-project/migrations.ts";
import { AccountModel, type Policy } from "./account-model.ts";
import {
  compileRules,
  countWords,
  type Decision,
  type FactName,
  factNames,
  foldLetters,
  foldText,
  identityText,
  makeCounts,
  parsePrices,
  parseRules,
  phraseText,
  soughtPhrase,
  truncateToWords,
  type UsageCounts,
} from "../../../shared/governance/index.ts";
import {
  type Case,
  Dice,
  estimates,
  history,
  plans,
  prices,
  ruleSet,
  type Step,
  settings,
} from "./core-cases.ts";

const seed = seeded(20261122);
const casesPerRuleSet = 25;

/** Runs many histories in one statement, each step at its own moment of the test clock. */
const replaySql = `
create schema core_test;
-- The call in a batch between others: of another account, or refused.
create function core_test.in_batch(p_kind text, p_call jsonb, p_n int) returns jsonb language plpgsql as $$
declare
  v_decoy jsonb := '{"request_id": "decoy", "user_id": "decoy", "model": "gpt-4o", "estimated_tokens": 1}';
  a jsonb;
begin
  case p_kind
  when 'authorize' then
    a := authorize_usage_many(jsonb_build_array(v_decoy || jsonb_build_object('request_id', 'decoy-' || p_n), p_call,
      v_decoy || '{"estimated_tokens": -1}')) -> 1;
  when 'settle' then
    a := settle_usage_many(jsonb_build_array('{"request_id": "unheard of"}', p_call, jsonb_build_object('request_id',
      'decoy-' || p_n - 1, 'input_tokens', 1, 'output_tokens', 1))) -> 1;
  else
    a := release_usage_many(jsonb_build_array('{"request_id": "unheard of"}', p_call)) -> 1;
  end case;
  if a ? 'error' then
    raise exception using errcode = a -> 'error' ->> 'code', message = a -> 'error' ->> 'message';
  end if;
  return a;
end
$$;
create function core_test.replay(p_cases jsonb) returns jsonb language plpgsql as $$
declare
  c jsonb;
  s jsonb;
  a jsonb;
  v_answers jsonb[];
  v_all jsonb[] := '{}';
  n int := 0;
  v_cases int := 0;
  v_is_batched boolean;
  v_metadata jsonb;
begin
  for c in select * from jsonb_array_elements(p_cases) loop
    v_answers := '{}';
    -- Every third history goes through batches.
    v_is_batched := v_cases % 3 = 0;
    v_cases := v_cases + 1;
    perform governance.set_test_clock(to_timestamp((c ->> 'created_at')::numeric / 1000), true);
    -- Not upsert_account: it reads the whole time zone database to check a name.
    perform governance.create_account(c ->> 'user_id', governance.now(), c ->> 'plan_id', c ->> 'timezone');
    for s in select * from jsonb_array_elements(c -> 'steps') loop
      n := n + 1;
      perform governance.set_test_clock(to_timestamp((s ->> 'at')::numeric / 1000), true);
      begin
        case s ->> 'kind'
        when 'authorize' then
          if v_is_batched then
            a := core_test.in_batch('authorize', s - array['kind', 'at'] || jsonb_build_object('user_id', c -> 'user_id'), n);
          else
            a := authorize_usage(s ->> 'request_id', c ->> 'user_id', s ->> 'model', (s ->> 'estimated_tokens')::bigint, s ->> 'message',
              s ->> 'conversation_id', s ->> 'task_type', s ->> 'scope_id', (s ->> 'complexity')::numeric);
          end if;
          a := a || jsonb_build_object('matched', (select to_jsonb(governance.rule_names(r.matched_version_ids)) from governance.request_keys k
            join governance.requests r on r.decision_id = k.decision_id and r.created_at = k.created_at where k.request_id = s ->> 'request_id'));
        when 'settle' then
          v_metadata := jsonb_build_object(
            'cached_input_tokens', s -> 'cached', 'cache_write_tokens', s -> 'cache_write', 'cache_write_1h_tokens', s -> 'cache_write_1h',
            'reasoning_tokens', s -> 'reasoning', 'service_tier', s -> 'tier') || case when s -> 'other' = 'null' then '{}' else jsonb_build_object('by_other_models',
              jsonb_build_array(jsonb_build_object('model', s -> 'other' -> 'model', 'input_tokens', s -> 'other' -> 'input',
                'output_tokens', s -> 'other' -> 'output'))) end;
          if v_is_batched then
            a := core_test.in_batch('settle', jsonb_build_object('request_id', s -> 'request_id', 'input_tokens', s -> 'input',
              'output_tokens', s -> 'output', 'metadata', v_metadata), n);
          else
            a := settle_usage(s ->> 'request_id', (s ->> 'input')::bigint, (s ->> 'output')::bigint, null, v_metadata);
          end if;
        when 'release' then
          a := case when v_is_batched then core_test.in_batch('release', jsonb_build_object('request_id', s -> 'request_id'), n)
            else release_usage(s ->> 'request_id') end;
        when 'grant' then
          a := to_jsonb(update_user_token_balance(c ->> 'user_id', (s ->> 'tokens')::bigint, s ->> 'type', null, '{}', null,
            to_timestamp((s ->> 'expires')::numeric / 1000)));
        when 'block' then a := block_user(c ->> 'user_id' || '-' || n, c ->> 'user_id', 'test', to_timestamp((s ->> 'until')::numeric / 1000), 'op');
        when 'unblock' then a := unblock_user(c ->> 'user_id' || '-' || n, c ->> 'user_id', 'test', 'op');
        when 'flag' then a := flag_user(c ->> 'user_id' || '-' || n, c ->> 'user_id', 'test', 'op');
        end case;
      exception when others then
        if sqlstate !~ '^PT4' then raise; end if;
        a := jsonb_build_object('error', sqlerrm);
      end;
      v_answers := v_answers || a;
    end loop;
    v_all := v_all || to_jsonb(v_answers);
  end loop;
  return to_jsonb(v_all);
end
$$;
`;

function presetOf(rules: readonly unknown[]): unknown {
  return {
    name: "core-equals-sql",
    currency: "usd",
    settings,
    default_plan: "free",
    plans,
    packs: [],
    rules,
    prices,
    estimates,
    alerts: [],
  };
}

const priceBook = parsePrices(prices);
if (!priceBook.ok) throw new Error(JSON.stringify(priceBook.error));
const book = priceBook.value;

const iso = (ms: number): string => new Date(ms).toISOString();
/** PostgreSQL writes instants its own way: compare the moments. */
const moment = (text: unknown): string | null => (typeof text === "string" ? iso(Date.parse(text)) : null);

function balanceOf(account: AccountModel): unknown {
  return {
    available: account.available,
    reserved: account.reserved,
    subscription: account.tokensOf("subscription"),
    purchased: account.tokensOf("purchased"),
    promotional: account.tokensOf("promotional"),
    debt: account.debt,
    total: account.total,
  };
}

function decisionOf(
  decision: Decision,
  account: AccountModel,
  used: { day: number; month: number },
  estimate: number,
): unknown {
  const limit = (most: number | null, tokens: number, resets: number) => ({
    limit: most,
    used: tokens + decision.reserved_tokens,
    remaining: most === null ? null : Math.max(0, most - tokens - decision.reserved_tokens),
    resets_at: iso(resets),
  });
  const upgrade = plans.find(({ plan_id }) => plan_id === decision.upgrade_to);
  return {
    decision: decision.decision,
    reason: decision.reason,
    http_status: decision.http_status,
    message: decision.message,
    model: decision.model,
    truncate_to_words: decision.truncate_to_words,
    estimated_tokens: estimate,
    reserved_tokens: decision.reserved_tokens,
    retry_after_seconds: decision.retry_after_seconds,
    upgrade: upgrade ? { plan_id: upgrade.plan_id, name: upgrade.name } : null,
    warnings: decision.warnings,
    balance: balanceOf(account),
    limits: {
      daily: limit(account.plan.daily_limit, used.day, account.day_ends_ms),
      monthly: limit(account.plan.monthly_limit, used.month, account.month_ends_ms),
    },
    matched: [...(decision.outcome?.matched ?? []), ...(decision.outcome?.shadow_matched ?? [])]
      .map((rule) => rule.rule_name)
      .toSorted(),
  };
}

function plainCounts(used: { readonly input: number; readonly output: number }): UsageCounts {
  const counts = makeCounts(used);
  if (!counts.ok) throw new Error(counts.error.message);
  return counts.value;
}

/** What the core answers to a step, with the keys that are compared; `seen` gets the value of each fact that it judged. */
function stepInCore(account: AccountModel, step: Step, seen: Tally["byFact"]): unknown {
  switch (step.kind) {
    case "authorize": {
      account.roll(step.at);
      const used = {
        day: account.day_tokens + account.reserved,
        month: account.month_tokens + account.reserved,
      };
      const call = { ...step, at_ms: step.at };
      const facts = account.facts(call);
      for (const [fact, values] of seen) values.set(facts[fact], (values.get(facts[fact]) ?? 0) + 1);
      return decisionOf(account.authorize(call), account, used, facts.estimated_tokens ?? -1);
    }
    case "settle": {
      const counts = makeCounts({
        input: step.input,
        output: step.output,
        cached: step.cached,
        cacheWrite: step.cache_write,
        cacheWrite1h: step.cache_write_1h,
        reasoning: step.reasoning,
        tier: step.tier ?? undefined,
      });
      if (!counts.ok) throw new Error(counts.error.message);
      const others =
        step.other === null ? [] : [{ model: step.other.model, counts: plainCounts(step.other) }];
      try {
        const settled = account.settle(step.request_id, counts.value, step.at, others);
        return {
          charged_tokens: settled.charged,
          debt_tokens: settled.debt,
          cost_micros: settled.cost_micros,
          balance: balanceOf(account),
        };
      } catch (error) {
        if (error instanceof RangeError) return { error: true };
        throw error;
      }
    }
    case "release":
      if (!account.holds(step.request_id)) return { error: true };
      account.release(step.request_id, step.at);
      return { balance: balanceOf(account) };
    case "grant":
      account.roll(step.at);
      account.grant(
        step.tokens,
        step.type === "purchase" ? "purchased" : "promotional",
        step.at,
        step.expires,
      );
      return null;
    case "block":
      account.roll(step.at);
      account.operator_block = { until_ms: step.until };
      return null;
    case "unblock":
      account.unblock(step.at);
      return null;
    case "flag":
      account.roll(step.at);
      account.is_flagged = true;
      return null;
  }
}

/** The same keys of what the database answered. */
function comparable(step: Step, answer: Record<string, unknown>): unknown {
  if ("error" in answer) return { error: true };
  const pickKeys = (keys: readonly string[]) => Object.fromEntries(keys.map((key) => [key, answer[key]]));
  switch (step.kind) {
    case "authorize": {
      const limits = answer["limits"] as Record<string, Record<string, unknown>>;
      const limit = (name: string) => ({ ...limits[name], resets_at: moment(limits[name]?.["resets_at"]) });
      return {
        ...pickKeys([
          "decision",
          "reason",
          "http_status",
          "message",
          "model",
          "truncate_to_words",
          "estimated_tokens",
          "reserved_tokens",
          "retry_after_seconds",
          "upgrade",
          "warnings",
          "balance",
        ]),
        limits: { daily: limit("daily"), monthly: limit("monthly") },
        matched: ((answer["matched"] ?? []) as string[]).toSorted(),
      };
    }
    case "settle":
      return pickKeys(["charged_tokens", "debt_tokens", "cost_micros", "balance"]);
    case "release":
      return pickKeys(["balance"]);
    default:
      return null;
  }
}

interface Tally {
  cases: number;
  decisions: number;
  readonly byOutcome: Map<string, number>;
  /** How often each fact had which value. */
  readonly byFact: ReadonlyMap<FactName, Map<unknown, number>>;
}

async function compareDecisions(connection: SqlConnection, name: string, wanted: number): Promise<Tally> {
  await connection.exec(replaySql);
  const tally: Tally = {
    cases: 0,
    decisions: 0,
    byOutcome: new Map(),
    byFact: new Map(factNames.map((fact) => [fact, new Map()])),
  };
  for (let set = 0; tally.cases < wanted; set++) {
    const dice = new Dice(seed + set * 7919);
    const rules = ruleSet(dice);
    const cases: Case[] = Array.from({ length: casesPerRuleSet }, (_, index) =>
      history(dice, `u${set}-${index}`),
    );
    // Through JSON, as the database gets it.
    const parsed = parseRules(JSON.parse(JSON.stringify(rules)));
    if (!parsed.ok) throw new Error(`The generated rules do not parse: ${JSON.stringify(parsed.error)}`);
    const policy: Policy = { rules: compileRules(parsed.value), settings, estimates, prices: book };
    await connection.query("select apply_preset($1::jsonb)", [JSON.stringify(presetOf(rules))]);
    const { rows } = await connection.query<{ answers: unknown }>(
      "select core_test.replay($1::jsonb) as answers",
      [JSON.stringify(cases)],
    );
    const answers = rows[0]?.answers as Record<string, unknown>[][];
    for (const [index, given] of cases.entries()) {
      const plan = plans.find(({ plan_id }) => plan_id === given.plan_id);
      if (!plan) throw new Error(given.plan_id);
      const account = new AccountModel(policy, plan, given.timezone, given.created_at);
      for (const [at, step] of given.steps.entries()) {
        const fromCore = stepInCore(account, step, tally.byFact);
        const fromSql = comparable(step, answers[index]?.[at] ?? {});
        if (JSON.stringify(sorted(fromCore)) !== JSON.stringify(sorted(fromSql)))
          expect(
            fromCore,
            `${name}: set ${set}, case ${index}, step ${at} of ${JSON.stringify({ ...given, rules }, null, 1)}`,
          ).toEqual(fromSql);
        if (step.kind === "authorize") {
          tally.decisions++;
          const outcome = String(
            (fromSql as Record<string, unknown>)["reason"] ??
              (fromSql as Record<string, unknown>)["decision"],
          );
          tally.byOutcome.set(outcome, (tally.byOutcome.get(outcome) ?? 0) + 1);
        }
      }
      tally.cases++;
    }
  }
  return tally;
}

/** Keys in one order, so that equal answers have equal texts. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, item]) => [key, sorted(item)]),
  );
}

/** A comparison over cases that all end alike, or over a fact that is always the same, would prove little. */
function expectVariety({ cases, decisions, byOutcome, byFact }: Tally): void {
  expect(decisions).toBeGreaterThan(cases);
  const rarelyElse = [...byFact].filter(
    ([, values]) => decisions - Math.max(...values.values()) < decisions / 100,
  );
  expect(
    rarelyElse.map(([fact]) => fact),
    "facts that have one value in all but a hundredth of the decisions: vary them in core-cases.ts",
  ).toEqual([]);
  if (cases < 2_000) return;
  for (const outcome of [
    "allow",
    "warn",
    "insufficient_tokens",
    "daily_limit",
    "monthly_limit",
    "user_blocked",
    "off_topic",
    "spam_identical",
    "custom_reason",
  ])
    expect(byOutcome.get(outcome) ?? 0, `${outcome} in ${JSON.stringify([...byOutcome])}`).toBeGreaterThan(
      20,
    );
}

/**
 * Characters that Unicode gave a compatibility form, or that compose with themselves, after the version PostgreSQL
 * knows (15 knows Unicode 14, 18 knows 16): there NFKC leaves them alone. New ones of this kind are rare, and no letter
 * of a living alphabet.
 */
const isNewerThanPostgres = (code: number): boolean =>
  code === 0xa7f1 ||
  (code >= 0x1ccd6 && code <= 0x1ccf9) ||
  (code >= 0x1e030 && code <= 0x1e06d) ||
  [0x113c2, 0x1611e, 0x16d67].includes(code);

/** Pieces that messages are made of: scripts with and without spaces, marks, white space, what grows when folded. */
const pieces = [
  "aZé Жя ß-_.,!?«»…0١9",
  "赌博 我们 、。「」々〇 カジノ ひらがな ー ・ ｶﾞ ㄅ 𠀀 ㍿",
  "การพนัน หวย น้ำ ກິນ ကစား បន្ទាប់ ស្រ",
  "도박 ㅋㅋ ﷺ ﬁ Å Ӿ Ӂ ﾞ ﾟ",
  "\u0301\u0316 \u0344 \u0f73 \u17d2 \u0300 \u302a",
  "\t\n\u0085\u00a0\u2003\u3000 \u200b\u00ad\u034f\ufeff\u3164\u{e0041} 👍🏽",
].flatMap((piece) => Array.from(piece));

function messageOf(dice: Dice): string {
  let message = "";
  for (let left = dice.whole(0, 60); left > 0; left--)
    message += dice.pick(pieces).repeat(dice.whole(0, 9) === 0 ? dice.whole(1, 70) : 1);
  // Some are longer than what is judged.
  if (dice.whole(0, 39) === 0) message = dice.pick(pieces).repeat(dice.whole(19_950, 20_010)) + message;
  return message;
}

async function compareText(connection: SqlConnection, messages: number): Promise<void> {
  // Every character of the first two planes and of the compatibility ideographs, alone, between letters, and many of it
  // in a row. As hex: a byte order mark at the start of an answer would be lost on the way.
  const { rows } = await connection.query<{ code: number; folded: string; phrases: string }>(
    `select n as code, encode(convert_to(governance.fold(chr(n)), 'UTF8'), 'hex') as folded,
       encode(convert_to(governance.space_phrases(governance.fold('a' || chr(n) || 'b' || repeat(chr(n), 40))), 'UTF8'),
         'hex') as phrases
     from generate_series(1, 195103) n where n not between 55296 and 57343 and n not between 131072 and 194559`,
  );
  const hex = (text: string): string => Buffer.from(text).toString("hex");
  const differing = rows.filter(({ code, folded, phrases }) => {
    const character = String.fromCodePoint(code);
    const marked = `a${character}b${character.repeat(40)}`;
    const spaced = phraseText(foldText(marked));
    // The SQL has a text without a word as two spaces.
    return folded !== hex(foldText(character)) || phrases !== hex(spaced === " " ? "  " : spaced);
  });
  expect(differing.map(({ code }) => code).filter((code) => !isNewerThanPostgres(code))).toEqual([]);
  const letters = await connection.query<{ upper: string; lower: string }>(
    "select upper, lower from governance.fold_letters",
  );
  expect(
    new Map(letters.rows.map(({ upper, lower }) => [upper.codePointAt(0), lower.codePointAt(0)])),
  ).toEqual(new Map(foldLetters));

  const dice = new Dice(seed);
  const given = Array.from({ length: messages }, () => messageOf(dice));
  const read = await connection.query<{ at: number; identity: string; sought: string; words: number }>(
    `select t.n::int - 1 as at, encode(convert_to(governance.identity_text(t.m, governance.fold(t.m)), 'UTF8'), 'hex') as identity,
       encode(convert_to(governance.sought_phrase(t.m), 'UTF8'), 'hex') as sought, governance.count_words(t.m) as words
     from jsonb_array_elements_text($1::jsonb) with ordinality t(m, n)`,
    [JSON.stringify(given)],
  );
  for (const { at, identity, sought, words } of read.rows) {
    const message = given[at] as string;
    expect({ message, identity, sought: sought.replace(/^2020$/, "20"), words }).toEqual({
      message,
      identity: hex(identityText(message)),
      sought: hex(soughtPhrase(message)),
      words: countWords(message),
    });
    const most = dice.whole(0, 12);
    expect(countWords(truncateToWords(message, most)), message).toBe(Math.min(most, words));
  }
}

/** Every character folded alike, and so many generated histories decided alike. Says what was compared. */
export async function expectEqual(connection: SqlConnection, name: string, cases: number): Promise<void> {
  await compareText(connection, Math.max(1_000, cases));
  const started = performance.now();
  const tally = await compareDecisions(connection, name, cases);
  expectVariety(tally);
  console.info(
    `${name}: ${tally.cases} cases, ${tally.decisions} decisions equal, seed ${seed}, ${Math.round((performance.now() - started) / 1000)} s; ` +
      [...tally.byOutcome].map(([outcome, count]) => `${outcome} ${count}`).join(", "),
  );
}
