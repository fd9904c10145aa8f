//! All disks of a machine, by controller and LUN.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use synthvm_storage::backend::{self, Backend, FixedMemory, Throttle, ThrottleStats};
use synthvm_storage::{AddDiskError, ControllerOptions, DiskOptions, DiskReport, FlushError, ScsiController};
use vmbus_gpadl::GuestRam;
use vmbus_host::VmBus;

use super::DiskError;
use super::medium::{Medium, Unused, limits, open, open_disc};
use crate::config::{
    BufferMode, ByteSize, DiskConfig, DvdConfig, LimitsConfig, MAX_CONTROLLERS, MAX_LUNS, check_id,
    check_names,
};
use crate::control::DiskPlace;

/// How long a disk's last requests may take when it is removed, before whoever removes it is told that they still run.
const LAST_REQUESTS: Duration = Duration::from_secs(30);

/// All disks of a machine. Changed by one caller at a time; the guest's I/O goes on meanwhile.
#[derive(Debug)]
pub struct DiskSet {
    /// Of every controller.
    options: ControllerOptions,
    /// Held by whoever changes something, also while it waits for files.
    changing: Mutex<()>,
    /// Never held while anybody waits for files, so that reports are there at any time.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    controllers: BTreeMap<u32, ScsiController>,
    disks: BTreeMap<(u32, u8), Entry>,
    /// Set while the machine runs: where new controllers are offered.
    bus: Option<Bus>,
    /// The guest's memory, once there is any.
    ram: Option<GuestRam>,
    /// The same, kept in place for the disks that want it so: as long as there are any.
    fixed: Weak<FixedMemory>,
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
    medium: Held,
}

/// What is behind a unit.
#[derive(Debug)]
enum Held {
    /// A disk's image, the news that its controller has let go of it, and its limits if it was given some.
    Disk {
        image: Arc<dyn Backend>,
        unused: Unused,
        throttle: Option<Arc<Throttle>>,
        /// The image's path, if the guest's memory is to be kept in place for it.
        fixed: Option<PathBuf>,
    },
    /// Whatever disc is in the drive: its guest may eject it at any time, so that only the controller holds it.
    Dvd,
}

/// vCPUs that share a channel of a controller, unless the user says otherwise. One worker serves more requests than so many guests' processors
/// send; more workers take processors from them, and Linux sends a request through a channel that interrupts another vCPU than the one that
/// waits where it has the choice. Linux itself reckons with as many (`storvsc_vcpus_per_sub_channel`).
const VCPUS_PER_CHANNEL: u8 = 4;

impl DiskSet {
    /// No disks, for a machine of so many vCPUs; each controller has a channel for every [`VCPUS_PER_CHANNEL`] of them.
    pub fn new(cpus: u8) -> Self {
        let max_subchannels = u16::from(cpus.saturating_sub(1) / VCPUS_PER_CHANNEL);
        let options = ControllerOptions { max_subchannels, ..ControllerOptions::default() };
        DiskSet { options, changing: Mutex::default(), inner: Mutex::default() }
    }

    /// The same with controllers whose threads look for more for so long at most before they sleep.
    #[must_use]
    pub fn with_poll_limit(mut self, poll_limit: Duration) -> Self {
        self.options.poll_limit = poll_limit;
        self
    }

    /// Channels that each controller offers beside its first.
    pub fn subchannels(&self) -> u16 {
        self.options.max_subchannels
    }

    /// The same with controllers of so many channels each, 1 or more.
    #[must_use]
    pub fn with_channels(mut self, channels: u8) -> Self {
        self.options.max_subchannels = u16::from(channels).saturating_sub(1);
        self
    }

    /// The same with controllers that may hold back interrupts, or never do.
    #[must_use]
    pub fn with_hold_back(mut self, hold_back: bool) -> Self {
        self.options.hold_back = hold_back;
        self
    }

    /// Opens the disk's image, locks it, and puts it on its controller. A running guest is told to look.
    ///
    /// # Errors
    /// The image cannot be used, its place or its name is taken, or the controller cannot be offered. Nothing has changed then.
    pub fn add(&self, disk: &DiskConfig) -> Result<DiskPlace, DiskError> {
        check_names(disk).map_err(DiskError::Refused)?;
        let _changing = self.change();
        let place = self.lock().place(disk.controller, disk.lun, disk.id.as_deref())?;
        let image = open(disk)?;
        let fixed = (disk.buffers == BufferMode::Fixed).then(|| disk.path.clone());
        if fixed.is_some() {
            self.lock().fix(&*image)?;
        }
        // Without limits nothing stands between the controller and the image.
        let limited = disk.limits() != LimitsConfig::default();
        let throttle = limited.then(|| Arc::new(Throttle::new(Arc::clone(&image), limits(&disk.limits()))));
        let image = throttle.clone().map_or(image, |throttle| throttle as _);
        let (medium, unused) = Medium::new(Arc::clone(&image), disk.block_size)?;
        let options = DiskOptions { serial: disk.serial.clone(), label: disk.source().to_string() };
        let mut inner = self.lock();
        self.put(&mut inner, place, |controller| controller.add_disk(place.1, Arc::new(medium), options))?;
        Ok(inner.enter(
            place,
            Entry { id: disk.id.clone(), medium: Held::Disk { image, unused, throttle, fixed } },
        ))
    }

