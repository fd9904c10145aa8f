// The keys that a user's keyboard lacks, typed text, and the way out of the screen.

import KeyTable from "./lib/novnc/core/input/keysym.js";
import keysyms from "./lib/novnc/core/input/keysymdef.js";

const KEYS = {
  Escape: KeyTable.XK_Escape,
  Tab: KeyTable.XK_Tab,
  Enter: KeyTable.XK_Return,
  Delete: KeyTable.XK_Delete,
  ArrowLeft: KeyTable.XK_Left,
  ArrowUp: KeyTable.XK_Up,
  ArrowDown: KeyTable.XK_Down,
  ArrowRight: KeyTable.XK_Right,
  F1: KeyTable.XK_F1,
  F2: KeyTable.XK_F2,
  F8: KeyTable.XK_F8,
  F12: KeyTable.XK_F12,
};

const MODIFIERS = {
  Control: [KeyTable.XK_Control_L, "ControlLeft"],
  Alt: [KeyTable.XK_Alt_L, "AltLeft"],
  Shift: [KeyTable.XK_Shift_L, "ShiftLeft"],
  Meta: [KeyTable.XK_Super_L, "MetaLeft"],
};

// The same keys on a serial terminal.
const SEQUENCES = {
  Escape: "\x1b",
  Tab: "\t",
  Enter: "\r",
  Delete: "\x1b[3~",
  ArrowLeft: "\x1b[D",
  ArrowUp: "\x1b[A",
  ArrowDown: "\x1b[B",
  ArrowRight: "\x1b[C",
  F1: "\x1bOP",
  F2: "\x1bOQ",
  F8: "\x1b[19~",
  F12: "\x1b[24~",
};

/** Returns what a serial terminal sends for a text while modifiers are held. */
export function serialText(text, modifiers) {
  const control = (letter) => String.fromCharCode(letter.toUpperCase().charCodeAt(0) & 0x1f);
  const typed = modifiers.includes("Control") ? text.replace(/[@-_a-z]/g, control) : text;
  return (modifiers.includes("Alt") ? "\x1b" : "") + typed;
}

/**
 * Connects the bar of keys to the screen that `screen()` returns, if it is connected, or to the
 * serial console, if `serial()` returns it.
 */
export function setUpKeyBar(bar, form, screen, serial) {
  const modifiers = [...bar.querySelectorAll("[data-modifier]")];
  const isHeld = (button) => button.getAttribute("aria-pressed") === "true";
  const held = () => modifiers.filter(isHeld).map((button) => button.dataset.modifier);
  const hold = (button, holds) => {
    const [keysym, code] = MODIFIERS[button.dataset.modifier];
    button.setAttribute("aria-pressed", String(holds));
    if (!serial()) {
      screen()?.sendKey(keysym, code, holds);
    }
  };
  const press = (name) => {
    if (serial()) {
      serial().type(SEQUENCES[name]);
    } else {
      screen()?.sendKey(KEYS[name], name);
    }
  };
  const type = (text) => {
    if (serial()) {
      serial().type(serialText(text, held()));
      return;
    }
    for (const character of text) {
      screen()?.sendKey(keysyms.lookup(character.codePointAt(0)), null);
    }
  };
  // A modifier is for one key, as on a phone's own keyboard.
  const release = () => modifiers.filter(isHeld).forEach((button) => hold(button, false));

  for (const button of modifiers) {
    button.addEventListener("click", () => hold(button, !isHeld(button)));
  }
  for (const button of bar.querySelectorAll("[data-key]")) {
    button.addEventListener("click", () => {
      press(button.dataset.key);
      release();
    });
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const input = form.querySelector("input");
    type(input.value);
    // With a modifier the text is a shortcut, not a line.
    if (held().length === 0) {
      press("Enter");
    }
    release();
    input.value = "";
  });
}

/**
 * Calls `leave` when the user presses Ctrl-Alt-Home and has released all three keys. The screen and
 * the serial console take every other key, Tab too.
 *
 * The guest sees Ctrl and Alt come and go, and never Home.
 */
export function watchLeaveKey(leave) {
  let leaving = false;
  window.addEventListener("keydown", (event) => {
    if (event.code === "Home" && event.ctrlKey && event.altKey) {
      leaving = true;
      event.preventDefault();
      event.stopImmediatePropagation();
    }
  }, { capture: true });
  window.addEventListener("keyup", (event) => {
    if (!leaving) {
      return;
    }
    if (event.code === "Home") {
      event.stopImmediatePropagation();
    }
    if (!event.ctrlKey && !event.altKey) {
      leaving = false;
      // After the handlers of the screen, which release the keys in the guest.
      setTimeout(leave);
    }
  }, { capture: true });
}
