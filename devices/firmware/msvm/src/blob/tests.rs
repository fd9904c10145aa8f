use proptest::prelude::*;

use super::*;
use vmbus_protocol::Guid;

const GUID: Guid = Guid::new(1, 2, 3, [4; 8]);
const LOW: MmioWindow = MmioWindow { base: 0xF800_0000, len: 0x600_0000 };
const HIGH: MmioWindow = MmioWindow { base: 1 << 32, len: 4 << 30 };
const COUNTS: ProcessorCounts =
    ProcessorCounts { max: 4, present: 2, per_socket: 2, threads_per_core: 1 };

fn table() -> Vec<u8> {
    let mut table = vec![0; 44];
    table[..4].copy_from_slice(b"APIC");
    table[4..8].copy_from_slice(&44_u32.to_le_bytes());
    table
}

fn minimal() -> BlobWriter {
    BlobWriter::new()
        .image_bytes(6 << 20)
        .memory_map(&[MemoryRange { base: 0, len: 512 << 20 }])
        .entropy(&[7; 64])
        .guid(GUID)
        .flags(ConfigFlags::SERIAL | ConfigFlags::CONSOLE_COM1 | ConfigFlags::MTRRS_SET)
        .processors(COUNTS)
        .mmio(LOW, HIGH)
}

#[test]
fn test_blob_read_back_has_every_entry() {
    let blob = minimal()
        .madt(&table())
        .smbios(SmbiosText::SystemManufacturer, "SynthVM\u{e9}\n")
        .finish()
        .unwrap();
    let reader = BlobReader::new(&blob).unwrap();
    assert_eq!(reader.entries().len(), 10);
    assert_eq!(blob.len(), u32::from_le_bytes(blob[12..16].try_into().unwrap()) as usize);
    assert_eq!(reader.get(EntryType::BiosInformation).unwrap()[..4], 1536_u32.to_le_bytes());
    assert_eq!(reader.get(EntryType::BiosGuid).unwrap(), GUID.to_bytes());
    assert_eq!(reader.get(EntryType::Flags).unwrap(), (1_u64 | 1 << 7 | 1 << 28).to_le_bytes());
    assert_eq!(reader.get(EntryType::Mmio).unwrap()[..8], 0xF_8000_u64.to_le_bytes());
    assert_eq!(reader.get(EntryType::SystemManufacturer).unwrap(), b"SynthVM\0");
    let madt = reader.get(EntryType::Madt).unwrap();
    assert_eq!((&madt[..44], madt.len()), (&table()[..], 48));
}

#[test]
fn test_blob_without_a_mandatory_entry_is_refused() {
    let error = BlobWriter::new().image_bytes(6 << 20).finish().unwrap_err();
    assert_eq!(error, BlobError::Missing(EntryType::MemoryMap));
    assert_eq!(BlobWriter::new().finish(), Err(BlobError::Missing(EntryType::BiosInformation)));
}

#[test]
fn test_content_that_stops_the_firmware_is_refused() {
    let content = |kind| Err(BlobError::Content(kind));
    let none = ProcessorCounts { per_socket: 0, ..COUNTS };
    assert_eq!(minimal().processors(none).finish(), content(EntryType::Processors));
    let beyond = MmioWindow { len: 0x0800_1000, ..LOW };
    assert_eq!(minimal().mmio(beyond, HIGH).finish(), content(EntryType::Mmio));
    assert_eq!(minimal().mmio(LOW, LOW).finish(), content(EntryType::Mmio));
    let odd = MmioWindow { base: 0xF800_0800, ..LOW };
    assert_eq!(minimal().mmio(odd, HIGH).finish(), content(EntryType::Mmio));
    let mut long = table();
    long.push(0);
    assert_eq!(minimal().madt(&long).finish(), content(EntryType::Madt));
    assert_eq!(minimal().acpi_table(&[0; 20]).finish(), content(EntryType::AcpiTable));
    assert_eq!(minimal().memory_map(&[]).finish(), content(EntryType::MemoryMap));
    assert_eq!(
        minimal().memory_map(&vec![MemoryRange { base: 0, len: 1 }; 1 << 16]).finish(),
        Err(BlobError::TooLarge)
    );
}

#[test]
fn test_reader_refuses_wrong_counts_and_lengths() {
    let blob = minimal().finish().unwrap();
    let changed = |at: usize, value: u32| {
        let mut blob = blob.clone();
        blob[at..at + 4].copy_from_slice(&value.to_le_bytes());
        BlobReader::new(&blob).map(|_| ()).unwrap_err()
    };
    assert_eq!(changed(0, 1), BlobError::Count);
    assert_eq!(changed(4, 24), BlobError::Count);
    assert_eq!(changed(8, 7), BlobError::Count);
    assert_eq!(changed(12, blob.len() as u32 + 8), BlobError::Count);
    assert_eq!(changed(12, u32::MAX), BlobError::TooLarge);
    for length in [0, 8, 12, 17, !7] {
        assert_eq!(changed(20, length), BlobError::Length(16));
    }
    assert_eq!(changed(16, 0x77), BlobError::Missing(EntryType::BiosInformation));
}

proptest! {
    #[test]
    fn test_reader_any_bytes_does_not_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..256)
    ) {
        let _ = BlobReader::new(&bytes);
    }
}
