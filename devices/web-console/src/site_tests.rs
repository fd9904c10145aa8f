use proptest::prelude::*;

use super::*;
use crate::assets::Libraries;

const HOST: &str = "127.0.0.1:8006";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

fn site() -> Site {
    let files = [("novnc/core/rfb.js".to_owned(), b"export default 1;".to_vec())];
    Site::new(Assets::new(Libraries::of(files)))
}

fn get(path: &str) -> Request {
    Request {
        path: path.to_owned(),
        host: HOST.to_owned(),
        origin: None,
        cookies: Vec::new(),
        websocket_key: None,
    }
}

fn response(answer: Answer) -> Response {
    match answer {
        Answer::Response(response) => response,
        Answer::WebSocket { .. } => panic!("a WebSocket"),
    }
}

/// A logged-in browser: its folder and its cookie.
struct Browser {
    folder: String,
    cookie: String,
}

impl Browser {
    fn enter(site: &Site, link: &str) -> Option<Self> {
        let response = response(site.answer(&get(link)));
        let cookie = response.headers.strip_prefix("Set-Cookie: synthvm=")?;
        let (cookie, rest) = cookie.split_once("; Path=")?;
        let (folder, attributes) = rest.split_once("; ")?;
        assert!(attributes.starts_with("HttpOnly; SameSite=Strict\r\n"), "{attributes}");
        Some(Browser { folder: folder.to_owned(), cookie: cookie.to_owned() })
    }

    fn get(&self, name: &str) -> Request {
        let cookies = vec![self.cookie.clone()];
        Request { cookies, ..get(&format!("{}{name}", self.folder)) }
    }

    fn websocket(&self, name: &str, origin: &str) -> Request {
        let (origin, key) = (Some(origin.to_owned()), Some(KEY.to_owned()));
        Request { origin, websocket_key: key, ..self.get(name) }
    }
}

#[test]
fn test_link_works_once() {
    let site = site();
    let link = site.new_link().unwrap();
    assert!(Browser::enter(&site, &link).is_some());
    assert!(Browser::enter(&site, &link).is_none());
    assert_eq!(response(site.answer(&get(&link))).status, 403);
}

#[test]
fn test_session_gets_the_page_and_its_files_with_a_nonce_of_its_own() {
    let site = site();
    let browser = Browser::enter(&site, &site.new_link().unwrap()).unwrap();
    let page = || response(site.answer(&browser.get("")));
    let (one, other) = (page(), page());
    assert_eq!(one.status, 200);
    assert!(one.headers.contains("script-src 'self';") && !one.headers.contains("unsafe"));
    assert_ne!(one.headers, other.headers, "a nonce for each page");
    let text = String::from_utf8(one.body).unwrap();
    assert!(!text.contains(NONCE) && text.contains("console.js"));
    let file = response(site.answer(&browser.get("lib/novnc/core/rfb.js")));
    assert_eq!((file.status, &*file.body), (200, &b"export default 1;"[..]));
    assert_eq!(file.content_type, "text/javascript; charset=utf-8");
}

#[test]
fn test_without_the_sessions_own_cookie_and_path_nothing_is_served() {
    let site = site();
    let one = Browser::enter(&site, &site.new_link().unwrap()).unwrap();
    let other = Browser::enter(&site, &site.new_link().unwrap()).unwrap();
    let mixed = Browser { folder: one.folder.clone(), cookie: other.cookie };
    for name in ["", "console.js", "control", "lib/novnc/core/rfb.js"] {
        let status = |request: Request| response(site.answer(&request)).status;
        assert_eq!(status(Request { cookies: Vec::new(), ..one.get(name) }), 403, "{name}");
        assert_eq!(status(mixed.get(name)), 403, "{name}");
        assert_eq!(status(get(&format!("/{name}"))), 403, "{name}");
        assert_eq!(status(get(&format!("/s/{name}"))), 403, "{name}");
    }
}

#[test]
fn test_websocket_of_another_origin_is_refused() {
    let site = site();
    let browser = Browser::enter(&site, &site.new_link().unwrap()).unwrap();
    let own = format!("http://{HOST}");
    let wanted = Answer::WebSocket { channel: Channel::Screen, key: KEY.to_owned() };
    assert_eq!(site.answer(&browser.websocket("screen", &own)), wanted);
    for origin in
        ["http://127.0.0.1:8007", "https://127.0.0.1:8006", "http://localhost:8006", "null"]
    {
        let answer = site.answer(&browser.websocket("screen", origin));
        assert_eq!(response(answer).status, 403, "{origin}");
    }
    let without = Request { origin: None, ..browser.websocket("screen", &own) };
    assert_eq!(response(site.answer(&without)).status, 403);
    let plain = Request { websocket_key: None, ..browser.websocket("screen", &own) };
    assert_eq!(response(site.answer(&plain)).status, 426);
}

#[test]
fn test_host_names_other_than_loopback_are_refused() {
    for host in ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:80"] {
        assert!(is_loopback_name(host), "{host}");
    }
    for host in ["", "a.example", "localhost.example", "127.0.0.1.example:80", "[::2]", "10.0.0.1"]
        .into_iter()
        .chain(["localhost:", "localhost:80:80", "localhost:x", "[::1", "[::1]x", "localhost@b"])
    {
        assert!(!is_loopback_name(host), "{host}");
    }
}

#[test]
fn test_links_and_sessions_beyond_the_limit_replace_the_oldest() {
    let site = site();
    let links: Vec<String> = (0..=MAX_LINKS).map(|_| site.new_link().unwrap()).collect();
    assert!(Browser::enter(&site, &links[0]).is_none());
    let first = Browser::enter(&site, &links[1]).unwrap();
    for _ in 0..MAX_LINKS {
        assert_eq!(response(site.answer(&first.get(""))).status, 200);
        Browser::enter(&site, &site.new_link().unwrap()).unwrap();
    }
    assert_eq!(response(site.answer(&first.get(""))).status, 403);
}

proptest! {
    /// Any path gives a file of the table or an error, for a user who is logged in.
    #[test]
    fn test_any_path_below_a_session_gives_a_file_of_the_table_only(
        parts in prop::collection::vec(
            prop_oneof![
                Just("..".to_owned()), Just("%2e%2e".to_owned()), Just(String::new()),
                Just("lib".to_owned()), Just("novnc".to_owned()), Just("core".to_owned()),
                Just("rfb.js".to_owned()), Just("etc/passwd".to_owned()), "[ -~]{0,8}",
            ],
            0..8,
        ),
    ) {
        let site = site();
        let browser = Browser::enter(&site, &site.new_link().unwrap()).unwrap();
        let name = parts.join("/");
        let response = response(site.answer(&browser.get(&name)));
        let known = name.is_empty() || site.assets.get(&name).is_some();
        let socket = ["screen", "serial", "control"].contains(&&*name);
        prop_assert_eq!(response.status, if socket { 403 } else if known { 200 } else { 404 });
    }

    /// No token, path or cookie but the right one opens anything.
    #[test]
    fn test_any_other_token_is_refused(token in "[0-9a-f]{0,80}") {
        let site = site();
        let link = site.new_link().unwrap();
        let other = format!("/enter/{token}");
        prop_assume!(link != other);
        prop_assert!(Browser::enter(&site, &other).is_none());
        prop_assert!(Browser::enter(&site, &link).is_some(), "the link still works");
    }
}
