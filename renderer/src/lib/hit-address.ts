import type { SearchHit } from "../../../shared/contract/search.ts";
import { placeAddress } from "./router.ts";

/** Where a hit leads. */
export function hitAddress(hit: SearchHit): string {
  const owner = typeof hit["user_id"] === "string" ? hit["user_id"] : null;
  switch (hit.kind) {
    case "user":
      return placeAddress(["users", hit.id]);
    case "rule":
      return placeAddress(["rules", hit.id]);
    case "request":
      return placeAddress([
        "watch",
        "decisions",
        typeof hit["decision_id"] === "number" ? String(hit["decision_id"]) : hit.id,
      ]);
    case "payment":
      return owner ? placeAddress(["users", owner, "payments"]) : placeAddress(["finance", "events"]);
    case "event":
      return placeAddress(["finance", "events", hit.id]);
    case "case":
      return placeAddress(["finance", "cases", hit.id], { status: "all" });
  }
}
