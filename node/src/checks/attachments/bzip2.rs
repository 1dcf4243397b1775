//! Unpacks bzip2. Written here because the crates are either bindings to C or refuse what `bzip2` itself writes. Checksums are
//! not compared: bytes that other unpackers refuse are looked into all the same.

use super::budget::{Budget, Spent, Unpacked};

/// What a byte that comes out costs: there is no slower format among those that we open.
const WEIGHT: u64 = 4;
/// A block before its run lengths are undone, in steps of this many bytes.
const BLOCK_STEP: usize = 100_000;
/// Symbols for which one table holds.
const GROUP_SYMBOLS: usize = 50;
/// Longest code, in bits.
const CODE_BITS_MAX: usize = 20;

/// Unpacks all streams that follow each other.
pub(super) fn unpack(packed: &[u8], budget: &Budget) -> Unpacked {
    let mut unpacked = Unpacked::default();
    let mut bits = Bits { bytes: packed, at: 0 };
    let paid = budget.work(super::budget::length_of(packed.len()));
    unpacked.is_whole = paid.is_ok() && streams(&mut bits, budget, &mut unpacked.content).is_some();
    unpacked
}

/// `None` when something is wrong or too much.
fn streams(bits: &mut Bits<'_>, budget: &Budget, out: &mut Vec<u8>) -> Option<()> {
    loop {
        let header = [bits.byte()?, bits.byte()?, bits.byte()?, bits.byte()?];
        let [b'B', b'Z', b'h', level @ b'1'..=b'9'] = header else { return None };
        let block_max = usize::from(level - b'0') * BLOCK_STEP;
        loop {
            match (bits.take(24)?, bits.take(24)?) {
                (0x31_4159, 0x26_5359) => {
                    bits.take(32)?;
                    let block = block(bits, block_max, budget)?;
                    undo_runs(&block, budget, out).ok()?;
                }
                (0x17_7245, 0x38_5090) => break,
                _ => return None,
            }
        }
        bits.take(32)?;
        bits.align();
        if bits.is_at_end() {
            return Some(());
        }
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    /// In bits.
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<usize> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = (byte >> (7 - self.at % 8)) & 1;
        self.at += 1;
        Some(usize::from(bit))
    }

    fn take(&mut self, count: usize) -> Option<usize> {
        (0..count).try_fold(0, |value, _| Some(value << 1 | self.bit()?))
    }

    fn byte(&mut self) -> Option<u8> {
        u8::try_from(self.take(8)?).ok()
    }

    fn align(&mut self) {
        self.at = self.at.next_multiple_of(8);
    }

    /// Zeros may follow, as after other formats on tapes.
    fn is_at_end(&self) -> bool {
        self.bytes.get(self.at / 8..).is_none_or(|rest| rest.iter().all(|byte| *byte == 0))
    }
}

/// A canonical code: for each length how many codes there are, and the symbols in the order of their codes.
struct Code {
    counts: [usize; CODE_BITS_MAX + 1],
    symbols: Vec<usize>,
}

impl Code {
    fn read(bits: &mut Bits<'_>, symbols: usize) -> Option<Self> {
        let mut length = bits.take(5)?;
        let mut lengths = Vec::with_capacity(symbols);
        for _ in 0..symbols {
            loop {
                if !(1..=CODE_BITS_MAX).contains(&length) {
                    return None;
                }
                if bits.bit()? == 0 {
                    break;
                }
                length = if bits.bit()? == 0 { length + 1 } else { length - 1 };
            }
            lengths.push(length);
        }
        let mut counts = [0; CODE_BITS_MAX + 1];
        lengths.iter().for_each(|length| counts[*length] += 1);
        let mut symbols: Vec<usize> = (0..symbols).collect();
        symbols.sort_by_key(|symbol| lengths[*symbol]);
        Some(Self { counts, symbols })
    }

