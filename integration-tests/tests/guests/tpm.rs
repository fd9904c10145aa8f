//! The TPM with the guest's own driver, over the real swtpm.

// The same commands as those of the device's own tests.
#[path = "../../../devices/tpm/tests/commands/mod.rs"]
mod commands;

use std::path::Path;

use commands::{GET_16_RANDOM, READ_CLOCK, READ_PCR, extend_pcr};
use guest_images::cache::Cache;
use guest_images::{StockKernel, swtpm};
use integration_tests::image::WorkDir;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};

use crate::common::{self, boot, image};

const NAME: &str = "test_tpm_of_swtpm_answers_the_guests_driver_and_keeps_its_state";

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, NAME, tpm);
}

fn tpm(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let state = dir.path().join("tpm");
    let program = swtpm::program(&Cache::project())?;
    let tpm = format!("swtpm,state={},program={}", state.display(), program.display());
    let options = VmOptions::new(&image(kernel)?).argument("--tpm", &tpm);
    let mut vm = start(&options)?;
    let (first, second) = (ask(&mut vm, GET_16_RANDOM)?, ask(&mut vm, GET_16_RANDOM)?);
    assert_eq!((first.len(), &first[10..12]), (28, &[0, 16][..]));
    assert_ne!(first, second);
    let before = pcr(&mut vm)?;
    ask(&mut vm, &extend_pcr())?;
    let after = pcr(&mut vm)?;
    assert_ne!(before, after);
    assert_eq!(pcr(&mut vm)?, after, "an extended PCR stays");
    let count = resets(&mut vm)?;
    let report = vm.inspect()?.tpm.ok_or("the machine has a TPM")?;
    assert!(report.state == "idle" && report.commands >= 7, "{report:?}");

    // A reset of the machine is a power cycle of the TPM.
    vm.control("reset")?;
    vm.wait_ready()?;
    check_driver(&mut vm)?;
    assert_eq!((pcr(&mut vm)?, resets(&mut vm)?), (before, count + 1));
    assert!(vm.power_off()?.success());

    let mut vm = start(&options)?;
    assert_eq!(resets(&mut vm)?, count + 2, "the state outlives the machine");
    // swtpm dies: the guest's commands fail, and the guest goes on.
    let killed = kill_swtpm(&state)?;
    assert_eq!(killed, 1, "one swtpm uses {}", state.display());
    let error = vm.shell(&send(GET_16_RANDOM));
    assert!(error.is_err(), "{error:?}");
    assert_eq!(vm.shell("echo on")?, "on\n");
    let report = vm.inspect()?.tpm.ok_or("the machine has a TPM")?;
    assert_eq!(report.state, "failed");
    let warnings = vm.said().matches("the guest's TPM has failed").count();
    assert_eq!(warnings, 1, "{}", vm.said());
    assert!(vm.power_off()?.success());
    Ok(())
}

fn start(options: &VmOptions) -> Result<Vm, VmError> {
    let mut vm = boot(options)?;
    check_driver(&mut vm)?;
    Ok(vm)
}

/// Checks that the driver, which the stock kernels have built in, has made its device node. It has
/// started the TPM up and tested it before.
fn check_driver(vm: &mut Vm) -> Result<(), VmError> {
    vm.shell("[ -c /dev/tpm0 ]").map(drop)
}

/// Returns a script that sends a raw command, and prints the response in hexadecimal.
fn send(command: &[u8]) -> String {
    let escaped: String = command.iter().map(|byte| format!("\\{byte:03o}")).collect();
    // The driver wants a command in one write, and gives its response to the same open file.
    format!(
        "exec 3<>/dev/tpm0 && printf '{escaped}' > /tmp/command && \
         dd if=/tmp/command bs=4096 count=1 2>/dev/null >&3 && \
         dd bs=4096 count=1 <&3 2>/dev/null > /tmp/response && \
         [ -s /tmp/response ] && od -An -v -tx1 /tmp/response"
    )
}

/// Runs a command that must succeed. Returns its response.
fn ask(vm: &mut Vm, command: &[u8]) -> Result<Vec<u8>, VmError> {
    let text = vm.shell(&send(command))?;
    let bytes: Vec<u8> =
        text.split_whitespace().filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    assert_eq!(bytes.get(6..10), Some(&[0; 4][..]), "{text}");
    Ok(bytes)
}

fn pcr(vm: &mut Vm) -> Result<Vec<u8>, VmError> {
    Ok(ask(vm, READ_PCR)?.split_off(30))
}

/// Returns the count of TPM resets, which each power cycle increases.
fn resets(vm: &mut Vm) -> Result<u32, VmError> {
    let clock = ask(vm, READ_CLOCK)?;
    // The header, u64 time, u64 clock, u32 reset count.
    Ok(u32::from_be_bytes(*clock[26..].first_chunk().expect("a clock")))
}

/// Kills the swtpm with this state. Returns the number of processes.
fn kill_swtpm(state: &Path) -> std::io::Result<usize> {
    let wanted = format!("dir={}", state.canonicalize()?.display());
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let Ok(line) = std::fs::read(path.join("cmdline")) else { continue };
        let Some(process) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if line.split(|byte| *byte == 0).any(|word| word == wanted.as_bytes()) {
            let process = process.parse().map_err(std::io::Error::other)?;
            // SAFETY: the call takes numbers and accesses no memory.
            killed += usize::from(unsafe { libc::kill(process, libc::SIGKILL) } == 0);
        }
    }
    Ok(killed)
}
