//! The workspace's crates and their dependencies on each other, as reported by cargo.

use serde::Deserialize;

/// Folders in the order of the picture, top first, each with its subject. Crates in other folders
/// form the first band. A crate may use crates of its own band and of lower ones.
const FOLDERS: [(&str, &str); 3] = [
    ("vmm", "the machine and the program"),
    ("devices", "what guests find on the bus"),
    ("vmbus", "the bus"),
];
const OTHERS: &str = "tools, guests and tests";

/// The crates, by band from the top, then by name.
#[derive(Debug, Default)]
pub(super) struct Graph {
    crates: Vec<Node>,
}

/// A crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) name: String,
    /// The description in Cargo.toml.
    pub(super) description: String,
    /// The folder, relative to the root of the workspace.
    pub(super) folder: String,
    pub(super) band: usize,
    /// The crates that it depends on.
    pub(super) uses: Vec<usize>,
    /// The crates that its tests and benches depend on.
    pub(super) tests_use: Vec<usize>,
}

/// The kind of a dependency between crates, for an arrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    Always,
    InTests,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: String,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    description: Option<String>,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
    /// Present for crates of the workspace.
    path: Option<String>,
}

impl Graph {
    /// Reads the output of `cargo metadata --no-deps`.
    ///
    /// # Errors
    /// The output has another format, a crate has no description, or a crate uses one of a higher
    /// band.
    pub(super) fn read(json: &str) -> Result<Graph, String> {
        let metadata: Metadata =
            serde_json::from_str(json).map_err(|e| format!("reading cargo metadata: {e}"))?;
        let mut packages = metadata.packages;
        let folder = |package: &Package| {
            let path =
                package.manifest_path.strip_prefix(&metadata.workspace_root).unwrap_or_default();
            path.trim_start_matches('/')
                .trim_end_matches("Cargo.toml")
                .trim_end_matches('/')
                .to_owned()
        };
        packages.sort_by_key(|package| (band_of(&folder(package)), package.name.clone()));
        let ids = |package: &Package, in_tests: bool| -> Vec<usize> {
            let used = package.dependencies.iter().filter(|dependency| {
                dependency.path.is_some() && (dependency.kind.as_deref() == Some("dev")) == in_tests
            });
            let mut ids: Vec<usize> = used
                .filter_map(|dependency| {
                    packages.iter().position(|other| other.name == dependency.name)
                })
                .collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        };
        let crates = packages.iter().map(|package| {
            let description = package.description.clone().unwrap_or_default();
            if description.is_empty() {
                return Err(format!("{} has no description in its Cargo.toml", package.name));
            }
            Ok(Node {
                name: package.name.clone(),
                description,
                folder: folder(package),
                band: band_of(&folder(package)),
                uses: ids(package, false),
                tests_use: ids(package, true),
            })
        });
        let graph = Graph { crates: crates.collect::<Result<_, String>>()? };
        graph.check_direction()?;
        Ok(graph)
    }

    /// Fails if a crate uses one of a higher band. Tests may do so: their arrows are not drawn.
    fn check_direction(&self) -> Result<(), String> {
        for node in &self.crates {
            if let Some(other) =
                node.uses.iter().map(|id| self.node(*id)).find(|other| other.band < node.band)
            {
                return Err(format!(
                    "{} uses {}, but {} is above it: a crate uses crates of its own top folder \
                     and of lower ones",
                    node.folder,
                    other.folder,
                    band_folder(other.band).unwrap_or(OTHERS)
                ));
            }
        }
        Ok(())
    }

    pub(super) fn crates(&self) -> &[Node] {
        &self.crates
    }

    pub(super) fn node(&self, id: usize) -> &Node {
        &self.crates[id]
    }

    /// Returns the arrows to draw, as (user, used, kind): those that do not follow from others.
    /// Arrows of tests are omitted if they point upwards or would form a cycle.
    pub(super) fn arrows(&self) -> Vec<(usize, usize, Use)> {
        let mut all: Vec<Vec<usize>> = self.crates.iter().map(|node| node.uses.clone()).collect();
        let mut arrows = Vec::new();
        for (id, node) in self.crates.iter().enumerate() {
            let direct = node.uses.iter().filter(|used| !follows(&all, id, **used));
            arrows.extend(direct.map(|used| (id, *used, Use::Always)));
        }
        for (id, node) in self.crates.iter().enumerate() {
            for &used in &node.tests_use {
                if self.node(used).band >= node.band
                    && !reaches(&all, used, id)
                    && !reaches(&all, id, used)
                {
                    all[id].push(used);
                }
            }
        }
        for (id, node) in self.crates.iter().enumerate() {
            let added = all[id]
                .iter()
                .filter(|used| !node.uses.contains(used) && !follows(&all, id, **used));
            arrows.extend(added.map(|used| (id, *used, Use::InTests)));
        }
        arrows
    }
}

