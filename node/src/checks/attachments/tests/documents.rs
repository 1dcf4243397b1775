//! Office documents, old and new, and RTF: what runs in them, what they fetch, what they carry.

use std::io::Write as _;

use proto::policy::ContentKind;

use super::{Analysis, Cursor, analyse, archives::PROGRAM, rules, with_part, zipped};
use crate::checks::attachments::{budget::Budget, vba};

const AUTO: &str = "Attribute VB_Name = \"Module1\"\r\nSub AutoOpen()\r\n  Shell \"calc\"\r\nEnd Sub\r\n";
const ASKED: &str = "Attribute VB_Name = \"Module1\"\r\n' Sub AutoOpen()\r\nSub Sums()\r\n  x = 1\r\nEnd Sub\r\n";
const EMPTY: &str = "Attribute VB_Name = \"ThisDocument\"\r\nAttribute VB_Base = \"x\"\r\nOption Explicit\r\n";

/// A compound file with these streams.
pub(super) fn compound(streams: &[(&str, &[u8])]) -> Vec<u8> {
    let mut file = cfb::CompoundFile::create(Cursor::new(Vec::new())).expect("starts");
    for (path, content) in streams {
        let parent = std::path::Path::new(path).parent().expect("a parent");
        file.create_storage_all(parent).expect("a storage");
        file.create_stream(path).expect("a stream").write_all(content).expect("writes");
    }
    file.flush().expect("finishes");
    file.into_inner().into_inner()
}

/// Packed with literals alone.
fn packed(text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1];
    for chunk in text.chunks(2048) {
        let tokens: Vec<u8> = chunk.chunks(8).flat_map(|eight| [&[0], eight].concat()).collect();
        let header = 0xb000 | u16::try_from(tokens.len() - 1).expect("short");
        bytes.extend(header.to_le_bytes());
        bytes.extend(tokens);
    }
    bytes
}

fn record(id: u16, data: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &u32::try_from(data.len()).expect("short").to_le_bytes(), data].concat()
}

fn with_macros(source: &str) -> Vec<u8> {
    let wide: Vec<u8> = "Module1".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let version = [&[9, 0, 4, 0, 0, 0][..], &[0; 6]].concat();
    let dir = [version, record(0x1a, b"Module1"), record(0x32, &wide), record(0x31, &5_u32.to_le_bytes())].concat();
    let module = [b"pcode", &packed(source.as_bytes())[..]].concat();
    compound(&[
        ("/WordDocument", &[0; 5000]),
        ("/Macros/VBA/_VBA_PROJECT", b"\xcc\x61"),
        ("/Macros/VBA/dir", &packed(&dir)),
        ("/Macros/VBA/Module1", &module),
    ])
}

fn document(parts: &[(&str, &[u8])]) -> Vec<u8> {
    zipped(&[&[("[Content_Types].xml", &b"<Types/>"[..])], parts].concat())
}

fn has(analysis: &Analysis, kind: ContentKind, rule: &str) -> bool {
    analysis.found.iter().any(|found| found.kind == kind && found.rule == rule)
}

#[test]
fn source_of_macros_is_unpacked_as_the_specification_shows() {
    let budget = Budget::of(1000);
    let normal = hex::decode(
        "012fb000236161616263646582660070616768696a013808616b6c00306d6e6f70067102700410727374757610777879 7a003c"
            .replace(' ', ""),
    );
    let unpacked = vba::decompress(&normal.expect("hexadecimal"), &budget).expect("unpacks");
    assert_eq!(String::from_utf8_lossy(&unpacked), "#aaabcdefaaaaghijaaaaaklaaamnopqaaaaaaaaaaaarstuvwxyzaaa");
    assert_eq!(vba::decompress(b"\x01\x03\xb0\x02aE\0", &budget), Some(vec![b'a'; 73]));
    assert_eq!(vba::decompress(b"\x01\x03\xb0\x02aE", &budget), Some(vec![b'a']));
    assert_eq!(vba::decompress(b"\x02", &budget), None);
}

