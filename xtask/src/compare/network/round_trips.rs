//! Round trips over TCP: the guest's part is its init's, the host returns what it gets.

use guest_report::agent::{Action, RoundTrips};

use super::super::machine::Machine;
use super::tap::{ECHO_PORT, Tap};

/// Measures `count` round trips of one byte.
pub(super) fn measure(machine: &mut Machine, tap: &Tap, count: u32) -> Result<RoundTrips, String> {
    let address = format!("{}:{ECHO_PORT}", tap.host());
    machine.ask(Action::RoundTrips { address, count, bytes: 1 })
}
