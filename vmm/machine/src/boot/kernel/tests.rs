use vm_memory::Bytes;
use vmm_sys_util::tempfile::TempFile;

use super::*;
use crate::boot::{BootSource, Entry, Initrd};
use crate::memory::allocate;

const SETUP_SECTORS: usize = 2;

/// Returns a bzImage that is complete but has no code.
fn bzimage(payload: usize) -> Vec<u8> {
    let mut image = vec![0; (SETUP_SECTORS + 1) * 512 + payload];
    image[0x1F1] = SETUP_SECTORS as u8;
    image[0x1F4..0x1F8].copy_from_slice(&((payload / 16) as u32).to_le_bytes());
    image[0x201] = 0x6A;
    image[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x020Fu16.to_le_bytes());
    image[0x211] = LOADED_HIGH;
    image[0x22C..0x230].copy_from_slice(&0x7FFF_FFFFu32.to_le_bytes());
    image[0x230..0x234].copy_from_slice(&0x20_0000u32.to_le_bytes());
    image[0x236..0x238].copy_from_slice(&XLF_KERNEL_64.to_le_bytes());
    image[0x238..0x23C].copy_from_slice(&2047u32.to_le_bytes());
    image[0x258..0x260].copy_from_slice(&0x100_0000u64.to_le_bytes());
    image[0x260..0x264].copy_from_slice(&0x200_0000u32.to_le_bytes());
    image
}

fn file(bytes: &[u8]) -> TempFile {
    use std::io::Write;
    let file = TempFile::new().unwrap();
    file.as_file().write_all(bytes).unwrap();
    file
}

/// Returns a guest's RAM of `mib` MiB.
fn guest(mib: u64) -> (MemoryLayout, GuestMemory) {
    let layout = MemoryLayout::new(mib << 20);
    let memory = allocate(&layout, false).unwrap();
    (layout, memory)
}

fn open(bytes: &[u8]) -> Result<Kernel, BootError> {
    Kernel::open(file(bytes).as_path())
}

/// Returns the cause for which a kernel is refused.
#[track_caller]
fn problem(refused: Result<Kernel, BootError>) -> FileProblem {
    match refused.unwrap_err() {
        BootError::File { file: BootFile::Kernel, problem, .. } => problem,
        other => panic!("{other}"),
    }
}

#[test]
fn test_open_missing_empty_directory_are_distinguished() {
    let missing = Kernel::open(Path::new("/nonexistent/vmlinuz")).unwrap_err();
    assert!(missing.to_string().starts_with("/nonexistent/vmlinuz: No such file"), "{missing}");
    assert!(matches!(problem(Err(missing)), FileProblem::Io(_)));
    assert!(matches!(problem(open(&[])), FileProblem::Empty));
    assert!(matches!(problem(Kernel::open(Path::new("/"))), FileProblem::NotAFile));
}

#[test]
fn test_open_text_file_is_not_a_kernel() {
    assert!(matches!(problem(open(&[b'x'; 4096])), FileProblem::NotAKernel));
    assert!(matches!(problem(open(b"short")), FileProblem::NotAKernel));
}

#[test]
fn test_open_truncated_at_any_place_is_refused() {
    let image = bzimage(4096);
    assert!(open(&image).is_ok());
    for len in [0x200, 0x206, 0x240, 0x267, 0x268, 1536, image.len() - 16] {
        assert!(
            matches!(problem(open(&image[..len])), FileProblem::Truncated { .. }),
            "cut at {len:#x}"
        );
    }
}

#[test]
fn test_open_old_or_32_bit_kernel_is_named() {
    let mut old = bzimage(64);
    old[0x206] = 6;
    assert!(open(&old).unwrap_err().to_string().contains("boot protocol 2.06"));
    let mut narrow = bzimage(64);
    narrow[0x236] = 0;
    assert!(open(&narrow).unwrap_err().to_string().contains("32-bit"));
}

#[test]
fn test_open_elf_module_or_truncated_elf_is_refused() {
    let mut elf = vec![0; 64];
    elf[..6].copy_from_slice(b"\x7FELF\x02\x01");
    elf[16..20].copy_from_slice(&[1, 0, 62, 0]);
    assert!(matches!(problem(open(&elf)), FileProblem::WrongKernel(_)));
    elf[16] = 2;
    elf[32] = 64;
    elf[54] = 56;
    elf[56] = 1;
    assert!(matches!(problem(open(&elf)), FileProblem::Truncated { .. }));
    assert!(matches!(problem(open(&elf[..20])), FileProblem::Truncated { .. }));
}

#[test]
fn test_load_memory_too_small_names_what_is_needed() {
    let image = file(&bzimage(4096));
    let source = BootSource::open(image.as_path(), None, "").unwrap();
    let (layout, memory) = guest(32);
    let error = source.load(&memory, &layout, 0).unwrap_err();
    assert!(matches!(error, BootError::MemoryForKernel { needed: 0x300_0000, .. }), "{error}");
    assert!(error.to_string().contains("up to 48 MiB"));
}

#[test]
fn test_load_initrd_is_high_and_apart_or_refused() {
    let image = file(&bzimage(4096));
    let (layout, memory) = guest(64);
    let loaded = Kernel::open(image.as_path()).unwrap().load(&memory, &layout).unwrap();
    let initrd = file(&vec![7; 10_000]);
    let place = Initrd::open(initrd.as_path()).unwrap().load(&memory, &layout, &loaded).unwrap();
    assert!(place.start >= loaded.end && place.end <= 64 << 20);
    assert_eq!(place.len(), 10_000);

    let big = TempFile::new().unwrap();
    big.as_file().set_len(17 << 20).unwrap();
    let error = Initrd::open(big.as_path()).unwrap().load(&memory, &layout, &loaded).unwrap_err();
    assert!(error.to_string().contains("at least 65 MiB"), "{error}");
}

