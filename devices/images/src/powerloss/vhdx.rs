//! VHDX: dynamic, fixed and differencing.

use synthvm_block::Operation;
use synthvm_block::conformance::powerloss::{Change, Source, Step, random_script};

use super::{Case, first_growth, last_copy};
use crate::{CreateOptions, Format};

const MIB: u64 = 1 << 20;
/// Sectors of a block of 1 MiB.
const BLOCK: u64 = MIB / 512;

/// First sectors of blocks in both halves of a sector of the table (64 entries), in others, on both
/// sides of the entry of the sector bitmap behind 4096 blocks, and at the disk's end.
const BLOCKS: [u64; 8] =
    [0, BLOCK, 63 * BLOCK, 64 * BLOCK, 700 * BLOCK, 4095 * BLOCK, 4096 * BLOCK, 5119 * BLOCK];

fn dynamic() -> CreateOptions {
    CreateOptions::new(Format::Vhdx, 5120 * MIB).with_block_size(MIB)
}

fn case(options: &CreateOptions) -> Case {
    Case { qemu: Some(16), ..Case::new("disk.vhdx", options) }
}

/// More blocks than the file grows by in one step.
fn growth() -> Vec<Step> {
    let mut steps: Vec<Step> = (100..170).map(|block| Step::write(block * BLOCK + 7, 2)).collect();
    steps.insert(30, Step::Flush);
    steps.extend([Step::fua(200 * BLOCK, 1), Step::write(201 * BLOCK, 1)]);
    steps
}

#[test]
fn test_dynamic_vhdx_keeps_its_promises_in_every_state_after_a_loss_of_power() {
    let case = case(&dynamic());
    let mut steps = random_script(31, 80, &BLOCKS, BLOCK);
    steps.insert(40, Step::Reopen);
    assert!(case.prove(&steps) > 500);
}

#[test]
fn test_dynamic_vhdx_that_grows_keeps_its_promises_in_every_state_after_a_loss_of_power() {
    assert!(case(&dynamic()).prove(&growth()) > 300);
}

#[test]
fn test_vhdx_that_is_resized_keeps_its_promises_in_every_state_after_a_loss_of_power() {
    let options = CreateOptions { size: Some(100 * MIB + 4096), ..dynamic() };
    let case = case(&options);
    let last = 100 * BLOCK;
    let steps = [
        Step::write(0, 4),
        Step::write(60 * BLOCK, 8),
        Step::write(last, 8),
        Step::Resize(200 * MIB),
        Step::write(last, 16),
        Step::write(150 * BLOCK, 4),
        Step::Flush,
        Step::write(150 * BLOCK, 2),
        Step::Resize(50 * MIB + 512),
        Step::write(50 * BLOCK, 1),
        Step::Reopen,
        Step::write(10 * BLOCK, 9),
        Step::Resize(120 * MIB),
        Step::write(60 * BLOCK, 1),
        Step::write(100 * BLOCK + 3, 1),
        Step::Flush,
    ];
    assert!(case.prove(&steps) > 100);
}

#[test]
fn test_fixed_vhdx_keeps_its_promises_in_every_state_after_a_loss_of_power() {
    let options = CreateOptions {
        fixed: true,
        block_size: Some(MIB),
        ..CreateOptions::new(Format::Vhdx, 80 * MIB)
    };
    let steps = random_script(32, 50, &[0, 63 * BLOCK, 64 * BLOCK, 79 * BLOCK], BLOCK);
    assert!(case(&options).prove(&steps) > 300);
}

/// A child of a parent with content in all of [`BLOCKS`].
fn differencing() -> Case {
    let parent = Case::new("parent.vhdx", &dynamic());
    // QEMU does not support parents of VHDX.
    Case { qemu: None, ..parent.with_child(&BLOCKS, &dynamic(), case) }
}

#[test]
fn test_differencing_vhdx_keeps_its_promises_in_every_state_after_a_loss_of_power() {
    let case = differencing();
    let mut steps = random_script(33, 40, &BLOCKS, BLOCK);
    steps.insert(20, Step::Reopen);
    assert!(case.prove(&steps) > 300);
}

#[test]
fn test_vhdx_that_grows_without_a_barrier_is_found() {
    let steps = [Step::write(0, 1), Step::write(BLOCK, 1)];
    let broken = case(&dynamic()).broken_without_barrier(&steps, first_growth);
    let broken = broken.expect("a table entry that names nothing");
    assert!(broken.contains("beyond the file's end"), "{broken}");
}

#[test]
fn test_vhdx_block_that_is_copied_up_without_a_barrier_is_found() {
    let broken = differencing().broken_without_barrier(&[Step::write(BLOCK, 1)], last_copy);
    let broken = broken.expect("the parent's content is lost");
    assert!(broken.contains("may have the stamps [2]"), "{broken}");
}

#[test]
fn test_vhdx_flush_or_fua_without_its_barrier_is_found() {
    for step in [Step::Flush, Step::fua(0, 1)] {
        let case = case(&dynamic());
        let run = case.run(&[Step::write(0, 1), step.clone(), Step::write(4, 1)]);
        assert_eq!(case.first_broken(&run.log, &run.promises).1, None);
        // The last flush of data is the one that the request needs.
        let data = |at: usize| run.log.ops()[at].source == Source::Data;
        let barrier = (0..run.log.ops().len())
            .rfind(|&at| data(at) && run.log.ops()[at].change == Change::Sync)
            .unwrap();
        let log = run.log.without(|at, _| at == barrier);
        assert!(case.first_broken(&log, &run.promises).1.is_some(), "{step:?}");
    }
}

#[test]
fn test_vhdx_whose_block_is_discarded_and_written_again_keeps_its_promises() {
    let case = case(&dynamic());
    let clear = |operation| Step::Clear { operation, first: 0, count: BLOCK };
    let mut steps = Vec::new();
    for operation in [Operation::Discard, Operation::WriteZeroes { unmap: true }] {
        steps.extend([
            Step::write(0, 8),
            Step::Flush,
            clear(operation),
            Step::write(4, 8),
            clear(operation),
            Step::Flush,
            Step::fua(100, 2),
            Step::write(BLOCK, 8),
        ]);
    }
    assert!(case.prove(&steps) > 100);
}
