//! Keys of a US keyboard as UEFI has them: a character or a scan code, and the state of the
//! modifiers (UEFI specification section 12.2 and appendix B).

use crate::keyboard::KeyEvent;

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// UEFI's scan code; 0 for a key with a character.
    pub scan_code: u16,
    /// The character; 0 for a key without one. With Control it is the plain letter.
    pub character: u16,
    /// The modifiers, as bits of [`shift`].
    pub shift: u32,
    /// The locks, as bits of [`toggle`].
    pub toggle: u8,
}

/// Bits of [`Key::shift`], which are those of `EFI_KEY_STATE::KeyShiftState`.
pub mod shift {
    /// The other bits are valid.
    pub const VALID: u32 = 1 << 31;
    /// The right Shift key.
    pub const RIGHT_SHIFT: u32 = 1;
    /// The left Shift key.
    pub const LEFT_SHIFT: u32 = 1 << 1;
    /// The right Control key.
    pub const RIGHT_CONTROL: u32 = 1 << 2;
    /// The left Control key.
    pub const LEFT_CONTROL: u32 = 1 << 3;
    /// The right Alt key.
    pub const RIGHT_ALT: u32 = 1 << 4;
    /// The left Alt key.
    pub const LEFT_ALT: u32 = 1 << 5;
    /// The right logo key.
    pub const RIGHT_LOGO: u32 = 1 << 6;
    /// The left logo key.
    pub const LEFT_LOGO: u32 = 1 << 7;
    /// The menu key.
    pub const MENU: u32 = 1 << 8;
}

/// Bits of [`Key::toggle`], which are those of `EFI_KEY_STATE::KeyToggleState`.
pub mod toggle {
    /// The other bits are valid.
    pub const VALID: u8 = 1 << 7;
    /// Scroll Lock is on.
    pub const SCROLL_LOCK: u8 = 1;
    /// Num Lock is on.
    pub const NUM_LOCK: u8 = 1 << 1;
    /// Caps Lock is on.
    pub const CAPS_LOCK: u8 = 1 << 2;
}

const SHIFT: u32 = shift::LEFT_SHIFT | shift::RIGHT_SHIFT;
const CONTROL: u32 = shift::LEFT_CONTROL | shift::RIGHT_CONTROL;

/// Characters by make code, without and with Shift. 0: no character.
const PLAIN: &[u8; 0x3A] =
    b"\0\x001234567890-=\x08\tqwertyuiop[]\r\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ";
const SHIFTED: &[u8; 0x3A] =
    b"\0\0!@#$%^&*()_+\x08\tQWERTYUIOP{}\r\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 ";

/// Characters of the keypad from make code 0x47 on, with Num Lock.
const KEYPAD: &[u8; 13] = b"789-456+1230.";

impl Key {
    /// Returns the key for readers that see no modifiers: Control and a letter are a control
    /// character.
    #[must_use]
    pub fn plain(self) -> (u16, u16) {
        let letter = u8::try_from(self.character).unwrap_or_default();
        match letter {
            b'a'..=b'z' | b'A'..=b'Z' if self.shift & CONTROL != 0 => {
                (self.scan_code, u16::from(letter & 0x1F))
            }
            _ => (self.scan_code, self.character),
        }
    }
}

/// Turns events of the keyboard into keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct Decoder {
    shift: u32,
    locks: u8,
}

impl Decoder {
    /// Returns the key of an event. `None`: a key was released, or it is a modifier or a lock, or
    /// UEFI has no such key.
    pub fn decode(&mut self, event: KeyEvent) -> Option<Key> {
        if let Some(modifier) = modifier(event) {
            if event.is_pressed {
                self.shift |= modifier;
            } else {
                self.shift &= !modifier;
            }
            return None;
        }
        if !event.is_pressed {
            return None;
        }
        if let Some(lock) = lock(event) {
            self.locks ^= lock;
            return None;
        }
        let (toggle, all) = (self.locks | toggle::VALID, self.shift | shift::VALID);
        if let Some(character) = self.character(event) {
            // The character shows the Shift key already.
            let shift = all & !SHIFT;
            return Some(Key { scan_code: 0, character: character.into(), shift, toggle });
        }
        let scan_code = scan_code(event.code)?;
        Some(Key { scan_code, character: 0, shift: all, toggle })
    }

    /// Switches the locks on and off, by bits of [`toggle`].
    pub fn set_locks(&mut self, locks: u8) {
        self.locks = locks & (toggle::SCROLL_LOCK | toggle::NUM_LOCK | toggle::CAPS_LOCK);
    }

    fn character(&self, event: KeyEvent) -> Option<u8> {
        let code = usize::from(event.code);
        if event.is_extended {
            // Enter and the slash of the keypad.
            return match event.code {
                0x1C => Some(b'\r'),
                0x35 => Some(b'/'),
                _ => None,
            };
        }
        let is_shifted = self.shift & SHIFT != 0;
        if let Some(key) = code.checked_sub(0x47).and_then(|key| KEYPAD.get(key)) {
            let is_number = (self.locks & toggle::NUM_LOCK != 0) != is_shifted;
            return (is_number || matches!(key, b'-' | b'+')).then_some(*key);
        }
        let plain = PLAIN.get(code).filter(|&&character| character != 0)?;
        let is_caps = plain.is_ascii_lowercase() && self.locks & toggle::CAPS_LOCK != 0;
        if is_shifted != is_caps { SHIFTED.get(code).copied() } else { Some(*plain) }
    }
}

