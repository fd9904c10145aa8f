//! Tests of `--net` with the guest's own driver.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use guest_images::cache::Cache;
use guest_images::{StockKernel, passt};
use guest_report::agent::Action;
use integration_tests::image::WorkDir;
use integration_tests::inspect::Network;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};

use crate::common::{self, boot, image};
use crate::network::{isolate, within};

const SWITCH: &str = "test_network_cards_by_option_reach_each_other_and_report_their_frames";
const TAP: &str = "test_network_card_on_a_tap_interface_reaches_the_host_and_leaves_the_interface";
const USER: &str = "test_network_cards_for_users_get_an_address_and_a_forwarded_port";

/// Timeout of a connection to the guest.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, SWITCH, switch);
    common::add(tests, kernel, TAP, tap);
    common::add(tests, kernel, USER, user);
}

fn load_driver(vm: &mut Vm) -> Result<(), VmError> {
    vm.tell(Action::LoadModule { name: "hv_netvsc".to_owned(), parameters: String::new() })
}

fn card(vm: &Vm, id: &str) -> Result<Network, VmError> {
    let networks = vm.inspect()?.networks;
    Ok(networks.into_iter().find(|card| card.id == id).expect("a card of this id"))
}

fn switch(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let capture = dir.path().join("lan.pcapng");
    let image = image(kernel)?;
    let second = format!("switch,name=lan,id=lan,mac=02:00:00:00:00:02,pcap={}", capture.display());
    let options = VmOptions::new(&image)
        .argument("--net", "switch,name=lan")
        .argument("--net", &second)
        .argument("--net", "switch,name=another");
    let mut vm = boot(&options)?;
    load_driver(&mut vm)?;
    let first = card(&vm, "net0")?;
    for (interface, address) in [("eth0", first.mac.as_str()), ("eth1", "02:00:00:00:00:02")] {
        let shown = vm.shell(&format!("cat /sys/class/net/{interface}/address"))?;
        assert_eq!(shown.trim(), address, "{interface}");
    }
    for number in 0..3 {
        let (interface, name) = (format!("eth{number}"), format!("n{number}"));
        vm.shell(&isolate(&interface, &name, &format!("10.9.0.{}", number + 1)))?;
    }
    let ping = |to: u8| within("n0", &format!("busybox ping -c 3 -W 2 10.9.0.{to} || true"));
    let answer = vm.shell(&ping(2))?;
    assert!(answer.contains(" 0% packet loss"), "{answer}");
    let answer = vm.shell(&ping(3))?;
    assert!(answer.contains("100% packet loss"), "on another switch: {answer}");

    let (first, second) = (card(&vm, "net0")?, card(&vm, "lan")?);
    assert_eq!((first.link.as_str(), first.queues[0].drops.send_link_down), ("up", 0));
    assert!(first.queues[0].sent_packets >= 4 && second.queues[0].received_packets >= 4);
    assert_ne!(second.queues[0].signals_sent, 0);
    vm.set_link("lan", "down")?;
    assert_eq!(card(&vm, "lan")?.link, "down");
    let answer = vm.shell(&ping(2))?;
    assert!(answer.contains("100% packet loss"), "without a link: {answer}");
    vm.set_link("lan", "up")?;
    let answer =
        vm.shell(&within("n0", "sh -c 'until busybox ping -c 1 -W 2 10.9.0.2; do :; done'"))?;
    assert!(answer.contains(" 0% packet loss"), "{answer}");
    let metrics = vm.metrics()?;
    for series in [
        "synthvm_net_packets_total{card=\"lan\",queue=\"0\",direction=\"rx\"} ",
        "synthvm_net_link_up{card=\"lan\"} 1",
        "synthvm_vmbus_connected 1",
    ] {
        assert!(metrics.contains(series), "{series} is not in:\n{metrics}");
    }
    assert!(vm.power_off()?.success());
    // A section header block, and more than it.
    let capture = fs::read(&capture)?;
    assert!(capture.starts_with(&[0x0A, 0x0D, 0x0D, 0x0A]) && capture.len() > 500);
    Ok(())
}

/// The interface is made and removed by this test, which runs as root in the test host.
fn tap(kernel: StockKernel) -> TestResult {
    let interface = Interface::new("synthvm-tap0")?;
    let image = image(kernel)?;
    let net = format!("tap,name={}", interface.0);
    let mut vm = boot(&VmOptions::new(&image).argument("--net", &net))?;
    load_driver(&mut vm)?;
    vm.shell("ip addr add 10.9.1.2/24 dev eth0 && ip link set eth0 up")?;
    for size in [56, 1472, 8000] {
        let answer = vm.shell(&format!("busybox ping -c 3 -s {size} 10.9.1.1"))?;
        assert!(answer.contains(" 0% packet loss"), "{size} bytes: {answer}");
    }
    assert!(vm.power_off()?.success());
    assert!(Path::new("/sys/class/net").join(interface.0).exists(), "it is left as it was");
    Ok(())
}

/// A TAP interface of the host, removed on drop.
struct Interface(&'static str);

impl Interface {
    fn new(name: &'static str) -> std::io::Result<Self> {
        ip(&["tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr"])?;
        let interface = Interface(name);
        ip(&["addr", "add", "10.9.1.1/24", "dev", name])?;
        ip(&["link", "set", name, "up"])?;
        Ok(interface)
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", self.0]);
    }
}

fn ip(words: &[&str]) -> std::io::Result<()> {
    let output = Command::new("ip").args(words).output()?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(std::io::Error::other(format!("ip {}: {text}", words.join(" "))))
}

fn user(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let image = image(kernel)?;
    let port = free_port()?;
    let net = format!("user,passt={},forward=tcp:{port}:7", wrapper(dir.path())?.display());
    let mut vm = boot(&VmOptions::new(&image).argument("--net", &net))?;
    load_driver(&mut vm)?;
    // What udhcpc does not do itself: its script sets the address and the route.
    vm.shell(
        "printf '#!/bin/sh\\n[ \"$1\" = bound ] || exit 0\\n\
         ip addr add $ip/$mask dev $interface\\nip route add default via $router\\n' > /tmp/dhcp && \
         chmod 755 /tmp/dhcp && ip link set eth0 up && \
         busybox udhcpc -i eth0 -n -q -t 20 -s /tmp/dhcp",
    )?;
    let address = vm.shell("ip -4 addr show dev eth0")?;
    assert!(address.contains("inet 10.0.2.15/24"), "{address}");
    vm.shell("(echo from the guest | busybox nc -l -p 7) > /dev/null 2>&1 &")?;
    let mut answer = String::new();
    let end = Instant::now() + LIMIT;
    // passt accepts a connection before the guest does, and ends it if the guest refuses.
    while answer.is_empty() && Instant::now() < end {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        // An error means that the guest does not listen yet.
        let _ = stream.read_to_string(&mut answer);
    }
    assert_eq!(answer, "from the guest\n");
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Returns a port of the host that no program uses.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Writes a program that starts passt for a host that has no network but its loopback interface.
fn wrapper(folder: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let (path, passt) = (folder.join("passt"), passt::program(&Cache::project())?);
    let network = "-i lo -a 10.0.2.15 -n 24 -g 10.0.2.2 -M 9a:55:9a:55:9a:55";
    fs::write(&path, format!("#!/bin/sh\nexec {} {network} \"$@\"\n", passt.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
