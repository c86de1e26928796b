/** A call over HTTP, and what is answered to it. */
import type { IncomingHttpHeaders } from "node:http";
import type { Caller } from "./keys.ts";

export interface RpcRequest {
  readonly method: "GET" | "HEAD" | "POST";
  readonly functionName: string;
  readonly query: URLSearchParams;
  readonly headers: IncomingHttpHeaders;
  /** Empty for GET and HEAD. */
  readonly body: Buffer;
  readonly caller: Caller;
}

export interface RpcResponse {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}
