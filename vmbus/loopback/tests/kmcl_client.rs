//! The client's calls: checklist items 22 and 25, GPADL calls with their statuses, external data,
//! pipes.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{BOTH_MODES, CLASS, client, complete, echo_vm, offer, take_packets, write};
use vmbus_client::{
    Channel as ClientChannel, ChannelFlags, ChannelId, ChannelState, Driver, Error, GpadlError,
    GpadlFlags, Mdl, NtStatus, PacketObject, Received, SendFlags, Waiting,
};
use vmbus_gpadl::{GpadlView, GuestBuffer};
use vmbus_host::{Channel, OpenError, ReadWrite};
use vmbus_loopback::{Flow, Handler, Layout, LoopbackPlatform, LoopbackVm, Mode};
use vmbus_ring::{OutPacket, PacketKind};

use common::TestClient;

const WAIT: SendFlags = SendFlags::WAIT_FOR_COMPLETION;
const NONE: GpadlFlags = GpadlFlags::empty();

/// Returns a stepped VM with one device that the test drives, and with the channel open.
fn manual() -> (LoopbackVm, TestClient, ChannelId, Channel) {
    let vm = LoopbackVm::new(Mode::Stepped);
    let (_, opened) = vm.offer_manual(offer(0)).unwrap();
    let mut client = client(&vm);
    let id = client.open(CLASS, None, None).unwrap();
    let host = opened.take().unwrap();
    (vm, client, id, host)
}

#[test]
fn test_kmcl_22_configuration_errors_carry_the_documented_statuses() {
    let vm = echo_vm(Mode::Stepped, 1);
    let mut client = client(&vm);
    let id = client.allocate();
    let mut channel = client.channel(id);
    let status = |result: Result<(), Error>| result.unwrap_err().status();
    assert_eq!(status(channel.init_set_maximum_packet_size(0)), NtStatus::INVALID_PARAMETER_2);
    assert_eq!(status(channel.init_set_maximum_external_data(0, 1)), NtStatus::INVALID_PARAMETER_2);
    assert_eq!(status(channel.init_set_maximum_external_data(1, 0)), NtStatus::INVALID_PARAMETER_3);
    let unknown = ChannelFlags::from_bits_retain(2);
    assert_eq!(status(channel.init_set_flags(unknown)), NtStatus::INVALID_PARAMETER_2);
    assert_eq!(status(channel.enable()), NtStatus::INVALID_DEVICE_STATE, "no target");
    channel.init_set_target_pnp(CLASS, None).unwrap();
    channel.init_set_maximum_packet_size(64).unwrap();
    channel.init_set_friendly_name("echo").unwrap();
    channel.enable().unwrap();
    for _ in 0..2 {
        // The channel is first enabled and waiting, then open: both are too late.
        let mut channel = client.channel(id);
        assert_eq!(status(channel.init_set_maximum_packet_size(1)), NtStatus::INVALID_PARAMETER_1);
        assert_eq!(
            status(channel.init_set_maximum_external_data(1, 1)),
            NtStatus::INVALID_PARAMETER_1
        );
        assert_eq!(
            status(channel.init_set_flags(ChannelFlags::IS_PIPE)),
            NtStatus::INVALID_PARAMETER_1
        );
        assert_eq!(status(channel.init_set_target_pnp(CLASS, None)), NtStatus::INVALID_PARAMETER_1);
        assert_eq!(
            status(channel.init_set_ring_buffer_page_count(2, 2)),
            NtStatus::INVALID_PARAMETER_1
        );
        assert_eq!(status(channel.enable()), NtStatus::INVALID_DEVICE_STATE);
        assert_eq!(status(channel.cleanup()), NtStatus::INVALID_PARAMETER_1);
        client.wait_for_open(id).unwrap();
    }
    let mut channel = client.channel(id);
    let too_big = channel.send(PacketObject::new(), &[0; 65], None, WAIT);
    assert_eq!(status(too_big), NtStatus::INVALID_BUFFER_SIZE);
    let unknown = channel.send(PacketObject::new(), &[], None, SendFlags::from_bits_retain(8));
    assert_eq!(status(unknown), NtStatus::INVALID_PARAMETER_5);
    channel.disable().unwrap();
    channel.init_set_maximum_packet_size(1).unwrap();
    channel.cleanup().unwrap();
}

