//! Shutdown, time and heartbeat. The numbers are those of docs/spec/integration-services.md
//! section 11.

mod rig;

use rig::{Driver, Request, Rig, outcome};
use synthvm_services::protocol::heartbeat::ApplicationState;
use synthvm_services::protocol::shutdown::ShutdownMode;
use synthvm_services::protocol::{ServiceKind, Status, Version};
use synthvm_services::{Health, SAMPLE_INTERVAL, ServiceError, ShutdownRequest};

fn shutdown(mode: ShutdownMode, force: bool) -> ShutdownRequest {
    ShutdownRequest { mode, force, seconds: 7, reason: "disk full".to_owned() }
}

#[test]
fn test_shutdown_request_has_its_flags_and_its_text() {
    // Number 9.
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Shutdown);
    let flags =
        [(ShutdownMode::PowerOff, 0), (ShutdownMode::Restart, 2), (ShutdownMode::Hibernate, 4)];
    for (mode, flags) in flags {
        for force in [false, true] {
            let (done, result) = outcome();
            rig.services.shutdown(shutdown(mode, force), done);
            let request = driver.request();
            assert_eq!((request.kind, request.version, request.flags), (3, [3, 2], 3));
            let words = [0x8000_0000, 7, flags | u32::from(force)].map(u32::to_le_bytes).concat();
            assert_eq!((request.body.len(), &request.body[..12]), (2060, &words[..]));
            let text: Vec<u8> = "disk full\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
            assert_eq!(request.body[12..12 + text.len()], text);
            driver.answer(&request, 0x8000_4005, &[]);
            assert_eq!(result.get(), Err(ServiceError::Refused(Status::FAIL)));
        }
    }
}

#[test]
fn test_restart_and_hibernate_need_a_version_and_a_text_must_fit() {
    // Number 10.
    let mut rig = Rig::new();
    let mut driver = rig.connect_with(ServiceKind::Shutdown, [3, 0], [3, 0]);
    let needed = [(ShutdownMode::Restart, 1), (ShutdownMode::Hibernate, 2)];
    for (mode, minor) in needed {
        let (done, result) = outcome();
        rig.services.shutdown(shutdown(mode, false), done);
        driver.is_quiet();
        let [spoken, needed] = [Version::new(3, 0), Version::new(3, minor)];
        assert_eq!(result.get(), Err(ServiceError::TooOld { spoken, needed }));
    }
    let (done, result) = outcome();
    let reason = "x".repeat(1024);
    rig.services.shutdown(ShutdownRequest { reason, ..ShutdownRequest::default() }, done);
    driver.is_quiet();
    assert!(matches!(result.get(), Err(ServiceError::Argument(_))));
}

/// Answers a heartbeat. `step`: what the driver adds to the sequence number.
fn beat(driver: &mut Driver, request: &Request, step: u64, state: u32) {
    let sequence = u64::from_le_bytes(request.body[..8].try_into().unwrap());
    let body = [&(sequence + step).to_le_bytes()[..], &state.to_le_bytes()].concat();
    driver.answer(request, 0, &body);
}

#[test]
fn test_heartbeat_is_lost_after_five_misses_and_comes_back() {
    // Number 8.
    let mut rig = Rig::new();
    assert_eq!(rig.services.health(), Health::NoDriver);
    let mut driver = rig.connect(ServiceKind::Heartbeat);
    let request = driver.request();
    assert_eq!((request.kind, request.body.len()), (1, 40));
    beat(&mut driver, &request, 1, 2);
    assert_eq!(rig.services.health(), Health::Alive(ApplicationState::Critical));
    driver.is_quiet();
    rig.pass(9);
    driver.is_quiet();
    rig.pass(1);
    // A wrong sequence number is a miss; the next heartbeat follows immediately.
    for missed in 1..=5 {
        assert!(matches!(rig.services.health(), Health::Alive(_)), "{missed}");
        let request = driver.request();
        match missed {
            1 => beat(&mut driver, &request, 2, 0),
            _ => rig.pass(5),
        }
    }
    assert_eq!(rig.services.health(), Health::Lost);
    driver.is_quiet();
    rig.pass(10);
    let request = driver.request();
    beat(&mut driver, &request, 1, 1);
    assert_eq!(rig.services.health(), Health::Alive(ApplicationState::Healthy));
    rig.guest.close(driver.channel);
    assert_eq!(rig.services.health(), Health::NoDriver);
}

