/** Starts the PostgreSQL servers that the database tests share: 18 always, 15 where it is installed. */
import type { TestProject } from "vitest/node";
import { findPostgres, type PostgresServer, startPostgres } from "./postgres.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** Superuser URLs of the running servers by major version; 15 is null where it is not installed. */
    postgresUrls: { 15: string | null; 18: string };
  }
}

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const servers: PostgresServer[] = [await startPostgres({ version: 18 })];
  if (findPostgres(15)) servers.push(await startPostgres({ version: 15 }));
  else console.warn("PostgreSQL 15 is not installed: the tests for it are skipped.");
  const url = (version: 15 | 18): string | null =>
    servers.find((server) => server.version === version)?.url() ?? null;
  project.provide("postgresUrls", { 15: url(15), 18: url(18) as string });
  return async () => {
    await Promise.all(servers.map((server) => server.stop()));
  };
}
