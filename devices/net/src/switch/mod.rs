//! A learning Ethernet switch in this process, for traffic between guests and for tests.

mod port;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock};

use crate::software::Work;
use crate::{Frame, Mac};
use port::Port;
pub use port::SwitchPort;
use table::Table;

/// Bytes of frames that wait for one port's receiver.
const CAPACITY: usize = 1 << 20;

/// A switch of a fixed number of ports. It learns addresses from the frames that are sent; frames
/// to group and unknown addresses go to all other ports.
///
/// All transmit offloads are there. A frame to a port that has not selected the receive offloads for
/// it is completed and split on the way.
///
/// A frame to a port whose receiver is too slow is dropped and counted there
/// ([`Counters::receive_overflow`](crate::Counters::receive_overflow)): one slow guest never stops
/// another one.
#[derive(Debug)]
pub struct Switch {
    shared: Arc<Shared>,
}

/// The state that all ports share.
#[derive(Debug)]
struct Shared {
    ports: Vec<Port>,
    table: RwLock<Table>,
}

impl Switch {
    /// Returns a switch of `ports` ports.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(ports: usize) -> std::io::Result<Self> {
        let table = RwLock::new(Table::new(ports));
        let ports = (0..ports).map(|_| Port::new()).collect::<Result<_, _>>()?;
        Ok(Self { shared: Arc::new(Shared { ports, table }) })
    }

    /// Returns port `index`, as the backend of one card. `None`: there is no such port.
    pub fn port(&self, index: usize) -> Option<SwitchPort> {
        (index < self.shared.ports.len()).then(|| SwitchPort::new(Arc::clone(&self.shared), index))
    }
}

impl Shared {
    /// Delivers a frame that was sent on port `from`.
    fn forward(&self, from: usize, frame: &Frame<'_>, work: &mut Work) {
        let mut addresses = [0; 12];
        frame.pieces.copy_to(0, &mut addresses);
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5] = addresses;
        let (to, source): (Mac, Mac) = ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]);
        self.learn(source, from);
        let known = self.table.read().unwrap_or_else(PoisonError::into_inner).find(to);
        match known {
            // The receiver is on the sender's own port: it has the frame.
            Some(port) if port == from => {}
            Some(port) => self.deliver(port, frame, work),
            None => {
                for port in (0..self.ports.len()).filter(|port| *port != from) {
                    self.deliver(port, frame, work);
                }
            }
        }
    }

    fn learn(&self, source: Mac, port: usize) {
        let known = self.table.read().unwrap_or_else(PoisonError::into_inner).find(source);
        if known != Some(port) {
            self.table.write().unwrap_or_else(PoisonError::into_inner).learn(source, port);
        }
    }

    fn deliver(&self, port: usize, frame: &Frame<'_>, work: &mut Work) {
        if let Some(port) = self.ports.get(port) {
            port.deliver(frame, work);
        }
    }
}
