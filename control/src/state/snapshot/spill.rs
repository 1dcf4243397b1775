//! What changes during an export, kept as it was before: in memory at first, then in a file, so that neither the memory
//! grows nor an apply ever waits for the export.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
};

/// Keys with their values of before; `None` where there was no key.
pub(super) type Before = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Stands for "no value" in a run.
const NONE: u32 = u32::MAX;

/// Runs of old values, each in order of its keys. A key may be in several: the oldest run is right.
#[derive(Debug, Default)]
pub(super) struct Spill {
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    file: BufReader<File>,
    next: Option<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Spill {
    /// Writes a run into a file without a name.
    pub(super) fn add(&mut self, before: Before) -> io::Result<()> {
        let mut out = BufWriter::new(tempfile::tempfile()?);
        for (key, value) in &before {
            let length = value.as_ref().map_or(NONE, |value| u32::try_from(value.len()).unwrap_or(NONE - 1));
            out.write_all(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_be_bytes())?;
            out.write_all(&length.to_be_bytes())?;
            out.write_all(key)?;
            out.write_all(value.as_deref().unwrap_or_default())?;
        }
        out.write_all(&0_u32.to_be_bytes())?;
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        let mut run = Run { file: BufReader::new(file), next: None };
        run.advance()?;
        self.runs.push(run);
        Ok(())
    }

    /// Puts all old values below `end` into `before`, over what is there: that is newer.
    pub(super) fn take_below(&mut self, end: &[u8], before: &mut Before) -> io::Result<()> {
        for run in self.runs.iter_mut().rev() {
            while run.next.as_ref().is_some_and(|(key, _)| key.as_slice() < end) {
                before.extend(run.next.take());
                run.advance()?;
            }
        }
        self.runs.retain(|run| run.next.is_some());
        Ok(())
    }
}

impl Run {
    fn advance(&mut self) -> io::Result<()> {
        let mut length = || {
            let mut bytes = [0; 4];
            self.file.read_exact(&mut bytes).map(|()| u32::from_be_bytes(bytes))
        };
        let key_bytes = length()?;
        if key_bytes == 0 {
            return Ok(());
        }
        let value_bytes = length()?;
        let mut read = |length: u32| {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
            self.file.read_exact(&mut bytes).map(|()| bytes)
        };
        let key = read(key_bytes)?;
        let value = if value_bytes == NONE { None } else { Some(read(value_bytes)?) };
        self.next = Some((key, value));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Before, Spill};

    fn before(pairs: &[(&str, Option<&str>)]) -> Before {
        let own = |text: &str| text.as_bytes().to_vec();
        pairs.iter().map(|(key, value)| (own(key), value.map(own))).collect()
    }

    #[test]
    fn the_oldest_value_of_a_key_is_the_one_of_before() {
        let mut spill = Spill::default();
        spill.add(before(&[("a", Some("1")), ("c", None), ("e", Some(""))])).expect("written");
        spill.add(before(&[("a", Some("2")), ("b", Some("3")), ("c", Some("4"))])).expect("written");
        let mut found = before(&[("a", Some("5")), ("b", None)]);
        spill.take_below(b"c", &mut found).expect("read");
        assert_eq!(found, before(&[("a", Some("1")), ("b", Some("3"))]));
        let mut found = Before::new();
        spill.take_below(b"z", &mut found).expect("read");
        assert_eq!(found, before(&[("c", None), ("e", Some(""))]));
        assert!(spill.runs.is_empty());
    }
}
