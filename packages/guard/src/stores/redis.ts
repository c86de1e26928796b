import type { QueuedSettlement, SettlementStore } from "../../../../shared/governance/guard/index.ts";

/**
 * Sends one Redis command and answers its reply. With ioredis: `([name, ...args]) => redis.call(name, ...args)`; with
 * node-redis: `(command) => redis.sendCommand(command)`; over HTTP: `redisOverHttp`.
 */
export type RedisSend = (command: [string, ...string[]]) => PromiseLike<unknown>;

/** Settlements in one hash of a Redis, Valkey or anything that speaks their commands: for several machines. */
export function redisStore(send: RedisSend, key = "guard:settlements"): SettlementStore {
  return {
    async put(entry) {
      await send(["HSET", key, entry.id, JSON.stringify(entry)]);
    },
    async remove(id) {
      await send(["HDEL", key, id]);
    },
    async list() {
      const values = await send(["HVALS", key]);
      if (!Array.isArray(values)) throw new Error("The store did not answer HVALS with a list.");
      return values
        .map((text) => JSON.parse(String(text)) as QueuedSettlement)
        .sort((a, b) => a.queued_at_ms - b.queued_at_ms);
    },
  };
}

/** Commands as HTTP requests, as Upstash and others take them: for runtimes without sockets. Rejects what is refused. */
export function redisOverHttp({ url, token }: { readonly url: string; readonly token: string }): RedisSend {
  return async (command) => {
    const response = await fetch(url, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(command),
    });
    if (!response.ok) throw new Error(`The store answered ${response.status}.`);
    return ((await response.json()) as { result?: unknown }).result;
  };
}
