/**
 * The packages as people install them: packed, installed into an empty folder outside the repository, checked by publint
 * and are-the-types-wrong, compiled strictly there, and run in Node, Deno and Bun, and in a built Next.js, against a
 * project and a provider.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, delimiter, dirname, join } from "node:path";
import { promisify } from "node:util";
import { DatabaseSync } from "node:sqlite";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { postgresStore, redisStore, type SettlementStore } from "../../../packages/guard/src/index.ts";
import { sqliteStore } from "../../../packages/guard/src/sqlite.ts";
import { openTool } from "../../../packages/tools.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { freePort } from "../../support/free-port.ts";
import { postgresUrls } from "../../support/project.ts";
import { type Provider, startProvider, words } from "../../support/provider.ts";
import { sized } from "../../support/size.ts";
import { repository } from "../../support/repository.ts";

const bin = join(repository, "node_modules/.bin");
const env = {
  ...process.env,
  NO_COLOR: "1",
  PATH: [dirname(process.execPath), bin, process.env.PATH].join(delimiter),
};
const execute = promisify(execFile);
const run = async (file: string, args: readonly string[], cwd = repository, more = {}): Promise<string> =>
  execute(file, args, { cwd, env: { ...env, ...more } }).then(
    ({ stdout }) => stdout,
    (error: { stdout: string; stderr: string }) => Promise.reject(new Error(error.stdout + error.stderr)),
  );

interface Packed {
  readonly name: string;
  readonly filename: string;
  /** Bytes of the tarball, and of what is in it. */
  readonly size: number;
  readonly unpackedSize: number;
  readonly files: readonly { readonly path: string }[];
}

/** A governed streaming chat. */
const chat = `import process from "node:process";
import { createGuard, guardFetch } from "@token-governance/guard";
import { sqliteStore } from "@token-governance/guard/sqlite";

const { SUPABASE_URL = "", SUPABASE_SERVICE_ROLE_KEY = "", OPENAI_BASE_URL = "", CHAT_USER = "" } = process.env;
const guard = createGuard({
  url: SUPABASE_URL,
  key: SUPABASE_SERVICE_ROLE_KEY,
  store: sqliteStore("settlements.db"),
});
await guard.drain(); // what an earlier process left

const ask = guardFetch(guard, { user: CHAT_USER, task: "chat" });
const response = await ask(\`\${OPENAI_BASE_URL}/chat/completions\`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify({ model: "gpt-4o", stream: true, messages: [{ role: "user", content: "Hello" }] }),
});
console.log(response.status, await response.text());
await guard.idle();
`;

let folder: string;
let packed: Packed[];
let project: LocalProject;
let provider: Provider;
let admin: pg.Client;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "packages-"));
  await run("npm", ["run", "--silent", "packages"]);
  packed = JSON.parse(
    await run("npm", ["pack", "--json", "--workspaces", "--pack-destination", folder]),
  ) as Packed[];
  writeFileSync(join(folder, "package.json"), '{ "type": "module", "private": true }');
  await run(
    "npm",
    ["install", "--offline", "--no-audit", "--no-fund", ...packed.map(({ filename }) => `./${filename}`)],
    folder,
  );
  const { ownerUrl, url } = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
  project = await startLocalProject({ databaseUrl: ownerUrl, port: 0, log: () => {} });
  provider = await startProvider();
  admin = new pg.Client({ connectionString: url });
  admin.on("error", () => undefined);
  await admin.connect();
});
afterAll(async () => {
  provider?.close();
  await project?.stop();
  await admin?.end();
  rmSync(folder, { recursive: true, force: true });
});

