//! The deserializer from a tree of placed values to typed values. Every error has the place of the
//! value at fault.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
/// In this deserializer, the path is relative to its file and must not be empty.
pub(crate) use synthvm_machine::host_path;

use super::error::{ConfigError, Origin};
use super::node::{Entry, Node, Value};

/// Converts `node` to its type.
pub(crate) fn from_node<T: for<'de> Deserialize<'de>>(node: &Node) -> Result<T, ConfigError> {
    T::deserialize(node)
}

/// Reads a host path like [`host_path`], for a key that may be absent.
pub(crate) fn optional_host_path<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    struct Given(#[serde(deserialize_with = "host_path")] PathBuf);
    Option::<Given>::deserialize(deserializer).map(|path| path.map(|Given(path)| path))
}

/// Reads a list of texts, or one text in place of a list of one. `expected` describes both.
pub(crate) fn one_or_more<'de, T, D>(
    deserializer: D,
    expected: &'static str,
) -> Result<Vec<T>, D::Error>
where
    T: FromStr<Err: fmt::Display>,
    D: Deserializer<'de>,
{
    struct OneOrMore<T>(&'static str, PhantomData<T>);

    impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for OneOrMore<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            text.parse().map(|one| vec![one]).map_err(E::custom)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut all = Vec::new();
            while let Some(text) = items.next_element::<String>()? {
                all.push(text.parse().map_err(serde::de::Error::custom)?);
            }
            Ok(all)
        }
    }

    deserializer.deserialize_any(OneOrMore(expected, PhantomData))
}

impl Node {
    fn unexpected(&self) -> Unexpected<'_> {
        match &self.value {
            Value::Text(text) => Unexpected::Str(text),
            Value::Bool(on) => Unexpected::Bool(*on),
            Value::Integer(number) => Unexpected::Signed(*number),
            Value::Odd(name) => Unexpected::Other(name),
            Value::Present => Unexpected::Other("a key without a value"),
            Value::List(_) => Unexpected::Other("a list"),
            Value::Table(_) => Unexpected::Other("a table"),
        }
    }

    fn must_be(&self, expected: &str) -> ConfigError {
        let error = <ConfigError as serde::de::Error>::invalid_type(self.unexpected(), &expected);
        self.place(error)
    }

    fn switch(&self) -> Result<bool, ConfigError> {
        match &self.value {
            Value::Bool(on) => Ok(*on),
            Value::Present => Ok(true),
            Value::Text(text) => match text.as_str() {
                "on" | "true" | "yes" => Ok(true),
                "off" | "false" | "no" => Ok(false),
                _ => Err(self.must_be("`on` or `off`")),
            },
            _ => Err(self.must_be("`on` or `off`")),
        }
    }

    fn number(&self) -> Result<u64, ConfigError> {
        let number = match &self.value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            // Rust or C would accept "+1" and blanks; in a configuration they are mistakes.
            Value::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().ok()
            }
            _ => None,
        };
        number.ok_or_else(|| self.must_be("a whole number, not negative"))
    }

    fn path(&self) -> Result<PathBuf, ConfigError> {
        match &self.value {
            Value::Text(text) if text.is_empty() => {
                Err(self.place(ConfigError::new("the path is empty")))
            }
            Value::Text(text) if text.contains('\0') => {
                Err(self.place(ConfigError::new("a path cannot contain a NUL")))
            }
            Value::Text(text) => Ok(self.base.as_deref().unwrap_or(Path::new("")).join(text)),
            _ => Err(self.must_be("a path")),
        }
    }
}

macro_rules! deserialize_numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
            visitor.visit_u64(self.number()?).map_err(|error| self.place(error))
        }
    )*};
}

