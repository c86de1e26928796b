import { authorize, expect, makeUser, test } from "./console.ts";

test("an admin writes a rule from nothing by keyboard, shadows it, enforces it, sees its hits and takes it back", async ({
  page,
  workshop: { project },
}) => {
  const origin = page.url().replace(/#.*/, "");
  const name = `too_eager_${Date.now()}`;
  await page.goto(`${origin}#/rules`);
  await expect(page.getByRole("row").filter({ hasText: "Spam identical" })).toBeVisible();
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
  await page.getByRole("textbox", { name: "Why", exact: true }).focus();
  await page.keyboard.type("Someone is too eager");
  await page.keyboard.press("Control+s");
  await expect(page.getByText(/is saved, in shadow/)).toBeVisible();

  const user = `eager-${Date.now()}`;
  await makeUser(project, user, "Ed Eager");
  for (let at = 0; at < 4; at += 1)
    expect((await authorize(project, user, `m ${at}`)).decision).toBe("allow");
  const detail = page.getByRole("complementary", { name: "Rule" });
  await detail.getByRole("link", { name: "Matches" }).click();
  await expect(detail.getByText("0 enforced, 2 in shadow")).toBeVisible();
  await expect(detail.getByRole("table", { name: "Calls that matched" }).getByRole("row")).toHaveCount(3);

  await page.keyboard.press("e");
  await expect(page.getByText(/is now enforced/)).toBeVisible();
  expect((await authorize(project, user, "m 5")).reason).toBe("too_eager");

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

  // Dragging asks nobody: each step of the slider is drawn at once.
  const slider = page.getByRole("slider");
  await slider.focus();
  const calls = async (): Promise<number> =>
    Number(/([\d,]+) more call/.exec((await at.textContent()) ?? "")?.[1]?.replaceAll(",", ""));
  const before = await calls();
  await page.keyboard.press("ArrowLeft");
  await expect.poll(calls).toBeGreaterThan(before);
  const perSecond = await slider.evaluate(async (input: HTMLInputElement) => {
    const value = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value");
    const status = document.querySelector('[aria-label="At this number"]');
    const startedAt = performance.now();
    let drawn = 0;
    for (let step = 0; step < 60; step += 1) {
      const text = status?.textContent;
      value?.set?.call(input, String(step % 2));
      input.dispatchEvent(new Event("input", { bubbles: true }));
      await new Promise(requestAnimationFrame);
      if (status?.textContent !== text) drawn += 1;
    }
    return (drawn * 1000) / (performance.now() - startedAt);
  });
  expect(perSecond).toBeGreaterThan(20);
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
  await page.keyboard.press("z");
  await expect(
    page.getByRole("complementary", { name: "Rule" }).getByRole("button", { name: "Enforce", pressed: true }),
  ).toBeVisible();
});

test("listed prices are reviewed as differences, and three are taken over", async ({ page }) => {
  await page.goto(page.url().replace(/#.*/, "#/rules?do=prices"));
  const table = page.getByRole("table", { name: "Prices beside the list" });
  const nano = table.getByRole("row").filter({ hasText: "gpt-5-nano" });
  await expect(nano).toContainText("not set");
  for (const model of ["gpt-5-mini", "gpt-5-nano", "gemini-2.5-flash"])
    await page.getByRole("checkbox", { name: `Take over ${model}`, exact: true }).check();
  await page.getByRole("textbox", { name: "Why" }).fill("As the providers list them");
  await page.getByRole("button", { name: "Take over 3 prices" }).click();
  await expect(page.getByText("3 prices taken over")).toBeVisible();
  await expect(nano).toHaveCount(0);
});
