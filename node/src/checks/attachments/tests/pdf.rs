//! PDF: scripts, actions, files, and the ways to hide them.

use std::io::Write as _;

use flate2::{
    Compression,
    write::{DeflateEncoder, ZlibEncoder},
};
use proto::policy::ContentKind;
use weezl::{BitOrder, encode::Encoder};

use super::{Analysis, analyse, archives::PROGRAM, rules, with_part};

fn pdf(objects: &str) -> Vec<u8> {
    format!("%PDF-1.7\n{objects}\ntrailer<</Root 1 0 R>>\n%%EOF").into_bytes()
}

fn found(content: Vec<u8>) -> Vec<(ContentKind, &'static str)> {
    rules(&analyse(&with_part("a.pdf", content)))
}

fn deflated(content: &[u8]) -> Vec<u8> {
    let mut writer = ZlibEncoder::new(Vec::new(), Compression::best());
    writer.write_all(content).expect("writes");
    writer.finish().expect("finishes")
}

fn with_stream(dictionary: &str, content: &[u8]) -> Vec<u8> {
    let head = format!("1 0 obj<<{dictionary}/Length {}>>stream\n", content.len());
    [b"%PDF-1.5\n", head.as_bytes(), content, b"\nendstream endobj\n"].concat()
}

const RUNS: (ContentKind, &str) = (ContentKind::Active, "PDF_SCRIPT_RUNS");
const ASKED: (ContentKind, &str) = (ContentKind::Macro, "PDF_SCRIPT");

#[test]
fn a_script_that_runs_at_opening_is_told_from_one_that_a_field_has() {
    for objects in [
        "1 0 obj<</OpenAction 5 0 R>>endobj 5 0 obj<</S/JavaScript/JS(x)>>endobj",
        "1 0 obj<</OpenAction<</S/JavaScript/JS(x)>>>>endobj",
        "1 0 obj<</Open#41ction<</S /J#61vaScript /#4aS <78>>> >>endobj",
        "1 0 obj<</Names<</JavaScript 3 0 R>>>>endobj 4 0 obj<</S/JavaScript/JS 9 0 R>>endobj",
        "1 0 obj<</Names<</JavaScript<</Names[(x)4 0 R]>>>>>>endobj",
        "1 0 obj<</Type/Page/AA<</C 8 0 R/O 5 0 R>>>>endobj 5 0 obj<</S/JavaScript/JS(x)>>endobj",
        "1 0 obj<</Type/Catalog/AA<</WC<</S/JavaScript/JS(x)>>>>>>endobj",
        "1 0 obj<</AA<</O 5 0 R>>/Type/Page>>endobj 5 0 obj<</S/JavaScript/JS(x)>>endobj",
        "1 0 obj<</OpenAction 5 0 R>>endobj 5 0 obj<</S/GoTo/Next[9 0 R 6 0 R]>>endobj 6 0 obj<</S/JavaScript/JS(x)>>endobj",
        "1 0 obj<</OpenAction 5 0 R>>endobj 5 0 obj<</S 9 0 R/Next 5 0 R>>endobj 9 0 obj/JavaScript endobj",
        "1 0 obj<</Type/Annot/AA<</PO 5 0 R>>>>endobj 5 0 obj<</S/JavaScript/JS(x)>>endobj",
        "((((\n1 0 obj<</OpenAction<</S/JavaScript/JS(x)>>>>endobj",
        "9 0 obj ( 1 0 obj<</OpenAction<</S/JavaScript/JS(x)>>>>endobj )endobj",
        "stream 1 0 obj<</OpenAction<</S/JavaScript/JS(x)>>>>endobj endstream",
    ] {
        assert_eq!(found(pdf(objects)), [RUNS], "{objects}");
    }
    for objects in [
        "1 0 obj<</OpenAction[3 0 R/Fit]>>endobj 7 0 obj<</FT/Tx/AA<</K<</S/JavaScript/JS(AFNumber)>>>>>>endobj",
        "7 0 obj<</A<</S/JavaScript/JS(x)>>>>endobj",
        "7 0 obj<</Type/Annot/AA<</C 5 0 R>>>>endobj 5 0 obj<</S/JavaScript/JS(sum)>>endobj",
        "1 0 obj<</OpenAction 5 0 R>>endobj 5 0 obj<</S/GoTo>>endobj 6 0 obj<</Next 7 0 R>>endobj 7 0 obj<</JS(x)>>endobj",
    ] {
        assert_eq!(found(pdf(objects)), [ASKED], "{objects}");
    }
    for objects in ["1 0 obj<</OpenAction[3 0 R/Fit]>>endobj", "1 0 obj<</Title(/S/JavaScript/JS)>>endobj % /JS (x)"] {
        assert_eq!(found(pdf(objects)), [], "{objects}");
    }
    let launch = "5 0 obj<</S 9 0 R/F(x)>>endobj 9 0 obj /Launch endobj";
    assert_eq!(found(pdf(launch)), [(ContentKind::Active, "PDF_LAUNCH")]);
}

