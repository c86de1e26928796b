/** What users read: one catalogue, in their language, with the next step; and mails that they can turn off. */
import { createHmac } from "node:crypto";
import type { AddressInfo } from "node:net";
import fc from "fast-check";
import { SMTPServer } from "smtp-server";
import { afterAll, beforeAll, beforeEach, describe, expect, inject, it } from "vitest";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import {
  say,
  sayMoney,
  standardMessage,
  userLanguages,
  userMessage,
  userText,
  type UserTextFacts,
  type UserWord,
  userWords,
} from "../../../shared/governance/rules/index.ts";
import { deliverDue } from "../../../supabase/functions/deliver-notifications/deliver.ts";
import { readSettings } from "../../../supabase/functions/deliver-notifications/settings.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { type Project, projectAt } from "../../support/project.ts";
import {
  charge,
  checkoutSession,
  dispute,
  event,
  type Purchase,
  subscription,
} from "../../support/stripe/events.ts";

interface Mail {
  readonly to: readonly string[];
  readonly raw: string;
}

const links = {
  buy_url: "https://app.example.com/buy",
  upgrade_url: "https://app.example.com/plans",
  contact_url: "mailto:help@example.com",
  unsubscribe_url: "https://app.example.com/off",
};
let local: LocalProject;
let project: Project;
let mails: Mail[];
let smtp: SMTPServer;
let names = 0;

beforeAll(async () => {
  const { url } = await createProjectDatabase(inject("postgresUrls")[18], { preset: "default" });
  local = await startLocalProject({ databaseUrl: url, upkeepIntervalMs: null });
  project = projectAt(url);
  const preset = await project.rpc<{ settings: object }>("console_preset");
  await project.rpc("apply_preset", { p_preset: { ...preset, settings: { ...preset.settings, ...links } } });
  smtp = new SMTPServer({
    authOptional: true,
    disabledCommands: ["STARTTLS"],
    logger: false,
    onData(stream, session, done) {
      const chunks: Buffer[] = [];
      stream.on("data", (chunk: Buffer) => chunks.push(chunk));
      stream.on("end", () => {
        const raw = Buffer.concat(chunks).toString();
        mails.push({ to: session.envelope.rcptTo.map(({ address }) => address), raw });
        done();
      });
    },
  });
  await new Promise<void>((resolve) => smtp.listen(0, "127.0.0.1", resolve));
});
afterAll(async () => {
  await new Promise<void>((resolve) => smtp.close(resolve));
  await project?.close();
  await local?.stop();
});
beforeEach(() => {
  mails = [];
});

const newUser = async (metadata: object = {}): Promise<string> => {
  const user = `u${++names}`;
  await project.rpc("upsert_account", {
    p_user_id: user,
    p_plan_id: "pro",
    p_email: `${user}@example.com`,
    p_display_name: "Ann",
    p_metadata: metadata,
  });
  return user;
};

/** Delivers what is due, through the real path; answers the mails to this user, decoded, oldest first. */
async function mailsTo(user: string): Promise<string[]> {
  const environment: Record<string, string> = {
    SMTP_URL: `smtp://127.0.0.1:${(smtp.server.address() as AddressInfo).port}?tls=none`,
    MAIL_FROM: "Tokens <tokens@example.com>",
  };
  await deliverDue({ project: local, settings: readSettings((name) => environment[name]), log: () => {} });
  return mails
    .filter(({ to }) => to.includes(`${user}@example.com`))
    .map(({ raw }) => {
      const [head = "", body = ""] = raw.split(/\r\n\r\n([\s\S]*)/);
      const encoding = /Content-Transfer-Encoding: (\S+)/.exec(head)?.[1];
      const bytes =
        encoding === "base64"
          ? Buffer.from(body, "base64")
          : Buffer.from(
              body
                .replaceAll("=\r\n", "")
                .replace(/=([0-9A-F]{2})/g, (_, hex: string) =>
                  String.fromCharCode(Number.parseInt(hex, 16)),
                ),
              encoding === "quoted-printable" ? "latin1" : "utf8",
            );
      return `${head}\n\n${bytes.toString("utf8").replaceAll("\r\n", "\n")}`;
    });
}

