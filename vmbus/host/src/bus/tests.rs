//! The work of each thread, and the length of queues.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, ThreadId};
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmbus_protocol::Guid;
use vmbus_protocol::limits::MAX_SUBCHANNELS;
use vmm_sys_util::eventfd::EventFd;

use super::pump::{OTHER_WORK, VCPU_WORK};
use super::state::{Event, GuestBytes};
use super::*;
use crate::core::Offer;
use crate::device::{Channel, OpenError};
use crate::synic::Signal;

/// Timeout after which a wait has failed. No test result depends on time otherwise.
const FOREVER: Duration = Duration::from_secs(60);

/// Records which thread delivers each message.
struct Machine {
    sent: Mutex<Vec<(ThreadId, Vec<u8>)>>,
    told: Mutex<Sender<()>>,
    /// Says that the next unbind has begun, and when it may end.
    unbinding: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl Machine {
    fn bus() -> (VmBus, Arc<Machine>, Receiver<()>) {
        let (told, hear) = channel();
        let (sent, told, unbinding) = (Mutex::default(), Mutex::new(told), Mutex::default());
        let machine = Arc::new(Machine { sent, told, unbinding });
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        (
            VmBus::new(GuestRam::new(memory).unwrap(), Arc::clone(&machine) as Arc<dyn Synic>),
            machine,
            hear,
        )
    }

    /// Returns the numbers of messages that this thread delivered, and that others did.
    fn counts(&self) -> (usize, usize) {
        let sent = self.sent.lock().unwrap();
        let own = sent.iter().filter(|(thread, _)| *thread == thread::current().id()).count();
        (own, sent.len() - own)
    }
}

impl Synic for Machine {
    fn vp_count(&self) -> u32 {
        1
    }

    fn post_message(&self, _: u32, _: u8, message: &[u8]) {
        self.sent.lock().unwrap().push((thread::current().id(), message.to_vec()));
        let _ = self.told.lock().unwrap().send(());
    }

    fn discard_messages(&self) {}

    fn signal_event(&self, _: u32, _: u8, _: u16) -> Signal {
        Signal::Raised
    }

    fn bind_doorbell(&self, _: u32, _: &EventFd) -> io::Result<()> {
        Ok(())
    }

    fn unbind_doorbell(&self, _: u32, _: &EventFd) {
        let wait = self.unbinding.lock().unwrap().take();
        if let Some((entered, leave)) = wait {
            entered.send(()).unwrap();
            leave.recv_timeout(FOREVER).unwrap();
        }
    }
}

struct TestDevice {
    number: u8,
    blocks: bool,
    open: Box<dyn FnMut(Channel) -> Result<(), OpenError> + Send>,
}

impl TestDevice {
    fn new(
        number: u8,
        open: impl FnMut(Channel) -> Result<(), OpenError> + Send + 'static,
    ) -> Box<Self> {
        Box::new(Self { number, blocks: false, open: Box::new(open) })
    }

    fn handing_over() -> (Box<Self>, Receiver<Channel>) {
        let (give, take) = channel();
        let open = move |channel| give.send(channel).map_err(|_| OpenError(String::new()));
        (Self::new(0, open), take)
    }
}

impl Device for TestDevice {
    fn offer(&self) -> Offer {
        Offer::new(Guid::new(1, 0, 0, [0; 8]), Guid::new(self.number.into(), 0, 0, [0; 8]), 0)
    }

    fn open_blocks(&self) -> bool {
        self.blocks
    }

