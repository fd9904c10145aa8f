//! Headless Chromium, driven by the DevTools protocol over two pipes.
//!
//! The tests of synthvm-web-console include this file, so it uses nothing of this crate. Its calls
//! panic when Chromium has ended or refuses a call.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

/// A browser with one page. Killed on drop.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    session: Value,
    next: u64,
    /// Its profile, removed at the end.
    profile: PathBuf,
}

/// Alt, held while another key is pressed, as the protocol counts it.
pub const ALT: u8 = 1;
/// Ctrl.
pub const CTRL: u8 = 2;
/// The Windows key.
pub const META: u8 = 4;
/// Shift.
pub const SHIFT: u8 = 8;

const MODIFIERS: [(u8, &str, &str); 4] = [
    (CTRL, "ControlLeft", "Control"),
    (ALT, "AltLeft", "Alt"),
    (SHIFT, "ShiftLeft", "Shift"),
    (META, "MetaLeft", "Meta"),
];

impl Browser {
    /// Starts Chromium. Its profile is in `folder`.
    pub fn start(program: &Path, folder: &Path) -> Self {
        let profile = folder.join("profile");
        let _ = std::fs::remove_dir_all(&profile);
        // The protocol is on descriptors 3 and 4. Tests run as root in a container, where
        // Chromium's sandbox does not work; the only page is ours.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"])
            .arg(program)
            .args(["--remote-debugging-pipe", "--no-sandbox", "--no-zygote", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--mute-audio"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .env("HOME", folder)
            .env("XDG_CACHE_HOME", folder)
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let from = BufReader::new(from);
        let mut browser = Browser { child, to, from, session: Value::Null, next: 0, profile };
        let targets = browser.call("Target.getTargets", &json!({}));
        let mut page = targets["targetInfos"].as_array().unwrap().iter();
        let page = page.rfind(|one| one["type"] == "page").unwrap()["targetId"].clone();
        let attach = json!({ "targetId": page, "flatten": true });
        browser.session = browser.call("Target.attachToTarget", &attach)["sessionId"].clone();
        browser.call("Page.enable", &json!({}));
        browser.call("Runtime.enable", &json!({}));
        browser
    }

    /// Calls a method of the protocol, and returns its result.
    pub fn call(&mut self, method: &str, parameters: &Value) -> Value {
        let answer = self.try_call(method, parameters);
        assert_eq!(answer["error"], Value::Null, "{method}: {answer}");
        answer["result"].clone()
    }

    /// Opens a page.
    pub fn open(&mut self, address: &str) {
        self.call("Page.navigate", &json!({ "url": address }));
    }

    /// Evaluates an expression in the page; a promise is awaited.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.call("Runtime.evaluate", &parameters);
        assert_eq!(result["exceptionDetails"], Value::Null, "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true in whatever page is open then.
    pub fn wait_for(&mut self, expression: &str) {
        let condition = format!(
            "new Promise((done) => {{ const look = () => {{ let is = false; \
             try {{ is = Boolean({expression}); }} catch {{}} \
             if (is) done(true); else setTimeout(look, 20); }}; look(); \
             setTimeout(() => done(false), 1000); }})"
        );
        let mut last = Value::Null;
        // A navigation ends the evaluation, so it is asked again; the limit only ends a failure.
        for _ in 0..120 {
            let parameters =
                json!({ "expression": condition, "awaitPromise": true, "returnByValue": true });
            last = self.try_call("Runtime.evaluate", &parameters);
            if last["result"]["result"]["value"] == true {
                return;
            }
        }
        let state = self.evaluate("document.body.outerHTML.slice(0, 3000)");
        panic!("{expression} does not become true: {last}; {state}");
    }

    /// Calls a method of the protocol, and returns its answer: a result or an error.
    fn try_call(&mut self, method: &str, parameters: &Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": parameters });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        self.to.write_all(message.to_string().as_bytes()).unwrap();
        self.to.write_all(&[0]).unwrap();
        loop {
            let mut bytes = Vec::new();
            self.from.read_until(0, &mut bytes).unwrap();
            assert_eq!(bytes.pop(), Some(0), "Chromium has ended");
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["id"] == self.next {
                return answer;
            }
        }
    }

    /// Presses and releases a key with its modifiers, as a user does.
    pub fn press(&mut self, modifiers: u8, code: &str, key: &str) {
        let mut held = 0;
        for (bit, code, key) in MODIFIERS {
            if modifiers & bit != 0 {
                held |= bit;
                self.key("keyDown", held, code, key);
            }
        }
        self.key("keyDown", held, code, key);
        self.key("keyUp", held, code, key);
        for (bit, code, key) in MODIFIERS.into_iter().rev() {
            if modifiers & bit != 0 {
                held &= !bit;
                self.key("keyUp", held, code, key);
            }
        }
    }

    fn key(&mut self, kind: &str, modifiers: u8, code: &str, key: &str) {
        let mut event = json!({ "type": kind, "modifiers": modifiers, "code": code, "key": key });
        // Fields have text; Tab and Enter act by it.
        if kind == "keyDown" && modifiers & !SHIFT == 0 && key.chars().count() == 1 {
            event["text"] = key.into();
        }
        if let Some(code) = [("Tab", 9), ("Enter", 13)].iter().find(|one| one.0 == key) {
            event["windowsVirtualKeyCode"] = code.1.into();
        }
        self.call("Input.dispatchKeyEvent", &event);
    }

    /// Moves the pointer to a point of the page.
    pub fn point(&mut self, x: f64, y: f64) {
        self.call("Input.dispatchMouseEvent", &json!({ "type": "mouseMoved", "x": x, "y": y }));
    }

    /// Returns the point of the page at a pixel of the guest's screen, which has `width` by
    /// `height` pixels and is shown at least as large. Pages get whole numbers, rounded down.
    pub fn point_of(&mut self, (x, y): (u32, u32), (width, height): (u32, u32)) -> (f64, f64) {
        let place = self.evaluate(
            "(() => { const r = document.querySelector('#screen canvas').getBoundingClientRect(); \
             return [r.x, r.y, r.width, r.height]; })()",
        );
        let [left, top, wide, high] = [0, 1, 2, 3].map(|part| place[part].as_f64().unwrap());
        // Just behind the pixel's edge, where rounding cannot lead to its neighbour.
        let [x, y] = [x, y].map(|pixel| f64::from(pixel) + 0.01);
        let (x, y) = (left + x * wide / f64::from(width), top + y * high / f64::from(height));
        (x.ceil(), y.ceil())
    }

    /// Returns the guest's screen as the page shows it, as a PNG file.
    pub fn canvas(&mut self) -> Vec<u8> {
        let address =
            self.evaluate("document.querySelector('#screen canvas').toDataURL('image/png')");
        let (_, data) = address.as_str().unwrap().split_once(',').unwrap();
        base64(data)
    }

    /// Sets the size of the window, and whether the user has a phone and prefers dark colours.
    pub fn emulate(&mut self, width: u32, height: u32, phone: bool, dark: bool) {
        let scale = if phone { 2 } else { 1 };
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone,
        });
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        self.call("Emulation.setTouchEmulationEnabled", &json!({ "enabled": phone }));
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Writes a picture of the page.
    pub fn screenshot(&mut self, path: &Path) {
        let picture = self.call("Page.captureScreenshot", &json!({ "format": "png" }));
        std::fs::write(path, base64(picture["data"].as_str().unwrap())).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(digit).collect();
    let groups = digits.chunks(4).flat_map(|group| {
        let bits = group.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit));
        let bits = bits << (6 * (4 - group.len()));
        bits.to_be_bytes()[1..group.len()].to_vec()
    });
    groups.collect()
}
