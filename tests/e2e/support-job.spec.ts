import type { Locator, Page } from "@playwright/test";
import { checkoutSession, event } from "../support/stripe/events.ts";
import { authorize, expect, makeUser, test } from "./console.ts";
import { stopARepeater } from "./jobs.ts";

/** A person at the page, whose presses of mouse and keys are counted. */
function person(page: Page) {
  let steps = 0;
  return {
    click: async (target: Locator): Promise<void> => {
      steps += 1;
      await target.click();
    },
    press: async (key: string): Promise<void> => {
      steps += 1;
      await page.keyboard.press(key);
    },
    steps: (): number => steps,
  };
}

test("from a pasted payment id, the user is explained to, credited, unblocked and cleared in twelve presses", async ({
  page,
  workshop: { project },
}) => {
  const userId = `paid-${Date.now()}`;
  await makeUser(project, userId, "Pia Paid");
  const created = Math.floor(Date.now() / 1000);
  const paid = await project.client.rpc("process_stripe_event", {
    p_event: event(
      "checkout.session.completed",
      checkoutSession({
        name: `mail${created}`,
        userId,
        packId: "tokens-500k",
        tokens: 500_000,
        amountMinor: 500,
        currency: "usd",
        created,
      }),
    ),
  });
  expect(paid.data).toMatchObject({ status: "processed" });
  for (let count = 0; count < 12; count += 1) await authorize(project, userId, "why does it not work");
  const before = (await project.client.rpc("get_user_token_balance", { p_user_id: userId })).data as number;

  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.goto(page.url().replace(/#.*/, "#/watch"));
  await page.keyboard.press("Control+k");
  await expect(page.getByRole("textbox", { name: "Search everything" })).toBeFocused();
  await page.keyboard.insertText(`pi_mail${created}`);
  const agent = person(page);
  await agent.press("Enter");
  const detail = page.getByRole("complementary", { name: "User" });
  await expect(detail.getByRole("heading", { name: /Pia Paid/ })).toBeVisible();
  await expect(detail.getByRole("table", { name: "Payments, newest first" })).toContainText("500,000");

  // Explained: why it was stopped, and the words to send.
  await expect(detail.getByText("The last call was stopped")).toBeVisible();
  await expect(detail.getByText(/Now it would be stopped again/)).toBeVisible();
  await agent.click(detail.getByRole("button", { name: "Copy for the user" }));
  await expect(detail.getByRole("button", { name: "Copied" })).toBeVisible();
  expect(await page.evaluate(() => navigator.clipboard.readText())).toContain("the same message ten times");

  // Credited.
  await agent.press("t");
  const give = page.getByRole("form", { name: "Give tokens" });
  await agent.click(give.getByRole("button", { name: "10,000", exact: true }));
  await agent.click(give.getByRole("button", { name: "Goodwill" }));
  await agent.click(give.getByRole("button", { name: "Give tokens" }));
  await expect(page.getByText("Tokens given", { exact: true })).toBeVisible();

  // Unblocked, and the flag of the rule cleared.
  await agent.press("b");
  const unblock = page.getByRole("form", { name: "Unblock" });
  await agent.click(unblock.getByRole("button", { name: "Blocked by mistake" }));
  await agent.click(unblock.getByRole("button", { name: "Unblock" }));
  // The page shows it done before the answer is there, and the next key is taken meanwhile.
  await expect(detail.getByText("Blocked by the rule")).toHaveCount(0);
  await agent.press("f");
  await agent.click(page.getByRole("button", { name: "Reviewed: in order" }));
  await agent.click(page.getByRole("button", { name: "Clear the flag" }));
  await expect(detail.getByText("flagged", { exact: true })).toHaveCount(0);
  await expect(detail.getByText(/Now it would pass/)).toBeVisible();

  expect(agent.steps()).toBeLessThanOrEqual(12);
  expect((await project.client.rpc("get_user_token_balance", { p_user_id: userId })).data).toBe(
    before + 10_000,
  );
  expect((await authorize(project, userId, "why does it not work")).decision).toBe("allow");
});

test("support finds a stopped user, understands why, blocks until a time, sees it, and unblocks", async ({
  page,
  workshop,
}) => {
  await stopARepeater(page, workshop.project);
});

test("a flag is given a reason and shows on the user at once", async ({ page, workshop: { project } }) => {
  const userId = `flagged-${Date.now()}`;
  await makeUser(project, userId, "Fiona Flag");
  await page.goto(page.url().replace(/#.*/, `#/users/${userId}`));
  await page.getByRole("button", { name: "Flag" }).click();
  await page.getByRole("button", { name: "Flag for review" }).click();
  await expect(page.getByText(/Give a reason of at least 3 characters/)).toBeVisible();
  await page.getByRole("textbox", { name: "Reason" }).fill("Unusual use");
  await page.getByRole("button", { name: "Flag for review" }).click();
  const detail = page.getByRole("complementary", { name: "User" });
  await expect(detail.getByText("flagged", { exact: true })).toBeVisible();
  await expect(detail.getByText("“Unusual use”")).toBeVisible();
});

test("undo takes a block back", async ({ page, workshop: { project } }) => {
  const userId = `undo-${Date.now()}`;
  await makeUser(project, userId, "Una Undo");
  await page.goto(page.url().replace(/#.*/, `#/users/${userId}`));
  await expect(page.getByRole("button", { name: "Block" })).toBeVisible();
  await page.keyboard.press("b");
  await page.getByRole("textbox", { name: "Reason" }).fill("Wrong person");
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Undo" }).click();
  await expect(page.getByRole("button", { name: "Block", exact: true })).toBeVisible();
  await expect.poll(async () => (await authorize(project, userId, "hello")).decision).toBe("allow");
});
