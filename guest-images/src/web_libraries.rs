//! noVNC and xterm.js, as Debian packages them: the libraries of the browser console.
//!
//! The folder has a fixed path in the cache, where the build of `synthvm-web-console` finds it. It
//! has copies, no links, so it can be copied to another machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::packages::{Package, Packages};
use crate::{Error, cache::Cache};

/// The suite of the packages: the first with noVNC 1.6 and xterm.js 5.3.
const SUITE: &str = "trixie";

/// The folder's name in the cache.
const FOLDER: &str = "web-libraries";

/// A package and what is copied from it: paths in the package and in the folder. A folder is copied
/// with the JavaScript files in it.
struct Library {
    package: &'static str,
    copies: &'static [(&'static str, &'static str)],
}

const LIBRARIES: [Library; 2] = [
    Library {
        package: "novnc",
        copies: &[
            ("usr/share/novnc/core", "novnc/core"),
            ("usr/share/novnc/vendor/pako/lib", "novnc/vendor/pako/lib"),
            ("usr/share/doc/novnc/copyright", "novnc/LICENSE.txt"),
        ],
    },
    Library {
        package: "libjs-xterm",
        copies: &[
            ("usr/share/javascript/xterm/xterm.js", "xterm/xterm.js"),
            ("usr/share/javascript/xterm/xterm.css", "xterm/xterm.css"),
            ("usr/share/javascript/xterm/addons/fit/xterm-addon-fit.js", "xterm/fit.js"),
            ("usr/share/doc/libjs-xterm/copyright", "xterm/LICENSE.txt"),
        ],
    },
];

/// Returns the folder with the libraries, after fetching them if they are missing. Its file
/// `NOTICE.txt` names their versions, origin and licences.
///
/// # Errors
/// The packages cannot be fetched, or lack a file.
pub fn folder(cache: &Cache) -> Result<PathBuf, Error> {
    let _lock = cache.lock(FOLDER)?;
    let suite = Packages::new(cache, SUITE);
    let packages: Vec<Package> =
        LIBRARIES.iter().map(|library| suite.get(library.package)).collect::<Result<_, _>>()?;
    let notice = notice(&packages);
    let made = cache.root().join(FOLDER);
    if fs::read_to_string(made.join("NOTICE.txt")).is_ok_and(|text| text == notice) {
        return Ok(made);
    }
    let scratch = cache.scratch()?;
    let new = scratch.path().join("new");
    for (library, package) in LIBRARIES.iter().zip(&packages) {
        for (from, to) in library.copies {
            copy(&package.root.join(from), &new.join(to))?;
        }
    }
    let path = new.join("NOTICE.txt");
    fs::write(&path, notice).map_err(Error::file("writing", &path))?;
    // Absent at first.
    let _ = fs::remove_dir_all(&made);
    fs::rename(&new, &made).map_err(Error::file("moving into place", &made))?;
    Ok(made)
}

fn notice(packages: &[Package]) -> String {
    let mut text = "JavaScript libraries of SynthVM's browser console, unchanged from Debian.\n\n\
        noVNC: Mozilla Public License 2.0, with pako under the MIT licence.\n\
        xterm.js: MIT licence.\n\
        The texts are in LICENSE.txt beside each; the files are their own source.\n\n"
        .to_owned();
    for package in packages {
        text.push_str(&format!("{} {} ({SUITE})\n", package.name, package.version));
    }
    text
}

/// Copies a file, or the JavaScript files of a folder and of the folders in it.
fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    if from.is_dir() {
        for entry in fs::read_dir(from).map_err(Error::file("reading", from))? {
            let entry = entry.map_err(Error::file("reading", from))?;
            let path = entry.path();
            if path.is_dir() || path.extension().is_some_and(|extension| extension == "js") {
                copy(&path, &to.join(entry.file_name()))?;
            }
        }
        return Ok(());
    }
    let parent = to.parent().unwrap_or(to);
    fs::create_dir_all(parent).map_err(Error::file("making folder", parent))?;
    let bytes = fs::read(from).map_err(Error::file("reading", from))?;
    fs::write(to, bytes).map_err(Error::file("writing", to))
}
