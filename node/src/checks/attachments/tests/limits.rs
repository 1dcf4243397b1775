//! The caps that all that is in a message shares: bytes, ratio, entries, depth, memory.

use proto::policy::ContentKind;
use sevenz_rust2::EncoderMethod;

use super::{
    Bytes, Part, analyse,
    archives::{PROGRAM, gzipped, seven_zipped, tarred, xzipped, zstd},
    rules, with_part, zipped,
};
use crate::checks::attachments::{DEPTH_MAX, seven_zip::crc32};

/// 20 MB of zeros, as bzip2 packs them.
const BOMB_BZ2: &str =
    "425a6839314159265359bfcaafc400992fc200c00000080008200030cc0529a6aa91146c0288a3c5dc914e14242ff2abf100";

fn is_opaque(name: &str, content: Vec<u8>) -> bool {
    !analyse(&with_part(name, content)).opaque.is_empty()
}

#[test]
fn a_bomb_of_any_kind_is_not_unpacked_to_its_end() {
    let zeros = vec![0; 9 * 1024 * 1024];
    let bombs = [
        ("gz", gzipped(&zeros)),
        ("xz", xzipped(&zeros)),
        ("zst", zstd(&zeros)),
        ("bz2", hex::decode(BOMB_BZ2).expect("hexadecimal")),
        ("7z", seven_zipped(&[("a", &zeros)], EncoderMethod::LZMA2)),
        ("zip", zipped(&[("a", &zeros)])),
    ];
    for (name, bomb) in bombs {
        assert!(bomb.len() < 20_000, "{name} has {} bytes", bomb.len());
        let analysis = analyse(&with_part(name, bomb));
        assert!(analysis.opaque[0].contains("more than is looked into"), "{name}: {analysis:?}");
    }
}

#[test]
fn all_parts_and_archives_of_a_message_share_the_caps() {
    let half = gzipped(&vec![0; 5 * 1024 * 1024]);
    let mut message = with_part("a.gz", half.clone());
    assert!(analyse(&message).opaque.is_empty());
    message.parts.push(Part { content: Bytes::from(half.clone()), ..message.parts[0].clone() });
    assert!(!analyse(&message).opaque.is_empty(), "two parts");
    assert!(is_opaque("a.tar", tarred(&[("a.gz", &half), ("b.gz", &half)])), "two archives in one");
    let few: Vec<(String, &[u8])> = (0..1300).map(|n| (format!("f{n}"), &b"x"[..])).collect();
    let few: Vec<(&str, &[u8])> = few.iter().map(|(name, content)| (name.as_str(), *content)).collect();
    let archive = tarred(&few);
    assert!(!is_opaque("a.tar", archive.clone()));
    let many: Vec<(&str, &[u8])> = ["a.tar", "b.tar", "c.tar", "d.tar"].map(|name| (name, &archive[..])).to_vec();
    assert!(is_opaque("a.tar", tarred(&many)), "entries of all together");
}

#[test]
fn archives_in_archives_are_opened_to_a_depth_and_said_to_be_deeper() {
    let nested = |times: usize| (0..times).fold(PROGRAM.to_vec(), |content, _| gzipped(&content));
    let analysis = analyse(&with_part("a", nested(DEPTH_MAX)));
    assert!(analysis.opaque.is_empty(), "{analysis:?}");
    assert!(analysis.found.iter().any(|found| found.kind == ContentKind::Executable));
    assert!(is_opaque("a", nested(DEPTH_MAX + 1)));
    assert!(is_opaque("a", nested(1000)));
    let page = (0..DEPTH_MAX).fold(b"<html><script>x</script>".to_vec(), |content, _| gzipped(&content));
    assert!(rules(&analyse(&with_part("a", page))).contains(&(ContentKind::Active, "ACTIVE_MARKUP")));
}

/// Address space that this process has asked for, in KiB.
fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmPeak:")).expect("a peak");
    line.split_ascii_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
}

#[test]
fn a_dictionary_of_gigabytes_is_refused_before_memory_is_asked_for() {
    let before = memory_kib();
    let mut xz = xzipped(PROGRAM);
    // The block's header: its size, flags, filter 0x21 with one byte of properties.
    assert_eq!(&xz[12..16], &[2, 0, 0x21, 1]);
    xz[16] = 40;
    let sum = crc32(&xz[12..20]);
    xz[20..24].copy_from_slice(&sum.to_le_bytes());
    assert!(is_opaque("a.xz", xz));
    // A window of 3.75 GiB, and one block of three bytes.
    assert!(is_opaque("a.zst", b"\x28\xb5\x2f\xfd\0\xaf\x19\0\0abc".to_vec()));
    let mut archive = seven_zipped(&[("a", PROGRAM)], EncoderMethod::LZMA2);
    let at = 32 + usize::from(u16::from_le_bytes([archive[12], archive[13]]));
    let coder = archive[at..].windows(3).position(|three| three == b"\x21\x21\x01").expect("LZMA2 with one property");
    archive[at + coder + 3] = 40;
    let sum = crc32(&archive[at..]);
    archive[28..32].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32(&archive[12..32]);
    archive[8..12].copy_from_slice(&sum.to_le_bytes());
    assert!(is_opaque("a.7z", archive));
    assert!(memory_kib() - before < 2 * 1024 * 1024, "tests beside this one ask for some too");
}

#[test]
fn each_tag_of_a_page_is_paid_for() {
    assert!(is_opaque("a.html.gz", gzipped(&b"<".repeat(5 << 20))));
}

#[test]
fn a_million_empty_streams_are_not_all_unpacked() {
    let empty = gzipped(b"");
    assert!(is_opaque("a.gz", empty.repeat(80_000)));
    assert!(is_opaque("a.zst", zstd(b"").repeat(80_000)));
}
