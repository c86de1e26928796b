import { MantineProvider, useMantineColorScheme } from "@mantine/core";
import { type QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { type ReactNode, useEffect } from "react";
import type { ConsoleClient } from "../../../shared/contract/client.ts";
import { noticeTitle } from "../../../shared/contract/rail.ts";
import { useZoneChoice } from "../lib/clock.ts";
import { ConsoleProvider, useCall } from "../lib/console.tsx";
import { chooseLanguage } from "../lib/language.ts";
import { startLive } from "../lib/live.ts";
import { cssVariablesResolver, theme } from "../ui/theme.ts";
import { ErrorBoundary } from "../ui/states.tsx";
import { showNotice } from "../ui/notices.tsx";
import { Shell } from "./shell.tsx";

export function App({
  client,
  queries,
}: {
  readonly client: ConsoleClient;
  readonly queries: QueryClient;
}): ReactNode {
  useEffect(
    () =>
      startLive(client, queries, ({ level, title, about, body }) =>
        showNotice(level, noticeTitle(title, about), body),
      ),
    [client, queries],
  );
  return (
    <MantineProvider theme={theme} cssVariablesResolver={cssVariablesResolver} defaultColorScheme="auto">
      <ErrorBoundary>
        <QueryClientProvider client={queries}>
          <ConsoleProvider client={client}>
            <Preferences />
            <Shell />
          </ConsoleProvider>
        </QueryClientProvider>
      </ErrorBoundary>
    </MantineProvider>
  );
}

/** Puts the operator's theme, language and time zone into effect, wherever they were changed. */
function Preferences(): ReactNode {
  const settings = useCall("settings.get", {}, { staleMs: 60_000 }).data;
  const { setColorScheme } = useMantineColorScheme();
  const wanted = settings?.theme;
  const zone = settings?.time_zone;
  useEffect(() => {
    if (wanted) setColorScheme(wanted === "system" ? "auto" : wanted);
  }, [wanted, setColorScheme]);
  const language = settings?.language;
  useEffect(() => {
    if (language) chooseLanguage(language);
  }, [language]);
  useEffect(() => {
    if (zone) useZoneChoice.getState().setChoice(zone);
  }, [zone]);
  return null;
}