#[test]
fn macros_that_run_by_themselves_are_told_from_those_that_are_asked_for() {
    for (source, expected) in [
        (AUTO, Some((ContentKind::Active, "MACROS_RUN"))),
        (&AUTO.replace("AutoOpen", "Workbook_OPEN"), Some((ContentKind::Active, "MACROS_RUN"))),
        (&AUTO.replace("Sub AutoOpen", "Sub _\r\nAutoOpen"), Some((ContentKind::Active, "MACROS_RUN"))),
        (&AUTO.replace("AutoOpen", "Frame1_Layout"), Some((ContentKind::Active, "MACROS_RUN"))),
        (&ASKED.replace("Module1", "AutoOpen").replace("Sums", "Main"), Some((ContentKind::Active, "MACROS_RUN"))),
        (&AUTO.replace("AutoOpen", "Workbook_WindowActivate"), Some((ContentKind::Active, "MACROS_RUN"))),
        (ASKED, Some((ContentKind::Macro, "MACROS"))),
        (&ASKED.replace("Sums", "Main"), Some((ContentKind::Macro, "MACROS"))),
        (EMPTY, None),
    ] {
        let old = with_macros(source);
        let new = document(&[("word/vbaProject.bin", &old)]);
        let expected: Vec<_> = expected.into_iter().collect();
        assert_eq!(rules(&analyse(&with_part("a.doc", old.clone()))), expected, "{source}");
        assert_eq!(rules(&analyse(&with_part("a.docm", new))), expected, "{source}");
    }
}

#[test]
fn macros_without_a_directory_or_a_source_are_not_overlooked() {
    let module = [b"pcode", &packed(AUTO.as_bytes())[..]].concat();
    let project = ("/VBA/_VBA_PROJECT", &b"\xcc\x61"[..]);
    let lost = compound(&[project, ("/VBA/dir", b"rubbish"), ("/VBA/Module1", &module)]);
    assert!(has(&analyse(&with_part("a.doc", lost)), ContentKind::Active, "MACROS_RUN"));
    let empty = packed(EMPTY.as_bytes());
    let dir = packed(&[record(0x1a, b"Module1"), record(0x31, &0_u32.to_le_bytes())].concat());
    let compiled = packed(&[record(0x1a, b"Module1"), record(0x31, &9000_u32.to_le_bytes())].concat());
    for streams in [
        &[project, ("/VBA/dir", &compiled), ("/VBA/Module1", &[&[0; 9000], &empty[..]].concat())],
        &[project, ("/VBA/Module1", b"pcode alone")][..],
        &[
            project,
            ("/VBA/dir", &dir),
            ("/VBA/Module1", b"pcode alone"),
            ("/VBA/ThisDocument", &[b"pcode", &empty[..]].concat()),
        ],
    ] {
        assert!(has(&analyse(&with_part("a.doc", compound(streams))), ContentKind::Active, "MACROS_HIDDEN"));
    }
}

#[test]
fn a_list_of_modules_without_an_end_takes_no_memory() {
    let many = record(0x31, &0_u32.to_le_bytes()).repeat(200_000);
    let dir = [record(0x1a, &b"M".repeat(500_000)), many].concat();
    let content = compound(&[("/VBA/_VBA_PROJECT", b"\xcc\x61"), ("/VBA/dir", &packed(&dir))]);
    assert!(has(&analyse(&with_part("a.doc", content)), ContentKind::Active, "MACROS_HIDDEN"));
}

fn biff(id: u16, data: &[u8]) -> Vec<u8> {
    [&id.to_le_bytes()[..], &u16::try_from(data.len()).expect("short").to_le_bytes(), data].concat()
}