const purchase = (userId: string): Purchase => ({
  name: `m${++names}`,
  userId,
  packId: "tokens-500k",
  tokens: 500_000,
  amountMinor: 500,
  currency: "usd",
  created: Math.floor(Date.now() / 1000),
});
const tell = (sent: object): Promise<unknown> =>
  project.rpc("process_stripe_event", { p_event: JSON.stringify(sent) });

describe("The words for users", () => {
  it("are one catalogue: the database says each in each language as the core does", async () => {
    for (const language of userLanguages)
      for (const word of Object.keys(userWords[language]) as UserWord[]) {
        const values = Object.fromEntries(
          [...userWords[language][word].matchAll(/\{(\w+)\}/g)].map(([, name]) => [name, `<{url}${name}>`]),
        );
        expect(
          await project.one("select governance.say($1, $2, $3) as said", [
            word,
            language,
            JSON.stringify(values),
          ]),
          word,
        ).toEqual({ said: say(word, language, values) });
      }
    expect(await project.one("select governance.user_languages() as l")).toEqual({ l: userLanguages });
    for (const [word, text] of Object.entries(userWords.en))
      expect([...userWords.de[word as UserWord].matchAll(/\{\w+\}/g)].map(String).sort(), word).toEqual(
        [...text.matchAll(/\{\w+\}/g)].map(String).sort(),
      );
  });

  it("have money and messages of rules as the core has them, whatever they are", async () => {
    const text = fc.constantFrom(null, "Own words {x}", standardMessage("daily_limit", "de"));
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: -10_000_000, max: 9_000_000_000 }),
        fc.constantFrom("usd", "JPY", "kwd", "eur"),
        fc.constantFrom(...userLanguages),
        fc.constantFrom("daily_limit", "unheard_of", "constructor"),
        text,
        async (minor, currency, language, reason, message) => {
          expect(
            await project.one(
              "select governance.say_money($1, $2, $3) as money, governance.user_message($4, $5, $3) as message",
              [minor, currency, language, reason, message],
            ),
          ).toEqual({
            money: sayMoney(minor, currency, language),
            message: userMessage(reason, message, language),
          });
        },
      ),
      { numRuns: 60 },
    );
  });

  it.each([
    ["buy_url", "javascript:alert(1)"],
    ["buy_url", "http://example.com/"],
    ["upgrade_url", "https://example.com/ x"],
    ["unsubscribe_url", "https://example.com/\r\nBcc: x@example.com"],
    ["unsubscribe_url", "https://example.com/>"],
    ["contact_url", 7],
    ["default_language", "fr"],
  ])("have links and languages that are checked: %s is never %j", async (key, value) => {
    const preset = await project.rpc<{ settings: object }>("console_preset");
    expect(
      await project.refusal("apply_preset", {
        p_preset: { ...preset, settings: { ...preset.settings, [key]: value } },
      }),
    ).toMatchObject({ code: "PT422", hint: "invalid_preset", message: expect.stringContaining(key) });
  });

  it("are the same in the answer, in the text to copy and in the language of the account", async () => {
    const german = await newUser({ language: "de-AT" });
    const answer = await project.rpc<{ decision_id: number; [key: string]: unknown }>("authorize_usage", {
      p_request_id: `r-${german}`,
      p_user_id: german,
      p_model: "gpt-4o",
      p_estimated_tokens: 100_000_000,
    });
    expect(answer).toMatchObject({ decision: "block", reason: "daily_limit" });
    expect(answer["message"]).toBe(standardMessage("daily_limit", "de"));
    expect(answer["upgrade"]).toEqual({ plan_id: "business", name: "Business", url: links.upgrade_url });
    expect(answer["buy_url"]).toBeNull();

    const poor = await newUser({ language: "de" });
    await project.sql.query("update governance.plans set daily_limit = null where plan_id = 'pro'");
    const short = await project.rpc<{ decision_id: number; message: string; shortfall: object }>(
      "authorize_usage",
      { p_request_id: `r-${poor}`, p_user_id: poor, p_model: "gpt-4o", p_estimated_tokens: 900_000 },
    );
    expect(short).toMatchObject({
      http_status: 402,
      message: "Dafür reichen Ihre Tokens nicht mehr.",
      shortfall: { need: 900_000, have: 500_000, missing: 400_000 },
      buy_url: links.buy_url,
      upgrade: { url: links.upgrade_url },
    });
    const receipt = await project.rpc<UserTextFacts & { language: string }>("explain_decision", {
      p_decision_id: short.decision_id,
    });
    expect(receipt.language).toBe("de");
    const copied = userText({ ...receipt, clears_at: null }, "de", false, String).split("\n");
    expect(copied).toEqual([
      short.message,
      "Nötig waren 900.000 Tokens, vorhanden waren 500.000.",
      `Hier können Sie Tokens kaufen: ${links.buy_url}`,
      `Der Tarif Business bietet Ihnen mehr: ${links.upgrade_url}`,
      `Falls das nicht stimmen kann, antworten Sie bitte mit dieser Nummer: ${short.decision_id}.`,
    ]);
    expect(await project.rpcAs("authenticated", poor, "my_token_balance")).toMatchObject({
      buy_url: links.buy_url,
      language: "de",
      upgrade: { plan_id: "business", url: links.upgrade_url },
    });

    await project.rpc("block_user", {
      p_command_id: `b-${poor}`,
      p_user_id: poor,
      p_reason: "x",
      p_until: null,
      p_operator: "op",
    });
    expect(
      await project.rpc("authorize_usage", { p_request_id: `b-${poor}`, p_user_id: poor, p_model: "gpt-4o" }),
    ).toMatchObject({
      http_status: 403,
      message: standardMessage("user_blocked", "de"),
      contact_url: links.contact_url,
      buy_url: null,
    });
  });
});

