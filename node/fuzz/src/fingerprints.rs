//! Formats that people describe, as they write them and as they were stored, over any bytes.

use proto::fingerprint::{BITS_MIN, BYTES_MAX, Fingerprint, hexadecimal};

/// Lengths of name, bytes and mask, a place, then those, then the file.
///
/// # Panics
/// When one is made that says too little, or when it fits otherwise than a plain reading of it says.
pub fn fingerprints(input: &[u8]) {
    let [name, bytes, mask, low, high, rest @ ..] = input else { return };
    let (name, rest) = rest.split_at(usize::from(*name).min(rest.len()));
    let (bytes, rest) = rest.split_at(usize::from(*bytes % 80).min(rest.len()));
    // The topmost bit says whether there is a mask at all.
    let (mask, file) = match mask {
        0..128 => {
            rest.split_at_checked(usize::from(*mask % 80)).map_or((None, rest), |(mask, file)| (Some(mask), file))
        }
        _ => (None, rest),
    };
    let offset = u64::from(u16::from_le_bytes([*low, *high])) << (high >> 4);
    let name = String::from_utf8_lossy(name);
    is_read_as_written(bytes);
    let Ok(made) = Fingerprint::new(&name, offset, bytes.to_vec(), mask.map(<[u8]>::to_vec)) else { return };
    assert!((1..=BYTES_MAX).contains(&bytes.len()));
    let mask = mask.map_or_else(|| vec![0xff; bytes.len()], <[u8]>::to_vec);
    assert!(mask.iter().map(|byte| byte.count_ones()).sum::<u32>() >= BITS_MIN, "it says enough");
    let shown = made.to_string();
    assert!(!shown.contains(char::is_control) && shown.len() < 1000, "{shown:?}");
    for file in [file, &[vec![0; (offset as usize).min(70_000)], bytes.to_vec(), file.to_vec()].concat()] {
        assert_eq!(made.fits(file), plainly(file, offset as usize, bytes, &mask));
    }
}

fn plainly(file: &[u8], offset: usize, bytes: &[u8], mask: &[u8]) -> bool {
    (0..bytes.len()).all(|at| file.get(offset + at).is_some_and(|byte| byte & mask[at] == bytes[at] & mask[at]))
}

/// Bytes in hexadecimal digits are these bytes; and any text either is such digits or is refused.
fn is_read_as_written(bytes: &[u8]) {
    let written: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(hexadecimal(&written.join(" ")).as_deref(), Ok(bytes));
    let text = String::from_utf8_lossy(bytes);
    let digits = text.chars().filter(|c| !c.is_whitespace());
    let are_pairs = digits.clone().count().is_multiple_of(2) && digits.clone().all(|c| c.is_ascii_hexdigit());
    assert_eq!(hexadecimal(&text).is_ok(), are_pairs, "{text:?}");
}