describe("the packages", () => {
  it("hold what is published and nothing else, with source maps, and bring no other package", async () => {
    expect(packed.map(({ name }) => name)).toEqual(["@token-governance/core", "@token-governance/guard"]);
    for (const { name, size, unpackedSize, files } of packed) {
      console.log(
        `${name}: ${Math.round(size / 1024)} kB packed, ${Math.round(unpackedSize / 1024)} kB installed`,
      );
      const paths = files.map(({ path }) => path);
      expect(
        paths.filter(
          (path) =>
            !/^(dist\/[\w-]+\.js(\.map)?|dist\/types\/.+\.d\.ts|README\.md|package\.json)$/.test(path),
        ),
      ).toEqual([]);
      expect(paths).toContain("dist/index.js.map");
      expect(size).toBeLessThan(400_000);
    }
    const installed = JSON.parse(await run("npm", ["ls", "--all", "--json"], folder)) as {
      dependencies: object;
    };
    expect(Object.keys(installed.dependencies)).toEqual(packed.map(({ name }) => name));
  });

  it("are right by publint and by are-the-types-wrong", async () => {
    const check = ({ name, filename }: Packed) => [
      run(join(bin, "publint"), ["--strict", join(repository, "packages", basename(name))]),
      run(join(bin, "attw"), ["--profile", "esm-only", "--no-emoji", filename], folder),
    ];
    await Promise.all(packed.flatMap(check));
  });

  it("compile under strict, and do not ask for the types of Node or of an SDK", async () => {
    writeFileSync(join(folder, "chat.ts"), chat);
    writeFileSync(
      join(folder, "web.ts"),
      'export * from "@token-governance/guard";\nexport * as core from "@token-governance/core";\n',
    );
    const tsc = (file: string, lib: string, types: string[]) => {
      const compilerOptions = {
        strict: true,
        exactOptionalPropertyTypes: true,
        noUncheckedIndexedAccess: true,
        noEmit: true,
        module: "nodenext",
        target: "es2023",
        lib: lib.split(","),
        types,
        typeRoots: [join(repository, "node_modules/@types")],
      };
      writeFileSync(join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: [file] }));
      return run(process.execPath, [join(repository, "node_modules/typescript/bin/tsc"), "-p", "."], folder);
    };
    await tsc("web.ts", "es2023,dom", []);
    await tsc("chat.ts", "es2023,dom", ["node"]);
  });
});

describe("a governed streaming chat, from an empty folder", () => {
  const runtimes: readonly [name: string, command: readonly string[] | (() => Promise<string[] | null>)][] = [
    ["Node", [process.execPath, "--no-warnings", "chat.ts"]],
    [
      "Deno",
      [
        process.execPath,
        join(repository, "node_modules/deno/bin.cjs"),
        "run",
        "--no-check",
        "--no-prompt",
        "--allow-net",
        "--allow-env",
        "--allow-read",
        "--allow-write",
        "--node-modules-dir=manual",
        "chat.ts",
      ],
    ],
    [
      "Bun",
      async () => {
        const tool = await openTool("bun");
        return tool === null ? null : [join(tool, "node_modules/.bin/bun"), "run", "chat.ts"];
      },
    ],
  ];
  it.for(runtimes)("runs in %s: charged, then refused", async ([name, command], { skip }) => {
    const [file = "", ...args] = (typeof command === "function" ? await command() : command) ?? [];
    skip(file === "", `${name} cannot be had here`);
    const before = provider.asked.length;
    writeFileSync(join(folder, "chat.ts"), chat);
    const user = `packaged-${name}`;
    const settings = {
      SUPABASE_URL: project.url,
      SUPABASE_SERVICE_ROLE_KEY: project.serviceRoleKey,
      OPENAI_BASE_URL: `${provider.url}/v1`,
      CHAT_USER: user,
    };
    const said = await run(file, args, folder, settings);
    for (const word of words) expect(said).toContain(word);
    const charged = async () =>
      (
        await admin.query(
          "select status, charged_tokens from governance.requests r join governance.accounts a using (account_id) where user_id = $1",
          [user],
        )
      ).rows;
    expect(await charged()).toMatchObject([{ charged_tokens: "30" }]);
    await admin.query("select block_user($1, $1, 'test', null, 'op')", [user]);
    expect(await run(file, args, folder, settings)).toMatch(/^403 .*user_blocked/);
    expect(provider.asked.length).toBe(before + 1);
  });
});

