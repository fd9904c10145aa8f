//! Reads the events of all input devices.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use guest_report::agent::InputEvent;

use crate::{Outcome, context, uevent};

/// An open input device.
struct Device {
    name: String,
    file: File,
}

/// The open devices.
static DEVICES: Mutex<Vec<Device>> = Mutex::new(Vec::new());

/// Bytes of a `struct input_event`: time, type, code, value.
const EVENT: usize = 24;
/// The type of events that end a group of others.
const EV_SYN: u16 = 0;
/// The type of events with the scan code of the next key.
const EV_MSC: u16 = 4;

/// Opens all input devices once they include those with the names `names`. Returns all names.
pub fn open(names: &[String], limit: Duration) -> Outcome<Vec<String>> {
    let found = uevent::wait_for(limit, || {
        let all = list().ok()?;
        names.iter().all(|name| all.iter().any(|(known, _)| known == name)).then_some(all)
    });
    let all = found
        .map_err(context("waiting for input devices"))?
        .ok_or_else(|| format!("there are only {:?}", list().unwrap_or_default()))?;
    let open = |(name, path): (String, String)| -> Outcome<Device> {
        let file = File::open(&path).map_err(context(path))?;
        Ok(Device { name, file })
    };
    let devices = all.into_iter().map(open).collect::<Outcome<Vec<_>>>()?;
    let names = devices.iter().map(|device| device.name.clone()).collect();
    *lock() = devices;
    Ok(names)
}

/// Closes all input devices.
pub fn close() {
    lock().clear();
}

/// Reads events until there are at least `count`, without groups' ends and scan codes.
pub fn read(count: usize, limit: Duration) -> Outcome<Vec<InputEvent>> {
    let mut events = Vec::new();
    let end = Instant::now() + limit;
    let mut devices = lock();
    while events.len() < count {
        let mut polls: Vec<_> = devices
            .iter()
            .map(|device| libc::pollfd {
                fd: device.file.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            })
            .collect();
        let left = end.saturating_duration_since(Instant::now()).as_millis();
        // SAFETY: `polls` has as many entries as the call is told.
        let ready = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as _, left as _) };
        if ready <= 0 {
            return Err(format!("only {} of {count} events came: {events:?}", events.len()));
        }
        for (device, poll) in devices.iter_mut().zip(polls) {
            if poll.revents != 0 {
                take(device, &mut events).map_err(context(&device.name))?;
            }
        }
    }
    Ok(events)
}

/// Waits for the press of a key.
pub fn wait_for_key(limit: Duration) -> Outcome<()> {
    const EV_KEY: u16 = 1;
    let end = Instant::now() + limit;
    loop {
        let events = read(1, end.saturating_duration_since(Instant::now()))?;
        if events.iter().any(|event| event.kind == EV_KEY && event.value == 1) {
            return Ok(());
        }
    }
}

/// Reads the events of a readable device.
fn take(device: &mut Device, events: &mut Vec<InputEvent>) -> io::Result<()> {
    let mut bytes = [0; EVENT * 64];
    let length = device.file.read(&mut bytes)?;
    for event in bytes[..length].chunks_exact(EVENT) {
        let half = |at: usize| u16::from_le_bytes([event[at], event[at + 1]]);
        let value = i32::from_le_bytes([event[20], event[21], event[22], event[23]]);
        let (kind, code) = (half(16), half(18));
        if kind != EV_SYN && kind != EV_MSC {
            events.push(InputEvent { device: device.name.clone(), kind, code, value });
        }
    }
    Ok(())
}

/// Returns the name and the node of each input device.
fn list() -> io::Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/sys/class/input")?.flatten() {
        let node = entry.file_name().to_string_lossy().into_owned();
        let name = fs::read_to_string(entry.path().join("device/name"));
        if let (true, Ok(name)) = (node.starts_with("event"), name) {
            all.push((name.trim().to_owned(), format!("/dev/input/{node}")));
        }
    }
    Ok(all)
}

fn lock() -> MutexGuard<'static, Vec<Device>> {
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner)
}
