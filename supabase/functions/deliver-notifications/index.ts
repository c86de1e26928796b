/**
 * The Edge Function that sends alerts. Deploy with `supabase functions deploy deliver-notifications`, set SMTP_URL and
 * MAIL_FROM, SLACK_WEBHOOK_URL, WEBHOOK_URL and WEBHOOK_SECRET, or several (`supabase secrets set`), and have it called every minute: docs/guides/admin.md.
 */
import { handle } from "./handler.ts";

Deno.serve((request) => handle(request, (name) => Deno.env.get(name)));
