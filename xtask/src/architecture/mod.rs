//! `cargo xtask architecture`: draws the crate graph for docs/architecture.md, from cargo's
//! metadata.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use guest_images::cache::workspace_dir;

mod graph;
mod layout;
mod picture;
mod text;

use graph::Graph;

/// The page, whose part between the two lines below is generated.
const PAGE: &str = "docs/architecture.md";
const TABLE_START: &str = "<!-- The table is written by `cargo xtask architecture`. -->";
const TABLE_END: &str = "<!-- End of the table. -->";
/// The picture, which is generated as a whole.
const PICTURE: &str = "docs/architecture.svg";

/// The options: write or compare.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write nothing; fail when the page or the picture is stale.
    #[arg(long)]
    check: bool,
}

pub(crate) fn main(arguments: &Arguments) -> Result<(), String> {
    let root = workspace_dir();
    let files = generate(&root)?;
    if arguments.check {
        return check(&root, &files);
    }
    for file in &files {
        let path = root.join(file.name);
        fs::write(&path, &file.content).map_err(|e| format!("writing {}: {e}", path.display()))?;
        println!("wrote {}", file.name);
    }
    Ok(())
}

/// A generated file.
#[derive(Debug)]
struct Generated {
    name: &'static str,
    content: String,
}

/// Generates the page and the picture from the workspace below `root`.
fn generate(root: &Path) -> Result<[Generated; 2], String> {
    let graph = Graph::read(&metadata(root)?)?;
    let page = read(&root.join(PAGE))?;
    let content = with_table(&page, &table(&graph))?;
    Ok([
        Generated { name: PAGE, content },
        Generated { name: PICTURE, content: picture::draw(&graph, &layout::arrange(&graph)) },
    ])
}

/// Fails with the command to run if a file differs from the generated one.
fn check(root: &Path, files: &[Generated]) -> Result<(), String> {
    for file in files {
        if read(&root.join(file.name)).ok().as_ref() != Some(&file.content) {
            return Err(format!(
                "{} is stale: it does not show the current crates; run `cargo xtask architecture`",
                file.name
            ));
        }
    }
    Ok(())
}

/// Returns cargo's metadata of the workspace. Other dependencies are not resolved, so this needs
/// neither a network nor a lock file.
fn metadata(root: &Path) -> Result<String, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
        .arg(root.join("Cargo.toml"))
        .output()
        .map_err(|e| format!("starting cargo metadata: {e}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ));
    }
    String::from_utf8(output.stdout).map_err(|e| format!("reading cargo metadata: {e}"))
}

fn read(path: &PathBuf) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("reading {}: {e}", path.display()))
}

/// Returns the page with its table replaced by this one.
fn with_table(page: &str, table: &str) -> Result<String, String> {
    let missing =
        || format!("{PAGE} has lost the lines that enclose its table: {TABLE_START} {TABLE_END}");
    let (before, rest) = page.split_once(TABLE_START).ok_or_else(missing)?;
    let (_, after) = rest.split_once(TABLE_END).ok_or_else(missing)?;
    Ok(format!("{before}{TABLE_START}\n{table}{TABLE_END}{after}"))
}

/// Returns one row per crate, in the order of the picture, including the dependencies that the
/// picture omits.
fn table(graph: &Graph) -> String {
    let mut text =
        String::from("| folder | crate | for | uses | in tests also |\n|---|---|---|---|---|\n");
    for node in graph.crates() {
        let names = |found: &[usize]| match found {
            [] => "-".to_owned(),
            found => found
                .iter()
                .map(|id| format!("`{}`", graph.node(*id).name))
                .collect::<Vec<_>>()
                .join(" "),
        };
        let tests: Vec<usize> =
            node.tests_use.iter().copied().filter(|id| !node.uses.contains(id)).collect();
        let description = node.description.replace('|', "\\|");
        text.push_str(&format!(
            "| {} | `{}` | {description} | {} | {} |\n",
            node.folder,
            node.name,
            names(&node.uses),
            names(&tests)
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_page_and_picture_show_the_crates_as_they_are() {
        let root = workspace_dir();
        let stale = generate(&root).and_then(|files| check(&root, &files));
        assert_eq!(stale, Ok(()));
    }

    #[test]
    fn test_check_of_a_changed_picture_names_the_command() {
        let root = workspace_dir();
        let mut files = generate(&root).unwrap();
        files[1].content.push_str("<!-- another crate -->");
        let error = check(&root, &files).unwrap_err();
        assert!(
            error.contains(PICTURE) && error.contains("run `cargo xtask architecture`"),
            "{error}"
        );
    }

    #[test]
    fn test_table_replaces_the_old_one_and_nothing_else() {
        let page = format!("before\n{TABLE_START}\nold\n{TABLE_END}\nafter\n");
        let new = with_table(&page, "new\n").unwrap();
        assert_eq!(new, format!("before\n{TABLE_START}\nnew\n{TABLE_END}\nafter\n"));
        assert_eq!(with_table(&new, "new\n").unwrap(), new);
        assert!(with_table("before\n", "new\n").unwrap_err().contains(PAGE));
    }
}
