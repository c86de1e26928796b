import { describe, expect, it } from "vitest";
import { batchCalls, type BatchOptions, createGuard, memoryStore, type RpcReply } from "../index.ts";

const timer = (run: () => void, ms: number): (() => void) => {
  const timeout = setTimeout(run, ms);
  return () => clearTimeout(timeout);
};
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Trip {
  readonly name: string;
  /** Request ids, in order. */
  readonly ids: readonly string[];
  answer(reply?: RpcReply): void;
  fail(): void;
}

/** A clock that moves only when the test moves it: no stall of the machine passes for a slow database. */
function stillClock() {
  let nowMs = 0;
  const set = new Set<{ readonly atMs: number; readonly run: () => void }>();
  return {
    timer: (run: () => void, ms: number): (() => void) => {
      const timeout = { atMs: nowMs + ms, run };
      set.add(timeout);
      return () => set.delete(timeout);
    },
    pass: (ms: number): void => {
      nowMs += ms;
      for (const timeout of [...set].toSorted((a, b) => a.atMs - b.atMs))
        if (timeout.atMs <= nowMs && set.delete(timeout)) timeout.run();
    },
  };
}

/** A database whose trips end when the test says so; unless given otherwise each call is answered with its own id. */
function database(options: BatchOptions = {}, rpcTimeoutMs = 5_000) {
  const trips: Trip[] = [];
  const rpc = (name: string, args: Record<string, unknown>): Promise<RpcReply> =>
    new Promise((resolve, reject) => {
      const isMany = name.endsWith("_many");
      const ids = isMany
        ? (args["p_calls"] as { request_id: string }[]).map(({ request_id: id }) => id)
        : [String(args["p_request_id"])];
      const slots = ids.map((id) => ({ request_id: id }));
      trips.push({
        name,
        ids,
        answer: (reply) => resolve(reply ?? { data: isMany ? slots : slots[0], error: null, status: 200 }),
        fail: () => reject(new TypeError("socket hang up")),
      });
    });
  const clock = stillClock();
  const client = batchCalls({ rpc }, { timer: clock.timer, rpcTimeoutMs }, options);
  const authorize = (id: string, user = `user of ${id}`, message = "") =>
    client.rpc("authorize_usage", { p_request_id: id, p_user_id: user, p_message: message });
  const settle = (id: string) => client.rpc("settle_usage", { p_request_id: id, p_input_tokens: 1 });
  /** The trips so far: what each carried. */
  const carried = async (): Promise<string[]> => {
    await pause(1);
    return trips.map(({ ids }) => ids.join(" "));
  };
  return { trips, client, authorize, settle, carried, pass: clock.pass };
}

const names = (from: number, to: number): string[] =>
  Array.from({ length: to - from + 1 }, (_, at) => `r${from + at}`);

