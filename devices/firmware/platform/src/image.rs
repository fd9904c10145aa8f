//! Images of UEFI firmware for virtual machines: code that ends at 4 GiB, and the template of the
//! variables, which are located below it (spec firmware-windows sections B1 and B5).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The largest image, variables and code together: the space above KVM's own pages.
pub const MAX_IMAGE_BYTES: u64 = 16 << 20;

const PAGE: u64 = 4096;
/// Identifies the file system of a variables volume (EFI_SYSTEM_NV_DATA_FV_GUID).
const VARIABLES_GUID: [u8; 16] = [
    0x8D, 0x2B, 0xF1, 0xFF, 0x96, 0x76, 0x8B, 0x4C, 0xA9, 0x85, 0x27, 0x47, 0x07, 0x5B, 0x4F, 0x50,
];
/// Bytes of a volume's header that this module reads.
const VOLUME_HEADER: usize = 48;

/// A checked image.
#[derive(Clone, PartialEq, Eq)]
pub struct FirmwareImage {
    /// The code, which is located below 4 GiB. A multiple of 4 KiB.
    pub code: Vec<u8>,
    /// The template of the variables, which are located below the code. A multiple of 4 KiB.
    pub variables: Vec<u8>,
}

impl std::fmt::Debug for FirmwareImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (code, variables) = (self.code.len(), self.variables.len());
        f.debug_struct("FirmwareImage").field("code", &code).field("variables", &variables).finish()
    }
}

/// A file that is no usable firmware: the file, the problem and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct ImageError {
    path: PathBuf,
    problem: ImageProblem,
}

/// The problem of a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageProblem {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is not a regular file")]
    NotAFile,
    #[error("has {0} bytes; an image has whole pages of 4 KiB, and at most 16 MiB")]
    Size(u64),
    #[error("is not UEFI firmware (no firmware volume at its start)")]
    NoVolume,
    #[error("is truncated or not UEFI firmware for x86 (no code at its end)")]
    NoResetVector,
    #[error("is only a variables file; name the file of the code")]
    OnlyVariables,
    #[error(
        "is a build that needs system management mode, which SynthVM does not have; use the build \
         without `secboot` in its name"
    )]
    Smm,
    #[error("{0}")]
    Template(&'static str),
    #[error(
        "code and variables have {0} bytes together, which is not the size of an image (1, 2, 4, \
         8 or 16 MiB): the file is truncated, or the two are of different builds"
    )]
    Total(u64),
    #[error(
        "no template of its variables is beside it; name one: --firmware-vars \
         FILE,template=OVMF_VARS.fd"
    )]
    NoTemplate,
}

impl FirmwareImage {
    /// Reads the image at `path`. A file without variables needs `template`, or a file beside it of
    /// the same name with `VARS` in place of `CODE`.
    ///
    /// # Errors
    /// [`ImageError`]: a file is not what it is named for, or the files do not fit together.
    pub fn open(path: &Path, template: Option<&Path>) -> Result<FirmwareImage, ImageError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |problem| ImageError { path, problem }
        };
        // Names such as OVMF_CODE_4M.ms.fd are links to the builds that need SMM.
        let real = path.canonicalize().map_err(|error| at(path)(error.into()))?;
        if file_name(&real).contains("secboot") {
            return Err(at(path)(ImageProblem::Smm));
        }
        let mut code = read(path).map_err(at(path))?;
        check_code(&code).map_err(at(path))?;
        let mut variables = match split(&code).map_err(at(path))? {
            0 => Vec::new(),
            len => {
                let rest = code.split_off(len);
                std::mem::replace(&mut code, rest)
            }
        };
        let beside = beside(path).filter(|_| variables.is_empty());
        if let Some(template) = template.or(beside.as_deref()) {
            variables = read(template).map_err(at(template))?;
            check_variables(&variables)
                .map_err(|problem| at(template)(ImageProblem::Template(problem)))?;
        }
        if variables.is_empty() {
            return Err(at(path)(ImageProblem::NoTemplate));
        }
        let total = (code.len() + variables.len()) as u64;
        if !total.is_power_of_two() || !(1 << 20..=MAX_IMAGE_BYTES).contains(&total) {
            return Err(at(path)(ImageProblem::Total(total)));
        }
        Ok(FirmwareImage { code, variables })
    }
}

