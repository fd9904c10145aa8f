use std::fs;
use std::path::PathBuf;

use super::*;

const VARIABLES: usize = 128 << 10;
const CODE: usize = (1 << 20) - VARIABLES;

/// A folder that is removed when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("synthvm-image-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn volume(len: usize, guid: [u8; 16]) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[16..32].copy_from_slice(&guid);
    bytes[32..40].copy_from_slice(&(len as u64).to_le_bytes());
    bytes[40..44].copy_from_slice(b"_FVH");
    bytes
}

fn code() -> Vec<u8> {
    let mut bytes = volume(CODE, [7; 16]);
    bytes[CODE - 16] = 0x90;
    bytes
}

fn variables() -> Vec<u8> {
    volume(VARIABLES, VARIABLES_GUID)
}

fn refused(path: &Path, template: Option<&Path>) -> String {
    FirmwareImage::open(path, template).unwrap_err().to_string()
}

#[test]
fn test_image_with_its_variables_is_split_and_code_finds_its_template() {
    let folder = Folder::new("good");
    let whole = folder.write("OVMF.fd", &[variables(), code()].concat());
    folder.write("OVMF_VARS_4M.fd", &variables());
    let apart = folder.write("OVMF_CODE_4M.fd", &code());
    let expected = FirmwareImage { code: code(), variables: variables() };
    assert_eq!(FirmwareImage::open(&whole, None).unwrap(), expected);
    assert_eq!(FirmwareImage::open(&apart, None).unwrap(), expected);
    let mut other = variables();
    other[4000] = 1;
    let template = folder.write("ms.fd", &other);
    for path in [&whole, &apart] {
        let image = FirmwareImage::open(path, Some(&template)).unwrap();
        assert_eq!(image.variables, other);
    }
}

#[test]
fn test_image_foreign_truncated_or_of_wrong_size_is_refused() {
    let folder = Folder::new("bad");
    folder.write("x_VARS.fd", &variables());
    let is_refused = |bytes: &[u8], why: &str| {
        let message = refused(&folder.write("x_CODE.fd", bytes), None);
        assert!(message.contains("x_CODE.fd") && message.contains(why), "{message}");
    };
    is_refused(&[], "0 bytes");
    is_refused(&code()[..CODE - 1], "whole pages");
    is_refused(&vec![0; MAX_IMAGE_BYTES as usize + 4096], "at most 16 MiB");
    is_refused(&vec![0xFF; CODE], "not UEFI firmware");
    is_refused(&code()[..CODE - 4096], "truncated");
    let mut cut = code()[..CODE - 4096].to_vec();
    *cut.last_mut().unwrap() = 0x90;
    is_refused(&cut, "together");
    is_refused(&variables(), "only a variables file");
}

#[test]
fn test_image_build_that_needs_smm_is_refused_by_its_real_name() {
    let folder = Folder::new("smm");
    let real = folder.write("OVMF_CODE_4M.secboot.fd", &code());
    let link = folder.0.join("OVMF_CODE_4M.ms.fd");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    assert!(refused(&link, None).contains("system management mode"));
}

#[test]
fn test_template_absent_foreign_or_of_another_layout_is_refused() {
    let folder = Folder::new("template");
    let path = folder.write("OVMF_CODE.fd", &code());
    assert!(refused(&path, None).contains("template="));
    let is_refused = |bytes: &[u8], why: &str| {
        let message = refused(&path, Some(&folder.write("vars", bytes)));
        assert!(message.contains(why), "{message}");
    };
    is_refused(&[0; 4096], "not a file of UEFI variables");
    is_refused(&variables()[..VARIABLES - 4096], "truncated");
    is_refused(&volume(VARIABLES * 2, VARIABLES_GUID), "together");
}

#[test]
fn test_image_that_is_no_file_is_refused_without_waiting() {
    let folder = Folder::new("kind");
    assert!(refused(&folder.0, None).contains("not a regular file"));
    assert!(refused(&folder.0.join("absent"), None).contains("cannot be read"));
}

/// The firmware was killed while it replaced the first blocks by those of its journal.
#[test]
fn test_variables_without_a_header_are_accepted_if_the_journal_has_it() {
    let mut bytes = variables();
    let half = bytes.len() / 2;
    bytes.copy_within(..4096, half);
    bytes[..4096].fill(0xFF);
    assert_eq!(check_variables(&bytes), Ok(()));
    bytes[half + 16] ^= 1;
    assert!(check_variables(&bytes).is_err());
}
