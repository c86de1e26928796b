/** The Edge Function of apps, run by Deno, in front of the local project on a real PostgreSQL. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { jwtVerify, SignJWT } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { freePort } from "../../support/free-port.ts";
import { createTestServer } from "../../support/server.ts";
import { postgresUrls } from "../../support/project.ts";
import { repository } from "../../support/repository.ts";

let project: LocalProject;
let gateway: Server;
let deno: ChildProcess;
let address: string;
let dataDir: string;
let isDown = false;

/** What Supabase puts in front of a project: the project's rpc, and sign-in, of which one address matters here. */
function createGateway(): Server {
  return createTestServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    if (isDown) {
      response.writeHead(503).end("<html>down</html>");
      return;
    }
    if (request.url === "/auth/v1/user") {
      try {
        const token = (request.headers.authorization ?? "").replace("Bearer ", "");
        const { payload } = await jwtVerify(token, new TextEncoder().encode(project.jwtSecret));
        response.writeHead(200, { "content-type": "application/json" });
        response.end(
          JSON.stringify({
            id: payload.sub,
            email: `${payload.sub}@example.com`,
            app_metadata: payload["app_metadata"] ?? {},
          }),
        );
      } catch {
        response.writeHead(403, { "content-type": "application/json" }).end('{"msg":"invalid JWT"}');
      }
      return;
    }
    const answer = await fetch(`${project.url}${request.url}`, {
      method: request.method ?? "GET",
      headers: Object.fromEntries(
        Object.entries(request.headers).filter(([name]) =>
          ["apikey", "authorization", "content-type"].includes(name),
        ),
      ) as Record<string, string>,
      ...(chunks.length > 0 ? { body: Buffer.concat(chunks) } : {}),
    });
    response.writeHead(answer.status, {
      "content-type": answer.headers.get("content-type") ?? "application/json",
    });
    response.end(Buffer.from(await answer.arrayBuffer()));
  });
}

const sign = (claims: Record<string, unknown>, secret = project.jwtSecret) =>
  new SignJWT({ role: "authenticated", exp: Math.floor(Date.now() / 1000) + 600, ...claims })
    .setProtectedHeader({ alg: "HS256", typ: "JWT" })
    .sign(new TextEncoder().encode(secret));

