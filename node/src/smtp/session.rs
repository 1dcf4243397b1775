//! A session: what the server has heard so far on a connection and what it says next. Pure: it is handed each line with
//! the View and hands back what the connection must do.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use proto::{
    address::{Address, Domain, ReversePath},
    held::TransactionId,
    view::View,
};

use super::{
    admission,
    command::Command,
    line::Line,
    reply::{Class, Reply},
    transaction::{Client, Listener, Route, Transaction},
};
use crate::limits::Limits;

/// What all sessions of a server share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name, by which operators drain it.
    pub node: String,
    /// What the server calls itself.
    pub hostname: Domain,
    /// Whether it has a certificate.
    pub tls_offered: bool,
    /// Bounds.
    pub limits: Limits,
}

/// What holds while one line is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'v> {
    /// The newest view; MAIL fixes it for the transaction.
    pub view: &'v Arc<View>,
    /// Whether it, and the view of the transaction under way, is young enough to accept mail under (promise 9).
    pub view_fresh: bool,
    /// For a transaction that begins with this line.
    pub fresh_id: TransactionId,
    /// Whether the client has sent more than this line already.
    pub more_input: bool,
}

/// What the connection must do.
#[derive(Clone, Debug)]
pub enum Step {
    /// Send this; the next line comes.
    Reply(Reply),
    /// Send this, do the handshake, call [`Session::tls_started`].
    StartTls(Reply),
    /// Send `reply`, read the message, have it delivered, and hand the outcome to [`Session::finished`].
    ReadData {
        /// 354.
        reply: Reply,
        /// What the message belongs to. The session has already forgotten it, whatever comes of the message.
        transaction: Box<Transaction>,
        /// The largest that one of the recipients' policies allows, and no more than the server's bound.
        bytes_max: usize,
    },
    /// Send this and close.
    Close(Reply),
}

/// What the client calls itself, and whether it said so with EHLO.
#[derive(Clone, Debug)]
struct Hello {
    name: String,
    extended: bool,
}

/// A transaction under way, with what only RCPT and DATA need.
#[derive(Debug)]
struct Open {
    transaction: Transaction,
    /// SIZE= of MAIL, in bytes.
    declared_bytes: u64,
    /// The largest bound of a recipient so far. Whose own is smaller is refused its copy by the decision: one recipient's
    /// bound must not bounce the mail of all.
    bytes_max: u64,
    /// Recipients in the form in which they are the same mailbox.
    mailboxes: HashSet<String>,
    /// RCPT commands, whatever came of them.
    rcpt_commands: usize,
}

/// The server's side of a conversation.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    address: IpAddr,
    listener: Listener,
    tls: bool,
    hello: Option<Hello>,
    open: Option<Open>,
    errors: u32,
    idle_commands: u32,
}

impl Session {
    /// A session with a client that has just connected.
    #[must_use]
    pub fn new(settings: Arc<Settings>, address: IpAddr, listener: Listener) -> Self {
        Self { settings, address, listener, tls: false, hello: None, open: None, errors: 0, idle_commands: 0 }
    }

    /// What is said first: 220, or a farewell to a stranger on the private network or to a client that spoke before its
    /// turn.
    #[must_use]
    pub fn greeting(&self, moment: &Moment<'_>) -> Step {
        if moment.more_input {
            return Step::Close(Reply::permanent(54, (5, 1), "you spoke before the greeting"));
        }
        if moment.view.is_drained(&self.settings.node) {
            return Step::Close(drained());
        }
        match self.listener {
            Listener::Departments if moment.view.policy_version == 0 => {
                Step::Close(Reply::temporary(21, (3, 0), "no policy yet; come back later"))
            }
            Listener::Departments if moment.view.tenant_at(self.address).is_none() => {
                Step::Close(Reply::permanent(54, (7, 1), "you are no department's mail server"))
            }
            Listener::Departments | Listener::Internet => {
                Step::Reply(Reply::plain(Class::Done, 20, vec![format!("{} ESMTP Postern", self.settings.hostname)]))
            }
        }
    }

    /// Whether MAIL was accepted and the transaction has not ended.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// The view that MAIL has fixed for the transaction under way.
    #[must_use]
    pub fn view(&self) -> Option<&Arc<View>> {
        self.open.as_ref().map(|open| &open.transaction.view)
    }

    /// Whether the connection is under TLS.
    #[must_use]
    pub fn under_tls(&self) -> bool {
        self.tls
    }

