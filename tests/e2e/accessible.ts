/** Whether a page can be used by everybody: what axe holds to be a serious or critical fault of it. */
import { AxeBuilder } from "@axe-core/playwright";
import type { Page } from "@playwright/test";

/** WCAG 2.0 to 2.2, A and AA, and axe's own best practices (landmarks, headings, names). */
const standards = [
  "wcag2a",
  "wcag2aa",
  "wcag21a",
  "wcag21aa",
  "wcag22a",
  "wcag22aa",
  "best-practice",
] as const;

/**
 * One line for each part of the page that breaks a rule: the rule, what breaks it, and why. Contrast is left to
 * `faintTexts` (readable.ts), which asks for 4.5:1 of large texts too, at a tenth of the time.
 */
export async function seriousFaults(page: Page): Promise<string[]> {
  const { violations } = await new AxeBuilder({ page })
    // Only what breaks a rule is described: to name each part that keeps one takes as long as all the rest.
    .options({ resultTypes: ["violations"] })
    .withTags([...standards])
    .disableRules("color-contrast")
    // One document, no frames: no second page has to be opened to add up what each said.
    .setLegacyMode(true)
    .analyze();
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .flatMap(({ id, impact, nodes }) =>
      nodes
        .slice(0, 5)
        .map(
          ({ html, failureSummary }) =>
            `${id} (${impact}): ${html.slice(0, 160)} ${(failureSummary ?? "").split("\n").slice(1).join(";").slice(0, 200)}`,
        ),
    );
}
