//! The set of all disks of a machine.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use synthvm_block::{Backend, Throttle, ThrottleStats};
use synthvm_images::Format;
use synthvm_storvsp::{AddDiskError, ControllerOptions, DiskOptions, DiskReport, ScsiController};
use vmbus_gpadl::GuestRam;
use vmbus_host::VmBus;

use super::DiskError;
use super::host::{Host, Real};
use super::medium::Medium;
use super::removal::{Removals, Removed};
use super::table::{Bus, Entry, Held, HeldDisk, Place, Table, name};
use crate::config::{
    BufferMode, ByteSize, DiskConfig, DvdConfig, LimitsConfig, check_id, check_names,
};
use crate::control::DiskPlace;

/// Timeout of [`DiskSet::remove`] for a disk's last requests and its flush.
const LAST_REQUESTS: Duration = Duration::from_secs(30);

/// All disks of a machine. Changes are serialised; the guest's I/O continues meanwhile.
#[derive(Debug)]
pub struct DiskSet {
    /// Options of all controllers.
    options: ControllerOptions,
    /// Serialises changes, which may block on files or memory. Locked before `table`.
    changing: Mutex<()>,
    /// Must not be locked during I/O, pinning of memory, or calls to the bus, as reports and the
    /// end of the machine lock it.
    table: Mutex<Table>,
    removals: Removals,
    removal_timeout: Duration,
    host: Box<dyn Host>,
}

/// Default number of vCPUs for each channel of a controller. One worker serves the requests of
/// several vCPUs, and more workers would take processors from the vCPUs. Also, where Linux has the
/// choice, it sends a request through a channel that interrupts another vCPU than the waiting one.
/// Linux uses the same number (`storvsc_vcpus_per_sub_channel`).
const VCPUS_PER_CHANNEL: u8 = 4;

impl DiskSet {
    /// Returns an empty set for a machine with `cpus` vCPUs. Each controller has a channel for
    /// every `VCPUS_PER_CHANNEL` of them.
    pub fn new(cpus: u8) -> Self {
        let max_subchannels = u16::from(cpus.saturating_sub(1) / VCPUS_PER_CHANNEL);
        let options = ControllerOptions { max_subchannels, ..ControllerOptions::default() };
        DiskSet {
            options,
            changing: Mutex::default(),
            table: Mutex::default(),
            removals: Removals::default(),
            removal_timeout: LAST_REQUESTS,
            host: Box::new(Real),
        }
    }

    /// Replaces the host calls.
    #[cfg(test)]
    pub(super) fn with_host(mut self, host: impl Host + 'static) -> Self {
        self.host = Box::new(host);
        self
    }

    /// Sets the timeout of [`DiskSet::remove`].
    #[cfg(test)]
    pub(super) fn with_removal_timeout(mut self, timeout: Duration) -> Self {
        self.removal_timeout = timeout;
        self
    }

    /// Sets the maximum poll window of all controllers to `limit`.
    #[must_use]
    pub fn with_busy_poll(mut self, limit: Duration) -> Self {
        self.options.workers.busy_poll = limit;
        self
    }

    /// Returns the maximum number of subchannels of each controller.
    pub fn subchannels(&self) -> u16 {
        self.options.max_subchannels
    }

    /// Sets the number of channels of each controller to `channels`, at least 1.
    #[must_use]
    pub fn with_channels(mut self, channels: u8) -> Self {
        self.options.max_subchannels = u16::from(channels).saturating_sub(1);
        self
    }

    /// Enables or disables interrupt moderation in all controllers.
    #[must_use]
    pub fn with_moderation(mut self, wanted: bool) -> Self {
        self.options.workers.moderation = wanted;
        self
    }

