//! Tables with aligned columns.

use std::fmt;

use super::ui::Style;

/// Rows of text under a heading. Columns are two blanks apart; the last one is not padded.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    style: Style,
}

#[derive(Debug)]
struct Column {
    title: &'static str,
    to_the_right: bool,
}

impl Table {
    /// An empty table. A title that begins with `>` makes a column that is aligned to the right.
    pub(crate) fn new(titles: &[&'static str], style: Style) -> Self {
        let columns = titles
            .iter()
            .map(|title| Column {
                title: title.trim_start_matches('>'),
                to_the_right: title.starts_with('>'),
            })
            .collect();
        Self {
            columns,
            rows: Vec::new(),
            style,
        }
    }

    /// Adds a row of as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self
            .columns
            .iter()
            .map(|column| column.title.len())
            .collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }

    fn line(&self, cells: &[&str], widths: &[usize]) -> String {
        let mut line = String::new();
        for ((column, cell), &width) in self.columns.iter().zip(cells).zip(widths) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            if !line.is_empty() {
                line.push_str("  ");
            }
            if column.to_the_right {
                line.push_str(&padding);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.push_str(&padding);
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        writeln!(f, "{}", self.style.bold(&self.line(&titles, &widths)))?;
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            writeln!(f, "{}", self.line(&cells, &widths))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["NAME", ">SIZE", "NOTE"], Style::plain());
        table.row(vec!["grün".into(), "1 B".into(), "x".into()]);
        table.row(vec!["longer".into(), "12 KiB".into(), String::new()]);
        assert_eq!(
            table.to_string(),
            "NAME      SIZE  NOTE\ngrün       1 B  x\nlonger  12 KiB\n"
        );
    }
}
