//! The guest's machine, for the client.

use std::thread;
use std::time::Duration;

use vmbus_client::platform::{HostBytes, Wake};
use vmbus_client::{GpadlFlags, Mdl, NtStatus, Platform};
use vmbus_host::HvStatus;

use crate::config::Mode;
use crate::rings::{LoopbackRings, attach_rings};
use crate::vm::LoopbackVm;

/// The guest's side of a [`LoopbackVm`], for a client.
#[derive(Clone, Debug)]
pub struct LoopbackPlatform {
    vm: LoopbackVm,
}

impl LoopbackVm {
    /// Returns the guest's side, for a [`vmbus_client::Client`].
    #[must_use]
    pub fn platform(&self) -> LoopbackPlatform {
        LoopbackPlatform { vm: self.clone() }
    }
}

impl LoopbackPlatform {
    /// Returns the VM of this platform.
    #[must_use]
    pub fn vm(&self) -> &LoopbackVm {
        &self.vm
    }
}

impl Platform for LoopbackPlatform {
    type Rings = LoopbackRings;

    fn post_message(&self, connection_id: u32, message: &[u8]) -> HvStatus {
        self.vm.post_message(connection_id, message)
    }

    fn signal_event(&self, connection_id: u32) -> HvStatus {
        self.vm.signal_event(connection_id, 0)
    }

    fn take_message(&self) -> Option<HostBytes> {
        self.vm.synic().take_any_message()
    }

    fn take_events(&self, sink: &mut dyn FnMut(u16)) {
        self.vm.synic().take_events(sink);
    }

    fn wait(&self) -> Wake {
        let synic = self.vm.synic();
        let something = match self.vm.inner().config.mode {
            // The devices are not run until idle: the guest checks for events after every step,
            // like a guest that runs beside its host.
            Mode::Stepped => synic.has_something() || self.vm.step() || synic.has_something(),
            Mode::Threaded => synic.wait(self.vm.inner().config.timeout),
        };
        if something { Wake::Something } else { Wake::Never }
    }

    fn wait_at_most(&self, time: Duration) -> Wake {
        let config = &self.vm.inner().config;
        match config.mode {
            Mode::Stepped => self.wait(),
            Mode::Threaded if self.vm.synic().wait(time.min(config.timeout)) => Wake::Something,
            Mode::Threaded => Wake::Never,
        }
    }

    /// Returns the time since the start. A stepped machine has no clock, so its time is always 0.
    fn now(&self) -> Duration {
        match self.vm.inner().config.mode {
            Mode::Stepped => Duration::ZERO,
            Mode::Threaded => self.vm.inner().started.elapsed(),
        }
    }

    fn step(&self) -> bool {
        self.vm.step()
    }

    fn back_off(&self, _: u32) {
        if !self.vm.step() {
            thread::yield_now();
        }
    }

    fn allocate_pages(&self, count: usize) -> Option<Vec<u64>> {
        self.vm.pages().allocate(count, self.vm.inner().config.ring_layout)
    }

    fn free_pages(&self, pages: &[u64]) {
        self.vm.pages().free(pages);
    }

    fn map_rings(&self, pages: &[u64], downstream_page: usize) -> Result<LoopbackRings, NtStatus> {
        attach_rings(self.vm.ram(), pages, downstream_page)
    }

    fn probe_and_lock(&self, address: u64, bytes: u32) -> Result<Mdl, NtStatus> {
        self.vm.pages().probe_and_lock(address, bytes)
    }

    fn unlock(&self, mdl: &Mdl) {
        self.vm.pages().unlock(mdl);
    }

    fn gpadl_created(&self, relid: u32, id: u32, flags: GpadlFlags) {
        if flags.contains(GpadlFlags::READ_ONLY) {
            // The host has already dropped the GPADL when the connection is being reset, and then
            // it maps no GPADL any more.
            let _ = self.vm.bus().mark_gpadl_read_only(relid, id);
        }
    }
}
