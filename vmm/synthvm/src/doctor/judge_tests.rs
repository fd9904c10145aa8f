use std::collections::BTreeMap;

use super::super::{Hugepages, Look, render};
use super::*;

/// Returns the facts of a complete host.
fn good() -> Facts {
    let mut capabilities: BTreeMap<u32, i32> =
        CAPABILITIES.iter().map(|capability| (capability.number, 1)).collect();
    capabilities.insert(MAX_VCPUS, 1024);
    Facts {
        kernel: "6.12.0".into(),
        kvm: "/dev/kvm".into(),
        access: Access::Open(12),
        modules: vec!["kvm_amd".into()],
        capabilities,
        memory_available: Some(8 << 30),
        hugepages: Some(Hugepages { size: 2 << 20, total: 4, free: 4 }),
        large_pages: Some("advise".into()),
        memfd: Ok(()),
        open_files: Some((1024, 4096)),
        io_uring: Ok(()),
    }
}

fn without(numbers: &[u32]) -> Facts {
    let mut facts = good();
    for number in numbers {
        facts.capabilities.insert(*number, 0);
    }
    facts
}

fn find(report: &Report, name: &str) -> Check {
    report
        .checks
        .iter()
        .find(|check| check.name == name)
        .unwrap_or_else(|| panic!("no {name}"))
        .clone()
}

#[test]
fn test_judge_complete_host_is_fine_without_a_word_of_advice() {
    let report = Report::judge(&good());
    assert!(report.stock_guests);
    for check in &report.checks {
        assert_eq!(
            (check.state, &check.cost, &check.advice),
            (State::Ok, &None, &None),
            "{}",
            check.name
        );
    }
}

#[test]
fn test_judge_each_required_capability_alone_decides() {
    for capability in CAPABILITIES {
        let report = Report::judge(&without(&[capability.number]));
        let check = find(&report, capability.name);
        assert_eq!(report.stock_guests, capability.need != Need::Required, "{}", capability.name);
        assert!(check.cost.is_some() && check.advice.is_some(), "{}", capability.name);
    }
}

#[test]
fn test_judge_one_list_of_enlightenments_is_enough_but_one_must_be_there() {
    assert!(Report::judge(&without(&[167])).stock_guests);
    assert!(Report::judge(&without(&[191])).stock_guests);
    assert!(!Report::judge(&without(&[167, 191])).stock_guests);
}

#[test]
fn test_judge_kernel_without_hyperv_recommends_one_with_it() {
    let numbers: Vec<u32> =
        CAPABILITIES.iter().filter(|it| it.group == Group::HyperV).map(|it| it.number).collect();
    let report = Report::judge(&without(&numbers));
    assert!(!report.stock_guests);
    assert!(find(&report, "HYPERV_SYNIC2").advice.unwrap().contains("CONFIG_KVM_HYPERV=y"));
}

#[test]
fn test_judge_closed_device_says_how_to_open_it_and_leaves_the_rest_unknown() {
    for (error, advice) in
        [(libc::ENOENT, "modprobe"), (libc::EACCES, "usermod -aG kvm"), (libc::EIO, "dmesg")]
    {
        let facts =
            Facts { access: Access::Closed(error), capabilities: BTreeMap::new(), ..good() };
        let report = Report::judge(&facts);
        assert!(!report.stock_guests);
        assert!(find(&report, "/dev/kvm").advice.unwrap().contains(advice));
        assert_eq!(find(&report, "HYPERV_SYNIC2").state, State::Unknown);
        assert_eq!(find(&report, "memfd").state, State::Ok);
    }
}

#[test]
fn test_judge_wanting_host_is_warned_and_still_runs_guests() {
    let facts = Facts {
        memory_available: Some(1 << 20),
        hugepages: None,
        open_files: Some((256, 256)),
        io_uring: Err(libc::EPERM),
        ..good()
    };
    let report = Report::judge(&facts);
    assert!(report.stock_guests);
    for name in ["memory", "hugepages", "open files", "io_uring"] {
        assert_eq!(find(&report, name).state, State::Warn, "{name}");
    }
}

#[test]
fn test_judge_host_that_gives_memory_files_no_large_pages_says_how_it_would() {
    for word in [None, Some("never"), Some("deny")] {
        let report = Report::judge(&Facts { large_pages: word.map(str::to_owned), ..good() });
        let check = find(&report, "large pages");
        assert_eq!(check.state, State::Ok);
        assert!(check.advice.unwrap().contains("echo advise"));
    }
}

#[test]
fn test_judge_kvm_that_creates_no_vm_says_why() {
    let report = Report::judge(&Facts { access: Access::NoVm(12, libc::EBUSY), ..good() });
    assert!(!report.stock_guests);
    assert!(find(&report, "create a VM").advice.unwrap().contains("another hypervisor"));
    assert!(!Report::judge(&Facts { access: Access::Open(11), ..good() }).stock_guests);
}

#[test]
fn test_render_fits_100_columns_for_good_and_bad_hosts_and_is_plain_without_a_terminal() {
    let all: Vec<u32> = CAPABILITIES.iter().map(|capability| capability.number).collect();
    let closed =
        Facts { access: Access::Closed(libc::ENOENT), capabilities: BTreeMap::new(), ..good() };
    for facts in [good(), without(&all), closed] {
        let text = render(&Report::judge(&facts), Look::Plain);
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        assert!(!text.contains('\u{1b}'));
        for capability in CAPABILITIES {
            assert!(text.contains(capability.name), "{}", capability.name);
        }
    }
}

#[test]
fn test_render_tells_the_verdict_and_each_advice_once() {
    let text = render(&Report::judge(&good()), Look::Plain);
    assert!(text.contains("Stock guests can run here."), "{text}");
    let text = render(&Report::judge(&without(&[44, 148, 149, 154])), Look::Plain);
    assert!(
        text.contains(
            "Stock guests cannot run here; missing: HYPERV, HYPERV_SYNIC2, \
            HYPERV_VP_INDEX, HYPERV_EVENTFD"
        ),
        "{text}"
    );
    assert_eq!(text.matches("CONFIG_KVM_HYPERV=y").count(), 1, "{text}");
}

#[test]
fn test_report_json_reads_back() {
    let report = Report::judge(&without(&[148]));
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
}
