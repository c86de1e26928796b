/** In a production project, what would be done at the press of a button is asked for once more. */
import { Button, Modal } from "@mantine/core";
import { type ReactNode, useEffect } from "react";
import { create } from "zustand";
import { openProject, useLive, useOpenProject } from "../lib/live.ts";
import { cleanText, clip } from "../lib/text.ts";
import { WarningIcon } from "./icons.tsx";
import css from "./ask.module.css";

/** Changes within this time after a yes are one act, and not asked about again: a new order of rules is many changes. */
const SAME_MOVEMENT_MS = 3_000;

interface Question {
  readonly project: string;
  readonly what: string;
  readonly answer: (isYes: boolean) => void;
}
const useQuestion = create<{ readonly question: Question | null }>(() => ({ question: null }));
let yes = { project: "", atMs: Number.NEGATIVE_INFINITY };
let asked: Promise<boolean> | null = null;

const productionName = (): string | null => {
  const profile = useLive.getState().connection?.profile;
  return profile?.is_production ? clip(cleanText(profile.name), 60) : null;
};

/** Whether to go on: at once outside production, else as the person answers. */
export async function askInProduction(what: string): Promise<boolean> {
  const project = openProject();
  if (productionName() === null) return true;
  if (yes.project === project && Date.now() - yes.atMs < SAME_MOVEMENT_MS) return true;
  asked ??= new Promise<boolean>((resolve) => {
    useQuestion.setState({
      question: {
        project,
        what,
        answer: (isYes) => {
          useQuestion.setState({ question: null });
          asked = null;
          resolve(isYes);
        },
      },
    });
  });
  const isYes = await asked;
  if (isYes) yes = { project, atMs: Date.now() };
  return isYes;
}

/** The question, wherever on the screen it came up. */
export function ProductionAsk(): ReactNode {
  const question = useQuestion((state) => state.question);
  const project = useOpenProject();
  // What was asked of one project is not answered for another.
  const isOver = question !== null && question.project !== project;
  useEffect(() => {
    if (isOver) question.answer(false);
  }, [isOver, question]);
  const name = productionName() ?? "";
  if (question === null || isOver) return null;
  return (
    <Modal opened onClose={() => question.answer(false)} title={`Change ${name}?`} size={420} centered>
      <div className={css.ask}>
        <p>
          <b>{question.what}</b>
        </p>
        <p>
          <WarningIcon size={14} style={{ verticalAlign: "-2px" }} /> This is <b>production</b>: it holds for
          the next call.
        </p>
        <div className={css.buttons}>
          <Button onClick={() => question.answer(false)}>Cancel</Button>
          <Button data-autofocus variant="filled" color="danger" onClick={() => question.answer(true)}>
            Change production
          </Button>
        </div>
      </div>
    </Modal>
  );
}

/** In a form, which asks by itself: where what it does will hold. */
export function ProductionLine(): ReactNode {
  const profile = useLive((state) => state.connection?.profile);
  if (!profile?.is_production) return null;
  return (
    <p className={css.production}>
      <WarningIcon size={14} style={{ verticalAlign: "-2px" }} /> In production:{" "}
      <b>{clip(cleanText(profile.name), 60)}</b>
    </p>
  );
}
