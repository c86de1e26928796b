/** Alerts reach people: against a real SMTP server, a real HTTP endpoint for Slack's webhook, and a real project. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SMTPServer, type SMTPServerOptions } from "smtp-server";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import { deliverDue } from "../../../supabase/functions/deliver-notifications/deliver.ts";
import {
  type Patience,
  slackSender,
  smtpSender,
  webhookSender,
} from "../../../supabase/functions/deliver-notifications/senders.ts";
import { createRedactor, readSettings } from "../../../supabase/functions/deliver-notifications/settings.ts";
import { oneLine } from "../../../supabase/functions/deliver-notifications/words.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { createTestServer } from "../../support/server.ts";
import { postgresUrls } from "../../support/project.ts";
import { repository } from "../../support/repository.ts";

const password = "p@ss/word:1";
const hasty: Patience = { connectMs: 400, answerMs: 400, totalMs: 1_500 };

let project: LocalProject;
let folder: string;
const closing: (() => void | Promise<void>)[] = [];
const children: ChildProcess[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "deliver-"));
  const { url } = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
  project = await startLocalProject({ databaseUrl: url, upkeepIntervalMs: null });
  // An authority of our own, and a server that it vouches for, as in the world.
  const certify = (name: string, ...more: string[]): void => {
    const request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    const files = ["-keyout", join(folder, `${name}-key.pem`), "-out", join(folder, `${name}.pem`)];
    execFileSync("openssl", [...request.split(" "), "-subj", `/CN=${name}`, ...files, ...more], {
      stdio: "ignore",
    });
  };
  certify("authority");
  certify(
    "localhost",
    "-CA",
    join(folder, "authority.pem"),
    "-CAkey",
    join(folder, "authority-key.pem"),
    "-addext",
    "subjectAltName=DNS:localhost",
    "-addext",
    "basicConstraints=critical,CA:FALSE",
  );
});
afterAll(async () => {
  for (const child of children) child.kill("SIGKILL");
  await project?.stop();
  rmSync(folder, { recursive: true, force: true });
});
beforeEach(async () => {
  await project.run("delete from governance.notifications; select governance.set_test_clock(null)");
});
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

// ---- the other sides ----

interface Mail {
  readonly from: string;
  readonly to: readonly string[];
  readonly raw: string;
  readonly secure: boolean;
  readonly user: string | undefined;
}

async function startMailServer(options: SMTPServerOptions = {}) {
  const mails: Mail[] = [];
  let connections = 0;
  const server = new SMTPServer({
    authOptional: true,
    disabledCommands: ["STARTTLS"],
    logger: false,
    onConnect(_session, done) {
      connections += 1;
      done();
    },
    onData(stream, session, done) {
      const chunks: Buffer[] = [];
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("end", () => {
        mails.push({
          from: (session.envelope.mailFrom as { address: string }).address,
          to: session.envelope.rcptTo.map(({ address }) => address),
          raw: Buffer.concat(chunks).toString(),
          secure: session.secure,
          user: session.user,
        });
        done();
      });
    },
    ...options,
  });
  server.on("error", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closing.push(() => new Promise<void>((resolve) => server.close(resolve)));
  const { port } = server.server.address() as AddressInfo;
  return { mails, port, connections: () => connections };
}

interface Posted {
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: { readonly text: string; readonly mrkdwn: boolean };
  /** As it came. */
  readonly raw: string;
}

