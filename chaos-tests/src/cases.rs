//! About a dozen messages and the fate that each must meet.

use std::net::IpAddr;

use crate::{
    cluster::{Cluster, Side},
    fate::Fate,
    letters::{self, Letter},
    smtp_client::Envelope,
    zones,
};

/// A message, how it comes in, and what must become of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// In a few words.
    pub title: &'static str,
    /// Which side it comes in.
    pub side: Side,
    /// The client's address.
    pub client: IpAddr,
    /// From whom and to whom.
    pub envelope: Envelope,
    /// The bytes.
    pub message: Vec<u8>,
    /// The fate for each recipient of the envelope, in their order.
    pub expected: Vec<Fate>,
}

const ANNA: &str = "anna@interior.gov.test";
const CARL: &str = "carl@health.gov.test";
const FRIEND: &str = "friend@good.example";

struct Way(Side, IpAddr);

const GOOD: Way = Way(Side::Internet, zones::GOOD);
const FORGER: Way = Way(Side::Internet, zones::FORGER);
const NAMELESS: Way = Way(Side::Internet, zones::NAMELESS);
const INTERIOR: Way = Way(Side::Departments, zones::INTERIOR);

fn case(title: &'static str, way: &Way, from: &str, to: &[(&str, Fate)], message: Vec<u8>) -> Case {
    Case {
        title,
        side: way.0,
        client: way.1,
        envelope: Envelope { from: from.to_owned(), to: to.iter().map(|(to, _)| (*to).to_owned()).collect() },
        message,
        expected: to.iter().map(|(_, fate)| fate.clone()).collect(),
    }
}

fn delivered(sink: &str) -> Fate {
    Fate::Delivered(sink.to_owned())
}

/// All cases for a cluster. EICAR is left out where nothing is scanned.
///
/// # Errors
/// When a message cannot be made.
pub fn all(cluster: &Cluster) -> anyhow::Result<Vec<Case>> {
    let ham = Letter::new("A Friend <friend@good.example>", ANNA, "Minutes of the meeting").bytes();
    let mut cases = vec![
        case("ham, DKIM-signed", &GOOD, FRIEND, &[(ANNA, delivered("interior"))], cluster.signing.sign(&ham)?),
        spam(),
        gtube(),
    ];
    if cluster.clamd.is_some() {
        cases.push(eicar(cluster)?);
    }
    cases.extend(attachments(cluster)?);
    cases.extend(forgeries());
    cases.extend(strays());
    cases.extend(between_departments());
    cases.push(two_fates(cluster)?);
    cases.push(case(
        "multiparts 40 deep",
        &GOOD,
        FRIEND,
        &[(ANNA, Fate::Quarantined)],
        letters::nested(FRIEND, ANNA, 40),
    ));
    Ok(cases)
}

/// Spam, scored by its content and its nameless sender.
#[must_use]
pub fn spam() -> Case {
    let from = "Winner Department <winner@lottery-claims.example>";
    let letter = Letter::new(from, ANNA, "Claim your prize today").text(letters::SPAM).bytes();
    case("spam", &NAMELESS, "winner@lottery-claims.example", &[(ANNA, Fate::Quarantined)], letter)
}

fn gtube() -> Case {
    let from = "A Tester <tester@lottery-claims.example>";
    let letter = Letter::new(from, ANNA, "Test of the spam filter").text(&letters::gtube()).bytes();
    case("GTUBE", &NAMELESS, "tester@lottery-claims.example", &[(ANNA, Fate::Refused)], letter)
}

/// The EICAR test file as an attachment of an otherwise good message.
///
/// # Errors
/// When it cannot be signed.
pub fn eicar(cluster: &Cluster) -> anyhow::Result<Case> {
    let letter = Letter::new(FRIEND, ANNA, "Your order").attach("order.txt", "text/plain", &letters::eicar());
    let message = cluster.signing.sign(&letter.bytes())?;
    Ok(case("EICAR", &GOOD, FRIEND, &[(ANNA, Fate::Refused)], message))
}

/// A program that calls itself a PDF.
///
/// # Errors
/// When it cannot be signed.
pub fn disguised_program(cluster: &Cluster) -> anyhow::Result<Case> {
    let letter = Letter::new(FRIEND, ANNA, "Invoice 4711");
    let letter = letter.attach("invoice.pdf", "application/pdf", &letters::windows_program()).bytes();
    let message = cluster.signing.sign(&letter)?;
    Ok(case("program named invoice.pdf", &GOOD, FRIEND, &[(ANNA, Fate::Quarantined)], message))
}

fn attachments(cluster: &Cluster) -> anyhow::Result<[Case; 2]> {
    let letter = Letter::new(FRIEND, ANNA, "Report").attach("report.zip", "application/zip", &letters::zip_archive()?);
    let to = [(ANNA, delivered("interior")), (CARL, Fate::Quarantined)];
    let archive = cluster.signing.sign(&letter.bytes())?;
    Ok([disguised_program(cluster)?, case("ZIP to two, one refuses archives", &GOOD, FRIEND, &to, archive)])
}

fn forgeries() -> [Case; 3] {
    let minister = "The Minister <minister@interior.gov.test>";
    let letter = |from: &str, subject: &str| Letter::new(from, CARL, subject).bytes();
    let refused = [(CARL, Fate::Refused)];
    let urgent = letter(minister, "Urgent payment");
    [
        case("MAIL claims a department", &FORGER, "minister@interior.gov.test", &refused, urgent.clone()),
        case("From field claims a department", &FORGER, "a@forger.example", &refused, urgent),
        case(
            "From field claims a bank (p=reject)",
            &FORGER,
            "a@forger.example",
            &refused,
            letter("Your Bank <security@bank.example>", "Please verify"),
        ),
    ]
}

fn strays() -> [Case; 3] {
    let letter = |to: &str| Letter::new(FRIEND, to, "Hello").bytes();
    let stray = |title, to| case(title, &GOOD, FRIEND, &[(to, Fate::Refused)], letter(to));
    [
        stray("unknown to the department's list", "nosuch@interior.gov.test"),
        stray("unknown to the next hop", "nobody@health.gov.test"),
        stray("relay attempt", "someone@partner.example"),
    ]
}

/// Mail that comes from the interior department.
#[must_use]
pub fn between_departments() -> [Case; 2] {
    let (from, partner) = ("Anna <anna@interior.gov.test>", "someone@partner.example");
    let letter = |to: &str| Letter::new(from, to, "Draft of the decree").bytes();
    [
        case("department to department", &INTERIOR, ANNA, &[(CARL, delivered("health"))], letter(CARL)),
        case("department to the Internet", &INTERIOR, ANNA, &[(partner, delivered("internet"))], letter(partner)),
    ]
}

/// A message whose second recipient has a full mailbox.
///
/// # Errors
/// When it cannot be signed.
pub fn two_fates(cluster: &Cluster) -> anyhow::Result<Case> {
    let letter = Letter::new(FRIEND, &format!("{ANNA}, full@health.gov.test"), "To both of you").bytes();
    let to = [(ANNA, delivered("interior")), ("full@health.gov.test", Fate::Deferred)];
    Ok(case("two recipients, one mailbox full", &GOOD, FRIEND, &to, cluster.signing.sign(&letter)?))
}
