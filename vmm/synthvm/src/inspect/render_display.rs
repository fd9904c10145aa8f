//! The display in the report for people.

use super::{Align, InspectReport, Table};

const L: Align = Align::Left;
const R: Align = Align::Right;

/// Returns the table of the screen. `None`: the machine has no display.
pub(super) fn screen(now: &InspectReport) -> Option<Table> {
    let display = now.display.as_ref()?;
    let mut table = Table::new(&[
        ("SCREEN", L),
        ("MODES", R),
        ("UPDATES", R),
        ("RECTANGLES", R),
        ("SHAPES", R),
        ("REFUSED", R),
    ]);
    let size = display
        .size
        .map_or_else(|| "blank".to_owned(), |size| format!("{}x{}", size.width, size.height));
    let counts =
        [display.modes, display.updates, display.rectangles, display.shapes, display.refused];
    let [modes, updates, rectangles, shapes, refused] = counts.map(|count| count.to_string());
    table.row([size, modes, updates, rectangles, shapes, refused]);
    Some(table)
}

/// Returns the table of viewers. `None`: none has ever connected.
pub(super) fn viewers(now: &InspectReport) -> Option<Table> {
    let server = now.display.as_ref()?.server;
    if server.connections == 0 {
        return None;
    }
    let mut table = Table::new(&[
        ("VIEWERS", R),
        ("CONNECTIONS", R),
        ("UPDATES", R),
        ("RECTANGLES", R),
        ("SHARED", R),
        ("BYTES", R),
        ("REFUSED", R),
        ("DROPPED", R),
    ]);
    let counts = [
        server.viewers,
        server.connections,
        server.updates,
        server.rectangles,
        server.shared_rectangles,
        server.bytes,
        server.refused_logins + server.turned_away,
        server.dropped + server.malformed,
    ];
    table.row(counts.map(|count| count.to_string()));
    Some(table)
}

/// Returns the table of keyboard and mouse. `None`: the machine has no display.
pub(super) fn input(now: &InspectReport) -> Option<Table> {
    let display = now.display.as_ref()?;
    let mut table = Table::new(&[
        ("INPUT", L),
        ("DRIVER", L),
        ("SENT", R),
        ("DROPPED", R),
        ("REPLACED", R),
        ("REFUSED", R),
    ]);
    for (name, input) in [("keyboard", display.keyboard), ("mouse", display.mouse)] {
        let driver = if input.connected { "connected" } else { "none" };
        let counts = [input.sent, input.dropped, input.replaced, input.refused];
        let [sent, dropped, replaced, refused] = counts.map(|count| count.to_string());
        table.row([name.to_owned(), driver.to_owned(), sent, dropped, replaced, refused]);
    }
    Some(table)
}
