//! A TOML file as a tree of placed values.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Origin};
use super::node::{Entry, Node, Value};

/// The longest file accepted, in bytes. A machine with the largest number of disks needs a tenth of
/// it.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Reads the file at `path`.
pub(crate) fn read(path: &Path) -> Result<Node, ConfigError> {
    let name = path.display().to_string();
    let fail = |message: String| ConfigError::new(format!("{name}: {message}"));
    let file = std::fs::File::open(path).map_err(|error| fail(format!("cannot open: {error}")))?;
    let mut bytes = Vec::new();
    let limited = std::io::Read::take(file, MAX_FILE_BYTES + 1);
    std::io::Read::read_to_end(&mut { limited }, &mut bytes)
        .map_err(|error| fail(format!("cannot read: {error}")))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE_BYTES) {
        return Err(fail(format!(
            "is longer than {MAX_FILE_BYTES} bytes, so it is no machine description"
        )));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| fail("is not UTF-8 text, so it is no machine description".into()))?;
    parse(&name, &text, path.parent())
}

/// Parses `text` of the file `name`. Relative paths in it are relative to `base`.
pub(crate) fn parse(name: &str, text: &str, base: Option<&Path>) -> Result<Node, ConfigError> {
    let source = Source { name, text, base };
    let table = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| source.line(span.start));
        let origin = Origin::File { file: name.to_owned(), line, key: String::new() };
        ConfigError::new(error.message().replace('\n', ", ")).or_at(Some(&origin))
    })?;
    let mut root = source.table(table.get_ref(), "");
    root.origin = None;
    Ok(root)
}

struct Source<'a> {
    name: &'a str,
    text: &'a str,
    base: Option<&'a Path>,
}

impl Source<'_> {
    fn line(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    fn node(&self, value: Value, offset: usize, key: &str) -> Node {
        let origin = Origin::File {
            file: self.name.to_owned(),
            line: self.line(offset),
            key: key.to_owned(),
        };
        Node { value, origin: Some(origin), base: self.base.map(Path::to_path_buf) }
    }

    fn table(&self, table: &DeTable<'_>, prefix: &str) -> Node {
        let entries = table.iter().map(|(key, value)| {
            let name = key.get_ref().to_string();
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            // The line of the key, not of the value: the message for an unknown key must name it.
            (
                key.span().start,
                Entry { node: self.value(value, key.span().start, &path), key: name },
            )
        });
        let mut entries: Vec<_> = entries.collect();
        // In the order of the file, so that the first mistake is the one reported.
        entries.sort_by_key(|(start, _)| *start);
        self.node(Value::Table(entries.into_iter().map(|(_, entry)| entry).collect()), 0, prefix)
    }

    fn value(&self, value: &Spanned<DeValue<'_>>, start: usize, path: &str) -> Node {
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Boolean(on) => Value::Bool(*on),
            DeValue::Integer(number) => {
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Integer(number),
                    Err(_) => Value::Odd("a number beyond 63 bits"),
                }
            }
            DeValue::Float(_) => Value::Odd("a number with a fraction"),
            DeValue::Datetime(_) => Value::Odd("a date"),
            DeValue::Array(items) => Value::List(
                items.iter().map(|item| self.value(item, item.span().start, path)).collect(),
            ),
            DeValue::Table(table) => self.table(table, path).value,
        };
        self.node(value, start, path)
    }
}
