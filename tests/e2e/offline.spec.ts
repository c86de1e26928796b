import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@supabase/supabase-js";
import { expect, test } from "@playwright/test";
import { authorize, connectProject, enter, makeUser, type Project, run, startConsole } from "./console.ts";
import { freePort } from "../support/free-port.ts";

test("offline: what was read stays, a block is kept and sent once when the project answers", async ({
  page,
}) => {
  const folder = mkdtempSync(join(tmpdir(), "governance-offline-"));
  const local = (port: string) =>
    run(["cli/local-project.ts", "--port", port, "--data-dir", join(folder, "project")], /(\{"url".*\})/);
  let running = await local(String(await freePort()));
  const { url, serviceRoleKey } = JSON.parse(running.ready[1] ?? "") as Project;
  const project: Project = {
    url,
    serviceRoleKey,
    client: createClient(url, serviceRoleKey, { auth: { persistSession: false } }),
  };
  const console_ = await startConsole(join(folder, "console"), "--no-sample-data");
  try {
    await makeUser(project, "offline-olga", "Olga Offline");
    // Before the console came, and while it is there: both are kept for what is asked without a connection.
    const tooLong = "word ".repeat(5_000);
    expect((await authorize(project, "offline-olga", tooLong)).decision).toBe("warn");
    await enter(page, console_.ready[1] ?? "");
    await connectProject(page, project, "Far away");
    const origin = page.url().replace(/#.*/, "");
    expect((await authorize(project, "offline-olga", tooLong)).decision).toBe("warn");
    await page.goto(`${origin}#/watch`);
    const kept = page.getByRole("grid", { name: "Calls" }).getByRole("row").filter({ hasText: "Olga" });
    await expect(kept).toHaveCount(2);
    const detail = page.getByRole("complementary", { name: "User" });
    // What is looked at is kept: the plans, a rule, the user.
    await page.goto(`${origin}#/plans/plan:pro`);
    const record = page.getByRole("complementary", { name: "Record" });
    await expect(record.getByRole("textbox", { name: "Name" })).toHaveValue("Pro");
    await page.goto(`${origin}#/rules/large_message`);
    const rule = page.getByRole("complementary", { name: "Rule" });
    await expect(rule.getByRole("button", { name: "Enforce", pressed: true })).toBeVisible();
    await page.goto(`${origin}#/users/offline-olga`);
    await expect(detail.getByRole("heading", { name: /Olga Offline/ })).toBeVisible();

    await running.stop();
    await expect(page.getByRole("button", { name: /Offline since/ })).toBeVisible();
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
    // A rule switched offline says what that will do: the core replays what the last sync kept.
    await page.goto(`${origin}#/rules/large_message`);
    await expect(rule.getByRole("button", { name: "Enforce", pressed: true })).toBeVisible();
    await page.keyboard.press("o");
    await expect(
      rule.getByText(
        /By the last sync.*not looked at once it is sent.*over the 2 calls kept here.*2 calls of 1 user; 2 fewer are warned/,
      ),
    ).toBeVisible();
    await page.goto(`${origin}#/plans/plan:pro`);
    await record.getByRole("textbox", { name: "Tokens a month", exact: true }).fill("650000");
    await record.getByRole("textbox", { name: "Why" }).fill("Decided on the train");
    await record.getByRole("button", { name: "Save" }).click();
    await expect(page.getByRole("button", { name: "Changes: 3 waiting" })).toBeVisible();

    // Meanwhile a colleague, who has a connection, changes the same plan.
    const elsewhere = await local("0");
    const there = JSON.parse(elsewhere.ready[1] ?? "") as Project;
    const colleague = createClient(there.url, there.serviceRoleKey, { auth: { persistSession: false } });
    const { data } = await colleague.rpc("console_config");
    const pro = (data as { records: { key: string; kind: string; record: object }[] }).records.find(
      ({ kind, key }) => kind === "plan" && key === "pro",
    );
    const saved = await colleague.rpc("console_save_config", {
      p_command_id: "colleague-1",
      p_kind: "plan",
      p_key: "pro",
      p_record: { ...pro?.record, daily_limit: 120_000 },
      p_reason: "More a day",
      p_operator: "Bob",
    });
    expect(saved.error).toBeNull();
    await elsewhere.stop();

    running = await local(new URL(url).port);
    await expect(page.getByRole("button", { name: "Live" })).toBeVisible();
    const pill = page.getByRole("button", { name: "Changes: 1 to resolve" });
    await expect(pill).toBeVisible();
    await pill.click();
    for (const words of ["you saw", "you want", "now there", "650,000", "120,000"])
      await expect(page.getByText(words, { exact: true }).first()).toBeVisible();
    await page.getByRole("button", { name: "Send mine on top" }).click();
    await expect(page.getByRole("button", { name: "Changes: All sent" })).toBeVisible();
    await page.keyboard.press("Escape");
    await page.goto(`${origin}#/plans/plan:pro`);
    // Both changes stand.
    await expect(record.getByRole("textbox", { name: "Tokens a month", exact: true })).toHaveValue("650,000");
    await expect(record.getByRole("textbox", { name: "Most tokens a day" })).toHaveValue("120,000");
    expect((await authorize(project, "offline-olga", "hello")).reason).toBe("user_blocked");
    await page.goto(`${origin}#/users/offline-olga/audit`);
    await expect(detail.getByRole("row").filter({ hasText: "Asked by phone" })).toHaveCount(1);
  } finally {
    await console_.stop();
    await running.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});

test("a link works once; when the console itself goes away the page shows a banner and keeps its content", async ({
  browser,
  page,
}) => {
  const folder = mkdtempSync(join(tmpdir(), "governance-away-"));
  const console_ = await startConsole(folder, "--no-sample-data");
  try {
    const link = console_.ready[1] ?? "";
    await enter(page, link);
    const stranger = await (await browser.newContext()).newPage();
    await stranger.goto(link);
    await expect(stranger.getByText(/session has ended, or its link was used before/)).toBeVisible();
    await expect(stranger.getByText(/Start the console again/)).toBeVisible();
    await page.goto(page.url().replace(/#.*/, "#/rules"));
    await expect(page.getByRole("row").filter({ hasText: "Daily limit" })).toBeVisible();
    await console_.stop();
    await expect(page.getByText(/The console on this machine does not answer/)).toBeVisible();
    await expect(page.getByRole("button", { name: /Console not answering since/ })).toBeVisible();
    await expect(page.getByRole("row").filter({ hasText: "Daily limit" })).toBeVisible();
  } finally {
    await console_.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});
