/**
 * The Edge Function that Stripe calls. Deploy with `supabase functions deploy stripe-webhook --no-verify-jwt` (Stripe
 * has no JWT: its signature is the proof) and set STRIPE_WEBHOOK_SECRET. STRIPE_API_KEY, a restricted key that may read
 * invoices, lets invoices of more than ten lines through without a person. SUPABASE_… are there on Supabase.
 */
import { handle } from "./handler.ts";

Deno.serve((request) =>
  handle(request, {
    webhookSecrets: Deno.env.get("STRIPE_WEBHOOK_SECRET") ?? "",
    supabaseUrl: Deno.env.get("SUPABASE_URL") ?? "",
    serviceRoleKey: Deno.env.get("SUPABASE_SERVICE_ROLE_KEY") ?? "",
    stripeApiKey: Deno.env.get("STRIPE_API_KEY") ?? "",
    stripeApiUrl: Deno.env.get("STRIPE_API_URL") ?? "",
  }),
);
