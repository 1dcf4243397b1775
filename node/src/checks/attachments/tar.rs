//! Opens tar archives: V7, ustar, pax (POSIX.1-2017 "pax") and GNU's long names. Where two readers could take a member for
//! different bytes the archive is said to be unclear.

use super::{Look, Place, budget::length_of, findings::shortened};

/// Headers and the padding of members, in bytes.
const BLOCK_BYTES: usize = 512;
/// Names that one member may be given; of real ones there is one.
const NAMES_MAX: usize = 100;

/// Whether this begins with a header whose checksum is right; older archives have no other signature.
pub(super) fn is_tar(content: &[u8]) -> bool {
    content.get(..BLOCK_BYTES).is_some_and(|header| header[0] != 0 && is_sound(header))
}

/// Signed or unsigned: both sums were written.
fn is_sound(header: &[u8]) -> bool {
    let Some(stated) = octal(&header[148..156]) else { return false };
    let counted = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    let bytes = || header.iter().enumerate().map(|(at, byte)| counted(at, *byte));
    let unsigned: u64 = bytes().map(u64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    stated == unsigned || i64::try_from(stated) == Ok(signed)
}

/// A number in octal digits, or in GNU's base 256.
fn octal(field: &[u8]) -> Option<u64> {
    if let [first @ 0x80..=0xff, rest @ ..] = field {
        return rest.iter().try_fold(u64::from(first & 0x7f), |value, byte| {
            value.checked_mul(256).map(|value| value | u64::from(*byte))
        });
    }
    let digits = field.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii();
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| {
        (b'0'..=b'7').contains(digit).then(|| value.checked_mul(8)?.checked_add(u64::from(digit - b'0'))).flatten()
    })
}

/// What the members before say of the next one.
#[derive(Default)]
struct Next {
    /// The last one counts, but not for every reader.
    names: Vec<String>,
    /// Whether something was said that changes which bytes belong to it, or nobody can say what was said.
    is_unclear: bool,
}

impl Look<'_> {
    pub(super) fn tar(&mut self, place: &Place, content: &[u8]) {
        let mut rest = content;
        let mut next = Next::default();
        while let Some((header, after)) = rest.split_at_checked(BLOCK_BYTES) {
            if header.iter().all(|byte| *byte == 0) {
                // The end. Some readers go on behind it.
                if after.iter().any(|byte| *byte != 0) {
                    self.analysis.opaque(format!("{} is a tar archive with more behind its end", place.shown));
                }
                return;
            }
            let size = octal(&header[124..136]).and_then(|size| usize::try_from(size).ok());
            let kind = header[156];
            // Links, devices and folders have no content, whatever their size says.
            let size = if (b'1'..=b'6').contains(&kind) { Some(0) } else { size };
            let member = size.filter(|_| is_sound(header)).and_then(|size| after.get(..size));
            let Some(member) = member else {
                self.broken(place, "a tar archive");
                self.look(&place.inside(Some(&name_of(header))), after);
                return;
            };
            rest = after.get(member.len().next_multiple_of(BLOCK_BYTES)..).unwrap_or_default();
            if !self.member(place, header, member, &mut next) {
                return;
            }
        }
        if !rest.is_empty() {
            self.broken(place, "a tar archive");
        }
    }

    /// Whether to go on.
    fn member(&mut self, place: &Place, header: &[u8], member: &[u8], next: &mut Next) -> bool {
        match header[156] {
            b'L' => next.names.push(text(member)),
            b'K' => {}
            kind @ (b'x' | b'g' | b'X') => {
                next.is_unclear |= !next.records(member);
                // What holds for all that follows would have to be remembered: real archives say nothing of names there.
                let is_global = kind == b'g' && (next.is_unclear || !next.names.is_empty());
                if is_global || next.names.len() > NAMES_MAX {
                    self.analysis.opaque(format!("{} is a tar archive whose members are unclear", place.shown));
                }
                next.names.truncate(NAMES_MAX);
            }
            kind => {
                let Next { mut names, is_unclear } = std::mem::take(next);
                if is_unclear || kind == b'S' {
                    self.analysis.opaque(format!("{} is a tar archive whose members are unclear", place.shown));
                }
                // An old reader takes the short one.
                names.insert(0, name_of(header));
                names.reverse();
                let Some(mut inside) = self.entry(place, names.first().map_or("", String::as_str)) else {
                    return false;
                };
                inside.names = names;
                if self.budget.unpacked(0, 1).is_err() || self.budget.work(length_of(member.len())).is_err() {
                    return false;
                }
                self.look(&inside, member);
            }
        }
        true
    }
}

fn name_of(header: &[u8]) -> String {
    let name = text(&header[..100]);
    let prefix = if &header[257..262] == b"ustar" { text(&header[345..500]) } else { String::new() };
    if prefix.is_empty() { name } else { format!("{prefix}/{name}") }
}

fn text(field: &[u8]) -> String {
    shortened(field.split(|byte| *byte == 0).next().unwrap_or_default())
}

impl Next {
    /// Takes in records `LENGTH KEY=VALUE\n`; whether they are clear and say nothing of which bytes are the member's.
    fn records(&mut self, member: &[u8]) -> bool {
        let mut rest = member;
        let mut is_clear = true;
        while !rest.is_empty() {
            let Some((key, value, after)) = record(rest) else { return false };
            match key {
                b"path" | b"GNU.sparse.name" => self.names.push(text(value)),
                _ => {}
            }
            is_clear &= key != b"size" && !key.starts_with(b"GNU.sparse.");
            rest = after;
        }
        is_clear
    }
}

/// Key and value of the first record, and what follows it.
fn record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(12).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = memchr::memchr(b'=', record)?;
    Some((&record[..equals], &record[equals + 1..], records.get(length..)?))
}
