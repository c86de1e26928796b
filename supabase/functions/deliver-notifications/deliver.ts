/**
 * Delivers queued messages: takes them by lease, sends each, and reports the outcome.
 *
 * Several deliverers may run at once: only one holds a message at a time. Each is sent at least once: if a deliverer
 * ends between sending and reporting, the message is sent again when its lease is over. E-mail then carries the same
 * Message-ID, by which mail systems can drop the second, and a webhook the same webhook-id; Slack knows no such thing
 * and shows it twice.
 *
 * The same code runs as an Edge Function (index.ts) and as `npm run deliver`.
 */
import { type Outcome, type Sender, slackSender, smtpSender, webhookSender } from "./senders.ts";
import { createRedactor, type DeliverySettings } from "./settings.ts";
import type { Notification } from "./words.ts";

interface Project {
  readonly url: string;
  readonly serviceRoleKey: string;
}

interface DeliveryOptions {
  readonly project: Project;
  readonly settings: DeliverySettings;
  /** Takes a sentence that holds no secret. */
  readonly log: (sentence: string) => void;
  /** No message is begun after this; what was taken comes again when its lease is over. */
  readonly signal?: AbortSignal;
  /** Instead of those that the settings make. */
  readonly senders?: readonly Sender[];
}

interface Delivered {
  readonly sent: number;
  /** To be tried again. */
  readonly postponed: number;
  /** Given up: somebody must look. */
  readonly failed: number;
}

/** The project could not be asked; the message is one sentence without a secret. */
export class ProjectError extends Error {
  override readonly name = "ProjectError";
}

const LEASE_SECONDS = 300;
const BATCH = 20;
const FINISH_TRIES = 4;

export async function deliverDue(options: DeliveryOptions): Promise<Delivered> {
  const { settings, log, signal } = options;
  const redact = createRedactor(settings, options.project.serviceRoleKey);
  const senders = options.senders ?? makeSenders(settings);
  const counts = { sent: 0, postponed: 0, failed: 0 };

  async function finish(notification: Notification, outcome: Outcome): Promise<void> {
    const name = `${notification.channel} ${notification.notification_id}`;
    const error = outcome.sent ? null : redact(outcome.error);
    const answer = await retry(() =>
      rpc<{ status: string }>(options.project, "finish_notification", {
        p_notification_id: notification.notification_id,
        p_error: error,
        p_is_final: !outcome.sent && outcome.isFinal,
        p_retry_after_seconds: outcome.sent ? null : (outcome.retryAfterSeconds ?? null),
      }),
    );
    if (outcome.sent) {
      counts.sent += 1;
      if (outcome.note) log(redact(`${name}: sent. ${outcome.note}`));
    } else {
      const isGivenUp = answer.status === "failed";
      counts[isGivenUp ? "failed" : "postponed"] += 1;
      log(`${name}: ${isGivenUp ? "given up" : "to be tried again"}. ${error}`);
    }
  }

  /** Sends one batch; false where there is no point in taking another. */
  async function deliverBatch(sender: Sender): Promise<boolean> {
    const takenAt = Date.now();
    const batch = await rpc<readonly Notification[]>(options.project, "claim_notifications", {
      p_limit: BATCH,
      p_channel: sender.channel,
      p_lease_seconds: LEASE_SECONDS,
    });
    // Another may take a message once its lease is over: none is begun that could still be under way then.
    const lastStart = takenAt + LEASE_SECONDS * 1000 - 2 * sender.timeoutMs;
    let down: Outcome | null = null;
    const queue = batch.values();
    const work = async (): Promise<void> => {
      for (const notification of queue) {
        if (signal?.aborted || Date.now() > lastStart) return;
        // Where the server is away, the others need not find that out one by one.
        const outcome: Outcome = down ?? (await sender.send(notification));
        if (!outcome.sent && outcome.isChannelDown) down = outcome;
        await finish(notification, outcome);
      }
    };
    const workers = await Promise.allSettled(Array.from({ length: sender.concurrency }, work));
    for (const worker of workers) if (worker.status === "rejected") throw worker.reason;
    return batch.length === BATCH && down === null && !signal?.aborted;
  }

  // One channel that is away does not hold up the other.
  const channels = await Promise.allSettled(
    senders.map(async (sender) => {
      while (!signal?.aborted && (await deliverBatch(sender)));
    }),
  );
  for (const channel of channels) if (channel.status === "rejected") throw channel.reason;
  return counts;
}

function makeSenders({ smtp, slackWebhookUrl, webhook }: DeliverySettings): readonly Sender[] {
  return [
    ...(smtp ? [smtpSender(smtp)] : []),
    ...(slackWebhookUrl === null ? [] : [slackSender(slackWebhookUrl)]),
    ...(webhook === null ? [] : [webhookSender(webhook)]),
  ];
}

/** What was sent must be reported: a short outage of the project is waited out. */
async function retry<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (attempt === FINISH_TRIES) throw error;
      await new Promise((resolve) => setTimeout(resolve, 250 * 4 ** attempt));
    }
  }
}

async function rpc<T>(project: Project, name: string, parameters: Record<string, unknown>): Promise<T> {
  const address = new URL(`rest/v1/rpc/${name}`, project.url.endsWith("/") ? project.url : `${project.url}/`);
  let response: Response;
  try {
    response = await fetch(address, {
      method: "POST",
      headers: {
        apikey: project.serviceRoleKey,
        authorization: `Bearer ${project.serviceRoleKey}`,
        "content-type": "application/json",
      },
      body: JSON.stringify(parameters),
      signal: AbortSignal.timeout(20_000),
    });
  } catch (error) {
    const { name: kind, cause } = error as Error & { cause?: { code?: string; message?: string } };
    throw new ProjectError(`${address.origin} cannot be reached (${cause?.code ?? cause?.message ?? kind}).`);
  }
  const body: unknown = await response.json().catch(() => null);
  if (response.ok) return body as T;
  const { message = "", hint = "" } = (body ?? {}) as { message?: string; hint?: string };
  throw new ProjectError(
    response.status === 404 && hint !== "not_found"
      ? `The project does not know ${name}: apply the migrations first.`
      : `The project refused ${name}: ${response.status} ${message}`.trim(),
  );
}
