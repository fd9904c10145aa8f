//! The names by which the guest's driver knows the network cards.

use crate::networks::NetworkSet;

/// The network cards of a machine, in the order of the configuration.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    cards: Vec<Adapter>,
}

#[derive(Debug)]
struct Adapter {
    id: String,
    address: String,
    instance: String,
}

/// The kinds of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AdapterKey {
    /// The MAC address in capitals: Linux finds a card by it to read its configuration.
    Address,
    /// The instance on the bus, in braces: Linux finds a card by it to set its configuration.
    Instance,
}

impl Adapters {
    pub(super) fn new(networks: &NetworkSet) -> Self {
        let adapter = |card: crate::networks::CardReport| Adapter {
            address: card.address.to_string().to_uppercase(),
            instance: format!("{{{}}}", card.instance),
            id: card.id,
        };
        Self { cards: networks.reports().into_iter().map(adapter).collect() }
    }

    /// Returns the name of the card `id`, or of the only one.
    ///
    /// # Errors
    /// There is no such card; or there is more than one, and `id` is `None`.
    pub(super) fn id(&self, id: Option<&str>, key: AdapterKey) -> Result<String, String> {
        let card = match (id, self.cards.as_slice()) {
            (_, []) => {
                return Err("the machine has no network card; start it with --net".to_owned());
            }
            (None, [only]) => only,
            (None, _) => return Err(format!("name a network card by --card: {}", self.names())),
            (Some(id), cards) => cards
                .iter()
                .find(|card| card.id == id)
                .ok_or_else(|| format!("there is no network card `{id}`: {}", self.names()))?,
        };
        Ok(match key {
            AdapterKey::Address => card.address.clone(),
            AdapterKey::Instance => card.instance.clone(),
        })
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.cards.iter().map(|card| card.id.as_str()).collect();
        format!("there are {}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_card_is_found_by_its_id_and_the_only_one_without() {
        let card = |id: &str| Adapter {
            id: id.to_owned(),
            address: format!("address of {id}"),
            instance: format!("instance of {id}"),
        };
        let none = Adapters::default();
        assert!(none.id(None, AdapterKey::Address).unwrap_err().contains("no network card"));
        let one = Adapters { cards: vec![card("net0")] };
        assert_eq!(one.id(None, AdapterKey::Address).unwrap(), "address of net0");
        let two = Adapters { cards: vec![card("net0"), card("lan")] };
        assert!(two.id(None, AdapterKey::Address).unwrap_err().contains("net0, lan"));
        assert!(two.id(Some("wan"), AdapterKey::Address).unwrap_err().contains("`wan`"));
        assert_eq!(two.id(Some("lan"), AdapterKey::Instance).unwrap(), "instance of lan");
    }
}
