//! A program in every kind of archive is found, and what cannot be opened is never clean.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use lzma_rust2::{XzOptions, XzWriter};
use proto::policy::ContentKind;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use sevenz_rust2::{ArchiveEntry, ArchiveWriter, EncoderConfiguration, EncoderMethod};

use super::{Cursor, analyse, documents::compound, rules, with_part, zipped};
use crate::checks::attachments::{budget::Budget, bzip2, seven_zip::crc32};

pub(super) const PROGRAM: &[u8] = b"MZ\x90\0\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0programprogramprogram";
/// `PROGRAM`, as bzip2 packs it.
const PROGRAM_BZ2: &str = "425a683931415926535929ac2fc9000003e7a048004000000200102082d00040002000223d283136a10340d04a1a2facc3c6\
                           8e45e0c7f17724538509029ac2fc90";
/// 15,000 times `0123456789abcdeeeeee`, in blocks of 100,000 bytes, as bzip2 packs them.
const BLOCKS_BZ2: &str = "425a683131415926535987ece37900148e490010007fe03e003000b80a60009a14c001340a5500007ca844c150899e554226\
    7542262a844d15089aaa113654226ea844e15089caa113a542276a844f15089eaa113d492957ca844fcc50564994d67d0b6c\
    14800cd8d24004001ff80f800c002e029800268530004d029540001f2a1130542262a844c950899aa1136d6a844daa844c55\
    089baa1138542272a844e95089daa113c54227aa844f524a55f2a113f3141592653592b0d1f67003d2f490010007fe03e003\
    000b322980026826aa8000029540001f502558104ab1209564412acc8255a104ab5209569b1021b95521c15521c95521d155\
    21d95521e15521e95521e942a4fa812afc5dc914e142437397c890";
pub(super) const PROGRAM_FOUND: (ContentKind, &str) = (ContentKind::Executable, "BLOCKED_TYPE");

pub(super) fn gzipped(content: &[u8]) -> Vec<u8> {
    let mut writer = GzEncoder::new(Vec::new(), Compression::best());
    writer.write_all(content).expect("writes");
    writer.finish().expect("finishes")
}

pub(super) fn xzipped(content: &[u8]) -> Vec<u8> {
    let mut writer = XzWriter::new(Vec::new(), XzOptions::with_preset(0)).expect("starts");
    writer.write_all(content).expect("writes");
    writer.finish().expect("finishes")
}

pub(super) fn zstd(content: &[u8]) -> Vec<u8> {
    compress_to_vec(content, CompressionLevel::Fastest)
}

pub(super) fn bzipped() -> Vec<u8> {
    hex::decode(PROGRAM_BZ2).expect("hexadecimal")
}

