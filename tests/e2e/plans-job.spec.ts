import { authorize, expect, makeUser, test } from "./console.ts";

interface Version {
  readonly kind: string;
  readonly key: string;
  readonly version: number;
  readonly record: Record<string, unknown>;
}

test("an admin changes a plan's limit after a simulation, and returns to the version before", async ({
  page,
  workshop: { project },
}) => {
  const record = async (): Promise<Version | undefined> => {
    const { data } = await project.client.rpc("console_config");
    return (data as { records: Version[] }).records.find(
      ({ kind, key }) => kind === "plan" && key === "starter",
    );
  };
  const user = `simulated-${Date.now()}`;
  await makeUser(project, user, "Sim Ulated");
  for (let at = 0; at < 3; at += 1) await authorize(project, user, `s ${at}`);
  await page.goto(page.url().replace(/#.*/, "#/plans"));
  await page.getByRole("row").filter({ hasText: "Starter" }).click();
  const detail = page.getByRole("complementary", { name: "Record" });
  await detail.getByRole("textbox", { name: "Tokens a month", exact: true }).fill("60,000");
  await detail.getByRole("textbox", { name: "Most tokens a day" }).fill("0.5");
  await expect(detail.getByText(/A whole number is needed/)).toBeVisible();
  await detail.getByRole("textbox", { name: "Most tokens a day" }).fill("250");
  await expect(detail.getByText(/A whole number is needed/)).toHaveCount(0);
  await expect(detail.getByRole("list", { name: "Whom it touches" })).toContainText(
    /users? (is|are) on this plan/,
  );
  await expect(detail.getByRole("list", { name: "Whom it touches" })).toContainText(
    "from each user’s next month",
  );
  await detail.getByRole("button", { name: "Simulate" }).click();
  const outcome = detail.getByRole("table", { name: "Simulation by plan" });
  await expect(outcome.getByRole("row").filter({ hasText: "starter" })).toBeVisible();
  await expect(detail.getByRole("table", { name: "Users who would run out" })).toContainText(/daily limit/i);
  await detail.getByRole("textbox", { name: "Why" }).fill("More for beginners, but not at once");
  await page.keyboard.press("Control+s");
  await expect(page.getByText("Plan starter is saved")).toBeVisible();
  await expect
    .poll(async () => (await record())?.record)
    .toMatchObject({ monthly_allowance: 60_000, daily_limit: 250 });
  expect((await authorize(project, user, "s 4")).reason).toBe("daily_limit");

  await detail.getByRole("link", { name: "History" }).click();
  const versions = detail.getByRole("listitem");
  await expect(versions.first()).toContainText("More for beginners");
  await expect(versions.first()).toContainText("250 tokens");
  await versions.filter({ hasText: /^v1/ }).getByRole("button", { name: "Return to this" }).click();
  await expect
    .poll(async () => (await record())?.record)
    .toMatchObject({ monthly_allowance: 50_000, daily_limit: null });
  expect((await authorize(project, user, "s 5")).decision).not.toBe("block");
});

test("a colleague's change in between is shown three-way, and what both changed is there in the end", async ({
  page,
  workshop: { project },
}) => {
  await page.goto(page.url().replace(/#.*/, "#/plans/pack:tokens-1500k"));
  const detail = page.getByRole("complementary", { name: "Record" });
  await detail.getByRole("textbox", { name: "Price" }).fill("12.99");
  await detail.getByRole("textbox", { name: "Why" }).fill("Cheaper");
  await expect(detail.getByRole("list", { name: "Whom it touches" })).toBeVisible();
  const saved = await project.client.rpc("console_save_config", {
    p_command_id: `colleague-${Date.now()}`,
    p_kind: "pack",
    p_key: "tokens-1500k",
    p_record: { pack_id: "tokens-1500k", tokens: 1_600_000, price_minor: 1350, currency: "usd", plans: [] },
    p_reason: "More tokens for the same",
    p_operator: "Bob",
  });
  expect(saved.error).toBeNull();
  await detail.getByRole("button", { name: "Save" }).click();
  const pill = page.getByRole("button", { name: /Changes: 1 to resolve/ });
  await expect(pill).toBeVisible();
  await pill.click();
  await expect(page.getByText("you saw")).toBeVisible();
  const panel = page.getByText("now there").locator("..");
  for (const figure of ["1,350", "1,299", "1,500,000", "1,600,000"])
    await expect(panel.getByText(figure).first()).toBeVisible();
  await page.getByRole("button", { name: "Send mine on top" }).click();
  await expect(page.getByRole("button", { name: "Changes: All sent" })).toBeVisible();
  const { data } = await project.client.rpc("console_config");
  expect(
    (data as { records: Version[] }).records.find(({ key }) => key === "tokens-1500k")?.record,
  ).toMatchObject({
    tokens: 1_600_000,
    price_minor: 1299,
  });
});

test("the project is compared with a preset, and what is chosen is taken over, all or nothing", async ({
  page,
  workshop: { project },
}) => {
  await makeUser(project, "preset-1", "Paula Preset");
  await page.goto(page.url().replace(/#.*/, "#/plans?do=presets"));
  await page.getByRole("combobox", { name: "Preset to compare with" }).selectOption("chat-v2");
  const differences = page.getByRole("list", { name: "Where the project differs" });
  await expect(differences.getByRole("listitem").first()).toBeVisible();
  await expect(differences.getByRole("listitem").filter({ hasText: "Plan Pro" })).toContainText(/only here/);
  await page.getByRole("button", { name: "Choose all" }).click();
  await page.getByRole("button", { name: /^Look at/ }).click();
  // Users of a plan that goes are told before anything is done.
  await expect(page.getByRole("list", { name: "Whom it touches" })).toContainText(
    /they keep it|users are on this plan/,
  );
  await expect(page.getByRole("button", { name: /^Take over: / })).toBeDisabled();
  await page.getByRole("button", { name: "Choose again" }).click();
  await expect(differences).toBeVisible();
});

test("a rule that was changed for a while goes back by itself, on the screen too", async ({
  page,
  workshop: { project },
}) => {
  await page.goto(page.url().replace(/#.*/, "#/rules/long_conversation"));
  const detail = page.getByRole("complementary", { name: "Rule" });
  const enforced = detail.getByRole("button", { name: "Enforce", pressed: true });
  await expect(enforced).toBeVisible();
  const { data } = await project.client.rpc("list_rules");
  const rule = (data as { rule_name: string; version: number }[]).find(
    ({ rule_name }) => rule_name === "long_conversation",
  );
  const { error } = await project.client.rpc("save_rule", {
    p_command_id: `while-${Date.now()}`,
    p_rule: {
      ...rule,
      mode: "off",
      is_active: false,
      version: undefined,
      updated_at: undefined,
      updated_by: undefined,
      matches_24h: undefined,
    },
    p_operator: "Bob",
    p_until: new Date(Date.now() + 10_000).toISOString(),
  });
  expect(error).toBeNull();
  await page.reload();
  await expect(detail.getByText(/it goes back by itself/)).toBeVisible();
  await expect
    .poll(async () => {
      await authorize(project, "while-user", `w ${Math.random()}`);
      return await enforced.isVisible();
    })
    .toBe(true);
  await detail.getByRole("link", { name: "History" }).click();
  await expect(detail.getByText("Its time was over: back by itself")).toBeVisible();
});

test("an admin looks at the mails that users get, each as it arrives, and is led to a setting that they lack", async ({
  page,
}) => {
  await page.goto(page.url().replace(/#.*/, "#/plans?kind=setting"));
  await page.getByRole("button", { name: "Mails to users" }).click();
  const mail = page.frameLocator("iframe");
  await expect(mail.locator("body")).toContainText("Hello Ann Miller,");
  await expect(mail.locator("body")).toContainText("Your purchase is confirmed:");
  // The keyboard reads on, and the address keeps the place.
  await page.getByRole("row").filter({ hasText: "Low balance" }).click();
  await expect(mail.locator("body")).toContainText("You have 1,000 tokens left.");
  await page.getByRole("combobox", { name: "Language" }).selectOption("de");
  await expect(mail.locator("body")).toContainText("Sie haben noch 1.000 Tokens.");
  await page.getByRole("combobox", { name: "Shown as" }).selectOption("text");
  const detail = page.getByRole("complementary", { name: "Mail" });
  await expect(detail.getByText("Guten Tag Ann Miller,")).toBeVisible();
  expect(page.url()).toContain("message=alert.low_balance&language=de&as=text");
  // A mail runs nothing and leads nowhere here: it is looked at.
  await page.getByRole("combobox", { name: "Shown as" }).selectOption("mail");
  await expect(page.locator("iframe")).toHaveAttribute("sandbox", "");
  await expect(page.getByRole("status")).toContainText("Mails about a low balance have no link to buy.");
  await page.getByRole("link", { name: "Where users buy" }).click();
  await expect(
    page.getByRole("complementary", { name: "Record" }).getByText("Where users buy").first(),
  ).toBeVisible();
});
