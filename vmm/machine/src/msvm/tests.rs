use std::fs;
use std::path::PathBuf;

use synthvm_msvm::{BlobReader, EntryType, wrap_flat};
use vm_memory::{Bytes, GuestAddress};
use vmbus_protocol::Guid;

use super::*;
use crate::acpi;
use crate::memory::{self, GuestMemory, LOW_MMIO, MemoryLayout};
use crate::options::{MsvmConfig, SmbiosConfig};
use crate::smbios::MachineIdentity;

/// A file that ends with the test.
struct File(PathBuf);

impl File {
    fn new(name: &str, bytes: &[u8]) -> File {
        let name = format!("synthvm-msvm-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, bytes).unwrap();
        File(path)
    }

    fn config(&self) -> MsvmConfig {
        MsvmConfig { image: self.0.clone(), variables: None }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn machine(mib: u64) -> (MemoryLayout, GuestMemory, acpi::Platform) {
    let layout = MemoryLayout::new(mib << 20);
    let memory = memory::allocate(&layout, false).unwrap();
    let tables = acpi::Platform {
        apic_ids: vec![0, 1],
        legacy_timer: true,
        mmio: [LOW_MMIO, layout.high_mmio],
        pci: None,
        tpm: None,
        presence: None,
        generation: None,
        hot_add: None,
        hibernation: false,
    };
    (layout, memory, tables)
}

fn identity() -> MachineIdentity {
    let texts = SmbiosConfig { serial: Some("S-1".into()), ..SmbiosConfig::default() };
    MachineIdentity { uuid: Guid::from_bytes([3; 16]), texts }
}

#[test]
fn test_load_writes_image_and_a_blob_that_the_firmware_accepts() {
    let file = File::new("load", &wrap_flat(&[0xF4]).unwrap());
    let source = MsvmSource::open(&file.config()).unwrap();
    for mib in [512, 5 << 10] {
        let (layout, memory, tables) = machine(mib);
        let state = source.load(&memory, &layout, &tables, &identity()).unwrap();
        assert_eq!(memory.read_obj::<u8>(GuestAddress(state.rip)).unwrap(), 0xF4);
        assert_eq!(memory.read_obj::<u32>(GuestAddress(state.rbp + 40)).unwrap(), 0x4856_465F);
        let mut blob = vec![0; 4096];
        memory.read_slice(&mut blob, GuestAddress(0x70_9000)).unwrap();
        let blob = BlobReader::new(&blob).unwrap();
        let map = blob.get(EntryType::MemoryMap).unwrap();
        assert_eq!(map.len(), if mib > 3072 { 48 } else { 24 });
        let ram: u64 =
            map.chunks(24).map(|range| u64::from_le_bytes(range[8..16].try_into().unwrap())).sum();
        assert_eq!(ram, mib << 20);
        assert_eq!(blob.get(EntryType::BiosGuid), Some(&[3; 16][..]));
        assert_eq!(blob.get(EntryType::SystemSerial), Some(&b"S-1\0\0\0\0\0"[..]));
        assert_eq!(blob.get(EntryType::SystemProduct), None);
        assert_eq!(&blob.get(EntryType::Madt).unwrap()[..4], b"APIC");
    }
}

#[test]
fn test_load_into_a_small_machine_names_the_least_memory() {
    let file = File::new("small", &wrap_flat(&[0xF4]).unwrap());
    let source = MsvmSource::open(&file.config()).unwrap();
    let (layout, memory, tables) = machine(64);
    let error = source.load(&memory, &layout, &tables, &identity()).unwrap_err().to_string();
    assert!(error.contains("64 MiB") && error.contains("128 MiB"), "{error}");
}

#[test]
fn test_open_other_files_names_the_file_and_where_to_get_one() {
    for (name, bytes) in [("text", vec![b'x'; 100]), ("zeros", vec![0; 6 << 20])] {
        let file = File::new(name, &bytes);
        let error = MsvmSource::open(&file.config()).unwrap_err().to_string();
        assert!(error.starts_with(&*file.0.to_string_lossy()), "{error}");
        assert!(error.contains("release of mu_msvm"), "{error}");
    }
    for path in ["/nonexistent", "/", "/dev/zero"] {
        let config = MsvmConfig { image: path.into(), variables: None };
        assert!(matches!(MsvmSource::open(&config), Err(MsvmError::Read { .. })), "{path}");
    }
}
