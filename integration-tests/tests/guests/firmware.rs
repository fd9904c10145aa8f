//! Tests of machines that stock UEFI firmware starts, by dialogues on their serial console.

use std::path::Path;
use std::time::Duration;

use guest_images::cache::Cache;
use guest_images::{Ovmf, StockKernel};
use guest_report::agent::Action;
use integration_tests::console::ConsoleError;
use integration_tests::firmware::{FirmwareMachine, FirmwareOptions};
use integration_tests::image::WorkDir;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::VmOptions;

use crate::common::{self, MIB};

/// Timeout of each step. A test host takes about 20 s from power on to the shell.
const LIMIT: Duration = Duration::from_secs(120);

/// The prompt of the firmware's shell.
const SHELL: &str = "Shell> ";

/// The name and namespace of the tests' variable, which no program uses.
const VARIABLE: &str = "SynthVm -guid 6a2c9a6e-7f0f-4d3c-9f5b-53796e746804";

/// Number of times that a machine is killed while it writes variables, and the variable by which a
/// long run has more. A test host needs 10 to 20 s for each.
const KILLS: usize = 3;
const KILLS_VARIABLE: &str = "SYNTHVM_KILLS";

/// Of ten kills, the last seven come after the shell has begun to write, each so much later.
const KILL_STEP: Duration = Duration::from_millis(15);

pub(crate) fn add(tests: &mut Vec<Test>) {
    // The third build is that of the test that kills machines.
    for firmware in [Ovmf::Bookworm2M, Ovmf::Trixie4M] {
        let name = firmware.name();
        tests.push(Test::new(
            format!("test_firmware_{name}_reaches_its_shell_and_keeps_a_variable"),
            move || keeps_variables(firmware),
        ));
    }
    for (firmware, kernel, cpus, memory) in [
        (Ovmf::Bookworm2M, StockKernel::V6_1, 1, "5G"),
        (Ovmf::Trixie4M, StockKernel::V6_12, 4, "5G"),
    ] {
        let name = firmware.name();
        let version = kernel.version();
        tests.push(Test::new(
            format!("test_firmware_{name}_starts_the_kernel_it_is_given_on_{version}"),
            move || starts_kernel(firmware, kernel, cpus, memory),
        ));
    }
    tests.push(Test::new(
        "test_firmware_killed_while_it_writes_variables_has_the_old_or_the_new".to_owned(),
        || killed(kills()),
    ));
    tests.push(Test::new(
        "test_firmware_variables_of_another_layout_or_in_use_are_refused".to_owned(),
        refuses_variables,
    ));
}

/// Fetches the firmware, which is not possible inside a test host.
pub(crate) fn prepare(cache: &Cache) -> Result<(), guest_images::Error> {
    Ovmf::ALL.into_iter().try_for_each(|firmware| firmware.fetch(cache).map(|_| ()))
}

fn options(firmware: Ovmf) -> Result<FirmwareOptions, guest_images::Error> {
    Ok(FirmwareOptions::new(&firmware.fetch(&Cache::project())?))
}

/// A variable outlives a reset of the machine and the machine itself, which is killed.
fn keeps_variables(firmware: Ovmf) -> TestResult {
    let dir = WorkDir::new()?;
    let options = options(firmware)?.variables(&dir.path().join("variables"));
    let mut machine = FirmwareMachine::start(&options)?;
    start_shell(&mut machine)?;
    set(&mut machine, 0x51)?;
    assert_eq!(get(&mut machine)?, 0x51);
    machine.console.send("reset\r")?;
    start_shell(&mut machine)?;
    assert_eq!(get(&mut machine)?, 0x51, "after a reset");

    drop(machine);
    let mut machine = FirmwareMachine::start(&options)?;
    start_shell(&mut machine)?;
    assert_eq!(get(&mut machine)?, 0x51, "in the next machine");
    Ok(())
}

/// The firmware starts a stock guest, whose bus is new to it and whose tables are the machine's.
fn starts_kernel(firmware: Ovmf, kernel: StockKernel, cpus: u32, memory: &str) -> TestResult {
    let dir = WorkDir::new()?;
    let disk = dir.image("disk.img", 4 * MIB, 1)?;
    let code = firmware.fetch(&Cache::project())?.code;
    let options = VmOptions::new(&common::image(kernel)?)
        .cpus(cpus)
        .memory(memory)
        .disk(&disk)
        .argument("--firmware", &format!("path={}", code.display()));
    let mut vm = common::boot(&options)?;
    assert_eq!(vm.disks(1)?[0].size, 4 * MIB);
    assert_eq!(vm.ask::<u32>(Action::OnlineCpus)?, cpus);
    assert_eq!(vm.ask::<String>(Action::Clocksource)?, "hyperv_clocksource_tsc_page");
    vm.shell("test -d /sys/firmware/efi && test -e /sys/firmware/dmi/tables/smbios_entry_point")?;
    let log = vm.shell("dmesg")?;
    assert!(!log.contains("ACPI Error") && !log.contains("ACPI BIOS Error"), "{log}");
    assert!(vm.power_off()?.success());
    Ok(())
}

