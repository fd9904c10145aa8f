//! VHD. Dynamic VHDs are never written.

use synthvm_block::conformance::powerloss::{Change, Step, random_script};

use super::Case;
use crate::{CreateOptions, Format};

#[test]
fn test_fixed_vhd_keeps_its_promises_in_every_state_after_a_loss_of_power() {
    let case = Case::new("disk.vhd", &CreateOptions::new(Format::Vhd, 8 << 20));
    let mut steps = random_script(21, 80, &[0, 4096, 16320], 64);
    // The footer lies right behind the last sector.
    steps.extend([Step::write(16383, 1), Step::discard(16320, 64), Step::fua(16380, 4)]);
    assert!(case.prove(&steps) > 500);
}

#[test]
fn test_vhd_flush_without_its_barrier_is_found() {
    let case = Case::new("disk.vhd", &CreateOptions::new(Format::Vhd, 8 << 20));
    let run = case.run(&[Step::write(0, 1), Step::Flush, Step::write(4, 1)]);
    assert_eq!(case.first_broken(&run.log, &run.promises).1, None);
    let barrier = run.log.ops().iter().position(|op| op.change == Change::Sync).unwrap();
    let log = run.log.without(|at, _| at == barrier);
    let broken = case.first_broken(&log, &run.promises).1.expect("a flushed write is lost");
    assert!(broken.contains("sector 0 may have the stamps"), "{broken}");
}
