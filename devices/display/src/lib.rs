//! The display server: one screen for several viewers, by RFB (VNC).
//!
//! | module | knowledge |
//! |---|---|
//! | [`protocol`] | messages of RFB and the log-in: bytes in, decisions out. No I/O |
//! | `canvas` | the server's copy of the screen, what of it has changed, and what has moved |
//! | `segments` | sets of segments, 16 pixels of a row, and rectangles that cover them |
//! | `encode` | rectangles of the canvas as Raw, ZRLE and Tight |
//! | `keyboard`, `pointer` | input of a viewer as events of the guest's devices |
//! | `security`, `tls`, `throttle` | passwords, certificates, failed log-ins |
//! | `viewer` | one viewer: log-in, requests, updates, bytes that wait |
//! | `server`, `mailbox`, `event_loop` | the handle, and the thread that serves all viewers |
//!
//! [`DisplayServer`] is the server (docs/display.md).
#![forbid(unsafe_code)]

mod canvas;
mod counters;
mod encode;
mod event_loop;
mod keyboard;
mod mailbox;
mod options;
mod pointer;
pub mod protocol;
mod security;
mod segments;
mod server;
mod socket;
mod throttle;
mod tls;
mod viewer;

pub use counters::ServerReport;
pub use options::{DisplayOptions, MAX_VIEWERS};
pub use security::{LoginError, PasswordError, Passwords, Permission, Security};
pub use server::DisplayServer;
pub use socket::{Listener, ViewerSocket};
pub use tls::{TlsConfig, TlsError};