#[test]
fn what_is_called_a_pdf_is_read_as_one_whatever_its_beginning() {
    let objects = "1 0 obj<</OpenAction<</S/JavaScript/JS(x)>>>>endobj";
    for beginning in ["", "%PDF 1.7\n", "%!PS-Adobe-3.0 PDF-1.4\n", &" ".repeat(2000)] {
        assert_eq!(found(format!("{beginning}{objects}").into_bytes()), [RUNS], "{beginning:?}");
    }
    assert_eq!(rules(&analyse(&with_part("a.txt", objects.as_bytes().to_vec()))), []);
}

#[test]
fn a_stream_of_objects_is_one_without_saying_so() {
    let objects = b"5 0 <</OpenAction<</S/JavaScript/JS(x)>>>>";
    for kind in ["/Type/ObjStm", "/Type 9 0 R", ""] {
        assert_eq!(found(with_stream(&format!("{kind}/N 1/First 4"), objects)), [RUNS], "{kind}");
    }
    assert_eq!(found(with_stream("/N 3", objects)), [], "a profile of colours has a number, too");
}

#[test]
fn a_program_that_is_started_is_found() {
    let objects = "1 0 obj<</OpenAction<</S/Launch/Win<</F(cmd.exe)/P(/c x)>>>>>>endobj";
    let analysis: Analysis = analyse(&with_part("a.pdf", pdf(objects)));
    assert!(rules(&analysis).contains(&(ContentKind::Active, "PDF_LAUNCH")));
    assert!(rules(&analysis).contains(&(ContentKind::Executable, "BLOCKED_NAME")), "{analysis:?}");
}

#[test]
fn what_lies_in_an_object_stream_is_read() {
    let objects = b"5 0 6 35 <</Type/Catalog/OpenAction 6 0 R>>  <</S/JavaScript/JS(x)>>";
    let at = memchr::memmem::find(objects, b"<<").expect("an object");
    let second = memchr::memmem::find(objects, b"<</S/").expect("another") - at;
    let objects = String::from_utf8_lossy(objects).replace("6 35", &format!("6 {second}"));
    let dictionary = format!("/Type/ObjStm/N 2/First {at}/Filter/FlateDecode");
    assert_eq!(found(with_stream(&dictionary, &deflated(objects.as_bytes()))), [RUNS]);
    let twice = hex::encode(deflated(objects.as_bytes()));
    let dictionary = dictionary.replace("/FlateDecode", "[/ASCIIHexDecode/Fl]");
    assert_eq!(found(with_stream(&dictionary, format!("{twice}>").as_bytes())), [RUNS]);
}

/// One object that is run at opening, for an object stream whose objects begin at 4.
const OPENS: &[u8] = b"5 0 <</Type/Catalog/OpenAction<</S/JavaScript/JS(x)>>>>";

#[test]
fn a_script_under_any_filter_is_read() {
    let lzw = Encoder::with_tiff_size_switch(BitOrder::Msb, 8).encode(OPENS).expect("into memory");
    let late = Encoder::new(BitOrder::Msb, 8).encode(OPENS).expect("into memory");
    let runs = OPENS.chunks(100).flat_map(|run| [&[u8::try_from(run.len() - 1).expect("short")], run].concat());
    for (filters, packed) in [
        ("/LZWDecode", lzw.clone()),
        ("[/LZW]/DecodeParms[<</EarlyChange 0>>]", late),
        ("[/AHx/LZWDecode]", hex::encode(&lzw).into_bytes()),
        ("/RunLengthDecode", runs.collect()),
        (" 9 0 R", deflated(OPENS)),
    ] {
        let content = with_stream(&format!("/Type/ObjStm/N 1/First 4/Filter{filters}"), &packed);
        let analysis = analyse(&with_part("a.pdf", content));
        assert_eq!((rules(&analysis), analysis.opaque.len()), (vec![RUNS], 0), "{filters}");
    }
}

#[test]
fn tokens_are_paid_for_beside_their_bytes() {
    let costs_too_much = |object: &str| {
        let content = format!("5 0 {object}");
        let content = with_stream("/Type/ObjStm/N 1/First 4/Filter/FlateDecode", &deflated(content.as_bytes()));
        !analyse(&with_part("a.pdf", content)).opaque.is_empty()
    };
    assert!(costs_too_much(&format!("[{}]", "1 ".repeat(700_000))), "so many tokens take longer than their bytes");
    assert!(!costs_too_much(&format!("({})", "1 ".repeat(700_000))), "one token of as many bytes");
}

