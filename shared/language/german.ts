/** The German catalogue, loaded where the screens are in German. */
import type { Catalogue } from "./index.ts";

export async function germanCatalogue(): Promise<Catalogue> {
  const files = await Promise.all([
    import("./de/alerts.json", { with: { type: "json" } }),
    import("./de/audit.json", { with: { type: "json" } }),
    import("./de/codes.json", { with: { type: "json" } }),
    import("./de/console.json", { with: { type: "json" } }),
    import("./de/core.json", { with: { type: "json" } }),
    import("./de/costs.json", { with: { type: "json" } }),
    import("./de/database.json", { with: { type: "json" } }),
    import("./de/differences.json", { with: { type: "json" } }),
    import("./de/finance.json", { with: { type: "json" } }),
    import("./de/health.json", { with: { type: "json" } }),
    import("./de/plans.json", { with: { type: "json" } }),
    import("./de/rules.json", { with: { type: "json" } }),
    import("./de/screens.json", { with: { type: "json" } }),
    import("./de/settings.json", { with: { type: "json" } }),
    import("./de/users.json", { with: { type: "json" } }),
    import("./de/watch.json", { with: { type: "json" } }),
  ]);
  return Object.assign({}, ...files.map((file) => file.default)) as Catalogue;
}
