//! What all services have in common: versions, one outstanding request, timeouts, hostile guests,
//! pause, save and restore. The numbers are those of docs/spec/integration-services.md section 11.

mod rig;

use std::sync::Arc;

use rig::{Rig, devices, outcome};
use synthvm_services::protocol::ServiceKind;
use synthvm_services::{Clock, Health, ServiceError, ServiceState, ShutdownRequest};
use vmbus_device::InlineWorkers;
use vmbus_host::SavedBus;

const FAIL: u32 = 0x8000_4005;

#[test]
fn test_offers_have_the_guids_of_the_specification_and_are_message_pipes() {
    // Number 1.
    let rig = Rig::new();
    let mut classes = [
        "0e0b6031-5213-4934-818b-38d90ced39db",
        "9527e630-d0ae-497b-adce-e80ab0175caf",
        "57164f39-9115-4e78-ab55-382f3bd5422d",
        "a9a0f4e7-5a45-4d96-b827-8a841e8c03e6",
        "35fa2e29-ea23-4236-96ae-3a6ebacba440",
        "34d14be3-dee4-41c8-9ae7-6b174977c192",
    ];
    let offers = &rig.guest.offers;
    let mut offered: Vec<_> = offers.iter().map(|offer| offer.class.to_string()).collect();
    classes.sort_unstable();
    offered.sort_unstable();
    assert_eq!(offered, classes);
    assert!(offers.iter().all(|offer| (offer.flags, offer.user_defined[0]) == (0x11, 4)));
    let copy = rig.offer(ServiceKind::Copy).instance.to_string();
    assert_eq!(copy, "eb765408-105f-49b6-b4aa-c123b64d17d4", "built into the guest's daemon");
}

#[test]
fn test_first_packet_of_each_channel_offers_both_lists_of_versions() {
    // Number 2.
    let mut rig = Rig::new();
    let lists: [(ServiceKind, u16, &[[u16; 2]]); 6] = [
        (ServiceKind::Shutdown, 2, &[[1, 0], [3, 0], [1, 0], [3, 0], [3, 1], [3, 2]]),
        (ServiceKind::TimeSync, 2, &[[1, 0], [3, 0], [1, 0], [3, 0], [4, 0]]),
        (ServiceKind::Heartbeat, 2, &[[1, 0], [3, 0], [1, 0], [3, 0]]),
        (ServiceKind::Kvp, 2, &[[1, 0], [3, 0], [1, 0], [3, 0], [4, 0]]),
        (ServiceKind::Vss, 1, &[[3, 0], [4, 0], [5, 0]]),
        (ServiceKind::Copy, 1, &[[3, 0], [1, 0], [1, 1]]),
    ];
    for (kind, frameworks, versions) in lists {
        let mut driver = rig.open(kind);
        let offer = driver.request();
        assert_eq!((offer.kind, offer.flags), (0, 3), "{kind}");
        let counts = [frameworks, versions.len() as u16 - frameworks, 0, 0];
        let words = counts.iter().chain(versions.iter().flatten());
        let body: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(offer.body, body, "{kind}");
        driver.is_quiet();
    }
}

#[test]
fn test_guest_that_chooses_no_offered_version_disables_only_its_service() {
    // Number 3.
    let mut rig = Rig::new();
    let mut refuse = |counts: [u16; 2], framework: [u16; 2], version: [u16; 2]| {
        let mut driver = rig.open(ServiceKind::Shutdown);
        let offer = driver.request();
        let words = [counts[0], counts[1], 0, 0];
        let words = words.into_iter().chain(framework).chain(version);
        let body: Vec<u8> = words.flat_map(u16::to_le_bytes).collect();
        driver.answer(&offer, 0, &body);
        let result = rig.shut_down();
        let state = rig.report(ServiceKind::Shutdown).state;
        driver.is_quiet();
        rig.guest.close(driver.channel);
        (state, result.get())
    };
    let disabled =
        (ServiceState::Disabled, Err(ServiceError::NoCommonVersion(ServiceKind::Shutdown)));
    assert_eq!(refuse([0, 0], [3, 0], [3, 2]), disabled);
    assert_eq!(refuse([1, 1], [3, 0], [9, 9]), disabled);
    assert_eq!(refuse([1, 1], [2, 0], [3, 2]), disabled);
    assert_eq!(refuse([1, 2], [3, 0], [3, 2]), disabled);
    // A channel that is opened again starts from the beginning.
    let driver = rig.connect(ServiceKind::Shutdown);
    assert!(matches!(rig.report(driver.kind).state, ServiceState::Ready(_)));
}

