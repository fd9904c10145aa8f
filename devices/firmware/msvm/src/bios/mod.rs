//! The BIOS device: a command and a data port, 32 bits wide (spec firmware-windows section A5).

mod diagnostics;
mod event_log;
mod random;
#[cfg(test)]
mod tests;
mod text;
mod watchdog;

use std::time::Duration;

use tracing::{debug, info, warn};
use vmbus_log::LogRateLimiter;

use crate::fields::le32;
use crate::memory::{self, Memory};
use crate::nvram::{Nvram, NvramRequest};
use diagnostics::Diagnostics;
use watchdog::Watchdog;

pub use event_log::{EventLine, EventLines};
pub use watchdog::DEFAULT_COUNT as WATCHDOG_COUNT;

/// Returns the time since any fixed moment; it never goes back.
pub type Clock = Box<dyn Fn() -> Duration + Send>;
/// Fills a buffer with random bytes.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// Offset of the data port from [`BiosDevice::PORT`].
const DATA: u16 = 4;

/// The commands.
mod command {
    pub(super) const GENERATION_LOW: u32 = 0x0E;
    pub(super) const GENERATION_HIGH: u32 = 0x0F;
    pub(super) const NVRAM: u32 = 0x24;
    pub(super) const CRYPTO: u32 = 0x26;
    pub(super) const WATCHDOG_CONFIG: u32 = 0x27;
    pub(super) const WATCHDOG_RESOLUTION: u32 = 0x28;
    pub(super) const WATCHDOG_COUNT: u32 = 0x29;
    pub(super) const DIAGNOSTICS_ADDRESS: u32 = 0x2B;
    pub(super) const DIAGNOSTICS_PROCESS: u32 = 0x2C;
    pub(super) const EVENT_LOG: u32 = 0x30;
    pub(super) const MEMORY_OVERWRITE: u32 = 0x31;
    pub(super) const NFIT_BYTES: u32 = 0x37;
}

/// What an access asks of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiosRequest {
    /// The watchdog's deadline changed; see [`BiosDevice::deadline`].
    Timer,
    /// The firmware reports that there is nothing to boot from.
    NoBootDevice,
}

/// The device. One access is one call; none blocks except on the variables' store.
pub struct BiosDevice {
    command: u32,
    nvram: Nvram,
    watchdog: Watchdog,
    generation: Generation,
    diagnostics: Diagnostics,
    clears_memory: bool,
    clock: Clock,
    random: Random,
    logs: Logs,
}

/// A limit for each kind of line that a guest can cause.
#[derive(Default)]
struct Logs {
    descriptor: LogRateLimiter,
    debug_string: LogRateLimiter,
    store: LogRateLimiter,
    event: LogRateLimiter,
    invalid_event_log: LogRateLimiter,
    generation: LogRateLimiter,
}

/// The generation id and the 16 bytes of guest memory that show it.
#[derive(Default)]
struct Generation {
    id: [u8; 16],
    low: u32,
    address: Option<u64>,
}

impl BiosDevice {
    /// The command port.
    pub const PORT: u16 = 0x28;
    /// Number of ports.
    pub const PORTS: u16 = 8;

    /// Returns the device. `generation` is the generation id that the guest sees.
    #[must_use]
    pub fn new(nvram: Nvram, generation: [u8; 16], clock: Clock, random: Random) -> BiosDevice {
        BiosDevice {
            command: u32::MAX,
            nvram,
            watchdog: Watchdog::default(),
            generation: Generation { id: generation, ..Generation::default() },
            diagnostics: Diagnostics::default(),
            clears_memory: false,
            clock,
            random,
            logs: Logs::default(),
        }
    }

    /// Restores the reset state. Kept variables remain, and so does the report of an expired
    /// watchdog.
    pub fn reset(&mut self) {
        self.command = u32::MAX;
        self.nvram.reset();
        self.watchdog.reset();
        self.generation.address = None;
        self.diagnostics = Diagnostics::default();
        self.clears_memory = false;
    }

    /// Returns the variables.
    pub fn nvram(&self) -> &Nvram {
        &self.nvram
    }

    /// Reads `data.len()` bytes at `offset` from [`BiosDevice::PORT`]. Only 32-bit reads of the
    /// data port return more than ones.
    pub fn read_port(&self, offset: u16, data: &mut [u8]) {
        let value = if offset == DATA { self.read_data() } else { u32::MAX };
        match data.len() {
            4 => data.copy_from_slice(&value.to_le_bytes()),
            _ => data.fill(0xFF),
        }
    }