    /// Looks at one line of input.
    pub fn step(&mut self, line: &Line, moment: &Moment<'_>) -> Step {
        self.idle_commands += 1;
        let line = match line {
            Line::Complete(line) => line,
            Line::TooLong => return self.refused(Reply::permanent(0, (5, 2), "the line is too long")),
            Line::BareEnd => return self.refused(Reply::permanent(0, (5, 2), "a line ends with CRLF")),
        };
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(reply) => return self.refused(reply),
        };
        if moment.more_input && self.must_wait_for_reply(&command) {
            self.open = None;
            return Step::Close(if command == Command::StartTls {
                Reply::permanent(1, (5, 4), "more came with STARTTLS")
            } else {
                Reply::permanent(54, (5, 1), "you did not wait for the reply")
            });
        }
        match self.may_come(&command) {
            Ok(()) => self.obey(command, moment),
            Err(reply) => self.refused(reply),
        }
    }

    /// After these the client may send nothing until it has the reply (RFC 2920 section 3.1, RFC 3207 section 4); a client
    /// that was not told of PIPELINING, after none. Who does not wait is blind to our answers: a bot or an attack.
    fn must_wait_for_reply(&self, command: &Command) -> bool {
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        match command {
            Command::Ehlo(_) | Command::Helo(_) | Command::Data | Command::StartTls => true,
            Command::Quit => false,
            Command::Mail { .. } | Command::Rcpt { .. } | Command::Rset | Command::Noop | Command::Vrfy => !extended,
        }
    }

    /// The table of what may come when.
    fn may_come(&self, command: &Command) -> Result<(), Reply> {
        let bad_sequence = |text: &str| Err(out_of_turn(text));
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        match command {
            Command::Ehlo(_) | Command::Helo(_) | Command::Rset | Command::Noop | Command::Quit | Command::Vrfy => {
                Ok(())
            }
            Command::StartTls if !self.settings.tls_offered => Err(Reply::permanent(2, (5, 1), "no TLS here")),
            Command::StartTls if self.tls => bad_sequence("TLS is on already"),
            Command::StartTls if !extended => Err(hello_first()),
            Command::Mail { .. } if self.hello.is_none() => Err(hello_first()),
            Command::Mail { .. } if self.open.is_some() => bad_sequence("a transaction is under way; RSET ends it"),
            Command::Rcpt { .. } | Command::Data if self.open.is_none() => Err(mail_first()),
            Command::Data if self.open.as_ref().is_some_and(|open| open.transaction.recipients.is_empty()) => {
                Err(Reply::permanent(54, (5, 1), "no recipient was accepted"))
            }
            Command::StartTls | Command::Mail { .. } | Command::Rcpt { .. } | Command::Data => Ok(()),
        }
    }

    fn obey(&mut self, command: Command, moment: &Moment<'_>) -> Step {
        let done = |text: &str| Reply::done(50, (0, 0), text);
        let outcome = match command {
            Command::Ehlo(name) => Ok(self.hello(name, true)),
            Command::Helo(name) => Ok(self.hello(name, false)),
            // What is under way ends; the next message goes to another node.
            Command::Mail { .. } if moment.view.is_drained(&self.settings.node) => return Step::Close(drained()),
            Command::Mail { reverse_path, size_bytes } => self.mail(reverse_path, size_bytes, moment),
            Command::Rcpt { forward_path } => return self.rcpt(forward_path),
            Command::Data => return self.data(moment),
            Command::Rset => {
                self.open = None;
                Ok(done("forgotten"))
            }
            Command::Noop => Ok(done("OK")),
            Command::Vrfy => Ok(Reply::done(52, (0, 0), "send some mail and see")),
            Command::Quit => {
                self.open = None;
                return Step::Close(Reply::done(21, (0, 0), "goodbye"));
            }
            Command::StartTls => {
                self.open = None;
                return Step::StartTls(Reply::done(20, (0, 0), "go ahead"));
            }
        };
        match outcome {
            Ok(reply) => self.answered(reply),
            Err(reply) => self.refused(reply),
        }
    }

    fn hello(&mut self, name: String, extended: bool) -> Reply {
        self.open = None;
        self.hello = Some(Hello { name, extended });
        let mut lines = vec![self.settings.hostname.to_string()];
        if extended {
            lines.push("PIPELINING".into());
            lines.push(format!("SIZE {}", self.settings.limits.message_bytes_max));
            lines.push("8BITMIME".into());
            lines.push("ENHANCEDSTATUSCODES".into());
            if self.settings.tls_offered && !self.tls {
                lines.push("STARTTLS".into());
            }
        }
        Reply::plain(Class::Done, 50, lines)
    }

    fn mail(&mut self, path: ReversePath, size: Option<u64>, moment: &Moment<'_>) -> Result<Reply, Reply> {
        let view = moment.view;
        let hello = self.hello.clone().ok_or_else(hello_first)?;
        if view.policy_version == 0 || !moment.view_fresh {
            return Err(outdated());
        }
        let bytes_max = self.settings.limits.message_bytes_max as u64;
        let declared_bytes = size.unwrap_or(0);
        if declared_bytes > bytes_max {
            return Err(Reply::permanent(52, (3, 4), format!("more than {bytes_max} bytes are not taken")));
        }
        let department = admission::sender(view, self.listener, self.address, &path)?;
        let client = Client {
            address: self.address,
            listener: self.listener,
            helo: hello.name,
            extended: hello.extended,
            tls: self.tls,
            department,
        };
        let transaction = Transaction {
            id: moment.fresh_id,
            view: Arc::clone(view),
            client,
            reverse_path: path,
            recipients: Vec::new(),
        };
        self.open =
            Some(Open { transaction, declared_bytes, bytes_max: 0, mailboxes: HashSet::new(), rcpt_commands: 0 });
        Ok(Reply::done(50, (1, 0), "sender OK"))
    }

    /// RCPT does not count as idle, so that a transaction may have all its recipients; it has a bound of its own.
    fn rcpt(&mut self, address: Address) -> Step {
        self.idle_commands = self.idle_commands.saturating_sub(1);
        let limits = &self.settings.limits;
        let Some(open) = &mut self.open else { return self.refused(mail_first()) };
        open.rcpt_commands += 1;
        if open.rcpt_commands > limits.recipients_max.saturating_mul(2) {
            return self.too_much("too many recipients");
        }
        match open.add(self.listener, address, limits.recipients_max) {
            Ok(()) => Step::Reply(Reply::done(50, (1, 5), "recipient OK")),
            // A department's own server passes on what its people typed; wrong addresses are no attack.
            Err(reply) if self.listener == Listener::Departments => Step::Reply(reply),
            Err(reply) => self.refused(reply),
        }
    }

    fn data(&mut self, moment: &Moment<'_>) -> Step {
        let Some(open) = self.open.take() else { return self.refused(mail_first()) };
        // A client may have kept the transaction open for long.
        if !moment.view_fresh {
            return self.refused(outdated());
        }
        self.idle_commands = self.idle_commands.saturating_sub(1);
        let message_bytes_max = self.settings.limits.message_bytes_max;
        Step::ReadData {
            reply: Reply::plain(Class::Continue, 54, vec!["end with CRLF.CRLF".into()]),
            transaction: Box::new(open.transaction),
            bytes_max: usize::try_from(open.bytes_max).unwrap_or(usize::MAX).min(message_bytes_max),
        }
    }

    /// What became of the message after [`Step::ReadData`].
    pub fn finished(&mut self, reply: Reply) -> Step {
        self.idle_commands = 0;
        self.open = None;
        Step::Reply(reply)
    }

    /// The handshake is done: all that was said in the clear is forgotten (RFC 3207 section 4.2).
    pub fn tls_started(&mut self) {
        self.tls = true;
        self.hello = None;
        self.open = None;
    }

    /// A command was done. Endless harmless commands end too.
    fn answered(&mut self, reply: Reply) -> Step {
        if self.idle_commands > self.settings.limits.idle_commands_max {
            return self.too_much("too many commands without a message");
        }
        Step::Reply(reply)
    }

    /// A command was not done. Only what is for good counts as an error.
    fn refused(&mut self, reply: Reply) -> Step {
        if reply.class() == Class::Permanent {
            self.errors += 1;
        }
        if self.errors > self.settings.limits.errors_max {
            return self.too_much("too many errors");
        }
        self.answered(reply)
    }

    fn too_much(&mut self, text: &str) -> Step {
        self.open = None;
        Step::Close(Reply::temporary(21, (7, 0), text))
    }
}

