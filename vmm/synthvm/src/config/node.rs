//! A configuration before it has a meaning: a tree of values that know where they were written.
//!
//! Flags and files become the same tree, so one deserializer and one set of messages serves both.

use std::path::PathBuf;

use super::error::{ConfigError, Origin};

/// One value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// None only for the root.
    pub(crate) origin: Option<Origin>,
    /// What a relative path in this value is relative to; None: the current directory.
    pub(crate) base: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Text; whoever wants a number or a switch reads it from the text.
    Text(String),
    Bool(bool),
    Integer(i64),
    /// Something that no key accepts, by its name ("a date", "a fraction").
    Odd(&'static str),
    /// A key without a value, as in `--disk a.img,readonly`: a switch that is on.
    Present,
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) node: Node,
}

/// What text stands for where a table of keys is expected.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bare {
    /// The key that it is the value of: `--disk a.img` is `--disk path=a.img`.
    pub(crate) key: &'static str,
    /// Keys that it names before a colon: `--disk ram:1G` is `--disk ram=1G`.
    pub(crate) prefixes: &'static [&'static str],
}

impl Bare {
    /// Text that stands for the value of `key`, whatever it is.
    pub(crate) const fn key(key: &'static str) -> Bare {
        Bare { key, prefixes: &[] }
    }

    /// Returns the key and its value.
    pub(crate) fn read(self, text: &str) -> (&'static str, &str) {
        let prefixed = text.split_once(':').and_then(|(before, value)| {
            self.prefixes.iter().find(|prefix| **prefix == before).map(|prefix| (*prefix, value))
        });
        prefixed.unwrap_or((self.key, text))
    }
}

impl Node {
    /// An empty table without a place.
    pub(crate) fn root() -> Self {
        Node { value: Value::Table(Vec::new()), origin: None, base: None }
    }

    /// Text that stands for a whole table, written out: `memory = "1G"` means `memory = { size =
    /// "1G" }`.
    pub(crate) fn expand(mut self, bare: Bare) -> Node {
        let key = match &mut self.value {
            Value::Text(text) => {
                let (key, value) = bare.read(text);
                *text = value.to_owned();
                key
            }
            Value::Integer(_) => bare.key,
            _ => return self,
        };
        let (origin, base) = (self.origin.clone(), self.base.clone());
        Node { value: Value::Table(vec![Entry { key: key.to_owned(), node: self }]), origin, base }
    }

    /// Lays `over` on top: tables merge key by key, lists are appended, everything else is
    /// replaced.
    pub(crate) fn merge(&mut self, over: Node) {
        match (&mut self.value, over.value) {
            (Value::Table(mine), Value::Table(theirs)) => {
                for entry in theirs {
                    match mine.iter_mut().find(|known| known.key == entry.key) {
                        Some(known) => known.node.merge(entry.node),
                        None => mine.push(entry),
                    }
                }
                // A check of the table as a whole is a check of what was written last.
                if over.origin.is_some() {
                    self.origin = over.origin;
                }
            }
            (Value::List(mine), Value::List(theirs)) => mine.extend(theirs),
            (_, value) => *self = Node { value, ..over },
        }
    }

    /// The child under `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Table(entries) => {
                entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
            }
            _ => None,
        }
    }

    /// The child under `key`, taken out.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Table(entries) => {
                entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node)
            }
            _ => None,
        }
    }

    /// `error`, placed here unless it already has a place.
    pub(crate) fn place(&self, error: ConfigError) -> ConfigError {
        error.or_at(self.origin.as_ref())
    }
}
