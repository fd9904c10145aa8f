//! The device over an swtpm that this test plays.

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vm_device::DeviceMmio;
use vm_device::bus::MmioAddress;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::control::MAX_BLOB;
use crate::emulator::poll;
use crate::registers::{BASE, BUFFER_SIZE, HEADER_SIZE};
use crate::{BlobKind, Emulator, StateBlob, Timeouts, TpmDevice, TpmError, TpmState};

const LOC_CTRL: u64 = 0x08;
const CTRL_REQ: u64 = 0x40;
const CTRL_STS: u64 = 0x44;
const CTRL_CANCEL: u64 = 0x48;
const CTRL_START: u64 = 0x4C;
const BUFFER: u64 = 0x80;

const INIT: u32 = 0x02;
const CANCEL: u32 = 0x09;
const GET_STATE_BLOB: u32 = 0x0C;
const SET_BUFFER_SIZE: u32 = 0x11;

/// TPM_RC_CANCELED.
const CANCELED: u32 = 0x909;

/// Long enough for a slow machine where an answer comes, short where none does.
const TIMEOUTS: Timeouts =
    Timeouts { control: Duration::from_secs(60), command: Duration::from_secs(60) };
const SHORT: Timeouts =
    Timeouts { control: Duration::from_millis(50), command: Duration::from_millis(50) };

/// What the fake does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Answers this control command with an error.
    Refuse(u32),
    /// Ends at this control command.
    End(u32),
    /// Answers half of a result to this control command, and ends.
    Half(u32),
    /// Does not answer this control command.
    Silence(u32),
    /// Has these capabilities only.
    Capabilities(u32),
    /// Has a buffer of this size.
    Buffer(u32),
    /// Says that a state blob has this length, and sends none.
    Blob(u32),
    /// Closes both channels at a TPM command.
    EndAtCommand,
    /// Does not answer a TPM command.
    SilenceAtCommand,
    /// Answers a TPM command with a header of this size and no more.
    Size(u32),
    /// Answers a TPM command with a response and a byte more.
    Extra,
    /// Answers a TPM command byte by byte.
    ByteByByte,
    /// Sends a byte before any command.
    Unasked,
    /// Answers a TPM command only after a CANCEL.
    UntilCancelled,
}

struct Fake {
    control: UnixStream,
    data: Option<UnixStream>,
    fault: Fault,
    /// Control commands, and TPM commands with their code.
    log: Vec<u32>,
    blob: Vec<u8>,
    command_waits: bool,
}

impl Fake {
    fn start(fault: Fault) -> (UnixStream, JoinHandle<Vec<u32>>) {
        let (near, control) = UnixStream::pair().unwrap();
        let blob = (0..=255).cycle().take(1000).collect();
        let fake = Fake { control, data: None, fault, log: Vec::new(), blob, command_waits: false };
        (near, thread::spawn(move || fake.serve()))
    }

    fn serve(mut self) -> Vec<u32> {
        loop {
            let data = self.data.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            let [_, data] = poll([self.control.as_raw_fd(), data], None).unwrap();
            // The command first: a CANCEL behind it is for it.
            let goes_on = if data { self.serve_command() } else { self.serve_control() };
            if !goes_on {
                return self.log;
            }
        }
    }

    fn words<const N: usize>(&mut self) -> [u32; N] {
        [(); N].map(|()| {
            let mut bytes = [0; 4];
            self.control.read_exact(&mut bytes).unwrap();
            u32::from_be_bytes(bytes)
        })
    }