#[test]
fn test_silent_guest_gets_one_request_at_a_time_and_few_in_all() {
    // Number 4.
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Shutdown);
    let ask = || rig.shut_down();
    let (first, second) = (ask(), ask());
    driver.request();
    driver.is_quiet();
    assert!(first.is_pending() && second.is_pending());
    rig.pass(9);
    driver.is_quiet();
    rig.pass(1);
    assert_eq!(first.get(), Err(ServiceError::NoAnswer(ServiceKind::Shutdown)));
    // The second waited for as long as the first one took.
    assert_eq!(second.get(), Err(ServiceError::Busy(ServiceKind::Shutdown)));

    for _ in 0..7 {
        let result = ask();
        driver.request();
        rig.pass(10);
        assert_eq!(result.get(), Err(ServiceError::NoAnswer(ServiceKind::Shutdown)));
    }
    let result = ask();
    driver.is_quiet();
    assert_eq!(result.get(), Err(ServiceError::Unresponsive(ServiceKind::Shutdown)));
    assert!(matches!(rig.report(driver.kind).state, ServiceState::Unresponsive(_)));
    assert_eq!(rig.report(driver.kind).counters.timeouts, 8);
}

#[test]
fn test_many_clients_of_a_busy_service_are_refused_and_no_queue_grows() {
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Shutdown);
    let ask = || rig.shut_down();
    let first = ask();
    let request = driver.request();
    let waiting: Vec<_> = (0..16).map(|_| ask()).collect();
    assert_eq!(ask().get(), Err(ServiceError::Busy(ServiceKind::Shutdown)));
    driver.answer(&request, 0, &[]);
    assert_eq!(first.get(), Ok(()));
    for result in waiting {
        let request = driver.request();
        driver.answer(&request, FAIL, &[]);
        assert!(matches!(result.get(), Err(ServiceError::Refused(_))));
    }
}

#[test]
fn test_late_response_is_dropped_and_makes_the_guest_responsive_again() {
    // Number 5.
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Shutdown);
    let ask = |rig: &Rig| rig.shut_down();
    let first = ask(&rig);
    let late = driver.request();
    rig.pass(10);
    assert!(first.get().is_err());
    let second = ask(&rig);
    let request = driver.request();
    assert_ne!(request.transaction, late.transaction);
    driver.answer(&late, FAIL, &[]);
    assert!(second.is_pending(), "the late response is not taken for this one");
    driver.answer(&request, 0, &[]);
    assert_eq!(second.get(), Ok(()));
    assert_eq!(rig.report(driver.kind).counters.late, 1);
    // Twice the same response is once too often.
    driver.answer(&request, 0, &[]);
    assert_eq!(rig.report(driver.kind).counters.rejected, 1);
}

#[test]
fn test_response_with_another_transaction_id_of_the_bus_is_accepted() {
    // Number 6: the daemon of Linux 6.10.
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Shutdown);
    driver.bus_id = u64::MAX;
    let result = rig.shut_down();
    let request = driver.request();
    driver.answer(&request, 0, &[]);
    assert_eq!(result.get(), Ok(()));
}

#[test]
fn test_channel_that_is_opened_late_or_answers_late_works() {
    // Numbers 7 and 15.
    let mut rig = Rig::new();
    let (done, result) = outcome();
    rig.services.list_values(synthvm_services::protocol::kvp::Pool::Auto, done);
    assert_eq!(result.get(), Err(ServiceError::NoDriver(ServiceKind::Kvp)));
    rig.pass(600);
    let mut driver = rig.open(ServiceKind::Kvp);
    let offer = driver.request();
    for _ in 0..11 {
        rig.pass(5);
        driver.is_quiet();
    }
    let (done, result) = outcome();
    rig.services.set_value(synthvm_services::protocol::kvp::Pool::External, "k", "v", done);
    driver.agree(&offer, [3, 0], [4, 0]);
    let request = driver.request();
    driver.answer(&request, 0, &[]);
    assert_eq!(result.get(), Ok(()), "the request has waited for the driver");

    let mut driver = rig.open(ServiceKind::Vss);
    driver.request();
    let (done, result) = outcome();
    rig.services.thaw(done);
    rig.pass(10);
    assert_eq!(result.get(), Err(ServiceError::NoDaemon(ServiceKind::Vss)));
}

