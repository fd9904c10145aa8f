//! The parents of a differencing image.

use std::path::{Path, PathBuf};

use super::Vhdx;
use super::metadata::Metadata;
use crate::error::{Flaw, OpenError, REFUSED};
use crate::file::lock;
use crate::options::MAX_DEPTH;
use crate::{OpenOptions, Parents};

/// Opens the parent of the image at `path`, if it has one, read-only.
pub(super) fn open(
    path: &Path,
    child: &Metadata,
    options: &OpenOptions,
    depth: usize,
) -> Result<Option<Box<Vhdx>>, Flaw> {
    let Some(locator) = &child.parent else { return Ok(None) };
    if depth >= MAX_DEPTH {
        let reason =
            format!("its chain of parents is longer than {MAX_DEPTH}, or runs in a circle");
        return Err(Flaw::Parent(reason));
    }
    if options.parents == Parents::Refuse && options.parent.is_none() {
        return Err(Flaw::Parent(format!("it names {}, and {REFUSED}", locator.named())));
    }
    let folder = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = folder.parent().unwrap_or(Path::new("/"));
    let candidates = match &options.parent {
        Some(parent) => vec![parent.clone()],
        None => locator.candidates(folder),
    };
    // Each file is opened once, so that the file that is found is the file that is used.
    let open = |path: &PathBuf| match lock(path, true) {
        Err(OpenError::File(synthvm_block::OpenError::NotFound { .. })) => None,
        other => Some(other.map_err(|error| Flaw::Parent(error.to_string()))),
    };
    let Some(found) = candidates.iter().find_map(open).transpose()? else {
        let names: Vec<String> =
            candidates.iter().map(|path| format!("'{}'", path.display())).collect();
        return Err(Flaw::Parent(format!(
            "it does not exist (looked for {}); restore it, or give its path with parent=PATH",
            names.join(", ")
        )));
    };
    let parent_options =
        OpenOptions { read_only: true, format: None, parent: None, ..options.clone() };
    let parent = Vhdx::open_child(&found, &parent_options, depth + 1).map_err(Flaw::of_parent)?;
    if !locator.linkages().contains(&parent.data_id()) {
        return Err(Flaw::Parent(format!(
            "'{}' was changed since this image was made from it, and no longer matches it; \
            restore the parent from a copy",
            found.path().display()
        )));
    }
    if parent.metadata.sector != child.sector {
        return Err(Flaw::Parent(format!(
            "'{}' has sectors of another size",
            found.path().display()
        )));
    }
    Ok(Some(Box::new(parent)))
}
