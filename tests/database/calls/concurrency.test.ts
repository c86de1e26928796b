/** Many callers at once on few accounts: exact, without deadlocks, and safe to repeat. */
import { afterEach, describe, expect, it } from "vitest";
import { dice } from "../../support/dice.ts";
import {
  type Answer,
  expectSoundBooks,
  installedVersions,
  openProject,
  type Project,
} from "../../support/project.ts";
import { sized } from "../../support/size.ts";

let project: Project;
/** A batch on one of the project's connections. An account may be busy for long with 64 at it: then it is asked again. */
async function many(name: string, calls: readonly unknown[]): Promise<readonly Answer[]> {
  const answers = [...((await project.call(name, JSON.stringify(calls))) as unknown as Answer[])];
  const busy = [...answers.entries()].filter(
    ([, { error }]) => (error as Answer | undefined)?.["hint"] === "account_busy",
  );
  if (busy.length > 0) {
    const again = await many(
      name,
      busy.map(([place]) => calls[place]),
    );
    for (const [at, [place]] of busy.entries()) answers[place] = again[at] as Answer;
  }
  return answers;
}
afterEach(() => project.close());

describe.each(installedVersions())("on PostgreSQL %i", (version) => {
  // The server that we ship gets most; the other one enough to notice where it differs. A connection costs more than its
  // calls: each reads and plans the functions again.
  const callers = version === 18 ? 64 : 24;
  const accounts = callers / 8;
  const callsEach = sized(version === 18 ? 50 : 25, 200);
  it(`${callers} connections × ${callsEach} mixed calls on ${accounts} accounts keep the books`, async () => {
    project = await openProject(version, { connections: callers });
    for (let user = 0; user < accounts; user += 1) await project.call("upsert_account", `user-${user}`);
    const done = { calls: 0, blocked: 0, refused: 0 };
    const known: string[] = [];
    await Promise.all(
      Array.from({ length: callers }, async (_, worker) => {
        const random = dice(worker + 1);
        for (let n = 0; n < callsEach; n += 1) {
          const chance = random();
          const user = `user-${Math.floor(random() * accounts)}`;
          let answer: Answer;
          if (chance < 0.45 || known.length === 0) {
            const id = chance < 0.05 && known.length > 0 ? pick(known, random) : `call-${worker}-${n}`;
            known.push(id);
            answer = await project.call(
              "authorize_usage",
              id,
              user,
              "gpt-4o-mini",
              1 + Math.floor(random() * 3000),
            );
          } else if (chance < 0.75)
            answer = await project.call(
              "settle_usage",
              pick(known, random),
              Math.floor(random() * 700),
              Math.floor(random() * 700),
            );
          else if (chance < 0.85) answer = await project.call("release_usage", pick(known, random));
          else if (chance < 0.93)
            answer = await project.call(
              "update_user_token_balance",
              user,
              Math.ceil((random() - 0.4) * 2000) || 1,
              "adjustment",
            );
          else if (chance < 0.98)
            answer = await project.call("record_token_usage", user, 1 + Math.floor(random() * 400));
          // Now and then an hour passes: what is held by then expires.
          else {
            await project.sql.query(
              "select governance.set_test_clock(governance.now() + interval '20 minutes') where (select test_clock_offset is null or test_clock_offset < interval '2 hours' from governance.active_config)",
            );
            answer = {};
          }
          done.calls += 1;
          if ("refused" in answer) done.refused += 1;
          if (answer["decision"] === "block") done.blocked += 1;
        }
      }),
    );
    expect(done.calls).toBe(callers * callsEach);
    expect(done.blocked).toBeGreaterThan(0);
    expect(done.refused).toBeGreaterThan(0);
    await expectSoundBooks(project);
    const ended = await project.one<Record<string, number>>(
      "select count(*) filter (where status = 'expired')::int as expired, count(*) filter (where status = 'released')::int as released, count(*) filter (where status = 'settled')::int as settled from governance.requests",
    );
    expect(ended["released"]).toBeGreaterThan(0);
    expect(ended["settled"]).toBeGreaterThan(0);
    // Upkeep gives back what no call has woken, and the books still hold.
    await project.sql.query("select governance.set_test_clock(governance.now() + interval '1 day')");
    // A round does what fits into its time, and says whether there is more.
    for (let rounds = 0; rounds < 20 && (await project.call("run_maintenance"))["more"] === true; rounds++);
    expect(
      await project.one("select count(*)::int as held from governance.requests where status = 'held'"),
    ).toEqual({ held: 0 });
    await expectSoundBooks(project);
  });

  const rounds = sized(5, 200);
  it(`${callers} connections × ${rounds} batches and single calls, mixed with upkeep, on ${accounts} accounts keep the books`, async () => {
    project = await openProject(version, { connections: callers + 2 });
    for (let user = 0; user < accounts; user += 1) await project.call("upsert_account", `user-${user}`);
    const done = { calls: 0, refused: 0, settled: 0, released: 0 };
    const known: string[] = [];
    let isOver = false;
    const upkeep = (async () => {
      while (!isOver) {
        await project.call("run_maintenance");
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })();
    await Promise.all(
      Array.from({ length: callers }, async (_, worker) => {
        const random = dice(worker + 500);
        const some = <T>(make: (at: number) => T): T[] =>
          Array.from({ length: 1 + Math.floor(random() ** 2 * 20) }, (__, at) => make(at));
        for (let n = 0; n < rounds; n += 1) {
          const chance = random();
          const user = () => `user-${Math.floor(random() * accounts)}`;
          let answers: readonly Answer[];
          if (chance < 0.4 || known.length === 0) {
            const calls = some((at) => ({
              request_id: random() < 0.1 && known.length > 0 ? pick(known, random) : `b-${worker}-${n}-${at}`,
              user_id: random() < 0.03 ? "" : user(),
              model: "gpt-4o-mini",
              estimated_tokens: 1 + Math.floor(random() * 400),
            }));
            answers = await many("authorize_usage_many", calls);
            known.push(...calls.map(({ request_id: id }) => id));
          } else if (chance < 0.7)
            answers = await many(
              "settle_usage_many",
              some(() => ({
                request_id: pick(known, random),
                input_tokens: Math.floor(random() * 200),
                output_tokens: Math.floor(random() * 200),
              })),
            );
          else if (chance < 0.8)
            answers = await many(
              "release_usage_many",
              // One of the newest: most of the others are settled by now, and a release of a call that is open must occur.
              some(() => ({ request_id: pick(known.slice(-20), random) })),
            );
          else if (chance < 0.87) answers = [await project.call("settle_usage", pick(known, random), 20, 10)];
          else if (chance < 0.94) {
            const id = `single-${worker}-${n}`;
            answers = [await project.call("authorize_usage", id, user(), "gpt-4o-mini", 50)];
            known.push(id);
          } else if (chance < 0.99)
            answers = [await project.call("update_user_token_balance", user(), 2_000, "adjustment")];
          else {
            await project.sql.query(
              "select governance.set_test_clock(governance.now() + interval '20 minutes') where (select test_clock_offset is null or test_clock_offset < interval '2 hours' from governance.active_config)",
            );
            answers = [];
          }
          for (const answer of answers) {
            done.calls += 1;
            if ("error" in answer || "refused" in answer) done.refused += 1;
            if (answer["status"] === "settled") done.settled += 1;
            if (answer["status"] === "released") done.released += 1;
          }
        }
      }),
    );
    isOver = true;
    await upkeep;
    expect(done.calls).toBeGreaterThan(callers * rounds);
    for (const count of [done.refused, done.settled, done.released]) expect(count).toBeGreaterThan(0);
    await expectSoundBooks(project);
  });

  const batchKeys = sized(version === 18 ? 10 : 5, 200);
  it(`${batchKeys} keys × 50 in batches at once: ${batchKeys} effects, identical answers`, async () => {
    project = await openProject(version, { connections: 50 });
    const keys = Array.from({ length: batchKeys }, (_, n) => `key-${n}`);
    for (const [name, call] of [
      [
        "authorize_usage_many",
        (key: string) => ({
          request_id: key,
          user_id: `of-${key.at(-1)}`,
          model: "gpt-4o-mini",
          estimated_tokens: 10,
        }),
      ],
      ["settle_usage_many", (key: string) => ({ request_id: key, input_tokens: 3, output_tokens: 4 })],
    ] as const) {
      const answers = new Map(keys.map((key) => [key, new Set<string>()]));
      await Promise.all(
        Array.from({ length: 50 }, async (_, caller) => {
          const random = dice(caller);
          const order = keys.map((key) => ({ key, at: random() })).sort((a, b) => a.at - b.at);
          for (let from = 0; from < order.length; from += 20) {
            const asked = order.slice(from, from + 20).map(({ key }) => key);
            for (const [place, answer] of (
              await many(
                name,
                asked.map((key) => call(key)),
              )
            ).entries())
              answers.get(asked[place] ?? "")?.add(JSON.stringify(answer));
          }
        }),
      );
      expect([...answers.values()].map((given) => given.size)).toEqual(keys.map(() => 1));
    }
    expect(
      await project.one(
        `select (select count(*)::int from governance.requests) as calls,
          (select count(*)::int from governance.token_transactions where transaction_type = 'usage') as usages`,
      ),
    ).toEqual({ calls: batchKeys, usages: batchKeys });
    await expectSoundBooks(project);
  });

  it("1,000 authorisations of 100 tokens at once against 50,000 hold exactly 500", async () => {
    project = await openProject(version, { connections: version === 18 ? 100 : callers });
    const answers = await Promise.all(
      Array.from({ length: 1000 }, (_, n) =>
        project.call("authorize_usage", `one-${n}`, "crowded", "gpt-4o", 100),
      ),
    );
    const held = answers.filter((answer) => answer["decision"] === "allow");
    expect(held.length).toBe(500);
    expect(
      answers.filter((answer) => answer["reason"] === "insufficient_tokens" && answer["http_status"] === 402)
        .length,
    ).toBe(500);
    expect(await project.call("get_user_token_balance", "crowded")).toBe(0);
    await expectSoundBooks(project);
  });

  const keys = sized(version === 18 ? 20 : 8, 200);
  it(`${keys} keys × 50 calls at once: ${keys} effects, identical answers`, async () => {
    project = await openProject(version, { connections: 50 });
    for (const [name, parameters] of [
      ["authorize_usage", (key: string) => [key, "repeated", "gpt-4o-mini", 10, null, "c-1"]],
      ["settle_usage", (key: string) => [key, 3, 4, null, { cached_input_tokens: 2 }]],
      ["update_user_token_balance", (key: string) => ["repeated", 7, "bonus", "a gift", {}, key]],
      ["flag_user", (key: string) => [key, "repeated", "looked at", "op"]],
    ] as const) {
      const answers = new Map<string, Set<string>>();
      await Promise.all(
        Array.from({ length: keys * 50 }, async (_, n) => {
          // All 50 calls of a key at the same moment, then the next key's.
          const key = `key-${Math.floor(n / 50)}`;
          const answer = JSON.stringify(await project.call(name, ...parameters(key)));
          answers.set(key, (answers.get(key) ?? new Set()).add(answer));
        }),
      );
      expect([...answers.values()].map((given) => given.size)).toEqual(Array.from({ length: keys }, () => 1));
    }
    expect(
      await project.one(
        `select (select count(*)::int from governance.requests) as calls,
          (select count(*)::int from governance.token_transactions where transaction_type = 'usage') as usages,
          (select count(*)::int from governance.token_transactions where transaction_type = 'bonus') as gifts,
          (select count(*)::int from governance.audit_log where action = 'flag_user') as flags`,
      ),
    ).toEqual({ calls: keys, usages: keys, gifts: keys, flags: keys });
    await expectSoundBooks(project);
  });
});

function pick(list: readonly string[], random: () => number): string {
  return list[Math.floor(random() * list.length)] ?? "none";
}
