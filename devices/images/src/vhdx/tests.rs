//! Errors at every access to the file, and lookups that must not run on the workers.

mod off_worker;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use synthvm_block::Backend;
use synthvm_block::conformance::{CAPACITY, FaultPlan, check_faults};
use vmm_sys_util::tempdir::TempDir;

use super::Vhdx;
use crate::file::ImageFile;
use crate::mapped::Mapped;
use crate::{CreateOptions, Format, OpenOptions, create};

type Call = Box<dyn FnOnce(u64) + Send>;

/// A hook that is called when a block's new entry is visible.
#[derive(Default)]
pub(super) struct Hook(Mutex<Option<Call>>);

impl Hook {
    /// Makes the next change call `hook`.
    fn set(&self, hook: impl FnOnce(u64) + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(hook));
    }

    pub(super) fn call(&self, block: u64) {
        let hook = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        hook.into_iter().for_each(|hook| hook(block));
    }
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hook")
    }
}

fn failing(path: &Path, plan: &FaultPlan, parent: Option<PathBuf>) -> Arc<dyn Backend> {
    let options = CreateOptions {
        size: parent.is_none().then_some(CAPACITY),
        parent,
        block_size: Some(1 << 20),
        ..CreateOptions::new(Format::Vhdx, CAPACITY)
    };
    let _ = std::fs::remove_file(path);
    create(path, &options).unwrap();
    let mut file = ImageFile::open(path, &OpenOptions::default()).unwrap();
    file.fail(plan);
    Arc::new(Mapped::new(Arc::new(Vhdx::assemble(file, path, &OpenOptions::default(), 0).unwrap())))
}

#[test]
fn test_dynamic_vhdx_stands_every_error_of_its_file() {
    let folder = TempDir::new().unwrap();
    let path = folder.as_path().join("disk.vhdx");
    check_faults(|plan| failing(&path, plan, None));
}

#[test]
fn test_differencing_vhdx_stands_every_error_of_its_file() {
    let folder = TempDir::new().unwrap();
    let parent = folder.as_path().join("parent.vhdx");
    create(&parent, &CreateOptions::new(Format::Vhdx, CAPACITY)).unwrap();
    let path = folder.as_path().join("disk.vhdx");
    check_faults(|plan| failing(&path, plan, Some(parent.clone())));
}
