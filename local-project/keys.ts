/**
 * The keys of one installation: an HS256 secret, the anon and service_role keys as Supabase makes them (JWTs that
 * last ten years), and their newer opaque forms. Checks tokens by PostgREST's rules
 * (https://docs.postgrest.org/en/stable/references/auth.html).
 */
import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { decodeProtectedHeader, errors, jwtVerify, SignJWT } from "jose";
import { HttpError, refusal } from "./errors.ts";

export interface ProjectKeys {
  /** Signs tokens, HS256. */
  readonly jwtSecret: string;
  readonly anonKey: string;
  readonly serviceRoleKey: string;
  /** The same two in the form of Supabase's newer keys: accepted wherever a key is. */
  readonly publishableKey: string;
  readonly secretKey: string;
}

/** Who calls: the role to take and the claims that `request.jwt.claims` shows. */
export interface Caller {
  readonly role: string;
  readonly claims: Readonly<Record<string, unknown>>;
  /** Seconds since 1970, or null for never. */
  readonly expiresAt: number | null;
}

const TEN_YEARS_SECONDS = 315_360_000;
/** PostgREST's tolerance for clocks that differ. */
const CLOCK_SKEW_SECONDS = 30;
const REMEMBERED_TOKENS = 1000;

export function newJwtSecret(): string {
  return randomBytes(32).toString("base64url");
}

/** The same secret and time give the same keys, so that a key once copied stays valid. */
export async function issueKeys(jwtSecret: string, issuedAtSeconds: number): Promise<ProjectKeys> {
  const sign = (role: string): Promise<string> =>
    new SignJWT({ role, iss: "supabase", ref: "local" })
      .setProtectedHeader({ alg: "HS256", typ: "JWT" })
      .setIssuedAt(issuedAtSeconds)
      .setExpirationTime(issuedAtSeconds + TEN_YEARS_SECONDS)
      .sign(new TextEncoder().encode(jwtSecret));
  const opaque = (kind: string): string =>
    `sb_${kind}_${createHmac("sha256", jwtSecret).update(kind).digest("base64url").slice(0, 31)}`;
  return {
    jwtSecret,
    anonKey: await sign("anon"),
    serviceRoleKey: await sign("service_role"),
    publishableKey: opaque("publishable"),
    secretKey: opaque("secret"),
  };
}

export interface Gate {
  /**
   * The caller of a request, from its `apikey` (header or query) and `Authorization` header, first as Supabase's
   * gateway treats them, then as PostgREST does. Throws HttpError 401.
   */
  admit(apiKey: string | undefined, authorization: string | undefined): Promise<Caller>;
  /** The caller that a token alone names. Throws HttpError 401. */
  verify(token: string): Promise<Caller>;
}

export function createGate(keys: ProjectKeys): Gate {
  const secret = new TextEncoder().encode(keys.jwtSecret);
  const remembered = new Map<string, Caller>();

  async function verify(token: string): Promise<Caller> {
    const opaque = fromOpaqueKey(token);
    if (opaque) return opaque;
    const known = remembered.get(token);
    if (known) {
      refuseExpired(known);
      return known;
    }
    const caller = await verifyJwt(token, secret);
    refuseExpired(caller);
    if (remembered.size >= REMEMBERED_TOKENS) {
      const oldest = remembered.keys().next();
      if (!oldest.done) remembered.delete(oldest.value);
    }
    remembered.set(token, caller);
    return caller;
  }

  function fromOpaqueKey(key: string): Caller | null {
    const role = same(key, keys.secretKey) ? "service_role" : same(key, keys.publishableKey) ? "anon" : null;
    return role && { role, claims: { role, iss: "supabase" }, expiresAt: null };
  }

  /** Supabase's gateway knows its keys; any token that this project signed is taken as one too. */
  async function isOurs(apiKey: string): Promise<boolean> {
    try {
      await verify(apiKey);
      return true;
    } catch (error) {
      // Ours but expired: let it through, so that the answer says that it has expired.
      return error instanceof HttpError && error.body.code === "PGRST303";
    }
  }

  return {
    verify,
    async admit(apiKey, authorization) {
      if (!apiKey) {
        throw new HttpError(401, {
          message: "No API key found in request",
          hint: "No `apikey` request header or url param was found.",
        });
      }
      if (!(await isOurs(apiKey))) {
        throw new HttpError(401, {
          message: "Invalid API key",
          hint: "Double check your Supabase `anon` or `service_role` API key.",
        });
      }
      const bearer = /^bearer\s+(.*)$/i.exec(authorization ?? "")?.[1]?.trim();
      // The gateway puts the API key where there is no token of a user's, and where the token is an opaque key.
      return verify(bearer === undefined || bearer.startsWith("sb_") ? apiKey : bearer);
    },
  };
}

function same(left: string, right: string): boolean {
  const [a, b] = [Buffer.from(left), Buffer.from(right)];
  return a.length === b.length && timingSafeEqual(a, b);
}

async function verifyJwt(token: string, secret: Uint8Array): Promise<Caller> {
  if (token === "") throw undecodable("Empty JWT is sent in Authorization header");
  const parts = token.split(".").length;
  if (parts !== 3) throw undecodable(`Expected 3 parts in JWT; got ${parts}`);
  let claims: Record<string, unknown>;
  try {
    decodeProtectedHeader(token);
    // Times are checked below, by PostgREST's rules and with its words.
    const { payload } = await jwtVerify(token, secret, {
      algorithms: ["HS256"],
      currentDate: new Date(0),
      clockTolerance: Number.MAX_SAFE_INTEGER,
    });
    claims = payload;
  } catch (error) {
    if (error instanceof errors.JOSEAlgNotAllowed) {
      throw undecodable("Wrong or unsupported encoding algorithm");
    }
    if (error instanceof errors.JWTClaimValidationFailed) throw claimWrong(numberClaimMessage(error.claim));
    if (error instanceof errors.JWSSignatureVerificationFailed) {
      throw undecodable("No suitable key or wrong key type", "None of the keys was able to decode the JWT");
    }
    throw undecodable("JWT cryptographic operation failed");
  }
  const now = Date.now() / 1000;
  const { exp, nbf, iat, role } = claims;
  for (const [name, value] of Object.entries({ exp, nbf, iat })) {
    if (value !== undefined && typeof value !== "number") throw claimWrong(numberClaimMessage(name));
  }
  if (typeof nbf === "number" && nbf > now + CLOCK_SKEW_SECONDS) throw claimWrong("JWT not yet valid");
  if (typeof iat === "number" && iat > now + CLOCK_SKEW_SECONDS) throw claimWrong("JWT issued at future");
  const name = typeof role === "string" ? role : role === undefined ? "anon" : JSON.stringify(role);
  return { role: name, claims: { ...claims, role: name }, expiresAt: typeof exp === "number" ? exp : null };
}

function refuseExpired({ expiresAt }: Caller): void {
  if (expiresAt !== null && expiresAt < Date.now() / 1000 - CLOCK_SKEW_SECONDS)
    throw claimWrong("JWT expired");
}

const numberClaimMessage = (claim: string): string => `The JWT '${claim}' claim must be a number`;

function undecodable(message: string, details: string | null = null): HttpError {
  return unauthorized("PGRST301", message, details);
}

function claimWrong(message: string): HttpError {
  return unauthorized("PGRST303", message);
}

function unauthorized(code: string, message: string, details: string | null = null): HttpError {
  const { body } = refusal(401, code, message, details);
  return new HttpError(401, body, {
    "www-authenticate": `Bearer error="invalid_token", error_description=${JSON.stringify(message)}`,
  });
}
