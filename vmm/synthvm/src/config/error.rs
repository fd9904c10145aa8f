//! Errors in a configuration. Messages name the place of the error.

use std::fmt;

/// The place of a value in the command line or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A command line flag with its text, for example `--disk` and `path=a.img`.
    Flag { flag: String, text: String },
    /// A file, the line (from 1) and the key with its tables, for example `disk.path`.
    File { file: String, line: usize, key: String },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag { flag, text } if text.is_empty() => f.write_str(flag),
            Origin::Flag { flag, text } => write!(f, "{flag} {text}"),
            Origin::File { file, line, key } if key.is_empty() => write!(f, "{file}:{line}"),
            Origin::File { file, line, key } => write!(f, "{file}:{line}: {key}"),
        }
    }
}

/// An invalid configuration: one line that names the option or the line of the file, and the
/// remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    origin: Option<Origin>,
    message: String,
}

impl ConfigError {
    /// Returns an error without a place, or whose place is not yet known.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        ConfigError { origin: None, message: message.into() }
    }

    /// Adds a place to the error. An error that already has one keeps it.
    pub(crate) fn or_at(mut self, origin: Option<&Origin>) -> Self {
        if self.origin.is_none() {
            self.origin = origin.cloned();
        }
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ConfigError {}

impl serde::de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        ConfigError::new(message.to_string())
    }

    fn invalid_type(found: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        ConfigError::new(format!("this is {found}, but must be {expected}"))
    }

    fn invalid_value(found: serde::de::Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        ConfigError::new(format!("{found} does not fit; it must be {expected}"))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        ConfigError::new(unknown("key", name, known))
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        ConfigError::new(unknown("value", name, known))
    }

    fn missing_field(name: &'static str) -> Self {
        ConfigError::new(format!("`{name}` is missing"))
    }

    fn duplicate_field(name: &'static str) -> Self {
        ConfigError::new(format!("`{name}` is given twice"))
    }
}

/// Returns a message that `name` is unknown, with the nearest known name and all known names.
pub(crate) fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let nearest =
        nearest(name, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
    // A question mark already ends the sentence before the list.
    let separator = if nearest.is_empty() { "; " } else { " " };
    format!("unknown {what} `{name}`{nearest}{separator}known: {}", known.join(", "))
}

/// Returns the known name that `name` most likely means, if any is similar enough.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let fold = |text: &str| text.to_ascii_lowercase().replace('_', "-");
    let name = fold(name);
    known
        .iter()
        .map(|candidate| (distance(&name, &fold(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(name.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Returns the number of edits (insert, delete, replace, swap neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let edited = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                if swapped { edited.min(rows[i - 2][j - 2] + 1) } else { edited }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &[&str] = &["path", "readonly", "controller", "lun", "block-size"];

    #[test]
    fn test_nearest_for_a_slip_is_the_name_that_was_meant() {
        let slips = [
            ("readnly", "readonly"),
            ("paht", "path"),
            ("block_size", "block-size"),
            ("LUN", "lun"),
        ];
        for (slip, meant) in slips {
            assert_eq!(nearest(slip, KEYS), Some(meant), "{slip}");
        }
    }

    #[test]
    fn test_nearest_for_another_word_is_none() {
        for word in ["cache", "x", "", "queue-depth"] {
            assert_eq!(nearest(word, KEYS), None, "{word}");
        }
    }

    #[test]
    fn test_unknown_name_lists_every_known_one() {
        let message = unknown("key", "readnly", KEYS);
        assert_eq!(
            message,
            "unknown key `readnly`; did you mean `readonly`? known: path, readonly, controller, \
            lun, block-size"
        );
    }

    #[test]
    fn test_error_placed_twice_keeps_the_inner_place() {
        let at = |flag: &str| Origin::Flag { flag: flag.into(), text: String::new() };
        let error = ConfigError::new("no").or_at(Some(&at("--inner"))).or_at(Some(&at("--outer")));
        assert_eq!(error.to_string(), "--inner: no");
    }
}
