/** From a project with nothing of ours to its first call, on the screen. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type LocalProject, startLocalProject } from "../../local-project/index.ts";
import { createEmptyDatabase } from "../support/database.ts";
import { makeSupabaseLike, startPostgres, withClient } from "../support/postgres.ts";
import { seriousFaults } from "./accessible.ts";
import { createClient } from "@supabase/supabase-js";
import { authorize, expect, test } from "./console.ts";
import { faintTexts } from "./readable.ts";

test("a new project is prepared, configured and called without leaving the console", async ({ page }) => {
  const folder = mkdtempSync(join(tmpdir(), "first-connection-e2e-"));
  for (const name of ["migrations", "presets"]) mkdirSync(join(folder, name));
  writeFileSync(join(folder, "presets/default.yaml"), "name: default\n");
  const server = await startPostgres({ version: 18 });
  let project: LocalProject | null = null;
  try {
    const ownerUrl = await makeSupabaseLike(await createEmptyDatabase(server.url()));
    project = await startLocalProject({
      databaseUrl: ownerUrl,
      resourcesDir: folder,
      upkeepIntervalMs: null,
    });
    await withClient(ownerUrl, (client) => client.query("create schema governance"));

    await page.goto(page.url().replace(/(#.*)?$/, "#/settings/connections"));
    await page.getByRole("button", { name: "Connect a Supabase project" }).click();
    await page.getByLabel("Project URL").fill(project.url);
    await page.getByLabel("Service-role key").fill(project.serviceRoleKey);
    await page.getByRole("textbox", { name: "Name", exact: true }).fill("Brand new");
    await page.getByLabel("This is production").uncheck();
    await page.getByRole("radio", { name: "green" }).check();
    await page.getByRole("button", { name: "Check" }).click();

    const prepare = page.getByRole("region", { name: "Prepare the project" });
    await expect(prepare.getByText("This project has no governance yet")).toBeVisible();
    await prepare.getByText("By a command").click();
    await expect(prepare.getByText(/psql "postgresql:/)).toBeVisible();
    await prepare.getByText("Apply from here").click();
    await prepare.getByLabel("Database address").fill(ownerUrl);
    await prepare.getByLabel("Database password").fill("any will do here");
    await prepare.getByRole("button", { name: "Look at the database" }).click();
    await expect(prepare.getByText(/schema governance/)).toBeVisible();
    await expect(prepare.getByRole("button", { name: "Apply the migration" })).toBeDisabled();
    expect([...(await seriousFaults(page)), ...(await faintTexts(page))]).toEqual([]);
    await withClient(ownerUrl, (client) => client.query("drop schema governance"));
    await prepare.getByRole("button", { name: "Look at the database" }).click();
    await expect(prepare.getByText(/Nothing is in the way/)).toBeVisible();
    await prepare.getByRole("button", { name: "Apply the migration" }).click();
    await expect(page.getByText(/The key works \(role/)).toBeVisible();
    await page.getByRole("button", { name: "Add and open" }).click();
    await expect(page.getByRole("banner").getByText("Brand new")).toBeVisible();
    await expect(page.getByRole("button", { name: "Live" })).toBeVisible();

    await page.goto(page.url().replace(/#.*/, "#/watch"));
    await expect(page.getByText("How should this project be governed?")).toBeVisible();
    expect([...(await seriousFaults(page)), ...(await faintTexts(page))]).toEqual([]);
    await page.getByRole("button", { name: "Use default" }).click();
    await expect(page.getByText("No calls yet")).toBeVisible();
    await expect(page.getByRole("button", { name: "Open the local project with sample data" })).toBeVisible();
    await authorize(
      {
        ...project,
        client: createClient(project.url, project.serviceRoleKey, { auth: { persistSession: false } }),
      },
      "first-user",
      "Hello",
    );
    await expect(page.getByText("The first call has arrived.")).toBeVisible();

    await page.goto(page.url().replace(/#.*/, "#/settings/connections"));
    await page.getByRole("button", { name: "Edit Brand new" }).click();
    await page.getByLabel("For reading only").check();
    await page.getByRole("button", { name: "Save", exact: true }).click();
    await expect(page.getByRole("banner").getByText("Read only")).toBeVisible();
    await page.goto(page.url().replace(/#.*/, "#/users/first-user"));
    const block = page.getByRole("button", { name: "Block", exact: true });
    await expect(block).toBeDisabled();
    await expect(block).toHaveAttribute("title", /for reading only/);
    await page.goto(page.url().replace(/#.*/, "#/settings/connections"));
    await page.getByRole("button", { name: "Remove Brand new" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click();
    await expect(page.getByRole("list", { name: "Projects" }).getByText("Brand new")).toHaveCount(0);
  } finally {
    await project?.stop();
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
});
