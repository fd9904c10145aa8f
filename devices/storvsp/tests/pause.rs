//! A controller is paused, saved, and restored in another process with the same disks. No request
//! is lost or executed twice, and a channel that cannot be restored is rescinded.

mod guest;

use std::sync::Arc;
use std::time::Duration;

use guest::scsi::*;
use guest::{BareChannel, BareGuest, DATA, GuestOffer, GuestRange};
use synthvm_block::{Backend, Fault, Faulty, Operation, RamDisk};
use synthvm_storvsp::{
    ControllerOptions, DiskOptions, InlineWorkers, ScsiController, WorkerOptions,
};
use vmbus_host::SavedBus;
use vmbus_host::core::ChannelState;
use vmbus_protocol::message::MessageType;
use vmbus_ring::PacketKind;

/// Bytes of the disk.
const SIZE: u64 = 1 << 20;

/// A machine. A restore keeps the disks and builds everything else again.
struct Machine {
    guest: BareGuest,
    controller: ScsiController,
    disks: Vec<Arc<dyn Backend>>,
    options: ControllerOptions,
}

fn ram_disk() -> Arc<RamDisk> {
    Arc::new(RamDisk::new(SIZE).unwrap())
}

/// Returns options for inline workers and for threads.
fn both() -> [ControllerOptions; 2] {
    let plain = ControllerOptions { max_subchannels: 2, ..ControllerOptions::default() };
    let workers = WorkerOptions::default().inline(InlineWorkers::default());
    [ControllerOptions { workers, ..plain.clone() }, plain]
}

fn controller(disks: &[Arc<dyn Backend>], options: &ControllerOptions) -> ScsiController {
    let controller = ScsiController::with_options(0, options.clone());
    for (lun, disk) in (0..).zip(disks) {
        controller.add_disk(lun, Arc::clone(disk), DiskOptions::default()).unwrap();
    }
    controller
}

impl Machine {
    fn new(disks: Vec<Arc<dyn Backend>>, options: ControllerOptions) -> Self {
        let controller = controller(&disks, &options);
        let (mut guest, _) = guest::connect(std::slice::from_ref(&controller));
        guest.serve = options.workers.inline.as_ref().map(guest::serve);
        Self { guest, controller, disks, options }
    }

    fn open(&mut self) -> BareChannel {
        let offer = self.guest.offers[0];
        let mut channel = self.guest.open(offer, 4);
        channel.initialise();
        channel
    }

