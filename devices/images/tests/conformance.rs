//! Every format passes what every backend must.

mod common;

use std::sync::Arc;

use common::Folder;
use synthvm_images::{CreateOptions, Format, OpenOptions, create, open};
use synthvm_storage::backend::Backend;
use synthvm_storage::backend::conformance::{CAPACITY, check, check_read_only, check_reopen};

/// Creation options of all kinds of images that can be written.
fn kinds() -> Vec<(&'static str, CreateOptions)> {
    let new = |format| CreateOptions::new(format, CAPACITY);
    vec![
        ("dynamic.vhdx", CreateOptions { block_size: Some(1 << 20), ..new(Format::Vhdx) }),
        ("large-blocks.vhdx", new(Format::Vhdx)),
        ("fixed.vhdx", CreateOptions { fixed: true, block_size: Some(1 << 20), ..new(Format::Vhdx) }),
        ("fixed.vhd", CreateOptions { fixed: true, ..new(Format::Vhd) }),
        ("disk.qcow2", new(Format::Qcow2)),
    ]
}

/// Opens a new image of a kind; its folder stays until the test ends.
fn fresh(folder: &Folder, name: &str, options: &CreateOptions, read_only: bool) -> Arc<dyn Backend> {
    let path = folder.unique(name);
    create(&path, options).unwrap();
    open(&path, &OpenOptions { read_only, ..OpenOptions::default() }).unwrap()
}

#[test]
fn test_every_format_conforms() {
    let folder = Folder::new();
    for (name, options) in kinds() {
        println!("{name}");
        check(|| fresh(&folder, name, &options, false));
    }
}

#[test]
fn test_every_format_conforms_when_read_only() {
    let folder = Folder::new();
    for (name, options) in kinds() {
        println!("{name}");
        check_read_only(|| fresh(&folder, name, &options, true));
    }
}

#[test]
fn test_every_format_keeps_what_was_flushed_when_opened_again() {
    let folder = Folder::new();
    for (name, options) in kinds() {
        println!("{name}");
        let path = folder.unique(name);
        create(&path, &options).unwrap();
        check_reopen(|| open(&path, &OpenOptions::default()).unwrap());
    }
}

#[test]
fn test_differencing_vhdx_conforms() {
    let folder = Folder::new();
    let parent = folder.unique("parent.vhdx");
    create(
        &parent,
        &CreateOptions { block_size: Some(1 << 20), ..CreateOptions::new(Format::Vhdx, CAPACITY) },
    )
    .unwrap();
    let child = |_: ()| {
        let path = folder.unique("child.vhdx");
        let options = CreateOptions {
            size: None,
            parent: Some(parent.clone()),
            block_size: Some(1 << 20),
            ..CreateOptions::new(Format::Vhdx, 0)
        };
        create(&path, &options).unwrap();
        path
    };
    check(|| open(&child(()), &OpenOptions::default()).unwrap());
    let path = child(());
    check_reopen(|| open(&path, &OpenOptions::default()).unwrap());
    check_read_only(|| open(&child(()), &OpenOptions { read_only: true, ..OpenOptions::default() }).unwrap());
}
