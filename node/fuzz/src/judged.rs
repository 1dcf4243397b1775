//! A message's way from its bytes to verdicts, without anybody who is asked.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use node::{
    actions::headers::stamped,
    checks::{attachments, content, facts::Facts},
    limits::Limits,
    message::{Defect, Message, SUBJECT_CHARS_MAX, is_direction, text::Text},
    policy::{
        decide::decide,
        evidence::{Analysed, Evidence, Virus},
    },
    smtp::transaction::{Client, ClientName, Listener, Recipient, Route, Transaction, TrustClass},
};
use proto::{
    address::{Address, ReversePath},
    envelope::{Handling, Notification},
    held::TransactionId,
    time::UnixMs,
    verdict::Disposition,
};

use super::commands::fixture;

const HOST: &str = "mx.gov.test";

/// From the Internet to two departments.
static TRANSACTION: LazyLock<Transaction> = LazyLock::new(|| {
    let view = fixture::view();
    let recipient = |address: &str| {
        let address = Address::parse(address).expect("an address");
        let tenant = view.tenant_of(address.domain()).expect("a department");
        let (id, next_hops) = (tenant.department.id.clone(), tenant.department.next_hops.clone());
        Recipient {
            policy: tenant.policy.clone(),
            route: Route::Department { id, next_hops },
            class: TrustClass::Internet,
            address,
            notification: Notification::default(),
        }
    };
    Transaction {
        id: TransactionId::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV").expect("an id"),
        client: Client {
            address: "192.0.2.1".parse().expect("an address"),
            listener: Listener::Internet,
            helo: "mail.sender.test".into(),
            extended: true,
            tls: false,
            declined_tls: false,
            name: ClientName::default(),
            department: None,
            reasons: Vec::new(),
        },
        reverse_path: ReversePath::Address(Address::parse("a@sender.test").expect("an address")),
        handling: Handling::default(),
        recipients: vec![recipient("anna@interior.gov.test"), recipient("anna@health.gov.test")],
        view: Arc::clone(&view),
    }
});

/// Reads a message twice and judges it.
///
/// # Panics
/// When the two differ, when anything is larger than its bound, when a recipient has not exactly one verdict, when what was
/// not wholly seen is accepted, or when what we put before it changes it.
pub(crate) fn judged(bytes: &[u8], limits: &Limits) -> Message {
    let message = Message::parse(Bytes::copy_from_slice(bytes), limits);
    is_bounded(&message, limits);
    let again = Message::parse(Bytes::copy_from_slice(bytes), limits);
    assert_eq!((&message.parts, &message.defects), (&again.parts, &again.defects), "the same each time");
    assert_eq!((&message.from, &message.subject), (&again.from, &again.subject), "the same each time");
    let found = attachments::analyse(&message, &Default::default());
    let evidence = Evidence {
        virus: Virus::Clean,
        content: content::analyse(&Facts::of(&message, &TRANSACTION), None).reasons,
        kinds: found.found,
        opaque: found.opaque,
        analysed: Analysed::Whole,
        ..Evidence::nothing()
    };
    let verdicts = decide(&message, &evidence, &TRANSACTION);
    let recipients: usize = verdicts.iter().map(|(group, _)| group.len()).sum();
    assert_eq!(recipients, TRANSACTION.recipients.len(), "each recipient has one verdict");
    for (_, verdict) in &verdicts {
        let unseen = message.defects.iter().any(|defect| defect.breaks()) || !evidence.opaque.is_empty();
        assert!(!unseen || verdict.disposition != Disposition::Accept, "{:?}", message.defects);
        for reason in &verdict.reasons {
            assert!(
                reason.text.chars().count() <= 1000 && !reason.text.contains(['\r', '\n', '\0']),
                "{}",
                reason.text
            );
        }
        let stamped = stamped(&message, &evidence, verdict, &TRANSACTION, TrustClass::Internet, HOST, UnixMs(0));
        is_the_same_below(&message, &stamped, limits, verdict.tagged, !verdict.reasons.is_empty());
    }
    message
}

fn is_bounded(message: &Message, limits: &Limits) {
    // An encoding that readers undo in two ways makes two of a part.
    assert!(message.parts.len() <= 2 * limits.parts_max, "{} parts", message.parts.len());
    let content: usize = message.parts.iter().map(|part| part.content.len()).sum();
    assert!(content <= 2 * message.bytes.len(), "what is decoded is no longer than what it was");
    let names: usize = message.parts.iter().flat_map(|part| &part.names).map(String::len).sum();
    // A name is read in several ways, and characters of a character set have up to three bytes in UTF-8.
    assert!(names <= 24 * message.bytes.len(), "names of {names} bytes");
    assert!(message.subject.chars().count() <= SUBJECT_CHARS_MAX && is_shown_safely(&message.subject));
    let mailboxes = [&message.from, &message.sender, &message.reply_to];
    assert!(mailboxes.into_iter().flatten().all(|mailbox| is_shown_safely(&mailbox.name)));
    assert!(message.defects.is_sorted() && message.header.body_at <= message.bytes.len());
    let text = Text::of(message);
    assert!(text.plain.len() <= 2 * node::message::text::TEXT_BYTES_MAX);
    assert_eq!(message.header.count("from") > 1, message.defects.contains(&Defect::MultipleFrom));
}

fn is_shown_safely(text: &str) -> bool {
    !text.contains(|c: char| c.is_control() || is_direction(c))
}

/// Our fields stand before the message, and nothing of it is gone but what was forged in our name.
fn is_the_same_below(message: &Message, stamped: &Bytes, limits: &Limits, tagged: bool, has_reasons: bool) {
    let ours = 4 + usize::from(tagged) + usize::from(has_reasons);
    let limits =
        Limits { header_bytes_max: limits.header_bytes_max + 8192, hops_max: limits.hops_max + 1, ..limits.clone() };
    let read = Message::parse(stamped.clone(), &limits);
    let is_forged = |name: &str| name == "authentication-results" || name.starts_with("x-postern-");
    let before: Vec<&str> = message.header.fields.iter().map(|field| field.name.as_str()).collect();
    let after: Vec<&str> = read.header.fields.iter().map(|field| field.name.as_str()).collect();
    let kept: Vec<&str> = before.iter().copied().filter(|name| !is_forged(name)).collect();
    if message.header.too_long {
        // Where its fields end is not known.
        return;
    }
    assert_eq!(after.get(ours..).unwrap_or_default(), kept, "the fields that were there");
    assert_eq!(stamped[read.header.body_at..], message.bytes[message.header.body_at..], "the body");
}
