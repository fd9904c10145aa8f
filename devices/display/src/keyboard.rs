//! Keys of a viewer as keys of the guest's US keyboard.

mod symbols;

use std::collections::{BTreeMap, BTreeSet};

use synthvm_input::KeyEvent;
use synthvm_input::keys::{Key, Prefix, key_of_character};

use symbols::{CAPS_LOCK, code_of};

/// Maximum number of keys that a viewer holds at a time, more than a keyboard has.
const MAX_HELD: usize = 256;

/// The scan codes of both Shift keys.
const SHIFTS: [u8; 2] = [0x2A, 0x36];

/// The scan code of Pause in extended key events, which the keyboard sends as two.
const PAUSE: u32 = 0xC6;
/// The scan code of Print with Alt, which extended key events have for Print alone, too.
const SYSTEM_REQUEST: u32 = 0x54;
const PRINT: u8 = 0xB7;

/// The keys that a viewer holds.
#[derive(Debug, Default)]
pub(crate) struct Keyboard {
    /// The keys of the guest that are pressed for the viewer.
    pressed: BTreeSet<Key>,
    /// The key that the press of each symbol pressed.
    symbols: BTreeMap<u32, Key>,
    /// Whether Caps Lock is on, as far as the viewer has switched it.
    has_caps_lock: bool,
}

impl Keyboard {
    /// Returns the events of a key that the viewer names by its symbol. A US keyboard may need
    /// Shift where the viewer's does not, and the other way round.
    pub(crate) fn symbol(&mut self, symbol: u32, is_pressed: bool) -> Vec<KeyEvent> {
        if !is_pressed {
            let held = self.symbols.remove(&symbol);
            let Some(key) = held.or_else(|| Some(key_of_symbol(symbol)?.0)) else {
                return Vec::new();
            };
            return self.key(key, false);
        }
        let Some((key, needs_shift)) = key_of_symbol(symbol) else { return Vec::new() };
        if self.symbols.len() < MAX_HELD {
            self.symbols.insert(symbol, key);
        }
        if symbol == CAPS_LOCK {
            self.has_caps_lock = !self.has_caps_lock;
        }
        let is_letter = char::from_u32(symbol).is_some_and(|one| one.is_ascii_alphabetic());
        let held: Vec<Key> =
            SHIFTS.map(Key::from_xt).into_iter().filter(|key| self.pressed.contains(key)).collect();
        match needs_shift {
            // Caps Lock has the guest choose the case.
            Some(_) if is_letter && self.has_caps_lock => self.key(key, true),
            Some(true) if held.is_empty() => {
                let [shift, _] = SHIFTS.map(Key::from_xt);
                let mut events = vec![event(shift, true)];
                events.extend(self.key(key, true));
                events.push(event(shift, false));
                events
            }
            Some(false) if !held.is_empty() => {
                let mut events: Vec<_> = held.iter().map(|key| event(*key, false)).collect();
                events.extend(self.key(key, true));
                events.extend(held.iter().map(|key| event(*key, true)));
                events
            }
            _ => self.key(key, true),
        }
    }

    /// Returns the events of a key that the viewer names by its scan code, or by its symbol if the
    /// code is unknown.
    pub(crate) fn code(&mut self, code: u32, symbol: u32, is_pressed: bool) -> Vec<KeyEvent> {
        match (code, u8::try_from(code)) {
            (0, _) | (_, Err(_)) => self.symbol(symbol, is_pressed),
            (PAUSE, _) => self.key(pause(), is_pressed),
            (SYSTEM_REQUEST, _) => self.key(Key::from_xt(PRINT), is_pressed),
            (_, Ok(code)) => {
                if is_pressed && symbol == CAPS_LOCK {
                    self.has_caps_lock = !self.has_caps_lock;
                }
                self.key(Key::from_xt(code), is_pressed)
            }
        }
    }

    /// Returns the releases of all keys that are pressed.
    pub(crate) fn release_all(&mut self) -> Vec<KeyEvent> {
        self.symbols.clear();
        let pressed = std::mem::take(&mut self.pressed);
        pressed.into_iter().flat_map(|key| both(key, false)).collect()
    }

    fn key(&mut self, key: Key, is_pressed: bool) -> Vec<KeyEvent> {
        match is_pressed {
            true if self.pressed.len() >= MAX_HELD => return Vec::new(),
            true => drop(self.pressed.insert(key)),
            false => drop(self.pressed.remove(&key)),
        }
        both(key, is_pressed)
    }
}

fn event(key: Key, is_pressed: bool) -> KeyEvent {
    KeyEvent { key, is_pressed }
}

/// The first scan code of Pause.
fn pause() -> Key {
    Key::Scan { code: 0x1D, prefix: Prefix::E1 }
}

/// Returns the event of a key. Pause has two.
fn both(key: Key, is_pressed: bool) -> Vec<KeyEvent> {
    let second = (key == pause()).then(|| event(Key::from_xt(0x45), is_pressed));
    std::iter::once(event(key, is_pressed)).chain(second).collect()
}

