//! Tests of traffic with the guest's own driver: sizes, offloads, VLANs, filters, RSS and changes
//! of the interface. Every byte is checked by the guest's program `traffic`.

use std::time::Instant;

use guest_images::StockKernel;
use guest_report::agent::Action;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};

use crate::common::{self, boot, network_guest};
use crate::network::{DRIVER, isolate, load_driver, serve, wait_queues, within};

const TRAFFIC: &str = "test_network_traffic_of_all_sizes_and_offloads_is_right";
const CHANGES: &str = "test_network_cards_change_and_unload_under_traffic";

/// Bytes of a stream that shows an offload at work: many of the largest segments.
const STREAM: usize = 2 << 20;

/// Bytes of the long streams, which come back: each crosses the network twice. The environment
/// variable [`LONG_STREAM_VARIABLE`] replaces the number, for runs outside of CI.
const LONG_STREAM: u64 = 16 << 20;
const LONG_STREAM_VARIABLE: &str = "SYNTHVM_STREAM_BYTES";

/// Most bytes of one connection of the long streams, so that none takes too long on a busy machine.
const LONG_STREAM_PART: u64 = 64 << 20;

/// Most times that an interface is taken down and up, and most seconds of it.
const TOGGLES: (usize, u32) = (500, 10);

/// Fewer frames than a flood has in a second.
const FEW: u64 = 20;

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, TRAFFIC, traffic);
    common::add(tests, kernel, CHANGES, changes);
}

/// Boots a guest with two cards of four queues on one switch, each in a network namespace.
fn pair(kernel: StockKernel) -> Result<Vm, Box<dyn std::error::Error>> {
    let image = network_guest(kernel).build()?;
    let net = "switch,name=lan,queues=4";
    let mut vm =
        boot(&VmOptions::new(&image).cpus(4).argument("--net", net).argument("--net", net))?;
    load_driver(&mut vm)?;
    connect(&mut vm)?;
    Ok(vm)
}

/// Gives both interfaces their namespaces and addresses, and starts a server in the second.
fn connect(vm: &mut Vm) -> Result<(), VmError> {
    for number in [1, 2] {
        let (interface, name) = (format!("eth{}", number - 1), format!("n{number}"));
        wait_queues(vm, &interface, 4)?;
        vm.shell(&isolate(&interface, &name, &format!("10.9.0.{number}")))?;
        // Detection of duplicate addresses would delay the first packets.
        let six = format!(
            "busybox sh -c 'sysctl -q -w net.ipv6.conf.{interface}.accept_dad=0; \
             ip addr add fd00::{number}/64 dev {interface}'"
        );
        vm.shell(&within(&name, &six))?;
    }
    serve(vm, "n2")
}

/// Runs `traffic` in the first card's namespace.
fn run(vm: &mut Vm, command: &str) -> Result<String, VmError> {
    vm.shell(&within("n1", &format!("traffic {command}")))
}

