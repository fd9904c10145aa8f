//! Options that stand for several others: `profile`, `install` and `none`. They are resolved in the
//! tree, before it is interpreted, so that every explicit option takes precedence and
//! `--print-config` prints the result.

use super::error::{ConfigError, unknown};
use super::node::{Entry, Node, Value};

/// The known profiles.
const PROFILES: &[&str] = &["windows"];

/// The name of the DVD drive that `install` adds.
pub(super) const INSTALL_ID: &str = "install";

/// What a Windows guest expects: keys, or keys of a table, with their values. Sources: spec
/// firmware-windows sections D1 (reports of a crash must not prevent its dump), D3 and D6.
const WINDOWS: &[(&str, Option<&str>, &str)] = &[
    ("memory", Some("size"), "4G"),
    ("cpus", None, "2"),
    ("hyperv", Some("preset"), "windows"),
    ("rtc", None, "local"),
    ("on-panic", None, "continue"),
    ("display", Some("mode"), "headless"),
];

/// Replaces `profile` and `install` by the options that they stand for, and removes options of the
/// value `none`. `is_installed` returns whether a program is in `PATH`.
pub(super) fn apply(
    root: &mut Node,
    is_installed: &dyn Fn(&str) -> bool,
) -> Result<(), ConfigError> {
    let profile = root.take("profile");
    let install = root.take("install");
    if let Some(disc) = &install {
        add_disc(root, disc)?;
    }
    if let Some(name) = &profile {
        match &name.value {
            Value::Text(text) if PROFILES.contains(&text.as_str()) => {}
            Value::Text(text) => {
                return Err(name.place(ConfigError::new(unknown("profile", text, PROFILES))));
            }
            _ => return Err(name.place(ConfigError::new("a profile is a name: \"windows\""))),
        }
        for (key, inner, value) in WINDOWS {
            set_default(root, key, *inner, text(value));
        }
    }
    if profile.is_some() || install.is_some() {
        add_firmware(root);
    }
    if profile.is_some() {
        add_programs(root, is_installed);
    }
    remove_none(root)
}

/// Adds the drive with the disc that a system is installed from.
fn add_disc(root: &mut Node, disc: &Node) -> Result<(), ConfigError> {
    let refuse = |message: &str| Err(disc.place(ConfigError::new(message)));
    let Value::Text(path) = &disc.value else {
        return refuse("`install` is the path of an ISO image");
    };
    if path.is_empty() {
        return refuse("the value is empty; give an ISO image");
    }
    if root.get("kernel").is_some() {
        return refuse("firmware starts the disc; leave --kernel out");
    }
    if first_image(root).is_none() {
        return refuse("there is no disk to install on; add --disk NEW.vhdx,size=64G");
    }
    let id = Node { value: Value::Text(INSTALL_ID.into()), ..disc.clone() };
    let entries = vec![entry("path", disc.clone()), entry("id", id)];
    append(root, "dvd", Node { value: Value::Table(entries), ..disc.clone() });
    Ok(())
}

/// Adds firmware, if nothing else starts the machine, and the file of its variables beside the
/// first disk: an installed system is started by its boot entry.
fn add_firmware(root: &mut Node) {
    if root.get("firmware").is_none() && root.get("kernel").is_none() {
        set_default(root, "firmware", Some("ovmf"), Node { value: Value::Present, ..text("") });
    }
    if root.get("firmware").is_some()
        && let Some(path) = beside_first_image(root, ".vars")
    {
        set_default(root, "firmware-vars", Some("path"), path);
    }
}

/// Adds the parts of a Windows machine that programs of the host serve, if these are installed.
fn add_programs(root: &mut Node, is_installed: &dyn Fn(&str) -> bool) {
    let has_msvm = root.get("firmware").is_some_and(|firmware| firmware.get("msvm").is_some());
    if root.get("tpm").is_none() && !has_msvm && is_installed("swtpm") {
        set_default(root, "tpm", Some("backend"), text("swtpm"));
        // A TPM that forgets its keys would lock the user out of an encrypted disk.
        if let Some(path) = beside_first_image(root, ".tpm") {
            set_default(root, "tpm", Some("state"), path);
        }
    }
    if root.get("net").is_none() && is_installed("passt") {
        let card = Value::Table(vec![entry("backend", text("user"))]);
        append(root, "net", Node { value: card, ..text("") });
    }
}

/// Removes a TPM and a list of network cards that are `none`.
fn remove_none(root: &mut Node) -> Result<(), ConfigError> {
    let is_none = |node: &Node| {
        node.get("backend").is_some_and(|backend| backend.value == Value::Text("none".into()))
    };
    if root.get("tpm").is_some_and(is_none) {
        root.take("tpm");
    }
    let Some(Node { value: Value::List(cards), .. }) = root.get("net") else { return Ok(()) };
    let Some(none) = cards.iter().find(|card| is_none(card)) else { return Ok(()) };
    if cards.len() > 1 {
        let message = "`none` is for a machine without cards; leave the other cards out";
        return Err(none.place(ConfigError::new(message)));
    }
    root.take("net");
    Ok(())
}

/// Returns the path of the first disk that is an image file and writable.
fn first_image(root: &Node) -> Option<&Node> {
    let Value::List(disks) = &root.get("disk")?.value else { return None };
    disks.iter().find_map(|disk| {
        let is_readonly = disk.get("readonly").is_some_and(|readonly| match &readonly.value {
            Value::Text(text) => matches!(text.as_str(), "on" | "true" | "yes"),
            Value::Bool(on) => *on,
            value => *value == Value::Present,
        });
        disk.get("path").filter(|_| !is_readonly)
    })
}

/// Returns the path of the first image with `suffix`; none for a block device.
fn beside_first_image(root: &Node, suffix: &str) -> Option<Node> {
    let node = first_image(root)?;
    match &node.value {
        Value::Text(path) if !path.starts_with("/dev/") => {
            Some(Node { value: Value::Text(format!("{path}{suffix}")), ..node.clone() })
        }
        _ => None,
    }
}

/// Sets `key`, or `inner` in the table `key`, if it is absent.
fn set_default(root: &mut Node, key: &str, inner: Option<&str>, value: Node) {
    let Value::Table(entries) = &mut root.value else { return };
    let known = entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node);
    match (known, inner) {
        (None, None) => entries.push(entry(key, value)),
        (None, Some(inner)) => {
            let table = Value::Table(vec![entry(inner, value)]);
            entries.push(entry(key, Node { value: table, origin: None, base: None }));
        }
        (Some(table), Some(inner)) if table.get(inner).is_none() => {
            if let Value::Table(inside) = &mut table.value {
                inside.push(entry(inner, value));
            }
        }
        (Some(_), _) => {}
    }
}

/// Appends to the list `key`, which may be absent.
fn append(root: &mut Node, key: &str, item: Node) {
    let list = Node { value: Value::List(vec![item]), origin: None, base: None };
    let entries = vec![entry(key, list)];
    root.merge(Node { value: Value::Table(entries), origin: None, base: None });
}

fn entry(key: &str, node: Node) -> Entry {
    Entry { key: key.to_owned(), node }
}

fn text(value: &str) -> Node {
    Node { value: Value::Text(value.to_owned()), origin: None, base: None }
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
