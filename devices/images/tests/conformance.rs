//! Every format passes the checks of all backends.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Folder, qemu, text};
use synthvm_block::Backend;
use synthvm_block::conformance::{CAPACITY, check, check_read_only, check_reopen};
use synthvm_images::{CreateOptions, Format, OpenOptions, create, open};

/// The program that makes an image.
enum Kind {
    Ours(CreateOptions),
    /// An image of qemu-img, with these options.
    Qemus(&'static str),
    /// A qcow2 image over an empty backing file.
    Overlay,
}

impl Kind {
    fn make(&self, folder: &Folder, path: &Path) {
        match self {
            Self::Ours(options) => create(path, options).unwrap(),
            Self::Qemus(options) => {
                let size = CAPACITY.to_string();
                let data = folder.unique("data.raw");
                let options = options.replace("DATA", text(&data));
                qemu(
                    "qemu-img",
                    &["create", "-q", "-f", "qcow2", "-o", &options, text(path), &size],
                );
            }
            Self::Overlay => {
                let base = folder.unique("base.qcow2");
                create(&base, &CreateOptions::new(Format::Qcow2, CAPACITY)).unwrap();
                let options = CreateOptions::child(Format::Qcow2, base);
                create(path, &options).unwrap();
            }
        }
    }
}

/// All kinds of images that can be written.
fn kinds() -> Vec<(&'static str, Kind)> {
    let new = |format| CreateOptions::new(format, CAPACITY);
    let blocks = |format, size| Kind::Ours(CreateOptions { block_size: Some(size), ..new(format) });
    vec![
        ("dynamic.vhdx", blocks(Format::Vhdx, 1 << 20)),
        ("large-blocks.vhdx", Kind::Ours(new(Format::Vhdx))),
        (
            "fixed.vhdx",
            Kind::Ours(CreateOptions {
                fixed: true,
                block_size: Some(1 << 20),
                ..new(Format::Vhdx)
            }),
        ),
        ("fixed.vhd", Kind::Ours(CreateOptions { fixed: true, ..new(Format::Vhd) })),
        ("disk.qcow2", Kind::Ours(new(Format::Qcow2))),
        ("smallest-clusters.qcow2", blocks(Format::Qcow2, 512)),
        ("largest-clusters.qcow2", blocks(Format::Qcow2, 2 << 20)),
        ("version-2.qcow2", Kind::Qemus("compat=0.10")),
        ("one-bit-counts.qcow2", Kind::Qemus("refcount_bits=1,cluster_size=1k")),
        ("data-file.qcow2", Kind::Qemus("data_file=DATA,data_file_raw=on")),
        ("overlay.qcow2", Kind::Overlay),
    ]
}

/// Opens a new image of a kind; its folder stays until the test ends.
fn fresh(folder: &Folder, name: &str, kind: &Kind, read_only: bool) -> Arc<dyn Backend> {
    let path = folder.unique(name);
    kind.make(folder, &path);
    open(&path, &OpenOptions { read_only, ..OpenOptions::default() }).unwrap()
}

/// Runs `test` for every kind.
fn each(test: impl Fn(&Folder, &str, &Kind)) {
    let folder = Folder::new();
    for (name, kind) in kinds() {
        println!("{name}");
        test(&folder, name, &kind);
    }
}

#[test]
fn test_every_format_conforms() {
    each(|folder, name, kind| check(|| fresh(folder, name, kind, false)));
}

#[test]
fn test_every_format_conforms_when_read_only() {
    each(|folder, name, kind| check_read_only(|| fresh(folder, name, kind, true)));
}

#[test]
fn test_every_format_keeps_what_was_flushed_when_opened_again() {
    each(|folder, name, kind| {
        let path = folder.unique(name);
        kind.make(folder, &path);
        check_reopen(|| open(&path, &OpenOptions::default()).unwrap());
    });
}

#[test]
fn test_differencing_vhdx_conforms() {
    let folder = Folder::new();
    let parent = folder.unique("parent.vhdx");
    create(&parent, &CreateOptions::new(Format::Vhdx, CAPACITY).with_block_size(1 << 20)).unwrap();
    let child = |_: ()| {
        let path = folder.unique("child.vhdx");
        let options = CreateOptions::child(Format::Vhdx, parent.clone()).with_block_size(1 << 20);
        create(&path, &options).unwrap();
        path
    };
    check(|| open(&child(()), &OpenOptions::default()).unwrap());
    let path = child(());
    check_reopen(|| open(&path, &OpenOptions::default()).unwrap());
    check_read_only(|| {
        open(&child(()), &OpenOptions { read_only: true, ..OpenOptions::default() }).unwrap()
    });
}
