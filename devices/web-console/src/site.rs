//! Links, sessions, paths and origins: who gets what. No I/O.
//!
//! A link has a one-time token. The browser that opens it first gets a session: an unguessable
//! path, and a cookie for that path only. Browsers send cookies to all ports of a host name, so a
//! cookie for `/` would reach every other server on the user's machine.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use subtle::ConstantTimeEq;

use crate::assets::{Assets, NONCE};
use crate::http::{COOKIE, Request, Response};

/// The most links that can be open, and the most sessions. One more replaces the oldest.
pub const MAX_LINKS: usize = 16;

/// Random bytes of tokens, session paths and cookies.
const SECRET_BYTES: usize = 32;

/// The site of one console.
#[derive(Debug)]
pub struct Site {
    assets: Assets,
    access: Mutex<Access>,
}

#[derive(Debug, Default)]
struct Access {
    /// Tokens of links that have not been opened.
    tokens: VecDeque<Secret>,
    sessions: VecDeque<Session>,
}

#[derive(Debug)]
struct Session {
    path: Secret,
    cookie: Secret,
}

/// What a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// An answer.
    Response(Response),
    /// A WebSocket, of a user who may have it.
    WebSocket {
        /// Its purpose.
        channel: Channel,
        /// The key of the handshake.
        key: String,
    },
}

/// The purposes of WebSockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// RFB, in binary messages.
    Screen,
    /// The bytes of the serial port, in binary messages.
    Serial,
    /// Buttons and state, in text messages.
    Control,
}

impl Site {
    /// Returns a site without links.
    pub fn new(assets: Assets) -> Self {
        Site { assets, access: Mutex::default() }
    }

    /// Makes a link, and returns its path. The path works once.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn new_link(&self) -> Result<String, getrandom::Error> {
        let token = Secret::new()?;
        let path = format!("/enter/{}", token.0);
        self.access().add_token(token);
        Ok(path)
    }

    /// Answers a request.
    pub fn answer(&self, request: &Request) -> Answer {
        let refuse = |status, text| Answer::Response(Response::text(status, text));
        // A name that leads here by someone else's DNS would make their page one of this origin.
        if !is_loopback_name(&request.host) {
            return refuse(403, "The console answers to localhost and to loopback addresses only.");
        }
        if let Some(token) = request.path.strip_prefix("/enter/") {
            return Answer::Response(self.enter(token));
        }
        let Some(name) = self.file_of_session(request) else {
            return refuse(403, NO_SESSION);
        };
        match name {
            "screen" => websocket(request, Channel::Screen),
            "serial" => websocket(request, Channel::Serial),
            "control" => websocket(request, Channel::Control),
            "" => Answer::Response(self.page()),
            name => Answer::Response(match self.assets.get(name) {
                Some((content_type, body)) => Response {
                    status: 200,
                    content_type,
                    headers: String::new(),
                    body: body.to_vec(),
                },
                None => Response::text(404, "There is no such file."),
            }),
        }
    }

    /// Takes the token of a link and opens a session.
    ///
    /// The answer is a page that leads on by itself, not a redirection: a browser that came here
    /// from another site's page would not send the new cookie along with a redirected request.
    fn enter(&self, token: &str) -> Response {
        let (Ok(path), Ok(cookie)) = (Secret::new(), Secret::new()) else {
            return Response::text(503, "The system has no random bytes.");
        };
        if !self.access().take_token(token) {
            return Response::text(403, USED_LINK);
        }
        let folder = format!("/s/{}/", path.0);
        let headers = format!(
            "Set-Cookie: {COOKIE}={}; Path={folder}; HttpOnly; SameSite=Strict\r\n\
             Content-Security-Policy: default-src 'none'; frame-ancestors 'none'\r\n",
            cookie.0
        );
        let body = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>SynthVM</title>\
             <meta http-equiv=\"refresh\" content=\"0; url={folder}\">\
             <p><a href=\"{folder}\">Open the console</a></p></html>\n"
        );
        self.access().add_session(Session { path, cookie });
        let content_type = "text/html; charset=utf-8";
        Response { status: 200, content_type, headers, body: body.into_bytes() }
    }

    /// Returns the rest of a path below a session's folder, if the request has the session's
    /// cookie.
    fn file_of_session<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let (path, name) = request.path.strip_prefix("/s/")?.split_once('/')?;
        let access = self.access();
        let mut allowed = false;
        for session in &access.sessions {
            let known = request.cookies.iter().any(|cookie| session.cookie.is(cookie));
            allowed |= session.path.is(path) & known;
        }
        allowed.then_some(name)
    }

    /// Returns the page. Its style elements, which xterm.js makes, need the page's nonce.
    fn page(&self) -> Response {
        let Ok(nonce) = Secret::new() else {
            return Response::text(503, "The system has no random bytes.");
        };
        let headers = format!(
            "Content-Security-Policy: default-src 'none'; script-src 'self'; \
             style-src 'self' 'nonce-{}'; img-src 'self' data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
            nonce.0
        );
        let body = self.assets.page().replace(NONCE, &nonce.0).into_bytes();
        Response { status: 200, content_type: "text/html; charset=utf-8", headers, body }
    }

    fn access(&self) -> MutexGuard<'_, Access> {
        self.access.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NO_SESSION: &str = "You are not logged in here, or your browser was closed. For a new link, \
    run `synthvm console --link SOCKET`, or start `synthvm console --web SOCKET` again.";
