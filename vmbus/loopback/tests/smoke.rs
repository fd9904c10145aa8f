//! The whole path in one process: contact, offers, open, packets, close, unload.

mod common;

use common::{BOTH_MODES, CLASS, client, echo_vm};
use vmbus_client::{ChannelState, Client, ContactOptions, SendFlags, Waiting};
use vmbus_protocol::Version;

#[test]
fn test_loopback_echo_round_trip_in_both_modes_leaves_nothing_behind() {
    for mode in BOTH_MODES {
        let vm = echo_vm(mode, 2);
        let before = vm.pages().free_pages();
        let mut client = client(&vm);
        assert_eq!(client.version(), Version::V6_0);
        assert_eq!(client.offers().count(), 2);
        let id = client.open(CLASS, None, None).unwrap();
        let mut channel = client.channel(id);
        assert_eq!(channel.state(), ChannelState::Started);
        for size in [0_usize, 8, 100, 4096] {
            let request: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
            let mut answer = vec![0; size.next_multiple_of(8)];
            let flags = SendFlags::WAIT_FOR_COMPLETION;
            let len = channel.send_synchronous_request(
                &request,
                None,
                flags,
                &mut answer,
                Waiting::Forever,
            );
            assert_eq!(len, Ok(answer.len()));
            assert_eq!(answer[..size], request);
        }
        channel.disable().unwrap();
        assert_eq!(channel.state(), ChannelState::Disabled);
        client.unload().unwrap();
        assert_eq!(vm.pages().free_pages(), before);
        let report = vm.inspect();
        assert!(report.gpadls.is_empty() && report.gpadls_arriving == 0);
    }
}

#[test]
fn test_loopback_contact_with_each_version_is_accepted_as_asked() {
    for version in Version::ALL {
        let vm = echo_vm(vmbus_loopback::Mode::Stepped, 1);
        let options = ContactOptions { versions: &[version], target_vp: 1 };
        let mut client = Client::negotiate(vm.platform(), &options).unwrap();
        client.request_offers().unwrap();
        assert_eq!(client.version(), version);
        assert_eq!(vm.inspect().version, Some(version));
        let id = client.open(CLASS, None, None).unwrap();
        client.channel(id).disable().unwrap();
        client.unload().unwrap();
    }
}
