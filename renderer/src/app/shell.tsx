import { Button } from "@mantine/core";
import { useElementSize } from "@mantine/hooks";
import { Notifications } from "@mantine/notifications";
import { useQueryClient } from "@tanstack/react-query";
import { lazy, type ReactNode, Suspense, useEffect, useLayoutEffect, useState } from "react";
import { waitingOf } from "../../../shared/contract/rail.ts";
import { useConsole } from "../lib/console.tsx";
import { useKeys } from "../lib/keys.ts";
import { useLive, useOpenProject } from "../lib/live.ts";
import { navigate, usePlace } from "../lib/router.ts";
import { cleanText, clip } from "../lib/text.ts";
import { WarningIcon } from "../ui/icons.tsx";
import { ProductionAsk } from "../ui/production-ask.tsx";
import { showFailure } from "../ui/notices.tsx";
import { Time } from "../ui/parts.tsx";
import { EmptyView, ErrorBoundary, ErrorView, Skeleton } from "../ui/states.tsx";
import { NOTICES_HEIGHT } from "../ui/theme.ts";
import { useDroppedFiles } from "./dropped-files.ts";
import { FindBar } from "./find-bar.tsx";
import { CommandPalette, openPalette } from "./command-palette.tsx";
import { Help } from "./help.tsx";
import { desks, Rail } from "./rail.tsx";
import css from "./shell.module.css";
import { TopBar } from "./top-bar.tsx";

const WatchDesk = lazy(async () => ({
  default: (await import("../features/watch/watch-desk.tsx")).WatchDesk,
}));
const AlertsDesk = lazy(async () => ({
  default: (await import("../features/alerts/alerts-desk.tsx")).AlertsDesk,
}));
const UsersDesk = lazy(async () => ({
  default: (await import("../features/users/users-desk.tsx")).UsersDesk,
}));
const RulesDesk = lazy(async () => ({
  default: (await import("../features/rules/rules-desk.tsx")).RulesDesk,
}));
const PlansDesk = lazy(async () => ({
  default: (await import("../features/plans/plans-desk.tsx")).PlansDesk,
}));
const FinanceDesk = lazy(async () => ({
  default: (await import("../features/finance/finance-desk.tsx")).FinanceDesk,
}));
const CostsDesk = lazy(async () => ({
  default: (await import("../features/costs/costs-desk.tsx")).CostsDesk,
}));
const HealthDesk = lazy(async () => ({
  default: (await import("../features/health/health-desk.tsx")).HealthDesk,
}));
const AuditDesk = lazy(async () => ({
  default: (await import("../features/audit/audit-desk.tsx")).AuditDesk,
}));
const SettingsDesk = lazy(async () => ({
  default: (await import("../features/settings/settings-desk.tsx")).SettingsDesk,
}));

function Notices(): ReactNode {
  const { ref, height } = useElementSize<HTMLElement>();
  useLayoutEffect(() => document.documentElement.style.setProperty(NOTICES_HEIGHT, `${height}px`), [height]);
  return (
    <aside ref={ref} className={css.notices} aria-label="Notices">
      <Notifications withinPortal={false} position="bottom-left" limit={3} transitionDuration={100} />
    </aside>
  );
}

export function Shell(): ReactNode {
  const [helpOpen, setHelpOpen] = useState(false);
  const client = useConsole();
  const queries = useQueryClient();
  const project = useOpenProject();
  const setTheme = async (theme: "light" | "dark" | "system"): Promise<void> => {
    const result = await client.call("settings.set", { theme });
    if (result.ok) queries.setQueryData(["settings.get", {}], result.value);
    else showFailure("Theme not changed", result.error);
  };
  useDroppedFiles(client);
  useWindowTitle();
  useKeys({
    ...Object.fromEntries(desks.map((desk) => [`g ${desk.key}`, () => navigate(`/${desk.id}`)])),
    "/": () => focusSearch() || openPalette(),
    "?": () => setHelpOpen(true),
  });
  return (
    <div className={css.shell}>
      <TopBar onHelp={() => setHelpOpen(true)} />
      <Rail />
      <main className={css.desk}>
        <FindBar />
        <Banner />
        <CurrentDesk />
      </main>
      <Notices />
      <Help opened={helpOpen} onClose={() => setHelpOpen(false)} />
      <ProductionAsk />
      <CommandPalette
        key={project}
        actions={[
          { id: "dark", label: "Dark theme", words: "appearance colours", run: () => void setTheme("dark") },
          {
            id: "light",
            label: "Light theme",
            words: "appearance colours",
            run: () => void setTheme("light"),
          },
          {
            id: "system",
            label: "Theme of the system",
            words: "appearance",
            run: () => void setTheme("system"),
          },
          {
            id: "alerts",
            label: "Show open alerts",
            words: "warnings budget acknowledge delivery",
            run: () => navigate("/alerts"),
          },
          {
            id: "flagged",
            label: "Show flagged users",
            words: "abuse review",
            run: () => navigate("/users?filter=flagged"),
          },
          {
            id: "blocked",
            label: "Show blocked users",
            words: "stopped",
            run: () => navigate("/users?filter=blocked"),
          },
          {
            id: "debt",
            label: "Show users in debt",
            words: "owe",
            run: () => navigate("/users?filter=in_debt"),
          },
          {
            id: "mine",
            label: "My last acts, each with its undo",
            words: "undo take back audit mine",
            run: () => navigate("/audit/mine"),
          },
          {
            id: "many",
            label: "Acts on many users",
            words: "bulk undo stop progress audit",
            run: () => navigate("/audit/many"),
          },
          {
            id: "costs",
            label: "See what it costs",
            words: "cost revenue margin forecast budget model user",
            run: () => navigate("/costs"),
          },
          {
            id: "health",
            label: "See whether all is well",
            words: "health doctor upkeep verify ledger checks",
            run: () => navigate("/health"),
          },
          {
            id: "stripe",
            label: "Reconcile a Stripe export",
            words: "payments csv match upload",
            run: () => navigate("/finance/new"),
          },
          {
            id: "connect",
            label: "Connect a project",
            words: "supabase add key",
            run: () => navigate("/settings/connections"),
          },
          { id: "help", label: "Keyboard shortcuts", words: "keys help", run: () => setHelpOpen(true) },
        ]}
      />
    </div>
  );
}

