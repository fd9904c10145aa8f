//! Tests of the integration services with the guest's own drivers and daemons.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use guest_images::{GuestBuilder, StockKernel};
use guest_report::agent::Action;
use integration_tests::image::WorkDir;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};
use serde_json::Value;

use crate::common::{self, MIB, boot, end_program, start_program};

/// A wait of this length has failed.
const LIMIT: Duration = Duration::from_secs(60);

/// The class of the file copy's device.
const COPY_CLASS: &str = "34d14be3-dee4-41c8-9ae7-6b174977c192";

/// Ends the guest as an init system does, and says so on the console.
const END: &str = "#!/bin/sh\necho \"the guest ends by ${0##*/}\" > /dev/ttyS0\n/bin/busybox sync\n\
                   exec /bin/busybox ${0##*/} -f\n";

/// Sets addresses, as the program of other distributions does: its first argument is a file with
/// the configuration.
const SET_ADDRESSES: &str = "#!/bin/sh\n. \"$1\"\nip addr flush dev \"$DEVICE\"\n\
                             ip addr add \"${IPADDR0:-$IPADDR}/24\" dev \"$DEVICE\"\n";

/// The daemons of the distribution, and the programs with which the kernel ends the guest.
pub(crate) fn guest(kernel: StockKernel) -> GuestBuilder {
    let daemons: &[&str] = match kernel {
        StockKernel::V6_1 => {
            &["usr/sbin/hv_kvp_daemon", "usr/sbin/hv_vss_daemon", "usr/sbin/hv_fcopy_daemon"]
        }
        StockKernel::V6_12 => &["usr/sbin/hv_kvp_daemon", "usr/sbin/hv_vss_daemon"],
    };
    let guest = match kernel {
        StockKernel::V6_1 => common::guest(kernel),
        // The suite of the kernel has no daemon for this kernel's file copy.
        StockKernel::V6_12 => common::guest(kernel).package_from(
            "sid",
            "hyperv-daemons",
            &["usr/sbin/hv_fcopy_uio_daemon"],
        ),
    };
    guest
        .package_from(kernel.suite(), "hyperv-daemons", daemons)
        .module("hv_utils", true)
        .file("sbin/poweroff", 0o755, END.as_bytes().to_vec())
        .file("sbin/reboot", 0o755, END.as_bytes().to_vec())
        .file("usr/libexec/hypervkvpd/hv_set_ifconfig", 0o755, SET_ADDRESSES.as_bytes().to_vec())
}

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    let name = "test_services_shut_the_guest_down_and_set_its_clock";
    common::add(tests, kernel, name, shutdown_and_time);
    let name = "test_services_exchange_data_freeze_for_a_backup_and_copy_a_file";
    common::add(tests, kernel, name, daemons);
}

fn shutdown_and_time(kernel: StockKernel) -> TestResult {
    let image = guest(kernel).build()?;
    let mut vm = boot(&VmOptions::new(&image))?;
    wait_ready(&vm, &["shutdown", "time-sync", "heartbeat"])?;
    assert_eq!(status(&vm)?["heartbeat"], "alive");

    // A clock that is off by an hour is set on request, and when the driver starts.
    vm.shell("date -s @$(($(date +%s) - 3600))")?;
    assert!(clock_error(&mut vm)? > 3000);
    vm.synthvm(&["time-sync"], &[])?;
    wait_for_clock(&mut vm)?;
    vm.shell("date -s @$(($(date +%s) + 3600))")?;
    vm.tell(Action::ModulesReload { names: vec!["hv_utils".to_owned()], times: 10 })?;
    wait_ready(&vm, &["shutdown", "time-sync", "heartbeat"])?;
    wait_for_clock(&mut vm)?;

    // Without a driver, and for an action that the guest cannot do, the command says so.
    vm.tell(Action::UnloadModule { name: "hv_utils".to_owned() })?;
    let (code, message) = vm.synthvm_fails(&["shutdown"], &[])?;
    assert_eq!(code, Some(8), "{message}");
    assert!(message.contains("hv_utils") && message.contains("power-button"), "{message}");
    assert_eq!(status(&vm)?["heartbeat"], "unknown");
    let (name, parameters) = ("hv_utils".to_owned(), String::new());
    vm.tell(Action::LoadModule { name, parameters })?;
    wait_ready(&vm, &["shutdown"])?;
    let (code, message) = vm.synthvm_fails(&["hibernate"], &[])?;
    assert_eq!(code, Some(8), "{message}");
    assert!(message.contains("0x80004005"), "{message}");

    vm.synthvm(&["restart"], &["--reason", "a test of SynthVM"])?;
    vm.wait_ready()?;
    assert!(vm.said().contains("the guest ends by reboot"), "{}", vm.said());
    wait_ready(&vm, &["shutdown"])?;
    vm.synthvm(&["shutdown"], &["--wait", "60"])?;
    assert!(vm.wait()?.success());
    assert!(vm.said().contains("the guest ends by poweroff"), "{}", vm.said());
    Ok(())
}

