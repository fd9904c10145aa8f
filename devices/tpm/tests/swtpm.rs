//! The device over the real swtpm, whose path is in `SYNTHVM_SWTPM` (`cargo xtask test` sets it).

mod commands;

use std::path::{Path, PathBuf};
use std::thread;

use commands::{GET_16_RANDOM, READ_CLOCK, READ_PCR, extend_pcr};
use synthvm_tpm::{
    BASE, BlobKind, Emulator, StateBlob, StateError, SwtpmOptions, Timeouts, TpmDevice, TpmError,
    TpmState,
};
use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;

const PROGRAM: &str = "SYNTHVM_SWTPM";

const STARTUP_CLEAR: &[u8] = &[0x80, 1, 0, 0, 0, 12, 0, 0, 0x01, 0x44, 0, 0];

/// A folder that is removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("synthvm-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn start(state: &Path) -> Option<Result<Emulator, TpmError>> {
    let Some(program) = std::env::var_os(PROGRAM) else {
        eprintln!("left out: {PROGRAM} names no swtpm");
        return None;
    };
    let options = SwtpmOptions { program: program.into(), state: Some(state.to_owned()) };
    Some(Emulator::start(&options, Timeouts::default()))
}

/// Runs a command through the registers, and returns its response.
fn run(device: &TpmDevice, command: &[u8]) -> Vec<u8> {
    let write = |offset, data: &[u8]| device.mmio_write(MmioAddress(BASE), offset, data);
    let read = |offset, data: &mut [u8]| device.mmio_read(MmioAddress(BASE), offset, data);
    write(0x08, &[1, 0, 0, 0]);
    write(0x40, &[1, 0, 0, 0]);
    write(0x80, command);
    write(0x4C, &[1, 0, 0, 0]);
    let mut word = [1; 4];
    while word != [0; 4] {
        thread::yield_now();
        read(0x4C, &mut word);
    }
    read(0x44, &mut word);
    assert_eq!(word[0] & 1, 0, "{:?}", device.report());
    let mut header = [0; 10];
    read(0x80, &mut header);
    let size = u32::from_be_bytes(*header[2..].first_chunk().unwrap());
    let mut response = vec![0; size as usize];
    read(0x80, &mut response);
    response
}

fn code(response: &[u8]) -> u32 {
    u32::from_be_bytes(*response[6..].first_chunk().unwrap())
}

/// Runs a command that must succeed.
fn good(device: &TpmDevice, command: &[u8]) -> Vec<u8> {
    let response = run(device, command);
    assert_eq!(code(&response), 0, "{response:x?}");
    response
}

/// Returns the count of TPM resets, which each power cycle increases.
fn resets(device: &TpmDevice) -> u32 {
    // The header, u64 time, u64 clock, u32 reset count.
    u32::from_be_bytes(*good(device, READ_CLOCK)[26..].first_chunk().unwrap())
}

/// Starts a TPM on a folder that was released. A program that another test's thread is starting has
/// the locks of this process until it runs.
fn start_released(state: &Path) -> Emulator {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        match start(state).unwrap() {
            Err(TpmError::State(StateError::Locked(_))) if std::time::Instant::now() < end => {
                thread::yield_now();
            }
            started => return started.unwrap(),
        }
    }
}

fn pcr(device: &TpmDevice) -> Vec<u8> {
    good(device, READ_PCR).split_off(30)
}

#[test]
fn test_swtpm_answers_through_the_registers_and_keeps_its_state() {
    let folder = Folder::new("tpm-state");
    let Some(emulator) = start(&folder.state()) else { return };
    let device = TpmDevice::new(emulator.unwrap()).unwrap();
    assert_eq!(code(&run(&device, GET_16_RANDOM)), 0x100, "TPM_RC_INITIALIZE before the startup");
    good(&device, STARTUP_CLEAR);
    let (first, second) = (good(&device, GET_16_RANDOM), good(&device, GET_16_RANDOM));
    assert_eq!((first.len(), first[10..12].to_vec()), (28, vec![0, 16]));
    assert_ne!(first, second);
    let before = pcr(&device);
    good(&device, &extend_pcr());
    let after = pcr(&device);
    assert_ne!(before, after);
    let count = resets(&device);

    // A reset of the machine is a power cycle of the TPM.
    device.reset();
    good(&device, STARTUP_CLEAR);
    assert_eq!((pcr(&device), resets(&device)), (before, count + 1));
    // The folder belongs to the machine until its end.
    let error = start(&folder.state()).unwrap().unwrap_err();
    assert!(matches!(error, TpmError::State(StateError::Locked(_))), "{error}");
    drop(device);
    let device = TpmDevice::new(start_released(&folder.state())).unwrap();
    good(&device, STARTUP_CLEAR);
    assert_eq!(resets(&device), count + 2, "the state outlives the machine");
}

#[test]
fn test_swtpm_killed_fails_the_tpm() {
    let folder = Folder::new("tpm-killed");
    let Some(emulator) = start(&folder.state()) else { return };
    let emulator = emulator.unwrap();
    let process = emulator.process().unwrap();
    let device = TpmDevice::new(emulator).unwrap();
    // SAFETY: the call takes numbers and accesses no memory; the process is this one's child,
    // which has not been waited for.
    assert_eq!(unsafe { libc::kill(process as i32, libc::SIGKILL) }, 0);
    while device.report().state != TpmState::Failed {
        thread::yield_now();
    }
    assert!(device.report().failure.unwrap().contains("swtpm ended"));
}

#[test]
fn test_state_saved_is_restored_whole_in_another_swtpm() {
    let (from, to) = (Folder::new("tpm-saved"), Folder::new("tpm-restored"));
    let Some(emulator) = start(&from.state()) else { return };
    let mut emulator = emulator.unwrap();
    let mut restored = start(&to.state()).unwrap().unwrap();
    let parts = [BlobKind::Permanent, BlobKind::Volatile, BlobKind::SaveState];
    let saved: Vec<(BlobKind, StateBlob)> = parts
        .into_iter()
        .map(|kind| (kind, emulator.state_blob(kind).unwrap()))
        .filter(|(_, blob)| !blob.data.is_empty())
        .collect();
    assert!(saved.len() >= 2, "{saved:?}");
    restored.restore(&saved).unwrap();
    for (kind, blob) in &saved {
        assert_eq!(restored.state_blob(*kind).unwrap().data.len(), blob.data.len(), "{kind:?}");
    }
}