#[test]
fn a_sheet_of_excel_4_macros_is_found_in_every_form() {
    let sheet = biff(0x85, &[0, 0, 0, 0, 2, 1, 1, 0, b'M']);
    let old = compound(&[("/Workbook", &[biff(0x809, &[0; 16]), sheet].concat())]);
    let part = document(&[("xl/macrosheets/sheet1.xml", b"<x/>")]);
    let renamed =
        zipped(&[("[Content_Types].xml", b"<Override ContentType='application/vnd.ms-excel.macrosheet+xml'/>")]);
    let types =
        |kind: &str| zipped(&[("[Content_Types].xml", format!("<Override x='>' ContentType=\"{kind}\"/>").as_bytes())]);
    let binary = types("application/vnd.ms-excel.macrosheet");
    let entity = types("application/vnd.ms-excel.macro&#115;heet+xml");
    let kind = "http://schemas.microsoft.com/office/2006/relationships/xlMacrosheet";
    let related = format!("<Relationship xmlns:x=\"a>b\" Id='r' Type='{kind}' Target='worksheets/sheet1.bin'/>");
    let related = document(&[("xl/_rels/workbook.bin.rels", related.as_bytes())]);
    for content in [binary, entity, related] {
        assert!(has(&analyse(&with_part("a.xlsb", content)), ContentKind::Active, "EXCEL4_MACROS"));
    }
    let sheet = analyse(&with_part("a.xlsx", types("application/vnd.ms-excel.sheet+xml")));
    assert!(!has(&sheet, ContentKind::Active, "EXCEL4_MACROS"));
    let text = b"ID;PWXL;N;E\nO;E\nNN;NAuto_open;ER1C1\nC;X1;Y1;ECALC()\nE\n".to_vec();
    for (name, content) in [("a.xls", old), ("a.xlsm", part), ("b.xlsm", renamed), ("a.slk", text)] {
        assert!(has(&analyse(&with_part(name, content)), ContentKind::Active, "EXCEL4_MACROS"), "{name}");
    }
    let plain = compound(&[("/Workbook", &biff(0x85, &[0, 0, 0, 0, 0, 0, 1, 0, b'S']))]);
    assert_eq!(rules(&analyse(&with_part("a.xls", plain))), []);
}

#[test]
fn dde_is_found_in_every_form() {
    let field = b"<w:fldChar w:fldCharType='begin'/><w:instrText>DD</w:instrText><w:instrText>EAUTO c</w:instrText>";
    let link = biff(0x1ae, b"\0\0\x08\0\0cmd\x03/c x");
    let cases = [
        ("a.docx", document(&[("word/document.xml", field)])),
        (
            "a.xlsx",
            document(&[(
                "xl/externalLinks/externalLink1.xml",
                b"<externalLink><ddeLink ddeService='cmd'/></externalLink>",
            )]),
        ),
        ("a.xlsb", document(&[("xl/externalLinks/externalLink1.bin", b"\xe8\x02\x10\x01\0rest")])),
        ("a.doc", compound(&[("/WordDocument", &[&[0; 100][..], b"\x13 DDEAUTO c:\\\\x \x15"].concat())])),
        ("b.doc", compound(&[("/WordDocument", &[&[0; 100][..], b"\x13\0 \0D\0D\0E\0 \0x\0"].concat())])),
        ("a.xls", compound(&[("/Workbook", &link)])),
        ("a.rtf", b"{\\rtf1{\\field{\\*\\fldinst {DDE\\b0 AUTO c:\\\\x}}}}".to_vec()),
        ("a.csv", b"name,sum\r\nx,\"=cmd|'/c calc'!A1\"\r\n".to_vec()),
        ("a.xml", b"<?xml version='1.0'?><Workbook><Cell ss:Formula=\"=cmd|'/c x'!A1\"/></Workbook>".to_vec()),
    ];
    for (name, content) in cases {
        let analysis = analyse(&with_part(name, content));
        assert!(has(&analysis, ContentKind::Active, "DDE"), "{name}: {analysis:?}");
    }
    assert_eq!(rules(&analyse(&with_part("a.csv", b"name,sum\r\nx,=A1+B2\r\n".to_vec()))), []);
}

