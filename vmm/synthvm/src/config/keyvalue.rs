//! The text after a flag: `path=a.img,readonly=on`.
//!
//! Items are separated by commas; a comma inside a value is written twice. The first item may be
//! bare (`a.img`): it is the value of the option's main key. A later item without `=` is a switch
//! that is on.

use super::error::{ConfigError, Origin};
use super::node::{Bare, Entry, Node, Value};

/// Reads the text of a flag whose keys are separated by commas. `bare` defines the key of a first
/// item without `=`.
pub(crate) fn parse(flag: &str, text: &str, bare: Bare) -> Result<Node, ConfigError> {
    let origin = Origin::Flag { flag: flag.to_owned(), text: text.to_owned() };
    let fail = |message: String| Err(ConfigError::new(message).or_at(Some(&origin)));
    let node = |value| Node { value, origin: Some(origin.clone()), base: None };
    let mut entries: Vec<Entry> = Vec::new();
    for (index, item) in split(text).into_iter().enumerate() {
        let (key, value) = match item.split_once('=') {
            Some((key, value)) => (key.to_owned(), Value::Text(value.to_owned())),
            None if item.is_empty() => return fail(empty_item(text, bare.key)),
            None if index == 0 => {
                let (key, value) = bare.read(&item);
                (key.to_owned(), Value::Text(value.to_owned()))
            }
            None => (item, Value::Present),
        };
        if key.is_empty() {
            return fail(format!("`=` has no key before it; write {}=VALUE", bare.key));
        }
        let known = entries.iter_mut().find(|entry| entry.key == key);
        match (known.map(|entry| &mut entry.node.value), bare.lists.contains(&key.as_str())) {
            (Some(Value::List(values)), true) => values.push(node(value)),
            (Some(_), _) => return fail(format!("`{key}` is given twice")),
            (None, true) => {
                entries.push(Entry { key, node: node(Value::List(vec![node(value)])) });
            }
            (None, false) => entries.push(Entry { key, node: node(value) }),
        }
    }
    Ok(node(Value::Table(entries)))
}

/// Returns the value of a flag that is not a list of keys.
pub(crate) fn plain(flag: &str, text: &str) -> Node {
    let origin = Origin::Flag { flag: flag.to_owned(), text: text.to_owned() };
    Node { value: Value::Text(text.to_owned()), origin: Some(origin), base: None }
}

fn empty_item(text: &str, bare_key: &str) -> String {
    match text {
        "" => format!("the value is empty; write for example {bare_key}=VALUE"),
        _ => "there is an empty item between two commas or at an end (a comma inside a value is \
            written `,,`)"
            .to_owned(),
    }
}

/// Splits at single commas. Two commas are one comma of the value.
fn split(text: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        if char == ',' && chars.next_if_eq(&',').is_none() {
            items.push(String::new());
        } else if let Some(item) = items.last_mut() {
            item.push(char);
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: Bare =
        Bare { key: "path", prefixes: &["ram", "null"], lists: &["tag"], words: &[] };

    fn entries(text: &str) -> Vec<(String, Value)> {
        match parse("--disk", text, PATH).unwrap().value {
            Value::Table(entries) => {
                entries.into_iter().map(|entry| (entry.key, entry.node.value)).collect()
            }
            other => panic!("{other:?}"),
        }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn test_keyvalue_with_keys_keeps_them_in_order() {
        assert_eq!(
            entries("path=a.img,lun=3,readonly"),
            [
                ("path".into(), text("a.img")),
                ("lun".into(), text("3")),
                ("readonly".into(), Value::Present)
            ]
        );
    }

    #[test]
    fn test_keyvalue_bare_first_item_is_the_main_key() {
        assert_eq!(entries("a.img"), [("path".into(), text("a.img"))]);
    }

    #[test]
    fn test_keyvalue_bare_first_item_with_a_known_prefix_is_that_key() {
        assert_eq!(
            entries("ram:1G,lun=1"),
            [("ram".into(), text("1G")), ("lun".into(), text("1"))]
        );
        assert_eq!(entries("null:"), [("null".into(), text(""))]);
        for path in ["ramdisk:1", "./ram:1G", "a:b", "ram"] {
            assert_eq!(entries(path), [("path".into(), text(path))]);
        }
        assert_eq!(
            entries("path=ram:1G"),
            [("path".into(), text("ram:1G"))],
            "with its key it is a file"
        );
    }

    #[test]
    fn test_keyvalue_key_of_a_list_may_be_given_twice() {
        let values = entries("a.img,tag=x,lun=1,tag=y,,z");
        let [(_, _), (tag, Value::List(nodes)), (lun, _)] = &values[..] else {
            panic!("{values:?}")
        };
        let items: Vec<_> = nodes.iter().map(|node| node.value.clone()).collect();
        assert_eq!((tag.as_str(), lun.as_str()), ("tag", "lun"));
        assert_eq!(items, [text("x"), text("y,z")]);
    }

    #[test]
    fn test_keyvalue_value_with_equals_sign_is_split_at_the_first() {
        assert_eq!(entries("path=a=b"), [("path".into(), text("a=b"))]);
    }

    #[test]
    fn test_keyvalue_doubled_comma_belongs_to_the_value() {
        assert_eq!(
            entries("a,,b,lun=1"),
            [("path".into(), text("a,b")), ("lun".into(), text("1"))]
        );
        assert_eq!(entries("path=,,,,x"), [("path".into(), text(",,x"))]);
    }

    #[test]
    fn test_keyvalue_value_with_every_comma_doubled_reads_back() {
        for value in ["a", "a,b", ",", ",,", "a,,,b,"] {
            assert_eq!(
                entries(&format!("path={}", value.replace(',', ",,"))),
                [("path".into(), text(value))],
                "{value}"
            );
        }
    }

    #[test]
    fn test_keyvalue_malformed_text_names_flag_and_text() {
        for (bad, why) in [
            ("", "empty"),
            ("a.img,", "comma"),
            ("=x", "no key"),
            ("a.img,lun=1,lun=2", "`lun` is given twice"),
            ("a.img,path=b.img", "`path` is given twice"),
        ] {
            let error = parse("--disk", bad, PATH).unwrap_err().to_string();
            assert!(
                error.starts_with("--disk") && error.contains(bad) && error.contains(why),
                "{bad}: {error}"
            );
        }
    }
}
