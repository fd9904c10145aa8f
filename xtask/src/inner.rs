//! Commands in two halves: the outer gets everything that is needed, here; the inner runs where KVM has Hyper-V support, which may be an
//! emulated machine, and leaves what it found as a file that outlives that machine.

use std::path::{Path, PathBuf};

use guest_images::GuestImage;
use integration_tests::host::{self, HostOptions, RESULTS};
use integration_tests::program;
use serde::Serialize;
use serde::de::DeserializeOwned;

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
            Some([kernel, initrd]) => {
                Some(GuestImage { kernel: kernel.clone(), initrd: initrd.clone(), release: String::new() })
            }
            _ => None,
        }
    }
}

/// Runs `cargo xtask WORDS --inside ...` with `guest` and `program` (the `synthvm` to use) where KVM has Hyper-V support, and returns what it
/// left under `name`.
///
/// # Errors
/// In words: the host did not work, the inner half failed (it has said why), or it left nothing.
pub(crate) fn run<T: DeserializeOwned>(
    name: &str,
    words: &[String],
    guest: &GuestImage,
    program: &Path,
) -> Result<T, String> {
    let options = HostOptions::default();
    std::fs::create_dir_all(&options.results).map_err(|error| error.to_string())?;
    let findings = options.results.join(name);
    // What an earlier run left must not be taken for this one's.
    let _ = std::fs::remove_file(&findings);
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = vec!["env".to_owned(), format!("{}={}", program::OVERRIDE, program.display())];
    command.push(own.display().to_string());
    command.extend_from_slice(words);
    command.push("--inside".to_owned());
    command.extend([&guest.kernel, &guest.initrd].map(|file| file.display().to_string()));
    let status = host::run(&command, &options).map_err(|error| error.to_string())?;
    if status != 0 {
        return Err(format!("the guest's part ended with status {status}"));
    }
    let text = std::fs::read(&findings).map_err(|error| format!("{}: {error}", findings.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", findings.display()))
}

/// The inner half's way to leave what it found under `name`.
pub(crate) fn leave(name: &str, findings: &impl Serialize) -> Result<(), String> {
    let results = std::env::var_os(RESULTS).map_or_else(|| HostOptions::default().results, PathBuf::from);
    let text = serde_json::to_vec(findings).map_err(|error| error.to_string())?;
    std::fs::write(results.join(name), text).map_err(|error| error.to_string())
}
