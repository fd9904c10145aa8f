//! A VMBus device used from user space: Linux's `uio_hv_generic` opens the channel, shares its
//! rings and two buffers, and forwards interrupts (drivers/uio/uio_hv_generic.c of Linux 6.12).

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::time::Duration;

use crate::{Outcome, context, modules, uevent};

const DRIVER: &str = "/sys/bus/vmbus/drivers/uio_hv_generic";
const DEVICES: &str = "/sys/bus/vmbus/devices";

/// The numbers of the driver's areas: both rings in one, the receive buffer and the send buffer.
const RINGS: usize = 0;
const RECEIVE: usize = 3;
const SEND: usize = 4;

const PAGE: usize = 4096;

/// A device that is bound to the driver, with an open channel.
pub struct UioDevice {
    file: File,
    /// The VMBus device's name, for unbinding.
    name: String,
    rings: Area,
    /// The buffers that the guest shares with the host by GPADL: the driver's "receive" and "send".
    pub buffers: [SharedBuffer; 2],
}

/// Memory that driver and host share as one GPADL.
pub struct SharedBuffer {
    /// The GPADL.
    pub gpadl: u32,
    /// The memory.
    pub area: Area,
}

impl UioDevice {
    /// Binds the driver to the first device of a class, opens its channel and maps the shared
    /// areas.
    pub fn open(class: &str) -> Outcome<UioDevice> {
        modules::load("uio_hv_generic", "").map_err(context("loading uio_hv_generic"))?;
        let path = Path::new(DRIVER).join("new_id");
        match fs::write(&path, class) {
            // The driver already has this class from an earlier binding, so the device must be
            // bound explicitly.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => bind(class)?,
            other => other.map_err(context(path.display()))?,
        }
        let find = || device(class).ok()?.and_then(|name| Some((uio_name(&name)?, name)));
        let found = uevent::wait_for(Duration::from_secs(30), find)
            .map_err(context("listening for devices"))?;
        let (uio, name) = found.ok_or_else(|| {
            format!(
                "uio_hv_generic bound no device of class {class}; Linux older than 6.12 binds only \
                monitored channels"
            )
        })?;
        // Opening the file opens the channel.
        let path = format!("/dev/{uio}");
        let file = File::options().read(true).write(true).open(&path).map_err(context(&path))?;
        let rings = Area::map(&file, &uio, RINGS, "txrx_rings")?.0;
        let buffers = [(RECEIVE, "recv:"), (SEND, "send:")].map(|(number, title)| {
            let (area, rest) = Area::map(&file, &uio, number, title)?;
            let gpadl = rest.parse().map_err(context(format!("the number in {title}{rest}")))?;
            Ok::<_, String>(SharedBuffer { gpadl, area })
        });
        let [receive, send] = buffers;
        Ok(UioDevice { file, name, rings, buffers: [receive?, send?] })
    }

    /// Returns the start of the rings and the length of each, guest to host first.
    pub fn rings(&self) -> (NonNull<u8>, usize) {
        (self.rings.start, self.rings.length / 2)
    }

    /// Enables interrupts from the host (clears the incoming ring's mask), and signals the host.
    pub fn signal(&mut self) -> Outcome<()> {
        self.file.write_all(&1_u32.to_ne_bytes()).map_err(context("signalling through uio"))
    }

    /// Waits for a new interrupt. Returns the number of all interrupts so far.
    pub fn wait(&mut self, limit: Duration) -> Outcome<u32> {
        let mut poll = libc::pollfd { fd: self.file.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let limit_ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid pollfd.
        if unsafe { libc::poll(&raw mut poll, 1, limit_ms) } != 1 {
            return Err(format!("no interrupt came within {} s", limit.as_secs()));
        }
        let mut count = [0; 4];
        self.file.read_exact(&mut count).map_err(context("reading uio's count of interrupts"))?;
        Ok(u32::from_ne_bytes(count))
    }

    /// Closes the channel and unbinds the device, which ends the sharing of its buffers.
    pub fn close(self) -> Outcome<()> {
        let UioDevice { file, name, rings, buffers } = self;
        // The mappings hold the file open.
        drop((rings, buffers, file));
        let path = Path::new(DRIVER).join("unbind");
        fs::write(&path, &name).map_err(context(path.display()))
    }
}

/// A mapped area of the driver. Unmapped on drop.
pub struct Area {
    start: NonNull<u8>,
    length: usize,
}

impl Area {
    /// Maps an area whose name starts with `title`. Returns the area and the rest of its name.
    fn map(file: &File, uio: &str, number: usize, title: &str) -> Outcome<(Area, String)> {
        let dir = PathBuf::from(format!("/sys/class/uio/{uio}/maps/map{number}"));
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path)
                .map(|text| text.trim().to_owned())
                .map_err(context(path.display()))
        };
        let name = read("name")?;
        let rest = name
            .strip_prefix(title)
            .ok_or_else(|| format!("uio's area {number} is {name}, not {title}"))?;
        let size = read("size")?;
        let digits = size.strip_prefix("0x").ok_or_else(|| format!("a size of {size}"))?;
        let length = usize::from_str_radix(digits, 16).map_err(context("a size"))?;
        let offset = i64::try_from(number * PAGE).map_err(|e| e.to_string())?;
        // SAFETY: a new mapping at any address; its result is checked before it is used.
        let start = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(
                std::ptr::null_mut(),
                length,
                access,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(format!("mapping {name} of {uio}: {}", std::io::Error::last_os_error()));
        }
        let start = NonNull::new(start.cast()).ok_or("a mapping at address 0")?;
        Ok((Area { start, length }, rest.to_owned()))
    }

    /// Returns the length in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Writes bytes. The host may read them at any time.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.length && bytes.len() <= self.length - offset);
        // SAFETY: the range was checked, and this process has no reference into it.
        unsafe { self.start.as_ptr().add(offset).copy_from(bytes.as_ptr(), bytes.len()) };
    }

    /// Reads the current bytes.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset <= self.length && bytes.len() <= self.length - offset);
        // SAFETY: the range was checked, and this process has no reference into it.
        unsafe { self.start.as_ptr().add(offset).copy_to(bytes.as_mut_ptr(), bytes.len()) };
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: the mapping belongs to this value, and no reference to it exists.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

fn bind(class: &str) -> Outcome<()> {
    let name = device(class)?.ok_or_else(|| format!("there is no device of class {class}"))?;
    let path = Path::new(DRIVER).join("bind");
    fs::write(&path, name).map_err(context(path.display()))
}

/// Returns the name of the first VMBus device of a class.
fn device(class: &str) -> Outcome<Option<String>> {
    for entry in fs::read_dir(DEVICES).map_err(context(DEVICES))?.flatten() {
        let found = fs::read_to_string(entry.path().join("class_id")).unwrap_or_default();
        if found.trim().trim_matches(['{', '}']).eq_ignore_ascii_case(class) {
            return Ok(Some(entry.file_name().to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// Returns the name below `/dev` of a VMBus device's uio device, once its node exists.
fn uio_name(device: &str) -> Option<String> {
    let entry = fs::read_dir(Path::new(DEVICES).join(device).join("uio")).ok()?.flatten().next()?;
    let name = entry.file_name().to_string_lossy().into_owned();
    Path::new("/dev").join(&name).exists().then_some(name)
}
