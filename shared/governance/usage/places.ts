/** Where a response has its report, its model and its tier: the first place that is given counts. */

/** Where a response names its model. */
export const modelNames =
  "modelVersion|model|response.model|message.model|response.body.model|model_used|modelUsed";
/** Where libraries, batches and older answers name it, looked at after `modelNames`. */
export const moreModelNames =
  "result.message.model|interaction.model|response.modelId|response_metadata.model_name|response_metadata.model|modelId|model_name|model_version|model_id|data.model|body.model|raw.model|raw.modelVersion|orchestration_result.model|final_result.model|chatResult.modelId|generationDetails.parameters.model|modelOutput.model|llm_output.model_name";

/** Where a response names the tier that served it, in the response and in its report. */
export const tierNames: readonly string[] = [
  "usage.service_tier",
  // Anthropic, "Fast mode" (platform.claude.com/docs/en/build-with-claude/fast-mode).
  "usage.speed",
  "service_tier",
  // Bedrock (docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ServiceTier.html), and SDKs that write it so.
  "serviceTier.type",
  "serviceTier",
  // Gemini and Vertex AI (ai.google.dev/gemini-api/docs/priority-inference; TrafficType).
  "usageMetadata.serviceTier",
  "usageMetadata.trafficType",
  "usage_metadata.service_tier",
  "usage_metadata.traffic_type",
  "usage.extra_properties.google.traffic_type",
  "interaction.service_tier",
  "response.service_tier",
  "message.usage.service_tier",
  "message.usage.speed",
  // A line of a batch's file.
  "response.body.service_tier",
  "response.usageMetadata.trafficType",
  "result.message.usage.service_tier",
  // Vercel's AI SDK and LangChain.
  "providerMetadata.openai.serviceTier",
  "providerMetadata.anthropic.usage.service_tier",
  "providerMetadata.anthropic.usage.speed",
  "providerMetadata.google.usageMetadata.serviceTier",
  "providerMetadata.google.usageMetadata.trafficType",
  "providerMetadata.vertex.usageMetadata.trafficType",
  "data.service_tier",
  "body.service_tier",
  "response_metadata.service_tier",
  "response_metadata.usage.service_tier",
  "response_metadata.usage.speed",
];
/**
 * The tiers that may cost otherwise than the model's own price. OpenAI's priority is called fast since 30 July 2026
 * (developers.openai.com/api/docs/guides/fast-mode); both names are answered.
 */
export const pricedTiers: ReadonlySet<string> = new Set(["batch", "flex", "priority", "fast"]);

/** Where a report lies in a response, a stream's chunk or a stored message: the first place that has one is read. */
export const usagePlaces: readonly string[] = [
  "usageMetadata",
  "usage_metadata",
  // The AI SDK's result of several steps: its usage is that of the last one.
  "totalUsage",
  "usage",
  "choices.0.usage",
  "amazon-bedrock-invocationMetrics",
  "results.0",
  "x_groq.usage",
  "response.usage",
  "message.usage",
  // A line of a batch's file: OpenAI's, Gemini's, Anthropic's, Bedrock's.
  "response.body.usage",
  "response.usageMetadata",
  "result.message.usage",
  "modelOutput.usage",
  // Cloudflare's API wraps the answer; LangChain keeps the provider's report beside its own.
  "result.usage",
  // Gemini's Interactions, streamed; Cohere's older chat, streamed.
  "interaction.usage",
  "response.meta",
  "response_metadata.usage",
  "response_metadata.tokenUsage",
  "response_metadata.token_usage",
  "llmOutput.tokenUsage",
  "llm_output.token_usage",
  // A LangChain message as it is written to be kept.
  "kwargs.usage_metadata",
  "meta",
  // Haystack (docs.haystack.deepset.ai) and Jina's readers.
  "meta.usage",
  // AI SDK's messages of a chat, and backends that keep the report beside their own data.
  "metadata.totalUsage",
  "metadata.usage",
  // LlamaIndex keeps the provider's answer.
  "raw.usageMetadata",
  "raw.usage",
  "raw",
  // Agents, added up over their calls: Strands (strandsagents.com, "Metrics"), OpenAI's (openai.github.io/openai-agents-js).
  "metrics.accumulatedUsage",
  "metrics.accumulated_usage",
  "state._context.usage",
  // SAP's AI Core (help.sap.com, "Orchestration") and Oracle's Generative AI (docs.oracle.com, "ChatResult").
  "final_result.usage",
  "orchestration_result.usage",
  "chatResult.chatResponse.usage",
  // Nova Sonic's events, as they come and as they are kept.
  "event.usageEvent",
  "usageEvent",
  // Tencent's, Salesforce's (developer.salesforce.com, "Models REST API") and Mastra's (mastra.ai, "ChunkType") wrappers.
  "Response.Usage",
  "Usage",
  "generationDetails.parameters.usage",
  "payload.usage",
  "payload.output.usage",
  // AutoGen's messages (microsoft.github.io/autogen), and iFlytek's Spark (xfyun.cn/doc/spark/Web.html).
  "models_usage",
  "payload.usage.text",
  // HTTP clients (axios, OpenAI's withResponse()) and functions wrap the answer.
  "data.usageMetadata",
  "data.usage",
  "body.usageMetadata",
  "body.usage",
  "data",
  "token_usage",
  "tokenUsage",
  "metrics",
  "metadata",
  "",
];