/// Returns the key of a symbol, and whether it needs Shift. `None` instead: Shift does not matter.
fn key_of_symbol(symbol: u32) -> Option<(Key, Option<bool>)> {
    const PAUSE_SYMBOL: u32 = 0xFF13;
    const BREAK_SYMBOL: u32 = 0xFF6B;
    if matches!(symbol, PAUSE_SYMBOL | BREAK_SYMBOL) {
        return Some((pause(), None));
    }
    if let Some(code) = code_of(symbol) {
        return Some((Key::from_xt(code), None));
    }
    let character = match symbol {
        0x20..=0x7E => char::from_u32(symbol)?,
        // Symbols of Unicode's characters.
        0x0100_0000..=0x0110_FFFF => char::from_u32(symbol - 0x0100_0000)?,
        _ => return None,
    };
    let (key, is_shifted) = key_of_character(character)?;
    // Space is the same with Shift.
    Some((key, (character != ' ').then_some(is_shifted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIFT_SYMBOL: u32 = 0xFFE1;

    fn codes(events: &[KeyEvent]) -> Vec<(u8, bool)> {
        let code = |event: &KeyEvent| match event.key {
            Key::Scan { code, prefix: Prefix::E0 } => code | 0x80,
            Key::Scan { code, .. } => code,
            Key::Unicode(_) => 0,
        };
        events.iter().map(|event| (code(event), event.is_pressed)).collect()
    }

    #[test]
    fn test_symbol_that_needs_shift_gets_it_for_the_press() {
        let mut keyboard = Keyboard::default();
        let events = keyboard.symbol(u32::from(b'A'), true);
        assert_eq!(codes(&events), [(0x2A, true), (0x1E, true), (0x2A, false)]);
        assert_eq!(codes(&keyboard.symbol(u32::from(b'A'), false)), [(0x1E, false)]);
    }

    #[test]
    fn test_symbol_with_the_shift_that_it_needs_is_one_event() {
        let mut keyboard = Keyboard::default();
        assert_eq!(codes(&keyboard.symbol(SHIFT_SYMBOL, true)), [(0x2A, true)]);
        assert_eq!(codes(&keyboard.symbol(u32::from(b'A'), true)), [(0x1E, true)]);
    }

    #[test]
    fn test_symbol_that_must_not_have_shift_is_pressed_without_it() {
        let mut keyboard = Keyboard::default();
        keyboard.symbol(SHIFT_SYMBOL, true);
        // A German keyboard has the slash at Shift and 7.
        let events = keyboard.symbol(u32::from(b'/'), true);
        assert_eq!(codes(&events), [(0x2A, false), (0x35, true), (0x2A, true)]);
    }

    #[test]
    fn test_letter_under_caps_lock_is_left_to_the_guest() {
        let mut keyboard = Keyboard::default();
        keyboard.symbol(CAPS_LOCK, true);
        assert_eq!(codes(&keyboard.symbol(u32::from(b'A'), true)), [(0x1E, true)]);
        assert_eq!(codes(&keyboard.symbol(u32::from(b'!'), true)).len(), 3);
    }

    #[test]
    fn test_release_of_a_symbol_releases_the_key_that_its_press_pressed() {
        let mut keyboard = Keyboard::default();
        keyboard.symbol(u32::from(b'A'), true);
        assert_eq!(codes(&keyboard.symbol(u32::from(b'a'), false)), [(0x1E, false)]);
        assert_eq!(codes(&keyboard.symbol(0x00FE_FFFF, false)), []);
    }

    #[test]
    fn test_scan_codes_are_passed_with_their_prefix() {
        let mut keyboard = Keyboard::default();
        assert_eq!(codes(&keyboard.code(0xC8, 0, true)), [(0xC8, true)]);
        assert_eq!(codes(&keyboard.code(0x54, 0, true)), [(0xB7, true)]);
        assert_eq!(codes(&keyboard.code(0, u32::from(b'a'), true)), [(0x1E, true)]);
        assert_eq!(codes(&keyboard.code(0x1_0000, u32::from(b'b'), true)), [(0x30, true)]);
    }

    #[test]
    fn test_pause_has_two_codes_by_symbol_and_by_code() {
        let mut keyboard = Keyboard::default();
        let expected = [(0x1D, true), (0x45, true)];
        assert_eq!(codes(&keyboard.symbol(0xFF13, true)), expected);
        assert_eq!(codes(&keyboard.code(PAUSE, 0, true)), expected);
        assert_eq!(codes(&keyboard.release_all()), [(0x1D, false), (0x45, false)]);
    }

    #[test]
    fn test_release_all_releases_each_pressed_key_once() {
        let mut keyboard = Keyboard::default();
        keyboard.symbol(SHIFT_SYMBOL, true);
        keyboard.symbol(u32::from(b'B'), true);
        keyboard.symbol(u32::from(b'c'), true);
        keyboard.symbol(u32::from(b'c'), false);
        assert_eq!(codes(&keyboard.release_all()), [(0x2A, false), (0x30, false)]);
        assert!(keyboard.release_all().is_empty());
    }

    #[test]
    fn test_keys_beyond_the_limit_are_dropped() {
        let mut keyboard = Keyboard::default();
        for symbol in 0..=u32::from(u16::MAX) {
            keyboard.symbol(symbol, true);
        }
        assert!(keyboard.pressed.len() <= MAX_HELD && keyboard.symbols.len() <= MAX_HELD);
    }
}
