use super::*;
use crate::config::{Flag, VmConfig};

fn load(toml: &str, cards: &[&str]) -> Result<VmConfig, String> {
    let flag = |text: &&str| Flag { key: "net", text: (*text).to_owned() };
    let mut flags: Vec<_> = cards.iter().map(flag).collect();
    let kernel = Flag { key: "kernel", text: "/k".to_owned() };
    flags.push(kernel);
    VmConfig::from_toml(toml, &flags).map_err(|error| error.to_string())
}

fn with(cards: &[&str]) -> Result<Vec<NetworkConfig>, String> {
    load("", cards).map(|config| config.networks)
}

#[test]
fn test_cards_of_a_file_and_of_flags_are_the_same_and_read_back() {
    let file = r#"
        [[net]]
        backend = "tap"
        name = "tap0"
        queues = 4
        mac = "02:00:00:12:34:56"
        mtu = 9000
        link = "down"
        moderation = false
        pcap = "/a.pcapng"
        id = "lan"
        [[net]]
        backend = "tap"
        fd = "3:4"
        [[net]]
        backend = "tap"
        fd = 5
        [[net]]
        backend = "user"
        forward = ["tcp:2222:22", "udp:127.0.0.1:53:53"]
        passt = "/usr/bin/passt"
        [[net]]
        backend = "user"
        forward = "tcp:80:80"
        [[net]]
        backend = "switch"
        name = "a"
        queues = 4
        [[net]]
        backend = "socket"
        listen = "/s"
        [[net]]
        backend = "socket"
        connect = "/c"
        [[net]]
        backend = "null"
    "#;
    let flags = [
        "tap,name=tap0,queues=4,mac=02:00:00:12:34:56,mtu=9000,link=down,moderation=off,\
         pcap=/a.pcapng,id=lan",
        "tap,fd=3:4",
        "tap,fd=5",
        "user,forward=tcp:2222:22,forward=udp:127.0.0.1:53:53,passt=/usr/bin/passt",
        "user,forward=tcp:80:80",
        "switch,name=a,queues=4",
        "socket,listen=/s",
        "socket,connect=/c",
        "null",
    ];
    let config = load(file, &[]).unwrap();
    assert_eq!(config.networks, with(&flags).unwrap());
    let printed = VmConfig::from_toml(&config.to_toml().unwrap(), &[]).unwrap();
    assert_eq!(printed, config);
    let json = serde_json::to_string(&config.networks).unwrap();
    assert_eq!(serde_json::from_str::<Vec<NetworkConfig>>(&json).unwrap(), config.networks);
    let queues: Vec<_> = config.networks.iter().map(|card| card.queues).collect();
    assert_eq!(queues, [4, 2, 1, 1, 1, 4, 1, 1, 1]);
    let card = &with(&["null"]).unwrap()[0];
    assert_eq!((card.link, card.moderation), (LinkState::Up, true));
    assert!(!config.networks[0].moderation);
}

