//! Tells what kind of content some bytes are by their signatures, and what a reader's system would take a name for.

use proto::policy::ContentKind;

/// Bytes at a place that tell a kind. In each table the first that fits wins.
type Magic = (usize, &'static [u8]);

const EXECUTABLE: [(Magic, &str); 14] = [
    ((0, b"\x7fELF"), "an ELF program"),
    ((0, b"\xfe\xed\xfa\xce"), "a Mach-O program"),
    ((0, b"\xfe\xed\xfa\xcf"), "a Mach-O program"),
    ((0, b"\xce\xfa\xed\xfe"), "a Mach-O program"),
    ((0, b"\xcf\xfa\xed\xfe"), "a Mach-O program"),
    ((0, b"\xca\xfe\xba\xbe"), "a Java class or Mach-O program"),
    ((0, b"dex\n"), "an Android program"),
    ((0, b"\0asm"), "a WebAssembly program"),
    ((0, b"\x4c\0\0\0\x01\x14\x02\0"), "a Windows shortcut"),
    ((0, b"!<arch>\ndebian"), "a Debian package"),
    ((0, b"\xed\xab\xee\xdb"), "an RPM package"),
    ((0, b"ITSF"), "a compiled help file"),
    ((0, b"\xac\xed\0\x05"), "serialised Java objects"),
    ((0, b"Cr24"), "a browser extension"),
];

const ARCHIVE: [(Magic, &str); 12] = [
    ((0, b"PK\x03\x04"), "a ZIP archive"),
    ((0, b"PK\x05\x06"), "a ZIP archive"),
    ((0, b"7z\xbc\xaf\x27\x1c"), "a 7z archive"),
    ((0, b"Rar!\x1a\x07"), "a RAR archive"),
    ((257, b"ustar"), "a tar archive"),
    ((0, b"\x1f\x8b\x08"), "a gzip file"),
    ((0, b"BZh"), "a bzip2 file"),
    ((0, b"\xfd7zXZ\0"), "an xz file"),
    ((0, b"\x28\xb5\x2f\xfd"), "a zstd file"),
    ((0, b"MSCF\0\0\0\0"), "a Windows cabinet"),
    ((2, b"-lh"), "an LHA archive"),
    ((7, b"**ACE**"), "an ACE archive"),
];

const IMAGE: [(Magic, &str); 14] = [
    ((0x8001, b"CD001"), "an ISO disk image"),
    // With the whole sectors of a CD, of its two modes.
    ((0x9311, b"CD001"), "an ISO disk image"),
    ((0x9319, b"CD001"), "an ISO disk image"),
    ((0x8001, b"BEA01"), "a UDF disk image"),
    ((0x8001, b"NSR0"), "a UDF disk image"),
    ((0x8801, b"NSR0"), "a UDF disk image"),
    ((0x9001, b"NSR0"), "a UDF disk image"),
    ((512, b"EFI PART"), "a copy of a disk"),
    ((0, b"hsqs"), "a file system"),
    ((0, b"conectix"), "a virtual disk"),
    ((0, b"vhdxfile"), "a virtual disk"),
    ((0, b"KDMV"), "a virtual disk"),
    ((0, b"QFI\xfb"), "a virtual disk"),
    ((0, b"MSWIM\0\0\0"), "a Windows image"),
];

const SCRIPT: [(&[u8], &str); 5] = [
    (b"#!", "a script"),
    (b"<?php", "a PHP script"),
    (b"@echo off", "a batch file"),
    (b"<hta:application", "an HTML application"),
    (b"windows registry editor", "a registry file"),
];

/// What the bytes are, with words for it; `None` when they are none of the kinds.
#[must_use]
pub fn of_content(content: &[u8]) -> Option<(ContentKind, &'static str)> {
    if let Some(found) = by_signature(content) {
        return Some(found);
    }
    if let Some(words) = by_header(content) {
        return Some((ContentKind::Archive, words));
    }
    if let Some(words) = disk_image(content) {
        return Some((ContentKind::Image, words));
    }
    if let Some(words) = script(content) {
        return Some((ContentKind::Script, words));
    }
    by_infer(content)
}

/// What the bytes are by signatures that chance does not make.
#[must_use]
pub fn by_signature(content: &[u8]) -> Option<(ContentKind, &'static str)> {
    if is_dos_program(content) {
        return Some((ContentKind::Executable, "a Windows program"));
    }
    let tables: [(ContentKind, &[(Magic, &'static str)]); 3] =
        [(ContentKind::Executable, &EXECUTABLE), (ContentKind::Archive, &ARCHIVE), (ContentKind::Image, &IMAGE)];
    for (kind, table) in tables {
        let fits = table.iter().find(|((at, magic), _)| content.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
        if let Some((_, words)) = fits {
            return Some((kind, words));
        }
    }
    None
}

/// Images that have their mark at the end, and copies of whole disks, which begin with what starts a machine from them.
fn disk_image(content: &[u8]) -> Option<&'static str> {
    let (body, trailer) = content.split_last_chunk::<512>()?;
    if body.is_empty() {
        return None;
    }
    if trailer.starts_with(b"koly") {
        return Some("an Apple disk image");
    }
    // Old ones end a byte before.
    if trailer.starts_with(b"conectix") || content.get(content.len() - 511..)?.starts_with(b"conectix") {
        return Some("a virtual disk");
    }
    let boot = content.first_chunk::<512>()?;
    if !boot.ends_with(b"\x55\xaa") {
        return None;
    }
    let has = |at: usize, name: &[u8]| boot.get(at..).is_some_and(|rest| rest.starts_with(name));
    let is_volume = matches!(boot, [0xeb, _, 0x90, ..] | [0xe9, ..])
        && (has(3, b"NTFS    ") || has(3, b"EXFAT   ") || has(54, b"FAT") || has(82, b"FAT32"));
    let partitions = boot[446..510].as_chunks::<16>().0;
    let is_sound = |partition: &[u8; 16]| matches!(partition[0], 0 | 0x80);
    let is_used = |partition: &[u8; 16]| partition[4] != 0 && partition[12..] != [0; 4];
    let is_disk = partitions.iter().all(is_sound) && partitions.iter().any(is_used);
    (is_volume || is_disk).then_some("a copy of a disk")
}

/// Archives whose signature is two bytes, which chance makes as well: what follows must make sense.
fn by_header(content: &[u8]) -> Option<&'static str> {
    match content {
        // Length of the header, that of its first part, and that it is the archive's own.
        [0x60, 0xea, low, high, 30..=64, _, _, _, _, _, 2, ..]
            if (30..=2600).contains(&u16::from_le_bytes([*low, *high])) =>
        {
            Some("an ARJ archive")
        }
        // At most 16 bits a code, and two bits that are always clear.
        [0x1f, 0x9d, flags, ..] if flags & 0x60 == 0 && (9..=16).contains(&(flags & 0x1f)) => Some("a compressed file"),
        _ => None,
    }
}

/// What `infer` knows beyond our tables. Its own classes are too wide: certificates are "apps" there, PDF an "archive".
fn by_infer(content: &[u8]) -> Option<(ContentKind, &'static str)> {
    let kind = infer::get(content)?;
    match kind.mime_type() {
        "application/x-lzip" | "application/x-cpio" | "application/x-unix-archive" | "application/x-lz4" => {
            Some((ContentKind::Archive, "an archive"))
        }
        _ => None,
    }
}

/// `MZ`, which a text may begin with as well: a program is not text.
fn is_dos_program(content: &[u8]) -> bool {
    let head = content.get(..content.len().min(64)).unwrap_or_default();
    head.starts_with(b"MZ") && head.iter().any(|byte| *byte < 9 || *byte > 126)
}

fn script(content: &[u8]) -> Option<&'static str> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content).trim_ascii_start();
    let head = content.get(..content.len().min(64)).unwrap_or_default().to_ascii_lowercase();
    SCRIPT.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, words)| *words)
}

const EXECUTABLE_NAMES: [&str; 48] = [
    "exe",
    "dll",
    "scr",
    "com",
    "pif",
    "cpl",
    "msi",
    "msp",
    "mst",
    "msix",
    "appx",
    "lnk",
    "jar",
    "apk",
    "deb",
    "rpm",
    "xll",
    "ocx",
    "sys",
    "gadget",
    "application",
    "appref-ms",
    "chm",
    "hlp",
    "drv",
    "elf",
    "class",
    "scf",
    "url",
    "rdp",
    "msc",
    "library-ms",
    "search-ms",
    "searchconnector-ms",
    "appinstaller",
    "msixbundle",
    "appxbundle",
    "diagcab",
    "wsb",
    "xbap",
    "theme",
    "themepack",
    "desktop",
    "command",
    "wll",
    "accde",
    "mde",
    "ade",
];
const SCRIPT_NAMES: [&str; 26] = [
    "js",
    "jse",
    "vb",
    "vbs",
    "vbe",
    "wsf",
    "wsh",
    "wsc",
    "sct",
    "ps1",
    "psm1",
    "psd1",
    "ps1xml",
    "bat",
    "cmd",
    "hta",
    "sh",
    "reg",
    "inf",
    "mjs",
    "jnlp",
    "ws",
    "vbscript",
    "py",
    "pyw",
    "settingcontent-ms",
];
const ARCHIVE_NAMES: [&str; 14] =
    ["zip", "7z", "rar", "tar", "gz", "tgz", "bz2", "xz", "zst", "cab", "ace", "arj", "lzh", "z"];
const IMAGE_NAMES: [&str; 8] = ["iso", "img", "vhd", "vhdx", "vmdk", "qcow2", "dmg", "wim"];

/// What a reader's system would take a name for.
#[must_use]
pub fn of_name(name: &str) -> Option<ContentKind> {
    let extension = extension(name)?;
    let tables: [(ContentKind, &[&str]); 4] = [
        (ContentKind::Executable, &EXECUTABLE_NAMES),
        (ContentKind::Script, &SCRIPT_NAMES),
        (ContentKind::Archive, &ARCHIVE_NAMES),
        (ContentKind::Image, &IMAGE_NAMES),
    ];
    tables.into_iter().find(|(_, names)| names.contains(&extension.as_str())).map(|(kind, _)| kind)
}

/// The extension that counts, in lower case: after taking off what Windows takes off (trailing dots and white space, a
/// stream's name) and what only changes how the name is shown.
#[must_use]
pub fn extension(name: &str) -> Option<String> {
    let name: String = name.chars().filter(|c| !c.is_control() && !is_invisible(*c)).collect();
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let name = name.split(':').next().unwrap_or_default();
    let name = name.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    name.rsplit_once('.').map(|(_, extension)| extension.trim().to_ascii_lowercase())
}

fn is_invisible(c: char) -> bool {
    crate::message::is_direction(c)
        || matches!(
            c,
            '\u{200b}'
                ..='\u{200d}'
                    | '\u{2060}'
                    | '\u{feff}'
                    | '\u{ad}'
                    | '\u{2800}'
                    | '\u{3164}'
                    | '\u{115f}'
                    | '\u{1160}'
                    | '\u{ffa0}'
        )
}

#[cfg(test)]
mod tests {
    use proto::policy::ContentKind;

    use super::{of_content, of_name};

    #[test]
    fn kinds_are_told_by_the_bytes() {
        let iso = [vec![0; 0x8001], b"CD001".to_vec()].concat();
        let cases: [(&[u8], Option<ContentKind>); 11] = [
            (b"MZ\x90\0\x03\0", Some(ContentKind::Executable)),
            (b"MZ is how this letter begins", None),
            (b"\x7fELF\x02\x01", Some(ContentKind::Executable)),
            (b"\x4c\0\0\0\x01\x14\x02\0rest", Some(ContentKind::Executable)),
            (b"#!/bin/sh\nrm", Some(ContentKind::Script)),
            (b"\xef\xbb\xbf@ECHO OFF\r\n", Some(ContentKind::Script)),
            (b"PK\x03\x04", Some(ContentKind::Archive)),
            (&iso, Some(ContentKind::Image)),
            (b"%PDF-1.7", None),
            (b"\x30\x82\x05\x00 a certificate", None),
            (b"", None),
        ];
        for (content, expected) in cases {
            assert_eq!(of_content(content).map(|(kind, _)| kind), expected, "{:?}", &content[..content.len().min(20)]);
        }
    }

    #[test]
    fn disk_images_are_told_by_their_ends_and_by_what_starts_a_machine() {
        let mut boot = vec![0; 2048];
        boot[510..512].copy_from_slice(b"\x55\xaa");
        let with = |at: usize, bytes: &[u8]| {
            let mut image = boot.clone();
            image[at..at + bytes.len()].copy_from_slice(bytes);
            image
        };
        let end = |mark: &[u8], behind: usize| [&[1; 3000][..], mark, &vec![0; behind]].concat();
        let mut fat = with(54, b"FAT12   ");
        fat[..3].copy_from_slice(b"\xeb\x3c\x90");
        let images = [
            end(b"conectix", 504),
            end(b"conectix", 503),
            end(b"koly", 508),
            b"conectix".repeat(100),
            b"vhdxfile".repeat(100),
            [vec![0; 0x9319], b"CD001".to_vec()].concat(),
            [vec![0; 0x8801], b"NSR02".to_vec()].concat(),
            with(512, b"EFI PART"),
            with(446, &[0x80, 1, 1, 0, 7, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0]),
            fat,
        ];
        for image in images {
            assert_eq!(of_content(&image).map(|(kind, _)| kind), Some(ContentKind::Image), "{} bytes", image.len());
        }
        for harmless in [boot.clone(), end(b"conectix", 300), with(446, &[7; 16]), with(54, b"FAT12   ")] {
            assert_eq!(of_content(&harmless), None, "{} bytes", harmless.len());
        }
    }

    #[test]
    fn a_name_cannot_hide_its_extension() {
        for name in [
            "a.EXE",
            "a.pdf.exe",
            "a.exe. . ",
            "a.exe::$DATA",
            "x\u{202e}fdp.exe",
            "c:\\x\\a.exe",
            "a.e\u{200b}xe",
            "a.exe\n",
        ] {
            assert_eq!(of_name(name), Some(ContentKind::Executable), "{name:?}");
        }
        for name in ["a.pdf", "exe", "a.exe.pdf", "", "."] {
            assert_eq!(of_name(name), None, "{name:?}");
        }
        assert_eq!(of_name("a.js"), Some(ContentKind::Script));
    }
}
