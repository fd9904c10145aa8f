//! The program with a real guest, measured on a KVM with Hyper-V support. Counts are exact on any
//! host; times in an emulated host are only valid for comparing two programs in one run.

use std::time::Instant;

use guest_images::{GuestBuilder, GuestImage, StockKernel};
use guest_report::agent::Action;
use integration_tests::image::WorkDir;
use integration_tests::inspect::Inspect;
use integration_tests::program;
use integration_tests::vm::{Vm, VmOptions};

use super::Output;
use super::table::{self, Number};
use crate::inner::{self, Inside};

/// The results file of the inner half.
const NUMBERS: &str = "bench-boot.json";
/// Bytes of the disk that is read for counting.
const DISK_BYTES: u64 = 32 << 20;
/// Bytes of one read.
const READ_BYTES: u64 = 64 << 10;
/// Target for resident memory beyond guest RAM at one vCPU, in MiB.
const RESIDENT_AIM: f64 = 12.0;

/// The options of `cargo xtask bench boot`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    inside: Inside,
}

pub(super) fn main(arguments: &Arguments) -> Result<(), String> {
    match arguments.inside.guest() {
        Some(guest) => inside(&guest),
        None => outside(&arguments.output),
    }
}

fn outside(output: &Output) -> Result<(), String> {
    // The release build is measured, because users run it.
    let program = program::build_release()?;
    let guest = GuestBuilder::stock(StockKernel::ALL[0])
        .without_programs()
        .build()
        .map_err(|error| error.to_string())?;
    let words = ["bench", "boot"].map(str::to_owned);
    let numbers: Vec<Number> = inner::run(NUMBERS, &words, &guest, &program)?;
    table::print(&numbers);
    output.json.as_deref().map_or(Ok(()), |file| table::write(&numbers, file))
}

fn inside(guest: &GuestImage) -> Result<(), String> {
    let mut numbers = Vec::new();
    for cpus in [1, 2, 4] {
        println!("measuring with {cpus} vCPUs");
        measure(guest, cpus, &mut numbers).map_err(|error| error.to_string())?;
    }
    inner::leave(NUMBERS, &numbers)
}

fn measure(
    guest: &GuestImage,
    cpus: u32,
    numbers: &mut Vec<Number>,
) -> Result<(), Box<dyn std::error::Error>> {
    let dir = WorkDir::new()?;
    let disk = dir.image("disk.img", DISK_BYTES, 1)?;
    let mut add = |name: &str, unit: &str, value: f64| {
        let number = Number::new(format!("{name}_{cpus}_vcpus"), unit, value);
        let aimed = name == "vmm_resident" && cpus == 1;
        numbers.push(if aimed { number.target(RESIDENT_AIM) } else { number });
    };

    let (start, started_us) = (Instant::now(), monotonic_us());
    let mut vm = Vm::start(&VmOptions::new(guest).cpus(cpus).disk(&disk))?;
    vm.wait_ready()?;
    add("start_to_init", "ms", start.elapsed().as_secs_f64() * 1e3);
    let booted = vm.inspect()?;
    add(
        "start_to_first_instruction",
        "ms",
        booted.machine.first_run_us.saturating_sub(started_us) as f64 / 1e3,
    );
    for (kind, count) in exits(&booted) {
        add(&format!("boot_exits_{kind}"), "exits", count as f64);
    }

    vm.disks(1)?;
    // The guest's answers go through the serial port, with an exit for each byte. The same program
    // without the disk shows their number.
    let (before, after) = dd(&mut vm, "/dev/zero")?;
    let mut report = exits(&after).map(|(_, count)| count);
    for (of_report, (_, earlier)) in report.iter_mut().zip(exits(&before)) {
        *of_report -= earlier;
    }
    let (before, after) = dd(&mut vm, "/dev/sda")?;
    let requests = (after.disks[0].requests - before.disks[0].requests) as f64;
    add("disk_requests", "requests", requests);
    for (index, (kind, count)) in exits(&after).into_iter().enumerate() {
        let own = count - exits(&before)[index].1;
        add(
            &format!("exits_per_disk_request_{kind}"),
            "exits",
            own.saturating_sub(report[index]) as f64 / requests,
        );
    }
    let interrupts = |inspect: &Inspect| {
        inspect.channels.iter().map(|channel| channel.signals_sent).sum::<u64>()
    };
    add(
        "interrupts_per_disk_request",
        "signals",
        (interrupts(&after) - interrupts(&before)) as f64 / requests,
    );
    add(
        "copied_bytes_per_disk_request",
        "bytes",
        (after.disks[0].copied_bytes - before.disks[0].copied_bytes) as f64 / requests,
    );
    add("vmm_resident", "MiB", resident_beyond_ram(after.machine.pid)? / f64::from(1 << 20));
    vm.tell(Action::Poweroff)?;
    vm.wait()?;
    Ok(())
}

/// Reads the disk's number of bytes from `device` in the guest, without its page cache. Returns the
/// machine's report before and after.
fn dd(vm: &mut Vm, device: &str) -> Result<(Inspect, Inspect), Box<dyn std::error::Error>> {
    let count = format!("count={}", DISK_BYTES / READ_BYTES);
    let direct = if device == "/dev/sda" { "iflag=direct" } else { "conv=noerror" };
    let size = format!("bs={READ_BYTES}");
    let source = format!("if={device}");
    let before = vm.inspect()?;
    let read = vm.run(&["dd", &source, "of=/dev/null", &size, &count, direct])?;
    if read.status != 0 {
        return Err(format!("dd in the guest: {read:?}").into());
    }
    Ok((before, vm.inspect()?))
}

/// Returns the exits of all vCPUs by kind.
fn exits(inspect: &Inspect) -> [(&'static str, u64); 6] {
    let sum = |of: fn(&integration_tests::inspect::Exits) -> u64| {
        inspect.vcpus.iter().map(|vcpu| of(&vcpu.exits)).sum()
    };
    [
        ("post_message", sum(|exits| exits.post_message)),
        ("signal_event", sum(|exits| exits.signal_event)),
        ("io", sum(|exits| exits.io)),
        ("mmio", sum(|exits| exits.mmio)),
        ("msr", sum(|exits| exits.msr)),
        ("other", sum(|exits| exits.other)),
    ]
}

/// Returns the resident bytes of a process that are not guest RAM: everything but mappings of a
/// memfd.
fn resident_beyond_ram(pid: u32) -> Result<f64, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut guest_ram, mut kib) = (false, 0_u64);
    for line in text.lines() {
        // The fields of a mapping are `Name: value`; its first line starts with an address range.
        if let Some(rest) = line.strip_prefix("Rss:") {
            let value: u64 = rest.trim().trim_end_matches("kB").trim().parse()?;
            kib += if guest_ram { 0 } else { value };
        } else if line
            .split(' ')
            .next()
            .is_some_and(|word| word.contains('-') && !word.ends_with(':'))
        {
            guest_ram = line.contains("/memfd:");
        }
    }
    Ok(kib as f64 * 1024.0)
}

/// Returns CLOCK_MONOTONIC in microseconds, the clock of the program's report.
fn monotonic_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1000
}
