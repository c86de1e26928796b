import { execFile } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const script = fileURLToPath(new URL("./backtest.ts", import.meta.url));

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "backtest-"));
  const event = (index: number, words: number) => ({
    kind: "authorized",
    at: `2026-06-01T12:00:0${index}Z`,
    request_id: `r${index}`,
    user_id: index === 3 ? "bob\u001b[31m\u202e" : "ann",
    plan_id: "gold",
    decision: "allow",
    reason: null,
    requested_model: "gpt-4o",
    model: "gpt-4o",
    tokens: 100,
    facts: { message_words: words, messages_today: index, available_tokens: 1_000, estimated_tokens: 100 },
    plan: { monthly_allowance: 0, daily_limit: null, monthly_limit: null },
    local_day: "2026-06-01",
    matched: ["large_message"],
  });
  const lines = [1, 2, 3].flatMap((index) => [
    event(index, index === 1 ? 5 : 600),
    {
      ...event(index, 0),
      kind: "settled",
      facts: null,
      tokens: 250,
      input_tokens: 200,
      output_tokens: 50,
      cost_micros: 1_500_000,
      currency: "usd",
    },
  ]);
  writeFileSync(
    join(folder, "events.ndjson"),
    `${lines.map((line) => JSON.stringify(line)).join("\n")}\nnot json\n`,
  );
  writeFileSync(
    join(folder, "draft.yaml"),
    "rule_name: short_only\nconditions: {fact: message_words, op: '>', value: 500}\naction: {block: {reason: too_long}}\n",
  );
  writeFileSync(
    join(folder, "broken.yaml"),
    "- rule_name: x\n  conditions: {fact: mesage_words, op: '>', value: 5}\n  action: {}\n",
  );
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function run(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [script, ...args],
      {
        cwd: folder,
        env: {
          ...process.env,
          GOVERNANCE_SERVICE_ROLE_KEY: args.includes("http://127.0.0.1:1") ? "" : "key",
        },
      },
      (error, stdout, stderr) => resolve({ code: error ? Number(error.code) : 0, stdout, stderr }),
    );
  });
}

