//! Values that the guest sends once in a session (netvsc sections 2 and 3).

use super::super::limits::{DEFAULT_MAX_FRAME, LARGEST_MAX_FRAME, MAX_RANGES, MAX_RANGES_NDIS_5};
use super::version::NvspVersion;

/// Features of the guest, from NDIS_CONFIG: the 64-bit word of the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    /// The guest uses a virtual function if there is one.
    pub const SRIOV: Self = Self(1 << 2);
    /// The guest sends and accepts VLAN tags beside frames.
    pub const VLAN: Self = Self(1 << 3);
    /// The guest accepts changes of the link speed.
    pub const TEAMING: Self = Self(1 << 5);
    /// The guest accepts coalesced TCP segments.
    pub const RECEIVE_COALESCING: Self = Self(1 << 7);

    /// Returns true if all features of `other` are present.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Removes the features that `version` does not have.
    pub(super) fn limited_to(self, version: NvspVersion) -> Self {
        let mut removed = Self::default();
        if !version.has_data_paths() {
            removed.0 |= Self::SRIOV.0;
        }
        if !version.has_subchannels() {
            removed.0 |= Self::TEAMING.0;
        }
        if !version.has_receive_coalescing() {
            removed.0 |= Self::RECEIVE_COALESCING.0;
        }
        Self(self.0 & !removed.0)
    }
}

/// Version of the guest's network driver interface (NDIS). It selects the OIDs and the revision of
/// structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NdisVersion {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
}

impl NdisVersion {
    /// 6.30, which introduced receive-side scaling for virtual machines.
    pub const V6_30: Self = Self { major: 6, minor: 30 };
    /// 6.1.
    pub const V6_1: Self = Self { major: 6, minor: 1 };
    /// 6.0.
    pub const V6_0: Self = Self { major: 6, minor: 0 };
    /// 5.0: the oldest, assumed of a guest that sends no version.
    pub const V5_0: Self = Self { major: 5, minor: 0 };

    /// Returns the number of ranges, each an RNDIS message, that a transfer-page packet to the
    /// guest may have: 375, or 8 before NDIS 6.0 (netvsc section 5).
    pub fn max_ranges(self) -> usize {
        if self >= Self::V6_0 { MAX_RANGES } else { MAX_RANGES_NDIS_5 }
    }
}

/// Returns the longest frame to use, in bytes with the Ethernet header, when a guest configures
/// `requested`: the same within 1514..=9216, otherwise 1514.
pub fn max_frame(requested: u32) -> u32 {
    if (DEFAULT_MAX_FRAME..=LARGEST_MAX_FRAME).contains(&requested) {
        requested
    } else {
        DEFAULT_MAX_FRAME
    }
}
