//! The browser console of a machine: in the machine's own process (`--display web=ADDRESS`), or in
//! another one that reaches the machine through its control socket (`synthvm console --web`).

mod local;
mod remote;

use synthvm_storvsp::UnitKind;
use synthvm_web_console::{Action, Description, Drive};

use crate::control::Request;
use crate::inspect::InspectReport;

pub use local::LocalMachine;
pub use remote::RemoteMachine;

/// The actions that every machine offers.
const ACTIONS: [&str; 7] =
    ["power-button", "reset", "stop", "pause", "resume", "insert-disc", "eject-disc"];

/// The actions that need a display.
const KEY_ACTIONS: [&str; 2] = ["send-keys", "type-text"];

/// Returns what the page shows of a machine.
fn description(name: &str, report: &InspectReport) -> Description {
    let drives = report.disks.iter().filter(|disk| disk.kind == UnitKind::Dvd && !disk.removed);
    let screen = report.display.is_some();
    Description {
        name: name.to_owned(),
        state: report.machine.state.clone(),
        screen,
        actions: ACTIONS
            .into_iter()
            .chain(screen.then_some(KEY_ACTIONS).into_iter().flatten())
            .collect(),
        drives: drives
            .map(|drive| Drive {
                id: drive.id.clone(),
                disc: drive.has_medium.then(|| drive.path.clone()),
            })
            .collect(),
    }
}

/// Returns the request of the control socket that does what a button asks for.
fn request(action: &Action) -> Request {
    match action.clone() {
        Action::PowerButton {} => Request::PowerButton {},
        Action::Reset {} => Request::Reset {},
        Action::Stop {} => Request::Stop {},
        Action::Pause {} => Request::Pause {},
        Action::Resume {} => Request::Resume {},
        Action::SendKeys { keys } => Request::SendKeys { keys },
        Action::TypeText { text } => Request::TypeText { text },
        Action::InsertDisc { drive, path } => Request::DiskInsert { id: drive, path },
        Action::EjectDisc { drive, force } => Request::DiskEject { id: drive, force },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::{DiskReport, MachineReport};

    #[test]
    fn test_description_has_the_drives_and_offers_keys_with_a_display_only() {
        let disk = |id: &str, kind, has_medium| DiskReport {
            id: id.to_owned(),
            path: "/a.iso".to_owned(),
            kind,
            has_medium,
            ..Default::default()
        };
        let mut report = InspectReport {
            machine: MachineReport { state: "paused".to_owned(), ..Default::default() },
            disks: vec![
                disk("0:0", UnitKind::Disk, true),
                disk("0:1", UnitKind::Dvd, true),
                disk("0:2", UnitKind::Dvd, false),
            ],
            ..Default::default()
        };
        let now = description("vm", &report);
        assert_eq!((&*now.name, &*now.state, now.screen), ("vm", "paused", false));
        assert!(!now.actions.contains(&"send-keys"));
        let drive = |id: &str, disc: Option<&str>| Drive {
            id: id.to_owned(),
            disc: disc.map(str::to_owned),
        };
        assert_eq!(now.drives, [drive("0:1", Some("/a.iso")), drive("0:2", None)]);
        report.display = Some(Default::default());
        assert!(description("vm", &report).actions.contains(&"send-keys"));
    }

    #[test]
    fn test_request_of_a_button_is_that_of_the_control_socket() {
        let insert = Action::InsertDisc { drive: "0:1".to_owned(), path: "/a.iso".into() };
        let expected = Request::DiskInsert { id: "0:1".to_owned(), path: "/a.iso".into() };
        assert_eq!(request(&insert), expected);
        assert_eq!(request(&Action::Pause {}), Request::Pause {});
    }
}
