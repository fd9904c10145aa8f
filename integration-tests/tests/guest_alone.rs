//! Tests of the guest in a plain emulator without SynthVM: it boots, answers, and its port loses no
//! bytes.

use std::time::Duration;

use guest_images::{GuestBuilder, StockKernel};
use guest_report::agent::{Action, Event, Load, Output, PatternRange};
use guest_report::records::Order;
use integration_tests::qemu::QemuGuest;

const LIMIT: Duration = Duration::from_secs(180);

fn answers(kernel: StockKernel) {
    let image = GuestBuilder::stock(kernel).with_kexec().build().unwrap();
    let mut guest = QemuGuest::emulated(&image).unwrap();
    let Event::Ready { kernel: release, .. } = guest.agent.ready(LIMIT).unwrap() else {
        panic!("not ready")
    };
    assert_eq!(release, image.release);

    assert_eq!(guest.agent.ask::<String>(Action::Ping).unwrap(), "pong");
    let version = guest.agent.ask::<Output>(run(&["sg_inq", "--version"])).unwrap();
    assert_eq!(version.status, 0, "{version:?}");
    let made = guest.agent.ask::<Output>(run(&["mke2fs", "-V"])).unwrap();
    assert!(made.stderr.contains("mke2fs 1."), "the real one, not the shell's: {made:?}");
    guest
        .agent
        .tell(Action::LoadModule { name: "vfat".to_owned(), parameters: String::new() })
        .unwrap();

    guest
        .agent
        .tell(Action::WriteFile { path: "/tmp/disk".to_owned(), text: String::new() })
        .unwrap();
    let range = PatternRange {
        path: "/tmp/disk".into(),
        offset: 0,
        length: 100_000,
        seed: 3,
        direct: false,
    };
    guest.agent.tell(Action::WritePattern(range.clone())).unwrap();
    guest.agent.tell(Action::VerifyPattern(range.clone())).unwrap();
    let other = PatternRange { seed: 4, ..range };
    let error = guest.agent.tell(Action::VerifyPattern(other)).unwrap_err().to_string();
    assert!(error.contains("at byte 0"), "{error}");

    let load = Load {
        path: "/tmp/disk".into(),
        blocks: 16,
        count: Some(500),
        seed: 1,
        order: Order::Random,
        direct: false,
        batch: 1,
    };
    guest.agent.tell(Action::FsyncLoad(load)).unwrap();
    for records in 1..=500 {
        assert_eq!(guest.agent.event(LIMIT).unwrap(), Event::Ack { records });
    }

    // Starts itself by kexec with another command line, then powers off.
    let cmdline = "console=ttyS0 quiet synthvm.agent again=1".to_owned();
    guest.agent.tell(Action::Kexec { cmdline: Some(cmdline.clone()) }).unwrap();
    let Event::Ready { cmdline: found, .. } = guest.agent.ready(LIMIT).unwrap() else {
        panic!("not ready")
    };
    assert_eq!(found, cmdline);
    guest.press_power_button().unwrap();
    assert!(guest.wait().unwrap());
}

fn run(argv: &[&str]) -> Action {
    Action::Run { argv: argv.iter().map(|word| (*word).to_owned()).collect(), timeout_s: 60 }
}

#[test]
fn test_guest_6_1_alone_answers_and_starts_itself_again() {
    answers(StockKernel::V6_1);
}

#[test]
fn test_guest_6_12_alone_answers_and_starts_itself_again() {
    answers(StockKernel::V6_12);
}
