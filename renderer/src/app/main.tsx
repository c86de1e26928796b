/** The language first: the texts of all other modules are looked up as they are loaded. */
import { startLanguage } from "../lib/language.ts";

await startLanguage();
await import("./start.tsx");
