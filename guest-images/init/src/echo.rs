//! A test of SynthVM's echo device (docs/writing-a-backend.md) from user space: rings that wrap
//! several times, both ends waiting for space, and buffers shared by GPADL.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use guest_report::agent::EchoReport;
use guest_report::pattern::{fill, mix};

use crate::Outcome;
use crate::uio::{SharedBuffer, UioDevice};
use crate::uio_ring::{FromHost, ToHost};

/// The class of the device.
const CLASS: &str = "6f686365-7421-0000-5379-6e7468564d21";

/// The device's status about a buffer.
const DONE: u32 = 0;
const NO_SUCH_GPADL: u32 = 1;
const TOO_SHORT: u32 = 2;

/// The number of times that each ring must wrap.
const ROUNDS: u32 = 3;

/// The largest payload of the rounds in bytes.
const LARGEST: u64 = 8000;

/// The timeout of an answer.
const PATIENCE: Duration = Duration::from_secs(60);

const PAGE: usize = 4096;

/// Opens the device, runs all tests, and releases it.
pub fn run() -> Outcome<EchoReport> {
    let device = UioDevice::open(CLASS)?;
    let (start, half) = device.rings();
    // SAFETY: the device keeps the rings mapped; both ends are dropped before it is closed.
    let (to, from) = unsafe { (ToHost::new(start, half), FromHost::new(start.add(half), half)) };
    let mut talk = Talk { device, to, from, next: 0, waiting: VecDeque::new(), interrupts: 0 };
    let host_waited = talk.fill_both_rings()?;
    talk.go_round()?;
    let capitals = talk.shout_in_buffers()?;
    let report = EchoReport {
        requests: talk.next,
        wraps: [talk.to.wraps(), talk.from.wraps()],
        interrupts: talk.interrupts,
        host_waited_for_space: host_waited,
        shared_bytes: talk.device.buffers.iter().map(|buffer| buffer.area.length() as u64).sum(),
        capitals,
    };
    talk.device.close()?;
    Ok(report)
}

struct Talk {
    device: UioDevice,
    to: ToHost,
    from: FromHost,
    next: u64,
    /// Requests without an answer, in the order in which the answers must come.
    waiting: VecDeque<(u64, Vec<u8>)>,
    interrupts: u64,
}

impl Talk {
    /// Sends without reading until the host has no space for its answers and the guest has none for
    /// requests; then reads all answers.
    fn fill_both_rings(&mut self) -> Outcome<bool> {
        let end = Instant::now() + PATIENCE;
        loop {
            let sent = self.send(&payload(self.next))?;
            if sent {
                continue;
            }
            if self.from.host_waits() {
                break;
            }
            // Free space causes an interrupt, but the host's waiting does not: check again soon.
            self.device.signal()?;
            self.interrupts += u64::from(self.device.wait(Duration::from_millis(20)).is_ok());
            if Instant::now() > end {
                return Err("the host neither reads nor waits for space".to_owned());
            }
        }
        self.finish()?;
        Ok(true)
    }

    /// Sends requests of all sizes until both rings have wrapped often enough.
    fn go_round(&mut self) -> Outcome<()> {
        let rounds = self.to.wraps() + ROUNDS;
        while self.to.wraps() < rounds {
            while self.send(&payload(self.next))? {}
            self.finish()?;
        }
        Ok(())
    }

    /// Tests buffers of many scattered pages: the device must write capitals in the requested parts
    /// only.
    fn shout_in_buffers(&mut self) -> Outcome<u64> {
        let mut capitals = 0;
        for number in 0..self.device.buffers.len() {
            let SharedBuffer { gpadl, area } = &self.device.buffers[number];
            let (gpadl, length) = (*gpadl, area.length());
            for page in 0..length / PAGE {
                area.write(page * PAGE, &letters(page)[..PAGE]);
            }
            let ranges = ranges(length);
            for (offset, bytes) in &ranges {
                self.shout(gpadl, *offset, *bytes, DONE)?;
                capitals += *bytes as u64;
            }
            self.shout(gpadl, length - 1, 2, TOO_SHORT)?;
            self.shout(gpadl, u32::MAX as usize, u32::MAX as usize, TOO_SHORT)?;
            self.compare(number, &ranges)?;
        }
        self.shout(0, 0, 1, DONE)?;
        self.shout(u32::MAX, 0, 1, NO_SUCH_GPADL)?;
        Ok(capitals)
    }

