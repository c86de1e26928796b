/**
 * The programs of docs/guides/integrate.md and guard.md, compiled strictly and run as they stand: Express and Hono in Node, the Edge Function in Deno, in
 * front of a real project on PostgreSQL and a scripted provider over HTTP. What is the reader's own (`openai`, `userOf`,
 * `callModel` …) is put before them.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { setTimeout as pause } from "node:timers/promises";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { freePort } from "../../support/free-port.ts";
import { postgresUrls } from "../../support/project.ts";
import { createTestServer } from "../../support/server.ts";
import { repository } from "../../support/repository.ts";

const run = promisify(execFile);
const sourceOf = (part: string): string => join(repository, `packages/guard/src/${part}.ts`);
const guide = readFileSync(join(repository, "docs/guides/guard.md"), "utf8");
const page = readFileSync(join(repository, "docs/guides/integrate.md"), "utf8");

const programsOn = (text: string): string[] =>
  [...text.matchAll(/```ts\n([\s\S]*?)```/g)].map((match) => match[1] as string);

/** The code blocks below a heading of the guide. */
function programsUnder(heading: string): string[] {
  const section = guide.split(/^## /m).find((part) => part.startsWith(heading)) ?? "";
  const blocks = programsOn(section);
  if (blocks.length === 0) throw new Error(`The guide has no program under "${heading}".`);
  // The packages' sources; that they are the same when they are installed is for packages.test.ts.
  return blocks.map((block) =>
    block.replaceAll(/"(?:npm:)?@token-governance\/guard(?:\/(\w+))?"/g, (_, part = "index") =>
      JSON.stringify(sourceOf(part)),
    ),
  );
}

const [once = ""] = programsUnder("Once");
const nodePrelude = `const userOf = (given) => given.get?.("x-user") ?? given.req?.header("x-user") ?? given.headers.get("x-user");
`;
const denoPrelude = `const userOf = async (request) => request.headers.get("x-user");
`;
/** What Next.js does with a route. */
const nextServer = `
import { serve as serveRoute } from "@hono/node-server";
serveRoute({ fetch: (request) => (request.method === "POST" ? POST(request) : new Response()), port: Number(process.env.PORT) });
`;

/** What the compiler is told of the reader's own, and of Express, which has no types of its own. */
const nodeTypes = `
declare const userOf: (given: unknown) => string;
declare const callModel: (model: string, text: string) => Promise<{ usage: { input_tokens: number; output_tokens: number } }>;
declare const settleLater: (settlement: Record<string, unknown>) => Promise<void>;
declare module "express" {
  interface Request { body: any; get(name: string): string | undefined }
  interface Response { status(code: number): this; set(headers: Record<string, string>): this; json(body: unknown): this }
  interface App { use(handler: unknown): void; post(path: string, handler: (req: Request, res: Response) => unknown): void; listen(port?: string): import("node:http").Server }
  function express(): App;
  namespace express { function json(): unknown }
  export default express;
}
`;
const denoTypes = "declare const userOf: (given: unknown) => Promise<string>;\n";
const deno = join(repository, "node_modules/deno/bin.cjs");

interface Backend {
  readonly program: string;
  readonly file: string;
  readonly command: (file: string) => readonly [string, ...string[]];
}
const node = (file: string): [string, ...string[]] => [process.execPath, "--no-warnings", file];
const backends: Readonly<Record<"Express" | "Hono" | "Next.js" | "Edge Function", Backend>> = {
  Express: {
    program: [nodePrelude, once, ...programsUnder("Express")].join("\n"),
    file: "express.ts",
    command: node,
  },
  Hono: {
    program: [nodePrelude, once, ...programsUnder("Hono")].join("\n"),
    file: "hono.ts",
    command: node,
  },
  "Next.js": {
    program: [nodePrelude, once, ...programsUnder("Next.js"), nextServer].join("\n"),
    file: "next.ts",
    command: node,
  },
  "Edge Function": {
    program: [denoPrelude, ...programsUnder("Supabase Edge Function")].join("\n"),
    file: "edge.ts",
    command: (file) => [
      process.execPath,
      deno,
      "run",
      "--no-check",
      "--no-prompt",
      "--allow-net",
      "--allow-env",
      "--allow-read",
      "--node-modules-dir=manual",
      file,
    ],
  },
};

let folder: string;
let project: LocalProject;
let admin: pg.Client;
/** Between a backend and its project: what may be away. */
let isAway: (path: string) => boolean = () => false;
const redisHash = new Map<string, string>();
const servers: Server[] = [];
const running = new Set<ChildProcess>();
let projectUrl: string;
let providerUrl: string;
let redisUrl: string;

async function serve(answer: (body: string, request: IncomingMessage, response: ServerResponse) => unknown) {
  const server = createTestServer(async (request, response) => {
    let body = "";
    for await (const piece of request) body += String(piece);
    await answer(body, request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  servers.push(server);
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const input = 11;
const output = 7;

async function provide(body: string, _request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { messages, stream } = JSON.parse(body || "{}") as {
    messages: { content: string }[];
    stream?: boolean;
  };
  const text = messages[0]?.content ?? "";
  if (text === "fail") return void response.writeHead(500, { "x-should-retry": "false" }).end();
  if (text === "slow") await pause(1_000);
  const usage = { prompt_tokens: input, completion_tokens: output, total_tokens: input + output };
  if (stream !== true) {
    const answer = {
      type: "message",
      id: "1",
      created: 1_790_000_000,
      model: "one",
      choices: [
        { index: 0, finish_reason: "stop", message: { role: "assistant", content: `You said ${text}.` } },
      ],
      content: [{ type: "text", text: `You said ${text}.` }],
      usage: _request.url?.endsWith("/chat/completions")
        ? usage
        : { input_tokens: input, output_tokens: output },
    };
    return void response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer));
  }
  response.writeHead(200, { "content-type": "text/event-stream" });
  const send = (chunk: unknown): unknown => response.write(`data: ${JSON.stringify(chunk)}\n\n`);
  for (let word = 0; word < (text === "long" ? 400 : output); word++) {
    if (text === "break" && word === 3) return void response.destroy();
    send({ choices: [{ delta: { content: "four" } }] });
    await pause(text === "long" ? 10 : 0);
    if (response.destroyed) return;
  }
  send({ choices: [], usage });
  response.end("data: [DONE]\n\n");
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "guard-guide-"));
  symlinkSync(join(repository, "node_modules"), join(folder, "node_modules"));
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({
      type: "module",
      dependencies: { "@supabase/supabase-js": "2", "@anthropic-ai/sdk": "1" },
    }),
  );
  const { ownerUrl, url } = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
  project = await startLocalProject({ databaseUrl: ownerUrl, port: 0, log: () => {} });
  admin = new pg.Client({ connectionString: url });
  admin.on("error", () => undefined);
  await admin.connect();
  projectUrl = await serve(async (body, request, response) => {
    if (isAway(request.url ?? "")) return void response.destroy();
    const { host: _, connection: __, "content-length": ___, ...headers } = request.headers;
    const answer = await fetch(`${project.url}${request.url}`, {
      method: request.method ?? "POST",
      headers: headers as Record<string, string>,
      body,
    });
    response.writeHead(answer.status, { "content-type": "application/json" }).end(await answer.text());
  });
  providerUrl = await serve(provide);
  redisUrl = await serve((body, _request, response) => {
    const [command, , key = "", value = ""] = JSON.parse(body) as string[];
    if (command === "HSET") redisHash.set(key, value);
    if (command === "HDEL") redisHash.delete(key);
    response.end(JSON.stringify({ result: command === "HVALS" ? [...redisHash.values()] : 1 }));
  });
});
afterAll(async () => {
  for (const child of running) child.kill("SIGKILL");
  for (const server of servers) server.closeAllConnections();
  await project?.stop();
  await admin?.end();
  rmSync(folder, { recursive: true, force: true });
});

