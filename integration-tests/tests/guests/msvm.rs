//! Tests that a machine with `--firmware msvm:` is what Hyper-V's generation 2 firmware expects,
//! with firmware of our own that speaks the same contract.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use guest_images::cache::Cache;
use integration_tests::image::WorkDir;
use integration_tests::program;
use integration_tests::runner::{Test, TestResult};

/// Seconds after which a machine that has not ended counts as hanging.
const LIMIT: &str = "120";

pub(crate) fn add(tests: &mut Vec<Test>) {
    let name = "test_msvm_stub_finds_the_contract_and_its_variables_again";
    tests.push(Test::new(name, || stub(1, "512M", "full")));
    let name = "test_msvm_stub_on_four_vcpus_five_gib_split_irqchip_finds_the_contract";
    tests.push(Test::new(name, || stub(4, "5G", "split")));
}

/// Boots three times in one run (a reset by the guest, and one by its watchdog), then once more
/// with the same variables.
fn stub(cpus: u32, memory: &str, irqchip: &str) -> TestResult {
    let image = guest_images::msvm_stub(&Cache::project())?;
    let dir = WorkDir::new()?;
    let disk = dir.empty_image("disk.img", 1 << 20)?;
    let vars = dir.path().join("vars");
    let run = |policy| run(&image, &vars, &disk, cpus, memory, irqchip, policy);

    let first = run("wait")?;
    let console = String::from_utf8_lossy(&first.stdout);
    let log = String::from_utf8_lossy(&first.stderr);
    let said = format!("{console}\n{log}");
    assert!(first.status.success(), "{}: {said}", first.status);
    assert!(!console.contains("failed"), "{said}");
    let steps = ["blob", "watchdog", "nfit", "random", "variables", "names", "events", "vmbus"];
    for step in steps {
        let lines = console.matches(&format!("stub: {step} ok")).count();
        assert_eq!(lines, 3, "{step}: {said}");
    }
    // The controller and the five integration services that are offered by default.
    assert!(console.contains("stub: vmbus ok 6"), "{said}");
    for boot in 1..=3 {
        assert!(console.contains(&format!("stub: boots ok {boot}")), "{said}");
    }
    assert!(console.contains("stub: waits for the watchdog"), "{said}");
    assert!(console.contains("stub: expired true"), "{said}");
    assert!(log.contains("the firmware's watchdog expired"), "{said}");
    assert!(log.contains("firmware: no boot device"), "{said}");

    let second = run("wait")?;
    let console = String::from_utf8_lossy(&second.stdout);
    assert!(second.status.success(), "{}: {console}", second.status);
    assert!(console.contains("stub: boots ok 4"), "{console}");
    assert!(console.contains("stub: expired false"), "{console}");

    // The stub reports that it has nothing to boot.
    let third = run("exit")?;
    let log = String::from_utf8_lossy(&third.stderr);
    assert_eq!(third.status.code(), Some(9), "{log}");
    assert!(log.contains("synthvm: the firmware found no system to boot"), "{log}");
    Ok(())
}

fn run(
    image: &Path,
    vars: &Path,
    disk: &Path,
    cpus: u32,
    memory: &str,
    irqchip: &str,
    on_no_boot_device: &str,
) -> std::io::Result<Output> {
    Command::new("timeout")
        .args(["--signal", "KILL", LIMIT])
        .arg(program::path())
        .arg("run")
        .arg("--firmware")
        .arg(format!("msvm:{}", image.display()))
        .arg("--firmware-vars")
        .arg(vars)
        .arg("--disk")
        .arg(disk)
        .args(["--cpus", &cpus.to_string(), "--memory", memory, "--irqchip", irqchip])
        .args(["--on-no-boot-device", on_no_boot_device])
        .stdin(Stdio::null())
        .output()
}
