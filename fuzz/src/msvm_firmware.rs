//! The ports of Hyper-V's generation 2 firmware, over memory of any content: variable descriptors,
//! event logs, diagnostics, random numbers; authenticated writes with changed bytes; and images and
//! configuration blobs of any content.

use std::cell::RefCell;
use std::time::Duration;

use synthvm_msvm::{
    Attributes, BiosDevice, BlobReader, FirmwareImage, Nvram, VolatileStore, wrap_flat,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmbus_protocol::Guid;

use crate::input::Input;

/// RAM in bytes. Addresses from an input are near its start or its end, so that ranges often
/// overlap or cross the end.
const RAM: u64 = 64 << 10;
const MAX_STEPS: usize = 64;
const MAX_DATA_BYTES: u64 = 32 << 10;
const MAX_STORED_BYTES: usize = 256 << 10;

/// Authenticated writes that are valid one after another: name, vendor, u32 attributes and data. The
/// first two enrol keys.
const WRITES: [(&str, Guid, &[u8]); 8] = [
    ("KEK", GLOBAL, include_bytes!("../../devices/firmware/msvm/src/nvram/vectors/kek.bin")),
    ("PK", GLOBAL, include_bytes!("../../devices/firmware/msvm/src/nvram/vectors/pk.bin")),
    ("db", DATABASES, include_bytes!("../../devices/firmware/msvm/src/nvram/vectors/db.bin")),
    (
        "db",
        DATABASES,
        include_bytes!("../../devices/firmware/msvm/src/nvram/vectors/db-append-older.bin"),
    ),
    (
        "db",
        DATABASES,
        include_bytes!("../../devices/firmware/msvm/src/nvram/vectors/db-attributes.bin"),
    ),
    (
        "dbx",
        DATABASES,
        include_bytes!("../../devices/firmware/msvm/src/nvram/vectors/dbx-chain.bin"),
    ),
    ("Mine", PRIVATE, include_bytes!("../../devices/firmware/msvm/src/nvram/vectors/private.bin")),
    ("PK", GLOBAL, include_bytes!("../../devices/firmware/msvm/src/nvram/vectors/pk-delete.bin")),
];
const GLOBAL: Guid =
    Guid::new(0x8be4_df61, 0x93ca, 0x11d2, [0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c]);
const DATABASES: Guid =
    Guid::new(0xd719_b2cb, 0x3d3a, 0x4596, [0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f]);
const PRIVATE: Guid =
    Guid::new(0x1111_1111, 0x2222, 0x3333, [0x44, 0x44, 0x55, 0x55, 0x55, 0x55, 0x55, 0x55]);

struct World {
    memory: GuestMemoryMmap<()>,
    image: Vec<u8>,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World {
        memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)])
            .expect("mapping 64 KiB"),
        image: wrap_flat(&[0xF4; 16]).expect("a small program"),
    });
}

/// Layout: steps. Each step is an operation and its operands; see [`step`].
pub fn run(data: &[u8]) {
    WORLD.with_borrow_mut(|world| {
        world.memory.write_slice(&[0; RAM as usize], GuestAddress(0)).expect("is RAM");
        let nvram = Nvram::new(Default::default(), Box::new(VolatileStore), None);
        let clock = Box::new(|| Duration::from_secs(1));
        let mut device = BiosDevice::new(nvram, [1; 16], clock, Box::new(|bytes| bytes.fill(1)));
        let mut input = Input::new(data);
        for _ in 0..MAX_STEPS {
            if input.is_empty() {
                break;
            }
            step(world, &mut device, &mut input);
            check(&device);
        }
    });
}

/// Operations: bytes into memory; a command with data; a port access of any width; a variable
/// descriptor; an authenticated write; a reset; a changed image; a blob.
fn step(world: &mut World, device: &mut BiosDevice, input: &mut Input<'_>) {
    let memory = &world.memory;
    match input.u8() % 8 {
        0 => {
            let at = address(input);
            let len = input.u8().into();
            // A range outside RAM is not written.
            let _ = memory.write_slice(input.bytes(len), GuestAddress(at));
        }
        1 => {
            let command = u32::from(input.u8());
            let value = address(input) as u32;
            device.write_port(0, &command.to_le_bytes(), memory);
            device.write_port(4, &value.to_le_bytes(), memory);
        }
        2 => {
            let (offset, len) = (input.u8().into(), usize::from(input.u8() % 9));
            let bytes = input.bytes(len).to_vec();
            device.write_port(offset, &bytes, memory);
            let mut bytes = vec![0; len];
            device.read_port(offset, &mut bytes);
        }
        3 => descriptor(memory, device, input),
        4 => authenticated(memory, device, input),
        5 => {
            device.expire();
            device.reset();
        }
        6 => image(&mut world.image, input),
        _ => {
            let len = input.u8().into();
            let _ = BlobReader::new(input.bytes(len));
        }
    }
}

