//! Tests of decoding exits from a page that the tests fill instead of the kernel.

use std::fs::File;
use std::os::fd::FromRawFd;
use std::sync::atomic::AtomicBool;

use super::*;

const PAGES: usize = 3 * 4096;

/// Returns shared memory like a vCPU's: the structure, a page of port data, a page of coalesced
/// MMIO.
fn page() -> RunPage {
    // SAFETY: the name is a C string; the call touches nothing else.
    let fd = unsafe { libc::memfd_create(c"run-page-test".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0);
    // SAFETY: a fresh descriptor that nothing else owns.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(PAGES as u64).unwrap();
    RunPage::map(&file, PAGES).unwrap()
}

/// Writes to the page as the kernel does within KVM_RUN.
fn fill(page: &mut RunPage, reason: u32, write: impl FnOnce(*mut kvm_run)) {
    let run: *mut kvm_run = page.0.start.as_ptr().cast();
    // SAFETY: the mapping holds the structure.
    unsafe { (&raw mut (*run).exit_reason).write(reason) };
    write(run);
}

fn port(page: &mut RunPage, direction: u32, size: u8, count: u32, offset: u64) {
    fill(page, KVM_EXIT_IO, |run| {
        // SAFETY: as in `fill`.
        let io = unsafe { &mut (*run).__bindgen_anon_1.io };
        (io.direction, io.size, io.port, io.count, io.data_offset) =
            (direction as u8, size, 0x3F8, count, offset);
    });
}

#[test]
fn test_run_page_port_data_follows_the_structure_and_is_written_back() {
    let mut page = page();
    port(&mut page, KVM_EXIT_IO_IN, 2, 3, 4096);
    let Exit::Port { port: 0x3F8, read: true, size: 2, data } = page.exit() else { panic!() };
    data.copy_from_slice(&[1, 2, 3, 4, 5, 6]);
    assert!(matches!(page.exit(), Exit::Port { data: [1, 2, 3, 4, 5, 6], .. }));
    // Up to the last byte of the mapping.
    port(&mut page, 1, 4, 2048, 4096);
    assert!(matches!(page.exit(), Exit::Port { read: false, data, .. } if data.len() == 8192));
}

#[test]
fn test_run_page_port_data_outside_the_mapping_or_in_the_structure_is_no_port_access() {
    let mut page = page();
    let inside = size_of::<kvm_run>() as u64 - 1;
    for (size, count, offset) in [
        (4, 2049, 4096),
        (1, 1, PAGES as u64),
        (1, 1, inside),
        (1, 1, 0),
        (4, u32::MAX, 4096),
        (1, 1, u64::MAX),
    ] {
        port(&mut page, KVM_EXIT_IO_IN, size, count, offset);
        assert_eq!(page.exit(), Exit::Unexpected(KVM_EXIT_IO), "{size} {count} {offset:#x}");
    }
}

#[test]
fn test_run_page_memory_access_has_as_many_bytes_as_it_says_and_at_most_8() {
    let mut page = page();
    for (len, expected) in [(1, 1), (8, 8), (9, 8), (u32::MAX, 8)] {
        fill(&mut page, KVM_EXIT_MMIO, |run| {
            // SAFETY: as in `fill`.
            let mmio = unsafe { &mut (*run).__bindgen_anon_1.mmio };
            (mmio.phys_addr, mmio.len, mmio.is_write, mmio.data) = (0xFEC0_0000, len, 1, [7; 8]);
        });
        let Exit::Memory { address: 0xFEC0_0000, read: false, data } = page.exit() else {
            panic!()
        };
        assert_eq!(data, &[7; 8][..expected]);
    }
}

#[test]
fn test_run_page_hypercall_result_reaches_the_kernel() {
    let mut page = page();
    fill(&mut page, KVM_EXIT_HYPERV, |run| {
        // SAFETY: as in `fill`.
        let hyperv = unsafe { &mut (*run).__bindgen_anon_1.hyperv };
        hyperv.type_ = KVM_EXIT_HYPERV_HCALL;
        hyperv.u.hcall.input = 0x5C;
        hyperv.u.hcall.params = [0x1234, 0];
    });
    let Exit::Hypercall { call, result } = page.exit() else { panic!() };
    assert_eq!((call.input, call.parameter), (0x5C, 0x1234));
    *result = 5;
    assert!(matches!(page.exit(), Exit::Hypercall { result: 5, .. }));
    fill(&mut page, KVM_EXIT_HYPERV, |run| {
        // SAFETY: as in `fill`.
        unsafe { (*run).__bindgen_anon_1.hyperv.type_ = 99 };
    });
    assert_eq!(page.exit(), Exit::OtherHyperv);
}

#[test]
fn test_run_page_msr_error_reaches_the_kernel() {
    let mut page = page();
    fill(&mut page, KVM_EXIT_X86_WRMSR, |run| {
        // SAFETY: as in `fill`.
        unsafe { (*run).__bindgen_anon_1.msr.index = 0x4000_0084 };
    });
    let Exit::Msr { index: 0x4000_0084, write: true, error } = page.exit() else { panic!() };
    *error = 1;
    assert!(matches!(page.exit(), Exit::Msr { error: 1, .. }));
}

/// Another thread stops the vCPU while its own thread uses the rest of the page. A sanitizer or
/// valgrind reports it if both access the same bytes.
#[test]
fn test_run_page_immediate_exit_is_stored_by_others_while_exits_are_handled() {
    let mut page = page();
    let (exit, done) = (page.immediate_exit(), AtomicBool::new(false));
    let byte = |page: &RunPage| {
        // SAFETY: a byte of the mapping, as an atomic.
        unsafe { AtomicU8::from_ptr(page.0.start.as_ptr().add(1)) }.load(Ordering::SeqCst)
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                exit.set(true);
            }
        });
        for round in 0..1000 {
            port(&mut page, KVM_EXIT_IO_IN, 4, 1, 4096);
            let Exit::Port { data, .. } = page.exit() else { panic!() };
            data.copy_from_slice(&u32::to_le_bytes(round));
        }
        done.store(true, Ordering::Relaxed);
    });
    exit.set(true);
    assert_eq!(byte(&page), 1);
    exit.set(false);
    assert_eq!(byte(&page), 0);
    // The handle keeps the memory after the vCPU is dropped.
    drop(page);
    exit.set(true);
}

#[test]
fn test_run_page_smaller_than_the_structure_is_refused() {
    let file = File::open("/dev/zero").unwrap();
    assert!(RunPage::map(&file, size_of::<kvm_run>() - 1).is_err());
}