    /// Answers one control command. Returns false at the end.
    fn serve_control(&mut self) -> bool {
        let mut bytes = [0; 4];
        // An error means that the device closed the channel with an answer in it.
        let (read, fd) = self.control.recv_with_fd(&mut bytes[..]).unwrap_or_default();
        if read == 0 {
            return false;
        }
        let command = u32::from_be_bytes(bytes);
        self.log.push(command);
        let mut answer = vec![0];
        match command {
            0x01 => {
                let all = 0xFFFF;
                answer.push(if let Fault::Capabilities(bits) = self.fault { bits } else { all });
            }
            INIT | 0x05 | 0x0B => {
                self.words::<1>();
            }
            0x04 => answer.push(0),
            SET_BUFFER_SIZE => {
                let [wanted] = self.words();
                let size = if let Fault::Buffer(size) = self.fault { size } else { wanted };
                answer.extend([size, 1024, 4096]);
            }
            GET_STATE_BLOB => {
                let [_, kind, _] = self.words();
                let length = self.blob.len() as u32;
                let length = if let Fault::Blob(length) = self.fault { length } else { length };
                answer.extend([if kind == 1 { 2 } else { 0 }, length, length]);
            }
            0x0D => {
                let [_, _, length] = self.words();
                self.blob = vec![0; length as usize];
                self.control.read_exact(&mut self.blob).unwrap();
            }
            0x10 => self.data = Some(UnixStream::from(std::os::fd::OwnedFd::from(fd.unwrap()))),
            _ => {}
        }
        let bytes: Vec<u8> = answer.iter().flat_map(|word: &u32| word.to_be_bytes()).collect();
        match self.fault {
            Fault::End(at) if at == command => return false,
            Fault::Half(at) if at == command => {
                self.control.write_all(&bytes[..2]).unwrap();
                return false;
            }
            Fault::Silence(at) if at == command => return true,
            Fault::Refuse(at) if at == command => {
                self.control.write_all(&0x0A_u32.to_be_bytes()).unwrap();
                return true;
            }
            _ => {}
        }
        self.control.write_all(&bytes).unwrap();
        if command == GET_STATE_BLOB && !matches!(self.fault, Fault::Blob(_)) {
            self.control.write_all(&self.blob).unwrap();
        }
        if command == CANCEL && std::mem::take(&mut self.command_waits) {
            self.respond(&response(CANCELED));
        }
        if command == 0x04 && self.fault == Fault::Unasked {
            self.respond(&[1]);
        }
        true
    }

    fn serve_command(&mut self) -> bool {
        let mut bytes = [0; BUFFER_SIZE];
        let read = self.data.as_mut().unwrap().read(&mut bytes).unwrap_or(0);
        if read == 0 {
            return false;
        }
        let code = u32::from_be_bytes(*bytes[6..].first_chunk().unwrap());
        self.log.push(code);
        let good = response(0);
        match self.fault {
            Fault::EndAtCommand => return false,
            Fault::SilenceAtCommand => {}
            Fault::UntilCancelled => self.command_waits = true,
            Fault::Size(size) => {
                let mut bad = good;
                bad[2..6].copy_from_slice(&size.to_be_bytes());
                self.respond(&bad);
            }
            Fault::Extra => self.respond(&[&good[..], &[0]].concat()),
            Fault::ByteByByte => good.iter().for_each(|byte| self.respond(&[*byte])),
            _ => self.respond(&good),
        }
        true
    }

    fn respond(&mut self, bytes: &[u8]) {
        // The device may have given up.
        let _ = self.data.as_mut().unwrap().write_all(bytes);
    }
}

/// A response, or a command, without parameters.
fn response(code: u32) -> Vec<u8> {
    [&[0x80, 0x01, 0, 0, 0, 10][..], &code.to_be_bytes()].concat()
}

fn started(fault: Fault, timeouts: Timeouts) -> Result<Emulator, TpmError> {
    Emulator::over(Fake::start(fault).0, timeouts)
}

/// A guest's driver.
struct Driver(TpmDevice);

impl Driver {
    fn new(fault: Fault, timeouts: Timeouts) -> Driver {
        Driver(TpmDevice::new(started(fault, timeouts).unwrap()).unwrap())
    }

