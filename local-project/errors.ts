/**
 * What the endpoint answers when it refuses, and which HTTP status a PostgreSQL error becomes.
 * Codes, texts and the table follow https://docs.postgrest.org/en/stable/references/errors.html.
 */

interface ErrorBody {
  readonly code: string;
  readonly message: string;
  readonly details: unknown;
  readonly hint: string | null;
}

/** A refusal with its HTTP answer. */
export class HttpError extends Error {
  override readonly name = "HttpError";
  readonly status: number;
  readonly body: ErrorBody | Readonly<Record<string, unknown>>;
  readonly headers: Readonly<Record<string, string>>;

  constructor(
    status: number,
    body: ErrorBody | Readonly<Record<string, unknown>>,
    headers: Readonly<Record<string, string>> = {},
  ) {
    super(String(body.message));
    this.status = status;
    this.body = body;
    this.headers = headers;
  }
}

/** A refusal in PostgREST's form. */
export function refusal(
  status: number,
  code: string,
  message: string,
  details: unknown = null,
  hint: string | null = null,
): HttpError {
  return new HttpError(status, { code, message, details, hint });
}

/** The fields of an error that PostgreSQL reported, through pg or PGlite alike. */
interface PostgresError {
  readonly code: string;
  readonly message: string;
  readonly detail?: string | undefined;
  readonly hint?: string | undefined;
}

/** True for an error that the server reported, not one of the connection to it. */
export function isPostgresError(error: unknown): error is PostgresError {
  const { code, severity } = error as { code?: unknown; severity?: unknown };
  return typeof code === "string" && /^[0-9A-Z]{5}$/.test(code) && typeof severity === "string";
}

/** The HTTP answer for an error of the database; `authenticated` is false for the role anon. */
export function fromDatabaseError(error: unknown, authenticated: boolean): HttpError {
  if (error instanceof HttpError) return error;
  if (!isPostgresError(error)) return fromConnectionError(error);
  if (error.code === "PGRST") return fromRaisedResponse(error);
  const status = statusOf(error, authenticated);
  return new HttpError(
    status,
    { code: error.code, message: error.message, details: error.detail ?? null, hint: error.hint ?? null },
    status === 401 ? { "www-authenticate": "Bearer" } : {},
  );
}

function fromConnectionError(error: unknown): HttpError {
  const { message = String(error), code } = error as { message?: string; code?: string };
  if (message.startsWith("timeout exceeded when trying to connect")) {
    return refusal(504, "PGRST003", "Timed out acquiring connection from connection pool.");
  }
  return code === "ECONNREFUSED" || code === "ENOTFOUND" || code === "EHOSTUNREACH"
    ? refusal(503, "PGRST000", "Database connection error. Retrying the connection.", message)
    : refusal(503, "PGRST001", "Database client error. Retrying the connection.", message);
}

const STATUS_BY_CODE: Readonly<Record<string, number>> = {
  "23503": 409,
  "23505": 409,
  "25006": 405,
  "53400": 500,
  "57P01": 503,
  P0001: 400,
  "42883": 404,
  "42P01": 404,
  "42P17": 500,
};

const STATUS_BY_CLASS: Readonly<Record<string, number>> = {
  "08": 503,
  "09": 500,
  "0L": 403,
  "0P": 403,
  "25": 500,
  "28": 403,
  "2D": 500,
  "38": 500,
  "39": 500,
  "3B": 500,
  "40": 500,
  "53": 503,
  "54": 500,
  "55": 500,
  "57": 500,
  "58": 500,
  F0: 500,
  HV: 500,
  P0: 500,
  XX: 500,
};

function statusOf({ code, message }: PostgresError, authenticated: boolean): number {
  if (code === "42501") return authenticated ? 403 : 401;
  if (code === "21000") return message.endsWith("requires a WHERE clause") ? 400 : 500;
  if (code === "22023") return /^role .* does not exist$/.test(message) ? 401 : 400;
  if (code.startsWith("PT")) {
    const status = Number(code.slice(2));
    return Number.isInteger(status) && status >= 200 && status <= 599 ? status : 500;
  }
  return STATUS_BY_CODE[code] ?? STATUS_BY_CLASS[code.slice(0, 2)] ?? 400;
}

/** `raise sqlstate 'PGRST'`: message and detail are JSON that says the whole answer. */
function fromRaisedResponse(error: PostgresError): HttpError {
  const message = parseObject(error.message);
  if (!message || typeof message.code !== "string" || typeof message.message !== "string") {
    return raisedWrongly(
      `Invalid JSON value for MESSAGE: '${error.message}'`,
      "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: 'details', 'hint'.",
    );
  }
  const detail = parseObject(error.detail);
  if (!detail || !isStatus(detail.status) || typeof detail.headers !== "object") {
    return raisedWrongly(
      error.detail === undefined
        ? "DETAIL is missing in the RAISE statement"
        : `Invalid JSON value for DETAIL: '${error.detail}'`,
      "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key: 'status_text'.",
    );
  }
  const body = {
    code: message.code,
    message: message.message,
    details: message.details ?? null,
    hint: typeof message.hint === "string" ? message.hint : null,
  };
  const headers: Record<string, string> = {};
  for (const [name, value] of Object.entries(detail.headers ?? {})) {
    // A function must not be able to break the answer's framing.
    if (/^[A-Za-z0-9-]+$/.test(name) && typeof value === "string" && !/[^\t\x20-\x7e]/.test(value)) {
      headers[name] = value;
    }
  }
  return new HttpError(detail.status, body, headers);
}

function raisedWrongly(details: string, hint: string): HttpError {
  return refusal(
    500,
    "PGRST121",
    `Could not parse JSON in the "RAISE SQLSTATE 'PGRST'" error`,
    details,
    hint,
  );
}

function isStatus(value: unknown): value is number {
  return typeof value === "number" && Number.isInteger(value) && value >= 200 && value <= 599;
}

function parseObject(text: string | undefined): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text ?? "");
    return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : null;
  } catch {
    return null;
  }
}
