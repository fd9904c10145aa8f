use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A folder that ends with the test.
pub(super) struct Folder(PathBuf);

impl Folder {
    pub(super) fn new() -> Folder {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("synthvm-msvm-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("vars")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn open(folder: &Folder) -> (Nvram, Variables) {
    let (file, variables) = VariablesFile::open(&folder.file()).unwrap();
    (Nvram::new(variables.clone(), Box::new(file), None), variables)
}

fn message(folder: &Folder) -> String {
    VariablesFile::open(&folder.file()).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn test_file_keeps_what_is_kept_and_nothing_else() {
    let folder = Folder::new();
    let (mut nvram, variables) = open(&folder);
    assert!(variables.is_empty());
    set(&mut nvram, "kept", KEPT, b"one").unwrap();
    set(&mut nvram, "volatile", 6, b"two").unwrap();
    set(&mut nvram, "kept", KEPT | APPEND, b"!").unwrap();
    drop(nvram);
    let (mut nvram, variables) = open(&folder);
    assert_eq!(variables[&(VENDOR, name("kept"))].data, b"one!");
    assert!(!variables.contains_key(&(VENDOR, name("volatile"))));
    set(&mut nvram, "kept", KEPT, b"").unwrap();
    drop(nvram);
    assert!(!open(&folder).1.contains_key(&(VENDOR, name("kept"))));
}

#[test]
fn test_file_torn_at_any_byte_has_the_old_or_the_new_variables() {
    let folder = Folder::new();
    let (mut nvram, _) = open(&folder);
    set(&mut nvram, "a", KEPT, b"old").unwrap();
    let before = fs::read(folder.file()).unwrap();
    set(&mut nvram, "a", KEPT, b"new and longer").unwrap();
    let after = fs::read(folder.file()).unwrap();
    drop(nvram);
    let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    assert!(!changed.is_empty());
    let mut seen = [0; 2];
    for count in 0..=changed.len() {
        let mut torn = before.clone();
        for at in &changed[..count] {
            torn[*at] = after[*at];
        }
        fs::write(folder.file(), torn).unwrap();
        match &open(&folder).1[&(VENDOR, name("a"))].data[..] {
            b"old" => seen[0] += 1,
            b"new and longer" => seen[1] += 1,
            other => panic!("{other:?} after {count} bytes"),
        }
    }
    assert!(seen[0] > 0 && seen[1] > 0);
}

#[test]
fn test_file_torn_in_its_first_write_is_empty_or_complete() {
    let folder = Folder::new();
    let (nvram, _) = open(&folder);
    let empty = fs::read(folder.file()).unwrap();
    drop(nvram);
    let (mut nvram, _) = open(&folder);
    set(&mut nvram, "a", KEPT, b"x").unwrap();
    drop(nvram);
    let full = fs::read(folder.file()).unwrap();
    let len = empty.len();
    for count in 0..len {
        if count > 0 && empty[count - 1] == full[count - 1] {
            continue;
        }
        let torn = [&full[..count], &empty[count..]].concat();
        fs::write(folder.file(), torn).unwrap();
        let data = open(&folder).1.get(&(VENDOR, name("a"))).map(|v| v.data.clone());
        assert!(data.is_none_or(|data| data == b"x"), "after {count} bytes");
    }
    // A creation that ended after the length was set, or before.
    for len in [0, len] {
        fs::write(folder.file(), vec![0; len]).unwrap();
        assert!(open(&folder).1.is_empty());
    }
}

#[test]
fn test_file_in_use_is_refused_until_its_machine_ends() {
    let folder = Folder::new();
    let first = open(&folder);
    assert!(message(&folder).contains("is in use by another SynthVM"));
    drop(first);
    open(&folder);
}

#[test]
fn test_file_of_other_content_is_refused_and_unchanged() {
    let folder = Folder::new();
    drop(open(&folder));
    let good = fs::read(folder.file()).unwrap();
    let mut version = good.clone();
    version[16] = 9;
    let mut damaged = good.clone();
    damaged[4096] = 1;
    for (bytes, expected) in [
        (vec![0; 540_672], "no file of MSVM variables"),
        (vec![1; good.len()], "no file of MSVM variables"),
        (good[..good.len() - 1].to_vec(), "no file of MSVM variables"),
        (version, "format 9"),
        (damaged, "damaged"),
    ] {
        fs::write(folder.file(), &bytes).unwrap();
        let message = message(&folder);
        assert!(message.contains(expected) && message.contains("another file"), "{message}");
        assert_eq!(fs::read(folder.file()).unwrap(), bytes);
    }
}

#[test]
fn test_file_that_is_a_folder_is_refused() {
    let folder = Folder::new();
    fs::create_dir(folder.file()).unwrap();
    assert!(message(&folder).contains("cannot open it"));
}

#[test]
fn test_file_with_any_byte_changed_does_not_panic() {
    let folder = Folder::new();
    let (mut nvram, _) = open(&folder);
    set(&mut nvram, "a", KEPT, b"x").unwrap();
    set(&mut nvram, "b", KEPT, b"y").unwrap();
    drop(nvram);
    let good = fs::read(folder.file()).unwrap();
    let slots = [4096, 4096 + (good.len() - 4096) / 2];
    for at in (0..24).chain(slots.into_iter().flat_map(|slot| slot..slot + 120)) {
        fs::write(folder.file(), &good).unwrap();
        let file = fs::File::options().write(true).open(folder.file()).unwrap();
        file.write_all_at(&[!good[at]], at as u64).unwrap();
        let _ = VariablesFile::open(&folder.file());
    }
}
