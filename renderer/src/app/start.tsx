import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "@mantine/spotlight/styles.css";
import "../ui/base.css";
import { createRoot } from "react-dom/client";
import { connectConsole } from "../../../shared/contract/connect.ts";
import { createQueryClient } from "../lib/console.tsx";
import { startRouter } from "../lib/router.ts";
import { speaking } from "../lib/speaking.ts";
import { App } from "./app.tsx";

// The client first: it takes the one-time token out of the address before the router reads it.
const client = speaking(connectConsole());
startRouter();
const root = document.getElementById("root");
if (root) createRoot(root).render(<App client={client} queries={createQueryClient()} />);
