/** What was posted for a case is undone by another entry: by whom, within which limits, and back to exactly what was. */
import { randomUUID } from "node:crypto";
import { expect, it } from "vitest";
import { installedVersions, openProject, type Project } from "../../support/project.ts";

interface Case {
  readonly status: string;
  readonly tokens: number;
  readonly correction: { readonly action: string; readonly undoes?: object };
  readonly history: readonly { readonly action: string }[];
}
interface Correction {
  readonly action: string;
  readonly [key: string]: unknown;
}

const desk = (project: Project) => {
  let runs = 0;
  return {
    keep: (id: string, tokens: number, correction: Correction | null, month = "2026-03", next = "2026-04") =>
      project.rpc("console_keep_reconciliation", {
        p_run_id: `run-${++runs}`,
        p_operator: "ula",
        p_report: {
          report_version: 1,
          tied_out: false,
          period: { from: `${month}-01T00:00:00Z`, to: `${next}-01T00:00:00Z` },
          inputs: [{ name: "p.csv", kind: "unified_payments", sha256: "a".repeat(64), rows: 1 }],
        },
        p_differences: correction
          ? [
              {
                difference_id: id,
                class: "PAID_NOT_GRANTED",
                blocks: true,
                amount_minor: 200,
                currency: "gbp",
                tokens: -tokens,
                user_id: "payer",
                correction: { books: true, words: "Mend it", ...correction },
              },
            ]
          : [],
      }),
    act: (id: string, action: string, by: string, reason: string | null = "It was right before") =>
      project.rpc("console_case_action", {
        p_command_id: randomUUID(),
        p_difference_ids: `{${JSON.stringify(id)}}`,
        p_action: action,
        p_operator: by,
        p_reason: reason,
      }),
    post: (id: string, by: string) =>
      project.rpc<{ status: string; effects: { tokens: number }[] }>("console_post_correction", {
        p_difference_id: id,
        p_operator: by,
      }),
    /** Closes the month of the newest run. */
    close: () =>
      project.rpc("console_close_period", {
        p_command_id: randomUUID(),
        p_run_id: `run-${runs}`,
        p_operator: "una",
      }),
    periods: () =>
      project.rpc<{ seal: string; is_intact: boolean; run_id: string }[]>("console_closed_periods"),
    caseOf: async (id: string): Promise<Case> =>
      (
        await project.rpc<{ cases: Case[] }>("console_reconciliation_cases", {
          p_difference_ids: `{${JSON.stringify(id)}}`,
        })
      ).cases[0] as Case,
    hint: (promise: Promise<unknown>) =>
      promise.then(
        () => "done",
        (error: { hint?: string }) => error.hint,
      ),
    balance: async () =>
      (await project.one<{ n: number }>("select purchased_tokens::float8 as n from governance.accounts")).n,
    lot: () =>
      project.one<Record<string, unknown>>(
        `select l.kind, l.amount_minor::int, l.remaining::int, l.frozen::int, s.is_void, s.tokens::int,
           s.reversed::int from governance.lots l join governance.stripe_lots s using (lot_id)`,
      ),
  };
};
const grant = (tokens: number): Correction => ({
  action: "grant",
  tokens,
  user_id: "payer",
  charge_id: "ch_1",
  amount_minor: 200,
  currency: "gbp",
});