    fn save(&self) -> SavedBus {
        self.guest.bus.pause();
        let text = serde_json::to_string(&self.guest.bus.save().unwrap()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Replaces the machine with a restored one. `made` prepares its disks.
    fn replace(
        &mut self,
        saved: &SavedBus,
        make: impl FnOnce(&[Arc<dyn Backend>], &ControllerOptions) -> ScsiController,
    ) {
        let workers = &mut self.options.workers;
        workers.inline = workers.inline.is_some().then(InlineWorkers::default);
        self.controller = make(&self.disks, &self.options);
        self.guest.serve = self.options.workers.inline.as_ref().map(guest::serve);
        self.guest.replace_bus(vec![Box::new(self.controller.clone())]);
        self.guest.bus.restore(saved).unwrap();
    }

    /// Saves and restores the machine with the same disks. `channels` are the open channels.
    fn move_on(&mut self, channels: &mut [(GuestOffer, &mut BareChannel)]) {
        let saved = self.save();
        self.replace(&saved, controller);
        self.adopt(channels);
        self.guest.bus.resume();
    }

    fn adopt(&self, channels: &mut [(GuestOffer, &mut BareChannel)]) {
        for (offer, channel) in channels {
            channel.doorbell = self.guest.doorbell(*offer);
            channel.serve = self.guest.serve.clone();
        }
    }
}

#[test]
fn test_guest_under_load_continues_without_losing_or_repeating_anything() {
    const REQUESTS: u64 = 600;
    for options in both() {
        let disk = ram_disk();
        let mut machine = Machine::new(vec![disk.clone()], options);
        let offer = machine.guest.offers[0];
        let mut channel = machine.open();
        let mut answers = vec![0; REQUESTS as usize];
        let (mut sent, mut received) = (0, 0);
        // The rings are too small for a round: requests wait in one ring, and often completions
        // wait for space in the other.
        for round in 0..12 {
            while sent < REQUESTS.min((round + 1) * 60) {
                let page = DATA + sent;
                channel.poke(page, 0, &pattern(sent, 512));
                if !channel.try_send(sent, &write_srb(0, sent, 1), &[GuestRange::at(page, 512)]) {
                    break;
                }
                sent += 1;
            }
            machine.move_on(&mut [(offer, &mut channel)]);
            // Leave some requests for the next round.
            while received < sent && received < round * 40 {
                let completion = channel.receive();
                assert_eq!(completion.kind, PacketKind::Completion);
                assert_eq!(Outcome::of(&completion.payload), Outcome::good(512));
                answers[completion.transaction_id as usize] += 1;
                received += 1;
            }
        }
        while received < sent {
            let completion = channel.receive();
            assert_eq!(Outcome::of(&completion.payload), Outcome::good(512));
            answers[completion.transaction_id as usize] += 1;
            received += 1;
        }
        assert!(answers[..sent as usize].iter().all(|&count| count == 1), "{answers:?}");
        assert!(sent > 300 && channel.try_receive().is_none());
        for id in 0..sent {
            let mut there = [0; 512];
            disk.read(id * 512, &mut there).unwrap();
            assert_eq!(there[..], pattern(id, 512), "request {id}");
        }
        let read = read_srb(0, 7, 1);
        assert_eq!(channel.execute(&read, &[GuestRange::at(DATA, 512)]), Outcome::good(512));
        assert_eq!(channel.peek(DATA, 0, 512), pattern(7, 512));
        machine.guest.close(channel);
    }
}

#[test]
fn test_subchannels_resume_with_their_primary() {
    for options in both() {
        let mut machine = Machine::new(vec![ram_disk()], options);
        let mut primary = machine.open();
        assert_eq!(u32_at(&primary.ask(&packet(CREATE_SUB_CHANNELS, 2), &[]), 8), 0);
        machine.guest.await_offers(3);
        let offers = machine.guest.offers.clone();
        let mut second = machine.guest.open(offers[1], 4);
        assert_eq!(second.test_unit_ready(0), Outcome::good(0));
        second.send(5, &srb(0, &[0; 6], NO_DATA, 0), &[]);
        machine.move_on(&mut [(offers[0], &mut primary), (offers[1], &mut second)]);
        assert_eq!(Outcome::of(&second.completion(5)), Outcome::good(0));
        assert_eq!(primary.test_unit_ready(0), Outcome::good(0));
        // The third one, which the guest had not opened, is still on offer.
        let mut third = machine.guest.open(offers[2], 4);
        assert_eq!(third.test_unit_ready(0), Outcome::good(0));
    }
}

#[test]
fn test_initialisation_resumes_where_it_was() {
    for options in both() {
        for done in 0..4 {
            let steps = [(BEGIN, 0), (QUERY_VERSION, 0x0501), (QUERY_PROPERTIES, 0), (END, 0)];
            let mut machine = Machine::new(vec![ram_disk()], options.clone());
            let offer = machine.guest.offers[0];
            let mut channel = machine.guest.open(offer, 4);
            for (step, (operation, value)) in steps.into_iter().enumerate() {
                if step == done {
                    machine.move_on(&mut [(offer, &mut channel)]);
                }
                assert_eq!(
                    u32_at(&channel.ask(&packet(operation, value), &[]), 8),
                    0,
                    "{step} after {done}"
                );
            }
            assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
        }
    }
}

#[test]
fn test_unit_attentions_and_reservations_are_still_there() {
    for options in both() {
        let mut machine = Machine::new(vec![ram_disk(), ram_disk()], options);
        let offer = machine.guest.offers[0];
        let mut channel = machine.open();
        let reserve = |channel: &mut BareChannel, action: u8, key: u64, new: u64| {
            let mut list = [0; 24];
            list[..8].copy_from_slice(&key.to_be_bytes());
            list[8..16].copy_from_slice(&new.to_be_bytes());
            channel.poke(DATA, 0, &list);
            let cdb = [0x5F, action, 1, 0, 0, 0, 0, 0, 24, 0];
            channel.execute(&srb(1, &cdb, TO_DISK, 24), &[GuestRange::at(DATA, 24)])
        };
        assert_eq!(reserve(&mut channel, 0, 0, 0xABCD), Outcome::good(24));
        assert_eq!(reserve(&mut channel, 1, 0xABCD, 0), Outcome::good(24));
        machine.controller.resize_disk(0, SIZE / 2);
        // The guest has not read a notification of the smaller size. After the restore the disk has
        // its whole size again, and the guest is notified of a change.
        machine.move_on(&mut [(offer, &mut channel)]);
        let news = channel.receive();
        assert_eq!((news.kind, news.payload[0]), (PacketKind::InBand, ENUMERATE_BUS));
        assert_eq!(channel.test_unit_ready(0).sense, [6, 0x2A, 0x09]);
        assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
        let keys = srb(1, &[0x5E, 1, 0, 0, 0, 0, 0, 0, 24, 0], FROM_DISK, 24);
        assert_eq!(channel.execute(&keys, &[GuestRange::at(DATA, 24)]), Outcome::good(24));
        assert_eq!(channel.peek(DATA, 8, 8), 0xABCD_u64.to_be_bytes());
        assert_eq!(channel.peek(DATA, 21, 1), [1], "write exclusive, as it was");
        assert_eq!(reserve(&mut channel, 1, 0xBEEF, 0), Outcome::conflict());
    }
}

#[test]
fn test_drive_keeps_its_lock_and_tells_of_another_disc() {
    for options in both() {
        for (blocks, locked) in [(64, true), (65, false), (0, false)] {
            let disc = |blocks: u64| Arc::new(RamDisk::new(blocks * 2048).unwrap());
            let mut machine = Machine::new(vec![ram_disk()], options.clone());
            machine.controller.add_dvd(1, Some(disc(64)), DiskOptions::default()).unwrap();
            let offer = machine.guest.offers[0];
            let mut channel = machine.open();
            let poll = |channel: &mut BareChannel| {
                let cdb = [0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8, 0];
                assert_eq!(
                    channel.execute(&srb(1, &cdb, FROM_DISK, 8), &[GuestRange::at(DATA, 8)]),
                    Outcome::good(8)
                );
                channel.peek(DATA, 4, 1)[0] & 0x0F
            };
            assert_eq!(poll(&mut channel), 2, "a new disc");
            let lock = srb(1, &[0x1E, 0, 0, 0, 1, 0], NO_DATA, 0);
            assert_eq!(channel.execute(&lock, &[]), Outcome::good(0));
            let saved = machine.save();
            machine.replace(&saved, |disks, options| {
                let controller = controller(disks, options);
                let disc = (blocks != 0).then(|| disc(blocks) as Arc<dyn Backend>);
                controller.add_dvd(1, disc, DiskOptions::default()).unwrap();
                controller
            });
            machine.adopt(&mut [(offer, &mut channel)]);
            machine.guest.bus.resume();
            assert_eq!(machine.controller.disks()[1].locked, locked, "{blocks} blocks");
            // Either no event, or the removal of the old disc.
            assert_eq!(poll(&mut channel), if locked { 0 } else { 3 }, "{blocks} blocks");
        }
    }
}

#[test]
fn test_pause_and_resume_alone_leave_everything_as_it_is() {
    for options in both() {
        let mut machine = Machine::new(vec![ram_disk()], options);
        let mut channel = machine.open();
        for round in 0..20 {
            machine.guest.bus.pause();
            channel.send(round, &srb(0, &[0; 6], NO_DATA, 0), &[]);
            machine.guest.serve.iter().for_each(|serve| serve());
            assert!(channel.try_receive().is_none(), "it stands still");
            if round % 2 == 0 {
                machine.guest.bus.resume();
                machine.guest.bus.pause();
            }
            machine.guest.bus.resume();
            assert_eq!(Outcome::of(&channel.completion(round)), Outcome::good(0));
        }
        machine.guest.bus.pause();
        machine.guest.bus.resume();
        machine.guest.close(channel);
    }
}

#[test]
fn test_pause_waits_for_what_is_on_the_disk() {
    for options in both() {
        let disk = ram_disk();
        let faulty = Faulty::new(disk.clone(), |request| match request.operation {
            Operation::Write { .. } => Fault::Stall,
            _ => Fault::None,
        });
        let hold = faulty.hold();
        let mut machine = Machine::new(vec![Arc::new(faulty)], options);
        let offer = machine.guest.offers[0];
        let mut channel = machine.open();
        channel.poke(DATA, 0, &[7; 512]);
        channel.send(1, &write_srb(0, 3, 1), &[GuestRange::at(DATA, 512)]);
        machine.guest.serve.iter().for_each(|serve| serve());
        let saved = std::thread::scope(|scope| {
            let saving = scope.spawn(|| machine.save());
            // In either order: the write ends before the pause returns.
            hold.release();
            saving.join().unwrap()
        });
        let mut there = [0; 512];
        disk.read(3 * 512, &mut there).unwrap();
        let is_taken = there == [7; 512];
        machine.replace(&saved, controller);
        machine.adopt(&mut [(offer, &mut channel)]);
        machine.guest.bus.resume();
        assert_eq!(Outcome::of(&channel.completion(1)), Outcome::good(512));
        disk.read(3 * 512, &mut there).unwrap();
        assert_eq!(there, [7; 512], "taken before: {is_taken}");
    }
}

#[test]
fn test_channel_with_a_request_that_does_not_end_is_lost_and_offered_again() {
    for options in both() {
        let workers = options.workers.clone().pause_timeout(Duration::from_millis(20));
        let options = ControllerOptions { workers, ..options };
        let faulty = Faulty::new(ram_disk(), |request| match request.operation {
            Operation::Read => Fault::Stall,
            _ => Fault::None,
        });
        let hold = faulty.hold();
        let mut machine = Machine::new(vec![Arc::new(faulty)], options);
        let mut channel = machine.open();
        channel.send(1, &read_srb(0, 3, 1), &[GuestRange::at(DATA, 512)]);
        // The next command has been answered, so the first one has been taken.
        assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
        let saved = machine.save();
        machine.replace(&saved, |_, options| controller(&[ram_disk()], options));
        machine.guest.bus.resume();
        machine.guest.expect(MessageType::RescindChannelOffer);
        machine.guest.post_close(channel.relid);
        machine.guest.teardown(channel.relid, channel.gpadl);
        machine.guest.release(channel.relid);
        machine.guest.await_offers(2);
        let offer = machine.guest.offers[1];
        let mut channel = machine.guest.open(offer, 4);
        channel.initialise();
        assert_eq!(channel.test_unit_ready(0), Outcome::good(0));
        hold.release();
    }
}

#[test]
fn test_restore_with_other_disks_is_refused_and_with_more_disks_notifies() {
    let [options, _] = both();
    let changed = |change: fn(&mut synthvm_block::Geometry)| {
        Arc::new(RamDisk::new(SIZE).unwrap().with_geometry(change)) as Arc<dyn Backend>
    };
    let cases: [(Vec<Arc<dyn Backend>>, bool); 5] = [
        (vec![], false),
        (vec![changed(|geometry| geometry.read_only = true)], false),
        (vec![changed(|geometry| geometry.write_cache = true)], false),
        (vec![changed(|geometry| geometry.block_size = synthvm_block::BlockSize::B4096)], false),
        (vec![ram_disk(), ram_disk()], true),
    ];
    for (case, (disks, goes_on)) in cases.into_iter().enumerate() {
        let mut machine = Machine::new(vec![ram_disk()], options.clone());
        let offer = machine.guest.offers[0];
        let mut channel = machine.open();
        let saved = machine.save();
        machine.replace(&saved, |_, options| controller(&disks, options));
        machine.adopt(&mut [(offer, &mut channel)]);
        machine.guest.bus.resume();
        if goes_on {
            let news = channel.receive();
            assert_eq!((news.kind, news.payload[0]), (PacketKind::InBand, ENUMERATE_BUS));
            assert_eq!(channel.test_unit_ready(1), Outcome::good(0), "case {case}");
        } else {
            machine.guest.expect(MessageType::RescindChannelOffer);
        }
    }
}

/// Replaces each value of a saved state with an invalid one, and corrupts each byte. The restore
/// must fail or give a working controller, and must never panic.
#[test]
fn test_damaged_states_are_refused_or_harmless() {
    let [options, _] = both();
    let mut machine = Machine::new(vec![ram_disk()], options);
    machine.controller.add_dvd(1, None, DiskOptions::default()).unwrap();
    let offer = machine.guest.offers[0];
    let mut channel = machine.open();
    // The ring has no space for some completions.
    for id in 0..200 {
        channel.try_send(id, &srb(0, &[0; 6], NO_DATA, 0), &[]);
        machine.guest.serve.iter().for_each(|serve| serve());
    }
    let saved = serde_json::to_value(machine.save()).unwrap();
    let bytes: Vec<u8> = serde_json::from_value(saved["channels"][0]["device"].clone()).unwrap();
    let state: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert!(state["packets"].as_array().unwrap().len() > 10, "completions wait");
    let mut states: Vec<Vec<u8>> =
        vec![Vec::new(), vec![b'['; 100_000], bytes[..bytes.len() / 2].to_vec()];
    let mut paths = Vec::new();
    leaves(&state, &mut String::new(), &mut paths);
    for path in paths {
        for bad in [
            "0",
            "1",
            "5",
            "64",
            "255",
            "65535",
            "18446744073709551615",
            "-1",
            "null",
            "[]",
            "\"none\"",
            "{}",
        ] {
            let mut state = state.clone();
            *state.pointer_mut(&path).unwrap() = serde_json::from_str(bad).unwrap();
            states.push(serde_json::to_vec(&state).unwrap());
        }
    }
    let (mut refused, mut lived) = (0, 0);
    for state in states {
        let mut saved = saved.clone();
        saved["channels"][0]["device"] = serde_json::to_value(&state).unwrap();
        let saved = serde_json::from_value(saved).unwrap();
        machine.replace(&saved, |disks, options| {
            let controller = controller(disks, options);
            controller.add_dvd(1, None, DiskOptions::default()).unwrap();
            controller
        });
        machine.adopt(&mut [(offer, &mut channel)]);
        machine.guest.serve.iter().for_each(|serve| serve());
        if machine.guest.bus.inspect().channels[0].channel.state == ChannelState::Open {
            lived += 1;
        } else {
            refused += 1;
        }
    }
    assert!(refused > 100 && lived > 20, "{refused} refused, {lived} lived");
}

/// Collects the paths of all values into `into`, but only the first elements of long lists.
fn leaves(value: &serde_json::Value, path: &mut String, into: &mut Vec<String>) {
    let len = path.len();
    into.push(path.clone());
    let children: Vec<(String, &serde_json::Value)> = match value {
        serde_json::Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), field)).collect()
        }
        serde_json::Value::Array(items) => items
            .iter()
            .take(2)
            .enumerate()
            .map(|(index, item)| (index.to_string(), item))
            .collect(),
        _ => Vec::new(),
    };
    for (name, child) in children {
        path.push('/');
        path.push_str(&name);
        leaves(child, path, into);
        path.truncate(len);
    }
}