#[test]
fn test_kmcl_22_channel_without_device_waits_and_opens_when_it_is_hot_added() {
    let vm = LoopbackVm::new(Mode::Stepped);
    let mut client = client(&vm);
    let id = client.allocate();
    client.channel(id).init_set_target_pnp(CLASS, None).unwrap();
    client.channel(id).enable().unwrap();
    assert_eq!(client.wait_for_open(id), Err(Error::Stalled));
    assert_eq!(client.channel(id).state(), ChannelState::Waiting);
    vm.offer_served(offer(0), common::echo).unwrap();
    assert_eq!(client.wait_for_open(id), Ok(()));
    assert_eq!(client.channel(id).state(), ChannelState::Started);
    assert_eq!(client.channel(id).interface_instance(), Some(common::instance(0)));
}

#[test]
fn test_kmcl_25_synchronous_request_with_unaligned_completion_buffer_fails_and_sends_nothing() {
    let (_vm, mut client, id, mut host) = manual();
    let mut channel = client.channel(id);
    for size in [1, 4, 7, 9, 12] {
        let refused = channel.send_synchronous_request(
            b"12345678",
            None,
            WAIT,
            &mut vec![0; size],
            Waiting::Forever,
        );
        assert_eq!(refused.unwrap_err().status(), NtStatus::INVALID_PARAMETER_7);
    }
    assert_eq!(take_packets(&mut host).unwrap(), []);
    assert_eq!(channel.queued_packets(), (0, 0));
}

#[test]
fn test_client_synchronous_request_without_answer_is_stalled_and_its_late_answer_is_dropped() {
    let (_vm, mut client, id, mut host) = manual();
    let ask = |client: &mut TestClient, answer: &mut [u8]| {
        client.channel(id).send_synchronous_request(
            b"question",
            None,
            WAIT,
            answer,
            Waiting::Forever,
        )
    };
    assert_eq!(ask(&mut client, &mut [0; 8]), Err(Error::Stalled));
    let late = take_packets(&mut host).unwrap();
    complete(&mut host, late[0].transaction_id, b"too late");
    client.poll();
    assert_eq!(
        ask(&mut client, &mut [0; 8]),
        Err(Error::Stalled),
        "not taken for the answer to this one"
    );
    assert_eq!(client.stats().stray_completions, 0);
    // An answer that is longer than its buffer.
    let second = take_packets(&mut host).unwrap();
    complete(&mut host, second[0].transaction_id, b"");
    complete(&mut host, 999, b"");
    client.poll();
    assert_eq!(client.stats().stray_completions, 1);
}

#[test]
fn test_client_synchronous_request_whose_time_is_over_is_cancelled_and_its_late_answer_is_dropped()
{
    for mode in BOTH_MODES {
        let vm = LoopbackVm::new(mode);
        let (_, opened) = vm.offer_manual(offer(0)).unwrap();
        let mut client = client(&vm);
        let id = client.open(CLASS, None, None).unwrap();
        let mut host = opened.take().unwrap();
        let soon = Waiting::AtMost(Duration::from_millis(1));
        let ask = |client: &mut TestClient, bytes: &[u8]| {
            client.channel(id).send_synchronous_request(bytes, None, WAIT, &mut [0; 8], soon)
        };
        assert_eq!(ask(&mut client, b"question"), Err(Error::Cancelled));
        let late = take_packets(&mut host).unwrap();
        complete(&mut host, late[0].transaction_id, b"too late");
        client.poll();
        assert_eq!(client.stats().stray_completions, 0);
        // The same while it waits for space: then it is never sent.
        let mut sent = 0;
        while client.channel(id).queued_packets().0 == 0 {
            client
                .channel(id)
                .send(PacketObject::new(), &[7; 4000], None, SendFlags::empty())
                .unwrap();
            sent += 1;
        }
        assert_eq!(ask(&mut client, b"question"), Err(Error::Cancelled));
        assert_eq!(client.channel(id).queued_packets().0, 1, "only what was sent before it");
        assert_eq!(take_packets(&mut host).unwrap().len(), sent - 1);
        client.poll();
        assert_eq!(take_packets(&mut host).unwrap().len(), 1);
        drop(host);
        client.channel(id).disable().unwrap();
    }
}

