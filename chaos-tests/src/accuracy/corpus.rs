//! Sorted mail: folders `ham`, `spam` and `phish` of messages, named `COLLECTION__DIGEST.eml`.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::{Arc, LazyLock},
};

use anyhow::{Context as _, ensure};
use node::{
    message::Message,
    smtp::transaction::{Client, Listener, Recipient, Route, Transaction, TrustClass},
};
use proto::{
    address::{Address, Domain, ReversePath},
    envelope::{Handling, Notification},
    held::TransactionId,
    view::{StateSettings, View, ViewChange},
};

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
    /// As it would come over SMTP: lines end with CRLF.
    pub bytes: Vec<u8>,
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
            all.push(Sorted { bytes: with_crlf(&bytes), name, collection, class });
        }
    }
    ensure!(!all.is_empty(), "no messages in {}: it should have folders named ham, spam or phish", folder.display());
    Ok(all)
}

/// Wanted letters that somebody has written down, parted by lines of five equals signs: a collection of its own.
#[must_use]
pub fn letters(text: &str) -> Vec<Sorted> {
    let letter = |(at, text): (usize, &str)| Sorted {
        name: format!("letters__{at}"),
        collection: "letters".to_owned(),
        class: Class::Ham,
        bytes: with_crlf(text.as_bytes()),
    };
    text.split("=====\n").enumerate().map(letter).collect()
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

/// The envelope of a message: its own sender, where it names one, from the Internet to somebody.
#[must_use]
pub fn transaction(message: &Message) -> Transaction {
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
        client: Client {
            address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            listener: Listener::Internet,
            helo: "mail.example.net".into(),
            extended: true,
            tls: true,
            department: None,
            reasons: Vec::new(),
        },
        reverse_path: sender.map_or(ReversePath::Null, ReversePath::Address),
        handling: Handling::default(),
        view,
    }
}
