//! The drawing as SVG: one file for light and dark pages, with no fonts and no scripts of its own.

use std::fmt::Write as _;

use super::graph::{Graph, Use, band_folder, band_subject};
use super::layout::{
    Area, Arrow, BAND_LABEL, BOX_INSET, Band, CrateBox, Layout, NAME_LINE, TEXT_LINE,
};

const MARGIN: f64 = 20.0;
/// The height of the legend of the arrows, in pixels.
const LEGEND: f64 = 34.0;
const HEAD_LENGTH: f64 = 9.0;
const HEAD_WIDTH: f64 = 8.0;

/// The colours. `.b0` and so on are the bands, from the top.
const STYLE: &str = "
.page { fill: #ffffff; stroke: #d8dee6 }
.band { fill-opacity: .10; stroke-opacity: .35 }
.box { fill: #ffffff; stroke: #c3ccd6 }
.name { fill: #16202c; font: 600 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace }
.text { fill: #4a5765; font: 12px system-ui, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif }
.folder { font: 600 13px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace }
.line { fill: none; stroke: #5d6b7a; stroke-width: 1.6 }
.head { fill: #5d6b7a }
.tests { stroke-dasharray: 5 4 }
.b0 { fill: #6b7785; stroke: #6b7785 } .b1 { fill: #a2442f; stroke: #a2442f }
.b2 { fill: #2f6f4f; stroke: #2f6f4f } .b3 { fill: #2a5fa8; stroke: #2a5fa8 }
@media (prefers-color-scheme: dark) {
.page { fill: #12171d; stroke: #2c343d }
.band { fill-opacity: .13; stroke-opacity: .45 }
.box { fill: #1b222a; stroke: #3a444f }
.name { fill: #eef2f6 }
.text { fill: #aab6c2 }
.line { stroke: #93a1b0 }
.head { fill: #93a1b0 }
.b0 { fill: #9aa7b4; stroke: #9aa7b4 } .b1 { fill: #e58a70; stroke: #e58a70 }
.b2 { fill: #6fc197; stroke: #6fc197 } .b3 { fill: #7fb0ee; stroke: #7fb0ee }
}
.folder, .bar { stroke: none }
";

/// Draws an arranged graph.
pub(super) fn draw(graph: &Graph, layout: &Layout) -> String {
    let (width, height) = (layout.width + 2.0 * MARGIN, layout.height + 2.0 * MARGIN + LEGEND);
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
        width=\"{width}\" height=\"{height}\" role=\"img\">\n<title>The crates of SynthVM and \
        their dependencies</title>\n\
        <!-- Written by `cargo xtask architecture`. -->\n<style>{STYLE}</style>\n\
        <rect class=\"page\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"10\"/>\n\
        <g transform=\"translate({MARGIN} {MARGIN})\">\n",
        width - 1.0,
        height - 1.0
    );
    layout.bands.iter().for_each(|band| draw_band(&mut out, band));
    layout.arrows.iter().for_each(|arrow| draw_arrow(&mut out, arrow));
    layout.boxes.iter().for_each(|found| draw_box(&mut out, graph, found));
    draw_legend(&mut out, layout.height + LEGEND);
    out.push_str("</g>\n</svg>\n");
    out
}

fn draw_band(out: &mut String, band: &Band) {
    let (class, area) = (format!("b{}", band.band), rectangle(band.area));
    let (x, y) = (band.area.x + BAND_LABEL / 2.0 + 4.0, band.area.y + band.area.height / 2.0);
    let _ = writeln!(out, "<rect class=\"band {class}\" {area} rx=\"10\"/>");
    let _ = writeln!(
        out,
        "<text class=\"folder {class}\" text-anchor=\"middle\" \
         transform=\"translate({x} {y}) rotate(-90)\">{}</text>",
        escaped(&label(band))
    );
}

/// Returns the folder's name, with its subject if the band is high enough.
fn label(band: &Band) -> String {
    let (folder, subject) = (band_folder(band.band), band_subject(band.band));
    let both = folder.map_or(subject.to_owned(), |folder| format!("{folder}: {subject}"));
    // The width of a character of the label's font is 0.62 times its size.
    match folder {
        Some(folder) if both.len() as f64 * 13.0 * 0.62 > band.area.height - 16.0 => {
            folder.to_owned()
        }
        _ => both,
    }
}

fn draw_box(out: &mut String, graph: &Graph, found: &CrateBox) {
    let (node, area) = (graph.node(found.id), found.area);
    let _ = writeln!(
        out,
        "<g><title>{}: {}</title>",
        escaped(&node.folder),
        escaped(&node.description)
    );
    let _ = writeln!(out, "<rect class=\"box\" {} rx=\"6\"/>", rectangle(area));
    let _ = writeln!(
        out,
        "<rect class=\"bar b{}\" x=\"{}\" y=\"{}\" width=\"4\" height=\"{}\" rx=\"2\"/>",
        node.band,
        area.x + 1.0,
        area.y + 6.0,
        area.height - 12.0
    );
    let (x, mut y) = (area.x + BOX_INSET, area.y + BOX_INSET + 10.0);
    let _ =
        writeln!(out, "<text class=\"name\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(&node.name));
    y += NAME_LINE - 4.0;
    for line in &found.lines {
        let _ = writeln!(out, "<text class=\"text\" x=\"{x}\" y=\"{y}\">{}</text>", escaped(line));
        y += TEXT_LINE;
    }
    out.push_str("</g>\n");
}

fn draw_arrow(out: &mut String, arrow: &Arrow) {
    let mut path = String::new();
    let mut from: Option<(f64, f64)> = None;
    let last = arrow.pieces.len().saturating_sub(1);
    for (index, (x, top, bottom)) in arrow.pieces.iter().enumerate() {
        // The line ends inside the arrow's head.
        let top = if index == last { top - HEAD_LENGTH + 1.0 } else { *top };
        match from {
            None => {
                let _ = write!(path, "M{x} {top}");
            }
            Some((from_x, from_y)) => {
                let middle = (from_y + top) / 2.0;
                let _ = write!(path, " C{from_x} {middle} {x} {middle} {x} {top}");
            }
        }
        if *bottom > top && index != last {
            let _ = write!(path, " V{bottom}");
        }
        from = Some((*x, *bottom));
    }
    let class = if arrow.how == Use::InTests { "line tests" } else { "line" };
    let _ = writeln!(out, "<path class=\"{class}\" d=\"{path}\"/>");
    if let Some((x, y)) = from {
        head(out, x, y, (0.0, 1.0));
    }
}

/// Draws an arrow's head with its tip at a point, in a direction along one axis.
fn head(out: &mut String, x: f64, y: f64, (right, down): (f64, f64)) {
    let (back_x, back_y) = (x - right * HEAD_LENGTH, y - down * HEAD_LENGTH);
    let (side_x, side_y) = (down * HEAD_WIDTH / 2.0, right * HEAD_WIDTH / 2.0);
    let _ = writeln!(
        out,
        "<path class=\"head\" d=\"M{x} {y} L{} {} L{} {} Z\"/>",
        back_x - side_x,
        back_y - side_y,
        back_x + side_x,
        back_y + side_y
    );
}

fn draw_legend(out: &mut String, y: f64) {
    let entries = [(0.0, "line", "uses"), (110.0, "line tests", "uses in tests and benches only")];
    for (x, class, text) in entries {
        let (line_y, end) = (y - 4.0, x + 40.0);
        let _ = writeln!(
            out,
            "<path class=\"{class}\" d=\"M{x} {line_y} H{}\"/>",
            end - HEAD_LENGTH + 1.0
        );
        head(out, end, line_y, (1.0, 0.0));
        let _ = writeln!(out, "<text class=\"text\" x=\"{}\" y=\"{y}\">{text}</text>", end + 8.0);
    }
    let _ = writeln!(
        out,
        "<text class=\"text\" x=\"390\" y=\"{y}\">Arrows that follow from others are not \
        drawn.</text>"
    );
}

fn rectangle(area: Area) -> String {
    format!("x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"", area.x, area.y, area.width, area.height)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
