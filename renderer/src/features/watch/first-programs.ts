/** The first governed call, for each stack: what a project without calls shows to paste. Compiled by the tests. */
interface FirstProgram {
  readonly name: string;
  /** What to install first. */
  readonly install: string;
  /** The program for the project at this address. */
  readonly code: (url: string) => string;
}

const guardOf = (url: string, key: string): string => `const guard = createGuard({
  url: ${JSON.stringify(url)},
  key: ${key}, // the service-role key: stays on the server
});`;

/** The stacks, the most common first. */
export const firstPrograms: readonly FirstProgram[] = [
  {
    name: "OpenAI",
    install: "npm install @token-governance/guard openai",
    code: (url) => `import process from "node:process";
import { createGuard, guardClient } from "@token-governance/guard";
import OpenAI from "openai";

${guardOf(url, 'process.env.SUPABASE_SERVICE_ROLE_KEY ?? ""')}
const openai = new OpenAI();

export async function chat(user: string, message: string) {
  const ai = guardClient(openai, guard, { user, task: "chat" });
  return ai.chat.completions.create({ model: "gpt-4o", messages: [{ role: "user", content: message }] });
}

await chat("first-user", "Hello");
await guard.idle();`,
  },
  {
    name: "Anthropic",
    install: "npm install @token-governance/guard @anthropic-ai/sdk",
    code: (url) => `import process from "node:process";
import Anthropic from "@anthropic-ai/sdk";
import { createGuard, guardClient } from "@token-governance/guard";

${guardOf(url, 'process.env.SUPABASE_SERVICE_ROLE_KEY ?? ""')}
const anthropic = new Anthropic();

export async function chat(user: string, message: string) {
  const ai = guardClient(anthropic, guard, { user, task: "chat" });
  const messages = [{ role: "user" as const, content: message }];
  return ai.messages.create({ model: "claude-sonnet-4", max_tokens: 1024, messages });
}

await chat("first-user", "Hello");
await guard.idle();`,
  },
  {
    name: "AI SDK",
    install: "npm install @token-governance/guard ai @ai-sdk/openai",
    code: (url) => `import process from "node:process";
import { openai } from "@ai-sdk/openai";
import { createGuard, guardMiddleware } from "@token-governance/guard";
import { generateText, wrapLanguageModel } from "ai";

${guardOf(url, 'process.env.SUPABASE_SERVICE_ROLE_KEY ?? ""')}

export async function chat(user: string, prompt: string) {
  const middleware = guardMiddleware(guard, { user, task: "chat" }, openai);
  return generateText({ model: wrapLanguageModel({ model: openai("gpt-4o"), middleware }), prompt });
}

await chat("first-user", "Hello");
await guard.idle();`,
  },
  {
    name: "fetch",
    install: "npm install @token-governance/guard",
    code: (url) => `import process from "node:process";
import { createGuard, guardFetch } from "@token-governance/guard";

${guardOf(url, 'process.env.SUPABASE_SERVICE_ROLE_KEY ?? ""')}

export async function chat(user: string, message: string) {
  const ask = guardFetch(guard, { user, task: "chat" });
  return ask("https://api.openai.com/v1/chat/completions", {
    method: "POST",
    headers: { authorization: \`Bearer \${process.env.OPENAI_API_KEY}\`, "content-type": "application/json" },
    body: JSON.stringify({ model: "gpt-4o", messages: [{ role: "user", content: message }] }),
  });
}

await chat("first-user", "Hello");
await guard.idle();`,
  },
];
