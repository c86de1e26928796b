/** The places of a text on the page, in reading order. */
const mostFound = 1_000;

export function findRanges(root: Element, text: string): Range[] {
  const wanted = text.toLowerCase();
  if (wanted.trim() === "") return [];
  const found: Range[] = [];
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node && found.length < mostFound; node = walker.nextNode()) {
    const words = (node.nodeValue ?? "").toLowerCase();
    let at = words.indexOf(wanted);
    if (at < 0 || !isShown(node.parentElement)) continue;
    // A letter whose small form is longer would move what follows it.
    while (at >= 0 && at + wanted.length <= (node.nodeValue ?? "").length && found.length < mostFound) {
      const range = document.createRange();
      range.setStart(node, at);
      range.setEnd(node, at + wanted.length);
      found.push(range);
      at = words.indexOf(wanted, at + wanted.length);
    }
  }
  return found;
}

function isShown(element: Element | null): boolean {
  if (!element || element.closest("[data-find-bar], script, style")) return false;
  // Not everywhere: where it is not known, what is in the page is shown.
  return typeof element.checkVisibility !== "function" || element.checkVisibility();
}
