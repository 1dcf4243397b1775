//! How people describe a format of their own: bytes at a place, with a mask for those that vary.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name, in characters.
pub const NAME_CHARS_MAX: usize = 64;
/// Furthest place of the first byte: a file is never searched, only looked at there.
pub const OFFSET_MAX: u64 = 1024 * 1024;
/// Most bytes of one.
pub const BYTES_MAX: usize = 64;
/// Fewest bits that must fit: with fewer almost any file would be blocked by chance.
pub const BITS_MIN: u32 = 16;
/// Most fingerprints of one layer.
pub const FINGERPRINTS_MAX: usize = 64;

/// A format by its bytes. Made by [`Fingerprint::new`], which holds the bounds; one that was stored is taken as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint {
    name: String,
    offset: u64,
    #[serde(with = "serde_bytes")]
    bytes: Vec<u8>,
    #[serde(with = "serde_bytes")]
    mask: Vec<u8>,
}

/// Why it is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    /// Empty, too long, or with control characters.
    #[error("a name of 1 to {NAME_CHARS_MAX} characters without control characters is expected")]
    Name,
    /// Beyond `OFFSET_MAX`.
    #[error("an offset of at most {OFFSET_MAX} is expected")]
    Offset,
    /// None, or too many.
    #[error("1 to {BYTES_MAX} bytes are expected")]
    Bytes,
    /// Of another length than the bytes.
    #[error("a mask is as long as the bytes are")]
    Mask,
    /// It says too little.
    #[error("at least {BITS_MIN} bits must count, or it would fit files of any sort")]
    Vague,
}

impl Fingerprint {
    /// A byte of a file fits when it equals the one here in all bits that the mask has; without a mask all count.
    ///
    /// # Errors
    /// The first bound that is broken.
    pub fn new(name: &str, offset: u64, bytes: Vec<u8>, mask: Option<Vec<u8>>) -> Result<Self, FingerprintError> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.chars().any(char::is_control) {
            return Err(FingerprintError::Name);
        }
        if offset > OFFSET_MAX {
            return Err(FingerprintError::Offset);
        }
        if !(1..=BYTES_MAX).contains(&bytes.len()) {
            return Err(FingerprintError::Bytes);
        }
        let mask = mask.unwrap_or_else(|| vec![0xff; bytes.len()]);
        if mask.len() != bytes.len() {
            return Err(FingerprintError::Mask);
        }
        if mask.iter().map(|byte| byte.count_ones()).sum::<u32>() < BITS_MIN {
            return Err(FingerprintError::Vague);
        }
        Ok(Self { name: name.to_owned(), offset, bytes, mask })
    }

    /// What people call the format.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a file is of this format. Takes as long as the fingerprint is.
    #[must_use]
    pub fn fits(&self, content: &[u8]) -> bool {
        let place = usize::try_from(self.offset).ok().and_then(|offset| content.get(offset..));
        let found = place.and_then(|rest| rest.get(..self.bytes.len()));
        found.is_some_and(|found| {
            let masked = self.bytes.iter().zip(&self.mask);
            self.mask.len() == found.len()
                && found.iter().zip(masked).all(|(found, (byte, mask))| (found ^ byte) & mask == 0)
        })
    }
}

/// `NAME at OFFSET: BYTES/MASK`, in hexadecimal.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}: {}/{}", self.name, self.offset, hex::encode(&self.bytes), hex::encode(&self.mask))
    }
}

/// Bytes as people write them: hexadecimal digits, white space between them as they like.
///
/// # Errors
/// Anything else.
pub fn hexadecimal(text: &str) -> Result<Vec<u8>, &'static str> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    hex::decode(digits).map_err(|_| "pairs of hexadecimal digits in quotes are expected, such as \"41 43 31\"")
}

#[cfg(test)]
mod tests {
    use super::{Fingerprint, FingerprintError, hexadecimal};

    fn new(bytes: &[u8], mask: Option<&[u8]>) -> Result<Fingerprint, FingerprintError> {
        Fingerprint::new("CAD", 2, bytes.to_vec(), mask.map(<[u8]>::to_vec))
    }

    #[test]
    fn a_file_fits_where_the_mask_says_so() {
        let whole = new(b"AC10", None).expect("sound");
        assert!(whole.fits(b"..AC10") && whole.fits(b"..AC1032"));
        assert!(!whole.fits(b"AC10") && !whole.fits(b"..AC1") && !whole.fits(b"..AC11") && !whole.fits(b""));
        let masked = new(b"AC00", Some(b"\xff\xff\xf0\0")).expect("sound");
        assert!(masked.fits(b"..AC9z") && !masked.fits(b"..ACAz"));
        assert_eq!(masked.to_string(), "CAD at 2: 41433030/fffff000");
    }

    #[test]
    fn what_is_out_of_bounds_or_fits_anything_is_refused() {
        assert_eq!(new(b"", None), Err(FingerprintError::Bytes));
        assert_eq!(new(&[0; 65], None), Err(FingerprintError::Bytes));
        assert_eq!(new(b"ab", Some(b"\xff")), Err(FingerprintError::Mask));
        assert_eq!(new(b"a", None), Err(FingerprintError::Vague));
        assert_eq!(new(b"abcd", Some(&[0, 0, 0, 0])), Err(FingerprintError::Vague));
        assert_eq!(Fingerprint::new(" ", 0, vec![1, 2], None), Err(FingerprintError::Name));
        assert_eq!(Fingerprint::new("a\nb", 0, vec![1, 2], None), Err(FingerprintError::Name));
        assert_eq!(Fingerprint::new("a", 1 << 21, vec![1, 2], None), Err(FingerprintError::Offset));
        assert_eq!(hexadecimal("41 43\t31"), Ok(b"AC1".to_vec()));
        assert!(hexadecimal("4").is_err() && hexadecimal("xy").is_err());
    }
}
