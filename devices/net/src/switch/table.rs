//! Which port an address is on.

use std::collections::{HashMap, VecDeque};

use crate::Mac;

/// Addresses that are kept for each port. One port cannot push out the addresses of another.
const PER_PORT: usize = 256;

/// The learned addresses.
#[derive(Debug)]
pub(super) struct Table {
    ports: HashMap<Mac, usize>,
    /// The addresses that each port had learned, oldest first; some may have moved on since.
    learned: Vec<VecDeque<Mac>>,
}

impl Table {
    pub(super) fn new(ports: usize) -> Self {
        Self { ports: HashMap::new(), learned: (0..ports).map(|_| VecDeque::new()).collect() }
    }

    /// Returns the port of an address; `None` for unknown and group addresses.
    pub(super) fn find(&self, mac: Mac) -> Option<usize> {
        self.ports.get(&mac).copied()
    }

    /// Notes that `mac` is on `port`. Group addresses are not learned.
    pub(super) fn learn(&mut self, mac: Mac, port: usize) {
        let Some(learned) = self.learned.get_mut(port).filter(|_| mac[0] & 1 == 0) else { return };
        if learned.len() >= PER_PORT
            && let Some(oldest) = learned.pop_front()
            && self.ports.get(&oldest) == Some(&port)
        {
            self.ports.remove(&oldest);
        }
        learned.push_back(mac);
        self.ports.insert(mac, port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u16) -> Mac {
        let [high, low] = number.to_be_bytes();
        [2, 0, 0, 0, high, low]
    }

    #[test]
    fn test_table_flooded_from_one_port_stays_bounded_and_keeps_other_ports() {
        let mut table = Table::new(2);
        table.learn(mac(60_000), 1);
        for number in 0..2000 {
            table.learn(mac(number), 0);
        }
        assert_eq!(table.ports.len(), PER_PORT + 1);
        assert_eq!(table.find(mac(60_000)), Some(1));
        assert_eq!((table.find(mac(0)), table.find(mac(1999))), (None, Some(0)));
    }

    #[test]
    fn test_table_with_an_address_that_moves_has_the_new_port() {
        let mut table = Table::new(2);
        for _ in 0..PER_PORT * 3 {
            table.learn(mac(1), 0);
            table.learn(mac(1), 1);
        }
        assert_eq!(table.find(mac(1)), Some(1));
        table.learn([1, 0, 0, 0, 0, 1], 0);
        table.learn(mac(2), 9);
        assert_eq!(table.ports.len(), 1, "neither group addresses nor unknown ports");
    }
}
