// The screen: noVNC, and the notice in front of it while there is no picture.

import RFB from "./lib/novnc/core/rfb.js";

const RETRY_MS = 1500;

/** The screen in `element`; `notice` covers it while it is not connected. */
export class Screen {
  constructor(element, notice) {
    this.element = element;
    this.notice = notice;
    this.ended = false;
    this.paused = false;
    this.connected = false;
    this.connect();
  }

  connect() {
    this.show("Connecting to the screen", { busy: true });
    const rfb = new RFB(this.element, new URL("screen", location.href.replace(/^http/, "ws")).href);
    rfb.scaleViewport = true;
    rfb.showDotCursor = true;
    rfb.background = "transparent";
    rfb.addEventListener("connect", () => {
      this.rfb = rfb;
      this.connected = true;
      document.body.dataset.screenState = "connected";
      this.update();
      if (document.activeElement === document.body && document.body.dataset.view === "screen") {
        rfb.focus();
      }
    });
    rfb.addEventListener("disconnect", () => {
      this.rfb = null;
      this.connected = false;
      document.body.dataset.screenState = "closed";
      if (this.ended) {
        return;
      }
      this.show("The screen is not available; trying again", { busy: true });
      setTimeout(() => !this.ended && this.connect(), RETRY_MS);
    });
  }

  setPaused(paused) {
    this.paused = paused;
    this.update();
  }

  /** The machine has ended: there is nothing to connect to any more. */
  end(text) {
    this.ended = true;
    this.show(text, {});
  }

  update() {
    if (this.ended || !this.connected) {
      return;
    }
    if (this.paused) {
      this.show("The machine is paused", { button: true });
    } else {
      this.notice.hidden = true;
    }
  }

  show(text, { busy, button }) {
    this.notice.hidden = false;
    this.notice.toggleAttribute("data-busy", Boolean(busy));
    this.notice.querySelector("p").textContent = text;
    this.notice.querySelector("button").hidden = !button;
  }
}
