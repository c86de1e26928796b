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
];

describe("a call that was cut off", () => {
  it.each(cutOff)("and %s is charged what was expected of it, and said", async (_how, thrown) => {
    const { guard, ends, problems } = makeGuard();
    await guard.run(request, () => Promise.reject(thrown));
    await expect.poll(() => ends).toEqual([[500, true]]);
    expect(problems).toEqual(["settled_unsure"]);
  });

  it("is given back where the setting says so, and said", async () => {
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
