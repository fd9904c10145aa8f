use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::diagnostics::Message;
use super::*;
use crate::nvram::{Variables, VolatileStore};

const RAM: usize = 1 << 20;

fn memory() -> GuestMemoryMmap<()> {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap()
}

fn device() -> BiosDevice {
    let nvram = Nvram::new(Variables::new(), Box::new(VolatileStore), None);
    let clock = || Duration::from_secs(5);
    BiosDevice::new(nvram, [7; 16], Box::new(clock), Box::new(|bytes| bytes.fill(0x5A)))
}

fn write(
    device: &mut BiosDevice,
    memory: &GuestMemoryMmap<()>,
    command: u32,
    value: u32,
) -> Option<BiosRequest> {
    device.write_port(0, &command.to_le_bytes(), memory);
    device.write_port(DATA, &value.to_le_bytes(), memory)
}

fn read(device: &mut BiosDevice, memory: &GuestMemoryMmap<()>, command: u32) -> u32 {
    device.write_port(0, &command.to_le_bytes(), memory);
    let mut bytes = [0; 4];
    device.read_port(DATA, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn put(memory: &GuestMemoryMmap<()>, at: u64, bytes: &[u8]) {
    memory.write_slice(bytes, GuestAddress(at)).unwrap();
}

#[test]
fn test_read_unknown_command_is_all_ones_and_nfit_is_zero() {
    let (mut device, memory) = (device(), memory());
    for command in (0..0x100).filter(|command| !(0x27..=0x29).contains(command)) {
        let expected = if command == 0x37 { 0 } else { u32::MAX };
        assert_eq!(read(&mut device, &memory, command), expected, "{command:#x}");
    }
    assert_eq!(read(&mut device, &memory, 0x28), 1);
    assert_eq!(read(&mut device, &memory, 0x29), WATCHDOG_COUNT);
}

#[test]
fn test_access_of_other_width_has_no_effect() {
    let (mut device, memory) = (device(), memory());
    device.write_port(0, &0x37_u32.to_le_bytes(), &memory);
    for data in [&[0x28][..], &[0x28, 0], &[0x28, 0, 0, 0, 0, 0, 0, 0]] {
        device.write_port(0, data, &memory);
        let mut bytes = vec![0; data.len()];
        device.read_port(DATA, &mut bytes);
        assert!(bytes.iter().all(|byte| *byte == 0xFF));
    }
    let mut bytes = [1; 4];
    device.read_port(DATA, &mut bytes);
    assert_eq!(bytes, [0; 4], "the command is unchanged");
    for offset in [1, 2, 3, 5, 7] {
        device.write_port(offset, &[0; 4], &memory);
        device.read_port(offset, &mut bytes);
        assert_eq!(bytes, [0xFF; 4]);
    }
}

#[test]
fn test_watchdog_deadline_is_announced_and_stops_at_reset() {
    let (mut device, memory) = (device(), memory());
    assert_eq!(write(&mut device, &memory, 0x29, 10), Some(BiosRequest::Timer));
    assert_eq!(device.deadline(), None);
    assert_eq!(write(&mut device, &memory, 0x27, 0x13), Some(BiosRequest::Timer));
    assert_eq!(device.deadline(), Some(Duration::from_secs(15)));
    assert!(!device.expire());
    device.reset();
    assert_eq!(device.deadline(), None);
    assert_eq!(read(&mut device, &memory, 0x29), WATCHDOG_COUNT);
}

#[test]
fn test_generation_id_is_written_where_the_guest_wants_it() {
    let (mut device, memory) = (device(), memory());
    assert!(!device.set_generation([8; 16], &memory));
    write(&mut device, &memory, 0x0E, 0x4000);
    write(&mut device, &memory, 0x0F, 0);
    let id = |memory: &GuestMemoryMmap<()>| memory.read_obj::<[u8; 16]>(GuestAddress(0x4000));
    assert_eq!(id(&memory).unwrap(), [8; 16]);
    assert!(device.set_generation([9; 16], &memory));
    assert_eq!(id(&memory).unwrap(), [9; 16]);
    write(&mut device, &memory, 0x0F, u32::MAX);
    assert!(!device.set_generation([1; 16], &memory), "not in RAM");
}

#[test]
fn test_crypto_random_fills_at_most_eight_bytes() {
    let (mut device, memory) = (device(), memory());
    let mut request = |command: u32, target: u64, len: u32| {
        let mut bytes = command.to_le_bytes().to_vec();
        bytes.extend(99_u64.to_le_bytes());
        bytes.extend(target.to_le_bytes());
        bytes.extend(len.to_le_bytes());
        put(&memory, 0x100, &bytes);
        write(&mut device, &memory, 0x26, 0x100);
        memory.read_obj::<u64>(GuestAddress(0x104)).unwrap()
    };
    assert_eq!(request(5, 0x200, 8), 0);
    assert_eq!(request(5, 0x210, 3), 0);
    assert_eq!(request(5, 0x200, 9), 2);
    assert_eq!(request(5, u64::MAX, 8), 7);
    assert_eq!(request(4, 0x200, 8), 3);
    assert_eq!(memory.read_obj::<u64>(GuestAddress(0x200)).unwrap(), 0x5A5A_5A5A_5A5A_5A5A);
    assert_eq!(memory.read_obj::<u32>(GuestAddress(0x210)).unwrap(), 0x5A_5A5A);
    write(&mut device, &memory, 0x26, RAM as u32);
}

fn event(id: u32, data: &[u8]) -> Vec<u8> {
    let mut event = vec![0; 48];
    for number in [id, 0, 64, data.len() as u32] {
        event.extend(number.to_le_bytes());
    }
    event.extend(data);
    event
}

fn boot(status: u32, extended: u64, option: u16) -> Vec<u8> {
    let mut data = status.to_le_bytes().to_vec();
    data.extend(extended.to_le_bytes());
    data.extend(option.to_le_bytes());
    data.extend([0; 4]);
    data
}

fn event_log(memory: &GuestMemoryMmap<()>, lost: u32, events: &[Vec<u8>]) -> Option<EventLines> {
    let events = events.concat();
    let mut log = vec![0; 20];
    log.extend(lost.to_le_bytes());
    log.extend((events.len() as u32).to_le_bytes());
    log.extend(events);
    put(memory, 0x8000, &log);
    EventLines::read(memory, 0x8000)
}

fn texts(lines: &EventLines) -> Vec<&str> {
    lines.lines().iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn test_event_log_becomes_readable_lines() {
    let memory = memory();
    let events = [
        event(1, &boot(0x1_0007, 0x8000_0000_0000_000E, 2)),
        event(1, &boot(0x2_0005, 0, 0x1A)),
        event(1, &boot(0x1_0006, 0, 0)),
        event(1, &boot(0x7_1234, 0, 1)),
        event(1, &[1, 2]),
        event(9, &[0; 3]),
    ];
    let lines = event_log(&memory, 2, &events).unwrap();
    let failures = lines.lines().iter().filter(|line| line.is_failure).count();
    assert_eq!(failures, 4);
    assert_eq!(
        texts(&lines),
        [
            "boot loader could not be loaded, Boot0002, EFI status 0x800000000000000e",
            "Secure Boot: the boot loader is unsigned, and its hash is not in db, Boot001A",
            "no boot device",
            "boot status 0x71234, Boot0001",
            "boot event without status",
            "event 9 with 3 bytes",
            "2 boot events were lost",
        ]
    );
}

#[test]
fn test_event_log_with_no_device_asks_the_machine_to_act() {
    let (mut device, memory) = (device(), memory());
    event_log(&memory, 0, &[event(1, &boot(0x1_0007, 0, 2))]);
    assert_eq!(write(&mut device, &memory, 0x30, 0x8000), None);
    event_log(&memory, 0, &[event(1, &boot(0x1_0007, 0, 2)), event(1, &boot(0x1_0006, 0, 0))]);
    assert_eq!(write(&mut device, &memory, 0x30, 0x8000), Some(BiosRequest::NoBootDevice));
    assert_eq!(write(&mut device, &memory, 0x30, RAM as u32), None);
}

#[test]
fn test_event_log_invalid_lengths_end_it() {
    let memory = memory();
    let good = event(1, &boot(0x1_0006, 0, 0));
    for (at, value) in [(56, 0_u32), (56, 63), (56, u32::MAX), (60, u32::MAX), (60, 1 << 20)] {
        let mut bad = good.clone();
        bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let lines = event_log(&memory, 0, &[good.clone(), bad]).unwrap();
        assert_eq!(texts(&lines), ["no boot device"]);
    }
    put(&memory, 0x8018, &(16385_u32).to_le_bytes());
    assert_eq!(EventLines::read(&memory, 0x8000), None);
    assert_eq!(EventLines::read(&memory, RAM as u64 - 8), None);
    let many = vec![event(9, &[]); 200];
    assert_eq!(event_log(&memory, 0, &many).unwrap().lines().len(), 64);
}

fn alog(version: u16, messages: &[u8], next: u64) -> Vec<u8> {
    let mut log = b"ALOG".to_vec();
    log.extend(version.to_le_bytes());
    log.resize(12, 0);
    for number in [88, 0, 88 + messages.len() as u32, 0, 0x1_0000] {
        log.extend(number.to_le_bytes());
    }
    log.resize(80, 0);
    log.extend(next.to_le_bytes());
    log.extend(messages);
    log
}

fn alm2(level: u32, text: &[u8]) -> Vec<u8> {
    let mut message = b"ALM2\x02\x00".to_vec();
    message.extend(level.to_le_bytes());
    message.extend([0; 10]);
    message.extend((text.len() as u16).to_le_bytes());
    message.extend(24_u16.to_le_bytes());
    message.extend(text);
    message.resize(message.len().next_multiple_of(8), 0);
    message
}

#[test]
fn test_diagnostics_follow_the_chain_to_the_newest_log() {
    let memory = memory();
    let messages = [alm2(0x40, b"info\r\n"), alm2(0x8000_0000, b"bad\x1b[0m")].concat();
    put(&memory, 0x1000, &alog(6, &[], 0x2000));
    put(&memory, 0x2000, &alog(6, &messages, 0));
    let expected = [
        Message { is_error: false, text: "info".to_owned() },
        Message { is_error: true, text: "bad\\u{1b}[0m".to_owned() },
    ];
    assert_eq!(diagnostics::read(&memory, 0x1000).unwrap(), expected);
    put(&memory, 0x2000, &alog(5, &messages, 0x9999_9999));
    assert_eq!(diagnostics::read(&memory, 0x1000).unwrap(), expected, "version 5 has no chain");
}

#[test]
fn test_diagnostics_loops_and_wrong_lengths_are_refused() {
    let memory = memory();
    put(&memory, 0x1000, &alog(6, &[], 0x1000));
    assert_eq!(diagnostics::read(&memory, 0x1000), None, "a loop");
    for (at, value) in [(0, 0_u32), (20, 0), (20, u32::MAX), (28, 3)] {
        let mut log = alog(5, &alm2(0, b"text"), 0);
        log[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(&memory, 0x1000, &log);
        assert_eq!(diagnostics::read(&memory, 0x1000), None, "{at} {value:#x}");
    }
    assert_eq!(diagnostics::read(&memory, RAM as u64 - 4), None);
    let mut flood = device();
    put(&memory, 0x1000, &alog(5, &alm2(0, b"x").repeat(1000), 0));
    write(&mut flood, &memory, 0x2B, 0x1000);
    for _ in 0..3 {
        write(&mut flood, &memory, 0x2C, 1);
    }
}

#[test]
fn test_guest_caused_warnings_are_limited() {
    let (mut device, memory) = (device(), memory());
    vmbus_log::testing::expect_limited("event log", 1000, || {
        write(&mut device, &memory, 0x30, u32::MAX);
    });
    vmbus_log::testing::expect_limited("descriptor", 1000, || {
        write(&mut device, &memory, 0x24, u32::MAX);
    });
}
