/** Every part of renderer/src/ui in every state: photographed, readable and without a failure, light and dark. */
import { mkdirSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, type Page, test } from "@playwright/test";
import { serveRenderer, type RendererServer } from "../../cli/dev-renderer.ts";
import { repository } from "../support/repository.ts";
import { faintTexts } from "./readable.ts";

const PICTURES = "test-results/gallery";
let server: RendererServer;
/** One for all: a page that begins again loads each of the hundreds of modules again. */
let page: Page;
const thrown: string[] = [];

test.beforeAll(async ({ browser }) => {
  mkdirSync(PICTURES, { recursive: true });
  server = await serveRenderer((sentence) => console.log(sentence));
  page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.on("pageerror", (error) => {
    // One part fails on purpose, to be caught.
    if (!error.message.includes("on purpose")) thrown.push(String(error));
  });
});
test.afterAll(async () => {
  await page?.close();
  await server?.close();
});

for (const theme of ["light", "dark"] as const)
  test(`every part in every state can be read, ${theme}`, async () => {
    thrown.length = 0;
    await page.goto(`http://127.0.0.1:${server.port}/gallery.html?theme=${theme}`);
    await expect(page.locator("html")).toHaveAttribute("data-mantine-color-scheme", theme);
    await expect(page.locator('[data-part="ReceiptView, ReceiptCopies, blocked"]')).toContainText(
      "Stopped by",
    );
    await page.screenshot({ path: `${PICTURES}/all-${theme}.png`, fullPage: true });
    for (const section of await page.locator("section[aria-label] > h2").all()) {
      const name = (await section.textContent()) ?? "";
      await section
        .locator("..")
        .screenshot({ path: `${PICTURES}/${name.toLowerCase().replaceAll(" ", "-")}-${theme}.png` });
    }
    expect(await faintTexts(page)).toEqual([]);
    expect(thrown).toEqual([]);
  });

test("no part is missing", async () => {
  const parts = readdirSync(join(repository, "renderer/src/ui"))
    .filter((file) => file.endsWith(".tsx") && !file.includes(".test."))
    .flatMap((file) =>
      [
        ...readFileSync(join(repository, "renderer/src/ui", file), "utf8").matchAll(
          /^export (?:function|class|const) ([A-Z]\w*)/gm,
        ),
      ].map(([, name]) => name ?? ""),
    );
  expect(parts.length).toBeGreaterThan(30);
  await page.goto(`http://127.0.0.1:${server.port}/gallery.html`);
  await expect(page.locator("[data-part]").first()).toBeVisible();
  const shown = await page
    .locator("[data-part]")
    .evaluateAll((figures) => figures.map((figure) => figure.getAttribute("data-part") ?? "").join("\n"));
  expect(parts.filter((name) => !new RegExp(`\\b${name}\\b`).test(shown))).toEqual([]);
});
