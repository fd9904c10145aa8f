use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::*;
use crate::memory::{MemoryLayout, allocate};

const SIMP: u64 = 0x10_0000;
const SIEFP: u64 = 0x10_1000;
const ON: SynicState = SynicState { control: 1, event_page: SIEFP | 1, message_page: SIMP | 1 };

/// A sink that counts interrupts.
#[derive(Default)]
struct Recorder {
    raised: Mutex<Vec<(u32, u8)>>,
    waits: AtomicUsize,
    /// Whether an EOM is pending.
    eom: AtomicBool,
    kicked: Mutex<Vec<u32>>,
}

impl VpInterrupts for Recorder {
    fn raise(&self, vp: u32, sint: u8) {
        self.raised.lock().unwrap().push((vp, sint));
    }

    fn take_eoms(&self) -> bool {
        self.eom.swap(false, Ordering::SeqCst)
    }

    fn watch_eoms(&self) {
        self.waits.fetch_add(1, Ordering::SeqCst);
    }

    fn kick(&self, vp: u32) {
        self.kicked.lock().unwrap().push(vp);
    }
}

impl Recorder {
    fn raised(&self) -> usize {
        self.raised.lock().unwrap().len()
    }

    fn waits(&self) -> usize {
        self.waits.load(Ordering::SeqCst)
    }
}

/// Returns two VPs; the pages of the second are enabled.
fn vps() -> (Vps, Recorder) {
    let memory = allocate(&MemoryLayout::new(16 << 20), false).unwrap();
    let (vps, lines) = (Vps::new(memory, 2), Recorder::default());
    vps.update(1, ON, &lines);
    assert_eq!(lines.raised(), 0);
    (vps, lines)
}

fn slot_bytes(vps: &Vps, page: u64, sint: u64) -> [u8; SLOT_SIZE] {
    let mut bytes = [0; SLOT_SIZE];
    vps.memory.read_slice(&mut bytes, GuestAddress(page + sint * 256)).unwrap();
    bytes
}

/// Consumes a message as the guest does. Returns the message and whether the guest would write EOM.
fn consume(vps: &Vps, page: u64) -> (Vec<u8>, bool) {
    let bytes = slot_bytes(vps, page, 2);
    assert_eq!(bytes[0], 1, "there is a message");
    vps.memory.write_obj(0u32, GuestAddress(page + 0x200)).unwrap();
    let flags: u8 = vps.memory.read_obj(GuestAddress(page + 0x205)).unwrap();
    (bytes[16..16 + usize::from(bytes[4])].to_vec(), flags & 1 != 0)
}

#[test]
fn test_deliver_ten_messages_in_order_with_exact_sizes() {
    let (vps, lines) = vps();
    for number in 0..10u8 {
        assert!(vps.queue(1, 2, &vec![number; 8 + usize::from(number)]));
    }
    vps.deliver(1, &lines);
    for number in 0..10u8 {
        let (message, eom) = consume(&vps, SIMP);
        assert_eq!(message, vec![number; 8 + usize::from(number)]);
        assert_eq!(eom, number < 9, "EOM is asked for as long as more wait");
        vps.deliver(1, &lines);
    }
    assert_eq!((lines.raised(), vps.waiting(1)), (10, 0));
}

#[test]
fn test_deliver_busy_slot_waits_for_eom_each_time() {
    let (vps, lines) = vps();
    vps.queue(1, 2, b"one");
    vps.deliver(1, &lines);
    assert_eq!(lines.waits(), 0);
    vps.queue(1, 2, b"two");
    vps.deliver(1, &lines);
    vps.deliver(1, &lines);
    assert_eq!((lines.waits(), lines.raised()), (2, 1));
    assert!(consume(&vps, SIMP).1, "the slot asks the guest to write EOM");
}

#[test]
fn test_deliver_does_not_overwrite_a_timer_message() {
    let (vps, lines) = vps();
    vps.memory.write_obj(0x8000_0010_u32, GuestAddress(SIMP + 0x200)).unwrap();
    vps.queue(1, 2, b"vmbus");
    vps.deliver(1, &lines);
    assert_eq!((lines.waits(), lines.raised()), (1, 0));
    assert_eq!(slot_bytes(&vps, SIMP, 2)[..4], 0x8000_0010_u32.to_le_bytes());
}

#[test]
fn test_deliver_page_off_keeps_messages_for_the_new_page_only() {
    let (vps, lines) = vps();
    vps.queue(1, 2, b"first");
    vps.deliver(1, &lines);
    vps.queue(1, 2, b"second");
    let on_at = |page: u64| SynicState { control: 1, event_page: SIEFP | 1, message_page: page };
    vps.update(1, on_at(SIMP), &lines);
    let before = slot_bytes(&vps, SIMP, 2);
    vps.deliver(1, &lines);
    assert_eq!(vps.waiting(1), 1, "kept");
    let moved = SIMP + 0x5000;
    vps.update(1, on_at(moved | 1), &lines);
    vps.deliver(1, &lines);
    assert_eq!(slot_bytes(&vps, SIMP, 2), before, "the old page is not touched");
    assert_eq!(consume(&vps, moved).0, b"second");
}

