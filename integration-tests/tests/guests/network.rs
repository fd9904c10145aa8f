//! Tests of the network card with the guest's own driver: two cards of one machine on one switch,
//! each in a network namespace of its own.

use guest_images::StockKernel;
use guest_report::agent::Action;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmOptions};

use crate::common::{self, boot, image};

const NAME: &str = "test_network_cards_on_a_switch_carry_ping_and_tcp_and_survive_reloads";

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, NAME, network);
}

/// Gives an interface a network namespace, in which only its wire reaches the other one. The
/// process in /tmp/NAME.pid keeps it.
pub(crate) fn isolate(interface: &str, name: &str, address: &str) -> String {
    format!(
        "busybox unshare -n sleep 100000 > /dev/null 2>&1 & pid=$!; echo $pid > /tmp/{name}.pid; \
         until [ $(readlink /proc/$pid/ns/net) != $(readlink /proc/self/ns/net) ]; do :; done; \
         ip link set {interface} netns $pid && \
         busybox nsenter -t $pid -n ip addr add {address}/24 dev {interface} && \
         busybox nsenter -t $pid -n ip link set {interface} up"
    )
}

/// Returns `command` for the namespace of [`isolate`].
pub(crate) fn within(name: &str, command: &str) -> String {
    format!("busybox nsenter -t $(cat /tmp/{name}.pid) -n {command}")
}

/// Makes 64 connections, which are refused, and checks that each of the four channels of either
/// card has interrupted the guest: the flows leave one channel out with a chance of 1 in 10^7.
fn assert_spread(vm: &mut Vm) -> TestResult {
    let connect = within("n1", "busybox nc 10.9.0.2 19");
    vm.shell(&format!("for i in $(seq 64); do {connect} < /dev/null 2> /dev/null; done; true"))?;
    let channels = vm.inspect()?.channels;
    let cards: Vec<_> =
        channels.iter().filter(|one| one.instance.to_lowercase().contains("-6e65-7400-")).collect();
    assert_eq!(cards.len(), 8, "{channels:?}");
    assert!(cards.iter().all(|one| one.state == "open" && one.signals_sent > 0), "{cards:?}");
    Ok(())
}

fn network(kernel: StockKernel) -> TestResult {
    let image = image(kernel)?;
    let mut vm = boot(&VmOptions::new(&image).cpus(4).argument("--test-device", "network"))?;
    for round in 0..3 {
        let name = "hv_netvsc".to_owned();
        vm.tell(Action::LoadModule { name: name.clone(), parameters: String::new() })?;
        for (interface, number) in [("eth0", 1), ("eth1", 2)] {
            let address = vm.shell(&format!("cat /sys/class/net/{interface}/address"))?;
            assert!(address.contains(&format!("00:15:5d:00:00:0{number}")), "{address}");
            // The driver opens its subchannels after it has shown the interface.
            vm.shell(&format!(
                "cd /sys/class/net/{interface}/queues; until [ -e rx-3 -a -e tx-3 ]; do sleep 0.1; done"
            ))?;
            vm.shell(&isolate(interface, &format!("n{number}"), &format!("10.9.0.{number}")))?;
        }
        for size in [0, 56, 1472, 8000] {
            let ping = within("n1", &format!("busybox ping -c 3 -s {size} 10.9.0.2"));
            let ping = vm.shell(&ping)?;
            assert!(ping.contains(" 0% packet loss"), "{size} bytes in round {round}: {ping}");
        }
        if round == 0 {
            let listen = within("n2", "busybox nc -l -p 9");
            let send = within("n1", "busybox nc 10.9.0.2 9");
            // The listener's input stays open: at its end, nc would close the connection.
            let size = vm.shell(&format!(
                "dd if=/dev/urandom of=/tmp/sent bs=64k count=32 2> /dev/null; \
                 (tail -f /dev/null | {listen} > /tmp/got) & \
                 until {send} < /tmp/sent 2> /dev/null; do :; done; \
                 killall tail; cmp /tmp/sent /tmp/got && wc -c < /tmp/got"
            ))?;
            assert_eq!(size.trim(), "2097152");
        }
        assert_spread(&mut vm)?;
        vm.shell("kill $(cat /tmp/n1.pid /tmp/n2.pid)")?;
        vm.tell(Action::UnloadModule { name })?;
        let inspect = vm.inspect()?;
        assert!(inspect.gpadls.is_empty(), "left behind: {:?}", inspect.gpadls);
    }
    assert!(vm.power_off()?.success());
    Ok(())
}