it.each(installedVersions())(
  "it is proposed with a reason, posted under the limits of any correction, and may be left, on PostgreSQL %i",
  async (version) => {
    const project = await openProject(version, { preset: "athro" });
    await project.rpc("upsert_account", { p_user_id: "payer", p_plan_id: "full" });
    const { keep, act, post, caseOf, hint, balance } = desk(project);
    const id = "PAID_NOT_GRANTED/ch_1";
    await keep(id, 600_000, grant(600_000));
    expect(await hint(act(id, "undo", "una"))).toBe("nothing_to_post");
    await act(id, "propose", "una", null);
    await post(id, "una");
    expect(await balance()).toBe(600_000);

    expect(await hint(act(id, "undo", "una", " "))).toBe("invalid_argument");
    await act(id, "undo", "una");
    expect(await caseOf(id)).toMatchObject({
      status: "proposed",
      tokens: 600_000,
      correction: { action: "adjust", tokens: -600_000, undoes: { action: "grant" } },
    });
    // Nothing but posting it or leaving it; a run that does not find the difference decides neither.
    for (const action of ["write_off", "carry_forward", "propose", "investigate"])
      expect([action, await hint(act(id, action, "una"))]).toEqual([action, "already_decided"]);
    await keep(id, 0, null);
    expect((await caseOf(id)).status).toBe("proposed");
    await act(id, "reopen", "una", "It stays");
    expect(await caseOf(id)).toMatchObject({
      status: "posted",
      tokens: -600_000,
      correction: { action: "grant" },
    });

    // With what she posted before, it is above what one person may decide alone.
    await act(id, "undo", "una");
    expect(await hint(post(id, "una"))).toBe("approval_needed");
    expect(await hint(act(id, "approve", "UNA"))).toBe("same_person");
    await act(id, "approve", "ula");
    expect((await post(id, "una")).effects).toMatchObject([{ tokens: -600_000 }]);
    expect(await balance()).toBe(0);
    // Once, however often it is sent.
    await post(id, "una");
    expect(await balance()).toBe(0);
    expect((await caseOf(id)).history.map((entry) => entry.action)).toEqual([
      "propose",
      "posted",
      "undo",
      "reopen",
      "undo",
      "approve",
      "posted",
    ]);
    expect(
      await project.one(
        "select count(*)::int as posted, array_agg(distinct operator) as by from governance.audit_log where action = 'post_correction'",
      ),
    ).toEqual({ posted: 2, by: ["una"] });

    // Undone once more, the tokens are there again; and where the next run finds it, it is open.
    await act(id, "undo", "ula");
    await act(id, "approve", "gil", null);
    await post(id, "ula");
    expect(await balance()).toBe(600_000);
    await project.sql.query(
      "update governance.reconciliation_cases set posted_at = posted_at - interval '1 minute'",
    );
    await keep(id, 600_000, grant(600_000));
    expect((await caseOf(id)).status).toBe("open");
    expect(await project.rpc("verify_ledger")).toMatchObject({ problems: [] });
    expect(await project.rpc("verify_purchases")).toMatchObject({ problems: [] });
    await project.close();
  },
  60_000,
);

it("brings back tokens, refunds, disputes, the amount and the kind as they were", async () => {
  const project = await openProject(18, { preset: "athro" });
  await project.rpc("upsert_account", { p_user_id: "payer", p_plan_id: "full" });
  const { keep, act, post, caseOf, lot } = desk(project);
  await keep("granted", 1_000, grant(1_000));
  await act("granted", "propose", "una", null);
  await post("granted", "una");
  const { lot_id: lotId } = await project.one<{ lot_id: string }>(
    "select lot_id from governance.stripe_lots",
  );
  const before = await lot();
  const corrections: readonly Correction[] = [
    { action: "adjust", tokens: 300 },
    { action: "adjust", tokens: -300 },
    // All of it: the lot is void, and not any more.
    { action: "reverse", tokens: -1_000 },
    { action: "claw_back", refunded_minor: 100 },
    { action: "hold", dispute_id: "dp_1", disputed_minor: 200 },
    { action: "relabel", amount_minor: 300, currency: "gbp" },
    { action: "promotional" },
  ];
  for (const [n, correction] of corrections.entries()) {
    const id = `case-${n}`;
    await keep(id, 0, { ...correction, lot_id: Number(lotId) });
    await act(id, "propose", "una", null);
    await post(id, "una");
    expect([correction, await lot()]).not.toEqual([correction, before]);
    await act(id, "undo", "una");
    await post(id, "una");
    expect([correction, await lot()]).toEqual([correction, before]);
    expect((await caseOf(id)).status).toBe("posted");
  }
  expect(await project.rpc("verify_ledger")).toMatchObject({ problems: [] });
  expect(await project.rpc("verify_purchases")).toMatchObject({ problems: [] });
  await project.close();
});

