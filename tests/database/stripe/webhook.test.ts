/** The Edge Function in Deno, called as Stripe calls it, in front of a project that answers rpc over a real database. */
import { type ChildProcess, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkoutSession, event, invoiceSinceBasil } from "../../support/stripe/events.ts";
import {
  brokenInside,
  emptyAccount,
  type StripeObject,
  startStripeServer,
} from "../../support/stripe/server.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls } from "../../support/project.ts";
import { repository } from "../../support/repository.ts";

const secret = "whsec_test_0123456789";
const apiKey = "rk_live_reads_invoices";
const created = Math.floor(Date.now() / 1000);
const purchase = {
  name: "edge",
  userId: "edna",
  packId: "top-up",
  tokens: 320_000,
  amountMinor: 200,
  currency: "gbp",
  created,
};

describe("the Stripe webhook", () => {
  let db: pg.Pool;
  let project: Server;
  let deno: ChildProcess;
  let address = "";
  let said = "";
  let isAway = false;
  const account = emptyAccount("acct_1", "Athro");
  const key = { account, lacks: [] as string[] };
  let stripe: Awaited<ReturnType<typeof startStripeServer>>;

  beforeAll(async () => {
    const { ownerUrl } = await createProjectDatabase(postgresUrls()[18], { preset: "athro" });
    db = new pg.Pool({ connectionString: ownerUrl, max: 4 });
    await db.query("select upsert_account('edna', 'full')");
    // PostgREST's part, for the one function that is called.
    project = createServer((request, response) => {
      void (async () => {
        let body = "";
        for await (const chunk of request) body += String(chunk);
        const done = (status: number, value: unknown): void => {
          response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
        };
        if (isAway) return done(503, { message: "away" });
        if (
          request.url !== "/rest/v1/rpc/process_stripe_event" ||
          request.headers.authorization !== "Bearer service-key"
        )
          return done(401, { hint: "unauthorized" });
        try {
          const { rows } = await db.query("select process_stripe_event($1) a", [
            JSON.stringify((JSON.parse(body) as { p_event: unknown }).p_event),
          ]);
          done(200, rows[0].a);
        } catch (error) {
          done(Number((error as { code: string }).code.replace("PT", "")), {
            hint: (error as { hint?: string }).hint,
          });
        }
      })();
    });
    await new Promise<void>((resolve) => project.listen(0, "127.0.0.1", resolve));
    const port = (project.address() as AddressInfo).port;
    stripe = await startStripeServer({ [apiKey]: key });
    // Deno.serve says where it listens; port 0 is any free one.
    deno = spawn(
      "npx",
      [
        "deno",
        "run",
        "--allow-net",
        "--allow-env",
        "--allow-sys",
        "--config",
        "supabase/functions/deno.json",
        "supabase/functions/stripe-webhook/index.ts",
      ],
      {
        cwd: repository,
        detached: true,
        env: {
          ...process.env,
          STRIPE_WEBHOOK_SECRET: `whsec_older, ${secret}`,
          SUPABASE_URL: `http://127.0.0.1:${port}`,
          SUPABASE_SERVICE_ROLE_KEY: "service-key",
          STRIPE_API_KEY: apiKey,
          STRIPE_API_URL: `http://127.0.0.1:${stripe.endpoint.port}`,
          DENO_SERVE_ADDRESS: "tcp:127.0.0.1:0",
          NO_COLOR: "1",
        },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    address = await new Promise<string>((resolve, reject) => {
      const listen = (chunk: Buffer): void => {
        said += chunk.toString();
        const found = /http:\/\/127\.0\.0\.1:\d+/.exec(said)?.[0];
        if (found) resolve(found);
      };
      deno.stdout?.on("data", listen);
      deno.stderr?.on("data", listen);
      deno.once("exit", (code) => reject(new Error(`deno ended with ${code}: ${said}`)));
    });
  });
  afterAll(async () => {
    if (deno.pid !== undefined && deno.exitCode === null) process.kill(-deno.pid);
    project.close();
    await stripe.stop();
    await db.end();
  });

  const sign = (body: string, at = Math.floor(Date.now() / 1000), by = secret): string =>
    `t=${at},v1=${createHmac("sha256", by).update(`${at}.${body}`).digest("hex")}`;
  const post = async (
    body: string,
    signature: string | null,
  ): Promise<{ status: number; body: Record<string, unknown> }> => {
    const response = await fetch(address, {
      method: "POST",
      body,
      headers: {
        "content-type": "application/json",
        ...(signature === null ? {} : { "stripe-signature": signature }),
      },
    });
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  };
  const balance = async (): Promise<number> =>
    (await db.query("select purchased_tokens::int n from governance.accounts where user_id = 'edna'")).rows[0]
      .n;
  const paid = JSON.stringify(event("checkout.session.completed", checkoutSession(purchase)), null, 2);

  it("refuses what is not signed, signed by another, changed, old, or from the future", async () => {
    const now = Math.floor(Date.now() / 1000);
    expect(await post(paid, null)).toMatchObject({ status: 400, body: { error: "signature_missing" } });
    for (const signature of [
      sign(paid, now, "whsec_other"),
      sign(`${paid} `),
      sign(paid, now - 3600),
      sign(paid, now + 3600),
      "t=abc,v1=00",
      "nonsense",
    ])
      expect(await post(paid, signature), signature).toMatchObject({
        status: 400,
        body: { error: "signature_invalid" },
      });
    expect(await post("not json", sign("not json"))).toMatchObject({ status: 400 });
    expect((await fetch(address)).status).toBe(405);
    expect(await balance()).toBe(0);
  });

  it("refuses a body larger than any of Stripe's", async () => {
    const large = `{"x":"${"y".repeat(1 << 20)}"}`;
    expect((await post(large, sign(large))).status).toBe(413);
  });

  it("asks for another delivery while the project is away, then credits once however often it comes", async () => {
    isAway = true;
    expect(await post(paid, sign(paid))).toMatchObject({ status: 503 });
    isAway = false;
    expect(await post(paid, sign(paid))).toEqual({
      status: 200,
      body: { received: true, status: "processed", reason: null },
    });
    expect(await post(paid, sign(paid))).toMatchObject({ status: 200, body: { status: "duplicate" } });
    expect(await balance()).toBe(320_000);
  });

  it("keeps an event with characters that no database holds for a person, and loses nothing of the others", async () => {
    for (const [name, userId] of [
      ["nul", "ed\0na"],
      ["half a pair", "ed\ud800na"],
    ] as const) {
      const hostile = JSON.stringify(
        event("checkout.session.completed", checkoutSession({ ...purchase, name, userId })),
      );
      expect(await post(hostile, sign(hostile)), name).toEqual({
        status: 200,
        body: { received: true, status: "quarantined", reason: "unknown_user" },
      });
    }
    const { rows } = await db.query(
      "select w.payload #>> '{data,object,metadata,user_id}' u from governance.webhook_events_processed w where w.status = 'quarantined' and w.reason = 'unknown_user'",
    );
    expect(rows).toEqual([{ u: "ed\ufffdna" }, { u: "ed\ufffdna" }]);
    const odd = JSON.stringify(
      event("checkout.session.completed", checkoutSession({ ...purchase, name: "emoji 💥 é" })),
    );
    expect(await post(odd, sign(odd))).toMatchObject({ status: 200, body: { status: "processed" } });
    expect(await balance()).toBe(640_000);
  });

  it("takes what can never be acted on, so that Stripe stops sending it, and never tells a secret", async () => {
    const odd = JSON.stringify({
      id: "evt_odd",
      object: "event",
      type: "checkout.session.completed",
      data: { object: { id: "cs_odd", metadata: { pack_id: "gold" } } },
    });
    expect(await post(odd, sign(odd))).toMatchObject({ status: 200, body: { status: "quarantined" } });
    const shapeless = JSON.stringify({ object: "event" });
    expect(await post(shapeless, sign(shapeless))).toMatchObject({
      status: 200,
      body: { status: "refused" },
    });
    expect(said).not.toContain(secret);
    expect(said).not.toContain("service-key");
  });

  /** An invoice of 120 lines of 1,000 tokens, and the event of it: Stripe puts ten lines into one. */
  function longInvoice(name: string): { body: string; invoice: StripeObject } {
    const invoice = invoiceSinceBasil({
      name,
      userId: "edna",
      planId: null,
      amountMinor: 12_000,
      currency: "gbp",
      start: created,
      end: created + 2_592_000,
    }) as StripeObject & { lines: { data: object[] } };
    const [line] = invoice.lines.data;
    const data = Array.from({ length: 120 }, (_, n) => ({
      ...line,
      id: `il_${name}_${n}`,
      amount: 100,
      metadata: { tokens: "1000" },
    }));
    const sent = { ...invoice, lines: { ...invoice.lines, has_more: true, data: data.slice(0, 10) } };
    return {
      body: JSON.stringify(event("invoice.paid", sent)),
      invoice: { ...invoice, lines: { ...invoice.lines, data } },
    };
  }
  const subscriptionTokens = async (): Promise<number> =>
    (await db.query("select subscription_tokens::int n from governance.accounts where user_id = 'edna'"))
      .rows[0].n;

  it("reads the lines of a long invoice that the event leaves out, once Stripe answers", async () => {
    const before = await subscriptionTokens();
    const { body, invoice } = longInvoice("long");
    account.lists.invoices.push(invoice);
    stripe.onRequest(() => brokenInside);
    expect(await post(body, sign(body))).toMatchObject({ status: 503 });
    stripe.onRequest(() => null);
    expect(await post(body, sign(body))).toMatchObject({ status: 200, body: { status: "processed" } });
    expect((await subscriptionTokens()) - before).toBe(120_000);
  });

  it("keeps a long invoice for a person where the key may not read it", async () => {
    const before = await subscriptionTokens();
    key.lacks.push("rak_invoice_read");
    const { body } = longInvoice("unread");
    expect(await post(body, sign(body))).toMatchObject({
      status: 200,
      body: { status: "quarantined", reason: "lines_missing" },
    });
    expect(await subscriptionTokens()).toBe(before);
    expect(said).not.toContain(apiKey);
  });
});
