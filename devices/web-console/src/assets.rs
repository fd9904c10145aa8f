//! The files of the page: a fixed table, complete before the first request.
//!
//! A request names an entry of the table or nothing; no request ever becomes a path of the host.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The place of the nonce in the page.
pub(crate) const NONCE: &str = "{NONCE}";

/// The page's own files, which are part of the program.
const PAGE: &str = include_str!("../page/console.html");
const OWN: [(&str, &[u8]); 8] = [
    ("console.css", include_bytes!("../page/console.css")),
    ("console.js", include_bytes!("../page/console.js")),
    ("control.js", include_bytes!("../page/control.js")),
    ("keys.js", include_bytes!("../page/keys.js")),
    ("paste.js", include_bytes!("../page/paste.js")),
    ("screen.js", include_bytes!("../page/screen.js")),
    ("serial.js", include_bytes!("../page/serial.js")),
    ("icon.svg", include_bytes!("../page/icon.svg")),
];

/// noVNC and xterm.js, if they were in the cache when the program was built.
static EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/libraries.rs"));

/// The folder in which the build looked for the libraries.
const BUILD_FOLDER: &str = env!("SYNTHVM_WEB_LIBRARIES_FOLDER");

/// Files that must be there, for a clear message at the start instead of a page that does not work.
const NEEDED: [&str; 4] =
    ["novnc/core/rfb.js", "xterm/xterm.js", "xterm/xterm.css", "xterm/fit.js"];

/// Limits of a folder with libraries: a wrong folder is refused early.
const MAX_FILES: usize = 500;
const MAX_BYTES: u64 = 16 << 20;
const MAX_DEPTH: usize = 8;

/// The libraries of the page: noVNC and xterm.js.
#[derive(Debug, Clone, Default)]
pub struct Libraries(BTreeMap<String, Cow<'static, [u8]>>);

/// The libraries cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LibrariesError {
    /// This build has none.
    #[error(
        "this build of SynthVM lacks noVNC and xterm.js; run `cargo xtask web-libraries` and build \
         again, or name a folder with them"
    )]
    Absent,
    /// The named folder cannot be read.
    #[error("{}: {cause}", .path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// The named folder is not one of `cargo xtask web-libraries`.
    #[error(
        "{}: {cause}; `cargo xtask web-libraries` prints a folder that can be used",
        .path.display()
    )]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// The reason.
        cause: String,
    },
}

impl Libraries {
    /// Returns the libraries of this build: those in the program, or else those that were fetched
    /// after it was built.
    ///
    /// # Errors
    /// There are none.
    pub fn built_in() -> Result<Self, LibrariesError> {
        let embedded = EMBEDDED.iter().map(|(name, bytes)| ((*name).to_owned(), (*bytes).into()));
        let libraries = Libraries(embedded.collect());
        if libraries.missing().is_none() {
            return Ok(libraries);
        }
        let folder = Path::new(BUILD_FOLDER);
        // On another machine than that of the build, the folder may belong to anyone.
        if fs::metadata(folder).is_ok_and(|metadata| is_ours(&metadata))
            && let Ok(libraries) = Self::read(folder)
        {
            return Ok(libraries);
        }
        Err(LibrariesError::Absent)
    }

    /// Reads the libraries from a folder as `cargo xtask web-libraries` makes it, once.
    ///
    /// # Errors
    /// The folder cannot be read, lacks a file, or has too many.
    pub fn read(folder: &Path) -> Result<Self, LibrariesError> {
        let mut libraries = Libraries::default();
        let mut left = MAX_BYTES;
        libraries.collect(folder, "", MAX_DEPTH, &mut left)?;
        match libraries.missing() {
            Some(name) => Err(unusable(folder, format!("there is no {name}"))),
            None => Ok(libraries),
        }
    }

    /// Returns libraries of these names and contents.
    pub fn of(files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Libraries(files.into_iter().map(|(name, bytes)| (name, bytes.into())).collect())
    }

