//! Tests that `.ci/apt-add` changes no installed package, even if apt would.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with an `apt-get` that records its arguments and prints a plan when it simulates.
struct FakeApt {
    folder: PathBuf,
}

impl FakeApt {
    fn new(name: &str, plan: &str, plan_status: i32) -> FakeApt {
        let folder =
            std::env::temp_dir().join(format!("synthvm-apt-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("plan"), plan).unwrap();
        let script = format!(
            "#!/bin/sh\nhere=${{0%/*}}\necho \"$*\" >> $here/calls\ncase \"$*\" in\n\
             *--simulate*) cat $here/plan; exit {plan_status};;\nesac\n"
        );
        let program = folder.join("apt-get");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        FakeApt { folder }
    }

    /// Runs the script. Returns its output and status, and the calls of apt that were no
    /// simulation.
    fn add(&self, packages: &[&str]) -> (Output, Vec<String>) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.ci/apt-add");
        let path = std::env::join_paths(
            std::iter::once(self.folder.clone())
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
        );
        let output =
            Command::new(script).args(packages).env("PATH", path.unwrap()).output().unwrap();
        let calls = fs::read_to_string(self.folder.join("calls")).unwrap();
        let real =
            calls.lines().filter(|call| !call.contains("--simulate")).map(str::to_owned).collect();
        (output, real)
    }
}

impl Drop for FakeApt {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Asserts that this plan is refused, and that the reason contains `told`.
fn refuses(name: &str, plan: &str, status: i32, told: &str) {
    let (output, calls) = FakeApt::new(name, plan, status).add(&["gcc", "libc6-dev"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{name}");
    assert!(said.contains(told), "{name}: {said}");
    assert!(
        said.contains("install these yourself") && said.contains("gcc libc6-dev"),
        "{name}: {said}"
    );
    assert_eq!(calls, ["-q update"], "{name}: nothing but the lists may be touched");
}

#[test]
fn test_plan_that_removes_a_package_is_refused() {
    // From a machine whose qemu-utils was from the backports.
    let plan =
        "Remv qemu-utils [1:10.0.2+ds-2~bpo12+1]\nInst gcc (4:12.2.0-3 Debian:12/stable [amd64])\n";
    refuses("removes", plan, 0, "Remv qemu-utils");
}

#[test]
fn test_plan_that_downgrades_or_upgrades_a_package_is_refused() {
    let plan =
        "Inst libc6 [2.37-1] (2.36-9 Debian:12/stable [amd64])\nInst gcc (4:12.2.0-3 x [amd64])\n";
    refuses("downgrades", plan, 0, "Inst libc6 [2.37-1]");
}

#[test]
fn test_plan_that_apt_itself_refuses_is_refused_with_its_words() {
    refuses(
        "none",
        "E: Packages need to be removed but remove is disabled.\n",
        100,
        "remove is disabled",
    );
}

#[test]
fn test_plan_that_only_adds_is_carried_out_and_held_to_it() {
    let plan = "Inst gcc (4:12.2.0-3 Debian:12/stable [amd64])\nConf gcc (4:12.2.0-3 x [amd64])\n";
    let (output, calls) = FakeApt::new("adds", plan, 0).add(&["gcc"]);
    assert!(output.status.success(), "{output:?}");
    let [update, install] = &calls[..] else { panic!("{calls:?}") };
    assert_eq!(update, "-q update");
    assert!(install.starts_with("-q install") && install.ends_with(" gcc"), "{install}");
    for option in ["--no-remove", "--no-upgrade"] {
        assert!(install.contains(option), "{install}");
    }
    assert!(!install.contains("--allow"), "{install}");
}
