//! All disks of a machine, by controller and LUN.

use std::collections::BTreeMap;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use synthvm_storage::backend::{self, Backend};
use synthvm_storage::{DiskOptions, DiskReport, FlushError, ScsiController};
use vmbus_host::VmBus;

use super::DiskError;
use super::medium::{Medium, Unused, open};
use crate::config::{ByteSize, DiskConfig, MAX_CONTROLLERS, MAX_LUNS, check_names};
use crate::control::DiskPlace;

/// How long a disk's last requests may take when it is removed, before whoever removes it is told that they still run.
const LAST_REQUESTS: Duration = Duration::from_secs(30);

/// All disks of a machine. Changed by one caller at a time; the guest's I/O goes on meanwhile.
#[derive(Debug)]
pub struct DiskSet {
    subchannels: u16,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    controllers: BTreeMap<u32, ScsiController>,
    disks: BTreeMap<(u32, u8), Entry>,
    /// Set while the machine runs: where new controllers are offered.
    bus: Option<Bus>,
}

struct Bus(VmBus);

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VmBus")
    }
}

#[derive(Debug)]
struct Entry {
    id: Option<String>,
    image: Arc<dyn Backend>,
    unused: Unused,
}

impl DiskSet {
    /// No disks, for a machine of so many vCPUs: that many channels has each controller at most.
    pub fn new(cpus: u8) -> Self {
        DiskSet { subchannels: u16::from(cpus).saturating_sub(1), inner: Mutex::default() }
    }

    /// Opens the disk's image, locks it, and puts it on its controller. A running guest is told to look.
    ///
    /// # Errors
    /// The image cannot be used, its place or its name is taken, or the controller cannot be offered. Nothing has changed then.
    pub fn add(&self, disk: &DiskConfig) -> Result<DiskPlace, DiskError> {
        check_names(disk).map_err(DiskError::Refused)?;
        let mut inner = self.lock();
        let (controller, lun) = (disk.controller, inner.lun(disk)?);
        if let Some(id) = &disk.id
            && inner.find(id).is_ok()
        {
            return Err(DiskError::Refused(format!("the id `{id}` is used by another disk")));
        }
        let image = open(disk)?;
        let (medium, unused) = Medium::new(Arc::clone(&image), disk);
        let options = DiskOptions { serial: disk.serial.clone(), label: disk.path.display().to_string() };
        let known = inner.controllers.get(&controller).cloned();
        let is_new = known.is_none();
        let device = known.unwrap_or_else(|| ScsiController::new(controller, self.subchannels));
        device.add_disk(lun, Arc::new(medium), options)?;
        if is_new {
            // With its disk on it, so that the guest's first look finds it.
            if let Some(Bus(bus)) = &inner.bus {
                bus.offer(Box::new(device.clone()))
                    .map_err(|error| DiskError::Offer(controller, error.to_string()))?;
            }
            inner.controllers.insert(controller, device);
        }
        let place = DiskPlace { id: name(disk.id.as_deref(), (controller, lun)), controller, lun };
        inner.disks.insert((controller, lun), Entry { id: disk.id.clone(), image, unused });
        Ok(place)
    }

