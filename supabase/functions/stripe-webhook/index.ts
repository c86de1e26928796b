/**
 * The Edge Function that Stripe calls. Deploy with `supabase functions deploy stripe-webhook --no-verify-jwt` (Stripe
 * has no JWT: its signature is the proof) and set STRIPE_WEBHOOK_SECRET; the other two are there on Supabase.
 */
import { handle } from "./handler.ts";

Deno.serve((request) =>
  handle(request, {
    webhookSecrets: Deno.env.get("STRIPE_WEBHOOK_SECRET") ?? "",
    supabaseUrl: Deno.env.get("SUPABASE_URL") ?? "",
    serviceRoleKey: Deno.env.get("SUPABASE_SERVICE_ROLE_KEY") ?? "",
  }),
);
