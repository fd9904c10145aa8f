//! The report for people: a table of 100 columns, the verdict, and advice.

use super::{Check, Group, Report, State};

/// Columns of the text.
const WIDTH: usize = 100;

/// The column of a check's name.
const COST_INDENT: usize = 11;

/// Whether the text has colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Text only.
    Plain,
    /// Colours, for a terminal.
    Colour,
}

impl Look {
    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Look::Plain => text.to_owned(),
            Look::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

/// Writes `report` as a table.
pub fn render(report: &Report, look: Look) -> String {
    let mut lines = vec![format!("Host kernel {}", report.kernel)];
    let groups = [
        (Group::Access, "KVM"),
        (Group::HyperV, "KVM's Hyper-V support"),
        (Group::Machine, "KVM's other capabilities"),
        (Group::Host, "The rest of the host"),
    ];
    let name_width =
        report.checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    for (group, title) in groups {
        lines.push(String::new());
        lines.push(look.paint("1", title));
        for check in report.checks.iter().filter(|check| check.group == group) {
            lines.extend(check_lines(check, name_width, look));
        }
    }
    lines.push(String::new());
    lines.extend(verdict(report, look));
    lines.extend(advice(report));
    lines.join("\n") + "\n"
}

fn check_lines(check: &Check, name_width: usize, look: Look) -> Vec<String> {
    let (mark, colour) = match check.state {
        State::Ok => ("ok", "32"),
        State::Warn => ("warn", "33"),
        State::Missing => ("MISSING", "31"),
        State::Unknown => ("?", "2"),
    };
    let number = check.number.map(|number| number.to_string()).unwrap_or_default();
    let mark = look.paint(colour, &format!("{mark:<7}"));
    let head = format!("  {mark}  {:<name_width$}  {number:>3}  ", check.name);
    let body = match check.group {
        Group::HyperV | Group::Machine => match check.found.as_str() {
            "yes" | "no" | "not asked" => check.purpose.clone(),
            found => format!("{found} {}", check.purpose),
        },
        Group::Access | Group::Host => check.found.clone(),
    };
    let mut lines = vec![(head + &body).trim_end().to_owned()];
    // Under the name: next to the other columns, the text would be too narrow.
    let cost =
        check.cost.iter().flat_map(|cost| wrap(&format!("costs: {cost}"), WIDTH - COST_INDENT));
    lines.extend(cost.map(|line| format!("{:COST_INDENT$}{}", "", look.paint("2", &line))));
    lines
}

fn verdict(report: &Report, look: Look) -> Vec<String> {
    if report.stock_guests {
        return vec![look.paint("1;32", "Stock guests can run here.")];
    }
    let missing = report
        .checks
        .iter()
        .filter(|check| check.state == State::Missing)
        .map(|check| check.name.as_str());
    let names = missing.collect::<Vec<_>>().join(", ");
    let text = if names.is_empty() {
        "Stock guests cannot run here: some parts could not be checked.".to_owned()
    } else {
        format!("Stock guests cannot run here; missing: {names}.")
    };
    wrap(&text, WIDTH).into_iter().map(|line| look.paint("1;31", &line)).collect()
}

/// Returns each piece of advice once, with the names of all checks that it applies to, the most
/// severe first.
fn advice(report: &Report) -> Vec<String> {
    let mut advised: Vec<(&str, Vec<&str>)> = Vec::new();
    for state in [State::Missing, State::Warn, State::Ok] {
        for check in report.checks.iter().filter(|check| check.state == state) {
            let Some(advice) = check.advice.as_deref() else { continue };
            match advised.iter_mut().find(|(known, _)| *known == advice) {
                Some((_, names)) => names.push(&check.name),
                None => advised.push((advice, vec![&check.name])),
            }
        }
    }
    if advised.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new(), "What to do".to_owned()];
    for (advice, names) in advised {
        let names = match names.as_slice() {
            [first, second, third, rest @ ..] if !rest.is_empty() => {
                format!("{first}, {second}, {third} and {} more", rest.len())
            }
            names => names.join(", "),
        };
        let wrapped = wrap(&format!("{names}: {advice}"), WIDTH - 4);
        lines.extend(wrapped.into_iter().enumerate().map(|(index, line)| match index {
            0 => format!("  * {line}"),
            _ => format!("    {line}"),
        }));
    }
    lines
}

/// Breaks `text` at blanks into lines of at most `width` characters; a longer word has its own
/// line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