fn out_of_turn(text: &str) -> Reply {
    Reply::permanent(3, (5, 1), text)
}

fn hello_first() -> Reply {
    out_of_turn("EHLO first")
}

fn mail_first() -> Reply {
    out_of_turn("MAIL first")
}

/// RFC 3463 section 3.4: X.3.2, the system is not accepting messages.
fn drained() -> Reply {
    Reply::temporary(21, (3, 2), "this server takes no new mail now; try another one")
}

fn outdated() -> Reply {
    Reply::temporary(51, (3, 0), "policy is not up to date here; come back later")
}

impl Open {
    fn add(&mut self, listener: Listener, address: Address, recipients_max: usize) -> Result<(), Reply> {
        let recipient = admission::recipient(&self.transaction.view, listener, address)?;
        // Our departments' servers do not tell upper from lower case; others may.
        let mailbox = match recipient.route {
            Route::Department { .. } => recipient.address.key(),
            Route::Internet { .. } => recipient.address.to_string(),
        };
        if self.mailboxes.contains(&mailbox) {
            return Ok(());
        }
        if self.transaction.recipients.len() >= recipients_max {
            return Err(Reply::temporary(52, (5, 3), "too many recipients; send the rest in another transaction"));
        }
        let bytes_max = recipient.policy.message_bytes_max.value;
        if self.declared_bytes > bytes_max {
            return Err(Reply::permanent(52, (3, 4), format!("the recipient takes no more than {bytes_max} bytes")));
        }
        self.bytes_max = self.bytes_max.max(bytes_max);
        self.mailboxes.insert(mailbox);
        self.transaction.recipients.push(recipient);
        Ok(())
    }
}