    /// Puts a DVD drive on its controller, with its disc if it has one. A running guest is told to look.
    ///
    /// # Errors
    /// As [`DiskSet::add`].
    pub fn add_dvd(&self, dvd: &DvdConfig) -> Result<DiskPlace, DiskError> {
        check_id(dvd.id.as_deref()).map_err(DiskError::Refused)?;
        let _changing = self.change();
        let place = self.lock().place(dvd.controller, dvd.lun, dvd.id.as_deref())?;
        let disc = dvd.path.as_deref().map(open_disc).transpose()?;
        let label = dvd.path.as_deref().map_or_else(String::new, |path| path.display().to_string());
        let options = DiskOptions { serial: None, label };
        let mut inner = self.lock();
        self.put(&mut inner, place, |controller| controller.add_dvd(place.1, disc, options))?;
        Ok(inner.enter(place, Entry { id: dvd.id.clone(), medium: Held::Dvd }))
    }

    /// Puts the disc at `path` into the DVD drive `id`, in place of one that may be there.
    ///
    /// # Errors
    /// There is no such drive, its guest has locked the tray, or the image cannot be used. The disc that was there still is then.
    pub fn insert(&self, id: &str, path: &Path) -> Result<(), DiskError> {
        let _changing = self.change();
        let (controller, lun) = self.lock().unit(id)?;
        let label = path.display().to_string();
        controller.insert(lun, open_disc(path)?, label).map_err(|error| DiskError::Disc(id.to_owned(), error))
    }

    /// Takes the disc out of the DVD drive `id`.
    ///
    /// # Errors
    /// There is no such drive; or its guest has locked the tray, unless `force`.
    pub fn eject(&self, id: &str, force: bool) -> Result<(), DiskError> {
        let (controller, lun) = self.lock().unit(id)?;
        controller.eject(lun, force).map_err(|error| DiskError::Disc(id.to_owned(), error))
    }

    /// Takes the disk `id` away. When this returns, what the guest began is finished and durable, and the image is closed.
    ///
    /// # Errors
    /// There is no such disk; or it is gone, but its requests do not end or its last writes are not durable.
    pub fn remove(&self, id: &str) -> Result<(), DiskError> {
        let entry = {
            let _changing = self.change();
            let mut inner = self.lock();
            let place = inner.find(id)?;
            let Some(entry) = inner.disks.remove(&place) else { return Ok(()) };
            if let Some(controller) = inner.controllers.get(&place.0) {
                controller.remove_disk(place.1);
            }
            entry
        };
        let Held::Disk { image, unused, .. } = entry.medium else { return Ok(()) };
        if unused.recv_timeout(LAST_REQUESTS) == Err(RecvTimeoutError::Timeout) {
            return Err(DiskError::Busy(id.to_owned(), LAST_REQUESTS.as_secs()));
        }
        backend::flush(&*image).map_err(|error| DiskError::Flush { id: id.to_owned(), error })
    }

    /// Makes the disk `id` larger, `size` bytes, and its image with it. The guest is told.
    ///
    /// # Errors
    /// There is no such disk, the size is not one for it, or the image cannot take it. Nothing has changed then.
    pub fn resize(&self, id: &str, size: u64) -> Result<(), DiskError> {
        let _changing = self.change();
        let inner = self.lock();
        let place = inner.find(id)?;
        let (controller, lun) = inner.unit(id)?;
        let refuse = |message: String| Err(DiskError::Refused(message));
        let Some(Entry { medium: Held::Disk { image, .. }, .. }) = inner.disks.get(&place) else {
            return refuse(format!("`{id}` is a DVD drive, and a disc has the size of its image"));
        };
        let image = Arc::clone(image);
        let report = inner.reports().find(|(at, _)| *at == place).map(|(_, report)| report);
        let (before, block) =
            report.map_or((0, 512), |report| (report.capacity, u64::from(report.block_size)));
        let (wanted, has) = (ByteSize::from_bytes(size), ByteSize::from_bytes(before));
        if !size.is_multiple_of(block) {
            return refuse(format!("{wanted} is not a size for `{id}`: it has blocks of {block} bytes"));
        }
        if size < before {
            return refuse(format!(
                "`{id}` has {has} and cannot become smaller: what lies beyond would be lost"
            ));
        }
        drop(inner);
        // The guest never hears of blocks that are not there.
        image.resize(size).map_err(|error| DiskError::Resize { id: id.to_owned(), size: wanted, error })?;
        controller.resize_disk(lun, size);
        Ok(())
    }

