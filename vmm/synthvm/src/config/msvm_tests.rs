use std::path::PathBuf;

use super::{HypervPreset, VmConfig};

fn load(toml: &str) -> Result<VmConfig, String> {
    VmConfig::from_toml(toml, &[]).map_err(|error| error.to_string())
}

#[test]
fn test_firmware_msvm_takes_the_preset_with_timers() {
    let config = load("firmware = \"msvm:/MSVM.fd\"\nfirmware-vars = \"/vars\"").unwrap();
    assert_eq!(config.hyperv.preset, HypervPreset::Windows);
    let machine = config.machine();
    assert!(machine.firmware.is_none() && machine.kernel.is_none());
    let uuid = machine.uuid;
    let msvm = machine.msvm.unwrap();
    assert_eq!(msvm.image, PathBuf::from("/MSVM.fd"));
    assert_eq!(msvm.variables, Some(PathBuf::from("/vars")));
    let other = load("firmware = { msvm = \"/MSVM.fd\" }\nfirmware-vars = \"/other\"").unwrap();
    assert_ne!(other.machine().uuid, uuid, "another machine");
    let chosen = "firmware = \"msvm:/MSVM.fd\"\nhyperv = { preset = \"linux\", stimer = true }";
    assert_eq!(load(chosen).unwrap().hyperv.preset, HypervPreset::Linux);
}

#[test]
fn test_firmware_msvm_with_what_it_cannot_use_is_refused() {
    for (toml, part) in [
        ("firmware = { msvm = \"/a\", ovmf = true }", "leave one of them out"),
        ("firmware = { msvm = \"/a\", path = \"/b\" }", "leave one of them out"),
        ("firmware = { msvm = \"/a\", option-rom = \"/b\" }", "leave `option-rom` out"),
        ("firmware = \"msvm:/a\"\nkernel = \"/k\"", "leave --kernel out"),
        ("firmware = \"msvm:/a\"\ntpm = \"swtpm\"", "leave --tpm out"),
        (
            "firmware = \"msvm:/a\"\nfirmware-vars = { path = \"/v\", template = \"/t\" }",
            "leave `template` out",
        ),
    ] {
        let error = load(toml).unwrap_err();
        assert!(error.contains(part), "{toml}: {error}");
    }
}
