//! `cargo xtask guest`: makes a test guest.

use std::fs;
use std::path::{Path, PathBuf};

use guest_images::{GuestBuilder, GuestImage, StockKernel};

/// The options of `cargo xtask guest`.
#[derive(Debug, clap::Args)]
#[command(after_help = "On the guest's kernel command line: synthvm.shell, synthvm.agent, \
    synthvm.checks=NAME,NAME(ARG),..., synthvm.modules=NAME,...|none, synthvm.report=DEVICE.")]
pub(crate) struct Arguments {
    /// A stock kernel: 6.1 or 6.12.
    #[arg(
        long,
        value_name = "VERSION",
        default_value = "6.1",
        conflicts_with_all = ["image", "modules"]
    )]
    kernel: StockKernel,
    /// Another kernel image.
    #[arg(long, value_name = "FILE", requires = "modules")]
    image: Option<PathBuf>,
    /// The modules of the other kernel, a folder such as /lib/modules/6.1.0-1-amd64.
    #[arg(long, value_name = "DIR", requires = "image")]
    modules: Option<PathBuf>,
    /// Pack the guest itself into the guest, for kexec.
    #[arg(long)]
    kexec: bool,
    /// Leave out the file system and SCSI programs.
    #[arg(long)]
    small: bool,
    /// Add a program of a distribution package with its libraries, such as fio:usr/bin/fio; may be
    /// repeated.
    #[arg(long, value_name = "PACKAGE:PATH", value_parser = program_of)]
    program: Vec<(String, String)>,
    /// Copy the kernel and the initial RAM disk to this folder, as vmlinuz and initrd.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(crate) fn main(arguments: &Arguments) -> Result<(), String> {
    let image = build(arguments).map_err(|error| error.to_string())?;
    println!("kernel {}", image.kernel.display());
    println!("initrd {}", image.initrd.display());
    Ok(())
}

fn program_of(text: &str) -> Result<(String, String), String> {
    let (package, path) =
        text.split_once(':').ok_or("PACKAGE:PATH is wanted, such as fio:usr/bin/fio")?;
    Ok((package.to_owned(), path.trim_start_matches('/').to_owned()))
}

fn build(arguments: &Arguments) -> Result<GuestImage, guest_images::Error> {
    let mut builder = match (&arguments.image, &arguments.modules) {
        (Some(image), Some(modules)) => GuestBuilder::named(image, modules)?,
        _ => GuestBuilder::stock(arguments.kernel),
    };
    if arguments.kexec {
        builder = builder.with_kexec();
    }
    if arguments.small {
        builder = builder.without_programs();
    }
    for (package, path) in &arguments.program {
        builder = builder.package(package, &[path]);
    }
    let image = builder.build()?;
    match &arguments.out {
        Some(out) => copy(&image, out),
        None => Ok(image),
    }
}

fn copy(image: &GuestImage, out: &Path) -> Result<GuestImage, guest_images::Error> {
    fs::create_dir_all(out).map_err(guest_images::Error::file("making folder", out))?;
    let copied = GuestImage {
        kernel: out.join("vmlinuz"),
        initrd: out.join("initrd"),
        release: image.release.clone(),
    };
    for (from, to) in [(&image.kernel, &copied.kernel), (&image.initrd, &copied.initrd)] {
        fs::copy(from, to).map_err(guest_images::Error::file("writing", to))?;
    }
    Ok(copied)
}