impl<'de> Deserializer<'de> for &Node {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.value {
            Value::Text(text) => visitor.visit_str(text),
            Value::Bool(on) => visitor.visit_bool(*on),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::List(nodes) => visitor.visit_seq(Items(nodes.iter())),
            Value::Table(entries) => visitor.visit_map(Entries::new(entries)),
            Value::Odd(_) | Value::Present => {
                Err(<ConfigError as serde::de::Error>::invalid_type(self.unexpected(), &visitor))
            }
        }
        .map_err(|error| self.place(error))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_bool(self.switch()?).map_err(|error| self.place(error))
    }

    deserialize_numbers! { deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self).map_err(|error| self.place(error))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        match name {
            // The marker of `host_path`.
            "HostPath" => {
                let path = self.path()?;
                let path = path.to_str().ok_or_else(|| self.must_be("a path in UTF-8"))?.to_owned();
                visitor.visit_newtype_struct(path.into_deserializer())
            }
            _ => visitor.visit_newtype_struct(self),
        }
        .map_err(|error| self.place(error))
    }

    /// Accepts a word, a word with a value (`file=P`), or a table with one key.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let (word, content) = match &self.value {
            Value::Text(text) => match text.split_once('=') {
                Some((word, rest)) => {
                    (word, Some(Node { value: Value::Text(rest.to_owned()), ..self.clone() }))
                }
                None => (text.as_str(), None),
            },
            Value::Table(entries) => match entries.as_slice() {
                [Entry { key, node }] => (key.as_str(), Some(node.clone())),
                _ => return Err(self.must_be("a table with one key")),
            },
            _ => return Err(self.must_be("a word")),
        };
        visitor.visit_enum(Variant { word, content }).map_err(|error| self.place(error))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        match &self.value {
            Value::List(nodes) => {
                visitor.visit_seq(Items(nodes.iter())).map_err(|error| self.place(error))
            }
            _ => Err(self.must_be("a list; write [[name]] with double brackets for each")),
        }
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct
        map struct identifier ignored_any
    }
}

struct Items<'a>(std::slice::Iter<'a, Node>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, ConfigError> {
        self.0
            .next()
            .map(|node| seed.deserialize(node).map_err(|error| node.place(error)))
            .transpose()
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, Entry>,
    value: Option<&'a Node>,
}

impl<'a> Entries<'a> {
    fn new(entries: &'a [Entry]) -> Self {
        Entries { rest: entries.iter(), value: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, ConfigError> {
        let Some(Entry { key, node }) = self.rest.next() else { return Ok(None) };
        self.value = Some(node);
        let key = seed.deserialize(key.as_str().into_deserializer());
        key.map(Some).map_err(|error: ConfigError| node.place(error.about_key(node)))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, ConfigError> {
        let node = self.value.take().ok_or_else(|| ConfigError::new("a value without its key"))?;
        seed.deserialize(node).map_err(|error| node.place(error))
    }
}

impl ConfigError {
    /// Adds a hint: a key without a value in the text of a flag is often part of a value that
    /// contains a comma.
    fn about_key(self, node: &Node) -> ConfigError {
        match (&node.value, &node.origin) {
            (Value::Present, Some(Origin::Flag { .. })) => {
                ConfigError::new(format!("{self} (a comma inside a value is written `,,`)"))
            }
            _ => self,
        }
    }
}

struct Variant<'a> {
    word: &'a str,
    content: Option<Node>,
}

impl<'de> EnumAccess<'de> for Variant<'_> {
    type Error = ConfigError;
    type Variant = Content;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Content), ConfigError> {
        let variant = seed.deserialize(self.word.into_deserializer())?;
        Ok((variant, Content { word: self.word.to_owned(), node: self.content }))
    }
}

struct Content {
    word: String,
    node: Option<Node>,
}

impl<'de> VariantAccess<'de> for Content {
    type Error = ConfigError;

    fn unit_variant(self) -> Result<(), ConfigError> {
        match self.node {
            None => Ok(()),
            Some(_) => Err(ConfigError::new(format!("`{}` takes no value", self.word))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, ConfigError> {
        match &self.node {
            Some(node) => seed.deserialize(node),
            None => {
                Err(ConfigError::new(format!("`{0}` needs a value; write {0}=VALUE", self.word)))
            }
        }
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        _visitor: V,
    ) -> Result<V::Value, ConfigError> {
        Err(ConfigError::new("no option takes several values in a row"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, ConfigError> {
        Err(ConfigError::new("no option takes a table for a word"))
    }
}