    /// Opens and locks the disk's image, and adds the disk to its controller. A running guest is
    /// notified.
    ///
    /// # Errors
    /// The image cannot be used, its LUN or its name is in use, or the controller cannot be
    /// offered. Nothing has changed then.
    pub fn add(&self, disk: &DiskConfig) -> Result<DiskPlace, DiskError> {
        check_names(disk).map_err(DiskError::Refused)?;
        let _changing = self.change();
        let place = self.lock().place(disk.controller, disk.lun, disk.id.as_deref())?;
        let image = self.host.open(disk)?;
        let fixed = (disk.buffers == BufferMode::Fixed).then(|| disk.path.clone());
        if fixed.is_some() {
            self.pin(&*image)?;
        }
        // Only a disk with limits gets a throttle between controller and image.
        let limits = disk.limits();
        let throttle = (limits != LimitsConfig::default())
            .then(|| Arc::new(Throttle::new(Arc::clone(&image), limits.rates())));
        let image = throttle.clone().map_or(image, |throttle| throttle as _);
        let (medium, unused) = Medium::new(Arc::clone(&image), disk.block_size)?;
        let options = DiskOptions { serial: disk.serial.clone(), label: disk.source().to_string() };
        let medium_record = Held::Disk(HeldDisk { image, unused, throttle, fixed });
        let entry = Entry { id: disk.id.clone(), medium: medium_record };
        self.put(place, entry, |controller| controller.add_disk(place.1, Arc::new(medium), options))
    }

    /// Adds a DVD drive, with a disc if it is configured. A running guest is notified.
    ///
    /// # Errors
    /// As [`DiskSet::add`].
    pub fn add_dvd(&self, dvd: &DvdConfig) -> Result<DiskPlace, DiskError> {
        check_id(dvd.id.as_deref()).map_err(DiskError::Refused)?;
        let _changing = self.change();
        let place = self.lock().place(dvd.controller, dvd.lun, dvd.id.as_deref())?;
        let mut discs = Vec::new();
        let disc: Option<Arc<dyn Backend>> = match dvd.path.as_deref() {
            Some(path) => {
                let (disc, unused) = Medium::new(self.open_disc(path)?, None)?;
                discs.push(unused);
                Some(Arc::new(disc))
            }
            None => None,
        };
        let label = dvd.path.as_deref().map_or_else(String::new, |path| path.display().to_string());
        let options = DiskOptions { serial: None, label };
        let entry = Entry { id: dvd.id.clone(), medium: Held::Dvd(discs) };
        self.put(place, entry, |controller| controller.add_dvd(place.1, disc, options))
    }

    /// Inserts the disc at `path` into the DVD drive `id`, and replaces the disc in it.
    ///
    /// # Errors
    /// There is no such drive, its guest has locked the tray, or the image cannot be used. The
    /// drive is unchanged then.
    pub fn insert(&self, id: &str, path: &Path) -> Result<(), DiskError> {
        let _changing = self.change();
        let (controller, lun, place) = {
            let table = self.lock();
            let (controller, lun) = table.unit(id)?;
            (controller, lun, table.find(id)?)
        };
        let label = path.display().to_string();
        let (disc, unused) = Medium::new(self.open_disc(path)?, None)?;
        controller
            .insert(lun, Arc::new(disc), label)
            .map_err(|error| DiskError::Disc(id.to_owned(), error))?;
        self.lock().add_disc(place, unused);
        Ok(())
    }

    /// Ejects the disc from the DVD drive `id`.
    ///
    /// # Errors
    /// There is no such drive, or its guest has locked the tray, unless `force`.
    pub fn eject(&self, id: &str, force: bool) -> Result<(), DiskError> {
        let (controller, lun) = self.lock().unit(id)?;
        controller.eject(lun, force).map_err(|error| DiskError::Disc(id.to_owned(), error))
    }

    /// Removes the disk or the drive `id`. On return the guest's last requests have ended and are
    /// durable, and the image is closed. After a timeout of 30 seconds it returns an error, and a
    /// thread finishes the removal in the background.
    ///
    /// # Errors
    /// There is no such disk, or no thread can be created: nothing has changed then. Or the disk is
    /// removed, but its requests have not ended in time, or its last writes are not durable.
    pub fn remove(&self, id: &str) -> Result<(), DiskError> {
        let (removal, removed) = {
            let _changing = self.change();
            let place = self.lock().find(id)?;
            let removal = self.removals.prepare(id).map_err(|error| {
                DiskError::Refused(format!("`{id}` cannot be removed: no thread: {error}"))
            })?;
            let (entry, controller) = {
                let mut table = self.lock();
                let Some(entry) = table.disks.remove(&place) else { return Ok(()) };
                (entry, table.controllers.get(&place.0).cloned())
            };
            if let Some(controller) = controller {
                controller.remove_disk(place.1);
            }
            let removed = match entry.medium {
                Held::Disk(disk) => Removed { image: Some(disk.image), in_use: vec![disk.unused] },
                Held::Dvd(discs) => Removed { image: None, in_use: discs },
            };
            (removal, removed)
        };
        removal.run(removed, self.removal_timeout)
    }

