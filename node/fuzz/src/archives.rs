//! Archives and packed files: ZIP, 7z, tar, gzip, bzip2, xz, zstd.

use super::looked::looked;

const NAMES: [&str; 8] = ["a", "a.zip", "a.tar", "a.7z", "a.docx", "a.pdf", "a.exe", "a.bin"];

/// A file. Its first byte says what it is called and which checksums are put right, for the fuzzer cannot guess them; the second
/// how little a second look may cost.
///
/// # Panics
/// When it is not looked into as promised.
pub fn archives(input: &[u8]) {
    let [how, frugal, content @ ..] = input else { return };
    let mut content = content.to_vec();
    match how >> 3 & 3 {
        1 => tar_sums(&mut content),
        2 => seven_zip_sums(&mut content),
        3 => xz_sums(&mut content),
        _ => {}
    }
    looked(NAMES[usize::from(how & 7)], &content, *frugal);
}

/// Each block that could be a header.
fn tar_sums(content: &mut [u8]) {
    for block in content.as_chunks_mut::<512>().0 {
        if block[0] != 0 {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// Those of the directory and of the header that points to it.
fn seven_zip_sums(content: &mut [u8]) {
    let Some((header, rest)) = content.split_at_mut_checked(32) else { return };
    let at = usize::from(u16::from_le_bytes([header[12], header[13]])).min(rest.len());
    header[12..20].copy_from_slice(&(at as u64).to_le_bytes());
    header[20..28].copy_from_slice(&((rest.len() - at) as u64).to_le_bytes());
    header[28..32].copy_from_slice(&crc(&rest[at..]).to_le_bytes());
    let sum = crc(&header[12..32]);
    header[8..12].copy_from_slice(&sum.to_le_bytes());
}

/// Those of the stream's flags and of the first block's header.
fn xz_sums(content: &mut [u8]) {
    if content.len() < 16 {
        return;
    }
    let sum = crc(&content[6..8]);
    content[8..12].copy_from_slice(&sum.to_le_bytes());
    let end = 12 + 4 * (usize::from(content[12]) + 1) - 4;
    if content[12] > 0 && content.len() >= end + 4 {
        let sum = crc(&content[12..end]);
        content[end..end + 4].copy_from_slice(&sum.to_le_bytes());
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
