//! Reads YAML documents strictly: unknown keys and wrong types are faults with file, line and key, and all faults of a
//! document are found in one reading.

use std::{collections::BTreeSet, fmt};

use saphyr::{LoadableYamlNode, MarkedYaml, Scalar, YamlData};

/// Longest document, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Name of the file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// Path of the key, such as `next_hops[0].port`.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// `file:line:column: key: problem`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.problem)
    }
}

/// Several faults as one error, a line each.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Faults(pub Vec<Fault>);

/// Reads one document. `read` takes the values out of the root mapping; what it leaves untouched is an unknown key.
///
/// # Errors
/// All faults, in the order of their lines.
pub fn read<T>(file: &str, text: &str, read: impl FnOnce(&mut Map<'_, '_>) -> T) -> Result<T, Faults> {
    let fault = |line, column, problem: String| {
        Faults(vec![Fault { file: file.to_owned(), line, column, key: String::new(), problem }])
    };
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(fault(1, 1, format!("longer than {DOCUMENT_BYTES_MAX} bytes")));
    }
    let documents = MarkedYaml::load_from_str(text)
        .map_err(|error| fault(error.marker().line(), error.marker().col() + 1, error.info().to_owned()))?;
    let [root] = documents.as_slice() else {
        return Err(fault(1, 1, format!("one YAML document is expected, not {}", documents.len())));
    };
    let mut faults = Vec::new();
    let value = Node { yaml: root, key: String::new(), file }.map(&mut faults).map(|mut map| {
        let value = read(&mut map);
        map.finish();
        value
    });
    faults.sort_by_key(|fault| (fault.line, fault.column));
    match value {
        Some(value) if faults.is_empty() => Ok(value),
        _ => Err(Faults(faults)),
    }
}

/// A value with its place.
#[derive(Clone)]
pub struct Node<'d, 'i> {
    yaml: &'d MarkedYaml<'i>,
    key: String,
    file: &'d str,
}

impl<'d, 'i> Node<'d, 'i> {
    /// A fault at this place.
    #[must_use]
    pub fn fault(&self, problem: impl Into<String>) -> Fault {
        let start = &self.yaml.span.start;
        Fault {
            file: self.file.to_owned(),
            line: start.line(),
            column: start.col() + 1,
            key: self.key.clone(),
            problem: problem.into(),
        }
    }

