/** The core runs unchanged wherever a backend or a screen does: Node, Deno, and bundled for a browser. */
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { createContext, Script } from "node:vm";
import { chromium } from "@playwright/test";
import { build } from "vite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import browserConfig from "../../playwright.config.ts";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../../", import.meta.url));
const core = new URL("./index.ts", import.meta.url);

/** A little of everything; answers what every runtime must answer. Uses no platform but what it is given. */
const program = (from: string): string => `
import { compileRules, costOfCall, createGuard, dayOf, describeReceipt, foldText, isTimeZone, makeCounts, memoryStore, parsePrices, parseRules, readUsage, sha256, toHex, utf8 } from ${JSON.stringify(from)};
const rules = parseRules([{ rule_name: "hog", conditions: { fact: "messages_today", op: ">", value: 100 }, action: { block: { reason: "token_hogging" } } }]);
const prices = parsePrices([{ provider: "openai", model: "m", input_micros_per_million: 150000, output_micros_per_million: 600000, currency: "usd", effective_from: "2024-01-01" }]);
const counts = makeCounts({ input: 1000, output: 500 });
const usage = readUsage({ usage: { prompt_tokens: 9, completion_tokens: 3, total_tokens: 12 } });
const settled = [];
const guard = createGuard({
  client: { rpc: async (name, args) => {
    if (name === "settle_usage") settled.push(args.p_input_tokens + args.p_output_tokens);
    return { data: name === "settle_usage" ? { status: "settled" } : { decision: "allow", http_status: 200, model: "m", reserved_tokens: 20 }, error: null, status: 200 };
  } },
  store: memoryStore(),
  now: () => 0,
  timer: () => () => undefined,
  newId: () => "r1",
});
export const answer = (async () => {
  const result = await guard.run({ user: "u", model: "m" }, async () => ({ tokensUsed: 7 }));
  if (result.ok) await result.value.settlement;
  return JSON.stringify({
    decision: rules.ok && compileRules(rules.value).evaluate({ messages_today: 101 }, { plan: { monthly_allowance: null, daily_limit: null, monthly_limit: null } }).decision,
    cost: prices.ok && counts.ok && costOfCall(prices.value, "m", counts.value, Date.UTC(2026, 0, 1)),
    usage,
    settled,
    folded: foldText("ÀΣЖ ﬁ İ"),
    hash: toHex(sha256(utf8("abc"))),
    day: dayOf(Date.UTC(2026, 2, 29, 12), "Europe/London"),
    zones: [isTimeZone("Asia/Kolkata"), isTimeZone("Mars/Olympus")],
    words: describeReceipt({ decision: "block", reason: "daily_limit", rule_name: null, rule_version: null, estimated_tokens: 1, shortfall: { need: 2, have: 0, missing: 2 }, limit: { window: "daily", limit: 10, used: 10 }, clears_at: "2026-06-02T00:00:00Z", timezone: "UTC", rules: [] }, Date.UTC(2026, 5, 1, 12)),
  });
})();
`;

let folder: string;
let fromNode: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "core-runtimes-"));
  writeFileSync(join(folder, "program.ts"), program(core.href));
  const imported = (await import(pathToFileURL(join(folder, "program.ts")).href)) as {
    answer: Promise<string>;
  };
  fromNode = await imported.answer;
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the core", () => {
  it("runs in Node", () => {
    expect(JSON.parse(fromNode)).toMatchObject({
      decision: "block",
      cost: { ok: true, value: { cost_micros: 450, currency: "usd" } },
      usage: { ok: true, value: { counts: { input_tokens: 9, output_tokens: 3 } } },
      settled: [7],
      folded: "àσж fi İ",
      hash: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
      zones: [true, false],
      words:
        "Stopped by *daily limit*: 10 of 10 tokens used today; needs 2 more, has 0. Clears at 00:00 UTC, in 12 h.",
    });
  });

  it("runs in Deno, without any permission, and is checked by it", async () => {
    writeFileSync(join(folder, "deno.ts"), `${program(core.href)}\nconsole.log(await answer);\n`);
    const options = ["--no-config", "--no-lock", "--no-npm", "--no-remote"];
    const deno = (args: string[]) => run("npx", ["deno", ...args], { cwd: root });
    await deno(["check", ...options, fileURLToPath(core)]);
    const { stdout } = await deno(["run", "--no-prompt", "--no-check", ...options, join(folder, "deno.ts")]);
    expect(stdout.trim()).toBe(fromNode);
  });

  it("runs bundled for a browser: where there is nothing of Node, and in a real one", async () => {
    writeFileSync(join(folder, "browser.ts"), program(fileURLToPath(core)));
    await build({
      root: folder,
      configFile: false,
      logLevel: "error",
      build: {
        outDir: "out",
        target: "es2022",
        minify: true,
        lib: {
          entry: join(folder, "browser.ts"),
          formats: ["iife"],
          name: "core",
          fileName: () => "core.js",
        },
      },
    });
    const bundle = readFileSync(join(folder, "out/core.js"), "utf8");
    expect(bundle).not.toMatch(/\brequire\(|\bprocess\.|from"node:/);
    // A context with the language and the web's text encoding alone: no process, no require, no timers, no fetch.
    const context = createContext({ TextDecoder, TextEncoder });
    new Script(`${bundle}\nglobalThis.core = core;`).runInContext(context);
    expect(await (context as { core: { answer: Promise<string> } }).core.answer).toBe(fromNode);

    const browser = await chromium.launch(browserConfig.use?.launchOptions);
    try {
      const page = await browser.newPage();
      await page.addScriptTag({ content: `${bundle}\nglobalThis.core = core;` });
      expect(await page.evaluate("core.answer")).toBe(fromNode);
    } finally {
      await browser.close();
    }
  });
});