#[test]
fn test_client_synchronous_request_without_queueing_fails_on_a_full_ring_and_leaves_no_trace() {
    let (_vm, mut client, id, mut host) = manual();
    let mut sent = 0;
    let mut channel = client.channel(id);
    let full = loop {
        let flags = SendFlags::empty();
        match channel.send_synchronous_request(
            &[7; 4000],
            None,
            flags,
            &mut [],
            Waiting::NotForSpace,
        ) {
            Ok(0) => sent += 1,
            other => break other,
        }
    };
    assert_eq!(full.unwrap_err().status(), NtStatus::BUFFER_OVERFLOW);
    assert_eq!(channel.queued_packets(), (0, 0));
    assert!(sent >= 16, "{sent} fit the default ring");
    assert_eq!(take_packets(&mut host).unwrap().len(), sent);
}

/// A driver that creates GPADLs in the opened callback, uses them in post-started, and deletes them
/// in closed.
struct GpadlDriver {
    vm: LoopbackVm,
    mdl: Mdl,
    handle: Option<vmbus_client::GpadlHandle>,
    answer: Arc<Mutex<Vec<u8>>>,
}

impl Driver<LoopbackPlatform> for GpadlDriver {
    fn opened(
        &mut self,
        channel: &mut ClientChannel<'_, LoopbackPlatform>,
    ) -> Result<(), NtStatus> {
        let handle = channel.create_gpadl_from_mdl(NONE, &self.mdl, 100, 5000);
        self.handle = Some(handle.map_err(GpadlError::status)?);
        Ok(())
    }
    fn post_started(&mut self, channel: &mut ClientChannel<'_, LoopbackPlatform>) {
        let id = u64::from(self.handle.unwrap().id());
        let mut answer = [0; 8];
        let request = id.to_le_bytes();
        channel
            .send_synchronous_request(&request, None, WAIT, &mut answer, Waiting::Forever)
            .unwrap();
        *self.answer.lock().unwrap() = self.vm.pages().read_mdl(&self.mdl);
    }
    fn closed(&mut self, channel: &mut ClientChannel<'_, LoopbackPlatform>) {
        channel.delete_gpadl(self.handle.take().unwrap()).unwrap();
    }
    fn process_packet(
        &mut self,
        channel: &mut ClientChannel<'_, LoopbackPlatform>,
        packet: Received,
    ) {
        channel.packet_complete(packet.completion, b"").unwrap();
    }
}

/// Maps the GPADL of a request, fills it with its own length, and keeps it mapped until an empty
/// packet arrives.
fn filler(_: &Channel) -> Result<Handler, OpenError> {
    let mut view: Option<GpadlView> = None;
    Ok(Box::new(move |channel| {
        if channel.is_closing() || view.as_ref().is_some_and(GpadlView::is_tearing_down) {
            view = None;
        }
        if channel.is_closing() {
            return Flow::Stop;
        }
        for packet in take_packets(channel).unwrap() {
            let Some(id) = packet.payload.first_chunk::<8>() else {
                view = None;
                continue;
            };
            let mapped = channel.map_gpadl(u64::from_le_bytes(*id) as u32, ReadWrite).unwrap();
            let len = mapped.len();
            mapped.write(0, &vec![0xAB; len]).unwrap();
            view = Some(mapped);
            complete(channel, packet.transaction_id, &(len as u64).to_le_bytes());
        }
        Flow::Wait
    }))
}

#[test]
fn test_client_gpadl_of_an_mdl_chain_with_offset_and_length_is_exactly_those_bytes_in_both_modes() {
    for mode in BOTH_MODES {
        let vm = LoopbackVm::new(mode);
        vm.offer_served(offer(0), filler).unwrap();
        let pages = vm.pages().allocate(4, Layout::Scattered).unwrap();
        let first = Mdl::new(4200, 50, pages[..2].to_vec()).unwrap();
        let mdl = first.chain(Mdl::new(6000, 2000, pages[2..].to_vec()).unwrap());
        vm.pages().write_mdl(&mdl, &[0x11; 10_200]);
        let answer = Arc::new(Mutex::new(Vec::new()));
        let driver = GpadlDriver { vm: vm.clone(), mdl, handle: None, answer: Arc::clone(&answer) };
        let mut client = client(&vm);
        let id = client.open(CLASS, None, Some(Box::new(driver))).unwrap();
        let mut expected = vec![0x11; 10_200];
        expected[100..5100].fill(0xAB);
        assert_eq!(*answer.lock().unwrap(), expected);
        let report = vm.inspect();
        let shared = report.gpadls.iter().find(|gpadl| gpadl.bytes == 5000).unwrap();
        assert_eq!((shared.ranges, shared.pages), (2, 3));
        // The device unmaps the GPADL only after this packet.
        client.channel(id).send(PacketObject::new(), b"", None, SendFlags::empty()).unwrap();
        client.channel(id).disable().unwrap();
        assert!(vm.inspect().gpadls.is_empty());
        assert_eq!(client.stats().leaked_gpadls, 0);
    }
}

