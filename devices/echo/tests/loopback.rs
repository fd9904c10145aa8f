//! Tests of the device with a guest's driver in one process, beyond the example in the document.

use synthvm_echo::{CLASS, INSTANCE, echo};
use vmbus::client::{ChannelId, Client, GpadlFlags, Mdl, SendFlags, Waiting};
use vmbus::loopback::{Layout, LoopbackPlatform, LoopbackVm, Mode};

type Guest = Client<LoopbackPlatform>;

fn machine() -> (LoopbackVm, Guest, ChannelId) {
    let vm = LoopbackVm::new(Mode::Threaded);
    vm.offer(echo()).unwrap();
    let mut client = Client::connect(vm.platform()).unwrap();
    let id = client.open(CLASS, Some(INSTANCE), None).unwrap();
    (vm, client, id)
}

/// Sends a request for bytes of a GPADL. Returns the status.
fn shout(client: &mut Guest, id: ChannelId, words: [u32; 3]) -> u32 {
    let request = [words[0], words[1], words[2], 77].map(u32::to_le_bytes).concat();
    let mut answer = [0; 16];
    let flags = SendFlags::WAIT_FOR_COMPLETION;
    client
        .channel(id)
        .send_synchronous_request(&request, None, flags, &mut answer, Waiting::Forever)
        .unwrap();
    assert_eq!(answer[..12], request[..12]);
    u32::from_le_bytes(answer[12..].try_into().unwrap())
}

#[test]
fn test_echo_of_a_buffer_over_its_end_or_unknown_is_reported_and_the_channel_continues() {
    let (vm, mut client, id) = machine();
    let pages = vm.pages().allocate(2, Layout::Scattered).unwrap();
    let buffer = Mdl::new(5000, 96, pages).unwrap();
    vm.pages().write_mdl(&buffer, &[b'a'; 5000]);
    let shared =
        client.channel(id).create_gpadl_from_mdl(GpadlFlags::empty(), &buffer, 0, 0).unwrap();
    let gpadl = shared.id();
    assert_eq!(shout(&mut client, id, [0, 0, u32::MAX]), 0, "no buffer is named");
    assert_eq!(shout(&mut client, id, [gpadl + 1000, 0, 1]), 1);
    assert_eq!(shout(&mut client, id, [gpadl, 500, 4501]), 2);
    assert_eq!(shout(&mut client, id, [gpadl, u32::MAX, u32::MAX]), 2);
    assert_eq!(shout(&mut client, id, [gpadl, 3990, 1010]), 0);
    assert_eq!(shout(&mut client, id, [gpadl, 5000, 0]), 0, "nothing, at the end");
    let bytes = vm.pages().read_mdl(&buffer);
    assert!(
        bytes[..3990].iter().all(|byte| *byte == b'a')
            && bytes[3990..].iter().all(|byte| *byte == b'A')
    );
    client.channel(id).delete_gpadl(shared).unwrap();
    client.channel(id).disable().unwrap();
}

#[test]
fn test_echo_of_a_packet_too_short_for_a_request_comes_back_as_it_was() {
    let (_vm, mut client, id) = machine();
    let mut answer = [0; 8];
    let flags = SendFlags::WAIT_FOR_COMPLETION;
    client
        .channel(id)
        .send_synchronous_request(b"12345678", None, flags, &mut answer, Waiting::Forever)
        .unwrap();
    assert_eq!(&answer, b"12345678");
    client.channel(id).disable().unwrap();
}
