//! qcow2: tables all over the disk, small clusters whose counts move, backing files, resizing.

use synthvm_block::Operation;
use synthvm_block::conformance::powerloss::{Limits, Step, random_script};

use super::{Case, first_growth, last_copy};
use crate::{CreateOptions, Format};

const MIB: u64 = 1 << 20;
/// Sectors of a cluster of 64 KiB, and of the part of the disk that one of its tables covers.
const CLUSTER: u64 = 128;
const REACH: u64 = 8192 * CLUSTER;

/// First sectors of clusters in several tables, some of them neighbours.
const PLACES: [u64; 7] =
    [0, CLUSTER, 65 * CLUSTER, REACH, 2 * REACH + CLUSTER, 5 * REACH, 8 * REACH - CLUSTER];

fn plain() -> CreateOptions {
    CreateOptions::new(Format::Qcow2, 4096 * MIB)
}

fn case(options: &CreateOptions) -> Case {
    // Checking a state of a disk of several GiB takes long.
    let limits = Limits { exhaustive: 4, samples: 6, seed: 0x5EED };
    Case { qemu: Some(8), limits, ..Case::new("disk.qcow2", options) }
}

#[test]
fn test_qcow2_keeps_its_promises_in_every_state_after_a_loss_of_power() {
    let mut steps = random_script(41, 30, &PLACES, CLUSTER);
    steps.insert(15, Step::Reopen);
    assert!(case(&plain()).prove(&steps) > 50);
}

/// Blocks of counts are added, and their table moves.
#[test]
fn test_qcow2_of_small_clusters_keeps_its_promises_in_every_state_after_a_loss_of_power() {
    let options = CreateOptions::new(Format::Qcow2, 64 * MIB).with_block_size(512);
    let mut steps: Vec<Step> = (0..6).map(|at| Step::write(at * 9000, 60)).collect();
    steps.insert(3, Step::Flush);
    assert!(case(&options).prove(&steps) > 20);
}

#[test]
fn test_qcow2_that_is_resized_keeps_its_promises_in_every_state_after_a_loss_of_power() {
    let options = CreateOptions::new(Format::Qcow2, 8 * MIB).with_block_size(4096);
    let steps = [
        Step::write(0, 4),
        Step::write(16000, 8),
        Step::Resize(1500 * MIB + 512),
        Step::write(1500 * 2048, 1),
        Step::Flush,
        Step::Resize(4 * MIB + 512),
        Step::write(8192, 1),
        Step::Reopen,
        Step::Resize(16 * MIB),
        Step::write(16000, 1),
        Step::Flush,
    ];
    assert!(case(&options).prove(&steps) > 20);
}

/// An image over one with content in all of [`PLACES`].
fn overlay() -> Case {
    Case::new("base.qcow2", &plain()).with_child(&PLACES, &plain(), case)
}

#[test]
fn test_qcow2_over_a_backing_file_keeps_its_promises_in_every_state_after_a_loss_of_power() {
    let mut steps = random_script(43, 16, &PLACES, CLUSTER);
    steps.insert(8, Step::Reopen);
    assert!(overlay().prove(&steps) > 30);
}

#[test]
fn test_qcow2_cluster_that_is_discarded_and_written_again_keeps_its_promises() {
    let clear = |operation| Step::Clear { operation, first: 0, count: CLUSTER };
    let mut steps = Vec::new();
    for operation in [Operation::Discard, Operation::WriteZeroes { unmap: true }] {
        steps.extend([Step::write(0, 8), Step::Flush, clear(operation), Step::write(4, 8)]);
        steps.extend([clear(operation), Step::Flush, Step::fua(100, 2), Step::write(CLUSTER, 8)]);
    }
    assert!(case(&plain()).prove(&steps) > 20);
}

#[test]
fn test_qcow2_whose_reserve_has_no_barrier_is_found() {
    let steps = [Step::write(0, 1), Step::write(REACH, 1)];
    assert!(case(&plain()).broken_without_barrier(&steps, first_growth).is_some());
}

#[test]
fn test_qcow2_cluster_that_is_copied_up_without_a_barrier_is_found() {
    let steps = [Step::write(CLUSTER, 1)];
    assert!(overlay().broken_without_barrier(&steps, last_copy).is_some());
}