const USED_LINK: &str = "This link has been used, or never existed. For a new one, \
    run `synthvm console --link SOCKET`, or start `synthvm console --web SOCKET` again.";

/// Returns a WebSocket, if the page that opens it is the console's own.
fn websocket(request: &Request, channel: Channel) -> Answer {
    let own = format!("http://{}", request.host);
    if request.origin.as_deref() != Some(&*own) {
        let text = "Only the console's own page can open this.";
        return Answer::Response(Response::text(403, text));
    }
    match &request.websocket_key {
        Some(key) => Answer::WebSocket { channel, key: key.clone() },
        None => Answer::Response(Response::text(426, "This is a WebSocket.")),
    }
}

/// Returns whether a `Host` header names this machine by a name that needs no DNS. The port may be
/// another one, as with `ssh -L`.
fn is_loopback_name(host: &str) -> bool {
    const V6: &str = "[::1]";
    // A name of IPv6 has colons of its own.
    let name_length =
        if host.starts_with(V6) { V6.len() } else { host.find(':').unwrap_or(host.len()) };
    let (name, port) = host.split_at(name_length);
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let has_name = name == V6
        || name.eq_ignore_ascii_case("localhost")
        || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
    has_name && (port.is_empty() || port.strip_prefix(':').is_some_and(digits))
}

impl Access {
    fn add_token(&mut self, token: Secret) {
        if self.tokens.len() == MAX_LINKS {
            self.tokens.pop_front();
        }
        self.tokens.push_back(token);
    }

    fn add_session(&mut self, session: Session) {
        if self.sessions.len() == MAX_LINKS {
            self.sessions.pop_front();
        }
        self.sessions.push_back(session);
    }

    /// Removes a token. Returns false if there is none.
    fn take_token(&mut self, text: &str) -> bool {
        let before = self.tokens.len();
        self.tokens.retain(|token| !token.is(text));
        self.tokens.len() < before
    }
}

/// A secret as hexadecimal digits.
struct Secret(String);

impl Secret {
    fn new() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes)?;
        let mut text = String::with_capacity(2 * SECRET_BYTES);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        Ok(Secret(text))
    }

    /// Compares in a time that does not depend on the content.
    fn is(&self, text: &str) -> bool {
        self.0.as_bytes().ct_eq(text.as_bytes()).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
