use std::io::Write;
use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::*;

const RAM: u64 = 1 << 20;

fn memory() -> GuestMemoryMmap<()> {
    let high = (GuestAddress(1 << 32), RAM as usize);
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize), high]).unwrap()
}

fn device() -> FwCfg {
    let mut device = FwCfg::new();
    device.add_file("etc/one", vec![1; 10]).unwrap();
    device.add_file("etc/two", (0..=255).collect::<Vec<u8>>()).unwrap();
    device
}

/// Runs a transfer whose control block is at `block`, and returns the block's control word.
fn dma(device: &mut FwCfg, block: u64, control: u32, len: u32, data: u64) -> u32 {
    let memory = memory();
    dma_in(&memory, device, block, control, len, data)
}

fn dma_in(
    memory: &GuestMemoryMmap<()>,
    device: &mut FwCfg,
    block: u64,
    control: u32,
    len: u32,
    data: u64,
) -> u32 {
    let mut bytes = Vec::new();
    bytes.extend(control.to_be_bytes());
    bytes.extend(len.to_be_bytes());
    bytes.extend(data.to_be_bytes());
    memory.write_slice(&bytes, GuestAddress(block)).unwrap();
    device.write_port(DMA_HIGH, &((block >> 32) as u32).to_be_bytes(), memory);
    device.write_port(DMA_LOW, &(block as u32).to_be_bytes(), memory);
    u32::from_be(memory.read_obj(GuestAddress(block)).unwrap())
}

fn read(device: &mut FwCfg, key: u16, len: usize) -> Vec<u8> {
    device.write_port(SELECTOR, &key.to_le_bytes(), &memory());
    let next = |_| {
        let mut byte = [0];
        device.read_port(DATA, &mut byte);
        byte[0]
    };
    (0..len).map(next).collect()
}

#[test]
fn test_signature_features_and_directory_by_port() {
    let mut device = device();
    assert_eq!(read(&mut device, key::SIGNATURE, 6), b"QEMU\0\0");
    assert_eq!(read(&mut device, key::ID, 4), [3, 0, 0, 0]);
    let directory = read(&mut device, key::DIRECTORY, 4 + 2 * ENTRY_BYTES);
    assert_eq!(directory[..4], [0, 0, 0, 2]);
    assert_eq!(directory[4..20], *b"\0\0\0\x0A\0\x20\0\0etc/one\0");
    assert_eq!(directory[68..76], [0, 0, 1, 0, 0, 0x21, 0, 0]);
    let mut signature = [0; 4];
    device.read_port(DMA_HIGH, &mut signature);
    assert_eq!(&signature, b"QEMU");
}

#[test]
fn test_data_register_absent_item_reads_zero() {
    assert_eq!(read(&mut device(), 0x7777, 3), [0; 3]);
}

#[test]
fn test_dma_selects_skips_and_reads_across_chunks() {
    let mut device = FwCfg::new();
    let content: Vec<u8> = (0..200_000_u32).map(|byte| byte as u8).collect();
    device.add_file("big", content.clone()).unwrap();
    let memory = memory();
    assert_eq!(dma_in(&memory, &mut device, 0x100, 0x20_0000 | 8 | 4, 3, 0), 0);
    assert_eq!(dma_in(&memory, &mut device, 0x100, 2, 199_997, 0x1000), 0);
    let mut found = vec![0; 199_997];
    memory.read_slice(&mut found, GuestAddress(0x1000)).unwrap();
    assert!(found == content[3..]);
}

