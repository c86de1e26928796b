/** `npm run dev` on a copy of the sources: what is saved is in the page within a second or two, without a new link. */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "@playwright/test";
import { repository } from "../support/repository.ts";
import { run } from "./console.ts";

const sources = [
  "cli",
  "electron",
  "local-project",
  "renderer",
  "shared",
  "supabase",
  "package.json",
  "tsconfig.base.json",
];

test("a saved file of the renderer or of the console is in the page at once, in the same session", async ({
  page,
}) => {
  const copy = mkdtempSync(join(tmpdir(), "governance-dev-"));
  for (const source of sources) cpSync(join(repository, source), join(copy, source), { recursive: true });
  symlinkSync(join(repository, "node_modules"), join(copy, "node_modules"));
  const dev = await run(
    [join(copy, "cli/dev.ts"), "--no-open", "--no-sample-data", "--data-dir", join(copy, "data")],
    /Console ready at (\S+)/,
  );
  const refused: string[] = [];
  page.on("console", (message) => {
    if (/Content Security Policy/i.test(message.text())) refused.push(message.text());
  });
  const edit = (file: string, from: string, to: string): void => {
    const path = join(copy, file);
    const text = readFileSync(path, "utf8");
    expect(text).toContain(from);
    writeFileSync(path, text.replace(from, to));
  };
  try {
    // The first page waits for Vite to bundle what the screens import.
    await page.goto(dev.ready[1] ?? "");
    await expect(page.getByRole("navigation", { name: "Desks" })).toBeVisible({ timeout: 180_000 });
    await page.goto(`${page.url().replace(/#.*/, "")}#/settings/about`);
    await expect(page.getByRole("heading", { name: "Settings" })).toBeVisible();
    await page.evaluate(() => ((window as { isSamePage?: boolean }).isSamePage = true));

    edit("renderer/src/app/rail.tsx", 'name: "Users"', 'name: "People"');
    await expect(page.getByRole("link", { name: "People" })).toBeVisible();
    expect(await page.evaluate(() => (window as { isSamePage?: boolean }).isSamePage)).toBe(true);

    edit(
      "electron/main/console/settings/settings.ts",
      "ok({ ...about,",
      'ok({ ...about, version: "changed while it ran",',
    );
    await expect
      .poll(
        async () => {
          await page.goto(`${page.url().replace(/#.*/, "")}#/settings/preferences`);
          await page.goto(`${page.url().replace(/#.*/, "")}#/settings/about`);
          return page.getByText("changed while it ran").count();
        },
        { intervals: [250] },
      )
      .toBeGreaterThan(0);
    expect(await page.evaluate(() => (window as { isSamePage?: boolean }).isSamePage)).toBe(true);
    expect(refused).toEqual([]);
  } finally {
    await dev.stop();
    rmSync(copy, { recursive: true, force: true });
  }
});
