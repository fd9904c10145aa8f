//! Commands in two halves: the outer half builds and fetches everything on this machine. The inner
//! half runs on a KVM with Hyper-V support, which may be an emulated machine, and saves its results
//! as a file that outlives that machine.

use std::path::{Path, PathBuf};

use guest_images::GuestImage;
use integration_tests::host::{self, HostOptions, results};
use integration_tests::program;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::style;

/// The internal option by which the outer half passes its guest to the inner half.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Inside {
    /// The inner half: an existing kernel and initial RAM disk.
    #[arg(long, hide = true, num_args = 2, value_names = ["KERNEL", "INITRD"])]
    inside: Option<Vec<PathBuf>>,
}

impl Inside {
    /// Returns the guest that the outer half has made; `None` in the outer half.
    pub(crate) fn guest(&self) -> Option<GuestImage> {
        match self.inside.as_deref() {
            Some([kernel, initrd]) => Some(GuestImage {
                kernel: kernel.clone(),
                initrd: initrd.clone(),
                release: String::new(),
            }),
            _ => None,
        }
    }
}

/// Runs `cargo xtask WORDS --inside ...` with `guest` and `program` (the `synthvm` to use) on a KVM
/// with Hyper-V support, and returns the result that it saved under `name`.
///
/// # Errors
/// A message: the host failed, the inner half failed (and has printed the reason), or it saved
/// nothing.
pub(crate) fn run<T: DeserializeOwned>(
    name: &str,
    words: &[String],
    guest: &GuestImage,
    program: &Path,
) -> Result<T, String> {
    // The results of an earlier run must not count for this one.
    forget(name)?;
    run_until_done(name, words, guest, program, &HostOptions::default(), 0)
}

/// Runs the inner half like [`run`], for long work in pieces that it [saves][leave] one by one.
/// When the inner half or its host is lost, it starts again in another host, up to `losses` times,
/// and continues with [the saved results][left], including those of an earlier command: see
/// [`forget`].
///
/// # Errors
/// The errors of [`run`], of the last try.
pub(crate) fn run_until_done<T: DeserializeOwned>(
    name: &str,
    words: &[String],
    guest: &GuestImage,
    program: &Path,
    options: &HostOptions,
    losses: u32,
) -> Result<T, String> {
    std::fs::create_dir_all(&options.results).map_err(|error| error.to_string())?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command =
        vec!["env".to_owned(), format!("{}={}", program::OVERRIDE, program.display())];
    command.extend(style::is_styled().then(|| format!("{}=1", style::FORCED)));
    command.push(own.display().to_string());
    command.extend_from_slice(words);
    command.push("--inside".to_owned());
    command.extend([&guest.kernel, &guest.initrd].map(|file| file.display().to_string()));
    let mut lost = 0;
    loop {
        let error = match host::run(&command, options) {
            Ok(0) => break,
            Ok(status) => format!("the guest's part ended with status {status}"),
            Err(error) => error.to_string(),
        };
        if lost == losses {
            return Err(error);
        }
        lost += 1;
        eprintln!("  .. {error}; repeating the unfinished part (loss {lost} of at most {losses})");
    }
    left(name)?.ok_or_else(|| format!("the guest's part left nothing under {name}"))
}

/// Removes the results of an earlier command under `name`.
pub(crate) fn forget(name: &str) -> Result<(), String> {
    let file = results().join(name);
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", file.display()))
        }
        _ => Ok(()),
    }
}

/// Saves the inner half's results under `name`, replacing earlier ones.
pub(crate) fn leave(name: &str, findings: &impl Serialize) -> Result<(), String> {
    let file = results().join(name);
    let text = serde_json::to_vec(findings).map_err(|error| error.to_string())?;
    // Replaced atomically: a host may be lost at any time.
    let new = file.with_extension("new");
    let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &file));
    written.map_err(|error| format!("{}: {error}", file.display()))
}

/// Returns the results that the inner half has saved under `name`, if any.
pub(crate) fn left<T: DeserializeOwned>(name: &str) -> Result<Option<T>, String> {
    let file = results().join(name);
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| format!("{}: {error}", file.display()))
}
