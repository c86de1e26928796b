import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
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
      { cwd: folder, env: { ...process.env, GOVERNANCE_SERVICE_ROLE_KEY: "" } },
      (error, stdout, stderr) => resolve({ code: error ? Number(error.code) : 0, stdout, stderr }),
    );
  });
}

describe("npm run backtest", () => {
  it("tells people whom a draft would have hit", async () => {
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
    expect(stdout).toMatch(/3 calls judged.*2 users/);
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

  it.each<[string, string[], number, RegExp]>([
    ["no draft", ["--events", "events.ndjson"], 2, /--rules is missing/],
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
    ["no key", ["--rules", "draft.yaml", "--url", "http://127.0.0.1:1"], 2, /service-role key is missing/],
    ["an unknown option", ["--rule", "x"], 2, /Unknown option/],
  ])("says what is wrong with %s", async (_name, args, expected, message) => {
    const { code, stderr } = await run(...args);
    expect(stderr).toMatch(message);
    expect(code).toBe(expected);
  });
});