    fn open(&mut self, channel: Channel) -> Result<(), OpenError> {
        (self.open)(channel)
    }
}

fn words(list: &[u32]) -> Vec<u8> {
    list.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn post(bus: &VmBus, message: &[u8]) {
    assert_eq!(
        bus.post_message(MESSAGE_CONNECTION_ID, VMBUS_MESSAGE_TYPE, message),
        HvStatus::Success
    );
}

fn contact() -> Vec<u8> {
    words(&[14, 0, 0x0003_0000, 0, 0, 0, 0, 0, 0, 0])
}

/// Contact, offers, and an 8-page GPADL 7 on relid 1.
/// Returns a bus with a device and a connected guest, and the channels that the device gets.
fn connected() -> (VmBus, Arc<Machine>, Receiver<()>, Receiver<Channel>) {
    let (bus, machine, hear) = Machine::bus();
    let (device, channels) = TestDevice::handing_over();
    bus.offer(device).unwrap();
    connect(&bus);
    wait_for(&hear, 4);
    (bus, machine, hear, channels)
}

fn connect(bus: &VmBus) {
    post(bus, &contact());
    post(bus, &words(&[3, 0]));
    let mut header = words(&[8, 0, 1, 7]);
    header.extend(72_u16.to_le_bytes());
    header.extend(1_u16.to_le_bytes());
    header.extend(words(&[8 * 4096, 0]));
    header.extend((8..16_u64).flat_map(u64::to_le_bytes));
    post(bus, &header);
}

fn open_message() -> Vec<u8> {
    let mut open = words(&[5, 0, 1, 1, 7, 0, 4]);
    open.resize(148, 0);
    open
}

/// Queues `count` messages without handling any, as posts do while another thread has the state.
fn queue_contacts(bus: &VmBus, count: usize) {
    let mut bytes = [0; MAX_MESSAGE_SIZE];
    bytes[..40].copy_from_slice(&contact());
    for _ in 0..count {
        let message = GuestBytes { bytes, len: 40 };
        bus.inner.queued_messages.fetch_add(1, Ordering::Relaxed);
        let event = Event::Message { connection_id: MESSAGE_CONNECTION_ID, message };
        bus.inner.pump.queue().events.push_back(event);
    }
}

fn wait_for(hear: &Receiver<()>, count: usize) {
    (0..count).for_each(|_| hear.recv_timeout(FOREVER).expect("a message is stranded"));
}

#[test]
fn test_thread_that_reports_does_bounded_work_and_a_helper_does_the_rest() {
    let (bus, machine, hear) = Machine::bus();
    let queued = 10 * OTHER_WORK;
    queue_contacts(&bus, queued);
    let _ = bus.inspect();
    wait_for(&hear, queued);
    let (own, others) = machine.counts();
    assert_eq!(own, OTHER_WORK);
    assert_eq!(others, queued - OTHER_WORK);
}

#[test]
fn test_vcpu_does_bounded_work_for_others_and_a_helper_does_the_rest() {
    let (bus, machine, hear) = Machine::bus();
    let queued = 3 * VCPU_WORK;
    queue_contacts(&bus, queued);
    post(&bus, &contact());
    wait_for(&hear, queued + 1);
    assert_eq!(machine.counts(), (VCPU_WORK, queued + 1 - VCPU_WORK));
}

/// Guests alternate contact and request for offers on all VPs, while another thread asks for
/// reports: each report ends.
#[test]
fn test_thread_that_reports_is_never_captured_by_vcpus_that_post() {
    let (bus, machine, _hear) = Machine::bus();
    for number in 0..8 {
        bus.offer(TestDevice::new(number, |_| Err(OpenError(String::new())))).unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = bus.post_message(MESSAGE_CONNECTION_ID, VMBUS_MESSAGE_TYPE, &contact());
                    let _ = bus.post_message(
                        MESSAGE_CONNECTION_ID,
                        VMBUS_MESSAGE_TYPE,
                        &words(&[3, 0]),
                    );
                    machine
                        .sent
                        .lock()
                        .unwrap()
                        .retain(|(thread, _)| *thread != thread::current().id());
                }
            });
        }
        let reporter = scope.spawn(|| {
            for _ in 0..200 {
                machine
                    .sent
                    .lock()
                    .unwrap()
                    .retain(|(thread, _)| *thread != thread::current().id());
                let _ = bus.inspect();
                // An event sends at most an answer and one message for each device.
                assert!(machine.counts().0 <= OTHER_WORK * 9);
            }
        });
        reporter.join().unwrap();
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn test_offer_that_fails_handles_what_came_meanwhile() {
    let (bus, machine, _hear) = Machine::bus();
    bus.offer(TestDevice::new(0, |_| Ok(()))).unwrap();
    queue_contacts(&bus, 1);
    assert!(bus.offer(TestDevice::new(0, |_| Ok(()))).is_err());
    assert_eq!(machine.counts(), (1, 0));
}

