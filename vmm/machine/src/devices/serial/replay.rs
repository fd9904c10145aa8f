//! Old output for a new client of a serial port.
//!
//! A terminal answers some control sequences: where its cursor is, what kind it is. The guest asked
//! in the past, and has had its answer; a second answer would arrive at its shell as typed text.

/// The longest control sequence that is looked at.
const MAX_SEQUENCE: usize = 64;

/// Returns output without the sequences that a terminal answers, and without the first line, unless
/// the output `is_whole`: what is left of it may start in the middle of a character or sequence.
pub(super) fn replay(output: &[u8], is_whole: bool) -> Vec<u8> {
    let first = match output.iter().position(|byte| *byte == b'\n') {
        Some(end) if !is_whole => end + 1,
        _ => 0,
    };
    let mut rest = &output[first..];
    let mut result = Vec::with_capacity(rest.len());
    while let Some((byte, after)) = rest.split_first() {
        let length = question(rest);
        if length == 0 {
            result.push(*byte);
            rest = after;
        } else {
            rest = &rest[length..];
        }
    }
    result
}

/// Returns the length of the question to the terminal at the start of `bytes`; 0 if there is none.
///
/// ECMA-48: `ESC [ parameters n` (device status), `ESC [ parameters c` (device attributes). xterm:
/// `ESC Z`, `ESC [ > q` (version), `ESC ] ... ?` (colours), `ESC P $ q` and `ESC P + q` (settings),
/// and ENQ.
fn question(bytes: &[u8]) -> usize {
    match bytes {
        [0x05, ..] => 1,
        [0x1B, b'Z', ..] => 2,
        [0x1B, b'[', rest @ ..] => {
            let end = rest.iter().take(MAX_SEQUENCE).position(|byte| !(0x20..0x40).contains(byte));
            match end.map(|end| (end, rest[end])) {
                Some((end, b'n' | b'c' | b'x')) => end + 3,
                Some((end, b'q')) if rest.first() == Some(&b'>') => end + 3,
                Some((end, b't' | b'p' | b'u')) if rest[..end].iter().any(u8::is_ascii_digit) => {
                    // Reports of the window (`t`), of modes (`$ p`), of keyboard flags (`? u`).
                    let asks = rest[end] == b't' || rest[..end].contains(&b'$');
                    if asks { end + 3 } else { 0 }
                }
                Some((end, b'u')) if rest.first() == Some(&b'?') => end + 3,
                _ => 0,
            }
        }
        [0x1B, b']' | b'P', rest @ ..] => {
            let end =
                rest.iter().take(MAX_SEQUENCE).position(|byte| *byte == 0x07 || *byte == 0x1B);
            let Some(end) = end else { return 0 };
            let text = &rest[..end];
            let asks = text.ends_with(b"?") || text.starts_with(b"$q") || text.starts_with(b"+q");
            // `ESC \` ends it too.
            let mark = if rest[end] == 0x1B && rest.get(end + 1) == Some(&b'\\') { 2 } else { 1 };
            if asks { 2 + end + mark } else { 0 }
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_replay_leaves_text_colours_and_movements_unchanged() {
        let text = "a\r\n\x1b[31mred\x1b[0m\x1b[2J\x1b[10;20H\x1b[?25l\x1b]0;title\x07\x1bcé\x1b[K";
        assert_eq!(replay(text.as_bytes(), true), text.as_bytes());
    }

    #[test]
    fn test_replay_removes_each_question_to_the_terminal() {
        for asked in [
            "\x1b[6n",
            "\x1b[?6n",
            "\x1b[c",
            "\x1b[>c",
            "\x1b[0c",
            "\x1bZ",
            "\x05",
            "\x1b[>q",
            "\x1b[18t",
            "\x1b[?2026$p",
            "\x1b[?u",
            "\x1b]11;?\x07",
            "\x1b]10;?\x1b\\",
            "\x1bP$qm\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x1b[x",
        ] {
            let text = format!("before{asked}after");
            let result = replay(text.as_bytes(), true);
            assert_eq!(String::from_utf8_lossy(&result), "beforeafter", "{asked:?}");
        }
    }

    #[test]
    fn test_replay_of_a_part_starts_at_a_line() {
        assert_eq!(replay(b"31mrest\r\nnext\r\n", false), b"next\r\n");
        assert_eq!(replay(b"no line", false), b"no line");
        assert_eq!(replay(b"first\nnext", true), b"first\nnext");
    }

    #[test]
    fn test_replay_of_unfinished_and_long_sequences_keeps_the_bytes() {
        let long = [&b"\x1b["[..], &[b'1'; 100], b"n"].concat();
        for bytes in [&b"\x1b"[..], b"\x1b[", b"\x1b[12;", b"\x1b]11;?", b"\x1bP$q", &long] {
            assert_eq!(replay(bytes, true), bytes);
        }
    }
}
