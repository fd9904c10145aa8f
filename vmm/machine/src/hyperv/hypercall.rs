//! Hypercalls that KVM passes to user space (spec hypervisor-platform section 5.3, vmbus-core
//! sections 2.3 and 2.4).

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};
use vmbus_host::{HvStatus, VmBus};

use super::extended::{self, FreePages};
use crate::memory::GuestMemory;

/// HvPostMessage.
const POST_MESSAGE: u16 = 0x5C;
/// HvSignalEvent.
const SIGNAL_EVENT: u16 = 0x5D;

const FAST: u64 = 1 << 16;
const INPUT_SIZE: usize = 256;
const HEADER_SIZE: usize = 16;
const MAX_PAYLOAD: u32 = 240;
/// Message types with this bit are reserved for the hypervisor.
const HYPERVISOR_TYPE: u32 = 1 << 31;
/// Connection ids have 24 bits; the other bits of the word are reserved.
const CONNECTION_ID: u32 = 0xFF_FFFF;

/// A VM's message ports, which belong to the bus. Both methods run on the thread of the calling VP.
pub(crate) trait Ports {
    /// Handles HvPostMessage to `connection_id` (24 bits). The caller has checked the input.
    /// `payload` has at most 240 bytes and is a private copy.
    fn post_message(&self, connection_id: u32, message_type: u32, payload: &[u8]) -> HvStatus;

    /// Handles HvSignalEvent to `connection_id` (24 bits) that KVM did not complete. No eventfd is
    /// bound to the id, because it is unknown or because KVM refused the binding.
    fn signal_event(&self, connection_id: u32) -> HvStatus;
}

/// A machine without a bus has no connection ids.
impl Ports for Option<VmBus> {
    fn post_message(&self, connection_id: u32, message_type: u32, payload: &[u8]) -> HvStatus {
        let Some(bus) = self else { return HvStatus::InvalidConnectionId };
        bus.post_message(connection_id, message_type, payload)
    }

    fn signal_event(&self, connection_id: u32) -> HvStatus {
        self.as_ref()
            .map_or(HvStatus::InvalidConnectionId, |bus| bus.signal_event(connection_id, 0))
    }
}

/// A hypercall of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hypercall {
    /// RCX.
    pub input: u64,
    /// RDX; for HvSignalEvent, the eight bytes that KVM has already read.
    pub parameter: u64,
    /// R8.
    pub output: u64,
}

/// Handles a hypercall exit and returns the value for RAX: the status, and the number of handled
/// elements from bit 32 on.
pub(crate) fn dispatch(
    memory: &GuestMemory,
    ports: &impl Ports,
    free_pages: Option<&Arc<dyn FreePages>>,
    Hypercall { input, parameter, output }: Hypercall,
) -> u64 {
    let status = match input as u16 {
        POST_MESSAGE => post_message(memory, ports, input, parameter),
        SIGNAL_EVENT => signal_event(ports, parameter),
        _ => {
            let call = [input, parameter, output];
            let (status, elements) = extended::dispatch(memory, free_pages, call)
                .unwrap_or((HvStatus::InvalidHypercallCode, 0));
            return u64::from(status.code()) | elements << 32;
        }
    };
    status.code().into()
}

/// Handles HvPostMessage. `address` is the guest physical address of its 256 bytes.
fn post_message(memory: &GuestMemory, ports: &impl Ports, input: u64, address: u64) -> HvStatus {
    if input & FAST != 0 {
        return HvStatus::InvalidHypercallInput;
    }
    if !address.is_multiple_of(8) || address % 4096 > 4096 - INPUT_SIZE as u64 {
        return HvStatus::InvalidAlignment;
    }
    // One copy is both checked and used, because other VPs may change the page at any time.
    let mut copy = [0; INPUT_SIZE];
    if memory.read_slice(&mut copy, GuestAddress(address)).is_err() {
        return HvStatus::InvalidParameter;
    }
    let (header, payload) = copy.split_at(HEADER_SIZE);
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (connection_id, message_type, size) = (word(0), word(8), word(12));
    if size > MAX_PAYLOAD || message_type & HYPERVISOR_TYPE != 0 {
        return HvStatus::InvalidParameter;
    }
    let payload = &payload[..size as usize];
    ports.post_message(connection_id & CONNECTION_ID, message_type, payload)
}

