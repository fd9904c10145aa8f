//! Puts noVNC and xterm.js into the crate, if `cargo xtask web-libraries` has fetched them before.
//!
//! Without them the crate builds too, and reads them from a folder when the console starts.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The variable with a folder to use in place of the cache's.
const VARIABLE: &str = "SYNTHVM_WEB_LIBRARIES";
const CACHE: &str = "SYNTHVM_CACHE";
const EXTENSIONS: [&str; 3] = ["js", "css", "txt"];

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let folder = folder(&out);
    println!("cargo:rerun-if-env-changed={VARIABLE}");
    println!("cargo:rerun-if-env-changed={CACHE}");
    println!("cargo:rustc-env={VARIABLE}_FOLDER={}", folder.display());
    let notice = folder.join("NOTICE.txt");
    // A path that does not exist would make every build run this program again.
    let watched = if notice.is_file() { notice } else { PathBuf::from("build.rs") };
    println!("cargo:rerun-if-changed={}", watched.display());

    let mut files = Vec::new();
    collect(&folder, &folder, &mut files);
    files.sort();
    let entries = files.iter().map(|(name, path)| {
        format!("    ({name:?}, include_bytes!({:?})),\n", path.display().to_string())
    });
    let table = format!("&[\n{}]\n", entries.collect::<String>());
    fs::write(out.join("libraries.rs"), table).expect("OUT_DIR is writable");
}

/// Returns the folder of the libraries, which may be absent.
fn folder(out: &Path) -> PathBuf {
    if let Some(named) = env::var_os(VARIABLE) {
        return PathBuf::from(named);
    }
    if let Some(cache) = env::var_os(CACHE) {
        return PathBuf::from(cache).join("web-libraries");
    }
    // OUT_DIR is TARGET/PROFILE/build/NAME/out, or TARGET/TRIPLE/PROFILE/build/NAME/out.
    let caches = out.ancestors().skip(4).take(2).map(|target| target.join("guest-images"));
    let mut folders = caches.map(|cache| cache.join("web-libraries"));
    let first = folders.next().unwrap_or_default();
    if first.is_dir() { first } else { folders.find(|folder| folder.is_dir()).unwrap_or(first) }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if path.extension().is_some_and(|one| EXTENSIONS.iter().any(|known| one == *known))
            && let Ok(name) = path.strip_prefix(root)
        {
            files.push((name.to_string_lossy().into_owned(), path));
        }
    }
}
