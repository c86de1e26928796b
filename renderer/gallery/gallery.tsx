/**
 * Every part of renderer/src/ui in every state, on one page, light or dark (`?theme=dark`). For development: it is served
 * by `npm run dev` at /gallery.html, photographed by tests/e2e/gallery.spec.ts, and in no build.
 */
import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "../src/ui/base.css";
import { Button, MantineProvider } from "@mantine/core";
import { Notifications } from "@mantine/notifications";
import { QueryClientProvider } from "@tanstack/react-query";
import { type ReactNode, useEffect } from "react";
import { createRoot } from "react-dom/client";
import { ConsoleProvider, createQueryClient } from "../src/lib/console.tsx";
import { showDone, showFailure, showNotice } from "../src/ui/notices.tsx";
import { cssVariablesResolver, theme } from "../src/ui/theme.ts";
import { consoleOfSamples, failure } from "./samples.ts";
import type { Sample } from "./samples.ts";
import { sections } from "./sections.tsx";

const scheme = new URLSearchParams(location.search).get("theme") === "dark" ? "dark" : "light";

function Figure({ name, children, height }: Sample): ReactNode {
  return (
    <figure
      data-part={name}
      style={{ margin: 0, padding: 12, border: "1px solid var(--c-line)", borderRadius: 6, minWidth: 0 }}
    >
      <figcaption style={{ color: "var(--c-muted)", fontSize: 11, marginBottom: 8 }}>{name}</figcaption>
      <div
        style={{ position: "relative", height, display: height ? "flex" : "block", flexDirection: "column" }}
      >
        {children}
      </div>
    </figure>
  );
}

function Gallery(): ReactNode {
  // The body of the console does not scroll; this page does.
  useEffect(() => {
    document.documentElement.style.overflow = "auto";
    document.body.style.overflow = "auto";
    document.body.style.height = "auto";
    showDone("Blocked Una Example until someone unblocks", { run: () => undefined });
    showFailure("Not blocked", failure);
    showNotice("info", "A newer version is there", "Load the page again when it suits you.");
    showNotice(
      "warning",
      "The local store was created again",
      "It was damaged; nothing of the project is lost.",
    );
  }, []);
  return (
    <main style={{ padding: 16, display: "flex", flexDirection: "column", gap: 20 }}>
      <h1>Parts of the screens, {scheme}</h1>
      {sections.map(({ title, wide, samples }) => (
        <section key={title} aria-label={title}>
          <h2>{title}</h2>
          <div
            style={{
              display: "grid",
              gap: 10,
              gridTemplateColumns: `repeat(auto-fill, minmax(${wide ? 560 : 240}px, 1fr))`,
            }}
          >
            {samples.map((sample) => (
              <Figure key={sample.name} {...sample} />
            ))}
          </div>
        </section>
      ))}
      <Button onClick={() => location.reload()}>Again</Button>
    </main>
  );
}

const root = document.getElementById("root");
if (root)
  createRoot(root).render(
    <MantineProvider theme={theme} cssVariablesResolver={cssVariablesResolver} forceColorScheme={scheme}>
      <QueryClientProvider client={createQueryClient()}>
        <ConsoleProvider client={consoleOfSamples}>
          <Notifications containerWidth={320} position="bottom-left" autoClose={false} />
          <Gallery />
        </ConsoleProvider>
      </QueryClientProvider>
    </MantineProvider>,
  );
