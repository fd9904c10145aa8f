//! The cost of an operation on machines of growing size, as a picture: a line for each kind.

use plotters::prelude::*;

use super::table::Number;

/// A line of the picture.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// The beginning of its numbers' names, before the size.
    pub(super) begin: &'static str,
    /// The name for people.
    pub(super) name: &'static str,
}

const SIZE: (u32, u32) = (640, 320);
const COLORS: [RGBColor; 4] = [
    RGBColor(0x2A, 0x7F, 0x62),
    RGBColor(0xC4, 0x4E, 0x3A),
    RGBColor(0x33, 0x5C, 0x9A),
    RGBColor(0x8A, 0x6D, 0x1F),
];

/// Largest cost of the picture, as a multiple of the smallest machine's.
const REACH: f64 = 1.5;

/// A line's points: the size, and the cost as a multiple of the smallest machine's.
type Points = Vec<(f64, f64)>;

/// Returns an SVG picture of the numbers `{line}{size}_{unit}`, each relative to its limit, which
/// is the cost on the smallest machine. Lines without numbers are left out.
///
/// # Errors
/// A message of the plotter; does not depend on the numbers.
pub(super) fn draw(numbers: &[Number], lines: &[Line], unit: &str) -> Result<String, String> {
    let mut text = String::new();
    paint(&mut text, numbers, lines, unit).map_err(|error| format!("drawing: {error}"))?;
    Ok(text)
}

fn paint(
    text: &mut String,
    numbers: &[Number],
    lines: &[Line],
    unit: &str,
) -> Result<(), Box<dyn std::error::Error>> {
    let all: Vec<(&Line, Points)> = lines
        .iter()
        .map(|line| (line, points(numbers, line, unit)))
        .filter(|(_, points)| points.len() > 1)
        .collect();
    let most = all.iter().flat_map(|(_, points)| points).map(|point| point.0).fold(2.0, f64::max);
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(48)
        .build_cartesian_2d(1.0..most, 0.0..REACH)?;
    chart
        .configure_mesh()
        .x_desc("number in one machine")
        .y_desc(format!("{unit}, 1 = a single one"))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    for ((line, points), color) in all.into_iter().zip(COLORS) {
        let drawn: Points =
            points.into_iter().map(|(size, cost)| (size, cost.min(REACH))).collect();
        chart
            .draw_series([PathElement::new(drawn, color.stroke_width(2))])?
            .label(line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color));
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}

/// Returns the points of a line, by size. The smallest machine is the first.
fn points(numbers: &[Number], line: &Line, unit: &str) -> Points {
    let mut points: Points = numbers
        .iter()
        .filter_map(|number| {
            let size = number.name.strip_prefix(line.begin)?.strip_suffix(unit)?;
            Some((size.strip_suffix('_')?.parse().ok()?, number.ratio?))
        })
        .collect();
    if !points.is_empty() {
        points.push((1.0, 1.0));
    }
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: [Line; 2] =
        [Line { begin: "a_cards_", name: "by cards" }, Line { begin: "a_queues_", name: "unused" }];

    fn number(name: &str, ratio: f64) -> Number {
        Number { ratio: Some(ratio), ..Number::new(name, "instructions", 1.0) }
    }

    #[test]
    fn test_points_of_a_line_are_its_numbers_by_size_after_the_smallest_machine() {
        let numbers = [
            number("a_cards_8_instructions", 1.02),
            number("a_cards_2_instructions", 0.99),
            number("a_cards_2_ns", 7.0),
            number("b_cards_2_instructions", 9.0),
        ];
        let found = points(&numbers, &LINES[0], "instructions");
        assert_eq!(found, [(1.0, 1.0), (2.0, 0.99), (8.0, 1.02)]);
        assert_eq!(points(&numbers, &LINES[1], "instructions"), []);
    }

    #[test]
    fn test_picture_names_the_lines_with_numbers_only() {
        let text = draw(&[number("a_cards_4_instructions", 1.0)], &LINES, "instructions").unwrap();
        assert!(text.contains("by cards") && !text.contains("unused"), "{text}");
    }
}
