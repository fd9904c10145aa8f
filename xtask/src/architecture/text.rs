//! The width of text, accurate enough to break it into lines without the reader's fonts.

/// Returns the width of a text as a multiple of its size in a common sans-serif font, rounded up.
pub(super) fn width(text: &str) -> f64 {
    text.chars().map(advance).sum()
}

fn advance(character: char) -> f64 {
    match character {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.30,
        'f' | 't' | 'r' | ' ' | '(' | ')' | '/' | '-' => 0.40,
        'm' | 'w' | 'M' | 'W' => 0.92,
        'A'..='Z' => 0.72,
        _ => 0.60,
    }
}

/// Breaks a text into lines of at most `limit` times the font size. A longer word has a line of its
/// own.
pub(super) fn wrap(text: &str, limit: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line) + advance(' ') + width(word) <= limit => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_wrap_keeps_every_word_and_the_limit() {
        let text = "The VMBus host: a sans-IO state machine and the thin shell around it.";
        let lines = wrap(text, 12.0);
        assert_eq!(lines.join(" "), text);
        assert!(lines.len() > 2 && lines.iter().all(|line| width(line) <= 12.0), "{lines:?}");
    }

    #[test]
    fn test_wrap_of_a_long_word_gives_it_a_line() {
        assert_eq!(wrap("a incomprehensibilities b", 5.0), ["a", "incomprehensibilities", "b"]);
    }
}
