//! Tests of `--net` with the guest's own driver, by the commands of docs/networking.md.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use guest_images::cache::{Cache, workspace_dir};
use guest_images::{StockKernel, passt};
use integration_tests::host;
use integration_tests::image::WorkDir;
use integration_tests::inspect::Network;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};

use crate::common::{self, boot, image};
use crate::network::{isolate, load_driver, within};

const SWITCH: &str = "test_network_cards_by_option_reach_each_other_and_report_their_frames";
const TAP: &str = "test_network_card_on_a_tap_interface_reaches_the_host_and_follows_the_interface";
const CABLE: &str = "test_network_cards_of_two_machines_on_a_socket_carry_frames";
const USER: &str = "test_network_cards_for_users_get_an_address_and_a_forwarded_port";

/// Timeout of a connection to the guest.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, SWITCH, switch);
    common::add(tests, kernel, TAP, tap);
    common::add(tests, kernel, CABLE, cable);
    common::add(tests, kernel, USER, user);
}

/// Returns the commands of a section of docs/networking.md, in their order.
fn commands(section: &str) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let page = fs::read_to_string(workspace_dir().join("docs/networking.md"))?;
    let (_, rest) =
        page.split_once(&format!("\n### {section}\n")).ok_or("the page lacks a section")?;
    let section = rest.split("\n#").next().unwrap_or_default();
    let lines = section.lines().filter_map(|line| line.strip_prefix("    "));
    Ok(lines.map(str::to_owned).collect())
}

/// Returns the values of `--net` of a command.
fn nets(command: &str) -> Vec<String> {
    let mut words = command.split_whitespace();
    let mut nets = Vec::new();
    while words.any(|word| word == "--net") {
        nets.extend(words.next().map(str::to_owned));
    }
    nets
}

fn card(vm: &Vm, id: &str) -> Result<Network, VmError> {
    let networks = vm.inspect()?.networks;
    Ok(networks.into_iter().find(|card| card.id == id).expect("a card of this id"))
}

/// Returns the guest's name of the interface with this address.
fn interface_of(vm: &mut Vm, mac: &str) -> Result<String, VmError> {
    let script = format!("cd /sys/class/net && grep -l {mac} */address | cut -d/ -f1");
    Ok(vm.shell(&script)?.trim().to_owned())
}

fn switch(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let capture = dir.path().join("lan.pcapng");
    let image = image(kernel)?;
    let nets = nets(&commands("An isolated network")?[0]);
    let [first, second] = &nets[..] else { return Err("the page has two cards".into()) };
    let second = format!("{second},id=lan,mac=02:00:00:00:00:02,pcap={}", capture.display());
    let options = VmOptions::new(&image)
        .argument("--net", first)
        .argument("--net", &second)
        .argument("--net", "switch,name=another");
    let mut vm = boot(&options)?;
    load_driver(&mut vm)?;
    let first = card(&vm, "net0")?;
    let another = card(&vm, "net2")?;
    // The guest names its interfaces in the order in which it finds them.
    for (number, mac) in [&first.mac, "02:00:00:00:00:02", &another.mac].into_iter().enumerate() {
        let interface = interface_of(&mut vm, mac)?;
        vm.shell(&isolate(&interface, &format!("n{number}"), &format!("10.9.0.{}", number + 1)))?;
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

/// The host's network is an interface of this test, whose far end is the host itself.
fn tap(kernel: StockKernel) -> TestResult {
    if !host::is_emulated() {
        println!("left out: it changes the network of its host");
        return Ok(());
    }
    let mut commands = commands("On the host's network, by a bridge")?;
    let run = commands.pop().ok_or("the page has commands")?;
    // The test with the other kernel may have used the same host.
    host_shell("for link in wire br0 tap0; do ip link del $link 2> /dev/null; done; true")?;
    host_shell(
        "ip link add eth0 type veth peer name wire && ip link set eth0 up && \
         ip addr add 10.9.1.1/24 dev wire && ip link set wire up",
    )?;
    commands.iter().try_for_each(|command| host_shell(command))?;
    let server = TcpListener::bind("10.9.1.1:7")?;
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let copy = stream.try_clone();
            let _ = copy.and_then(|mut from| std::io::copy(&mut from, &mut stream));
        }
    });
    let image = image(kernel)?;
    let options = nets(&run).iter().fold(VmOptions::new(&image), |o, net| o.argument("--net", net));
    let mut vm = boot(&options)?;
    load_driver(&mut vm)?;
    vm.shell("ip addr add 10.9.1.2/24 dev eth0 && ip link set eth0 up")?;
    for size in [56, 1472, 8000] {
        vm.shell(&format!("busybox ping -c 1 -s {size} 10.9.1.1"))?;
    }
    vm.shell("traffic tcp 10.9.1.1 3000000 1")?;

    host_shell("ip link del tap0")?;
    vm.shell("until [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 0.1; done")?;
    let again = |command: &&String| command.contains("tap0");
    commands.iter().filter(again).try_for_each(|command| host_shell(command))?;
    vm.shell("until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 0.1; done")?;
    vm.shell("traffic tcp 10.9.1.1 100000 1")?;
    assert!(vm.power_off()?.success());
    assert!(Path::new("/sys/class/net/tap0").exists(), "it is left as it was");
    Ok(())
}