#[test]
fn test_cmdline_limit_is_the_kernels() {
    let image = file(&bzimage(64));
    let open = |cmdline: &str| BootSource::open(image.as_path(), None, cmdline);
    assert!(open(&"x".repeat(2047)).is_ok());
    assert!(matches!(
        open(&"x".repeat(2048)),
        Err(BootError::CmdlineTooLong { len: 2048, limit: 2047 })
    ));
    assert!(matches!(open("a\0b"), Err(BootError::CmdlineNul)));
}

/// Returns an ELF kernel of one segment at 16 MiB, with a note of the PVH entry if it has one.
fn vmlinux(pvh_entry: Option<u32>) -> Vec<u8> {
    let mut elf = vec![0; 0x1100];
    let mut put = |at: usize, bytes: &[u8]| elf[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7FELF\x02\x01\x01");
    put(16, &[2, 0, 62, 0, 1]);
    put(24, &0x100_0000_u64.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(52, &[64, 0, 56, 0, if pvh_entry.is_some() { 2 } else { 1 }]);
    let mut segment = |at: usize, kind: u32, offset: u64, address: u64, len: u64| {
        put(at, &kind.to_le_bytes());
        for (field, value) in [(8, offset), (16, address), (24, address), (32, len), (40, len)] {
            put(at + field, &value.to_le_bytes());
        }
        put(at + 48, &4_u64.to_le_bytes());
    };
    segment(64, 1, 0x1000, 0x100_0000, 0x100);
    segment(120, 4, 0x200, 0, 20);
    if let Some(entry) = pvh_entry {
        // Name of 4 bytes, content of 4, type 18 (XEN_ELFNOTE_PHYS32_ENTRY).
        put(0x200, &[4, 0, 0, 0, 4, 0, 0, 0, 18, 0, 0, 0]);
        put(0x20C, b"Xen\0");
        put(0x210, &entry.to_le_bytes());
    }
    elf
}

#[test]
fn test_load_elf_with_a_pvh_note_starts_there_with_a_description_of_the_machine() {
    let kernel = file(&vmlinux(Some(0x100_0040)));
    let initrd = file(&[7; 100]);
    let source =
        BootSource::open(kernel.as_path(), Some(initrd.as_path()), "console=ttyS0").unwrap();
    let (layout, memory) = guest(64);
    let entry = source.load(&memory, &layout, 0xE_0000).unwrap();
    let Entry::Pvh { eip, start_info } = entry else { panic!("{entry:?}") };
    assert_eq!(eip, 0x100_0040);
    let word = |at: u64| memory.read_obj::<u32>(GuestAddress(at)).unwrap();
    let long = |at: u64| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
    let info = u64::from(start_info);
    assert_eq!([0, 4, 8, 12].map(|at| word(info + at)), [0x336E_C578, 1, 0, 1]);
    let mut cmdline = [0; 14];
    memory.read_slice(&mut cmdline, GuestAddress(long(info + 24))).unwrap();
    assert_eq!(&cmdline, b"console=ttyS0\0");
    assert_eq!(long(info + 32), 0xE_0000);
    let module = long(info + 16);
    assert_eq!(
        (memory.read_obj::<u8>(GuestAddress(long(module))).unwrap(), long(module + 8)),
        (7, 100)
    );
    let (map, entries) = (long(info + 40), u64::from(word(info + 48)));
    let ram: u64 = (0..entries)
        .map(|index| map + 24 * index)
        .filter(|entry| word(entry + 16) == 1)
        .map(|entry| long(entry + 8))
        .sum();
    assert_eq!(ram, 0x9_FC00 + (63 << 20));
}

#[test]
fn test_load_elf_of_32_bit_code_in_a_64_bit_file_is_taken_and_of_arm_refused() {
    let mut firmware = vmlinux(Some(0x100_0040));
    firmware[18] = 3;
    let (layout, memory) = guest(64);
    let source = BootSource::open(file(&firmware).as_path(), None, "").unwrap();
    assert!(matches!(source.load(&memory, &layout, 0), Ok(Entry::Pvh { .. })));
    firmware[18] = 183;
    assert!(open(&firmware).unwrap_err().to_string().contains("another processor"));
}

#[test]
fn test_load_elf_without_a_pvh_note_starts_at_its_64_bit_entry() {
    let kernel = file(&vmlinux(None));
    let source = BootSource::open(kernel.as_path(), None, "").unwrap();
    let (layout, memory) = guest(64);
    let entry = source.load(&memory, &layout, 0).unwrap();
    assert!(matches!(entry, Entry::Linux { rip: 0x100_0000, .. }), "{entry:?}");
}

#[test]
fn test_load_twice_gives_the_same_entry() {
    let image = file(&bzimage(4096));
    let source = BootSource::open(image.as_path(), None, "quiet").unwrap();
    let (layout, memory) = guest(64);
    let first = source.load(&memory, &layout, 0xE_0000).unwrap();
    assert_eq!(source.load(&memory, &layout, 0xE_0000).unwrap(), first);
    assert!(matches!(first, Entry::Linux { rip: 0x100_0200, .. }));
}
