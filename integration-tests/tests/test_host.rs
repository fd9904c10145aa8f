//! Tests of the test host: it returns a command's output and status, and never reports its own
//! failure as a command's.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use guest_images::Kernel;
use guest_images::cache::Cache;
use integration_tests::host::{
    EmulatedHost, HostError, HostKernel, HostOptions, OutputSink, START_ATTEMPTS, emulator,
};
use integration_tests::image::WorkDir;

#[derive(Default)]
struct Kept {
    out: Vec<u8>,
    err: Vec<u8>,
}

impl OutputSink for Kept {
    fn stdout(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.err.extend_from_slice(bytes);
    }
}

fn shell(host: &mut EmulatedHost, script: &str) -> (Result<i32, HostError>, String, String) {
    let mut kept = Kept::default();
    let argv = ["sh", "-c", script].map(str::to_owned);
    let result = host.run(&argv, &[("EXTRA".to_owned(), "x y".to_owned())], &mut kept);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (result, text(&kept.out), text(&kept.err))
}

/// Returns the options of a host that is small enough to run next to others. The results go to the
/// test's folder.
fn options(dir: &WorkDir) -> HostOptions {
    HostOptions { memory_mib: 2048, results: dir.path().to_owned(), ..HostOptions::default() }
}

#[test]
fn test_emulator_of_the_cache_starts_without_the_systems_libraries() {
    let program = emulator().unwrap();
    // The environment has only the system's shell: neither its QEMU nor a library path of the user.
    let said = Command::new(&program)
        .arg("--version")
        .env_clear()
        .env("LD_LIBRARY_PATH", "/nowhere")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(
        said.status.success() && text.starts_with("QEMU emulator version"),
        "{program:?}: {said:?}"
    );
}

// One host runs all commands that leave it alive, because a start takes seconds.
#[test]
fn test_commands_in_a_host_return_output_status_and_results() {
    let dir = WorkDir::new().unwrap();
    let mut host = EmulatedHost::start(&options(&dir)).unwrap();

    let (result, out, err) = shell(&mut host, "printf 'a\\0b'; echo oops >&2; exit 7");
    assert_eq!((result.unwrap(), out.as_str(), err.as_str()), (7, "a\0b", "oops\n"));

    let (result, out, _) = shell(&mut host, "pwd; echo \"$EXTRA\"; nproc");
    let here = std::env::current_dir().unwrap();
    assert_eq!((result.unwrap(), out), (0, format!("{}\nx y\n1\n", here.display())));

    let (result, out, _) =
        shell(&mut host, "test -c /dev/kvm && cat /sys/module/kvm_amd/parameters/nested");
    assert_eq!((result.unwrap(), out.as_str()), (0, "1\n"));

    // As on an ordinary system, programs may make user namespaces with mounts of their own.
    let (result, out, err) = shell(&mut host, "unshare --user --map-root-user --mount id -u");
    assert_eq!((result.unwrap(), out.as_str(), err.as_str()), (0, "0\n", ""));

    // Files that the command writes are lost, except in the results.
    let source = here.join("Cargo.toml");
    let before = fs::read(&source).unwrap();
    let (result, _, err) =
        shell(&mut host, "echo x >> Cargo.toml && echo kept > \"$SYNTHVM_RESULTS/file\"");
    assert_eq!((result.unwrap(), err.as_str()), (0, ""));
    assert_eq!(fs::read(&source).unwrap(), before);
    assert_eq!(fs::read_to_string(dir.path().join("file")).unwrap(), "kept\n");

    // Long output keeps its order and length. A process that the command leaves behind does not
    // block it.
    let (result, out, _) = shell(&mut host, "sleep 100000 & seq 200000");
    assert_eq!(result.unwrap(), 0);
    assert!(out.lines().map(|line| line.parse::<u32>().unwrap()).eq(1..=200_000));

    let (result, ..) = shell(&mut host, "kill -9 $$");
    assert_eq!(result.unwrap(), 137);
    let missing = host.run(&["/no/such".to_owned()], &[], &mut Kept::default());
    assert_eq!(missing.unwrap_err().exit_code(), 127);

    // A host that ends during a command is not reported as a failed command.
    let (result, ..) = shell(&mut host, "echo o > /proc/sysrq-trigger; sleep 100000");
    let Err(HostError::Died { why, .. }) = result else { panic!("{result:?}") };
    assert_eq!(why, "it closed its channel; the emulator ended with exit status: 0");
}

