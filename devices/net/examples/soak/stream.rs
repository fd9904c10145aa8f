//! The stream: numbered bytes in TCP segments, and their check.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use synthvm_net::software::checksum::{finish, sum};
use synthvm_net::software::{Headers, TCP, complete_headers};
use synthvm_net::{Frame, Pieces, Queue, Segmentation, SendError, VnetHeader};
use vm_memory::VolatileSlice;

/// Bytes of the Ethernet, IPv4 and TCP headers.
const HEADERS: usize = 54;

/// Bytes of payload of a segment.
const SEGMENT: u16 = 1446;

/// The longest payload of a frame that is sent.
const LONGEST: u64 = 65_000;

/// Bytes on their way at most: a switch drops what its receiver does not take in time.
const WINDOW: u64 = 512 << 10;

const DESTINATION: [u8; 6] = [2, 0, 0, 0, 0, 2];
const SOURCE: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// What both ends tell each other.
#[derive(Default)]
pub(crate) struct Progress {
    received: AtomicU64,
    ended: AtomicBool,
}

impl Progress {
    /// Returns the bytes of payload that were received and checked.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// Ends the sender.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// Sends `bytes` bytes. Returns the number of frames.
pub(crate) fn send(queue: &mut dyn Queue, bytes: u64, progress: &Progress) -> Result<u64, String> {
    let (mut offset, mut frames) = (0, 0);
    let mut frame = Vec::new();
    let mut pieces = Pieces::new();
    while offset < bytes && !progress.has_ended() {
        // The first frame is repeated until it arrives, as a bridge drops frames at its start.
        if offset != 0 && progress.received() == 0 {
            offset = 0;
            wait(queue.event(), 10);
        }
        let in_flight = offset - progress.received().min(offset);
        if in_flight >= WINDOW {
            std::thread::yield_now();
            continue;
        }
        let most = if offset == 0 { u64::from(SEGMENT) } else { LONGEST };
        let length = (1 + mix(offset) % most).min(bytes - offset);
        build(&mut frame, offset, length as usize)?;
        let header = VnetHeader::checksum(34, 16).split(Segmentation::Tcp4, SEGMENT, 54);
        loop {
            let mut list = std::mem::take(&mut pieces).recycle();
            let pushed = list.push(VolatileSlice::from(&mut frame[..]));
            let sent = queue.send(&Frame { header, ..Frame::new(&list) });
            pieces = list.recycle();
            match sent.and(pushed.map_err(|_| SendError::Malformed)) {
                Ok(()) => break,
                Err(SendError::Full) if progress.has_ended() => return Ok(frames),
                Err(SendError::Full) => {
                    wait(queue.space_event(), 100);
                }
                Err(error) => return Err(format!("sending at byte {offset}: {error}")),
            }
        }
        offset += length;
        frames += 1;
    }
    // The rest of the last frame may be with the queue.
    while !progress.has_ended() {
        queue.flush();
        std::thread::yield_now();
    }
    Ok(frames)
}

/// Receives and checks `bytes` bytes. Returns the number of frames.
pub(crate) fn receive(
    queue: &mut dyn Queue,
    bytes: u64,
    progress: &Progress,
) -> Result<u64, String> {
    let (mut offset, mut frames) = (0, 0);
    let mut space = vec![0; 1 << 16];
    let mut pieces = Pieces::new();
    while offset < bytes {
        let mut list = std::mem::take(&mut pieces).recycle();
        list.push(VolatileSlice::from(&mut space[..])).map_err(|error| error.to_string())?;
        let received = queue.receive(&list);
        pieces = list.recycle();
        let received = received.map_err(|error| format!("receiving at byte {offset}: {error}"))?;
        let Some(received) = received else {
            if !wait(queue.event(), 30_000) {
                return Err(format!("nothing arrives after byte {offset}"));
            }
            continue;
        };
        let frame = &space[received.offset..received.offset + received.length];
        // The host sends frames of its own.
        if frame.get(..12) != Some(&[DESTINATION, SOURCE].concat()[..]) {
            continue;
        }
        let length = check(frame, offset).map_err(|what| format!("{what} at byte {offset}"))?;
        offset += length;
        frames += 1;
        progress.received.store(offset, Ordering::Release);
    }
    Ok(frames)
}

/// Writes a TCP segment of `length` bytes from `offset` of the stream on.
fn build(frame: &mut Vec<u8>, offset: u64, length: usize) -> Result<(), String> {
    frame.clear();
    frame.extend([DESTINATION, SOURCE].concat());
    frame.extend([8, 0, 0x45, 0, 0, 0, 0, 1, 0, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0, 1, 0, 2]);
    frame.extend((offset as u32).to_be_bytes());
    frame.extend([0, 0, 0, 4, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    fill(frame, offset, length);
    let total = frame.len();
    complete_headers(&mut frame[..HEADERS], total).map_err(|error| error.to_string())?;
    Ok(())
}

/// Checks a segment that must continue the stream at `offset`. Returns its bytes; 0 for one that
/// was received before.
fn check(frame: &[u8], offset: u64) -> Result<u64, String> {
    let headers = Headers::find(frame).map_err(|error| error.to_string())?;
    let (ip, tcp) = (&frame[headers.network..headers.transport], &frame[headers.transport..]);
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    let tcp = total.checked_sub(ip.len()).and_then(|length| tcp.get(..length));
    let tcp = tcp.filter(|tcp| tcp.len() >= 20).ok_or("a wrong length")?;
    if finish(sum(0, ip)) != 0 {
        return Err("a wrong IPv4 checksum".into());
    }
    let pseudo = sum(0, &ip[12..20]) + u64::from(TCP) + tcp.len() as u64;
    if finish(sum(pseudo, tcp)) != 0 {
        return Err("a wrong TCP checksum".into());
    }
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    let payload = &frame[headers.payload..headers.transport + tcp.len()];
    if sequence == 0 && offset != 0 && offset < u64::from(u32::MAX) {
        return Ok(0);
    }
    if sequence != offset as u32 {
        return Err(format!("a segment with sequence number {sequence}"));
    }
    let mut expected = Vec::with_capacity(payload.len() + 8);
    fill(&mut expected, offset, payload.len());
    match payload.iter().zip(&expected).position(|(byte, expected)| byte != expected) {
        None => Ok(payload.len() as u64),
        Some(at) => Err(format!("a wrong byte of payload, {at} after the start")),
    }
}

/// Appends `length` bytes of the stream: each 8 of them are a hash of their number.
fn fill(out: &mut Vec<u8>, offset: u64, length: usize) {
    let (mut number, skip) = (offset / 8, offset as usize % 8);
    let end = out.len() + length;
    out.extend_from_slice(&mix(number).to_le_bytes()[skip..]);
    while out.len() < end {
        number += 1;
        out.extend_from_slice(&mix(number).to_le_bytes());
    }
    out.truncate(end);
}

/// A hash of a number (the finalizer of splitmix64).
fn mix(number: u64) -> u64 {
    let mut word = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

/// Waits for a descriptor at most `milliseconds`. Returns whether it is ready.
fn wait(fd: Option<RawFd>, milliseconds: i32) -> bool {
    let Some(fd) = fd else { return false };
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&raw mut entry, 1, milliseconds) > 0 }
}
