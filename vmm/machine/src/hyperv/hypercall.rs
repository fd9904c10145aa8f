//! Hypercalls that KVM hands to user space (spec hypervisor-platform section 5.3, vmbus-core
//! sections 2.3 and 2.4).

use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestMemory;

/// HvPostMessage.
const POST_MESSAGE: u16 = 0x5C;
/// HvSignalEvent.
const SIGNAL_EVENT: u16 = 0x5D;

const FAST: u64 = 1 << 16;
const INPUT_SIZE: usize = 256;
const HEADER_SIZE: usize = 16;
const MAX_PAYLOAD: u32 = 240;
/// Message types with this bit are the hypervisor's own.
const HYPERVISOR_TYPE: u32 = 1 << 31;
/// Ids have 24 bits; the rest of the word is not theirs.
const CONNECTION_ID: u32 = 0xFF_FFFF;

/// Status codes of hypercalls (bits 15:0 of RAX).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HypercallStatus(pub u16);

impl HypercallStatus {
    /// Done.
    pub const SUCCESS: HypercallStatus = HypercallStatus(0);
    /// No such hypercall.
    pub const INVALID_CODE: HypercallStatus = HypercallStatus(2);
    /// Bad control word.
    pub const INVALID_INPUT: HypercallStatus = HypercallStatus(3);
    /// Input not aligned, or over a page's end.
    pub const INVALID_ALIGNMENT: HypercallStatus = HypercallStatus(4);
    /// Bad value in the input.
    pub const INVALID_PARAMETER: HypercallStatus = HypercallStatus(5);
    /// Nobody listens there.
    pub const INVALID_CONNECTION_ID: HypercallStatus = HypercallStatus(18);
    /// Try again later.
    pub const INSUFFICIENT_BUFFERS: HypercallStatus = HypercallStatus(19);
}

/// Takes the guest's messages: the bus.
pub trait HypercallHandler: Send + Sync {
    /// HvPostMessage of `vp` on `connection_id` (24 bits), already checked in form. `payload` is at
    /// most 240 bytes long and a private copy. Returns the hypercall's status. Runs on the VP's
    /// thread.
    fn post_message(&self, vp: u32, connection_id: u32, message_type: u32, payload: &[u8]) -> u16;

    /// HvSignalEvent on `connection_id` (24 bits) that KVM did not carry out: no eventfd is bound
    /// to it, because it is unknown or because KVM refused to bind one. Returns the hypercall's
    /// status. Runs on the VP's thread.
    fn signal_event(&self, connection_id: u32) -> u16;
}

/// No bus: every connection id is unknown.
pub(crate) struct NoBus;

impl HypercallHandler for NoBus {
    fn post_message(
        &self,
        _vp: u32,
        _connection_id: u32,
        _message_type: u32,
        _payload: &[u8],
    ) -> u16 {
        HypercallStatus::INVALID_CONNECTION_ID.0
    }

    fn signal_event(&self, _connection_id: u32) -> u16 {
        HypercallStatus::INVALID_CONNECTION_ID.0
    }
}

/// Answers one hypercall exit. `input` is RCX, `parameter` RDX (or, for HvSignalEvent, the eight
/// bytes that KVM has fetched already). The result goes into RAX, always.
pub(crate) fn dispatch(
    memory: &GuestMemory,
    handler: &dyn HypercallHandler,
    vp: u32,
    input: u64,
    parameter: u64,
) -> HypercallStatus {
    match input as u16 {
        POST_MESSAGE => post_message(memory, handler, vp, input, parameter),
        SIGNAL_EVENT => signal_event(handler, parameter),
        _ => HypercallStatus::INVALID_CODE,
    }
}

/// HvPostMessage: `address` is the guest physical address of its 256 bytes.
fn post_message(
    memory: &GuestMemory,
    handler: &dyn HypercallHandler,
    vp: u32,
    input: u64,
    address: u64,
) -> HypercallStatus {
    if input & FAST != 0 {
        return HypercallStatus::INVALID_INPUT;
    }
    if !address.is_multiple_of(8) || address % 4096 > 4096 - INPUT_SIZE as u64 {
        return HypercallStatus::INVALID_ALIGNMENT;
    }
    // One copy; what is checked is what is used, whatever other processors do to the page
    // meanwhile.
    let mut copy = [0; INPUT_SIZE];
    if memory.read_slice(&mut copy, GuestAddress(address)).is_err() {
        return HypercallStatus::INVALID_PARAMETER;
    }
    let (header, payload) = copy.split_at(HEADER_SIZE);
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let (connection_id, message_type, size) = (word(0), word(8), word(12));
    if size > MAX_PAYLOAD || message_type & HYPERVISOR_TYPE != 0 {
        return HypercallStatus::INVALID_PARAMETER;
    }
    let payload = &payload[..size as usize];
    HypercallStatus(handler.post_message(vp, connection_id & CONNECTION_ID, message_type, payload))
}

