//! The rules between values, and the default addresses of disks.

use std::collections::{BTreeMap, BTreeSet};

use synthvm_block::{BlockSize, CacheMode, IoMode, MAX_NULL_CAPACITY};
use synthvm_images::Parents;

use super::error::ConfigError;
use super::node::{Node, Value};
use super::{
    BufferMode, ByteSize, DiskConfig, DiskSource, DisplayMode, HypervPreset, MAX_BUFFER_PERCENT,
    MAX_LUNS, MAX_MEMORY, MAX_START_DELAY_SECONDS, MIN_MEMORY, SerialConfig, VmConfig, VncAddress,
    firmware, identity, network, vnc,
};

const MIB: u64 = 1 << 20;

/// The largest disk in memory, equal to the largest guest memory. The host's free memory is checked
/// when the disk is created.
const MAX_RAM_DISK: ByteSize = MAX_MEMORY;

/// Assigns each disk its LUN and checks the whole configuration. `root` is the tree of `config`.
pub(crate) fn complete(config: &mut VmConfig, root: &Node) -> Result<(), ConfigError> {
    let at = |key: &str, message: String| {
        let error = ConfigError::new(message);
        root.get(key).map_or(error.clone(), |node| node.place(error))
    };
    check_memory(config).map_err(|message| at("memory", message))?;
    check_cmdline(&config.cmdline).map_err(|message| at("cmdline", message))?;
    vnc::complete(&mut config.display, root).map_err(|message| at("display", message))?;
    check_ports(config).map_err(|(key, message)| at(key, message))?;
    if config.has_msvm() && root.get("hyperv").and_then(|node| node.get("preset")).is_none() {
        // The firmware's own timer is a synthetic one, which only this preset has.
        config.hyperv.preset = HypervPreset::Windows;
    }
    check_hyperv(config).map_err(|message| at("hyperv", message))?;
    identity::check(config).map_err(|message| at("smbios", message))?;
    firmware::check(config).map_err(|(key, message)| at(key, message))?;

    let place = |(key, index, message): UnitError| {
        let error = ConfigError::new(message);
        let places = match root.get(key).map(|node| &node.value) {
            Some(Value::List(nodes)) => nodes.as_slice(),
            _ => &[],
        };
        places.get(index).map_or(error.clone(), |node| node.place(error))
    };
    for (index, disk) in config.disks.iter().enumerate() {
        check_names(disk).map_err(|message| place(("disk", index, message)))?;
    }
    for (index, dvd) in config.dvds.iter().enumerate() {
        check_id(dvd.id.as_deref()).map_err(|message| place(("dvd", index, message)))?;
    }
    network::complete(config).map_err(|(index, message)| place(("net", index, message)))?;
    give_places(config).map_err(place)
}

fn check_memory(config: &VmConfig) -> Result<(), String> {
    let memory = &config.memory;
    check_memory_size(memory.size, memory.hugepages)?;
    if !memory.is_dynamic() {
        return Ok(());
    }
    let (min, size, max) = (memory.min(), memory.size, memory.max());
    for bound in [min, max] {
        check_memory_size(bound, memory.hugepages)?;
    }
    if min > size || size > max {
        return Err(format!(
            "the machine boots with {size}, which must be from min={min} to max={max}"
        ));
    }
    if memory.buffer > MAX_BUFFER_PERCENT {
        return Err(format!("`buffer` is 0 to {MAX_BUFFER_PERCENT} percent"));
    }
    if memory.start_delay > MAX_START_DELAY_SECONDS {
        return Err(format!("`start-delay` is 0 to {MAX_START_DELAY_SECONDS} seconds"));
    }
    if !config.hyperv.offers(super::HypervOption::Synic) {
        return Err("dynamic memory is on VMBus, which needs `synic`; leave synic on".into());
    }
    if config.hibernation {
        return Err("a guest that may hibernate takes part in no dynamic memory; leave \
            `hibernation` off, or leave out `dynamic`, `min` and `max`"
            .into());
    }
    match config.disks.iter().any(|disk| disk.buffers == BufferMode::Fixed) {
        true => Err("dynamic memory takes pages from the guest, which `buffers=fixed` of a disk \
            forbids; leave one of them out"
            .into()),
        false => Ok(()),
    }
}

fn check_memory_size(size: ByteSize, hugepages: bool) -> Result<(), String> {
    let unit = if hugepages { 2 * MIB } else { MIB };
    if size < MIN_MEMORY {
        return Err(format!("{size} is too small; a machine has {MIN_MEMORY} to {MAX_MEMORY}"));
    }
    if size > MAX_MEMORY {
        return Err(format!("{size} is too large; a machine has {MIN_MEMORY} to {MAX_MEMORY}"));
    }
    if !size.bytes().is_multiple_of(unit) {
        let below = ByteSize::from_bytes(size.bytes() / unit * unit);
        let above = ByteSize::from_bytes(below.bytes() + unit);
        let why = if hugepages { "hugepages come in 2 MiB" } else { "memory comes in whole MiB" };
        return Err(format!("{size} is not possible, because {why}; use {below} or {above}"));
    }
    Ok(())
}

