import { afterEach, describe, expect, it, vi } from "vitest";
import {
  type AuthorizeAnswer,
  type CallContext,
  type GuardFailure,
  learnEstimates,
  memoryStore,
  type QueuedSettlement,
  type RpcReply,
  type SettlementStore,
  toHttp,
} from "../index.ts";
import {
  calls,
  completion,
  makeGuard,
  request,
  scriptedDatabase,
  wait,
} from "../../../tests/support/scripted-guard.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

describe("a guarded call", () => {
  it("runs with the model and the shortened message of the decision, and charges exactly what it used", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    let seen: CallContext | null = null;
    const result = await guard.run(request, async (context) => {
      seen = context;
      return completion(30, 12);
    });
    if (!result.ok) throw new Error(result.error.kind);
    expect(seen).toMatchObject({ model: "routed-model", message: "one two three" });
    expect(await result.value.settlement).toMatchObject({ status: "settled" });
    expect(database.held.get(result.value.request_id)).toBe("settled 42");
    expect(guard.queueLength).toBe(0);
  });

  it("is not made when the decision is block, and says so over HTTP with what to do", async () => {
    const database = scriptedDatabase();
    database.answerWith((args) => ({
      ...database.allow(args),
      decision: "block",
      reason: "daily_limit",
      http_status: 429,
      message: "Enough.",
      retry_after_seconds: 90,
      upgrade: { plan_id: "gold", name: "Gold" },
    }));
    const { guard } = makeGuard(database);
    const call = vi.fn();
    const result = await guard.run(request, call);
    expect(call).not.toHaveBeenCalled();
    if (result.ok) throw new Error("should be blocked");
    expect(toHttp(result.error)).toEqual({
      status: 429,
      headers: { "content-type": "application/json", "retry-after": "90" },
      body: {
        error: "daily_limit",
        message: "Enough.",
        retry_after_seconds: 90,
        upgrade: { plan_id: "gold", name: "Gold" },
      },
    });
  });

  it("is answered in the caller's language, with what was missing and where to buy, upgrade or ask", () => {
    const failure: GuardFailure = {
      kind: "blocked",
      http_status: 402,
      reason: "insufficient_tokens",
      answer: {
        message: "You do not have enough tokens left for this.",
        shortfall: { need: 10, have: 3, missing: 7 },
        upgrade: { plan_id: "gold", name: "Gold", url: "https://app.example.com/plans" },
        buy_url: "https://app.example.com/buy",
        contact_url: "mailto:help@example.com",
      } as unknown as AuthorizeAnswer,
    };
    expect(toHttp(failure, { language: "de-AT" })).toMatchObject({
      status: 402,
      body: {
        error: "insufficient_tokens",
        message: "Dafür reichen Ihre Tokens nicht mehr.",
        shortfall: { need: 10, have: 3, missing: 7 },
        upgrade: { url: "https://app.example.com/plans" },
        buy_url: "https://app.example.com/buy",
        contact_url: "mailto:help@example.com",
      },
    });
    const away = { kind: "unavailable", http_status: 503, reason: "no route to host" } as const;
    expect(toHttp(away, { language: "de" }).body["message"]).toMatch(/^Der Dienst kann gerade nicht/);
    expect(toHttp(away, { language: "xx" }).body["message"]).toMatch(/^The service cannot/);
  });

  it("gives its tokens back when the provider's call throws, at once or later", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const later = await guard.run({ ...request, request_id: "later" }, async () =>
      Promise.reject(new Error("429 from provider")),
    );
    const atOnce = await guard.run({ ...request, request_id: "at once" }, () => {
      throw new Error("no key");
    });
    await guard.idle();
    expect([later, atOnce]).toMatchObject([
      { ok: false, error: { kind: "call_failed", http_status: 502, reason: "429 from provider" } },
      { ok: false, error: { kind: "call_failed" } },
    ]);
    expect([database.held.get("later"), database.held.get("at once")]).toEqual(["released", "released"]);
  });

  it("that takes too long is given up, aborted, and still charged when its answer comes after all", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    let aborted = false;
    const result = await guard.run({ ...request, request_id: "slow" }, async (context) => {
      context.onAbort(() => {
        aborted = true;
      });
      await wait(120);
      return completion(5, 6);
    });
    expect(result).toMatchObject({ ok: false, error: { kind: "call_timed_out", http_status: 504 } });
    expect(aborted).toBe(true);
    expect(database.held.get("slow")).toBe("held");
    await wait(100);
    await guard.idle();
    expect(database.held.get("slow")).toBe("settled 11");
  });

  it("whose usage cannot be read is charged what was held, and reported", async () => {
    const database = scriptedDatabase();
    const { guard, problems } = makeGuard(database);
    const result = await guard.run({ ...request, request_id: "odd" }, async () => ({ text: "hello" }));
    await guard.idle();
    expect(result.ok).toBe(true);
    expect(database.held.get("odd")).toBe("settled 500");
    expect(problems).toMatchObject([{ kind: "usage_unknown", request_id: "odd" }]);
  });

  it("that repeats a key which has ended is charged as the use it is, under a key of its own, once", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const again = { ...request, request_id: "mine", task: "chat" };
    await guard.run(again, async () => Promise.reject(new Error("500")));
    await guard.idle();
    expect(database.held.get("mine")).toBe("released");
    // The reply to the settlement is lost: it is asked again, under the same key of its own.
    let replies = 0;
    database.failWith((name) => (name === "settle_usage" && ++replies === 2 ? "lost" : null));
    const second = await guard.run(again, async () => completion(3, 4));
    expect(second.ok && (await second.value.settlement)).toMatchObject({ status: "settled" });
    const third = await guard.run(again, async () => completion(5, 6));
    expect(third.ok && (await third.value.settlement)).toMatchObject({ status: "settled" });
    expect([...database.held.values()]).toEqual(["released", "settled 7", "settled 11"]);
    const late = database.asked.filter(({ args }) => args["p_estimated_tokens"] === 1);
    expect(late).toHaveLength(2);
    expect(late[0]?.args).toMatchObject({ p_user_id: "ann", p_model: "gpt-4o", p_task_type: "chat" });
    expect(late[0]?.args).not.toHaveProperty("p_message");
    expect(database.asked.at(-1)?.args["p_metadata"]).toMatchObject({ repeat_of: "mine" });
  });

  it("ends well though the backend's own functions reject", async () => {
    // What nobody handles ends a process, and fails this test's run.
    const database = scriptedDatabase();
    const boom = async () => Promise.reject(new Error("boom"));
    const { guard } = makeGuard(database, { onProblem: boom });
    await guard.run({ ...request, request_id: "odd" }, async () => ({ text: "no usage" }));
    await guard.run(request, async (context) => {
      context.onAbort(boom);
      await wait(90);
      return completion(1, 1);
    });
    await wait(60);
    await guard.idle();
    expect([...database.held.values()]).toEqual(["settled 500", "settled 2"]);
  });

  it("ends well though the backend's own functions throw, and does not wait for a store that hangs", async () => {
    const database = scriptedDatabase();
    const boom = () => {
      throw new Error("boom");
    };
    const hung = async () => new Promise<never>(() => undefined);
    const learner = { learn: boom, estimate: boom, error: boom };
    const { guard } = makeGuard(database, { onProblem: boom, waitUntil: boom, failMode: boom, learner });
    expect((await guard.run(request, async () => completion(1, 1))).ok).toBe(true);
    const result = await guard.run({ ...request, request_id: "odd" }, async () => ({ text: "no usage" }));
    expect(result.ok && (await result.value.settlement)).toMatchObject({ status: "settled" });
    database.failWith(() => "throws");
    expect(await guard.run({ user: "new", model: "m" }, async () => completion(1, 1))).toMatchObject({
      ok: false,
      error: { kind: "unavailable" },
    });
    database.failWith(null);
    const { guard: other, problems } = makeGuard(database, {
      store: { put: hung, remove: hung, list: hung },
    });
    const settled = await other.run({ ...request, request_id: "s" }, async () => completion(2, 2));
    expect(settled.ok && (await settled.value.settlement)).toMatchObject({ status: "settled" });
    expect(problems.map((problem) => problem.kind)).toEqual(["store_failed", "store_failed"]);
    await expect(other.drain()).rejects.toThrow("did not answer in time");
  });

  it("under a key that comes twice is two uses, also where both used the same, and also while the database is away", async () => {
    const database = scriptedDatabase();
    const { guard, store } = makeGuard(database);
    const twice = { ...request, request_id: "mine" };
    await guard.run(twice, async () => completion(3, 4));
    await guard.run(twice, async () => completion(3, 4));
    await guard.idle();
    expect([...database.held.values()]).toEqual(["settled 7", "settled 7"]);

    let isAway = false;
    database.failWith(() => (isAway ? "throws" : null));
    const owed = { ...request, request_id: "owed" };
    isAway = true;
    for (const output of [1, 2]) await guard.run(owed, async () => completion(10, output));
    expect(await store.list()).toHaveLength(2);
    isAway = false;
    await guard.idle();
    expect([...database.held.values()].slice(2).toSorted()).toEqual(["settled 11", "settled 12"]);
  });

  it.each([
    ["the provider refuses it", Object.assign(new Error("429"), { status: 429 }), []],
    ["nobody was reached", Object.assign(new Error("fetch failed"), { cause: { code: "ECONNREFUSED" } }), []],
    ["its connection breaks", new Error("socket hang up"), ["released_unsure"]],
    ["its provider fails", Object.assign(new Error("500"), { status: 500 }), ["released_unsure"]],
  ])("is given back when %s, and said where the provider may have worked", async (_when, thrown, said) => {
    const database = scriptedDatabase();
    const { guard, problems } = makeGuard(database);
    await guard.run(request, () => Promise.reject(thrown));
    await guard.idle();
    expect([...database.held.values()]).toEqual(["released"]);
    expect(problems.map((problem) => problem.kind)).toEqual(said);
  });

  it("is answered over HTTP with what is missing and where to buy it", () => {
    const shortfall = { need: 50, have: 20, missing: 30 };
    const answer = { shortfall, buy_url: "https://shop.example/tokens", message: "Not enough tokens." };
    const failure = { kind: "blocked", http_status: 402, reason: "insufficient_tokens", answer } as never;
    expect(toHttp(failure)).toMatchObject({
      status: 402,
      body: { error: "insufficient_tokens", shortfall, buy_url: "https://shop.example/tokens" },
    });
  });

  it("is still owed when its key is refused an answer the next time", async () => {
    const database = scriptedDatabase();
    database.answerWith((args) => ({ ...database.allow(args), fail_mode: "closed" }));
    const { guard } = makeGuard(database);
    let isAway = false;
    database.failWith(() => (isAway ? "throws" : null));
    const mine = { ...request, request_id: "mine" };
    const first = await guard.run(mine, async () => {
      isAway = true;
      return completion(20, 1);
    });
    expect(first.ok && (await first.value.settlement)).toEqual({ status: "queued" });
    // Nobody could be asked: the key keeps what it may hold, and what the first call owes.
    expect(await guard.run(mine, async () => completion(1, 1))).toMatchObject({
      error: { kind: "unavailable" },
    });
    await wait(20);
    isAway = false;
    await guard.idle();
    expect([...database.held]).toEqual([["mine", "settled 21"]]);
  });

  it("that throws after its provider had answered is charged what the error reports", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const result = await guard.run({ ...request, request_id: "agent" }, async () => {
      throw Object.assign(new Error("the second step failed"), { usage: completion(30, 12).usage });
    });
    expect(result).toMatchObject({ ok: false, error: { kind: "call_failed" } });
    await guard.idle();
    expect(database.held.get("agent")).toBe("settled 42");
    expect(database.asked.at(-1)?.args["p_metadata"]).toMatchObject({
      call_failed: "the second step failed",
    });
  });

  it("hands on what was thrown as it was", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const thrown = { status: 429, body: "slow down" };
    const result = await guard.run(request, async () => Promise.reject(thrown as unknown as Error));
    expect(result.ok || (result.error.kind === "call_failed" && result.error.cause)).toBe(thrown);
  });

  it("is stopped at its time-out also where it begins to listen only after it", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    let aborted = false;
    await guard.run(request, async (context) => {
      await wait(90); // for a free place in a pool, say
      context.onAbort(() => {
        aborted = true;
      });
      return completion(1, 1);
    });
    await wait(60);
    expect(aborted).toBe(true);
    await guard.idle();
  });

  it("without a time-out has one that setTimeout can count", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database, { callTimeoutMs: Number.POSITIVE_INFINITY });
    const result = await guard.run(request, async () => {
      await wait(20);
      return completion(1, 1);
    });
    expect(result.ok).toBe(true);
    await guard.idle();
  });

  it("whose usage cannot be read is charged its estimate, not the hold, which has a rule's factor in it", async () => {
    const database = scriptedDatabase();
    // multiply_cost by 2: the database holds twice the estimate, and will charge twice what is settled.
    database.answerWith((args) => ({ ...database.allow(args), estimated_tokens: 250 }));
    const { guard } = makeGuard(database);
    await guard.run({ ...request, request_id: "odd" }, async () => ({ text: "hello" }));
    await guard.idle();
    expect(database.held.get("odd")).toBe("settled 250");
  });

  it("whose usage cannot be read, and which nobody authorised, is charged an estimate rather than nothing", async () => {
    const database = scriptedDatabase();
    let isAway = true;
    database.failWith(() => (isAway ? "throws" : null));
    const { guard } = makeGuard(database, { failMode: () => "open" });
    await guard.run({ ...request, request_id: "odd" }, async () => ({ text: "hello" }));
    isAway = false;
    await guard.idle();
    // ⌈18 characters ÷ 4⌉ and 500 for the reply.
    expect(database.held.get("odd")).toBe("settled 505");
  });

  it.each([
    ["is no whole number", { input_tokens: 1.5 }, "input_tokens"],
    ["is negative", { input_tokens: -1 }, "input_tokens"],
    ["is no number", { estimated_tokens: Number.NaN }, "estimated_tokens"],
    ["is nothing", { estimated_tokens: 0 }, "estimated_tokens"],
    ["is an object where a text should be", { message: { $gt: "" } as unknown as string }, "message"],
  ])("is not made where a part of its request %s", async (_, counts, name) => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database, { failMode: () => "open" });
    const call = vi.fn();
    const result = await guard.run({ ...request, ...counts }, call);
    expect(result).toMatchObject({ ok: false, error: { kind: "misuse", http_status: 400 } });
    expect(result.ok || result.error.reason).toContain(name);
    expect(call).not.toHaveBeenCalled();
  });

  it.each([
    ["a fraction", () => ({ ok: true, value: { counts: { input_tokens: 1.5, output_tokens: 1 } } })],
    ["a promise", async () => ({ ok: true })],
    ["nothing", () => undefined],
  ])("whose own reader answers %s is one whose usage is unknown", async (_, readUsage) => {
    const database = scriptedDatabase();
    const { guard, problems } = makeGuard(database, { learner: learnEstimates() });
    const result = await guard.run({ ...request, request_id: "odd" }, async () => "answer", {
      readUsage: readUsage as never,
    });
    expect(result.ok && result.value.value).toBe("answer");
    await guard.idle();
    expect(database.held.get("odd")).toBe("settled 500");
    expect(problems).toMatchObject([{ kind: "usage_unknown" }]);
  });

  it("keeps of what went wrong only what a database can keep", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const message = `${"x".repeat(199)}\u{1f600}\0`;
    await guard.run({ ...request, request_id: "odd" }, async () => ({ text: "hello" }), {
      readUsage: () => {
        throw new Error(message);
      },
    });
    await guard.run({ ...request, request_id: "model" }, async () => ({
      ...completion(1, 1),
      model: `m\0${"x".repeat(20_000)}`,
    }));
    await guard.run({ ...request, request_id: "failed" }, async () => {
      throw new Error(`${"y".repeat(499)}\u{1f600}`);
    });
    await guard.idle();
    const sent = JSON.stringify(database.asked);
    expect(sent).not.toMatch(/\\u0000|\\ud83d(?!\\ude00)/);
    expect(sent.length).toBeLessThan(5_000);
  });

  it("asks for a message with an emoji cut in two or a NUL, and hands it to the call as it was written", async () => {
    for (const message of ["so \ud83d", "\ude00 so", "a\0b", "\ud83d\ud83d\ude00", "\ud83d\0\ude00"]) {
      const database = scriptedDatabase();
      database.answerWith((args) => ({ ...database.allow(args), truncate_to_words: null }));
      const { guard } = makeGuard(database);
      let given: string | undefined;
      const result = await guard.run({ ...request, message }, async (context) => {
        given = context.message;
        return completion(1, 1);
      });
      expect([result.ok, given]).toEqual([true, message]);
      const asked = String(database.asked[0]?.args["p_message"]);
      expect(asked).toBe(asked.toWellFormed());
      expect(asked).not.toContain("\0");
      expect(asked.length).toBe(message.length);
    }
  });

  it("refuses names that no database keeps, and says which: under another one it would be somebody else's", async () => {
    for (const name of ["request_id", "user", "model", "conversation", "task", "scope"] as const)
      for (const odd of ["a\0b", "a\ud83d"]) {
        const database = scriptedDatabase();
        const { guard } = makeGuard(database);
        const result = await guard.run({ ...request, [name]: odd }, async () => completion(1, 1));
        expect(result).toMatchObject({
          ok: false,
          error: {
            kind: "misuse",
            http_status: 400,
            reason: expect.stringMatching(`invalid_argument: ${name} `),
          },
        });
        expect(database.asked).toEqual([]);
      }
  });

  it("holds what calls of its task and model were learnt to use, unless the caller says or repeats a key", async () => {
    const database = scriptedDatabase();
    const learner = learnEstimates({ quantile: 0.9 });
    const { guard } = makeGuard(database, { learner });
    for (let call = 1; call <= 20; call++)
      await guard.run({ user: "ann", model: "m", task: "t" }, async () => completion(call * 50, 0));
    await guard.run({ user: "ann", model: "m", task: "t" }, async () => ({ text: "unreadable" }));
    await guard.idle();
    database.asked.length = 0;
    await guard.run({ user: "ann", model: "m", task: "t" }, async () => completion(1, 1));
    await guard.run({ user: "ann", model: "m", task: "t", estimated_tokens: 7 }, async () =>
      completion(1, 1),
    );
    await guard.run({ user: "ann", model: "m", task: "t", request_id: "k" }, async () => completion(1, 1));
    await guard.run({ user: "ann", model: "m", task: "new" }, async () => completion(1, 1));
    const asked = database.asked.filter(({ name }) => name === "authorize_usage");
    expect(asked.map(({ args }) => args["p_estimated_tokens"])).toEqual([
      learner.estimate("t", "m")?.tokens,
      7,
      undefined,
      undefined,
    ]);
    expect(learner.estimate("t", "m")?.tokens).toBeGreaterThanOrEqual(900);
    // The learner's own estimate says nothing of how wrong the database's are: 20, and the two after it.
    expect(learner.error("t", "m").expected?.calls).toBe(22);
  });

  it("takes a reader for answers of one's own", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const { makeCounts } = await import("../index.ts");
    await guard.run({ ...request, request_id: "own" }, async () => ({ words: 7 }), {
      readUsage: ({ words }) => {
        const counts = makeCounts({ input: words, output: 1 });
        return counts.ok
          ? {
              ok: true,
              value: { counts: counts.value, shape: "tokens_used", model: null, split_known: true },
            }
          : counts;
      },
    });
    await guard.idle();
    expect(database.held.get("own")).toBe("settled 8");
  });
});