/** Slack's side, or that of a webhook; answers as told, the last answer for ever. */
async function startSlack(
  ...answers: { status: number; headers?: Record<string, string>; afterMs?: number; body?: string }[]
) {
  const posted: Posted[] = [];
  const server = createTestServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += String(chunk);
    posted.push({ headers: request.headers, body: JSON.parse(text) as Posted["body"], raw: text });
    const answer = answers[Math.min(posted.length, answers.length) - 1] ?? { status: 200 };
    if (answer.afterMs) await new Promise((resolve) => setTimeout(resolve, answer.afterMs));
    response
      .writeHead(answer.status, answer.headers)
      .end(answer.body ?? (answer.status === 200 ? "ok" : "no"));
  });
  return { posted, url: `${await listen(server)}/services/T000/B000/secretsecret` };
}

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closing.push(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

// ---- our side ----

interface Queued {
  readonly channel?: "email" | "slack" | "webhook";
  readonly audience?: "user" | "operators";
  readonly recipient?: string | null;
  readonly subject?: string;
  readonly body?: string;
  readonly payload?: Record<string, unknown>;
}

const quoted = (value: string | null): string =>
  value === null ? "null" : `'${value.replaceAll("'", "''")}'`;

async function queue(...messages: Queued[]): Promise<number[]> {
  const ids: number[] = [];
  for (const message of messages) {
    const {
      channel = "email",
      audience = "user",
      recipient = "ann@example.com",
      subject = "s",
      body = "b",
    } = message;
    const payload = JSON.stringify(
      message.payload ?? { kind: "daily_limit_80", severity: "warning", threshold: 80 },
    );
    const [row] = await project.run(`insert into governance.notifications
      (channel, audience, recipient, subject, body, payload, due_at, created_at) values (${quoted(channel)}, ${quoted(audience)},
      ${quoted(channel === "email" ? recipient : null)}, ${quoted(subject)}, ${quoted(body)}, ${quoted(payload)}, governance.now(), governance.now())
      returning notification_id::text`);
    ids.push(Number(row?.[0]));
  }
  return ids;
}

interface State {
  readonly status: string;
  readonly attempts: number;
  readonly error: string | null;
  readonly due_in: number;
}

const states = async (): Promise<State[]> =>
  JSON.parse(
    (
      await project.run(`select coalesce(json_agg(json_build_object('status', status, 'attempts', attempts, 'error', last_error,
        'due_in', extract(epoch from due_at - governance.now())) order by notification_id), '[]')::text from governance.notifications`)
    )[0]?.[0] ?? "[]",
  ) as State[];

const smtpTo = (port: number, more = ""): Record<string, string> => ({
  SMTP_URL: `smtp://127.0.0.1:${port}?tls=none${more}`,
  MAIL_FROM: "Alerts <alerts@example.com>",
});

/** One round in this process; answers its counts and what it said. */
async function deliver(environment: Record<string, string>, waits?: Patience) {
  const settings = readSettings((name) => environment[name]);
  const said: string[] = [];
  const counts = await deliverDue({
    project,
    settings,
    log: (sentence) => said.push(sentence),
    ...(waits
      ? {
          senders: [
            ...(settings.smtp ? [smtpSender(settings.smtp, waits)] : []),
            ...(settings.slackWebhookUrl ? [slackSender(settings.slackWebhookUrl, waits)] : []),
            ...(settings.webhook ? [webhookSender(settings.webhook, waits)] : []),
          ],
        }
      : {}),
  });
  return { ...counts, said: said.join("\n") };
}

/** The command, as a person or a service manager starts it. */
async function runCommand(environment: Record<string, string>, ...more: string[]) {
  const child = spawn(process.execPath, ["cli/deliver.ts", "--url", project.url, ...more], {
    cwd: repository,
    env: { PATH: process.env.PATH, GOVERNANCE_SERVICE_ROLE_KEY: project.serviceRoleKey, ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  children.push(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => (said += chunk.toString()));
  const exitCode = await new Promise<number | null>((resolve) => child.once("exit", resolve));
  return { exitCode, said };
}

const header = (raw: string, name: string): string[] =>
  [
    ...(raw.split("\r\n\r\n")[0] ?? "")
      .replace(/\r\n[ \t]+/g, " ")
      .matchAll(new RegExp(`^${name}: (.*)$`, "gim")),
  ].map((match) => match[1] ?? "");

describe("what was queued", () => {
  it("reaches users by mail and operators by mail and Slack, once a period, and is recorded", async () => {
    const [mail, slack] = [await startMailServer(), await startSlack()];
    await project.run(`update governance.settings set value = '["ops@example.com", "lead@example.com"]' where key = 'operator_emails';
      insert into governance.settings (key, value) values ('operator_emails', '["ops@example.com", "lead@example.com"]') on conflict do nothing;
      update governance.cost_alerts set budget = 1000 where alert_name = 'monthly_budget';
      select public.upsert_account('ann', 'pro', 'ann@example.com', 'Ann Läufer');
      select public.upsert_account('quiet', 'pro', 'quiet@example.com', null, null, '{"notifications": {"email": false}}');
      select public.authorize_usage('a' || i, u, 'gpt-4o', 85000), public.settle_usage('a' || i, 85000, 0)
      from (values (1, 'ann'), (2, 'quiet')) x(i, u)`);
    // Rounds of their own: the second sees what the first has counted.
    for (let round = 0; round < 2; round += 1) await project.run("select public.run_maintenance()");
    const environment = {
      ...smtpTo(mail.port),
      SLACK_WEBHOOK_URL: slack.url,
    };
    const first = await deliver(environment);
    expect(first).toMatchObject({ postponed: 0, failed: 0 });
    expect(first.sent).toBe(mail.mails.length + slack.posted.length);

    const toUser = mail.mails.filter(({ to }) => to.includes("ann@example.com"));
    expect(toUser).toHaveLength(1);
    const raw = toUser[0]?.raw ?? "";
    expect(header(raw, "Subject")).toEqual(["You have used 80 % of today's tokens"]);
    expect(header(raw, "To")).toEqual(["ann@example.com"]);
    expect(header(raw, "From")).toEqual(["Alerts <alerts@example.com>"]);
    expect(header(raw, "Auto-Submitted")).toEqual(["auto-generated"]);
    expect(raw).toContain("The plan Business gives you more.");
    expect(mail.mails.some(({ to }) => to.includes("quiet@example.com"))).toBe(false);

    const toOperators = mail.mails.filter(({ raw: text }) =>
      header(text, "Subject")[0]?.includes("monthly budget"),
    );
    expect(toOperators.map(({ to }) => to)).toEqual([["ops@example.com", "lead@example.com"]]);
    const told = slack.posted.map(({ body }) => body.text).join("\n");
    expect(told).toMatch(
      /\[critical\] monthly budget: \d+% of the budget for \p{Lu}\p{Ll}+ \d{4} is used\n/u,
    );
    // Moments, too, as people write them.
    expect(told).toMatch(/^At: \d{1,2} \p{Lu}\p{Ll}+ \d{4}, \d\d:\d\d UTC$/mu);
    expect(told).not.toMatch(/\d{4}-\d\d/);

    expect((await states()).map(({ status }) => status)).toEqual(Array(first.sent).fill("sent"));
    await project.run("select public.run_maintenance()");
    expect(await deliver(environment)).toMatchObject({ sent: 0, postponed: 0, failed: 0 });
    const [alert] = await project.run(
      "select last_triggered_at is not null from governance.cost_alerts where alert_name = 'monthly_budget'",
    );
    expect(alert?.[0]).toBe("t");
    const [where] = await project.run(
      "select recipient from governance.notifications where audience = 'operators' and channel = 'email' limit 1",
    );
    expect(where?.[0]).toBe("ops@example.com, lead@example.com");
  });

  it("is sent once by three deliverers at once", async () => {
    const [mail, slack] = [await startMailServer(), await startSlack()];
    await queue(...Array.from({ length: 60 }, (_, index) => ({ recipient: `user${index}@example.com` })));
    await queue(
      ...Array.from({ length: 10 }, (_, index) => ({ channel: "slack" as const, body: `alert ${index}` })),
    );
    const environment = { ...smtpTo(mail.port), SLACK_WEBHOOK_URL: slack.url };
    const rounds = await Promise.all([1, 2, 3].map(() => deliver(environment)));
    expect(rounds.reduce((sum, { sent }) => sum + sent, 0)).toBe(70);
    expect(mail.mails).toHaveLength(60);
    expect(new Set(mail.mails.map(({ raw }) => header(raw, "Message-ID")[0])).size).toBe(60);
    expect(new Set(slack.posted.map(({ body }) => body.text)).size).toBe(10);
  });

  it("is sent again under the same Message-ID by the next deliverer, where one died between sending and recording it", async () => {
    const mail = await startMailServer();
    await queue({});
    // In front of the project: reports of sent messages do not get through.
    let isCut = true;
    const door = createTestServer(async (request, response) => {
      if (isCut && request.url?.endsWith("/finish_notification")) return;
      let body = "";
      for await (const chunk of request) body += String(chunk);
      const answer = await fetch(`${project.url}${request.url}`, {
        method: "POST",
        headers: { apikey: project.serviceRoleKey, "content-type": "application/json" },
        body,
      });
      response.writeHead(answer.status, { "content-type": "application/json" }).end(await answer.text());
    });
    const url = await listen(door);
    const dying = spawn(process.execPath, ["cli/deliver.ts", "--url", url, "--once"], {
      cwd: repository,
      env: {
        PATH: process.env.PATH,
        GOVERNANCE_SERVICE_ROLE_KEY: project.serviceRoleKey,
        ...smtpTo(mail.port),
      },
      stdio: "ignore",
    });
    children.push(dying);
    await vi.waitFor(() => expect(mail.mails).toHaveLength(1), { timeout: 60_000 });
    dying.kill("SIGKILL");
    isCut = false;
    // Its lease holds: nobody else takes it meanwhile.
    expect(await deliver(smtpTo(mail.port))).toMatchObject({ sent: 0 });
    await project.run("select governance.set_test_clock(now() + interval '6 minutes')");
    expect(await deliver(smtpTo(mail.port))).toMatchObject({ sent: 1 });
    expect(await deliver(smtpTo(mail.port))).toMatchObject({ sent: 0 });
    expect(mail.mails).toHaveLength(2);
    const [first, second] = mail.mails.map(({ raw }) => raw);
    expect(header(first ?? "", "Message-ID")).toEqual(header(second ?? "", "Message-ID"));
    expect(header(first ?? "", "Date")).toEqual(header(second ?? "", "Date"));
  });
});

describe("a mail server", () => {
  const withTls = () => ({
    key: readFileSync(join(folder, "localhost-key.pem")),
    cert: readFileSync(join(folder, "localhost.pem")),
    disabledCommands: [],
    authOptional: false,
    onAuth: ((auth, _session, done) => {
      if (auth.username === "mailer" && auth.password === password) done(null, { user: auth.username });
      else done(new Error("Wrong password"));
    }) as SMTPServerOptions["onAuth"] & {},
  });
  const login = (port: number, pass = password, scheme = "smtp"): Record<string, string> => ({
    SMTP_URL: `${scheme}://mailer:${encodeURIComponent(pass)}@localhost:${port}`,
    MAIL_FROM: "alerts@example.com",
  });
  const trusted = (): Record<string, string> => ({ NODE_EXTRA_CA_CERTS: join(folder, "authority.pem") });

  it.each(["smtp", "smtps"])("is spoken to over TLS and logged in to, with %s", async (scheme) => {
    const mail = await startMailServer({ ...withTls(), secure: scheme === "smtps" });
    await queue({});
    const { exitCode, said } = await runCommand(
      { ...login(mail.port, password, scheme), ...trusted() },
      "--once",
    );
    expect(said).toBe("1 sent, 0 to be tried again, 0 given up.\n");
    expect(exitCode).toBe(0);
    expect(mail.mails).toMatchObject([{ secure: true, user: "mailer", to: ["ann@example.com"] }]);
  });

  it.each<[string, SMTPServerOptions, Record<string, string>]>([
    ["whose certificate nobody vouches for", {}, {}],
    [
      "that offers no TLS",
      { disabledCommands: ["STARTTLS"], hideSTARTTLS: true, allowInsecureAuth: true },
      { trusted: "yes" },
    ],
  ])("%s gets neither password nor message", async (_case, options, { trusted: isTrusted }) => {
    let logins = 0;
    const mail = await startMailServer({
      ...withTls(),
      ...options,
      onAuth: (_auth, _session, done) => {
        logins += 1;
        done(null, { user: "x" });
      },
    });
    await queue({});
    const { exitCode, said } = await runCommand(
      { ...login(mail.port), ...(isTrusted ? trusted() : {}) },
      "--once",
    );
    expect(exitCode).toBe(1);
    expect(said).toContain("0 sent, 1 to be tried again");
    expect([logins, mail.mails.length]).toEqual([0, 0]);
    expect(await states()).toMatchObject([{ status: "queued", attempts: 1 }]);
  });

  it("that refuses the login holds all back, is asked no more in this round, and its password is shown to nobody", async () => {
    const mail = await startMailServer({ ...withTls() });
    await queue(...Array.from({ length: 12 }, () => ({})));
    const { exitCode, said } = await runCommand(
      { ...login(mail.port, "not the password"), ...trusted() },
      "--once",
    );
    expect(exitCode).toBe(1);
    expect(said).toContain("0 sent, 12 to be tried again, 0 given up.");
    expect(mail.connections()).toBeLessThanOrEqual(4);
    const kept = await states();
    expect(kept.map(({ status }) => status)).toEqual(Array(12).fill("queued"));
    expect(kept[0]?.error).toContain("EAUTH");
    for (const secret of ["not the password", encodeURIComponent("not the password"), project.serviceRoleKey])
      expect(said + JSON.stringify(kept)).not.toContain(secret);
  });

  it("that puts off or refuses one recipient stops nobody else's mail", async () => {
    const mail = await startMailServer({
      onRcptTo(address, _session, done) {
        const code = { "later@example.com": 450, "nobody@example.com": 550 }[address.address];
        done(code ? Object.assign(new Error("no"), { responseCode: code }) : null);
      },
    });
    await queue(
      { recipient: "later@example.com" },
      { recipient: "nobody@example.com" },
      { recipient: "ann@example.com" },
    );
    expect(await deliver(smtpTo(mail.port))).toMatchObject({ sent: 1, postponed: 1, failed: 1 });
    const [later, never, sent] = await states();
    expect(later).toMatchObject({ status: "queued", attempts: 1, error: expect.stringContaining("450") });
    expect(never).toMatchObject({ status: "failed", attempts: 1, error: expect.stringContaining("550") });
    expect(sent).toMatchObject({ status: "sent" });
  });

  it("that refuses one of the operators' addresses still serves the others, and it is said", async () => {
    const mail = await startMailServer({
      onRcptTo: (address, _session, done) =>
        done(
          address.address === "lead@example.com"
            ? Object.assign(new Error("gone"), { responseCode: 550 })
            : null,
        ),
    });
    await queue({ audience: "operators", recipient: null });
    const { sent, said } = await deliver(smtpTo(mail.port));
    expect(sent).toBe(1);
    expect(said).toContain("Refused: lead@example.com");
    expect(mail.mails).toMatchObject([{ to: ["ops@example.com"] }]);
  });

  it("that takes the recipient and then refuses the message gives it up", async () => {
    const mail = await startMailServer({
      onData(stream, _session, done) {
        stream.resume();
        stream.on("end", () => done(Object.assign(new Error("spam"), { responseCode: 554 })));
      },
    });
    await queue({});
    expect(await deliver(smtpTo(mail.port))).toMatchObject({ failed: 1 });
  });

  it.each([
    ["says nothing", (socket: { write(text: string): void }) => void socket],
    [
      "says one word a moment and never ends",
      (socket: { write(text: string): void }) => {
        const timer = setInterval(() => socket.write("220-still starting\r\n"), 100);
        closing.push(() => clearInterval(timer));
      },
    ],
  ])("that %s is left after a while, and asked again later", async (_case, greet) => {
    const sockets = new Set<{ destroy(): void }>();
    const tcp = createTcpServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => {});
      greet(socket);
    });
    await new Promise<void>((resolve) => tcp.listen(0, "127.0.0.1", resolve));
    closing.push(() => {
      for (const socket of sockets) socket.destroy();
      tcp.close();
    });
    await queue({}, {}, {}, {}, {}, {});
    expect(await deliver(smtpTo((tcp.address() as AddressInfo).port), hasty)).toMatchObject({
      sent: 0,
      postponed: 6,
    });
    expect(sockets.size).toBeLessThanOrEqual(4);
    expect((await states())[0]).toMatchObject({ status: "queued", attempts: 1 });
  });

  it("that is not there leaves everything for later, and each failure waits longer", async () => {
    await queue({});
    const waits: number[] = [];
    for (let attempt = 1; attempt <= 9; attempt += 1) {
      expect(
        await deliver({ SMTP_URL: "smtp://127.0.0.1:1?tls=none", MAIL_FROM: "a@example.com" }),
      ).toMatchObject({ postponed: 1 });
      const [state] = await states();
      waits.push(Math.round(state?.due_in ?? 0));
      await project.run(
        `select governance.set_test_clock(due_at + interval '1 second', true) from governance.notifications`,
      );
    }
    expect(waits).toEqual([60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    // An outage of some hours loses nothing; a warning of yesterday is no news.
    await project.run(
      "select governance.set_test_clock(created_at + interval '25 hours', true) from governance.notifications",
    );
    await deliver({ SMTP_URL: "smtp://127.0.0.1:1?tls=none", MAIL_FROM: "a@example.com" });
    expect(await states()).toMatchObject([
      { status: "failed", attempts: 9, error: expect.stringContaining("ECONNREFUSED") },
    ]);
  });
});

describe("other people's texts", () => {
  const hostile = [
    "Eve\r\nBcc: victim@example.com",
    "Eve\nX-Injected: yes\n\nbody",
    "\u202Eevil\u0000\u2028\u0085Subject: x",
    "<script>alert(1)</script> \ud800 =?utf-8?q?x?=",
    `${"\u{1F600}".repeat(500)}`,
  ];

  it("become no header, no second recipient and no second message", async () => {
    const mail = await startMailServer();
    for (const text of hostile) {
      const name = text.toWellFormed().replaceAll("\u0000", "");
      const payload = {
        kind: "daily_limit_80",
        severity: name,
        threshold: 80,
        display_name: name,
        user_id: name,
        upgrade: { plan_id: "p", name },
        details: { request_id: name },
      };
      await queue(
        { payload, subject: name, body: name },
        { payload, subject: name, body: name, audience: "operators", recipient: null },
      );
      await queue({
        payload: { ...payload, kind: "unheard_of" },
        subject: name,
        body: `${name}\r\n.\r\nMAIL FROM:<x@y>`,
      });
    }
    expect(await deliver(smtpTo(mail.port))).toMatchObject({ sent: 3 * hostile.length, failed: 0 });
    expect(mail.mails).toHaveLength(3 * hostile.length);
    const known =
      /^(From|To|Subject|Message-ID|Date|Auto-Submitted|MIME-Version|Content-Type|Content-Transfer-Encoding):|^[ \t]/i;
    for (const { raw, to } of mail.mails) {
      const lines = (raw.split("\r\n\r\n")[0] ?? "").split("\r\n");
      expect(lines.filter((line) => !known.test(line))).toEqual([]);
      expect(header(raw, "Subject")).toHaveLength(1);
      expect([["ann@example.com"], ["ops@example.com", "lead@example.com"]]).toContainEqual(to);
    }
  });

  it.each([
    "a@example.com, b@example.com",
    "a@example.com\r\nBcc: b@example.com",
    "a@example.com> RCPT TO:<b@example.com",
    '"a b"@example.com',
    "group: a@example.com;",
    "nobody",
  ])("are no address where they are %j", async (recipient) => {
    const mail = await startMailServer();
    await queue({ recipient });
    expect(await deliver(smtpTo(mail.port))).toMatchObject({ sent: 0, failed: 1 });
    expect(await states()).toMatchObject([{ error: expect.stringContaining("is not one e-mail address") }]);
    expect(mail.connections()).toBe(0);
  });

  it("keep what people's own scripts need", () => {
    expect(oneLine("می\u200cخواهم \u{1F468}\u200d\u{1F469}\u200d\u{1F467}\u202e\u0007 x")).toBe(
      "می\u200cخواهم \u{1F468}\u200d\u{1F469}\u200d\u{1F467} x",
    );
  });

  it("mention and link nobody in Slack", async () => {
    const slack = await startSlack();
    await queue({
      channel: "slack",
      audience: "operators",
      body: "<!channel> <https://evil.example|click> & <@U1>",
      payload: { severity: "warning", user_id: "<!here>", display_name: "*bold* <b>\n<!everyone>" },
    });
    expect(await deliver({ SLACK_WEBHOOK_URL: slack.url })).toMatchObject({ sent: 1 });
    const [post] = slack.posted;
    expect(post?.body.mrkdwn).toBe(false);
    expect(post?.body.text).not.toMatch(/[<>]/);
    expect(post?.body.text.split("\n")).toEqual([
      "[warning] &lt;!channel&gt; &lt;https://evil.example|click&gt; &amp; &lt;@U1&gt;",
      "User: *bold* &lt;b&gt; &lt;!everyone&gt; (&lt;!here&gt;)",
    ]);
  });
});

describe("Slack", () => {
  const alerts = (count: number): Queued[] =>
    Array.from({ length: count }, (_, index) => ({
      channel: "slack",
      audience: "operators",
      body: `${index}`,
    }));

  it("that asks to wait is left alone for as long as it says", async () => {
    const slack = await startSlack({ status: 200 }, { status: 429, headers: { "retry-after": "7200" } });
    await queue(...alerts(5));
    expect(await deliver({ SLACK_WEBHOOK_URL: slack.url })).toMatchObject({ sent: 1, postponed: 4 });
    expect(slack.posted).toHaveLength(2);
    const waiting = (await states()).slice(1);
    expect(waiting.every(({ due_in }) => due_in > 7_000 && due_in <= 7_200)).toBe(true);
    expect(await deliver({ SLACK_WEBHOOK_URL: slack.url })).toMatchObject({ sent: 0, postponed: 0 });
  });

  it.each<[string, Parameters<typeof startSlack>[0], "queued" | "failed", string]>([
    ["fails", { status: 500 }, "queued", "500"],
    ["does not answer in time", { status: 200, afterMs: 3_000 }, "queued", "no answer in time"],
    ["knows the webhook no more", { status: 404, body: "no_service" }, "failed", "404 (no_service)"],
    ["has archived the channel", { status: 410, body: "channel_is_archived" }, "failed", "410"],
    ["sends elsewhere", { status: 302, headers: { location: "http://127.0.0.1:1/" } }, "failed", "302"],
  ])("that %s", async (_case, answer, status, error) => {
    const slack = await startSlack(answer);
    await queue(...alerts(1));
    const { said } = await deliver({ SLACK_WEBHOOK_URL: slack.url }, hasty);
    expect(await states()).toMatchObject([{ status, attempts: 1, error: expect.stringContaining(error) }]);
    expect(said).not.toContain("secretsecret");
  });

  it("that is away does not hold up the mail, nor mail Slack", async () => {
    const [mail, slack] = [await startMailServer(), await startSlack()];
    await queue({}, ...alerts(1));
    expect(await deliver({ ...smtpTo(mail.port), SLACK_WEBHOOK_URL: "http://127.0.0.1:1/x" })).toMatchObject({
      sent: 1,
      postponed: 1,
    });
    await project.run("select governance.set_test_clock(now() + interval '5 minutes')");
    await queue({});
    expect(
      await deliver({
        SMTP_URL: "smtp://127.0.0.1:1?tls=none",
        MAIL_FROM: "a@example.com",
        SLACK_WEBHOOK_URL: slack.url,
      }),
    ).toMatchObject({
      sent: 1,
      postponed: 1,
    });
  });
});

describe("what could not be delivered", () => {
  it("is seen with its alert, sent again by a person's command, and then no longer listed", async () => {
    const mail = await startMailServer();
    const ask = async <T>(call: string): Promise<T> =>
      JSON.parse((await project.run(`select ${call}`))[0]?.[0] ?? "null") as T;
    const undelivered = () =>
      ask<{
        alerts: { notifications: { notification_id: number; status: string; last_error: string }[] }[];
        delivery: object;
      }>("public.console_alerts(null, 50, false, true)");
    const [id] = await queue({ recipient: "nobody" });
    await project.run(
      `update governance.notifications set alert_event_id = (select max(alert_event_id) from governance.alert_events)`,
    );
    await deliver(smtpTo(mail.port));
    expect(await undelivered()).toMatchObject({
      alerts: [
        {
          notifications: [
            { status: "failed", last_error: expect.stringContaining("is not one e-mail address") },
          ],
        },
      ],
      delivery: { failed: 1, queued: 0 },
    });
    await project.run("update governance.notifications set recipient = 'ann@example.com'");
    const again = `public.console_retry_notification('again-${id}', ${id}, 'Ada')`;
    expect(await ask(again)).toEqual({ notification_id: id, status: "queued" });
    expect(await ask(again)).toEqual({ notification_id: id, status: "queued" });
    expect(await deliver(smtpTo(mail.port))).toMatchObject({ sent: 1 });
    expect(await undelivered()).toMatchObject({ alerts: [], delivery: { failed: 0, queued: 0 } });
    await expect(
      project.run(`select public.console_retry_notification('more-${id}', ${id}, 'Ada')`),
    ).rejects.toThrow("nothing to send again");
    await expect(project.run("select public.console_retry_notification('none', 0, 'Ada')")).rejects.toThrow(
      "There is no notification 0",
    );
    const [audit] = await project.run(
      "select count(*) from governance.audit_log where action = 'retry_notification' and operator = 'Ada'",
    );
    expect(audit?.[0]).toBe("1");
  });

  it("is given up by upkeep where nobody delivers: a user's news after a day, operators' after three", async () => {
    await queue({}, { audience: "operators", recipient: null });
    const after = async (hours: number): Promise<string[]> => {
      await project.run(`select governance.set_test_clock(max(created_at) + interval '${hours} hours', true) from governance.notifications;
        select public.run_maintenance()`);
      return (await states()).map(({ status }) => status);
    };
    expect(await after(23)).toEqual(["queued", "queued"]);
    expect(await after(25)).toEqual(["failed", "queued"]);
    expect(await after(71)).toEqual(["failed", "queued"]);
    expect(await after(73)).toEqual(["failed", "failed"]);
    expect((await states())[0]?.error).toContain("Nobody sent it in time");
  });

  it("waits, and says why, while no operator's address is known", async () => {
    const mail = await startMailServer();
    await project.run("delete from governance.settings where key = 'operator_emails'");
    await queue({ audience: "operators", recipient: null });
    expect(await deliver(smtpTo(mail.port))).toMatchObject({ postponed: 1 });
    expect(await states()).toMatchObject([{ error: expect.stringContaining("operator_emails") }]);
    await project.run(`insert into governance.settings (key, value) values ('operator_emails', '["ops@example.com"]');
      select governance.set_test_clock(now() + interval '5 minutes')`);
    expect(await deliver(smtpTo(mail.port))).toMatchObject({ sent: 1 });
    expect(mail.mails).toMatchObject([{ to: ["ops@example.com"] }]);
  });
});

const webhookSecret = `whsec_${Buffer.from("a key of 32 bytes for the tests!").toString("base64")}`;
describe("a webhook", () => {
  const to = (url: string) => ({ WEBHOOK_URL: url, WEBHOOK_SECRET: webhookSecret });

  it("gets what a route takes, signed so that whoever takes it can check it, under one id however often", async () => {
    const hook = await startSlack({ status: 503 }, { status: 204 });
    await project.run(`delete from governance.alert_events;
      insert into governance.settings (key, value)
        values ('alert_routes', '[{"route": "pager", "severity": "critical", "channels": ["webhook"]}]');
      select governance.raise_alert(null, null, 'upkeep_failed', 'critical', 'Upkeep failed at purge: <!channel> "x"', null, 3,
        'x', '{"step": "purge"}', governance.now());
      select governance.raise_alert(null, null, 'unknown_price', 'warning', 'No price', null, null, '', '{}', governance.now());
      select governance.queue_notifications(governance.now());
      delete from governance.settings where key = 'alert_routes'`);
    expect(await deliver(to(hook.url))).toMatchObject({ sent: 0, postponed: 1 });
    await project.run("select governance.set_test_clock(now() + interval '5 minutes')");
    expect(await deliver(to(hook.url))).toMatchObject({ sent: 1 });
    expect(hook.posted).toHaveLength(2);
    for (const { headers, raw, body } of hook.posted) {
      const [id, seconds] = [String(headers["webhook-id"]), String(headers["webhook-timestamp"])];
      const key = Buffer.from(webhookSecret.slice(6), "base64");
      const mac = createHmac("sha256", key).update(`${id}.${seconds}.${raw}`).digest("base64");
      expect(headers["webhook-signature"]).toBe(`v1,${mac}`);
      expect(Math.abs(Number(seconds) * 1000 - Date.now())).toBeLessThan(60_000);
      expect(id).toBe(hook.posted[0]?.headers["webhook-id"]);
      expect(body).toMatchObject({
        type: "governance.alert",
        data: {
          audience: "operators",
          kind: "upkeep_failed",
          severity: "critical",
          message: 'Upkeep failed at purge: <!channel> "x"',
          value: 3,
          details: { step: "purge" },
        },
      });
    }
  });

  it.each<[string, Parameters<typeof startSlack>[0], "queued" | "failed", number]>([
    ["fails is asked once a round", { status: 500 }, "queued", 1],
    ["refuses the signature is asked once a round", { status: 401 }, "queued", 1],
    ["refuses a message gets the others all the same", { status: 422 }, "queued", 3],
    ["is gone for good is given up, and asked no more", { status: 410 }, "failed", 1],
    [
      "sends elsewhere is not followed",
      { status: 302, headers: { location: "http://127.0.0.1:1/" } },
      "queued",
      1,
    ],
    ["does not answer in time is asked once a round", { status: 200, afterMs: 3_000 }, "queued", 1],
  ])("that %s", async (_case, answer, status, asked) => {
    const hook = await startSlack(answer);
    await queue(...Array.from({ length: 3 }, () => ({ channel: "webhook", audience: "operators" }) as const));
    const settings = readSettings((name) => to(hook.url)[name as "WEBHOOK_URL"]);
    if (!settings.webhook) throw new Error("no webhook");
    const sender = { ...webhookSender(settings.webhook, hasty), concurrency: 1 };
    const said: string[] = [];
    await deliverDue({ project, settings, log: (line) => said.push(line), senders: [sender] });
    expect((await states()).map((each) => each.status)).toEqual([status, status, status]);
    expect(hook.posted).toHaveLength(asked);
    expect(said.join()).not.toContain("secretsecret");
  });
});

describe("npm run deliver", () => {
  it.each<[string, Record<string, string>, string[], string]>([
    ["nothing to send by", {}, ["--once"], "None of SMTP_URL, SLACK_WEBHOOK_URL and WEBHOOK_URL"],
    ["an SMTP_URL that is none", { SMTP_URL: "mail:secret@x" }, ["--once"], "SMTP_URL is not an address"],
    ["no sender", { SMTP_URL: "smtps://mail.example.com" }, ["--once"], "MAIL_FROM"],
    [
      "a sender with a header in it",
      { SMTP_URL: "smtps://mail.example.com", MAIL_FROM: "a@b.example\r\nBcc: c@d.example" },
      ["--once"],
      "MAIL_FROM",
    ],
    [
      "a password in clear",
      { SMTP_URL: "smtp://u:secret-pass@mail.example.com?tls=none", MAIL_FROM: "a@b.example" },
      ["--once"],
      "password in clear",
    ],
    [
      "a webhook in clear",
      { SLACK_WEBHOOK_URL: "http://hooks.example.com/secret-path" },
      ["--once"],
      "SLACK_WEBHOOK_URL is not",
    ],
    [
      "a webhook that nothing signs",
      { WEBHOOK_URL: "https://hooks.example.com/secret-path", WEBHOOK_SECRET: "whsec_c2VjcmV0LXBhc3M=" },
      ["--once"],
      "WEBHOOK_SECRET is not",
    ],
    [
      "no key",
      { SLACK_WEBHOOK_URL: "https://hooks.example.com/x", GOVERNANCE_SERVICE_ROLE_KEY: "" },
      ["--once"],
      "service-role key is missing",
    ],
    ["a wrong option", {}, ["--often"], "--often"],
    ["a pause of nothing", {}, ["--every", "0"], "--every takes"],
  ])("ends with 2 on %s, and tells no secret", async (_case, environment, more, sentence) => {
    const { exitCode, said } = await runCommand(environment, ...more);
    expect(exitCode).toBe(2);
    expect(said).toContain(sentence);
    expect(said).not.toMatch(/secret-pass|secret-path|mail:secret/);
  });

  it("goes on until it is ended, sends what comes, and outlives a project that is away", async () => {
    const mail = await startMailServer();
    const child = spawn(process.execPath, ["cli/deliver.ts", "--url", project.url, "--every", "1"], {
      cwd: repository,
      env: {
        PATH: process.env.PATH,
        GOVERNANCE_SERVICE_ROLE_KEY: project.serviceRoleKey,
        ...smtpTo(mail.port),
      },
      stdio: "ignore",
    });
    children.push(child);
    await queue({});
    await vi.waitFor(() => expect(mail.mails).toHaveLength(1), { timeout: 60_000 });
    await project.run("alter function public.claim_notifications(int, text, int) rename to away");
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    await project.run(
      "alter function public.away(int, text, int) rename to claim_notifications; notify pgrst",
    );
    await queue({});
    await vi.waitFor(() => expect(mail.mails).toHaveLength(2), { timeout: 60_000 });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
  });

  it("takes every secret out of what it says, in each form", () => {
    const settings = readSettings(
      (name) =>
        ({
          SMTP_URL: `smtps://u:${encodeURIComponent(password)}@mail.example.com`,
          MAIL_FROM: "a@b.example",
          SLACK_WEBHOOK_URL: "https://hooks.slack.example/services/T/B/xyz",
          WEBHOOK_URL: "https://hooks.example/in?token=abc",
          WEBHOOK_SECRET: webhookSecret,
        })[name],
    );
    const redact = createRedactor(settings, "service-key");
    const text = `${password} ${encodeURIComponent(password)} https://hooks.slack.example/services/T/B/xyz /services/T/B/xyz service-key ?token=abc ${webhookSecret} ${webhookSecret.slice(6)}`;
    expect(redact(text)).toBe(Array(8).fill("[secret]").join(" "));
  });
});

describe("the Edge Function, on Deno", () => {
  it("delivers over TLS when the service calls, and does nothing for anybody else", async () => {
    const mail = await startMailServer({
      key: readFileSync(join(folder, "localhost-key.pem")),
      cert: readFileSync(join(folder, "localhost.pem")),
      disabledCommands: [],
      onAuth: (auth, _session, done) =>
        done(auth.password === password ? null : new Error("no"), { user: auth.username }),
    });
    const slack = await startSlack();
    const deno = spawn(
      process.execPath,
      [
        join(repository, "node_modules/deno/bin.cjs"),
        ..."run --allow-net --allow-env --allow-sys --allow-read deliver-notifications/index.ts".split(" "),
      ],
      {
        cwd: join(repository, "supabase/functions"),
        env: {
          ...process.env,
          DENO_SERVE_ADDRESS: "tcp:127.0.0.1:0",
          DENO_CERT: join(folder, "authority.pem"),
          NO_COLOR: "1",
          SUPABASE_URL: project.url,
          SUPABASE_SERVICE_ROLE_KEY: project.serviceRoleKey,
          SMTP_URL: `smtp://mailer:${encodeURIComponent(password)}@localhost:${mail.port}`,
          MAIL_FROM: "alerts@example.com",
          SLACK_WEBHOOK_URL: slack.url,
        },
        stdio: ["ignore", "pipe", "pipe"],
        detached: true,
      },
    );
    closing.push(() => {
      if (deno.pid !== undefined && deno.exitCode === null) process.kill(-deno.pid);
    });
    let said = "";
    const address = await new Promise<string>((resolve, reject) => {
      for (const stream of [deno.stdout, deno.stderr])
        stream.on("data", (chunk: Buffer) => {
          said += chunk.toString();
          const found = /http:\/\/127\.0\.0\.1:\d+/.exec(said)?.[0];
          if (found) resolve(found);
        });
      deno.once("exit", (code) => reject(new Error(`deno ended with ${code}: ${said}`)));
    });
    await queue({}, { channel: "slack", audience: "operators" });
    const post = (key: string | null, method = "POST") =>
      fetch(address, { method, headers: key === null ? {} : { authorization: `Bearer ${key}` } });
    for (const key of [null, "nonsense", project.anonKey, `${project.serviceRoleKey}x`])
      expect((await post(key)).status).toBe(401);
    expect((await post(project.serviceRoleKey, "GET")).status).toBe(405);
    expect(mail.connections()).toBe(0);
    const answer = await post(project.serviceRoleKey);
    expect({ status: answer.status, body: await answer.json(), said }).toMatchObject({
      status: 200,
      body: { sent: 2, postponed: 0, failed: 0 },
    });
    expect(mail.mails).toMatchObject([{ secure: true, user: "mailer" }]);
    expect(slack.posted).toHaveLength(1);
  });
});
