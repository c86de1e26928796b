/**
 * Takes Stripe's webhook: checks the signature on the raw body, fetches the lines of a long invoice that the event
 * leaves out, hands the event to `process_stripe_event`, and answers so that Stripe delivers again exactly when that can
 * help. It decides nothing about tokens: the database does.
 */
import Stripe from "stripe";

interface Environment {
  /** `whsec_…` of the endpoint; several, separated by commas, while a secret is being rolled. */
  readonly webhookSecrets: string;
  readonly supabaseUrl: string;
  readonly serviceRoleKey: string;
  /**
   * Reads invoices of more than ten lines, of which an event carries the first ten alone: a restricted key with read
   * access to invoices is enough. Without it such an invoice waits for a person.
   */
  readonly stripeApiKey?: string;
  /** Where Stripe's API is, if not at api.stripe.com. */
  readonly stripeApiUrl?: string;
  /** Seconds that a delivery may be old, or early (clocks differ). Default 300. */
  readonly toleranceSeconds?: number;
  readonly now?: () => number;
}

/** Larger than any event of Stripe's. */
const MAX_BODY_BYTES = 1 << 20;

const crypto = Stripe.createSubtleCryptoProvider();

function answer(status: number, body: Readonly<Record<string, unknown>>): Response {
  return new Response(JSON.stringify(body), { status, headers: { "content-type": "application/json" } });
}

/** Stripe's SDK refuses what is old, not what claims to come from the future. */
function isFromTheFuture(signature: string, nowSeconds: number, toleranceSeconds: number): boolean {
  const timestamp = /(?:^|,)\s*t=(\d{1,15})(?:,|$)/.exec(signature)?.[1];
  return timestamp === undefined || Number(timestamp) > nowSeconds + toleranceSeconds;
}

/** The body as it was sent: with one character changed, the signature no longer matches. Null where it is too large. */
async function readBody(request: Request): Promise<string | null> {
  if (Number(request.headers.get("content-length") ?? 0) > MAX_BODY_BYTES) return null;
  const reader = request.body?.getReader();
  if (!reader) return "";
  const parts: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    length += value.length;
    if (length > MAX_BODY_BYTES) {
      await reader.cancel();
      return null;
    }
    parts.push(value);
  }
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return new TextDecoder().decode(all);
}

async function verify(
  body: string,
  signature: string,
  environment: Environment,
): Promise<Stripe.Event | null> {
  for (const secret of environment.webhookSecrets
    .split(",")
    .map((one) => one.trim())
    .filter(Boolean)) {
    try {
      return await Stripe.webhooks.constructEventAsync(
        body,
        signature,
        secret,
        environment.toleranceSeconds ?? 300,
        crypto,
        environment.now ? Math.floor(environment.now() / 1000) : undefined,
      );
    } catch (error) {
      if (error instanceof Stripe.errors.StripeSignatureVerificationError) continue;
      return null; // signed, but not JSON
    }
  }
  return null;
}

/**
 * A database's text holds neither U+0000 nor half a surrogate pair: both become U+FFFD. So the event is there for a
 * person to decide on, rather than refused and sent again for days.
 */
function storable(value: unknown): unknown {
  if (typeof value === "string") return value.toWellFormed().replaceAll("\0", "\ufffd");
  if (Array.isArray(value)) return value.map(storable);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [storable(key), storable(inner)]));
}

/**
 * The event with all lines of its invoice. The event as it came where nothing is missing, where no key was given or the
 * key may not read invoices, or where all lines together are more than the database takes: then the invoice waits for a
 * person. Throws where trying again may help.
 */
