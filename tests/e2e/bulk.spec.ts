/** One correction of many users: whom it hits before it starts, its progress, its stop, its result and its undo. */
import { hostname } from "node:os";
import { expect, makeUser, type Project, test } from "./console.ts";

const total = async (project: Project, users: readonly string[]): Promise<number> => {
  let sum = 0;
  for (const user of users)
    sum += (await project.client.rpc("get_user_token_balance", { p_user_id: user })).data as number;
  return sum;
};

test("many get tokens at once: looked at, stopped, gone on with, and undone as a whole", async ({
  page,
  workshop: { project },
}) => {
  const stamp = `crowd${Date.now()}`;
  const users = Array.from({ length: 120 }, (_, number) => `${stamp}-${number}`);
  await Promise.all(users.map((user) => makeUser(project, user, `Crowd ${user}`, 1_000)));
  const sample = users.slice(0, 5);
  const before = await total(project, sample);
  await page.goto(page.url().replace(/#.*/, `#/users?q=${stamp}`));
  await expect(page.getByText("of 120", { exact: false }).first()).toBeVisible();
  await page.getByRole("button", { name: "Correct many…" }).click();
  const form = page.getByRole("form", { name: "Correct many users" });
  await form.getByRole("textbox", { name: "Tokens" }).fill("1500");
  await expect(form.getByText("180,000")).toBeVisible();
  await form.getByText("The first 100 of them").click();
  await expect(form.getByRole("table", { name: "Whom it affects" })).toContainText(`Crowd ${stamp}-0`);
  const startButton = form.getByRole("button", { name: "Give tokens: 120 users" });
  await startButton.click();
  await expect(form.getByText("Give a reason of at least 3 characters.")).toBeVisible();
  await form.getByRole("button", { name: "Goodwill after an outage" }).click();
  await startButton.click();

  const act = page.getByRole("region", { name: "Act on many users" });
  await expect(act.getByRole("heading")).toContainText("Give 1,500 promotional tokens: 120 users");
  // It may be over before the hand is there.
  const stop = act.getByRole("button", { name: "Stop" });
  if (await stop.isVisible()) {
    await stop.click().catch(() => undefined);
    const goOn = act.getByRole("button", { name: "Go on", exact: true });
    await expect(goOn.or(act.getByText("120 of 120 done"))).toBeVisible();
    if (await goOn.isVisible()) {
      await expect(act.getByText("stopped", { exact: true })).toBeVisible();
      await goOn.click();
    }
  }
  await expect(act.getByText("120 of 120 done")).toBeVisible();
  await expect(act.getByText("done", { exact: true })).toBeVisible();
  expect(await total(project, sample)).toBe(before + 5 * 1_500);
  await expect(page.getByRole("table", { name: "Result by user" })).toContainText("+1,500");

  await act.getByRole("button", { name: "Undo the whole…" }).click();
  const undo = page.getByRole("form", { name: "Undo the whole…" });
  await expect(undo).toContainText("120 users: 180,000 tokens are taken back");
  await undo.getByRole("button", { name: "Wrong amount" }).click();
  await undo.getByRole("button", { name: "Undo the whole" }).click();
  await expect(act.getByText("120 of 120 taken back")).toBeVisible();
  expect(await total(project, sample)).toBe(before);
  await page.getByRole("link", { name: "Many at once" }).click();
  await expect(page.getByRole("table", { name: "Acts on many users, newest first" })).toContainText("undone");
});

test("rows that were chosen get it; above what one may decide alone, it waits for a second person", async ({
  page,
  workshop: { project },
}) => {
  const stamp = `pair${Date.now()}`;
  const users = [0, 1, 2].map((number) => `${stamp}-${number}`);
  for (const user of users) await makeUser(project, user, `Pair ${user}`, 1_000);
  const before = await total(project, users);
  await page.goto(page.url().replace(/#.*/, `#/users?q=${stamp}`));
  await page.getByRole("checkbox", { name: `Choose Pair ${stamp}-0` }).check();
  await page.getByRole("checkbox", { name: `Choose Pair ${stamp}-2` }).check();
  await page.getByRole("button", { name: "Correct 2 users…" }).click();
  const form = page.getByRole("form", { name: "Correct many users" });
  await form.getByRole("textbox", { name: "Tokens" }).fill("900000");
  await expect(form.getByText(/second person/)).toBeVisible();
  await form.getByRole("button", { name: "Goodwill", exact: true }).click();
  await form.getByRole("button", { name: "Propose for 2 users" }).click();
  const act = page.getByRole("region", { name: "Act on many users" });
  await expect(act.getByText("waits for approval")).toBeVisible();
  await expect(act.getByRole("button", { name: "Approve" })).toHaveCount(0);
  const id = Number(new URL(page.url()).hash.split("/").at(-1));
  expect(await total(project, users)).toBe(before);
  const approved = await project.client.rpc("console_change_bulk_act", {
    p_command_id: `approve-${stamp}`,
    p_bulk_id: id,
    p_action: "approve",
    p_reason: "checked",
    p_operator: "second person",
  });
  expect(approved.error).toBeNull();
  // Nobody sends its steps yet: the page says so after a while, and goes on with them.
  await act.getByRole("button", { name: "Go on from here" }).click();
  await expect(act.getByText("2 of 2 done")).toBeVisible();
  expect(await total(project, users)).toBe(before + 1_800_000);
});

test("many are blocked at once, with whom it hits and what they use; the undo unblocks them", async ({
  page,
  workshop: { project },
}) => {
  const stamp = `flock${Date.now()}`;
  const users = [0, 1, 2, 3].map((number) => `${stamp}-${number}`);
  for (const user of users) await makeUser(project, user, `Flock ${user}`, 1_000);
  // Blocked for good already: the act has nothing to do there.
  await project.client.rpc("block_user", {
    p_command_id: `block-${stamp}`,
    p_user_id: users[3],
    p_reason: "before",
    p_operator: "zoe",
  });
  const isBlocked = async (user: string | undefined): Promise<boolean> =>
    (
      (await project.client.rpc("console_get_account", { p_user_id: user })).data as {
        account: { is_blocked: boolean };
      }
    ).account.is_blocked;
  await page.goto(page.url().replace(/#.*/, `#/users?q=${stamp}`));
  await page.getByRole("button", { name: "Correct many…" }).click();
  const form = page.getByRole("form", { name: "Correct many users" });
  await form.getByRole("combobox", { name: "What" }).click();
  await page.getByRole("option", { name: "Block", exact: true }).click();
  await form.getByRole("button", { name: "24 hours" }).click();
  await expect(form.getByText("3 users", { exact: true }).first()).toBeVisible();
  await expect(form.getByText("1 user (blocked for as long already)")).toBeVisible();
  await form.getByText("All of them, one by one").click();
  await expect(form.getByRole("table", { name: "Whom it affects" })).toContainText(/until \d/);
  await form.getByRole("button", { name: "Automated use" }).click();
  await form.getByRole("button", { name: "Block: 3 users" }).click();

  const act = page.getByRole("region", { name: "Act on many users" });
  await expect(act.getByRole("heading")).toContainText("Block until");
  await expect(act.getByText("3 of 4 done, 1 refused")).toBeVisible();
  expect(await isBlocked(users[0])).toBe(true);
  await act.getByRole("button", { name: "Undo the whole…" }).click();
  const undo = page.getByRole("form", { name: "Undo the whole…" });
  await undo.getByRole("button", { name: "Wrong users" }).click();
  await undo.getByRole("button", { name: "Undo the whole" }).click();
  await expect(act.getByText("3 of 3 taken back")).toBeVisible();
  expect(await isBlocked(users[0])).toBe(false);
  expect(await isBlocked(users[3])).toBe(true);

  // The log has it with the machine it was done from, and is as it was sealed.
  await page.getByRole("link", { name: "Log" }).click();
  const log = page.getByRole("table", { name: "Audit, newest first" });
  await expect(log.getByRole("row").filter({ hasText: "Undo bulk" }).first()).toContainText(
    hostname()
      .replaceAll(/[^!-~]/g, "")
      .slice(0, 12),
  );
  await page.getByRole("button", { name: "Check the chain" }).click();
  await expect(page.getByRole("status", { name: "Result of the check" })).toContainText("Sound");
  await page.goto(page.url().replace(/#.*/, `#/users?filter=blocked&q=${users[3]}`));
  await page.getByRole("grid", { name: "Users" }).getByText("Flock").first().click();
  const detail = page.getByRole("complementary", { name: "User" });
  await detail.getByRole("button", { name: "Unblock" }).click();
  await page.getByRole("button", { name: "Blocked by mistake" }).click();
  await page.getByRole("form", { name: "Unblock" }).getByRole("button", { name: "Unblock" }).click();
  await expect(page.getByText("no longer fits this list")).toBeVisible();
  await expect(page.getByRole("grid", { name: "Users" }).getByText("Flock").first()).toBeVisible();
});
