import type { UsageStream } from "./stream.ts";

/**
 * Feeds server-sent events as they come over the wire to a reader: for backends that pass a provider's stream through
 * without its SDK. Answers a function that takes text pieces of any length; lines may be split anywhere.
 */
export function readServerSentEvents(stream: UsageStream): (text: string) => void {
  let rest = "";
  /** Data of the event so far that is no JSON yet: it may go on in its next line. */
  let begun = "";
  function push(json: string): boolean {
    try {
      stream.push(JSON.parse(json));
      return true;
    } catch {
      // What is no JSON carries no usage; if it should have, the result reports that usage is missing.
      return false;
    }
  }
  function read(line: string): void {
    if (line === "") begun = "";
    if (!line.startsWith("data:")) return;
    const data = line.slice(5).trimStart();
    if (data === "[DONE]" || data === "") return;
    if (push(data) || (begun !== "" && push(`${begun}\n${data}`))) begun = "";
    else if (begun.length + data.length < 50_000) begun += begun === "" ? data : `\n${data}`;
  }
  let isBegun = false;
  let endsInReturn = false;
  return (text) => {
    if (text === "") return;
    // What is left holds no line end: look in the new piece alone, else a long line costs its square.
    const looked = rest.length;
    // A byte order mark before all, and the second half of a line end.
    const isPassedOver = (!isBegun && text.startsWith("\uFEFF")) || (endsInReturn && text.startsWith("\n"));
    isBegun = true;
    endsInReturn = text.endsWith("\r");
    rest += isPassedOver ? text.slice(1) : text;
    let start = 0;
    const lineEnd = /\r\n?|\n/g;
    lineEnd.lastIndex = looked;
    for (let end = lineEnd.exec(rest); end; end = lineEnd.exec(rest)) {
      read(rest.slice(start, end.index));
      start = lineEnd.lastIndex;
    }
    rest = rest.slice(start);
    // The last line may come without an end.
    if (rest.endsWith("}") && rest.length < 4_000 && rest.startsWith("data:") && push(rest.slice(5)))
      rest = "";
    // An endless line is no event stream: do not keep it.
    if (rest.length > 16_000_000) rest = "";
  };
}