#[test]
fn test_guest_that_floods_loses_its_channel_and_others_go_on() {
    // Numbers 25 and 30.
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Shutdown);
    let mut heartbeat = rig.connect(ServiceKind::Heartbeat);
    let result = rig.shut_down();
    let request = driver.request();
    let mut bad = vec![request.packet.clone()];
    bad.extend((0..28).map(|length| request.packet[..length].to_vec()));
    let mut pipe = request.packet.clone();
    pipe[0] = 0;
    let mut long = request.packet.clone();
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut other = request.packet.clone();
    (other[12], other[25]) = (1, 5);
    let mut id = request.packet.clone();
    (id[24], id[25]) = (77, 5);
    bad.extend([pipe, long, other, id]);
    let mut sent = 0;
    for packet in bad.iter().cycle().take(99) {
        driver.send(packet);
        driver.serve();
        sent += 1;
    }
    assert_eq!(rig.report(driver.kind).counters.rejected, sent);
    assert!(result.is_pending());
    driver.send(&bad[0]);
    driver.serve();
    assert_eq!(result.get(), Err(ServiceError::Closed(ServiceKind::Shutdown)));
    let request = heartbeat.request();
    let body = [&3_u64.to_le_bytes()[..], &[0; 32]].concat();
    heartbeat.answer(&request, 0, &body);
    assert!(matches!(rig.services.health(), Health::Alive(_)));
    // The guest may close the channel and open it again.
    rig.guest.close(driver.channel);
    let driver = rig.connect(ServiceKind::Shutdown);
    assert!(matches!(rig.report(driver.kind).state, ServiceState::Ready(_)));
}

#[test]
fn test_closed_channel_fails_its_requests_and_is_negotiated_again() {
    // Number 29.
    let mut rig = Rig::new();
    for _ in 0..3 {
        let mut driver = rig.connect(ServiceKind::Shutdown);
        let result = rig.shut_down();
        driver.request();
        let (waiting, waits) = outcome();
        rig.services.shutdown(ShutdownRequest::default(), waiting);
        rig.guest.close(driver.channel);
        for result in [result, waits] {
            assert_eq!(result.get(), Err(ServiceError::Closed(ServiceKind::Shutdown)));
        }
        assert_eq!(rig.report(ServiceKind::Shutdown).state, ServiceState::Closed);
    }
}

#[test]
fn test_smallest_ring_is_accepted() {
    let mut rig = Rig::new();
    let offer = rig.offer(ServiceKind::Shutdown);
    let channel = rig.guest.open(offer, 2);
    let mut driver = rig::Driver { channel, kind: ServiceKind::Shutdown, bus_id: 0 };
    let offer = driver.request();
    driver.agree(&offer, [3, 0], [3, 2]);
    let result = rig.shut_down();
    let request = driver.request();
    driver.answer(&request, 0, &[]);
    assert_eq!(result.get(), Ok(()));
}

#[test]
fn test_pause_of_any_length_is_no_timeout() {
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Shutdown);
    let result = rig.shut_down();
    let request = driver.request();
    rig.guest.bus.pause();
    rig.pass(3600);
    assert!(result.is_pending());
    rig.guest.bus.resume();
    rig.pass(9);
    assert!(result.is_pending());
    driver.answer(&request, 0, &[]);
    assert_eq!(result.get(), Ok(()));
}

#[test]
fn test_restored_channel_negotiates_again_and_drops_the_response_to_the_old_request() {
    // Number 28.
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Shutdown);
    drop(rig.shut_down());
    let request = driver.request();
    rig.guest.bus.pause();
    let saved = serde_json::to_vec(&rig.guest.bus.save().unwrap()).unwrap();
    let saved: SavedBus = serde_json::from_slice(&saved).unwrap();

    let (clock, inline) = (Clock::manual(), InlineWorkers::default());
    let (services, devices) = devices(&ServiceKind::ALL, &clock, &rig.host_clock, &inline);
    rig.guest.replace_bus(devices);
    rig.guest.bus.restore(&saved).unwrap();
    rig.guest.bus.resume();
    let offer = rig.offer(ServiceKind::Shutdown);
    driver.channel.doorbell = rig.guest.doorbell(offer);
    driver.channel.serve = Some(Arc::new(move || inline.serve()));
    let versions = driver.request();
    // The guest answers the old request first, then the versions.
    driver.answer(&request, 0, &[]);
    driver.agree(&versions, [3, 0], [3, 2]);
    driver.serve();
    let (done, result) = outcome();
    services.shutdown(ShutdownRequest::default(), done);
    let new = driver.request();
    assert_ne!(new.transaction, request.transaction);
    driver.answer(&new, 0, &[]);
    assert_eq!(result.get(), Ok(()));
}
