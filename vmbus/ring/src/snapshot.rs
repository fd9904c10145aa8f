//! The state of a ring, for `inspect`.

use alloc::sync::Weak;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use crate::control::Control;
use crate::memory::{Backing, Mode, RingMemory};
use crate::offset::DataSize;

/// The control page of a ring at one moment. The peer may have written any values, so the fields
/// may be inconsistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingSnapshot {
    /// Byte offset of the next byte to write.
    pub write_index: u32,
    /// Byte offset of the next byte to read.
    pub read_index: u32,
    /// Not 0: the consumer requested no signals.
    pub interrupt_mask: u32,
    /// Not 0: the producer waits for that many free bytes.
    pub pending_send_size: u32,
    /// Features of both ends; bit 0: pending send size.
    pub feature_bits: u32,
    /// Bytes of the data area.
    pub data_size: u32,
    /// The mode of access to the data.
    pub mode: Mode,
    /// Bytes that can be read. `None` when an index is invalid.
    pub used: Option<u32>,
}

/// A handle that inspects a ring from any thread. It does not hold the ring's memory, so a teardown
/// does not wait for it.
#[derive(Clone)]
pub struct RingWatch {
    control: NonNull<Control>,
    alive: Weak<Backing>,
    size: DataSize,
    mode: Mode,
}

// SAFETY: the control page is only accessed while `alive` is held, and only through atomics.
unsafe impl Send for RingWatch {}
// SAFETY: as above.
unsafe impl Sync for RingWatch {}

impl RingWatch {
    pub(crate) fn new(memory: &RingMemory) -> Self {
        let (control, alive) = memory.watch_parts();
        Self { control, alive, size: memory.size(), mode: memory.mode() }
    }

    /// Returns the present state of the ring. `None` when its owner dropped it.
    #[must_use]
    pub fn snapshot(&self) -> Option<RingSnapshot> {
        let _alive = self.alive.upgrade()?;
        // SAFETY: the backing that keeps this page mapped is alive and held.
        let control = unsafe { self.control.as_ref() };
        Some(RingSnapshot::of(control, self.size, self.mode))
    }
}

impl RingSnapshot {
    pub(crate) fn of(control: &Control, size: DataSize, mode: Mode) -> Self {
        let write_index = control.write_index.load(Ordering::Relaxed);
        let read_index = control.read_index.load(Ordering::Relaxed);
        let used = size
            .check(read_index)
            .zip(size.check(write_index))
            .map(|(read, write)| size.used(read, write));
        Self {
            write_index,
            read_index,
            interrupt_mask: control.interrupt_mask.load(Ordering::Relaxed),
            pending_send_size: control.pending_send_size.load(Ordering::Relaxed),
            feature_bits: control.feature_bits.load(Ordering::Relaxed),
            data_size: size.get(),
            mode,
            used,
        }
    }
}

impl core::fmt::Debug for RingWatch {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RingWatch").field("snapshot", &self.snapshot()).finish()
    }
}