    /// Grows the disk `id` and its image to `size` bytes. The guest is notified.
    ///
    /// # Errors
    /// There is no such disk, the size is not valid for it, or the image cannot take it. Nothing
    /// has changed then.
    pub fn resize(&self, id: &str, size: u64) -> Result<(), DiskError> {
        let _changing = self.change();
        let table = self.lock();
        let place = table.find(id)?;
        let (controller, lun) = table.unit(id)?;
        let refuse = |message: String| Err(DiskError::Refused(message));
        let Some(Entry { medium: Held::Disk(disk), .. }) = table.disks.get(&place) else {
            return refuse(format!("`{id}` is a DVD drive, and a disc has the size of its image"));
        };
        let image = Arc::clone(&disk.image);
        let report = table.reports().find(|(at, _)| *at == place).map(|(_, report)| report);
        let (before, block) =
            report.map_or((0, 512), |report| (report.capacity, u64::from(report.block_size)));
        let (wanted, has) = (ByteSize::from_bytes(size), ByteSize::from_bytes(before));
        if !size.is_multiple_of(block) {
            return refuse(format!(
                "{wanted} is not a size for `{id}`: it has blocks of {block} bytes"
            ));
        }
        if size < before {
            return refuse(format!(
                "`{id}` has {has} and cannot become smaller: the data beyond the new end would be \
                lost"
            ));
        }
        drop(table);
        // The image grows first, so that the guest never sees blocks that do not exist.
        image.resize(size).map_err(|error| DiskError::Resize {
            id: id.to_owned(),
            size: wanted,
            error,
        })?;
        controller.resize_disk(lun, size);
        Ok(())
    }

    /// Changes the limits of the disk `id`, with immediate effect.
    ///
    /// # Errors
    /// There is no such disk, or it was added without limits.
    pub fn throttle(&self, id: &str, to: &LimitsConfig) -> Result<(), DiskError> {
        let table = self.lock();
        let place = table.find(id)?;
        match table.disks.get(&place).map(|entry| &entry.medium) {
            Some(Held::Disk(HeldDisk { throttle: Some(throttle), .. })) => {
                throttle.set_limits(to.rates());
                Ok(())
            }
            _ => Err(DiskError::Refused(format!(
                "`{id}` was added without limits; limits can change only on a disk that was added \
                with some, such as iops=100000"
            ))),
        }
    }

    /// Offers all controllers on `bus`, and from now on also new ones.
    ///
    /// # Errors
    /// The error of the first controller that cannot be offered.
    pub fn offer(&self, bus: &VmBus) -> Result<(), DiskError> {
        let _changing = self.change();
        let controllers = self.lock().controllers.clone();
        for (number, controller) in controllers {
            bus.offer(Box::new(controller))
                .map_err(|error| DiskError::Offer(number, error.to_string()))?;
        }
        self.lock().bus = Some(Bus(bus.clone()));
        Ok(())
    }

    /// Sets the guest's memory, before the guest runs. The memory is pinned if a disk needs it.
    ///
    /// # Errors
    /// The error of the first disk that cannot use pinned memory, with the path of its image.
    pub fn use_memory(&self, ram: &GuestRam) -> Result<(), (PathBuf, DiskError)> {
        let _changing = self.change();
        let wanted: Vec<_> = {
            let mut table = self.lock();
            table.ram = Some(ram.clone());
            let wanted = table.disks.values().filter_map(|entry| match &entry.medium {
                Held::Disk(HeldDisk { image, fixed: Some(path), .. }) => {
                    Some((Arc::clone(image), path.clone()))
                }
                Held::Disk(_) | Held::Dvd(_) => None,
            });
            wanted.collect()
        };
        wanted
            .into_iter()
            .try_for_each(|(image, path)| self.pin(&*image).map_err(|error| (path, error)))
    }