    /// Gives the disk `id` other limits from now on.
    ///
    /// # Errors
    /// There is no such disk, or it has never had limits.
    pub fn throttle(&self, id: &str, to: &LimitsConfig) -> Result<(), DiskError> {
        let inner = self.lock();
        let place = inner.find(id)?;
        match inner.disks.get(&place).map(|entry| &entry.medium) {
            Some(Held::Disk { throttle: Some(throttle), .. }) => {
                throttle.set_limits(limits(to));
                Ok(())
            }
            _ => Err(DiskError::Refused(format!(
                "`{id}` was added without limits; they can be changed where a disk was given some, as iops=100000"
            ))),
        }
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

    /// Tells where the guest's memory is, before the guest runs: some disks want it kept in place.
    ///
    /// # Errors
    /// The first disk for which it cannot be, with its image.
    pub fn use_memory(&self, ram: &GuestRam) -> Result<(), (PathBuf, DiskError)> {
        let mut inner = self.lock();
        inner.ram = Some(ram.clone());
        let wanted = inner.disks.values().filter_map(|entry| match &entry.medium {
            Held::Disk { image, fixed: Some(path), .. } => Some((Arc::clone(image), path.clone())),
            Held::Disk { .. } | Held::Dvd => None,
        });
        let wanted: Vec<_> = wanted.collect();
        wanted.into_iter().try_for_each(|(image, path)| inner.fix(&*image).map_err(|error| (path, error)))
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

    /// All disks with their ids, and what their limits have held up where they were given some. Disks that were removed come last, by their
    /// places, until their requests have ended.
    pub fn reports(&self) -> Vec<(DiskReport, String, Option<ThrottleStats>)> {
        let inner = self.lock();
        let throttle = |place| match &inner.disks.get(&place)?.medium {
            Held::Disk { throttle, .. } => throttle.as_ref().map(|throttle| throttle.stats()),
            Held::Dvd => None,
        };
        let present = inner.reports().map(|(place, report)| (report, inner.name(place), throttle(place)));
        let removed = inner.controllers.values().flat_map(ScsiController::removed_disks);
        let removed = removed.map(|report| {
            let name = name(None, (report.controller, report.lun));
            (report, name, None)
        });
        present.chain(removed).collect()
    }

    /// Puts a unit on the controller of `place`. A new controller is offered with the unit on it, so that the guest's first look finds it.
    fn put(
        &self,
        inner: &mut Inner,
        (number, _): (u32, u8),
        add: impl FnOnce(&ScsiController) -> Result<(), AddDiskError>,
    ) -> Result<(), DiskError> {
        if let Some(controller) = inner.controllers.get(&number) {
            return Ok(add(controller)?);
        }
        let controller = ScsiController::with_options(number, self.options.clone());
        add(&controller)?;
        if let Some(Bus(bus)) = &inner.bus {
            bus.offer(Box::new(controller.clone()))
                .map_err(|error| DiskError::Offer(number, error.to_string()))?;
        }
        inner.controllers.insert(number, controller);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One change at a time. Taken before [`DiskSet::lock`].
    fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Has the guest's memory kept in place for `image`; as soon as there is any, if there is none yet.
    fn fix(&mut self, image: &dyn Backend) -> Result<(), DiskError> {
        let Some(ram) = &self.ram else { return Ok(()) };
        let fixed = match self.fixed.upgrade() {
            Some(fixed) => fixed,
            None => FixedMemory::new(ram)?,
        };
        self.fixed = Arc::downgrade(&fixed);
        image.use_fixed(&fixed).map_err(|_| {
            let why =
                "buffers=fixed needs io_uring, and an image that is raw, VHDX or VHD; use buffers=plain";
            DiskError::Refused(why.to_owned())
        })
    }

    /// Where a new unit goes.
    fn place(&self, controller: u32, lun: Option<u8>, id: Option<&str>) -> Result<(u32, u8), DiskError> {
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
            Some(lun) => refuse(format!("LUN {lun} on controller {controller} is used by another disk")),
            None => {
                let free = (0..MAX_LUNS).find(is_free).ok_or(DiskError::Full(controller))?;
                Ok((controller, free))
            }
        }
    }

    fn enter(&mut self, place: (u32, u8), entry: Entry) -> DiskPlace {
        self.disks.insert(place, entry);
        DiskPlace { id: self.name(place), controller: place.0, lun: place.1 }
    }

    /// The controller and the LUN of the unit that is called `id`.
    fn unit(&self, id: &str) -> Result<(ScsiController, u8), DiskError> {
        let (number, lun) = self.find(id)?;
        let controller = self.controllers.get(&number).cloned();
        controller.map(|controller| (controller, lun)).ok_or_else(|| self.unknown(id))
    }

    /// The disk that is called `id`, or that is there if `id` is `controller:lun`.
    fn find(&self, id: &str) -> Result<(u32, u8), DiskError> {
        let by_id = self.disks.iter().find(|(_, entry)| entry.id.as_deref() == Some(id));
        let by_place = || self.disks.keys().copied().find(|place| name(None, *place) == id);
        by_id.map(|(place, _)| *place).or_else(by_place).ok_or_else(|| self.unknown(id))
    }

    fn unknown(&self, id: &str) -> DiskError {
        let known = self.disks.keys().map(|place| self.name(*place)).collect();
        DiskError::Unknown { id: id.to_owned(), known }
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
