//! Commands in two halves: the outer gets everything that is needed, here; the inner runs where KVM
//! has Hyper-V support, which may be an emulated machine, and leaves what it found as a file that
//! outlives that machine.

use std::path::{Path, PathBuf};

use guest_images::GuestImage;
use integration_tests::host::{self, HostOptions, RESULTS};
use integration_tests::program;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::style;

/// How the outer half tells the inner one which guest it has made, on a command line of ours.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Inside {
    /// The inner half: a kernel and an initial RAM disk that are there already.
    #[arg(long, hide = true, num_args = 2, value_names = ["KERNEL", "INITRD"])]
    inside: Option<Vec<PathBuf>>,
}

impl Inside {
    /// The guest that the outer half has made; `None` in the outer half.
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

/// Runs `cargo xtask WORDS --inside ...` with `guest` and `program` (the `synthvm` to use) where
/// KVM has Hyper-V support, and returns what it left under `name`.
///
/// # Errors
/// In words: the host did not work, the inner half failed (it has said why), or it left nothing.
pub(crate) fn run<T: DeserializeOwned>(
    name: &str,
    words: &[String],
    guest: &GuestImage,
    program: &Path,
) -> Result<T, String> {
    // What an earlier run left must not be taken for this one's.
    forget(name)?;
    run_until_done(name, words, guest, program, &HostOptions::default(), 0)
}

/// As [`run`], for long work in pieces that the inner half [leaves][leave] as they are done: when
/// it or its host is lost, it starts anew in another host, up to `losses` times, and goes on with
/// [what it left][left]. It does so with what an earlier command left, too: see [`forget`].
///
/// # Errors
/// As [`run`], of the last try.
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
        eprintln!(
            "  .. {error}; once more with what is not done yet (loss {lost} of at most {losses})"
        );
    }
    left(name)?.ok_or_else(|| format!("the guest's part left nothing under {name}"))
}

/// Drops what an earlier command left under `name`.
pub(crate) fn forget(name: &str) -> Result<(), String> {
    let file = results().join(name);
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", file.display()))
        }
        _ => Ok(()),
    }
}

/// The inner half's way to leave what it found under `name`, in place of what it left before.
pub(crate) fn leave(name: &str, findings: &impl Serialize) -> Result<(), String> {
    let file = results().join(name);
    let text = serde_json::to_vec(findings).map_err(|error| error.to_string())?;
    // At once or not at all: a host may be lost at any time.
    let new = file.with_extension("new");
    let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &file));
    written.map_err(|error| format!("{}: {error}", file.display()))
}

/// What the inner half has left under `name`, `None` if nothing.
pub(crate) fn left<T: DeserializeOwned>(name: &str) -> Result<Option<T>, String> {
    let file = results().join(name);
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", file.display())),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| format!("{}: {error}", file.display()))
}

fn results() -> PathBuf {
    std::env::var_os(RESULTS).map_or_else(|| HostOptions::default().results, PathBuf::from)
}