describe("a database that misbehaves", () => {
  it.each(["lost", "throws", "silent"] as const)(
    "(%s replies) is asked again with the same key and parameters",
    async (fault) => {
      const database = scriptedDatabase();
      const { guard } = makeGuard(database);
      const failures = new Map<string, number>();
      database.failWith((name) => {
        const times = (failures.get(name) ?? 0) + 1;
        failures.set(name, times);
        return times <= 2 ? fault : null;
      });
      const result = await guard.run({ ...request, request_id: "r" }, async () => completion(1, 2));
      await guard.idle();
      expect(result.ok).toBe(true);
      expect(calls(database)).toEqual([
        ...Array<string>(3).fill("authorize_usage"),
        ...Array<string>(3).fill("settle_usage"),
      ]);
      expect(database.asked[0]).toEqual(database.asked[2]);
      expect(database.asked[3]).toEqual(database.asked[5]);
      expect(database.held.get("r")).toBe("settled 3");
    },
  );

  it("that is away lets nothing through when the plan's fail mode is closed", async () => {
    const database = scriptedDatabase();
    database.failWith(() => "throws");
    const { guard } = makeGuard(database);
    const call = vi.fn();
    expect(await guard.run(request, call)).toMatchObject({
      ok: false,
      error: { kind: "unavailable", http_status: 503 },
    });
    expect(call).not.toHaveBeenCalled();
  });

  it("that answers nonsense lets nothing through", async () => {
    const database = scriptedDatabase();
    const { guard, problems } = makeGuard(database);
    for (const nonsense of [null, "yes", {}, { decision: "sure" }, { decision: "allow", http_status: 200 }]) {
      database.answerWith(() => nonsense as Record<string, unknown>);
      expect(await guard.run({ user: "x", model: "m" }, async () => completion(1, 1))).toMatchObject({
        ok: false,
        error: { kind: "unavailable" },
      });
    }
    expect(problems.filter((problem) => problem.kind === "malformed_answer")).toHaveLength(5);
  });

  it("that is away lets calls through on a plan that said open, and charges them when it is back", async () => {
    const database = scriptedDatabase();
    const { guard, store, problems } = makeGuard(database);
    await guard.run({ ...request, request_id: "before" }, async () => completion(1, 1));
    await guard.idle();
    let away = true;
    database.failWith(() => (away ? "throws" : null));
    const result = await guard.run({ ...request, request_id: "meanwhile" }, async () => completion(20, 3));
    expect(result.ok && result.value.answer).toBeNull();
    expect(result.ok && (await result.value.settlement)).toEqual({ status: "queued" });
    expect(guard.queueLength).toBe(1);
    const [entry] = await store.list();
    expect(JSON.stringify(entry)).not.toContain("three");
    expect(problems.map((problem) => problem.kind)).toEqual(["ran_unauthorized"]);
    away = false;
    await guard.idle();
    expect(guard.queueLength).toBe(0);
    expect(await store.list()).toEqual([]);
    expect(database.held.get("meanwhile")).toBe("settled 23");
  });

  it("that goes away between call and settlement gets it when it is back, also by another process", async () => {
    const database = scriptedDatabase();
    const store = memoryStore();
    const first = makeGuard(database, {
      store,
      timer: (run, ms) => (ms > 40 ? () => undefined : setImmediate(run) && (() => undefined)),
    });
    database.failWith((name) => (name === "settle_usage" ? "throws" : null));
    const result = await first.guard.run({ ...request, request_id: "r" }, async () => completion(4, 4));
    expect(result.ok && (await result.value.settlement)).toEqual({ status: "queued" });
    expect(await store.list()).toHaveLength(1);
    // The process ends here; another one starts on the same store.
    database.failWith(null);
    const second = makeGuard(database, { store });
    expect(await second.guard.drain()).toEqual({ sent: 1, waiting: 0, parked: 0 });
    expect(database.held.get("r")).toBe("settled 8");
    expect(await store.list()).toEqual([]);
  });

  it("that refuses a settlement for good leaves it to a person, and does not try for ever", async () => {
    const database = scriptedDatabase();
    const { guard, problems } = makeGuard(database);
    database.failWith((name) => (name === "settle_usage" ? database.refusal(400, "invalid_argument") : null));
    const result = await guard.run({ ...request, request_id: "r" }, async () => completion(4, 4));
    expect(result.ok && (await result.value.settlement)).toMatchObject({ status: "parked" });
    expect(await guard.parked()).toMatchObject([{ request_id: "r" }]);
    expect(problems.map((problem) => problem.kind)).toEqual(["settlement_parked"]);
    expect(await guard.drain()).toEqual({ sent: 0, waiting: 0, parked: 1 });
    expect(calls(database).filter((name) => name === "settle_usage")).toHaveLength(1);
  });

  it("is not there behind a gateway that finds nothing, and settles when it is back", async () => {
    const database = scriptedDatabase();
    // What supabase-js makes of a 404 without a body, and of one with a page in it.
    const nothing: RpcReply = { data: null, error: null, status: 204 };
    const page: RpcReply = { data: null, error: { message: "<html>Not Found</html>" }, status: 404 };
    const { guard, store, problems } = makeGuard(database);
    for (const reply of [nothing, page]) {
      let isBack = false;
      database.failWith((name) => (name === "settle_usage" && !isBack ? reply : null));
      const result = await guard.run({ ...request, request_id: `r${reply.status}` }, async () =>
        completion(4, 4),
      );
      expect(result.ok && (await result.value.settlement)).toEqual({ status: "queued" });
      expect(await store.list()).toHaveLength(1);
      isBack = true;
      await guard.idle();
      expect(database.held.get(`r${reply.status}`)).toBe("settled 8");
    }
    expect(new Set(problems.map((problem) => problem.kind))).toEqual(new Set(["malformed_answer"]));
    database.failWith(() => page);
    expect(await guard.run({ user: "new", model: "m" }, async () => completion(1, 1))).toMatchObject({
      error: { kind: "unavailable", http_status: 503 },
    });
    database.failWith(null);
    await guard.idle();
  });

  it.each([
    // With advice in the hint, as PostgREST gives where another function has a name like it.
    ["PGRST202", 404, "Perhaps you meant to call the function public.settle_usages"],
    ["42883", 404, "No function matches the given name and argument types."],
    ["42501", 403, null],
  ])(
    "that lacks a function or a grant (%s) is owed the settlement until a person has mended it",
    async (code, status, hint) => {
      const database = scriptedDatabase();
      const { guard } = makeGuard(database);
      let isMended = false;
      const lacking: RpcReply = { data: null, error: { code, message: "no", hint }, status };
      database.failWith((name) => (name === "settle_usage" && !isMended ? lacking : null));
      const result = await guard.run({ ...request, request_id: "r" }, async () => completion(4, 4));
      expect(result.ok && (await result.value.settlement)).toEqual({ status: "queued" });
      isMended = true;
      await guard.idle();
      expect(database.held.get("r")).toBe("settled 8");
      database.failWith(() => lacking);
      expect(await guard.run({ user: "new", model: "m" }, async () => completion(1, 1))).toMatchObject({
        error: { kind: "unavailable", http_status: 503 },
      });
      database.failWith(null);
      await guard.idle();
    },
  );

  it("that is away when a process starts gets what waits as soon as it is back", async () => {
    const database = scriptedDatabase();
    const store = memoryStore();
    const first = makeGuard(database, { store, timer: () => () => undefined });
    database.failWith((name) => (name === "settle_usage" ? database.refusal(503, "away") : null));
    for (const id of ["a", "b"])
      void first.guard.run({ ...request, request_id: id }, async () => completion(4, 4));
    await vi.waitFor(async () => expect(await store.list()).toHaveLength(2));
    // That process is dead; the next one finds the database away as well.
    database.failWith(() => "throws");
    const second = makeGuard(database, { store });
    expect(await second.guard.drain()).toEqual({ sent: 0, waiting: 2, parked: 0 });
    expect(second.guard.queueLength).toBe(2);
    database.failWith(null);
    await second.guard.idle();
    expect([...database.held.values()]).toEqual(["settled 8", "settled 8"]);
    expect(second.guard.queueLength).toBe(0);
  });

  it("that cannot take one settlement gets those behind it", async () => {
    const database = scriptedDatabase();
    const { guard, store } = makeGuard(database);
    let stuck: string | null = "all";
    const answer = database.client.one.bind(database.client);
    database.client.one = async (name, args) =>
      name === "settle_usage" && (stuck === "all" || args["p_request_id"] === stuck)
        ? { data: null, error: { code: "57014", message: "statement timeout" }, status: 500 }
        : answer(name, args);
    for (const id of ["locked", "b", "c"]) {
      const result = await guard.run({ ...request, request_id: id }, async () => completion(4, 4));
      expect(result.ok && (await result.value.settlement)).toEqual({ status: "queued" });
    }
    stuck = "locked";
    await vi.waitFor(async () => expect(await store.list()).toHaveLength(1));
    expect(database.held.get("c")).toBe("settled 8");
    stuck = null;
    await guard.idle();
    expect(database.held.get("locked")).toBe("settled 8");
  });

  it("says misuse for what the caller did wrong, without asking again", async () => {
    const database = scriptedDatabase();
    database.failWith(() => database.refusal(400, "invalid_argument"));
    const { guard } = makeGuard(database);
    expect(await guard.run(request, async () => completion(1, 1))).toMatchObject({
      ok: false,
      error: { kind: "misuse", http_status: 400 },
    });
    expect(calls(database)).toEqual(["authorize_usage"]);
  });

  it("keeps what is owed when the store fails too", async () => {
    const database = scriptedDatabase();
    const broken: SettlementStore = {
      put: async () => Promise.reject(new Error("disk full")),
      remove: async () => undefined,
      list: async (): Promise<readonly QueuedSettlement[]> => [],
    };
    const { guard, problems } = makeGuard(database, { store: broken });
    const result = await guard.run({ ...request, request_id: "r" }, async () => completion(4, 4));
    expect(result.ok && (await result.value.settlement)).toMatchObject({ status: "settled" });
    expect(problems).toMatchObject([{ kind: "store_failed", message: "disk full" }]);

    // Both are away: the settlement is in this process alone, and not lost while it lives.
    let isAway = true;
    database.failWith((name) => (isAway && name === "settle_usage" ? "throws" : null));
    const both = await guard.run({ ...request, request_id: "both" }, async () => completion(4, 4));
    expect(both.ok && (await both.value.settlement)).toEqual({ status: "queued" });
    await wait(20);
    expect(guard.queueLength).toBe(1);
    isAway = false;
    await guard.idle();
    expect(database.held.get("both")).toBe("settled 8");
    expect(guard.queueLength).toBe(0);
  });

  it("keeps what it owes in a store that comes back before the database does", async () => {
    const database = scriptedDatabase();
    const memory = memoryStore();
    let isFull = true;
    const { guard } = makeGuard(database, {
      store: {
        ...memory,
        put: async (entry) => (isFull ? Promise.reject(new Error("disk full")) : memory.put(entry)),
      },
    });
    database.failWith((name) => (name === "settle_usage" ? "throws" : null));
    await guard.run({ ...request, request_id: "r" }, async () => completion(4, 4));
    await wait(20);
    isFull = false;
    await vi.waitFor(async () => expect(await memory.list()).toMatchObject([{ request_id: "r" }]));
    database.failWith(null);
    await guard.idle();
    expect(await memory.list()).toEqual([]);
  });
});

