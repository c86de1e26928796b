/** The command where its project cannot be reached: a nightly job must not take that for differences. */
import { execFile } from "node:child_process";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { repositoryDir } from "./build.ts";

const server = createServer();
afterEach(() => server.close());

/** What the command says, and its exit code, against a project that answers its first questions so, and others with 404. */
async function run(answer: (response: ServerResponse) => void): Promise<{ code: number; err: string }> {
  const asked = new Set<string | undefined>();
  server.on("request", ({ url }, response) => {
    if (asked.has(url)) {
      response.writeHead(404).end("{}");
      return;
    }
    asked.add(url);
    answer(response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const args = ["--url", url, "--stripe", "package.json", "--from", "2026-10-01", "--to", "2026-10-31"];
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [join(repositoryDir, "cli/reconcile.ts"), ...args],
      { cwd: repositoryDir, env: { ...process.env, GOVERNANCE_SERVICE_ROLE_KEY: "key" } },
      (error, _out, err) => resolve({ code: error ? Number(error.code) : 0, err }),
    );
  });
}

test("asks again where the connection breaks within an answer, and ends with 2 where it has none", async () => {
  const { code, err } = await run((response) => {
    response.writeHead(200, { "content-type": "application/json", "content-length": "1000" });
    response.write("[1,2", () => response.destroy());
  });
  expect(err).toMatch(/^The project does not know console_\w+: apply the migrations first/);
  expect(code).toBe(2);
});
