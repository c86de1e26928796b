/** Streams of LangGraph's, which report a message in more than one way. */
import { expect, it } from "vitest";
import { readUsageStream } from "../index.ts";
import { inOrder } from "../../../tests/support/usage-examples.ts";

it("counts a message of LangGraph's once, whether its chunks, its node's update or both come", () => {
  const message = (id: string, output: number) => ({
    type: "ai",
    id,
    content: "It is noon.",
    usage_metadata: { input_tokens: 10, output_tokens: output, total_tokens: 10 + output },
  });
  const updates = [
    { model: { messages: [message("1", 3)] } },
    { tools: { messages: [{ type: "tool", id: "2", content: "12:00" }] } },
    { model: { messages: [message("3", 4)] }, other: null },
  ];
  const totalOf = (chunks: readonly unknown[]): unknown => {
    const reader = readUsageStream();
    for (const chunk of chunks) reader.push(chunk);
    const read = reader.result();
    return read.ok && inOrder(read.value.counts).slice(0, 2);
  };
  expect(totalOf(updates)).toEqual([20, 7]);
  expect(totalOf(updates.map((update) => ["updates", update]))).toEqual([20, 7]);
  const both = [
    ["messages", [message("1", 3), { langgraph_node: "model" }]],
    ["updates", updates[0]],
  ];
  expect(totalOf([...both, ...updates.slice(1)])).toEqual([20, 7]);
  // A model that was not asked for its usage in the stream.
  const bare = ["messages", [{ type: "ai", id: "1", content: "It is noon." }, {}]];
  expect(totalOf([bare, ...updates])).toEqual([20, 7]);
});
