//! Text of a guest, for one line of a log.

/// Returns the text without line ends at its end, and with every other control character escaped.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches(['\r', '\n', '\0', ' ']);
    text.chars().flat_map(escape).collect()
}

fn escape(character: char) -> impl Iterator<Item = char> {
    let is_plain = !character.is_control();
    let plain = is_plain.then_some(character);
    let escaped = (!is_plain).then(|| character.escape_default());
    plain.into_iter().chain(escaped.into_iter().flatten())
}
