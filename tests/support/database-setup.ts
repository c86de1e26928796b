/**
 * Starts the PostgreSQL servers of the database tests: 18 always, 15 where it is installed, one of each for every worker.
 * Files that run at the same time share none: what a server counts as over waits for the transactions of all its databases.
 */
import type { TestProject } from "vitest/node";
import { createProjectDatabase } from "./database.ts";
import { findPostgres, type PostgresServer, startPostgres } from "./postgres.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** Superuser URLs of the running servers by major version, one a worker; 15 is null where it is not installed. */
    serversOfWorkers: { 15: string[] | null; 18: string[] };
  }
}

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  if (!findPostgres(15)) console.warn("PostgreSQL 15 is not installed: the tests for it are skipped.");
  const workers = project.config.maxWorkers;
  const [servers18, servers15] = await Promise.all([
    startServers(18, workers),
    findPostgres(15) ? startServers(15, workers) : null,
  ]);
  project.provide("serversOfWorkers", { 15: servers15 && urls(servers15), 18: urls(servers18) });
  return async () => {
    await Promise.all([...servers18, ...(servers15 ?? [])].map((server) => server.stop()));
  };
}

/** The template that most files copy is made once, and goes along. */
async function startServers(version: 15 | 18, count: number): Promise<PostgresServer[]> {
  // With hundreds of databases its round would never end, and each of its transactions holds up what waits for all.
  const first = await startPostgres({ version, settings: { autovacuum: "off" } });
  await createProjectDatabase(first.url(), { preset: "default" });
  return [first, ...(await first.startCopies(count - 1))];
}

const urls = (servers: readonly PostgresServer[]): string[] => servers.map((server) => server.url());
