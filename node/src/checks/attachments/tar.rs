//! Opens tar archives: V7, ustar, pax (POSIX.1-2017 "pax") and GNU's long names. Where two readers could take a member for
//! different bytes the archive is said to be unclear.

use super::{Look, Place, budget::length_of};

/// Headers and the padding of members, in bytes.
const BLOCK_BYTES: usize = 512;
/// Longest name that is read; a longer one is cut.
const NAME_BYTES_MAX: usize = 4096;

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
    name: Option<String>,
    /// Whether something was said that changes which bytes belong to it.
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
            b'L' => next.name = Some(text(member)),
            b'K' => {}
            b'x' | b'g' | b'X' => {
                if let Some(name) = pax(member, b"path") {
                    next.name = Some(name);
                }
                let stated = pax(member, b"size");
                next.is_unclear |= stated.is_some() || pax(member, b"GNU.sparse.map").is_some();
            }
            kind => {
                let Next { name, is_unclear } = std::mem::take(next);
                if is_unclear || kind == b'S' {
                    self.analysis.opaque(format!("{} is a tar archive whose members are unclear", place.shown));
                }
                let written = name_of(header);
                let Some(mut inside) = self.entry(place, name.as_deref().unwrap_or(&written)) else { return false };
                if name.is_some() {
                    // An old reader takes the short one.
                    inside.names.push(written);
                }
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
    let text = field.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(&text[..text.len().min(NAME_BYTES_MAX)]).into_owned()
}

/// The value of a record `LENGTH KEY=VALUE\n`.
fn pax(member: &[u8], key: &[u8]) -> Option<String> {
    let mut rest = member;
    while let Some(space) = rest.iter().take(12).position(|byte| *byte == b' ') {
        let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
        let record = rest.get(space + 1..length)?;
        if let Some(value) = record.strip_prefix(key).and_then(|value| value.strip_prefix(b"=")) {
            return Some(text(value.strip_suffix(b"\n").unwrap_or(value)));
        }
        rest = rest.get(length..)?;
    }
    None
}