#[test]
fn test_update_zeroes_a_page_once_when_it_comes_on() {
    let (vps, lines) = vps();
    let state = SynicState { control: 1, event_page: SIEFP | 1, message_page: 0x20_0001 };
    vps.memory.write_slice(&[0xFF; PAGE], GuestAddress(0x20_0000)).unwrap();
    vps.update(1, state, &lines);
    assert_eq!(slot_bytes(&vps, 0x20_0000, 15), [0; 256]);
    vps.memory.write_slice(&[0xFF; PAGE], GuestAddress(0x20_0000)).unwrap();
    vps.update(1, state, &lines);
    assert_eq!(slot_bytes(&vps, 0x20_0000, 15), [0xFF; 256], "already on: not ours to clear");
}

#[test]
fn test_update_page_outside_ram_stays_off() {
    let (vps, lines) = vps();
    for page in [0xF800_0000_u64, ADDRESS, 16 << 20] {
        vps.update(
            1,
            SynicState { control: 1, event_page: page | 1, message_page: page | 1 },
            &lines,
        );
        vps.queue(1, 2, b"x");
        vps.deliver(1, &lines);
        assert_eq!(vps.signal(1, 2, 5, &lines), Signal::Disabled);
    }
    assert_eq!(lines.raised(), 0);
}

#[test]
fn test_signal_raises_on_the_first_set_only_and_keeps_other_bits() {
    let (vps, lines) = vps();
    assert_eq!(vps.signal(1, 2, 2047, &lines), Signal::Raised);
    assert_eq!(vps.signal(1, 2, 9, &lines), Signal::Raised);
    assert_eq!(vps.signal(1, 2, 9, &lines), Signal::AlreadySet);
    let flags = slot_bytes(&vps, SIEFP, 2);
    assert_eq!((flags[1], flags[255]), (2, 0x80));
    assert_eq!(flags.iter().map(|byte| byte.count_ones()).sum::<u32>(), 2);
    assert_eq!(lines.raised(), 2);
}

#[test]
fn test_signal_off_or_out_of_range_touches_nothing() {
    let (vps, lines) = vps();
    assert_eq!(vps.signal(0, 2, 1, &lines), Signal::Disabled, "VP 0 has no page");
    assert_eq!(vps.signal(2, 2, 1, &lines), Signal::Disabled);
    assert_eq!(vps.signal(1, 16, 1, &lines), Signal::Disabled);
    assert_eq!(vps.signal(1, 2, 2048, &lines), Signal::Disabled);
    assert!(!vps.queue(2, 2, b"x") && !vps.queue(1, 16, b"x"));
    vps.update(1, SynicState { control: 0, ..ON }, &lines);
    assert_eq!(vps.signal(1, 2, 1, &lines), Signal::Disabled, "SCONTROL is off");
    assert_eq!(lines.raised(), 0);
}

#[test]
fn test_signal_concurrent_setters_lose_nothing() {
    let (vps, lines) = vps();
    std::thread::scope(|scope| {
        for part in 0..4u16 {
            let (vps, lines) = (&vps, &lines);
            scope.spawn(move || {
                for flag in (part..FLAGS_PER_SINT).step_by(4) {
                    assert_eq!(vps.signal(1, 2, flag, lines), Signal::Raised);
                }
            });
        }
    });
    assert_eq!(slot_bytes(&vps, SIEFP, 2), [0xFF; 256]);
    assert_eq!(lines.raised(), usize::from(FLAGS_PER_SINT));
}

#[test]
fn test_reset_forgets_pages_and_messages() {
    let (vps, lines) = vps();
    vps.queue(1, 2, b"x");
    vps.reset();
    assert_eq!((vps.waiting(1), vps.state(1)), (0, Some(SynicState::RESET)));
    assert_eq!(vps.signal(1, 2, 1, &lines), Signal::Disabled);
}

/// Linux's panic path: one VP empties the slots of all VPs but writes EOM only on its own.
#[test]
fn test_eom_on_another_vp_kicks_each_vp_that_waits_for_a_slot_and_no_other() {
    let memory = allocate(&MemoryLayout::new(16 << 20), false).unwrap();
    let (vps, lines) = (Vps::new(memory, 4), Recorder::default());
    let on = |vp: u32| SynicState {
        message_page: (SIMP + u64::from(vp) * 0x2000) | 1,
        event_page: 0,
        ..ON
    };
    for vp in [0, 1, 2] {
        vps.update(vp, on(vp), &lines);
    }
    // VPs 0 and 1 have messages queued for their slots, VP 2 has none, VP 3 has one queued for its
    // page.
    for (vp, messages) in [(0, 2), (1, 2), (2, 1), (3, 2)] {
        for _ in 0..messages {
            vps.queue(vp, 2, b"x");
        }
        vps.deliver(vp, &lines);
    }
    assert_eq!(lines.waits(), 2);
    assert!(consume(&vps, SIMP).1, "the guest is asked for an EOM");
    vps.kick_waiting(None, &lines);
    assert_eq!(*lines.kicked.lock().unwrap(), [0, 1]);
    vps.deliver(0, &lines);
    assert_eq!((vps.waiting(0), vps.waiting(1)), (0, 1));
    vps.kick_waiting(Some(1), &lines);
    assert_eq!(lines.kicked.lock().unwrap().len(), 2, "the writer delivers by itself");
}

