/** The build step for Vite: texts of the screens, and of the core where it speaks to people, are looked up. */
import { join, relative } from "node:path";
import type { Plugin } from "vite";
import { findTexts, importLanguage } from "./find-texts.ts";
import { hasTexts, repositoryDir, specialPlaces } from "./files.ts";

export function languagePlugin(): Plugin {
  const runtime = join(repositoryDir, "renderer/src/lib/language.ts");
  let special = specialPlaces();
  return {
    name: "language",
    enforce: "pre",
    buildStart() {
      special = specialPlaces();
    },
    transform: {
      filter: { id: /\.tsx?$/ },
      handler(source, id) {
        const file = relative(repositoryDir, id.split("?")[0] ?? id).replaceAll("\\", "/");
        if (!hasTexts(file)) return null;
        const { code } = findTexts(
          source,
          file,
          (text) => special.get(text)?.find((place) => file.includes(place)) ?? null,
        );
        if (!code) return null;
        importLanguage(code, code.toString(), runtime);
        return { code: code.toString(), map: code.generateMap({ hires: "boundary", source: id }) };
      },
    },
  };
}
