/** The chunks of a stream: where their parts lie, and what libraries put around them. */
import { isRecord } from "../values.ts";
import type { Report } from "./reports.ts";

// Every runtime has it; the core is compiled without the types of any.
declare const TextDecoder: new () => { decode(bytes: Uint8Array): string };

/** What is looked at of a chunk, whoever sent it. */
export interface Chunk {
  readonly type?: unknown;
  readonly usage?: unknown;
  readonly usageMetadata?: unknown;
  readonly usage_metadata?: unknown;
  readonly totalUsage?: unknown;
  readonly x_groq?: { readonly usage?: unknown } | null;
  readonly message?: { readonly usage?: unknown; readonly model?: unknown } | null;
  readonly response?: {
    readonly usage?: unknown;
    readonly model?: unknown;
    readonly service_tier?: unknown;
    readonly tool_usage?: unknown;
    readonly meta?: unknown;
  } | null;
  readonly service_tier?: unknown;
  readonly delta?: unknown;
  readonly choices?: readonly ({
    readonly delta?: unknown;
    readonly message?: unknown;
    readonly text?: unknown;
    readonly usage?: unknown;
  } | null)[];
  readonly candidates?: readonly ({ readonly content?: unknown } | null)[];
  readonly model?: unknown;
  readonly modelVersion?: unknown;
  readonly content_block?: unknown;
  readonly metadata?: { readonly usage?: unknown; readonly serviceTier?: unknown } | null;
  readonly serviceTier?: unknown;
  readonly providerMetadata?: unknown;
  readonly interaction?: {
    readonly usage?: unknown;
    readonly model?: unknown;
    readonly service_tier?: unknown;
  } | null;
  readonly "amazon-bedrock-invocationMetrics"?: Readonly<Record<string, unknown>> | null;
  readonly contentBlockDelta?: { readonly delta?: unknown } | null;
  readonly serverContent?: { readonly modelTurn?: unknown } | null;
}

/** AWS's SDK hands a model's own chunk on as bytes of JSON; an agent of Bedrock's sends its text so. */
function readBytes(chunk: unknown): unknown {
  const bytes = isRecord(chunk) ? chunk["bytes"] : null;
  if (!(bytes instanceof Uint8Array)) return null;
  const text = new TextDecoder().decode(bytes);
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

/**
 * Mastra's chunks (mastra.ai/reference/streaming/ChunkType) are the AI SDK's with all but the type in a payload, whose
 * output has the usage of a step, and at the end of all steps.
 */
function readPayload(given: Report): unknown {
  const { type, from, payload } = given;
  if (typeof type !== "string" || typeof from !== "string" || !isRecord(payload)) return null;
  const { output } = payload;
  return { ...payload, type, usage: payload["usage"] ?? (isRecord(output) ? output["usage"] : undefined) };
}

/** The chunk (or the text) within another; null where there is none. */
export const chunkWithin = (given: Report): unknown => readBytes(given["chunk"]) ?? readPayload(given);

/** What each call of a model by an agent of Bedrock's used (docs.aws.amazon.com/bedrock, "Trace events"); null for none. */
export function usageInTrace({ trace }: Report): unknown {
  const parts = isRecord(trace) && isRecord(trace["trace"]) ? Object.values(trace["trace"]) : [];
  for (const part of parts) {
    const output = isRecord(part) ? part["modelInvocationOutput"] : null;
    const metadata = isRecord(output) ? output["metadata"] : null;
    if (isRecord(metadata) && isRecord(metadata["usage"])) return metadata["usage"];
  }
  return null;
}

/** The messages that nodes of a graph of LangGraph's have added, list by list; none for any other chunk. */
export const messagesOfNodes = (chunk: Report): readonly unknown[][] =>
  Object.values(chunk).flatMap((node) =>
    isRecord(node) && Array.isArray(node["messages"]) ? [node["messages"] as unknown[]] : [],
  );