    /// Writes `data` at `offset` from [`BiosDevice::PORT`]. Writes that are not 32 bits wide are
    /// ignored.
    pub fn write_port(&mut self, offset: u16, data: &[u8], memory: &Memory) -> Option<BiosRequest> {
        let value = le32(data, 0).filter(|_| data.len() == 4)?;
        match offset {
            0 => {
                self.command = value;
                None
            }
            DATA => self.write_data(value, memory),
            _ => None,
        }
    }

    /// Returns when the watchdog expires, by the clock of this device.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.watchdog.deadline()
    }

    /// Returns whether the watchdog has expired. Then the caller resets the machine; the firmware
    /// reads in the next boot that the last one expired.
    pub fn expire(&mut self) -> bool {
        self.watchdog.expire((self.clock)())
    }

    /// Returns whether the system asked that the next reset clears all RAM (TCG's memory overwrite
    /// request).
    #[must_use]
    pub fn clears_memory(&self) -> bool {
        self.clears_memory
    }

    /// Changes the generation id, also where the guest reads it. Returns whether the guest has such
    /// a place; then it must be told by ACPI.
    pub fn set_generation(&mut self, id: [u8; 16], memory: &Memory) -> bool {
        self.generation.id = id;
        self.publish_generation(memory)
    }

    fn read_data(&self) -> u32 {
        match self.command {
            command::WATCHDOG_CONFIG => self.watchdog.config(),
            command::WATCHDOG_RESOLUTION => watchdog::RESOLUTION_SECONDS,
            command::WATCHDOG_COUNT => self.watchdog.count(),
            // All ones would be a size.
            command::NFIT_BYTES => 0,
            _ => u32::MAX,
        }
    }

    fn write_data(&mut self, value: u32, memory: &Memory) -> Option<BiosRequest> {
        match self.command {
            command::NVRAM => self.perform_nvram(value, memory),
            command::CRYPTO => random::perform(memory, value.into(), &mut self.random),
            command::WATCHDOG_CONFIG => {
                self.watchdog.set_config(value, (self.clock)());
                return Some(BiosRequest::Timer);
            }
            command::WATCHDOG_COUNT => {
                self.watchdog.set_count(value, (self.clock)());
                return Some(BiosRequest::Timer);
            }
            command::GENERATION_LOW => self.generation.low = value,
            command::GENERATION_HIGH => {
                let address = u64::from(value) << 32 | u64::from(self.generation.low);
                self.generation.address = Some(address);
                self.publish_generation(memory);
            }
            command::EVENT_LOG => return self.log_events(value, memory),
            command::DIAGNOSTICS_ADDRESS => self.diagnostics.set_address(value),
            command::DIAGNOSTICS_PROCESS => self.diagnostics.log(memory),
            command::MEMORY_OVERWRITE => self.clears_memory = true,
            _ => {}
        }
        None
    }

    fn perform_nvram(&mut self, address: u32, memory: &Memory) {
        match self.nvram.perform(memory, address.into()) {
            NvramRequest::Service { command, status } => {
                debug!("firmware: variable command {command}: {status:?}");
            }
            NvramRequest::DebugString(text) => {
                let text = text::printable(text.as_bytes());
                self.logs.debug_string.log(|suppressed| debug!(suppressed, "firmware: {text}"));
            }
            NvramRequest::NotRam => self.logs.descriptor.log(|suppressed| {
                warn!(suppressed, "firmware: variable descriptor at {address:#x} is not in RAM");
            }),
        }
        if let Some(error) = self.nvram.take_save_error() {
            self.logs.store.log(|suppressed| {
                warn!(suppressed, "firmware variables were not saved: {error}");
            });
        }
    }

    fn log_events(&self, address: u32, memory: &Memory) -> Option<BiosRequest> {
        let Some(events) = EventLines::read(memory, address.into()) else {
            self.logs.invalid_event_log.log(|suppressed| {
                warn!(suppressed, "firmware: the event log at {address:#x} is invalid");
            });
            return None;
        };
        for line in events.lines() {
            let text = &line.text;
            self.logs.event.log(|suppressed| match line.is_failure {
                true => warn!(suppressed, "firmware: {text}"),
                false => info!(suppressed, "firmware: {text}"),
            });
        }
        let has_ended = events.lines().iter().any(|line| line.is_last);
        has_ended.then_some(BiosRequest::NoBootDevice)
    }

    fn publish_generation(&self, memory: &Memory) -> bool {
        let Some(address) = self.generation.address else { return false };
        let is_written = memory::write(memory, address, &self.generation.id).is_ok();
        if !is_written {
            self.logs.generation.log(|suppressed| {
                warn!(suppressed, "firmware: generation id at {address:#x} is not in RAM");
            });
        }
        is_written
    }
}
