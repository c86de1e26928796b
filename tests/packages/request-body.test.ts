/** What a guarded `fetch` does with a body that can be read only once. The database and the provider answer by script. */
import { Readable } from "node:stream";
import { beforeEach, describe, expect, it } from "vitest";
import { createGuard, type Guard, guardFetch } from "../../packages/guard/src/index.ts";
import { allowed } from "../support/allowed.ts";

const url = "https://provider.test/v1/chat/completions";
const call = JSON.stringify({ model: "m", messages: [{ role: "user", content: "Grüße" }] });
let guard: Guard;
let decides: Record<string, unknown>;
/** The requests that the database was asked about, and those that were sent. */
let asked: Record<string, unknown>[];
let sent: {
  readonly url: string;
  readonly body: string;
  readonly headers: Headers;
  readonly redirect: string;
}[];

beforeEach(() => {
  decides = {};
  asked = [];
  sent = [];
  guard = createGuard({
    client: {
      async rpc(name, args) {
        if (name !== "authorize_usage") return { data: { status: "settled" }, error: null, status: 200 };
        asked.push(args);
        return { data: { ...allowed(args), ...decides }, error: null, status: 200 };
      },
    },
  });
});

const send: typeof fetch = async (input, init) => {
  const request = new Request(input, init);
  const { headers, redirect } = request;
  sent.push({ url: request.url, body: await request.text(), headers, redirect });
  return Response.json({ usage: { prompt_tokens: 21, completion_tokens: 9, total_tokens: 30 } });
};
const ask: typeof fetch = (input, init) => guardFetch(guard, { user: "ada" }, { fetch: send })(input, init);

/** Pieces of any size: a letter may lie in two. */
const pieces = (text: string, size = 3): Uint8Array<ArrayBuffer>[] => {
  const bytes = new TextEncoder().encode(text);
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, at) =>
    bytes.slice(at * size, (at + 1) * size),
  );
};
function stream(parts: readonly unknown[], onCancel?: () => void): ReadableStream {
  const left = [...parts];
  return new ReadableStream({
    pull(controller) {
      if (left.length === 0) controller.close();
      else controller.enqueue(left.shift());
    },
    cancel: () => onCancel?.(),
  });
}
const streamed = (body: unknown, more: RequestInit = {}): RequestInit =>
  ({ method: "POST", duplex: "half", body, ...more }) as RequestInit;

const ways: readonly [name: string, make: (text: string) => Parameters<typeof fetch>][] = [
  ["a stream", (text) => [url, streamed(stream(pieces(text)))]],
  ["a stream of Node's", (text) => [url, streamed(Readable.from(pieces(text)))]],
  ["a Request with a stream", (text) => [new Request(url, streamed(stream(pieces(text))))]],
  ["a Request that is given a stream", (text) => [new Request(url), streamed(stream(pieces(text)))]],
];

describe("a guarded fetch of a body that is a stream", () => {
  it.each(ways)("is judged and sent, given as %s", async (_name, make) => {
    const response = await ask(...make(call));
    expect(response.status).toBe(200);
    expect(asked).toMatchObject([{ p_user_id: "ada", p_model: "m", p_message: "Grüße" }]);
    expect(sent).toMatchObject([{ url, body: call }]);
  });

  it.each(ways)("is not sent for a blocked user, given as %s", async (_name, make) => {
    decides = { decision: "block", http_status: 403, reason: "user_blocked" };
    expect((await ask(...make(call))).status).toBe(403);
    expect(sent).toEqual([]);
  });

  it.each(ways)("goes on to the letter where it is no call of a model, given as %s", async (_name, make) => {
    await ask(...make("no JSON, grüße"));
    expect(asked).toEqual([]);
    expect(sent).toMatchObject([{ url, body: "no JSON, grüße" }]);
  });

  it("keeps the rest of a Request that is no call of a model", async () => {
    const init = streamed(stream(pieces("x")), { headers: { "x-own": "1" }, redirect: "manual" });
    await ask(new Request(url, init));
    expect(sent).toMatchObject([{ body: "x", redirect: "manual" }]);
    expect(sent[0]?.headers.get("x-own")).toBe("1");
  });

  it("is left alone at any other address", async () => {
    const body = stream(pieces("a file"));
    let given: unknown;
    const fetcher = guardFetch(
      guard,
      { user: "ada" },
      {
        fetch: async (_input, init) => {
          given = init?.body;
          return new Response("ok");
        },
      },
    );
    await fetcher("https://provider.test/v1/files", streamed(body));
    expect(given).toBe(body);
    expect(body.locked).toBe(false);
  });

  it("reads a form that is streamed", async () => {
    decides = { decision: "block", http_status: 403, reason: "user_blocked" };
    const form = new FormData();
    form.set("model", "whisper-1");
    form.set("file", new File([new Uint8Array([0, 255])], "a.wav"));
    const whole = new Response(form);
    const headers = { "content-type": whole.headers.get("content-type") ?? "" };
    const init = streamed(stream([new Uint8Array(await whole.arrayBuffer())]), { headers });
    const response = await ask("https://provider.test/v1/audio/transcriptions", init);
    expect(response.status).toBe(403);
    expect(asked).toMatchObject([{ p_model: "whisper-1" }]);
  });

  it("is refused beyond 64 MB, before anybody is asked, and the stream is told to end", async () => {
    const megabyte = new Uint8Array(1_048_576).fill(32);
    let isEnded = false;
    const body = stream(
      Array.from({ length: 100 }, () => megabyte),
      () => {
        isEnded = true;
      },
    );
    await expect(ask(url, streamed(body))).rejects.toThrow(/at most 64 MB/);
    expect([asked, sent, isEnded]).toEqual([[], [], true]);
  });

  it("rejects as fetch does where its caller leaves, or the stream breaks or was read before", async () => {
    const leaving = new AbortController();
    const endless = new ReadableStream({ pull: () => new Promise<never>(() => undefined) });
    const waiting = ask(url, streamed(endless, { signal: leaving.signal }));
    leaving.abort();
    await expect(waiting).rejects.toMatchObject({ name: "AbortError" });

    const breaking = new ReadableStream({ pull: (controller) => controller.error(new Error("gone")) });
    await expect(ask(url, streamed(breaking))).rejects.toThrow("gone");

    const read = stream(pieces(call));
    read.getReader();
    await expect(ask(url, streamed(read))).rejects.toThrow(TypeError);
    expect([asked, sent]).toEqual([[], []]);
  });
});
