// Text that is typed in the guest: the screen's devices have no clipboard.

// The longest text in characters.
const MAX_LENGTH = 10000;
// The machine types a piece as a whole or not at all, and keeps about a thousand characters for a
// guest that is slow.
const PIECE_LENGTH = 200;
const RETRIES = 20;
const RETRY_MS = 200;

/** Returns why a text cannot be typed on a US keyboard; an empty text if it can. */
export function problemOf(text) {
  if (text.length > MAX_LENGTH) {
    return `At most ${MAX_LENGTH} characters can be typed; this text has ${text.length}.`;
  }
  const unknown = [...new Set(text.match(/[^\t\n -~]/gu) ?? [])];
  if (unknown.length === 0) {
    return "";
  }
  const line = text.slice(0, text.indexOf(unknown[0])).split("\n").length;
  const others = unknown.length === 1 ? "" : `, and for ${unknown.length - 1} other characters`;
  return `A US keyboard has no key for “${unknown[0]}” in line ${line}${others}.`;
}

/** Types a text with `perform`, piece by piece. Fails with the machine's message. */
export async function typeText(text, perform) {
  for (let at = 0; at < text.length; at += PIECE_LENGTH) {
    const piece = text.slice(at, at + PIECE_LENGTH);
    for (let tries = 1; ; tries += 1) {
      try {
        await perform({ do: "type-text", text: piece });
        break;
      } catch (error) {
        if (tries === RETRIES) {
          const typed = at === 0 ? "" : ` (the first ${at} characters were typed)`;
          throw new Error(error.message + typed);
        }
        await new Promise((done) => setTimeout(done, RETRY_MS));
      }
    }
  }
}

/**
 * Lets `button` open the dialog with the text. `perform` sends an action to the machine, and
 * `report` shows an error.
 */
export function setUpPaste(button, dialog, perform, report) {
  const [field, problem, send] = ["textarea", "[role=alert]", "[value=type]"].map(
    (selector) => dialog.querySelector(selector),
  );
  const text = () => field.value.replace(/\r\n?/g, "\n");
  const check = () => {
    problem.textContent = problemOf(text());
    send.disabled = problem.textContent !== "" || field.value === "";
  };
  button.addEventListener("click", () => {
    field.value = "";
    check();
    dialog.showModal();
  });
  field.addEventListener("input", check);
  // A dialog's "close" comes later, when it may be open again.
  dialog.querySelector("form").addEventListener("submit", async ({ submitter }) => {
    if (submitter !== send) {
      return;
    }
    try {
      await typeText(text(), perform);
    } catch (error) {
      report(error.message);
    }
  });
}