fn check_cmdline(cmdline: &str) -> Result<(), String> {
    match cmdline.contains('\0') {
        true => Err("a kernel command line cannot contain a NUL".into()),
        false => Ok(()),
    }
}

/// Checks that no terminal, file or socket is used twice.
fn check_ports(config: &VmConfig) -> Result<(), (&'static str, String)> {
    if config.serial == SerialConfig::Stdio && config.serial2 == SerialConfig::Stdio {
        // `stdio` is the first port's default, so the message must mention the first port.
        return Err((
            "serial2",
            "the terminal is taken by the first port; add --serial null, or another place".into(),
        ));
    }
    let path = |serial: &SerialConfig| match serial {
        SerialConfig::File(path) | SerialConfig::Socket(path) => Some(path.clone()),
        SerialConfig::Null | SerialConfig::Stdio => None,
    };
    let vnc = match &config.display.vnc {
        Some(VncAddress::Unix(path)) => Some(path.clone()),
        Some(VncAddress::Tcp(_)) | None => None,
    };
    let mut seen = BTreeMap::new();
    let users = [
        ("serial", path(&config.serial)),
        ("serial2", path(&config.serial2)),
        ("control", config.control.clone()),
        ("display", vnc),
    ];
    for (key, path) in users {
        if let Some(other) = path.and_then(|path| seen.insert(path, key)) {
            return Err((key, format!("this path is used by --{other} already")));
        }
    }
    Ok(())
}

fn check_hyperv(config: &VmConfig) -> Result<(), String> {
    let hyperv = &config.hyperv;
    if let Some((option, needed)) = hyperv.unmet() {
        let (option, needed) = (option.name(), needed.name());
        return Err(format!(
            "`{option}` needs `{needed}`, which is off; leave {option} out, or add {needed}=on"
        ));
    }
    let synic = hyperv.offers(super::HypervOption::Synic);
    let has_disks = !config.disks.is_empty() || !config.dvds.is_empty();
    if has_disks && !synic {
        return Err(
            "the disks are on VMBus, which needs `synic`; leave synic on, or have no disks".into(),
        );
    }
    if !config.networks.is_empty() && !synic {
        let message = "the network cards are on VMBus, which needs `synic`; leave synic on, or \
                       have no cards";
        return Err(message.into());
    }
    if config.display.mode != DisplayMode::None && !synic {
        let message = "the display is on VMBus, which needs `synic`; leave synic on, or have no \
                       display";
        return Err(message.into());
    }
    if !synic && !config.services(synic).is_empty() {
        let message = "the services are on VMBus, which needs `synic`; leave synic on, or add \
                       --services none";
        return Err(message.into());
    }
    if config.test_device.is_some() && !synic {
        return Err("the test device is on VMBus, which needs `synic`; leave synic on".into());
    }
    Ok(())
}

/// An error: the key, the index in its list, and the message.
type UnitError = (&'static str, usize, String);

/// The address and id of a disk or a DVD drive.
struct Unit<'a> {
    key: &'static str,
    index: usize,
    controller: u32,
    lun: &'a mut Option<u8>,
    id: Option<&'a str>,
}

/// Assigns each disk and each drive its LUN.
fn give_places(config: &mut VmConfig) -> Result<(), UnitError> {
    let disks = config.disks.iter_mut().enumerate().map(|(index, disk)| {
        let (controller, lun, id) = (disk.controller, &mut disk.lun, disk.id.as_deref());
        Unit { key: "disk", index, controller, lun, id }
    });
    let dvds = config.dvds.iter_mut().enumerate().map(|(index, dvd)| {
        let (controller, lun, id) = (dvd.controller, &mut dvd.lun, dvd.id.as_deref());
        Unit { key: "dvd", index, controller, lun, id }
    });
    let units: Vec<_> = disks.chain(dvds).collect();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for Unit { key, index, controller, lun, id } in &units {
        if let Some(id) = id
            && !ids.insert(*id)
        {
            return Err((key, *index, format!("the id `{id}` is used by another disk")));
        }
        if let Some(lun) = lun
            && !taken.insert((*controller, *lun))
        {
            return Err((
                key,
                *index,
                format!("LUN {lun} on controller {controller} is used by another disk"),
            ));
        }
    }
    for Unit { key, index, controller, lun, .. } in
        units.into_iter().filter(|unit| unit.lun.is_none())
    {
        let free = (0..MAX_LUNS).find(|lun| !taken.contains(&(controller, *lun)));
        let free = free.ok_or_else(|| (key, index, full(controller)))?;
        taken.insert((controller, free));
        *lun = Some(free);
    }
    Ok(())
}

