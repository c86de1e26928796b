import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@supabase/supabase-js";
import { expect, test } from "@playwright/test";
import { authorize, connectProject, enter, makeUser, type Project, run, startConsole } from "./console.ts";

test("offline: what was read stays, a block is kept and sent once when the project answers", async ({
  page,
}) => {
  test.setTimeout(240_000);
  const folder = mkdtempSync(join(tmpdir(), "governance-offline-"));
  const local = (port: string) =>
    run(["cli/local-project.ts", "--port", port, "--data-dir", join(folder, "project")], /(\{"url".*\})/);
  let running = await local("0");
  const { url, serviceRoleKey } = JSON.parse(running.ready[1] ?? "") as Project;
  const project: Project = {
    url,
    serviceRoleKey,
    client: createClient(url, serviceRoleKey, { auth: { persistSession: false } }),
  };
  const console_ = await startConsole(join(folder, "console"), "--no-sample-data");
  try {
    await makeUser(project, "offline-olga", "Olga Offline");
    await enter(page, console_.ready[1] ?? "");
    await connectProject(page, project, "Far away");
    const origin = page.url().replace(/#.*/, "");
    await page.goto(`${origin}#/users/offline-olga`);
    const detail = page.getByRole("complementary", { name: "User" });
    await expect(detail.getByRole("heading", { name: /Olga Offline/ })).toBeVisible();

    await running.stop();
    await expect(page.getByRole("button", { name: /Offline since/ })).toBeVisible({ timeout: 60_000 });
    await expect(page.getByText(/Offline\. You see what was read/)).toBeVisible();
    await expect(detail.getByRole("heading", { name: /Olga Offline/ })).toBeVisible();
    // Tokens and plans are never changed from here meanwhile, and the screen says so, also to who presses the key.
    await expect(detail.getByText(/Tokens, plans and limits need a connection/)).toBeVisible();
    await expect(detail.getByRole("button", { name: "Give tokens" })).toBeDisabled();
    await page.keyboard.press("t");
    await expect(page.getByText("This needs a connection to the project.")).toBeVisible();
    await page.keyboard.press("b");
    await page.getByRole("textbox", { name: "Reason" }).fill("Asked by phone");
    await page.keyboard.press("Enter");
    await expect(detail.getByText("blocked", { exact: true })).toBeVisible();
    await expect(page.getByRole("button", { name: "Changes: 1 waiting" })).toBeVisible();

    running = await local(new URL(url).port);
    await expect(page.getByRole("button", { name: "Live" })).toBeVisible({ timeout: 90_000 });
    await expect(page.getByRole("button", { name: "Changes: All sent" })).toBeVisible({ timeout: 60_000 });
    expect((await authorize(project, "offline-olga", "hello")).reason).toBe("user_blocked");
    await page.goto(`${origin}#/users/offline-olga/audit`);
    await expect(detail.getByRole("row").filter({ hasText: "Asked by phone" })).toHaveCount(1);
  } finally {
    await console_.stop();
    await running.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});

test("when the console itself goes away the page shows a banner and keeps its content", async ({ page }) => {
  const folder = mkdtempSync(join(tmpdir(), "governance-away-"));
  const console_ = await startConsole(folder, "--no-sample-data");
  try {
    await enter(page, console_.ready[1] ?? "");
    await page.goto(page.url().replace(/#.*/, "#/rules"));
    await expect(page.getByRole("row").filter({ hasText: "Daily limit" })).toBeVisible({ timeout: 60_000 });
    await console_.stop();
    await expect(page.getByText(/The console on this machine does not answer/)).toBeVisible();
    await expect(page.getByRole("button", { name: /Console not answering since/ })).toBeVisible();
    await expect(page.getByRole("row").filter({ hasText: "Daily limit" })).toBeVisible();
  } finally {
    await console_.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});

test("a link works once: the second visitor reads what to do", async ({ browser }) => {
  const folder = mkdtempSync(join(tmpdir(), "governance-link-"));
  const console_ = await startConsole(folder, "--no-sample-data");
  try {
    const link = console_.ready[1] ?? "";
    const first = await browser.newPage();
    await enter(first, link);
    const stranger = await (await browser.newContext()).newPage();
    await stranger.goto(link);
    await expect(stranger.getByText(/session has ended, or its link was used before/)).toBeVisible();
    await expect(stranger.getByText(/Start the console again/)).toBeVisible();
  } finally {
    await console_.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});
