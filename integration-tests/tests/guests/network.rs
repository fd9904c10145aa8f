//! A test of the network card with the guest's own driver: two cards of one machine on one switch,
//! each in a network namespace of its own.

use guest_images::StockKernel;
use guest_report::agent::Action;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmError, VmOptions};

use crate::common::{self, boot, image};

const NAME: &str = "test_network_cards_on_a_switch_carry_ping_and_tcp_and_survive_reloads";

/// The guest's driver.
pub(crate) const DRIVER: &str = "hv_netvsc";

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    common::add(tests, kernel, NAME, network);
}

pub(crate) fn load_driver(vm: &mut Vm) -> Result<(), VmError> {
    vm.tell(Action::LoadModule { name: DRIVER.to_owned(), parameters: String::new() })
}

/// Waits for the queues of an interface: the driver opens its subchannels after it has shown the
/// interface.
pub(crate) fn wait_queues(vm: &mut Vm, interface: &str, count: u32) -> Result<(), VmError> {
    let last = count - 1;
    vm.shell(&format!(
        "cd /sys/class/net/{interface}/queues; \
         until [ -e rx-{last} -a -e tx-{last} ]; do sleep 0.1; done"
    ))
    .map(|_| ())
}

/// Gives an interface a network namespace, in which only its wire reaches the other one. The
/// process in /tmp/NAME.pid keeps it.
pub(crate) fn isolate(interface: &str, name: &str, address: &str) -> String {
    // The process writes its own id, in its own namespace: there is nothing to wait for but a file.
    format!(
        "rm -f /tmp/{name}.pid; mkfifo /tmp/{name}.fifo; \
         busybox unshare -n sh -c 'echo $$ > /tmp/{name}.fifo; exec sleep 100000' \
         > /dev/null 2>&1 & \
         cat /tmp/{name}.fifo > /tmp/{name}.pid; rm /tmp/{name}.fifo; \
         pid=$(cat /tmp/{name}.pid); \
         ip link set {interface} netns $pid && \
         busybox nsenter -t $pid -n ip addr add {address}/24 dev {interface} && \
         busybox nsenter -t $pid -n ip link set {interface} up"
    )
}

/// Returns `command` for the namespace of [`isolate`].
pub(crate) fn within(name: &str, command: &str) -> String {
    format!("busybox nsenter -t $(cat /tmp/{name}.pid) -n {command}")
}

/// Starts the server of the program `traffic` in a namespace, and waits until it listens.
pub(crate) fn serve(vm: &mut Vm, name: &str) -> Result<(), VmError> {
    let serve = within(name, "traffic serve");
    vm.shell(&format!(
        "rm -f /tmp/serve; {serve} > /tmp/serve 2>&1 & until [ -s /tmp/serve ]; do sleep 0.1; done"
    ))
    .map(|_| ())
}

fn network(kernel: StockKernel) -> TestResult {
    let image = image(kernel)?;
    let net = "switch,name=lan,queues=4";
    let mut vm =
        boot(&VmOptions::new(&image).cpus(4).argument("--net", net).argument("--net", net))?;
    for _ in 0..2 {
        load_driver(&mut vm)?;
        for (interface, number) in [("eth0", 1), ("eth1", 2)] {
            wait_queues(&mut vm, interface, 4)?;
            vm.shell(&isolate(interface, &format!("n{number}"), &format!("10.9.0.{number}")))?;
        }
        for size in [56, 8000] {
            vm.shell(&within("n1", &format!("busybox ping -c 1 -s {size} 10.9.0.2")))?;
        }
        serve(&mut vm, "n2")?;
        vm.shell(&within("n1", "traffic tcp 10.9.0.2 1000000 1"))?;
        vm.shell("killall traffic; kill $(cat /tmp/n1.pid /tmp/n2.pid)")?;
        vm.tell(Action::UnloadModule { name: DRIVER.to_owned() })?;
        let inspect = vm.inspect()?;
        assert!(inspect.gpadls.is_empty(), "left behind: {:?}", inspect.gpadls);
    }
    assert!(vm.power_off()?.success());
    Ok(())
}
