use std::path::{Path, PathBuf};

use super::super::load::on_host;
use super::super::{
    DisplayMode, Flag, HypervPreset, NetworkBackend, OnPanic, RtcBase, SerialConfig, VmConfig,
};

const BOTH: &[&str] = &["swtpm", "passt"];

fn load(
    toml: &str,
    pairs: &[(&'static str, &str)],
    installed: &[&str],
) -> Result<VmConfig, String> {
    let flags: Vec<_> =
        pairs.iter().map(|(key, text)| Flag { key, text: (*text).to_owned() }).collect();
    on_host(toml, &flags, installed).map_err(|error| error.to_string())
}

#[track_caller]
fn refuses(result: Result<VmConfig, String>, parts: &[&str]) {
    let error = result.expect_err("must be refused");
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn test_profile_windows_sets_what_windows_expects() {
    let options = [("profile", "windows"), ("disk", "w.vhdx,size=64G")];
    let config = load("", &options, BOTH).unwrap();
    assert!(config.firmware.as_ref().unwrap().ovmf && config.kernel.is_none());
    assert_eq!((config.memory.size.bytes(), config.cpus), (4 << 30, 2));
    assert_eq!(config.hyperv.preset, HypervPreset::Windows);
    assert_eq!((config.rtc, config.on_panic), (RtcBase::Local, OnPanic::Continue));
    assert_eq!(config.display.mode, DisplayMode::Headless);
    let vars = config.firmware_vars.unwrap();
    assert_eq!(vars.path, Some(PathBuf::from("w.vhdx.vars")));
    assert_eq!(config.tpm.unwrap().state, Some(PathBuf::from("w.vhdx.tpm")));
    assert!(matches!(config.networks[0].backend, NetworkBackend::User { .. }));
    assert_eq!(config.serial, SerialConfig::Stdio);
}

#[test]
fn test_profile_on_a_host_without_the_programs_has_neither_tpm_nor_network() {
    let config = load("profile = \"windows\"\ndisk = [\"a.vhdx\"]", &[], &[]).unwrap();
    assert!(config.tpm.is_none() && config.networks.is_empty());
}

#[test]
fn test_profile_yields_to_every_explicit_option_of_flags_and_file() {
    let file = "profile = \"windows\"\ncpus = 4\nrtc = \"utc\"\n[hyperv]\nstimer-direct = false\n";
    let options = [
        ("firmware", "path=/f.fd"),
        ("firmware-vars", "/v"),
        ("memory", "8G"),
        ("on-panic", "exit"),
        ("display", "none"),
        ("tpm", "swtpm,state=/t"),
        ("net", "null"),
        ("disk", "a.img"),
    ];
    let config = load(file, &options, BOTH).unwrap();
    assert_eq!(config.firmware.unwrap().path, Some(PathBuf::from("/f.fd")));
    assert_eq!(config.firmware_vars.unwrap().path, Some(PathBuf::from("/v")));
    assert_eq!((config.memory.size.bytes(), config.cpus), (8 << 30, 4));
    assert_eq!((config.rtc, config.on_panic), (RtcBase::Utc, OnPanic::Exit));
    assert_eq!(config.display.mode, DisplayMode::None);
    assert_eq!(config.tpm.unwrap().state, Some(PathBuf::from("/t")));
    assert_eq!(config.networks.len(), 1);
    assert!(matches!(config.networks[0].backend, NetworkBackend::Null));
    // A single option of a table leaves the table's other defaults.
    assert_eq!(config.hyperv.preset, HypervPreset::Windows);
    assert_eq!(config.hyperv.overrides.len(), 1);
}

#[test]
fn test_profile_with_a_kernel_has_no_firmware_and_with_msvm_no_tpm() {
    let direct = load("", &[("profile", "windows"), ("kernel", "k"), ("disk", "a.img")], BOTH);
    let direct = direct.unwrap();
    assert!(direct.firmware.is_none() && direct.firmware_vars.is_none() && direct.tpm.is_some());
    let msvm = [("profile", "windows"), ("firmware", "msvm:/MSVM.fd"), ("disk", "a.img")];
    let msvm = load("", &msvm, BOTH).unwrap();
    assert!(msvm.tpm.is_none());
    assert_eq!(msvm.firmware_vars.unwrap().path, Some(PathBuf::from("a.img.vars")));
}

#[test]
fn test_profile_puts_no_files_beside_a_block_device_or_a_disk_that_is_read_only() {
    for disk in ["/dev/sdb", "a.img,readonly", "ram:1G"] {
        let config = load("", &[("profile", "windows"), ("disk", disk)], BOTH).unwrap();
        assert!(config.firmware_vars.is_none() && config.tpm.unwrap().state.is_none(), "{disk}");
    }
}

#[test]
fn test_profile_of_a_file_resolves_paths_like_the_disk() {
    let config = load("profile = \"windows\"\n[[disk]]\npath = \"/vm/a.vhdx\"", &[], BOTH).unwrap();
    let text = config.to_toml().unwrap();
    assert!(text.contains("/vm/a.vhdx.vars") && text.contains("/vm/a.vhdx.tpm"), "{text}");
    // The file names each option, so it is the same machine on a host without these programs.
    assert_eq!(load(&text, &[], &[]).unwrap(), config);
}

#[test]
fn test_profile_unknown_or_no_name_is_refused() {
    refuses(load("", &[("profile", "windos")], &[]), &["--profile windos", "`windows`"]);
    refuses(load("profile = 3", &[], &[]), &["profile", "\"windows\""]);
}

#[test]
fn test_none_leaves_out_tpm_and_network() {
    let off = [("profile", "windows"), ("disk", "a.img"), ("tpm", "none"), ("net", "none")];
    let config = load("", &off, BOTH).unwrap();
    assert!(config.tpm.is_none() && config.networks.is_empty());
    let file = "kernel = \"k\"\ntpm = { backend = \"swtpm\", state = \"/t\" }";
    assert!(load(file, &[("tpm", "none")], &[]).unwrap().tpm.is_none());
    let mixed = [("kernel", "k"), ("net", "null"), ("net", "none")];
    refuses(load("", &mixed, &[]), &["--net none", "leave the other cards out"]);
}

#[test]
fn test_install_adds_firmware_with_variables_and_a_drive_after_the_disk() {
    for profile in [None, Some(("profile", "windows"))] {
        let options = [("install", "setup.iso"), ("disk", "new.vhdx,size=64G")];
        let options: Vec<_> = options.into_iter().chain(profile).collect();
        let config = load("", &options, &[]).unwrap();
        assert!(config.firmware.unwrap().ovmf);
        assert_eq!(config.firmware_vars.unwrap().path, Some(PathBuf::from("new.vhdx.vars")));
        let (disk, drive) = (&config.disks[0], &config.dvds[0]);
        assert_eq!(drive.path.as_deref(), Some(Path::new("setup.iso")));
        assert_eq!((disk.lun, drive.lun), (Some(0), Some(1)));
        assert_eq!(drive.id.as_deref(), Some("install"));
        assert_eq!(disk.size.unwrap().bytes(), 64 << 30);
    }
}

#[test]
fn test_install_without_a_disk_or_with_a_kernel_is_refused() {
    refuses(load("", &[("install", "a.iso")], &[]), &["--install a.iso", "--disk NEW.vhdx"]);
    let no_image = [("install", "a.iso"), ("disk", "ram:1G")];
    refuses(load("", &no_image, &[]), &["--install a.iso", "--disk NEW.vhdx"]);
    let direct = [("install", "a.iso"), ("kernel", "k"), ("disk", "a.img")];
    refuses(load("", &direct, &[]), &["--install a.iso", "--kernel"]);
    refuses(load("install = true\n", &[], &[]), &["install", "ISO image"]);
}

#[test]
fn test_new_image_that_could_not_hold_a_guests_data_is_refused() {
    for (disk, part) in [
        ("a.img,size=0", "size=0"),
        ("a.img,size=1000", "use 1K"),
        ("a.img,size=1G,readonly", "leave `size`"),
        ("ram:1G,size=1G", "`size` is for image files"),
    ] {
        refuses(load("kernel = \"k\"", &[("disk", disk)], &[]), &[part]);
    }
}