    fn collect(
        &mut self,
        folder: &Path,
        prefix: &str,
        depth: usize,
        left: &mut u64,
    ) -> Result<(), LibrariesError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |cause| LibrariesError::Unreadable { path, cause }
        };
        for entry in fs::read_dir(folder).map_err(failed(folder))? {
            let path = entry.map_err(failed(folder))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let name = format!("{prefix}{name}");
            let metadata = fs::metadata(&path).map_err(failed(&path))?;
            if metadata.is_dir() && depth > 0 {
                self.collect(&path, &format!("{name}/"), depth - 1, left)?;
            } else if metadata.is_file() && content_type(&name).is_some() {
                *left = left
                    .checked_sub(metadata.len())
                    .filter(|_| self.0.len() < MAX_FILES)
                    .ok_or_else(|| unusable(folder, "there are too many files".to_owned()))?;
                self.0.insert(name, fs::read(&path).map_err(failed(&path))?.into());
            }
        }
        Ok(())
    }

    fn missing(&self) -> Option<&'static str> {
        NEEDED.into_iter().find(|name| !self.0.contains_key(*name))
    }
}

fn unusable(folder: &Path, cause: String) -> LibrariesError {
    LibrariesError::Unusable { path: folder.to_owned(), cause }
}

/// Returns whether a folder belongs to this user or to root.
fn is_ours(metadata: &Metadata) -> bool {
    let process = fs::metadata("/proc/self").map(|own| own.uid());
    metadata.uid() == 0 || process.is_ok_and(|user| metadata.uid() == user)
}

/// All files of the page.
#[derive(Debug)]
pub struct Assets {
    files: BTreeMap<String, (&'static str, Cow<'static, [u8]>)>,
}

impl Assets {
    /// Returns the page's own files, with the libraries below `lib/`.
    pub fn new(libraries: Libraries) -> Self {
        let own = OWN.into_iter().map(|(name, bytes)| (name.to_owned(), Cow::Borrowed(bytes)));
        let libraries = libraries.0.into_iter().map(|(name, bytes)| (format!("lib/{name}"), bytes));
        let files = own.chain(libraries).filter_map(|(name, bytes)| {
            let content_type = content_type(&name)?;
            Some((name, (content_type, bytes)))
        });
        Assets { files: files.collect() }
    }

    /// Returns the type and the bytes of a file.
    pub fn get(&self, name: &str) -> Option<(&'static str, &[u8])> {
        self.files.get(name).map(|(content_type, bytes)| (*content_type, &**bytes))
    }

    /// Returns the page, with [`NONCE`] in place of its nonce.
    pub(crate) fn page(&self) -> &'static str {
        PAGE
    }
}

/// Returns the type of a file by the end of its name; `None` if such files are not served.
fn content_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::tempdir::TempDir;

    fn folder(names: &[&str]) -> TempDir {
        let dir = TempDir::new().unwrap();
        for name in names {
            let path = dir.as_path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        dir
    }

    #[test]
    fn test_folder_with_the_libraries_is_read_once_and_other_files_are_left_out() {
        let names = [&NEEDED[..], &["secret", "novnc/core/a.html", "NOTICE.txt"]].concat();
        let dir = folder(&names);
        let assets = Assets::new(Libraries::read(dir.as_path()).unwrap());
        drop(dir);
        let (content_type, bytes) = assets.get("lib/xterm/xterm.css").unwrap();
        assert_eq!((content_type, bytes), ("text/css; charset=utf-8", &b"xterm/xterm.css"[..]));
        assert!(assets.get("lib/NOTICE.txt").is_some() && assets.get("console.js").is_some());
        assert!(
            assets.get("lib/secret").is_none() && assets.get("lib/novnc/core/a.html").is_none()
        );
    }

    #[test]
    fn test_folder_without_the_libraries_is_refused_with_the_command() {
        let dir = folder(&NEEDED[1..]);
        let text = Libraries::read(dir.as_path()).unwrap_err().to_string();
        assert!(text.contains("novnc/core/rfb.js") && text.contains("web-libraries"), "{text}");
        let text = Libraries::read(&dir.as_path().join("absent")).unwrap_err().to_string();
        assert!(text.contains("absent"), "{text}");
    }

    #[test]
    fn test_folder_with_too_many_files_is_refused() {
        let names: Vec<String> = (0..=MAX_FILES).map(|number| format!("{number}.js")).collect();
        let dir = folder(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let text = Libraries::read(dir.as_path()).unwrap_err().to_string();
        assert!(text.contains("too many files"), "{text}");
    }
}
