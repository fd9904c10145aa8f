use std::fs;
use std::path::{Path, PathBuf};

use super::*;

const LEN: usize = 4 * FLASH_BLOCK;

/// Returns the path of a file that does not exist.
fn path(name: &str) -> PathBuf {
    let name = format!("synthvm-flash-{name}-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = fs::remove_file(&path);
    path
}

fn template() -> Vec<u8> {
    let mut bytes = vec![0xFF; LEN];
    bytes[..48].fill(0);
    let guid = "8d2bf1ff96768b4ca9852747075b4f50";
    for (index, byte) in bytes[16..32].iter_mut().enumerate() {
        *byte = u8::from_str_radix(&guid[2 * index..][..2], 16).unwrap();
    }
    bytes[32..40].copy_from_slice(&(LEN as u64).to_le_bytes());
    bytes[40..44].copy_from_slice(b"_FVH");
    bytes
}

fn flash() -> Flash {
    Flash::new(Variables::volatile(&template()).unwrap())
}

fn byte(flash: &Flash, offset: u64) -> u8 {
    let mut data = [0];
    flash.read(offset, &mut data);
    data[0]
}

/// Programs bytes as OVMF does: a command and a byte each, array mode at the end.
fn program(flash: &mut Flash, offset: u64, bytes: &[u8]) {
    for (offset, byte) in (offset..).zip(bytes) {
        flash.write(offset, &[0x10]);
        flash.write(offset, &[*byte]);
    }
    flash.write(offset, &[0xFF]);
}

fn erase(flash: &mut Flash, offset: u64) {
    flash.write(offset, &[0x20]);
    flash.write(offset, &[0xD0]);
}

#[test]
fn test_flash_answers_the_probe_of_ovmf() {
    let mut flash = flash();
    flash.write(8, &[0x50]);
    assert_ne!(byte(&flash, 8), 0x50, "50h back would be RAM");
    flash.write(8, &[0x70]);
    assert_eq!(byte(&flash, 8), 0, "the original byte would be ROM");
    assert!(!flash.is_array());
    flash.write(8, &[0xFF]);
    assert!(flash.is_array());
}

#[test]
fn test_program_stores_bytes_and_reads_status_until_array_mode() {
    let mut flash = flash();
    flash.write(5000, &[0x40]);
    flash.write(5000, &[0xAB]);
    assert_eq!(byte(&flash, 5000), 0x80);
    flash.write(0, &[0xFF]);
    assert_eq!((byte(&flash, 4999), byte(&flash, 5000)), (0xFF, 0xAB));
}

#[test]
fn test_erase_sets_the_addressed_block_only() {
    let mut flash = flash();
    for offset in [4095, 4096, 8191, 8192] {
        program(&mut flash, offset, &[0]);
    }
    erase(&mut flash, 5000);
    flash.write(0, &[0xFF]);
    assert_eq!([4095, 4096, 8191, 8192].map(|at| byte(&flash, at)), [0, 0xFF, 0xFF, 0]);
    // Without the confirmation, nothing is erased.
    flash.write(8192, &[0x20]);
    flash.write(8192, &[0x00]);
    assert_eq!(byte(&flash, 8192) & 0x30, 0x30);
    flash.write(0, &[0xFF]);
    assert_eq!(byte(&flash, 8192), 0);
}

#[test]
fn test_accesses_outside_the_flash_do_nothing() {
    let mut flash = flash();
    for offset in [LEN as u64, LEN as u64 + 1, u64::MAX - 8] {
        program(&mut flash, offset, &[0]);
        erase(&mut flash, offset);
        assert!(flash.is_array());
        assert_eq!(byte(&flash, offset), 0xFF);
    }
    flash.write(LEN as u64 - 1, &[0x10]);
    flash.write(LEN as u64 - 1, &[1, 2, 3, 4]);
    flash.write(0, &[0xFF]);
    assert_eq!(byte(&flash, LEN as u64 - 1), 1);
    let mut over = [0; 4];
    flash.read(LEN as u64 - 1, &mut over);
    assert_eq!(over, [1, 0xFF, 0xFF, 0xFF]);
}

#[test]
fn test_reset_in_any_mode_returns_to_the_array() {
    for command in [0x10, 0x20, 0x70, 0x90] {
        let mut flash = flash();
        flash.write(0, &[command]);
        flash.reset();
        assert!(flash.is_array());
        assert_eq!(byte(&flash, 40), b'_');
    }
}

#[test]
fn test_file_is_created_from_the_template_and_keeps_changes() {
    let path = path("keeps");
    let mut flash = Flash::new(Variables::open(&path, &template()).unwrap());
    assert!(fs::read(&path).unwrap() == template());
    program(&mut flash, 100, b"one");
    assert!(flash.take_written() && !flash.take_written());
    // In the file as soon as the firmware has finished, not only at the end.
    assert_eq!(fs::read(&path).unwrap()[100..103], *b"one");
    erase(&mut flash, 4096);
    program(&mut flash, 4096, b"two");
    drop(flash);
    let flash = Flash::new(Variables::open(&path, &template()).unwrap());
    assert_eq!([100, 4096].map(|at| byte(&flash, at)), [b'o', b't']);
    fs::remove_file(path).unwrap();
}

#[test]
fn test_file_has_a_state_that_the_guest_made_after_each_access() {
    // A machine may be killed between any two accesses. The file must then hold the flash as it was
    // before or after the operation in progress, never a mixture.
    let path = path("prefix");
    let mut flash = Flash::new(Variables::open(&path, &template()).unwrap());
    let mut model = template();
    let mut states = vec![model.clone()];
    let check = |flash: &mut Flash, states: &[Vec<u8>], offset: u64, value: u8| {
        flash.write(offset, &[value]);
        let found = fs::read(&path).unwrap();
        assert!(states.contains(&found), "after {value:#x} at {offset}");
    };
    for round in 0..40_u64 {
        let start = round * 379 % (LEN as u64 - 64);
        let block = start as usize / FLASH_BLOCK * FLASH_BLOCK;
        if round % 5 == 0 {
            model[block..block + FLASH_BLOCK].fill(0xFF);
            states.push(model.clone());
            check(&mut flash, &states, start, 0x20);
            check(&mut flash, &states, start, 0xD0);
        }
        for offset in start..start + 8 {
            model[offset as usize] = round as u8;
            states.push(model.clone());
            check(&mut flash, &states, offset, 0x10);
            check(&mut flash, &states, offset, round as u8);
        }
        check(&mut flash, &states, start, 0xFF);
        assert!(fs::read(&path).unwrap() == model, "all is written in array mode");
        states = vec![model.clone()];
    }
    fs::remove_file(&path).unwrap();
}

#[test]
fn test_file_in_use_is_refused_and_free_afterwards() {
    let path = path("locked");
    let first = Variables::open(&path, &template()).unwrap();
    let error = Variables::open(&path, &template()).unwrap_err();
    assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    assert!(matches!(error, VariablesError::Open(_)));
    drop(first);
    Variables::open(&path, &template()).unwrap();
    fs::remove_file(path).unwrap();
}

#[test]
fn test_file_of_another_layout_or_content_is_refused_and_unchanged() {
    let path = path("layout");
    let mut longer = template();
    longer.extend([0; 4096]);
    for (bytes, why) in [
        (longer, "has 20480 bytes, this firmware's variables have 16384"),
        (vec![0; LEN], "is not a file of UEFI variables"),
        (Vec::new(), "has 0 bytes"),
    ] {
        fs::write(&path, &bytes).unwrap();
        let error = Variables::open(&path, &template()).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(fs::read(&path).unwrap() == bytes);
    }
    fs::remove_file(path).unwrap();
}

#[test]
fn test_file_in_an_absent_folder_or_a_folder_itself_is_refused() {
    let bad = [PathBuf::from("/nonexistent-folder/vars.fd"), std::env::temp_dir()];
    for path in bad {
        let error = Variables::open(&path, &template()).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
    }
    assert!(!Path::new("/nonexistent-folder").exists());
}
