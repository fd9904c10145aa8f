//! Tests of keys and their names.

use super::*;

fn xt(codes: &[(u8, bool)]) -> Vec<KeyEvent> {
    let event = |(code, is_pressed): &(u8, bool)| KeyEvent {
        key: Key::from_xt(*code),
        is_pressed: *is_pressed,
    };
    codes.iter().map(event).collect()
}

#[test]
fn test_text_is_typed_with_shift_only_where_it_is_needed() {
    let expected = [
        (0x1E, true),
        (0x1E, false),
        (0x2A, true),
        (0x1E, true),
        (0x1E, false),
        (0x2A, false),
        (0x1C, true),
        (0x1C, false),
    ];
    assert_eq!(type_text("aA\n").unwrap(), xt(&expected));
}

#[test]
fn test_every_printable_ascii_character_has_one_key_and_no_two_have_the_same() {
    let mut seen = std::collections::BTreeMap::new();
    for byte in b' '..=b'~' {
        let key = key_of(char::from(byte)).unwrap();
        assert_eq!(seen.insert(key, byte), None, "{:?}", char::from(byte));
    }
    assert_eq!(seen.len(), 95);
}

#[test]
fn test_text_with_a_character_without_a_key_is_refused_whole() {
    assert_eq!(type_text("aé"), Err(UnknownKey::Character('é')));
}

#[test]
fn test_chord_is_pressed_in_order_and_released_in_reverse() {
    let expected =
        [(0x1D, true), (0x38, true), (0xD3, true), (0xD3, false), (0x38, false), (0x1D, false)];
    assert_eq!(chords("ctrl-alt-del").unwrap(), xt(&expected));
    assert_eq!(chords("Ctrl-ALT-Delete").unwrap(), xt(&expected));
}

#[test]
fn test_chords_separated_by_blanks_follow_one_another() {
    let expected = [(0xC8, true), (0xC8, false), (0x1C, true), (0x1C, false)];
    assert_eq!(chords(" up  enter ").unwrap(), xt(&expected));
    assert_eq!(chords("").unwrap(), []);
}

#[test]
fn test_pause_has_two_codes_in_the_same_order_for_press_and_release() {
    let first = Key::Scan { code: 0x1D, prefix: Prefix::E1 };
    let event = |key, is_pressed| KeyEvent { key, is_pressed };
    let second = Key::from_xt(0x45);
    let expected =
        [event(first, true), event(second, true), event(first, false), event(second, false)];
    assert_eq!(chords("pause").unwrap(), expected);
}

#[test]
fn test_name_without_a_key_is_refused() {
    for name in ["ctrl-", "-", "A!", "!", "ctrl-nothing", "é"] {
        let error = chords(name).unwrap_err();
        assert!(matches!(error, UnknownKey::Name(_)), "{name}: {error}");
    }
    assert!(chords("ctrl-foo").unwrap_err().to_string().contains("`foo`"));
}

#[test]
fn test_names_are_unique_and_lower_case() {
    for (index, (name, _)) in table::NAMES.iter().enumerate() {
        assert_eq!(name.to_ascii_lowercase(), *name);
        assert!(!name.contains('-'), "{name}");
        assert!(table::NAMES[..index].iter().all(|(other, _)| other != name), "{name}");
    }
}