/// Returns the path of the template that belongs to a file of code, if it exists.
fn beside(path: &Path) -> Option<PathBuf> {
    let name = file_name(path);
    let name = ["CODE", "code"]
        .into_iter()
        .zip(["VARS", "vars"])
        .find(|(code, _)| name.contains(code))
        .map(|(code, vars)| name.replacen(code, vars, 1))?;
    Some(path.with_file_name(name)).filter(|path| path.exists())
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn read(path: &Path) -> Result<Vec<u8>, ImageProblem> {
    // Without O_NONBLOCK, opening a FIFO would wait for its other end.
    let mut options = File::options();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(ImageProblem::NotAFile);
    }
    let len = metadata.len();
    if len == 0 || len > MAX_IMAGE_BYTES || !len.is_multiple_of(PAGE) {
        return Err(ImageProblem::Size(len));
    }
    let mut bytes = Vec::new();
    file.take(len).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == len {
        true => Ok(bytes),
        false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// Checks the start and the end of code: a firmware volume, and a reset vector with code.
fn check_code(bytes: &[u8]) -> Result<(), ImageProblem> {
    volume_len(bytes).ok_or(ImageProblem::NoVolume)?;
    let vector = &bytes[bytes.len() - 16..];
    let is_blank = vector.iter().all(|byte| [0, 0xFF].contains(byte));
    if is_blank && split(bytes).is_ok() { Err(ImageProblem::NoResetVector) } else { Ok(()) }
}

/// Returns the bytes of the variables at the start of an image; 0 if it has only code.
fn split(bytes: &[u8]) -> Result<usize, ImageProblem> {
    if check_header(bytes).is_err() {
        return Ok(0);
    }
    match volume_len(bytes) {
        // The volume also counts the journal behind the variables.
        Some(len) if len < bytes.len() && len.is_multiple_of(PAGE as usize) => Ok(len),
        _ => Err(ImageProblem::OnlyVariables),
    }
}

/// Checks that `bytes` are a whole variables file: one volume of variables, of exactly this size.
///
/// A machine that was killed while its firmware erased the first block leaves no header there. The
/// firmware's journal has it then, in the second half, from which the firmware restores it.
pub(crate) fn check_variables(bytes: &[u8]) -> Result<(), &'static str> {
    let journal = bytes.get(bytes.len() / 2..).unwrap_or_default();
    check_volume(bytes, bytes.len())
        .or_else(|problem| check_volume(journal, bytes.len()).map_err(|_| problem))
}

/// Checks that a volume of variables of `len` bytes starts here.
fn check_volume(bytes: &[u8], len: usize) -> Result<(), &'static str> {
    check_header(bytes)?;
    match volume_len(bytes) == Some(len) {
        true => Ok(()),
        false => Err("is a truncated variables file, or one with something behind the variables"),
    }
}

fn check_header(bytes: &[u8]) -> Result<(), &'static str> {
    let is_variables = bytes.get(16..32) == Some(&VARIABLES_GUID);
    if is_variables && volume_len(bytes).is_some() {
        Ok(())
    } else {
        Err("is not a file of UEFI variables")
    }
}

/// Returns the length that the firmware volume at the start of `bytes` declares.
fn volume_len(bytes: &[u8]) -> Option<usize> {
    let header = bytes.get(..VOLUME_HEADER)?;
    let len = u64::from_le_bytes(*header[32..].first_chunk()?);
    (header[40..44] == *b"_FVH").then_some(usize::try_from(len).ok()?)
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
