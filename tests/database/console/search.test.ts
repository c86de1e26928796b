/** A user is found by whatever a ticket contains, also where it is written wrongly or cut off. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { accountFigures, type AccountPage } from "../../../shared/contract/index.ts";
import { installedVersions, openProject, type Project, use } from "../../support/project.ts";
import { checkoutSession, dispute, event, invoiceSinceBasil } from "../../support/stripe/events.ts";

interface Hit {
  readonly kind: string;
  readonly id: string;
  readonly user_id: string | null;
  readonly decision_id: number | null;
}

describe.each(installedVersions())("finding by what a ticket contains, on PostgreSQL %i", (version) => {
  let desk: Project;
  let decisionId = 0;
  const created = Math.floor(Date.now() / 1000) - 3600;

  beforeAll(async () => {
    desk = await openProject(version);
    for (const [userId, name, email] of [
      ["u-1", "Jonathan Smith", "jonathan.smith@example.com"],
      ["u-2", "Katarzyna Müller", "kata@mueller.example"],
      ["u-3", "Siobhán O'Sullivan", "siobhan@example.com"],
      ["u-4", "Wei Chen", "wei@chen.example"],
      ["auth0|5f7c8ec7c33c6c004bbafe82", "Otto Auth", "otto@auth.example"],
      ["urn:user:77", "Ulla Urn", "ulla@urn.example"],
      ["acct.1", "Jürgen Größer", "j.g@acct.example"],
    ] as const)
      await desk.rpc("upsert_account", { p_user_id: userId, p_display_name: name, p_email: email });
    const stripe = (type: string, object: object): Promise<{ status: string }> =>
      desk.rpc("process_stripe_event", { p_event: event(type, object) });
    const purchase = {
      name: "3Qf7Kx2LkdIwHu7ix0a1b2c3",
      userId: "u-4",
      packId: "tokens-500k",
      tokens: 500_000,
      amountMinor: 500,
      currency: "usd",
      created,
    };
    expect((await stripe("checkout.session.completed", checkoutSession(purchase))).status).toBe("processed");
    await stripe("charge.dispute.created", dispute(purchase, "needs_response"));
    const requestId = await use(desk, "u-1", 300);
    await desk.rpc("authorize_usage", {
      p_request_id: "req-7f3a9c1d5e",
      p_user_id: "u-2",
      p_model: "gpt-4o-mini",
    });
    decisionId = Number(
      (
        await desk.one<{ id: string }>(
          "select decision_id as id from governance.request_keys where request_id = $1",
          [requestId],
        )
      ).id,
    );
  });
  afterAll(() => desk?.close());

  const everything = (query: string): Promise<Hit[]> => desk.rpc("console_search", { p_query: query });
  const users = async (query: string): Promise<string[]> =>
    (await everything(query)).filter(({ kind }) => kind === "user").map(({ id }) => id);
  const page = (parameters: object): Promise<AccountPage> =>
    desk.rpc("console_search_accounts", { ...parameters });

  it("forgives typing errors, from the one search and from the desk, and says that it did", async () => {
    for (const [typed, meant] of [
      ["jonathn", "u-1"],
      ["smiht jonathan", "u-1"],
      ["Jonatahn Smit", "u-1"],
      ["katarzina", "u-2"],
      ["osullivan", "u-3"],
      ["siobahn", "u-3"],
      ["muller", "u-2"],
      ["juergen groesser", "acct.1"],
    ] as const) {
      expect([typed, (await users(typed))[0]]).toEqual([typed, meant]);
      const found = await page({ p_query: typed });
      expect([typed, found.accounts[0]?.user_id, found.accounts.length > 0]).toEqual([typed, meant, true]);
    }
    expect(await page({ p_query: "jonathn" })).toMatchObject({ is_close: true });
    expect(await page({ p_query: "jonathan" })).toMatchObject({ is_close: false, total: 1 });
    expect(await page({ p_query: "smith jonathan" })).toMatchObject({ is_close: false, total: 1 });
  });

  it("finds a rule by the name that the screens show", async () => {
    for (const typed of ["daily limit", "Daily Limit", "daily_limit", "aily lim"])
      expect([typed, (await everything(typed)).map(({ kind, id }) => [kind, id])]).toEqual([
        typed,
        [["rule", "daily_limit"]],
      ]);
  });

  it("does not guess at ids, nor at words that are like nobody's", async () => {
    for (const text of ["pi_nosuchpayment", "deadbeefdeadbeef", "zzzzqqqq", "x"]) {
      expect([text, await users(text)]).toEqual([text, []]);
      expect([text, (await page({ p_query: text })).accounts]).toEqual([text, []]);
    }
  });

  it("finds calls by the beginning of a request id or of a decision's number", async () => {
    for (const part of ["req-7f3a9c1d5e", "req-7f3a9c", "req-7f"])
      expect((await everything(part)).find(({ kind }) => kind === "request")?.user_id).toBe("u-2");
    expect((await everything(String(decisionId))).find(({ kind }) => kind === "request")?.decision_id).toBe(
      decisionId,
    );
    expect((await everything("req-zz9999")).filter(({ kind }) => kind === "request")).toEqual([]);
  });

  it("finds a payment and its user by any part of an id, from the one search and from the desk", async () => {
    const paid = await desk.one<Record<string, string | null>>(
      `select charge_id, payment_intent_id, checkout_session_id, order_id,
         (select refund_id from governance.stripe_refunds limit 1) as refund_id,
         (select dispute_id from governance.stripe_disputes limit 1) as dispute_id,
         (select customer_id from governance.stripe_customers c where c.account_id = p.account_id limit 1) as customer_id
       from governance.stripe_payments p join governance.accounts a using (account_id) where a.user_id = 'u-4'`,
    );
    const ids = Object.entries(paid).filter((each): each is [string, string] => each[1] !== null);
    expect(ids.map(([name]) => name)).toEqual(
      expect.arrayContaining(["payment_intent_id", "checkout_session_id", "dispute_id"]),
    );
    for (const [name, id] of ids) {
      const parts = [
        id,
        id.slice(-8),
        id.slice(2, 12),
        id.toUpperCase().slice(-9),
        `ticket: ${id.slice(-10)}, please`,
      ];
      for (const part of parts.filter((each) => each.length >= 8)) {
        if (name !== "customer_id")
          expect([
            name,
            part,
            (await everything(part)).find(({ kind }) => kind === "payment")?.user_id,
          ]).toEqual([name, part, "u-4"]);
        const found = await page({ p_query: part });
        expect([part, found.accounts.map(({ user_id: user }) => user)]).toEqual([part, ["u-4"]]);
        expect(found).toMatchObject({ is_by_id: true, is_close: false, total: 1 });
      }
    }
    // The hit names the whole id, not only what was typed of it.
    const intent = paid["payment_intent_id"] ?? "";
    const hit = (await everything(intent.slice(-8))).find(({ kind }) => kind === "payment");
    expect(ids.map(([, id]) => id)).toContain(hit?.id);
  });

  it("finds a call by the end of its request id, and a newer one by any part", async () => {
    await desk.rpc("block_user", { p_command_id: "stop-u-3", p_user_id: "u-3", p_reason: "test" });
    for (const [request, user] of [
      ["9b1f-aa07-STOPPED-e1c2d3f4", "u-3"],
      ["9b1f-aa07-allowed-77aa88bb", "u-2"],
    ])
      await desk.rpc("authorize_usage", { p_request_id: request, p_user_id: user, p_model: "gpt-4o-mini" });
    await desk.rpc("unblock_user", { p_command_id: "free-u-3", p_user_id: "u-3", p_reason: "test" });
    for (const [part, user] of [
      ["e1c2d3f4", "u-3"],
      ["77aa88bb", "u-2"],
      ["allowed-77", "u-2"],
      ["the call …: request 77aa88bb failed", "u-2"],
    ] as const) {
      expect([part, (await everything(part)).find(({ kind }) => kind === "request")?.user_id]).toEqual([
        part,
        user,
      ]);
      expect([part, (await page({ p_query: part })).accounts.map(({ user_id: id }) => id)]).toEqual([
        part,
        [user],
      ]);
    }
  });

  it("finds whom a ticket is about however it was pasted: in quotes, in a link, cut in the middle, in a whole e-mail", async () => {
    const intent = "pi_3Qf7Kx2LkdIwHu7ix0a1b2c3";
    const mail = (about: string): string =>
      `Hello support team, yesterday (28/11/2026, 10:45) I bought something and nothing happened, everything is blocked. ${about} Please answer quickly, otherwise I am leaving. Regards, a customer`;
    for (const [pasted, user] of [
      [`"${intent}"`, "u-4"],
      [`  ${intent}.  `, "u-4"],
      [`<${intent}>,`, "u-4"],
      [`„${intent}“`, "u-4"],
      [`\u200b${intent}\u00a0`, "u-4"],
      [`https://dashboard.stripe.com/payments/${intent}?limit=1`, "u-4"],
      [`payment=${intent}`, "u-4"],
      ["pi_3Qf7Kx2Lk…1b2c3", "u-4"],
      ["pi_3Qf7Kx2Lk...", "u-4"],
      [mail(`The payment was ${intent}.`), "u-4"],
      [mail("From: Wei Chen <Wei@Chen.example>."), "u-4"],
      [mail("My id is u-2, or the call: req-7f3a9c1d5e!"), "u-2"],
      ['"u-3"', "u-3"],
      ["user auth0|5f7c8ec7c33c6c004bbafe82 is stopped", "auth0|5f7c8ec7c33c6c004bbafe82"],
      ["| auth0|5f7c8ec7c33c6c004bbafe82 | blocked |", "auth0|5f7c8ec7c33c6c004bbafe82"],
      [
        "https://console.example/#/users/auth0|5f7c8ec7c33c6c004bbafe82/ledger",
        "auth0|5f7c8ec7c33c6c004bbafe82",
      ],
      ["See https://console.example/#/users/urn:user:77?from=2026-01-01", "urn:user:77"],
      ["kata@mueller.example,", "u-2"],
      ["“Jonathan Smith”", "u-1"],
      ["Smith, Jonathan", "u-1"],
      ["O'Sullivan.", "u-3"],
    ] as const) {
      const found = await page({ p_query: pasted });
      expect([pasted, found.accounts.map(({ user_id: id }) => id)]).toEqual([pasted, [user]]);
      const hits = await everything(pasted);
      expect([pasted, [...new Set(hits.map((hit) => hit.user_id))]]).toEqual([pasted, [user]]);
    }
    for (const nothing of [mail(""), "«»", "…", "\u200b"])
      expect([nothing, (await everything(nothing)).length]).toEqual([nothing, 0]);
  });

  it("finds what was never credited by a part of its id, says so, and leads to it", async () => {
    const stray = {
      name: "4Rt8stray2MkdIwHu7",
      userId: "nobody-here",
      packId: "no-such-pack",
      tokens: 500_000,
      amountMinor: 500,
      currency: "usd",
      created,
    };
    const taken: { status: string } = await desk.rpc("process_stripe_event", {
      p_event: event("checkout.session.completed", checkoutSession(stray)),
    });
    expect(taken.status).toBe("quarantined");
    const intent = `pi_${stray.name}`;
    for (const part of [intent, intent.slice(2), `Where are my tokens? ${intent}`]) {
      const hits = (await desk.rpc("console_search", { p_query: part })) as (Hit & { subtitle: string })[];
      expect([part, hits.find(({ kind }) => kind === "event")?.subtitle]).toEqual([
        part,
        expect.stringContaining("not credited"),
      ]);
    }
  });

  it("finds the payment of an invoice by the number on it", async () => {
    await desk.rpc("process_stripe_event", {
      p_event: event("invoice.paid", {
        ...invoiceSinceBasil({
          name: "numbered",
          userId: "u-3",
          planId: "pro",
          tokens: 1_000,
          amountMinor: 2_000,
          currency: "usd",
          start: created,
          end: created + 30 * 86_400,
        }),
        number: "F1A2B3C4-0007",
      }),
    });
    for (const typed of ["F1A2B3C4-0007", "f1a2b3c4-0007", "b3c4-0007"])
      expect((await everything(typed)).map(({ kind }) => kind)).toContain("payment");
  });

  it("filters by low balance, open disputes and activity, and sorts by debt and cost", async () => {
    const ids = async (parameters: object): Promise<string[]> =>
      (await page(parameters)).accounts.map(({ user_id: id }) => id);
    await desk.rpc("run_maintenance");
    expect(await ids({ p_filter: "disputed" })).toEqual(["u-4"]);
    await desk.rpc("console_act", {
      p_command_id: "take-all",
      p_user_id: "u-3",
      p_act: {
        kind: "take_tokens",
        tokens: Number(await desk.rpc("get_user_token_balance", { p_user_id: "u-3" })),
      },
      p_reason: "for the test",
      p_operator: "op",
    });
    await desk.rpc("run_maintenance");
    expect(await ids({ p_filter: "low_balance" })).toEqual(["u-3"]);
    const since = new Date(Date.now() - 3_600_000).toISOString();
    expect((await ids({ p_active_since: since })).sort()).toEqual(["u-1", "u-2", "u-3"]);
    expect(await ids({ p_active_since: new Date(Date.now() + 3_600_000).toISOString() })).toEqual([]);
    expect(await ids({ p_sort: "cost_this_month_micros", p_descending: true, p_limit: 1 })).toEqual(["u-1"]);
    expect((await ids({ p_sort: "debt", p_descending: true })).length).toBe(7);
    for (const wrong of [{ p_filter: "nosuch" }, { p_sort: "nosuch" }, { p_active_since: "infinity" }])
      expect((await desk.refusal("console_search_accounts", wrong)).hint).toBe("invalid_argument");
  });

  it.each(Object.keys(accountFigures))("sorts by %s, a key of each row, on an index", async (figure) => {
    const { accounts } = await desk.rpc<{ accounts: Record<string, number>[] }>("console_search_accounts", {
      p_sort: figure,
    });
    const values = accounts.map((row) => row[figure] ?? Number.NaN);
    expect(values).toEqual(values.toSorted((a, b) => a - b));
    const { rows } = await desk.sql.query(
      "select from pg_indexes where tablename = 'account_listings' and indexdef like $1",
      [`%(${figure}, account_id)`],
    );
    expect(rows).toHaveLength(1);
  });

  it("an act does not wait for a list that is being read, and the next list shows it", async () => {
    const copier = await desk.sql.connect();
    const block = { p_user_id: "u-4", p_reason: "storm", p_until: null, p_operator: "ann" };
    const blocked = async (): Promise<string[]> =>
      (await desk.rpc<AccountPage>("console_search_accounts", { p_filter: "blocked" })).accounts.map(
        ({ user_id: id }) => id,
      );
    try {
      await copier.query("begin");
      await copier.query(
        "select governance.copy_to_listings(array(select account_id from governance.accounts))",
      );
      // Such a read holds what it copied until it has answered.
      await copier.query("update governance.account_listings set reserved = reserved");
      await desk.rpc("block_user", { ...block, p_command_id: "while-read" });
    } finally {
      await copier.query("commit");
      copier.release();
    }
    expect(await blocked()).toEqual(["u-4"]);
    await desk.rpc("unblock_user", {
      p_user_id: "u-4",
      p_reason: "over",
      p_operator: "ann",
      p_command_id: "after-read",
    });
    expect(await blocked()).toEqual([]);
    expect(await desk.one("select count(*)::int as n from governance.listings_due")).toEqual({ n: 0 });
  });

  it("sorts by the figures of the contract, and by no other", async () => {
    const { names } = await desk.one<{ names: string[] }>(
      "select governance.columns_of('governance.account_figures') as names",
    );
    expect(names.toSorted()).toEqual(Object.keys(accountFigures).toSorted());
  });

  it("finds both accounts of an e-mail, and each one's page names the other", async () => {
    for (const [user, email] of [
      ["twin-1", "Both@Twins.example"],
      ["twin-2", "both@twins.example"],
    ])
      await desk.rpc("upsert_account", { p_user_id: user, p_email: email, p_display_name: "Tom Twin" });
    for (const typed of [
      "both@twins.example",
      "<BOTH@twins.example>",
      "It is both@twins.example, thanks a lot",
    ]) {
      expect((await users(typed)).sort()).toEqual(["twin-1", "twin-2"]);
      expect((await page({ p_query: typed })).accounts.map(({ user_id: id }) => id).sort()).toEqual([
        "twin-1",
        "twin-2",
      ]);
    }
    const others = async (user: string): Promise<unknown> =>
      (await desk.rpc<{ same_email: unknown }>("console_get_account", { p_user_id: user })).same_email;
    expect(await others("twin-1")).toMatchObject([{ user_id: "twin-2", display_name: "Tom Twin" }]);
    expect(await others("twin-2")).toMatchObject([{ user_id: "twin-1" }]);
    expect(await others("u-1")).toEqual([]);
  });
});
