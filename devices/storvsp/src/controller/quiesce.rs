//! Save and restore of a controller's channels.
//!
//! A channel can be saved once its worker is quiesced ([`vmbus_device::Workers::pause`]). A worker
//! with requests in a stalled backend is quiesced when they complete; its channel cannot be saved
//! before. The restored guest then loses the channel and gets a new offer of the controller, so it
//! relies on the result of none of these requests.

use std::sync::Arc;

use vmbus_host::{Channel, OpenError};

use super::{Inner, ScsiController};
use crate::channel::StorageHandler;
use crate::lun_set::Luns;
use crate::protocol::{Negotiation, Session, Version};
use crate::saved::{RestoreError, SavedChannel, SavedController};

impl ScsiController {
    /// See [`vmbus_host::Device::save`].
    pub(super) fn save_channel(&self, subchannel: u16) -> Option<Vec<u8>> {
        let quiesced = self.inner.luns.workers().quiesced(subchannel)?;
        // Disks may have been added since the channel was quiesced.
        let has_notice = quiesced.state.map(|notified| notified != self.inner.luns.notices());
        let controller = (subchannel == 0).then(|| self.inner.saved());
        SavedChannel::new(quiesced.packets, has_notice, controller).to_bytes()
    }

    /// See [`vmbus_host::Device::restore`]. Checks the whole state before it changes anything.
    pub(super) fn restore_channel(&self, channel: Channel, state: &[u8]) -> Result<(), OpenError> {
        let is_primary = channel.subchannel() == 0;
        let refused = |error: RestoreError| OpenError(error.to_string());
        let saved = SavedChannel::from_bytes(state, is_primary).map_err(refused)?;
        let has_more = match &saved.controller {
            Some(controller) => self.inner.restore(controller).map_err(refused)?,
            None => false,
        };
        let negotiation = Arc::clone(&self.inner.negotiation());
        let session = Session::restored(negotiation, is_primary, self.inner.max_subchannels);
        let notices = self.inner.luns.notices();
        let notified = saved.news.map(|notice| if notice || has_more { u64::MAX } else { notices });
        let handler =
            StorageHandler::restored(Arc::clone(&self.inner.luns), session, &channel, notified);
        self.inner
            .luns
            .workers()
            .restore(channel, handler, saved.packets, notified)
            .map_err(|error| OpenError(format!("cannot start a storage worker: {error}")))
    }
}

impl Inner {
    fn saved(&self) -> SavedController {
        let negotiation = Arc::clone(&self.negotiation());
        SavedController {
            stage: negotiation.stage() as u8,
            version: negotiation.version().map_or(0, Version::number),
            units: self.luns.luns().iter().flatten().map(|lun| lun.save()).collect(),
        }
    }

    /// Restores the shared state. Returns true if the controller has disks that were not saved.
    fn restore(&self, saved: &SavedController) -> Result<bool, RestoreError> {
        let negotiation = Negotiation::restored(saved.stage, saved.version)
            .ok_or(RestoreError::Damaged("its stage of initialisation is invalid"))?;
        let luns = self.luns.luns();
        let at = |luns: &Luns, lun: u8| {
            luns.get(usize::from(lun)).and_then(Option::as_ref).map(Arc::clone)
        };
        for unit in &saved.units {
            let lun = at(&luns, unit.lun);
            lun.ok_or(RestoreError::Disk { lun: unit.lun, why: "the LUN has no disk" })?
                .check(unit)?;
        }
        for unit in &saved.units {
            at(&luns, unit.lun).into_iter().for_each(|lun| lun.restore(unit));
        }
        let has_more = luns.iter().flatten().count() > saved.units.len();
        drop(luns);
        *self.negotiation() = Arc::new(negotiation);
        Ok(has_more)
    }
}
