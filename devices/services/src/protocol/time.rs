//! Time synchronisation. Source: docs/spec/integration-services.md, section 5.

use super::Version;

/// 100 ns units from 1601-01-01 to 1970-01-01.
pub const UNIX_EPOCH: u64 = 116_444_736_000_000_000;

/// A moment in both clocks, in units of 100 ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostTime {
    /// UTC since 1601-01-01.
    pub utc: u64,
    /// The guest's reference time (MSR 0x40000020) at this moment.
    pub reference: u64,
}

/// The effect that a message has on the guest's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeMessage {
    /// The guest sets its clock.
    Sync,
    /// The guest may use the time to discipline its clock.
    Sample,
}

impl TimeMessage {
    fn flags(self) -> u8 {
        match self {
            Self::Sync => 1,
            Self::Sample => 2,
        }
    }
}

/// Returns the body of a message.
pub fn message(version: Version, kind: TimeMessage, time: HostTime) -> Vec<u8> {
    let times = [time.utc, time.reference].map(u64::to_le_bytes).concat();
    if version >= Version::new(4, 0) {
        // Flags, leap flags, stratum; Linux requires 22 bytes.
        [&times[..], &[kind.flags(), 0, 0, 0, 0, 0, 0, 0]].concat()
    } else {
        // The round trip time, then the flags.
        [&times[..], &[0; 8], &[kind.flags(), 0, 0, 0, 0, 0, 0, 0]].concat()
    }
}