#[test]
fn test_deliver_passes_the_eoms_that_it_takes_on_to_other_vps() {
    let (vps, lines) = vps();
    vps.update(0, SynicState { message_page: 0x30_0001, event_page: 0, ..ON }, &lines);
    for _ in 0..2 {
        vps.queue(0, 2, b"x");
    }
    vps.deliver(0, &lines);
    vps.queue(1, 2, b"y");
    lines.eom.store(true, Ordering::SeqCst);
    vps.deliver(1, &lines);
    assert_eq!(*lines.kicked.lock().unwrap(), [0]);
    vps.queue(1, 2, b"y");
    vps.deliver(1, &lines);
    assert_eq!(lines.kicked.lock().unwrap().len(), 1, "each EOM is passed on once");
}

#[test]
fn test_signal_while_the_page_is_off_is_set_when_it_comes_on() {
    for (off, why) in [
        (SynicState { event_page: SIEFP, ..ON }, "SIEFP"),
        (SynicState { control: 0, ..ON }, "SCONTROL"),
        (SynicState::RESET, "both pages"),
    ] {
        let (vps, lines) = vps();
        vps.update(1, off, &lines);
        for flag in [5, 70, 5, 2047] {
            assert_eq!(vps.signal(1, 2, flag, &lines), Signal::Disabled, "{why}");
        }
        vps.forget_signal(1, 2, 70);
        assert_eq!(lines.raised(), 0);
        vps.update(1, ON, &lines);
        let flags = slot_bytes(&vps, SIEFP, 2);
        assert_eq!((flags[0], flags[8], flags[255]), (1 << 5, 0, 0x80), "{why}");
        assert_eq!(*lines.raised.lock().unwrap(), [(1, 2)], "{why}");
        assert_eq!(vps.signal(1, 2, 5, &lines), Signal::AlreadySet, "the guest has not looked yet");
    }
}

/// Linux unmasks the SINT after SIEFP and before SCONTROL; only the latter causes an exit.
#[test]
fn test_update_raises_again_what_a_masked_sint_may_have_lost() {
    let (vps, lines) = vps();
    assert_eq!(vps.signal(1, 2, 9, &lines), Signal::Raised);
    vps.update(1, ON, &lines);
    assert_eq!(lines.raised(), 2, "an event flag");
    vps.memory.write_slice(&[0; PAGE], GuestAddress(SIEFP)).unwrap();
    vps.update(1, ON, &lines);
    assert_eq!(lines.raised(), 2, "the guest has looked");
    vps.queue(1, 2, b"x");
    vps.deliver(1, &lines);
    vps.update(1, ON, &lines);
    assert_eq!(lines.raised(), 4, "a message in its slot");
}

#[test]
fn test_signal_remembered_for_another_sint_raises_that_sint() {
    let (vps, lines) = vps();
    vps.update(1, SynicState::RESET, &lines);
    vps.signal(1, 5, 64, &lines);
    vps.update(1, ON, &lines);
    assert_eq!(slot_bytes(&vps, SIEFP, 5)[8], 1);
    assert_eq!(*lines.raised.lock().unwrap(), [(1, 5)]);
}

#[test]
fn test_reset_forgets_signals_that_waited_for_a_page() {
    let (vps, lines) = vps();
    vps.update(1, SynicState::RESET, &lines);
    vps.signal(1, 2, 9, &lines);
    vps.reset();
    vps.update(1, ON, &lines);
    assert_eq!((slot_bytes(&vps, SIEFP, 2), lines.raised()), ([0; 256], 0));
}

#[test]
fn test_signal_while_the_page_comes_and_goes_is_never_lost() {
    let (vps, lines) = vps();
    // Disabled before the first signal, because the checks below do not read this page.
    vps.update(1, SynicState::RESET, &lines);
    std::thread::scope(|scope| {
        let (vps, lines) = (&vps, &lines);
        scope.spawn(move || (0..256).for_each(|flag| _ = vps.signal(1, 2, flag, lines)));
        // A different address in each round, so that flags in the old page are not counted again.
        let mut seen = [0_u8; 256];
        let mut round = 0;
        while seen[..32] != [0xFF; 32] {
            round = (round + 1) % 8;
            let page = 0x20_0000 + round * 0x1000;
            vps.update(1, SynicState { event_page: page | 1, ..ON }, lines);
            vps.update(1, SynicState { event_page: page, ..ON }, lines);
            seen.iter_mut().zip(slot_bytes(vps, page, 2)).for_each(|(to, from)| *to |= from);
            // The lock of the pages may always prefer this thread.
            std::thread::yield_now();
        }
    });
}