describe("npm run backtest", () => {
  it("shows whom a draft would have hit", async () => {
    const { code, stdout } = await run(
      "--rules",
      "draft.yaml",
      "--events",
      "events.ndjson",
      "--paying",
      "gold,silver",
    );
    expect(code).toBe(0);
    expect(stdout).toContain("short_only: Block when more than 500 words in the message");
    expect(stdout).toMatch(/3 calls of 2 users judged, 2026-06-01 12:00:01 to 2026-06-01 12:00:03 UTC/);
    expect(stdout).toContain("Set aside: 1 malformed.");
    expect(stdout).toMatch(/newly stopped +2 +of 2 users/);
    expect(stdout).toMatch(/tokens saved +500/);
    expect(stdout).toMatch(/cost saved +3\.00 USD/);
    expect(stdout).toMatch(/paying users newly stopped +2/);
    expect(stdout).toMatch(/short_only +draft +2 +2 +2 +2 +500 +3\.00 USD +large_message 2/);
    // What users call themselves must not steer the terminal.
    expect(stdout).not.toContain("\u001b");
    expect(stdout).not.toContain("\u202e");
  });

  it("answers the whole report as JSON", async () => {
    const { code, stdout } = await run(
      "--rules",
      "draft.yaml",
      "--events",
      "events.ndjson",
      "--json",
      "--examples",
      "1",
    );
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      judged: 3,
      newly_stopped: 2,
      tokens_saved: 500,
      malformed: 1,
      changed_total: 2,
      changed: [{ request_id: "r2" }],
    });
  });

  it("shows what other plans make of the margin, and who runs out, as a table and as JSON", async () => {
    writeFileSync(
      join(folder, "plans.yaml"),
      "plans: [{plan_id: gold, daily_limit: 150, price_minor: 900, new_price_minor: 1200}]\n",
    );
    const args = ["--plans", "plans.yaml", "--events", "events.ndjson"];
    const { code, stdout } = await run(...args);
    expect(code).toBe(0);
    // Each call used 250: ann's second one no longer fits into her day.
    expect(stdout).toMatch(/gold +now +2 +2 +750 +4\.50 USD +18\.00 USD +13\.50 USD/);
    expect(stdout).toMatch(/would be +750 +4\.50 USD +24\.00 USD +19\.50 USD/);
    expect(stdout).not.toContain("\u001b");
    const json = await run(...args, "--json", "--rules", "draft.yaml");
    expect(JSON.parse(json.stdout)).toMatchObject({
      judged: 3,
      plan_simulation: { plans: [{ plan_id: "gold", would_be: { margin_micros: 19_500_000 } }] },
    });
    writeFileSync(join(folder, "plans.yaml"), "plans: [{plan_id: gold, daily_limit: 50}]\n");
    const tight = await run(...args);
    expect(tight.stdout).toMatch(/Would run out \(2 of 2\)/);
    expect(tight.stdout).toMatch(/2026-06-01 12:00:01 +ann +gold +daily limit/);
  });

  it("reads a slow and shaky project page by page: smaller pages, again from the same place, to the end for now", async () => {
    const events = readFileSync(join(folder, "events.ndjson"), "utf8")
      .split("\n")
      .flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as unknown] : []));
    const many = Array.from({ length: 120 }, (_, index) => ({
      ...(events[0] as object),
      request_id: `many-${index}`,
    }));
    const asked: { cursor: string | null; size: number }[] = [];
    let requests = 0;
    const server = createServer((request, response) => {
      let body = "";
      request.on("data", (piece) => (body += String(piece)));
      request.on("end", () => {
        const answer = (status: number, content: unknown) =>
          response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(content));
        if (request.url?.endsWith("/list_rules")) return answer(200, []);
        const { p_cursor, p_limit } = JSON.parse(body) as { p_cursor: string | null; p_limit: number };
        asked.push({ cursor: p_cursor, size: p_limit });
        requests++;
        if (p_limit > 100)
          return answer(500, {
            code: "57014",
            message: "canceling statement due to statement timeout",
            details: null,
            hint: null,
          });
        if (requests === 4) return request.socket.destroy();
        if (requests === 5)
          return answer(503, { code: "53300", message: "too many connections", hint: null });
        const from = Number(p_cursor ?? 0);
        return answer(200, {
          events: many.slice(from, from + p_limit),
          next_cursor: String(Math.min(many.length, from + p_limit)),
        });
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    const { code, stdout, stderr } = await run(
      "--rules",
      "draft.yaml",
      "--url",
      `http://127.0.0.1:${port}`,
      "--json",
    );
    server.close();
    expect(stderr).toBe("");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ judged: 120 });
    expect(asked.slice(0, 3)).toEqual([
      { cursor: null, size: 500 },
      { cursor: null, size: 125 },
      { cursor: null, size: 31 },
    ]);
    // The page after the first that came is asked for until it comes; the last one is not full.
    expect(new Set(asked.slice(3, 6).map(({ cursor }) => cursor))).toEqual(new Set(["31"]));
    expect(asked.at(-1)?.cursor).not.toBe("120");
  });

  it("keeps the events it reads, whole or not at all, also over the file that it reads", async () => {
    const from = join(folder, "events.ndjson");
    const kept = join(folder, "kept.ndjson");
    const events = (text: string) => text.split("\n").filter((line) => line.startsWith("{"));
    await run("--rules", "draft.yaml", "--events", "events.ndjson", "--save-events", "kept.ndjson");
    expect(events(readFileSync(kept, "utf8"))).toEqual(events(readFileSync(from, "utf8")));
    const again = await run(
      "--rules",
      "draft.yaml",
      "--events",
      "kept.ndjson",
      "--save-events",
      "kept.ndjson",
    );
    expect(again.stdout).toMatch(/3 calls of 2 users judged/);
    expect(events(readFileSync(kept, "utf8"))).toEqual(events(readFileSync(from, "utf8")));

    const failed = await run("--rules", "draft.yaml", "--events", ".", "--save-events", "kept.ndjson");
    expect([failed.code, readdirSync(folder).filter((name) => name.includes("part"))]).toEqual([1, []]);
    expect(events(readFileSync(kept, "utf8"))).toHaveLength(6);
  });

  it.each<[string, string[], number, RegExp]>([
    ["no draft", ["--events", "events.ndjson"], 2, /--rules or --plans is missing/],
    [
      "a draft that is not there",
      ["--rules", "nowhere.yaml", "--events", "events.ndjson"],
      2,
      /no file nowhere\.yaml/,
    ],
    [
      "a draft that does not hold",
      ["--rules", "broken.yaml", "--events", "events.ndjson"],
      2,
      /\[0\]\.conditions\.fact: Unknown fact "mesage_words"\. Did you mean "message_words"\?[\s\S]*\[0\]\.action: The rule does nothing/,
    ],
    [
      "events from two places",
      ["--rules", "draft.yaml", "--events", "events.ndjson", "--url", "http://x"],
      2,
      /either --url or --events/,
    ],
    [
      "plans that do not hold",
      ["--plans", "broken.yaml", "--events", "events.ndjson"],
      2,
      /broken\.yaml does not hold/,
    ],
    [
      "an unknown preset",
      ["--rules", "draft.yaml", "--events", "events.ndjson", "--prices", "nobody"],
      2,
      /There is no preset nobody/,
    ],
    ["no key", ["--rules", "draft.yaml", "--url", "http://127.0.0.1:1"], 2, /service-role key is missing/],
    ["an unknown option", ["--rule", "x"], 2, /Unknown option/],
    [
      "a place that cannot be written",
      ["--rules", "draft.yaml", "--events", "events.ndjson", "--save-events", "nowhere/events.ndjson"],
      2,
      /--save-events: nowhere\/events\.ndjson cannot be written/,
    ],
  ])("says what is wrong with %s", async (_name, args, expected, message) => {
    const { code, stderr } = await run(...args);
    expect(stderr).toMatch(message);
    expect(code).toBe(expected);
  });
});