#[test]
fn test_dma_reads_a_file_of_the_host_above_4_gib() {
    let path = std::env::temp_dir().join(format!("synthvm-fw-cfg-{}", std::process::id()));
    std::fs::File::create(&path).unwrap().write_all(b"kernel").unwrap();
    let file = Arc::new(std::fs::File::open(&path).unwrap());
    let mut device = FwCfg::new();
    device.set(key::KERNEL_DATA, Content::File { file: Arc::clone(&file), len: 6 }).unwrap();
    let (memory, data) = (memory(), (1 << 32) + 0x100);
    assert_eq!(dma_in(&memory, &mut device, 1 << 32, 0x11_0000 | 8 | 2, 6, data), 0);
    assert_eq!(memory.read_obj::<[u8; 7]>(GuestAddress(data)).unwrap(), *b"kernel\0");
    // A file that was cut fails the transfer.
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(2).unwrap();
    assert_eq!(dma_in(&memory, &mut device, 0x100, 0x11_0000 | 8 | 2, 6, 0x1000), 1);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn test_dma_pads_a_short_item_with_zeros_up_to_a_page() {
    let memory = memory();
    memory.write_slice(&[0xEE; 5000], GuestAddress(0x1000)).unwrap();
    assert_eq!(dma_in(&memory, &mut device(), 0, 0x20_0000 | 8 | 2, 4106, 0x1000), 0);
    let mut found = [0; 4107];
    memory.read_slice(&mut found, GuestAddress(0x1000)).unwrap();
    assert_eq!(found[..10], [1; 10]);
    assert!(found[10..4106].iter().all(|byte| *byte == 0));
    assert_eq!(found[4106], 0xEE);
    assert_eq!(dma(&mut device(), 0, 0x20_0000 | 8 | 2, 4107, 0x1000), 1, "endless");
}

#[test]
fn test_dma_outside_ram_or_over_its_control_block_is_refused_and_writes_nothing() {
    let bad = [
        ("behind the low RAM", RAM - 4, 10),
        ("in the hole", 0x8000_0000, 10),
        ("at the end of the address space", u64::MAX - 3, 10),
        ("the control block", 0x100, 10),
        ("the control block's last byte", 0x10F, 1),
        ("up to the control block", 0xF7, 10),
    ];
    for (what, data, len) in bad {
        let memory = memory();
        memory.write_slice(&[0xEE; 4], GuestAddress(RAM - 4)).unwrap();
        let control = dma_in(&memory, &mut device(), 0x100, 0x20_0000 | 8 | 2, len, data);
        assert_eq!(control, 1, "{what}");
        assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(RAM - 4)).unwrap(), [0xEE; 4]);
        assert_eq!(memory.read_obj::<[u8; 4]>(GuestAddress(0xFC)).unwrap(), [0; 4]);
    }
}

#[test]
fn test_dma_with_its_control_block_outside_ram_is_ignored() {
    let memory = memory();
    let mut device = device();
    for block in [RAM - 8, 0xFFFF_FFFF_u64, u64::MAX - 7, RAM] {
        device.write_port(DMA_HIGH, &((block >> 32) as u32).to_be_bytes(), &memory);
        device.write_port(DMA_LOW, &(block as u32).to_be_bytes(), &memory);
    }
    assert_eq!(read(&mut device, key::SIGNATURE, 4), b"QEMU");
}

#[test]
fn test_dma_write_is_refused_and_changes_no_item() {
    let mut device = device();
    assert_eq!(dma(&mut device, 0, 0x20_0000 | 8 | 0x10, 4, 0x1000), 1);
    assert_eq!(read(&mut device, key::FIRST_FILE, 10), [1; 10]);
}

#[test]
fn test_dma_skip_without_end_stays_behind_the_item() {
    let memory = memory();
    let mut device = device();
    for _ in 0..3 {
        assert_eq!(dma_in(&memory, &mut device, 0, 4, u32::MAX, 0), 0);
    }
    assert_eq!(dma_in(&memory, &mut device, 0, 2, 4, 0x1000), 0);
}

#[test]
fn test_accesses_of_odd_width_and_place_do_nothing() {
    let mut device = device();
    for offset in 0..FwCfg::PORTS {
        for width in [1, 2, 4] {
            let mut data = [0; 4];
            device.write_port(offset, &[0xFF; 4][..width], &memory());
            device.read_port(offset, &mut data[..width]);
        }
    }
    device.reset();
    assert_eq!(read(&mut device, key::SIGNATURE, 4), b"QEMU");
}

#[test]
fn test_files_with_bad_or_known_names_and_too_many_are_refused() {
    let mut device = device();
    let mut add = |name: &str| device.add_file(name, vec![]);
    assert_eq!(add(""), Err(FwCfgError::Name(String::new())));
    assert_eq!(add(&"x".repeat(56)), Err(FwCfgError::Name("x".repeat(56))));
    assert_eq!(add("etc/one"), Err(FwCfgError::Twice("etc/one".into())));
    (2..64).for_each(|index| add(&format!("{index}")).unwrap());
    assert_eq!(add("one more"), Err(FwCfgError::TooMany));
}