#[test]
fn what_a_document_loads_from_elsewhere_is_found() {
    let relationship = |kind: &str, target: &str| {
        let text = format!(
            "<Relationships><Relationship Id='r' TargetMode='External' Target='{target}' Type='http://x/{kind}'/></Relationships>"
        );
        document(&[("word/_rels/settings.xml.rels", text.as_bytes())])
    };
    for (kind, target, rule) in [
        ("attachedTemplate", "https://a.test/t.dotm", "REMOTE_TEMPLATE"),
        ("attachedTemplate", "file://///host/t.dotm", "REMOTE_TEMPLATE"),
        ("oleObject", "mhtml:http://a.test/x!x-usc:y", "EXTERNAL_OBJECT"),
        ("frame", "http://a.test", "EXTERNAL_OBJECT"),
    ] {
        let analysis = analyse(&with_part("a.docx", relationship(kind, target)));
        assert!(has(&analysis, ContentKind::Active, rule), "{kind} {target}: {analysis:?}");
    }
    for (kind, target) in [("hyperlink", "https://a.test"), ("attachedTemplate", "file:///C:\\Normal.dotm")] {
        assert_eq!(rules(&analyse(&with_part("a.docx", relationship(kind, target)))), [], "{kind}");
    }
    let template = b"{\\rtf1{\\*\\template http://a.test/t.dotm}}".to_vec();
    assert!(has(&analyse(&with_part("a.doc", template)), ContentKind::Active, "REMOTE_TEMPLATE"));
}

/// As the packager keeps a file.
fn package(name: &str, content: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short").to_le_bytes();
    let path = format!("C:\\{name}\0");
    [
        b"\x02\0",
        name.as_bytes(),
        b"\0",
        path.as_bytes(),
        b"\0\0\x03\0",
        &length(path.as_bytes()),
        path.as_bytes(),
        &length(content),
        content,
    ]
    .concat()
}

#[test]
fn a_file_in_a_document_is_looked_at_under_its_own_name() {
    for (name, content, expected) in [
        ("a.txt", PROGRAM, (ContentKind::Executable, "FALSE_EXTENSION")),
        ("run.js", b"text", (ContentKind::Script, "BLOCKED_NAME")),
    ] {
        let native = [&[0; 4][..], &package(name, content)].concat();
        let object = compound(&[("/\u{1}Ole10Native", &native)]);
        let in_rtf: String = {
            let head = [&[1, 5, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0][..], b"Package\0", &[0; 8]].concat();
            let data = package(name, content);
            let whole = [head, u32::try_from(data.len()).expect("short").to_le_bytes().to_vec(), data].concat();
            let digits = hex::encode(whole);
            // Spread over lines and groups, as attackers do.
            let (first, rest) = digits.split_at(7);
            format!("{{\\rtf1{{\\object\\objemb{{\\*\\objdata {first}\r\n{{\\*\\nonsense}} \\par {rest}}}}}}}")
        };
        let cases = [
            ("a.doc", compound(&[("/ObjectPool/_1/\u{1}Ole10Native", &native)])),
            ("a.docx", document(&[("word/embeddings/oleObject1.bin", &object)])),
            ("a.rtf", in_rtf.into_bytes()),
        ];
        for (shown, document) in cases {
            let analysis = analyse(&with_part(shown, document));
            assert!(rules(&analysis).contains(&expected), "{shown} {name}: {analysis:?}");
        }
    }
}

#[test]
fn an_object_of_a_presentation_is_unpacked() {
    let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    writer.write_all(&with_macros(AUTO)).expect("writes");
    let object = [&[0; 4][..], &writer.finish().expect("finishes")].concat();
    let length = u32::try_from(object.len()).expect("short").to_le_bytes();
    let stream = [&[0; 50][..], b"\x10\0\x11\x10", &length, &object].concat();
    let analysis = analyse(&with_part("a.ppt", compound(&[("/PowerPoint Document", &stream)])));
    assert!(has(&analysis, ContentKind::Active, "MACROS_RUN"), "{analysis:?}");
}

