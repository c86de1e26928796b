/**
 * What the end-to-end tests stand on: the real console served to a real browser, and a real project of its own that
 * a test can call as a product's backend does, with plain supabase-js.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test as base, expect, type Locator, type Page } from "@playwright/test";
import { createClient, type SupabaseClient } from "@supabase/supabase-js";
import { compileQuickly } from "../support/compile-quickly.ts";

/** A program of ours that says a line when it is ready. */
interface Running {
  readonly ready: RegExpMatchArray;
  readonly child: ChildProcess;
  stop(): Promise<void>;
}

export async function run(args: readonly string[], ready: RegExp): Promise<Running> {
  const child = spawn(process.execPath, [compileQuickly, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: process.env,
  });
  let said = "";
  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
    await ended;
    clearTimeout(timer);
  };
  const match = await new Promise<RegExpMatchArray>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`Not ready in time:\n${said}`)), 600_000);
    const hear = (chunk: Buffer): void => {
      said += chunk.toString();
      const found = ready.exec(said);
      if (!found) return;
      clearTimeout(timer);
      resolve(found);
    };
    child.stdout.on("data", hear);
    child.stderr.on("data", hear);
    child.once("exit", (code) => {
      clearTimeout(timer);
      reject(new Error(`Ended with ${code}:\n${said}`));
    });
  }).catch(async (error: unknown) => {
    await stop();
    throw error;
  });
  return { ready: match, child, stop };
}

export interface Project {
  readonly url: string;
  readonly serviceRoleKey: string;
  readonly client: SupabaseClient;
}

/** Starts the console; answers the link that it prints. */
export async function startConsole(dataDir: string, ...more: readonly string[]): Promise<Running> {
  return await run(
    ["cli/start.ts", "--browser", "--port", "0", "--no-open", "--data-dir", dataDir, ...more],
    /Console ready at (\S+)/,
  );
}

/**
 * With SLOW=2 each answer comes two seconds late, with SLOW_CPU=6 the page takes six times as long to draw: a test, or
 * a screen, that acts before the screen is there fails here, and not only on the busiest of machines.
 */
async function slowDown(page: Page): Promise<void> {
  const seconds = Number(process.env["SLOW"] ?? 0);
  const rate = Number(process.env["SLOW_CPU"] ?? 1);
  if (!seconds && rate === 1) return;
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Emulation.setCPUThrottlingRate", { rate });
  if (!seconds) return;
  await devtools.send("Network.enable");
  await devtools.send("Network.emulateNetworkConditions", {
    offline: false,
    latency: seconds * 1000,
    downloadThroughput: -1,
    uploadThroughput: -1,
  });
}

/** Goes through the one-time link and waits for the shell. */
export async function enter(page: Page, link: string): Promise<void> {
  await slowDown(page);
  await page.goto(link);
  await expect(page.getByRole("navigation", { name: "Desks" })).toBeVisible();
}

/** Goes to a desk by its two keys. A busy machine may bring the second too late to belong to the first. */
export async function goToDesk(page: Page, key: string, heading: string): Promise<void> {
  await expect(async () => {
    await page.keyboard.press("g");
    await page.keyboard.press(key);
    await expect(page.getByRole("heading", { name: heading, exact: true })).toBeVisible({ timeout: 5_000 });
  }).toPass();
}