// Before a release, as they are made.
describe.runIf(sized(0, 1) === 1)("the pages of the API", () => {
  it("are made from the doc comments: one for each name that a package exports, and each says what it is", async ({
    skip,
  }) => {
    if ((await openTool("api")) === null) return skip("What makes the pages cannot be had here");
    const out = join(folder, "api");
    await run(process.execPath, [join(repository, "packages/api.ts"), "--out", out]);
    for (const name of ["core", "guard"]) {
      const exported = Object.keys(
        (await import(join(repository, `packages/${name}/dist/index.js`))) as Record<string, unknown>,
      );
      expect(exported.length).toBeGreaterThan(20);
      const pages = new Map(exported.map((each) => [each, join(out, `${name}.${each.toLowerCase()}.md`)]));
      expect([...pages].filter(([, page]) => !existsSync(page)).map(([each]) => each)).toEqual([]);
      // The sentence stands between the heading and the signature.
      const unsaid = [...pages].filter(([, page]) =>
        /^## .*\n+\*\*Signature:/m.test(readFileSync(page, "utf8")),
      );
      expect(unsaid.map(([each]) => each)).toEqual([]);
    }
  });
});

/** A route handler as the guide has it, streaming. */
const route = `import { createGuard, guardFetch, withRefusals } from "@token-governance/guard";
import { after } from "next/server";

export const POST = withRefusals(async (request) => {
  const guard = createGuard({
    url: process.env.SUPABASE_URL,
    key: process.env.SUPABASE_SERVICE_ROLE_KEY,
    waitUntil: (promise) => after(() => promise),
  });
  const ask = guardFetch(guard, { user: request.headers.get("x-user"), task: "chat" });
  return ask(process.env.OPENAI_BASE_URL + "/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "gpt-4o", stream: true, messages: [{ role: "user", content: await request.text() }] }),
  });
});
`;

// Building it takes longer than all other tests here: before a release.
describe.runIf(sized(0, 1) === 1)("a route handler of Next.js", () => {
  it("is built and run by Next.js itself: a stream that is charged, then a refusal", async ({ skip }) => {
    const app = await openTool("next");
    if (app === null) return skip("Next.js cannot be had here");
    await run(
      "npm",
      [
        "install",
        "--no-save",
        "--offline",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--workspaces=false",
        ...packed.map(({ filename }) => join(folder, filename)),
      ],
      app,
    );
    mkdirSync(join(app, "app/chat"), { recursive: true });
    writeFileSync(join(app, "app/chat/route.js"), route);
    writeFileSync(
      join(app, "next.config.mjs"),
      "export default { turbopack: { root: import.meta.dirname } };\n",
    );
    const next = join(app, "node_modules/next/dist/bin/next");
    const more = {
      NEXT_TELEMETRY_DISABLED: "1",
      NODE_ENV: "production",
      SUPABASE_URL: project.url,
      SUPABASE_SERVICE_ROLE_KEY: project.serviceRoleKey,
      OPENAI_BASE_URL: `${provider.url}/v1`,
    };
    await run(process.execPath, [next, "build"], app, more);
    const port = await freePort();
    const server: ChildProcess = spawn(process.execPath, [next, "start", "-p", String(port)], {
      cwd: app,
      env: { ...env, ...more },
      stdio: "ignore",
    });
    try {
      const ask = (): Promise<Response> =>
        fetch(`http://127.0.0.1:${port}/chat`, {
          method: "POST",
          headers: { "x-user": "next-user" },
          body: "Hello",
        });
      let answer: Response | null = null;
      for (let tries = 0; answer === null && tries < 300; tries++) {
        answer = await ask().catch(() => null);
        if (answer === null) await new Promise((resolve) => setTimeout(resolve, 100));
      }
      expect(answer?.status).toBe(200);
      const said = await answer?.text();
      for (const word of words) expect(said).toContain(word);
      await expect
        .poll(async () => {
          const { rows } = await admin.query(
            "select charged_tokens from governance.requests r join governance.accounts a using (account_id) where user_id = 'next-user'",
          );
          return rows;
        })
        .toEqual([{ charged_tokens: "30" }]);
      await admin.query("select block_user('next', 'next-user', 'test', null, 'op')");
      const refused = await ask();
      expect([refused.status, await refused.text()]).toMatchObject([
        403,
        expect.stringMatching(/user_blocked/),
      ]);
    } finally {
      server.kill();
    }
  });
});

