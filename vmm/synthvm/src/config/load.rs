//! Loading: from flags and a file to a checked [`VmConfig`].

use std::path::Path;

use tracing::warn;

use super::error::{ConfigError, Origin, unknown};
use super::node::{Bare, Entry, Node, Value};
use super::{
    VmConfig, check, de, disk, display, dvd, file, firmware, identity, installed, keyvalue,
    network, profile, tpm, vnc, vsock,
};

/// A flag that the user gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The key that the flag sets: `disk` for `--disk`. One of [`KEYS`], or `hugepages`.
    pub key: &'static str,
    /// The flag's value; empty for a switch.
    pub text: String,
}

/// Every top-level key of a file. Each is also a flag of `synthvm run`.
pub const KEYS: &[&str] = &[
    "profile",
    "install",
    "kernel",
    "initrd",
    "cmdline",
    "firmware",
    "firmware-vars",
    "memory",
    "cpus",
    "disk",
    "dvd",
    "net",
    "display",
    "services",
    "disk-busy-poll",
    "disk-moderation",
    "disk-channels",
    "serial",
    "serial2",
    "control",
    "hyperv",
    "irqchip",
    "rtc",
    "hibernation",
    "tpm",
    "uuid",
    "generation-id",
    "smbios",
    "vsock",
    "on-reset",
    "on-panic",
    "on-no-boot-device",
    "stop-timeout",
    "test-device",
    "kvm",
];

/// Renamed keys: the old name, which is still accepted with a warning, and the new name.
const RENAMED: &[(&str, &str)] =
    &[("disk-poll", "disk-busy-poll"), ("disk-hold", "disk-moderation")];

/// Keys whose value is a table, and the key of a bare value.
const TABLES: &[(&str, Bare)] = &[
    ("memory", Bare::key("size")),
    ("disk", disk::BARE),
    ("dvd", dvd::BARE),
    ("net", network::BARE),
    ("firmware", firmware::BARE),
    ("firmware-vars", firmware::VARS_BARE),
    ("display", display::BARE),
    ("hyperv", Bare::key("preset")),
    ("tpm", tpm::BARE),
    ("smbios", identity::SMBIOS_BARE),
    ("vsock", vsock::BARE),
];

impl VmConfig {
    /// Reads the file, if any, applies the flags and fills in the defaults.
    ///
    /// A flag replaces the same key of the file; `--memory`, `--display`, `--hyperv`, `--firmware`
    /// and
    /// `--firmware-vars` replace single keys of the table; `--disk`, `--dvd` and `--net` add an
    /// entry.
    ///
    /// # Errors
    /// Returns the first unknown, repeated, malformed or contradictory value, with its flag or its
    /// line. No other file is accessed: [`VmConfig::check_inputs`] checks images.
    pub fn load(path: Option<&Path>, flags: &[Flag]) -> Result<VmConfig, ConfigError> {
        let mut root = match path {
            Some(path) => file::read(path)?,
            None => Node::root(),
        };
        assemble(&mut root, flags)?;
        interpret(root, &installed::has_program)
    }

    /// Loads like [`VmConfig::load`], from TOML text instead of a file. Relative paths in the text
    /// are relative to the current directory.
    ///
    /// # Errors
    /// The errors of [`VmConfig::load`].
    pub fn from_toml(text: &str, flags: &[Flag]) -> Result<VmConfig, ConfigError> {
        let mut root = file::parse("<text>", text, None)?;
        assemble(&mut root, flags)?;
        interpret(root, &installed::has_program)
    }
}

/// Loads TOML text like [`VmConfig::from_toml`], on a host that has the programs `installed`.
#[cfg(test)]
pub(super) fn on_host(
    text: &str,
    flags: &[Flag],
    installed: &[&str],
) -> Result<VmConfig, ConfigError> {
    let mut root = file::parse("<text>", text, None)?;
    assemble(&mut root, flags)?;
    interpret(root, &|name| installed.contains(&name))
}

fn assemble(root: &mut Node, flags: &[Flag]) -> Result<(), ConfigError> {
    rename(root)?;
    for (key, bare) in TABLES {
        if let Some(node) = root.get_mut(key) {
            let written = std::mem::replace(node, Node::root());
            *node = match written.value {
                Value::List(items) => {
                    let items = items.into_iter().map(|item| item.expand(*bare)).collect();
                    Node { value: Value::List(items), ..written }
                }
                _ => written.expand(*bare),
            };
        }
    }
    root.merge(flag_tree(flags)?);
    vnc::expand_address(root);
    Ok(())
}