/// A zlib stream (RFC 1950) that shows its first bytes as they are, so that words can stand in it, and packs the others.
fn half_stored(first: &[u8], others: &[u8]) -> Vec<u8> {
    let length = u16::try_from(first.len()).expect("short");
    let mut writer = DeflateEncoder::new(Vec::new(), Compression::best());
    writer.write_all(others).expect("writes");
    let packed = writer.finish().expect("finishes");
    let (a, b) = first.iter().chain(others).fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    let stored = [&[0x78, 0x01, 0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), first].concat();
    [&stored[..], &packed, &(b << 16 | a).to_be_bytes()].concat()
}

#[test]
fn a_stream_that_holds_the_word_for_its_end_is_read_to_its_end() {
    let packed = half_stored(b"5 0 (endstream endobj)", &OPENS[4..]);
    let dictionary = "/Type/ObjStm/N 1/First 4/Filter/FlateDecode";
    assert_eq!(found(with_stream(dictionary, &packed)), [RUNS]);
    // The length in an object of its own, before or behind; two such objects that lead to two ends are unclear.
    let elsewhere = |numbers: &str| {
        let head = format!("%PDF-1.5\n1 0 obj<<{dictionary}/Length 8 0 R>>stream\n");
        [head.as_bytes(), &packed, b"\nendstream endobj\n", numbers.as_bytes()].concat()
    };
    let right = format!("8 0 obj {} endobj ", packed.len());
    assert_eq!(found(elsewhere(&right)), [RUNS]);
    let first = memchr::memmem::find(&packed, b"endstream").expect("within");
    let two = elsewhere(&format!("{right}8 0 obj\n{first}\nendobj"));
    assert!(!analyse(&with_part("a.pdf", two)).opaque.is_empty());
    let program = half_stored(&PROGRAM[..2], &[&PROGRAM[2..], b"endstream"].concat());
    let analysis = analyse(&with_part("a.pdf", with_stream("/Type/EmbeddedFile/Filter/FlateDecode", &program)));
    assert!(rules(&analysis).contains(&(ContentKind::Executable, "BLOCKED_TYPE")) && analysis.opaque.is_empty());
}

#[test]
fn a_file_that_breaks_off_is_looked_at_and_never_clean() {
    let packed = deflated(&[PROGRAM, &b"0123456789".repeat(1000)].concat());
    let half = with_stream("/Filter/FlateDecode", &packed[..packed.len() - 8]);
    let analysis = analyse(&with_part("a.pdf", half));
    assert!(rules(&analysis).contains(&(ContentKind::Executable, "BLOCKED_TYPE")) && !analysis.opaque.is_empty());
}

#[test]
fn an_object_stream_that_cannot_be_read_is_never_clean() {
    let packed = deflated(b"5 0 <</Type/Catalog>>");
    let hex_of_it = hex::encode(&packed).into_bytes();
    for (dictionary, packed) in [
        ("/Type/ObjStm/N 1/First 4/Filter/LZWDecode", &packed[..]),
        ("/Type/ObjStm/N 1/First 4/Filter/JPXDecode", &packed[..]),
        ("/Type/ObjStm/N 1/First 4/Filter 7 0 R", &hex_of_it[..]),
        ("/Type/ObjStm/N 1/First 4/Filter/FlateDecode", &packed[..packed.len() - 6]),
        ("/Type/ObjStm/N 1/First 400/Filter/FlateDecode", &packed),
    ] {
        assert!(!analyse(&with_part("a.pdf", with_stream(dictionary, packed))).opaque.is_empty(), "{dictionary}");
    }
    let fine = with_stream("/Type/ObjStm/N 1/First 4/Filter/FlateDecode", &packed);
    assert_eq!(analyse(&with_part("a.pdf", fine)), Analysis::default());
}

#[test]
fn a_file_in_a_document_is_looked_at() {
    for dictionary in ["/Type/EmbeddedFile/Filter/FlateDecode", "/Filter/FlateDecode"] {
        let rules = found(with_stream(dictionary, &deflated(PROGRAM)));
        assert!(rules.contains(&(ContentKind::Executable, "BLOCKED_TYPE")), "{dictionary}: {rules:?}");
    }
    let bomb = deflated(&vec![0; 9 * 1024 * 1024]);
    let bomb = analyse(&with_part("a.pdf", with_stream("/Type/EmbeddedFile/Filter/FlateDecode", &bomb)));
    assert!(bomb.opaque[0].contains("more than is looked into"));
}

#[test]
fn an_encrypted_one_is_encrypted() {
    assert_eq!(found(b"%PDF-1.4\ntrailer<</Encrypt 9 0 R>>".to_vec()), [(ContentKind::Encrypted, "ENCRYPTED")]);
    assert_eq!(
        found(b"junk before\n%PDF-1.4\n1 0 obj<</S/Launch>>endobj".to_vec()),
        [(ContentKind::Active, "PDF_LAUNCH")]
    );
}
