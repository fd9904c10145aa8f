//! The real page in headless Chromium, against a real screen, keyboard and mouse whose guest is
//! this test.
//!
//! `cargo xtask test` gives it Chromium and the page's libraries. By hand: `cargo xtask
//! web-libraries`, and `SYNTHVM_CHROMIUM=$(cargo xtask chromium)`.

#[path = "../../../../integration-tests/src/browser.rs"]
#[allow(dead_code, unreachable_pub, reason = "a module of a library, of which this uses a part")]
mod browser;
#[path = "../../../display/tests/common/guest.rs"]
#[allow(dead_code, reason = "this test uses a part of the guest")]
mod guest;
mod machine;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use synthvm_web_console::{Action, Libraries, WebConsole};

use browser::{ALT, Browser, CTRL, META, SHIFT};
use guest::Guest;
use machine::{Machine, get};

const CHROMIUM: &str = "SYNTHVM_CHROMIUM";

/// Flags of a key event in the guest.
const RELEASED: u32 = 2;
const E0: u32 = 4;

/// The size of the guest's screen.
const WIDTH: usize = 1024;
const HEIGHT: usize = 768;

struct Rig {
    guest: Guest,
    machine: Arc<Machine>,
    console: WebConsole,
    browser: Browser,
    folder: PathBuf,
}

impl Rig {
    /// Returns a console with a browser; `None` if this run has no browser.
    fn new(name: &str) -> Option<Self> {
        let Some(program) = std::env::var_os(CHROMIUM) else {
            eprintln!("{CHROMIUM} is not set: nothing is tested");
            return None;
        };
        let libraries = Libraries::built_in().unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut guest = Guest::new(WIDTH, HEIGHT);
        machine::draw_desktop(&mut guest);
        let machine = Arc::new(Machine::new(guest.server(Default::default())));
        let address = "127.0.0.1:0".parse().unwrap();
        let console = WebConsole::start(address, libraries, Arc::clone(&machine) as _).unwrap();
        let browser = Browser::start(Path::new(&program), &folder);
        Some(Rig { guest, machine, console, browser, folder })
    }

    /// Opens a link, and waits for screen and serial console.
    fn log_in(&mut self) -> String {
        let link = self.console.new_link().unwrap();
        self.browser.open(&link);
        self.browser.wait_for("document.body.dataset.screenState === 'connected'");
        self.browser.wait_for("document.body.dataset.serialState === 'connected'");
        link
    }

    /// Returns a JavaScript expression of the colour of a pixel of the guest's screen.
    fn pixel(x: usize, y: usize) -> String {
        format!(
            "String(document.querySelector('#screen canvas').getContext('2d')\
             .getImageData({x}, {y}, 1, 1).data)"
        )
    }
}

/// Returns the events of a key that is pressed and released.
fn stroke(code: u32, flags: u32) -> [[u32; 2]; 2] {
    [[code, flags], [code, flags | RELEASED]]
}

#[test]
fn test_page_shows_the_screen_and_passes_keys_and_pointer_to_the_guest() {
    let Some(mut rig) = Rig::new("page") else { return };
    rig.browser.emulate(1280, 800, false, false);
    rig.log_in();

    // The picture, and a change of it.
    let (x, y) = (40, 30);
    rig.guest.fill(x, y, 60, 40, |_, _, _| 0x0012_B45D);
    rig.guest.report(x, y, 60, 40);
    rig.browser.wait_for(&format!("{} === '18,180,93,255'", Rig::pixel(x + 5, y + 5)));

    // A sentence and all modifiers. The page has given the focus to the screen.
    rig.browser.wait_for("document.activeElement.tagName === 'CANVAS'");
    for (modifiers, code, key) in [
        (SHIFT, "KeyH", "H"),
        (0, "KeyI", "i"),
        (SHIFT, "Digit1", "!"),
        (CTRL, "KeyC", "c"),
        (ALT, "F4", "F4"),
        (META, "KeyR", "r"),
        (CTRL | ALT | SHIFT, "ArrowLeft", "ArrowLeft"),
        (0, "Tab", "Tab"),
        (0, "Enter", "Enter"),
    ] {
        rig.browser.press(modifiers, code, key);
    }
    let (shift, ctrl, alt, meta) = (0x2A, 0x1D, 0x38, 0x5B);
    let with = |code: u32, flags: u32, inner: Vec<[u32; 2]>| {
        let [press, release] = stroke(code, flags);
        [vec![press], inner, vec![release]].concat()
    };
    let key = |code: u32| stroke(code, 0).to_vec();
    let expected = [
        with(shift, 0, key(0x23)),
        key(0x17),
        with(shift, 0, key(0x02)),
        with(ctrl, 0, key(0x2E)),
        with(alt, 0, key(0x3E)),
        with(meta, E0, key(0x13)),
        with(ctrl, 0, with(alt, 0, with(shift, 0, stroke(0x4B, E0).to_vec()))),
        key(0x0F),
        key(0x1C),
    ]
    .concat();
    assert_eq!(rig.guest.keys(expected.len()), expected);

    // The pointer, at pixels of the guest. A page at least as large as the guest's screen has a
    // point for each pixel.
    rig.browser.emulate(2400, 1700, false, false);
    rig.browser.evaluate("document.getElementById('serial-toggle').click()");
    rig.browser
        .wait_for("document.querySelector('#screen canvas').getBoundingClientRect().width > 1500");
    for (x, y) in [(1_u32, 2_u32), (1000, 700), (512, 384)] {
        let size = (WIDTH as u32, HEIGHT as u32);
        let (left, top) = rig.browser.point_of((x, y), size);
        rig.browser.point(left, top);
        let coordinate = |at: u32, size: usize| {
            let scaled = f64::from(at) * 32767.0 / (size as f64 - 1.0);
            scaled.round() as u16
        };
        rig.guest.reports_until((0, coordinate(x, WIDTH), coordinate(y, HEIGHT), 0));
    }

    // The way out, by keyboard alone: the guest sees Ctrl and Alt, and never Home.
    rig.browser.press(CTRL | ALT, "Home", "Home");
    rig.browser.wait_for("document.activeElement.id === 'power'");
    let expected = with(ctrl, 0, key(alt));
    assert_eq!(rig.guest.keys(expected.len()), expected);

    // The button.
    rig.browser.evaluate("document.getElementById('ctrl-alt-del').click()");
    let expected = with(ctrl, 0, with(alt, 0, stroke(0x53, E0).to_vec()));
    assert_eq!(rig.guest.keys(expected.len()), expected);
    rig.browser.emulate(1280, 800, false, false);
    rig.browser.evaluate("document.getElementById('serial-toggle').click()");
    rig.browser
        .wait_for("document.querySelector('#screen canvas').getBoundingClientRect().width < 900");
    rig.browser.screenshot(&rig.folder.join("light.png"));
}

