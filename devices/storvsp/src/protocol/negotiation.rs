//! The stage of initialisation, shared by all channels of a controller (spec storvsc section 3).

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use synthvm_storvsc::Version;
use vmbus_protocol::wire_enum;

wire_enum! {
    /// The stages of initialisation, in order.
    #[derive(Default, PartialOrd, Ord)]
    pub enum Stage: u8 {
        /// Expecting BEGIN_INITIALIZATION.
        #[default]
        Begin = 0,
        /// Expecting QUERY_PROTOCOL_VERSION.
        Version = 1,
        /// Expecting QUERY_PROPERTIES.
        Properties = 2,
        /// Expecting END_INITIALIZATION; CREATE_SUB_CHANNELS is allowed.
        End = 3,
        /// Initialised: requests are executed.
        Ready = 4,
    }
}

/// The shared state of one controller's session. Only the primary channel's worker advances it;
/// subchannels read it.
#[derive(Debug, Default)]
pub struct Negotiation {
    stage: AtomicU8,
    version: AtomicU16,
}

impl Negotiation {
    /// Returns the saved state, or `None` if `stage` is invalid.
    pub(crate) fn restored(stage: u8, version: u16) -> Option<Self> {
        let stage = Stage::from_number(stage)?;
        Some(Self { stage: AtomicU8::new(stage.number()), version: AtomicU16::new(version) })
    }

    /// Resets the state, as the primary channel was opened again.
    pub fn restart(&self) {
        self.set_stage(Stage::Begin);
        self.version.store(0, Ordering::Relaxed);
    }

    /// Returns the stage of initialisation.
    pub fn stage(&self) -> Stage {
        Stage::from_number(self.stage.load(Ordering::Acquire)).unwrap_or(Stage::Ready)
    }

    /// Returns the agreed version, if any.
    pub fn version(&self) -> Option<Version> {
        Version::from_number(self.version.load(Ordering::Relaxed))
    }

    /// Returns true if requests may be executed.
    pub fn is_ready(&self) -> bool {
        self.stage() == Stage::Ready
    }

    pub(super) fn set_stage(&self, stage: Stage) {
        self.stage.store(stage.number(), Ordering::Release);
    }

    pub(super) fn set_version(&self, version: Version) {
        self.version.store(version.number(), Ordering::Relaxed);
    }
}
