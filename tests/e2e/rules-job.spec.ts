import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "@playwright/test";
import { createClient } from "@supabase/supabase-js";
import {
  authorize,
  connectProject,
  enter,
  expect,
  makeUser,
  type Project,
  run,
  startConsole,
  test,
} from "./console.ts";

test.describe("on a project with a month of calls", () => {
  const folder = mkdtempSync(join(tmpdir(), "governance-month-"));
  let running: Awaited<ReturnType<typeof run>>;
  let project: Project;

  test.beforeAll(async () => {
    running = await run(
      ["tests/support/sample-project.ts", join(folder, "project"), "40", "32"],
      /(\{"url".*\})/,
    );
    const { url, serviceRoleKey } = JSON.parse(running.ready[1] ?? "") as Project;
    const client = createClient(url, serviceRoleKey, { auth: { persistSession: false } });
    project = { url, serviceRoleKey, client };
  });
  test.afterAll(async () => {
    await running.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test("an admin writes a rule from nothing by keyboard, replays a month, drags its number, shadows it, enforces it, sees its hits and takes it back", async ({
    page,
  }) => {
    await connectProject(page, project, "A month of calls");
    const origin = page.url().replace(/#.*/, "");
    const name = `too_eager_${Date.now()}`;
    await page.goto(`${origin}#/rules`);
    await expect(page.getByRole("row").filter({ hasText: "Spam identical" })).toBeVisible();
    await writeRule(page, name);
    await replayMonth(page);
    // The number that the past speaks for is taken over, and the rule saved in shadow.
    const words = page.getByRole("status", { name: "The rule in words" });
    await page.getByRole("button", { name: "Use 3" }).click();
    await expect(words).toHaveText("Block when more than 3 messages a day (shadow: recorded only)");
    await page.getByRole("textbox", { name: "Why", exact: true }).focus();
    await page.keyboard.type("Someone is too eager");
    await page.keyboard.press("Control+s");
    await expect(page.getByText(/is saved, in shadow/)).toBeVisible();

    const user = `eager-${Date.now()}`;
    await makeUser(project, user, "Ed Eager");
    for (let at = 0; at < 5; at += 1)
      expect((await authorize(project, user, `m ${at}`)).decision).toBe("allow");
    const detail = page.getByRole("complementary", { name: "Rule" });
    await detail.getByRole("link", { name: "Matches" }).click();
    await expect(detail.getByText("0 enforced, 2 in shadow")).toBeVisible();
    const hits = detail.getByRole("table", { name: "Calls that matched" }).getByRole("row");
    await expect(hits.filter({ hasText: "Ed Eager" })).toHaveCount(2);
    await detail.getByRole("link", { name: "Replay" }).click();
    await expect(detail.getByText(/In shadow it really matched .* the replay of 30 days says/)).toBeVisible();

    await page.keyboard.press("e");
    await expect(page.getByText(/is now enforced/)).toBeVisible();
    expect((await authorize(project, user, "m 5")).reason).toBe("too_eager");
    await detail.getByRole("link", { name: "Matches" }).click();
    await expect(hits.filter({ hasText: "Ed Eager" }).filter({ hasText: "too eager" })).toHaveCount(1);

    // For a while: off, and back by itself.
    await detail.getByRole("combobox", { name: "Another mode for a while" }).selectOption("Off for 2 h");
    await expect(detail.getByText(/it goes back by itself/)).toBeVisible();
    // The screen shows it at once; the project decides by it once it has answered.
    await expect.poll(async () => (await authorize(project, user, "m 6")).decision).toBe("allow");

    await page.keyboard.press("z");
    await expect(page.getByText(/is saved/).last()).toBeVisible();
    await expect
      .poll(async () => (await authorize(project, user, `m ${Math.random()}`)).reason)
      .toBe("too_eager");
    await detail.getByRole("link", { name: "History" }).click();
    await expect(detail.getByRole("listitem")).toHaveCount(4);
    await expect(detail.getByText("Someone is too eager")).toBeVisible();
    await expect(detail.getByText("enforce").first()).toBeVisible();
    await detail.getByRole("listitem").last().getByRole("button", { name: "Return to this" }).click();
    await expect(detail.getByRole("listitem")).toHaveCount(5);
    await expect.poll(async () => (await authorize(project, user, "m 7")).decision).toBe("allow");

    // The whole rule set, to the moment before the rule was made.
    await page.goto(`${origin}#/rules?do=history`);
    const moments = page.getByRole("listitem").filter({ hasNotText: name.replaceAll("_", " ") });
    await moments.first().getByRole("button", { name: "The rules as they were then" }).click();
    await page.getByRole("button", { name: /^Return 1 rule/ }).click();
    await page.getByRole("textbox", { name: "Why" }).fill("Back to before");
    await page.getByRole("button", { name: "Return the whole rule set" }).click();
    await expect(page.getByText(/1 rule returned/)).toBeVisible();
    await page.goto(`${origin}#/rules/${name}`);
    await expect(page.getByText("This rule is not in force")).toBeVisible();
  });

  test("where a second person is asked for, a rule, a plan and listed prices are proposed in one console and approved in another", async ({
    page,
    browser,
  }) => {
    await connectProject(page, project, "A month of calls, again");
    const origin = page.url().replace(/#.*/, "");
    await becomeOperator(page, "Ann");
    const setting = await project.client.rpc("console_save_config", {
      p_command_id: "two-persons",
      p_kind: "setting",
      p_key: "second_person_for",
      p_record: { key: "second_person_for", value: ["rule", "plan", "price"] },
      p_reason: "Four eyes",
      p_operator: "Ann",
    });
    expect(setting.error).toBeNull();
    // Ann: a rule's mode by its key, a plan by its form. Neither is changed yet.
    await page.goto(`${origin}#/rules/long_conversation`);
    const rule = page.getByRole("complementary", { name: "Rule" });
    await expect(rule.getByRole("button", { name: "Enforce", pressed: true })).toBeVisible();
    await page.keyboard.press("o");
    await expect(page.getByText(/Proposed: a second person approves it/)).toBeVisible();
    await expect(rule.getByRole("button", { name: "Enforce", pressed: true })).toBeVisible();
    await page.goto(`${origin}#/plans/plan:pro`);
    const record = page.getByRole("complementary", { name: "Record" });
    await record.getByRole("textbox", { name: "Most tokens a day" }).fill("123456");
    await record.getByRole("textbox", { name: "Why" }).fill("Less in a day");
    await record.getByRole("button", { name: "Propose" }).click();
    await expect(record).toHaveCount(0);
    await takeOverPrices(page, "2030-01-01", "Lower from 2030 on");
    await expect(page.getByText(/Proposed: a second person approves it/).last()).toBeVisible();
    await page.goto(`${origin}#/plans?do=proposals`);
    const own = page.getByRole("list", { name: "Proposed changes" }).getByRole("listitem");
    await expect(own.filter({ hasText: "Less in a day" })).toContainText("123,456");
    await expect(own.getByRole("button", { name: "Approve" }).first()).toBeDisabled();

    // Bob, at his own console, looks at each and approves the rule, and the plan.
    const bobs = await startConsole(join(folder, "bob"), "--no-sample-data");
    const other = await browser.newPage();
    try {
      await enter(other, bobs.ready[1] ?? "");
      await connectProject(other, project, "A month of calls");
      await becomeOperator(other, "Bob");
      await other.goto(other.url().replace(/#.*/, "#/plans?do=proposals"));
      const waiting = other.getByRole("list", { name: "Proposed changes" }).getByRole("listitem");
      for (const words of [/long.conversation/i, /Less in a day/, /Lower from 2030 on/]) {
        const one = waiting.filter({ hasText: words }).filter({ hasText: "Ann" });
        await one.getByRole("textbox", { name: "Your comment" }).fill("Looked at it");
        await one.getByRole("button", { name: "Approve" }).click();
        await expect(one.getByText("approved", { exact: true })).toBeVisible();
      }
    } finally {
      await other.close();
      await bobs.stop();
    }

    // Ann's console shows it without being asked, and the project decides by it.
    await expect(own.filter({ hasText: "by Bob" })).toHaveCount(3);
    await page.goto(`${origin}#/rules/long_conversation`);
    await expect(rule.getByRole("button", { name: "Off", pressed: true })).toBeVisible();
    await page.goto(`${origin}#/plans/plan:pro`);
    await expect(record.getByRole("textbox", { name: "Most tokens a day" })).toHaveValue("123,456");
    // A price to come changes nothing before its day.
    const { data } = await project.client.rpc("console_prices");
    const nano = (data as { prices: { model: string; effective_from: string }[] }).prices.filter(
      ({ model }) => model === "gpt-5-nano",
    );
    expect(nano.map(({ effective_from }) => effective_from.slice(0, 10))).toEqual(["2030-01-01"]);
    await page.goto(`${origin}#/plans?do=prices`);
    await expect(page.getByRole("row").filter({ hasText: "gpt-5-nano" })).toContainText("not set");
  });
});

/** Three prices of the public list, looked at and taken over or proposed. */
async function takeOverPrices(page: Page, from: string, reason: string): Promise<void> {
  await page.goto(page.url().replace(/#.*/, "#/plans?do=prices"));
  for (const model of ["gpt-5-mini", "gpt-5-nano", "gemini-2.5-flash"])
    await page.getByRole("checkbox", { name: `Take over ${model}`, exact: true }).check();
  if (from !== "") await page.getByLabel("In force from").fill(from);
  await page.getByRole("button", { name: "Look at 3 prices" }).click();
  await expect(page.getByRole("list", { name: "Whom it touches" })).toContainText(
    "3 records that nobody uses",
  );
  await page.getByRole("textbox", { name: "Why" }).fill(reason);
  await page.getByRole("button", { name: /^(Take over|Propose): 3 records/ }).click();
}

/** From nothing, by keyboard alone: more than 2 messages a day are blocked. */
async function writeRule(page: Page, name: string): Promise<void> {
  await page.keyboard.press("n");
  await expect(page.getByRole("textbox", { name: "Name" })).toBeFocused();
  await page.keyboard.type(name.replaceAll("_", " "));
  // Order, kind, what it is for, how conditions join: the first condition.
  const fact = page.getByRole("combobox", { name: "Fact of condition 1" });
  for (let at = 0; at < 5; at += 1) await page.keyboard.press("Tab");
  await expect(fact).toBeFocused();
  await page.keyboard.type("Messages");
  await expect(fact).toHaveValue("messages_today");
  await page.keyboard.press("Tab");
  await page.keyboard.type("more");
  await page.keyboard.press("Tab");
  await expect(page.getByText(/A value is missing/).first()).toBeVisible();
  await page.keyboard.type("2");
  await expect(page.getByText(/A value is missing/)).toHaveCount(0);
  const words = page.getByRole("status", { name: "The rule in words" });
  await expect(words).toContainText("more than 2 messages a day");
  const block = page.getByRole("checkbox", { name: "Block the call" });
  await block.focus();
  await page.keyboard.press("Space");
  await page.getByRole("textbox", { name: "Reason" }).focus();
  await page.keyboard.type("too_eager");
  await expect(words).toHaveText("Block when more than 2 messages a day (shadow: recorded only)");
}

/** The draft over thirty days of calls; its number dragged from 2 to 3, at once. */
async function replayMonth(page: Page): Promise<void> {
  await page.getByRole("combobox", { name: "Time to replay" }).selectOption("the last 30 days");
  const days = page.getByRole("table", { name: "Replay by day" }).getByRole("row");
  await page.getByRole("button", { name: "Replay", exact: true }).click();
  await expect.poll(() => days.count()).toBeGreaterThan(28);
  const at = page.getByRole("status", { name: "At this number" });
  await expect(at).toContainText("messages today more than 2");
  const users = async (): Promise<number> =>
    Number(/of ([\d,]+) users?/.exec((await at.textContent()) ?? "")?.[1]?.replaceAll(",", ""));
  const before = await users();
  expect(before).toBeGreaterThan(1);
  await page.getByRole("slider").focus();
  await page.keyboard.press("ArrowRight");
  await expect(at).toContainText("messages today more than 3");
  expect(await users()).toBeLessThanOrEqual(before);
}

async function becomeOperator(page: Page, name: string): Promise<void> {
  await page.goto(page.url().replace(/#.*/, "#/settings/preferences"));
  await page.getByRole("textbox", { name: "Your name" }).fill(name);
  await page.getByRole("button", { name: "Save" }).click();
  await expect(page.getByRole("button", { name: "Save" })).toBeDisabled();
}

test("a draft is replayed over the past, its number dragged at once, and the number taken over", async ({
  page,
  workshop: { project },
}) => {
  const stamp = Date.now();
  for (const [user, calls] of [
    [`calm-${stamp}`, 2],
    [`keen-${stamp}`, 6],
  ] as const) {
    await makeUser(project, user, user);
    for (let at = 0; at < calls; at += 1) await authorize(project, user, `m ${at}`);
  }
  await page.goto(page.url().replace(/#.*/, "#/rules?do=new&from=token_hogging"));
  await page.getByRole("textbox", { name: "Name" }).fill(`replayed ${stamp}`);
  await page.getByRole("textbox", { name: "Value of condition 1" }).fill("5");
  await page.getByRole("button", { name: "Replay" }).click();
  const at = page.getByRole("status", { name: "At this number" });
  await expect(at).toContainText("messages today more than 5");
  await expect(page.getByRole("table", { name: "Replay by plan" }).getByRole("row").nth(1)).toBeVisible();
  await expect(page.getByRole("table", { name: "Changed decisions" })).toContainText(/Would be stopped/);

  // Dragging asks nobody: each step of the slider is drawn in the frame that follows it.
  const slider = page.getByRole("slider");
  await slider.focus();
  const calls = async (): Promise<number> =>
    Number(/([\d,]+) more call/.exec((await at.textContent()) ?? "")?.[1]?.replaceAll(",", ""));
  const before = await calls();
  await page.keyboard.press("ArrowLeft");
  await expect.poll(calls).toBeGreaterThan(before);
  const drawn = await slider.evaluate(async (input: HTMLInputElement) => {
    const value = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value");
    const status = document.querySelector('[aria-label="At this number"]');
    let drawn = 0;
    for (let step = 0; step < 60; step += 1) {
      const text = status?.textContent;
      value?.set?.call(input, String((step + 1) % 2));
      input.dispatchEvent(new Event("input", { bubbles: true }));
      await new Promise(requestAnimationFrame);
      if (status?.textContent !== text) drawn += 1;
    }
    return drawn;
  });
  expect(drawn).toBe(60);
  await page.getByRole("button", { name: /^Use / }).click();
  await expect(page.getByRole("status", { name: "The rule in words" })).not.toContainText(
    "more than 5 messages",
  );
});

test("a file of rules is compared before it is taken over, and what does not hold says where", async ({
  page,
}) => {
  const origin = page.url().replace(/#.*/, "");
  await page.goto(`${origin}#/rules?do=import`);
  const rules = `rules:
  - rule_name: token_hogging
    rule_type: abuse
    description: More than 100 messages in a day.
    priority: 40
    conditions: { all: [{ fact: messages_today, op: ">", value: 150 }] }
    action: { block: { reason: token_hogging, message: "You have sent more than 100 messages today. Please come back tomorrow." }, flag: { reason: token_hogging } }
  - { rule_name: odd_one, conditions: { fact: phase_of_the_moon, op: "=", value: 1 }, action: { flag: { reason: moon } } }
`;
  await page
    .getByLabel("File of rules")
    .setInputFiles({ name: "others.yaml", mimeType: "application/yaml", buffer: Buffer.from(rules) });
  const hogging = page.getByRole("listitem").filter({ hasText: "Token hogging" });
  await expect(hogging).toContainText("more than 150 messages a day");
  await expect(page.getByRole("listitem").filter({ hasText: "Odd one" })).toContainText("phase_of_the_moon");
  await page.getByRole("button", { name: "Take over 1 rule" }).click();
  await expect(page.getByText(/1 in shadow/)).toBeVisible();
  await page.goto(`${origin}#/rules/token_hogging`);
  const rule = page.getByRole("complementary", { name: "Rule" });
  await expect(rule.getByRole("button", { name: "Shadow", pressed: true })).toBeVisible();
  await page.keyboard.press("z");
  await expect(rule.getByRole("button", { name: "Enforce", pressed: true })).toBeVisible();
});

test("listed prices are reviewed as differences, and three are taken over", async ({ page }) => {
  await takeOverPrices(page, "", "As the providers list them");
  await expect(page.getByText("3 records changed")).toBeVisible();
  await expect(page.getByRole("table", { name: "Prices beside the list" })).toBeVisible();
  await expect(page.getByRole("row").filter({ hasText: "gpt-5-nano" })).toHaveCount(0);
});
