/**
 * Random histories of several accounts, step by step against a small model of what the books must say; and books
 * that somebody tampered with, which the proof must find. HISTORIES sets how many histories are told.
 */
import { describe, expect, it } from "vitest";
import { installedVersions } from "./desk.ts";
import { type Answer, dice, expectSoundBooks, openProject, type Project } from "./enforcement-support.ts";
import { LedgerModel } from "./ledger-model.ts";

const histories = Number(process.env["HISTORIES"] ?? 20);
const steps = 120;
const minute = 60_000;

/** Plan pro of the preset, with numbers that a short history reaches. */
const plan = { allowance: 20_000, dailyLimit: 15_000, ceiling: 6_000, holdMs: 15 * minute };

type Step = readonly [name: string, ...parameters: unknown[]];

/** One step as the database takes it, and as the model does. */
function nextStep(model: LedgerModel, random: () => number, history: number): [Step, Answer | null] {
  const chance = random();
  const user = `user-${history}-${Math.floor(random() * 3)}`;
  // Few ids: repeats, conflicts and calls that have ended already are what histories are about.
  const id = `call-${history}-${Math.floor(random() * 40)}`;
  const amount = Math.ceil(random() ** 3 * 8_000);
  if (chance < 0.34)
    return [["authorize_usage", id, user, "gpt-4o-mini", amount], model.authorize(id, user, amount)];
  if (chance < 0.58) {
    const [input, output] = [Math.floor(random() ** 3 * 5_000), Math.floor(random() * 900)];
    return [["settle_usage", id, input, output], model.settle(id, input, output)];
  }
  if (chance < 0.68) {
    const reason = random() < 0.8 ? "failed" : "given up";
    return [["release_usage", id, reason], model.release(id, reason)];
  }
  if (chance < 0.84) {
    const isIn = random() < 0.6;
    const type = isIn
      ? ["purchase", "bonus", "subscription_grant", "adjustment", "refund"][Math.floor(random() * 5)]
      : ["adjustment", "usage", "reversal"][Math.floor(random() * 3)];
    const expiresAt = isIn && random() < 0.5 ? model.now + Math.floor(random() * 3 * 1_440) * minute : null;
    const key = `change-${history}-${Math.floor(random() * 60)}`;
    const tokens = isIn ? amount : -amount;
    return [
      [
        "update_user_token_balance",
        user,
        tokens,
        type,
        null,
        {},
        key,
        expiresAt === null ? null : new Date(expiresAt).toISOString(),
      ],
      model.change(user, tokens, type ?? "", key, expiresAt),
    ];
  }
  if (chance < 0.88) {
    model.maintain();
    return [["run_maintenance"], null];
  }
  // Minutes, hours, now and then days or weeks; and back, for an hour.
  const jump = random();
  model.now +=
    jump < 0.1
      ? -60 * minute
      : Math.floor(random() * (jump < 0.6 ? 20 : jump < 0.96 ? 1_500 : 30_000)) * minute;
  return [["set_test_clock"], null];
}

async function take(project: Project, model: LedgerModel, step: Step): Promise<Answer> {
  const [name, ...parameters] = step;
  if (name !== "set_test_clock") return project.call(name, ...parameters);
  await project.pool.query("select governance.set_test_clock($1, true)", [new Date(model.now).toISOString()]);
  return {};
}

/** Tells histories; answers the users there are. */
async function tell(project: Project, seed: number, count: number): Promise<string[]> {
  await project.pool.query("update governance.plans set monthly_allowance = $1, daily_limit = $2", [
    plan.allowance,
    plan.dailyLimit,
  ]);
  // Calls are kept however far the clock goes.
  await project.pool.query(
    "update governance.active_config set settle_ceiling_tokens = $1, decision_retention_days = 100000",
    [plan.ceiling],
  );
  const users: string[] = [];
  for (let history = 0; history < count; history += 1) {
    const random = dice(seed * 1_000 + history);
    // Each begins at the same moment with users of its own: the month's end and 29 February lie ahead.
    const model = new LedgerModel(Date.parse("2028-02-20T12:00:00Z"), plan);
    await take(project, model, ["set_test_clock"]);
    const told: string[] = [];
    for (let n = 0; n < steps; n += 1) {
      const [step, expected] = nextStep(model, random, history);
      told.push(JSON.stringify(step));
      const answer = await take(project, model, step);
      if (expected === null) continue;
      const known =
        "refused" in expected
          ? { refused: answer["hint"] }
          : Object.fromEntries(Object.keys(expected).map((key) => [key, answer[key]]));
      // The last steps beside the difference: enough to see how it came about.
      expect({ seed, history, n, told: told.slice(-8), answer: known }).toEqual({
        seed,
        history,
        n,
        told: told.slice(-8),
        answer: expected,
      });
    }
    // What no call has woken is brought up to the moment, and each account is looked at, lot by lot.
    model.maintain();
    await project.call("run_maintenance");
    for (const user of model.users()) {
      users.push(user);
      const found = await project.one<{ balance: unknown; lots: number[] }>(
        `select governance.account_json(a) -> 'balance' as balance,
          (select array_agg(l.remaining::int order by l.lot_id) from governance.lots l where l.account_id = a.account_id) as lots
         from governance.accounts a where a.user_id = $1`,
        [user],
      );
      expect({ seed, user, ...found }).toEqual({
        seed,
        user,
        balance: model.balance(user),
        lots: model.lots(user),
      });
    }
    const { statuses } = await project.one<{ statuses: Record<string, string> }>(
      "select coalesce(jsonb_object_agg(request_id, status), '{}') as statuses from governance.requests where request_id like $1",
      [`call-${history}-%`],
    );
    expect({ seed, history, statuses }).toEqual({ seed, history, statuses: model.statuses() });
  }
  return users;
}