fn daemons(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let disk = dir.image("disk.img", 32 * MIB, 1)?;
    let image = guest(kernel).build()?;
    let options = VmOptions::new(&image).disk(&disk).argument("--services", "all");
    let mut vm = boot(&options.argument("--net", "null,id=net0"))?;
    let (code, message) = vm.synthvm_fails(&["kvp", "list"], &["--pool", "auto"])?;
    assert!(code == Some(8) && message.contains("hv_kvp_daemon"), "{message}");
    vm.shell("mkdir -p /var/lib && hv_kvp_daemon && hv_vss_daemon")?;
    wait_ready(&vm, &["kvp", "vss"])?;
    data(&mut vm)?;
    addresses(&mut vm)?;
    backup(&mut vm, &disk, &dir.path().join("copy.img"))?;
    match kernel {
        StockKernel::V6_1 => vm.shell("hv_fcopy_daemon").map(drop)?,
        StockKernel::V6_12 => start_uio_daemon(&mut vm)?,
    }
    wait_ready(&vm, &["copy"])?;
    copy(&mut vm, &dir)?;
    // Not by the power button, to which this guest reacts in another way.
    vm.signal(libc::SIGTERM);
    assert!(vm.wait()?.success());
    assert!(vm.said().contains("the guest ends by poweroff"), "{}", vm.said());
    Ok(())
}

/// Exchanges data with the daemon.
fn data(vm: &mut Vm) -> TestResult {
    let facts = pairs(vm, "auto")?;
    assert!(facts.len() >= 10, "{facts:?}");
    let release = vm.shell("uname -r")?;
    let fact = |name: &str| facts.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    assert_eq!(fact("OSBuildNumber").map(String::as_str), Some(release.trim()));
    assert_eq!(pairs(vm, "guest")?, []);
    vm.synthvm(&["kvp", "set"], &["role", "a web server"])?;
    vm.synthvm(&["kvp", "set"], &["other", "-1"])?;
    let known = pairs(vm, "external")?;
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    assert_eq!(known, [pair("role", "a web server"), pair("other", "-1")]);
    assert!(vm.shell("cat /var/lib/hyperv/.kvp_pool_0")?.contains("a web server"));
    let value = vm.synthvm(&["kvp", "get"], &["role", "--pool", "external"])?;
    assert_eq!(value, "a web server\n");
    vm.synthvm(&["kvp", "delete"], &["role"])?;
    assert_eq!(pairs(vm, "external")?, [pair("other", "-1")]);
    let (code, message) = vm.synthvm_fails(&["kvp", "get"], &["role", "--pool", "external"])?;
    assert_eq!(code, Some(8), "{message}");
    Ok(())
}

/// Reads the guest's address, and sets another one.
fn addresses(vm: &mut Vm) -> TestResult {
    let (name, parameters) = ("hv_netvsc".to_owned(), String::new());
    vm.tell(Action::LoadModule { name, parameters })?;
    vm.shell(
        "until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done\n\
         ip link set eth0 up && ip addr add 10.1.2.3/24 dev eth0",
    )?;
    let facts = pairs(vm, "auto")?;
    let address = facts.iter().find(|(key, _)| key == "NetworkAddressIPv4");
    assert!(address.is_some_and(|(_, value)| value.contains("10.1.2.3")), "{facts:?}");
    let status = status(vm)?.to_string();
    assert!(status.contains("10.1.2.3"), "{status}");
    let ip: Value = serde_json::from_str(&vm.synthvm(&["ip", "get"], &["--json"])?)?;
    assert!(ip["addresses"].to_string().contains("10.1.2.3"), "{ip}");
    let new = ["--address", "10.9.8.7", "--subnet", "255.255.255.0", "--gateway", "10.9.8.1"];
    vm.synthvm(&["ip", "set"], &new)?;
    let shown = vm.shell("ip addr show dev eth0")?;
    assert!(shown.contains("10.9.8.7") && !shown.contains("10.1.2.3"), "{shown}");
    Ok(())
}

