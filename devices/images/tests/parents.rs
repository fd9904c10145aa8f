//! The other files that an image may name: all of them, or none.

mod common;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use common::{Folder, read};
use synthvm_images::{
    ConvertOptions, CreateOptions, Format, OpenOptions, Parents, check, convert, create, info, open,
};

const MIB: u64 = 1 << 20;

fn options(format: Format) -> CreateOptions {
    CreateOptions {
        block_size: (format == Format::Vhdx).then_some(MIB),
        ..CreateOptions::new(format, 2 * MIB)
    }
}

/// Returns an image in `format`, its child, and the child of that.
fn chain(folder: &Folder, format: Format) -> [PathBuf; 3] {
    let paths = ["base", "middle", "top"].map(|name| folder.unique(&format!("{name}.{format}")));
    create(&paths[0], &options(format)).unwrap();
    for at in 1..3 {
        let parent = Some(paths[at - 1].clone());
        create(&paths[at], &CreateOptions { size: None, parent, ..options(format) }).unwrap();
    }
    paths
}

fn refusing(parent: Option<&Path>) -> OpenOptions {
    OpenOptions {
        parents: Parents::Refuse,
        parent: parent.map(Path::to_owned),
        ..OpenOptions::default()
    }
}

#[test]
fn test_image_with_a_parent_is_refused_by_name_where_none_is_wanted() {
    let folder = Folder::new();
    for format in [Format::Vhdx, Format::Qcow2] {
        let [base, middle, _] = chain(&folder, format);
        open(&middle, &OpenOptions::default()).unwrap();
        open(&base, &refusing(None)).unwrap();
        // The error does not reveal whether the file exists.
        for there in [true, false] {
            if !there {
                std::fs::remove_file(&base).unwrap();
            }
            let error = open(&middle, &refusing(None)).unwrap_err().to_string();
            let named = base.file_name().unwrap().to_str().unwrap();
            assert!(error.contains(named) && error.contains("parents=refuse"), "{error}");
            assert!(error.contains(middle.to_str().unwrap()), "{error}");
        }
    }
}

#[test]
fn test_tools_open_no_parent_where_none_is_wanted() {
    let folder = Folder::new();
    for format in [Format::Vhdx, Format::Qcow2] {
        let [_, middle, _] = chain(&folder, format);
        assert!(info(&middle, None, Parents::Refuse).is_err());
        let report = check(&middle, None, false, Parents::Refuse).unwrap();
        assert!(report.errors.iter().any(|error| error.contains("--no-parents")), "{report}");
        let refuse = ConvertOptions { parents: Parents::Refuse, ..ConvertOptions::to(Format::Raw) };
        let target = folder.unique("copy.img");
        assert!(convert(&middle, &target, &refuse, &mut |_| ()).is_err());
        assert!(!target.exists());
    }
}

#[test]
fn test_parent_that_the_user_names_is_opened_and_no_further_one() {
    let folder = Folder::new();
    let [base, middle, top] = chain(&folder, Format::Vhdx);
    let image = open(&middle, &refusing(Some(&base))).unwrap();
    assert_eq!(read(&image, 0, 512), [0; 512]);
    drop(image);
    let error = open(&top, &refusing(Some(&middle))).unwrap_err().to_string();
    assert!(error.contains("parents=refuse"), "{error}");
}

/// The image names a file that would block a process that opens it.
#[test]
fn test_pipe_as_parent_is_refused_immediately() {
    let folder = Folder::new();
    for format in [Format::Vhdx, Format::Qcow2] {
        let [base, middle, _] = chain(&folder, format);
        std::fs::remove_file(&base).unwrap();
        let path = CString::new(base.as_os_str().as_bytes()).unwrap();
        // SAFETY: a terminated string and a number.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
        let error = open(&middle, &OpenOptions::default()).unwrap_err().to_string();
        assert!(error.contains(base.file_name().unwrap().to_str().unwrap()), "{error}");
    }
}