/// One member of a tar archive, without the end of it.
pub(super) fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut header = [0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = kind;
    header[257..263].copy_from_slice(b"ustar\0");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut bytes = [&header, content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

pub(super) fn tarred(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes: Vec<u8> = files.iter().flat_map(|(name, content)| member(name, b'0', content)).collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub(super) fn seven_zipped(files: &[(&str, &[u8])], method: EncoderMethod) -> Vec<u8> {
    let mut writer = ArchiveWriter::new(Cursor::new(Vec::new())).expect("starts");
    writer.set_content_methods(vec![EncoderConfiguration::new(method)]);
    for (name, content) in files {
        writer.push_archive_entry(ArchiveEntry::new_file(name), Some(*content)).expect("writes");
    }
    writer.finish().expect("finishes").into_inner()
}

#[test]
fn a_program_is_found_in_every_kind_of_archive() {
    let files: &[(&str, &[u8])] = &[("readme.txt", b"x"), ("program", PROGRAM)];
    let archives = [
        ("gz", gzipped(PROGRAM)),
        ("bz2", bzipped()),
        ("xz", xzipped(PROGRAM)),
        ("zst", zstd(PROGRAM)),
        ("tar", tarred(files)),
        ("zip", zipped(files)),
        ("lzma2.7z", seven_zipped(files, EncoderMethod::LZMA2)),
        ("lzma.7z", seven_zipped(files, EncoderMethod::LZMA)),
        ("copy.7z", seven_zipped(files, EncoderMethod::COPY)),
        ("tar.gz", gzipped(&tarred(files))),
        ("two.gz", [gzipped(b"MZ"), gzipped(&PROGRAM[2..])].concat()),
        ("two.xz", [xzipped(b"MZ"), xzipped(&PROGRAM[2..])].concat()),
        ("two.zst", [&b"\x50\x2a\x4d\x18\x01\0\0\0x"[..], &zstd(b"MZ"), &zstd(&PROGRAM[2..])].concat()),
        ("two.bz2", [hex::decode("425a683917724538509000000000").expect("an empty one"), bzipped()].concat()),
        (
            "nested.zip",
            zipped(&[("b.7z", &seven_zipped(&[("c.txz", &xzipped(&tarred(files)))], EncoderMethod::LZMA2))]),
        ),
    ];
    for (name, archive) in archives {
        // Whatever it is called.
        for shown in [name, "picture.jpg"] {
            let analysis = analyse(&with_part(shown, archive.clone()));
            let is_found = analysis.found.iter().any(|found| found.kind == ContentKind::Executable);
            assert!(is_found && analysis.opaque.is_empty(), "{name}: {analysis:?}");
        }
    }
}

#[test]
fn bzip2_gives_back_what_was_packed() {
    let blocks = hex::decode(BLOCKS_BZ2).expect("hexadecimal");
    for (packed, content) in [(bzipped(), PROGRAM.to_vec()), (blocks, b"0123456789abcdeeeeee".repeat(15_000))] {
        let unpacked = bzip2::unpack(&packed, &Budget::of(10_000));
        assert!(unpacked.is_whole && unpacked.content == content, "{} bytes", unpacked.content.len());
    }
}

#[test]
fn an_archive_behind_other_bytes_is_opened_whatever_it_is() {
    let behind = |archive: Vec<u8>| [b"%PDF-1.4 and more", &archive[..]].concat();
    let archive = behind(seven_zipped(&[("a", PROGRAM)], EncoderMethod::LZMA2));
    assert!(rules(&analyse(&with_part("a.pdf", archive))).contains(&PROGRAM_FOUND));
    // In a program that unpacks itself, for those who let programs pass.
    let own = [PROGRAM, &seven_zipped(&[("a.js", b"#!")], EncoderMethod::LZMA2)].concat();
    assert!(rules(&analyse(&with_part("a.exe", own))).contains(&(ContentKind::Script, "BLOCKED_TYPE")));
    for hidden in [&b"Rar!\x1a\x07\0 more"[..], b"Rar!\x1a\x07\x01\0 more"] {
        assert!(!analyse(&with_part("a.jpg", behind(hidden.to_vec()))).opaque.is_empty());
    }
    let cabinet = [PROGRAM, b"MSCF\0\0\0\0"].concat();
    assert!(!analyse(&with_part("a.exe", cabinet)).opaque.is_empty());
    assert_eq!(
        analyse(&with_part("a.txt", b"about 7z\xbc\xaf\x27\x1c and what follows, at length".to_vec())).found,
        []
    );
}

#[test]
fn what_is_known_and_not_opened_is_never_clean() {
    let at = |offset: usize, magic: &[u8]| [&vec![1; offset][..], magic, &[1; 600]].concat();
    let kinds = [
        ("a.rar", at(0, b"Rar!\x1a\x07\0")),
        ("a.cab", at(0, b"MSCF\0\0\0\0")),
        ("a.arj", at(0, b"\x60\xea\x28\0\x1e\x07\x01\0\x10\0\x02")),
        ("a.lzh", at(2, b"-lh5-")),
        ("a.ace", at(7, b"**ACE**")),
        ("a.Z", at(0, b"\x1f\x9d\x90")),
        ("a.iso", at(0x8001, b"CD001")),
        ("a.vhd", at(0, b"conectix")),
        ("a.lz", at(0, b"LZIP\x01")),
    ];
    for (name, content) in kinds {
        for content in [content.clone(), gzipped(&content)] {
            let analysis = analyse(&with_part(name, content));
            assert!(analysis.opaque.iter().any(|text| text.contains("not opened")), "{name}: {analysis:?}");
        }
    }
}

#[test]
fn half_an_archive_is_opened_as_far_as_it_goes_and_is_never_clean() {
    let noise: Vec<u8> = (0..40_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let content = [PROGRAM, &noise].concat();
    let files: &[(&str, &[u8])] = &[("a.bin", &content)];
    let archives = [
        ("gz", gzipped(&content)),
        ("xz", xzipped(&content)),
        ("zst", zstd(&content)),
        ("bz2", bzipped()),
        ("tar", tarred(files)),
        ("zip", zipped(files)),
        ("7z", seven_zipped(files, EncoderMethod::LZMA2)),
    ];
    for (name, archive) in archives {
        for length in [archive.len() / 3, archive.len() / 2, archive.len() * 9 / 10] {
            let analysis = analyse(&with_part(name, archive[..length].to_vec()));
            assert!(!analysis.opaque.is_empty(), "{name} of {length}: {analysis:?}");
        }
        let mut broken = archive.clone();
        let middle = broken.len() / 2;
        broken[middle..].fill(0x55);
        assert!(!analyse(&with_part(name, broken)).opaque.is_empty(), "{name}");
    }
    let half = gzipped(&content);
    let half = analyse(&with_part("a.gz", half[..half.len() / 2].to_vec()));
    assert!(rules(&half).contains(&PROGRAM_FOUND), "{half:?}");
}

#[test]
fn an_encrypted_archive_is_a_kind_of_its_own_and_its_names_count() {
    let mut archive = zipped(&[("run.js", b"secret")]);
    let directory = memchr::memmem::find(&archive, b"PK\x01\x02").expect("a directory");
    (archive[6], archive[directory + 8]) = (1, 1);
    let analysis = analyse(&with_part("a.zip", archive));
    for expected in [(ContentKind::Encrypted, "ENCRYPTED"), (ContentKind::Script, "BLOCKED_NAME")] {
        assert!(rules(&analysis).contains(&expected), "{analysis:?}");
    }
    let analysis = analyse(&with_part("a.7z", encrypted_seven_zip()));
    for expected in [(ContentKind::Encrypted, "ENCRYPTED"), (ContentKind::Script, "BLOCKED_NAME")] {
        assert!(rules(&analysis).contains(&expected), "{analysis:?}");
    }
}

/// An archive whose directory says that its content is packed with AES-256.
fn encrypted_seven_zip() -> Vec<u8> {
    let plain = seven_zipped(&[("run.js", b"secret")], EncoderMethod::COPY);
    let at = 32 + usize::from(u16::from_le_bytes([plain[12], plain[13]]));
    let mut directory = plain[at..].to_vec();
    let coder = directory.windows(4).position(|four| four == b"\0\x01\x01\0").expect("one coder, copied") + 2;
    directory.splice(coder..coder + 2, *b"\x24\x06\xf1\x07\x01\x02\xc0\x10");
    let mut archive = plain[..at].to_vec();
    archive[20..28].copy_from_slice(&u64::try_from(directory.len()).expect("short").to_le_bytes());
    archive[28..32].copy_from_slice(&crc32(&directory).to_le_bytes());
    let sum = crc32(&archive[12..32]);
    archive[8..12].copy_from_slice(&sum.to_le_bytes());
    archive.extend(directory);
    archive
}

#[test]
fn two_readers_that_see_two_archives_in_one_make_it_unclear() {
    let (one, two) = (zipped(&[("a.txt", b"x")]), zipped(&[("b.txt", b"y")]));
    let is_unclear = |archive: Vec<u8>| !analyse(&with_part("a.zip", archive)).opaque.is_empty();
    assert!(!is_unclear(one.clone()));
    assert!(is_unclear([one.clone(), two].concat()), "one after the other");
    let mut renamed = zipped(&[("run.js", b"x")]);
    let directory = memchr::memmem::find(&renamed, b"PK\x01\x02").expect("a directory");
    renamed[directory + 46..directory + 52].copy_from_slice(b"ok.txt");
    let analysis = analyse(&with_part("a.zip", renamed));
    assert!(!analysis.opaque.is_empty() && rules(&analysis).contains(&(ContentKind::Script, "BLOCKED_NAME")));
    let tar = tarred(&[("a.txt", b"x")]);
    assert!(is_unclear([tar.clone(), tar.clone()].concat()), "more behind the end");
    assert!(is_unclear([member("pax", b'x', b"13 size=9999\n"), tar].concat()), "two sizes");
}

#[test]
fn a_long_or_packed_name_of_a_member_counts() {
    let long = [member("././@LongLink", b'L', b"folder/run.js\0"), tarred(&[("ok.txt", b"x")])].concat();
    let pax = [member("pax", b'x', b"20 path=a/b/run.js\n\n"), tarred(&[("ok.txt", b"x")])].concat();
    for archive in [long, pax] {
        assert!(rules(&analyse(&with_part("a.tar", archive))).contains(&(ContentKind::Script, "BLOCKED_NAME")));
    }
    let analysis = analyse(&with_part("run.js.gz", gzipped(b"text")));
    assert!(rules(&analysis).contains(&(ContentKind::Script, "BLOCKED_NAME")));
}

#[test]
fn the_name_that_gzip_keeps_is_the_name_of_what_is_in_it() {
    let named = |name: &str| {
        let mut writer = flate2::GzBuilder::new().filename(name).write(Vec::new(), Compression::best());
        writer.write_all(b"text").expect("writes");
        writer.finish().expect("finishes")
    };
    let found = |content: Vec<u8>| rules(&analyse(&with_part("x.gz", content)));
    for hidden in
        [named("run.js"), [named("a.txt"), named("run.js")].concat(), named(&format!("{}.js", "x".repeat(9000)))]
    {
        assert_eq!(found(hidden), [(ContentKind::Archive, "BLOCKED_TYPE"), (ContentKind::Script, "BLOCKED_NAME")]);
    }
    assert_eq!(found(named("a.txt")), [(ContentKind::Archive, "BLOCKED_TYPE")]);
    let analysis = analyse(&with_part("x.gz", (0..200).flat_map(|n| named(&format!("{n}.txt"))).collect()));
    assert!(!analysis.opaque.is_empty(), "a name for each of many streams");
}

/// A record of pax.
fn pax(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let length = (rest.len()..).find(|length| length.to_string().len() + rest.len() == *length).expect("one");
    format!("{length}{rest}")
}

#[test]
fn of_several_names_that_pax_gives_each_counts() {
    let archive = |kind: u8, records: &str| {
        [member("pax", kind, records.as_bytes()), tarred(&[("ok.txt", b"x"), ("b.txt", b"y")])].concat()
    };
    let long = format!("{}.js", "x".repeat(64 * 1024));
    for records in [
        [pax("path", "ok.txt"), pax("path", "run.js")].concat(),
        [pax("path", "run.js"), pax("mtime", "1.5"), pax("path", "ok.txt")].concat(),
        pax("path", &long),
    ] {
        let analysis = analyse(&with_part("a.tar", archive(b'x', &records)));
        assert!(rules(&analysis).contains(&(ContentKind::Script, "BLOCKED_NAME")), "{analysis:?}");
        assert_eq!(analysis.opaque, Vec::<String>::new());
    }
    let fine = analyse(&with_part("a.tar", archive(b'g', &pax("comment", "a commit"))));
    assert_eq!(fine.opaque, Vec::<String>::new());
    for (kind, records) in [
        (b'g', pax("path", "run.js")),
        (b'x', pax("GNU.sparse.map", "0,1")),
        (b'x', [pax("GNU.sparse.major", "1"), pax("GNU.sparse.name", "run.js")].concat()),
        (b'x', "12 path".to_owned()),
        (b'x', pax("path", "x").repeat(200)),
    ] {
        let analysis = analyse(&with_part("a.tar", archive(kind, &records)));
        assert!(!analysis.opaque.is_empty(), "{records:?}");
        let is_named = rules(&analysis).contains(&(ContentKind::Script, "BLOCKED_NAME"));
        assert_eq!(is_named, records.contains("run.js"), "{records:?}");
    }
    assert!(!analyse(&with_part("a.tar", [member("s", b'S', b"x"), vec![0; 1024]].concat())).opaque.is_empty());
}

#[test]
fn an_archive_behind_a_document_is_opened_too() {
    let mut secret = zipped(&[("run.js", b"secret")]);
    let directory = memchr::memmem::find(&secret, b"PK\x01\x02").expect("a directory");
    (secret[6], secret[directory + 8]) = (1, 1);
    let document = compound(&[("/WordDocument", &[0; 6000])]);
    let rules_of = |content: Vec<u8>| {
        let analysis = analyse(&with_part("a.doc", content));
        (rules(&analysis), analysis.opaque.len())
    };
    assert_eq!(rules_of(document.clone()), (vec![], 0));
    let (found, _) = rules_of([&document[..], &secret].concat());
    assert!(found.contains(&(ContentKind::Encrypted, "ENCRYPTED")), "{found:?}");
    assert!(found.contains(&(ContentKind::Script, "BLOCKED_NAME")), "{found:?}");
    // What a document carries is looked at once, where it lies: no archive is behind it.
    let carried =
        compound(&[("/WordDocument", &[0; 6000]), ("/Package", &zipped(&[("[Content_Types].xml", b"<Types/>")]))]);
    assert_eq!(rules_of(carried), (vec![], 0));
    // Behind other bytes of a stream.
    let (found, _) = rules_of(compound(&[("/Data", &[&[7; 5000][..], &secret].concat())]));
    assert!(found.contains(&(ContentKind::Encrypted, "ENCRYPTED")), "{found:?}");
    assert_ne!(rules_of(compound(&[("/Data", b"Rar!\x1a\x07\x01\0 more")])).1, 0);
}

#[test]
fn two_entries_of_one_name_make_it_unclear_wherever_the_archive_lies() {
    let mut twice = zipped(&[("a.txt", b"x"), ("b.txt", b"y")]);
    for at in memchr::memmem::find_iter(&twice.clone(), b"b.txt") {
        twice[at] = b'a';
    }
    let once = [b"\xff\xd8\xff", &zipped(&[("a.txt", b"x"), ("b.txt", b"y")])[..]].concat();
    assert_eq!(analyse(&with_part("a.jpg", once)).opaque, Vec::<String>::new());
    for (name, content) in [("a.zip", twice.clone()), ("a.jpg", [&b"\xff\xd8\xff"[..], &twice].concat())] {
        let analysis = analyse(&with_part(name, content));
        assert!(analysis.opaque.iter().any(|text| text.contains("two entries of one name")), "{name}: {analysis:?}");
    }
}

#[test]
fn an_archive_that_is_not_opened_is_found_however_far_behind_it_lies() {
    for behind in [3 << 20, 100] {
        let content = [&vec![b'x'; behind][..], b"Rar!\x1a\x07\x01\0 more"].concat();
        assert_eq!(analyse(&with_part("a.jpg", content)).opaque.len(), 1, "behind {behind} bytes");
    }
}

#[test]
fn an_archive_that_calls_itself_a_document_is_an_archive() {
    let is_archive = |files: &[(&str, &[u8])]| {
        rules(&analyse(&with_part("a.odt", zipped(files)))).contains(&(ContentKind::Archive, "BLOCKED_TYPE"))
    };
    let text = &b"application/vnd.oasis.opendocument.text"[..];
    let manifest = ("META-INF/manifest.xml", &b"<manifest:manifest/>"[..]);
    assert!(!is_archive(&[("mimetype", text), manifest, ("content.xml", b"<x/>")]));
    assert!(!is_archive(&[("mimetype", b"application/epub+zip"), ("META-INF/container.xml", b"<container/>")]));
    for false_ones in [
        &[("mimetype", &b""[..]), manifest][..],
        &[("mimetype", b"application/zip"), manifest],
        &[("mimetype", text)],
        &[("[Content_Types].xml", b"")],
        &[("[Content_Types].xml", b"nothing")],
    ] {
        assert!(is_archive(false_ones), "{false_ones:?}");
    }
    // A page in it is a page.
    let page = zipped(&[("mimetype", b""), ("a.xml", b"<html><script>x</script></html>")]);
    assert!(rules(&analyse(&with_part("a.odt", page))).contains(&(ContentKind::Active, "ACTIVE_MARKUP")));
}

#[test]
fn links_devices_and_hostile_names_of_a_tar_are_words_and_nothing_else() {
    for kind in b'1'..=b'6' {
        // What a link or device says that it holds belongs to nobody: the next member follows at once.
        let mut odd = member("/dev/sda", kind, b"");
        odd[157..168].copy_from_slice(b"/etc/passwd");
        odd[148..156].fill(b' ');
        let sum: u32 = odd[..512].iter().map(|byte| u32::from(*byte)).sum();
        odd[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let analysis = analyse(&with_part("a.tar", [odd, tarred(&[("run.js", b"x")])].concat()));
        assert_eq!(rules(&analysis), [(ContentKind::Archive, "BLOCKED_TYPE"), (ContentKind::Script, "BLOCKED_NAME")]);
        assert_eq!(analysis.opaque, Vec::<String>::new());
    }
    for name in ["/etc/cron.d/run.js", "../../../run.js", "a;`id`|$(id)&.js", "a\n\rb=c.js", "C:\\run.js", "-rf.js"] {
        let analysis = analyse(&with_part("a.tar", tarred(&[(name, b"x")])));
        assert!(rules(&analysis).contains(&(ContentKind::Script, "BLOCKED_NAME")), "{name}");
        assert!(analysis.found.iter().all(|found| !found.text.contains(char::is_control)), "{analysis:?}");
    }
    // Behind a NUL there is nothing in tar; in ZIP there may be, and readers end there or go on.
    assert!(
        rules(&analyse(&with_part("a.tar", tarred(&[("run.js\0.txt", b"x")]))))
            .contains(&(ContentKind::Script, "BLOCKED_NAME"))
    );
    for name in ["run.js\0.txt", "a.txt\0.js"] {
        let mut archive = zipped(&[(&name.replace('\0', "#"), b"x")]);
        for at in memchr::memmem::find_iter(&archive.clone(), b"#") {
            archive[at] = 0;
        }
        let analysis = analyse(&with_part("a.zip", archive));
        let is_told = rules(&analysis).contains(&(ContentKind::Script, "BLOCKED_NAME")) || !analysis.opaque.is_empty();
        assert!(is_told, "{name:?}: {analysis:?}");
    }
}

#[test]
fn a_hostile_name_of_a_member_stays_text() {
    for name in
        ["../../etc/passwd.js", "a`id`;$(id).js", "a\nX-Spam=no\u{202e}.js", &format!("{}.js", "x".repeat(60_000))]
    {
        let analysis = analyse(&with_part("a.zip", zipped(&[(name, b"x")])));
        assert!(rules(&analysis).contains(&(ContentKind::Script, "BLOCKED_NAME")), "{analysis:?}");
        let texts = analysis.found.iter().map(|found| &found.text).chain(&analysis.opaque);
        let texts: Vec<&String> = texts.chain(analysis.reasons.iter().map(|reason| &reason.text)).collect();
        assert!(!texts.is_empty() && texts.iter().all(|text| text.len() < 300 && !text.contains(['\n', '\u{202e}'])));
    }
}
