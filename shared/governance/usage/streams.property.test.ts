/**
 * Streams of every provider in any split, cut anywhere, with placeholders, repeats and reports without counts, against
 * a plain model that adds up what was really used. `TESTS` gives another number (10,000 in a few seconds).
 */
import { expect, it } from "vitest";
import { readServerSentEvents, readUsageStream } from "../index.ts";

// oxlint-disable-next-line no-restricted-globals -- a test's size is chosen from outside
const asked = process.env["TESTS"];
const histories = asked === "whole" ? 10_000 : Number(asked ?? 1_000);

/** mulberry32: the same histories in every run. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % below;
  };
}

interface Chunk {
  readonly json: unknown;
  /** Characters that this chunk adds, and the output that it reports (null: none). */
  readonly text: number;
  readonly reports: number | null;
  /** Whether the stream's own end has come with it. */
  readonly ends?: boolean;
}

interface Call {
  readonly input: number;
  readonly cached: number;
  readonly output: number;
  readonly pieces: readonly string[];
}

type Random = ReturnType<typeof randomFrom>;
/** What each provider sends for a call; text and tool calls alike are output. */
const providers: Readonly<Record<string, (call: Call, random: Random) => Chunk[]>> = {
  openai_chat(call, random) {
    const usage = (output: number) => ({
      prompt_tokens: call.input,
      completion_tokens: output,
      total_tokens: call.input + output,
      prompt_tokens_details: { cached_tokens: call.cached },
    });
    const place = random(3);
    const zeros = { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 };
    const placeholder = [null, {}, zeros][random(3)];
    const chunks: Chunk[] = call.pieces.map((piece) => ({
      json: {
        choices: [
          random(4) === 0
            ? { delta: { tool_calls: [{ id: "call", function: { arguments: piece } }] } }
            : { delta: { content: piece } },
        ],
        usage: placeholder,
      },
      text: piece.length,
      reports: null,
    }));
    chunks.push({
      json:
        place === 0
          ? { choices: [], usage: usage(call.output) }
          : place === 1
            ? { choices: [{ delta: {}, usage: usage(call.output) }] }
            : { choices: [{ delta: {} }], x_groq: { usage: usage(call.output) } },
      text: 0,
      reports: call.output,
    });
    if (random(3) === 0) chunks.push({ json: { choices: [], usage: zeros }, text: 0, reports: null });
    return chunks;
  },
  perplexity(call) {
    return call.pieces.map((piece, index) => {
      const output = Math.ceil((call.output * (index + 1)) / call.pieces.length);
      return {
        json: {
          choices: [{ delta: { content: piece } }],
          usage: { prompt_tokens: call.input, completion_tokens: output, total_tokens: call.input + output },
        },
        text: piece.length,
        reports: output,
      };
    });
  },
  anthropic(call, random) {
    const fresh = call.input - call.cached;
    const late = random(3) === 0;
    return [
      {
        json: {
          type: "message_start",
          message: {
            model: "claude",
            usage: {
              input_tokens: late ? 0 : fresh,
              cache_read_input_tokens: call.cached,
              output_tokens: late ? 0 : 1,
            },
          },
        },
        text: 0,
        reports: late ? null : 1,
      },
      ...call.pieces.map((piece) => ({
        json: {
          type: "content_block_delta",
          delta: random(3) === 0 ? { partial_json: piece } : { text: piece },
        },
        text: piece.length,
        reports: null,
      })),
      {
        json: {
          type: "message_delta",
          delta: { stop_reason: "end_turn" },
          usage: { ...(late ? { input_tokens: fresh } : { input_tokens: 0 }), output_tokens: call.output },
        },
        text: 0,
        reports: call.output,
        ends: true,
      },
      { json: { type: "message_stop" }, text: 0, reports: null, ends: true },
    ];
  },
  google(call, random) {
    const chunks: Chunk[] = call.pieces.map((piece) => {
      const isBare = random(2) === 0;
      const args = random(4) === 0 ? { q: piece } : null;
      return {
        json: {
          candidates: [
            {
              content: {
                parts: [args ? { functionCall: { name: "f", args } } : { text: piece }],
              },
            },
          ],
          ...(isBare
            ? { usageMetadata: random(2) === 0 ? {} : null }
            : { usageMetadata: { promptTokenCount: call.input, totalTokenCount: call.input } }),
        },
        text: args ? 1 + JSON.stringify(args).length : piece.length,
        reports: null,
      };
    });
    chunks.push({
      json: {
        candidates: [{ finishReason: "STOP" }],
        usageMetadata: {
          promptTokenCount: call.input,
          cachedContentTokenCount: call.cached,
          candidatesTokenCount: call.output,
          totalTokenCount: call.input + call.output,
        },
      },
      text: 0,
      reports: call.output,
    });
    return chunks;
  },
  openai_responses(call) {
    return [
      { json: { type: "response.created", response: { usage: null } }, text: 0, reports: null },
      ...call.pieces.map((delta) => ({
        json: { type: "response.output_text.delta", delta },
        text: delta.length,
        reports: null,
      })),
      {
        json: {
          type: "response.completed",
          response: {
            usage: {
              input_tokens: call.input,
              input_tokens_details: { cached_tokens: call.cached },
              output_tokens: call.output,
              total_tokens: call.input + call.output,
            },
          },
        },
        text: 0,
        reports: call.output,
      },
    ];
  },
};

