//! The grammar of the commands for image files.

use std::path::PathBuf;

use clap::Subcommand;
use synthvm_images::Format;

use crate::config::ByteSize;

const IMAGE_EXAMPLES: &str = "\
Sizes are 512M, 20G or bytes, in powers of 1024. An image is created completely or not at all.

Examples:
  synthvm image create disk.vhdx --size 20G
  synthvm image create snapshot.vhdx --parent disk.vhdx
  synthvm image convert disk.qcow2 disk.vhdx
  synthvm image info disk.vhdx
  synthvm image check disk.vhdx --repair

Exit status 0 if the command succeeded, 1 if `check` found damage, 2 if the command line is wrong, 4 if a file cannot be used.";

#[derive(Debug, clap::Args)]
#[command(after_help = IMAGE_EXAMPLES)]
pub(in crate::cli) struct ImageArgs {
    #[command(subcommand)]
    pub(in crate::cli) verb: ImageVerb,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ImageVerb {
    /// Makes a new image
    Create(CreateArgs),
    /// Copies an image to a new one of any format; zeros take no space
    Convert(ConvertArgs),
    /// Describes an image and its parents
    Info(ExistingImageArgs),
    /// Checks the structures of an image, which no program may use meanwhile
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CreateArgs {
    /// The image to make
    #[arg(value_name = "FILE")]
    pub(in crate::cli) path: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) new: NewImageArgs,
    /// Size of the disk; not needed with --parent
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) size: Option<ByteSize>,
    /// Logical sector size in bytes, 512 or 4096 [default: 512]
    #[arg(long, value_name = "BYTES")]
    pub(in crate::cli) sector_size: Option<u32>,
    /// Parent of the new image, which then holds only the differences; the parent must not change
    /// again
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) parent: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ConvertArgs {
    /// The image to read
    #[arg(value_name = "FILE")]
    pub(in crate::cli) source: PathBuf,
    /// The image to make
    #[arg(value_name = "NEW")]
    pub(in crate::cli) target: PathBuf,
    #[command(flatten)]
    pub(in crate::cli) new: NewImageArgs,
    /// Format of the image to read [default: from its name and content]
    #[arg(long, value_name = "FORMAT")]
    pub(in crate::cli) source_format: Option<Format>,
    /// Path of the parent of the image to read, if the parent was moved
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) parent: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) trust: TrustArgs,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct CheckArgs {
    #[command(flatten)]
    pub(in crate::cli) image: ExistingImageArgs,
    /// Repairs all errors that can be repaired without loss of data
    #[arg(long)]
    pub(in crate::cli) repair: bool,
}

/// The options of a new image.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct NewImageArgs {
    /// Format of the new image: raw, vhdx, vhd or qcow2 [default: from its name]
    #[arg(long, value_name = "FORMAT")]
    pub(in crate::cli) format: Option<Format>,
    /// Allocates all space of the new image immediately
    #[arg(long)]
    pub(in crate::cli) fixed: bool,
    /// Unit of allocation [default: 32M in vhdx, 64K in qcow2]
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) block_size: Option<ByteSize>,
}

/// An image that a command describes.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ExistingImageArgs {
    /// The image
    #[arg(value_name = "FILE")]
    pub(in crate::cli) path: PathBuf,
    /// The image's format [default: from its name and content]
    #[arg(long, value_name = "FORMAT")]
    pub(in crate::cli) format: Option<Format>,
    #[command(flatten)]
    pub(in crate::cli) trust: TrustArgs,
    /// Prints JSON
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// Whether the files that an image names are opened.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TrustArgs {
    /// Opens no file that the image names (parents, backing files): for untrusted images
    #[arg(long)]
    pub(in crate::cli) no_parents: bool,
}
