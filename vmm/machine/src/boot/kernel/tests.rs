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

#[test]
fn test_load_twice_gives_the_same_entry() {
    let image = file(&bzimage(4096));
    let source = BootSource::open(image.as_path(), None, "quiet").unwrap();
    let (layout, memory) = guest(64);
    let first = source.load(&memory, &layout, 0xE_0000).unwrap();
    assert_eq!(source.load(&memory, &layout, 0xE_0000).unwrap(), first);
    assert!(matches!(first, Entry::Linux { rip: 0x100_0200, .. }));
}