async function* chunksOf(chunks: readonly unknown[], pauseMs = 0): AsyncGenerator<unknown> {
  for (const chunk of chunks) {
    if (pauseMs > 0) await wait(pauseMs);
    if (chunk instanceof Error) throw chunk;
    yield chunk;
  }
}

const delta = (content: string) => ({ choices: [{ delta: { content } }], usage: null });
const last = { choices: [], usage: { prompt_tokens: 8, completion_tokens: 5, total_tokens: 13 } };

describe("a guarded stream", () => {
  async function collect(stream: AsyncIterable<unknown>): Promise<unknown[]> {
    const seen: unknown[] = [];
    for await (const chunk of stream) seen.push(chunk);
    return seen;
  }

  it("passes every chunk on and is settled exactly at its end", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const chunks = [delta("Hel"), delta("lo"), last];
    const result = await guard.stream({ ...request, request_id: "s" }, async () => chunksOf(chunks));
    if (!result.ok) throw new Error(result.error.kind);
    expect(await collect(result.value.value)).toEqual(chunks);
    expect(await result.value.settlement).toMatchObject({ status: "settled" });
    expect(database.held.get("s")).toBe("settled 13");
  });

  it("that breaks is charged what was used, and its error reaches the reader", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const result = await guard.stream({ ...request, request_id: "s" }, async () =>
      chunksOf([delta("twelve chars"), new Error("reset")]),
    );
    if (!result.ok) throw new Error(result.error.kind);
    await expect(collect(result.value.value)).rejects.toThrow("reset");
    await result.value.settlement;
    // ⌈18 characters of the message ÷ 4⌉ + 12 ÷ 4
    expect(database.held.get("s")).toBe("settled 8");
    expect(database.asked.at(-1)?.args["p_metadata"]).toMatchObject({
      stream_broken: "reset",
      estimated: true,
    });
  });

  it("that breaks after the provider's own count is charged that count", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const counted = (output: number) => ({
      candidates: [{ content: { parts: [{ text: "abcd" }] } }],
      usageMetadata: { promptTokenCount: 7, candidatesTokenCount: output, totalTokenCount: 7 + output },
    });
    const result = await guard.stream({ ...request, request_id: "s" }, async () =>
      chunksOf([counted(1), counted(2), new Error("reset")]),
    );
    if (!result.ok) throw new Error(result.error.kind);
    await expect(collect(result.value.value)).rejects.toThrow("reset");
    await result.value.settlement;
    expect(database.held.get("s")).toBe("settled 9");
  });

  it("that its reader leaves is charged what was used, and the provider is stopped", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    let aborted = false;
    const result = await guard.stream({ ...request, request_id: "s" }, async (context) => {
      context.onAbort(() => {
        aborted = true;
      });
      return chunksOf([delta("four"), delta("more"), delta("never seen")]);
    });
    if (!result.ok) throw new Error(result.error.kind);
    for await (const _ of result.value.value) break;
    await result.value.settlement;
    expect(aborted).toBe(true);
    expect(database.held.get("s")).toBe("settled 6");
  });

  it("of a shape that nobody knows is charged by its text where its reader leaves it", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const result = await guard.stream({ ...request, request_id: "s" }, async () =>
      chunksOf([{ update: { parts: [{ text: "x".repeat(400) }] } }, last]),
    );
    if (!result.ok) throw new Error(result.error.kind);
    for await (const _ of result.value.value) break;
    await result.value.settlement;
    expect(database.held.get("s")).toBe("settled 105");
  });

  it("that falls silent is given up", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const result = await guard.stream({ ...request, request_id: "s" }, async () =>
      chunksOf([delta("four"), last], 5_000),
    );
    if (!result.ok) throw new Error(result.error.kind);
    await expect(collect(result.value.value)).rejects.toThrow("silent");
    // Nothing came, and its provider may have worked.
    expect(await result.value.settlement).toMatchObject({ status: "settled" });
    expect(database.held.get("s")).toBe("settled 500");
  });

  it("that is left before its first chunk is charged what was expected of it", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const result = await guard.stream({ ...request, request_id: "s" }, async () => chunksOf([delta("four")]));
    if (!result.ok) throw new Error(result.error.kind);
    await result.value.value[Symbol.asyncIterator]().return?.();
    await result.value.settlement;
    expect(database.held.get("s")).toBe("settled 500");
  });

  it("that ends without usage is charged by its text, and reported", async () => {
    const database = scriptedDatabase();
    const { guard, problems } = makeGuard(database);
    const result = await guard.stream({ ...request, request_id: "s", input_tokens: 100 }, async () =>
      chunksOf([delta("12345678")]),
    );
    if (!result.ok) throw new Error(result.error.kind);
    await collect(result.value.value);
    await result.value.settlement;
    expect(database.held.get("s")).toBe("settled 102");
    expect(problems).toMatchObject([{ kind: "usage_unknown" }]);
  });

  it("that ends without usage or text is charged what was held: something was used", async () => {
    const database = scriptedDatabase();
    const { guard, problems } = makeGuard(database);
    const result = await guard.stream({ ...request, request_id: "s" }, async () =>
      chunksOf([{ choices: [{ delta: { role: "assistant" }, finish_reason: "stop" }] }]),
    );
    if (!result.ok) throw new Error(result.error.kind);
    await collect(result.value.value);
    await result.value.settlement;
    expect(database.held.get("s")).toBe("settled 500");
    expect(problems).toMatchObject([{ kind: "usage_unknown" }]);
  });

  it("that is cut off without an error is charged for its text, and keeps what was cached", async () => {
    const database = scriptedDatabase();
    const { guard, problems } = makeGuard(database);
    const usage = { input_tokens: 10, cache_read_input_tokens: 90, output_tokens: 1 };
    const result = await guard.stream({ ...request, request_id: "s" }, async () =>
      chunksOf([
        { type: "message_start", message: { model: "claude", usage } },
        { type: "content_block_delta", delta: { type: "text_delta", text: "x".repeat(400) } },
      ]),
    );
    if (!result.ok) throw new Error(result.error.kind);
    await collect(result.value.value);
    await result.value.settlement;
    expect(database.held.get("s")).toBe("settled 201");
    expect(database.asked.at(-1)?.args["p_metadata"]).toMatchObject({
      cached_input_tokens: 90,
      estimated: true,
    });
    expect(problems).toMatchObject([{ kind: "usage_unknown" }]);
  });

  it("whose reader just stops reading is charged what was used by then, and says so if it is read on", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    const result = await guard.stream({ ...request, request_id: "s" }, async () =>
      chunksOf([delta("four"), delta("more")]),
    );
    if (!result.ok) throw new Error(result.error.kind);
    const iterator = result.value.value[Symbol.asyncIterator]();
    await iterator.next();
    expect(await result.value.settlement).toMatchObject({ status: "settled" });
    expect(database.held.get("s")).toBe("settled 6");
    await expect(iterator.next()).rejects.toThrow("given up");
  });

  it("of plain text, as libraries give it, is charged by its length, and reported", async () => {
    const database = scriptedDatabase();
    const { guard, problems } = makeGuard(database);
    const result = await guard.stream({ ...request, request_id: "s", input_tokens: 100 }, async () =>
      chunksOf(["1234", "5678"]),
    );
    if (!result.ok) throw new Error(result.error.kind);
    await collect(result.value.value);
    await result.value.settlement;
    expect(database.held.get("s")).toBe("settled 102");
    expect(problems).toMatchObject([{ kind: "usage_unknown" }]);
  });

  it("that is left while a chunk is on its way leaves no timer behind", async () => {
    const database = scriptedDatabase();
    const timers = new Set<unknown>();
    const { guard } = makeGuard(database, {
      timer: (run, ms) => {
        const timer = setTimeout(() => {
          timers.delete(timer);
          run();
        }, ms);
        timers.add(timer);
        return () => {
          timers.delete(timer);
          clearTimeout(timer);
        };
      },
    });
    const result = await guard.stream({ ...request, request_id: "s" }, async () =>
      chunksOf([delta("four"), delta("more")], 10),
    );
    if (!result.ok) throw new Error(result.error.kind);
    const reader = result.value.value[Symbol.asyncIterator]();
    await reader.next();
    const onItsWay = reader.next();
    await reader.return?.();
    expect(await onItsWay).toEqual({ done: true, value: undefined });
    expect(await result.value.settlement).toMatchObject({ status: "settled" });
    expect(timers.size).toBe(0);

    // The provider breaks off when it is stopped; nobody is left to get the error.
    const broken = await guard.stream({ ...request, request_id: "b" }, async (context) => {
      const stop = new AbortController();
      context.onAbort(() => stop.abort());
      return (async function* () {
        await new Promise((_, reject) =>
          stop.signal.addEventListener("abort", () => reject(new Error("aborted"))),
        );
        yield delta("never");
      })();
    });
    if (!broken.ok) throw new Error(broken.error.kind);
    const leaver = broken.value.value[Symbol.asyncIterator]();
    const pending = leaver.next();
    await leaver.return?.();
    expect(await pending).toEqual({ done: true, value: undefined });
  });

  it("that is left before it was begun lets go of its connection", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    let cancelled = false;
    const result = await guard.stream(
      request,
      async () =>
        new ReadableStream({
          cancel() {
            cancelled = true;
          },
        }),
    );
    if (!result.ok) throw new Error(result.error.kind);
    await result.value.value[Symbol.asyncIterator]().return?.();
    await result.value.settlement;
    expect(cancelled).toBe(true);
  });

  it("that does not start is charged what was expected of it", async () => {
    const database = scriptedDatabase();
    const { guard } = makeGuard(database);
    expect(
      await guard.stream({ ...request, request_id: "s" }, async () => new Promise<never>(() => undefined)),
    ).toMatchObject({ ok: false, error: { kind: "call_timed_out" } });
    await guard.idle();
    expect(database.held.get("s")).toBe("settled 500");
  });
});
