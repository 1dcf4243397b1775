//! PDF: scripts, actions, files, and the ways to hide them.

use std::io::Write as _;

use flate2::{Compression, write::ZlibEncoder};
use proto::policy::ContentKind;

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
        "((((\n1 0 obj<</OpenAction<</S/JavaScript/JS(x)>>>>endobj",
        "9 0 obj ( 1 0 obj<</OpenAction<</S/JavaScript/JS(x)>>>>endobj )endobj",
        "stream 1 0 obj<</OpenAction<</S/JavaScript/JS(x)>>>>endobj endstream",
    ] {
        assert_eq!(found(pdf(objects)), [RUNS], "{objects}");
    }
    for objects in [
        "1 0 obj<</OpenAction[3 0 R/Fit]>>endobj 7 0 obj<</FT/Tx/AA<</K<</S/JavaScript/JS(AFNumber)>>>>>>endobj",
        "7 0 obj<</A<</S/JavaScript/JS(x)>>>>endobj",
    ] {
        assert_eq!(found(pdf(objects)), [ASKED], "{objects}");
    }
    for objects in ["1 0 obj<</OpenAction[3 0 R/Fit]>>endobj", "1 0 obj<</Title(/S/JavaScript/JS)>>endobj % /JS (x)"] {
        assert_eq!(found(pdf(objects)), [], "{objects}");
    }
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

#[test]
fn an_object_stream_that_cannot_be_read_is_never_clean() {
    let packed = deflated(b"5 0 <</Type/Catalog>>");
    for (dictionary, packed) in [
        ("/Type/ObjStm/N 1/First 4/Filter/LZWDecode", &packed[..]),
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