fn kills() -> usize {
    let wanted = std::env::var(KILLS_VARIABLE).ok().and_then(|count| count.parse().ok());
    wanted.unwrap_or(KILLS)
}

/// Kills the program before, during and after a write. The next machine finds the old value or the
/// new one.
fn killed(times: usize) -> TestResult {
    let dir = WorkDir::new()?;
    let options = options(Ovmf::Bookworm4M)?.variables(&dir.path().join("variables"));
    let mut machine = FirmwareMachine::start(&options)?;
    start_shell(&mut machine)?;
    let mut last = 0x10;
    set(&mut machine, last)?;
    for time in 0..times {
        let next = last + 1;
        machine.console.send(&format!("setvar {VARIABLE} -nv -bs -rt =0x{next:02x}\r"))?;
        // The shell repeats the keys, then the end of the line, and then it writes.
        let moments = [format!("{next:02x}"), format!("{next:02x}\n"), SHELL.to_owned()];
        machine.console.wait(moments.get(time % 10).unwrap_or(&moments[1]), LIMIT)?;
        std::thread::sleep(KILL_STEP * (time as u32 % 10).saturating_sub(2));
        drop(machine);
        machine = FirmwareMachine::start(&options)?;
        start_shell(&mut machine)?;
        let found = get(&mut machine)?;
        assert!(found == last || found == next, "{found:#x} instead of {last:#x} or {next:#x}");
        // A long run that is stopped has shown this much.
        let kept = if found == last { "the old value" } else { "the new value" };
        println!("kill {} of {times}: {kept}", time + 1);
        last = found;
    }
    Ok(())
}

/// The program names the file and the reason, and the file stays as it was.
fn refuses_variables() -> TestResult {
    let dir = WorkDir::new()?;
    let cache = Cache::project();
    let other = dir.path().join("other");
    std::fs::copy(Ovmf::Bookworm2M.fetch(&cache)?.vars, &other)?;
    let before = std::fs::read(&other)?;
    refused(&options(Ovmf::Bookworm4M)?.variables(&other), &other)?;
    assert_eq!(std::fs::read(&other)?, before);

    let used = dir.path().join("used");
    let options = options(Ovmf::Bookworm2M)?.variables(&used);
    let mut owner = FirmwareMachine::start(&options)?;
    refused(&options, &used)?;
    start_shell(&mut owner)?;
    Ok(())
}

/// Starts a machine, which must fail with a message that has the file's path.
fn refused(options: &FirmwareOptions, path: &Path) -> TestResult {
    match FirmwareMachine::start(options) {
        Ok(mut machine) => {
            let ended = machine.wait();
            let said = machine.said();
            assert!(ended.is_ok_and(|status| !status.success()), "it starts: {said}");
            assert!(said.contains(&path.display().to_string()), "{said}");
        }
        Err(error) => {
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        }
    }
    Ok(())
}

/// Waits for the firmware's shell, and ends its wait for a start script, which does not exist.
fn start_shell(machine: &mut FirmwareMachine) -> Result<(), ConsoleError> {
    machine.console.wait("any other key to continue", LIMIT)?;
    // An ESC would swallow the next key.
    machine.console.send("\r")?;
    machine.console.wait(SHELL, LIMIT)?;
    Ok(())
}

fn set(machine: &mut FirmwareMachine, value: u8) -> Result<(), ConsoleError> {
    machine.console.send(&format!("setvar {VARIABLE} -nv -bs -rt =0x{value:02x}\r"))?;
    machine.console.wait(SHELL, LIMIT)?;
    Ok(())
}

/// Returns the variable's value, the byte in the line after the one with its size.
fn get(machine: &mut FirmwareMachine) -> Result<u8, Box<dyn std::error::Error>> {
    machine.console.send(&format!("setvar {VARIABLE}\r"))?;
    let said = machine.console.wait(SHELL, LIMIT)?;
    let byte = said.split_once("0001 Bytes\n").and_then(|(_, dump)| dump.split_whitespace().next());
    let byte = byte.ok_or_else(|| format!("the shell shows no value: {said}"))?;
    Ok(u8::from_str_radix(byte, 16)?)
}
