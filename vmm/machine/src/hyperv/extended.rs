//! Extended hypercalls: the query of capabilities, and hints about memory (spec
//! integration-services section 9.1).

use std::ops::Range;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};
use vmbus_host::HvStatus;

use crate::memory::GuestMemory;

/// HvExtCallQueryCapabilities.
const QUERY_CAPABILITIES: u16 = 0x8001;
/// HvExtCallMemoryHeatHint.
const MEMORY_HEAT_HINT: u16 = 0x8003;
/// The capability of hints that pages are free.
const COLD_DISCARD: u64 = 1 << 8;

const FAST: u64 = 1 << 16;
/// The type of a hint: the guest needs the content of the pages no more.
const DISCARD: u64 = 2;
/// Bytes of a hint before its ranges.
const HEADER: u64 = 8;
/// Maximum ranges of a hint: the rest of a page.
const MAX_RANGES: u64 = (4096 - HEADER) / 8;
/// Pages of a large page.
const LARGE: u64 = 512;

/// The receiver of a guest's reports of free pages.
pub trait FreePages: Send + Sync {
    /// Returns pages to the host whose content the guest needs no more. The ranges are page frame
    /// numbers, and may be any. Called by a vCPU, which waits.
    fn discard(&self, ranges: &[Range<u64>]);
}

/// Handles an extended hypercall: returns the status and the number of elements that were handled.
/// `input` is RCX, `parameter` is RDX, and `output` is R8. `None`: there is no such hypercall.
pub(super) fn dispatch(
    memory: &GuestMemory,
    free_pages: Option<&Arc<dyn FreePages>>,
    [input, parameter, output]: [u64; 3],
) -> Option<(HvStatus, u64)> {
    let free_pages = free_pages?;
    let status = match input as u16 {
        QUERY_CAPABILITIES => query(memory, input, output),
        MEMORY_HEAT_HINT => {
            let count = input >> 32 & 0xFFF;
            let status = hint(memory, &**free_pages, input, parameter);
            return Some((status, if status == HvStatus::Success { count } else { 0 }));
        }
        _ => return None,
    };
    Some((status, 0))
}

fn query(memory: &GuestMemory, input: u64, output: u64) -> HvStatus {
    if input & FAST != 0 {
        return HvStatus::InvalidHypercallInput;
    }
    if !output.is_multiple_of(8) {
        return HvStatus::InvalidAlignment;
    }
    match memory.write_obj(COLD_DISCARD.to_le(), GuestAddress(output)) {
        Ok(()) => HvStatus::Success,
        Err(_) => HvStatus::InvalidParameter,
    }
}

fn hint(memory: &GuestMemory, free_pages: &dyn FreePages, input: u64, address: u64) -> HvStatus {
    let (count, start) = (input >> 32 & 0xFFF, input >> 48 & 0xFFF);
    if input & FAST != 0 || count == 0 || count > MAX_RANGES || start != 0 {
        return HvStatus::InvalidHypercallInput;
    }
    let bytes = HEADER + count * 8;
    if !address.is_multiple_of(8) || address % 4096 > 4096 - bytes {
        return HvStatus::InvalidAlignment;
    }
    // One copy is both checked and used, because other VPs may change the page at any time.
    let mut copy = vec![0; bytes as usize];
    if memory.read_slice(&mut copy, GuestAddress(address)).is_err() {
        return HvStatus::InvalidParameter;
    }
    let (words, _) = copy.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    if words.next().is_none_or(|header| header & 3 != DISCARD) {
        return HvStatus::InvalidParameter;
    }
    let Some(ranges) = words.map(range).collect::<Option<Vec<_>>>() else {
        return HvStatus::InvalidParameter;
    };
    free_pages.discard(&ranges);
    HvStatus::Success
}

