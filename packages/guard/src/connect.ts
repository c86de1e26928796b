import { isRecord } from "../../../shared/governance/values.ts";
import type { RpcClient, RpcError, RpcReply } from "../../../shared/governance/guard/index.ts";

/** A project's URL and its service-role key, which stays on the server. */
export interface Project {
  readonly url: string;
  readonly key: string;
}

function errorIn(body: unknown, status: number): RpcError {
  if (!isRecord(body) || typeof body["message"] !== "string")
    return { message: `The project answered ${status}.` };
  const text = (value: unknown): string | null => (typeof value === "string" ? value : null);
  return {
    message: body["message"],
    code: text(body["code"]),
    hint: text(body["hint"]),
    details: body["details"],
  };
}

/**
 * A connection to a project over its HTTP interface: for backends that do not use supabase-js. Its `rpc` answers as
 * supabase-js does, and rejects where nothing answered.
 */
export function connect({ url, key }: Project, send: typeof fetch = fetch): RpcClient {
  const base = `${url.replace(/\/+$/, "")}/rest/v1/rpc/`;
  return {
    async rpc(name, args): Promise<RpcReply> {
      const response = await send(base + name, {
        method: "POST",
        headers: { apikey: key, authorization: `Bearer ${key}`, "content-type": "application/json" },
        body: JSON.stringify(args),
      });
      const text = await response.text();
      let body: unknown = null;
      try {
        body = text === "" ? null : JSON.parse(text);
      } catch {
        // A gateway's page: its status is all there is to go by.
        if (response.ok) return { data: null, error: { message: "The answer is no JSON." }, status: 502 };
      }
      return response.ok
        ? { data: body, error: null, status: response.status }
        : { data: null, error: errorIn(body, response.status), status: response.status };
    },
  };
}