/// Returns a tree of the flags alone, so that a repeated flag is detected before it replaces a key
/// of the file.
fn flag_tree(flags: &[Flag]) -> Result<Node, ConfigError> {
    let mut tree = Node::root();
    for Flag { key, text } in flags {
        let flag = format!("--{key}");
        let key = present_name(key, &flag);
        let (key, node) = match (key, TABLES.iter().find(|(table, _)| *table == key)) {
            ("hugepages", _) => ("memory", hugepages()),
            (key, Some((_, bare))) => (key, keyvalue::parse(&flag, text, *bare)?),
            (key, None) if KEYS.contains(&key) => (key, keyvalue::plain(&flag, text)),
            (key, None) => return Err(ConfigError::new(unknown("option", key, KEYS))),
        };
        let node = match key {
            "disk" | "dvd" | "net" => {
                Node { value: Value::List(vec![node]), origin: None, base: None }
            }
            _ => node,
        };
        refuse_doubled(&tree, key, &node)?;
        let entry = Entry { key: key.to_owned(), node };
        tree.merge(Node { value: Value::Table(vec![entry]), origin: None, base: None });
    }
    Ok(tree)
}

/// Renames the old keys of a file.
fn rename(root: &mut Node) -> Result<(), ConfigError> {
    let Value::Table(entries) = &mut root.value else { return Ok(()) };
    for index in 0..entries.len() {
        let key = present_name(&entries[index].key, &format!("`{}`", entries[index].key));
        if key == entries[index].key {
            continue;
        }
        let key = key.to_owned();
        if entries.iter().any(|entry| entry.key == key) {
            let doubled = ConfigError::new(format!("`{key}` is given twice, once by its old name"));
            return Err(entries[index].node.place(doubled));
        }
        entries[index].key = key;
    }
    Ok(())
}

/// Returns the current name of `key`, and warns about `written` if it is an old name.
fn present_name<'a>(key: &'a str, written: &str) -> &'a str {
    match RENAMED.iter().find(|(old, _)| *old == key) {
        Some((_, new)) => {
            let dashes = if written.starts_with("--") { "--" } else { "" };
            warn!("{written} is an old name of {dashes}{new}, which will be removed");
            new
        }
        None => key,
    }
}

fn hugepages() -> Node {
    let origin = Some(Origin::Flag { flag: "--hugepages".into(), text: String::new() });
    let on = Node { value: Value::Present, origin: origin.clone(), base: None };
    Node {
        value: Value::Table(vec![Entry { key: "hugepages".into(), node: on }]),
        origin,
        base: None,
    }
}

fn refuse_doubled(tree: &Node, key: &str, node: &Node) -> Result<(), ConfigError> {
    let Some(known) = tree.get(key) else { return Ok(()) };
    let doubled = match (&known.value, &node.value) {
        (Value::List(_), _) => None,
        (Value::Table(_), Value::Table(entries)) => {
            entries.iter().find(|entry| known.get(&entry.key).is_some())
        }
        _ => return Err(node.place(ConfigError::new(format!("`{key}` is given twice")))),
    };
    match doubled {
        Some(entry) => Err(node.place(ConfigError::new(format!("`{}` is given twice", entry.key)))),
        None => Ok(()),
    }
}

fn interpret(mut root: Node, is_installed: &dyn Fn(&str) -> bool) -> Result<VmConfig, ConfigError> {
    // First, because a misspelt `kernel` or `profile` is reported best as an unknown key.
    refuse_unknown_keys(&root)?;
    profile::apply(&mut root, is_installed)?;
    let root = &root;
    if root.get("kernel").is_none() && root.get("firmware").is_none() {
        return Err(ConfigError::new(
            "there is no kernel and no firmware; give --kernel FILE or --firmware ovmf, or `kernel = \"FILE\"` in the file",
        ));
    }
    let mut config: VmConfig = de::from_node(root)?;
    check::complete(&mut config, root)?;
    Ok(config)
}

fn refuse_unknown_keys(root: &Node) -> Result<(), ConfigError> {
    let Value::Table(entries) = &root.value else { return Ok(()) };
    match entries.iter().find(|entry| !KEYS.contains(&entry.key.as_str())) {
        Some(entry) => Err(entry.node.place(ConfigError::new(unknown("key", &entry.key, KEYS)))),
        None => Ok(()),
    }
}
