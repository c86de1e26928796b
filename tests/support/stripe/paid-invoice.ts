/** A paid invoice of a subscription, in Stripe's shape of before or since 2025-03-31. */
interface PaidInvoice {
  readonly name: string;
  readonly subscription: string;
  readonly customer: string;
  readonly isOld: boolean;
  /** Of the subscription. */
  readonly metadata: object;
  readonly paid: number;
  readonly subtotal: number;
  readonly total: number;
  readonly tax: number;
  readonly discount: number;
  readonly lines: readonly PaidLine[];
}

interface PaidLine {
  readonly amount: number;
  readonly isProration: boolean;
  /** Seconds since 1970. */
  readonly start: number;
  readonly end: number;
  readonly metadata: object;
  readonly price: { readonly id: string; readonly lookup_key: string | null };
}

export function paidInvoice(invoice: PaidInvoice): object {
  const { name, subscription, metadata, paid, total, isOld } = invoice;
  const discounts = invoice.discount > 0 ? [{ amount: invoice.discount, discount: "di_1" }] : [];
  return {
    id: `in_${name}`,
    object: "invoice",
    status: "paid",
    customer: invoice.customer,
    currency: "usd",
    amount_due: paid,
    amount_paid: paid,
    total,
    subtotal: invoice.subtotal,
    total_excluding_tax: total - invoice.tax,
    total_discount_amounts: discounts,
    metadata: {},
    ...(isOld
      ? {
          subscription,
          subscription_details: { metadata },
          payment_intent: paid > 0 ? `pi_${name}` : null,
        }
      : { parent: { type: "subscription_details", subscription_details: { subscription, metadata } } }),
    lines: {
      object: "list",
      has_more: false,
      data: invoice.lines.map((line, index) => ({
        id: `il_${name}_${index}`,
        object: "line_item",
        amount: line.amount,
        currency: "usd",
        quantity: 1,
        discount_amounts: discounts,
        metadata: line.metadata,
        period: { start: line.start, end: line.end },
        ...(isOld ? oldLine(subscription, line) : newLine(subscription, line)),
      })),
    },
  };
}

const newLine = (subscription: string, { isProration, price }: PaidLine): object => ({
  parent: {
    type: "subscription_item_details",
    subscription_item_details: {
      proration: isProration,
      subscription,
      subscription_item: `si_${subscription}`,
    },
  },
  pricing: { type: "price_details", price_details: { price: price.id, product: "prod_1" } },
});

/** Before 2025-03-31 a line has its price as it is, with what it is for. */
const oldLine = (subscription: string, { isProration, price }: PaidLine): object => ({
  type: isProration ? "invoiceitem" : "subscription",
  proration: isProration,
  subscription,
  price: { ...price, object: "price", metadata: {} },
});
