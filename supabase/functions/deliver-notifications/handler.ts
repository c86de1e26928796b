/** One call delivers what is due; a scheduler (pg_cron with pg_net, or any other) POSTs with the service key. */
import { sameText } from "../_shared/same-text.ts";
import { deliverDue, ProjectError } from "./deliver.ts";
import { type Environment, readSettings, SettingError } from "./settings.ts";

/** Edge Functions are ended after some minutes: no message is begun later than this. */
const WORK_MS = 50_000;

const answer = (status: number, body: unknown): Response =>
  new Response(JSON.stringify(body), {
    status,
    headers: { "content-type": "application/json", "cache-control": "no-store" },
  });

export async function handle(request: Request, environment: Environment): Promise<Response> {
  if (request.method !== "POST") return answer(405, { error: "method_not_allowed" });
  const url = environment("SUPABASE_URL");
  const serviceRoleKey = environment("SUPABASE_SERVICE_ROLE_KEY");
  if (!url || !serviceRoleKey) return answer(500, { error: "not_configured" });
  const bearer = /^Bearer (\S+)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
  const given = bearer ?? request.headers.get("apikey") ?? "";
  if (!sameText(given, serviceRoleKey)) return answer(401, { error: "not_allowed" });
  try {
    return answer(
      200,
      await deliverDue({
        project: { url, serviceRoleKey },
        settings: readSettings(environment),
        log: (sentence) => console.log(`deliver-notifications: ${sentence}`),
        signal: AbortSignal.timeout(WORK_MS),
      }),
    );
  } catch (error) {
    if (!(error instanceof SettingError || error instanceof ProjectError)) throw error;
    console.error(`deliver-notifications: ${error.message}`);
    return error instanceof SettingError
      ? answer(500, { error: "not_configured", message: error.message })
      : answer(503, { error: "unavailable", message: error.message });
  }
}
