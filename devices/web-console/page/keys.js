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

/** Connects the bar of keys to the screen that `screen()` returns, if it is connected. */
export function setUpKeyBar(bar, form, screen) {
  const modifiers = [...bar.querySelectorAll("[data-modifier]")];
  const isHeld = (button) => button.getAttribute("aria-pressed") === "true";
  const hold = (button, held) => {
    const [keysym, code] = MODIFIERS[button.dataset.modifier];
    button.setAttribute("aria-pressed", String(held));
    screen()?.sendKey(keysym, code, held);
  };
  // A modifier is for one key, as on a phone's own keyboard.
  const release = () => modifiers.filter(isHeld).forEach((button) => hold(button, false));

  for (const button of modifiers) {
    button.addEventListener("click", () => hold(button, !isHeld(button)));
  }
  for (const button of bar.querySelectorAll("[data-key]")) {
    button.addEventListener("click", () => {
      screen()?.sendKey(KEYS[button.dataset.key], button.dataset.key);
      release();
    });
  }
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const input = form.querySelector("input");
    for (const character of input.value) {
      screen()?.sendKey(keysyms.lookup(character.codePointAt(0)), null);
    }
    // With a modifier the text is a shortcut, not a line.
    if (!modifiers.some(isHeld)) {
      screen()?.sendKey(KEYS.Enter, "Enter");
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