describe("A message to a user", () => {
  it("confirms a purchase once, however often Stripe tells of it, and says why tokens were taken back", async () => {
    const user = await newUser();
    const bought = purchase(user);
    await tell(event("checkout.session.completed", checkoutSession(bought)));
    await tell(event("checkout.session.completed", checkoutSession(bought)));
    await tell(event("charge.succeeded", charge(bought)));
    expect(await mailsTo(user)).toHaveLength(1);
    expect(mails[0]?.raw).toMatch(/Subject: Your purchase is confirmed: 500,000 tokens for 5\.00 USD/);
    await tell(event("charge.refunded", charge(bought, { amount_refunded: 250 })));
    await tell(event("charge.refunded", charge(bought, { amount_refunded: 250 })));
    const [, refunded = "", ...others] = await mailsTo(user);
    expect(others).toEqual([]);
    expect(refunded).toContain("250,000 tokens were taken back, because their payment was refunded.");
    expect(refunded).toContain(`You can reach us here: ${links.contact_url}`);
    await tell(event("charge.dispute.closed", dispute(bought, "lost")));
    expect((await mailsTo(user)).at(-1)).toMatch(
      /tokens were taken back, because their payment was disputed/,
    );

    // They stand in the user's history, in the order they were sent.
    const { items } = await project.rpc<{ items: { subject: string; status: string }[] }>(
      "console_account_history",
      { p_user_id: user, p_filter: { kinds: ["message"] } },
    );
    expect(items.map(({ status }) => status)).toEqual(["sent", "sent", "sent"]);
    expect(items.at(-1)?.subject).toContain("Your purchase is confirmed");
  });

  it("says in the user's language that a subscription ended, and what becomes of its tokens", async () => {
    const user = await newUser({ language: "de" });
    const ended = subscription(`s${++names}`, {
      status: "canceled",
      metadata: { user_id: user, plan_id: "pro" },
    });
    await tell(event("customer.subscription.deleted", ended));
    const [mail = ""] = await mailsTo(user);
    expect(mail).toContain("Guten Tag Ann,\n\nIhr Abonnement Pro ist beendet. Die 500.000 Tokens");
    expect(mail).toContain(`Hier können Sie einen Tarif wählen: ${links.upgrade_url}`);
  });

  it("warns of a low balance with the link to buy, once a day, and of support's taking", async () => {
    const user = await newUser();
    const spend = async (tokens: number): Promise<void> => {
      const id = `s-${++names}`;
      await project.rpc("authorize_usage", {
        p_request_id: id,
        p_user_id: user,
        p_model: "gpt-4o-mini",
        p_estimated_tokens: tokens,
      });
      await project.rpc("settle_usage", { p_request_id: id, p_input_tokens: tokens, p_output_tokens: 0 });
    };
    await spend(499_500);
    await project.rpc("run_maintenance");
    const low = (await mailsTo(user)).filter((mail) => mail.includes("Subject: You have 500 tokens left"));
    expect(low).toHaveLength(1);
    expect(low[0]).toContain(`You can buy tokens here: ${links.buy_url}`);
    expect(low[0]).toContain("because mails about a low balance are on for your account");
    await project.rpc("update_user_token_balance", {
      p_user_id: user,
      p_amount: 10_000,
      p_transaction_type: "bonus",
    });
    await spend(9_800);
    await project.rpc("run_maintenance");
    expect((await mailsTo(user)).filter((mail) => mail.includes("tokens left")).length).toBe(1);
    await project.rpc("console_act", {
      p_command_id: `t-${user}`,
      p_user_id: user,
      p_act: { kind: "take_tokens", tokens: 100 },
      p_reason: "internal reason",
      p_operator: "op",
    });
    const [taken = ""] = (await mailsTo(user)).slice(-1);
    expect(taken).toContain("100 tokens were taken back by our support.");
    expect(taken).not.toContain("internal reason");
  });

  it("is not sent about what the user turned off: by the function, or by the link in the mail", async () => {
    const user = await newUser();
    await project.rpcAs("authenticated", user, "my_preferences", {
      p_changes: { messages: { tokens_taken: false } },
    });
    const bought = purchase(user);
    await tell(event("checkout.session.completed", checkoutSession(bought)));
    await tell(event("charge.refunded", charge(bought, { amount_refunded: 500 })));
    const got = await mailsTo(user);
    expect(got).toHaveLength(1);
    const [mail = ""] = got;
    const link = /List-Unsubscribe: <(\S+?)>/.exec(mail.replaceAll(/\r?\n[ \t]+/g, " "))?.[1] ?? "";
    expect(mail).toContain("List-Unsubscribe-Post: List-Unsubscribe=One-Click");
    expect(mail).toContain(`Turn them off: ${link}`);
    const token = new URL(link).searchParams.get("token") ?? "";
    const { value } = await project.one<{ value: Buffer }>("select value from governance.secrets");
    const signed = token.split(".").slice(0, 2).join(".");
    expect(token).toBe(`${signed}.${createHmac("sha256", value).update(signed).digest("hex")}`);

    const off = (p_token: string, p_is_question = false): Promise<unknown> =>
      project.rpc("turn_off_messages", { p_token, p_is_question });
    expect(await off(token, true)).toMatchObject({ is_valid: true, text: "No more mails about purchases?" });
    expect(await project.rpcAs("authenticated", user, "my_preferences")).toMatchObject({
      messages: { purchases: true, tokens_taken: false },
    });
    for (const forged of ["", "x", token.replace("purchases", "limits"), `1${token}`, token.toUpperCase()])
      expect(await off(forged)).toMatchObject({ is_valid: false });
    expect(await off(token)).toMatchObject({ is_valid: true, text: "Mails about purchases are off now." });
    await off(token);
    await tell(event("checkout.session.completed", checkoutSession(purchase(user))));
    expect(await mailsTo(user)).toHaveLength(1);
    // Support sees it on the user's page.
    expect(await project.rpc("console_get_account", { p_user_id: user })).toMatchObject({
      preferences: { language: "en", messages: { purchases: false, tokens_taken: false, limits: true } },
    });
    // Each change is on record once, also who made it.
    const { rows } = await project.sql.query(
      `select g.details from governance.audit_log g join governance.accounts a using (account_id)
       where a.user_id = $1 and g.action = 'user_preferences' order by g.audit_id`,
      [user],
    );
    expect(rows.map(({ details }) => details)).toEqual([
      { messages: { tokens_taken: false } },
      { messages: { purchases: false }, by: "link" },
    ]);
  });
});
