/**
 * The finance desk in the database: what keeping a run does and never does twice, what one person may do alone, and
 * what closing a period asks for and seals.
 */
import { createHash, randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";
import pg from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";

const urls = postgresUrls();
const period = { from: "2026-03-01T00:00:00Z", to: "2026-04-01T00:00:00Z" };
const noon = "2026-03-10T12:00:00Z";

interface Case {
  difference_id: string;
  status: string;
  version: number;
  history: { action: string; by: string; reason?: string }[];
  last_run_id: string;
  times_carried: number;
}

for (const version of [18, 15] as const) {
  const server = urls[version];
  describe.skipIf(!server)(`the finance desk on PostgreSQL ${version}`, () => {
    let db: pg.Pool;
    let serial = 0;
    let prefix = "";

    beforeAll(async () => {
      const project = await createProjectDatabase(server ?? "", { preset: "athro" });
      db = new pg.Pool({ connectionString: project.ownerUrl, max: 6 });
      await db.query("select upsert_account('payer', 'full'), upsert_account('other', 'full')");
    });
    afterAll(async () => {
      await db.end();
    });
    beforeEach(() => {
      serial += 1;
      prefix = `t${serial}`;
    });

    const one = async <T>(sql: string, values: unknown[] = []): Promise<T> =>
      (Object.values((await db.query(sql, values)).rows[0] ?? {}) as T[])[0] as T;

    /** A payment whose tokens never came: its correction is a grant. */
    const paid = (name: string, tokens = 1_000, more: Record<string, unknown> = {}) => ({
      difference_id: `PAID_NOT_GRANTED/ch_${prefix}_${name}`,
      class: "PAID_NOT_GRANTED",
      blocks: true,
      amount_minor: 200,
      currency: "gbp",
      tokens: -tokens,
      occurred_at: noon,
      user_id: "payer",
      correction: {
        action: "grant",
        books: true,
        words: "Grant it",
        tokens,
        user_id: "payer",
        charge_id: `ch_${prefix}_${name}`,
        amount_minor: 200,
        currency: "gbp",
      },
      ...more,
    });
    const reportOf = (more: Record<string, unknown> = {}) => ({
      report_version: 1,
      tied_out: false,
      period,
      inputs: [
        {
          name: "p.csv",
          kind: "unified_payments",
          sha256: "a".repeat(64),
          rows: 10,
          window: { from: period.from, to: period.to },
        },
      ],
      ...more,
    });
    const keep = (
      run: string,
      differences: object[],
      { report = reportOf(), last = true, by = "fay" }: { report?: object; last?: boolean; by?: string } = {},
    ) =>
      one<Record<string, number>>("select console_keep_reconciliation($1, $2, $3, $4, $5)", [
        `${prefix}-${run}`,
        by,
        JSON.stringify(report),
        JSON.stringify(differences),
        last,
      ]);
    const act = (ids: string[], action: string, by: string, reason: string | null = null, details = {}) =>
      one<{ cases: Case[] }>("select console_case_action($1, $2, $3, $4, $5, $6)", [
        randomUUID(),
        ids,
        action,
        by,
        reason,
        JSON.stringify(details),
      ]);
    const post = (id: string, by: string) =>
      one<{ status: string; effects: { tokens: number }[] }>("select console_post_correction($1, $2)", [
        id,
        by,
      ]);
    const caseOf = async (id: string): Promise<Case> => {
      const page = await one<{ cases: Case[] }>("select console_reconciliation_cases(null, $1)", [[id]]);
      return page.cases[0] as Case;
    };
    /** As if two days had passed since anybody decided anything alone. */
    const forgetLoneDecisions = () =>
      db.query("update governance.lone_decisions set decided_at = decided_at - interval '2 days'");
    /** As if some time had passed between a posting and the reading of the ledger. */
    const postedEarlier = (...ids: string[]) =>
      db.query(
        "update governance.reconciliation_cases set posted_at = posted_at - interval '1 minute' where difference_id = any ($1)",
        [ids],
      );
    /** Until somebody waits for a lock. */
    const waiting = async () => {
      const count = () =>
        one<number>(
          "select count(*)::int from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'",
        );
      for (let tries = 0; (await count()) === 0; tries += 1) {
        if (tries === 500) throw new Error("Nobody waits.");
        await setTimeout(10);
      }
    };
    const problems = async (): Promise<unknown[]> =>
      (await one<{ problems: unknown[] }>("select verify_ledger()")).problems;
    const setLimit = (tokens: number, minor: number) =>
      db.query(
        `insert into governance.settings (key, value) values ('approval_above_tokens', to_jsonb($1::bigint)), ('approval_above_minor', to_jsonb($2::bigint))
         on conflict (key) do update set value = excluded.value`,
        [tokens, minor],
      );

    describe("keeping a run", () => {
      it("takes its differences in pages, goes on after a break, and answers a repeated last page with the first answer", async () => {
        const all = [paid("a"), paid("b"), paid("c")];
        const report = reportOf({ differences_total: 3 });
        expect(await keep("run", all.slice(0, 2), { report, last: false })).toMatchObject({
          kept: 2,
          is_complete: false,
        });
        await expect(keep("run", [], { report })).rejects.toMatchObject({ hint: "incomplete_run" });
        expect(await keep("run", all.slice(1, 2), { report, last: false })).toMatchObject({ kept: 2 });
        const done = await keep("run", all.slice(2), { report });
        expect(done).toMatchObject({ kept: 3, is_complete: true });
        expect(await keep("run", all.slice(2), { report })).toEqual(done);
        await expect(keep("run", [], { report: reportOf({ tied_out: true }) })).rejects.toMatchObject({
          hint: "idempotency_conflict",
        });
      });

      it("does not open a posted case again when the run that found it is kept again, or an older one comes late", async () => {
        const difference = paid("late");
        const early = reportOf({ ledger_read_at: "2026-04-02T00:00:00Z" });
        await keep("run", [difference], { report: reportOf({ ledger_read_at: "2026-04-03T00:00:00Z" }) });
        await act([difference.difference_id], "propose", "fay");
        await post(difference.difference_id, "fay");
        await keep("run", [difference], { report: reportOf({ ledger_read_at: "2026-04-03T00:00:00Z" }) });
        await keep("made-before", [difference], { report: early });
        expect(await caseOf(difference.difference_id)).toMatchObject({
          status: "posted",
          last_run_id: `${prefix}-run`,
        });
      });

      it("verifies what is gone after posting, and opens again what is still there", async () => {
        const [gone, stays] = [paid("gone"), paid("stays")];
        const ids = [gone.difference_id, stays.difference_id];
        await keep("one", [gone, stays]);
        await act(ids, "propose", "fay");
        for (const id of ids) await post(id, "fay");
        await postedEarlier(...ids);
        expect(await keep("two", [stays])).toMatchObject({ verified: 1, reopened: 1 });
        expect((await caseOf(gone.difference_id)).status).toBe("verified");
        expect(await caseOf(stays.difference_id)).toMatchObject({
          status: "open",
          proposed_by: null,
          history: expect.arrayContaining([expect.objectContaining({ action: "reopened" })]),
        });
      });

      it("takes an open difference that a run of the same files no longer finds for gone, but not when it read less", async () => {
        const [healed, unseen] = [paid("healed"), paid("unseen")];
        await keep("one", [healed, unseen]);
        const fewer = reportOf({
          inputs: [{ name: "d.csv", kind: "disputes", sha256: "b".repeat(64), rows: 3 }],
        });
        const shorter = reportOf({
          inputs: [
            {
              name: "p.csv",
              kind: "unified_payments",
              sha256: "c".repeat(64),
              rows: 4,
              window: { from: period.from, to: period.to },
            },
          ],
        });
        for (const [run, report] of [
          ["fewer", fewer],
          ["shorter", shorter],
        ] as const) {
          const answer = await keep(run, [], { report });
          expect(answer.gone, run).toBe(0);
          expect(answer.not_looked_for, run).toBeGreaterThanOrEqual(2);
        }
        expect((await caseOf(healed.difference_id)).status).toBe("open");
        await keep("again", [unseen]);
        expect(await caseOf(healed.difference_id)).toMatchObject({
          status: "verified",
          history: [expect.objectContaining({ action: "gone" })],
        });
        expect((await caseOf(unseen.difference_id)).status).toBe("open");
      });

      it("does not verify a posted correction by one file of two, though it looks like either", async () => {
        const file = (sha256: string) => ({
          name: `${sha256}.csv`,
          kind: "unified_payments",
          sha256: sha256.repeat(64),
          rows: 10,
          window: { from: period.from, to: period.to },
        });
        const difference = paid("in-the-other");
        const id = difference.difference_id;
        await keep("both", [difference], { report: reportOf({ inputs: [file("d"), file("e")] }) });
        await act([id], "propose", "fay");
        await post(id, "fay");
        const exportedAgain = reportOf({ inputs: [file("f")] });
        expect(await keep("one", [], { report: exportedAgain })).toMatchObject({ verified: 0 });
        expect((await caseOf(id)).status).toBe("posted");
        const both = reportOf({ inputs: [file("f"), file("e")] });
        expect(await keep("again", [], { report: both })).toMatchObject({ verified: 1 });
      });

      it("compares two runs: new, gone, changed, the same", async () => {
        const [gone, same, grown, fresh] = ["gone", "same", "grown", "fresh"].map((name) => paid(name));
        await keep("one", [gone, same, grown] as object[]);
        await keep("two", [same, { ...grown, amount_minor: 300 }, fresh] as object[]);
        const compared = await one<{ counts: object; rows: { difference_id: string; how: string }[] }>(
          "select console_compare_reconciliations($1, $2)",
          [`${prefix}-two`, `${prefix}-one`],
        );
        expect(compared.counts).toEqual({ new: 1, gone: 1, changed: 1, same: 1 });
        expect(compared.rows.map((row) => row.how)).toEqual(["new", "gone", "changed", "same"]);
      });

      it.each([
        ["no report", null, "[]"],
        ["a report without a period", { tied_out: true }, "[]"],
        ["inputs that are no list", { tied_out: true, period, inputs: 7 }, "[]"],
        ["lines that are no lines", { tied_out: true, period, bridge: ["x"] }, "[]"],
        ["a period without end", { tied_out: true, period: { from: period.from, to: "infinity" } }, "[]"],
        [
          "a difference without a correction",
          { tied_out: true, period },
          '[{"difference_id":"x","class":"X"}]',
        ],
        [
          "an amount that is none",
          { tied_out: true, period },
          '[{"difference_id":"x","class":"X","correction":{},"amount_minor":"7"}]',
        ],
        [
          "a moment that is none",
          { tied_out: true, period },
          '[{"difference_id":"x","class":"X","correction":{},"occurred_at":"2026-13-45T99:00:00Z"}]',
        ],
        [
          "an amount beyond exact numbers",
          { tied_out: true, period },
          '[{"difference_id":"x","class":"X","correction":{},"amount_minor":9007199254740993}]',
        ],
      ])("refuses %s, and keeps nothing", async (_what, report, differences) => {
        await expect(
          one("select console_keep_reconciliation($1, 'fay', $2, $3)", [
            `${prefix}-bad`,
            report === null ? null : JSON.stringify(report),
            differences,
          ]),
        ).rejects.toMatchObject({ code: "PT400" });
        expect(
          await one("select count(*)::int from governance.reconciliation_runs where run_id = $1", [
            `${prefix}-bad`,
          ]),
        ).toBe(0);
      });
    });

    it("pages kept runs without losing one that was kept in the same moment as another", async () => {
      await db.query("select governance.set_test_clock('2027-01-01T00:00:00Z', true)");
      try {
        for (const run of ["a", "b", "c"]) await keep(`page-${run}`, []);
      } finally {
        await db.query("select governance.set_test_clock(null)");
      }
      const seen: string[] = [];
      for (let before: string | null = null; seen.length < 3; ) {
        const page: { run_id: string }[] = await one("select console_kept_runs(1, $1)", [before]);
        before = page[0]?.run_id ?? "";
        seen.push(before);
      }
      expect(seen).toEqual(["c", "b", "a"].map((run) => `${prefix}-page-${run}`));
      await db.query("delete from governance.reconciliation_runs where run_id like $1", [`${prefix}-page-%`]);
    });

    describe("what one person may do alone", () => {
      beforeEach(async () => {
        await setLimit(10_000, 100_000);
        await forgetLoneDecisions();
      });

      it("approving takes another person, whatever the case and spaces of the name", async () => {
        const difference = paid("big", 20_000);
        await keep("run", [difference]);
        await act([difference.difference_id], "propose", "Fay Woods");
        for (const same of ["Fay Woods", "fay woods", " FAY  WOODS ", "Ｆａｙ Woods"]) {
          await expect(act([difference.difference_id], "approve", same), same).rejects.toMatchObject({
            hint: "same_person",
          });
        }
        await expect(post(difference.difference_id, "fay woods")).rejects.toMatchObject({
          hint: "approval_needed",
        });
        await act([difference.difference_id], "approve", "moe");
        expect((await post(difference.difference_id, "fay woods")).status).toBe("posted");
      });

      it("a new proposal needs a new approval", async () => {
        const difference = paid("anew", 20_000);
        await keep("run", [difference]);
        await act([difference.difference_id], "propose", "fay");
        await act([difference.difference_id], "approve", "moe");
        await act([difference.difference_id], "propose", "fay", null, { correction: { tokens: 90_000 } });
        await expect(post(difference.difference_id, "fay")).rejects.toMatchObject({
          hint: "approval_needed",
        });
      });

      it("many small corrections do not get round the limit: a day's sum counts, of one person", async () => {
        const all = Array.from({ length: 4 }, (_, n) => paid(`small${n}`, 3_000));
        const ids = all.map((each) => each.difference_id);
        await keep("run", all);
        await act(ids, "propose", "fay");
        const before = await one<number>("select get_user_token_balance('payer')");
        for (const id of ids.slice(0, 3)) await post(id, "fay");
        await expect(post(ids[3] ?? "", " FAY")).rejects.toMatchObject({
          hint: "approval_needed",
          message: expect.stringContaining("12000 tokens"),
        });
        expect(Number(await one("select get_user_token_balance('payer')")) - Number(before)).toBe(9_000);
        expect((await post(ids[3] ?? "", "moe")).status).toBe("posted");
      });

      it("two posts of one person at once do not both slip under the limit", async () => {
        const all = Array.from({ length: 6 }, (_, n) => paid(`race${n}`, 4_000));
        const ids = all.map((each) => each.difference_id);
        await keep("run", all);
        await act(ids, "propose", "fay");
        const settled = await Promise.allSettled(ids.map((id) => post(id, "fay")));
        expect(settled.filter(({ status }) => status === "fulfilled")).toHaveLength(2);
        expect(await problems()).toEqual([]);
      });

      it("a correction that says few tokens and books many is judged by what it books", async () => {
        const difference = paid("hidden", 500);
        await keep("run", [difference]);
        await act([difference.difference_id], "propose", "fay", null, { correction: { tokens: 500_000 } });
        await expect(post(difference.difference_id, "fay")).rejects.toMatchObject({
          hint: "approval_needed",
        });
        expect(await problems()).toEqual([]);
      });

      it("writing off a large difference is only proposed, until another person approves it", async () => {
        const [small, large] = [paid("small"), paid("large", 20_000)];
        const ids = [small.difference_id, large.difference_id];
        await keep("run", [small, large]);
        await expect(act(ids, "write_off", "fay")).rejects.toMatchObject({ hint: "invalid_argument" });
        const { cases } = await act(ids, "write_off", "fay", "Not worth the letter");
        const statusOf = new Map(cases.map((each) => [each.difference_id, each.status]));
        expect(statusOf.get(small.difference_id)).toBe("written_off");
        expect(statusOf.get(large.difference_id)).toBe("proposed");
        await expect(post(large.difference_id, "moe")).rejects.toMatchObject({ hint: "not_proposed" });
        await expect(act([large.difference_id], "approve", "Fay")).rejects.toMatchObject({
          hint: "same_person",
        });
        const approved = await act([large.difference_id], "approve", "moe");
        expect(approved.cases[0]?.status).toBe("written_off");
      });

      it("many small write-offs do not get round it either, and count together with what was posted", async () => {
        const all = ["one", "two", "three"].map((name) => paid(name, 4_000));
        const ids = all.map((each) => each.difference_id).toSorted();
        await keep("run", all);
        await act([ids[0] ?? ""], "propose", "fay");
        await post(ids[0] ?? "", "fay");
        const preview = await one<{ included: unknown[]; waits_for_approval: number }>(
          "select console_preview_cases($1, 'write_off', 'fay')",
          [ids.slice(1)],
        );
        expect(preview).toMatchObject({ waits_for_approval: 1 });
        const { cases } = await act(ids.slice(1), "write_off", "fay", "Too small");
        expect(cases.map((each) => each.status).toSorted()).toEqual(["proposed", "written_off"]);
        // Taken back, it counts no more.
        const alone = cases.find((each) => each.status === "written_off")?.difference_id ?? "";
        const waiting = cases.find((each) => each.status === "proposed")?.difference_id ?? "";
        await act([alone], "reopen", "fay", "Thought again");
        const second = await act([waiting], "write_off", "fay", "Too small");
        expect(second.cases[0]?.status).toBe("written_off");
      });
    });

    describe("what one person may do alone, seen by somebody who wants more", () => {
      beforeEach(async () => {
        await setLimit(10_000, 1_000);
        await forgetLoneDecisions();
      });

      /** A difference about a grant that is booked already; answers the grant's lot. */
      const granted = async (name: string, tokens: number): Promise<number> => {
        const difference = paid(name, tokens);
        await keep(`grant-${name}`, [difference]);
        await act([difference.difference_id], "propose", "gil");
        await act([difference.difference_id], "approve", "moe");
        await post(difference.difference_id, "gil");
        return one<number>("select lot_id::int from governance.lots where stripe_charge_id = $1", [
          `ch_${prefix}_${name}`,
        ]);
      };
      const about = (lot: number, name: string, correction: object, more: Record<string, unknown> = {}) => ({
        ...paid(name, 0, more),
        difference_id: `TOKEN_QTY_MISMATCH/ch_${prefix}_${name}`,
        class: "TOKEN_QTY_MISMATCH",
        tokens: 0,
        correction: { lot_id: lot, books: true, words: "Put it right", ...correction },
      });

      it("a correction that is opened again and booked again counts both times", async () => {
        const lot = await granted("base", 1_000);
        const difference = about(lot, "again", { action: "adjust", tokens: 6_000 });
        const id = difference.difference_id;
        await keep("one", [difference]);
        await act([id], "propose", "fay");
        await post(id, "fay");
        await postedEarlier(id);
        expect(await keep("two", [difference])).toMatchObject({ reopened: 1 });
        await act([id], "propose", "fay");
        await expect(post(id, "fay")).rejects.toMatchObject({
          hint: "approval_needed",
          message: expect.stringContaining("12000 tokens"),
        });
        expect(await problems()).toEqual([]);
      });

      it("money that the proposer names counts, not only what the difference was about", async () => {
        const lots = [await granted("first", 1_000), await granted("second", 1_000)];
        const all = lots.map((lot, n) =>
          about(
            lot,
            `relabel${n}`,
            { action: "relabel", amount_minor: 600, currency: "gbp" },
            { amount_minor: 1 },
          ),
        );
        const [first = "", second = ""] = all.map((each) => each.difference_id);
        await keep("run", all);
        await act([first, second], "propose", "fay");
        const preview = await one<{ excluded: { difference_id: string; code: string }[] }>(
          "select console_preview_cases($1, 'post', 'fay')",
          [[first, second]],
        );
        expect(preview.excluded).toMatchObject([{ difference_id: second, code: "approval_needed" }]);
        await post(first, "fay");
        await expect(post(second, "fay")).rejects.toMatchObject({ hint: "approval_needed" });
      });

      it("giving a large grant away as promotional takes two, though no token moves", async () => {
        const lot = await granted("whale", 50_000);
        const difference = about(lot, "minnow", { action: "promotional" }, { amount_minor: 1 });
        const id = difference.difference_id;
        await keep("run", [difference]);
        await act([id], "propose", "fay");
        expect(await one("select console_post_correction($1, 'fay', true)", [id])).toMatchObject({
          needs_approver: true,
        });
        await expect(post(id, "fay")).rejects.toMatchObject({ hint: "approval_needed" });
      });

      it("what was written off while it was small is open again when it has grown", async () => {
        const difference = paid("grows", 500, { amount_minor: 5 });
        const id = difference.difference_id;
        await keep("one", [difference]);
        await act([id], "write_off", "fay", "Not worth a letter");
        expect(await keep("same", [difference])).toMatchObject({ reopened: 0 });
        const less = { ...difference, tokens: -400, amount_minor: 4 };
        expect(await keep("less", [less])).toMatchObject({ reopened: 0 });
        expect((await caseOf(id)).status).toBe("written_off");
        expect(await keep("two", [{ ...difference, tokens: -500_000, amount_minor: 5_000 }])).toMatchObject({
          reopened: 1,
        });
        expect(await caseOf(id)).toMatchObject({
          status: "open",
          proposed_by: null,
          history: expect.arrayContaining([expect.objectContaining({ action: "reopened" })]),
        });
        expect((await act([id], "write_off", "fay", "Not worth a letter")).cases[0]?.status).toBe("proposed");
      });
    });

    describe("several people", () => {
      it("an action on a version that somebody else changed is refused in one sentence, and changes nothing", async () => {
        const difference = paid("stale");
        const id = difference.difference_id;
        await keep("run", [difference]);
        const seen = (await caseOf(id)).version;
        await act([id], "investigate", "moe");
        const stale = () =>
          one("select console_case_action($1, $2, 'carry_forward', 'fay', 'Next month', '{}', $3)", [
            randomUUID(),
            [id],
            JSON.stringify({ [id]: seen }),
          ]);
        await expect(stale()).rejects.toMatchObject({
          code: "PT409",
          hint: "version_conflict",
          message: `${id} was changed by moe in the meantime: it is investigating now`,
        });
        await expect(
          one("select console_post_correction($1, 'fay', false, $2)", [id, seen]),
        ).rejects.toMatchObject({ hint: "version_conflict" });
        expect((await caseOf(id)).status).toBe("investigating");
      });

      it("two people who post the same correction at once book it once, and both get the same answer", async () => {
        await setLimit(1_000_000, 1_000_000);
        const difference = paid("twice", 700);
        await keep("run", [difference]);
        await act([difference.difference_id], "propose", "fay");
        const before = Number(await one("select get_user_token_balance('payer')"));
        const answers = await Promise.all(
          ["fay", "moe", "ann", "bob"].map((by) => post(difference.difference_id, by)),
        );
        for (const answer of answers) expect(answer.effects).toEqual(answers[0]?.effects);
        expect(Number(await one("select get_user_token_balance('payer')")) - before).toBe(700);
      });

      it("of two people who decide the same case differently at once, one is refused", async () => {
        const difference = paid("both");
        const id = difference.difference_id;
        await keep("run", [difference]);
        const seen = JSON.stringify({ [id]: (await caseOf(id)).version });
        const decide = (action: string, by: string) =>
          one("select console_case_action($1, $2, $3, $4, 'because', '{}', $5)", [
            randomUUID(),
            [id],
            action,
            by,
            seen,
          ]);
        const settled = await Promise.allSettled([
          decide("carry_forward", "fay"),
          decide("write_off", "moe"),
        ]);
        expect(settled.map(({ status }) => status).toSorted()).toEqual(["fulfilled", "rejected"]);
      });

      it("a run that is kept and people who work on its cases do not lock each other up", async () => {
        const [first, last] = [paid("a-first"), paid("z-last")] as const;
        await keep("one", [first, last]);
        const person = await db.connect();
        try {
          const investigate = (id: string) =>
            person.query("select console_case_action($1, $2, 'investigate', 'moe')", [randomUUID(), [id]]);
          await person.query("begin");
          await investigate(first.difference_id);
          // Has the last case, and finds the first gone.
          const kept = keep("two", [last]);
          await waiting();
          await investigate(last.difference_id);
          await person.query("commit");
          expect(await kept).toMatchObject({ gone: 1 });
        } finally {
          person.release();
        }
      });

      it("a correction that waited for its account was posted when it was booked, not when it was sent", async () => {
        await setLimit(1_000_000, 1_000_000);
        await forgetLoneDecisions();
        const difference = paid("slow");
        const id = difference.difference_id;
        await keep("one", [difference]);
        await act([id], "propose", "fay");
        const call = await db.connect();
        try {
          await call.query("begin");
          await call.query("select pg_advisory_xact_lock(governance.lock_key('payer'))");
          const posting = post(id, "fay");
          await waiting();
          const readAt = await one<Date>("select governance.now()");
          await call.query("commit");
          await posting;
          // The ledger was read before the correction was in it: that it still lacks proves nothing.
          const report = reportOf({ ledger_read_at: readAt.toISOString() });
          expect(await keep("two", [difference], { report })).toMatchObject({ reopened: 0 });
          expect((await caseOf(id)).status).toBe("posted");
        } finally {
          call.release();
        }
      });

      it.each([
        ["a version that is a text", "note", {}, '"1"'],
        ["a version that is no whole number", "note", {}, "1.5"],
        ["no name to assign it to", "assign", {}, "1"],
      ])("refuses %s, rather than passing over it", async (_what, action, details, version) => {
        const difference = paid("refused");
        const id = difference.difference_id;
        await keep("run", [difference]);
        await expect(
          one("select console_case_action($1, $2, $3, 'fay', 'because', $4, $5)", [
            randomUUID(),
            [id],
            action,
            JSON.stringify(details),
            `{${JSON.stringify(id)}: ${version}}`,
          ]),
        ).rejects.toMatchObject({ code: "PT400", hint: "invalid_argument" });
        await expect(
          one("select console_case_action($1, $2, 'note', 'fay', 'because', '{}', $3)", [
            randomUUID(),
            [id],
            JSON.stringify({ [id]: 3_000_000_000 }),
          ]),
        ).rejects.toMatchObject({ hint: "version_conflict" });
      });

      it("a command whose reply was lost is done once", async () => {
        const difference = paid("lost");
        await keep("run", [difference]);
        const command = randomUUID();
        const send = () =>
          one<{ cases: Case[] }>("select console_case_action($1, $2, 'note', 'fay', 'Called the customer')", [
            command,
            [difference.difference_id],
          ]);
        const first = await send();
        expect(await send()).toEqual(first);
        expect((await caseOf(difference.difference_id)).history).toHaveLength(1);
      });
    });

    describe("previews", () => {
      it("tell the entries, lots and balances that posting then makes, to the token", async () => {
        await setLimit(1_000_000, 1_000_000);
        const difference = paid("exact", 4_321);
        const id = difference.difference_id;
        await keep("run", [difference]);
        const preview = await one<{
          effects: { type: string; tokens: number }[];
          accounts: {
            user_id: string;
            before: { total: number; purchased: number };
            after: { total: number; purchased: number };
            entries: { amount: number; previous_balance: number; new_balance: number }[];
            lots: { before: unknown; after: { granted: number } }[];
          }[];
        }>("select console_post_correction($1, 'fay', true)", [id]);
        const [account] = preview.accounts;
        expect(account).toMatchObject({
          user_id: "payer",
          entries: [
            { amount: 4_321, previous_balance: account?.before.total, new_balance: account?.after.total },
          ],
          lots: [{ before: null, after: { granted: 4_321, amount_minor: 200, currency: "gbp" } }],
        });
        const balance = async () =>
          (await one<{ total: number }>("select console_get_account('payer') -> 'balance'")).total;
        expect(await balance()).toBe(account?.before.total);
        await act([id], "propose", "fay");
        const posted = await post(id, "fay");
        expect(posted.effects.map(({ tokens }) => tokens)).toEqual(
          preview.effects.map(({ tokens }) => tokens),
        );
        expect(await balance()).toBe(account?.after.total);
        expect(await problems()).toEqual([]);
      });

      it("of many say how many, whose, how much, and which cannot be included and why", async () => {
        await setLimit(10_000, 100_000);
        await forgetLoneDecisions();
        const fits = [paid("one", 3_000), paid("two", 4_000)];
        const tooMuch = paid("xthird", 5_000);
        const unknown = paid("unknown", 10, {
          user_id: null,
          correction: { ...paid("unknown").correction, user_id: null },
        });
        const books = {
          ...paid("books"),
          correction: { action: "investigate", books: false, words: "Look", tokens: null, lot_id: null },
        };
        const open = paid("open");
        const all = [...fits, tooMuch, unknown, books, open];
        const ids = all.map((each) => each.difference_id);
        await keep("run", all);
        type Refused = { included: unknown[]; excluded: { difference_id: string; code: string }[] };
        const proposing = await one<Refused>("select console_preview_cases($1, 'propose', 'fay')", [ids]);
        expect(Object.fromEntries(proposing.excluded.map((each) => [each.difference_id, each.code]))).toEqual(
          {
            [unknown.difference_id]: "unknown_user",
            [books.difference_id]: "nothing_to_post",
          },
        );
        await expect(act([unknown.difference_id], "propose", "fay")).rejects.toMatchObject({
          hint: "unknown_user",
        });
        await act(
          [...fits, tooMuch].map((each) => each.difference_id),
          "propose",
          "fay",
        );
        await act([unknown.difference_id], "propose", "fay", null, { correction: { user_id: "other" } });
        const before = Number(await one("select get_user_token_balance('payer')"));
        const preview = await one<{
          included: { difference_id: string }[];
          excluded: { difference_id: string; code: string; message: string }[];
          users: number;
          tokens_added: number;
          tokens_taken: number;
          money: unknown;
        }>("select console_preview_cases($1, 'post', 'fay')", [[...ids, "NONE/such"]]);
        expect(preview.included.map((each) => each.difference_id)).toEqual(
          [...fits, unknown].map((each) => each.difference_id).toSorted(),
        );
        expect(preview).toMatchObject({
          users: 2,
          tokens_added: 8_000,
          tokens_taken: 0,
          money: [{ currency: "gbp", amount_minor: 600 }],
        });
        expect(Object.fromEntries(preview.excluded.map((each) => [each.difference_id, each.code]))).toEqual({
          [tooMuch.difference_id]: "approval_needed",
          [books.difference_id]: "not_proposed",
          [open.difference_id]: "not_proposed",
          "NONE/such": "not_found",
        });
        expect(Number(await one("select get_user_token_balance('payer')"))).toBe(before);
        expect(await problems()).toEqual([]);
      });
    });

    describe("closing", () => {
      const month = (n: number) => ({
        from: new Date(Date.UTC(2025, n, 1)).toISOString(),
        to: new Date(Date.UTC(2025, n + 1, 1)).toISOString(),
      });
      const inMonth = (n: number, name: string) =>
        paid(name, 1_000, { occurred_at: new Date(Date.UTC(2025, n, 10)).toISOString() });
      const close = (run: string, by = "fay") =>
        one<{ seal: string; carried_over: number }>("select console_close_period($1, $2, $3, 'In order')", [
          randomUUID(),
          `${prefix}-${run}`,
          by,
        ]);
      const checks = async (run: string) => {
        const { checks: all } = await one<{
          checks: { check: string; ok: boolean; blocks: boolean; sentence: string }[];
        }>("select console_closing($1)", [`${prefix}-${run}`]);
        return all.filter(({ ok, blocks }) => blocks && !ok).map(({ check }) => check);
      };

      beforeAll(async () => {
        // Other tests' cases are of March 2026, after all that is closed here.
        await setLimit(1_000_000, 1_000_000);
      });

      it("goes from open cases over a checklist to a seal that anybody can check, once", async () => {
        const [fixed, late, small] = ["fixed", "late", "small"].map((name) => inMonth(0, name)) as [
          ReturnType<typeof paid>,
          ReturnType<typeof paid>,
          ReturnType<typeof paid>,
        ];
        const report = reportOf({ period: month(0) });
        await keep("one", [fixed, late, small], { report });
        expect(await checks("one")).toEqual(["decided"]);
        await expect(close("one")).rejects.toMatchObject({ hint: "still_open" });
        await act([fixed.difference_id], "propose", "fay");
        await act([late.difference_id], "carry_forward", "fay", "Answer of the bank is due");
        await act([small.difference_id], "write_off", "fay", "Below the cost of asking");
        expect(await checks("one")).toEqual(["posted"]);
        await post(fixed.difference_id, "fay");
        expect(await checks("one")).toEqual(["verified"]);
        await keep("two", [late, small], { report });
        expect(await checks("one")).toEqual(["newest_run"]);
        await expect(close("one")).rejects.toMatchObject({ hint: "superseded" });
        expect(await checks("two")).toEqual([]);
        const [first, second] = await Promise.allSettled([close("two"), close("two", "moe")]);
        const closed = [first, second].filter((each) => each.status === "fulfilled");
        expect(closed).toHaveLength(1);
        expect([first, second].find((each) => each.status === "rejected")?.reason).toMatchObject({
          hint: "already_closed",
        });

        const sealed = await one<{ seal: string; sealed: string }>("select console_sealed_period($1)", [
          `${prefix}-two`,
        ]);
        expect(createHash("sha256").update(sealed.sealed).digest("hex")).toBe(sealed.seal);
        expect(sealed.seal).toBe(closed[0]?.value.seal);
        const { cases, report: kept } = JSON.parse(sealed.sealed) as {
          cases: Case[];
          report: { inputs: { sha256: string }[] };
        };
        expect(kept.inputs[0]?.sha256).toBe("a".repeat(64));
        expect(Object.fromEntries(cases.map((each) => [each.difference_id, each.status]))).toEqual({
          [fixed.difference_id]: "verified",
          [late.difference_id]: "carried_forward",
          [small.difference_id]: "written_off",
        });
      });

      it("brings what was carried forward back as a late item, which keeps the next period open until it is decided", async () => {
        const late = `PAID_NOT_GRANTED/ch_${prefix.replace(String(serial), String(serial - 1))}_late`;
        expect(await caseOf(late)).toMatchObject({ status: "open", times_carried: 1 });
        await keep("feb", [], { report: reportOf({ period: month(1) }) });
        expect(await checks("feb")).toEqual(["decided"]);
        await act([late], "write_off", "moe", "The bank says no");
        expect(await checks("feb")).toEqual([]);
        await close("feb");
        const periods = await one<{ is_intact: boolean; seal: string; seal_before: string | null }[]>(
          "select console_closed_periods()",
        );
        expect(periods.map(({ is_intact: isIntact }) => isIntact)).toEqual([true, true]);
        expect(periods[0]?.seal_before).toBe(periods[1]?.seal);
      });

      it("is refused with a run that read the ledger before the period was over", async () => {
        await keep("early", [], {
          report: reportOf({
            period: month(5),
            ledger_read_at: new Date(Date.UTC(2025, 5, 15)).toISOString(),
          }),
        });
        expect(await checks("early")).toEqual(["period_over"]);
        await expect(close("early")).rejects.toMatchObject({
          hint: "period_not_over",
          message: expect.stringContaining("reconcile it again"),
        });
      });

      it("waits for whoever is deciding, and closes over what they decided", async () => {
        const difference = inMonth(5, "racing");
        const id = difference.difference_id;
        await keep("race", [difference], { report: reportOf({ period: month(5) }) });
        await act([id], "write_off", "fay", "Too small");
        const person = await db.connect();
        try {
          await person.query("begin");
          await person.query("select console_case_action($1, $2, 'reopen', 'moe', 'Not so small')", [
            randomUUID(),
            [id],
          ]);
          const closing = close("race").catch((error: unknown) => error);
          await waiting();
          await person.query("commit");
          expect(await closing).toMatchObject({ hint: "still_open" });
        } finally {
          person.release();
        }
        await act([id], "write_off", "fay", "Too small after all");
      });

      it("shows that who closed a period, or what they signed, was changed after the seal", async () => {
        const change = async (column: string, value: string) => {
          await db.query(
            "alter table governance.reconciliation_periods disable trigger reconciliation_periods_append_only",
          );
          await db.query(
            `update governance.reconciliation_periods set ${column} = $1 where period_from = $2`,
            [value, month(1).from],
          );
          await db.query(
            "alter table governance.reconciliation_periods enable trigger reconciliation_periods_append_only",
          );
          const [period] = await one<{ is_intact: boolean }[]>("select console_closed_periods()");
          return period?.is_intact;
        };
        for (const [column, right, wrong] of [
          ["closed_by", "fay", "moe"],
          ["sign_off", "In order", "Under protest"],
          ["period_to", month(1).to, month(2).to],
        ] as const) {
          expect([column, await change(column, wrong)]).toEqual([column, false]);
          expect([column, await change(column, right)]).toEqual([column, true]);
        }
      });

      it("shows a seal that does not fit, also when somebody with all rights changed the row", async () => {
        await db.query(
          "alter table governance.reconciliation_periods disable trigger reconciliation_periods_append_only",
        );
        await db.query(
          `update governance.reconciliation_periods set sealed = jsonb_set(sealed, '{cases}', '[]') where period_from = (select max(period_from) from governance.reconciliation_periods)`,
        );
        await db.query(
          "alter table governance.reconciliation_periods enable trigger reconciliation_periods_append_only",
        );
        const periods = await one<{ is_intact: boolean }[]>("select console_closed_periods()");
        expect(periods.map(({ is_intact: isIntact }) => isIntact)).toEqual([false, true]);
      });

      it("refuses while money or tokens are unexplained; a fee difference explains its own amount", async () => {
        const fee = {
          difference_id: `FEE_VARIANCE/txn_${prefix}`,
          class: "FEE_VARIANCE",
          blocks: true,
          amount_minor: 10,
          currency: "usd",
          tokens: 0,
          occurred_at: new Date(Date.UTC(2025, 2, 5)).toISOString(),
          correction: { action: "investigate", books: false, words: "Look" },
        };
        const tieOut = (unexplained: number) =>
          reportOf({ period: month(2), tie_out: [{ currency: "usd", unexplained_minor: unexplained }] });
        await keep("fee", [fee], { report: tieOut(-10) });
        await act([fee.difference_id], "write_off", "fay", "Export was edited");
        expect(await checks("fee")).toEqual([]);
        const { checks: all } = await one<{ checks: { check: string; sentence: string }[] }>(
          "select console_closing($1)",
          [`${prefix}-fee`],
        );
        // No more is claimed than was looked at.
        expect(all.find(({ check }) => check === "unexplained")?.sentence).toBe(
          "Nothing is unexplained in money; the report has no statement of tokens",
        );
        await keep("more", [fee], { report: tieOut(-11) });
        expect(await checks("more")).toEqual(["unexplained"]);
        await expect(close("more")).rejects.toMatchObject({
          hint: "unexplained",
          message: expect.stringContaining("usd -11"),
        });
        await keep("drift", [fee], {
          report: reportOf({
            period: month(2),
            roll_forward: [{ kind: "purchased", unexplained_tokens: 0, drift_tokens: 5 }],
          }),
        });
        expect(await checks("drift")).toEqual(["unexplained"]);
        await keep("unread", [fee], {
          report: reportOf({ period: month(2), bridge: [{ currency: "usd", unexplained_minor: "7" }] }),
        });
        expect(await checks("unread")).toEqual(["unexplained"]);
      });

      it("seals a decision with one period, whatever is noted on it later", async () => {
        const [old, fresh] = [inMonth(3, "old"), inMonth(4, "fresh")] as const;
        const sealedWith = async (run: string): Promise<string[]> => {
          const { sealed } = await one<{ sealed: string }>("select console_sealed_period($1)", [
            `${prefix}-${run}`,
          ]);
          return (JSON.parse(sealed) as { cases: Case[] }).cases.map((each) => each.difference_id);
        };
        await keep("apr", [old], { report: reportOf({ period: month(3) }) });
        await act([old.difference_id], "write_off", "fay", "Too small");
        await close("apr");
        expect(await sealedWith("apr")).toContain(old.difference_id);
        await act([old.difference_id], "note", "fay", "The bank wrote after all");
        await keep("may", [fresh], { report: reportOf({ period: month(4) }) });
        await act([fresh.difference_id], "write_off", "fay", "Too small");
        const { decided } = await one<{ decided: { status: string; count: number }[] }>(
          "select console_closing($1)",
          [`${prefix}-may`],
        );
        expect(decided).toMatchObject([{ status: "written_off", count: 1 }]);
        await close("may");
        expect(await sealedWith("may")).toEqual([fresh.difference_id]);
      });
    });
  });
}
