//! The rules between cards, and their default ids and addresses.

use std::collections::BTreeMap;

use super::super::VmConfig;
use super::super::identity::machine_name;
use super::{NetworkBackend, identity};

/// The most network cards of a machine. Each has channels with rings and threads of their own.
pub const MAX_CARDS: usize = 64;

/// Gives each card its id and its address, and checks that no two cards share what only one can
/// have.
///
/// # Errors
/// The index of the card at fault, and the message.
pub(in crate::config) fn complete(config: &mut VmConfig) -> Result<(), (usize, String)> {
    let machine = machine_name(config);
    if config.networks.len() > MAX_CARDS {
        return Err((MAX_CARDS, format!("a machine has at most {MAX_CARDS} network cards")));
    }
    for (index, card) in config.networks.iter_mut().enumerate() {
        let id = card.id.get_or_insert_with(|| format!("net{index}"));
        card.mac.get_or_insert_with(|| identity::address(&machine, id));
    }
    let mut seen = BTreeMap::new();
    for (index, card) in config.networks.iter().enumerate() {
        let id = card
            .id
            .iter()
            .map(|id| (format!("id={id}"), "give each card an id of its own with id="));
        let address = card
            .mac
            .iter()
            .map(|mac| (format!("mac={mac}"), "give each card an address of its own"));
        let pcap = card
            .pcap
            .iter()
            .map(|path| (format!("pcap={}", path.display()), "give each card a file of its own"));
        let backend = only_one(&card.backend).into_iter();
        for (value, remedy) in id.chain(address).chain(pcap).chain(backend) {
            let taken = format!("`{value}` is used by another card; {remedy}");
            if seen.insert(value, ()).is_some() {
                return Err((index, taken));
            }
        }
    }
    Ok(())
}

/// Returns the parts of the backend that one card can use, with the advice for the others.
fn only_one(backend: &NetworkBackend) -> Vec<(String, &'static str)> {
    match backend {
        NetworkBackend::Tap { .. } => vec![(backend.to_string(), "create one for each card")],
        NetworkBackend::TapDescriptors(descriptors) => {
            let numbers = descriptors.numbers().iter();
            numbers.map(|number| (format!("fd={number}"), "pass one for each queue")).collect()
        }
        NetworkBackend::Listen(path) | NetworkBackend::Connect(path) => {
            let remedy = "use `switch` between cards of one machine";
            vec![(format!("socket {}", path.display()), remedy)]
        }
        NetworkBackend::User { .. } | NetworkBackend::Switch(_) | NetworkBackend::Null => vec![],
    }
}
