/** The calls of a provider's HTTP interface: which requests they are, and what the guard reads and changes of them. */

import { isRecord } from "../../../shared/governance/values.ts";

type Fields = Record<string, unknown>;

/** One request for a model's work. */
export interface ProviderCall {
  readonly model: string;
  /** The last thing the user said; undefined where nobody spoke. */
  readonly message: string | undefined;
  /** Tokens that the prompt is about, by its length. */
  readonly input_tokens: number;
  readonly isStream: boolean;
  /** The usage in the stream was not asked for by the caller, who does not expect its chunk. */
  readonly asksForUsage: boolean;
  /** The request for the model and the message that the guard decided on. */
  rewritten(
    model: string,
    message: string | undefined,
  ): { readonly url: string; readonly body: string | FormData };
}

/**
 * Paths of calls that use tokens: OpenAI's and its followers' (Azure, Mistral, OpenRouter, xAI, DeepSeek, Groq …),
 * Anthropic's, Cohere's, Google's (Gemini, its Interactions, and Vertex with its embeddings of text), Mistral's
 * conversations and agents, Bedrock's.
 */
const calls =
  /\/model\/[^/]+\/(converse|converse-stream|invoke|invoke-with-response-stream)$|\/(chat\/completions|completions|responses(\/compact)?|embeddings|images\/(generations|edits|variations)|audio\/(transcriptions|translations|speech)|messages|v[12]\/(chat|embed)|interactions|conversations)$|:(generateContent|streamGenerateContent|embedContent|batchEmbedContents|rawPredict|streamRawPredict)$|\/models\/(?!multimodal)[^/:]*embedding[^/:]*:predict$/;
/**
 * Where the path names the model: Google's, tuned ones among them; Azure's deployments; Bedrock's, whose names have
 * colons. Azure's AI inference has its models' calls under "/models/", and the name in the body.
 */
const modelInPath =
  /(?<=\/(?:models|tunedModels|endpoints)\/)[^/:]+(?=:[a-zA-Z]+$)|(?<=\/deployments\/)[^/:]+|(?<=\/model\/)[^/]+(?=\/(?:converse|invoke)[a-z-]*$)/;

/** The path of an address, without what gateways pass over at its end. */
const pathOf = ({ pathname }: URL): string => pathname.replace(/\/+$/, "");

/** Whether a request to this address asks for a model's work. */
export const isCall = (url: string): boolean => URL.canParse(url) && calls.test(pathOf(new URL(url)));

/** The place of a text, so that it can be read and put back. */
interface Text {
  readonly text: string;
  replace(text: string): void;
}

/** The last text in a list of parts: `{text}` of OpenAI, Anthropic, Google, Cohere and the AI SDK. */
function textIn(holder: Fields, key: string): Text | null {
  const content = holder[key];
  if (typeof content === "string")
    return {
      text: content,
      replace: (text) => {
        holder[key] = text;
      },
    };
  if (!Array.isArray(content)) return null;
  const part: unknown = content.findLast((each) => isRecord(each) && typeof each["text"] === "string");
  return isRecord(part) ? textIn(part, "text") : null;
}

/** The last message, where the user wrote it: an answer of a tool is no message of the user's. */
export function lastMessage(messages: unknown): Text | null {
  if (!Array.isArray(messages)) return null;
  const last: unknown = messages.at(-1);
  if (!isRecord(last) || (last["role"] !== undefined && last["role"] !== "user")) return null;
  // Gemini's Interactions take parts without a message around them.
  return textIn(last, Array.isArray(last["parts"]) ? "parts" : "content") ?? textIn(last, "text");
}

function messageOf(body: Fields): Text | null {
  for (const key of ["messages", "contents"]) if (key in body) return lastMessage(body[key]);
  for (const key of ["input", "inputs"]) {
    if (typeof body[key] === "string") return textIn(body, key);
    if (Array.isArray(body[key])) return lastMessage(body[key]);
  }
  // Titan's on Bedrock, Cohere's older chat, and completions.
  for (const key of ["inputText", "message", "prompt"])
    if (typeof body[key] === "string") return textIn(body, key);
  return null;
}

const spoken: ReadonlySet<string> = new Set([
  "text",
  "content",
  "input",
  "inputs",
  "inputText",
  "message",
  "prompt",
  "system",
  "system_instruction",
  "instructions",
]);

