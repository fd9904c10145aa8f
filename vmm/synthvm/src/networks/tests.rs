use super::*;
use crate::config::{Flag, NetworkConfig, VmConfig};
use synthvm_net::Frame;
use synthvm_net::conformance::{Memory, frame, receive};

fn cards(options: &[&str]) -> Vec<NetworkConfig> {
    let flag = |text: &&str| Flag { key: "net", text: (*text).to_owned() };
    let flags: Vec<_> = options.iter().map(flag).collect();
    VmConfig::from_toml("kernel = \"k\"", &flags).unwrap().networks
}

#[test]
fn test_networks_opened_and_dropped_leave_nothing_behind() {
    let folder = std::env::temp_dir().join(format!("synthvm-net-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let (socket, capture) = (folder.join("socket"), folder.join("capture"));
    let option = format!("socket,listen={},pcap={}", socket.display(), capture.display());
    let networks = OpenNetworks::open(&cards(&[&option])).unwrap();
    assert!(socket.exists() && capture.exists());
    drop(networks);
    assert!(!socket.exists() && !capture.exists());
    std::fs::write(&capture, "precious").unwrap();
    let OpenError { error, .. } = OpenNetworks::open(&cards(&[&option])).unwrap_err();
    assert!(matches!(error, NetworkError::CaptureExists(_)), "{error}");
    assert!(!socket.exists(), "the other parts are given back");
    assert_eq!(std::fs::read_to_string(&capture).unwrap(), "precious");
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn test_networks_on_one_switch_reach_each_other_and_no_other_switch() {
    let options = ["switch,name=a", "switch,name=b", "switch,name=a"];
    let networks = OpenNetworks::open(&cards(&options)).unwrap();
    let mut queues: Vec<_> =
        networks.cards.iter().map(|card| card.backend.queue(0).unwrap()).collect();
    let bytes = frame(100, 1);
    queues[0].send(&Frame::new(&Memory::whole(&bytes).pieces())).unwrap();
    assert_eq!(receive(&mut *queues[1], 100), Ok(None));
    assert_eq!(receive(&mut *queues[2], 100), Ok(Some(bytes)));
}

#[test]
fn test_networks_that_cannot_be_used_name_the_remedy() {
    let cases: &[(&str, &[&str], bool)] = &[
        ("tap,name=synthvm-none", &["ip tuntap add dev synthvm-none"], false),
        ("tap,fd=999", &["descriptor 999 is not open"], false),
        ("user,passt=/nonexistent/passt", &["/nonexistent/passt", "install passt"], true),
        ("socket,connect=/nonexistent/s", &["cannot connect", "listen= first"], false),
        ("socket,listen=/nonexistent/s", &["cannot listen"], false),
        ("null,pcap=/nonexistent/p", &["pcap=/nonexistent/p: cannot create"], false),
    ];
    for (option, parts, of_host) in cases {
        let OpenError { card, error } = OpenNetworks::open(&cards(&[option])).unwrap_err();
        let text = error.to_string();
        for part in *parts {
            assert!(text.contains(part), "{option}: `{part}` is not in: {text}");
        }
        assert_eq!(error.is_of_host(), *of_host, "{option}");
        assert!(option.starts_with(&card), "{card}");
    }
}
