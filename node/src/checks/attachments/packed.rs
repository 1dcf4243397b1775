//! Opens files that hold one packed file: gzip, bzip2, xz and zstd, each of several streams that follow each other.

use std::io::Read as _;

use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;

use super::{
    Look, Place,
    budget::{Budget, Metered, Unpacked, WINDOW_BYTES_MAX, length_of},
    bzip2,
    findings::shortened,
    format::Format,
    kinds,
};

/// What a byte out of gzip or zstd costs.
const FAST_WEIGHT: u64 = 1;
/// What a byte out of xz costs.
const SLOW_WEIGHT: u64 = 2;
/// What one more stream costs: each takes a decoder with its tables.
const STREAM_COST: u64 = 16 * 1024;
/// Names that one file may be given; of real ones there is one.
const NAMES_MAX: usize = 100;
/// Endings of packed files, and what is left of the name when it is unpacked.
const ENDINGS: [(&str, &str); 12] = [
    ("gz", ""),
    ("gzip", ""),
    ("bz2", ""),
    ("bz", ""),
    ("xz", ""),
    ("zst", ""),
    ("tgz", ".tar"),
    ("tbz", ".tar"),
    ("tbz2", ".tar"),
    ("txz", ".tar"),
    ("tzst", ".tar"),
    ("svgz", ".svg"),
];

impl Look<'_> {
    pub(super) fn packed(&mut self, place: &Place, content: &[u8], format: Format) {
        let mut names: Vec<String> = place.names.iter().filter_map(|name| unpacked_name(name)).collect();
        let (unpacked, words) = match format {
            Format::Bzip2 => (bzip2::unpack(content, &self.budget), "a bzip2 file"),
            Format::Xz => (xz(content, &self.budget), "an xz file"),
            Format::Zstd => (zstd(content, &self.budget), "a zstd file"),
            Format::Gzip
            | Format::Zip
            | Format::SevenZip
            | Format::Tar
            | Format::Compound
            | Format::ActiveMime
            | Format::Rtf
            | Format::Pdf
            | Format::Notebook => (gzip(content, &mut names, &self.budget), "a gzip file"),
        };
        if !unpacked.is_whole {
            self.broken(place, words);
        }
        let Some(mut inside) = self.entry(place, "its content") else { return };
        inside.names = names;
        self.look(&inside, &unpacked.content);
    }
}

/// The name without the ending that tells how it is packed.
fn unpacked_name(name: &str) -> Option<String> {
    let extension = kinds::extension(name)?;
    let (_, instead) = ENDINGS.iter().find(|(ending, _)| *ending == extension)?;
    let at = name.to_ascii_lowercase().rfind(&format!(".{extension}"))?;
    Some(format!("{}{instead}", name.get(..at)?))
}

/// Takes down what each stream says that its file is called: unpackers give it that name (RFC 1952 section 2.3.1).
fn gzip(content: &[u8], names: &mut Vec<String>, budget: &Budget) -> Unpacked {
    let mut all = Unpacked::default();
    let mut rest = content;
    loop {
        if budget.work(STREAM_COST).is_err() {
            return all;
        }
        let mut decoder = GzDecoder::new(Metered::new(rest, budget));
        let one = budget.unpack(decoder.by_ref(), FAST_WEIGHT);
        all.content.extend(one.content);
        let name = decoder.header().and_then(|header| header.filename()).map(shortened);
        names.extend(name.filter(|name| !name.is_empty() && !names.contains(name)));
        rest = decoder.into_inner().rest();
        if !one.is_whole || names.len() > NAMES_MAX {
            return all;
        }
        // Zeros may follow; what else follows is no gzip, and unpackers pass over it.
        if !rest.starts_with(b"\x1f\x8b") {
            all.is_whole = rest.iter().all(|byte| *byte == 0);
            return all;
        }
    }
}

fn xz(content: &[u8], budget: &Budget) -> Unpacked {
    let memory_kb = u32::try_from(WINDOW_BYTES_MAX / 1024 + 1024).unwrap_or(u32::MAX);
    let padded = content.iter().rev().take_while(|byte| **byte == 0).count();
    let reader = XzReader::new_mem_limit(Metered::new(&content[..content.len() - padded], budget), true, memory_kb);
    budget.unpack(reader, SLOW_WEIGHT)
}

fn zstd(content: &[u8], budget: &Budget) -> Unpacked {
    let mut all = Unpacked::default();
    let mut rest = content;
    while !rest.is_empty() {
        if budget.work(STREAM_COST).is_err() {
            return all;
        }
        if let [0x50..=0x5f, 0x2a, 0x4d, 0x18, a, b, c, d, after @ ..] = rest {
            let length = usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
            let Some(after) = after.get(length..) else { return all };
            rest = after;
            continue;
        }
        let source = Metered::new(rest, budget);
        let Ok(mut decoder) = StreamingDecoder::new_with_max_window_size(source, WINDOW_BYTES_MAX) else { return all };
        let one = budget.unpack(decoder.by_ref(), FAST_WEIGHT);
        all.content.extend(one.content);
        if !one.is_whole {
            return all;
        }
        rest = decoder.into_inner().rest();
    }
    all.is_whole = length_of(content.len()) > 0;
    all
}

#[cfg(test)]
mod tests {
    use super::unpacked_name;

    #[test]
    fn a_packed_name_without_its_ending_is_the_name_of_what_is_in_it() {
        let cases = [
            ("a.exe.gz", Some("a.exe")),
            ("A.TGZ", Some("A.tar")),
            ("a.gz. ", Some("a")),
            ("a.txt", None),
            ("gz", None),
        ];
        for (name, expected) in cases {
            assert_eq!(unpacked_name(name).as_deref(), expected, "{name}");
        }
    }
}