describe("npx of the guard's package", () => {
  const check = (settings: Record<string, string>): Promise<{ code: number; said: string }> =>
    execute("npx", ["--offline", "@token-governance/guard"], {
      cwd: folder,
      env: {
        ...env,
        SUPABASE_URL: project.url,
        SUPABASE_SERVICE_ROLE_KEY: project.serviceRoleKey,
        ...settings,
      },
    }).then(
      ({ stdout }) => ({ code: 0, said: stdout }),
      ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({
        code,
        said: stdout + stderr,
      }),
    );

  it("finds a project that is right, and charges nothing", async () => {
    const { code, said } = await check({});
    expect(said.match(/^✓ [\w ]+/gm)).toEqual([
      "✓ project and key",
      "✓ migrations",
      "✓ clock",
      "✓ a dry call",
    ]);
    expect(code).toBe(0);
    const { rows } = await admin.query(
      "select status from governance.requests r join governance.accounts a using (account_id) where user_id = 'guard-check'",
    );
    expect(rows).toEqual([{ status: "released" }]);
  });

  const wrong: readonly (readonly [string, () => Record<string, string>, RegExp])[] = [
    ["no settings", () => ({ SUPABASE_URL: "" }), /SUPABASE_URL is not set/],
    ["no such address", () => ({ SUPABASE_URL: "http://127.0.0.1:9" }), /Nothing answers[\s\S]*SUPABASE_URL/],
    ["a wrong key", () => ({ SUPABASE_SERVICE_ROLE_KEY: "nonsense" }), /refuses the key/],
    ["the anon key", () => ({ SUPABASE_SERVICE_ROLE_KEY: project.anonKey }), /service-role \(secret\) key/],
  ];
  it("says what is wrong with others", async () => {
    const found = await Promise.all(
      wrong.map(async ([what, settings, sentence]) => ({ what, sentence, ...(await check(settings())) })),
    );
    for (const { what, sentence, said, code } of found) {
      expect(said, what).toMatch(sentence);
      expect(code, what).toBe(1);
    }
  });
});

describe("the stores", () => {
  const entry = (id: string, queued_at_ms: number) =>
    ({
      id,
      request_id: `r-${id}`,
      function: "settle_usage",
      args: { p_input_tokens: 1, note: 'a "quoted" ☂' },
      queued_at_ms,
    }) as const;

  async function keeps(open: () => SettlementStore): Promise<void> {
    const store = open();
    await Promise.all([store.put(entry("b", 2)), store.put(entry("a", 1))]);
    await store.put({ ...entry("b", 2), parked: "refused" });
    await store.remove("nothing");
    // By another process, the oldest first.
    expect(await open().list()).toEqual([entry("a", 1), { ...entry("b", 2), parked: "refused" }]);
    await open().remove("a");
    await store.remove("b");
    expect(await store.list()).toEqual([]);
  }

  it("keep what is owed in SQLite", () => keeps(() => sqliteStore(join(folder, "store.db"))));

  it("keep what is owed in PostgreSQL, in a table of their own", async () => {
    await keeps(() => postgresStore(admin));
    await keeps(() => postgresStore(admin, "public.owed"));
    expect(() => postgresStore(admin, "owed; drop table x")).toThrow(RangeError);
  });

  it("keep what is owed in Redis", () => {
    const hashes = new Map<string, Map<string, string>>();
    return keeps(() =>
      redisStore(async ([command, key = "", field = "", value = ""]) => {
        const hash = hashes.get(key) ?? new Map<string, string>();
        hashes.set(key, hash);
        if (command === "HSET") hash.set(field, value);
        else if (command === "HDEL") hash.delete(field);
        else if (command === "HVALS") return [...hash.values()];
        return 1;
      }),
    );
  });

  it("write to the disk before they answer", async () => {
    const path = join(folder, "durable.db");
    await sqliteStore(path).put(entry("a", 1));
    const rows = new DatabaseSync(path).prepare("select id from settlements").all();
    expect(rows).toMatchObject([{ id: "a" }]);
  });
});
