//! Tests of a disk with two independent SCSI clients: sg3_utils, which decode a disk's data, and
//! libiscsi's conformance tests.

use guest_images::{GuestBuilder, StockKernel};
use integration_tests::image::WorkDir;
use integration_tests::runner::{Test, TestResult};
use integration_tests::vm::{Vm, VmOptions};

use crate::common::{self, MIB, boot};

const DISK: u64 = 16 * MIB;

const SEED: u64 = 12;

/// Tests of libiscsi that need one initiator and end within seconds. Omitted:
/// * GetLBAStatus.UnmapSingle, which expects a wrong address if a physical block has several
///   logical ones;
/// * Inquiry.BlockLimits, which expects SBC-3 from a disk that has no FORMAT UNIT;
/// * Inquiry.EVPD, which expects an error of INQUIRY that Linux's storvsc driver hides.
const SUITES: [&str; 20] = [
    "GetLBAStatus.Simple",
    "GetLBAStatus.BeyondEol",
    "Inquiry.Standard",
    "Inquiry.AllocLength",
    "Inquiry.MandatoryVPDSBC",
    "Inquiry.SupportedVPD",
    "Mandatory",
    "ModeSense6",
    "PrinReadKeys",
    "PrinReportCapabilities",
    "PrinServiceactionRange",
    "ProutClear",
    "ProutRegister",
    "ReadCapacity10",
    "ReadCapacity16",
    "TestUnitReady",
    "Unmap",
    "WriteSame16.InvalidDataOutSize",
    "WriteSame16.WriteProtect",
    "WriteSame16.ZeroBlocks",
];

/// Returns the guest with both clients.
pub(crate) fn guest(kernel: StockKernel) -> GuestBuilder {
    common::guest(kernel).package("libiscsi-bin", &["usr/bin/iscsi-test-cu"])
}

pub(crate) fn add(tests: &mut Vec<Test>, kernel: StockKernel) {
    let name = "test_disk_is_as_sg3_utils_and_the_tests_of_libiscsi_expect";
    common::add(tests, kernel, name, conformance);
}

fn conformance(kernel: StockKernel) -> TestResult {
    let dir = WorkDir::new()?;
    let image = dir.image("scsi.img", DISK, SEED)?;
    let options = VmOptions::new(&guest(kernel).build()?)
        .cpus(2)
        .memory("1G")
        .disk_with(&image, "controller=0,lun=0");
    let mut vm = boot(&options)?;
    let device = format!("/dev/{}", vm.disks(1)?[0].name);

    descriptions(&mut vm, &device)?;
    provisioning(&mut vm, &device)?;
    for suite in SUITES {
        let said = vm.shell(&format!("iscsi-test-cu -d -n -t SCSI.{suite} {device} 2>&1"))?;
        assert!(said.contains("Run Summary"), "{suite} did not run:\n{said}");
        assert!(!said.contains("had failures") && !said.contains("[FAILED]"), "{suite}:\n{said}");
    }
    assert!(vm.power_off()?.success());
    Ok(())
}

/// Checks the disk's descriptions of itself, as decoded by the programs.
fn descriptions(vm: &mut Vm, device: &str) -> TestResult {
    let expected: [(&str, &[&str]); 13] = [
        ("sg_inq", &["version=0x05  [SPC-3]", "NormACA=0", "CmdQue=1", "Virtual Disk"]),
        ("sg_vpd", &["[sn]", "[di]", "[bl]", "[bdc]", "[lbpv]"]),
        ("sg_vpd -p di", &["T10 vendor identification", "NAA"]),
        (
            "sg_vpd -p bl",
            &[
                "(WSNZ): 1",
                "Maximum transfer length: 2048 blocks",
                "Maximum write same length: 0x10000",
            ],
        ),
        ("sg_vpd -p bdc", &["Non-rotating medium"]),
        ("sg_vpd -p lbpv", &["(LBPU): 1", "(LBPWS): 1", "(LBPWS10): 1", "(ANC_SUP): 0"]),
        ("sg_readcap", &["Last LBA=32767"]),
        ("sg_readcap -l", &["Last LBA=32767", "prot_en=0", "lbpme=1, lbprz=1"]),
        (
            "sg_modes -a",
            &["DpoFua=1", "Caching", " 00     08 12 04 00", "Control", " 00     0a 0a 00 10"],
        ),
        ("sg_modes -a -6", &["Caching", "Control"]),
        ("sg_modes -p 0xa -c 1", &["Control, page_control: changeable", " 00     0a 0a 00 00"]),
        ("sg_senddiag -t", &["GOOD"]),
        ("sg_requests", &[]),
    ];
    for (program, words) in expected {
        check_output(vm, &format!("{program} {device}"), words)?;
    }
    // REPORT SUPPORTED OPERATION CODES is not supported.
    let said = vm.shell(&format!("! sg_opcodes -v {device} 2>&1"))?;
    assert!(said.contains("Invalid command operation code"), "{said}");
    Ok(())
}

/// Checks GET LBA STATUS of an image in which all blocks but 2 MiB are written.
fn provisioning(vm: &mut Vm, device: &str) -> TestResult {
    vm.shell(&format!("sg_unmap --lba=4096 --num=4096 {device}"))?;
    let expected = [
        (
            "--lba=0 --maxlen=1024",
            vec!["0000  0x1000  0  0", "1000  0x1000  1  0", "2000  0x6000  0  0"],
        ),
        ("--lba=0", vec!["0000  0x1000  0  0"]),
        ("--lba=4096", vec!["1000  0x1000  1  0"]),
        // Within a physical block.
        ("--lba=4099", vec!["1003  0xffd  1  0"]),
        ("--lba=32767", vec!["7fff  0x1  0  0"]),
        // The buffer is too small for one descriptor.
        ("--lba=0 --maxlen=16", vec!["No complete LBA status descriptors"]),
    ];
    for (arguments, words) in expected {
        check_output(vm, &format!("sg_get_lba_status --brief {arguments} {device}"), &words)?;
    }
    let beyond = vm.shell(&format!("! sg_get_lba_status -v --lba=32768 {device} 2>&1"))?;
    assert!(beyond.contains("Logical block address out of range"), "{beyond}");
    Ok(())
}

/// Runs a command and checks that its output has these words.
fn check_output(vm: &mut Vm, command: &str, words: &[&str]) -> TestResult {
    let said = vm.shell(&format!("{command} 2>&1"))?;
    for word in words {
        assert!(said.contains(word), "{command} does not say {word:?}:\n{said}");
    }
    Ok(())
}
