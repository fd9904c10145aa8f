//! Tests of the three sources of a configuration together.

use std::path::{Path, PathBuf};

use super::*;

fn flags(pairs: &[(&'static str, &str)]) -> Vec<Flag> {
    pairs.iter().map(|(key, text)| Flag { key, text: (*text).to_owned() }).collect()
}

fn load(toml: &str, pairs: &[(&'static str, &str)]) -> Result<VmConfig, String> {
    VmConfig::from_toml(toml, &flags(pairs)).map_err(|error| error.to_string())
}

/// Loads a configuration from flags only, with a kernel.
fn with(pairs: &[(&'static str, &str)]) -> Result<VmConfig, String> {
    load("kernel = \"k\"", pairs)
}

#[track_caller]
fn refuses(result: Result<VmConfig, String>, parts: &[&str]) {
    let error = result.expect_err("must be refused");
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
    assert!(!error.contains('\n'), "more than a line: {error}");
}

#[test]
fn test_old_names_of_options_are_taken_in_flags_and_files() {
    let old = with(&[("disk-poll", "7"), ("disk-hold", "off")]).unwrap();
    assert_eq!((old.disk_busy_poll, old.disk_moderation), (7, false));
    let file = "kernel = \"k\"\ndisk-poll = 7\ndisk-hold = false\n";
    let from_file = load(file, &[]).unwrap();
    assert_eq!((from_file.disk_busy_poll, from_file.disk_moderation), (7, false));
    let over = load(file, &[("disk-busy-poll", "9")]).unwrap();
    assert_eq!(over.disk_busy_poll, 9, "a flag replaces the key of the file, by either name");
}

#[test]
fn test_option_by_both_of_its_names_is_given_twice() {
    refuses(
        with(&[("disk-poll", "7"), ("disk-busy-poll", "7")]),
        &["`disk-busy-poll` is given twice"],
    );
    refuses(
        load("kernel = \"k\"\ndisk-poll = 7\ndisk-busy-poll = 7\n", &[]),
        &["given twice, once by its old name"],
    );
}

#[test]
fn test_load_kernel_alone_fills_in_the_documented_defaults() {
    let config = load("", &[("kernel", "bzImage")]).unwrap();
    assert_eq!(config.kernel.as_deref(), Some(Path::new("bzImage")));
    assert_eq!(
        (config.memory.size.bytes(), config.memory.hugepages, config.cpus),
        (1 << 30, false, 1)
    );
    assert_eq!((config.serial, config.serial2), (SerialConfig::Stdio, SerialConfig::Null));
    assert_eq!(
        (config.irqchip, config.rtc, config.on_reset, config.on_panic),
        (IrqchipMode::Full, RtcBase::Utc, OnReset::Reboot, OnPanic::Exit)
    );
    assert_eq!(config.disk_busy_poll, 50);
    assert!(config.disk_moderation);
    assert_eq!(config.disk_channels, None);
    assert_eq!((config.stop_timeout, config.kvm), (30, PathBuf::from("/dev/kvm")));
    assert_eq!(config.hyperv.preset, HypervPreset::Linux);
    assert!(
        config.disks.is_empty()
            && config.initrd.is_none()
            && config.control.is_none()
            && config.cmdline.is_empty()
    );
}

#[test]
fn test_load_without_kernel_and_firmware_names_the_ways_to_give_one() {
    refuses(load("", &[]), &["--kernel", "`kernel = ", "--firmware ovmf"]);
}

#[test]
fn test_load_same_keys_from_file_and_from_flags_give_the_same() {
    let file = r#"
        kernel = "k"
        initrd = "i"
        cmdline = "console=ttyS0 root=/dev/sda"
        memory = { size = "5GiB", hugepages = true }
        cpus = 4
        serial = "file=out.log"
        serial2 = "socket=s.sock"
        control = "c.sock"
        hyperv = { preset = "windows", stimer-direct = false, runtime = "off" }
        irqchip = "split"
        rtc = "local"
        hibernation = true
        disk-busy-poll = 0
        disk-moderation = false
        disk-channels = 3
        on-reset = "exit"
        on-panic = "continue"
        stop-timeout = 5
        display = { mode = "headless", resolution = "1280x1024" }
        test-device = "echo"
        kvm = "/dev/other"
        [[disk]]
        path = "a.img"
        [[disk]]
        path = "b,c=d.img"
        readonly = true
        controller = 1
        lun = 7
        id = "data"
        serial = "S-1"
        block-size = 4096
    "#;
    let from_flags = flags(&[
        ("kernel", "k"),
        ("initrd", "i"),
        ("cmdline", "console=ttyS0 root=/dev/sda"),
        ("memory", "5GiB"),
        ("hugepages", ""),
        ("cpus", "4"),
        ("serial", "file=out.log"),
        ("serial2", "socket=s.sock"),
        ("control", "c.sock"),
        ("hyperv", "windows,stimer-direct=off,runtime=off"),
        ("irqchip", "split"),
        ("rtc", "local"),
        ("hibernation", "on"),
        ("disk-busy-poll", "0"),
        ("disk-moderation", "off"),
        ("disk-channels", "3"),
        ("on-reset", "exit"),
        ("on-panic", "continue"),
        ("stop-timeout", "5"),
        ("display", "headless,resolution=1280x1024"),
        ("test-device", "echo"),
        ("kvm", "/dev/other"),
        ("disk", "a.img"),
        ("disk", "path=b,,c=d.img,readonly,controller=1,lun=7,id=data,serial=S-1,block-size=4096"),
    ]);
    let config = VmConfig::load(None, &from_flags).unwrap();
    assert_eq!(load(file, &[]).unwrap(), config);
    assert_eq!(config.disks[1].path, Path::new("b,c=d.img"));
}

#[test]
fn test_print_fed_back_gives_the_same_configuration_and_the_same_text() {
    let config = with(&[
        ("memory", "512M,hugepages=on"),
        ("serial", "file=/tmp/a b.log"),
        ("cmdline", "quoted=\"x y\" back\\slash"),
        ("hyperv", "preset=windows,stimer-direct=off"),
        ("disk", "a,,b.img"),
        ("disk", "c.img,controller=2,readonly=on,serial=\"q\""),
        ("control", "sock"),
    ])
    .unwrap();
    let text = config.to_toml().unwrap();
    let again = load(&text, &[]).unwrap();
    assert_eq!(again.to_toml().unwrap(), text);
    assert_eq!(again.disks[0].path, std::path::absolute("a,b.img").unwrap());
    assert_eq!(
        (again.memory, again.hyperv, again.cmdline),
        (config.memory, config.hyperv, config.cmdline)
    );
}

#[test]
fn test_firmware_needs_no_kernel_and_is_a_file_or_the_installed_ovmf() {
    let file = "[firmware]\npath = \"a.fd\"\noption-rom = \"d.rom\"\n\
                [firmware-vars]\npath = \"v.fd\"\ntemplate = \"ms.fd\"";
    let options = [("firmware", "a.fd,option-rom=d.rom"), ("firmware-vars", "v.fd,template=ms.fd")];
    let config = load("", &options).unwrap();
    assert_eq!(load(file, &[]).unwrap(), config);
    let machine = config.machine().firmware.unwrap();
    assert_eq!(machine.image, Path::new("a.fd"));
    assert_eq!(machine.variables.as_deref(), Some(Path::new("v.fd")));
    assert_eq!(machine.template.as_deref(), Some(Path::new("ms.fd")));
    assert_eq!(machine.option_rom.as_deref(), Some(Path::new("d.rom")));
    let installed = load("firmware = \"ovmf\"", &[]).unwrap().firmware.unwrap();
    assert_eq!((installed.ovmf, installed.path), (true, None));
    let beside = load("", &[("firmware", "./ovmf")]).unwrap().firmware.unwrap();
    assert_eq!((beside.ovmf, beside.path), (false, Some("./ovmf".into())));
}

#[test]
fn test_on_no_boot_device_waits_by_default_and_exits_only_with_firmware_that_reports() {
    let key = "on-no-boot-device";
    assert_eq!(with(&[]).unwrap().on_no_boot_device, OnNoBootDevice::Wait);
    assert!(with(&[(key, "wait")]).is_ok());
    refuses(with(&[(key, "exit")]), &["--on-no-boot-device exit", "--firmware ovmf"]);
    let exit = |firmware| load("", &[("firmware", firmware), (key, "exit")]);
    refuses(exit("a.fd"), &["--on-no-boot-device exit", "option-rom=FILE"]);
    for firmware in ["ovmf", "a.fd,option-rom=d.rom", "msvm:a.fd"] {
        let machine = exit(firmware).unwrap().machine();
        assert_eq!(machine.on_no_boot_device, OnNoBootDevice::Exit, "{firmware}");
    }
    refuses(load("", &[("firmware", "ovmf"), (key, "exti")]), &["did you mean `exit`?"]);
}

#[test]
fn test_firmware_named_twice_or_not_at_all_is_refused() {
    refuses(load("", &[("firmware", "ovmf,path=a.fd")]), &["--firmware", "leave one"]);
    refuses(load("", &[("firmware", "option-rom=a")]), &["--firmware", "path=FILE"]);
    refuses(with(&[("firmware-vars", "v.fd")]), &["--firmware-vars v.fd", "--firmware ovmf"]);
}

#[test]
fn test_tpm_of_a_flag_and_of_a_file_are_the_same_and_print_back() {
    let config = with(&[("tpm", "swtpm,state=s,program=p/swtpm,presence=on")]).unwrap();
    let file = "kernel = \"k\"\n[tpm]\nbackend = \"swtpm\"\nstate = \"s\"\n\
                program = \"p/swtpm\"\npresence = true";
    assert_eq!(load(file, &[]).unwrap().tpm, config.tpm);
    let again = load(&config.to_toml().unwrap(), &[]).unwrap();
    assert_eq!(again.tpm.unwrap().state, Some(std::path::absolute("s").unwrap()));
    let only_state = load("kernel = \"k\"\ntpm = \"swtpm\"", &[("tpm", "state=t")]).unwrap();
    let tpm = only_state.tpm.unwrap();
    assert_eq!((tpm.state, tpm.presence), (Some(PathBuf::from("t")), false));
    for (bad, why) in
        [("hardware", "swtpm"), ("swtpm,folder=x", "folder"), ("swtpm,state=", "state")]
    {
        let error = with(&[("tpm", bad)]).unwrap_err().to_string();
        assert!(error.contains("tpm") && error.contains(why), "{bad}: {error}");
    }
}

#[test]
fn test_vsock_of_a_flag_and_of_a_file_are_the_same_and_print_back() {
    let (one, other) =
        ("00000001-0000-0000-0000-000000000000", "00000002-0000-0000-0000-000000000000");
    let flag = format!("v.sock,service={one}:/a,service={other}:/b");
    let config = with(&[("vsock", &flag)]).unwrap();
    let file = format!(
        "kernel = \"k\"\n[vsock]\nsocket = \"v.sock\"\nservice = [\"{one}:/a\", \"{other}:/b\"]"
    );
    assert_eq!(load(&file, &[]).unwrap().vsock, config.vsock);
    let again = load(&config.to_toml().unwrap(), &[]).unwrap().vsock.unwrap();
    assert_eq!(again.socket, std::path::absolute("v.sock").unwrap());
    assert_eq!(again.services, config.vsock.unwrap().services);
    for (bad, why) in [
        ("", "vsock"),
        ("socket=", "socket"),
        ("service=1:/a", "GUID"),
        ("v,cid=3", "cid"),
        ("v,service=agent", "GUID:PATH"),
        (&format!("v,service={one}:a"), "absolute"),
        (&format!("v,service={one}:/a,service={one}:/b"), "twice"),
    ] {
        let error = with(&[("vsock", bad)]).unwrap_err().to_string();
        assert!(error.contains("vsock") && error.contains(why), "{bad}: {error}");
    }
}

#[test]
fn test_print_shows_every_key_of_the_file() {
    let options = [
        ("initrd", "i"),
        ("firmware", "ovmf"),
        ("firmware-vars", "v"),
        ("control", "c"),
        ("disk", "d"),
        ("dvd", "lun=9"),
        ("net", "null"),
        ("disk-channels", "2"),
        ("test-device", "echo"),
        ("tpm", "swtpm"),
        ("uuid", "01234567-89ab-cdef-0123-456789abcdef"),
        ("generation-id", "new"),
        ("vsock", "v"),
    ];
    let text = with(&options).unwrap().to_toml().unwrap();
    let table: toml::Table = text.parse().unwrap();
    let mut shown: Vec<_> = table.keys().map(String::as_str).collect();
    let mut known = KEYS.to_vec();
    // They stand for other keys, which are printed.
    known.retain(|key| !["profile", "install"].contains(key));
    shown.sort_unstable();
    known.sort_unstable();
    assert_eq!(shown, known);
}

#[test]
fn test_flag_replaces_the_key_of_the_file() {
    let config = load("kernel = \"a\"\ncpus = 2", &[("kernel", "b")]).unwrap();
    assert_eq!((config.kernel, config.cpus), (Some(PathBuf::from("b")), 2));
}

#[test]
fn test_flag_with_keys_replaces_key_by_key() {
    let file = "kernel = \"k\"\nmemory = { size = \"2G\", hugepages = true }\n[hyperv]\npreset = \
        \"windows\"\nreset = false";
    let config = load(file, &[("memory", "4G"), ("hyperv", "crash=off")]).unwrap();
    assert_eq!((config.memory.size.bytes(), config.memory.hugepages), (4 << 30, true));
    assert_eq!(config.hyperv.preset, HypervPreset::Windows);
    assert!(
        !config.hyperv.offers(HypervOption::Reset) && !config.hyperv.offers(HypervOption::Crash)
    );
}

#[test]
fn test_flag_disk_is_added_to_those_of_the_file() {
    let config = load("kernel = \"k\"\ndisk = [\"a.img\"]", &[("disk", "b.img")]).unwrap();
    let paths: Vec<_> =
        config.disks.iter().map(|disk| (disk.path.to_str().unwrap(), disk.lun)).collect();
    assert_eq!(paths, [("a.img", Some(0)), ("b.img", Some(1))]);
}

#[test]
fn test_disk_fixed_buffers_are_a_choice_that_goes_with_io_uring_only() {
    let buffers = |text: &str| with(&[("disk", text)]).map(|config| config.disks[0].buffers);
    assert_eq!(buffers("a.img"), Ok(BufferMode::Plain));
    assert_eq!(buffers("a.img,buffers=plain,io=sync"), Ok(BufferMode::Plain));
    for io in ["", ",io=auto", ",io=uring"] {
        assert_eq!(buffers(&format!("a.img,buffers=fixed{io}")), Ok(BufferMode::Fixed));
    }
    for wrong in ["a.img,buffers=fixed,io=threads", "a.img,io=sync,buffers=fixed"] {
        refuses(with(&[("disk", wrong)]), &["--disk", wrong, "`buffers=fixed` needs io_uring"]);
    }
    assert_eq!(buffers("a.qcow2,format=qcow2,buffers=fixed"), Ok(BufferMode::Fixed));
    refuses(with(&[("disk", "a.img,buffers=pinned")]), &["pinned", "known: plain, fixed"]);
}

#[test]
fn test_disk_without_an_image_is_the_same_from_a_flag_and_from_a_file() {
    let file = "kernel = \"k\"\n[[disk]]\nram = \"1G\"\n[[disk]]\nnull = \"100G\"\nreadonly = true";
    let config = load(file, &[]).unwrap();
    let flags = [("disk", "ram:1G"), ("disk", "null:100G,readonly")];
    assert_eq!(config, with(&flags).unwrap());
    assert_eq!(
        config,
        with(&[("disk", "ram=1024M"), ("disk", "null=100GiB,readonly=on")]).unwrap()
    );
    let gib = |count: u64| ByteSize::from_bytes(count << 30);
    let sources: Vec<_> = config.disks.iter().map(DiskConfig::source).collect();
    assert_eq!(sources, [DiskSource::Ram(gib(1)), DiskSource::Null(gib(100))]);
    assert_eq!(config.disks[0].source().to_string(), "ram:1G");
    // The configuration survives printing; a disk may also be a single word.
    assert_eq!(load(&config.to_toml().unwrap(), &[]).unwrap().disks, config.disks);
    let words = load("kernel = \"k\"\ndisk = [\"ram:1G\"]", &[]).unwrap();
    assert_eq!(words.disks[0].ram, Some(gib(1)));
}

#[test]
fn test_file_whose_name_looks_like_memory_can_be_named() {
    for text in ["path=ram:1G", "./ram:1G"] {
        let config = with(&[("disk", text)]).unwrap();
        assert!(
            matches!(config.disks[0].source(), DiskSource::Image(path) if path.ends_with("ram:1G")),
            "{text}"
        );
    }
    assert!(with(&[("dvd", "ram:1G")]).unwrap().dvds[0].path.is_some(), "a disc has a file");
}

#[test]
fn test_disk_without_an_image_refuses_what_makes_no_sense() {
    let cases: &[(&str, &[&str])] = &[
        ("ram:1G,path=a.img", &["only one of path=, ram= and null="]),
        ("ram:1G,null=1G", &["only one of"]),
        ("a.img,ram=1G", &["only one of"]),
        ("ram:1G,format=raw", &["`format` is for image files", "`ram`"]),
        ("null:1G,cache=none", &["`cache` is for image files", "`null`"]),
        ("ram:1G,io=uring", &["`io` is for image files"]),
        ("null:1G,buffers=fixed", &["`buffers` is for image files"]),
        ("ram:1G,parents=refuse", &["`parents` is for image files"]),
        ("ram:1G,readonly", &["keeps a `ram` disk empty", "null="]),
        ("ram:0", &["from 512 to 4T, not 0"]),
        ("ram:4T,block-size=512,lun=64", &["0 to 63"]),
        ("ram:5T", &["to 4T, not 5T"]),
        ("null:8388608T", &["`null` has a size from 512"]),
        ("ram:1000", &["ram=1000 is not possible", "use 1K"]),
        ("null:512,block-size=4096", &["blocks of 4096 bytes", "use 4K"]),
        ("ram:", &["is not a size"]),
        ("ram:lots", &["`lots` is not a size"]),
        ("ram:1GB", &["ambiguous"]),
    ];
    for (text, parts) in cases {
        let flag = format!("--disk {text}");
        refuses(with(&[("disk", text)]), &[parts, &[flag.as_str()][..]].concat());
    }
    with(&[("disk", "null:1G,readonly,block-size=4096,iops=100,serial=N1,id=n")]).unwrap();
}

#[test]
fn test_file_relative_paths_are_relative_to_the_file() {
    let text = "kernel = \"k\"\nserial = \"file=s.log\"\n[[disk]]\npath = \
        \"/abs.img\"\n[[disk]]\npath = \"rel.img\"";
    let mut root = file::parse("vm/vm.toml", text, Some(Path::new("vm"))).unwrap();
    root.merge(keyvalue::parse("--x", "initrd=i", node::Bare::key("")).unwrap());
    let config: VmConfig = de::from_node(&root).unwrap();
    assert_eq!(config.kernel.as_deref(), Some(Path::new("vm/k")));
    assert_eq!(config.serial, SerialConfig::File("vm/s.log".into()));
    assert_eq!(
        (config.disks[0].path.as_path(), config.disks[1].path.as_path()),
        (Path::new("/abs.img"), Path::new("vm/rel.img"))
    );
    assert_eq!(
        config.initrd.as_deref(),
        Some(Path::new("i")),
        "a flag's path is relative to where the user stands"
    );
}

#[test]
fn test_lun_without_number_is_the_lowest_free_on_its_controller() {
    let config =
        with(&[("disk", "a"), ("disk", "b,lun=0"), ("disk", "c"), ("disk", "d,controller=3")])
            .unwrap();
    let addresses: Vec<_> =
        config.disks.iter().map(|disk| (disk.controller, disk.lun.unwrap())).collect();
    assert_eq!(addresses, [(0, 1), (0, 0), (0, 2), (3, 0)]);
}

#[test]
fn test_lun_65th_on_a_controller_is_refused_with_the_next_controller() {
    let disks: Vec<_> = (0..65).map(|index| ("disk", format!("d{index}"))).collect();
    let pairs: Vec<_> = disks.iter().map(|(key, text)| (*key, text.as_str())).collect();
    assert!(with(&pairs[..64]).is_ok());
    refuses(with(&pairs), &["--disk d64", "64 disks", "controller=1"]);
}

#[test]
fn test_flag_mistake_names_the_flag_its_text_and_what_is_allowed() {
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "disk",
            "path=a.img,readnly=on",
            &["--disk path=a.img,readnly=on", "did you mean `readonly`?", "controller"],
        ),
        ("disk", "a.img,b.img", &["--disk a.img,b.img", "unknown key `b.img`", "`,,`"]),
        ("disk", "lun=1", &["--disk lun=1", "needs path=FILE, ram=SIZE or null=SIZE"]),
        ("disk", "path=", &["--disk path=", "empty"]),
        ("disk", "a,lun=64", &["a LUN is 0 to 63, not 64"]),
        ("disk", "a,lun=300", &["a LUN is 0 to 63, not 300"]),
        ("disk", "a,controller=16", &["0 to 15, not 16"]),
        ("disk", "a,readonly=maybe", &["\"maybe\"", "`on` or `off`"]),
        ("disk", "a,block-size=1024", &["512 or 4096"]),
        ("disk", "a,serial=", &["1 to 32"]),
        ("disk", "a,lun=1,lun=1", &["`lun` is given twice"]),
        ("memory", "lots", &["--memory lots", "512M"]),
        ("memory", "8M", &["--memory 8M", "too small", "16M to 4T"]),
        ("memory", "5T", &["--memory 5T", "too large"]),
        ("memory", "1000000000", &["953M or 954M"]),
        ("memory", "513M,hugepages=on", &["512M or 514M"]),
        ("memory", "1G,hugepage=on", &["did you mean `hugepages`?"]),
        ("cpus", "0", &["--cpus 0", "1 to 64, not 0"]),
        ("cpus", "65", &["1 to 64, not 65"]),
        ("cpus", "99999", &["1 to 64, not 99999"]),
        ("cpus", "two", &["--cpus two", "a whole number"]),
        ("cpus", "-1", &["a whole number"]),
        ("cpus", "", &["a whole number"]),
        ("serial", "stdoi", &["did you mean `stdio`?", "null", "file", "socket"]),
        ("serial", "file", &["write file=VALUE"]),
        ("serial", "file=", &["--serial file=", "empty"]),
        ("serial", "stdio=x", &["`stdio` takes no value"]),
        ("serial2", "stdio", &["--serial2 stdio", "--serial null"]),
        ("irqchip", "none", &["--irqchip none", "full, split"]),
        ("rtc", "cet", &["--rtc cet", "utc, local"]),
        ("on-reset", "rebot", &["did you mean `reboot`?"]),
        ("on-panic", "", &["exit, reboot, continue"]),
        ("hyperv", "macos", &["--hyperv macos", "linux, windows"]),
        ("hyperv", "stimr=on", &["did you mean `stimer`?", "preset, hypercall"]),
        ("hyperv", "synic=2", &["`on` or `off`"]),
        ("hyperv", "linux,stimer=on,synic=off", &["`stimer` needs `synic`", "synic=on"]),
        ("stop-timeout", "86401", &["0 to 86400"]),
        ("disk-busy-poll", "51", &["--disk-busy-poll 51", "in microseconds, is 0 to 50"]),
        ("disk-busy-poll", "50us", &["--disk-busy-poll 50us", "a whole number"]),
        ("disk-channels", "0", &["--disk-channels 0", "is 1 to 64, not 0"]),
        ("disk-channels", "65", &["--disk-channels 65", "is 1 to 64"]),
        ("disk-moderation", "2ms", &["--disk-moderation 2ms", "on"]),
        ("control", "", &["--control", "empty"]),
    ];
    for (key, text, parts) in cases {
        refuses(with(&[(key, text)]), parts);
    }
}

#[test]
fn test_file_mistake_names_file_line_and_key() {
    let cases: &[(&str, &[&str])] = &[
        ("kernel = \"k\"\n\nmemroy = \"1G\"", &["<text>:3: memroy", "did you mean `memory`?"]),
        (
            "kernel = \"k\"\n[[disk]]\npath = \"a\"\n[[disk]]\npath = \"b\"\nro = true",
            &["<text>:6: disk.ro", "readonly"],
        ),
        ("kernel = \"k\"\n[hyperv]\nstimr = true", &["<text>:3: hyperv.stimr", "`stimer`"]),
        ("kernel = \"k\"\n[hyperv]\nstimer = 3", &["<text>:3: hyperv.stimer", "`on` or `off`"]),
        ("kernel = \"k\"\ncpus = 65", &["<text>:2: cpus", "not 65"]),
        ("kernel = \"k\"\ncpus = 1.5", &["<text>:2: cpus", "a fraction"]),
        ("kernel = \"k\"\ncpus = 1979-05-27", &["<text>:2: cpus", "a date"]),
        ("kernel = 7", &["<text>:1: kernel", "a path"]),
        ("kernel = \"k\"\nkernel = \"l\"", &["<text>:2", "duplicate key"]),
        ("kernel = \"k\"\n[disk]\npath = \"a\"", &["<text>:2: disk", "[["]),
        ("kernel = \"k\"\n[[disk]]\nreadonly = true", &["<text>:2: disk", "needs path=FILE"]),
        ("kernel = ", &["<text>:1"]),
        ("memroy = \"1G\"", &["<text>:1: memroy"]),
        ("kernel = \"k\"\nmemory = true", &["<text>:2: memory"]),
    ];
    for (text, parts) in cases {
        refuses(load(text, &[]), parts);
    }
}

#[test]
fn test_vnc_server_brings_a_display_and_parts_of_it_add_up() {
    let config = with(&[
        ("display", "vnc=127.0.0.1:5900,password-file=p"),
        ("display", "resolution=800x600"),
    ])
    .unwrap();
    let address = VncAddress::Tcp("127.0.0.1:5900".parse().unwrap());
    assert_eq!(config.display.vnc, Some(address));
    assert_eq!(config.display.mode, DisplayMode::Headless);
    assert_eq!(config.display.resolution.to_string(), "800x600");
    let text = config.to_toml().unwrap();
    assert!(text.contains("vnc = \"127.0.0.1:5900\""), "{text}");
    assert_eq!(load(&text, &[]).unwrap().display.vnc, config.display.vnc);
    let file = "kernel = \"k\"\ndisplay = { vnc = \"unix:a,b=c.sock\" }";
    let socket = Some(VncAddress::Unix("a,b=c.sock".into()));
    assert_eq!(load(file, &[]).unwrap().display.vnc, socket);
    let flag = with(&[("display", "vnc=unix:a,,b=c.sock")]).unwrap();
    assert_eq!(flag.display.vnc, socket);
}

#[test]
fn test_vnc_server_without_protection_is_refused() {
    let refuses_display = |text: &str, parts: &[&str]| refuses(with(&[("display", text)]), parts);
    refuses_display("vnc=127.0.0.1:5900", &["password-file=FILE", "unix:PATH"]);
    refuses_display("vnc=[::]:5900,password-file=p", &["not a loopback", "tls-cert"]);
    refuses_display("vnc=10.0.0.1:5900,tls-cert=c,tls-key=k", &["password-file=FILE"]);
    refuses_display("vnc=unix:s,tls-cert=c", &["tls-key=FILE"]);
    refuses_display("vnc=unix:s,view-password-file=v", &["password-file=FILE"]);
    refuses_display("headless,password-file=p", &["`password-file`", "vnc=unix:PATH"]);
    refuses_display("none,vnc=unix:s", &["leave `none` out"]);
    refuses_display("vnc=5900", &["`5900`", "127.0.0.1:5900"]);
    refuses_display("vnc=unix:", &["path is empty"]);
    refuses(with(&[("display", "vnc=unix:x"), ("control", "x")]), &["--control already"]);
    refuses(with(&[("display", "vnc=unix:x"), ("hyperv", "synic=off")]), &["synic"]);
    let tls = "vnc=10.0.0.1:5900,password-file=p,tls-cert=c,tls-key=k";
    assert!(with(&[("display", tls)]).is_ok());
}

#[test]
fn test_values_that_exclude_each_other_are_refused() {
    refuses(
        with(&[("disk", "a,lun=1"), ("disk", "b,lun=1")]),
        &["--disk b,lun=1", "LUN 1 on controller 0"],
    );
    refuses(with(&[("disk", "a,id=x"), ("disk", "b,id=x")]), &["--disk b,id=x", "id `x`"]);
    refuses(
        with(&[("hugepages", ""), ("memory", "1G,hugepages=off")]),
        &["--memory", "`hugepages` is given twice"],
    );
    refuses(with(&[("serial", "file=x"), ("control", "x")]), &["--control x", "--serial already"]);
    refuses(with(&[("cpus", "1"), ("cpus", "2")]), &["--cpus 2", "given twice"]);
    refuses(with(&[("disk", "a"), ("hyperv", "synic=off")]), &["--hyperv synic=off", "VMBus"]);
    refuses(with(&[("display", "headless"), ("hyperv", "synic=off")]), &["display", "synic"]);
    refuses(with(&[("display", "headful")]), &["--display headful", "headless"]);
    refuses(with(&[("display", "resolution=5x5")]), &["resolution", "320x200"]);
    refuses(with(&[("display", "resolution=wide")]), &["resolution", "WIDTHxHEIGHT"]);
    refuses(with(&[("display", "headless"), ("display", "none")]), &["`mode` is given twice"]);
    refuses(
        with(&[("test-device", "echo"), ("hyperv", "synic=off")]),
        &["--hyperv synic=off", "VMBus"],
    );
    refuses(with(&[("test-device", "ekko")]), &["--test-device ekko", "echo"]);
}

#[test]
fn test_option_switched_off_takes_with_it_what_the_preset_built_on_it() {
    let config = with(&[("hyperv", "windows,stimer=off")]).unwrap();
    assert!(
        !config.hyperv.offers(HypervOption::StimerDirect)
            && config.hyperv.offers(HypervOption::Synic)
    );
    let config = with(&[("hyperv", "hypercall=off")]).unwrap();
    assert!(HypervOption::ALL.iter().all(|option| !config.hyperv.offers(*option)));
}

#[test]
fn test_presets_need_nothing_that_they_do_not_offer() {
    for preset in [HypervPreset::Linux, HypervPreset::Windows] {
        let config = HypervConfig { preset, ..HypervConfig::default() };
        assert_eq!(config.unmet(), None, "{preset:?}");
        assert!(config.offers(HypervOption::Synic));
    }
}

#[test]
fn test_dvd_drives_come_after_disks_and_share_their_places_and_names() {
    let file = "kernel = \"k\"\n[[dvd]]\npath = \"a.iso\"\n[[dvd]]\nid = \
        \"empty\"\n[[disk]]\npath = \"a.img\"\n";
    let config =
        load(file, &[("dvd", "b.iso,controller=1"), ("disk", "path=b.img,lun=1")]).unwrap();
    let luns: Vec<_> = config.dvds.iter().map(|dvd| (dvd.controller, dvd.lun.unwrap())).collect();
    assert_eq!(config.disks.iter().map(|disk| disk.lun.unwrap()).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(luns, [(0, 2), (0, 3), (1, 0)]);
    assert_eq!(config.dvds[1].path, None);
    refuses(load(file, &[("disk", "b.img,id=empty")]), &["the id `empty`"]);
    refuses(
        with(&[("disk", "a.img,lun=3"), ("dvd", "lun=3")]),
        &["--dvd lun=3", "LUN 3 on controller 0"],
    );
    refuses(with(&[("dvd", "a.iso,readonly")]), &["--dvd a.iso,readonly", "readonly"]);
    refuses(with(&[("dvd", "a.iso"), ("hyperv", "linux,synic=off")]), &["synic"]);
    let again = VmConfig::from_toml(&config.to_toml().unwrap(), &[]).unwrap();
    assert_eq!(again.dvds.len(), 3);
}

#[test]
fn test_disk_and_drive_with_absent_keys_survive_json() {
    let disk = DiskConfig::new("a.img");
    let text = serde_json::to_string(&disk).unwrap();
    assert_eq!(serde_json::from_str::<DiskConfig>(&text).unwrap(), disk);
    let text = serde_json::to_string(&DvdConfig::default()).unwrap();
    assert_eq!(serde_json::from_str::<DvdConfig>(&text).unwrap(), DvdConfig::default());
}
