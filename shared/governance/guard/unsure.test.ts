import { describe, expect, it } from "vitest";
import { createGuard, type GuardOptions, memoryStore, type UnsureCall } from "./index.ts";

/** A guard over a database that allows everything, and what it wrote down in the end. */
function makeGuard(options: Partial<GuardOptions> = {}) {
  const ends: unknown[] = [];
  const problems: string[] = [];
  const guard = createGuard({
    client: {
      async rpc(name, args) {
        if (name === "settle_usage")
          ends.push([
            Number(args["p_input_tokens"]) + Number(args["p_output_tokens"]),
            (args["p_metadata"] as Record<string, unknown>)["estimated"] ?? false,
          ]);
        else if (name === "release_usage") ends.push("released");
        const decision = {
          decision: "allow",
          http_status: 200,
          model: args["p_model"],
          reserved_tokens: 500,
          warnings: [],
        };
        const data =
          name === "authorize_usage"
            ? decision
            : { status: name === "settle_usage" ? "settled" : "released" };
        return { data, error: null, status: 200 };
      },
    },
    store: memoryStore(),
    now: Date.now,
    timer: (run, ms) => {
      const timer = setTimeout(run, ms);
      return () => clearTimeout(timer);
    },
    newId: () => crypto.randomUUID(),
    callTimeoutMs: 20,
    onProblem: ({ kind }) => problems.push(kind),
    ...options,
  });
  return { guard, ends, problems };
}

