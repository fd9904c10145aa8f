//! Names of cards that are the same at every start: the instance on the bus and the default
//! address.
//!
//! Both follow from the card's id, so a card with an id keeps them when other cards come before
//! it. The address follows from the machine too: two machines on one network have different ones.

use sha2::{Digest, Sha256};
use synthvm_netvsp::protocol::MacAddress;
use vmbus_protocol::Guid;

/// Returns the instance of the card `id` on the bus of its machine: a GUID of version 8 (RFC 9562,
/// section 5.8), from SHA-256.
pub(crate) fn instance(id: &str) -> Guid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest(&["instance", id])[..16]);
    // The third field is little-endian on the wire: its last byte has the version.
    bytes[7] = (bytes[7] & 0x0F) | 0x80;
    bytes[8] = (bytes[8] & 0x3F) | 0x80;
    Guid::from_bytes(bytes)
}

/// Returns the default address of the card `id` in the machine `machine`: a locally administered
/// one, from SHA-256.
pub(super) fn address(machine: &str, id: &str) -> MacAddress {
    let [a, b, c, d, e, f, ..] = digest(&["address", machine, id]);
    MacAddress([(a & 0xFC) | 0x02, b, c, d, e, f])
}

/// Returns the digest of words, none of which can take a byte of another one.
fn digest(words: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"SynthVM network card");
    for word in words {
        hash.update((word.len() as u64).to_le_bytes());
        hash.update(word);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Guests keep their settings by these values: a change of the rule would lose them.
    #[test]
    fn test_identity_is_the_same_in_every_version() {
        assert_eq!(instance("net0").to_string(), "07ab6ce4-0780-8f67-b195-1ac7aaece4d2");
        assert_eq!(address("/vm/root.img", "net0").to_string(), "36:6b:ec:10:a4:51");
    }

    #[test]
    fn test_identity_of_other_cards_and_machines_differs() {
        assert_ne!(instance("net0"), instance("net1"));
        assert_ne!(address("a", "net0"), address("a", "net1"));
        assert_ne!(address("a", "net0"), address("b", "net0"));
        assert_ne!(address("an", "et0"), address("a", "net0"));
    }

    #[test]
    fn test_identity_address_is_locally_administered_and_of_one_station() {
        for card in 0..100 {
            let address = address("machine", &format!("net{card}"));
            assert_eq!(address.0[0] & 3, 2, "{address}");
        }
    }
}
