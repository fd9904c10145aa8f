//! Traces of a test in its host, which the next test would find.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The parts of a machine's state that a test may change and that outlive the test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

impl Traces {
    /// Returns the current traces.
    pub fn now() -> Traces {
        let mut traces = BTreeSet::new();
        for line in lines("/proc/mounts") {
            traces.extend(line.split(' ').nth(1).map(|target| format!("a mount on {target}")));
        }
        for line in lines("/proc/modules") {
            traces.extend(line.split(' ').next().map(|name| format!("module {name}")));
        }
        traces.extend(names("/sys/class/block").map(|name| format!("block device {name}")));
        traces.extend(lines("/proc/sys/vm/nr_hugepages").map(|count| format!("{count} hugepages")));
        let folder = std::env::temp_dir();
        traces.extend(names(&folder).map(|name| folder.join(name).display().to_string()));
        Traces(traces)
    }

    /// Returns the traces that `before` does not have.
    pub fn new_since(&self, before: &Traces) -> Vec<&str> {
        self.0.iter().filter(|trace| !before.0.contains(*trace)).map(String::as_str).collect()
    }
}

fn lines(path: &str) -> impl Iterator<Item = String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect::<Vec<_>>().into_iter()
}

fn names(folder: impl AsRef<Path>) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::WorkDir;

    #[test]
    fn test_traces_show_a_folder_that_stays_and_none_that_is_gone() {
        let before = Traces::now();
        let dir = WorkDir::new().unwrap();
        let path = dir.path().display().to_string();
        assert!(Traces::now().new_since(&before).contains(&path.as_str()));
        drop(dir);
        // Only this folder is checked: other tests of this process create folders too.
        assert!(!Traces::now().new_since(&before).contains(&path.as_str()));
        assert!(before.0.iter().any(|trace| trace.starts_with("a mount on /")));
    }
}