async function withAllLines(event: Stripe.Event, environment: Environment): Promise<Stripe.Event> {
  // Whatever is signed comes here: nothing of its shape is sure.
  const invoice = (event as { data?: { object?: Partial<Stripe.Invoice> | null } | null }).data?.object;
  if (invoice?.object !== "invoice" || invoice.lines?.has_more !== true || !invoice.id) return event;
  // A connected account's invoices are not ours to read.
  if (!environment.stripeApiKey || event.account) return event;
  const api = environment.stripeApiUrl ? new URL(environment.stripeApiUrl) : null;
  const stripe = new Stripe(environment.stripeApiKey, {
    httpClient: Stripe.createFetchHttpClient(),
    timeout: 8_000,
    maxNetworkRetries: 1,
    ...(api
      ? { host: api.hostname, port: api.port, protocol: api.protocol === "http:" ? "http" : "https" }
      : {}),
  });
  const data: Stripe.InvoiceLineItem[] = [];
  try {
    // In the event's version, so that all lines have one shape.
    const options = event.api_version ? { apiVersion: event.api_version } : {};
    for await (const line of stripe.invoices.listLineItems(invoice.id, { limit: 100 }, options))
      data.push(line);
  } catch (error) {
    const mayPass =
      error instanceof Stripe.errors.StripeRateLimitError ||
      error instanceof Stripe.errors.StripeConnectionError ||
      error instanceof Stripe.errors.StripeAPIError;
    if (mayPass) throw error;
    console.error(
      `stripe-webhook: ${event.id}: the lines of ${invoice.id} could not be read (${(error as Error).name}): STRIPE_API_KEY needs read access to invoices`,
    );
    return event;
  }
  const whole = {
    ...event,
    data: { ...event.data, object: { ...invoice, lines: { ...invoice.lines, data, has_more: false } } },
  } as Stripe.Event;
  if (new TextEncoder().encode(JSON.stringify(whole)).length <= MAX_BODY_BYTES) return whole;
  console.error(`stripe-webhook: ${event.id}: ${invoice.id} has more lines than fit into one event`);
  return event;
}

export async function handle(request: Request, environment: Environment): Promise<Response> {
  if (request.method !== "POST") return answer(405, { error: "method_not_allowed" });
  if (!environment.webhookSecrets || !environment.supabaseUrl || !environment.serviceRoleKey) {
    console.error(
      "stripe-webhook: STRIPE_WEBHOOK_SECRET, SUPABASE_URL or SUPABASE_SERVICE_ROLE_KEY is not set",
    );
    return answer(500, { error: "not_configured" });
  }
  const signature = request.headers.get("stripe-signature");
  if (!signature) return answer(400, { error: "signature_missing" });
  const nowSeconds = (environment.now?.() ?? Date.now()) / 1000;
  if (isFromTheFuture(signature, nowSeconds, environment.toleranceSeconds ?? 300))
    return answer(400, { error: "signature_invalid" });
  const body = await readBody(request);
  if (body === null) return answer(413, { error: "too_large" });
  const signed = await verify(body, signature, environment);
  if (!signed) return answer(400, { error: "signature_invalid" });
  let event: Stripe.Event;
  try {
    event = await withAllLines(signed, environment);
  } catch (error) {
    console.error(`stripe-webhook: ${signed.id}: its lines could not be read: ${(error as Error).name}`);
    return answer(503, { error: "try_again" });
  }

  let response: Response;
  try {
    response = await fetch(
      new URL("rest/v1/rpc/process_stripe_event", `${environment.supabaseUrl.replace(/\/$/, "")}/`),
      {
        method: "POST",
        headers: {
          apikey: environment.serviceRoleKey,
          authorization: `Bearer ${environment.serviceRoleKey}`,
          "content-type": "application/json",
        },
        body: JSON.stringify({ p_event: storable(event) }),
        signal: AbortSignal.timeout(20_000),
      },
    );
  } catch (error) {
    // Whether it was done is not known. Stripe delivers again, and a second delivery changes nothing.
    console.error(`stripe-webhook: ${event.id} could not be handed on: ${(error as Error).name}`);
    return answer(503, { error: "try_again" });
  }
  const said = (await response.json().catch(() => null)) as {
    status?: string;
    reason?: string | null;
    hint?: string;
  } | null;
  if (response.ok && said?.status)
    return answer(200, { received: true, status: said.status, reason: said.reason ?? null });
  console.error(`stripe-webhook: ${event.id} (${event.type}): ${response.status} ${said?.hint ?? ""}`);
  // A malformed event stays malformed: accepted, and left in the log for a person. Anything else may pass on a later
  // try.
  if (response.status === 400 && said?.hint === "invalid_argument")
    return answer(200, { received: true, status: "refused", reason: said.hint });
  return answer(503, { error: "try_again" });
}