/// Returns whether `from` uses `to` through another crate.
fn follows(uses: &[Vec<usize>], from: usize, to: usize) -> bool {
    uses[from].iter().any(|between| *between != to && reaches(uses, *between, to))
}

/// Returns whether `from` is `to` or uses it, directly or through others.
fn reaches(uses: &[Vec<usize>], from: usize, to: usize) -> bool {
    let (mut seen, mut next) = (vec![false; uses.len()], vec![from]);
    while let Some(id) = next.pop() {
        if !std::mem::replace(&mut seen[id], true) {
            next.extend(&uses[id]);
        }
    }
    seen[to]
}

fn band_of(folder: &str) -> usize {
    let top = folder.split('/').next();
    FOLDERS.iter().position(|(name, _)| Some(*name) == top).map_or(0, |index| index + 1)
}

/// Returns a band's folder; `None` for the first band, which has several.
pub(super) fn band_folder(band: usize) -> Option<&'static str> {
    band.checked_sub(1).and_then(|index| FOLDERS.get(index)).map(|(name, _)| *name)
}

/// Returns the subject of a band.
pub(super) fn band_subject(band: usize) -> &'static str {
    band.checked_sub(1).and_then(|index| FOLDERS.get(index)).map_or(OTHERS, |(_, subject)| subject)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the metadata of a workspace of crates `(folder, uses, uses in tests)`, named by
    /// their folders.
    pub(crate) fn workspace(crates: &[(&str, &[&str], &[&str])]) -> String {
        let packages: Vec<serde_json::Value> = crates
            .iter()
            .map(|(folder, uses, tests)| {
                let uses = uses.iter().map(|name| (name, None));
                let all = uses.chain(tests.iter().map(|name| (name, Some("dev"))));
                let mut dependencies: Vec<_> = all
                    .map(|(name, kind)| {
                        json!({ "name": name, "kind": kind, "path": format!("/top/{name}") })
                    })
                    .collect();
                // A crate from a registry that has the name of a workspace's crate.
                dependencies.push(json!({ "name": "vmbus/a", "kind": null, "path": null }));
                json!({
                    "name": folder,
                    "description": "Does one thing, and says which.",
                    "manifest_path": format!("/top/{folder}/Cargo.toml"),
                    "dependencies": dependencies,
                })
            })
            .collect();
        json!({ "packages": packages, "workspace_root": "/top" }).to_string()
    }

    fn arrows(crates: &[(&str, &[&str], &[&str])]) -> Vec<String> {
        let graph = Graph::read(&workspace(crates)).unwrap();
        let arrows = graph.arrows().into_iter().map(|(from, to, how)| {
            let sign = if how == Use::Always { "->" } else { "~>" };
            format!("{}{sign}{}", graph.node(from).name, graph.node(to).name)
        });
        arrows.collect()
    }

    #[test]
    fn test_arrow_that_follows_from_others_is_not_drawn() {
        let drawn = arrows(&[
            ("vmm", &["devices/d", "vmbus/a"], &[]),
            ("devices/d", &["vmbus/a"], &[]),
            ("vmbus/a", &[], &[]),
        ]);
        assert_eq!(drawn, ["vmm->devices/d", "devices/d->vmbus/a"]);
    }

    #[test]
    fn test_arrow_of_tests_is_drawn_unless_it_follows_or_closes_a_circle() {
        let drawn = arrows(&[
            ("devices/d", &["vmbus/a"], &["vmbus/b", "vmbus/a"]),
            ("vmbus/a", &[], &["vmbus/b", "devices/d"]),
            ("vmbus/b", &["vmbus/a"], &[]),
        ]);
        assert_eq!(drawn, ["devices/d->vmbus/a", "vmbus/b->vmbus/a", "devices/d~>vmbus/b"]);
    }

    #[test]
    fn test_crate_that_uses_one_of_a_higher_folder_is_refused() {
        let error =
            Graph::read(&workspace(&[("vmbus/a", &["devices/d"], &[]), ("devices/d", &[], &[])]));
        let error = error.unwrap_err();
        assert!(error.contains("vmbus/a uses devices/d"), "{error}");
    }

    #[test]
    fn test_crate_without_a_description_is_refused() {
        let json = workspace(&[("vmm", &[], &[])]).replace("Does one thing, and says which.", "");
        assert!(Graph::read(&json).unwrap_err().contains("vmm has no description"));
    }
}