#[test]
fn test_device_that_panics_in_open_refuses_and_nothing_is_stranded() {
    let (bus, machine, hear) = Machine::bus();
    let mut first = true;
    let device = TestDevice::new(0, move |channel| {
        assert!(!std::mem::take(&mut first), "a device of the test panics");
        drop(channel);
        Ok(())
    });
    bus.offer(device).unwrap();
    connect(&bus);
    wait_for(&hear, 4);
    let panicked = thread::scope(|scope| scope.spawn(|| post(&bus, &open_message())).join());
    assert!(panicked.is_err());
    wait_for(&hear, 1);
    let result = machine.sent.lock().unwrap().last().unwrap().1.clone();
    assert_eq!((result[0], result[16] | result[17] | result[18] | result[19] != 0), (6, true));
    post(&bus, &open_message());
    wait_for(&hear, 1);
    assert_eq!(machine.sent.lock().unwrap().last().unwrap().1[16..20], [0; 4]);
}

#[test]
fn test_subchannels_wanted_again_and_again_queue_one_event_for_each_channel() {
    let (bus, machine, _hear) = Machine::bus();
    let (device, channels) = TestDevice::handing_over();
    bus.offer(device).unwrap();
    connect(&bus);
    post(&bus, &open_message());
    let channel = channels.try_recv().unwrap();
    machine.sent.lock().unwrap().clear();
    {
        let _state = bus.inner.visit();
        for total in (0..=MAX_SUBCHANNELS).cycle().take(100_000) {
            channel.offer_subchannels(total);
        }
        assert_eq!(bus.inner.pump.queue().events.len(), 1);
    }
    assert_eq!(machine.counts().0, usize::from(MAX_SUBCHANNELS), "the highest total counts");
    assert_eq!(bus.inner.pump.queue().events.len(), 0);
    {
        let _state = bus.inner.visit();
        channel.offer_subchannels(1);
        assert_eq!(bus.inner.pump.queue().events.len(), 1, "it may say so again");
        drop(channel);
        assert_eq!(bus.inner.pump.queue().events.len(), 2, "and a channel ends once");
    }
}

/// A guest that repeatedly connects, asks for offers and leaves causes no unbind while it keeps
/// connecting, and at most one queued job for each connection id.
#[test]
fn test_jobs_of_a_guest_that_connects_again_and_again_are_bounded_by_its_channels() {
    let (bus, _machine, _hear) = Machine::bus();
    for number in 0..10 {
        bus.offer(TestDevice::new(number, |_| Ok(()))).unwrap();
    }
    let mut state = bus.inner.visit();
    for _ in 0..1000 {
        bus.inner.handle_message(&mut state, MESSAGE_CONNECTION_ID, &contact());
        bus.inner.handle_message(&mut state, MESSAGE_CONNECTION_ID, &words(&[3, 0]));
    }
    assert!(bus.inner.pump.jobs() <= 10, "{} jobs", bus.inner.pump.jobs());
}

/// KVM may wait for a grace period in an unbind. The state is not locked meanwhile.
#[test]
fn test_unbind_that_waits_for_the_kernel_holds_up_no_report() {
    let (bus, machine, hear) = Machine::bus();
    bus.offer(TestDevice::new(0, |_| Ok(()))).unwrap();
    connect(&bus);
    wait_for(&hear, 4);
    let (entered, has_entered) = channel();
    let (may_leave, leave) = channel();
    *machine.unbinding.lock().unwrap() = Some((entered, leave));
    thread::scope(|scope| {
        scope.spawn(|| post(&bus, &words(&[16, 0])));
        has_entered.recv_timeout(FOREVER).unwrap();
        let (tell, reported) = channel();
        let reporter = bus.clone();
        thread::spawn(move || {
            let _ = reporter.inspect();
            tell.send(())
        });
        let reported = reported.recv_timeout(FOREVER);
        may_leave.send(()).unwrap();
        reported.expect("the report waits for the kernel");
    });
}

