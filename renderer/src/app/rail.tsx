import type { ComponentType, ReactNode, SVGProps } from "react";
import { useLive } from "../lib/live.ts";
import { usePlace } from "../lib/router.ts";
import { counted } from "../lib/text.ts";
import {
  FileIcon,
  ChartIcon,
  FinanceIcon,
  HealthIcon,
  PlansIcon,
  RulesIcon,
  SettingsIcon,
  UsersIcon,
  WarningIcon,
  WatchIcon,
} from "../ui/icons.tsx";
import css from "./shell.module.css";

interface NavItem {
  readonly id:
    | "watch"
    | "alerts"
    | "users"
    | "rules"
    | "plans"
    | "costs"
    | "finance"
    | "health"
    | "audit"
    | "settings";
  readonly name: string;
  /** The letter after g. */
  readonly key: string;
  readonly icon: ComponentType<SVGProps<SVGSVGElement> & { readonly size?: number }>;
}

export const desks: readonly NavItem[] = [
  { id: "watch", name: "Watch", key: "w", icon: WatchIcon },
  { id: "alerts", name: "Alerts", key: "a", icon: WarningIcon },
  { id: "users", name: "Users", key: "u", icon: UsersIcon },
  { id: "rules", name: "Rules", key: "r", icon: RulesIcon },
  { id: "plans", name: "Plans", key: "p", icon: PlansIcon },
  { id: "costs", name: "Costs", key: "c", icon: ChartIcon },
  { id: "finance", name: "Finance", key: "f", icon: FinanceIcon },
  { id: "health", name: "Health", key: "h", icon: HealthIcon },
  { id: "audit", name: "Audit", key: "l", icon: FileIcon },
  { id: "settings", name: "Settings", key: "s", icon: SettingsIcon },
];

export function Rail(): ReactNode {
  const place = usePlace();
  const rail = useLive((state) => state.rail);
  const counts: Partial<Record<NavItem["id"], { n: number; tone: "amber" | "red" | "grey"; title: string }>> =
    {
      alerts: {
        n: rail?.open_alerts ?? 0,
        tone: "red",
        title: counted(rail?.open_alerts ?? 0, "open alert"),
      },
      users: {
        n: rail?.flagged ?? 0,
        tone: "amber",
        title: `${counted(rail?.flagged ?? 0, "flagged user")}, ${rail?.blocked ?? 0} blocked`,
      },
      finance: {
        n: rail?.differences ?? 0,
        tone: "amber",
        title: counted(rail?.differences ?? 0, "open difference"),
      },
    };
  return (
    <nav className={css.rail} aria-label="Desks">
      {desks.map((desk) => {
        const count = counts[desk.id];
        const Icon = desk.icon;
        return (
          <span key={desk.id} style={{ display: "contents" }}>
            {desk.id === "settings" ? <span className={css.spacer} /> : null}
            <a
              href={`#/${desk.id}`}
              aria-current={place.parts[0] === desk.id ? "page" : undefined}
              title={`${desk.name} (g ${desk.key})`}
            >
              <Icon />
              <span>{desk.name}</span>
              {count && count.n > 0 ? (
                <span className={css.count} data-tone={count.tone} title={count.title}>
                  {count.n > 999 ? "999+" : count.n}
                </span>
              ) : null}
            </a>
          </span>
        );
      })}
    </nav>
  );
}
