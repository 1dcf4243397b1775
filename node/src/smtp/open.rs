//! A transaction under way: what MAIL has begun, RCPT adds to and DATA or the last BDAT takes.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use proto::{address::Address, envelope::Notification};

use super::{
    admission,
    reply::Reply,
    transaction::{Listener, Recipient, Route, Transaction},
};

/// What all recipients of a transaction may have in ORCPT, in bytes; more go into another transaction.
const NOTIFICATION_BYTES_MAX: usize = 128 * 1024;

/// A transaction under way, with what only RCPT, DATA and BDAT need.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) transaction: Transaction,
    /// SIZE= of MAIL, in bytes.
    declared_bytes: u64,
    /// The largest bound of a recipient so far. Whose own is smaller is refused its copy by the decision: one recipient's
    /// bound must not bounce the mail of all.
    bytes_max: u64,
    /// Where in the recipients a mailbox is, by its hash: a text each would make a third of what a transaction costs.
    mailboxes: HashMap<u64, usize>,
    /// Bytes of their ORCPT.
    notification_bytes: usize,
    /// RCPT commands, whatever came of them.
    pub(super) rcpt_commands: usize,
    /// A first chunk has come: the recipients are final, and only further chunks are the message.
    pub(super) in_chunks: bool,
}

impl Open {
    pub(super) fn new(transaction: Transaction, declared_bytes: u64) -> Self {
        let mailboxes = HashMap::new();
        Self {
            transaction,
            declared_bytes,
            bytes_max: 0,
            mailboxes,
            notification_bytes: 0,
            rcpt_commands: 0,
            in_chunks: false,
        }
    }

    /// The largest message that one of the recipients takes, and no more than `limit`.
    pub(super) fn bytes_max(&self, limit: usize) -> usize {
        usize::try_from(self.bytes_max).unwrap_or(usize::MAX).min(limit)
    }

    /// Adds a recipient; false for one that is there already, which is no error.
    pub(super) fn add(
        &mut self,
        listener: Listener,
        address: Address,
        notification: Notification,
        recipients_max: usize,
    ) -> Result<bool, Reply> {
        let mut recipient = admission::recipient(&self.transaction.view, listener, address)?;
        let mailbox = mailbox(&recipient);
        let hash = hash(&mailbox);
        // Of two mailboxes with one hash the later one might be added twice, which is no worse than a second copy.
        let known = self.mailboxes.get(&hash).and_then(|at| self.transaction.recipients.get(*at));
        if known.is_some_and(|known| self::mailbox(known) == mailbox) {
            return Ok(false);
        }
        let notification_bytes = self.notification_bytes + notification.bytes();
        if self.transaction.recipients.len() >= recipients_max || notification_bytes > NOTIFICATION_BYTES_MAX {
            return Err(Reply::temporary(52, (5, 3), "too many recipients; send the rest in another transaction")
                .because("TOO_MANY_RECIPIENTS"));
        }
        let bytes_max = recipient.policy.message_bytes_max.value;
        if self.declared_bytes > bytes_max {
            return Err(Reply::permanent(52, (3, 4), format!("the recipient takes no more than {bytes_max} bytes"))
                .because("MESSAGE_TOO_LARGE"));
        }
        self.bytes_max = self.bytes_max.max(bytes_max);
        self.mailboxes.entry(hash).or_insert(self.transaction.recipients.len());
        self.notification_bytes = notification_bytes;
        recipient.notification = notification;
        self.transaction.recipients.push(recipient);
        Ok(true)
    }

    /// Takes the last recipient out again.
    pub(super) fn take_back(&mut self) {
        let Some(last) = self.transaction.recipients.pop() else { return };
        let (hash, at) = (hash(&mailbox(&last)), self.transaction.recipients.len());
        if self.mailboxes.get(&hash) == Some(&at) {
            self.mailboxes.remove(&hash);
        }
        self.notification_bytes = self.notification_bytes.saturating_sub(last.notification.bytes());
        let others = self.transaction.recipients.iter().map(|recipient| recipient.policy.message_bytes_max.value);
        self.bytes_max = others.max().unwrap_or(0);
    }
}

/// In the form in which two addresses are the same mailbox. Our departments' servers do not tell upper from lower case; others
/// may.
fn mailbox(recipient: &Recipient) -> String {
    match recipient.route {
        Route::Department { .. } => recipient.address.key(),
        Route::Internet { .. } => recipient.address.to_string(),
    }
}

fn hash(mailbox: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    mailbox.hash(&mut hasher);
    hasher.finish()
}
