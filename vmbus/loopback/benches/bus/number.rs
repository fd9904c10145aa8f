//! One measured number, in forms for people and for programs.

use std::fmt;

/// A number with its limit and its target.
#[derive(Debug)]
pub(crate) struct Number {
    name: String,
    unit: &'static str,
    value: f64,
    /// The physical limit, measured in the same run.
    limit: Option<f64>,
    /// The highest acceptable value.
    target: Option<f64>,
}

impl Number {
    pub(crate) fn new(
        name: impl Into<String>,
        unit: &'static str,
        value: f64,
        limit: f64,
    ) -> Number {
        Number { name: name.into(), unit, value, limit: Some(limit), target: None }
    }

    pub(crate) fn target(mut self, target: impl Into<Option<f64>>) -> Number {
        self.target = target.into();
        self
    }

    /// Returns the smaller of two measurements of the same number.
    pub(crate) fn best(self, other: &Number) -> Number {
        let limit = self.limit.zip(other.limit).map(|(one, other)| one.min(other));
        Number { value: self.value.min(other.value), limit, ..self }
    }

    /// Returns the ratio of value and limit, if there is a limit.
    fn ratio(&self) -> Option<f64> {
        self.limit.filter(|&limit| limit != 0.0).map(|limit| self.value / limit)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Number { name, unit, value, .. } = self;
        let [limit, ratio, target] = [self.limit, self.ratio(), self.target].map(word);
        write!(f, "{name}: {value:.2} {unit}, limit {limit}, ratio {ratio}, target {target}")
    }
}

/// Returns an array of `{name, unit, value, limit, ratio, target}`. Names and units are plain
/// words, which need no escapes.
pub(crate) fn json(numbers: &[Number]) -> String {
    let objects = numbers.iter().map(|number| {
        let Number { name, unit, .. } = number;
        let [value, limit, ratio, target] =
            [Some(number.value), number.limit, number.ratio(), number.target].map(word);
        format!(
            "  {{\"name\": \"{name}\", \"unit\": \"{unit}\", \"value\": {value}, \
             \"limit\": {limit}, \"ratio\": {ratio}, \
             \"target\": {target}}}"
        )
    });
    format!("[\n{}\n]\n", objects.collect::<Vec<_>>().join(",\n"))
}

fn word(number: Option<f64>) -> String {
    number
        .filter(|number| number.is_finite())
        .map_or_else(|| "null".to_owned(), |number| format!("{number:.3}"))
}
