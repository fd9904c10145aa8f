//! Errors at every access to the file.

use std::path::Path;
use std::sync::Arc;

use synthvm_block::Backend;
use synthvm_block::conformance::{CAPACITY, FaultPlan, check_faults};
use vmm_sys_util::tempdir::TempDir;

use super::header::Header;
use super::{Qcow2, backing};
use crate::file::ImageFile;
use crate::mapped::Mapped;
use crate::{CreateOptions, Format, OpenOptions, create};

fn failing(path: &Path, plan: &FaultPlan, options: &CreateOptions) -> Arc<dyn Backend> {
    let _ = std::fs::remove_file(path);
    create(path, options).unwrap();
    let open = OpenOptions::default();
    let mut file = ImageFile::open(path, &open).unwrap();
    file.fail(plan);
    let header = Header::read(&file, false).unwrap();
    let parent = backing::open(path, &header, &open, 0).unwrap();
    Arc::new(Mapped::new(Arc::new(
        Qcow2::assemble(path, false, file, None, parent, header).unwrap(),
    )))
}

#[test]
fn test_qcow2_stands_every_error_of_its_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.as_path().join("disk.qcow2");
    check_faults(|plan| failing(&path, plan, &CreateOptions::new(Format::Qcow2, CAPACITY)));
}

/// The tables of counts also grow and move.
#[test]
fn test_qcow2_of_the_smallest_clusters_stands_every_error_of_its_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.as_path().join("disk.qcow2");
    let options = CreateOptions::new(Format::Qcow2, CAPACITY).with_block_size(512);
    check_faults(|plan| failing(&path, plan, &options));
}

#[test]
fn test_qcow2_over_a_backing_file_stands_every_error_of_its_file() {
    let folder = TempDir::new().unwrap();
    let parent = folder.as_path().join("base.qcow2");
    create(&parent, &CreateOptions::new(Format::Qcow2, CAPACITY)).unwrap();
    let path = folder.as_path().join("disk.qcow2");
    let options = CreateOptions::child(Format::Qcow2, parent);
    check_faults(|plan| failing(&path, plan, &options));
}
