//! The browser console: a small HTTP and WebSocket server, and the page with screen and serial
//! console.
//!
//! The server knows neither VMBus nor the protocol of the screen. It serves a fixed table of files,
//! carries bytes between WebSockets and the streams of a [`Machine`], and calls the machine for the
//! page's buttons. docs/console.md has the shape, the rules and the limits.
//!
//! | module | knowledge |
//! |---|---|
//! | [`http`] | the head of a request and the answer, without I/O |
//! | [`site`] | links, sessions, paths and origins: who gets what; without I/O |
//! | [`assets`] | the files of the page |
//! | `server`, `connection` | listening, threads, limits |
//! | `bridge` | bytes between a WebSocket and a stream |
//! | `control` | the page's buttons and the state of the machine |

pub mod assets;
pub mod bridge;
mod connection;
pub mod control;
pub mod http;
mod machine;
mod server;
pub mod site;

pub use assets::{Libraries, LibrariesError};
pub use machine::{Action, Description, Drive, Machine};
pub use server::{StartError, WebConsole, check_address};
