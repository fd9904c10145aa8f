//! The table of disks, by name and place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, Weak};

use synthvm_block::{Backend, FixedMemory, Throttle};
use synthvm_storvsp::{DiskReport, ScsiController};
use vmbus_gpadl::GuestRam;
use vmbus_host::VmBus;

use super::DiskError;
use super::medium::Unused;
use crate::config::{MAX_CONTROLLERS, MAX_LUNS};
use crate::control::DiskPlace;

/// A controller's number and a LUN.
pub(super) type Place = (u32, u8);

/// The disks of a machine. Reports take its lock, so no method may block.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) controllers: BTreeMap<u32, ScsiController>,
    pub(super) disks: BTreeMap<Place, Entry>,
    /// The bus for offers of new controllers. Set while the machine runs.
    pub(super) bus: Option<Bus>,
    /// The guest's memory, once it is set.
    pub(super) ram: Option<GuestRam>,
    /// The pinned guest memory. It exists while a disk uses it.
    pub(super) fixed: Weak<FixedMemory>,
}

#[derive(Clone)]
pub(super) struct Bus(pub(super) VmBus);

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VmBus")
    }
}

/// A disk record.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: Option<String>,
    pub(super) medium: Held,
}

/// The backend behind a logical unit.
#[derive(Debug)]
pub(super) enum Held {
    Disk(HeldDisk),
    /// A drive. The guest may eject the disc at any time, so only the controller keeps the image.
    /// Each drop notifier disconnects when the last worker has dropped its view of a disc.
    Dvd(Vec<Unused>),
}

/// The record of a disk's backend.
#[derive(Debug)]
pub(super) struct HeldDisk {
    pub(super) image: Arc<dyn Backend>,
    /// Drop notifier: it disconnects when the last worker has dropped its view of the image.
    pub(super) unused: Unused,
    /// The throttle of a disk with limits.
    pub(super) throttle: Option<Arc<Throttle>>,
    /// The image's path, if the disk needs pinned guest memory.
    pub(super) fixed: Option<PathBuf>,
}

impl Table {
    /// Returns the place for a new unit: the requested LUN, or the lowest free one.
    pub(super) fn place(
        &self,
        controller: u32,
        lun: Option<u8>,
        id: Option<&str>,
    ) -> Result<Place, DiskError> {
        let refuse = |message: String| Err(DiskError::Refused(message));
        if controller >= MAX_CONTROLLERS {
            return refuse(format!(
                "a controller's number is 0 to {}, not {controller}",
                MAX_CONTROLLERS - 1
            ));
        }
        if let Some(id) = id.filter(|id| self.find(id).is_ok()) {
            return refuse(format!("the id `{id}` is used by another disk"));
        }
        let is_free = |lun: &u8| !self.disks.contains_key(&(controller, *lun));
        match lun {
            Some(lun) if is_free(&lun) => Ok((controller, lun)),
            Some(lun) => {
                refuse(format!("LUN {lun} on controller {controller} is used by another disk"))
            }
            None => {
                let free = (0..MAX_LUNS).find(is_free).ok_or(DiskError::Full(controller))?;
                Ok((controller, free))
            }
        }
    }

    /// Returns the name of the unit at `place`, as users see it.
    pub(super) fn describe(&self, place: Place) -> DiskPlace {
        DiskPlace { id: self.name(place), controller: place.0, lun: place.1 }
    }

    /// Returns the controller and the LUN of the unit named `id`.
    pub(super) fn unit(&self, id: &str) -> Result<(ScsiController, u8), DiskError> {
        let (number, lun) = self.find(id)?;
        let controller = self.controllers.get(&number).cloned();
        controller.map(|controller| (controller, lun)).ok_or_else(|| self.unknown(id))
    }

    /// Returns the place of the unit named `id`, or of the unit at `id` in the form
    /// `controller:lun`.
    pub(super) fn find(&self, id: &str) -> Result<Place, DiskError> {
        let by_id = self.disks.iter().find(|(_, entry)| entry.id.as_deref() == Some(id));
        let by_place = || self.disks.keys().copied().find(|place| name(None, *place) == id);
        by_id.map(|(place, _)| *place).or_else(by_place).ok_or_else(|| self.unknown(id))
    }

    /// Records the drop notifier of a disc inserted into the drive at `place`.
    pub(super) fn add_disc(&mut self, place: Place, unused: Unused) {
        if let Some(Entry { medium: Held::Dvd(discs), .. }) = self.disks.get_mut(&place) {
            discs.retain(|disc| disc.try_recv() == Err(TryRecvError::Empty));
            discs.push(unused);
        }
    }

    fn unknown(&self, id: &str) -> DiskError {
        let known = self.disks.keys().map(|place| self.name(*place)).collect();
        DiskError::Unknown { id: id.to_owned(), known }
    }

    pub(super) fn name(&self, place: Place) -> String {
        name(self.disks.get(&place).and_then(|entry| entry.id.as_deref()), place)
    }

    /// Returns the reports of all present units.
    pub(super) fn reports(&self) -> impl Iterator<Item = (Place, DiskReport)> {
        let reports = self.controllers.values().flat_map(ScsiController::disks);
        reports.map(|report| ((report.controller, report.lun), report))
    }
}

/// Returns the name of a unit: `id` if it has one, else `controller:lun`.
pub(super) fn name(id: Option<&str>, (controller, lun): Place) -> String {
    id.map_or_else(|| format!("{controller}:{lun}"), str::to_owned)
}