/// Backs a mounted file system up while a program writes to it.
fn backup(vm: &mut Vm, disk: &Path, target: &Path) -> TestResult {
    vm.disks(1)?;
    vm.shell(
        "mkfs.ext4 -q /dev/sda && mkdir -p /mnt /old && mount -t ext4 /dev/sda /mnt && \
         echo before > /mnt/before",
    )?;
    vm.synthvm(&["freeze"], &["--timeout", "120"])?;
    start_program(vm, "writer", "sh -c 'echo after > /mnt/after'")?;
    std::fs::copy(disk, target)?;
    let (code, message) = vm.synthvm_fails(&["freeze"], &[])?;
    assert!(code == Some(1) && message.contains("already"), "{message}");
    vm.shell("[ ! -s /tmp/writer.status ] && [ ! -e /mnt/after ]")?;
    vm.synthvm(&["thaw"], &[])?;
    assert_eq!(end_program(vm, "writer")?.0, "0");
    vm.shell("sync && [ \"$(cat /mnt/after)\" = after ]")?;

    vm.add_disk(&format!("path={},readonly=on", target.display()))?;
    vm.disks(2)?;
    let features = vm.shell("dumpe2fs -h /dev/sdb 2>&1")?;
    assert!(features.contains("clean") && !features.contains("needs_recovery"), "{features}");
    vm.shell("e2fsck -fn /dev/sdb && mount -t ext4 -o ro /dev/sdb /old")?;
    assert_eq!(vm.shell("ls /old")?, "before\nlost+found\n");

    // With a command; and a client that is killed.
    vm.synthvm(&["freeze"], &["--", "true"])?;
    assert_eq!(status(vm)?["frozen"], false);
    let client = vm.begin(&["freeze"], &["--", "sleep", "60"])?;
    wait_frozen(vm, true)?;
    drop(client);
    wait_frozen(vm, false)?;
    vm.shell("echo again > /mnt/again && sync")?;
    Ok(())
}

/// Starts the daemon of Linux 6.10 and later, whose driver is uio's.
fn start_uio_daemon(vm: &mut Vm) -> TestResult {
    let (name, parameters) = ("uio_hv_generic".to_owned(), String::new());
    vm.tell(Action::LoadModule { name, parameters })?;
    vm.shell(&format!("echo {COPY_CLASS} > /sys/bus/vmbus/drivers/uio_hv_generic/new_id"))?;
    start_program(vm, "copy", "hv_fcopy_uio_daemon -n")?;
    Ok(())
}

/// Copies a file to the guest.
fn copy(vm: &mut Vm, dir: &WorkDir) -> TestResult {
    // Not a multiple of a message's bytes.
    let file = dir.image("file.bin", 300_001, 3)?;
    let file = file.display().to_string();
    let to = [file.as_str(), "/tmp/new/folder/", "--create-path", "--json"];
    let progress = vm.synthvm(&["copy-to"], &to)?;
    let last: Value = serde_json::from_str(progress.lines().last().unwrap_or_default())?;
    assert_eq!((&last["sent"], &last["ended"]), (&Value::from(300_001), &Value::from(true)));
    let sum = vm.shell("sha256sum < /tmp/new/folder/file.bin")?;
    let expected = std::process::Command::new("sha256sum").stdin(File::open(&file)?).output()?;
    assert_eq!(sum, String::from_utf8_lossy(&expected.stdout));
    let (code, message) = vm.synthvm_fails(&["copy-to"], &[&file, "/tmp/new/folder/"])?;
    assert!(code == Some(8) && message.contains("0x80070050"), "{message}");
    vm.synthvm(&["copy-to"], &[&file, "/tmp/new/folder/", "--overwrite"])?;
    Ok(())
}

/// Returns the pairs of a pool.
fn pairs(vm: &Vm, pool: &str) -> Result<Vec<(String, String)>, Box<dyn std::error::Error>> {
    let text = vm.synthvm(&["kvp", "list"], &["--pool", pool, "--json"])?;
    let list: Vec<Value> = serde_json::from_str(&text)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(list.iter().map(|pair| (text(&pair["key"]), text(&pair["value"]))).collect())
}

/// Waits until the guest is frozen or thawed.
fn wait_frozen(vm: &Vm, wanted: bool) -> TestResult {
    let end = Instant::now() + LIMIT;
    while status(vm)?["frozen"] != wanted {
        assert!(Instant::now() < end, "{}", vm.said());
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Returns the output of `synthvm status --json`.
fn status(vm: &Vm) -> Result<Value, Box<dyn std::error::Error>> {
    Ok(serde_json::from_str(&vm.synthvm(&["status"], &["--json"])?)?)
}

/// Waits until the guest answers requests of these services.
pub(crate) fn wait_ready(vm: &Vm, names: &[&str]) -> TestResult {
    let end = Instant::now() + LIMIT;
    loop {
        let status = status(vm)?;
        let services = status["services"].as_array().cloned().unwrap_or_default();
        let is_ready = |name: &&str| {
            services.iter().any(|one| one["name"] == **name && one["state"] == "ready")
        };
        if names.iter().all(is_ready) {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("{names:?} are not ready: {status}\n{}", vm.said()).into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Returns the difference between the guest's clock and the host's in seconds.
fn clock_error(vm: &mut Vm) -> Result<u64, VmError> {
    let guest: u64 = vm.shell("date +%s")?.trim().parse().unwrap_or(0);
    let host = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok(host.abs_diff(guest))
}

/// Waits until the guest's clock is right: the guest sets it after it has answered.
fn wait_for_clock(vm: &mut Vm) -> TestResult {
    let end = Instant::now() + LIMIT;
    loop {
        match clock_error(vm)? {
            0..=3 => return Ok(()),
            error if Instant::now() > end => return Err(format!("off by {error} s").into()),
            _ => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}
