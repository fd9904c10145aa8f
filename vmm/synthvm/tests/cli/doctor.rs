//! Tests of `synthvm doctor`. Its results depend on the host; the agreement of status, text and
//! JSON does not.

use synthvm::doctor::{Report, State};

use crate::support::Scratch;

#[test]
fn test_doctor_status_verdict_and_json_agree() {
    let scratch = Scratch::new();
    let (people, machine) = (scratch.synthvm(&["doctor"]), scratch.synthvm(&["doctor", "--json"]));
    let report: Report = serde_json::from_str(&machine.stdout).unwrap();
    let (status, verdict) = match report.stock_guests {
        true => (0, "Stock guests can run here."),
        false => (3, "Stock guests cannot run here"),
    };
    assert_eq!((people.status, machine.status), (status, status));
    assert!(people.stdout.contains(verdict) && people.stderr.is_empty(), "{people:?}");
    assert!(!people.stdout.contains('\u{1b}'), "no colours without a terminal");
    for line in people.stdout.lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn test_doctor_without_kvm_says_so_and_ends_with_the_hosts_status() {
    let ended = Scratch::new().synthvm(&["doctor", "--kvm", "/nonexistent/kvm", "--json"]);
    assert_eq!(ended.status, 3);
    let report: Report = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(
        (report.checks[0].name.as_str(), report.checks[0].state),
        ("/nonexistent/kvm", State::Missing)
    );
    assert!(report.checks[0].advice.as_deref().is_some_and(|advice| advice.contains("modprobe")));
}