const request = { user: "ada", model: "gpt-4o" };
const usage = { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 };
const named = (name: string): Error => Object.assign(new Error("stopped"), { name });
const cutOff: readonly (readonly [string, unknown])[] = [
  ["is stopped", named("AbortError")],
  ["times out", named("TimeoutError")],
  ["is answered 408", Object.assign(new Error("408"), { status: 408 })],
  ["times out at a gateway", Object.assign(new Error("504"), { statusCode: 504 })],
  [
    "loses its connection",
    Object.assign(new TypeError("fetch failed"), { cause: { code: "UND_ERR_SOCKET" } }),
  ],
  ["is reset", Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" })],
  ["times out while it reads", Object.assign(new Error("read"), { code: "ETIMEDOUT", syscall: "read" })],
  ["is answered 408 by AWS", Object.assign(new Error("slow"), { $metadata: { httpStatusCode: 408 } })],
  ["is cancelled by axios", Object.assign(named("CanceledError"), { code: "ERR_CANCELED" })],
];
const fetchFailed = (cause: unknown): Error => new TypeError("fetch failed", { cause });
const step = (code: string): Error => Object.assign(new Error(code), { code, syscall: "connect" });
const refused: readonly (readonly [string, unknown])[] = [
  ["is refused by AWS", Object.assign(new Error("slow down"), { $metadata: { httpStatusCode: 429 } })],
  [
    "is refused by axios",
    Object.assign(new Error("bad"), { code: "ERR_BAD_REQUEST", response: { status: 400 } }),
  ],
  ["is refused at each try", Object.assign(new Error("3 tries"), { lastError: { statusCode: 429 } })],
  ["finds no way to its provider", fetchFailed({ code: "UND_ERR_CONNECT_TIMEOUT" })],
  ["times out while it connects", fetchFailed(step("ETIMEDOUT"))],
  [
    "finds none of its provider's addresses",
    fetchFailed(
      Object.assign(new AggregateError([step("ETIMEDOUT"), step("ENETUNREACH")]), { code: "ETIMEDOUT" }),
    ),
  ],
];

describe("a call that was cut off", () => {
  it.each(cutOff)("and %s is charged what was expected of it, and said", async (_how, thrown) => {
    const { guard, ends, problems } = makeGuard();
    await guard.run(request, () => Promise.reject(thrown));
    await expect.poll(() => ends).toEqual([[500, true]]);
    expect(problems).toEqual(["settled_unsure"]);
  });

  it.each(refused)("but that %s is given back, and nobody is alarmed", async (_how, thrown) => {
    const { guard, ends, problems } = makeGuard();
    await guard.run(request, () => Promise.reject(thrown));
    await expect.poll(() => ends).toEqual(["released"]);
    expect(problems).toEqual([]);
  });

  it("is given back where the setting asks for it, and reported", async () => {
    const { guard, ends, problems } = makeGuard({ unsure: "release" });
    await guard.run(request, () => Promise.reject(named("AbortError")));
    await expect.poll(() => ends).toEqual(["released"]);
    expect(problems).toEqual(["released_unsure"]);
  });

  it("is charged by the provider's own record", async () => {
    const calls: UnsureCall[] = [];
    const unsure = async (call: UnsureCall) => (calls.push(call), { usage });
    const { guard, ends, problems } = makeGuard({ unsure });
    await guard.run({ ...request, request_id: "r1" }, () => Promise.reject(named("AbortError")));
    await expect.poll(() => ends).toEqual([[15, false]]);
    expect(calls).toMatchObject([
      { request_id: "r1", user: "ada", model: "gpt-4o", reason: "call failed: stopped" },
    ]);
    expect(problems).toEqual([]);
  });

  it("is given back where the record says that no work was done", async () => {
    const { guard, ends, problems } = makeGuard({ unsure: async () => null });
    await guard.run(request, () => Promise.reject(named("AbortError")));
    await expect.poll(() => ends).toEqual(["released"]);
    expect(problems).toEqual(["released_unsure"]);
  });

  const records: readonly (readonly [string, () => Promise<unknown>])[] = [
    ["fails", () => Promise.reject(new Error("down"))],
    ["tells no counts", async () => ({ id: "x" })],
    ["never answers", () => new Promise(() => undefined)],
    [
      "throws at once",
      () => {
        throw new Error("mine");
      },
    ],
  ];
  it.each(records)("is charged its estimate where the record %s", async (_how, unsure) => {
    const { guard, ends, problems } = makeGuard({ unsure });
    await guard.run(request, () => Promise.reject(named("AbortError")));
    await expect.poll(() => ends).toEqual([[500, true]]);
    expect(problems).toEqual(["settled_unsure"]);
  });

  it("and never ends is charged after as long again, once", async () => {
    const { guard, ends, problems } = makeGuard();
    let answer: (value: unknown) => void = () => undefined;
    const result = await guard.run(request, () => new Promise<unknown>((resolve) => (answer = resolve)));
    expect(result).toMatchObject({ ok: false, error: { kind: "call_timed_out" } });
    expect(ends).toEqual([]);
    await expect.poll(() => ends).toEqual([[500, true]]);
    // An answer after that was charged already.
    answer({ usage });
    await guard.idle();
    expect(ends).toEqual([[500, true]]);
    expect(problems).toEqual(["settled_unsure"]);
  });

  it("and ends late is charged what it used", async () => {
    const { guard, ends } = makeGuard();
    await guard.run(request, async () => {
      await new Promise((resolve) => setTimeout(resolve, 30));
      return { usage };
    });
    await expect.poll(() => ends).toEqual([[15, false]]);
  });
});

describe("an answer that is an error", () => {
  const overloaded = { message: "Provider returned error" };
  const responseOf = (error: object | null): object => ({ status: "failed", usage: null, output: [], error });
  const answers: readonly (readonly [string, object, readonly string[]])[] = [
    ["in the body of a 200", { error: { ...overloaded, code: 502 } }, ["released_unsure"]],
    ["that refused the call", { error: { message: "Rate limited", code: 429 } }, []],
    ["of a response that failed", responseOf({ code: "server_error" }), ["released_unsure"]],
    ["of Google's, with words for its status", { error: { code: 429, status: "RESOURCE_EXHAUSTED" } }, []],
    [
      "of MiniMax', beside no answer",
      { choices: null, base_resp: { status_code: 1008 } },
      ["released_unsure"],
    ],
    ["of Cloudflare's", { success: false, errors: [{ code: 5007 }], result: null }, ["released_unsure"]],
  ];
  it.each(answers)("%s gives its tokens back", async (_, answer, expected) => {
    const { guard, ends, problems } = makeGuard();
    const result = await guard.run(request, async () => answer);
    if (result.ok) await result.value.settlement;
    expect(ends).toEqual(["released"]);
    expect(problems).toEqual(expected);
  });

  const streams: readonly (readonly [string, readonly object[]])[] = [
    ["OpenRouter's chunk", [{ error: { ...overloaded, code: 502 }, choices: [{ delta: { content: "" } }] }]],
    [
      "OpenAI's event",
      [
        { type: "response.created", response: { error: null } },
        { type: "response.failed", response: responseOf({ code: "server_error" }) },
      ],
    ],
    ["OpenAI's flat event", [{ type: "error", code: "server_error", message: "Oops", param: null }]],
    ["Anthropic's event", [{ type: "error", error: { type: "overloaded_error", message: "Overloaded" } }]],
  ];
  it.each(streams)("in a stream, as %s, gives its tokens back", async (_, chunks) => {
    const { guard, ends } = makeGuard();
    await readAll(guard, chunks);
    expect(ends).toEqual(["released"]);
  });

  it("is none where an answer says that all is well", async () => {
    const { guard, ends } = makeGuard();
    const result = await guard.run(request, async () => ({
      choices: [],
      usage,
      base_resp: { status_code: 0 },
    }));
    if (result.ok) await result.value.settlement;
    expect(ends).toEqual([[15, false]]);
  });

  it("after text charges what came, and an answer without an error is no failure", async () => {
    const { guard, ends } = makeGuard();
    await readAll(guard, [{ choices: [{ delta: { content: "x".repeat(4_000) } }] }, { error: overloaded }]);
    const result = await guard.run(request, async () => ({ error: null, choices: [] }));
    if (result.ok) await result.value.settlement;
    expect(ends).toEqual([
      [1_000, true],
      [500, true],
    ]);
  });

  async function readAll(
    guard: ReturnType<typeof makeGuard>["guard"],
    chunks: readonly object[],
  ): Promise<void> {
    const result = await guard.stream(request, async () =>
      (async function* () {
        yield* chunks;
      })(),
    );
    if (!result.ok) throw new Error(result.error.kind);
    for await (const _ of result.value.value);
    await result.value.settlement;
  }
});