#[test]
fn an_object_counts_by_its_class_whatever_it_is_called() {
    let with_class = |entry: &str, class: [u8; 16]| {
        let mut file = compound(&[("/ObjectPool/_1/x", b"x")]);
        let name: Vec<u8> = entry.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let at = memchr::memmem::find(&file, &name).expect("the entry");
        file[at + 80..at + 96].copy_from_slice(&class);
        file
    };
    let runs =
        |name: &str, content: Vec<u8>| has(&analyse(&with_part(name, content)), ContentKind::Active, "OBJECT_RUNS");
    let equation = *b"\x02\xce\x02\0\0\0\0\0\xc0\0\0\0\0\0\0\x46";
    let link = *b"\0\x03\0\0\0\0\0\0\xc0\0\0\0\0\0\0\x46";
    assert!(runs("a.doc", with_class("_1", equation)));
    let object = with_class("Root Entry", equation);
    assert!(runs("a.xlsx", document(&[("xl/embeddings/oleObject1.bin", &object)])));
    let page = *b"\x20\x69\x33\x25\xf9\x03\xcf\x11\x8f\xd0\0\xaa\0\x68\x6f\x13";
    assert!(runs("a.bin", with_class("Root Entry", page)));
    let script = *b"\xd3\x0b\x29\x06\xaa\x48\xd2\x11\x84\x32\0\x60\x08\xc3\xfb\xfc";
    assert!(runs("a.bin", with_class("Root Entry", script)));
    assert!(runs("a.bin", compound(&[("/Equation Native", b"x")])));
    assert!(runs("a.bin", with_class("Root Entry", link)));
    assert!(!runs("a.doc", with_class("_1", link)), "links within documents are common");
    assert!(!runs("a.doc", with_class("_1", [7; 16])));
}

#[test]
fn a_procedure_that_the_ribbon_calls_runs_by_itself() {
    let ribbon =
        |attribute: &str| document(&[("customUI/customUI.xml", format!("<customUI x='>' {attribute}/>").as_bytes())]);
    assert!(has(&analyse(&with_part("a.docm", ribbon("onLoad='Foo'"))), ContentKind::Active, "MACROS_RUN"));
    assert_eq!(rules(&analyse(&with_part("a.docx", ribbon("loadImage='Foo'")))), []);
}

#[test]
fn macros_of_open_documents_are_found() {
    let basic = zipped(&[("mimetype", b"x"), ("Basic/Standard/Module1.xml", b"<x/>")]);
    assert!(has(&analyse(&with_part("a.odt", basic)), ContentKind::Macro, "MACROS"));
    let event = b"<script:event-listener xlink:href='vnd.sun.star.script:Standard.Module1.Main?language=Basic'/>";
    let event = zipped(&[("mimetype", b"x"), ("content.xml", event)]);
    assert!(has(&analyse(&with_part("a.odt", event)), ContentKind::Active, "MACROS_RUN"));
}

#[test]
fn a_link_to_a_program_counts_by_its_name() {
    let native = b"\0\0\0\0\x02\0calc.exe\0C:\\Windows\\calc.exe\0\0\0\x01\0\x01\0C:\\Windows\\calc.exe\0";
    let analysis = analyse(&with_part("a.doc", compound(&[("/\u{1}Ole10Native", native)])));
    assert_eq!(rules(&analysis)[0], (ContentKind::Executable, "BLOCKED_NAME"));
}

#[test]
fn an_object_of_rtf_that_runs_is_found_however_it_is_written() {
    let object = |class: &str| {
        let class = format!("{class}\0");
        let length = u32::try_from(class.len()).expect("short").to_le_bytes();
        hex::encode([&[1, 5, 0, 0, 2, 0, 0, 0][..], &length, class.as_bytes(), &[0; 12]].concat())
    };
    let equation = object("eQuatioN.3");
    for text in [
        format!("{{\\rtf1{{\\object{{\\*\\objdata {equation}}}}}}}"),
        format!("{{\\rt{{\\objdata\n{{\\mods \\'aa}}{equation}}}"),
        format!("{{\\rtf1{{\\object\\objupdate{{\\*\\objdata {}}}}}}}", object("Excel.Sheet.8")),
    ] {
        assert!(
            has(&analyse(&with_part("a.doc", text.clone().into_bytes())), ContentKind::Active, "OBJECT_RUNS"),
            "{text}"
        );
    }
    // Half of it in digits, half as bytes.
    let (digits, rest) = equation.split_at(30);
    let rest = hex::decode(rest).expect("hexadecimal");
    let binary = [format!("{{\\rtf1{{\\objdata {digits}\\bin{} ", rest.len()).as_bytes(), &rest, b"}}"].concat();
    assert!(has(&analyse(&with_part("a.doc", binary)), ContentKind::Active, "OBJECT_RUNS"), "as bytes");
    let sheet = format!("{{\\rtf1{{\\object{{\\*\\objdata {}}}}}}}", object("Excel.Sheet.8"));
    assert_eq!(rules(&analyse(&with_part("a.rtf", sheet.into_bytes()))), []);
}

