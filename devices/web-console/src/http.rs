//! The head of a request, and answers. No I/O.
//!
//! Only GET is served and no request has a body, so nothing after the head is ever interpreted:
//! each connection carries one request.

use std::fmt::Write as _;

use httparse::{EMPTY_HEADER, Status};
use tungstenite::handshake::derive_accept_key;

/// The longest head of a request in bytes. Browsers send the cookies of every server on the same
/// host name, so a head may be long.
pub const MAX_HEAD_BYTES: usize = 32 << 10;

/// The most headers of a request.
pub const MAX_HEADERS: usize = 64;

/// A request's head, of which the console uses these parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The path, as sent: nothing is decoded, so no other spelling of a path exists. A query is not
    /// part of it.
    pub path: String,
    /// The host that the browser connected to, with its port.
    pub host: String,
    /// The origin of the page that opens a WebSocket.
    pub origin: Option<String>,
    /// The values of all cookies with the name of the console.
    pub cookies: Vec<String>,
    /// The key of a WebSocket's handshake, if the request asks for a WebSocket of version 13.
    pub websocket_key: Option<String>,
}

/// The name of the console's cookie.
pub const COOKIE: &str = "synthvm";

/// The result of looking at the bytes received so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// The head is not complete; more bytes are needed.
    Partial,
    /// The whole head.
    Whole(Request),
    /// The head is refused, with this status.
    Refused(u16),
}

/// Interprets the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Head {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(bytes) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Head::Partial,
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Head::Refused(431),
        Err(_) => return Head::Refused(400),
    }
    if parsed.version != Some(1) {
        return Head::Refused(505);
    }
    if parsed.method != Some("GET") {
        return Head::Refused(405);
    }
    match request(&parsed) {
        Some(request) => Head::Whole(request),
        None => Head::Refused(400),
    }
}

/// Returns the parts of a request; `None` if a part that decides about access is missing,
/// ambiguous, or no text.
fn request(parsed: &httparse::Request<'_, '_>) -> Option<Request> {
    let target = parsed.path.filter(|target| target.starts_with('/'))?;
    let path = target.split(['?', '#']).next().unwrap_or(target).to_owned();
    let values = |name: &'static str| {
        let headers = parsed.headers.iter();
        headers.filter(move |header| header.name.eq_ignore_ascii_case(name))
    };
    let single = |name: &'static str| -> Option<Option<String>> {
        let mut found = values(name);
        let first = found.next();
        if found.next().is_some() {
            return None;
        }
        first
            .map(|header| String::from_utf8(header.value.to_vec()).ok())
            .map_or(Some(None), |v| v.map(Some))
    };
    let has_body = single("transfer-encoding")?.is_some()
        || single("content-length")?.is_some_and(|length| length != "0");
    if has_body {
        return None;
    }
    Some(Request {
        path,
        host: single("host")??,
        origin: single("origin")?,
        cookies: values("cookie").flat_map(|header| cookies(header.value)).collect(),
        websocket_key: websocket_key(
            single("upgrade")?.as_deref(),
            single("connection")?.as_deref(),
            single("sec-websocket-version")?.as_deref(),
            single("sec-websocket-key")?,
        ),
    })
}

/// Returns the values of the cookies named [`COOKIE`] in a header.
fn cookies(value: &[u8]) -> Vec<String> {
    let pairs = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let values = pairs.filter_map(|pair| pair.strip_prefix(COOKIE.as_bytes())?.strip_prefix(b"="));
    values.filter_map(|value| String::from_utf8(value.to_vec()).ok()).collect()
}

/// Returns the key if the headers ask for a WebSocket as RFC 6455, section 4.2.1 says.
fn websocket_key(
    upgrade: Option<&str>,
    connection: Option<&str>,
    version: Option<&str>,
    key: Option<String>,
) -> Option<String> {
    let has = |list: Option<&str>, word: &str| {
        list.is_some_and(|list| list.split(',').any(|one| one.trim().eq_ignore_ascii_case(word)))
    };
    let wanted = has(upgrade, "websocket") && has(connection, "upgrade") && version == Some("13");
    // A key is 16 bytes in base64.
    key.filter(|key| wanted && key.len() == 24)
}

/// An answer with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The type of the body.
    pub content_type: &'static str,
    /// Further header lines, each with its line end.
    pub headers: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// Returns an answer of a short text.
    pub fn text(status: u16, text: &str) -> Self {
        Response {
            status,
            content_type: "text/plain; charset=utf-8",
            headers: String::new(),
            body: format!("{text}\n").into_bytes(),
        }
    }

    /// Returns the head and the body as they are sent. Nothing may be cached, framed by another
    /// page, or interpreted as another type.
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        let _ = write!(
            head,
            "Content-Type: {}\r\nContent-Length: {}\r\n{}{}\r\n",
            self.content_type,
            self.body.len(),
            SECURITY,
            self.headers,
        );
        [head.as_bytes(), &self.body].concat()
    }
}