    /// Makes every completed write durable, also those to disks that are being removed. Blocks
    /// until then. All disks are tried. For the end of a machine, when no guest can have requests
    /// in flight.
    ///
    /// # Errors
    /// The error of the first disk that failed.
    pub fn flush(&self) -> Result<(), DiskError> {
        let controllers = self.lock().controllers.clone();
        let mut first = Ok(());
        for (number, controller) in controllers {
            let flushed = controller.flush().map_err(|failure| DiskError::LastFlush {
                id: self.lock().name((number, failure.lun)),
                error: failure.error,
            });
            first = first.and(flushed);
        }
        first.and(self.removals.wait())
    }

    /// Returns reports of all disks with their names, and the throttle statistics of disks with
    /// limits. Removed disks with requests in flight come last, named by controller and LUN.
    pub fn reports(&self) -> Vec<(DiskReport, String, Option<ThrottleStats>)> {
        let table = self.lock();
        let throttle = |place| match &table.disks.get(&place)?.medium {
            Held::Disk(disk) => disk.throttle.as_ref().map(|throttle| throttle.stats()),
            Held::Dvd(_) => None,
        };
        let present =
            table.reports().map(|(place, report)| (report, table.name(place), throttle(place)));
        let removed = table.controllers.values().flat_map(ScsiController::removed_disks);
        let removed = removed.map(|report| {
            let name = name(None, (report.controller, report.lun));
            (report, name, None)
        });
        present.chain(removed).collect()
    }

    /// Adds a unit at `place`. A new controller is offered after its unit is added, so that the
    /// guest's first scan finds the unit.
    fn put(
        &self,
        place: Place,
        entry: Entry,
        add: impl FnOnce(&ScsiController) -> Result<(), AddDiskError>,
    ) -> Result<DiskPlace, DiskError> {
        let (number, lun) = place;
        let (controller, offer_on) = {
            let mut table = self.lock();
            // The record comes before the unit, so that no report shows the unit without its name.
            table.disks.insert(place, entry);
            match table.controllers.get(&number) {
                Some(controller) => (controller.clone(), None),
                None => {
                    let controller = ScsiController::with_options(number, self.options.clone());
                    table.controllers.insert(number, controller.clone());
                    (controller, Some(table.bus.clone()))
                }
            }
        };
        let is_new = offer_on.is_some();
        let mut added = add(&controller).map_err(DiskError::from);
        if added.is_ok()
            && let Some(Some(Bus(bus))) = offer_on
            && let Err(error) = bus.offer(Box::new(controller.clone()))
        {
            controller.remove_disk(lun);
            added = Err(DiskError::Offer(number, error.to_string()));
        }
        let mut table = self.lock();
        let result = added.map(|()| table.describe(place));
        let undone = result.is_err().then(|| {
            let controller = if is_new { table.controllers.remove(&number) } else { None };
            (table.disks.remove(&place), controller)
        });
        drop(table);
        // Dropped after the lock, as closing an image may block.
        drop(undone);
        result
    }

    /// Pins the guest's memory for `image`, if the memory is set. To be called under
    /// [`DiskSet::change`].
    fn pin(&self, image: &dyn Backend) -> Result<(), DiskError> {
        let (ram, pinned) = {
            let table = self.lock();
            let Some(ram) = table.ram.clone() else { return Ok(()) };
            (ram, table.fixed.upgrade())
        };
        let fixed = match pinned {
            Some(fixed) => fixed,
            None => self.host.pin(&ram)?,
        };
        self.lock().fixed = Arc::downgrade(&fixed);
        image.use_fixed(&fixed).map_err(|_| {
            let why = "buffers=fixed needs io_uring; use buffers=plain";
            DiskError::Refused(why.to_owned())
        })
    }

    /// Opens a disc's image read-only.
    fn open_disc(&self, path: &Path) -> Result<Arc<dyn Backend>, DiskError> {
        let disc =
            DiskConfig { readonly: true, format: Some(Format::Raw), ..DiskConfig::new(path) };
        self.host.open(&disc)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the set for a change. To be locked before [`DiskSet::lock`].
    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
