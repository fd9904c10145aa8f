//! The location of a differencing image's parent.

use std::path::{Path, PathBuf};

use vmbus_protocol::Guid;

use super::layout::LOCATOR_VHDX;
use crate::error::Flaw;

/// The description of the parent in an image.
#[derive(Clone, Debug, Default)]
pub(super) struct Locator {
    /// Keys and values in their stored form.
    entries: Vec<(String, String)>,
}

/// Most keys that are read; writers use five.
const MAX_KEYS: usize = 64;

/// Parses the metadata item.
pub(super) fn parse(bytes: &[u8]) -> Result<Locator, Flaw> {
    let broken = || Flaw::damaged("its description of its parent is garbled");
    let half = |at: usize| -> Option<usize> {
        Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?).into())
    };
    let word = |at: usize| -> Option<usize> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize)
    };
    let text = |at: usize, length: usize| -> Option<String> {
        let bytes = bytes.get(at..at.checked_add(length)?)?;
        let units: Vec<u16> =
            bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        String::from_utf16(&units).ok()
    };
    if bytes.get(..16) != Some(&LOCATOR_VHDX.to_bytes()[..]) {
        return Err(Flaw::unsupported(
            "its parent is of an unknown kind",
            "merge it with its parent in the program that made it",
        ));
    }
    let count = half(18).filter(|&count| count <= MAX_KEYS).ok_or_else(broken)?;
    let mut entries = Vec::new();
    for at in (0..count).map(|index| 20 + 12 * index) {
        let entry =
            || Some((text(word(at)?, half(at + 8)?)?, text(word(at + 4)?, half(at + 10)?)?));
        entries.push(entry().ok_or_else(broken)?);
    }
    Ok(Locator { entries })
}

/// Returns the metadata item for a parent at `relative` (to the child's folder) and `absolute`.
pub(super) fn build(linkage: Guid, relative: &Path, absolute: &Path) -> Vec<u8> {
    let windows = |path: &Path| path.to_string_lossy().replace('/', "\\");
    let entries = [
        ("parent_linkage", format!("{{{linkage}}}")),
        ("relative_path", windows(relative)),
        ("absolute_win32_path", windows(absolute)),
    ];
    let utf16 =
        |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
    let mut item = LOCATOR_VHDX.to_bytes().to_vec();
    item.extend(0_u16.to_le_bytes());
    item.extend((entries.len() as u16).to_le_bytes());
    let mut texts = Vec::new();
    let begin = 20 + 12 * entries.len();
    for (key, value) in &entries {
        let (key, value) = (utf16(key), utf16(value));
        let at = begin + texts.len();
        item.extend((at as u32).to_le_bytes());
        item.extend(((at + key.len()) as u32).to_le_bytes());
        item.extend((key.len() as u16).to_le_bytes());
        item.extend((value.len() as u16).to_le_bytes());
        texts.extend(key);
        texts.extend(value);
    }
    item.extend(texts);
    item
}

impl Locator {
    fn value(&self, key: &str) -> Option<&str> {
        self.entries.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Returns the ids of the parent's state: the data write id in its header. There are two in
    /// images that Windows is merging.
    pub(super) fn linkages(&self) -> Vec<Guid> {
        ["parent_linkage", "parent_linkage2"]
            .into_iter()
            .filter_map(|key| self.value(key)?.trim_matches(['{', '}']).parse().ok())
            .collect()
    }

    /// Returns the parent's location for messages.
    pub(super) fn named(&self) -> String {
        let name = self.value("relative_path").or_else(|| self.value("absolute_win32_path"));
        name.map_or_else(|| "no file".to_owned(), |name| format!("{name:?}"))
    }

    /// Returns the parent's possible locations, likeliest first, for a child in `folder`.
    pub(super) fn candidates(&self, folder: &Path) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        if let Some(relative) = self.value("relative_path") {
            paths.push(folder.join(relative.replace('\\', "/")));
        }
        if let Some(absolute) = self.value("absolute_win32_path") {
            let path = absolute.replace('\\', "/");
            if path.starts_with('/') {
                paths.push(PathBuf::from(&path));
            }
            // The disk came from Windows, with its parent in the same folder.
            if let Some(name) = path.rsplit('/').next() {
                paths.push(folder.join(name));
            }
        }
        paths
    }
}