/// A channel without an eventfd is refused, as its device would never see a signal.
#[test]
fn test_channel_without_a_doorbell_is_not_opened() {
    let (bus, machine, _hear, channels) = connected();
    bus.inner.visit().links.clear();
    post(&bus, &open_message());
    let result = machine.sent.lock().unwrap().last().unwrap().1.clone();
    assert_eq!((result[0], result[16..20] == [0; 4]), (6, false), "the OPEN fails");
    assert!(channels.try_recv().is_err());
}

/// During a device's open nothing else waits: other messages, reports, and the guest's own CLOSE.
#[test]
fn test_open_that_blocks_holds_up_neither_its_vcpu_nor_reports_nor_other_messages() {
    let (bus, machine, hear) = Machine::bus();
    let (entered, has_entered) = channel();
    let (may_leave, leave) = channel::<()>();
    let (give, take) = channel();
    let mut device = TestDevice::new(0, move |channel| {
        entered.send(()).unwrap();
        leave.recv_timeout(FOREVER).unwrap();
        give.send(channel).unwrap();
        Ok(())
    });
    device.blocks = true;
    let key = bus.offer(device).unwrap();
    connect(&bus);
    post(&bus, &open_message());
    has_entered.recv_timeout(FOREVER).unwrap();
    let report = bus.inspect();
    assert_eq!(report.channels[0].channel.state, crate::core::ChannelState::Opening);
    let mut modify = words(&[22, 0, 1, 0]);
    modify.resize(16, 0);
    post(&bus, &modify);
    wait_for(&hear, 3);
    machine.sent.lock().unwrap().clear();
    post(&bus, &words(&[7, 0, 1]));
    wait_for(&hear, 1);
    assert_eq!(machine.sent.lock().unwrap()[0].1[0], 6, "the CLOSE cancels the OPEN, which fails");
    bus.rescind(key);
    may_leave.send(()).unwrap();
    let opened = take.recv_timeout(FOREVER).unwrap();
    while !opened.is_closing() {
        // Readable when the bus asks the device to drop the channel.
        std::thread::yield_now();
    }
    drop(opened);
    wait_for(&hear, 1);
    assert_eq!(
        machine.sent.lock().unwrap()[1].1[0],
        2,
        "RESCIND follows when the device has let go"
    );
    assert!(take.try_recv().is_err());
}

/// Pause and reset wait for an open in progress, and do not miss its answer.
#[test]
fn test_pause_and_reset_wait_for_an_open_in_progress() {
    for resets in [false, true] {
        let (bus, _machine, _hear) = Machine::bus();
        let (entered, has_entered) = channel();
        let (may_leave, leave) = channel::<()>();
        let mut device = TestDevice::new(0, move |channel| {
            entered.send(()).unwrap();
            leave.recv_timeout(FOREVER).unwrap();
            drop(channel);
            Ok(())
        });
        device.blocks = true;
        bus.offer(device).unwrap();
        connect(&bus);
        post(&bus, &open_message());
        has_entered.recv_timeout(FOREVER).unwrap();
        let order = Mutex::new(Vec::new());
        thread::scope(|scope| {
            let waits = scope.spawn(|| {
                if resets {
                    bus.reset();
                } else {
                    bus.pause();
                }
                order.lock().unwrap().push("waited");
            });
            // Reports continue in the meantime, even if the other thread waits already.
            (0..100).for_each(|_| drop(bus.inspect()));
            order.lock().unwrap().push("answer");
            may_leave.send(()).unwrap();
            waits.join().unwrap();
        });
        assert_eq!(*order.lock().unwrap(), ["answer", "waited"]);
        if !resets {
            assert!(bus.save().is_ok());
            bus.resume();
        }
        let states: BTreeSet<_> =
            bus.inspect().channels.iter().map(|open| open.channel.relid).collect();
        assert_eq!(states.len(), 1);
    }
}

/// A channel that the guest opens while the bus is paused is given to its device after the pause.
#[test]
fn test_open_while_paused_waits_for_resume() {
    let (bus, _machine, hear, channels) = connected();
    bus.pause();
    post(&bus, &open_message());
    assert!(channels.try_recv().is_err());
    bus.resume();
    let channel = channels.try_recv().unwrap();
    wait_for(&hear, 1);
    bus.inner.ram.memory().write_obj(0_u32, GuestAddress(0)).unwrap();
    assert!(!channel.is_closing());
}
