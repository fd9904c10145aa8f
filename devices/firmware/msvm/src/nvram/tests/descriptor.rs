use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;

const RAM: usize = 1 << 20;
const DESCRIPTOR: u64 = 0x1000;
const NAME: u64 = 0x2000;
const DATA: u64 = 0x3000;

fn memory() -> GuestMemoryMmap<()> {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap()
}

/// A descriptor with every field.
#[derive(Clone, Copy)]
struct Request {
    command: u32,
    attributes: u32,
    name: u64,
    name_bytes: u32,
    vendor: Guid,
    data: u64,
    data_bytes: u32,
}

const GET: Request = Request {
    command: 0,
    attributes: 0,
    name: NAME,
    name_bytes: 4,
    vendor: VENDOR,
    data: DATA,
    data_bytes: 16,
};

impl Request {
    fn perform(self, nvram: &mut Nvram, memory: &GuestMemoryMmap<()>) -> u64 {
        let mut bytes = self.command.to_le_bytes().to_vec();
        bytes.extend(7_u64.to_le_bytes());
        bytes.extend(self.attributes.to_le_bytes());
        bytes.extend(self.name.to_le_bytes());
        bytes.extend(self.name_bytes.to_le_bytes());
        bytes.extend(self.vendor.to_bytes());
        bytes.extend(self.data.to_le_bytes());
        bytes.extend(self.data_bytes.to_le_bytes());
        assert_eq!(bytes.len(), 56);
        memory.write_slice(&bytes, GuestAddress(DESCRIPTOR)).unwrap();
        nvram.perform(memory, DESCRIPTOR);
        memory.read_obj(GuestAddress(DESCRIPTOR + 4)).unwrap()
    }
}

fn field(memory: &GuestMemoryMmap<()>, offset: u64) -> u32 {
    memory.read_obj(GuestAddress(DESCRIPTOR + offset)).unwrap()
}

fn bytes(memory: &GuestMemoryMmap<()>, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

fn with_a() -> (Nvram, GuestMemoryMmap<()>) {
    let (mut nvram, memory) = (nvram(), memory());
    memory.write_slice(name("a").bytes(), GuestAddress(NAME)).unwrap();
    memory.write_slice(b"value", GuestAddress(DATA)).unwrap();
    let set = Request { command: 1, attributes: KEPT, data_bytes: 5, ..GET };
    assert_eq!(set.perform(&mut nvram, &memory), 0);
    memory.write_slice(&[0; 16], GuestAddress(DATA)).unwrap();
    (nvram, memory)
}

#[test]
fn test_descriptor_get_returns_value_size_and_attributes() {
    let (mut nvram, memory) = with_a();
    assert_eq!(GET.perform(&mut nvram, &memory), 0);
    assert_eq!((field(&memory, 12), field(&memory, 52)), (KEPT, 5));
    assert_eq!(bytes(&memory, DATA, 6), b"value\0");
}

#[test]
fn test_descriptor_get_small_buffer_returns_the_needed_size() {
    let (mut nvram, memory) = with_a();
    assert_eq!(Request { data_bytes: 4, ..GET }.perform(&mut nvram, &memory), 5);
    assert_eq!(field(&memory, 52), 5);
    assert_eq!(Request { data: 0, ..GET }.perform(&mut nvram, &memory), 5);
    assert_eq!(bytes(&memory, DATA, 5), [0; 5]);
}

#[test]
fn test_descriptor_addresses_outside_ram_are_device_errors() {
    let (mut nvram, memory) = with_a();
    for address in [RAM as u64, u64::MAX, u64::MAX - 2, RAM as u64 - 2] {
        assert_eq!(Request { data: address, ..GET }.perform(&mut nvram, &memory), 7);
        assert_eq!(Request { name: address, ..GET }.perform(&mut nvram, &memory), 7);
        let set = Request { command: 1, attributes: KEPT, data: address, ..GET };
        assert_eq!(set.perform(&mut nvram, &memory), 7);
        assert_eq!(nvram.perform(&memory, address), NvramRequest::NotRam);
    }
    assert_eq!(GET.perform(&mut nvram, &memory), 0);
    assert_eq!(Request { name: 0, ..GET }.perform(&mut nvram, &memory), 2);
    let huge = Request { command: 1, attributes: KEPT, data_bytes: u32::MAX, ..GET };
    assert_eq!(huge.perform(&mut nvram, &memory), 2);
}

#[test]
fn test_descriptor_names_are_listed_to_the_end() {
    let (mut nvram, memory) = with_a();
    let first = Request { command: 2, name_bytes: 256, vendor: Guid::default(), ..GET };
    let mut status = first.perform(&mut nvram, &memory);
    let mut listed = Vec::new();
    while status == 0 {
        let len = field(&memory, 24);
        let vendor = bytes(&memory, DESCRIPTOR + 28, 16);
        let vendor = Guid::from_bytes(vendor.try_into().unwrap());
        listed.push((vendor, Name::from_guest(&bytes(&memory, NAME, len as usize)).unwrap()));
        let next = Request { command: 3, name_bytes: 256, vendor, ..GET };
        status = next.perform(&mut nvram, &memory);
    }
    assert_eq!(status, 14);
    let all: Vec<_> = nvram.variables().map(|(key, _)| key.clone()).collect();
    assert_eq!(listed, all);
}

#[test]
fn test_descriptor_next_small_buffer_keeps_the_name() {
    let (mut nvram, memory) = with_a();
    let first = Request { command: 2, name_bytes: 2, ..GET };
    assert_eq!(first.perform(&mut nvram, &memory), 5);
    let (_, name) = nvram.next(None).unwrap();
    assert_eq!(field(&memory, 24) as usize, name.bytes().len());
    assert_eq!(bytes(&memory, NAME, 4), super::name("a").bytes());
    let unknown = Request { command: 3, vendor: Guid::default(), ..GET };
    assert_eq!(unknown.perform(&mut nvram, &memory), 2);
}

#[test]
fn test_descriptor_query_runtime_and_unknown_commands() {
    let (mut nvram, memory) = with_a();
    let query = Request { command: 4, attributes: KEPT, ..GET };
    assert_eq!(query.perform(&mut nvram, &memory), 0);
    let maximum: u64 = memory.read_obj(GuestAddress(DESCRIPTOR + 16)).unwrap();
    assert_eq!(maximum, MAX_STORED_BYTES as u64);
    assert_eq!(Request { command: 5, ..GET }.perform(&mut nvram, &memory), 0);
    let boot_only = Request { command: 1, attributes: BOOT, ..GET };
    assert_eq!(boot_only.perform(&mut nvram, &memory), 2);
    assert_eq!(Request { command: 99, ..GET }.perform(&mut nvram, &memory), 3);
}

#[test]
fn test_descriptor_debug_string_is_read_up_to_its_limit() {
    let (mut nvram, memory) = with_a();
    let text: Vec<u8> = "hello".encode_utf16().flat_map(u16::to_le_bytes).collect();
    memory.write_slice(&text, GuestAddress(DATA)).unwrap();
    let request = Request { command: 6, name: DATA, name_bytes: 10, ..GET };
    request.perform(&mut nvram, &memory);
    let outcome = nvram.perform(&memory, DESCRIPTOR);
    assert_eq!(outcome, NvramRequest::DebugString("hello".to_owned()));
    let long = Request { command: 6, name: DATA, name_bytes: u32::MAX, ..GET };
    assert_eq!(long.perform(&mut nvram, &memory), 0);
}
