//! Undoes the filters of PDF streams (ISO 32000-1 section 7.4), each byte that comes out paid for.

use std::io::Read as _;

use flate2::bufread::ZlibDecoder;
use weezl::{BitOrder, LzwStatus, decode::Decoder};

use super::budget::{Budget, Metered, Unpacked, length_of};

/// What an unpacked byte costs.
const WEIGHT: u64 = 1;
/// Filters of one stream; real ones have two at most.
const FILTERS_MAX: usize = 8;
/// Bytes that LZW unpacks at a time.
const CHUNK_BYTES: usize = 16 * 1024;
/// What is put down for a filter that is named somewhere else in the file.
const ELSEWHERE: &str = "(elsewhere)";

/// The filters of a stream, in the order in which they are undone.
#[derive(Debug, Default)]
pub(super) struct Filters {
    names: Vec<String>,
    /// Whether codes of LZW become longer one code later than usual (`/EarlyChange 0`).
    pub(super) is_late: bool,
}

impl Filters {
    /// Takes note of a filter; a name that is none says nothing.
    pub(super) fn name(&mut self, name: &str) {
        let is_filter = matches!(
            name,
            "FlateDecode"
                | "Fl"
                | "ASCIIHexDecode"
                | "AHx"
                | "ASCII85Decode"
                | "A85"
                | "LZWDecode"
                | "LZW"
                | "RunLengthDecode"
                | "RL"
                | "Crypt"
                | "DCTDecode"
                | "DCT"
                | "JPXDecode"
                | "JBIG2Decode"
                | "CCITTFaxDecode"
                | "CCF"
                | "Predictor"
        );
        // One more than counts is enough to see that there are too many.
        if is_filter && self.names.len() <= FILTERS_MAX {
            self.names.push(name.to_owned());
        }
    }

    /// The filter is an object of its own.
    pub(super) fn is_elsewhere(&mut self) {
        self.name("Fl");
        if let Some(last) = self.names.last_mut() {
            ELSEWHERE.clone_into(last);
        }
    }

    /// Undoes them, of each at most so many bytes. What came out before a filter that is not known or breaks off is there, too.
    pub(super) fn undo(&self, packed: &[u8], bytes_max: u64, budget: &Budget) -> Unpacked {
        let mut undone = Unpacked { content: packed.to_vec(), is_whole: self.names.len() <= FILTERS_MAX };
        for filter in &self.names {
            let one = match filter.as_str() {
                "FlateDecode" | "Fl" => inflate(&undone.content, bytes_max, budget),
                // One that is not seen is nearly always this one, which has a signature.
                ELSEWHERE if is_zlib(&undone.content) => inflate(&undone.content, bytes_max, budget),
                "LZWDecode" | "LZW" => lzw(&undone.content, self.is_late, bytes_max, budget),
                "ASCIIHexDecode" | "AHx" => paid(hexadecimal(&undone.content), budget),
                "ASCII85Decode" | "A85" => paid(ascii85(&undone.content), budget),
                "RunLengthDecode" | "RL" => run_lengths(&undone.content, bytes_max, budget),
                _ => Unpacked::default(),
            };
            undone.is_whole &= one.is_whole;
            undone.content = one.content;
        }
        undone
    }
}

/// The header of a zlib stream (RFC 1950 section 2.2).
fn is_zlib(bytes: &[u8]) -> bool {
    matches!(bytes, [first, second, ..] if first & 15 == 8 && u16::from_be_bytes([*first, *second]).is_multiple_of(31))
}

fn inflate(packed: &[u8], bytes_max: u64, budget: &Budget) -> Unpacked {
    budget.unpack(ZlibDecoder::new(Metered::new(packed, budget)).take(bytes_max), WEIGHT)
}

/// Codes of 9 to 12 bits, the highest bit first (section 7.4.4).
fn lzw(packed: &[u8], is_late: bool, bytes_max: u64, budget: &Budget) -> Unpacked {
    let mut decoder =
        if is_late { Decoder::new(BitOrder::Msb, 8) } else { Decoder::with_tiff_size_switch(BitOrder::Msb, 8) };
    let mut unpacked = Unpacked::default();
    let (mut rest, mut chunk) = (packed, vec![0; CHUNK_BYTES]);
    loop {
        let done = decoder.decode_bytes(rest, &mut chunk);
        rest = rest.get(done.consumed_in..).unwrap_or_default();
        if budget.unpacked(done.consumed_out, WEIGHT).and_then(|()| budget.work(length_of(done.consumed_in))).is_err() {
            return unpacked;
        }
        unpacked.content.extend_from_slice(chunk.get(..done.consumed_out).unwrap_or_default());
        match done.status {
            Ok(LzwStatus::Ok) if length_of(unpacked.content.len()) < bytes_max => {}
            // Some writers leave the code for the end away.
            Ok(LzwStatus::Ok | LzwStatus::Done | LzwStatus::NoProgress) => {
                unpacked.is_whole = true;
                return unpacked;
            }
            Err(_) => return unpacked,
        }
    }
}

fn paid(content: Vec<u8>, budget: &Budget) -> Unpacked {
    match budget.unpacked(content.len(), WEIGHT) {
        Ok(()) => Unpacked { content, is_whole: true },
        Err(_) => Unpacked::default(),
    }
}