#[test]
fn test_page_serial_console_and_buttons_reach_the_machine() {
    let Some(mut rig) = Rig::new("serial") else { return };
    rig.browser.emulate(1280, 800, false, true);
    rig.log_in();
    let text = "document.querySelector('.xterm-rows').textContent";
    rig.browser.wait_for(&format!("{text}.includes('debian login:')"));
    rig.browser.evaluate("document.querySelector('.xterm-helper-textarea').focus()");
    for letter in ["r", "o", "o", "t"] {
        rig.browser.press(0, &format!("Key{}", letter.to_uppercase()), letter);
    }
    rig.browser.wait_for(&format!("{text}.includes('debian login: root')"));
    rig.browser.screenshot(&rig.folder.join("dark.png"));

    // Power, with a question before a reset.
    let press =
        |action: &str| format!("document.querySelector('[data-action=\"{action}\"]').click()");
    rig.browser.evaluate(&press("power-button"));
    rig.browser.evaluate(&press("pause"));
    rig.browser.wait_for("document.getElementById('state').textContent === 'paused'");
    rig.browser.wait_for("!document.getElementById('screen-notice').hidden");
    rig.browser.evaluate(&press("resume"));
    rig.browser.wait_for("document.getElementById('state').textContent === 'running'");
    rig.browser.evaluate(&press("reset"));
    rig.browser.evaluate("document.querySelector('#confirm [value=yes]').click()");
    // The page sends it when its question has closed.
    while rig.machine.done().last() != Some(&Action::Reset {}) {
        std::thread::yield_now();
    }
    // A text. The page sends it in pieces, and none with a character that has no key.
    let paste = |text: &str| {
        format!(
            "(() => {{ document.getElementById('paste').click(); \
             const field = document.querySelector('#paste-dialog textarea'); \
             field.value = {}; field.dispatchEvent(new Event('input')); \
             const send = document.querySelector('#paste-dialog [value=type]'); \
             const problem = document.querySelector('#paste-dialog [role=alert]').textContent; \
             if (send.disabled) document.getElementById('paste-dialog').close(); \
             else send.click(); return problem; }})()",
            json!(text)
        )
    };
    let problem = rig.browser.evaluate(&paste("a\nb\u{e9}\u{df}"));
    let expected = "A US keyboard has no key for \u{201c}\u{e9}\u{201d} in line 2, and for 1 other";
    assert!(problem.as_str().unwrap().starts_with(expected), "{problem}");
    let problem = rig.browser.evaluate(&paste(&"a".repeat(10_001)));
    assert!(problem.as_str().unwrap().contains("At most 10000"), "{problem}");
    let text = format!("{}\r\n{}", "a".repeat(198), "b".repeat(10));
    assert_eq!(rig.browser.evaluate(&paste(&text)), "");
    let pieces = [format!("{}\nb", "a".repeat(198)), "b".repeat(9)];
    let typed = pieces.map(|text| Action::TypeText { text });
    while rig.machine.done().last() != Some(&typed[1]) {
        std::thread::yield_now();
    }
    // A disc.
    rig.browser.evaluate(
        "(() => { const form = document.querySelector('.drive'); \
         form.elements.path.value = '/images/a.iso'; form.requestSubmit(); })()",
    );
    rig.browser.wait_for("document.querySelector('.drive p').textContent === '/images/a.iso'");
    let insert = Action::InsertDisc { drive: "dvd".to_owned(), path: "/images/a.iso".into() };
    let [first, second] = typed;
    let buttons = [Action::PowerButton {}, Action::Pause {}, Action::Resume {}, Action::Reset {}];
    let expected = [&buttons[..], &[first, second, insert]].concat();
    assert_eq!(rig.machine.done(), expected);

    // The end of the machine.
    rig.machine.end();
    rig.browser.wait_for("document.getElementById('state').textContent === 'ended'");
    rig.browser
        .wait_for("document.querySelector('#screen-notice p').textContent.includes('ended')");
}