/// HvSignalEvent that KVM did not carry out. Flag numbers are refused: no port of ours has any.
fn signal_event(handler: &dyn HypercallHandler, parameter: u64) -> HypercallStatus {
    match parameter >> 32 {
        0 if parameter <= CONNECTION_ID.into() => {
            HypercallStatus(handler.signal_event(parameter as u32 & CONNECTION_ID))
        }
        0 => HypercallStatus::INVALID_CONNECTION_ID,
        _ => HypercallStatus::INVALID_PARAMETER,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::memory::{MemoryLayout, allocate};

    type Call = (u32, u32, u32, Vec<u8>);

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Call>>);

    impl HypercallHandler for Recorder {
        fn post_message(
            &self,
            vp: u32,
            connection_id: u32,
            message_type: u32,
            payload: &[u8],
        ) -> u16 {
            self.0.lock().unwrap().push((vp, connection_id, message_type, payload.to_vec()));
            if connection_id == 1 { 0 } else { 18 }
        }

        fn signal_event(&self, connection_id: u32) -> u16 {
            self.0.lock().unwrap().push((0, connection_id, 0, Vec::new()));
            if connection_id == 0x2001 { 0 } else { 18 }
        }
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
        dispatch(memory, bus, 3, input, address).0
    }

    #[test]
    fn test_post_message_valid_reaches_the_bus_exactly() {
        let (memory, bus) = (memory(), Recorder::default());
        memory.write_slice(&[0xAB; 240], GuestAddress(0x1010)).unwrap();
        assert_eq!(call(&memory, &bus, [1, 0, 1, 240], 0x1000, 0x5C), 0);
        assert_eq!(*bus.0.lock().unwrap(), [(3, 1, 1, vec![0xAB; 240])]);
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

    /// Design 6: double fetch. Another VP turns a good message into a bad one and back while we
    /// look: it is one or the other, whole.
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
                statuses.insert(dispatch(&memory, &bus, 3, 0x5C, 0x1000).0);
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert!(statuses.is_subset(&[0, 5, 18].into()), "{statuses:?}");
        // Whatever passed the check is what the bus got.
        let calls = bus.0.into_inner().unwrap();
        assert!(
            calls.iter().all(|(_, id, kind, payload)| *id <= 1 && *kind <= 1 && payload.len() <= 8)
        );
    }

    #[test]
    fn test_post_message_last_place_in_a_page_and_unknown_id() {
        let (memory, bus) = (memory(), Recorder::default());
        assert_eq!(call(&memory, &bus, [7, 0, 1, 0], 0x1F00, 0x5C), 18);
        assert_eq!(bus.0.lock().unwrap().len(), 1);
    }

    /// KVM could not bind an eventfd to the id: the channel would be deaf without the bus.
    #[test]
    fn test_signal_event_that_kvm_did_not_carry_out_reaches_the_bus() {
        let (memory, bus) = (memory(), Recorder::default());
        for input in [0x1_005D, 0x5D] {
            assert_eq!(dispatch(&memory, &bus, 3, input, 0x2001).0, 0);
        }
        assert_eq!(*bus.0.lock().unwrap(), [(0, 0x2001, 0, vec![]), (0, 0x2001, 0, vec![])]);
    }

    #[test]
    fn test_signal_event_unknown_id_flag_number_and_other_calls() {
        let (memory, bus) = (memory(), Recorder::default());
        assert_eq!(dispatch(&memory, &bus, 0, 0x1_005D, 0x2002).0, 18);
        assert_eq!(bus.0.lock().unwrap().len(), 1, "the bus knows its ids");
        assert_eq!(dispatch(&memory, &bus, 0, 0x1_005D, 1 << 32 | 0x2001).0, 5);
        assert_eq!(dispatch(&memory, &bus, 0, 0x1_005D, 0x100_2001).0, 18, "ids have 24 bits");
        assert_eq!(bus.0.lock().unwrap().len(), 1);
        assert_eq!(dispatch(&memory, &bus, 0, 0x8001, 0).0, 2);
        assert_eq!(dispatch(&memory, &bus, 0, 0, 0).0, 2);
    }
}
