//! A configuration before interpretation: a tree of values with their places.
//!
//! Flags and files become the same tree, so one deserializer and one set of messages serve both.

use std::path::PathBuf;

use super::error::{ConfigError, Origin};

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// The place of the value; `None` only for the root.
    pub(crate) origin: Option<Origin>,
    /// The base of a relative path in this value; `None` for the current directory.
    pub(crate) base: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Text. Numbers and switches may also be given as text.
    Text(String),
    Bool(bool),
    Integer(i64),
    /// A value that no key accepts, with its description ("a date", "a fraction").
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

/// The meaning of text in place of a table of keys.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bare {
    /// The key of the value: `--disk a.img` is `--disk path=a.img`.
    pub(crate) key: &'static str,
    /// Keys that may precede the value with a colon: `--disk ram:1G` is `--disk ram=1G`.
    pub(crate) prefixes: &'static [&'static str],
    /// Keys that may be given more than once: `--net user,forward=A,forward=B`. Their values are a
    /// list.
    pub(crate) lists: &'static [&'static str],
    /// Words that are switches and no values of the key: `--firmware ovmf` is `--firmware ovmf=on`.
    pub(crate) words: &'static [&'static str],
}

impl Bare {
    /// Returns the meaning "the value of `key`", without prefixes and lists.
    pub(crate) const fn key(key: &'static str) -> Bare {
        Bare { key, prefixes: &[], lists: &[], words: &[] }
    }

    /// Returns the key and its value.
    pub(crate) fn read(self, text: &str) -> (&'static str, &str) {
        if let Some(word) = self.words.iter().find(|word| **word == text) {
            return (word, "on");
        }
        let prefixed = text.split_once(':').and_then(|(before, value)| {
            self.prefixes.iter().find(|prefix| **prefix == before).map(|prefix| (*prefix, value))
        });
        prefixed.unwrap_or((self.key, text))
    }
}

impl Node {
    /// Returns an empty table without a place.
    pub(crate) fn root() -> Self {
        Node { value: Value::Table(Vec::new()), origin: None, base: None }
    }

    /// Converts text to the table that it stands for: `memory = "1G"` means `memory = { size = "1G"
    /// }`.
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

    /// Applies `over` to this node: tables are merged by key, lists are appended, other values are
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
                // The place of a merged table is that of its last part, for errors about the whole
                // table.
                if over.origin.is_some() {
                    self.origin = over.origin;
                }
            }
            (Value::List(mine), Value::List(theirs)) => mine.extend(theirs),
            (_, value) => *self = Node { value, ..over },
        }
    }

    /// Returns the child with `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Table(entries) => {
                entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
            }
            _ => None,
        }
    }

    /// Returns the child with `key`, mutable.
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Table(entries) => {
                entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.node)
            }
            _ => None,
        }
    }

    /// Removes the child with `key` and returns it.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        let Value::Table(entries) = &mut self.value else { return None };
        let index = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(index).node)
    }

    /// Adds this node's place to `error`, unless the error already has one.
    pub(crate) fn place(&self, error: ConfigError) -> ConfigError {
        error.or_at(self.origin.as_ref())
    }
}