/** The title of a window or tab: its project, and how much waits in it. */
function useWindowTitle(): void {
  const name = useLive((state) => state.connection?.profile?.name ?? null);
  const waiting = useLive(({ rail }) => (rail ? waitingOf(rail) : 0));
  useEffect(() => {
    const count = waiting > 0 ? `(${waiting.toLocaleString("en")}) ` : "";
    const own = name === null ? [] : [count + clip(cleanText(name), 60)];
    document.title = [...own, "Token Governance"].join(" - ");
  }, [name, waiting]);
}

/** Puts the cursor into the desk's own search box, where it has one. */
function focusSearch(): boolean {
  const box = document.querySelector<HTMLInputElement>("[data-desk-search]");
  box?.focus();
  box?.select();
  return box !== null;
}

function Banner(): ReactNode {
  const transport = useLive((state) => state.transport);
  const connection = useLive((state) => state.connection);
  if (transport === "lost")
    return (
      <div className={css.banner} role="alert">
        <WarningIcon />
        <span>
          The console on this machine does not answer. What you see is as it was; it goes on by itself when
          the console is back.
        </span>
      </div>
    );
  if (!connection || transport !== "open" || !connection.project) return null;
  if (connection.status === "offline")
    return (
      <div className={css.banner} data-tone="amber" role="status">
        <WarningIcon />
        <span>
          Offline. You see what was read <Time at={connection.last_sync_at} />. Blocks, flags and rule
          switches are kept and sent when the project answers.
        </span>
      </div>
    );
  if (connection.status === "refused")
    return (
      <div className={css.banner} role="alert">
        <WarningIcon />
        <span>
          {connection.failure?.message ?? "The project refuses this connection."} {connection.failure?.advice}
        </span>
        <Button component="a" href="#/settings/connections">
          Connections
        </Button>
      </div>
    );
  return null;
}

function CurrentDesk(): ReactNode {
  const place = usePlace();
  const client = useConsole();
  const transport = useLive((state) => state.transport);
  const connection = useLive((state) => state.connection);
  const desk = place.parts[0];

  if (transport === "unauthorized")
    return (
      <ErrorView
        failure={{
          code: "unauthorized",
          message: "This page's session has ended, or its link was used before.",
          advice: "Start the console again and open the link it prints.",
          details: null,
        }}
      />
    );
  if (!connection) {
    if (transport === "lost")
      return (
        <EmptyView title="The console does not answer">
          See that it is still running on this machine. This page goes on by itself when it is back.
        </EmptyView>
      );
    return <Skeleton lines={8} />;
  }
  if (desk !== "settings") {
    if (!connection.profile)
      return (
        <EmptyView
          title="No project is open"
          actions={
            <Button variant="filled" component="a" href="#/settings/connections">
              Open the local project or connect one
            </Button>
          }
        >
          The local project on this machine comes with sample data to look around; or connect your Supabase
          project with its URL and service-role key.
        </EmptyView>
      );
    if (!connection.project && (connection.status === "starting" || connection.status === "connecting"))
      return (
        <EmptyView
          title={connection.profile.kind === "local" ? "Starting the local project…" : "Connecting…"}
          actions={
            <Button component="a" href="#/settings/connections">
              Connections
            </Button>
          }
        >
          {connection.profile.kind === "local"
            ? "The first start prepares the database and takes some seconds; the next ones are quick."
            : `Asking ${connection.profile.url} who we are and what it has.`}
        </EmptyView>
      );
    if (!connection.project && connection.status === "refused" && connection.failure)
      return (
        <ErrorView
          failure={connection.failure}
          onRetry={() => void client.call("connection.retry", {})}
          actions={
            <Button component="a" href="#/settings/connections">
              Connections
            </Button>
          }
        />
      );
  }
  // Another project: every screen starts again.
  const project = connection.profile?.profile_id ?? "none";
  return (
    <ErrorBoundary resetKey={`${project} ${place.parts.join("/")}`}>
      <Suspense fallback={<Skeleton lines={8} />}>
        {desk === "alerts" ? (
          <AlertsDesk key={project} />
        ) : desk === "users" ? (
          <UsersDesk key={project} />
        ) : desk === "rules" ? (
          <RulesDesk key={project} />
        ) : desk === "plans" ? (
          <PlansDesk key={project} />
        ) : desk === "finance" ? (
          <FinanceDesk key={project} />
        ) : desk === "costs" ? (
          <CostsDesk key={project} />
        ) : desk === "health" ? (
          <HealthDesk key={project} />
        ) : desk === "audit" ? (
          <AuditDesk key={project} />
        ) : desk === "settings" ? (
          <SettingsDesk />
        ) : desk === "watch" ? (
          <WatchDesk key={project} />
        ) : (
          <EmptyView
            title="There is nothing at this address"
            actions={
              <Button component="a" href="#/watch">
                Go to Watch
              </Button>
            }
          />
        )}
      </Suspense>
    </ErrorBoundary>
  );
}
