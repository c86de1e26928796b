/** The console answers in English; its messages reach the screens in the language of the person. */
import type { ConsoleClient } from "../../../shared/contract/client.ts";
import { translated } from "./language.ts";

/** What is shown to a person as it happens: a failure, and a notice. Other texts of an answer may be somebody's own words. */
const spokenKeys = new Set(["message", "advice", "title", "body"]);
const spokenStreams = new Set(["connection", "intents", "notices", "update"]);

function inLanguage(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(inLanguage);
  if (typeof value !== "object" || value === null) return value;
  const isSaid = "advice" in value || "body" in value;
  return Object.fromEntries(
    Object.entries(value).map(([key, each]) => [
      key,
      isSaid && typeof each === "string" && spokenKeys.has(key) ? translated(each) : inLanguage(each),
    ]),
  );
}

export function speaking(client: ConsoleClient): ConsoleClient {
  return {
    call: async (name, input) => {
      const reply = await client.call(name, input);
      return reply.ok ? reply : { ok: false, error: inLanguage(reply.error) as typeof reply.error };
    },
    follow: (name, input, onItem) =>
      client.follow(name, input, (item) =>
        onItem(spokenStreams.has(name) ? (inLanguage(item) as typeof item) : item),
      ),
    onStatus: (listener) => client.onStatus(listener),
  };
}