/// Returns the pages of a hint's word. `None`: it is a form that this host does not know.
fn range(word: u64) -> Option<Range<u64>> {
    let count = (word & 0x7FF) + 1;
    let (first, pages) = match (word >> 11 & 1, word >> 12 & 1) {
        (0, _) => (word >> 12, count),
        (_, 0) => (word >> 21 << 9, count * LARGE),
        // Pages of 1 GiB.
        (_, _) => return None,
    };
    Some(first..first + pages)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::memory::{MemoryLayout, allocate};

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Range<u64>>>);

    impl FreePages for Recorder {
        fn discard(&self, ranges: &[Range<u64>]) {
            self.0.lock().unwrap().extend_from_slice(ranges);
        }
    }

    struct Rig {
        memory: GuestMemory,
        sink: Arc<Recorder>,
    }

    impl Rig {
        fn new() -> Self {
            let memory = allocate(&MemoryLayout::new(16 << 20), false).unwrap();
            Rig { memory, sink: Arc::default() }
        }

        fn call(&self, input: u64, parameter: u64, output: u64) -> Option<(u16, u64)> {
            let sink: Arc<dyn FreePages> = Arc::clone(&self.sink) as _;
            dispatch(&self.memory, Some(&sink), [input, parameter, output])
                .map(|(status, count)| (status.code(), count))
        }

        fn hint(&self, words: &[u64], address: u64) -> Option<(u16, u64)> {
            for (at, word) in (0..).step_by(8).zip(words) {
                self.memory.write_obj(*word, GuestAddress(address + at)).unwrap();
            }
            self.call(0x8003 | (words.len() as u64 - 1) << 32, address, 0)
        }

        fn taken(&self) -> Vec<Range<u64>> {
            std::mem::take(&mut self.sink.0.lock().unwrap())
        }
    }

    #[test]
    fn test_query_tells_the_capability_of_discards_and_nothing_else() {
        let rig = Rig::new();
        assert_eq!(rig.call(0x8001, 0, 0x2000), Some((0, 0)));
        assert_eq!(rig.memory.read_obj::<u64>(GuestAddress(0x2000)).unwrap(), 1 << 8);
        assert_eq!(rig.call(0x1_8001, 0, 0x2000), Some((3, 0)), "fast");
        assert_eq!(rig.call(0x8001, 0, 0x2004), Some((4, 0)), "misaligned");
        assert_eq!(rig.call(0x8001, 0, 0xF800_0000), Some((5, 0)), "not RAM");
        assert_eq!(rig.call(0x8002, 0, 0x2000), None);
        assert_eq!(dispatch(&rig.memory, None, [0x8001, 0, 0x2000]), None, "without a sink");
    }

    #[test]
    fn test_hint_of_both_page_sizes_reaches_the_sink_and_counts_its_elements() {
        let rig = Rig::new();
        let large = |first: u64, more: u64| first >> 9 << 21 | 1 << 11 | more;
        let words = [2, 7 << 12 | 2, large(1024, 0), large(512, 0x7FF)];
        assert_eq!(rig.hint(&words, 0x3000), Some((0, 3)));
        assert_eq!(rig.taken(), [7..10, 1024..1536, 512..512 + 2048 * 512]);
        let most = [vec![2], vec![9 << 12; 511]].concat();
        assert_eq!(rig.hint(&most, 0x3000), Some((0, 511)));
        assert_eq!(rig.taken().len(), 511);
    }

    #[test]
    fn test_hint_of_bad_form_is_refused_as_a_whole() {
        let rig = Rig::new();
        let good = [2, 7 << 12];
        assert_eq!(rig.hint(&[1, 7 << 12], 0x3000), Some((5, 0)), "another type");
        assert_eq!(rig.hint(&[2, 7 << 12, 3 << 11], 0x3000), Some((5, 0)), "1 GiB");
        assert_eq!(rig.hint(&good, 0x3004), Some((4, 0)), "misaligned");
        assert_eq!(rig.hint(&good, 0x3FF8), Some((4, 0)), "over the page's end");
        assert_eq!(rig.call(0x8003 | 1 << 32, 0xF800_0000, 0), Some((5, 0)), "not RAM");
        assert_eq!(rig.call(0x8003, 0x3000, 0), Some((3, 0)), "no element");
        assert_eq!(rig.call(0x8003 | 512 << 32, 0x3000, 0), Some((3, 0)), "too many");
        assert_eq!(rig.call(0x1_8003 | 1 << 32, 0x3000, 0), Some((3, 0)), "fast");
        assert_eq!(rig.call(0x8003 | 1 << 32 | 1 << 48, 0x3000, 0), Some((3, 0)), "continued");
        assert_eq!(rig.taken(), []);
    }
}
