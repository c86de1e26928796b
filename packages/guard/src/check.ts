import { isRecord } from "../../../shared/governance/values.ts";
import type { RpcClient, RpcReply } from "../../../shared/governance/guard/index.ts";

/** One thing that was looked at: what was found, and where it is not right, what to do. */
export interface Finding {
  readonly what: string;
  readonly isRight: boolean;
  /** One sentence: what was found. */
  readonly found: string;
  /** What to do where it is not right. */
  readonly mend?: string;
}

/** What a check looks at. `now` is ms since 1970; `user` is for whom the dry call is asked. */
export interface CheckOptions {
  readonly client: RpcClient;
  readonly now: () => number;
  readonly newId: () => string;
  readonly user: string;
}

/** Clocks that differ by more make logs and expiries hard to read. */
const largestClockDifferenceMs = 30_000;

function projectFinding({ error, status = 0 }: RpcReply): Finding {
  const what = "project and key";
  const wrong = (found: string, mend: string): Finding => ({ what, isRight: false, found, mend });
  if (!error) return { what, isRight: true, found: "The project answers, and takes the key." };
  if (error.code === "PGRST202" || error.code === "42883")
    return wrong("The project has none of the functions.", "Apply the migrations: npm run migrate.");
  if (status === 401)
    return wrong(
      "The project refuses the key.",
      "Take the service-role (secret) key of this project, whole and not an old one.",
    );
  if (status === 403 || error.code === "42501")
    return wrong("The key is not the service's.", "Take the service-role (secret) key, not the anon one.");
  if (error.hint === "not_configured")
    return wrong("The project has no plans or prices.", "Apply a preset in the console, under Settings.");
  return wrong(`The project answers with an error: ${error.message}`, "Look at the project's logs.");
}

async function ask(client: RpcClient, name: string, args: Record<string, unknown>): Promise<RpcReply> {
  try {
    return await client.rpc(name, args);
  } catch (error) {
    return { data: null, error: { message: error instanceof Error ? error.message : String(error) } };
  }
}

/** A call that is asked for and given back: nothing is charged. */
async function dryCall({ client, newId, user }: CheckOptions): Promise<Finding> {
  const what = "a dry call";
  const requestId = newId();
  const call = { p_request_id: requestId, p_user_id: user, p_model: "gpt-4o", p_estimated_tokens: 1 };
  const { data, error } = await ask(client, "authorize_usage", call);
  if (error || !isRecord(data))
    return {
      what,
      isRight: false,
      found: `authorize_usage answers: ${error?.message ?? "nothing"}`,
      mend: "Apply the migrations, and a preset.",
    };
  if (data["decision"] === "block")
    return { what, isRight: true, found: `Asked, and refused for ${user}: ${String(data["reason"])}.` };
  const released = await ask(client, "release_usage", { p_request_id: requestId, p_reason: "dry call" });
  if (released.error)
    return {
      what,
      isRight: false,
      found: `Asked, but not given back: ${released.error.message}`,
      mend: "Its token comes back when the hold expires. Apply all migrations.",
    };
  return { what, isRight: true, found: "Asked, allowed and given back; nothing was charged." };
}

/** Looks at a backend's project as the guard will use it: key, migrations, clock, and a dry call. Never rejects. */
export async function checkProject(options: CheckOptions): Promise<readonly Finding[]> {
  const sentAt = options.now();
  const reply = await ask(options.client, "console_project_info", {});
  const receivedAt = options.now();
  if (reply.error && !reply.error.code && !reply.status)
    return [
      {
        what: "project and key",
        isRight: false,
        found: `Nothing answers: ${reply.error.message}`,
        mend: "Look at SUPABASE_URL: the project's URL, as https://….supabase.co.",
      },
    ];
  const project = projectFinding(reply);
  if (!project.isRight) return [project];
  const info = isRecord(reply.data) ? reply.data : {};
  const migrations = Array.isArray(info["migrations"]) ? info["migrations"] : [];
  const differenceMs = (sentAt + receivedAt) / 2 - Date.parse(String(info["server_time"]));
  const isOnTime = Math.abs(differenceMs) <= largestClockDifferenceMs + (receivedAt - sentAt) / 2;
  return [
    project,
    migrations.length > 0
      ? { what: "migrations", isRight: true, found: `Applied up to ${String(info["schema_version"])}.` }
      : {
          what: "migrations",
          isRight: false,
          found: "The project keeps no record of its migrations.",
          mend: "Apply them with npm run migrate or supabase db push, which record them.",
        },
    isOnTime
      ? { what: "clock", isRight: true, found: "This machine's clock agrees with the server's." }
      : {
          what: "clock",
          isRight: false,
          found: `This machine's clock is ${Math.round(Math.abs(differenceMs) / 1000)} s ${differenceMs > 0 ? "ahead of" : "behind"} the server's.`,
          mend: "Let NTP set it: times in your logs will not fit the receipts.",
        },
    await dryCall(options),
  ];
}