#[test]
fn test_host_device_that_holds_a_view_is_notified_when_the_guest_deletes_the_gpadl() {
    for mode in BOTH_MODES {
        let vm = LoopbackVm::new(mode);
        vm.offer_served(offer(0), filler).unwrap();
        let mut client = client(&vm);
        let id = client.open(CLASS, None, None).unwrap();
        let mut channel = client.channel(id);
        let handle = channel.create_gpadl_from_pfn_list(NONE, &[9]).unwrap();
        let request = u64::from(handle.id()).to_le_bytes();
        channel
            .send_synchronous_request(&request, None, WAIT, &mut [0; 8], Waiting::Forever)
            .unwrap();
        channel.delete_gpadl(handle).unwrap();
    }
}

#[test]
fn test_client_gpadl_errors_are_distinct_and_carry_their_statuses() {
    let (vm, mut client, id, host) = manual();
    let mdl = Mdl::new(100, 0, vec![9]).unwrap().chain(Mdl::new(50, 4090, vec![10, 11]).unwrap());
    let mut channel = client.channel(id);
    let unknown =
        channel.create_gpadl_from_mdl(GpadlFlags::from_bits_retain(0x6), &mdl, 0, 0).unwrap_err();
    assert_eq!((unknown, unknown.status()), (GpadlError::Flags(6), NtStatus::INVALID_PARAMETER_2));
    let offset = channel.create_gpadl_from_mdl(NONE, &mdl, 151, 0).unwrap_err();
    assert_eq!(offset, GpadlError::Offset { offset: 151, total: 150 });
    assert_eq!(offset.status(), NtStatus::INVALID_PARAMETER_4);
    let length = channel.create_gpadl_from_mdl(NONE, &mdl, 1, 150).unwrap_err();
    assert_eq!(length, GpadlError::Length { offset: 1, length: 150, total: 150 });
    assert_eq!(length.status(), NtStatus::INVALID_PARAMETER_5);
    let empty = channel.create_gpadl_from_mdl(NONE, &mdl, 150, 0).unwrap_err();
    assert_eq!((empty, empty.status()), (GpadlError::Empty, NtStatus::INVALID_BUFFER_SIZE));
    assert_eq!(channel.create_gpadl_from_pfn_list(NONE, &[]), Err(GpadlError::Empty));
    let huge = Mdl::of_pages(vec![9; 8191]).unwrap();
    let large = channel.create_gpadl_from_mdl(NONE, &huge, 0, 0).unwrap_err();
    assert_eq!(large, GpadlError::TooLarge { words: 8192 });
    assert_eq!(large.status(), NtStatus::INSUFFICIENT_RESOURCES);
    let refused = channel.create_gpadl_from_pfn_list(NONE, &[u64::MAX]).unwrap_err();
    let GpadlError::Host(status) = refused else { panic!("{refused}") };
    assert!(!status.is_success() && refused.status() == status);
    let unmapped = channel.create_gpadl_from_buffer(NONE, 0x1000, 10).unwrap_err();
    assert!(matches!(unmapped, GpadlError::Lock(_)));
    assert_eq!(channel.gpadls(), [], "no handle is left of a failure");
    assert_eq!(vm.inspect().gpadls.len(), 1, "the rings");
    let handle = channel.create_gpadl_from_mdl(GpadlFlags::READ_ONLY, &mdl, 0, 0).unwrap();
    channel.delete_gpadl(handle).unwrap();
    assert_eq!(channel.delete_gpadl(handle), Err(GpadlError::Unknown(handle.id())));
    assert_eq!(GpadlError::Unknown(1).status(), NtStatus::INVALID_HANDLE);
    drop(host);
    channel.disable().unwrap();
    assert_eq!(channel.create_gpadl_from_mdl(NONE, &mdl, 0, 0), Err(GpadlError::Closed));
    assert_eq!(GpadlError::Closed.status(), NtStatus::INVALID_DEVICE_STATE);
}