/// Runs a command of the page in the host's shell.
fn host_shell(command: &str) -> TestResult {
    let output = Command::new("sh").args(["-c", command]).env("USER", "root").output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// Two machines, one after the other as on the page.
fn cable(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let image = image(kernel)?;
    let socket = dir.path().join("cable.sock").display().to_string();
    let mut vms = Vec::new();
    for (number, command) in (1..).zip(&commands("An isolated network")?[1..]) {
        let options = nets(command).iter().fold(VmOptions::new(&image), |options, net| {
            options.argument("--net", &net.replace("cable.sock", &socket))
        });
        let mut vm = boot(&options)?;
        load_driver(&mut vm)?;
        let address = format!("10.9.0.{number}/24");
        vm.shell(&format!("ip addr add {address} dev eth0 && ip link set eth0 up"))?;
        vms.push(vm);
    }
    let [first, second] = &mut vms[..] else { return Err("the page has two machines".into()) };
    first.shell("traffic serve > /tmp/serve 2>&1 & until [ -s /tmp/serve ]; do sleep 0.1; done")?;
    // The first machine's link comes up some seconds after the second machine has connected.
    second.shell("until busybox ping -c 1 -W 1 10.9.0.1 > /dev/null; do sleep 0.1; done")?;
    second.shell("traffic udp 10.9.0.1 0 1474 29 && traffic tcp 10.9.0.1 2000000 1")?;
    for vm in vms {
        assert!(vm.power_off()?.success());
    }
    Ok(())
}

/// passt needs a user namespace, which some machines refuse.
fn user(kernel: StockKernel) -> TestResult {
    if !Command::new("unshare").args(["--user", "true"]).status()?.success() {
        assert!(!host::is_emulated(), "the emulated test host allows user namespaces");
        println!("left out: this host refuses user namespaces, which passt needs");
        return Ok(());
    }
    let dir = WorkDir::new()?;
    let image = image(kernel)?;
    let port = free_port()?;
    let nets = nets(&commands("Without privilege")?[0]);
    let net = nets[0].replace(":2222:", &format!(":{port}:"));
    let net = format!("{net},passt={}", wrapper(dir.path())?.display());
    let mut vm = boot(&VmOptions::new(&image).argument("--net", &net))?;
    load_driver(&mut vm)?;
    // What udhcpc does not do itself: its script sets the address and the route.
    vm.shell(
        "printf '#!/bin/sh\\n[ \"$1\" = bound ] || exit 0\\n\
         ip addr add $ip/$mask dev $interface\\nip route add default via $router\\n\
         echo nameserver $dns > /etc/resolv.conf\\n' > /tmp/dhcp && \
         chmod 755 /tmp/dhcp && ip link set eth0 up && \
         busybox udhcpc -i eth0 -n -q -t 20 -s /tmp/dhcp",
    )?;
    let address = vm.shell("ip -4 addr show dev eth0")?;
    assert!(address.contains("inet 10.0.2.15/24"), "{address}");
    if host::is_emulated() {
        // It takes the host's port 53.
        names(&mut vm)?;
    }
    forwarded(&mut vm, port)?;
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Checks that a port of the host leads to port 22 of the guest.
fn forwarded(vm: &mut Vm, port: u16) -> TestResult {
    vm.shell("(echo from the guest | busybox nc -l -p 22) > /dev/null 2>&1 &")?;
    let mut answer = String::new();
    let end = Instant::now() + LIMIT;
    // passt accepts a connection before the guest does, and ends it if the guest refuses.
    while answer.is_empty() && Instant::now() < end {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(LIMIT))?;
        // passt of 2023-03-09 (Debian 12) answers a guest's SYN-ACK by the first data only: a
        // client that waits for the server's greeting would wait for ever.
        stream.write_all(b"to the guest\n")?;
        // An error means that the guest does not listen yet.
        let _ = stream.read_to_string(&mut answer);
    }
    assert_eq!(answer, "from the guest\n");
    Ok(())
}

/// Checks that the guest's queries reach the host's name server, which this function is.
fn names(vm: &mut Vm) -> TestResult {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53))?;
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = server.recv_from(&mut query) {
            // The query with the flags of an answer (RFC 1035, 4.1.1), one record for its name by
            // a pointer (4.1.4), and the type and class that were asked for, if it is A in IN.
            let mut answer = query[..length].to_vec();
            answer[2..4].copy_from_slice(&[0x81, 0x80]);
            if answer.ends_with(&[0, 0, 1, 0, 1]) {
                answer[7] = 1;
                answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
            }
            let _ = server.send_to(&answer, from);
        }
    });
    let answer = vm.shell("busybox nslookup guest.test || true")?;
    assert!(answer.contains("192.0.2.7"), "{answer}");
    Ok(())
}

/// Returns a port of the host that no program uses.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Writes a program that starts passt for a host that has no network but its loopback interface.
fn wrapper(folder: &Path) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let (path, passt) = (folder.join("passt"), passt::program(&Cache::project())?);
    let network = "-i lo -a 10.0.2.15 -n 24 -g 10.0.2.2 -D 10.0.2.2 -M 9a:55:9a:55:9a:55";
    fs::write(&path, format!("#!/bin/sh\nexec {} {network} \"$@\"\n", passt.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}
