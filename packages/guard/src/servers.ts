import { refusalOf } from "./refusal.ts";

/** What an Express answer must be able to do. */
export interface ExpressResponse {
  readonly headersSent: boolean;
  status(code: number): this;
  set(headers: Record<string, string>): this;
  json(body: unknown): unknown;
}

/**
 * For Express, after the routes: `app.use(expressRefusals())`. A refused call is answered with its status, Retry-After
 * and what to do; every other error goes on to the next handler.
 */
export function expressRefusals() {
  return (
    error: unknown,
    _request: unknown,
    response: ExpressResponse,
    next: (error?: unknown) => void,
  ): void => {
    const refusal = refusalOf(error);
    if (!refusal || response.headersSent) return next(error);
    response.status(refusal.status).set(refusal.headers).json(refusal.body);
  };
}

function answer(error: unknown): Response {
  const refusal = refusalOf(error);
  if (!refusal) throw error;
  return new Response(JSON.stringify(refusal.body), { status: refusal.status, headers: refusal.headers });
}

/** For Hono: `app.onError(honoRefusals)`. Throws every error that is no refusal, for Hono's own handler. */
export function honoRefusals(error: Error): Response {
  return answer(error);
}

/**
 * For handlers of web requests (Next.js routes, Supabase Edge Functions, Deno, Bun): answers a refused call; every other
 * error is thrown on.
 */
export function withRefusals<A extends readonly unknown[]>(
  handler: (...args: A) => Response | Promise<Response>,
): (...args: A) => Promise<Response> {
  const answered = async (...args: A): Promise<Response> => {
    try {
      return await handler(...args);
    } catch (error) {
      return answer(error);
    }
  };
  // Deno gives a handler only the arguments that it names.
  return Object.defineProperty(answered, "length", { value: handler.length });
}

/** A project as its signed-in users reach it. */
export interface AuthProject {
  readonly url: string;
  /** The anon (publishable) key. */
  readonly anonKey: string;
}

/**
 * Who is asking, for Supabase: the user of the request's bearer token, by the project's own auth server. null where
 * nobody is signed in. Rejects where the server does not answer.
 */
export async function signedInUser(request: Request, project: AuthProject): Promise<string | null> {
  const authorization = request.headers.get("authorization");
  if (!authorization || !/^bearer \S/i.test(authorization)) return null;
  const response = await fetch(`${project.url.replace(/\/+$/, "")}/auth/v1/user`, {
    headers: { apikey: project.anonKey, authorization },
  });
  if (response.status >= 500) throw new Error(`The auth server answered ${response.status}.`);
  if (!response.ok) return null;
  const user = (await response.json()) as { id?: unknown };
  return typeof user.id === "string" ? user.id : null;
}