/**
 * What a thief with the superuser's password would do, by name: a statement that changes something, for account $1,
 * the entry at place $2 of its ledger (0 the first, never the last) and $3 tokens.
 */
const entry = (place: string): string =>
  `(select transaction_id from governance.token_transactions where account_id = $1 order by 1 offset ${place} limit 1)`;
const at = "where t.transaction_id = " + entry("$2");
const swap = (column: string): string =>
  `update governance.token_transactions t set ${column} = o.${column} from governance.token_transactions o
   where t.account_id = $1 and o.account_id = $1 and t.${column} is distinct from o.${column}
     and (t.transaction_id, o.transaction_id) in ((${entry("$2")}, ${entry("$2 + 1")}), (${entry("$2 + 1")}, ${entry("$2")}))`;
const lot = (change: string): string =>
  `update governance.lots l set ${change} where l.lot_id = (select x.lot_id from governance.lots x where x.account_id = $1 and x.remaining >= $3 order by 1 offset $2 % 2 limit 1)`;
const account = (change: string): string =>
  `update governance.accounts a set ${change} where a.account_id = $1`;
const change = (what: string): string => `update governance.token_transactions t set ${what} ${at}`;
const tamperings: Readonly<Record<string, string>> = {
  "an amount": change("amount = t.amount + $3"),
  "an amount with its balance": change("amount = t.amount + $3, new_balance = t.new_balance + $3"),
  "an amount and all balances after it": `update governance.token_transactions t set
    amount = t.amount + case when t.transaction_id = ${entry("$2")} then $3 else 0 end, new_balance = t.new_balance + $3,
    previous_balance = t.previous_balance + case when t.transaction_id = ${entry("$2")} then 0 else $3 end
    where t.account_id = $1 and t.transaction_id >= ${entry("$2")}`,
  "a balance": change("new_balance = t.new_balance + $3"),
  "the balance before": change("previous_balance = t.previous_balance + $3"),
  "the debt after": change("debt_after = t.debt_after + $3"),
  "the lot that an entry names": change("lot_changes = array[coalesce(t.lot_changes[1], 0) + 1, t.amount]"),
  "a type": change("transaction_type = t.transaction_type || 'd'"),
  "a moment": change("created_at = t.created_at + interval '1 second'"),
  "a description": change("description = coalesce(t.description, '') || '.'"),
  metadata: change(`metadata = coalesce(t.metadata, '{}') || '{"note": "nothing to see"}'`),
  "a reference": change("reference = coalesce(t.reference, '') || '.'"),
  "the call that an entry settles": change("decision_id = coalesce(t.decision_id, 0) + 1"),
  "a hash": change("hash = sha256(t.hash)"),
  "the hash before": change("previous_hash = sha256(t.hash)"),
  "an id": change("transaction_id = (select max(x.transaction_id) + 1 from governance.token_transactions x)"),
  "whose entry it is": `update governance.token_transactions t set account_id = (select max(a.account_id) from governance.accounts a where a.account_id <> $1) ${at}`,
  "the first entry deleted": `delete from governance.token_transactions where transaction_id = ${entry("0")}`,
  "an entry deleted": `delete from governance.token_transactions t ${at}`,
  "the last entry deleted": `delete from governance.token_transactions t where t.transaction_id = (select max(x.transaction_id) from governance.token_transactions x where x.account_id = $1)`,
  "every entry deleted": "delete from governance.token_transactions t where t.account_id = $1",
  "an entry told twice": `insert into governance.token_transactions (account_id, created_at, transaction_type, amount, previous_balance, new_balance, debt_after, lot_changes, reference, previous_hash, hash)
    select t.account_id, t.created_at, t.transaction_type, t.amount, t.previous_balance, t.new_balance, t.debt_after, t.lot_changes, t.reference, t.previous_hash, t.hash from governance.token_transactions t ${at}`,
  "two amounts swapped": swap("amount"),
  "two hashes swapped": swap("hash"),
  "two moments swapped": swap("created_at"),
  "two references swapped": swap("reference"),
  "two owners of lots swapped": swap("lot_changes"),
  "tokens put back into a lot": lot("remaining = l.remaining + 1, spent = l.spent - 1"),
  "tokens taken out of a lot": lot("remaining = l.remaining - $3, spent = l.spent + $3"),
  "a lot that was granted more": lot("granted = l.granted + $3, remaining = l.remaining + $3"),
  "a lot of another kind": lot("kind = case l.kind when 'purchased' then 'promotional' else 'purchased' end"),
  "a lot closed with tokens in it": lot("is_open = false"),
  "a lot of another account": lot(
    "account_id = (select max(a.account_id) from governance.accounts a where a.account_id <> $1)",
  ),
  "a lot deleted": `delete from governance.lots l where l.account_id = $1 and l.remaining >= $3`,
  "a lot nobody granted":
    "insert into governance.lots (account_id, kind, granted, remaining) values ($1, 'purchased', $3, $3)",
  "an account's subscription": account("subscription_tokens = a.subscription_tokens + $3"),
  "an account's purchases": account("purchased_tokens = a.purchased_tokens + $3"),
  "an account's promotions": account("promotional_tokens = a.promotional_tokens + $3"),
  "tokens of one kind made another": account(
    "subscription_tokens = a.subscription_tokens + 1, promotional_tokens = a.promotional_tokens - 1",
  ),
  "an account's holds": account("reserved_tokens = a.reserved_tokens + 1"),
  "an account's debt": account("debt_tokens = a.debt_tokens + $3"),
  "the head of the chain": account("last_hash = sha256(a.last_hash)"),
  "the last entry's id": account("last_transaction_id = a.last_transaction_id - 1"),
  "whose account it is": account("user_id = a.user_id || '.'"),
};

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  it(`${histories} random histories say what a model of the books says, at every step and lot by lot, and no tampering with them goes unseen`, async () => {
    const project = await openProject(version, 1);
    const users = await tell(project, version, histories);
    await expectSoundBooks(project);

    // The same books, tampered with: wherever and by however much, the proof of the account and the proof of all say so.
    const random = dice(version);
    const ledgers = await project.pool.query<{ account_id: string; user_id: string; entries: number }>(
      `select a.account_id, a.user_id, count(*)::int as entries from governance.token_transactions t join governance.accounts a using (account_id)
       where a.user_id = any ($1) group by 1, 2 having count(*) > 5 and exists (select from governance.lots l where l.account_id = a.account_id and l.remaining > 50) order by 1`,
      [users],
    );
    expect(ledgers.rows.length).toBeGreaterThan(3);
    const client = await project.pool.connect();
    for (const [name, statement] of Object.entries(tamperings)) {
      let planted = 0;
      for (let round = 0; round < 5; round += 1) {
        const ledger = ledgers.rows[Math.floor(random() * ledgers.rows.length)];
        if (!ledger) throw new Error("There are no books to tamper with.");
        const place = Math.floor(random() * (ledger.entries - 1));
        const tokens = 1 + Math.floor(random() * 50);
        await client.query("begin");
        // As a superuser can: triggers and foreign keys say nothing, and no check stands in the way.
        await client.query(`set local session_replication_role = replica;
          alter table governance.lots drop constraint lots_add_up;
          alter table governance.accounts drop constraint accounts_never_negative`);
        try {
          const { rowCount } = await client.query(
            statement
              .replace(/\$1/g, `${ledger.account_id}`)
              .replace(/\$2/g, `${place}`)
              .replace(/\$3/g, `${tokens}`),
          );
          if (rowCount) {
            planted += 1;
            const { rows } = await client.query<{ one: number; all: number }>(
              `select (select jsonb_array_length(public.verify_ledger(a.user_id) -> 'problems') from governance.accounts a where a.account_id = $1) as one,
                jsonb_array_length(public.verify_ledger() -> 'problems') as all`,
              [ledger.account_id],
            );
            expect({
              name,
              ledger,
              place,
              tokens,
              found: [Number(rows[0]?.one) > 0, Number(rows[0]?.all) > 0],
            }).toEqual({
              name,
              ledger,
              place,
              tokens,
              found: [true, true],
            });
          }
        } finally {
          await client.query("rollback");
        }
      }
      expect([name, planted > 0]).toEqual([name, true]);
    }
    client.release();
    await expectSoundBooks(project);
    await project.close();
  });
});