#[test]
fn test_client_gpadl_at_and_beyond_the_wire_ceiling_becomes_one_and_several() {
    let (vm, mut client, id, host) = manual();
    let mut channel = client.channel(id);
    for (pages, gpadls) in [(8190_usize, 1), (8191, 2), (20_000, 3)] {
        let list = vm.pages().allocate(pages, Layout::HalfContiguous).unwrap();
        let mdl = Mdl::new(pages as u32 * 4096 - 1000, 600, list.clone()).unwrap();
        let handles = channel.create_gpadls_from_mdl(NONE, &mdl, 0, 0).unwrap();
        assert_eq!(handles.len(), gpadls);
        let mut bytes = 0;
        let mut seen = Vec::new();
        for handle in &handles {
            let view = host.map_gpadl(handle.id(), ReadWrite).unwrap();
            bytes += view.len();
            seen.extend(view.guest_pages());
        }
        assert_eq!((bytes, seen), (pages * 4096 - 1000, list.clone()));
        for handle in handles {
            channel.delete_gpadl(handle).unwrap();
        }
        vm.pages().free(&list);
    }
}

#[test]
fn test_client_gpadl_of_a_buffer_keeps_it_locked_until_the_server_has_unmapped() {
    let (vm, mut client, id, host) = manual();
    let pages = vm.pages().allocate(3, Layout::Scattered).unwrap();
    let address = vm.pages().map_virtual(&pages);
    let mut channel = client.channel(id);
    let handle = channel.create_gpadl_from_buffer(NONE, address + 4000, 4096 + 200).unwrap();
    assert_eq!(vm.pages().locked_pages(), 3);
    let view = host.map_gpadl(handle.id(), ReadWrite).unwrap();
    assert_eq!(view.range(0), Some((4000, 4296)));
    assert_eq!(
        channel.delete_gpadl(handle),
        Err(GpadlError::Link(Error::Stalled)),
        "Windows would wait"
    );
    assert_eq!(vm.pages().locked_pages(), 3, "still the server's");
    drop(view);
    assert_eq!(vm.pages().locked_pages(), 3, "torn down, but nobody has asked since");
    client.channel(id).delete_gpadl(handle).unwrap();
    assert_eq!(vm.pages().locked_pages(), 0);
    vm.pages().free(&vm.pages().allocate(1, Layout::Contiguous).unwrap());
    // A range past the end of the mapping.
    let beyond = client.channel(id).create_gpadl_from_buffer(NONE, address, 3 * 4096 + 1);
    assert!(matches!(beyond, Err(GpadlError::Lock(_))));
    let second = client.channel(id).create_gpadl_from_buffer(NONE, address, 3 * 4096).unwrap();
    client.channel(id).delete_gpadl(second).unwrap();
}

#[test]
fn test_client_driver_that_refuses_the_channel_rolls_everything_back() {
    struct Refuses(Arc<Mutex<Option<NtStatus>>>);
    impl Driver<LoopbackPlatform> for Refuses {
        fn opened(
            &mut self,
            channel: &mut ClientChannel<'_, LoopbackPlatform>,
        ) -> Result<(), NtStatus> {
            // The driver leaks the handle on purpose, and the client frees it.
            channel.create_gpadl_from_pfn_list(NONE, &[9]).unwrap();
            Err(NtStatus::NO_SUCH_DEVICE)
        }
        fn process_packet(&mut self, _: &mut ClientChannel<'_, LoopbackPlatform>, _: Received) {
            unreachable!("never started")
        }
        fn pnp_failure(&mut self, status: NtStatus) {
            *self.0.lock().unwrap() = Some(status);
        }
    }
    for mode in BOTH_MODES {
        let vm = echo_vm(mode, 1);
        let mut client = client(&vm);
        let before = vm.pages().free_pages();
        let seen = Arc::new(Mutex::new(None));
        let refused = client.open(CLASS, None, Some(Box::new(Refuses(Arc::clone(&seen)))));
        assert_eq!(refused.unwrap_err(), Error::Driver(NtStatus::NO_SUCH_DEVICE));
        assert_eq!(*seen.lock().unwrap(), Some(NtStatus::NO_SUCH_DEVICE));
        assert_eq!(client.stats().leaked_gpadls, 1);
        assert_eq!(vm.pages().free_pages(), before);
        assert!(vm.inspect().gpadls.is_empty());
        client.open(CLASS, None, None).unwrap();
    }
}

