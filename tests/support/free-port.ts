/**
 * A port of this machine that nobody listens on. Not one of those that the system gives to outgoing connections: a server
 * that is down for a moment, as in tests of crashes, finds its port free again.
 */
import { randomInt } from "node:crypto";
import { createServer } from "node:net";

/** Below 32768 on Linux, 49152 elsewhere. */
const [first, last] = [15_000, 32_000];
/** A server that was given one may not listen yet. */
const given = new Set<number>();

export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(first, last);
    if (given.has(port)) continue;
    given.add(port);
    if (await isFree(port)) return port;
  }
}

async function isFree(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", (error: NodeJS.ErrnoException) =>
      error.code === "EADDRINUSE" ? resolve(false) : reject(error),
    );
    probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)));
  });
}
