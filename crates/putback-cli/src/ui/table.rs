//! Tables: columns aligned, no borders, one line a row.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// A table that keeps every row on one line, so that `grep` and `cut` work on it.
pub(crate) struct Lines {
    table: Table,
    right: Vec<usize>,
}

impl Lines {
    /// With these column titles; those that begin with `>` are aligned to the right.
    pub(crate) fn new(titles: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(titles.iter().map(|title| title.trim_start_matches('>')));
        let right = titles
            .iter()
            .enumerate()
            .filter(|(_, title)| title.starts_with('>'))
            .map(|(n, _)| n)
            .collect();
        Self { table, right }
    }

    /// Adds a row; cells must not contain line breaks.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.table.add_row(cells);
    }

    /// The text, with a line break at its end.
    pub(crate) fn render(mut self) -> String {
        for index in &self.right {
            if let Some(column) = self.table.column_mut(*index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut out = String::new();
        for line in self.table.lines() {
            // The style pads each cell by a blank on both sides.
            out.push_str(line.strip_prefix(' ').unwrap_or(&line).trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_have_no_trailing_blanks() {
        let mut table = Lines::new(&["ID", ">Size", "Name"]);
        table.row(vec!["1".to_owned(), "10".to_owned(), "a".to_owned()]);
        table.row(vec!["22".to_owned(), "5".to_owned(), String::new()]);
        assert_eq!(table.render(), "ID  Size  Name\n1     10  a\n22     5\n");
    }
}
