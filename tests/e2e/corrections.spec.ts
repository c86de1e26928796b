/** Support makes it right: tokens, holds, flags, each previewed, with a reason, and undone where that has a meaning. */
import type { Page } from "@playwright/test";
import { authorize, expect, makeUser, type Project, test } from "./console.ts";

const openUser = async (page: Page, userId: string, tab = ""): Promise<void> => {
  await page.goto(page.url().replace(/#.*/, `#/users/${userId}${tab}`));
  await expect(page.getByRole("complementary", { name: "User" }).getByText("tokens free")).toBeVisible();
};

const available = async (project: Project, userId: string): Promise<number> =>
  (await project.client.rpc("get_user_token_balance", { p_user_id: userId })).data as number;

test("tokens are given with a preview that is what happens, and a wrong grant is undone", async ({
  page,
  workshop: { project },
}) => {
  const userId = `given-${Date.now()}`;
  await makeUser(project, userId, "Gwen Given");
  const before = await available(project, userId);
  await openUser(page, userId);
  await page.keyboard.press("t");
  const form = page.getByRole("form", { name: "Give tokens" });
  await form.getByRole("textbox", { name: "Tokens" }).fill("25000");
  await form.getByRole("button", { name: "in 30 days" }).click();
  const changes = form.getByRole("table", { name: "What changes" });
  await expect(changes.getByRole("row").filter({ hasText: "Free" })).toContainText("+25,000");
  await form.getByRole("button", { name: "Give tokens" }).click();
  await expect(form.getByText("Give a reason of at least 3 characters.")).toBeVisible();
  await form.getByRole("button", { name: "Paid but not credited" }).click();
  await form.getByRole("button", { name: "Give tokens" }).click();
  await expect(page.getByText("Tokens given")).toBeVisible();
  expect(await available(project, userId)).toBe(before + 25_000);

  // It was the wrong user: the list of acts has it, with its undo and what that will do.
  const detail = page.getByRole("complementary", { name: "User" });
  await detail.getByRole("link", { name: "Acts" }).click();
  const acts = detail.getByRole("table", { name: "Acts, newest first" });
  await expect(acts).toContainText("Give 25,000 promotional tokens until");
  await expect(acts).toContainText("Paid but not credited");
  await acts.getByRole("button", { name: "Undo" }).click();
  const undo = page.getByRole("form", { name: /Undo/ });
  await expect(undo.getByRole("row").filter({ hasText: "Free" })).toContainText("−25,000");
  await undo.getByRole("button", { name: "Wrong user" }).click();
  await undo.getByRole("button", { name: "Undo", exact: true }).click();
  await expect(acts.getByText("undone", { exact: true })).toBeVisible();
  expect(await available(project, userId)).toBe(before);
});

test("a stuck hold is released, and a call that was charged wrongly is refunded", async ({
  page,
  workshop: { project },
}) => {
  const userId = `stuck-${Date.now()}`;
  await makeUser(project, userId, "Stan Stuck");
  const before = await available(project, userId);
  await authorize(project, userId, "never comes back", 700);
  const charged = await authorize(project, userId, "came back", 100);
  await project.client.rpc("settle_usage", {
    p_request_id: charged.request_id,
    p_input_tokens: 400,
    p_output_tokens: 0,
  });
  expect(await available(project, userId)).toBe(before - 1_100);
  await openUser(page, userId, "/lots");
  const detail = page.getByRole("complementary", { name: "User" });
  await detail.getByRole("table", { name: "Holds" }).getByRole("button", { name: "Release…" }).click();
  const release = page.getByRole("form", { name: "Release this hold" });
  await expect(release.getByRole("row").filter({ hasText: "Held" })).toContainText("−700");
  await release.getByRole("button", { name: "The call never ran" }).click();
  await release.getByRole("button", { name: "End this hold" }).click();
  await expect(detail.getByText("No call is running.")).toBeVisible();
  expect(await available(project, userId)).toBe(before - 400);

  await detail.getByRole("link", { name: "Decisions" }).click();
  await detail.getByRole("row").filter({ hasText: "settled" }).first().click();
  await detail.getByRole("button", { name: "Refund…" }).click();
  const refund = page.getByRole("form", { name: "Refund this call" });
  await expect(refund.getByRole("row").filter({ hasText: "Free" })).toContainText("+400");
  await refund.getByRole("button", { name: "Goodwill" }).click();
  await refund.getByRole("button", { name: "Refund this call" }).click();
  await expect(page.getByText("Call refunded")).toBeVisible();
  expect(await available(project, userId)).toBe(before);
});

test("a flag is cleared; a rule's block is seen and lifted", async ({ page, workshop: { project } }) => {
  const userId = `cleared-${Date.now()}`;
  await makeUser(project, userId, "Clara Cleared");
  for (let count = 0; count < 12; count += 1) await authorize(project, userId, "win money now");
  await openUser(page, userId);
  const detail = page.getByRole("complementary", { name: "User" });
  await expect(detail.getByText("Blocked by the rule")).toContainText("spam identical");
  await expect(detail.getByText("blocked", { exact: true }).first()).toBeVisible();
  await page.keyboard.press("f");
  await page.getByRole("button", { name: "Reviewed: in order" }).click();
  await page.getByRole("button", { name: "Clear the flag" }).click();
  await expect(detail.getByText("flagged", { exact: true })).toHaveCount(0);
  await page.keyboard.press("b");
  await page
    .getByRole("form", { name: "Unblock" })
    .getByRole("button", { name: "Blocked by mistake" })
    .click();
  await page.getByRole("form", { name: "Unblock" }).getByRole("button", { name: "Unblock" }).click();
  await expect(detail.getByText("Blocked by the rule")).toHaveCount(0);
  await expect.poll(async () => (await authorize(project, userId, "win money now")).decision).toBe("allow");
});

test("a colleague's change is seen before anything is overwritten", async ({
  page,
  workshop: { project },
}) => {
  const userId = `shared-${Date.now()}`;
  await makeUser(project, userId, "Sam Shared");
  await openUser(page, userId);
  await page.keyboard.press("t");
  const form = page.getByRole("form", { name: "Give tokens" });
  await form.getByRole("textbox", { name: "Tokens" }).fill("1000");
  await expect(form.getByRole("table", { name: "What changes" })).toBeVisible();
  const theirs = await project.client.rpc("block_user", {
    p_command_id: `theirs-${Date.now()}`,
    p_user_id: userId,
    p_reason: "under investigation",
    p_operator: "colleague",
  });
  expect(theirs.error).toBeNull();
  await form.getByRole("button", { name: "Goodwill" }).click();
  await form.getByRole("button", { name: "Give tokens" }).click();
  await expect(page.getByText("Somebody changed it in the meantime")).toBeVisible();
  await expect(
    page.getByRole("complementary", { name: "User" }).getByText("Blocked by colleague"),
  ).toBeVisible();
  // What they changed is said; seen, and still right: the form stands as it was.
  await expect(form.getByText("Changed since you looked: Blocked no → yes.")).toBeVisible();
  await form.getByRole("button", { name: "Give tokens" }).click();
  await expect(page.getByText("Tokens given", { exact: true })).toBeVisible();
});

test("a limit is raised for a day, and a plan changes when the next month begins; both can be taken back", async ({
  page,
  workshop: { project },
}) => {
  const userId = `raised-${Date.now()}`;
  await makeUser(project, userId, "Rae Raised");
  await project.client.rpc("upsert_account", { p_user_id: userId, p_plan_id: "pro" });
  await openUser(page, userId);
  const detail = page.getByRole("complementary", { name: "User" });
  // From the palette, by a word of it.
  await page.keyboard.press("ControlOrMeta+k");
  await page.getByRole("textbox", { name: "Search everything" }).fill("raise a lim");
  await page.getByRole("button", { name: "Raise a limit: Rae Raised" }).click();
  const form = page.getByRole("form", { name: "Raise a limit" });
  await form.getByRole("textbox", { name: "Daily limit" }).fill("9000000000");
  await expect(form.getByRole("table", { name: "What changes" })).toContainText("9,000,000,000");
  await form.getByRole("button", { name: "in 3 days" }).click();
  await form.getByRole("button", { name: "A deadline of theirs" }).click();
  await form.getByRole("button", { name: "Raise a limit" }).click();
  await expect(page.getByText("Limit raised", { exact: true })).toBeVisible();
  await expect(detail.getByText(/Raised by an operator until/)).toBeVisible();

  await page.keyboard.press("p");
  const move = page.getByRole("form", { name: "Move to plan" });
  await move.getByRole("combobox", { name: "Plan" }).click();
  await page.getByRole("option", { name: "Business" }).click();
  await move.getByRole("button", { name: "when their next month begins" }).click();
  await expect(move.getByRole("row").filter({ hasText: "Plan, next month" })).toContainText("Business");
  await move.getByRole("button", { name: "Asked by the user" }).click();
  await move.getByRole("button", { name: "Move to plan" }).click();
  await expect(detail.getByText(/Moves to Business on/)).toBeVisible();

  await detail.getByRole("link", { name: "Acts" }).click();
  const acts = detail.getByRole("table", { name: "Acts, newest first" });
  await acts.getByRole("button", { name: "Undo" }).first().click();
  const undo = page.getByRole("form", { name: /Undo/ });
  await undo.getByRole("button", { name: "Not needed after all" }).click();
  await undo.getByRole("button", { name: "Undo", exact: true }).click();
  await expect(detail.getByText(/Moves to Business on/)).toHaveCount(0);
});

test("more than one person may decide alone waits for a second", async ({ page, workshop: { project } }) => {
  const userId = `large-${Date.now()}`;
  await makeUser(project, userId, "Lara Large");
  const before = await available(project, userId);
  await openUser(page, userId);
  await page.keyboard.press("t");
  const form = page.getByRole("form", { name: "Give tokens" });
  await form.getByRole("textbox", { name: "Tokens" }).fill("5000000");
  await expect(form.getByText(/need the approval of a second person/)).toBeVisible();
  await form.getByRole("button", { name: "Goodwill" }).click();
  await form.getByRole("button", { name: "Propose" }).click();
  await expect(page.getByText("Proposed: a second person must approve it")).toBeVisible();
  expect(await available(project, userId)).toBe(before);
  const listed = await project.client.rpc("console_list_acts", { p_filter: { user_id: userId } });
  const [act] = (listed.data as { acts: { act_id: number }[] }).acts;
  const approved = await project.client.rpc("console_decide_act", {
    p_command_id: `approve-${Date.now()}`,
    p_act_id: act?.act_id,
    p_decision: "approve",
    p_reason: "checked",
    p_operator: "second person",
  });
  expect(approved.error).toBeNull();
  expect(await available(project, userId)).toBe(before + 5_000_000);
});

test("the text for a user is in the user's own language until the agent chooses another", async ({
  page,
  workshop: { project },
}) => {
  const userId = `leser-${Date.now()}`;
  await makeUser(project, userId, "Lena Leser");
  await project.client.rpc("upsert_account", { p_user_id: userId, p_metadata: { language: "de-AT" } });
  const { data: answer } = await project.client.rpc("authorize_usage", {
    p_request_id: userId,
    p_user_id: userId,
    p_model: "gpt-4o",
    p_estimated_tokens: 90_000_000,
  });
  expect(answer.message).toBe("Dafür reichen Ihre Tokens nicht mehr.");
  await openUser(page, userId);
  const detail = page.getByRole("complementary", { name: "User" });
  await expect(detail.getByText("reads Deutsch")).toBeVisible();
  const language = detail.getByRole("combobox", { name: "Language of the text for the user" }).first();
  await expect(language).toHaveValue("Deutsch");
});