/** UTF-16 units of a prompt's text, whatever its shape: pictures and sounds are not counted. */
export function lengthOfPrompt(value: unknown, depth = 0): number {
  if (depth > 10 || typeof value !== "object" || value === null) return 0;
  let length = 0;
  for (const [key, each] of Object.entries(value)) {
    if (typeof each === "string") length += spoken.has(key) ? each.length : 0;
    else length += lengthOfPrompt(each, depth + 1);
  }
  return length;
}

/** The model that a path names; undefined where none does. */
function modelOf(address: URL): string | undefined {
  const inPath = modelInPath.exec(pathOf(address))?.[0];
  try {
    return inPath === undefined ? undefined : decodeURIComponent(inPath);
  } catch {
    // A percent sign that escapes nothing.
    return inPath;
  }
}

/** Puts another model into a path that names one. */
function renameModel(address: URL, model: string): void {
  address.pathname = pathOf(address).replace(modelInPath, () => encodeURIComponent(model));
}

/** Reads a request to an address of `isCall`; null for what is no call of a model, which then goes on as it is. */
export const readCall = (url: string, said: string | FormData): ProviderCall | null =>
  typeof said === "string" ? readJson(url, said) : readForm(url, said);

function readJson(url: string, text: string): ProviderCall | null {
  const address = new URL(url);
  const path = pathOf(address);
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    return null;
  }
  if (!isRecord(parsed)) return null;
  const body: Fields = parsed;
  const inPath = modelOf(address);
  // Mistral's and Google's agents take the model's place.
  const named = body["model"] ?? body["agent_id"] ?? body["agent"];
  const model = inPath ?? named;
  if (typeof model !== "string") return null;
  const message = /embed/.test(path) ? null : messageOf(body);
  const isStream =
    body["stream"] === true || body["stream_format"] === "sse" || /:stream|-stream$/.test(path);
  const isCompletion = path.endsWith("/completions");
  const options = isRecord(body["stream_options"]) ? body["stream_options"] : {};
  // Mistral counts without being asked, and refuses what it does not know.
  const asksForUsage =
    isCompletion &&
    isStream &&
    options["include_usage"] === undefined &&
    !address.hostname.endsWith("mistral.ai");
  return {
    model,
    message: message?.text,
    input_tokens: Math.ceil(lengthOfPrompt(body) / 4),
    isStream,
    asksForUsage,
    rewritten(toModel, toMessage) {
      const isSame = toModel === model && (toMessage === undefined || toMessage === message?.text);
      // To the letter: the request may be signed.
      if (isSame && !asksForUsage) return { url, body: text };
      if (toMessage !== undefined && toMessage !== message?.text) message?.replace(toMessage);
      if (asksForUsage) body["stream_options"] = { ...options, include_usage: true };
      if (inPath === undefined) {
        if (toModel !== model) for (const agent of ["agent_id", "agent"]) delete body[agent];
        if (toModel !== model || body["model"] !== undefined) body["model"] = toModel;
      } else if (toModel !== model) {
        renameModel(address, toModel);
        if (typeof body["model"] === "string") body["model"] = toModel;
      }
      return { url: address.href, body: JSON.stringify(body) };
    },
  };
}

/** Reads a form, as OpenAI takes pictures to edit and audio to transcribe. */
function readForm(url: string, form: FormData): ProviderCall | null {
  const address = new URL(url);
  const inPath = modelOf(address);
  // Pictures may leave their model out.
  const model = inPath ?? form.get("model") ?? "dall-e-2";
  if (typeof model !== "string") return null;
  const prompt = form.get("prompt");
  // A sound's prompt is no message: it describes how to transcribe it.
  const message = typeof prompt === "string" && address.pathname.includes("/images/") ? prompt : undefined;
  return {
    model,
    message,
    input_tokens: typeof prompt === "string" ? Math.ceil(prompt.length / 4) : 0,
    isStream: form.get("stream") === "true",
    asksForUsage: false,
    rewritten(toModel, toMessage) {
      const body = new FormData();
      for (const [name, value] of form.entries()) body.append(name, value);
      if (toMessage !== undefined && toMessage !== message) body.set("prompt", toMessage);
      if (toModel !== model && inPath !== undefined) renameModel(address, toModel);
      else if (toModel !== model) body.set("model", toModel);
      return { url: address.href, body };
    },
  };
}