    fn symbol(&self, bits: &mut Bits<'_>) -> Option<usize> {
        let (mut code, mut first, mut index) = (0_usize, 0_usize, 0_usize);
        for count in &self.counts[1..] {
            code |= bits.bit()?;
            if let Some(at) = code.checked_sub(first).filter(|at| at < count) {
                return self.symbols.get(index + at).copied();
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        None
    }
}

/// A block with its sorting undone.
fn block(bits: &mut Bits<'_>, block_max: usize, budget: &Budget) -> Option<Vec<u8>> {
    if bits.bit()? == 1 {
        // Randomised blocks come from versions before 1996 only.
        return None;
    }
    let origin = bits.take(24)?;
    let used = bits.take(16)?;
    let mut alphabet = Vec::new();
    for high in (0..16).filter(|high| used >> (15 - high) & 1 == 1) {
        let low = bits.take(16)?;
        alphabet.extend(
            (0..16).filter(|bit| low >> (15 - bit) & 1 == 1).filter_map(|bit| u8::try_from(high * 16 + bit).ok()),
        );
    }
    let tables = bits.take(3)?;
    let selectors = bits.take(15)?;
    if alphabet.is_empty() || !(2..=6).contains(&tables) {
        return None;
    }
    let mut order: Vec<usize> = (0..tables).collect();
    let mut selected = Vec::with_capacity(selectors);
    for _ in 0..selectors {
        let mut at = 0;
        while bits.bit()? == 1 {
            at += 1;
        }
        if at >= tables {
            return None;
        }
        order[..=at].rotate_right(1);
        selected.push(order[0]);
    }
    let codes = (0..tables).map(|_| Code::read(bits, alphabet.len() + 2)).collect::<Option<Vec<_>>>()?;
    let sorted = symbols(bits, &selected, &codes, alphabet, block_max)?;
    budget.work(super::budget::length_of(sorted.len())).ok()?;
    unsorted(&sorted, origin)
}

fn symbols(
    bits: &mut Bits<'_>,
    selected: &[usize],
    codes: &[Code],
    mut alphabet: Vec<u8>,
    block_max: usize,
) -> Option<Vec<u8>> {
    let end = alphabet.len() + 1;
    let mut sorted = Vec::new();
    // A run in base 2 with the digits 1 and 2.
    let (mut run, mut digit) = (0_usize, 1_usize);
    for table in selected {
        for _ in 0..GROUP_SYMBOLS {
            let symbol = codes.get(*table)?.symbol(bits)?;
            if symbol < 2 {
                run = run.saturating_add(digit << symbol);
                digit <<= 1;
                if run > block_max {
                    return None;
                }
                continue;
            }
            sorted.resize(sorted.len() + run, *alphabet.first()?);
            (run, digit) = (0, 1);
            if symbol == end {
                return (sorted.len() <= block_max).then_some(sorted);
            }
            alphabet.get_mut(..symbol)?.rotate_right(1);
            sorted.push(*alphabet.first()?);
            if sorted.len() > block_max {
                return None;
            }
        }
    }
    None
}

/// Undoes the Burrows-Wheeler transform.
fn unsorted(sorted: &[u8], origin: usize) -> Option<Vec<u8>> {
    let mut starts = [0_usize; 256];
    sorted.iter().for_each(|byte| starts[usize::from(*byte)] += 1);
    let mut sum = 0;
    for start in &mut starts {
        (*start, sum) = (sum, sum + *start);
    }
    let mut next = vec![0_usize; sorted.len()];
    for (at, byte) in sorted.iter().enumerate() {
        let start = &mut starts[usize::from(*byte)];
        next[*start] = at;
        *start += 1;
    }
    let mut at = *next.get(origin)?;
    let mut block = Vec::with_capacity(sorted.len());
    for _ in 0..sorted.len() {
        block.push(sorted[at]);
        at = next[at];
    }
    Some(block)
}

/// Four equal bytes are followed by how many more there are.
fn undo_runs(block: &[u8], budget: &Budget, out: &mut Vec<u8>) -> Result<(), Spent> {
    let (mut last, mut same) = (None, 0);
    for piece in block.chunks(1024) {
        let before = out.len();
        for byte in piece {
            if same == 4 {
                let last = last.unwrap_or_default();
                out.resize(out.len() + usize::from(*byte), last);
                same = 0;
                continue;
            }
            same = if last == Some(*byte) { same + 1 } else { 1 };
            last = Some(*byte);
            out.push(*byte);
        }
        if let Err(spent) = budget.unpacked(out.len() - before, WEIGHT) {
            out.truncate(before);
            return Err(spent);
        }
    }
    Ok(())
}
