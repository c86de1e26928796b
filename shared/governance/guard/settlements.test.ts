import { describe, expect, it } from "vitest";
import {
  completion,
  makeGuard,
  request,
  scriptedDatabase,
  wait,
} from "../../../tests/support/scripted-guard.ts";
import { memoryStore } from "../index.ts";

describe("what is owed", () => {
  it("is sent though the oldest of it cannot be: what failed last goes last", async () => {
    const database = scriptedDatabase();
    const { guard, store } = makeGuard(database);
    for (let n = 0; n < 40; n++) {
      database.held.set(`r${n}`, "held");
      await store.put({
        id: `e${n}`,
        request_id: `r${n}`,
        function: "settle_usage",
        args: { p_request_id: `r${n}`, p_input_tokens: 1, p_output_tokens: 1 },
        queued_at_ms: n,
      });
    }
    // The seven oldest are of an account that another transaction has locked.
    const locked = new Set(["r0", "r1", "r2", "r3", "r4", "r5", "r6"]);
    database.failWith((_, args) => (locked.has(String(args["p_request_id"])) ? "throws" : null));
    await guard.drain();
    await expect.poll(async () => (await store.list()).map((entry) => entry.request_id)).toEqual([...locked]);
    locked.clear();
    await guard.idle();
    expect(new Set(database.held.values())).toEqual(new Set(["settled 2"]));
  });

  it("and was refused for good is kept for a person also where the store was away at that moment", async () => {
    const database = scriptedDatabase();
    const memory = memoryStore();
    let isAway = true;
    const reached = async <T>(run: () => Promise<T>): Promise<T> => {
      if (isAway) throw new Error("store away");
      return run();
    };
    const { guard, problems } = makeGuard(database, {
      store: {
        put: (entry) => reached(() => memory.put(entry)),
        remove: (id) => reached(() => memory.remove(id)),
        list: () => reached(() => memory.list()),
      },
    });
    database.failWith((name) => (name === "settle_usage" ? database.refusal(400, "invalid_argument") : null));
    const result = await guard.run({ ...request, request_id: "r" }, async () => completion(4, 4));
    expect(result.ok && (await result.value.settlement)).toEqual({ status: "queued" });
    await wait(20);
    expect(guard.queueLength).toBe(1);
    expect(problems.some(({ kind }) => kind === "settlement_parked")).toBe(false);
    isAway = false;
    await guard.idle();
    expect(await guard.parked()).toMatchObject([{ request_id: "r", parked: /invalid_argument/ }]);
    expect(guard.queueLength).toBe(0);
  });

  it("for a call that was cut off is waited for while its provider's record is looked up", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database, {
      callTimeoutMs: 5_000,
      unsure: async () => {
        await wait(50);
        return completion(9, 1);
      },
    });
    await guard.run({ ...request, request_id: "r" }, async () => {
      throw Object.assign(new Error("reset"), { code: "ECONNRESET" });
    });
    await guard.idle();
    expect(database.held.get("r")).toBe("settled 10");
  });
});

describe("a hold", () => {
  it("under a caller's own key stays where the answer was lost: the repeat uses it", async () => {
    const database = scriptedDatabase();
    database.answerWith((args) => ({ ...database.allow(args), fail_mode: "closed" }));
    const { guard, store } = makeGuard(database);
    database.failWith((name) => (name === "authorize_usage" ? "lost" : "throws"));
    const mine = { ...request, request_id: "mine" };
    expect(await guard.run(mine, async () => completion(1, 1))).toMatchObject({
      error: { kind: "unavailable" },
    });
    expect(await store.list()).toEqual([]);
    database.failWith(null);
    const heldDuringCall = await guard.run(mine, async () => {
      await wait(20);
      return { state: database.held.get("mine"), ...completion(3, 4) };
    });
    expect(heldDuringCall).toMatchObject({ ok: true, value: { value: { state: "held" } } });
    await guard.idle();
    expect([...database.held]).toEqual([["mine", "settled 7"]]);
  });

  it("under a caller's own key stays where the caller left before the answer was known", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database, { rpcTimeoutMs: 5_000 });
    database.failWith(() => "silent");
    const leaving = new AbortController();
    const left = guard.run({ ...request, request_id: "mine", signal: leaving.signal }, async () =>
      completion(1, 1),
    );
    await wait(5);
    leaving.abort();
    expect(await left).toMatchObject({ error: { kind: "aborted" } });
    database.failWith(null);
    await guard.idle();
    expect(database.asked.map(({ name }) => name)).toEqual(["authorize_usage"]);
  });

  it("under the guard's own key is given back where the answer was lost", async () => {
    const database = scriptedDatabase();
    database.answerWith((args) => ({ ...database.allow(args), fail_mode: "closed" }));
    const { guard } = makeGuard(database);
    database.failWith((name) => (name === "authorize_usage" ? "lost" : null));
    expect(await guard.run(request, async () => completion(1, 1))).toMatchObject({
      error: { kind: "unavailable" },
    });
    await guard.idle();
    expect([...database.held.values()]).toEqual(["released"]);
  });

  it("of a call that ran though its answer was lost is given back where the call fails", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database, { failMode: () => "open" });
    database.failWith((name) => (name === "authorize_usage" ? "lost" : null));
    await guard.run(request, async () => {
      throw Object.assign(new Error("bad request"), { status: 400 });
    });
    await guard.idle();
    expect([...database.held.values()]).toEqual(["released"]);
  });

  it("under a caller's own key stays also where its call ran without an answer, and failed", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database, { failMode: () => "open" });
    database.failWith((name) => (name === "authorize_usage" ? "lost" : null));
    await guard.run({ ...request, request_id: "mine" }, async () => {
      throw Object.assign(new Error("bad request"), { status: 400 });
    });
    await guard.idle();
    expect([...database.held]).toEqual([["mine", "held"]]);
  });

  it("that cannot be is not given back: the call ran without ever having been asked for", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database, { failMode: () => "open", batch: { mostWaiting: 0 } });
    const result = await guard.run(request, async () => {
      throw Object.assign(new Error("bad request"), { status: 400 });
    });
    expect(result).toMatchObject({ error: { kind: "call_failed" } });
    await guard.idle();
    expect(database.asked).toEqual([]);
  });

  it.each([
    ["has no prototype", Object.assign(Object.create(null), { code: "x" })],
    ["has no message", Object.assign(new Error("x"), { message: undefined })],
    ["has an object for a message", Object.assign(new Error("x"), { message: { detail: 1 } })],
    ["has a status that is no number", Object.assign(new Error("x"), { status: Object.create(null) })],
    [
      "throws when it is looked at",
      Object.defineProperty({}, "status", {
        get() {
          throw new Error("no");
        },
      }),
    ],
  ])("is given back where what was thrown %s", async (_which, thrown) => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const result = await guard.run({ ...request, request_id: "run" }, () => Promise.reject(thrown));
    expect(result).toMatchObject({ error: { kind: "call_failed", reason: expect.any(String) } });
    const stream = await guard.stream({ ...request, request_id: "stream" }, async () =>
      (async function* () {
        yield { choices: [{ delta: { content: "four" } }] };
        throw thrown;
      })(),
    );
    if (!stream.ok) throw new Error(stream.error.kind);
    const reader = stream.value.value[Symbol.asyncIterator]();
    await reader.next();
    await expect(reader.next()).rejects.toBe(thrown);
    await guard.idle();
    expect(Object.fromEntries(database.held)).toEqual({ run: "released", stream: "settled 6" });
  });
});