interface Started {
  readonly chat: (user: string, message: string, signal?: AbortSignal) => Promise<Response>;
  stop(signal: NodeJS.Signals): Promise<void>;
}

async function start({ program, file, command }: Backend): Promise<Started> {
  const port = await freePort();
  writeFileSync(join(folder, file), program);
  const [executable, ...args] = command(join(folder, file));
  const child = spawn(executable, args, {
    cwd: folder,
    detached: true,
    env: {
      ...process.env,
      PORT: String(port),
      DENO_SERVE_ADDRESS: `tcp:127.0.0.1:${port}`,
      SUPABASE_URL: projectUrl,
      SUPABASE_SERVICE_ROLE_KEY: project.serviceRoleKey,
      SETTLEMENTS_DB: join(folder, `${file}.db`),
      OPENAI_BASE_URL: `${providerUrl}/v1`,
      OPENAI_API_KEY: "k",
      ANTHROPIC_BASE_URL: providerUrl,
      ANTHROPIC_API_KEY: "k",
      REDIS_URL: redisUrl,
      NO_COLOR: "1",
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.add(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream?.on("data", (piece) => (said += String(piece)));
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  const url = `http://127.0.0.1:${port}/chat`;
  for (let tries = 0; ; tries++) {
    if (child.exitCode !== null || tries > 600) throw new Error(`${file} did not begin to serve: ${said}`);
    const answers = await fetch(url).then(
      async (response) => (await response.text(), true),
      () => false,
    );
    if (answers) break;
    await pause(100);
  }
  return {
    chat: (user, message, signal) =>
      fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json", "x-user": user },
        body: JSON.stringify({ message }),
        ...(signal ? { signal } : {}),
      }),
    async stop(signal) {
      // Deno is the child of its launcher: the whole group.
      if (child.pid) process.kill(-child.pid, signal);
      await ended;
      running.delete(child);
    },
  };
}

interface Account {
  charged: number;
  reserved: number;
  calls: number;
}
async function accountOf(user: string): Promise<Account> {
  const { rows } = await admin.query<Record<keyof Account, string>>(
    `select coalesce(sum(r.charged_tokens), 0) as charged, count(r.*) as calls, a.reserved_tokens as reserved
     from governance.accounts a left join governance.requests r using (account_id) where a.user_id = $1 group by a.account_id`,
    [user],
  );
  const row = rows[0];
  return { charged: Number(row?.charged), reserved: Number(row?.reserved), calls: Number(row?.calls) };
}
/** Settlements come after the answer. */
async function settles(user: string, expected: Partial<Account>): Promise<void> {
  await expect
    .poll(() => accountOf(user), { timeout: 60_000, interval: 100 })
    .toMatchObject({ reserved: 0, ...expected });
}

describe("the page for backend engineers", () => {
  const program = programsOn(page)[0] ?? "";
  const own = `
const callModel = async (model, text) => {
  // The end of a reason cuts an emoji in two.
  if (text === "fail") throw new Error("\u{1f600}".repeat(5000));
  return { text: \`\${model} heard \${text}\`, usage: { input_tokens: ${input}, output_tokens: ${output} } };
};
const queue = [];
const settleLater = async (settlement) => void queue.push(settlement);
`;
  const user = "integrated";
  /** What the program answers to a message, or throws, and what it has left to settle. */
  async function chat(
    message: string,
  ): Promise<{ status?: number; body?: { text: string }; left: object[] }> {
    const call = `const answer = await chat("${user}", ${JSON.stringify(message)}, "c").catch(() => ({}));
console.log(JSON.stringify({ ...answer, left: queue }));`;
    writeFileSync(join(folder, "integrate.ts"), [program, own, call].join("\n"));
    const env = {
      ...process.env,
      SUPABASE_URL: projectUrl,
      SUPABASE_SERVICE_ROLE_KEY: project.serviceRoleKey,
    };
    const { stdout } = await run(process.execPath, ["--no-warnings", "integrate.ts"], { cwd: folder, env });
    return JSON.parse(stdout) as Awaited<ReturnType<typeof chat>>;
  }

  it("makes the two calls around a model's: charged, given back, or left to be settled", async () => {
    expect(await chat("hello")).toMatchObject({
      status: 200,
      body: { text: "gpt-4o heard hello" },
      left: [],
    });
    await settles(user, { charged: input + output, calls: 1 });

    // A provider's error may be longer than a reason.
    expect(await chat("fail")).toEqual({ left: [] });
    await settles(user, { charged: input + output, calls: 2 });

    const cut = "h\0i \ud83d";
    expect(await chat(cut)).toMatchObject({ status: 200, body: { text: `gpt-4o heard ${cut}` }, left: [] });
    await settles(user, { charged: 2 * (input + output), calls: 3 });

    isAway = (path) => path.endsWith("/settle_usage");
    const { status, left } = await chat("again");
    isAway = () => false;
    expect([status, left]).toMatchObject([200, [{ p_input_tokens: input, p_output_tokens: output }]]);
    expect((await accountOf(user)).reserved).toBeGreaterThan(0);

    await admin.query("select block_user('b-integrated', $1, 'test', null, 'op')", [user]);
    expect(await chat("hello")).toMatchObject({ status: 403, body: { reason: "user_blocked" } });
  });

  it("sends what waits in one trip: each slot is answered by itself, and asked again nothing is held twice", async () => {
    const batch = programsOn(page)[1] ?? "";
    const call = `const call = (id, user) => ({ request_id: id, user_id: user, model: "gpt-4o", estimated_tokens: 100 });
const ask = () => Promise.all([call("g1", "group-a"), call("g2", "group-b"), call("g3", ""), call("g4", "group-a"), ...odd].map(authorize));
let odd = [];
const first = ask(); await sendWaiting(); const second = ask(); await sendWaiting();
odd = [call("g5", "group\\ud83d")]; const third = ask(); await sendWaiting();
console.log(JSON.stringify([await first, await second, await third]));`;
    writeFileSync(join(folder, "batch.ts"), [batch, call].join("\n"));
    const env = {
      ...process.env,
      SUPABASE_URL: projectUrl,
      SUPABASE_SERVICE_ROLE_KEY: project.serviceRoleKey,
    };
    const { stdout } = await run(process.execPath, ["--no-warnings", "batch.ts"], { cwd: folder, env });
    const slots = [
      { request_id: "g1", decision: "allow" },
      { request_id: "g2", decision: "allow" },
      { error: { hint: "invalid_argument" } },
      { request_id: "g4", decision: "allow" },
    ];
    // What PostgreSQL cannot read is refused alone.
    expect(JSON.parse(stdout)).toMatchObject([slots, slots, [...slots, { error: { code: "22P02" } }]]);
    expect(await accountOf("group-a")).toMatchObject({ calls: 2, reserved: 200 });
  });

  it("tells of a user what is known, and keeps what it does not say", async () => {
    const call = `const user = { id: "told", email: "t@example.com", name: "Ann", timezone: "europe/berlin", language: "de" };
console.log(JSON.stringify(await signedUp(user)));`;
    writeFileSync(join(folder, "users.ts"), [programsOn(page)[2] ?? "", call].join("\n"));
    const env = {
      ...process.env,
      SUPABASE_URL: projectUrl,
      SUPABASE_SERVICE_ROLE_KEY: project.serviceRoleKey,
    };
    await admin.query("select upsert_account('told', 'pro')");
    const { stdout } = await run(process.execPath, ["--no-warnings", "users.ts"], { cwd: folder, env });
    expect(JSON.parse(stdout)).toMatchObject({
      user_id: "told",
      email: "t@example.com",
      timezone: "Europe/Berlin",
      plan_id: "pro",
      metadata: { language: "de" },
    });
  });
});

describe("the guide's programs", () => {
  const compile = (...args: string[]): Promise<string> =>
    run(process.execPath, args, { cwd: folder, env: { ...process.env, NO_COLOR: "1" } }).then(
      () => "",
      (error: { stdout: string; stderr: string }) => error.stdout + error.stderr,
    );

  it("compile in Node under strict", async () => {
    writeFileSync(join(folder, "types.d.ts"), nodeTypes);
    writeFileSync(join(folder, "page.ts"), programsOn(page)[0] ?? "");
    writeFileSync(join(folder, "batch.ts"), programsOn(page)[1] ?? "");
    writeFileSync(join(folder, "users.ts"), programsOn(page)[2] ?? "");
    for (const name of ["Express", "Hono", "Next.js", "Any other call"]) {
      const program = [once, ...programsUnder(name)].join("\n");
      writeFileSync(join(folder, `${name}.ts`), program);
    }
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({
        compilerOptions: {
          strict: true,
          noEmit: true,
          module: "nodenext",
          target: "es2024",
          types: ["node"],
          skipLibCheck: true,
          allowImportingTsExtensions: true,
        },
        files: [
          "types.d.ts",
          "page.ts",
          "batch.ts",
          "users.ts",
          "Express.ts",
          "Hono.ts",
          "Next.js.ts",
          "Any other call.ts",
        ],
      }),
    );
    expect(await compile(join(repository, "node_modules/typescript/bin/tsc"), "-p", ".")).toBe("");
  });

  it("compile in Deno", async () => {
    const program = `${denoTypes}${programsUnder("Supabase Edge Function").join("\n")}`;
    writeFileSync(join(folder, "edge-types.ts"), program);
    expect(await compile(deno, "check", "--quiet", "--node-modules-dir=manual", "edge-types.ts")).toBe("");
  });
});

describe("the guide's way for any other call", () => {
  it("gives the value, or what to answer in the user's language", async () => {
    const own = `const callModel = async (model, text) => ({ said: text, usage: { input_tokens: ${input}, output_tokens: ${output} } });`;
    const call = `console.log(JSON.stringify([await ask("other", "hello"), await ask("other-blocked", "hello")])); await guard.idle();`;
    writeFileSync(join(folder, "other.ts"), [own, once, ...programsUnder("Any other call"), call].join("\n"));
    await admin.query(
      "select upsert_account('other-blocked'), block_user('b-other', 'other-blocked', 'test', null, 'op')",
    );
    const env = {
      ...process.env,
      SUPABASE_URL: projectUrl,
      SUPABASE_SERVICE_ROLE_KEY: project.serviceRoleKey,
      OPENAI_API_KEY: "none",
      SETTLEMENTS_DB: join(folder, "other.db"),
    };
    const { stdout } = await run(process.execPath, ["--no-warnings", "other.ts"], { cwd: folder, env });
    expect(JSON.parse(stdout)).toMatchObject([
      { status: 200, body: { said: "hello" } },
      { status: 403, body: { error: "user_blocked", message: expect.stringMatching(/^Ihr Zugang/) } },
    ]);
    await settles("other", { charged: input + output, calls: 1 });
  });
});

it("the guides have no program that is not run", () => {
  for (const text of [guide, page]) expect(text).not.toContain("no-check");
});

describe.each(Object.keys(backends) as (keyof typeof backends)[])("the guide's %s backend", (name) => {
  const backend = backends[name];
  const user = name.toLowerCase().replace(" ", "-");

  it("answers, refuses, gives back and settles after a crash, as the guide says", async () => {
    let server = await start(backend);
    const answer = await server.chat(user, "hello");
    expect(answer.status).toBe(200);
    expect(await answer.text()).toContain(name === "Hono" ? "four".repeat(output) : "You said hello.");
    await settles(user, { charged: input + output, calls: 1 });

    // Refused by the database: the provider is not asked, and the user is told what to do.
    await admin.query("select block_user($1, $2, 'test', null, 'op')", [`b-${user}`, user]);
    const blocked = await server.chat(user, "hello");
    expect([blocked.status, await blocked.json()]).toMatchObject([403, { error: "user_blocked" }]);
    await admin.query("select unblock_user($1, $2, 'test', 'op')", [`u-${user}`, user]);
    await admin.query("select upsert_account($1), update_user_token_balance($1, -50000, 'adjustment')", [
      `poor-${user}`,
    ]);
    const poor = await server.chat(`poor-${user}`, "hello");
    expect([poor.status, await poor.json()]).toMatchObject([
      402,
      { error: "insufficient_tokens", upgrade: { plan_id: "pro" }, balance: { available: 0 } },
    ]);

    // The provider fails: nothing is charged, nothing stays held.
    expect((await server.chat(user, "fail")).status).toBe(500);
    await settles(user, { charged: input + output, calls: 3 });

    // The database is away when it comes to settling, and the process dies: the next one settles, once.
    isAway = (path) => path.endsWith("/settle_usage");
    const unsettled = await server.chat(user, "again");
    expect(unsettled.status).toBe(200);
    await unsettled.text();
    await expect.poll(() => accountOf(user), { timeout: 60_000 }).toMatchObject({ calls: 4 });
    expect((await accountOf(user)).reserved).toBeGreaterThan(0);
    await server.stop("SIGKILL");
    isAway = () => false;
    server = await start(backend);
    await settles(user, { charged: 2 * (input + output), calls: 4 });

    // Nobody can be asked: closed.
    isAway = () => true;
    const away = await server.chat(user, "hello");
    expect([away.status, away.headers.get("retry-after"), await away.json()]).toMatchObject([
      503,
      "5",
      { error: "unavailable" },
    ]);
    isAway = () => false;
    await settles(user, { charged: 2 * (input + output) });

    if (name === "Express") {
      // Asked to end while a call is under way: it is answered, and what it used is charged.
      const last = server.chat(user, "slow");
      await expect.poll(() => accountOf(user), { timeout: 60_000 }).toMatchObject({ calls: 5 });
      await server.stop("SIGTERM");
      expect((await last).status).toBe(200);
      await settles(user, { charged: 3 * (input + output) });
      return;
    }
    if (name === "Hono") {
      // The provider breaks off after three words; the message "break" is two tokens.
      await (await server.chat(user, "break")).text().catch(() => "");
      await settles(user, { charged: 2 * (input + output) + 2 + 3 });
      const controller = new AbortController();
      const long = await server.chat(user, "long", controller.signal);
      await long.body?.getReader().read();
      controller.abort();
      await settles(user, { calls: 6 });
      const { charged } = await accountOf(user);
      // 1 for the message, and some of the 400 words.
      expect(charged - 2 * (input + output) - 5).toBeGreaterThan(1);
      expect(charged - 2 * (input + output) - 5).toBeLessThan(300);
    }
    await server.stop("SIGTERM");
  });
});