it("what nobody paid for is no revenue, whether it is reversed, given away or undone, and is again when that is undone", async () => {
  const project = await openProject(18, { preset: "athro" });
  await project.rpc("upsert_account", { p_user_id: "payer", p_plan_id: "full" });
  const { keep, act, post } = desk(project);
  const revenue = async (): Promise<unknown> => {
    const line = await project.one<{ sold: number; recognised: number; deferred: number }>(
      `select sum((x ->> 'sold_minor')::int)::int as sold, sum((x ->> 'recognised_minor')::int)::int as recognised,
         sum((x ->> 'closing_deferred_minor')::int)::int as deferred
       from jsonb_array_elements(console_token_roll_forward(now() - interval '1 day', now() + interval '1 day')) x`,
    );
    const desks = await project.one(
      `select sum((x ->> 'sold_minor')::int)::int as sold, sum((x ->> 'recognised_minor')::int)::int as recognised,
         sum((x ->> 'closing_deferred_minor')::int)::int as deferred
       from jsonb_array_elements(console_revenue(current_date - 1, current_date + 1) -> 'lines') x`,
    );
    expect(desks).toEqual(line);
    return line;
  };
  const sold = { sold: 200, recognised: 0, deferred: 200 };
  const nothing = { sold: 0, recognised: 0, deferred: 0 };
  await keep("granted", 1_000, grant(1_000));
  await act("granted", "propose", "una", null);
  await post("granted", "una");
  expect(await revenue()).toEqual(sold);
  const { lot_id: lotId } = await project.one<{ lot_id: string }>(
    "select lot_id from governance.stripe_lots",
  );
  for (const correction of [{ action: "reverse", tokens: -1_000 }, { action: "promotional" }]) {
    await keep(correction.action, 0, { ...correction, lot_id: Number(lotId) });
    await act(correction.action, "propose", "una", null);
    await post(correction.action, "una");
    expect([correction, await revenue()]).toEqual([correction, nothing]);
    await act(correction.action, "undo", "una");
    await post(correction.action, "una");
    expect([correction, await revenue()]).toEqual([correction, sold]);
  }
  await keep("relabel", 0, { action: "relabel", amount_minor: 300, currency: "gbp", lot_id: Number(lotId) });
  await act("relabel", "propose", "una", null);
  await post("relabel", "una");
  expect(await revenue()).toEqual({ sold: 300, recognised: 0, deferred: 300 });
  await act("relabel", "undo", "una");
  await post("relabel", "una");
  // Tokens too many of a payment that was made: what was paid stays, for those that are left.
  await keep("adjust", 0, { action: "adjust", tokens: -400, lot_id: Number(lotId) });
  await act("adjust", "propose", "una", null);
  await post("adjust", "una");
  expect(await revenue()).toEqual(sold);
  await act("adjust", "undo", "una");
  await post("adjust", "una");
  expect(await revenue()).toEqual(sold);
  await act("granted", "undo", "una");
  await post("granted", "una");
  expect(await revenue()).toEqual(nothing);
  expect(await project.rpc("verify_ledger")).toMatchObject({ problems: [] });
  expect(await project.rpc("verify_purchases")).toMatchObject({ problems: [] });
  await project.close();
});

it("of a closed period leaves what was sealed as it is, is booked today, and keeps the next period open until it is decided", async () => {
  const project = await openProject(18, { preset: "athro" });
  await project.rpc("upsert_account", { p_user_id: "payer", p_plan_id: "full" });
  const { keep, act, post, caseOf, hint, balance, close, periods } = desk(project);
  const id = "PAID_NOT_GRANTED/ch_1";
  await keep(id, 1_000, grant(1_000));
  await act(id, "propose", "una", null);
  await post(id, "una");
  await keep(id, 0, null);
  expect((await caseOf(id)).status).toBe("verified");
  await close();
  const closed = await periods();
  expect(closed).toMatchObject([{ is_intact: true }]);

  await act(id, "undo", "una");
  const undone = await project.one<{ now: string }>("select governance.now()::text as now");
  await keep(id, 0, null, "2026-04", "2026-05");
  expect(await hint(close())).toBe("still_open");
  await post(id, "una");
  expect(await balance()).toBe(0);
  expect(
    await project.one(
      `select count(*)::int as entries from governance.token_transactions
       where created_at >= $1 and transaction_type <> 'purchase'`,
      [undone.now],
    ),
  ).toEqual({ entries: 2 });
  // March's files find the difference again: somebody decides it, and April closes with that.
  expect(await hint(close())).toBe("still_open");
  await project.sql.query(
    "update governance.reconciliation_cases set posted_at = posted_at - interval '1 minute'",
  );
  await keep(id, 1_000, grant(1_000));
  expect((await caseOf(id)).status).toBe("open");
  await act(id, "write_off", "una", "It was given as a favour");
  await keep(id, 0, null, "2026-04", "2026-05");
  await close();
  const [april, march] = await periods();
  expect(march).toEqual(closed[0]);
  expect(april?.is_intact).toBe(true);
  expect(await project.rpc("verify_ledger")).toMatchObject({ problems: [] });
  expect(await project.rpc("verify_purchases")).toMatchObject({ problems: [] });
  await project.close();
});
