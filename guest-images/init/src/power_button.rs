//! Powers the machine off when its power button is pressed, as every ordinary guest does.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;

use crate::sys::{self, Machine};

/// `struct input_event` of 64-bit kernels: 16 bytes of time, then type, code (16 bits each) and
/// value (32 bits).
const EVENT_SIZE: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Watches the power button on a thread of its own. Returns false if the kernel shows no power
/// button.
pub fn watch() -> io::Result<bool> {
    let Some(path) = find(Path::new("/sys/class/input")) else { return Ok(false) };
    let mut file = File::open(path)?;
    thread::spawn(move || {
        let mut event = [0; EVENT_SIZE];
        while file.read_exact(&mut event).is_ok() {
            if is_press(&event) {
                let error = sys::end(Machine::PowerOff);
                eprintln!("guest-init: power off: {error}");
            }
        }
    });
    Ok(true)
}

fn find(inputs: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(inputs).ok()?.flatten();
    let named = |entry: &fs::DirEntry| {
        let name = fs::read_to_string(entry.path().join("device/name"));
        entry.file_name().to_string_lossy().starts_with("event")
            && name.is_ok_and(|n| n.trim() == "Power Button")
    };
    let entry = entries.into_iter().find(named)?;
    Some(Path::new("/dev/input").join(entry.file_name()))
}

fn is_press(event: &[u8; EVENT_SIZE]) -> bool {
    let [.., t0, t1, c0, c1, v0, v1, v2, v3] = *event;
    u16::from_ne_bytes([t0, t1]) == EV_KEY
        && u16::from_ne_bytes([c0, c1]) == KEY_POWER
        && i32::from_ne_bytes([v0, v1, v2, v3]) == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> [u8; EVENT_SIZE] {
        let mut event = [0xEE; EVENT_SIZE];
        event[16..18].copy_from_slice(&kind.to_ne_bytes());
        event[18..20].copy_from_slice(&code.to_ne_bytes());
        event[20..].copy_from_slice(&value.to_ne_bytes());
        event
    }

    #[test]
    fn test_only_the_press_of_the_power_key_counts() {
        assert!(is_press(&event(EV_KEY, KEY_POWER, 1)));
        assert!(!is_press(&event(EV_KEY, KEY_POWER, 0)), "its release");
        assert!(!is_press(&event(EV_KEY, 30, 1)), "another key");
        assert!(!is_press(&event(0, 0, 0)), "the end of a report");
    }
}
