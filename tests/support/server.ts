import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";

/**
 * A server of a test, not listening yet. An answer that cannot be made, because the caller or what is behind the server
 * is gone, cuts the line: as a rejection it would count against whatever test runs at that moment.
 */
export function createTestServer(
  answer: (request: IncomingMessage, response: ServerResponse) => Promise<unknown>,
): Server {
  return createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
}