fn hexadecimal(packed: &[u8]) -> Vec<u8> {
    let digits = packed.iter().take_while(|byte| **byte != b'>');
    let digits = digits.filter_map(|digit| char::from(*digit).to_digit(16)?.try_into().ok());
    let digits: Vec<u8> = digits.collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or_default()).collect()
}

fn ascii85(packed: &[u8]) -> Vec<u8> {
    let packed = packed.trim_ascii_start();
    let packed = packed.strip_prefix(b"<~").unwrap_or(packed);
    let mut bytes = Vec::new();
    let mut group = Vec::with_capacity(5);
    let value = |group: &[u32]| group.iter().fold(0_u32, |value, digit| value.wrapping_mul(85).wrapping_add(*digit));
    for byte in packed.iter().copied().take_while(|byte| *byte != b'~') {
        match byte {
            b'z' if group.is_empty() => bytes.extend([0; 4]),
            b'!'..=b'u' => group.push(u32::from(byte - b'!')),
            _ => {}
        }
        if group.len() == 5 {
            bytes.extend(value(&group).to_be_bytes());
            group.clear();
        }
    }
    if group.len() > 1 {
        let kept = group.len() - 1;
        group.resize(5, 84);
        bytes.extend(value(&group).to_be_bytes().into_iter().take(kept));
    }
    bytes
}

/// A length and so many bytes, or a length and one byte for all of them (section 7.4.5).
fn run_lengths(packed: &[u8], bytes_max: u64, budget: &Budget) -> Unpacked {
    let mut unpacked = Unpacked { content: Vec::new(), is_whole: true };
    let mut rest = packed;
    while let [length, after @ ..] = rest {
        let length = usize::from(*length);
        let (run, next) = match length {
            128 => return unpacked,
            ..128 => after.split_at(after.len().min(length + 1)),
            _ => after.split_at(after.len().min(1)),
        };
        let times = if length > 128 { 257 - length } else { 1 };
        if budget.unpacked(run.len() * times, WEIGHT).is_err() {
            unpacked.is_whole = false;
            return unpacked;
        }
        (0..times).for_each(|_| unpacked.content.extend_from_slice(run));
        if length_of(unpacked.content.len()) >= bytes_max {
            return unpacked;
        }
        rest = next;
    }
    unpacked
}

#[cfg(test)]
mod tests {
    use weezl::{BitOrder, encode::Encoder};

    use super::Filters;
    use crate::checks::attachments::budget::Budget;

    fn undo(names: &[&str], packed: &[u8]) -> Option<Vec<u8>> {
        let mut filters = Filters::default();
        names.iter().for_each(|name| filters.name(name));
        let undone = filters.undo(packed, u64::MAX, &Budget::of(1000));
        undone.is_whole.then_some(undone.content)
    }

    #[test]
    fn each_filter_gives_back_what_the_specification_says() {
        // Section 7.4.4.2, example 1.
        let lzw = [0x80, 0x0b, 0x60, 0x50, 0x22, 0x0c, 0x0c, 0x85, 0x01];
        let plain = [45, 45, 45, 45, 45, 65, 45, 45, 45, 66];
        assert_eq!(undo(&["LZWDecode"], &lzw).as_deref(), Some(&plain[..]));
        assert_eq!(undo(&["AHx", "LZW"], b"80 0b6050220C0c8501> junk 7").as_deref(), Some(&plain[..]));
        assert_eq!(undo(&["AHx"], b"414>").as_deref(), Some(&b"A@"[..]));
        assert_eq!(undo(&["A85"], b"<~87cURD]i,\"Ebo80~> junk").as_deref(), Some(&b"Hello World!"[..]));
        assert_eq!(undo(&["RL"], b"\x02abc\xfez\x80junk").as_deref(), Some(&b"abczzz"[..]));
        assert_eq!(undo(&["DCTDecode"], b"x"), None);
        assert_eq!(undo(&["AHx"; 9], b"41"), None);
    }

    #[test]
    fn lzw_is_undone_with_early_and_with_late_change() {
        let plain: Vec<u8> = (0..20_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
        for is_late in [false, true] {
            let mut encoder =
                if is_late { Encoder::new(BitOrder::Msb, 8) } else { Encoder::with_tiff_size_switch(BitOrder::Msb, 8) };
            let packed = encoder.encode(&plain).expect("into memory");
            let mut filters = Filters { is_late, ..Filters::default() };
            filters.name("LZW");
            assert!(filters.undo(&packed, u64::MAX, &Budget::of(1000)).content == plain, "{is_late}");
        }
    }

    #[test]
    fn a_bomb_of_any_filter_ends_with_the_budget() {
        let runs = b"\x81z".repeat(100_000);
        let zeros = Encoder::with_tiff_size_switch(BitOrder::Msb, 8).encode(&vec![0; 9 << 20]).expect("into memory");
        for (name, packed) in [("RL", runs), ("LZW", zeros), ("A85", b"z".repeat(3 << 20))] {
            let (mut filters, budget) = (Filters::default(), Budget::of(1000));
            filters.name(name);
            assert!(!filters.undo(&packed, u64::MAX, &budget).is_whole && budget.is_spent(), "{name}");
        }
    }
}
