/**
 * Stands between a console and its project, and loses replies on demand: the request arrives, the project acts, and
 * the answer never comes back. That is how a network fails that matters.
 */
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";

export interface FaultyProxy {
  readonly url: string;
  /** The next so many replies of this function of the database are lost. */
  loseReplies(functionName: string, count: number): void;
  stop(): Promise<void>;
}

export async function startFaultyProxy(projectUrl: string): Promise<FaultyProxy> {
  const target = new URL(projectUrl);
  const losses = new Map<string, number>();
  /** Upgraded ones are no longer the server's to close. */
  const upgraded = new Set<Duplex>();
  const to = (path: string | undefined, method: string | undefined, headers: object) =>
    request({ host: target.hostname, port: target.port, path, method, headers: { ...headers } });

  const server = createServer((incoming, outgoing) => {
    const name = /\/rpc\/([a-z_]+)/.exec(incoming.url ?? "")?.[1] ?? "";
    const left = losses.get(name) ?? 0;
    const onward = to(incoming.url, incoming.method, incoming.headers);
    onward.on("response", (reply) => {
      if (left > 0) {
        losses.set(name, left - 1);
        // Read to its end first: the project has committed.
        reply.resume().on("end", () => incoming.socket.destroy());
        return;
      }
      outgoing.writeHead(reply.statusCode ?? 502, reply.headers);
      reply.pipe(outgoing);
    });
    onward.on("error", () => outgoing.destroy());
    incoming.pipe(onward);
  });
  server.on("upgrade", (incoming, socket, head) => {
    upgraded.add(socket.on("close", () => upgraded.delete(socket)));
    const onward = to(incoming.url, incoming.method, incoming.headers);
    onward.on("upgrade", (reply, far, farHead) => {
      const lines = Object.entries(reply.headers).map(([header, value]) => `${header}: ${String(value)}`);
      socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join("\r\n")}\r\n\r\n`);
      far.write(head);
      socket.write(farHead);
      far.pipe(socket).pipe(far);
      far.on("error", () => socket.destroy());
      socket.on("error", () => far.destroy());
    });
    onward.on("error", () => socket.destroy());
    onward.end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    loseReplies: (name, count) => void losses.set(name, count),
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
        for (const socket of upgraded) socket.destroy();
      }),
  };
}
