/** What the guard's lines in SDKs do where a caller leaves, is late, or has a fault of its own. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { ChatOpenAI } from "@langchain/openai";
import { describe, expect, it } from "vitest";
import {
  createGuard,
  guardCallbacks,
  guardFetch,
  type GuardSettings,
} from "../../packages/guard/src/index.ts";
import { allowed } from "../support/allowed.ts";

/** A guard whose database allows everything, and what was written down in the end. */
function guarded(settings: Partial<GuardSettings> = {}) {
  const ends: unknown[] = [];
  const guard = createGuard({
    client: {
      async rpc(name, args) {
        if (name === "settle_usage")
          ends.push(Number(args["p_input_tokens"]) + Number(args["p_output_tokens"]));
        if (name === "release_usage") ends.push("released");
        const data = name === "authorize_usage" ? allowed(args) : { status: "settled" };
        return { data, error: null, status: 200 };
      },
    },
    // Each call by itself: the database here takes no batches.
    batch: { mostCalls: 1 },
    ...settings,
  } as GuardSettings);
  return { guard, ends };
}

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const url = "https://provider.test/v1/chat/completions";
const call = (isStream: boolean, more: RequestInit = {}): RequestInit => ({
  method: "POST",
  body: JSON.stringify({ model: "m", stream: isStream, messages: [{ role: "user", content: "Hi" }] }),
  ...more,
});
const usage = { prompt_tokens: 21, completion_tokens: 9, total_tokens: 30 };
const generated = {
  generations: [
    [
      {
        text: "x",
        message: {
          content: "x",
          usage_metadata: { input_tokens: 9_000, output_tokens: 41_000, total_tokens: 50_000 },
        },
      },
    ],
  ],
};
const model = { invocation_params: { model: "m" } };

describe("a run of LangChain's", () => {
  it("that takes longer than a call may is charged what it reports in the end", async () => {
    const { guard, ends } = guarded({ callTimeoutMs: 50 });
    const callbacks = guardCallbacks(guard, { user: "ada" });
    await callbacks.handleLLMStart({}, ["Hi"], "run", undefined, model);
    await wait(75);
    await callbacks.handleLLMEnd(generated, "run");
    await expect.poll(() => ends).toEqual([50_000]);
    await wait(75);
    await guard.idle();
    expect(ends).toEqual([50_000]);
  });
});

describe("a stream of LangChain's that is left", () => {
  it("is charged for what came, at once, where the model has a guarded fetch", async () => {
    const server = createServer((_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      for (let n = 0; n < 3; n++)
        response.write(
          `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: "four" } }] })}\n\n`,
        );
    }).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const { guard, ends } = guarded();
    const chat = new ChatOpenAI({
      model: "m",
      apiKey: "k",
      configuration: {
        baseURL: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
        fetch: guardFetch(guard, { user: "ada" }),
      },
    });
    let said = "";
    for await (const chunk of await chat.stream("Good morning")) {
      said += chunk.text;
      if (said.length >= 4) break;
    }
    await expect.poll(() => ends.length).toBe(1);
    expect(ends[0]).toBeLessThan(10);
    server.closeAllConnections();
    server.close();
  });
});

describe("a caller whose own onAnswer fails", () => {
  const faults = [
    [
      "throws",
      () => {
        throw new Error("a fault of the caller's");
      },
    ],
    ["rejects", async () => Promise.reject(new Error("a fault of the caller's"))],
  ] as const;

  // What nobody handles ends a process, and fails this test's run.
  it.each(faults)("(%s) has its answers and its streams all the same", async (_how, onAnswer) => {
    const { guard, ends } = guarded();
    const caller = { user: "ada", onAnswer };
    const send = guardFetch(guard, caller, {
      fetch: async (_input, init) =>
        JSON.parse(init?.body as string).stream
          ? new Response(`data: ${JSON.stringify({ choices: [], usage })}\n\n`)
          : Response.json({ usage }),
    });
    expect(await (await send(url, call(false))).json()).toEqual({ usage });
    await (await send(url, call(true))).text();
    const callbacks = guardCallbacks(guard, caller);
    await callbacks.handleLLMStart({}, ["Hi"], "run", undefined, model);
    await callbacks.handleLLMEnd(generated, "run");
    await expect.poll(() => ends).toEqual([30, 30, 50_000]);
  });
});

describe("a guarded fetch whose caller leaves", () => {
  const reason = new Error("the page was closed");

  it("rejects with the signal's own reason, as fetch does", async () => {
    const { guard } = guarded();
    const leaving = new AbortController();
    leaving.abort(reason);
    await expect(
      guardFetch(guard, { user: "ada" })(url, call(false, { signal: leaving.signal })),
    ).rejects.toBe(reason);
  });

  it("does not end a stream as if it were whole: the body fails with the signal's reason, as fetch's does", async () => {
    const server = createServer((_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      const timer = setInterval(
        () => response.write(`data: ${JSON.stringify({ choices: [{ delta: { content: "part" } }] })}\n\n`),
        5,
      );
      response.on("close", () => clearInterval(timer));
    }).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.once("listening", resolve));
    const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/chat/completions`;
    const { guard, ends } = guarded();
    for (const send of [fetch, guardFetch(guard, { user: "ada" })]) {
      const leaving = new AbortController();
      const response = await send(address, call(true, { signal: leaving.signal }));
      const reader = (response.body as ReadableStream<Uint8Array>).getReader();
      expect((await reader.read()).done).toBe(false);
      leaving.abort(reason);
      const rest = (async () => {
        while (!(await reader.read()).done);
      })();
      await expect(rest).rejects.toBe(reason);
    }
    await guard.idle();
    expect(ends).toHaveLength(1);
    server.close();
  });
});