/// Headers of every answer.
const SECURITY: &str = "Connection: close\r\n\
    Cache-Control: no-store\r\n\
    Referrer-Policy: no-referrer\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Cross-Origin-Opener-Policy: same-origin\r\n\
    Cross-Origin-Resource-Policy: same-origin\r\n";

/// Returns the answer that turns a connection into a WebSocket.
pub fn switch_to_websocket(key: &str) -> Vec<u8> {
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Head::Whole(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn test_parse_request_of_a_browser_returns_its_parts() {
        let request = whole(
            "GET /s/1/screen?x=1 HTTP/1.1\r\nHost: 127.0.0.1:80\r\nOrigin: http://127.0.0.1:80\r\n\
             Cookie: a=b; synthvm=one;synthvm=two\r\nCookie: synthvm=three\r\n\
             Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        assert_eq!(request.path, "/s/1/screen");
        assert_eq!(request.host, "127.0.0.1:80");
        assert_eq!(request.origin.as_deref(), Some("http://127.0.0.1:80"));
        assert_eq!(request.cookies, ["one", "two", "three"]);
        assert_eq!(request.websocket_key.as_deref(), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    }

    #[test]
    fn test_parse_each_prefix_of_a_request_is_partial() {
        let text = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(parse(&text[..end]), Head::Partial, "{end}");
        }
        assert!(matches!(parse(text), Head::Whole(_)));
    }

    #[test]
    fn test_parse_other_methods_versions_and_bodies_are_refused() {
        let head = |line: &str, more: &str| parse(format!("{line}\r\n{more}\r\n").as_bytes());
        let host = "Host: localhost\r\n";
        assert_eq!(head("POST / HTTP/1.1", host), Head::Refused(405));
        assert_eq!(head("GET / HTTP/1.0", host), Head::Refused(505));
        assert_eq!(head("nonsense", host), Head::Refused(400));
        assert_eq!(head("GET http://localhost/ HTTP/1.1", host), Head::Refused(400));
        assert_eq!(head("GET / HTTP/1.1", ""), Head::Refused(400), "no host");
        for more in ["Host: other\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
            assert_eq!(head("GET / HTTP/1.1", &[host, more].concat()), Head::Refused(400));
        }
        let twice = [host, "Origin: http://a\r\nOrigin: http://b\r\n"].concat();
        assert_eq!(head("GET / HTTP/1.1", &twice), Head::Refused(400));
    }

    #[test]
    fn test_parse_head_without_end_is_refused_at_the_limit() {
        let mut text = b"GET / HTTP/1.1\r\nHost: localhost\r\nCookie: ".to_vec();
        text.resize(MAX_HEAD_BYTES - 1, b'a');
        assert_eq!(parse(&text), Head::Partial);
        text.push(b'a');
        assert_eq!(parse(&text), Head::Refused(431));
        let many = "A: b\r\n".repeat(MAX_HEADERS + 1);
        assert_eq!(parse(format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes()), Head::Refused(431));
    }

    #[test]
    fn test_websocket_answer_has_the_key_of_the_standards_example() {
        let answer = String::from_utf8(switch_to_websocket("dGhlIHNhbXBsZSBub25jZQ==")).unwrap();
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    }

    #[test]
    fn test_response_has_the_length_of_its_body_and_forbids_caching() {
        let text = String::from_utf8(Response::text(404, "no").bytes()).unwrap();
        assert!(text.starts_with("HTTP/1.1 404 Not Found\r\n"), "{text}");
        assert!(text.contains("Content-Length: 3\r\n") && text.ends_with("\r\n\r\nno\n"));
        assert!(text.contains("Cache-Control: no-store\r\n"));
    }

    proptest! {
        /// A head with one change is interpreted or refused, and what decides about access is what
        /// was sent.
        #[test]
        fn test_parse_any_change_of_a_head_keeps_to_what_was_sent(
            at in 0_usize..200,
            removed in 0_usize..40,
            added in prop::collection::vec(
                prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' ')],
                0..20,
            ),
        ) {
            let mut text = b"GET /s/1/screen HTTP/1.1\r\nHost: localhost:80\r\n\
                Origin: http://localhost:80\r\nCookie: synthvm=1\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".to_vec();
            let at = at.min(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, added);
            if let Head::Whole(request) = parse(&text) {
                let sent = |part: &str| {
                    part.is_empty()
                        || text.windows(part.len()).any(|one| one == part.as_bytes())
                };
                prop_assert!(request.path.starts_with('/') && sent(&request.path));
                prop_assert!(sent(&request.host));
                prop_assert!(request.origin.is_none_or(|origin| sent(&origin)));
                prop_assert!(request.cookies.iter().all(|cookie| sent(cookie)));
                prop_assert!(request.websocket_key.is_none_or(|key| key.len() == 24));
            }
        }

        #[test]
        fn test_parse_any_bytes_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let _ = parse(&bytes);
        }
    }
}
