//! Types of other crates in their saved form, for `serde(with = ...)`.

/// GUIDs in their saved form.
pub(crate) mod guid {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use vmbus_protocol::Guid;

    pub(crate) fn serialize<S: Serializer>(guid: &Guid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(guid)
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(deserializer: D) -> Result<Guid, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|_| D::Error::custom("not a GUID"))
    }
}

/// Versions as their word on the wire.
pub(crate) mod version {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use vmbus_protocol::Version;

    pub(crate) fn serialize<S: Serializer>(
        version: &Version,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(version.word())
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(
        deserializer: D,
    ) -> Result<Version, D::Error> {
        let word = u32::deserialize(deserializer)?;
        Version::from_word(word).ok_or_else(|| D::Error::custom("no version of VMBus"))
    }
}

/// User data of an open: its array is too long for serde.
pub(crate) mod user_data {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        bytes: &[u8; 120],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(bytes)
    }

    pub(crate) fn deserialize<'a, D: Deserializer<'a>>(
        deserializer: D,
    ) -> Result<[u8; 120], D::Error> {
        Vec::<u8>::deserialize(deserializer)?
            .try_into()
            .map_err(|_| D::Error::custom("user data is 120 bytes"))
    }
}