    fn map<'f>(&self, faults: &'f mut Vec<Fault>) -> Option<Map<'d, 'f>>
    where
        'i: 'd,
    {
        let YamlData::Mapping(mapping) = &self.yaml.data else {
            faults.push(self.fault("a mapping (key: value) is expected"));
            return None;
        };
        let mut entries = Vec::new();
        for (key, value) in mapping {
            let at = Node { yaml: key, key: self.key.clone(), file: self.file };
            if let YamlData::Value(Scalar::String(name)) = &key.data {
                let path = if self.key.is_empty() { name.to_string() } else { format!("{}.{name}", self.key) };
                let place = at.fault("");
                entries.push((name.to_string(), place, Node { yaml: value, key: path, file: self.file }));
            } else {
                faults.push(at.fault("a key must be text"));
            }
        }
        Some(Map { place: self.fault(""), entries, known: BTreeSet::new(), faults })
    }

    fn scalar(&self) -> Option<&Scalar<'i>> {
        if let YamlData::Value(scalar) = &self.yaml.data { Some(scalar) } else { None }
    }

    /// Text; a number or a boolean is not text.
    ///
    /// # Errors
    /// Another type.
    pub fn text(&self) -> Result<String, Fault> {
        match self.scalar() {
            Some(Scalar::String(text)) => Ok(text.to_string()),
            _ => Err(self.fault("text is expected")),
        }
    }

    /// A whole number in a range.
    ///
    /// # Errors
    /// Another type, or out of the range.
    pub fn integer(&self, range: std::ops::RangeInclusive<u64>) -> Result<u64, Fault> {
        let wanted = || self.fault(format!("a whole number from {} to {} is expected", range.start(), range.end()));
        match self.scalar() {
            Some(Scalar::Integer(number)) => {
                u64::try_from(*number).ok().filter(|number| range.contains(number)).ok_or_else(wanted)
            }
            _ => Err(wanted()),
        }
    }

    /// A number with at most two decimals, in hundredths.
    ///
    /// # Errors
    /// Another type, or beyond 1,000,000.
    pub fn hundredths(&self) -> Result<i32, Fault> {
        let number = match self.scalar() {
            Some(Scalar::Integer(number)) => f64::from(i32::try_from(*number).unwrap_or(i32::MAX)),
            Some(Scalar::FloatingPoint(number)) => number.into_inner(),
            _ => f64::NAN,
        };
        let hundredths = (number * 100.0).round();
        if hundredths.abs() <= 100_000_000.0 && (hundredths - number * 100.0).abs() < 1e-6 {
            #[expect(clippy::cast_possible_truncation, reason = "bounded in the line above")]
            return Ok(hundredths as i32);
        }
        Err(self.fault("a number with at most two decimals is expected"))
    }

    /// Text that a parser of another type takes.
    ///
    /// # Errors
    /// Another type, or what the parser says.
    pub fn parsed<T, E: fmt::Display>(&self, parse: impl FnOnce(&str) -> Result<T, E>) -> Result<T, Fault> {
        let text = self.text()?;
        parse(&text).map_err(|error| self.fault(format!("{text:?}: {error}")))
    }

    /// One word of a list.
    ///
    /// # Errors
    /// Another type, or a word that is not in the list.
    pub fn word<T: Clone>(&self, words: &[(&str, T)]) -> Result<T, Fault> {
        let found = self.text().ok().and_then(|text| words.iter().find(|(word, _)| *word == text));
        found.map(|(_, value)| value.clone()).ok_or_else(|| {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.fault(format!("one of {} is expected", all.join(", ")))
        })
    }

    fn items(&self) -> Result<Vec<Node<'d, 'i>>, Fault> {
        let YamlData::Sequence(items) = &self.yaml.data else { return Err(self.fault("a list is expected")) };
        let node = |(at, yaml)| Node { yaml, key: format!("{}[{at}]", self.key), file: self.file };
        Ok(items.iter().enumerate().map(node).collect())
    }
}

/// A mapping that is being read.
pub struct Map<'d, 'f> {
    place: Fault,
    entries: Vec<(String, Fault, Node<'d, 'd>)>,
    known: BTreeSet<&'static str>,
    faults: &'f mut Vec<Fault>,
}

