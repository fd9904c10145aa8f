//! Tests that the sections that docs/glossary.md cites exist, and that a term has one entry.

use std::fs;
use std::path::{Path, PathBuf};

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Returns the rows of the tables with three columns: term, definition and citation.
fn entries() -> Vec<[String; 3]> {
    let text = fs::read_to_string(docs().join("glossary.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> =
            line.strip_prefix("| ")?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let cells: [&str; 3] = cells.try_into().ok()?;
        (cells[0] != "term").then(|| cells.map(str::to_owned))
    });
    rows.collect()
}

#[test]
fn test_sections_that_the_glossary_cites_exist() {
    let mut cited = 0;
    for [term, _, citation] in entries() {
        let Some((file, section)) = citation.split_once(' ') else {
            assert!(citation.is_empty(), "{term}: {citation:?} is no file and section");
            continue;
        };
        let text = fs::read_to_string(docs().join("spec").join(format!("{file}.md"))).unwrap();
        // A title is `## 5. Title` or `### 4.3 Title`.
        let number = |line: &str| {
            let title = line.strip_prefix("## ").or_else(|| line.strip_prefix("### "))?;
            Some(title.split(' ').next()?.trim_end_matches('.').to_owned())
        };
        assert!(
            text.lines().filter_map(number).any(|found| found == section),
            "{term}: no section {citation}"
        );
        cited += 1;
    }
    assert!(cited > 30, "only {cited} rows with a citation were found");
}

#[test]
fn test_terms_have_one_entry_each() {
    let entries = entries();
    let mut terms: Vec<&String> = entries.iter().map(|[term, ..]| term).collect();
    let count = terms.len();
    terms.sort_unstable();
    terms.dedup();
    assert_eq!(terms.len(), count);
    assert!(
        entries.iter().all(|[_, definition, _]| definition.ends_with('.')),
        "a definition is sentences"
    );
}
