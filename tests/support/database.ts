/** Fresh, migrated databases for tests: made once as a template on each server, then copied in a moment. */
import { createHash, randomUUID } from "node:crypto";
import pg from "pg";
import {
  defaultResourcesDir,
  migrate,
  pgConnection,
  readMigrations,
  readPreset,
} from "../../local-project/migrations.ts";
import { makeSupabaseLike } from "./postgres.ts";

interface ProjectDatabase {
  /** Superuser: sees everything, RLS does not apply. */
  readonly url: string;
  /** The non-superuser who applied the migrations and owns what they made. */
  readonly ownerUrl: string;
}

interface ProjectDatabaseOptions {
  /** Applied after the migrations; none unless said. */
  readonly preset?: string;
  readonly resourcesDir?: string;
}

/** A database like a Supabase project with the product installed, on a server made by `startPostgres`. */
export async function createProjectDatabase(
  superuserUrl: string,
  { preset, resourcesDir = defaultResourcesDir }: ProjectDatabaseOptions = {},
): Promise<ProjectDatabase> {
  const server = new pg.Client({ connectionString: superuserUrl });
  await server.connect();
  try {
    const template = await findOrMakeTemplate(server, superuserUrl, preset, resourcesDir);
    const name = newName();
    await server.query(`create database ${name} template ${template} owner project_owner`);
    return { url: at(superuserUrl, name), ownerUrl: at(superuserUrl, name, "project_owner") };
  } finally {
    await server.end();
  }
}

/** A database with nothing in it; answers its superuser URL. */
export async function createEmptyDatabase(superuserUrl: string): Promise<string> {
  const server = new pg.Client({ connectionString: superuserUrl });
  await server.connect();
  try {
    const name = newName();
    await server.query(`create database ${name}`);
    return at(superuserUrl, name);
  } finally {
    await server.end();
  }
}

const newName = (): string => `t_${randomUUID().replaceAll("-", "").slice(0, 16)}`;

async function findOrMakeTemplate(
  server: pg.Client,
  superuserUrl: string,
  preset: string | undefined,
  resourcesDir: string,
): Promise<string> {
  const content = JSON.stringify([
    readMigrations(resourcesDir),
    preset ? readPreset(preset, resourcesDir) : null,
  ]);
  const template = `template_${createHash("sha256").update(content).digest("hex").slice(0, 24)}`;
  // Several test files start at once; one makes the template, the others wait here.
  await server.query("select pg_advisory_lock(7254003)");
  try {
    const { rowCount } = await server.query("select from pg_database where datname = $1", [template]);
    if (rowCount) return template;
    const draft = `${template}_draft`;
    await server.query(`drop database if exists ${draft}`);
    await server.query(`create database ${draft}`);
    const ownerUrl = await makeSupabaseLike(at(superuserUrl, draft));
    const owner = new pg.Client({ connectionString: ownerUrl });
    await owner.connect();
    try {
      await migrate(pgConnection(owner), { resourcesDir, ...(preset ? { preset: { name: preset } } : {}) });
    } finally {
      await owner.end();
    }
    await server.query(`alter database ${draft} rename to ${template}`);
    return template;
  } finally {
    await server.query("select pg_advisory_unlock(7254003)");
  }
}

function at(url: string, database: string, user?: string): string {
  const result = new URL(url);
  result.pathname = `/${database}`;
  if (user) result.username = user;
  return result.toString();
}
