//! Tests that no part of a layout hides another.

use guest_images::cache::workspace_dir;

use super::super::graph::tests::workspace;
use super::super::metadata;
use super::*;

fn overlap(a: Area, b: Area) -> bool {
    a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height
}

/// Asserts that no part of the layout hides another.
fn is_clear(json: &str) {
    let graph = Graph::read(json).unwrap();
    let layout = arrange(&graph);
    assert_eq!(layout.boxes.len(), graph.crates().len());
    assert_eq!(layout.arrows.len(), graph.arrows().len());
    for (index, one) in layout.boxes.iter().enumerate() {
        let name = &graph.node(one.id).name;
        for other in &layout.boxes[index + 1..] {
            assert!(!overlap(one.area, other.area), "{name} and {}", graph.node(other.id).name);
        }
        let inner = (BOX_WIDTH - 2.0 * BOX_INSET) / TEXT_SIZE;
        assert!(one.lines.iter().all(|line| text::width(line) <= inner), "{name}: {:?}", one.lines);
        assert!(
            BOX_INSET + NAME_LINE + one.lines.len() as f64 * TEXT_LINE <= one.area.height,
            "{name}"
        );
        let within = |band: &&Band| overlap(band.area, one.area);
        let bands: Vec<usize> = layout.bands.iter().filter(within).map(|band| band.band).collect();
        assert_eq!(bands, [graph.node(one.id).band], "{name} lies in the band of its folder");
    }
    let mut pieces = Vec::new();
    for arrow in &layout.arrows {
        for two in arrow.pieces.windows(2) {
            assert!(two[0].2 < two[1].1, "an arrow runs downwards: {:?}", arrow.pieces);
        }
        for (x, top, bottom) in arrow.pieces.iter().copied() {
            let lane = Area { x: x - 1.0, y: top, width: 2.0, height: (bottom - top).max(0.5) };
            let crossed =
                layout.boxes.iter().find(|found| bottom > top && overlap(found.area, lane));
            assert!(crossed.is_none(), "an arrow crosses {crossed:?}");
            assert!(!pieces.iter().any(|piece| overlap(*piece, lane)), "two arrows share a place");
            pieces.push(lane);
        }
    }
}

#[test]
fn test_arrangement_of_the_workspace_hides_nothing() {
    is_clear(&metadata(&workspace_dir()).unwrap());
}

#[test]
fn test_arrangement_of_long_and_many_arrows_hides_nothing() {
    is_clear(&workspace(&[
        ("tool", &["vmm", "vmbus/c"], &[]),
        ("other", &[], &[]),
        ("vmm", &["devices/a", "devices/b", "devices/c", "devices/d", "devices/e"], &[]),
        ("devices/a", &["vmbus/a", "devices/e"], &["vmbus/d"]),
        ("devices/b", &["vmbus/a"], &["vmbus/c"]),
        ("devices/c", &["vmbus/b"], &[]),
        ("devices/d", &["vmbus/b", "vmbus/c"], &[]),
        ("devices/e", &["vmbus/d"], &[]),
        ("vmbus/a", &["vmbus/d"], &[]),
        ("vmbus/b", &["vmbus/a"], &[]),
        ("vmbus/c", &["vmbus/a"], &[]),
        ("vmbus/d", &[], &[]),
    ]));
}

#[test]
fn test_crate_with_many_users_is_directly_below_them() {
    let json = workspace(&[
        ("vmbus/a", &["vmbus/b", "vmbus/log"], &[]),
        ("vmbus/b", &["vmbus/c"], &[]),
        ("vmbus/c", &[], &[]),
        ("vmbus/log", &[], &[]),
        ("vmm", &["vmbus/a"], &[]),
    ]);
    let graph = Graph::read(&json).unwrap();
    let members: Vec<usize> = (0..5).collect();
    let (rows, bands) = rows(&graph, &members, &graph.arrows());
    let names: Vec<Vec<&str>> = rows
        .iter()
        .map(|row| row.iter().map(|id| graph.node(*id).name.as_str()).collect())
        .collect();
    assert_eq!(
        names,
        [vec!["vmm"], vec!["vmbus/a"], vec!["vmbus/b", "vmbus/log"], vec!["vmbus/c"]]
    );
    assert_eq!(bands, [1, 3, 3, 3]);
}
