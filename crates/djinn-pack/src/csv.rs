//! Problems and packings as comma-separated values, in the columns that MiniMalloc reads and writes.
//!
//! The first line names the columns, in any order: `id`, `lower`, `upper` and `size` are required,
//! `alignment` and `offset` (a fixed place) are optional. A buffer is live from `lower` up to, but
//! not including, `upper`. Fields are not quoted. An empty optional field is as good as none.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::problem::{Buffer, Problem, ProblemError};

/// How much of a field an error repeats, in characters.
const SHOWN: usize = 40;

/// Why a file was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvError {
    /// The line, counted from one.
    pub line: usize,
    /// The character of the line at which the field begins, counted from one; none if the whole line is meant.
    pub column: Option<usize>,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for CsvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column {
            Some(column) => write!(f, "line {}, column {column}: {}", self.line, self.message),
            None => write!(f, "line {}: {}", self.line, self.message),
        }
    }
}

impl std::error::Error for CsvError {}

/// The columns that are understood.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Id,
    Lower,
    Upper,
    Size,
    Alignment,
    Offset,
}

impl Column {
    const ALL: [(Column, &str); 6] = [
        (Column::Id, "id"),
        (Column::Lower, "lower"),
        (Column::Upper, "upper"),
        (Column::Size, "size"),
        (Column::Alignment, "alignment"),
        (Column::Offset, "offset"),
    ];
}

impl Problem {
    /// Reads a problem whose buffers conflict when their lifetimes overlap.
    pub fn from_csv(text: &str) -> Result<Self, CsvError> {
        let text = text.trim_start_matches('\u{feff}');
        let mut lines = text.lines().enumerate().map(|(i, l)| (i + 1, l.trim_end()));
        let (line, header) = lines.next().ok_or_else(|| error(1, "there is no header"))?;
        let columns = read_header(line, header)?;
        let mut buffers = Vec::new();
        let mut places = Vec::new();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for (line, row) in lines.filter(|(_, row)| !row.is_empty()) {
            let buffer = read_row(line, row, &columns)?;
            if let Some(first) = seen.insert(buffer.name.clone(), line) {
                return Err(error(
                    line,
                    format!("the id {} stands on line {first} too", shown(&buffer.name)),
                ));
            }
            buffers.push(buffer);
            places.push(line);
        }
        Problem::intervals(buffers).map_err(|e| error(places[offender(&e)], e.to_string()))
    }

    /// Writes the buffers with their offsets, in the columns that [`Problem::from_csv`] reads.
    ///
    /// Reading the text gives the problem with every buffer fixed to its place. Buffers without a
    /// name are named by their index.
    pub fn to_csv_with_offsets(&self, offsets: &[u64]) -> String {
        let aligned = self.buffers().iter().any(|b| b.alignment != 1);
        let mut text = String::from(if aligned {
            "id,lower,upper,size,alignment,offset\n"
        } else {
            "id,lower,upper,size,offset\n"
        });
        for (i, (b, offset)) in self.buffers().iter().zip(offsets).enumerate() {
            let name = if b.name.is_empty() { i.to_string() } else { b.name.clone() };
            let alignment = if aligned { format!("{},", b.alignment) } else { String::new() };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name},{},{},{},{alignment}{offset}", b.lower, b.upper, b.size);
        }
        text
    }
}

/// The buffer whose line an error of the problem is reported on.
fn offender(error: &ProblemError) -> usize {
    match *error {
        ProblemError::EmptyLifetime { buffer, .. }
        | ProblemError::BadAlignment { buffer, .. }
        | ProblemError::MisalignedOffset { buffer, .. }
        | ProblemError::TooLarge { buffer } => buffer,
        ProblemError::FixedOverlap { second, .. } => second,
        ProblemError::BadPair { pair: (first, _) } => first,
        ProblemError::WrongCount { .. } => 0,
    }
}

/// A field without the blanks around it.
struct Field<'a> {
    /// The character of the line at which it begins, counted from one.
    at: usize,
    text: &'a str,
}

/// The fields of a line.
fn fields(line: &str) -> impl Iterator<Item = Field<'_>> {
    let mut begin = 1;
    line.split(',').map(move |field| {
        let blanks = field.len() - field.trim_start().len();
        let at = begin + field[..blanks].chars().count();
        begin += field.chars().count() + 1;
        Field { at, text: field.trim() }
    })
}

/// Reads the names of the columns.
fn read_header(line: usize, header: &str) -> Result<Vec<Column>, CsvError> {
    let mut columns = Vec::new();
    for Field { at, text: name } in fields(header) {
        let at_field = |message: String| CsvError { line, column: Some(at), message };
        let known = Column::ALL.iter().find(|(_, n)| *n == name);
        let &(column, _) = known.ok_or_else(|| {
            let all = Column::ALL.map(|(_, n)| n).join(", ");
            at_field(format!("unknown column {}; the columns are {all}", shown(name)))
        })?;
        if columns.contains(&column) {
            return Err(at_field(format!("the column {name} stands twice")));
        }
        columns.push(column);
    }
    for &(column, name) in &Column::ALL[..4] {
        if !columns.contains(&column) {
            return Err(error(line, format!("the column {name} is missing")));
        }
    }
    Ok(columns)
}

/// Reads one buffer.
fn read_row(line: usize, row: &str, columns: &[Column]) -> Result<Buffer, CsvError> {
    let mut buffer = Buffer::new(0, 0, 0);
    let mut fields = fields(row);
    for &column in columns {
        let field = fields
            .next()
            .ok_or_else(|| error(line, format!("there are fewer than {} fields", columns.len())))?;
        match column {
            Column::Id => buffer.name = field.text.to_owned(),
            Column::Lower => buffer.lower = number(line, "lower", &field)?,
            Column::Upper => buffer.upper = number(line, "upper", &field)?,
            Column::Size => buffer.size = number(line, "size", &field)?,
            Column::Alignment if field.text.is_empty() => {}
            Column::Alignment => buffer.alignment = number(line, "alignment", &field)?,
            Column::Offset if field.text.is_empty() => {}
            Column::Offset => buffer.offset = Some(number(line, "offset", &field)?),
        }
    }
    if let Some(field) = fields.next() {
        let message = format!("there are more than {} fields", columns.len());
        return Err(CsvError { line, column: Some(field.at), message });
    }
    Ok(buffer)
}

/// Reads a whole number that fits its type.
fn number<T: std::str::FromStr>(line: usize, name: &str, field: &Field<'_>) -> Result<T, CsvError> {
    field.text.parse().map_err(|_| {
        let kind = if name == "lower" || name == "upper" { "an integer" } else { "a natural number" };
        let message = format!("{name} is {}, not {kind} of at most 64 bits", shown(field.text));
        CsvError { line, column: Some(field.at), message }
    })
}

/// A field as a message repeats it: quoted, and cut when long.
fn shown(field: &str) -> String {
    let cut: String = field.chars().take(SHOWN).collect();
    let dots = if cut.len() < field.len() { "..." } else { "" };
    format!("{cut:?}{dots}")
}

/// An error about a whole line.
fn error(line: usize, message: impl Into<String>) -> CsvError {
    CsvError { line, column: None, message: message.into() }
}