    fn read(&self, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.0.mmio_read(MmioAddress(BASE), offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, offset: u64, value: u32) {
        self.0.mmio_write(MmioAddress(BASE), offset, &value.to_le_bytes());
    }

    fn begin(&self, command: &[u8]) {
        self.write(LOC_CTRL, 1);
        self.write(CTRL_REQ, 1);
        self.0.mmio_write(MmioAddress(BASE), BUFFER, command);
        self.write(CTRL_START, 1);
    }

    fn wait(&self) {
        while self.read(CTRL_START) != 0 {
            thread::yield_now();
        }
    }

    fn wait_failed(&self) -> String {
        while self.0.report().state != TpmState::Failed {
            thread::yield_now();
        }
        self.0.report().failure.unwrap()
    }

    fn response(&self) -> Vec<u8> {
        let mut bytes = [0; HEADER_SIZE];
        self.0.mmio_read(MmioAddress(BASE), BUFFER, &mut bytes);
        bytes.to_vec()
    }
}

#[test]
fn test_start_passes_the_data_channel_and_powers_the_tpm_on_in_the_order_of_the_specification() {
    let (control, fake) = Fake::start(Fault::None);
    drop(Emulator::over(control, TIMEOUTS).unwrap());
    assert_eq!(fake.join().unwrap(), [0x10, 0x01, 0x0E, 0x11, 0x02, 0x05, 0x04]);
}

#[test]
fn test_start_with_a_command_refused_missing_or_unanswered_names_it() {
    let commands = [
        (0x10, "DATAFD"),
        (0x01, "CAPAB"),
        (0x0E, "STOP"),
        (0x11, "BUFFER"),
        (0x02, "INIT"),
        (0x05, "LOCALITY"),
        (0x04, "ESTABLISHED"),
    ];
    for (command, name) in commands {
        let error = started(Fault::Refuse(command), TIMEOUTS).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("error 0xa"), "{error}");
        for fault in [Fault::End(command), Fault::Half(command)] {
            let error = started(fault, TIMEOUTS).unwrap_err();
            assert!(matches!(error, TpmError::Ended(_)), "{fault:?}: {error}");
        }
        let error = started(Fault::Silence(command), SHORT).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("in time"), "{error}");
    }
    let error = started(Fault::Capabilities(0xFFFF & !0x400), TIMEOUTS).unwrap_err().to_string();
    assert!(error.contains("no command STOP"), "{error}");
    let error = started(Fault::Buffer(2048), TIMEOUTS).unwrap_err().to_string();
    assert!(error.contains("2048"), "{error}");
}

#[test]
fn test_command_runs_on_the_thread_and_its_response_is_in_the_buffer() {
    for fault in [Fault::None, Fault::ByteByByte] {
        let driver = Driver::new(fault, TIMEOUTS);
        for _ in 0..3 {
            driver.begin(&response(0x144));
            driver.wait();
            assert_eq!(driver.response(), response(0));
        }
        let report = driver.0.report();
        assert_eq!((report.state, report.commands, report.failure), (TpmState::Idle, 3, None));
    }
}

#[test]
fn test_swtpm_that_dies_hangs_or_answers_garbage_fails_the_tpm_with_its_reason() {
    let cases = [
        (Fault::EndAtCommand, TIMEOUTS, "ended"),
        (Fault::SilenceAtCommand, Timeouts { command: SHORT.command, ..TIMEOUTS }, "in time"),
        (Fault::Size(0), TIMEOUTS, "malformed"),
        (Fault::Size(9), TIMEOUTS, "malformed"),
        (Fault::Size(3969), TIMEOUTS, "malformed"),
        (Fault::Size(u32::MAX), TIMEOUTS, "malformed"),
        (Fault::Extra, TIMEOUTS, "malformed"),
    ];
    for (fault, timeouts, reason) in cases {
        let driver = Driver::new(fault, timeouts);
        driver.begin(&response(0x144));
        let failure = driver.wait_failed();
        assert!(failure.contains(reason), "{fault:?}: {failure}");
        assert_eq!((driver.read(CTRL_START), driver.read(CTRL_STS) & 1), (0, 1), "{fault:?}");
        driver.write(CTRL_START, 1);
        assert_eq!(driver.read(CTRL_START), 0, "it takes no further command");
        driver.0.reset();
        assert_eq!(driver.read(CTRL_STS) & 1, 1, "a reset does not help");
    }
}