fn full(controller: u32) -> String {
    format!(
        "controller {controller} has {MAX_LUNS} disks already; add controller={}",
        controller + 1
    )
}

/// Checks a disk's names, which must be printable, its limits, and the rules between its options.
pub(crate) fn check_names(disk: &DiskConfig) -> Result<(), String> {
    if disk.serial.as_deref().is_some_and(|serial| serial.len() > 32 || !is_printable(serial)) {
        return Err("a serial number has 1 to 32 printable ASCII characters".into());
    }
    check_source(disk)?;
    disk.limits().check()?;
    check_buffers(disk)?;
    check_id(disk.id.as_deref())
}

/// Checks that the disk has exactly one of `path`, `ram` and `null`, with a valid size, and only
/// options that apply to it.
fn check_source(disk: &DiskConfig) -> Result<(), String> {
    let has_path = !disk.path.as_os_str().is_empty();
    match (has_path, disk.ram, disk.null) {
        (true, None, None) => return check_new_image(disk),
        (false, Some(_), None) | (false, None, Some(_)) => {}
        (false, None, None) => {
            return Err("a disk needs path=FILE, ram=SIZE or null=SIZE".into());
        }
        _ => {
            return Err("a disk has only one of path=, ram= and null=; leave the others out".into());
        }
    }
    let (kind, size, max) = match disk.source() {
        DiskSource::Image(_) => return Ok(()),
        DiskSource::Ram(size) => ("ram", size, MAX_RAM_DISK),
        DiskSource::Null(size) => ("null", size, ByteSize::from_bytes(MAX_NULL_CAPACITY)),
    };
    // A default value of these keys is accepted: it cannot be distinguished from an absent key.
    let images_only = [
        ("size", disk.size.is_some()),
        ("format", disk.format.is_some()),
        ("cache", disk.cache != CacheMode::default()),
        ("io", disk.io != IoMode::default()),
        ("buffers", disk.buffers != BufferMode::default()),
        ("parents", disk.parents != Parents::default()),
    ];
    if let Some((key, _)) = images_only.iter().find(|(_, given)| *given) {
        return Err(format!("`{key}` is for image files and not for `{kind}`; leave it out"));
    }
    if disk.readonly && kind == "ram" {
        let why = "`readonly` keeps a `ram` disk empty; leave it out, or use null=";
        return Err(why.into());
    }
    let block = u64::from(disk.block_size.map_or(512, BlockSize::bytes));
    if size.bytes() == 0 || size > max {
        let least = ByteSize::from_bytes(block);
        return Err(format!("`{kind}` has a size from {least} to {max}, not {size}"));
    }
    if !size.bytes().is_multiple_of(block) {
        let above = ByteSize::from_bytes(size.bytes().next_multiple_of(block));
        return Err(format!(
            "{kind}={size} is not possible: the disk has blocks of {block} bytes; use {above}"
        ));
    }
    Ok(())
}

/// Checks the options of an image that is created.
fn check_new_image(disk: &DiskConfig) -> Result<(), String> {
    let Some(size) = disk.size else { return Ok(()) };
    let block = u64::from(disk.block_size.map_or(512, BlockSize::bytes));
    if disk.readonly {
        return Err("`readonly` keeps a new image empty; leave `size` or `readonly` out".into());
    }
    if size.bytes() == 0 || !size.bytes().is_multiple_of(block) {
        let above = ByteSize::from_bytes(size.bytes().max(1).next_multiple_of(block));
        return Err(format!("size={size} is not possible: a disk has whole blocks; use {above}"));
    }
    Ok(())
}

/// Checks `buffers`: only io_uring can register memory.
fn check_buffers(disk: &DiskConfig) -> Result<(), String> {
    match disk.buffers {
        BufferMode::Fixed if matches!(disk.io, IoMode::Threads | IoMode::Sync) => Err(
            "`buffers=fixed` needs io_uring; leave io out, write io=uring, or use buffers=plain"
                .into(),
        ),
        BufferMode::Fixed | BufferMode::Plain => Ok(()),
    }
}

/// Checks an id, which must be printable, so that a command line can contain it.
pub(crate) fn check_id(id: Option<&str>) -> Result<(), String> {
    match id {
        Some(id) if id.len() > 64 || !is_printable(id) => {
            Err("an id has 1 to 64 printable ASCII characters".into())
        }
        _ => Ok(()),
    }
}

fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, 0x20..=0x7E))
}