/// Performs a variable request with a short name.
fn descriptor(memory: &GuestMemoryMmap<()>, device: &mut BiosDevice, input: &mut Input<'_>) {
    let command = u32::from(input.u8() % 8);
    let mut bytes = command.to_le_bytes().to_vec();
    bytes.extend(7_u64.to_le_bytes());
    bytes.extend(u32::from(input.u8()).to_le_bytes());
    bytes.extend(address(input).to_le_bytes());
    bytes.extend(u32::from(input.u16()).to_le_bytes());
    bytes.extend([input.u8() % 2; 16]);
    bytes.extend(address(input).to_le_bytes());
    bytes.extend(u32::from(input.u16()).to_le_bytes());
    let at = address(input);
    if memory.write_slice(&bytes, GuestAddress(at)).is_ok() {
        request(memory, device, at);
    }
}

/// Performs one of [`WRITES`] with up to three changed bytes, and possibly without its end. In user
/// mode a value is stored only if it is the one that was signed.
fn authenticated(memory: &GuestMemoryMmap<()>, device: &mut BiosDevice, input: &mut Input<'_>) {
    let (name, vendor, bytes) = WRITES[usize::from(input.u8()) % WRITES.len()];
    let (attributes, original) = bytes.split_at(4);
    let mut data = original.to_vec();
    for _ in 0..input.u8() % 4 {
        let at = usize::from(input.u16()) % data.len();
        data[at] ^= input.u8();
    }
    if input.u8() % 4 == 1 {
        data.truncate(input.u16().into());
    }
    let is_user_mode = stored(device, GLOBAL, "PK").is_some();
    let before = stored(device, vendor, name);
    let name_bytes: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut descriptor = 1_u32.to_le_bytes().to_vec();
    descriptor.extend(7_u64.to_le_bytes());
    descriptor.extend(attributes);
    descriptor.extend(0x200_u64.to_le_bytes());
    descriptor.extend((name_bytes.len() as u32).to_le_bytes());
    descriptor.extend(vendor.to_bytes());
    descriptor.extend(0x1000_u64.to_le_bytes());
    descriptor.extend((data.len() as u32).to_le_bytes());
    for (at, bytes) in [(0x100, &descriptor), (0x200, &name_bytes), (0x1000, &data)] {
        memory.write_slice(bytes, GuestAddress(at)).expect("is RAM");
    }
    request(memory, device, 0x100);
    let after = stored(device, vendor, name);
    if is_user_mode && after != before {
        // What is stored is the end of the write, also where it was appended.
        let value = after.unwrap_or_default();
        let tail = &value[value.len().saturating_sub(16)..];
        assert!(original.ends_with(tail), "a changed value was accepted");
    }
}

fn stored(device: &BiosDevice, vendor: Guid, name: &str) -> Option<Vec<u8>> {
    let found = device
        .nvram()
        .variables()
        .find(|((guid, known), _)| *guid == vendor && known.to_string() == name);
    found.map(|(_, variable)| variable.data.clone())
}

/// Performs the variable request at `at`. Every request has a status that exists.
fn request(memory: &GuestMemoryMmap<()>, device: &mut BiosDevice, at: u64) {
    device.write_port(0, &0x24_u32.to_le_bytes(), memory);
    device.write_port(4, &(at as u32).to_le_bytes(), memory);
    // A request whose buffers overlap its descriptor may replace the status.
    if let Ok(status) = memory.read_obj::<u64>(GuestAddress(at + 4)) {
        assert_ne!(status, 6, "the firmware would repeat the request for ever");
    }
}

fn image(image: &mut [u8], input: &mut Input<'_>) {
    // The headers of the only volume, file, section and executable.
    let at = 0x5E_0000 + usize::from(input.u8());
    let old = std::mem::replace(&mut image[at], input.u8());
    if let Ok(image) = FirmwareImage::new(image.to_vec()) {
        assert!(image.entry() < image.bytes().len() as u64);
        assert!(image.sec_volume() <= image.entry());
    }
    image[at] = old;
}

fn address(input: &mut Input<'_>) -> u64 {
    let value = input.u16();
    match value >> 14 {
        0 | 1 => u64::from(value),
        2 => RAM - u64::from(value & 0xFF),
        _ => u64::from(u32::MAX) - u64::from(value & 0xFF),
    }
}

/// The store is within its limits, and the read-only variables are as they were.
fn check(device: &BiosDevice) {
    let mut stored = 0;
    for ((_, name), variable) in device.nvram().variables() {
        assert!(!variable.attributes.contains(Attributes::APPEND));
        assert!(variable.data.len() as u64 <= MAX_DATA_BYTES);
        stored += name.bytes().len() + variable.data.len();
        if name.to_string() == "SecureBoot" && !is_fuzzed(name, device) {
            assert_eq!(variable.data, [0]);
        }
    }
    assert!(stored <= 2 * MAX_STORED_BYTES);
}

/// Returns whether the variable has a vendor that the fuzzer uses.
fn is_fuzzed(name: &synthvm_msvm::Name, device: &BiosDevice) -> bool {
    [[0; 16], [1; 16]]
        .iter()
        .any(|vendor| device.nvram().get(Guid::from_bytes(*vendor), name).is_ok())
}