#[test]
fn test_client_external_data_is_the_part_of_the_mdl_that_was_named() {
    let (vm, mut client, id, mut host) = manual();
    let pages = vm.pages().allocate(4, Layout::Scattered).unwrap();
    let mdl = Mdl::new(5000, 3000, pages[..2].to_vec()).unwrap();
    let mdl = mdl.chain(Mdl::new(4096, 1, pages[2..].to_vec()).unwrap());
    let content: Vec<u8> = (0..9096_u32).map(|at| (at / 7) as u8).collect();
    vm.pages().write_mdl(&mdl, &content);
    let mut buffer = GuestBuffer::new(vm.ram().clone());
    let mut seen = |host: &mut Channel| {
        let mut batch = host.incoming.batch().unwrap();
        let packet = batch.next().unwrap().unwrap();
        assert_eq!((packet.kind(), packet.completion_requested()), (PacketKind::GpaDirect, true));
        packet.gpa_direct(&mut buffer).unwrap();
        let mut bytes = vec![0; buffer.len()];
        buffer.read(0, &mut bytes).unwrap();
        let _ = batch.commit();
        bytes
    };
    let forced = WAIT | SendFlags::FORCE_MDL_LENGTH;
    for (offset, length, flags, expected) in [
        (0, 0, WAIT, content.clone()),
        (100, 0, WAIT, content[100..].to_vec()),
        (4999, 2, WAIT, content[4999..5001].to_vec()),
        (9095, 1, WAIT, content[9095..].to_vec()),
        (0, 0, forced, content[..5000].to_vec()),
        (10, 4990, forced, content[10..5000].to_vec()),
    ] {
        let mut channel = client.channel(id);
        channel
            .send_with_external_mdl(PacketObject::new(), b"x", &mdl, offset, length, flags)
            .unwrap();
        assert_eq!(seen(&mut host), expected, "{offset} {length} {flags:?}");
    }
    let mut channel = client.channel(id);
    channel.send_with_external_mdl(PacketObject::new(), b"x", &mdl, 0, 5192, forced).unwrap();
    assert_eq!(seen(&mut host).len(), 5192, "to the end of the second page");
    let mut send = |offset, length, flags| {
        client.channel(id).send_with_external_mdl(
            PacketObject::new(),
            b"x",
            &mdl,
            offset,
            length,
            flags,
        )
    };
    assert_eq!(send(0, 5193, forced).unwrap_err().status(), NtStatus::INVALID_PARAMETER_6);
    assert_eq!(send(0, 9097, WAIT).unwrap_err().status(), NtStatus::INVALID_PARAMETER_6);
    assert_eq!(send(9097, 0, WAIT).unwrap_err().status(), NtStatus::INVALID_PARAMETER_5);
    assert_eq!(send(0, 0, SendFlags::empty()).unwrap_err().status(), NtStatus::INVALID_PARAMETER_7);
    let mut channel = client.channel(id);
    channel.send_with_external_pfns(PacketObject::new(), b"x", &pages[2..], WAIT).unwrap();
    assert_eq!(seen(&mut host).len(), 8192);
    let unwaited =
        channel.send_with_external_pfns(PacketObject::new(), b"x", &pages, SendFlags::empty());
    assert_eq!(unwaited.unwrap_err().status(), NtStatus::INVALID_PARAMETER_6);
    let too_many = channel.send_with_external_pfns(PacketObject::new(), b"x", &vec![9; 257], WAIT);
    assert_eq!(too_many, Err(Error::ExternalData { bytes: 257 * 4096, pieces: 1 }));
    assert_eq!(take_packets(&mut host).unwrap(), []);
}