fn traffic(kernel: StockKernel) -> TestResult {
    let mut vm = pair(kernel)?;
    vm.shell(&within("n1", "busybox ping -c 3 10.9.0.2"))?;
    vm.shell(&within("n1", "busybox ping6 -c 3 fd00::2"))?;
    // With headers of 28 and 48 bytes, up to a frame of the MTU and then past it.
    run(&mut vm, "udp 10.9.0.2 0 1474 1")?;
    run(&mut vm, "udp fd00::2 1 1454 3")?;
    run(&mut vm, "udp 10.9.0.2 1475 65000 4001")?;
    offloads(&mut vm)?;
    long_streams(&mut vm)?;
    spread(&mut vm)?;
    vlan(&mut vm)?;
    promiscuous(&mut vm)?;
    jumbo(&mut vm)?;
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Streams with each state of the offloads, over both families.
fn offloads(vm: &mut Vm) -> TestResult {
    for state in [
        "rx on tx on tso on gro on lro on",
        "rx on tx on tso off gro on lro on",
        "rx on tx on tso on gro off lro off",
        "rx off tx off tso off gro off lro off",
        "rx on tx on tso on gro on lro on",
    ] {
        for (name, interface) in [("n1", "eth0"), ("n2", "eth1")] {
            vm.shell(&within(name, &format!("ethtool -K {interface} {state}")))?;
        }
        for address in ["10.9.0.2", "fd00::2"] {
            run(vm, &format!("tcp {address} {STREAM} 1"))?;
            run(vm, &format!("udp {address} 1000 1400 50"))?;
        }
    }
    Ok(())
}

/// Streams many bytes with all offloads on, over both families in turn.
fn long_streams(vm: &mut Vm) -> TestResult {
    let bytes = match std::env::var(LONG_STREAM_VARIABLE) {
        Ok(text) => text.parse().map_err(|error| format!("{LONG_STREAM_VARIABLE}: {error}"))?,
        Err(_) => LONG_STREAM,
    };
    let (begun, mut left) = (Instant::now(), bytes);
    for address in ["10.9.0.2", "fd00::2"].into_iter().cycle() {
        let part = left.min(LONG_STREAM_PART).min(bytes.div_ceil(2));
        run(vm, &format!("tcp {address} {part} 1"))?;
        left -= part;
        if left == 0 {
            break;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let rate = 2.0 * bytes as f64 / seconds / 1e6;
    println!("{bytes} bytes there and back in {seconds:.1} s: {rate:.0} MB/s in all");
    Ok(())
}

/// Makes 64 connections: they leave out one of four queues with a chance of 4 in 10^8.
fn spread(vm: &mut Vm) -> TestResult {
    run(vm, "tcp 10.9.0.2 100 64")?;
    for (name, interface) in [("n1", "eth0"), ("n2", "eth1")] {
        let statistics = vm.shell(&within(name, &format!("ethtool -S {interface}")))?;
        for queue in 0..4 {
            let counter = format!("rx_queue_{queue}_packets:");
            let line = statistics.lines().find_map(|line| line.trim().strip_prefix(&counter));
            let packets: u64 = line.ok_or("no counter of a queue")?.trim().parse()?;
            assert_ne!(packets, 0, "queue {queue} of {interface}:\n{statistics}");
        }
    }
    Ok(())
}

fn vlan(vm: &mut Vm) -> TestResult {
    vm.tell(Action::LoadModule { name: "8021q".to_owned(), parameters: String::new() })?;
    for (number, interface) in [(1, "eth0"), (2, "eth1")] {
        let script = format!(
            "ip link add link {interface} name v5 type vlan id 5 && \
             ip addr add 10.9.5.{number}/24 dev v5 && ip link set v5 up"
        );
        vm.shell(&within(&format!("n{number}"), &format!("busybox sh -c '{script}'")))?;
    }
    run(vm, "udp 10.9.5.2 0 1474 67")?;
    run(vm, &format!("tcp 10.9.5.2 {STREAM} 1"))?;
    Ok(())
}

/// Sends frames to an address that no card has: only a promiscuous card receives them.
fn promiscuous(vm: &mut Vm) -> TestResult {
    let stranger = "arp -i eth0 -s 10.9.0.77 02:00:00:00:00:77";
    vm.shell(&within("n1", &format!("busybox {stranger}")))?;
    let count = within("n2", "busybox awk '/eth1:/ {print $3}' /proc/net/dev");
    let send = within("n1", "busybox timeout 1 traffic flood 10.9.0.77 2> /dev/null");
    // Other traffic, such as IPv6's own, is a few frames.
    let frames = format!("a=$({count}); {send}; b=$({count}); echo $((b - a))");
    let seen: u64 = vm.shell(&frames)?.trim().parse()?;
    assert!(seen < FEW, "{seen} frames for another station were received");
    // The driver sets its filter from a work queue.
    for (state, condition) in [("on", "-ge"), ("off", "-lt")] {
        let set = within("n2", &format!("ip link set eth1 promisc {state}"));
        vm.shell(&format!("{set}; until [ $({frames}) {condition} {FEW} ]; do :; done"))?;
    }
    Ok(())
}

fn jumbo(vm: &mut Vm) -> TestResult {
    for (name, interface) in [("n1", "eth0"), ("n2", "eth1")] {
        vm.shell(&within(name, &format!("ip link set {interface} mtu 9000")))?;
        wait_up(vm, name)?;
    }
    run(vm, "udp 10.9.0.2 1400 8974 41")?;
    run(vm, "udp fd00::2 8900 8954 1")?;
    run(vm, &format!("tcp 10.9.0.2 {STREAM} 1"))?;
    Ok(())
}

/// Waits until a card answers the other one again.
fn wait_up(vm: &mut Vm, name: &str) -> Result<(), VmError> {
    let other = if name == "n1" { "10.9.0.2" } else { "10.9.0.1" };
    let ping = within(name, &format!("busybox ping -c 1 -W 1 {other} > /dev/null"));
    vm.shell(&format!("until {ping}; do sleep 0.1; done")).map(|_| ())
}

fn changes(kernel: StockKernel) -> TestResult {
    let mut vm = pair(kernel)?;
    for round in 0..2 {
        for (name, other) in [("n1", "10.9.0.2"), ("n2", "10.9.0.1")] {
            let flood = within(name, &format!("traffic flood {other}"));
            vm.shell(&format!("{flood} > /dev/null 2>&1 &"))?;
        }
        if round == 0 {
            let (count, seconds) = TOGGLES;
            let toggle = within("n2", &format!("traffic toggle eth1 {count} {seconds}"));
            let done: u32 = vm.shell(&toggle)?.trim().parse()?;
            assert_ne!(done, 0, "down and up under traffic");
            for mtu in [68, 9000, 1500] {
                vm.shell(&within("n2", &format!("ip link set eth1 mtu {mtu}")))?;
            }
            wait_up(&mut vm, "n1")?;
            run(&mut vm, "tcp 10.9.0.2 100000 1")?;
        }
        vm.tell(Action::UnloadModule { name: DRIVER.to_owned() })?;
        assert!(vm.inspect()?.gpadls.is_empty(), "left behind in round {round}");
        vm.shell("killall traffic; kill $(cat /tmp/n1.pid /tmp/n2.pid)")?;
        load_driver(&mut vm)?;
        connect(&mut vm)?;
        run(&mut vm, "tcp 10.9.0.2 100000 1")?;
    }
    assert!(vm.power_off()?.success());
    Ok(())
}