#[test]
fn test_link_works_once_and_pages_of_other_origins_get_nothing() {
    let Some(mut rig) = Rig::new("access") else { return };
    let link = rig.log_in();
    let here = rig.browser.evaluate("location.href");
    let folder = here.as_str().unwrap().to_owned();
    assert!(!rig.browser.evaluate("document.cookie").as_str().unwrap().contains("synthvm"));

    // The log-in survives a new load of the page, and the link does not.
    rig.browser.open(&folder);
    rig.browser.wait_for("document.body.dataset.screenState === 'connected'");
    rig.browser.open(&link);
    rig.browser.wait_for("document.body.textContent.includes('This link has been used')");

    // The browser has the cookie, and a page of another origin asks.
    let socket = format!("{}control", folder.replace("http:", "ws:"));
    rig.browser.open("data:text/html,<p>another origin");
    rig.browser.wait_for("location.protocol === 'data:'");
    let opened = rig.browser.evaluate(&format!(
        "new Promise((done) => {{ const socket = new WebSocket({}); \
         socket.onopen = () => done('open'); socket.onerror = () => done('refused'); }})",
        json!(socket)
    ));
    assert_eq!(opened, "refused");

    // Even with the cookie.
    let cookies = rig.browser.call("Network.getCookies", &json!({ "urls": [folder] }));
    let cookie = cookies["cookies"][0].clone();
    assert_eq!((&cookie["httpOnly"], &cookie["sameSite"]), (&json!(true), &json!("Strict")));
    let cookie = format!("Cookie: synthvm={}\r\n", cookie["value"].as_str().unwrap());
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let address = rig.console.address();
    let path = format!("{}screen", folder.split_once(&address.to_string()).unwrap().1);
    let own = format!("Origin: http://{address}\r\n");
    let other = "Origin: http://127.0.0.1:1\r\n".to_owned();
    for (headers, status) in [
        ([&*cookie, upgrade, &*own].concat(), 101),
        ([&*cookie, upgrade, &*other].concat(), 403),
        ([&*cookie, upgrade].concat(), 403),
        ([upgrade, &*own].concat(), 403),
    ] {
        assert_eq!(get(address, &path, &headers), status, "{headers}");
    }
    for path in ["/", "/etc/passwd", "/s/../../etc/passwd", "/console.js"] {
        assert_eq!(get(address, path, &cookie), 403, "{path}");
    }
}

#[test]
fn test_page_on_a_phone_has_one_view_at_a_time_and_keys() {
    let Some(mut rig) = Rig::new("phone") else { return };
    rig.browser.emulate(390, 844, true, true);
    rig.log_in();
    let overflow = "document.documentElement.scrollWidth > innerWidth";
    assert_eq!(rig.browser.evaluate(overflow), false);
    // Ctrl-C by the bar of keys, and a typed text.
    rig.browser.evaluate(
        "(() => { document.querySelector('[data-modifier=Control]').click(); \
         const form = document.getElementById('typing'); \
         form.querySelector('input').value = 'c'; form.requestSubmit(); \
         form.querySelector('input').value = 'Hi'; form.requestSubmit(); })()",
    );
    let (shift, ctrl) = (0x2A, 0x1D);
    let expected = [
        vec![[ctrl, 0]],
        stroke(0x2E, 0).to_vec(),
        // The server presses Shift for a capital letter that comes without it.
        vec![[ctrl, RELEASED], [shift, 0], [0x23, 0], [shift, RELEASED], [0x23, RELEASED]],
        stroke(0x17, 0).to_vec(),
        stroke(0x1C, 0).to_vec(),
    ]
    .concat();
    assert_eq!(rig.guest.keys(expected.len()), expected);
    rig.browser.screenshot(&rig.folder.join("screen.png"));
    rig.browser.evaluate("document.getElementById('show-serial').click()");
    rig.browser.wait_for("document.querySelector('.xterm-rows').textContent.includes('login:')");
    let columns = "document.getElementById('serial').scrollWidth <= innerWidth";
    assert_eq!(rig.browser.evaluate(columns), true);
    rig.browser.evaluate(
        "(() => { const form = document.getElementById('typing'); \
         form.querySelector('input').value = 'root'; form.requestSubmit(); })()",
    );
    rig.browser
        .wait_for("document.querySelector('.xterm-rows').textContent.includes('login: root')");
    rig.browser.screenshot(&rig.folder.join("serial.png"));
}