#[test]
fn test_card_wrong_is_refused_with_one_line_that_says_what_to_do() {
    let cases: &[(&str, &[&str])] = &[
        ("", &["is empty", "backend=VALUE"]),
        ("name=tap0", &["needs a backend: tap, user, switch, socket or null"]),
        ("tab", &["unknown value `tab`", "did you mean `tap`?", "known: tap, user, switch"]),
        ("tap,nmae=x", &["unknown key `nmae`", "did you mean `name`?"]),
        ("tap", &["`tap` needs name=INTERFACE or fd=N"]),
        ("tap,name=t,fd=3", &["only one of name= and fd="]),
        ("tap,fd=3,queues=2", &["`queues` follows from the number of descriptors"]),
        ("tap,name=", &["cannot be an interface's name", "1 to 15 bytes"]),
        ("tap,name=a-name-of-16-byt", &["1 to 15 bytes"]),
        ("tap,name=t,queues=0", &["1 to 64, not 0"]),
        ("tap,name=t,queues=65", &["1 to 64, not 65"]),
        ("tap,name=t,queues=two", &["a whole number"]),
        ("tap,fd=2", &["`2` is no list", "from 3 up"]),
        ("tap,fd=3:3", &["`3:3` is no list", "different"]),
        ("tap,fd=x", &["`x` is no list"]),
        ("tap,name=t,name=u", &["`name` is given twice"]),
        ("tap,name=t,forward=tcp:1:1", &["`forward` is for `user` and not for `tap`", "leave it"]),
        ("user,queues=0", &["1 to 64, not 0"]),
        ("user,name=x", &["`name` is for `tap` and `switch` and not for `user`"]),
        ("user,forward=22", &["`22` is no port forward", "tcp:2222:22"]),
        ("user,forward", &["key without a value"]),
        ("user,forward=tcp:1:1,forward=tcp:1:2", &["`forward=tcp:1:2`", "forwarded already"]),
        ("switch", &["`switch` needs name=NAME"]),
        ("switch,name=", &["`switch` needs name=NAME"]),
        ("socket", &["listen=PATH in one machine and connect=PATH in the other"]),
        ("socket,listen=a,connect=b", &["only one of listen= and connect="]),
        ("socket,listen=", &["the path is empty"]),
        ("null,mac=1", &["`1` is no Ethernet address", "02:00:00:12:34:56"]),
        ("null,mac=01:00:00:00:00:00", &["the address of one card", "first byte is even"]),
        ("null,mac=00:00:00:00:00:00", &["the address of one card"]),
        ("null,mtu=67", &["an MTU is 68 to 65521, not 67"]),
        ("null,mtu=65522", &["an MTU is 68 to 65521"]),
        ("null,link=off", &["unknown value `off`", "known: up, down"]),
        ("null,moderation=2ms", &["`on` or `off`"]),
        ("null,id=", &["an id has 1 to 64 printable"]),
    ];
    for (text, parts) in cases {
        let error = with(&[text]).expect_err(text);
        assert!(error.starts_with(&format!("--net {text}").trim_end().to_owned()), "{error}");
        assert!(!error.contains('\n'), "{error}");
        for part in *parts {
            assert!(error.contains(part), "{text}: `{part}` is not in: {error}");
        }
    }
}

#[test]
fn test_cards_that_share_what_one_can_have_are_refused() {
    let cases: &[(&[&str], &str)] = &[
        (&["null,id=a", "null,id=a"], "`id=a` is used by another card"),
        (&["null,id=net1", "null"], "`id=net1` is used by another card"),
        (&["null,mac=02:00:00:00:00:01", "user,mac=02:00:00:00:00:01"], "`mac=02:00:00:00:00:01`"),
        (&["tap,name=t", "tap,name=t,queues=2"], "`tap,name=t` is used by another card"),
        (&["tap,fd=3", "tap,fd=4:3"], "`fd=3` is used by another card"),
        (&["socket,listen=/s", "socket,connect=/s"], "use `switch`"),
        (&["null,pcap=/p", "user,pcap=/p"], "`pcap=/p` is used by another card"),
    ];
    for (cards, part) in cases {
        let error = with(cards).unwrap_err();
        assert!(error.contains(part), "`{part}` is not in: {error}");
        assert!(error.starts_with(&format!("--net {}: ", cards[1])), "{error}");
    }
    with(&["switch,name=a", "switch,name=a", "user", "user", "null", "null"]).unwrap();
    assert!(with(&["null"; 64]).is_ok());
    assert!(with(&["null"; 65]).unwrap_err().contains("at most 64 network cards"));
}

#[test]
fn test_card_identity_follows_from_the_id_and_survives_reordering() {
    let addresses = |cards: &[&str]| -> Vec<(String, MacAddress)> {
        let cards = with(cards).unwrap().into_iter();
        cards.map(|card| (card.id.unwrap(), card.mac.unwrap())).collect()
    };
    let [first, lan] = &addresses(&["null", "null,id=lan"])[..] else { panic!("two cards") };
    assert_eq!(first.0, "net0");
    assert_ne!(first.1, lan.1);
    assert_eq!(&addresses(&["null,id=lan", "null"])[0], lan);
    assert_eq!(&addresses(&["user"])[0], first, "whatever the backend is");
}

#[test]
fn test_card_address_differs_in_another_machine() {
    let address = |toml: &str| load(toml, &["null"]).unwrap().networks[0].mac.unwrap();
    let by_kernel = address("");
    let by_socket = address("control = \"/sock\"");
    let by_image = address("control = \"/sock\"\ndisk = [\"ram:1M\", \"/a.img\", \"/b.img\"]");
    assert_eq!(by_image, address("disk = [\"/a.img\"]"), "the first image is the machine's name");
    assert_ne!(by_image, address("disk = [\"/b.img\"]"));
    assert!(by_kernel != by_socket && by_socket != by_image);
}

#[test]
fn test_cards_without_the_bus_are_refused() {
    let error = load("[hyperv]\nsynic = false", &["null"]).unwrap_err();
    assert!(error.contains("network cards are on VMBus, which needs `synic`"), "{error}");
}