fn modifier(event: KeyEvent) -> Option<u32> {
    Some(match (event.is_extended, event.code) {
        (false, 0x2A) => shift::LEFT_SHIFT,
        (false, 0x36) => shift::RIGHT_SHIFT,
        (false, 0x1D) => shift::LEFT_CONTROL,
        (true, 0x1D) => shift::RIGHT_CONTROL,
        (false, 0x38) => shift::LEFT_ALT,
        (true, 0x38) => shift::RIGHT_ALT,
        (true, 0x5B) => shift::LEFT_LOGO,
        (true, 0x5C) => shift::RIGHT_LOGO,
        (true, 0x5D) => shift::MENU,
        _ => return None,
    })
}

fn lock(event: KeyEvent) -> Option<u8> {
    match (event.is_extended, event.code) {
        (false, 0x3A) => Some(toggle::CAPS_LOCK),
        (false, 0x45) => Some(toggle::NUM_LOCK),
        (false, 0x46) => Some(toggle::SCROLL_LOCK),
        _ => None,
    }
}

/// Returns UEFI's scan code of a make code, which is the same with the prefix E0: the keypad
/// without Num Lock has the keys of the cursor block.
fn scan_code(code: u16) -> Option<u16> {
    Some(match code {
        0x01 => 0x17,
        // F1 to F10, F11, F12.
        0x3B..=0x44 => code - 0x3B + 0x0B,
        0x57 => 0x15,
        0x58 => 0x16,
        // Up, down, right, left.
        0x48 => 1,
        0x50 => 2,
        0x4D => 3,
        0x4B => 4,
        // Home, End, Insert, Delete, Page Up, Page Down.
        0x47 => 5,
        0x4F => 6,
        0x52 => 7,
        0x53 => 8,
        0x49 => 9,
        0x51 => 10,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: u16) -> KeyEvent {
        KeyEvent { code, is_extended: false, is_pressed: true }
    }

    fn release(code: u16) -> KeyEvent {
        KeyEvent { is_pressed: false, ..press(code) }
    }

    fn extended(code: u16) -> KeyEvent {
        KeyEvent { is_extended: true, ..press(code) }
    }

    /// Returns scan code and character of the last event.
    fn last(events: &[KeyEvent]) -> Option<(u16, u16)> {
        let mut decoder = Decoder::default();
        let keys: Vec<Option<Key>> = events.iter().map(|event| decoder.decode(*event)).collect();
        keys.last().copied()?.map(|key| (key.scan_code, key.character))
    }

    const A: u16 = 0x1E;
    const SHIFT_KEY: u16 = 0x2A;
    const CAPS: u16 = 0x3A;

    #[test]
    fn test_keys_are_characters_or_scan_codes_of_uefi() {
        for (events, expected) in [
            (vec![press(A)], (0, u16::from(b'a'))),
            (vec![press(SHIFT_KEY), press(A)], (0, u16::from(b'A'))),
            (vec![press(SHIFT_KEY), release(SHIFT_KEY), press(A)], (0, u16::from(b'a'))),
            (vec![press(CAPS), press(A)], (0, u16::from(b'A'))),
            (vec![press(CAPS), press(SHIFT_KEY), press(A)], (0, u16::from(b'a'))),
            (vec![press(CAPS), press(2)], (0, u16::from(b'1'))),
            (vec![press(SHIFT_KEY), press(2)], (0, u16::from(b'!'))),
            (vec![press(0x1C)], (0, 13)),
            (vec![extended(0x1C)], (0, 13)),
            (vec![press(0x39)], (0, u16::from(b' '))),
            (vec![press(0x0E)], (0, 8)),
            (vec![press(0x01)], (0x17, 0)),
            (vec![press(0x3B)], (0x0B, 0)),
            (vec![press(0x58)], (0x16, 0)),
            (vec![extended(0x50)], (2, 0)),
            (vec![press(0x50)], (2, 0)),
            (vec![press(0x45), press(0x50)], (0, u16::from(b'2'))),
            (vec![extended(0x53)], (8, 0)),
        ] {
            assert_eq!(last(&events), Some(expected), "{events:?}");
        }
    }

    #[test]
    fn test_modifiers_locks_releases_and_unknown_keys_are_no_keys() {
        for event in [press(SHIFT_KEY), press(CAPS), release(A), press(0x7F), extended(0x37)] {
            assert_eq!(last(&[event]), None, "{event:?}");
        }
    }

    #[test]
    fn test_control_and_a_letter_are_a_control_character_without_modifiers_only() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.decode(press(0x1D)), None);
        let key = decoder.decode(press(A)).unwrap();
        assert_eq!((key.character, key.shift), (97, shift::VALID | shift::LEFT_CONTROL));
        assert_eq!(key.plain(), (0, 1));
        decoder.decode(release(0x1D));
        assert_eq!(decoder.decode(press(A)).unwrap().plain(), (0, 97));
    }
}