/// The kernel ends the host with backtraces, before the timeout of silence.
#[test]
fn test_host_whose_kernel_is_lost_dies_immediately_and_its_console_has_the_reason() {
    let dir = WorkDir::new().unwrap();
    let mut host = EmulatedHost::start(&options(&dir)).unwrap();
    let settings = ["softlockup_panic", "softlockup_all_cpu_backtrace", "hung_task_panic", "panic"];
    let files = settings.map(|name| format!("/proc/sys/kernel/{name}")).join(" ");
    let (result, out, _) = shell(&mut host, &format!("cat {files}"));
    assert_eq!((result.unwrap(), out.as_str()), (0, "1\n1\n0\n-1\n"));

    let (result, ..) = shell(&mut host, "echo c > /proc/sysrq-trigger; sleep 100000");
    let Err(HostError::Died { why, console }) = result else { panic!("{result:?}") };
    assert_eq!(why, "Kernel panic - not syncing: sysrq triggered crash");
    assert!(console.contains("Call Trace:"), "{console}");
    let (_, folder) = console.rsplit_once("logs: ").unwrap();
    let log =
        fs::read_to_string(PathBuf::from(folder.trim_end_matches(" ---")).join("console.log"))
            .unwrap();
    assert!(log.contains("sysrq triggered crash"), "{log}");
}

/// A module of the host's kernel computes for longer than the kernel's limit.
#[test]
fn test_host_in_a_soft_lockup_dies_immediately_and_its_console_has_the_reason() {
    let dir = WorkDir::new().unwrap();
    let stock = Kernel::from_package(&Cache::project(), "bookworm", "linux-image-amd64").unwrap();
    let module = stock.modules.join("kernel/crypto/tcrypt.ko");
    let mut host = EmulatedHost::start(&options(&dir)).unwrap();
    // MD5 for a minute; the limit is two seconds. Every Debian machine has Perl, but not insmod.
    let load = format!(
        "echo 1 > /proc/sys/kernel/watchdog_thresh
        exec perl -e 'open F, \"<\", shift; $p = \"mode=302 sec=60\"; \
        syscall({}, fileno(F), $p, 0)' {}",
        libc::SYS_finit_module,
        module.display()
    );
    let (result, out, err) = shell(&mut host, &load);
    let Err(HostError::Died { why, console }) = result else { panic!("{result:?}: {out}{err}") };
    assert!(why.contains("BUG: soft lockup - CPU#0 stuck for"), "{why}");
    assert!(console.contains("softlockup: hung tasks"), "{console}");
}

/// The tests of guest memory with hugepages are ignored on other machines: this host can have some.
#[test]
fn test_tests_that_need_hugepages_pass_in_a_host_that_has_some() {
    let program = test_program("hugepages");
    let dir = WorkDir::new().unwrap();
    let mut host = EmulatedHost::start(&HostOptions { cpus: 1, ..options(&dir) }).unwrap();
    let script = format!(
        "echo 16 > /proc/sys/vm/nr_hugepages && exec {} --include-ignored",
        program.display()
    );
    let (result, out, err) = shell(&mut host, &script);
    assert_eq!(result.unwrap(), 0, "{out}{err}");
    // No test was ignored.
    assert!(out.contains("test result: ok. 3 passed; 0 failed; 0 ignored"), "{out}");
}

/// Builds the workspace's test programs of this name and returns the only one.
fn test_program(name: &str) -> PathBuf {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "test",
        "--quiet",
        "--workspace",
        "--no-run",
        "--message-format=json",
        "--test",
        name,
    ]);
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the test {name} does not build");
    let messages = String::from_utf8(output.stdout).unwrap();
    let program = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let named = message["target"]["name"] == name;
        message["executable"].as_str().filter(|_| named).map(PathBuf::from)
    };
    messages.lines().find_map(program).expect("cargo names the program that it built")
}

#[test]
fn test_command_that_says_nothing_is_hung_and_console_and_processors_are_shown() {
    let dir = WorkDir::new().unwrap();
    let (look_after, quiet_limit) = (Duration::from_secs(2), Duration::from_secs(15));
    let mut host =
        EmulatedHost::start(&HostOptions { look_after, quiet_limit, ..options(&dir) }).unwrap();
    let (result, _, err) = shell(&mut host, "echo the last words > /dev/console; sleep 100000");
    assert!(err.contains("the test host is silent: processor 0 "), "{err}");
    let Err(error) = result else { panic!("{result:?}") };
    assert_eq!(error.exit_code(), 124);
    let text = error.to_string();
    assert!(text.contains("processor 0 ") && text.contains("the last words"), "{text}");
}

#[test]
fn test_host_that_does_not_start_is_tried_again_and_says_so() {
    let dir = WorkDir::new().unwrap();
    let image = dir.path().join("vmlinuz");
    fs::write(&image, "no kernel").unwrap();
    let stock = Kernel::from_package(&Cache::project(), "bookworm", "linux-image-amd64").unwrap();
    let kernel = HostKernel::Named(Kernel { image, ..stock });
    let error = EmulatedHost::start(&HostOptions { kernel, ..options(&dir) }).unwrap_err();
    assert!(matches!(error, HostError::NotStarted { attempts: START_ATTEMPTS, .. }), "{error}");
    assert_eq!(error.exit_code(), 125);
}