/// Handles HvSignalEvent that KVM did not complete. Flag numbers are refused: no port here has
/// flags.
fn signal_event(ports: &impl Ports, parameter: u64) -> HvStatus {
    match parameter >> 32 {
        0 if parameter <= CONNECTION_ID.into() => {
            ports.signal_event(parameter as u32 & CONNECTION_ID)
        }
        0 => HvStatus::InvalidConnectionId,
        _ => HvStatus::InvalidParameter,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::memory::{MemoryLayout, allocate};

    type Call = (u32, u32, Vec<u8>);

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Call>>);

    impl Ports for Recorder {
        fn post_message(&self, connection_id: u32, message_type: u32, payload: &[u8]) -> HvStatus {
            self.0.lock().unwrap().push((connection_id, message_type, payload.to_vec()));
            status(connection_id == 1)
        }

        fn signal_event(&self, connection_id: u32) -> HvStatus {
            self.0.lock().unwrap().push((connection_id, 0, Vec::new()));
            status(connection_id == 0x2001)
        }
    }

    fn status(is_known: bool) -> HvStatus {
        if is_known { HvStatus::Success } else { HvStatus::InvalidConnectionId }
    }

    fn memory() -> GuestMemory {
        allocate(&MemoryLayout::new(16 << 20), false).unwrap()
    }

    fn call(
        memory: &GuestMemory,
        bus: &Recorder,
        words: [u32; 4],
        address: u64,
        input: u64,
    ) -> u16 {
        for (offset, word) in (0..).step_by(4).zip(words) {
            let _ = memory.write_obj(word, GuestAddress(address + offset));
        }
        run(memory, bus, input, address)
    }

    /// Returns the status.
    fn run(memory: &GuestMemory, ports: &impl Ports, input: u64, parameter: u64) -> u16 {
        dispatch(memory, ports, None, Hypercall { input, parameter, output: 0 }) as u16
    }

    #[test]
    fn test_post_message_valid_reaches_the_bus_exactly() {
        let (memory, bus) = (memory(), Recorder::default());
        memory.write_slice(&[0xAB; 240], GuestAddress(0x1010)).unwrap();
        assert_eq!(call(&memory, &bus, [1, 0, 1, 240], 0x1000, 0x5C), 0);
        assert_eq!(*bus.0.lock().unwrap(), [(1, 1, vec![0xAB; 240])]);
    }

    #[test]
    fn test_post_message_bad_form_is_refused_before_the_bus() {
        let (memory, bus) = (memory(), Recorder::default());
        let good = [1, 0, 1, 8];
        assert_eq!(call(&memory, &bus, good, 0x1000, 0x1_005C), 3, "fast");
        assert_eq!(call(&memory, &bus, good, 0x1004, 0x5C), 4, "misaligned");
        assert_eq!(call(&memory, &bus, good, 0x1F08, 0x5C), 4, "over the page's end");
        assert_eq!(call(&memory, &bus, [1, 0, 1, 241], 0x1000, 0x5C), 5, "too long");
        assert_eq!(call(&memory, &bus, [1, 0, 1, u32::MAX], 0x1000, 0x5C), 5, "far too long");
        assert_eq!(
            call(&memory, &bus, [1, 0, 0x8000_0001, 8], 0x1000, 0x5C),
            5,
            "hypervisor's type"
        );
        assert_eq!(call(&memory, &bus, good, 0xF800_0000, 0x5C), 5, "not RAM");
        assert_eq!(call(&memory, &bus, good, !0xFFF, 0x5C), 5, "nowhere");
        assert!(bus.0.lock().unwrap().is_empty());
    }

    /// Design 6, double fetch: another VP changes a valid message to an invalid one and back during
    /// the call. The call must see one or the other, complete.
    #[test]
    fn test_post_message_rewritten_meanwhile_is_judged_and_used_from_one_copy() {
        let (memory, bus) = (memory(), Recorder::default());
        let (good, bad) = ([1_u32, 0, 1, 8], [1, 0, 0x8000_0001, u32::MAX]);
        let stop = std::sync::atomic::AtomicBool::new(false);
        let mut statuses = std::collections::BTreeSet::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    for words in [bad, good] {
                        for (offset, word) in (0..).step_by(4).zip(words) {
                            memory.write_obj(word, GuestAddress(0x1000 + offset)).unwrap();
                        }
                    }
                }
            });
            for _ in 0..20_000 {
                statuses.insert(run(&memory, &bus, 0x5C, 0x1000));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(statuses.is_subset(&[0, 5, 18].into()), "{statuses:?}");
        // The bus must have received the bytes that passed the check.
        let calls = bus.0.into_inner().unwrap();
        assert!(
            calls.iter().all(|(id, kind, payload)| *id <= 1 && *kind <= 1 && payload.len() <= 8)
        );
    }

    #[test]
    fn test_post_message_last_place_in_a_page_and_unknown_id() {
        let (memory, bus) = (memory(), Recorder::default());
        assert_eq!(call(&memory, &bus, [7, 0, 1, 0], 0x1F00, 0x5C), 18);
        assert_eq!(bus.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn test_machine_without_a_bus_knows_no_connection_id() {
        let memory = memory();
        for (input, parameter) in [(0x5C, 0x1000), (0x1_005D, 0x2001)] {
            memory.write_obj(1_u32, GuestAddress(0x1000)).unwrap();
            assert_eq!(run(&memory, &None::<VmBus>, input, parameter), 18);
        }
    }

    /// Without the bus's handling, a channel whose eventfd KVM did not bind would receive no
    /// signals.
    #[test]
    fn test_signal_event_that_kvm_did_not_carry_out_reaches_the_bus() {
        let (memory, bus) = (memory(), Recorder::default());
        for input in [0x1_005D, 0x5D] {
            assert_eq!(run(&memory, &bus, input, 0x2001), 0);
        }
        assert_eq!(*bus.0.lock().unwrap(), [(0x2001, 0, vec![]), (0x2001, 0, vec![])]);
    }

    #[test]
    fn test_signal_event_unknown_id_flag_number_and_other_calls() {
        let (memory, bus) = (memory(), Recorder::default());
        assert_eq!(run(&memory, &bus, 0x1_005D, 0x2002), 18);
        assert_eq!(bus.0.lock().unwrap().len(), 1, "the bus knows its ids");
        assert_eq!(run(&memory, &bus, 0x1_005D, 1 << 32 | 0x2001), 5);
        assert_eq!(run(&memory, &bus, 0x1_005D, 0x100_2001), 18, "ids have 24 bits");
        assert_eq!(bus.0.lock().unwrap().len(), 1);
        assert_eq!(run(&memory, &bus, 0x8001, 0), 2);
        assert_eq!(run(&memory, &bus, 0, 0), 2);
    }
}
