/** The search over everything, from any desk. */
import { z } from "zod";
import { operation } from "./basics.ts";

export const searchHit = z.looseObject({
  kind: z.enum(["user", "rule", "request", "payment", "event", "case"]),
  id: z.string(),
  title: z.string(),
  subtitle: z.string().nullable(),
});
export type SearchHit = z.infer<typeof searchHit>;

export const searchOperations = {
  "search.everything": operation(z.object({ query: z.string().max(500) }).strict(), z.array(searchHit)),
} as const;