describe("calls in batches", () => {
  it("one that finds nothing under way goes at once, alone, through its single function", async () => {
    const { authorize, trips, carried } = database();
    const answer = authorize("r1");
    expect(await carried()).toEqual(["r1"]);
    expect(trips[0]?.name).toBe("authorize_usage");
    trips[0]?.answer();
    expect(await answer).toMatchObject({ data: { request_id: "r1" } });
  });

  it("what waits while batches are under way goes with the next, each answered with its own", async () => {
    const { authorize, trips, carried } = database({ mostBatches: 1 });
    const first = authorize("r0");
    await carried();
    const others = names(1, 5).map((id) => authorize(id));
    expect(await carried()).toEqual(["r0"]);
    trips[0]?.answer();
    await first;
    expect(await carried()).toEqual(["r0", "r1 r2 r3 r4 r5"]);
    expect(trips[1]?.name).toBe("authorize_usage_many");
    trips[1]?.answer();
    expect(
      (await Promise.all(others)).map(({ data }) => (data as { request_id: string }).request_id),
    ).toEqual(names(1, 5));
  });

  it("callers that ask in one moment travel together, and again when they were answered together", async () => {
    const { authorize, settle, trips, carried } = database();
    const callers = names(1, 4).map(async (id) => {
      await authorize(id);
      return settle(id);
    });
    expect(await carried()).toEqual([names(1, 4).join(" ")]);
    trips[0]?.answer();
    expect(await carried()).toEqual([names(1, 4).join(" "), names(1, 4).join(" ")]);
    expect(trips[1]?.name).toBe("settle_usage_many");
    trips[1]?.answer();
    await Promise.all(callers);
  });

  it("many that wait are divided among the batches that may go, and all of one account go in one", async () => {
    const { authorize, trips, carried } = database({ mostBatches: 2 });
    for (const id of names(1, 24)) void authorize(id, Number(id.slice(1)) % 6 ? id : "ann");
    expect(await carried()).toEqual([
      "r1 r2 r3 r4 r5 r6 r7 r8 r9 r10 r11 r12 r18 r24",
      "r13 r14 r15 r16 r17 r19 r20 r21 r22 r23",
    ]);
    // Each half is answered together, and asks again together, while the other is under way.
    trips[1]?.answer();
    for (const id of names(31, 36)) void authorize(id);
    expect((await carried()).slice(2)).toEqual([names(31, 36).join(" ")]);
  });

  it("a straggler does not take the place of a whole batch, but it goes with the next", async () => {
    const { authorize, settle, trips, carried } = database({ mostBatches: 1 });
    void authorize("r0");
    await carried();
    void settle("late");
    for (const id of names(1, 9)) void authorize(id);
    trips[0]?.answer();
    expect(await carried()).toEqual(["r0", names(1, 9).join(" ")]);
    for (const id of names(11, 19)) void authorize(id);
    trips[1]?.answer();
    expect((await carried()).slice(2)).toEqual(["late"]);
  });

  it("many of an account wait behind its settlement, however many they are", async () => {
    const { authorize, settle, trips, carried } = database({ mostBatches: 1 });
    void authorize("a0", "ann");
    await carried();
    void settle("a0");
    for (const id of names(1, 20)) void authorize(id, "ann");
    trips[0]?.answer();
    expect(await carried()).toEqual(["a0", "a0"]);
    trips[1]?.answer();
    expect((await carried()).slice(2)).toEqual([names(1, 20).join(" ")]);
  });

  it("a batch is bounded in calls and in bytes, and what is larger goes alone", async () => {
    const { authorize, trips, carried } = database({ mostCalls: 3, mostBytes: 400, mostBatches: 10 });
    for (const id of names(1, 4)) void authorize(id);
    void authorize("long1", "a", "x".repeat(250));
    void authorize("long2", "b", "x".repeat(250));
    void authorize("huge", "c", "ä".repeat(300));
    await carried();
    expect(trips.map(({ ids }) => ids)).toEqual([["r1", "r2", "r3"], ["r4", "long1"], ["long2"], ["huge"]]);
  });

  it("calls of one account keep their order, also between their kinds", async () => {
    const { authorize, settle, trips, carried } = database({ mostBatches: 5 });
    void authorize("a1", "ann");
    await carried();
    void authorize("a2", "ann");
    void settle("a1");
    void authorize("a3", "ann");
    void authorize("b1", "bob");
    // Ann's wait for her first; Bob waits for nobody.
    expect(await carried()).toEqual(["a1", "b1"]);
    trips[0]?.answer();
    expect(await carried()).toEqual(["a1", "b1", "a2"]);
    trips[2]?.answer();
    expect(await carried()).toEqual(["a1", "b1", "a2", "a1"]);
    trips[3]?.answer();
    expect(await carried()).toEqual(["a1", "b1", "a2", "a1", "a3"]);
  });

  it("a slot that is refused fails alone, with the single function's error and status", async () => {
    const { authorize, trips, carried } = database();
    const calls = names(1, 3).map((id) => authorize(id));
    await carried();
    const refused = { code: "PT409", hint: "idempotency_conflict", message: "no", details: null };
    trips[0]?.answer({ data: [{ request_id: "r1" }, { error: refused }, { request_id: "r3" }], error: null });
    expect(await Promise.all(calls)).toEqual([
      { data: { request_id: "r1" }, error: null },
      { data: null, status: 409, error: refused },
      { data: { request_id: "r3" }, error: null },
    ]);
  });

  it("text that would spoil a whole batch goes by itself", async () => {
    const { authorize, carried } = database({ mostBatches: 9 });
    for (const [id, message] of [
      ["r1", "fine"],
      ["nul", "a\0b"],
      ["half", "\ud83d"],
      ["whole", "\u{1f600} \\u0001"],
    ] as const)
      void authorize(id, id, message);
    expect((await carried()).sort()).toEqual(["half", "nul", "r1 whole"]);
  });

  it("a batch that is refused as a whole for what one call says goes in halves, until that call is alone", async () => {
    const { authorize, trips, carried } = database();
    const calls = names(1, 4).map((id) => authorize(id));
    const refused: RpcReply = {
      data: null,
      status: 400,
      error: { code: "22P05", message: "unsupported Unicode escape" },
    };
    for (let trip = 0; (await carried()).length > trip; trip++)
      trips[trip]?.answer(trips[trip]?.ids.includes("r3") ? refused : undefined);
    expect((await Promise.all(calls)).map(({ error }) => error?.code)).toEqual([
      undefined,
      undefined,
      "22P05",
      undefined,
    ]);
    expect(await carried()).toEqual(["r1 r2 r3 r4", "r1 r2", "r3 r4", "r3", "r4"]);
  });

  it("a batch without an answer fails all its callers; asked again they travel in smaller ones, alone at last", async () => {
    const { authorize, trips, carried } = database({ mostBatches: 1 });
    const ask = (id: string) =>
      authorize(id)
        .catch(() => authorize(id))
        .catch(() => authorize(id)); // prettier-ignore
    for (const id of names(1, 16)) void ask(id);
    await carried();
    trips[0]?.fail();
    expect(await carried()).toEqual([names(1, 16).join(" "), "r1 r2 r3 r4"]);
    trips[1]?.fail();
    expect((await carried())[2]).toBe("r5 r6 r7 r8");
    for (let trip = 2; trip < 5; trip++) {
      trips[trip]?.answer();
      await carried();
    }
    expect((await carried()).slice(4)).toEqual(["r13 r14 r15 r16", "r1"]);
  });

  it("a call whose account somebody else holds waits for it by itself, and holds up no other", async () => {
    const { authorize, trips, carried, pass } = database({ mostBatches: 1 });
    const [first, busy] = [authorize("r1"), authorize("busy")];
    await carried();
    const slot = { error: { code: "55P03", hint: "account_busy", message: "busy", details: null } };
    trips[0]?.answer({ data: [{ request_id: "r1" }, slot], error: null });
    expect(await first).toMatchObject({ error: null });
    expect(await carried()).toEqual(["r1 busy", "busy"]);
    expect(trips[1]?.name).toBe("authorize_usage");
    void authorize("later");
    expect(await carried()).toEqual(["r1 busy", "busy"]);
    pass(300);
    // A trip that takes long no longer counts.
    expect(await carried()).toEqual(["r1 busy", "busy", "later"]);
    trips[1]?.answer();
    expect(await busy).toMatchObject({ data: { request_id: "busy" } });
  });

  it("a trip without an answer is given up in time, and those behind it go", async () => {
    const { authorize, trips, carried, pass } = database({ mostBatches: 1 }, 40);
    const [first, second] = [authorize("r1"), authorize("r2")];
    await carried();
    const third = authorize("r3");
    expect(await carried()).toEqual(["r1 r2"]);
    pass(40);
    expect((await first).error?.message).toContain("did not answer in time");
    expect((await second).status).toBe(0);
    expect(await carried()).toEqual(["r1 r2", "r3"]);
    trips[1]?.answer();
    expect((await third).error).toBeNull();
  });

  it.each([
    ["calls", { mostBatches: 1, mostWaiting: 2 }],
    ["bytes", { mostBatches: 1, mostWaitingBytes: 170 }],
  ])("a queue that is full of %s refuses at once and says so", async (_what, options) => {
    const { authorize, carried } = database(options);
    void authorize("r0");
    await carried();
    void authorize("r1");
    void authorize("r2");
    const { error, status } = await authorize("r3");
    expect(status).toBe(503);
    expect(error?.hint).toBe("too_many_waiting");
    expect(error?.message).toMatch(/2 calls \([\d,]+ bytes\) wait for the database already/);
  });

  it("a call that is cancelled while it waits is never sent", async () => {
    const { authorize, trips, client, carried } = database({ mostBatches: 1 });
    const under = authorize("r0");
    await carried();
    const [left, stays] = [authorize("left"), authorize("stays")];
    expect(left.cancel()).toBe(true);
    expect(client.waiting).toBe(1);
    expect(under.cancel()).toBe(false);
    trips[0]?.answer();
    expect(await carried()).toEqual(["r0", "stays"]);
    trips[1]?.answer();
    await stays;
  });

  it("what cannot be written as JSON fails alone", async () => {
    const { client, authorize, trips, carried } = database();
    const broken = client.rpc("authorize_usage", { p_request_id: "b", p_estimated_tokens: 1n });
    const sound = authorize("r1");
    await expect(broken).rejects.toThrow("BigInt");
    await carried();
    trips[0]?.answer();
    expect((await sound).error).toBeNull();
  });
});