#[test]
fn test_client_pipe_channel_keeps_exact_lengths_and_refuses_a_broken_header() {
    let vm = echo_vm(Mode::Stepped, 1);
    let (_, opened) = vm.offer_manual(offer(1)).unwrap();
    let mut client = client(&vm);
    for number in [0, 1] {
        let id = client.allocate();
        let mut channel = client.channel(id);
        channel.init_set_target_pnp(CLASS, Some(common::instance(number))).unwrap();
        channel.init_set_flags(ChannelFlags::IS_PIPE).unwrap();
        channel.enable().unwrap();
        client.wait_for_open(id).unwrap();
        if number == 0 {
            client
                .channel(id)
                .send(PacketObject::new(), b"12345", None, SendFlags::empty())
                .unwrap();
            client.run_until_idle();
            assert_eq!(client.channel(id).receive().unwrap().payload, b"12345");
        } else {
            let mut host = opened.take().unwrap();
            write(
                &mut host,
                &OutPacket::in_band(0, &[&1_u32.to_le_bytes(), &9_u32.to_le_bytes(), b"short"]),
            );
            client.poll();
            assert!(client.channel(id).receive().is_none());
            assert_eq!(client.channel(id).failure(), Some(Error::Protocol));
        }
    }
}

#[test]
fn test_client_subchannels_are_channels_of_their_own_and_are_taken_away_with_their_primary() {
    for mode in BOTH_MODES {
        let vm = LoopbackVm::new(mode);
        let open = |channel: &Channel| {
            channel.offer_subchannels(if channel.subchannel() == 0 { 2 } else { 0 });
            common::echo(channel)
        };
        vm.offer_served(offer(0), open).unwrap();
        let mut client = client(&vm);
        let primary = client.open(CLASS, None, None).unwrap();
        let ids = [1, 2].map(|index| {
            let id = client.allocate();
            let mut channel = client.channel(id);
            channel.init_set_target_pnp(CLASS, None).unwrap();
            channel.init_set_subchannel(index).unwrap();
            channel.enable().unwrap();
            client.wait_for_open(id).unwrap();
            id
        });
        for (number, id) in [primary, ids[0], ids[1]].into_iter().enumerate() {
            let mut answer = [0; 8];
            let mut channel = client.channel(id);
            channel
                .send_synchronous_request(
                    &[number as u8; 8],
                    None,
                    WAIT,
                    &mut answer,
                    Waiting::Forever,
                )
                .unwrap();
            assert_eq!(answer, [number as u8; 8]);
        }
        client.channel(primary).disable().unwrap();
        while client.offers().count() > 1 || client.channel(ids[1]).failure().is_none() {
            assert!(client.wait());
        }
        for id in ids {
            assert_eq!(client.channel(id).failure(), Some(Error::Removed));
            assert_eq!(client.channel(id).state(), ChannelState::Disabled);
        }
        assert_eq!(vm.inspect().channels.len(), 1);
        // The channel is opened again and has new subchannels.
        client.channel(primary).enable().unwrap();
        client.wait_for_open(primary).unwrap();
        while client.offers().count() < 3 {
            assert!(client.wait());
        }
    }
}

#[test]
fn test_client_modify_target_vp_moves_events_to_the_new_vp_only() {
    let (vm, mut client, id, mut host) = manual();
    let flag = client.channel(id).relid().unwrap() as u16;
    vm.synic().take_events(&mut |_| {});
    write(&mut host, &OutPacket::in_band(0, &[b"to VP 0"]));
    assert!(vm.synic().event_is_set(0, flag) && !vm.synic().event_is_set(1, flag));
    client.channel(id).modify_target_vp(1).unwrap();
    client.poll();
    write(&mut host, &OutPacket::in_band(0, &[b"to VP 1"]));
    assert!(!vm.synic().event_is_set(0, flag) && vm.synic().event_is_set(1, flag));
    let refused = client.channel(id).modify_target_vp(77);
    assert!(matches!(refused, Err(Error::Host(status)) if !status.is_success()));
}

#[test]
fn test_loopback_disabled_synic_delays_messages_and_loses_none() {
    let vm = echo_vm(Mode::Stepped, 3);
    vm.synic().set_enabled(0, false);
    let stalled = vmbus_client::Client::connect(vm.platform());
    assert!(common::is_stalled(&stalled));
    vm.synic().set_enabled(0, true);
    assert!(vm.synic().take_any_message().is_some(), "the version response waited");
}