/** Connects and opens a project by its URL and key, as a person does. */
export async function connectProject(page: Page, project: Project, name: string): Promise<void> {
  await page.goto(page.url().replace(/(#.*)?$/, "#/settings/connections"));
  await page.getByRole("button", { name: "Connect a Supabase project" }).click();
  await page.getByLabel("Project URL").fill(project.url);
  await page.getByLabel("Service-role key").fill(project.serviceRoleKey);
  await page.getByRole("textbox", { name: "Name", exact: true }).fill(name);
  await page.getByLabel("This is production").uncheck();
  await page.getByRole("button", { name: "Check" }).click();
  await expect(page.getByText(/The key works/)).toBeVisible();
  await page.getByRole("button", { name: "Add and open" }).click();
  await expect(page.getByRole("banner").getByText(name)).toBeVisible();
  await expect(page.getByRole("button", { name: "Live" })).toBeVisible();
}

interface Workshop {
  readonly console: { readonly running: Running; readonly origin: string; readonly session: string };
  readonly project: Project;
}

/** One console (empty local project) and one project for the whole run; each test gets a page that is let in. */
export const test = base.extend<{ page: Page }, { workshop: Workshop }>({
  workshop: [
    // oxlint-disable-next-line no-empty-pattern -- playwright reads the names of what is needed from here
    async ({}, use) => {
      const folder = mkdtempSync(join(tmpdir(), "governance-e2e-"));
      const local = await run(
        ["cli/local-project.ts", "--port", "0", "--data-dir", join(folder, "project")],
        /(\{"url".*\})/,
      );
      const { url, serviceRoleKey } = JSON.parse(local.ready[1] ?? "") as Project;
      const console = await startConsole(join(folder, "console"), "--no-sample-data");
      const link = new URL(console.ready[1] ?? "");
      // The link works once; the session it gives is what the pages of all tests carry.
      const answer = await fetch(`${link.origin}/session`, {
        method: "POST",
        headers: { "content-type": "application/json", origin: link.origin },
        body: JSON.stringify({ token: new URLSearchParams(link.hash.slice(1)).get("token") }),
      });
      const { session } = (await answer.json()) as { session: string };
      await use({
        console: { running: console, origin: link.origin, session },
        project: {
          url,
          serviceRoleKey,
          client: createClient(url, serviceRoleKey, { auth: { persistSession: false } }),
        },
      });
      await console.stop();
      await local.stop();
      rmSync(folder, { recursive: true, force: true });
    },
    { scope: "worker", timeout: 600_000 },
  ],
  page: async ({ page, workshop }, use) => {
    await slowDown(page);
    await page.addInitScript(
      (session) => localStorage.setItem("console-session", session),
      workshop.console.session,
    );
    await page.goto(workshop.console.origin);
    await expect(page.getByRole("navigation", { name: "Desks" })).toBeVisible();
    await openProject(page, workshop);
    await use(page);
  },
});

/** Opens the test's project, connecting it the first time. */
async function openProject(page: Page, workshop: Workshop): Promise<void> {
  await page.goto(`${workshop.console.origin}/#/settings/connections`);
  const rows = page.getByRole("list", { name: "Projects" }).getByRole("listitem");
  await expect(rows.first()).toBeVisible();
  const row = rows.filter({ hasText: "Test bench" });
  if ((await row.count()) === 0) return connectProject(page, workshop.project, "Test bench");
  const open = row.getByRole("button", { name: "Open" });
  await expect(open.or(row.getByText("open", { exact: true }))).toBeVisible();
  if (await open.isVisible()) await open.click();
  await expect(page.getByRole("banner").getByText("Test bench")).toBeVisible();
  await expect(page.getByRole("button", { name: "Live" })).toBeVisible();
}

/** The answer of authorize_usage, as far as the tests look at it. */
interface Answer {
  readonly decision: "allow" | "warn" | "block";
  readonly reason: string | null;
  readonly http_status: number;
  readonly request_id: string;
}

let calls = 0;
/** One AI call that asks whether it may run, as a product's backend asks. */
export async function authorize(
  project: Project,
  userId: string,
  message: string,
  tokens = 100,
): Promise<Answer> {
  calls += 1;
  const { data, error } = await project.client.rpc("authorize_usage", {
    p_request_id: `e2e-${process.pid}-${calls}-${Date.now()}`,
    p_user_id: userId,
    p_model: "gpt-4o-mini",
    p_estimated_tokens: tokens,
    p_message: message,
  });
  if (error) throw new Error(`authorize_usage: ${error.message}`);
  return data as Answer;
}

/** A user with tokens to spend. */
export async function makeUser(
  project: Project,
  userId: string,
  name: string,
  tokens = 1_000_000,
): Promise<void> {
  const made = await project.client.rpc("upsert_account", {
    p_user_id: userId,
    p_display_name: name,
    p_email: `${userId}@example.com`,
    p_timezone: "Europe/London",
  });
  if (made.error) throw new Error(`upsert_account: ${made.error.message}`);
  const granted = await project.client.rpc("update_user_token_balance", {
    p_user_id: userId,
    p_amount: tokens,
    p_transaction_type: "bonus",
    p_description: "for a test",
    p_idempotency_key: `grant-${userId}`,
  });
  if (granted.error) throw new Error(`update_user_token_balance: ${granted.error.message}`);
}

/** To be polled: the page draws a while after what changes it, such as a resize of the window. */
export async function widthOf(part: Locator): Promise<number> {
  return (await part.boundingBox())?.width ?? Number.NaN;
}

/** To be polled, as `widthOf`. */
export async function rightEdgeOf(part: Locator): Promise<number> {
  const box = await part.boundingBox();
  return box ? box.x + box.width : Number.NaN;
}

export { expect };