describe("a guard whose calls travel in batches", () => {
  interface Changes {
    /** Says nothing. */
    readonly isSilent?: boolean;
    readonly delayMs?: number;
    /** Answers nothing before. */
    readonly answered?: Promise<void>;
    readonly batch?: BatchOptions;
  }

  /** Answers everything after so many ms. */
  function guarded(changes: Changes = {}) {
    const asked: string[] = [];
    const slot = (id: unknown) => ({
      request_id: id,
      decision: "allow",
      http_status: 200,
      model: "m",
      reserved_tokens: 1,
      status: "settled",
    });
    let serial = 0;
    const guard = createGuard({
      client: {
        async rpc(name, args): Promise<RpcReply> {
          const calls = args["p_calls"] as { request_id: string }[] | undefined;
          asked.push(`${name} ${calls?.length ?? 1}`);
          if (changes.isSilent) return new Promise(() => undefined);
          await (changes.answered ?? pause(changes.delayMs ?? 2));
          const data = calls ? calls.map(({ request_id: id }) => slot(id)) : slot(args["p_request_id"]);
          return { data, error: null, status: 200 };
        },
      },
      store: memoryStore(),
      now: Date.now,
      timer,
      newId: () => `id-${++serial}`,
      rpcTimeoutMs: changes.isSilent ? 60 : 30_000,
      retryDelayMs: 1,
      rpcRetries: 0,
      ...(changes.batch ? { batch: changes.batch } : {}),
    });
    const run = (user: string, signal?: AbortSignal) =>
      guard.run({ user, model: "m", ...(signal ? { signal } : {}) }, async () => ({ tokensUsed: 3 }));
    return { guard, asked, run };
  }

  it("needs a tenth of the trips for many callers at once", async () => {
    const { guard, asked, run } = guarded();
    const results = await Promise.all(Array.from({ length: 100 }, (_, n) => run(`user-${n}`)));
    expect(results.every(({ ok }) => ok)).toBe(true);
    await guard.idle();
    expect(guard.queueLength).toBe(0);
    expect(asked.length).toBeLessThan(20);
  });

  it("answers each caller by its deadline, and a caller who waited in vain is never sent", async () => {
    const { asked, run } = guarded({ isSilent: true, batch: { mostBatches: 1, mostBytes: 1 } });
    const first = run("ann");
    await pause(1);
    const start = Date.now();
    const [held, , waited] = await Promise.all([first, run("bob"), run("cem")]);
    // The deadline is 60 ms; how long a stalled machine needs to come to it is not what is tested.
    expect(Date.now() - start).toBeLessThan(20_000);
    expect(held).toMatchObject({
      error: { kind: "unavailable", reason: "authorize_usage did not answer in time." },
    });
    expect(waited).toMatchObject({
      error: { kind: "unavailable", reason: "authorize_usage waited too long behind other calls." },
    });
    expect(asked.filter((name) => name.startsWith("authorize_usage")).length).toBeLessThan(3);
  });

  it("refuses clearly when too many wait", async () => {
    const { run } = guarded({ delayMs: 20, batch: { mostBatches: 1, mostWaiting: 3 } });
    const results = await Promise.all(Array.from({ length: 9 }, () => run("ann")));
    const refused = results.filter(({ ok }) => !ok);
    expect(refused.length).toBeGreaterThan(0);
    expect(refused[0]).toMatchObject({ error: { kind: "unavailable", http_status: 503 } });
    expect(refused[0]).toMatchObject({
      error: { reason: expect.stringContaining("wait for the database already") },
    });
  });

  it("does not make the call of a caller who has left, and gives back what may be held", async () => {
    // The database answers when both have left, however long this machine takes to get there.
    let answer = (): void => undefined;
    const answered = new Promise<void>((resolve) => {
      answer = resolve;
    });
    const { guard, asked, run } = guarded({ answered, batch: { mostBatches: 1 } });
    const [waits, underWay] = [new AbortController(), new AbortController()];
    const second = run("bob", underWay.signal);
    while (asked.length === 0) await pause(1);
    const third = run("cem", waits.signal);
    await pause(1);
    waits.abort();
    underWay.abort();
    answer();
    for (const result of [await second, await third])
      expect(result).toMatchObject({ error: { kind: "aborted", http_status: 499 } });
    await guard.idle();
    expect(asked).toEqual(["authorize_usage 1", "release_usage 1"]);
  });

  it("stops a call whose caller leaves, and charges a stream as if its reader had left, who gets the reason", async () => {
    const { guard } = guarded();
    const controller = new AbortController();
    const stopped = guard.run(
      { user: "ann", model: "m", signal: controller.signal },
      ({ onAbort }) => new Promise((_, reject) => onAbort(() => reject(new Error("stopped")))),
    );
    setTimeout(() => controller.abort(), 20);
    expect(await stopped).toMatchObject({ error: { kind: "call_failed", reason: "stopped" } });

    const other = new AbortController();
    const stream = await guard.stream({ user: "ann", model: "m", signal: other.signal }, async () =>
      (async function* () {
        yield { choices: [{ delta: { content: "abcd" } }] };
        await new Promise(() => undefined);
      })(),
    );
    if (!stream.ok) throw new Error(stream.error.kind);
    const reader = stream.value.value[Symbol.asyncIterator]();
    await reader.next();
    const waiting = reader.next();
    other.abort();
    await expect(waiting).rejects.toBe(other.signal.reason);
    expect(await stream.value.settlement).toMatchObject({ status: "settled" });
  });

  it("sends what an earlier process left many at a time, once the database is there", async () => {
    const { asked } = guarded();
    const store = memoryStore();
    for (let n = 0; n < 1_000; n++)
      await store.put({
        id: `e${n}`,
        request_id: `r${n}`,
        function: "settle_usage",
        args: { p_request_id: `r${n}`, p_input_tokens: 1, p_output_tokens: 1 },
        queued_at_ms: n,
      });
    const guard = createGuard({
      client: {
        async rpc(name, args): Promise<RpcReply> {
          const calls = args["p_calls"] as unknown[] | undefined;
          asked.push(name);
          await pause(1);
          return {
            data: calls ? calls.map(() => ({ status: "settled" })) : { status: "settled" },
            error: null,
          };
        },
      },
      store,
      now: Date.now,
      timer,
      newId: () => "x",
    });
    expect(await guard.drain()).toEqual({ sent: 1_000, waiting: 0, parked: 0 });
    expect(await store.list()).toEqual([]);
    expect(asked.length).toBeLessThan(20);
  });
});
