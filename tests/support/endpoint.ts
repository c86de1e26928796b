/** A local project over the functions of endpoint.sql, on PGlite or on a PostgreSQL server. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SignJWT } from "jose";
import { type LocalProject, type StartOptions, startLocalProject } from "../../local-project/index.ts";

export interface TestProject extends LocalProject {
  readonly dataDir: string;
  /** The server behind it, or null. */
  readonly databaseUrl: string | null;
  /** A token of this project's, by default one that lives for an hour. */
  sign(claims: Record<string, unknown>, secret?: string): Promise<string>;
  /** What it said while it ran. */
  readonly said: readonly string[];
  remove(): Promise<void>;
}

/** A resources folder whose only migration is endpoint.sql. */
export function writeFixtureResources(): string {
  const folder = mkdtempSync(join(tmpdir(), "endpoint-resources-"));
  mkdirSync(join(folder, "migrations"));
  mkdirSync(join(folder, "presets"));
  const sql = readFileSync(new URL("./endpoint.sql", import.meta.url), "utf8");
  writeFileSync(join(folder, "migrations/20260101000000_governance_endpoint.sql"), sql);
  writeFileSync(join(folder, "presets/default.yaml"), "name: default\n");
  writeFileSync(join(folder, "presets/other.yaml"), "name: other\n");
  return folder;
}

export async function startFixtureProject(
  options: Partial<StartOptions> & { readonly resourcesDir: string },
): Promise<TestProject> {
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), "endpoint-data-"));
  const said: string[] = [];
  const project = await startLocalProject({
    dataDir,
    cacheDir: join(options.resourcesDir, "cache"),
    log: (sentence) => said.push(sentence),
    ...options,
  });
  return {
    ...project,
    dataDir,
    databaseUrl: options.databaseUrl ?? null,
    said,
    sign: (claims, secret = project.jwtSecret) =>
      new SignJWT({ exp: Math.floor(Date.now() / 1000) + 3600, ...claims })
        .setProtectedHeader({ alg: "HS256", typ: "JWT" })
        .sign(new TextEncoder().encode(secret)),
    async remove() {
      await project.stop();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
}