async function send(
  method: string,
  path: string,
  token: string | null,
  body?: unknown,
  headers: Record<string, string> = {},
) {
  const response = await fetch(`${address}${path}`, {
    method,
    headers: { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await response.text();
  return { status: response.status, body: text === "" ? null : JSON.parse(text), headers: response.headers };
}

/** Stripe's Checkout Sessions, as far as the function asks: what it was sent is kept. */
const sessions: { readonly authorization: string; readonly form: Record<string, string> }[] = [];
let isStripeDown = false;
const stripe = createTestServer(async (request, response) => {
  let body = "";
  for await (const chunk of request) body += String(chunk);
  if (isStripeDown) return void response.writeHead(500).end('{"error":{"message":"secret of Stripe"}}');
  sessions.push({
    authorization: request.headers.authorization ?? "",
    form: Object.fromEntries(new URLSearchParams(body)),
  });
  response.writeHead(200, { "content-type": "application/json" });
  response.end('{"id":"cs_1","object":"checkout.session","url":"https://checkout.stripe.com/c/pay/cs_1"}');
});

async function rpc(name: string, parameters: Record<string, unknown>): Promise<void> {
  const response = await fetch(`${project.url}/rest/v1/rpc/${name}`, {
    method: "POST",
    headers: {
      apikey: project.serviceRoleKey,
      authorization: `Bearer ${project.serviceRoleKey}`,
      "content-type": "application/json",
    },
    body: JSON.stringify(parameters),
  });
  if (!response.ok) throw new Error(await response.text());
}

beforeAll(async () => {
  const { ownerUrl } = await createProjectDatabase(postgresUrls()[18], { preset: "andora" });
  dataDir = mkdtempSync(join(tmpdir(), "edge-functions-"));
  project = await startLocalProject({ dataDir, databaseUrl: ownerUrl, port: 0, log: () => {} });
  gateway = createGateway();
  await new Promise<void>((resolve) => gateway.listen(0, "127.0.0.1", resolve));
  await new Promise<void>((resolve) => stripe.listen(0, "127.0.0.1", resolve));
  const port = await freePort();
  address = `http://127.0.0.1:${port}/functions/v1/governance`;
  deno = spawn(
    process.execPath,
    [
      join(repository, "node_modules/deno/bin.cjs"),
      "run",
      "--quiet",
      "--allow-net=127.0.0.1",
      "--allow-env",
      "governance/index.ts",
    ],
    {
      cwd: join(repository, "supabase/functions"),
      env: {
        ...process.env,
        DENO_SERVE_ADDRESS: `tcp:127.0.0.1:${port}`,
        SUPABASE_URL: `http://127.0.0.1:${(gateway.address() as AddressInfo).port}`,
        SUPABASE_ANON_KEY: project.anonKey,
        SUPABASE_SERVICE_ROLE_KEY: project.serviceRoleKey,
        GOVERNANCE_ALLOWED_ORIGIN: "https://app.example",
        STRIPE_SECRET_KEY: "rk_test_1",
        STRIPE_API_URL: `http://127.0.0.1:${(stripe.address() as AddressInfo).port}`,
        GOVERNANCE_RETURN_URL: "https://app.example/tokens",
      },
      stdio: ["ignore", "inherit", "inherit"],
      // The npm package wraps the program: both are ended as one group.
      detached: true,
    },
  );
  for (let tries = 0; ; tries += 1) {
    const status = await fetch(address).then(
      (response) => response.status,
      () => null,
    );
    if (status === 404) break;
    if (tries > 600) throw new Error("Deno did not begin to serve.");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
});
afterAll(async () => {
  if (deno?.pid) process.kill(-deno.pid);
  gateway?.closeAllConnections();
  gateway?.close();
  stripe.closeAllConnections();
  stripe.close();
  await project?.stop();
  rmSync(dataDir, { recursive: true, force: true });
});

describe("users about themselves", () => {
  it("get balance, usage, alerts and cost in the shapes of the source system", async () => {
    await rpc("upsert_account", { p_user_id: "ann" });
    await rpc("authorize_usage", {
      p_request_id: "r1",
      p_user_id: "ann",
      p_model: "gpt-4o-mini",
      p_estimated_tokens: 6_000,
      p_task_type: "content-generation",
    });
    await rpc("settle_usage", { p_request_id: "r1", p_input_tokens: 4_000, p_output_tokens: 2_000 });
    const token = await sign({ sub: "ann" });
    expect(await send("GET", "/tokens/balance", token)).toMatchObject({
      status: 200,
      body: { tokens: expect.any(Number), plan: "free" },
    });
    expect(await send("GET", "/tokens/usage?days=7", token)).toMatchObject({
      status: 200,
      body: {
        byTaskType: { "content-generation": 6_000 },
        byDate: [{ date: expect.stringMatching(/^\d{4}-\d\d-\d\d$/), tokens: 6_000 }],
        totalTokens: 6_000,
        avgPerDay: 857,
      },
    });
    expect((await send("GET", "/tokens/alerts", token)).body).toContainEqual(
      expect.objectContaining({
        type: "high_usage",
        severity: "warning",
        message: expect.any(String),
        details: expect.objectContaining({ threshold: 5_000 }),
      }),
    );
    expect(await send("GET", "/cost/summary", token)).toMatchObject({
      status: 200,
      body: { days: 30, currency: expect.any(String), by_model: [{ model: "gpt-4o-mini" }] },
    });
  });

  it("are refused without a valid token, and never get another's", async () => {
    for (const token of [
      null,
      "nonsense",
      await sign({ sub: "ann" }, "another secret that is long enough!!"),
      await sign({ sub: "ann", exp: 1 }),
    ]) {
      expect(await send("GET", "/tokens/balance", token)).toMatchObject({
        status: 401,
        body: { error: "not_signed_in" },
      });
    }
    expect((await send("GET", "/tokens/usage", await sign({ sub: "stranger" }))).body).toMatchObject({
      totalTokens: 0,
    });
    expect(await send("GET", "/tokens/balance", project.anonKey)).toMatchObject({
      status: expect.toSatisfy((status: number) => status === 401 || status === 403),
    });
  });

  it.each(["0", "-1", "1.5", "x", "367", "99999999999999999999"])(
    "are told that days=%s is wrong",
    async (days) => {
      expect(await send("GET", `/tokens/usage?days=${days}`, await sign({ sub: "ann" }))).toMatchObject({
        status: 400,
        body: { error: "invalid_argument" },
      });
    },
  );
});

describe("a user's history", () => {
  it("is theirs, newest first, page by page, without what operators wrote", async () => {
    await rpc("upsert_account", { p_user_id: "cy" });
    for (const amount of [10, 20, 30])
      await rpc("update_user_token_balance", {
        p_user_id: "cy",
        p_amount: amount,
        p_transaction_type: "bonus",
        p_description: "internal note",
      });
    const token = await sign({ sub: "cy" });
    const first = await send("GET", "/tokens/history?limit=2", token);
    expect(first).toMatchObject({
      status: 200,
      body: { entries: [{ transaction_type: "bonus", amount: 30 }, { amount: 20 }] },
    });
    expect(JSON.stringify(first.body)).not.toContain("internal");
    const rest = await send("GET", `/tokens/history?before=${first.body.next_before_id}`, token);
    expect(rest.body).toMatchObject({ next_before_id: null });
    expect(rest.body.entries[0]).toMatchObject({ amount: 10 });
    expect(
      (await send("GET", "/tokens/history", await sign({ sub: "other" }))).body.entries,
    ).not.toContainEqual(expect.objectContaining({ amount: 30 }));
    for (const limit of ["0", "201", "x"])
      expect(await send("GET", `/tokens/history?limit=${limit}`, token)).toMatchObject({ status: 400 });
  });
});

describe("a user's preferences", () => {
  it("are read and changed with their own token alone", async () => {
    const token = await sign({ sub: "dora" });
    expect(await send("GET", "/preferences", token)).toMatchObject({
      status: 200,
      body: { language: "en", languages: ["en", "de"], messages: { purchases: true, low_balance: true } },
    });
    const changes = { language: "de", messages: { purchases: false } };
    expect((await send("PUT", "/preferences", token, changes)).body).toMatchObject({
      language: "de",
      messages: { purchases: false, low_balance: true },
    });
    expect((await send("GET", "/preferences", await sign({ sub: "eve" }))).body.language).toBe("en");
    expect((await send("GET", "/preferences", null)).status).toBe(401);
    for (const wrong of [
      { language: "xx" },
      { messages: { everything: true } },
      { messages: 1 },
      { more: 1 },
    ])
      expect(await send("PUT", "/preferences", token, wrong)).toMatchObject({
        status: 400,
        body: { error: "invalid_argument" },
      });
  });

  it("end by the link of a mail: to look at it changes nothing, its button does, a forged one is refused", async () => {
    const [row] = await project.run(
      "select governance.turn_off_token(a.account_id, 'subscription') from governance.accounts a where a.user_id = 'dora'",
    );
    const link = `${address}/unsubscribe?token=${row?.[0]}`;
    const messages = async (): Promise<unknown> =>
      (await send("GET", "/preferences", await sign({ sub: "dora" }))).body.messages;
    const asked = await fetch(link);
    expect(asked.headers.get("content-type")).toContain("text/html");
    const page = await asked.text();
    expect(page).toContain("Keine E-Mails mehr über Ihr Abonnement?");
    expect(page).toContain('<form method="post"><button>Ausschalten</button></form>');
    expect(await messages()).toMatchObject({ subscription: true });
    const done = await fetch(link, { method: "POST", body: "List-Unsubscribe=One-Click" });
    expect(await done.text()).toContain("E-Mails über Ihr Abonnement sind jetzt ausgeschaltet.");
    expect(await messages()).toMatchObject({ subscription: false, low_balance: true });
    for (const forged of [
      link.replace(/.$/, (last) => (last === "0" ? "1" : "0")),
      `${address}/unsubscribe`,
    ]) {
      const refused = await fetch(forged, { method: "POST" });
      expect(refused.status).toBe(404);
      expect(await refused.text()).not.toContain("<form");
    }
  });
});

describe("a checkout", () => {
  it("is made for exactly the pack's price, for whom the token names; limits are said in words", async () => {
    const { packs } = (await send("GET", "/tokens/balance", await sign({ sub: "buyer" }))).body;
    const [pack] = packs as { pack_id: string; tokens: number; price_minor: number; currency: string }[];
    if (!pack) throw new Error("The preset sells no pack.");
    const token = await sign({ sub: "buyer" });
    expect(await send("POST", "/tokens/checkout", token, { pack_id: pack.pack_id })).toMatchObject({
      status: 200,
      body: { url: "https://checkout.stripe.com/c/pay/cs_1", pack },
    });
    expect(sessions).toMatchObject([
      {
        authorization: "Bearer rk_test_1",
        form: {
          mode: "payment",
          client_reference_id: "buyer",
          success_url: "https://app.example/tokens",
          "line_items[0][quantity]": "1",
          "line_items[0][price_data][currency]": pack.currency,
          "line_items[0][price_data][unit_amount]": String(pack.price_minor),
          "metadata[user_id]": "buyer",
          "metadata[pack_id]": pack.pack_id,
          "metadata[tokens]": String(pack.tokens),
          "payment_intent_data[metadata][user_id]": "buyer",
        },
      },
    ]);
    const again = await send("POST", "/tokens/checkout", token, { pack_id: pack.pack_id });
    expect(again).toMatchObject({
      status: 429,
      body: { error: "cooldown", message: expect.stringMatching(/wait/) },
    });
    expect(Number(again.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(sessions.length).toBe(1);

    await rpc("block_user", {
      p_command_id: "b1",
      p_user_id: "buyer",
      p_reason: "test",
      p_until: null,
      p_operator: "op",
    });
    expect(await send("POST", "/tokens/checkout", token, { pack_id: pack.pack_id })).toMatchObject({
      status: 403,
      body: { error: "user_blocked" },
    });
    expect(
      await send("POST", "/tokens/checkout", await sign({ sub: "ann" }), { pack_id: "none" }),
    ).toMatchObject({
      status: 404,
      body: { error: "unknown_pack" },
    });
    expect(await send("POST", "/tokens/checkout", await sign({ sub: "ann" }), {})).toMatchObject({
      status: 400,
    });
    expect(await send("POST", "/tokens/checkout", null, { pack_id: pack.pack_id })).toMatchObject({
      status: 401,
    });
  });

  it("says nothing of Stripe's own when Stripe fails, and counts no attempt that failed", async () => {
    isStripeDown = true;
    const token = await sign({ sub: "late" });
    const { packs } = (await send("GET", "/tokens/balance", token)).body;
    const buy = () => send("POST", "/tokens/checkout", token, { pack_id: packs[0].pack_id });
    for (let attempt = 0; attempt < 5; attempt++) {
      const answer = await buy();
      expect(answer).toMatchObject({ status: 503, body: { error: "unavailable" } });
      expect(JSON.stringify(answer.body)).not.toContain("secret");
    }
    isStripeDown = false;
    expect((await buy()).status).toBe(200);
  });
});

describe("the paths of the source systems", () => {
  it("are answered as the function's own", async () => {
    const token = await sign({ sub: "ann" });
    for (const path of [
      "/api/governance/tokens/balance",
      "/api/tokens/balance",
      "/api/governance/cost/summary",
    ])
      expect((await send("GET", path, token)).status, path).toBe(200);
    for (const path of ["rules", "alerts", "cost/dashboard"])
      expect((await send("GET", `/api/admin/governance/${path}`, project.serviceRoleKey)).status, path).toBe(
        200,
      );
    expect((await send("GET", "/api/admin/tokens/stats", project.serviceRoleKey)).status).toBe(200);
    expect((await send("GET", "/api/admin/governance/rules", token)).status).toBe(403);
  });
});

describe("a user who asks too often", () => {
  it("gets 429 with the time to come back, with any token, and slows no other user; nor does a forged token in their name", async () => {
    const forged = await sign({ sub: "calm" }, "another secret that is long enough!!");
    for (let n = 0; n < 70; n++) await send("GET", "/tokens/alerts", forged);
    expect((await send("GET", "/tokens/alerts", forged)).status).toBe(429);
    expect((await send("GET", "/tokens/alerts", await sign({ sub: "calm" }))).status).toBe(200);
    const token = await sign({ sub: "eager", nonce: 1 });
    const statuses = [];
    let last;
    for (let n = 0; n < 130 && statuses.at(-1) !== 429; n++) {
      last = await send("GET", "/tokens/alerts", token);
      statuses.push(last.status);
    }
    expect(last).toMatchObject({ status: 429, body: { error: "rate_limited" } });
    expect(Number(last?.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(60);
    expect((await send("GET", "/tokens/alerts", await sign({ sub: "eager", nonce: 2 }))).status).toBe(429);
    expect((await send("GET", "/tokens/alerts", await sign({ sub: "another" }))).status).toBe(200);
  });
});

describe("admins", () => {
  const admin = () => sign({ sub: "boss", app_metadata: { governance_role: "admin" } });

  it("see rules, alerts, cost and statistics", async () => {
    for (const token of [project.serviceRoleKey, await admin()]) {
      expect(await send("GET", "/admin/rules", token)).toMatchObject({
        status: 200,
        body: expect.any(Array),
      });
      expect(await send("GET", "/admin/alerts", token)).toMatchObject({
        status: 200,
        body: { alerts: expect.any(Array), cost_alerts: expect.any(Array) },
      });
      expect(await send("GET", "/admin/cost/dashboard?days=7", token)).toMatchObject({
        status: 200,
        body: { total_tokens: 6_000, by_day: expect.any(Array), cost_alerts: expect.any(Array) },
      });
      expect(await send("GET", "/admin/tokens/stats", token)).toMatchObject({
        status: 200,
        body: {
          totalUsersWithTokens: expect.any(Number),
          avgBalancePerUser: expect.any(Number),
          totalTokensUsedToday: expect.any(Number),
          lowBalanceUsers: expect.any(Number),
          activeAlerts: expect.any(Number),
        },
      });
    }
  });

  it("are no users without the role, whatever a token or its user metadata claims", async () => {
    for (const route of ["/admin/rules", "/admin/alerts", "/admin/cost/dashboard", "/admin/tokens/stats"]) {
      expect(await send("GET", route, await sign({ sub: "ann" })), route).toMatchObject({
        status: 403,
        body: { error: "not_allowed" },
      });
      // What users may write about themselves makes nobody an admin.
      expect(
        await send(
          "GET",
          route,
          await sign({ sub: "ann", user_metadata: { governance_role: "admin" }, governance_role: "admin" }),
        ),
      ).toMatchObject({ status: 403 });
      expect(await send("GET", route, await sign({ sub: "boss", role: "service_role" }))).toMatchObject({
        status: 403,
      });
      expect(await send("GET", route, `${project.serviceRoleKey}x`)).toMatchObject({ status: 401 });
      expect(await send("GET", route, null)).toMatchObject({ status: 401 });
    }
  });

  it("change a rule once a key, and not over somebody else's change", async () => {
    const rule = {
      rule_name: "http_rule",
      conditions: { all: [{ fact: "messages_today", op: ">", value: 5_000 }] },
      action: { warn: { message: "Many messages." } },
    };
    const key = { "idempotency-key": "put-1" };
    const first = await send("PUT", "/admin/rules", await admin(), { rule, expected_version: 0 }, key);
    expect(first).toMatchObject({ status: 200, body: { version: 1, updated_by: "boss@example.com" } });
    expect(
      await send("PUT", "/admin/rules", await admin(), { rule, expected_version: 0 }, key),
    ).toMatchObject({ status: 200, body: first.body });
    expect(await send("PUT", "/admin/rules", await admin(), { rule, expected_version: 0 })).toMatchObject({
      status: 409,
      body: { error: "version_conflict" },
    });
    expect(
      await send("PUT", "/admin/rules", await admin(), {
        rule: { ...rule, conditions: { all: [{ fact: "moon", op: "=", value: 1 }] } },
      }),
    ).toMatchObject({ status: 422, body: { error: "invalid_rule", details: "conditions.all[0].fact" } });
    for (const body of [
      "",
      "{",
      "[]",
      "null",
      '"x"',
      { rules: [] },
      { rule: null },
      { rule, expected_version: "x" },
      { rule: "x".repeat(300_000) },
    ]) {
      const { status, body: answer } = await send("PUT", "/admin/rules", await admin(), body);
      expect([400, 413, 422]).toContain(status);
      expect(answer).toMatchObject({ error: expect.any(String), message: expect.any(String) });
    }
  });
});

describe("everybody", () => {
  it("get 404 for a path that does not exist and 405 for a wrong method", async () => {
    expect(await send("GET", "/nothing", null)).toMatchObject({ status: 404, body: { error: "not_found" } });
    expect(await send("GET", "/__proto__", null)).toMatchObject({ status: 404 });
    expect(await send("POST", "/tokens/balance", null)).toMatchObject({
      status: 405,
      body: { error: "method_not_allowed" },
    });
  });

  it("lets pages of the one app that was named call it", async () => {
    const { status, headers } = await send("OPTIONS", "/tokens/balance", null);
    expect(status).toBe(204);
    expect(headers.get("access-control-allow-origin")).toBe("https://app.example");
  });

  it("answers 503 without details when the project does not answer", async () => {
    isDown = true;
    try {
      for (const route of ["/tokens/balance", "/admin/rules"]) {
        expect(await send("GET", route, await sign({ sub: "ann" }))).toMatchObject({
          status: 503,
          body: { error: "unavailable", details: null },
        });
      }
    } finally {
      isDown = false;
    }
  });
});
