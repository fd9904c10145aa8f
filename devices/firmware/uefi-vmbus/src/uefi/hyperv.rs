//! The hypervisor: CPUID, model-specific registers, hypercalls, and the pages of the SynIC
//! (hypervisor-platform sections 1 to 4, firmware-windows section E2).

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use core::time::Duration;

use vmbus_client::platform::HostBytes;
use vmbus_protocol::limits::MAX_MESSAGE_SIZE;
use vmbus_protocol::offer::{HvStatus, VMBUS_MESSAGE_TYPE, VMBUS_SINT};

use super::boot::BootServices;
use super::{interrupt, msr};

/// The id of generation-2 firmware. iPXE does not take the hypercall page from this owner.
const GUEST_OS_ID: u64 = 1 << 40;

/// Bit 0 of several registers: the page or the controller is enabled.
const ENABLE: u64 = 1;
/// The SINT is masked.
const SINT_MASKED: u64 = 1 << 16;
/// Bytes of a SINT's part of the message page and of the event flags page.
const SINT_BYTES: usize = 256;
/// Event flags of a SINT, in words.
const FLAG_WORDS: usize = SINT_BYTES / 8;

const POST_MESSAGE: u64 = 0x5C;
const SIGNAL_EVENT: u64 = 0x5D;
/// The input is in registers.
const FAST: u64 = 1 << 16;

/// The reason that there is no VMBus to connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Absent {
    NoHypervisor,
    NotHyperV,
    Features(u32),
    Owned(u64),
    NoMemory,
    NoInterrupts,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHypervisor => f.write_str("no hypervisor"),
            Self::NotHyperV => f.write_str("no Hyper-V interface"),
            Self::Features(present) => {
                write!(f, "the hypervisor lacks SynIC, hypercalls or a clock ({present:#x})")
            }
            Self::Owned(id) => write!(f, "the hypervisor has an owner already ({id:#x})"),
            Self::NoMemory => f.write_str("no memory"),
            Self::NoInterrupts => f.write_str("the firmware takes no interrupt handler"),
        }
    }
}

/// The connection of this processor to the hypervisor.
#[derive(Debug)]
pub(super) struct Hypervisor {
    boot: BootServices,
    hypercalls: NonNull<u8>,
    /// The page of a hypercall's input.
    input: NonNull<u8>,
    messages: NonNull<u8>,
    flags: NonNull<u8>,
}

/// Checks that there is a hypervisor with VMBus, and no other owner of it.
pub(super) fn detect() -> Result<(), Absent> {
    /// CPUID leaf 1 ECX: a hypervisor is present.
    const PRESENT: u32 = 1 << 31;
    const VENDOR_LEAF: u32 = 0x4000_0000;
    const INTERFACE_LEAF: u32 = 0x4000_0001;
    const FEATURES_LEAF: u32 = 0x4000_0003;
    /// "Hv#1".
    const INTERFACE: u32 = 0x3123_7648;
    /// EAX of the features: reference counter, SynIC, hypercalls, VP index.
    const FEATURES: u32 = 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6;
    if __cpuid(1).ecx & PRESENT == 0 {
        return Err(Absent::NoHypervisor);
    }
    let last = __cpuid(VENDOR_LEAF).eax;
    if last < FEATURES_LEAF || __cpuid(INTERFACE_LEAF).eax != INTERFACE {
        return Err(Absent::NotHyperV);
    }
    let features = __cpuid(FEATURES_LEAF).eax;
    if features & FEATURES != FEATURES {
        return Err(Absent::Features(features));
    }
    match msr::read(msr::GUEST_OS_ID) {
        0 => Ok(()),
        owner => Err(Absent::Owned(owner)),
    }
}

impl Hypervisor {
    /// Enables hypercalls and the SynIC. [`detect`] must have succeeded.
    pub(super) fn start(boot: BootServices) -> Result<Self, Absent> {
        let page = || boot.allocate_data(1).ok_or(Absent::NoMemory);
        let hypercalls = boot.allocate_code_page().ok_or(Absent::NoMemory)?;
        let (input, messages, flags) = (page()?, page()?, page()?);
        if !interrupt::register(boot) {
            return Err(Absent::NoInterrupts);
        }
        let this = Self { boot, hypercalls, input, messages, flags };
        msr::write(msr::GUEST_OS_ID, GUEST_OS_ID);
        msr::write(msr::HYPERCALL, address(this.hypercalls) | ENABLE);
        msr::write(msr::SIMP, address(this.messages) | ENABLE);
        msr::write(msr::SIEFP, address(this.flags) | ENABLE);
        msr::write(msr::SCONTROL, ENABLE);
        msr::write(sint(), interrupt::VECTOR.into());
        Ok(this)
    }

    /// HvPostMessage with the message type of VMBus.
    pub(super) fn post_message(&self, connection_id: u32, message: &[u8]) -> HvStatus {
        let Ok(size) = u32::try_from(message.len()) else { return HvStatus::InvalidParameter };
        if message.len() > MAX_MESSAGE_SIZE {
            return HvStatus::InvalidParameter;
        }
        let mut head = [0; 16];
        for (to, value) in
            head.chunks_exact_mut(4).zip([connection_id, 0, VMBUS_MESSAGE_TYPE, size])
        {
            to.copy_from_slice(&value.to_le_bytes());
        }
        // SAFETY: the page is the driver's own, and both fit it; the host reads it during the
        // hypercall only.
        unsafe {
            self.input.copy_from_nonoverlapping(NonNull::from(&head).cast(), head.len());
            let body = NonNull::from(message).cast();
            self.input.add(head.len()).copy_from_nonoverlapping(body, message.len());
        }
        self.call(POST_MESSAGE, address(self.input))
    }

