/**
 * What an admin waits for before a rule goes live: a replay of a project's past under twenty rules against reading the
 * same past over the same wire; and a rule's number dragged over the past on the screen, in a real browser.
 *
 * REPLAY_EVENTS (100,000) sizes the past that is replayed; the full claim is 1,000,000. The screen has 100,000 events.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium, type Page } from "@playwright/test";
import { createClient } from "@supabase/supabase-js";
import pg from "pg";
import configuration from "../playwright.config.ts";
import { ensureBuilt } from "../cli/build.ts";
import { createBackend } from "../electron/main/backend/backend.ts";
import { usageEventPages } from "../electron/main/backend/usage-events.ts";
import { createPastJudge } from "../electron/main/console/rules/past-judge.ts";
import { type LocalProject, startLocalProject } from "../local-project/index.ts";
import { parseRules, thresholdsOf } from "../shared/governance/index.ts";
import { createProjectDatabase } from "../tests/support/database.ts";
import { type PostgresServer, startPostgres } from "../tests/support/postgres.ts";
import { connectProject, enter, startConsole } from "../tests/e2e/console.ts";
import { fillCalls } from "./cases/history.ts";
import { ruleRecords } from "./cases/rules.ts";
import { alternate, type BenchResult, round } from "./measure.ts";

const rounds = 3;
const dragSteps = 300;
const leastUpdatesPerSecond = 20;

/** A project with so many past events, whose calls differ in what the rules read. */
async function openPast(server: PostgresServer, events: number): Promise<LocalProject> {
  const { url } = await createProjectDatabase(server.url(), { preset: "default" });
  const sql = new pg.Client({ connectionString: url });
  sql.on("error", () => undefined);
  await sql.connect();
  await fillCalls(sql, {
    accounts: 5_000,
    events,
    facts: `jsonb_build_object('messages_today', 1 + i % 997, 'estimated_tokens', 100 + 2 * i % 4001,
      'identical_messages', i % 12)`,
  });
  await sql.end();
  return await startLocalProject({ databaseUrl: url, poolSize: 4 });
}

async function benchReplay(server: PostgresServer, events: number): Promise<BenchResult> {
  const project = await openPast(server, events);
  const backend = createBackend({ url: project.url, key: project.serviceRoleKey });
  const judge = createPastJudge({
    workerUrl: null,
    log: (line) => console.error(line),
  });
  const parsed = parseRules(ruleRecords.map((rule, index) => ({ priority: index, ...rule })));
  if (!parsed.ok) throw new Error(JSON.stringify(parsed.error));
  const rules = parsed.value;
  const dragged = rules.find((rule) => thresholdsOf(rule).length > 0);
  if (!dragged) throw new Error("No rule has a number to drag.");
  const since = new Date(Date.now() - 50 * 86_400_000).toISOString();
  let runs = 0;
  let judged = 0;
  let read = 0;
  try {
    const figures = await alternate(
      rounds,
      async () => {
        const started = performance.now();
        // Another end each time: what the thread still has of the last run is not the past that is asked for.
        const until = new Date(Date.now() + 86_400_000 + ++runs).toISOString();
        const answer = await judge.judge({
          project: {
            profileId: "bench",
            isChosen: () => true,
            rpc: (...asked) => backend.rpc(...asked),
            backend: () => backend,
          },
          since,
          until,
          job: {
            is: "rule",
            rules,
            rule_name: dragged.rule_name,
            threshold: thresholdsOf(dragged)[0] ?? null,
            paying_plans: ["pro"],
            prices: null,
          },
          onProgress: () => {},
        });
        if (answer.is !== "done") throw new Error(JSON.stringify(answer));
        judged = answer.events;
        return (performance.now() - started) / 1000;
      },
      async () => {
        const started = performance.now();
        read = 0;
        for await (const page of usageEventPages(backend, { since, mostAttempts: 6 })) read += page.length;
        return (performance.now() - started) / 1000;
      },
    );
    if (judged !== read) throw new Error(`${judged} events were judged, and ${read} read.`);
    return {
      bench: `replay of ${read} events × 20 rules over the wire ÷ reading them`,
      ratio: round(figures.ratio),
      better: "lower",
      required: 1.5,
      figures: { replay_s: round(figures.ours, 2), read_s: round(figures.floor, 2), events: read },
    };
  } finally {
    judge.close();
    await backend.close();
    await project.stop();
  }
}

/** Drags the number to and fro, a step a frame; answers how often in a second the figures on the screen were others. */
async function drag(page: Page): Promise<number> {
  const slider = page.getByRole("slider");
  return await slider.evaluate(async (input: HTMLInputElement, steps) => {
    const value = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value");
    const figures = document.querySelector('[aria-label="At this number"]');
    const last = Number(input.max);
    const startedAt = performance.now();
    let drawn = 0;
    for (let step = 0; step < steps; step += 1) {
      const before = figures?.textContent;
      value?.set?.call(input, String(Math.round((Math.abs(((step / 50) % 2) - 1) * last) % (last + 1))));
      input.dispatchEvent(new Event("input", { bubbles: true }));
      await new Promise(requestAnimationFrame);
      if (figures?.textContent !== before) drawn += 1;
    }
    return (drawn * 1000) / (performance.now() - startedAt);
  }, dragSteps);
}

/** Frames that the browser draws in a second while nothing is dragged. */
const frames = (page: Page): Promise<number> =>
  page.evaluate(async (steps) => {
    const startedAt = performance.now();
    for (let step = 0; step < steps; step += 1) await new Promise(requestAnimationFrame);
    return (steps * 1000) / (performance.now() - startedAt);
  }, dragSteps);

async function benchDrag(server: PostgresServer): Promise<BenchResult> {
  const events = 100_000;
  await ensureBuilt(() => {});
  const project = await openPast(server, events);
  const folder = mkdtempSync(join(tmpdir(), "bench-drag-"));
  const console_ = await startConsole(folder, "--no-sample-data");
  const browser = await chromium.launch(configuration.use?.launchOptions ?? {});
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(120_000);
    await enter(page, console_.ready[1] ?? "");
    const { url, serviceRoleKey } = project;
    const client = createClient(url, serviceRoleKey, { auth: { persistSession: false } });
    await connectProject(page, { url, serviceRoleKey, client }, "Past");
    await page.goto(page.url().replace(/#.*/, "#/rules/token_hogging?tab=replay"));
    await page.getByRole("combobox", { name: "Time to replay" }).selectOption("the last 90 days");
    await page.getByRole("button", { name: "Replay", exact: true }).click();
    await page.getByRole("status", { name: "At this number" }).waitFor();
    const points = Number(await page.getByRole("slider").getAttribute("max")) + 1;
    const figures = await alternate(
      rounds,
      () => drag(page),
      () => frames(page),
    );
    return {
      bench: `updates a second of a number dragged over ${events} events in Chromium ÷ ${leastUpdatesPerSecond}`,
      ratio: round(figures.ours / leastUpdatesPerSecond, 2),
      better: "higher",
      required: 1,
      figures: {
        updates_per_second: round(figures.ours, 1),
        frames_per_second: round(figures.floor, 1),
        values: points,
      },
    };
  } finally {
    await browser.close();
    await console_.stop();
    await project.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

export async function run(): Promise<readonly BenchResult[]> {
  const server = await startPostgres({
    version: 18,
    settings: { shared_buffers: "512MB", synchronous_commit: "off", max_wal_size: "8GB" },
  });
  try {
    return [
      await benchDrag(server),
      await benchReplay(server, Number(process.env["REPLAY_EVENTS"] ?? 100_000)),
    ];
  } finally {
    await server.stop();
  }
}
