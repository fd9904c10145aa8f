//! `synthvm image`: makes, converts, describes and checks image files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use synthvm_images::{ConvertOptions, CreateOptions, Format, Parents, Progress, ToolError};

use super::args::{
    CheckArgs, ConvertArgs, CreateArgs, ExistingImageArgs, ImageVerb, NewImageArgs, TrustArgs,
};
use super::commands::{json, print};
use super::exit::{Exit, Failure};
use crate::config::ByteSize;

pub(super) fn image(verb: &ImageVerb) -> Result<Exit, Failure> {
    match verb {
        ImageVerb::Create(args) => create(args),
        ImageVerb::Convert(args) => convert(args),
        ImageVerb::Info(args) => info(args),
        ImageVerb::Check(args) => check(args),
    }
}

fn create(args: &CreateArgs) -> Result<Exit, Failure> {
    let NewImageArgs { format, fixed, block_size } = args.new;
    let format = format_of(format, &args.path)?;
    let options = CreateOptions {
        format,
        size: args.size.map(ByteSize::bytes),
        fixed,
        block_size: block_size.map(ByteSize::bytes),
        sector_size: args.sector_size,
        parent: args.parent.clone(),
    };
    synthvm_images::create(&args.path, &options)?;
    let made = synthvm_images::info(&args.path, Some(format), Parents::Named)?;
    let size = ByteSize::from_bytes(made.virtual_size);
    print(&format!("{}: a {format} image of {size}\n", args.path.display()))?;
    Ok(Exit::Success)
}

fn convert(args: &ConvertArgs) -> Result<Exit, Failure> {
    let NewImageArgs { format, fixed, block_size } = args.new;
    let to = format_of(format, &args.target)?;
    let options = ConvertOptions {
        from: args.source_format,
        parent: args.parent.clone(),
        parents: args.trust.parents(),
        to,
        fixed,
        block_size: block_size.map(ByteSize::bytes),
    };
    let bar = bar(&args.target);
    let result = synthvm_images::convert(&args.source, &args.target, &options, &mut |progress| {
        show(&bar, progress);
    });
    bar.finish_and_clear();
    let Progress { total, written, .. } = result?;
    let (total, written) = (indicatif::BinaryBytes(total), indicatif::BinaryBytes(written));
    print(&format!("{}: a {to} image of {total}, {written} of it data\n", args.target.display()))?;
    Ok(Exit::Success)
}

fn info(args: &ExistingImageArgs) -> Result<Exit, Failure> {
    let info = synthvm_images::info(&args.path, args.format, args.trust.parents())?;
    print(&if args.json { json(&info, true)? } else { info.to_string() })?;
    Ok(Exit::Success)
}

fn check(args: &CheckArgs) -> Result<Exit, Failure> {
    let CheckArgs { image, repair } = args;
    let report = synthvm_images::check(&image.path, image.format, *repair, image.trust.parents())?;
    print(&if image.json { json(&report, true)? } else { report.to_string() })?;
    Ok(if report.is_sound() { Exit::Success } else { Exit::Internal })
}

impl TrustArgs {
    fn parents(&self) -> Parents {
        if self.no_parents { Parents::Refuse } else { Parents::Named }
    }
}

/// Returns the requested format, or the one that the file's name implies.
fn format_of(asked: Option<Format>, path: &Path) -> Result<Format, Failure> {
    asked.or_else(|| Format::of_name(path)).ok_or_else(|| {
        let path = path.display();
        Failure::text(
            Exit::Usage,
            format!("{path}: its name implies no format; add --format raw, vhdx, vhd or qcow2"),
        )
    })
}

/// Returns a progress bar, which is drawn on standard error if that is a terminal.
fn bar(target: &Path) -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template =
        "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(
        target.file_name().map_or_else(PathBuf::new, PathBuf::from).display().to_string(),
    );
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn show(bar: &ProgressBar, progress: Progress) {
    bar.set_length(progress.total);
    bar.set_position(progress.done);
}

impl From<ToolError> for Failure {
    fn from(error: ToolError) -> Self {
        let exit =
            if matches!(error, ToolError::Option { .. }) { Exit::Usage } else { Exit::Input };
        Failure::new(exit, &error)
    }
}