    /// Takes the disk `id` away. When this returns, what the guest began is finished and durable, and the image is closed.
    ///
    /// # Errors
    /// There is no such disk; or it is gone, but its requests do not end or its last writes are not durable.
    pub fn remove(&self, id: &str) -> Result<(), DiskError> {
        let entry = {
            let mut inner = self.lock();
            let place = inner.find(id)?;
            let Some(entry) = inner.disks.remove(&place) else { return Ok(()) };
            if let Some(controller) = inner.controllers.get(&place.0) {
                controller.remove_disk(place.1);
            }
            entry
        };
        match entry.unused.recv_timeout(LAST_REQUESTS) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => {
                return Err(DiskError::Busy(id.to_owned(), LAST_REQUESTS.as_secs()));
            }
        }
        backend::flush(&*entry.image).map_err(|error| DiskError::Flush { id: id.to_owned(), error })
    }

    /// Gives the disk `id` another size, in bytes, and its image with it. The guest is told.
    ///
    /// # Errors
    /// There is no such disk; the size is not one for it, or smaller without `shrink`; or the image cannot take it. Nothing has changed
    /// then.
    pub fn resize(&self, id: &str, size: u64, shrink: bool) -> Result<(), DiskError> {
        let inner = self.lock();
        let place = inner.find(id)?;
        let (Some(entry), Some(controller)) = (inner.disks.get(&place), inner.controllers.get(&place.0))
        else {
            return Ok(());
        };
        let report = inner.reports().find(|(at, _)| *at == place).map(|(_, report)| report);
        let (before, block) =
            report.map_or((0, 512), |report| (report.capacity, u64::from(report.block_size)));
        let refuse = |message: String| Err(DiskError::Refused(message));
        let (size_text, before_text) = (ByteSize::from_bytes(size), ByteSize::from_bytes(before));
        if size == 0 || !size.is_multiple_of(block) {
            return refuse(format!("{size_text} is not a size for `{id}`: it has blocks of {block} bytes"));
        }
        if size < before && !shrink {
            return refuse(format!(
                "`{id}` has {before_text}; making it {size_text} loses what lies beyond, so say --shrink if that is meant"
            ));
        }
        let fail = |error| DiskError::Resize { id: id.to_owned(), size: size_text, error };
        // The guest never sees blocks that are not there: it hears of more after they are, and of less before they go.
        if size < before {
            controller.resize_disk(place.1, size);
        }
        if let Err(error) = entry.image.resize(size) {
            controller.resize_disk(place.1, before);
            return Err(fail(error));
        }
        controller.resize_disk(place.1, size);
        Ok(())
    }

    /// Offers the controllers on `bus`, and from now on new ones as well.
    ///
    /// # Errors
    /// The first that cannot be offered.
    pub fn offer(&self, bus: &VmBus) -> Result<(), DiskError> {
        let mut inner = self.lock();
        for (number, controller) in &inner.controllers {
            bus.offer(Box::new(controller.clone()))
                .map_err(|error| DiskError::Offer(*number, error.to_string()))?;
        }
        inner.bus = Some(Bus(bus.clone()));
        Ok(())
    }

    /// Makes every completed write durable, and waits for it. Every disk is tried.
    ///
    /// # Errors
    /// The first that failed, with its controller's number.
    pub fn flush(&self) -> Result<(), (u32, FlushError)> {
        let controllers = self.lock().controllers.clone();
        let mut first = Ok(());
        for (number, controller) in controllers {
            first = first.and(controller.flush().map_err(|error| (number, error)));
        }
        first
    }

    /// All disks with their ids.
    pub fn reports(&self) -> Vec<(DiskReport, String)> {
        let inner = self.lock();
        inner.reports().map(|(place, report)| (report, inner.name(place))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Where `disk` goes.
    fn lun(&self, disk: &DiskConfig) -> Result<u8, DiskError> {
        let controller = disk.controller;
        if controller >= MAX_CONTROLLERS {
            return Err(DiskError::Refused(format!(
                "a controller's number is 0 to {}, not {controller}",
                MAX_CONTROLLERS - 1
            )));
        }
        let is_free = |lun: &u8| !self.disks.contains_key(&(controller, *lun));
        match disk.lun {
            Some(lun) if is_free(&lun) => Ok(lun),
            Some(lun) => Err(DiskError::Refused(format!(
                "LUN {lun} on controller {controller} is used by another disk"
            ))),
            None => (0..MAX_LUNS).find(is_free).ok_or(DiskError::Full(controller)),
        }
    }

    /// The disk that is called `id`, or that is there if `id` is `controller:lun`.
    fn find(&self, id: &str) -> Result<(u32, u8), DiskError> {
        let by_id = self.disks.iter().find(|(_, entry)| entry.id.as_deref() == Some(id));
        let by_place = || self.disks.keys().copied().find(|place| name(None, *place) == id);
        by_id.map(|(place, _)| *place).or_else(by_place).ok_or_else(|| DiskError::Unknown {
            id: id.to_owned(),
            known: self.disks.keys().map(|place| self.name(*place)).collect(),
        })
    }

    fn name(&self, place: (u32, u8)) -> String {
        name(self.disks.get(&place).and_then(|entry| entry.id.as_deref()), place)
    }

    fn reports(&self) -> impl Iterator<Item = ((u32, u8), DiskReport)> {
        let reports = self.controllers.values().flat_map(ScsiController::disks);
        reports.map(|report| ((report.controller, report.lun), report))
    }
}

fn name(id: Option<&str>, (controller, lun): (u32, u8)) -> String {
    id.map_or_else(|| format!("{controller}:{lun}"), str::to_owned)
}
