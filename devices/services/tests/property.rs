//! Any packets of a guest on any channel: nothing panics, memory is bounded, and channels that were
//! opened again work.

mod rig;

use std::time::Duration;

use proptest::prelude::*;
use rig::{Driver, Rig, outcome};
use synthvm_services::protocol::ServiceKind;
use synthvm_services::protocol::kvp::Pool;
use synthvm_services::{ServiceState, ShutdownRequest};

/// A step of a hostile guest, or of the host.
#[derive(Debug, Clone)]
enum Step {
    /// Sends bytes on a channel.
    Send(usize, Vec<u8>),
    /// Answers the last request of a channel with a status and a body.
    Answer(usize, u32, Vec<u8>),
    /// Sends a response with changed bytes.
    Changed(usize, Vec<(usize, u8)>),
    /// Asks the guest for something.
    Ask(usize),
    /// Lets seconds pass.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most);
    let changes = proptest::collection::vec((0_usize..64, any::<u8>()), 0..4);
    prop_oneof![
        (0_usize..6, bytes(200)).prop_map(|(channel, bytes)| Step::Send(channel, bytes)),
        (0_usize..6, any::<u32>(), bytes(600))
            .prop_map(|(channel, status, body)| Step::Answer(channel, status, body)),
        (0_usize..6, Just(0), bytes(600))
            .prop_map(|(channel, status, body)| Step::Answer(channel, status, body)),
        (0_usize..6, changes).prop_map(|(channel, changes)| Step::Changed(channel, changes)),
        (0_usize..6).prop_map(Step::Ask),
        (0_u64..40).prop_map(Step::Pass),
    ]
}

fn ask(rig: &Rig, number: usize) {
    match number {
        0 => rig.services.shutdown(ShutdownRequest::default(), Box::new(drop)),
        1 => rig.services.sync_time(Box::new(drop)),
        2 => rig.services.list_values(Pool::Auto, Box::new(drop)),
        3 => rig.services.get_value(Pool::Guest, "key", Box::new(drop)),
        4 => rig.services.get_ip("00:15:5D:01:02:03", Box::new(drop)),
        _ => rig.services.freeze(Duration::from_secs(5), Box::new(drop)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn test_any_packets_on_all_channels_are_survived(
        steps in proptest::collection::vec(step(), 0..80),
    ) {
        let mut rig = Rig::new();
        let mut drivers: Vec<Driver> =
            ServiceKind::ALL.into_iter().map(|kind| rig.connect(kind)).collect();
        let mut last = vec![None; drivers.len()];
        for step in steps {
            match step {
                Step::Send(channel, bytes) => {
                    // A full ring is the guest's own affair.
                    let _ = drivers[channel].try_send(&bytes);
                }
                Step::Answer(channel, status, body) => {
                    if let Some(request) = &last[channel] {
                        let request: &rig::Request = request;
                        let body = &body[..body.len().min(request.body.len())];
                        let mut packet = request.packet.clone();
                        packet[20..24].copy_from_slice(&status.to_le_bytes());
                        packet[25] = 5;
                        packet[28..28 + body.len()].copy_from_slice(body);
                        let _ = drivers[channel].try_send(&packet);
                    }
                }
                Step::Changed(channel, changes) => {
                    if let Some(request) = &last[channel] {
                        let request: &rig::Request = request;
                        let mut packet = request.packet.clone();
                        packet[25] = 5;
                        for (at, byte) in changes {
                            packet[at % request.packet.len()] = byte;
                        }
                        let _ = drivers[channel].try_send(&packet);
                    }
                }
                Step::Ask(number) => ask(&rig, number),
                Step::Pass(seconds) => rig.pass(seconds),
            }
            rig.inline.serve();
            for (driver, last) in drivers.iter_mut().zip(&mut last) {
                while let Some(request) = driver.try_request() {
                    *last = Some(request);
                }
            }
        }
        for driver in drivers {
            rig.guest.close(driver.channel);
        }
        let mut driver = rig.connect(ServiceKind::Shutdown);
        let (done, result) = outcome();
        rig.services.shutdown(ShutdownRequest::default(), done);
        let request = driver.request();
        driver.answer(&request, 0, &[]);
        prop_assert_eq!(result.get(), Ok(()));
        let state = rig.report(ServiceKind::Kvp).state;
        prop_assert_eq!(state, ServiceState::Closed);
    }
}