#[test]
fn rtf_of_any_number_of_fields_is_read_and_what_is_not_read_of_it_is_told() {
    let read = |text: String| analyse(&with_part("a.rtf", text.into_bytes()));
    let fields = "{\\field{\\*\\fldinst PAGEREF x}}{\\*\\template a.dot}".repeat(2000);
    assert_eq!(read(format!("{{\\rtf1{fields}}}")), Analysis::default());
    assert!(has(&read(format!("{{\\rtf1{fields}{{\\*\\fldinst DDEAUTO c}}}}")), ContentKind::Active, "DDE"));
    let template = "{\\*\\template http://a.test/t.dotm}";
    assert!(has(&read(format!("{{\\rtf1{fields}{template}}}")), ContentKind::Active, "REMOTE_TEMPLATE"));
    for hidden in [
        format!("{{\\rtf1{}}}", "{\\*\\objdata 00}".repeat(501)),
        format!("{{\\rtf1{}", "{".repeat(10_001)),
        "{\\rtf1{\\*\\objdata 01050000 02000000 ffffff7f 4500}}".to_owned(),
        "{\\rtf1{\\*\\objdata 0105}}".to_owned(),
        "{\\rtf1{\\*\\objdata 01050000 02000000 02000000 ff01 00000000}}".to_owned(),
    ] {
        assert!(!read(hidden.clone()).opaque.is_empty(), "{hidden:.60}");
    }
}

#[test]
fn an_encrypted_document_is_encrypted_and_an_installer_is_a_program() {
    let mut word = vec![0; 100];
    word[11] = 1;
    let cases = [
        ("a.docx", compound(&[("/EncryptedPackage", b"x"), ("/EncryptionInfo", b"x")])),
        ("b.docx", compound(&[("/encryptedPACKAGE", b"x")])),
        ("a.doc", compound(&[("/WordDocument", &word)])),
        ("a.xls", compound(&[("/Workbook", &biff(0x2f, &[0; 6]))])),
        (
            "a.odt",
            zipped(&[
                ("mimetype", b"application/vnd.oasis.opendocument.text"),
                ("META-INF/manifest.xml", b"<manifest:encryption-data/>"),
            ]),
        ),
    ];
    for (name, content) in cases {
        assert!(has(&analyse(&with_part(name, content)), ContentKind::Encrypted, "ENCRYPTED"), "{name}");
    }
    let mut installer = compound(&[("/a", b"x")]);
    let root = memchr::memmem::find(&installer, b"R\0o\0o\0t\0").expect("a root");
    installer[root + 80..root + 96].copy_from_slice(b"\x84\x10\x0c\0\0\0\0\0\xc0\0\0\0\0\0\0\x46");
    assert!(has(&analyse(&with_part("a.bin", installer)), ContentKind::Executable, "BLOCKED_TYPE"));
}

#[test]
fn a_compound_file_that_is_cut_off_or_turns_in_circles_is_never_clean() {
    let whole = with_macros(AUTO);
    assert!(!analyse(&with_part("a.doc", whole[..whole.len() / 2].to_vec())).opaque.is_empty());
    assert!(!analyse(&with_part("a.doc", whole[..600].to_vec())).opaque.is_empty());
    let mut circle = compound(&[("/WordDocument", &[7; 20_000])]);
    // Every sector is followed by itself: the table of sectors lies in the first one that the header names.
    let table = 512 * (1 + usize::from(circle[76]));
    for (sector, entry) in circle[table..table + 512].chunks_exact_mut(4).enumerate() {
        entry.copy_from_slice(&u32::try_from(sector).expect("few").to_le_bytes());
    }
    let _ = analyse(&with_part("a.doc", circle));
    for at in (0..whole.len()).step_by(7) {
        let mut broken = whole.clone();
        broken[at] ^= 0xff;
        let _ = analyse(&with_part("a.doc", broken));
    }
}
