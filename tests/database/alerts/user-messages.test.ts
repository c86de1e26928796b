/** What users read: one catalogue, in their language, with the next step; and mails that they can turn off. */
import { createHmac } from "node:crypto";
import type { AddressInfo } from "node:net";
import fc from "fast-check";
import { SMTPServer } from "smtp-server";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type LocalProject, startLocalProject } from "../../../local-project/index.ts";
import {
  say,
  sayMoney,
  sayPeriod,
  standardMessage,
  userLanguages,
  userMessage,
  userText,
  type UserLanguage,
  type UserTextFacts,
  type UserWord,
  userWords,
} from "../../../shared/governance/rules/index.ts";
import { deliverDue } from "../../../supabase/functions/deliver-notifications/deliver.ts";
import { readSettings } from "../../../supabase/functions/deliver-notifications/settings.ts";
import { createProjectDatabase } from "../../support/database.ts";
import { postgresUrls, type Project, projectAt } from "../../support/project.ts";
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
  const { url } = await createProjectDatabase(postgresUrls()[18], { preset: "default" });
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

/** The text of a part of a mail, decoded. */
function decode(part: string): string {
  const [head = "", body = ""] = part.split(/\r\n\r\n([\s\S]*)/);
  const encoding = /Content-Transfer-Encoding: (\S+)/.exec(head)?.[1];
  const bytes =
    encoding === "base64"
      ? Buffer.from(body, "base64")
      : Buffer.from(
          body
            .replaceAll("=\r\n", "")
            .replace(/=([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
          encoding === "quoted-printable" ? "latin1" : "utf8",
        );
  return bytes.toString("utf8").replaceAll("\r\n", "\n");
}

/** Delivers what is due, through the real path; answers the mails to this user, decoded, oldest first. */
async function mailsTo(user: string, form: "plain" | "html" = "plain"): Promise<string[]> {
  const environment: Record<string, string> = {
    SMTP_URL: `smtp://127.0.0.1:${(smtp.server.address() as AddressInfo).port}?tls=none`,
    MAIL_FROM: "Tokens <tokens@example.com>",
  };
  await deliverDue({ project: local, settings: readSettings((name) => environment[name]), log: () => {} });
  return mails
    .filter(({ to }) => to.includes(`${user}@example.com`))
    .map(({ raw }) => {
      const [head = "", body = ""] = raw.split(/\r\n\r\n([\s\S]*)/);
      const boundary = /boundary="([^"]+)"/.exec(head)?.[1] ?? "none";
      const part = body.split(`--${boundary}`).find((each) => each.includes(`Content-Type: text/${form};`));
      return `${head}\n\n${decode((part ?? "").trimStart())}`;
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
    ["mail_from", "Tokens <a@example.com>\r\nBcc: x@example.com"],
    ["mail_from", "a@example.com, b@example.com"],
    ["mail_from", "nobody"],
    ["user_messages", ["purchases", "weather"]],
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
  it("confirms a purchase once, however often Stripe reports it, and says why tokens were taken back", async () => {
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
      ended_at: Math.floor(Date.now() / 1000),
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

  it("is written safely, whatever a name, a plan or a rule says: the page says what the text says, and links lead where settings do", async () => {
    const unescape = (html: string): string =>
      html.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&quot;", '"').replaceAll("&amp;", "&");
    const hostile = fc.oneof(
      fc.string({ unit: "grapheme", maxLength: 60 }).map((text) => text.replaceAll("\0", "")),
      fc.constantFrom(
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "Ann\r\nBcc: x@example.com",
        "You won: https://evil.example.com",
        "evil.example.com",
        "\u202egnp.exe",
        "{url} {name}",
        "&lt;b&gt;",
        "Dr. Ann O'Neill-Łuczak",
        "",
      ),
    );
    const topics = ["limits", "low_balance", "purchases", "subscription", "tokens_taken"];
    const token = "1.limits.00";
    await fc.assert(
      fc.asyncProperty(
        hostile,
        hostile,
        fc.constantFrom(...topics),
        fc.constantFrom(...userLanguages),
        fc.boolean(),
        async (name, sentence, topic, language, hasLink) => {
          const { mail } = await project.one<{ mail: { subject: string; text: string; html: string } }>(
            `select governance.write_mail($1, 'pro', 'Europe/Berlin', $2, $3, $4, now(), case when $5 then
               governance.turn_off_url($6) end) as mail`,
            [name, language, topic, sentence, hasLink, token],
          );
          // One line each, and nothing invisible that turns what is read around.
          expect(mail.subject).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/u);
          expect(mail.text.replaceAll("\n", "")).not.toMatch(/[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e]/u);
          // A name that mail programs would make a link of is not said.
          expect(mail.text.split("\n")[0]).not.toMatch(/:\/\/|example\.com|@/);
          const body = /<body[^>]*>(.*)<\/body><\/html>$/s.exec(mail.html)?.[1] ?? "";
          const hrefs = [...body.matchAll(/<a href="([^"]*)">/g)].map(([, href]) => unescape(href ?? ""));
          const allowed = [...Object.values(links), `${links.unsubscribe_url}?token=${token}`];
          for (const href of hrefs) expect(allowed).toContain(href);
          expect(hrefs.some((href) => href.includes("token="))).toBe(hasLink);
          // Our own tags alone; without them the page is the text, where an address stands behind its words.
          let at = 0;
          const said = body
            .replace(/<a href="[^"]*">([^<]*)<\/a>/g, (_, words: string) => `${words}: ${hrefs[at++]}`)
            .replace(/<p(?: style="[a-z0-9:;#-]*")?>/g, "")
            .replaceAll("</p>", "\n\n")
            .replaceAll("<br>", "\n");
          expect(said).not.toMatch(/[<>]/);
          expect(unescape(said).trim()).toBe(mail.text.trim());
        },
      ),
      { numRuns: 150 },
    );
  });

  it("writes moments in the user's zone, as their language writes them", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.date({ min: new Date("2001-01-01"), max: new Date("2099-12-31"), noInvalidDate: true }),
        fc.constantFrom("UTC", "America/St_Johns", "Asia/Kathmandu", "Europe/London", "Pacific/Apia"),
        fc.constantFrom(...userLanguages),
        async (date, timeZone, language) => {
          const parts = Object.fromEntries(
            new Intl.DateTimeFormat(userWords[language]["format.locale"], {
              timeZone,
              day: "numeric",
              month: "long",
              year: "numeric",
              hour: "2-digit",
              minute: "2-digit",
              hourCycle: "h23",
            })
              .formatToParts(date)
              .map(({ type, value }) => [type, value]),
          );
          const { day = "", month = "", year = "", hour, minute } = parts;
          expect(
            await project.one("select governance.say_moment($1, $2, $3) as said", [date, timeZone, language]),
          ).toEqual({
            said: say("format.moment", language, {
              day: say("format.day", language, { day, month, year }),
              time: `${hour}:${minute}`,
            }),
          });
        },
      ),
      { numRuns: 100 },
    );
  });

  /** A period's words, from its days alone. */
  function periodWords(unit: string, day: Date, language: UserLanguage): string {
    const monday = new Date(day);
    while (unit === "week" && monday.getUTCDay() !== 1) monday.setUTCDate(monday.getUTCDate() - 1);
    const written = (options: Intl.DateTimeFormatOptions): string =>
      new Intl.DateTimeFormat(userWords[language]["format.locale"], {
        ...options,
        year: "numeric",
        timeZone: "UTC",
      }).format(monday);
    if (unit === "year") return written({});
    if (unit === "month") return written({ month: "long" });
    const whole = written({ day: "numeric", month: "long" });
    if (unit === "day") return whole;
    return language === "de" ? `Woche ab ${whole}` : `the week from ${whole}`;
  }

  it("names periods as their language writes them; what is no period stays as it is", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.date({ min: new Date("1999-01-01"), max: new Date("2101-12-31"), noInvalidDate: true }),
        // The first and the last days of a year may be in a week of another.
        fc.integer({ min: -4, max: 4 }),
        fc.boolean(),
        fc.constantFrom("day", "week", "month", "year"),
        fc.constantFrom(...userLanguages),
        async (date, days, isAtNewYear, unit, language) => {
          const day = isAtNewYear
            ? new Date(Date.UTC(date.getUTCFullYear(), 0, 1 + days))
            : new Date(date.toISOString().slice(0, 10));
          const { key, said, sentence } = await project.one<Record<"key" | "said" | "sentence", string>>(
            `select p.key, governance.say_period(p.key, $3) as said, governance.alert_user_sentence(
               jsonb_populate_record(null::governance.alert_events, jsonb_build_object('kind', 'user_budget',
                 'value', 1234500000, 'period_key', p.key,
                 'details', '{"metric": "cost_micros", "currency": "usd"}'::jsonb)), $3) as sentence
             from governance.budget_period($1, $2::date) p`,
            [unit, day.toISOString().slice(0, 10), language],
          );
          const period = periodWords(unit, day, language);
          expect({ key, said, core: sayPeriod(key, language), sentence }).toEqual({
            key,
            said: period,
            core: period,
            sentence:
              language === "de"
                ? `Sie haben schon 1.234,50 USD verbraucht (${period}).`
                : `You have used 1,234.50 USD (${period}).`,
          });
        },
      ),
      { numRuns: 200 },
    );
    // Near to a key, and the keys of what repeats by anything else: both sides take the same for a period, or for none.
    const near = fc.oneof(
      fc
        .tuple(
          fc.constantFrom("", "2027", "0000", "0999", "20271", "٢٠٢٧", "evt_1"),
          fc.constantFrom("", "-00", "-13", "-12", "-W00", "-W01", "-W53", "-W54", "-w01", "-1"),
          fc.constantFrom("", "-00", "-31", "-32", "-1", "T14:30", "\n", " "),
        )
        .map((parts) => parts.join("")),
      fc.string().filter((text) => !text.includes("\0")),
    );
    await fc.assert(
      fc.asyncProperty(near, fc.constantFrom(...userLanguages), async (key, language) => {
        expect(await project.one("select governance.say_period($1, $2) as said", [key, language])).toEqual({
          said: sayPeriod(key, language),
        });
        const isPeriod = /^[1-9]\d{3}(-W(?!00|54)\d\d|-(?!00|13)\d\d(-(?!00|32)\d\d)?)?$/.test(key);
        if (!isPeriod) expect(sayPeriod(key, language)).toBe(key);
      }),
      { numRuns: 300 },
    );
  });

  it("is shown before it is sent: each in each language, as it then arrives, with the settings that it lacks", async () => {
    interface Shown {
      readonly word: string;
      readonly topic: string;
      readonly is_sent: boolean;
      readonly subject: string;
      readonly text: string;
      readonly html: string;
    }
    for (const language of userLanguages) {
      const { messages, missing } = await project.rpc<{ messages: Shown[]; missing: string[] }>(
        "console_messages",
        { p_language: language },
      );
      const words = Object.keys(userWords.en).filter((word) => /^(message|alert)\./.test(word));
      expect(messages.map(({ word }) => word).sort()).toEqual(words.sort());
      expect(missing).toEqual(["mail_from"]);
      for (const message of messages) {
        expect(message.is_sent).toBe(
          !/high_usage|negative_balance|usage_spike|user_budget/.test(message.word),
        );
        expect(message.text).toContain(`${links.unsubscribe_url}?token=…`);
        expect(`${message.subject}${message.text}${message.html}`).not.toMatch(
          /[{}]\w|undefined|null|  |\b\d{4}-(?:W?\d\d)\b/,
        );
      }
    }
    expect(await project.refusal("console_messages", { p_language: "xx" })).toMatchObject({
      code: "PT400",
      hint: "invalid_argument",
    });
    const { messages } = await project.rpc<{ messages: Shown[] }>("console_messages");
    const shown = messages.find(({ word }) => word === "message.support");
    const user = await newUser();
    const { rows } = await project.sql.query("select name from governance.plans where plan_id = 'pro'");
    expect(rows).toHaveLength(1);
    await project.rpc("update_user_token_balance", {
      p_user_id: user,
      p_amount: 10_000_000,
      p_transaction_type: "bonus",
    });
    await project.rpc("console_act", {
      p_command_id: `shown-${user}`,
      p_user_id: user,
      p_act: {
        kind: "take_tokens",
        tokens: Number(/^[\d,]+/.exec(shown?.subject ?? "")?.[0].replaceAll(",", "")),
      },
      p_reason: "x",
      p_operator: "op",
    });
    const same = (text = ""): string =>
      text
        .replace(/Ann Miller/g, "Ann")
        .replace(/token=[^\s"]+/g, "token=")
        .replace(/This happened on [^.]*\./g, "");
    const [html = ""] = await mailsTo(user, "html");
    expect(same(html.split("\n\n")[1]).trim()).toBe(same(shown?.html));
  });

  it("is not sent of topics that the project leaves out, nor of old news; its sender is the project's", async () => {
    const preset = await project.rpc<{ settings: object }>("console_preset");
    const set = (more: object): Promise<unknown> =>
      project.rpc("apply_preset", { p_preset: { ...preset, settings: { ...preset.settings, ...more } } });
    const user = await newUser();
    const states = async (): Promise<unknown[]> =>
      (
        await project.sql.query(
          `select n.status from governance.notifications n join governance.accounts a using (account_id)
           where a.user_id = $1 order by n.notification_id`,
          [user],
        )
      ).rows.map(({ status }: { status: string }) => status);
    // A backfill of last month's events writes to nobody; what Stripe delivers again within three days is told.
    const days = (count: number): Purchase => ({
      ...purchase(user),
      created: Math.floor(Date.now() / 1000) - count * 86_400,
    });
    const old = days(4);
    await tell(event("checkout.session.completed", checkoutSession(old)));
    await tell(event("charge.refunded", charge(old, { amount_refunded: 500 })));
    expect(await states()).toEqual([]);
    await tell(event("checkout.session.completed", checkoutSession(days(2))));
    expect(await states()).toEqual(["queued"]);
    // Turned off while it waited: by the project, and by the user.
    await set({ user_messages: ["low_balance"], mail_from: "Ann’s Shop <shop@example.com>" });
    await tell(event("checkout.session.completed", checkoutSession(purchase(user))));
    expect(await mailsTo(user)).toEqual([]);
    expect(await states()).toEqual(["withdrawn"]);
    expect(await project.rpcAs("authenticated", user, "my_preferences")).toMatchObject({
      messages: { low_balance: true },
    });
    await set({ mail_from: "Shop <shop@example.com>" });
    await tell(event("checkout.session.completed", checkoutSession(purchase(user))));
    await project.rpcAs("authenticated", user, "my_preferences", {
      p_changes: { messages: { purchases: false } },
    });
    expect(await mailsTo(user)).toEqual([]);
    await project.rpcAs("authenticated", user, "my_preferences", {
      p_changes: { messages: { purchases: true } },
    });
    await project.rpc("upsert_account", { p_user_id: user, p_display_name: "see evil.example.com" });
    await tell(event("checkout.session.completed", checkoutSession(purchase(user))));
    const [mail = "", ...others] = await mailsTo(user);
    expect(others).toEqual([]);
    expect(mail).toMatch(/^From: Shop <shop@example\.com>$/m);
    expect(mail).toContain("\n\nHello,\n\nYour purchase is confirmed");
    await set({});
  });
});
