// The page: buttons, views, menus.

import { Control } from "./control.js";
import { setUpKeyBar, watchLeaveKey } from "./keys.js";
import { setUpPaste } from "./paste.js";
import { Screen } from "./screen.js";
import { Serial, allowStyles } from "./serial.js";

const $ = (id) => document.getElementById(id);
const body = document.body;
const isNarrow = matchMedia("(max-width: 800px)");
const TOAST_MS = 6000;

let screen = null;
allowStyles();
const serial = new Serial($("serial"), (text) => { $("serial-state").textContent = text; });

const control = new Control({
  status: show,
  lost: () => setState("lost", "no connection"),
  refused: () => end("This browser is logged out. Ask for a new link."),
  ended: () => end("The machine has ended."),
});

/** Shows the state of the machine. */
function show(status) {
  document.title = `${status.name} – SynthVM`;
  $("name").textContent = status.name;
  setState(status.state, status.state);
  body.dataset.screen = status.screen ? "yes" : "none";
  if (!status.screen) {
    body.dataset.view = "serial";
  } else if (!screen) {
    screen = new Screen($("screen"), $("screen-notice"));
  }
  screen?.setPaused(status.state === "paused");
  const paused = status.state === "paused";
  for (const item of document.querySelectorAll("[data-action]")) {
    const { action } = item.dataset;
    const fits = action === "pause" ? !paused : action === "resume" ? paused : true;
    item.hidden = !status.actions.includes(action) || !fits;
  }
  showDrives(status.drives);
}

function setState(state, text) {
  $("state").dataset.state = state;
  $("state").querySelector("span").textContent = text;
}

function end(text) {
  setState("ended", "ended");
  screen?.end(text);
  serial.end();
  for (const button of $("tools").querySelectorAll("button")) {
    button.disabled = true;
  }
  toast(text);
}

async function perform(action, done) {
  try {
    await control.perform(action);
    if (done) {
      toast(done);
    }
  } catch (error) {
    toast(error.message, "error");
  }
}

function toast(text, kind = "") {
  const line = document.createElement("p");
  line.textContent = text;
  line.className = kind;
  $("toasts").append(line);
  setTimeout(() => line.remove(), TOAST_MS);
}

/** Asks the user, and returns whether to go on. */
function confirmed(question) {
  const dialog = $("confirm");
  $("question").textContent = question;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

for (const item of document.querySelectorAll("[data-action]")) {
  item.addEventListener("click", async () => {
    $("power-menu").hidePopover();
    const { action, confirm: question } = item.dataset;
    if (!question || await confirmed(question)) {
      await perform({ do: action });
    }
  });
}

// A menu opens with its first entry focused; the arrow keys move, as in other menus.
$("power-menu").addEventListener("toggle", ({ newState }) => {
  if (newState === "open") {
    menuItems()[0]?.focus();
  }
});
$("power-menu").addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) {
    const items = menuItems();
    const at = items.indexOf(document.activeElement);
    items[(at + step + items.length) % items.length].focus();
    event.preventDefault();
  }
});

function menuItems() {
  return [...$("power-menu").children].filter((item) => !item.hidden);
}

$("screen-notice").querySelector("button").addEventListener("click", () => perform({ do: "resume" }));
$("ctrl-alt-del").addEventListener("click", () => {
  screen?.rfb?.sendCtrlAltDel();
  screen?.rfb?.focus();
});

let shownDrives = "";

function showDrives(drives) {
  $("discs").hidden = drives.length === 0;
  const now = JSON.stringify(drives);
  if (now === shownDrives) {
    return;
  }
  shownDrives = now;
  $("disc-menu").replaceChildren(...drives.map(({ id, disc }) => {
    const form = $("drive").content.cloneNode(true).firstElementChild;
    form.querySelector("h2").textContent = `Drive ${id}`;
    form.querySelector("p").textContent = disc ?? "empty";
    form.elements.eject.disabled = disc === null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const path = form.elements.path.value;
      perform({ do: "insert-disc", drive: id, path }, "The disc is in the drive.");
    });
    form.elements.eject.addEventListener("click", () => {
      perform({ do: "eject-disc", drive: id }, "The drive is empty.");
    });
    return form;
  }));
}

function press(button, pressed) {
  button.setAttribute("aria-pressed", String(pressed));
}

$("serial-toggle").addEventListener("click", () => {
  const off = body.dataset.serial !== "off";
  body.dataset.serial = off ? "off" : "on";
  press($("serial-toggle"), !off);
});

function view(name) {
  body.dataset.view = name;
  press($("show-screen"), name === "screen");
  press($("show-serial"), name === "serial");
}
$("show-screen").addEventListener("click", () => view("screen"));
$("show-serial").addEventListener("click", () => { view("serial"); serial.focus(); });

function showKeyBar(shown) {
  $("key-bar").hidden = !shown;
  press($("keys"), shown);
}
$("keys").addEventListener("click", () => showKeyBar($("key-bar").hidden));
showKeyBar(isNarrow.matches && matchMedia("(pointer: coarse)").matches);
setUpKeyBar(
  $("key-bar"),
  $("typing"),
  () => screen?.rfb,
  () => (isNarrow.matches && body.dataset.view === "serial" ? serial : null),
);

setUpPaste(
  $("paste"),
  $("paste-dialog"),
  (action) => control.perform(action),
  (text) => toast(text, "error"),
);

$("full-screen").addEventListener("click", async () => {
  try {
    await $("screen-panel").requestFullscreen();
    // Where the browser can, Alt-Tab, Escape and others go to the guest too.
    await navigator.keyboard?.lock?.();
  } catch (error) {
    toast(error.message, "error");
  }
  screen?.rfb?.focus();
});

watchLeaveKey(async () => {
  if (document.fullscreenElement) {
    await document.exitFullscreen();
  }
  $("power").focus();
});