impl<'d> Map<'d, '_> {
    fn node(&mut self, key: &'static str) -> Option<Node<'d, 'd>> {
        self.known.insert(key);
        self.entries.iter().find(|(name, ..)| name == key).map(|(.., node)| node.clone())
    }

    fn keep<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.faults.push(fault)).ok()
    }

    /// A value that may be left out.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node<'d, 'd>) -> Result<T, Fault>,
    ) -> Option<T> {
        let node = self.node(key)?;
        self.keep(read(&node))
    }

    /// A fault when a list is left out or empty; a value that is no list is left to the one who reads it.
    pub fn at_least_one(&mut self, key: &'static str) {
        match self.node(key) {
            None => self.missing(key),
            Some(node) => {
                if node.items().is_ok_and(|items| items.is_empty()) {
                    self.faults.push(node.fault("at least one is needed"));
                }
            }
        }
    }

    /// A value that must be there; `None` after a fault.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Node<'d, 'd>) -> Result<T, Fault>,
    ) -> Option<T> {
        if self.node(key).is_none() {
            self.missing(key);
        }
        self.optional(key, read)
    }

    fn missing(&mut self, key: &str) {
        let path = if self.place.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.place.key) };
        self.faults.push(Fault { key: path, problem: "is missing".into(), ..self.place.clone() });
    }

    /// A list that may be left out; `None` when it is.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&Node<'d, 'd>) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        let node = self.node(key)?;
        let items = self.keep(node.items())?;
        let read: Vec<_> = items.iter().map(&mut read).collect();
        Some(read.into_iter().filter_map(|item| self.keep(item)).collect())
    }

    /// A list that may be left out, or one value without the list around it; `None` when it is left out.
    pub fn one_or_more<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&Node<'d, 'd>) -> Result<T, Fault>,
    ) -> Option<Vec<T>> {
        match self.node(key)?.items() {
            Ok(_) => self.list(key, read),
            Err(_) => self.optional(key, read).map(|one| vec![one]),
        }
    }

    /// A mapping below this one that may be left out.
    pub fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Map<'d, '_>) -> T) -> Option<T> {
        let node = self.node(key)?;
        let mut map = node.map(self.faults)?;
        let value = read(&mut map);
        map.finish();
        Some(value)
    }

    /// A list of mappings that may be left out; `None` when it is.
    pub fn sections<T>(&mut self, key: &'static str, mut read: impl FnMut(&mut Map<'d, '_>) -> T) -> Option<Vec<T>> {
        let node = self.node(key)?;
        let items = self.keep(node.items())?;
        let mut values = Vec::new();
        for item in items {
            if let Some(mut map) = item.map(self.faults) {
                values.push(read(&mut map));
                map.finish();
            }
        }
        Some(values)
    }

    /// A list that may be left out, of which each item is text, or a mapping; `None` when it is left out.
    pub fn texts_or_sections<T>(
        &mut self,
        key: &'static str,
        mut text: impl FnMut(&Node<'d, 'd>) -> Result<T, Fault>,
        mut section: impl FnMut(&mut Map<'d, '_>) -> T,
    ) -> Option<Vec<T>> {
        let node = self.node(key)?;
        let items = self.keep(node.items())?;
        let mut values = Vec::new();
        for item in items {
            if item.scalar().is_some() {
                values.extend(self.keep(text(&item)));
            } else if let Some(mut map) = item.map(self.faults) {
                values.push(section(&mut map));
                map.finish();
            }
        }
        Some(values)
    }

    /// Where it begins, for a fault that is found later.
    #[must_use]
    pub fn place(&self) -> Fault {
        self.place.clone()
    }

    /// A fault of a value that was read before.
    pub fn fault_at(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    /// A fault of the mapping as a whole.
    pub fn fault(&mut self, problem: impl Into<String>) {
        self.faults.push(Fault { problem: problem.into(), ..self.place.clone() });
    }

    fn finish(self) {
        for (name, place, _) in &self.entries {
            if !self.known.contains(name.as_str()) {
                let key = if place.key.is_empty() { name.clone() } else { format!("{}.{name}", place.key) };
                let known: Vec<&str> = self.known.iter().copied().collect();
                let problem = format!("unknown key; known here: {}", known.join(", "));
                self.faults.push(Fault { key, problem, ..place.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Faults, read};

    fn faults(text: &str) -> Vec<String> {
        let result = read("a.yaml", text, |map| {
            map.required("name", super::Node::text);
            map.optional("port", |node| node.integer(1..=65535));
            map.sections("hops", |hop| hop.required("host", super::Node::text));
        });
        result.err().map(|Faults(faults)| faults.iter().map(ToString::to_string).collect()).unwrap_or_default()
    }

    #[test]
    fn all_faults_are_reported_with_line_and_key() {
        let text = "nmae: x\nport: high\nhops:\n  - host: a\n  - hots: b\n";
        assert_eq!(
            faults(text),
            [
                "a.yaml:1:1: name: is missing",
                "a.yaml:1:1: nmae: unknown key; known here: hops, name, port",
                "a.yaml:2:7: port: a whole number from 1 to 65535 is expected",
                "a.yaml:5:5: hops[1].host: is missing",
                "a.yaml:5:5: hops[1].hots: unknown key; known here: host",
            ]
        );
    }

    #[test]
    fn broken_yaml_and_doubled_keys_are_faults() {
        assert_eq!(faults("name: a\nname: b\n").len(), 1);
        assert_eq!(faults("name: [a\n").len(), 1);
        assert_eq!(faults("- a\n"), ["a.yaml:1:1: a mapping (key: value) is expected"]);
        assert!(faults("name: a\n").is_empty());
    }
}
