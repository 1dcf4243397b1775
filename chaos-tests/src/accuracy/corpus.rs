//! Sorted mail: folders `ham`, `spam` and `phish` of messages, named `COLLECTION__DIGEST.eml`.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Arc, LazyLock},
};

use anyhow::{Context as _, ensure};
use node::{
    limits::Limits,
    message::Message,
    smtp::transaction::{Client, Recipient, Route, Transaction, TrustClass},
};
use proto::{
    address::{Address, Domain, ReversePath},
    envelope::{Handling, Notification},
    held::TransactionId,
    view::{StateSettings, View, ViewChange},
};

use super::arrival::Arrival;

/// What people have found a message to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Wanted.
    Ham,
    /// Not wanted.
    Spam,
    /// Made to deceive.
    Phish,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ham, Self::Spam, Self::Phish];

    /// Name of its folder.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ham => "ham",
            Self::Spam => "spam",
            Self::Phish => "phish",
        }
    }

    /// Whether it should be caught.
    #[must_use]
    pub const fn is_bad(self) -> bool {
        !matches!(self, Self::Ham)
    }
}

/// A message that people have sorted.
#[derive(Clone, Debug)]
pub struct Sorted {
    /// Its file's name.
    pub name: String,
    /// The collection that it is of.
    pub collection: String,
    /// What it is.
    pub class: Class,
    /// All of it, with what its reader's servers have added. Lines end with CRLF.
    pub bytes: Vec<u8>,
    /// How it came in.
    pub arrival: Arrival,
}

/// Reads a folder, in the order of the names.
///
/// # Errors
/// When there is no message in it, or one cannot be read.
pub fn read(folder: &Path) -> anyhow::Result<Vec<Sorted>> {
    let mut all = Vec::new();
    for class in Class::ALL {
        let of_class = folder.join(class.as_str());
        if !of_class.is_dir() {
            continue;
        }
        let names: BTreeSet<String> = std::fs::read_dir(&of_class)
            .with_context(|| format!("read {}", of_class.display()))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        for name in names {
            let path = of_class.join(&name);
            let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let collection = name.split_once("__").map_or("", |(collection, _)| collection).to_owned();
            let bytes = with_readers(&with_crlf(&bytes), &collection);
            all.push(Sorted { arrival: Arrival::of(&bytes), bytes, name, collection, class });
        }
    }
    ensure!(!all.is_empty(), "no messages in {}: it should have folders named ham, spam or phish", folder.display());
    Ok(all)
}

/// Wanted letters that somebody has written down, parted by lines of five equals signs: a collection of its own.
#[must_use]
pub fn letters(text: &str) -> Vec<Sorted> {
    let letter = |(at, text): (usize, &str)| {
        let bytes = with_crlf(text.as_bytes());
        Sorted {
            name: format!("letters__{at}"),
            collection: "letters".to_owned(),
            class: Class::Ham,
            arrival: Arrival::of(&bytes),
            bytes,
        }
    };
    text.split("=====\n").enumerate().map(letter).collect()
}

/// A collection has put `phishing@pot` for each of its readers, which is no address of the Internet: it would speak against those who
/// are only written to, or were written to in their own name.
fn with_readers(bytes: &[u8], collection: &str) -> Vec<u8> {
    if collection != "phishing_pot" {
        return bytes.to_vec();
    }
    let mut out = Vec::with_capacity(bytes.len() + 200);
    let mut from = 0;
    for at in memchr::memmem::find_iter(bytes, b"phishing@pot") {
        out.extend_from_slice(&bytes[from..at]);
        out.extend_from_slice(b"phishing@pot.example");
        from = at + b"phishing@pot".len();
    }
    out.extend_from_slice(&bytes[from..]);
    out
}

/// Each line end as SMTP has it.
fn with_crlf(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 40);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let end = line.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        out.extend_from_slice(end.unwrap_or(line));
        if end.is_some() {
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

/// What holds for all messages: a node makes no view for each of them.
static VIEW: LazyLock<Arc<View>> = LazyLock::new(|| {
    let change = ViewChange {
        index: 1,
        policy_version: 1,
        whole: true,
        settings: Some(StateSettings::default()),
        ..ViewChange::default()
    };
    Arc::new(View::empty().after(change))
});

impl Sorted {
    /// The message that came in.
    #[must_use]
    pub fn message(&self) -> Message {
        Message::parse(self.arrival.bytes.clone().into(), &Limits::default())
    }

    /// What came with it: its own sender, where it names one, from the client that handed it over to somebody.
    #[must_use]
    pub fn transaction(&self, message: &Message) -> Transaction {
        transaction(message, self.arrival.client.clone())
    }
}

/// What comes with a message of this client.
#[must_use]
pub fn transaction(message: &Message, client: Client) -> Transaction {
    let view = Arc::clone(&VIEW);
    let address = |text: &str| Address::parse(text).ok();
    let to = Domain::parse("example.test").ok();
    let recipients = address("somebody@example.test").into_iter().zip(to).map(|(address, domain)| Recipient {
        address,
        policy: Arc::clone(&view.state_policy),
        route: Route::Internet { domain, relays: Vec::new() },
        class: TrustClass::Internet,
        notification: Notification::default(),
    });
    let sender = message.field("return-path").and_then(|path| address(path.trim_matches(['<', '>'])));
    Transaction {
        id: TransactionId::fresh(),
        recipients: recipients.collect(),
        client,
        reverse_path: sender.map_or(ReversePath::Null, ReversePath::Address),
        handling: Handling::default(),
        view,
    }
}
