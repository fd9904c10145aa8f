//! The services: their GUIDs, message types and versions.

use std::fmt;

use serde::{Deserialize, Serialize};
use vmbus_protocol::Guid;

use super::Version;

/// A service. Source: docs/spec/integration-services.md, sections 1 and 2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// Asks the guest to power off, restart or hibernate.
    Shutdown,
    /// Sets the guest's clock.
    TimeSync,
    /// Tells whether the guest is alive.
    Heartbeat,
    /// Key-value pairs (KVP): data exchange, and IP addresses.
    Kvp,
    /// Volume shadow copies (VSS): freezes file systems for a backup.
    Vss,
    /// Copies files to the guest.
    Copy,
}

impl ServiceKind {
    /// All services, in the order in which they are offered.
    pub const ALL: [Self; 6] =
        [Self::Shutdown, Self::TimeSync, Self::Heartbeat, Self::Kvp, Self::Vss, Self::Copy];

    /// Returns the name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shutdown => "shutdown",
            Self::TimeSync => "time-sync",
            Self::Heartbeat => "heartbeat",
            Self::Kvp => "kvp",
            Self::Vss => "vss",
            Self::Copy => "copy",
        }
    }

    /// Returns the class, by which guests load a driver.
    pub fn class(self) -> Guid {
        match self {
            Self::Shutdown => Guid::new(
                0x0e0b_6031,
                0x5213,
                0x4934,
                [0x81, 0x8b, 0x38, 0xd9, 0x0c, 0xed, 0x39, 0xdb],
            ),
            Self::TimeSync => Guid::new(
                0x9527_e630,
                0xd0ae,
                0x497b,
                [0xad, 0xce, 0xe8, 0x0a, 0xb0, 0x17, 0x5c, 0xaf],
            ),
            Self::Heartbeat => Guid::new(
                0x5716_4f39,
                0x9115,
                0x4e78,
                [0xab, 0x55, 0x38, 0x2f, 0x3b, 0xd5, 0x42, 0x2d],
            ),
            Self::Kvp => Guid::new(
                0xa9a0_f4e7,
                0x5a45,
                0x4d96,
                [0xb8, 0x27, 0x8a, 0x84, 0x1e, 0x8c, 0x03, 0xe6],
            ),
            Self::Vss => Guid::new(
                0x35fa_2e29,
                0xea23,
                0x4236,
                [0x96, 0xae, 0x3a, 0x6e, 0xba, 0xcb, 0xa4, 0x40],
            ),
            Self::Copy => Guid::new(
                0x34d1_4be3,
                0xdee4,
                0x41c8,
                [0x9a, 0xe7, 0x6b, 0x17, 0x49, 0x77, 0xc1, 0x92],
            ),
        }
    }

    /// Returns the instance. That of file copy is fixed: the guest's daemon has its path built in.
    pub fn instance(self) -> Guid {
        match self {
            Self::Shutdown => Guid::new(
                0xb665_0ff7,
                0x33bc,
                0x4840,
                [0x80, 0x48, 0xe0, 0x67, 0x67, 0x86, 0xf3, 0x93],
            ),
            Self::TimeSync => Guid::new(
                0x2dd1_ce17,
                0x079e,
                0x403c,
                [0xb3, 0x52, 0xa1, 0x92, 0x1e, 0xe2, 0x07, 0xee],
            ),
            Self::Heartbeat => Guid::new(
                0xfd14_9e91,
                0x82e0,
                0x4a7d,
                [0xaf, 0xa6, 0x2a, 0x41, 0x66, 0xcb, 0xd7, 0xc0],
            ),
            Self::Kvp => Guid::new(
                0x242f_f919,
                0x07db,
                0x4180,
                [0x9c, 0x2e, 0xb8, 0x6c, 0xb6, 0x8c, 0x8c, 0x55],
            ),
            Self::Vss => Guid::new(
                0x2450_ee40,
                0x33bf,
                0x4fbd,
                [0x89, 0x2e, 0x9f, 0xb0, 0x6e, 0x92, 0x14, 0xcf],
            ),
            Self::Copy => Guid::new(
                0xeb76_5408,
                0x105f,
                0x49b6,
                [0xb4, 0xaa, 0xc1, 0x23, 0xb6, 0x4d, 0x17, 0xd4],
            ),
        }
    }

    /// Returns the type of the service's messages.
    pub(super) fn message_type(self) -> u16 {
        match self {
            Self::Heartbeat => 1,
            Self::Kvp => 2,
            Self::Shutdown => 3,
            Self::TimeSync => 4,
            Self::Vss => 5,
            Self::Copy => 7,
        }
    }

    /// Returns the versions of the framework that the host offers.
    pub(super) fn frameworks(self) -> &'static [Version] {
        const NEW: &[Version] = &[Version::new(3, 0)];
        const BOTH: &[Version] = &[Version::new(1, 0), Version::new(3, 0)];
        match self {
            Self::Vss | Self::Copy => NEW,
            Self::Shutdown | Self::TimeSync | Self::Heartbeat | Self::Kvp => BOTH,
        }
    }

    /// Returns the versions of the messages that the host offers.
    pub(super) fn versions(self) -> &'static [Version] {
        const fn version(major: u16, minor: u16) -> Version {
            Version::new(major, minor)
        }
        const SHUTDOWN: &[Version] = &[version(1, 0), version(3, 0), version(3, 1), version(3, 2)];
        const TIME: &[Version] = &[version(1, 0), version(3, 0), version(4, 0)];
        const HEARTBEAT: &[Version] = &[version(1, 0), version(3, 0)];
        // 5.0 has another form of addresses; guests that speak it speak 4.0, too.
        const KVP: &[Version] = &[version(1, 0), version(3, 0), version(4, 0)];
        const VSS: &[Version] = &[version(4, 0), version(5, 0)];
        const COPY: &[Version] = &[version(1, 0), version(1, 1)];
        match self {
            Self::Shutdown => SHUTDOWN,
            Self::TimeSync => TIME,
            Self::Heartbeat => HEARTBEAT,
            Self::Kvp => KVP,
            Self::Vss => VSS,
            Self::Copy => COPY,
        }
    }
}

impl fmt::Display for ServiceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
