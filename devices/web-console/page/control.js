// The control socket of the page: the machine's state, and the buttons' actions.

const RETRY_MS = 1500;

/**
 * Calls `handlers.status(description)` at each change, `handlers.lost()` when the console does not
 * answer, `handlers.refused()` when it does not know this browser any more, and `handlers.ended()`
 * when the machine has ended.
 */
export class Control {
  constructor(handlers) {
    this.handlers = handlers;
    this.next = 1;
    this.waiting = new Map();
    this.connect();
  }

  connect() {
    const socket = new WebSocket(new URL("control", location.href.replace(/^http/, "ws")));
    let ended = false;
    socket.addEventListener("open", () => { this.socket = socket; });
    socket.addEventListener("message", ({ data }) => {
      const message = JSON.parse(data);
      if (message.status) {
        this.handlers.status(message.status);
      } else if (message.ended !== undefined) {
        ended = true;
        this.handlers.ended();
      } else {
        const { resolve, reject } = this.waiting.get(message.id) ?? {};
        this.waiting.delete(message.id);
        if (message.ok) {
          resolve?.();
        } else {
          reject?.(new Error(message.error));
        }
      }
    });
    socket.addEventListener("close", async () => {
      this.socket = null;
      this.waiting.forEach(({ reject }) => reject(new Error("the connection was lost")));
      this.waiting.clear();
      if (ended) {
        return;
      }
      this.handlers.lost();
      const answer = await fetch("icon.svg").catch(() => null);
      if (answer?.status === 403) {
        this.handlers.refused();
      } else {
        setTimeout(() => this.connect(), RETRY_MS);
      }
    });
  }

  /** Sends an action. The promise fails with the machine's message if it refuses. */
  perform(action) {
    if (this.socket?.readyState !== WebSocket.OPEN) {
      return Promise.reject(new Error("the console does not answer"));
    }
    const id = this.next++;
    this.socket.send(JSON.stringify({ id, ...action }));
    return new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
  }
}
