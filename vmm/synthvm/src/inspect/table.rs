//! Tables with aligned columns.

/// The alignment of a cell's text in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A table as text: a head and rows, with two blanks between columns.
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Returns a table without rows.
    pub(crate) fn new(columns: &[(&'static str, Align)]) -> Self {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Missing cells are empty; cells beyond the head are not shown.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut cells: Vec<String> = cells.into_iter().map(|cell| printable(&cell)).collect();
        cells.resize(self.columns.len(), String::new());
        self.rows.push(cells);
    }

    /// Returns the lines: the head first, no blanks at the ends, each indented by two. A column
    /// without a name and without content is omitted.
    pub(crate) fn lines(&self) -> Vec<String> {
        let head: Vec<String> = self.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let all: Vec<&Vec<String>> = std::iter::once(&head).chain(&self.rows).collect();
        let width =
            |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |row: &&Vec<String>| self.line(row, &widths);
        all.iter().map(line).collect()
    }

    fn line(&self, row: &[String], widths: &[usize]) -> String {
        let shown = row.iter().zip(widths).zip(&self.columns).filter(|((_, width), _)| **width > 0);
        let cells = shown.map(|((cell, width), (_, align))| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        format!("  {}", line.trim_end())
    }
}

/// Returns `text` with control characters replaced: some of it comes from outside and must not move
/// a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_table_aligns_columns_by_their_widest_cell() {
        let mut table =
            Table::new(&[("NAME", Align::Left), ("N", Align::Right), ("", Align::Left)]);
        table.row(["a", "1000", "x"].map(str::to_owned));
        table.row(["longer".to_owned()]);
        assert_eq!(table.lines(), ["  NAME       N", "  a       1000  x", "  longer"]);
    }

    #[test]
    fn test_table_column_without_name_and_content_is_left_out() {
        let mut table = Table::new(&[("A", Align::Left), ("", Align::Right), ("B", Align::Left)]);
        table.row(["x".to_owned(), String::new(), "y".to_owned()]);
        assert_eq!(table.lines(), ["  A  B", "  x  y"]);
    }

    #[test]
    fn test_table_cell_with_escape_sequence_cannot_reach_the_terminal() {
        let mut table = Table::new(&[("A", Align::Left)]);
        table.row(["x\u{1b}[2Jy\n".to_owned()]);
        assert!(!table.lines().concat().contains(char::is_control));
    }
}
