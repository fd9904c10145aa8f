//! The ratios as one picture: a panel for each measurement, a bar for each case.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::rows::Row;

/// A panel: the end of the rows' names, and the title.
pub(super) type Panel = (&'static str, &'static str);

/// Sizes in pixels.
const PANEL_WIDTH: u32 = 190;
const LABEL_WIDTH: u32 = 190;
const CASE_HEIGHT: u32 = 18;
const TITLE_HEIGHT: u32 = 44;
const FOOT_HEIGHT: u32 = 30;

/// The largest ratio of a bar, as an exponent of two in either direction.
const REACH: f64 = 3.0;

const BETTER: RGBColor = RGBColor(0x2A, 0x7F, 0x62);
const WORSE: RGBColor = RGBColor(0xC4, 0x4E, 0x3A);

type Failure = Box<dyn std::error::Error>;

/// Returns an SVG picture of the rows. The rows of the first panel name the cases.
///
/// # Errors
/// A message of the plotter; does not depend on the rows.
pub(super) fn draw(rows: &[Row], panels: &[Panel]) -> Result<String, String> {
    let first = panels.first().map_or("", |(end, _)| *end);
    let cases: Vec<&str> = rows.iter().filter_map(|row| row.case.strip_suffix(first)).collect();
    let mut text = String::new();
    paint(&mut text, rows, &cases, panels).map_err(|error| format!("drawing: {error}"))?;
    Ok(text)
}

fn paint(text: &mut String, rows: &[Row], cases: &[&str], panels: &[Panel]) -> Result<(), Failure> {
    let count = u32::try_from(cases.len())?;
    let width = u32::try_from(panels.len())?;
    let size =
        (LABEL_WIDTH + PANEL_WIDTH * width, TITLE_HEIGHT + CASE_HEIGHT * count + FOOT_HEIGHT);
    let root = SVGBackend::with_string(text, size).into_drawing_area();
    root.fill(&WHITE)?;
    let (labels, rest) = root.split_horizontally(LABEL_WIDTH);
    for (index, case) in cases.iter().enumerate() {
        let y = TITLE_HEIGHT + CASE_HEIGHT * u32::try_from(index)? + CASE_HEIGHT / 2;
        let place = (i32::try_from(LABEL_WIDTH)? - 6, i32::try_from(y)?);
        let style = ("sans-serif", 12).into_text_style(&labels);
        let style = style.pos(plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Right,
            plotters::style::text_anchor::VPos::Center,
        ));
        labels.draw(&Text::new((*case).to_owned(), place, style))?;
    }
    let areas = rest.split_evenly((1, panels.len()));
    for (area, (end, title)) in areas.iter().zip(panels) {
        let ratio = |case: &&str| {
            rows.iter().find(|row| row.case == format!("{case}{end}")).map(|row| row.ratio)
        };
        panel(area, title, &cases.iter().map(ratio).collect::<Vec<_>>())?;
    }
    root.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    ratios: &[Option<f64>],
) -> Result<(), Failure> {
    let count = f64::from(u32::try_from(ratios.len())?);
    let titled = area.titled(title, ("sans-serif", 14))?;
    let drawn_title = area.dim_in_pixel().1 - titled.dim_in_pixel().1;
    let mut chart = ChartBuilder::on(&titled)
        .margin_top(TITLE_HEIGHT.saturating_sub(drawn_title))
        .margin_right(8)
        .margin_left(8)
        .x_label_area_size(FOOT_HEIGHT)
        // From top to bottom.
        .build_cartesian_2d(-REACH..REACH, count..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_labels(7)
        .x_label_formatter(&|power| word(*power))
        .label_style(("sans-serif", 11))
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .draw()?;
    let bars =
        (0_u32..).zip(ratios).filter_map(|(index, ratio)| Some((f64::from(index), (*ratio)?)));
    chart.draw_series(bars.map(|(top, ratio)| {
        let color = if ratio >= 1.0 { BETTER } else { WORSE };
        Rectangle::new(
            [(0.0, top + 0.15), (ratio.log2().clamp(-REACH, REACH), top + 0.85)],
            color.filled(),
        )
    }))?;
    chart.draw_series([PathElement::new([(0.0, 0.0), (0.0, count)], BLACK)])?;
    Ok(())
}

/// Returns a power of two as a ratio for people.
fn word(power: f64) -> String {
    if power < 0.0 { format!("1/{}", 2_f64.powf(-power)) } else { format!("{}", 2_f64.powf(power)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_picture_has_a_bar_for_each_ratio_and_no_number_out_of_bounds() {
        let row = |case: &str, ratio| Row {
            case: case.into(),
            unit: String::new(),
            synthvm: 1.0,
            peer: 1.0,
            ratio,
        };
        let rows =
            [row("a_iops", 1.5), row("a_p99", 0.5), row("b_iops", f64::MAX), row("b_exits", 0.0)];
        let panels = [("_iops", "I/Os a second"), ("_p99", "p99"), ("_exits", "exits")];
        let text = draw(&rows, &panels).unwrap();
        assert_eq!(text.matches("#2A7F62").count(), 2, "{text}");
        assert_eq!(text.matches("#C44E3A").count(), 2);
        assert!(!text.contains("inf") && !text.contains("NaN"));
    }

    #[test]
    fn test_word_of_powers_is_a_ratio() {
        assert_eq!([-2.0, 0.0, 3.0].map(word), ["1/4", "1", "8"]);
    }
}
