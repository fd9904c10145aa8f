//! Tests of network cards up to the start of the machine.

use std::os::unix::net::UnixListener;

use crate::support::Scratch;

/// Returns a directory with a kernel.
fn with_kernel() -> Scratch {
    let scratch = Scratch::new();
    scratch.kernel("k");
    scratch
}

#[test]
fn test_network_that_cannot_be_used_is_refused_with_its_remedy() {
    let scratch = with_kernel();
    scratch.write("file", "precious");
    let _live = UnixListener::bind(scratch.path().join("live")).unwrap();
    let cases: &[(&str, i32, &[&str])] = &[
        ("tap,name=synthvm-no", 4, &["there is no interface", "ip tuntap add dev synthvm-no"]),
        ("tap,fd=99", 4, &["descriptor 99 is not open"]),
        ("user,passt=./none", 3, &["none`; install passt", "passt=PATH"]),
        ("socket,connect=none", 4, &["cannot connect: No such file", "listen= first"]),
        ("socket,listen=live", 4, &["cannot listen: Address already in use", "another path"]),
        ("socket,listen=no/s", 4, &["cannot listen: No such file"]),
        ("null,pcap=file", 4, &["pcap=file: the file exists and is left alone"]),
        ("null,pcap=no/file", 4, &["pcap=no/file: cannot create: No such file"]),
        ("switch", 2, &["`switch` needs name=NAME"]),
        ("socket,listen=s,pcap=s,mtu=1", 2, &["an MTU is 68 to 65521"]),
    ];
    for (card, status, parts) in cases {
        let option = format!("--net {}", card.split(',').next().unwrap());
        let words = ["run", "--kernel", "k", "--kvm", "none", "--net", card];
        scratch.refuses(&words, *status, &[&[option.as_str()], *parts].concat());
    }
    assert_eq!(std::fs::read_to_string(scratch.path().join("file")).unwrap(), "precious");
}

#[test]
fn test_network_opened_for_a_machine_that_does_not_start_leaves_nothing_behind() {
    let scratch = with_kernel();
    let cards = ["socket,listen=s", "switch,name=lan,pcap=a.pcapng", "switch,name=lan", "null"];
    let mut words = vec!["run", "--kernel", "k", "--kvm", "none"];
    words.extend(cards.iter().flat_map(|card| ["--net", card]));
    scratch.refuses(&words, 3, &["--kvm none"]);
}

#[test]
fn test_network_printed_has_its_id_and_address_and_fed_back_prints_the_same() {
    let scratch = with_kernel();
    let cards = ["user,forward=tcp:2222:22,pcap=a.pcapng", "switch,name=lan,id=lan"];
    let words = ["run", "--kernel", "k", "--print-config", "--net", cards[0], "--net", cards[1]];
    let printed = scratch.accepts(&words);
    let pcap = format!("pcap = \"{}\"", scratch.path().join("a.pcapng").display());
    let parts = ["[[net]]", "id = \"net0\"", "id = \"lan\"", "mac = \"", "link = \"up\"", &pcap];
    for part in parts {
        assert!(printed.contains(part), "{part} is not in:\n{printed}");
    }
    scratch.write("vm.toml", &printed);
    assert_eq!(scratch.accepts(&["run", "vm.toml", "--print-config"]), printed);
    scratch.write("vm.toml", "kernel = \"k\"\n\n[[net]]\nbackend = \"user\"\nfd = 3\n");
    scratch.refuses(&["run", "vm.toml"], 2, &["vm.toml:3: net", "`fd` is for `tap`"]);
}
