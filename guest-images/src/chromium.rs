//! Chromium without a window, unpacked into the cache with its libraries and one font. Nothing is
//! installed.
//!
//! Tests of the browser console use it. It runs with the C library of this machine (2.36 or later)
//! and with all other libraries from the cache: Chromium starts itself again by the path of its own
//! program, so it cannot be started through the loader of another C library.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::libraries::Libraries;
use crate::packages::{Package, Packages};
use crate::{Error, cache::Cache};

/// The variable with the path of the Chromium that tests of the browser console use. `cargo xtask
/// test` sets it for its tests.
pub const VARIABLE: &str = "SYNTHVM_CHROMIUM";

/// The suite of the packages. Programs of bookworm run with the C library of later suites.
const SUITE: &str = "bookworm";

/// The packages with Chromium's files, all below [`FOLDER`]; the program is in the first one.
const PACKAGES: [&str; 2] = ["chromium-headless-shell", "chromium-common"];
const FOLDER: &str = "usr/lib/chromium";
const PROGRAM: &str = "chromium-headless-shell";

/// Files that the page's tests do not need: 29 MB of graphics drivers.
const OMITTED: [&str; 2] = ["Vk", "vulkan"];

/// Libraries that are loaded at run time by name: package and path.
const LOADED: (&str, [&str; 3]) = (
    "libnss3",
    [
        "usr/lib/x86_64-linux-gnu/libsoftokn3.so",
        "usr/lib/x86_64-linux-gnu/libfreeblpriv3.so",
        "usr/lib/x86_64-linux-gnu/libnssckbi.so",
    ],
);

/// The package with the font, and its folder.
const FONT: (&str, &str) = ("fonts-dejavu-core", "usr/share/fonts/truetype/dejavu");

/// The package of the C library, whose files come from this machine.
const C_LIBRARY: &str = "libc6_";

/// Returns the path of Chromium, after fetching it if it is missing. It accepts Chromium's options.
///
/// # Errors
/// The packages cannot be fetched.
pub fn program(cache: &Cache) -> Result<PathBuf, Error> {
    let _lock = cache.lock("chromium")?;
    let suite = Packages::new(cache, SUITE);
    let packages = suite.get_all(&PACKAGES)?;
    let [shell, _] = &*packages else {
        return Err(Error::Unusable(format!("{SUITE} lacks one of {PACKAGES:?}")));
    };
    // The package's folder has its version and checksum in its name.
    let name = shell.root.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let made = cache.dir("programs")?.join(name);
    if !made.is_dir() {
        make(cache, &suite, &packages, &made)?;
    }
    Ok(made.join("bin/chromium"))
}

fn make(cache: &Cache, suite: &Packages, packages: &[Package], made: &Path) -> Result<(), Error> {
    let scratch = cache.scratch()?;
    let new = scratch.path().join("new");
    for folder in ["bin", "lib", "chromium"] {
        let path = new.join(folder);
        fs::create_dir_all(&path).map_err(Error::file("making folder", &path))?;
    }
    for package in packages {
        let from = package.root.join(FOLDER);
        for entry in fs::read_dir(&from).map_err(Error::file("reading", &from))? {
            let entry = entry.map_err(Error::file("reading", &from))?;
            let name = entry.file_name();
            let is_omitted = OMITTED.iter().any(|part| name.to_string_lossy().contains(part));
            if entry.path().is_file() && !is_omitted {
                // Chromium finds its data beside its program, by the program's real path.
                let to = new.join("chromium").join(&name);
                fs::hard_link(entry.path(), &to).map_err(Error::file("linking", &to))?;
            }
        }
    }
    let mut known = packages.to_vec();
    known.push(suite.get(LOADED.0)?);
    let mut files = vec![(&packages[0], packages[0].root.join(FOLDER).join(PROGRAM))];
    if let Some(loaded) = known.last() {
        files.extend(LOADED.1.map(|path| (loaded, loaded.root.join(path))));
    }
    let borrowed: Vec<_> = files.iter().map(|(package, path)| (*package, &**path)).collect();
    let libraries = Libraries::new(suite, &known).of(&borrowed)?;
    let loaded = files.iter().skip(1).map(|(_, path)| {
        (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), path.clone())
    });
    for (name, path) in libraries.into_iter().chain(loaded) {
        let inside = path
            .strip_prefix(cache.root())
            .map_err(|_| Error::Unusable(format!("{} is not in the cache", path.display())))?;
        if !inside.to_string_lossy().contains(C_LIBRARY) {
            link(&new.join("lib").join(name), &Path::new("../../..").join(inside))?;
        }
    }
    let font = suite.get(FONT.0)?.root.join(FONT.1);
    let inside = font.strip_prefix(cache.root()).unwrap_or(&font);
    link(&new.join("fonts"), &Path::new("../..").join(inside))?;
    write(&new.join("bin/fonts.conf"), FONTS, 0o644)?;
    write(&new.join("bin/chromium"), SCRIPT, 0o755)?;
    fs::rename(&new, made).map_err(Error::file("moving into place", made))
}

fn link(path: &Path, target: &Path) -> Result<(), Error> {
    symlink(target, path).map_err(Error::file("making link", path))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    fs::write(path, text).map_err(Error::file("writing", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::file("setting the mode of", path))
}

const SCRIPT: &str = "#!/bin/sh\n\
    # Runs Chromium with its own libraries and font, from the folder above.\n\
    top=$(cd \"${0%/*}/..\" && pwd) || exit\n\
    export LD_LIBRARY_PATH=\"$top/lib\" FONTCONFIG_FILE=\"$top/bin/fonts.conf\"\n\
    exec \"$top/chromium/chromium-headless-shell\" \"$@\"\n";

const FONTS: &str = "<?xml version=\"1.0\"?>\n\
    <!DOCTYPE fontconfig SYSTEM \"fonts.dtd\">\n\
    <fontconfig><dir prefix=\"relative\">../fonts</dir>\
    <cachedir prefix=\"xdg\">fontconfig</cachedir></fontconfig>\n";