    /// Requests capitals in a buffer, and expects this status.
    fn shout(&mut self, gpadl: u32, offset: usize, bytes: usize, status: u32) -> Outcome<()> {
        let number = |value: usize| u32::try_from(value).map_err(|e| e.to_string());
        let words = [gpadl, number(offset)?, number(bytes)?, status];
        // The answer is the request with the status filled in, so the request already contains it.
        self.send(&words.map(u32::to_le_bytes).concat())?;
        self.finish()
    }

    fn compare(&self, number: usize, ranges: &[(usize, usize)]) -> Outcome<()> {
        let area = &self.device.buffers[number].area;
        let mut found = [0; PAGE];
        for page in 0..area.length() / PAGE {
            area.read(page * PAGE, &mut found);
            let mut expected = letters(page);
            for (start, end) in ranges.iter().map(|(offset, bytes)| (*offset, offset + bytes)) {
                let inside = |at: usize| at.clamp(page * PAGE, (page + 1) * PAGE) - page * PAGE;
                expected[inside(start)..inside(end)].make_ascii_uppercase();
            }
            if found != expected {
                let place = found.iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(0);
                return Err(format!("buffer {number} differs at byte {}", page * PAGE + place));
            }
        }
        Ok(())
    }

    fn send(&mut self, payload: &[u8]) -> Outcome<bool> {
        let sent = self.to.write(self.next, payload)?;
        if sent {
            self.waiting.push_back((self.next, payload.to_vec()));
            self.next += 1;
        }
        Ok(sent)
    }

    /// Signals the host and reads all answers, asleep while there are none.
    fn finish(&mut self) -> Outcome<()> {
        loop {
            // Interrupts are enabled before the last check, so that none is missed.
            self.device.signal()?;
            let mut any = false;
            while let Some((transaction, payload)) = self.from.read()? {
                any = true;
                let (asked, expected) = self.waiting.pop_front().ok_or("an answer to nothing")?;
                if transaction != asked || payload != expected {
                    return Err(format!(
                        "the answer to request {asked} is wrong: {transaction}, {} bytes",
                        payload.len()
                    ));
                }
            }
            if self.waiting.is_empty() {
                return Ok(());
            }
            if !any {
                self.device.wait(PATIENCE)?;
                self.interrupts += 1;
            }
        }
    }
}

/// Returns a request's payload, which names no buffer. The answer is equal to it.
fn payload(number: u64) -> Vec<u8> {
    let length = 16 + (mix(number) % LARGEST).next_multiple_of(8);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(16)];
    fill(&mut bytes[16..], number, 0);
    bytes
}

/// Returns a page of small letters; neighbouring letters differ.
fn letters(page: usize) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    let mut letter = (page % 26) as u8;
    for byte in &mut bytes {
        *byte = b'a' + letter;
        letter = if letter == 25 { 0 } else { letter + 1 };
    }
    bytes
}

/// Returns offset and length of the parts to change: single bytes, parts across page ends, long
/// ones, and parts at both ends.
fn ranges(length: usize) -> [(usize, usize); 6] {
    let middle = length / 2;
    [
        (0, 1),
        (PAGE - 1, 2),
        (3 * PAGE + 17, 5 * PAGE),
        (middle - 1001, 300 * PAGE + 555),
        (length - 2 * PAGE - 5, PAGE),
        (length - 1, 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_ranges_lie_inside_and_apart() {
        let mut end = 0;
        for (offset, bytes) in ranges(16 << 20) {
            assert!(offset >= end && offset + bytes <= 16 << 20);
            end = offset + bytes;
        }
    }

    #[test]
    fn test_payloads_name_no_buffer_and_differ() {
        assert_eq!(payload(3)[..16], [0; 16]);
        assert_ne!(payload(3), payload(4));
        assert!(payload(0).len().is_multiple_of(8));
    }
}
