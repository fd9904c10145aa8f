//! Metrics of the display.

use super::super::InspectReport;
use super::text::{Kind, Text};

/// Adds the screen, the keyboard and the mouse, if the machine has them.
pub(super) fn display(text: &mut Text, report: &InspectReport) {
    let Some(display) = &report.display else { return };
    let (width, height) = display.size.map_or((0, 0), |size| (size.width, size.height));
    let mut size = text.family(
        "synthvm_display_pixels",
        Kind::Gauge,
        "Width and height of the picture; 0 while there is none.",
    );
    for (dimension, value) in [("width", width), ("height", height)] {
        size.sample(&[("dimension", dimension)], value);
    }
    let counters = [
        ("synthvm_display_updates_total", "Messages with changed rectangles.", display.updates),
        ("synthvm_display_rectangles_total", "Changed rectangles.", display.rectangles),
        ("synthvm_display_modes_total", "Changes of the mode.", display.modes),
        ("synthvm_display_shapes_total", "Shapes of the pointer.", display.shapes),
        ("synthvm_display_refused_total", "Refused messages of the guest.", display.refused),
    ];
    for (name, help, value) in counters {
        text.family(name, Kind::Counter, help).sample(&[], value);
    }
    let server = display.server;
    text.family("synthvm_viewers", Kind::Gauge, "Connected viewers.").sample(&[], server.viewers);
    let counters = [
        ("synthvm_viewer_connections_total", "Connections of viewers.", server.connections),
        ("synthvm_viewer_refused_total", "Viewers with a wrong password.", server.refused_logins),
        ("synthvm_viewer_dropped_total", "Viewers that did not read.", server.dropped),
        ("synthvm_viewer_updates_total", "Updates sent to viewers.", server.updates),
        ("synthvm_viewer_rectangles_total", "Rectangles sent to viewers.", server.rectangles),
        ("synthvm_viewer_bytes_total", "Bytes sent to viewers.", server.bytes),
    ];
    for (name, help, value) in counters {
        text.family(name, Kind::Counter, help).sample(&[], value);
    }
    let inputs = [("keyboard", display.keyboard), ("mouse", display.mouse)];
    let mut connected = text.family(
        "synthvm_input_connected",
        Kind::Gauge,
        "1 while the guest's driver is connected.",
    );
    for (device, input) in inputs {
        connected.sample(&[("device", device)], u64::from(input.connected));
    }
    let mut events = text.family(
        "synthvm_input_events_total",
        Kind::Counter,
        "Events of a device, by what became of them.",
    );
    for (device, input) in inputs {
        for (result, count) in
            [("sent", input.sent), ("dropped", input.dropped), ("replaced", input.replaced)]
        {
            events.sample(&[("device", device), ("result", result)], count);
        }
    }
    let mut refused = text.family(
        "synthvm_input_refused_total",
        Kind::Counter,
        "Refused messages of the guest to a device.",
    );
    for (device, input) in inputs {
        refused.sample(&[("device", device)], input.refused);
    }
}
