/** The sentence of an alert, in the person's language. */
import * as core from "../../../shared/governance/alerts/words.ts";
import { formatPeriod } from "./format.ts";
import { translated } from "./language.ts";
import { codeWords } from "./text.ts";

const wording: core.Wording = {
  code: codeWords,
  text: translated,
  period: (key) => formatPeriod(key) ?? key,
};
export const alertTitle = (alert: Parameters<typeof core.alertTitle>[0]): string =>
  core.alertTitle(alert, wording);
export const alertSentence = (alert: core.RaisedAlert, currency: string): string =>
  core.alertSentence(alert, currency, wording);
