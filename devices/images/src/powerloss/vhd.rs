//! VHD. Dynamic ones are never written.

use synthvm_block::conformance::powerloss::{Step, random_script};

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
