// The serial console: xterm.js, and the WebSocket with the port's bytes.

// The guest does not know the size of a serial terminal, and assumes this many columns.
const COLUMNS = 80;
const FONT = "ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace";
// The scroll bar and the padding.
const MARGIN = 32;
const FONT_SIZES = { min: 6, max: 14 };
const RETRY_MS = 2000;

const THEMES = {
  light: {
    background: "#ffffff", foreground: "#1b2128", cursor: "#0f766e", cursorAccent: "#ffffff",
    selectionBackground: "#b9dcd8", black: "#1b2128", red: "#b42318", green: "#15803d",
    yellow: "#946200", blue: "#1d4ed8", magenta: "#a21caf", cyan: "#0e7490", white: "#6b7280",
    brightBlack: "#4b5563", brightRed: "#dc2626", brightGreen: "#16a34a", brightYellow: "#a16207",
    brightBlue: "#2563eb", brightMagenta: "#c026d3", brightCyan: "#0891b2", brightWhite: "#111827",
  },
  dark: {
    background: "#181c22", foreground: "#dfe4ea", cursor: "#2dd4bf", cursorAccent: "#181c22",
    selectionBackground: "#2f5a58",
  },
};

/**
 * Makes the style elements and attributes of xterm.js allowed by the page's security policy, which
 * forbids styles that an attacker could have written into the page.
 */
export function allowStyles() {
  const nonce = document.querySelector("meta[name=style-nonce]").content;
  const create = document.createElement.bind(document);
  document.createElement = (name, options) => {
    const element = create(name, options);
    if (element instanceof HTMLStyleElement) {
      element.nonce = nonce;
    }
    return element;
  };
  const set = Element.prototype.setAttribute;
  Element.prototype.setAttribute = function (name, value) {
    if (name === "style" && this instanceof HTMLElement) {
      this.style.cssText = value;
    } else {
      set.call(this, name, value);
    }
  };
}

/** The serial console in `element`. `report` is called with a word about the connection. */
export class Serial {
  constructor(element, report) {
    this.element = element;
    this.report = report;
    this.ended = false;
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const theme = () => (scheme.matches ? THEMES.dark : THEMES.light);
    const context = document.createElement("canvas").getContext("2d");
    context.font = `100px ${FONT}`;
    this.widthOfCharacter = context.measureText("W").width / 100;
    this.terminal = new window.Terminal({
      fontFamily: FONT,
      fontSize: FONT_SIZES.max,
      scrollback: 5000,
      cursorBlink: false,
      screenReaderMode: false,
      theme: theme(),
    });
    scheme.addEventListener("change", () => { this.terminal.options.theme = theme(); });
    this.fit = new window.FitAddon.FitAddon();
    this.terminal.loadAddon(this.fit);
    this.terminal.open(element);
    this.terminal.textarea.setAttribute("aria-label", "Serial console, input");
    new ResizeObserver(() => this.resize()).observe(element);
    this.terminal.onData((text) => this.type(text));
    this.terminal.onBinary((text) => this.send(Uint8Array.from(text, (c) => c.charCodeAt(0))));
    this.connect();
  }

  /** Chooses the font so that a line of the guest fits, and as many rows as there is space for. */
  resize() {
    const { clientWidth: width, clientHeight: height } = this.element;
    if (!width || !height) {
      return;
    }
    const { min, max } = FONT_SIZES;
    const fitting = (width - MARGIN) / COLUMNS / this.widthOfCharacter;
    this.terminal.options.fontSize = Math.min(max, Math.max(min, Math.floor(fitting * 4) / 4));
    // A terminal that was hidden measures its font when it has been seen for a frame.
    requestAnimationFrame(() => requestAnimationFrame(() => this.fit.fit()));
  }

  connect() {
    const socket = new WebSocket(new URL("serial", location.href.replace(/^http/, "ws")));
    socket.binaryType = "arraybuffer";
    socket.addEventListener("open", () => {
      this.socket = socket;
      // The port sends its latest output again.
      this.terminal.reset();
      this.report("");
      document.body.dataset.serialState = "connected";
    });
    socket.addEventListener("message", ({ data }) => this.terminal.write(new Uint8Array(data)));
    socket.addEventListener("close", () => {
      this.socket = null;
      document.body.dataset.serialState = "closed";
      if (!this.ended) {
        this.report("connecting");
        setTimeout(() => this.connect(), RETRY_MS);
      }
    });
  }

  /** Sends a text to the guest. */
  type(text) {
    this.send(new TextEncoder().encode(text));
  }

  send(bytes) {
    if (this.socket?.readyState === WebSocket.OPEN) {
      this.socket.send(bytes);
    }
  }

  focus() {
    this.terminal.focus();
  }

  /** The machine has ended: there is nothing to connect to any more. */
  end() {
    this.ended = true;
    this.report("ended");
  }
}