    /// HvSignalEvent with flag 0.
    pub(super) fn signal_event(&self, connection_id: u32) -> HvStatus {
        self.call(SIGNAL_EVENT | FAST, connection_id.into())
    }

    /// Takes the next channel message, and lets the host fill the slot again.
    pub(super) fn take_message(&self) -> Option<HostBytes> {
        const HEAD: usize = 16;
        const PENDING: u8 = 1;
        loop {
            let kind = self.message_type().load(Ordering::Acquire);
            if kind == 0 {
                return None;
            }
            let slot = self.slot();
            let mut payload = [0; MAX_MESSAGE_SIZE];
            // SAFETY: the slot has 256 bytes; a host does not write to it while its type is not 0,
            // and one that does damages its own message only.
            let size = unsafe {
                let to = NonNull::from(&mut payload).cast();
                slot.add(HEAD).copy_to_nonoverlapping(to, MAX_MESSAGE_SIZE);
                slot.add(4).read_volatile()
            };
            self.message_type().store(0, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            // SAFETY: as above. The host sets the flag while the type is not 0.
            if unsafe { slot.add(5).read_volatile() } & PENDING != 0 {
                msr::write(msr::EOM, 0);
            }
            // Other types, such as those of timers, are of no use here.
            if kind == VMBUS_MESSAGE_TYPE {
                return Some(HostBytes::new(&payload[..usize::from(size).min(MAX_MESSAGE_SIZE)]));
            }
        }
    }

    /// Tests and clears the event flags, and hands each that was set to `sink`.
    pub(super) fn take_events(&self, sink: &mut dyn FnMut(u16)) {
        for (number, word) in (0_u16..).zip(self.words()) {
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut set = word.swap(0, Ordering::SeqCst);
            while set != 0 {
                sink(number * 64 + set.trailing_zeros() as u16);
                set &= set - 1;
            }
        }
    }

    /// Returns true if there is a message or an event flag.
    pub(super) fn has_work(&self) -> bool {
        self.message_type().load(Ordering::Acquire) != 0
            || self.words().any(|word| word.load(Ordering::Acquire) != 0)
    }

    fn slot(&self) -> NonNull<u8> {
        // SAFETY: the page has 16 slots.
        unsafe { self.messages.add(usize::from(VMBUS_SINT) * SINT_BYTES) }
    }

    fn message_type(&self) -> &AtomicU32 {
        // SAFETY: the first four bytes of a slot, aligned, of a page that stays allocated.
        unsafe { self.slot().cast().as_ref() }
    }

    fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        // SAFETY: the page has 16 parts of 256 bytes, aligned, and stays allocated.
        let first: NonNull<AtomicU64> =
            unsafe { self.flags.add(usize::from(VMBUS_SINT) * SINT_BYTES).cast() };
        // SAFETY: as above.
        (0..FLAG_WORDS).map(move |word| unsafe { first.add(word).as_ref() })
    }

    /// Executes a hypercall without output.
    fn call(&self, code: u64, input: u64) -> HvStatus {
        let result: u64;
        // SAFETY: the hypervisor filled the page with a function of this interface, which changes
        // no register but the result and those that are declared here.
        unsafe {
            asm!(
                "call {page}",
                page = in(reg) self.hypercalls.as_ptr(),
                inout("rcx") code => _,
                inout("rdx") input => _,
                inout("r8") 0_u64 => _,
                out("rax") result,
                out("r9") _,
                out("r10") _,
                out("r11") _,
            );
        }
        match result as u16 {
            0 => HvStatus::Success,
            2 => HvStatus::InvalidHypercallCode,
            4 => HvStatus::InvalidAlignment,
            5 => HvStatus::InvalidParameter,
            18 => HvStatus::InvalidConnectionId,
            // Insufficient memory and insufficient buffers: both pass.
            11 | 19 => HvStatus::InsufficientBuffers,
            _ => HvStatus::InvalidHypercallInput,
        }
    }
}

impl Drop for Hypervisor {
    /// Disables everything but SCONTROL: a later system may hang without it. The pages stay
    /// allocated, as the memory map may be final already.
    fn drop(&mut self) {
        msr::write(sint(), SINT_MASKED | u64::from(interrupt::VECTOR));
        msr::write(msr::SIMP, 0);
        msr::write(msr::SIEFP, 0);
        msr::write(msr::HYPERCALL, 0);
        msr::write(msr::GUEST_OS_ID, 0);
        interrupt::unregister(self.boot);
    }
}

/// Returns the index of this virtual processor.
pub(super) fn vp_index() -> u32 {
    msr::read(msr::VP_INDEX) as u32
}

/// Returns the hypervisor's reference time. It counts 100 ns.
pub(super) fn now() -> Duration {
    let count = msr::read(msr::TIME_REF_COUNT);
    Duration::new(count / 10_000_000, (count % 10_000_000) as u32 * 100)
}

fn sint() -> u32 {
    msr::SINT0 + u32::from(VMBUS_SINT)
}

/// Returns the physical address, which is the virtual one while boot services run.
fn address(page: NonNull<u8>) -> u64 {
    page.as_ptr().expose_provenance() as u64
}