it(`counts ${histories} streams, whole and cut, as a plain model does: never free beside output, never twice`, () => {
  const tally: Record<string, number> = {};
  for (let seed = 1; seed <= histories; seed++) {
    const random = randomFrom(seed);
    const input = 1 + random(5_000);
    const call: Call = {
      input,
      cached: random(2) === 0 ? 0 : random(input),
      output: 1 + random(3_000),
      pieces: Array.from({ length: 1 + random(8) }, () => "abc d".repeat(1 + random(20))),
    };
    const names = Object.keys(providers);
    const name = names[random(names.length)] as string;
    const all = (providers[name] as (typeof providers)[string])(call, random);
    const seen = random(2) === 0 ? all : all.slice(0, random(all.length + 1));

    // The plain model: what was written, and what of it the last report with a count covers.
    let text = 0;
    let since = 0;
    let reported = 0;
    let hasEnded = name !== "anthropic";
    for (const chunk of seen) {
      text += chunk.text;
      since += chunk.text;
      if (chunk.reports !== null) {
        reported = chunk.reports;
        since = 0;
      }
      hasEnded ||= chunk.ends === true;
    }

    const stream = readUsageStream();
    const feed = readServerSentEvents(stream);
    const wire = seen.map(({ json }) => `data: ${JSON.stringify(json)}\n\n`).join("");
    for (let at = 0; at < wire.length; ) {
      const size = 1 + random(60);
      feed(wire.slice(at, at + size));
      at += size;
    }
    const partial = stream.partial();
    const result = stream.result();
    const where = `seed ${seed}: ${name}, ${seen.length} of ${all.length} chunks\n${wire}`;

    expect(partial.text_length, where).toBe(text);
    expect(partial.text_since_report, where).toBe(since);
    expect(partial.reported?.counts.output_tokens ?? 0, where).toBe(reported);
    const isExact = hasEnded && since === 0 && reported > 0;
    expect(result.ok, where).toBe(isExact);
    if (result.ok) {
      expect(result.value.counts, where).toMatchObject({ input_tokens: input, output_tokens: reported });
      if (seen.length === all.length && name !== "perplexity")
        expect(result.value.counts.cached_input_tokens, where).toBe(call.cached);
    } else if (text > 0)
      // What a guard charges then.
      expect(reported + Math.ceil(partial.text_since_report / 4), where).toBeGreaterThan(0);
    const key = `${name} ${isExact ? "exact" : "cut"}`;
    tally[key] = (tally[key] ?? 0) + 1;
  }
  // Histories that all end alike would prove little.
  expect(Object.keys(tally)).toHaveLength(10);
}, 600_000);