#[test]
fn test_swtpm_that_sends_what_was_not_asked_for_or_ends_between_commands_fails_the_tpm() {
    let failure = Driver::new(Fault::Unasked, TIMEOUTS).wait_failed();
    assert!(failure.contains("malformed"), "{failure}");
    let (control, far) = UnixStream::pair().unwrap();
    let fake = Fake {
        control: far,
        data: None,
        fault: Fault::None,
        log: Vec::new(),
        blob: Vec::new(),
        command_waits: false,
    };
    let ends = thread::spawn(move || {
        let mut fake = fake;
        while fake.log.last() != Some(&0x04) {
            fake.serve_control();
        }
    });
    let driver = Driver(TpmDevice::new(Emulator::over(control, TIMEOUTS).unwrap()).unwrap());
    ends.join().unwrap();
    let failure = driver.wait_failed();
    assert!(failure.contains("ended"), "{failure}");
}

#[test]
fn test_cancel_ends_a_command_and_the_next_one_runs() {
    let driver = Driver::new(Fault::UntilCancelled, TIMEOUTS);
    for _ in 0..2 {
        driver.begin(&response(0x131));
        driver.write(CTRL_CANCEL, 1);
        driver.wait();
        assert_eq!(driver.response(), response(CANCELED));
        driver.write(CTRL_CANCEL, 0);
    }
}

#[test]
fn test_reset_during_a_command_drops_its_response_and_powers_the_tpm_on_again() {
    let (control, fake) = Fake::start(Fault::UntilCancelled);
    let driver = Driver(TpmDevice::new(Emulator::over(control, TIMEOUTS).unwrap()).unwrap());
    driver.begin(&response(0x131));
    while !driver.0.report().state.eq(&TpmState::Busy) {
        thread::yield_now();
    }
    driver.0.reset();
    assert_eq!(driver.read(CTRL_START), 0);
    driver.begin(&response(0x132));
    driver.write(CTRL_CANCEL, 1);
    driver.wait();
    assert_eq!(driver.response(), response(CANCELED));
    drop(driver);
    let log = fake.join().unwrap();
    let inits: Vec<usize> =
        log.iter().enumerate().filter(|(_, word)| **word == INIT).map(|(at, _)| at).collect();
    let second = log.iter().position(|word| *word == 0x132).unwrap();
    assert!(inits.len() == 2 && inits[1] < second, "{log:x?}");
    assert_eq!(log.last(), Some(&0x03), "the TPM is powered off at the end");
}

#[test]
fn test_device_dropped_while_a_command_runs_does_not_wait_for_it() {
    let driver = Driver::new(Fault::SilenceAtCommand, TIMEOUTS);
    driver.begin(&response(0x131));
    drop(driver);
}

#[test]
fn test_state_blobs_are_read_and_written_whole() {
    let mut emulator = started(Fault::None, TIMEOUTS).unwrap();
    let blob = emulator.state_blob(BlobKind::Permanent).unwrap();
    assert!(blob.encrypted && blob.data.len() == 1000);
    let other = StateBlob { data: vec![5; 70_000], encrypted: false };
    emulator.restore(&[(BlobKind::Volatile, other.clone())]).unwrap();
    assert_eq!(emulator.state_blob(BlobKind::Volatile).unwrap(), other);
    let mut emulator = started(Fault::Blob(MAX_BLOB as u32 + 1), TIMEOUTS).unwrap();
    let error = emulator.state_blob(BlobKind::Volatile).unwrap_err();
    assert!(matches!(error, TpmError::Garbage(_)), "{error}");
}

#[test]
fn test_program_that_is_missing_or_ends_is_named_with_the_remedy() {
    let options = |program: &str| crate::SwtpmOptions { program: program.into(), state: None };
    let error = Emulator::start(&options("/no/swtpm"), TIMEOUTS).unwrap_err().to_string();
    assert!(error.contains("`/no/swtpm`") && error.contains("install swtpm"), "{error}");
    let error = Emulator::start(&options("/bin/false"), TIMEOUTS).unwrap_err();
    assert!(matches!(error, TpmError::Ended(_)), "{error}");
}
