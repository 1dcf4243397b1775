//! Prints answers: tables for people, JSON for programs. Everything passes through `escape`.

use std::io::{Write, stdout};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets};
use proto::time::UnixMs;
use serde_json::Value;

use super::escape;

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// As asked for.
    pub format: Format,
}

impl Output {
    /// Prints the JSON form, or else what `table` prints.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn print(self, json: impl FnOnce() -> Value, table: impl FnOnce() -> String) -> anyhow::Result<()> {
        match self.format {
            Format::Json => line(&escape::json(&format!("{:#}", json()))),
            Format::Table => line(&table()),
        }
    }
}

/// A cell of a table: one line of text, or several that are meant to be. Whatever it is made of is escaped.
#[derive(Clone, Debug)]
pub struct Cell(String);

impl Cell {
    /// A line for each text.
    #[must_use]
    pub fn lines<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self(texts.into_iter().map(|text| escape::cell(text.as_ref())).collect::<Vec<_>>().join("\n"))
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self(escape::cell(text.as_ref()))
    }
}

/// A table with a heading.
#[must_use]
pub fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<Cell>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(heading);
    for row in rows {
        table.add_row(row.into_iter().map(|cell| cell.0));
    }
    // Ids, numbers and names come first and are copied from the screen: other columns give way.
    if let Some(first) = table.column_mut(0) {
        first.set_constraint(ColumnConstraint::ContentWidth);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n")
}

/// Prints a line to standard output.
///
/// # Errors
/// When the output cannot be written.
pub fn line(text: &str) -> anyhow::Result<()> {
    writeln!(stdout().lock(), "{text}")?;
    Ok(())
}

/// Prints a note to standard error: progress and what went wrong on the way. Never fails.
pub fn note(text: &str) {
    // Standard error being closed must not end the work.
    let _ = writeln!(std::io::stderr(), "{}", escape::lines(text));
}

/// Says that a list was cut, and how to see the rest.
pub fn cut(what: &str, shown: usize, rest: &str) {
    note(&format!("posternctl: the list is cut: there are older {what} than these {shown}; {rest}"));
}

/// A time of the wire as RFC 3339.
#[must_use]
pub fn time(ms: u64) -> String {
    UnixMs(ms).to_string()
}

/// Bytes for people.
#[must_use]
pub fn size(bytes: u64) -> String {
    if bytes < 10_000 { format!("{bytes} B") } else { format!("{} kB", bytes / 1000) }
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn a_cell_cannot_break_its_table() {
        let text = table(&["ID", "SUBJECT"], [vec!["1".into(), "a\u{1b}[31m\nb".into()]]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[1].contains("a\\u{1b}[31m\\u{a}b"), "{text}");
    }
}
