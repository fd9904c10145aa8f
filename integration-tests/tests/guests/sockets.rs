//! Tests of AF_VSOCK with the guest's own driver, in both directions.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Instant;

use guest_images::StockKernel;
use guest_report::agent::{Action, RoundTrips, SocketStreams};
use guest_report::pattern;
use integration_tests::image::WorkDir;
use integration_tests::inspect::Inspect;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};

use crate::common::{self, boot, image};

const NAME: &str = "test_sockets_carry_streams_both_ways_and_leave_nothing";

/// The drivers, in load order.
const DRIVERS: [&str; 2] = ["vsock", "hv_sock"];

/// The port of the host's program, and of the guest's server.
const PORT: u32 = 5000;

/// The port of the host's program that returns bytes immediately.
const ECHO: u32 = 5001;

/// The number of connections that are open at the same time.
const MANY: u32 = 1000;

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, NAME, sockets);
}

fn sockets(kernel: StockKernel) -> TestResult {
    raise_descriptor_limit();
    let dir = WorkDir::new()?;
    let socket = dir.path().join("vm.sock");
    let mut vm = boot(
        &VmOptions::new(&image(kernel)?).cpus(2).argument("--vsock", &socket.display().to_string()),
    )?;
    let idle = vm.inspect()?.channels.len();
    for name in DRIVERS {
        vm.tell(Action::LoadModule { name: name.to_owned(), parameters: String::new() })?;
    }
    // No program listens: Linux gives up after two seconds.
    vm.ask::<String>(Action::SocketRefused { port: PORT })?;
    let listen = |port| UnixListener::bind(dir.path().join(format!("vm.sock_{port}")));
    let (listener, echo) = (listen(PORT)?, listen(ECHO)?);
    let program = thread::spawn(move || listener.incoming().for_each(answer));
    let echo = thread::spawn(move || echo.accept().and_then(|(stream, _)| return_all(&stream)));

    assert_one_each_way(&mut vm, &socket)?;
    vm.tell(Action::ModulesReload { names: DRIVERS.map(str::to_owned).to_vec(), times: 10 })?;
    let trips: RoundTrips =
        vm.ask(Action::SocketRoundTrips { port: ECHO, count: 1000, bytes: 64 })?;
    assert!(trips.p50_us > 0.0);
    println!("a round trip takes {:.0} us (median), {:.0} us (p99)", trips.p50_us, trips.p99_us);
    // Rings of 24 KiB instead of 208 KiB, as a guest with little memory has.
    for limit in ["wmem_default", "rmem_default"] {
        let path = format!("/proc/sys/net/core/{limit}");
        vm.tell(Action::WriteFile { path, text: "16384".to_owned() })?;
    }
    let all: SocketStreams =
        vm.ask(Action::SocketExchange { port: PORT, count: MANY, bytes: 20_000, seed: 100 })?;
    println!(
        "{MANY} connections open after {:.1} s, echoed after {:.1} s",
        all.connected, all.seconds
    );
    // One kernel is enough: each connection takes the emulated guest some 20 ms.
    let many_from_host = if kernel == StockKernel::V6_12 {
        assert_many_from_host(&mut vm, &socket)?;
        u64::from(MANY)
    } else {
        0
    };
    assert_one_each_way(&mut vm, &socket)?;

    let report = settled(&vm, idle)?;
    let vsock = report.vsock.ok_or("the machine has sockets")?;
    let expected = (u64::from(MANY) + 3, many_from_host + 2);
    assert_eq!((vsock.from_guest, vsock.from_host), expected, "{vsock:?}");
    assert_eq!((vsock.no_listener, vsock.failed, vsock.broken), (1, 0, 0), "{vsock:?}");
    assert_eq!(vsock.bytes_to_host, vsock.bytes_to_guest);
    assert_eq!(vsock.unanswered, 0);
    assert!(vm.power_off()?.success());
    assert!(!socket.exists(), "the socket is removed at the end");
    let echoed = echo.join().map_err(|_| "the echo failed")??;
    assert_eq!(echoed, 1000 * 64);
    // It accepts until this process ends.
    drop(program);
    Ok(())
}

/// Sends a stream from the guest and one from the host. Each end closes its half first, and gets
/// all bytes back afterwards.
fn assert_one_each_way(vm: &mut Vm, socket: &Path) -> TestResult {
    let bytes = 4_000_001;
    vm.ask::<SocketStreams>(Action::SocketExchange { port: PORT, count: 1, bytes, seed: 1 })?;

    vm.tell(Action::SocketServe { port: PORT })?;
    let mut stream = connect(socket)?;
    let mut sent = vec![0; bytes];
    pattern::fill(&mut sent, 2, 0);
    stream.write_all(&sent)?;
    stream.shutdown(Shutdown::Write)?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    assert!(received == sent, "{} of {bytes} bytes are back, or differ", received.len());
    assert_eq!(vm.ask::<u32>(Action::SocketStop)?, 1);
    Ok(())
}

/// Opens many connections from the host, which are all open at the same time. The guest's server
/// returns the bytes of each.
fn assert_many_from_host(vm: &mut Vm, socket: &Path) -> TestResult {
    let bytes = 20_000;
    vm.tell(Action::SocketServe { port: PORT })?;
    let begun = Instant::now();
    let streams = (0..MANY).map(|_| connect(socket)).collect::<std::io::Result<Vec<_>>>()?;
    let connected = begun.elapsed();
    let mut buffer = vec![0; bytes];
    for (seed, mut stream) in (0..).zip(&streams) {
        pattern::fill(&mut buffer, seed, 0);
        stream.write_all(&buffer)?;
        stream.shutdown(Shutdown::Write)?;
    }
    for (seed, mut stream) in (0..).zip(&streams) {
        buffer.clear();
        stream.read_to_end(&mut buffer)?;
        let difference = pattern::first_difference(&buffer, seed, 0);
        assert_eq!((buffer.len(), difference), (bytes, None), "connection {seed}");
    }
    println!(
        "{MANY} connections of the host open after {:.1} s, echoed after {:.1} s",
        connected.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    drop(streams);
    assert_eq!(vm.ask::<u32>(Action::SocketStop)?, MANY);
    Ok(())
}

/// Connects to the guest's server.
fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(format!("CONNECT {PORT}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::with_capacity(1, &stream).read_line(&mut line)?;
    assert!(line.starts_with("OK "), "{line:?}");
    Ok(stream)
}

/// Returns the bytes of a connection after their end.
fn answer(stream: std::io::Result<UnixStream>) {
    let Ok(mut stream) = stream else { return };
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).and_then(|_| stream.write_all(&bytes));
    });
}

/// Permits this process the connections of all programs.
fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes one rlimit.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the call reads one rlimit.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

/// Sends each piece of a stream back, until its end. Returns the number of bytes.
fn return_all(mut stream: &UnixStream) -> std::io::Result<usize> {
    let (mut bytes, mut all) = ([0; 4096], 0);
    loop {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Ok(all);
        }
        stream.write_all(&bytes[..count])?;
        all += count;
    }
}

/// Returns the report when the guest has released all connections.
fn settled(vm: &Vm, channels: usize) -> Result<Inspect, VmError> {
    loop {
        let report = vm.inspect()?;
        let vsock = report.vsock.is_some_and(|vsock| vsock.open == 0 && vsock.pending == 0);
        if vsock && report.channels.len() == channels {
            return Ok(report);
        }
    }
}
