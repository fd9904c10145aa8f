//! Text and names of keys as key events of a US keyboard with 105 keys. Pure functions.
//!
//! Keys are named by the scan codes of set 1, as keyboards of the PC/XT send them: seven bits, with
//! a prefix E0 or E1 for later keys.

mod table;
#[cfg(test)]
mod tests;

use table::{NAMES, ROWS, SHIFT};

/// A key, or a character without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A key by its scan code of set 1.
    Scan {
        /// The code without its highest bit: 0 to 0x7F.
        code: u8,
        /// The prefix.
        prefix: Prefix,
    },
    /// A UTF-16 code unit. Windows takes it as text. Linux ignores that it is no key and takes it
    /// as a scan code: send it to no Linux guest.
    Unicode(u16),
}

/// The byte before a scan code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Prefix {
    /// None.
    None,
    /// 0xE0: keys that the first PC did not have, such as arrows.
    E0,
    /// 0xE1: the first half of the Pause key.
    E1,
}

impl Key {
    /// Returns the key of a scan code as RFB's extended key events and Linux have it: a code above
    /// 0x7F is that of seven bits with prefix E0.
    pub fn from_xt(code: u8) -> Self {
        let prefix = if code & 0x80 == 0 { Prefix::None } else { Prefix::E0 };
        Self::Scan { code: code & 0x7F, prefix }
    }
}

/// A press or a release of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyEvent {
    /// The key.
    pub key: Key,
    /// Whether the key is pressed. A press of a pressed key is its repetition.
    pub is_pressed: bool,
}

/// The error of a key or a character that a US keyboard does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnknownKey {
    /// No key has the name.
    #[error("no key is named `{0}`; keys are named as in ctrl-alt-del, shift-f10, meta-r, enter")]
    Name(String),
    /// No key has the character.
    #[error("a US keyboard has no key for {0:?}")]
    Character(char),
}

/// Returns the events that type `text` on a US keyboard: each character's key is pressed and
/// released, with Shift where it is needed. Caps Lock must be off.
///
/// # Errors
/// A character without a key. Line feed is Enter, and tabulator is Tab.
pub fn type_text(text: &str) -> Result<Vec<KeyEvent>, UnknownKey> {
    let mut events = Vec::with_capacity(text.len() * 4);
    for character in text.chars() {
        let (code, is_shifted) = key_of(character).ok_or(UnknownKey::Character(character))?;
        let key = [Key::from_xt(code)];
        match is_shifted {
            true => hold(&[&[SHIFT], &key], &mut events),
            false => hold(&[&key], &mut events),
        }
    }
    Ok(events)
}

/// Returns the events of key combinations, which are separated by blanks: the keys of each, joined
/// by `-`, are pressed in their order and released in the reverse one.
///
/// # Errors
/// A name without a key.
pub fn chords(text: &str) -> Result<Vec<KeyEvent>, UnknownKey> {
    let mut events = Vec::new();
    for chord in text.split_whitespace() {
        let keys = chord.split('-').map(named).collect::<Result<Vec<_>, _>>()?;
        let keys: Vec<&[Key]> = keys.iter().map(Vec::as_slice).collect();
        hold(&keys, &mut events);
    }
    Ok(events)
}

/// Returns the key with a character on a US keyboard, and whether it needs Shift. `None`: no key has
/// it.
pub fn key_of_character(character: char) -> Option<(Key, bool)> {
    key_of(character).map(|(code, is_shifted)| (Key::from_xt(code), is_shifted))
}

/// Adds presses of keys in their order, then releases in the reverse order. Each key is a sequence
/// of scan codes, whose order is the same for both.
fn hold(keys: &[&[Key]], events: &mut Vec<KeyEvent>) {
    let event = |is_pressed| move |key: &Key| KeyEvent { key: *key, is_pressed };
    events.extend(keys.iter().flat_map(|key| key.iter().map(event(true))));
    events.extend(keys.iter().rev().flat_map(|key| key.iter().map(event(false))));
}

/// Returns the scan codes of the key with a name.
fn named(name: &str) -> Result<Vec<Key>, UnknownKey> {
    let unknown = || UnknownKey::Name(name.to_owned());
    let lower = name.to_ascii_lowercase();
    if lower == "pause" {
        // The one key with two codes.
        let first = Key::Scan { code: 0x1D, prefix: Prefix::E1 };
        return Ok(vec![first, Key::from_xt(0x45)]);
    }
    if let Some((_, code)) = NAMES.iter().find(|(known, _)| *known == lower) {
        return Ok(vec![Key::from_xt(*code)]);
    }
    let mut characters = lower.chars();
    match (characters.next().and_then(key_of), characters.next()) {
        (Some((code, false)), None) => Ok(vec![Key::from_xt(code)]),
        _ => Err(unknown()),
    }
}

/// Returns the scan code of a character, and whether it needs Shift.
fn key_of(character: char) -> Option<(u8, bool)> {
    match character {
        ' ' => return Some((0x39, false)),
        '\n' => return Some((0x1C, false)),
        '\t' => return Some((0x0F, false)),
        _ => {}
    }
    ROWS.iter().find_map(|(first, plain, shifted)| {
        let at = |row: &str| row.chars().position(|one| one == character);
        let (offset, is_shifted) =
            at(plain).map(|at| (at, false)).or_else(|| Some((at(shifted)?, true)))?;
        Some((first + u8::try_from(offset).ok()?, is_shifted))
    })
}