#[test]
fn test_heartbeats_of_a_guest_that_sleeps_for_long_do_not_fill_its_ring() {
    let mut rig = Rig::new();
    let mut driver = rig.connect(ServiceKind::Heartbeat);
    rig.inline.serve();
    for _ in 0..1000 {
        rig.pass(10);
    }
    assert_eq!(rig.services.health(), Health::Lost);
    let waiting: Vec<Request> = std::iter::from_fn(|| driver.try_request()).collect();
    assert_eq!(waiting.len(), 8);
    // It wakes up and answers all of them.
    for request in waiting {
        beat(&mut driver, &request, 1, 0);
    }
    assert!(matches!(rig.services.health(), Health::Alive(_)));
    rig.pass(10);
    let request = driver.request();
    beat(&mut driver, &request, 1, 0);
    assert!(matches!(rig.services.health(), Health::Alive(_)));
}

fn u64_at(body: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(body[at..at + 8].try_into().unwrap())
}

#[test]
fn test_clock_is_set_first_then_sampled_and_set_again_after_a_pause_or_on_request() {
    // Number 11.
    let mut rig = Rig::new();
    rig.host_clock.set(0x1234_5678_9ABC, 777);
    let mut driver = rig.connect(ServiceKind::TimeSync);
    let expect = |driver: &mut Driver, flag: u8, times: [u64; 2]| {
        let request = driver.request();
        assert_eq!((request.kind, request.flags, request.body.len()), (4, 3, 24));
        assert_eq!(request.body[16..], [flag, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!([u64_at(&request.body, 0), u64_at(&request.body, 8)], times);
        driver.answer(&request, 0, &[]);
    };
    expect(&mut driver, 1, [0x1234_5678_9ABC, 777]);
    driver.is_quiet();
    rig.host_clock.set(1000, 800);
    rig.pass(SAMPLE_INTERVAL.as_secs());
    expect(&mut driver, 2, [1000, 800]);

    let (done, result) = outcome();
    rig.services.sync_time(done);
    expect(&mut driver, 1, [1000, 800]);
    assert_eq!(result.get(), Ok(()));
    rig.services.host_clock_changed();
    expect(&mut driver, 1, [1000, 800]);
    rig.guest.bus.pause();
    rig.pass(3600);
    rig.host_clock.set(9000, 801);
    rig.guest.bus.resume();
    expect(&mut driver, 1, [9000, 801]);
    driver.is_quiet();
    rig.pass(SAMPLE_INTERVAL.as_secs());
    expect(&mut driver, 2, [9000, 801]);
}

#[test]
fn test_old_versions_of_the_time_have_their_own_layout() {
    for version in [[1, 0], [3, 0]] {
        let mut rig = Rig::new();
        rig.host_clock.set(5, 6);
        let mut driver = rig.connect_with(ServiceKind::TimeSync, [1, 0], version);
        let request = driver.request();
        assert_eq!((request.framework, request.version), ([1, 0], version));
        let body = &request.body;
        assert_eq!([u64_at(body, 0), u64_at(body, 8), u64_at(body, 16)], [5, 6, 0]);
        assert_eq!(body[24..], [1, 0, 0, 0, 0, 0, 0, 0]);
    }
}

#[test]
fn test_idle_services_wake_the_host_less_than_once_in_two_seconds() {
    let mut rig = Rig::new();
    let mut drivers: Vec<Driver> =
        ServiceKind::ALL.into_iter().map(|kind| rig.connect(kind)).collect();
    let mut requests = 0;
    let seconds = 3600;
    for _ in 0..seconds {
        rig.pass(1);
        for driver in &mut drivers {
            while let Some(request) = driver.try_request() {
                requests += 1;
                match driver.kind {
                    ServiceKind::Heartbeat => beat(driver, &request, 1, 0),
                    _ => driver.answer(&request, 0, &[]),
                }
            }
        }
    }
    // A wake-up for the timer, and one for the response.
    let wakeups = 2 * requests;
    assert!((900..=970).contains(&wakeups), "{wakeups} in {seconds} s");
    assert!(matches!(rig.services.health(), Health::Alive(_)));
}
