//! The firmware's boot services that the driver uses.

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::time::Duration;

use uefi_raw::table::boot::{
    AllocateType, EventNotifyFn, EventType, InterfaceType, MemoryType, TimerDelay, Tpl,
};
use uefi_raw::{Event, Guid, Handle, Status};
use vmbus_protocol::limits::PAGE_SIZE;

/// The table of boot services, which is valid until the system takes over.
#[derive(Clone, Copy, Debug)]
pub(super) struct BootServices(&'static uefi_raw::table::boot::BootServices);

impl BootServices {
    pub(super) const fn new(table: &'static uefi_raw::table::boot::BootServices) -> Self {
        Self(table)
    }

    /// Allocates pages for data, zeroed.
    pub(super) fn allocate_data(self, pages: usize) -> Option<NonNull<u8>> {
        self.allocate(MemoryType::BOOT_SERVICES_DATA, pages)
    }

    /// Allocates a page for code, zeroed. Firmware may refuse to execute pages of data.
    pub(super) fn allocate_code_page(self) -> Option<NonNull<u8>> {
        self.allocate(MemoryType::BOOT_SERVICES_CODE, 1)
    }

    fn allocate(self, kind: MemoryType, pages: usize) -> Option<NonNull<u8>> {
        let mut address = 0;
        // SAFETY: the firmware writes the address only.
        let status = unsafe {
            (self.0.allocate_pages)(AllocateType::ANY_PAGES, kind, pages, &raw mut address)
        };
        if status != Status::SUCCESS {
            return None;
        }
        // Boot services map all memory at its physical address.
        let start = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(address as usize))?;
        // SAFETY: the firmware allocated so many bytes.
        unsafe { start.write_bytes(0, pages * PAGE_SIZE) };
        Some(start)
    }

    /// Frees pages.
    ///
    /// # Safety
    /// `allocate_data` returned them, together or one by one, and nothing uses them any more.
    pub(super) unsafe fn free(self, start: u64, pages: usize) {
        // SAFETY: the caller's promise. A failure leaves the pages allocated.
        let _ = unsafe { (self.0.free_pages)(start, pages) };
    }

    /// Allocates memory that the firmware frees, aligned to 8 bytes.
    pub(super) fn allocate_pool(self, bytes: usize) -> Option<NonNull<u8>> {
        let mut block = ptr::null_mut();
        // SAFETY: the firmware writes the pointer only.
        let status = unsafe {
            (self.0.allocate_pool)(MemoryType::BOOT_SERVICES_DATA, bytes, &raw mut block)
        };
        if status == Status::SUCCESS { NonNull::new(block) } else { None }
    }

    /// Runs `job` without interruption by events of the firmware, timers excepted.
    pub(super) fn at_notify<R>(self, job: impl FnOnce() -> R) -> R {
        self.at(Tpl::NOTIFY, job)
    }

    /// Runs `job` without interruption by status codes. Variables and files can be used. The caller
    /// runs at TPL_CALLBACK or below.
    pub(super) fn at_callback<R>(self, job: impl FnOnce() -> R) -> R {
        self.at(Tpl::CALLBACK, job)
    }

    fn at<R>(self, level: Tpl, job: impl FnOnce() -> R) -> R {
        // SAFETY: the callers of all entry points run at this level or below.
        let old = unsafe { (self.0.raise_tpl)(level) };
        let result = job();
        // SAFETY: the level was raised just before.
        unsafe { (self.0.restore_tpl)(old) };
        result
    }

    /// Returns the first instance of a protocol.
    pub(super) fn locate(self, protocol: &Guid) -> Option<NonNull<c_void>> {
        let mut interface = ptr::null_mut();
        // SAFETY: the firmware writes the pointer only.
        let status = unsafe { (self.0.locate_protocol)(protocol, ptr::null(), &raw mut interface) };
        if status == Status::SUCCESS { NonNull::new(interface) } else { None }
    }

    /// Returns the instance of a protocol on a handle.
    pub(super) fn protocol(self, handle: Handle, protocol: &Guid) -> Option<NonNull<c_void>> {
        let mut interface = ptr::null_mut();
        // SAFETY: the firmware writes the pointer only.
        let status = unsafe { (self.0.handle_protocol)(handle, protocol, &raw mut interface) };
        if status == Status::SUCCESS { NonNull::new(interface) } else { None }
    }

    /// Returns the number of handles that have a protocol, and the handles as a pool allocation.
    pub(super) fn handles(self, protocol: &Guid) -> Option<(usize, NonNull<Handle>)> {
        const BY_PROTOCOL: i32 = 2;
        let (mut count, mut handles) = (0, ptr::null_mut());
        // SAFETY: the firmware writes the two variables only.
        let status = unsafe {
            (self.0.locate_handle_buffer)(
                BY_PROTOCOL,
                protocol,
                ptr::null(),
                &raw mut count,
                &raw mut handles,
            )
        };
        if status == Status::SUCCESS { Some((count, NonNull::new(handles)?)) } else { None }
    }

    /// Frees memory of the firmware's pool.
    ///
    /// # Safety
    /// The firmware allocated it for the driver, and nothing uses it any more.
    pub(super) unsafe fn free_pool(self, block: NonNull<u8>) {
        // SAFETY: the caller's promise.
        let _ = unsafe { (self.0.free_pool)(block.as_ptr()) };
    }

    /// Adds a protocol to a handle, which is a new one if it is null.
    ///
    /// # Safety
    /// `interface` is an instance of the protocol that stays valid for as long as the driver runs.
    pub(super) unsafe fn install(
        self,
        handle: &mut Handle,
        protocol: &Guid,
        interface: *const c_void,
    ) -> Status {
        // SAFETY: the caller's promise.
        unsafe {
            (self.0.install_protocol_interface)(
                handle,
                protocol,
                InterfaceType::NATIVE_INTERFACE,
                interface,
            )
        }
    }

    /// Removes a protocol from a handle, which ends with its last protocol.
    ///
    /// # Safety
    /// `interface` is the instance that [`BootServices::install`] added.
    pub(super) unsafe fn uninstall(
        self,
        handle: Handle,
        protocol: &Guid,
        interface: *const c_void,
    ) -> Status {
        // SAFETY: the caller's promise.
        unsafe { (self.0.uninstall_protocol_interface)(handle, protocol, interface) }
    }

    /// Calls `notify` when a program waits for the returned event.
    ///
    /// # Errors
    /// The firmware has no memory.
    pub(super) fn at_wait(self, notify: EventNotifyFn) -> Result<Event, Status> {
        self.event(EventType::NOTIFY_WAIT, Tpl::NOTIFY, notify)
    }

    /// Calls `notify` again and again after this time, at TPL_CALLBACK.
    pub(super) fn every(self, period: Duration, notify: EventNotifyFn) -> Status {
        let kind = EventType::TIMER | EventType::NOTIFY_SIGNAL;
        let event = match self.event(kind, Tpl::CALLBACK, notify) {
            Ok(event) => event,
            Err(status) => return status,
        };
        // The unit is 100 ns.
        let period = u64::try_from(period.as_nanos() / 100).unwrap_or(u64::MAX);
        // SAFETY: the event is a timer's.
        unsafe { (self.0.set_timer)(event, TimerDelay::PERIODIC, period) }
    }

    /// Signals an event.
    pub(super) fn signal(self, event: Event) {
        // SAFETY: the firmware has passed the event, which exists.
        let _ = unsafe { (self.0.signal_event)(event) };
    }

    fn event(self, kind: EventType, tpl: Tpl, notify: EventNotifyFn) -> Result<Event, Status> {
        let mut event: Event = ptr::null_mut();
        // SAFETY: the function needs no context and stays valid.
        let status = unsafe {
            (self.0.create_event)(kind, tpl, Some(notify), ptr::null_mut(), &raw mut event)
        };
        if status == Status::SUCCESS { Ok(event) } else { Err(status) }
    }

    /// Calls `notify` when the system takes over.
    pub(super) fn at_exit(self, notify: EventNotifyFn) -> Status {
        let created = self.event(EventType::SIGNAL_EXIT_BOOT_SERVICES, Tpl::NOTIFY, notify);
        created.map_or_else(|status| status, |_| Status::SUCCESS)
    }
}
