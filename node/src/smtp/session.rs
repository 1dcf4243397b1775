//! A session: what the server has heard so far on a connection and what it says next. Pure: it is handed each line with
//! the View and hands back what the connection must do.

mod message;
mod order;

use std::{net::IpAddr, sync::Arc};

use proto::{
    address::{Address, ReversePath},
    envelope::Notification,
    reputation::{Repute, Stance},
    verdict::Reason,
    view::{CLIENT_SCORE_MAX, View},
};

use super::{
    admission,
    command::{self, Command},
    demand::{Channel, TlsDemand},
    extensions,
    fixed::{drained, hello_first, mail_first, outdated},
    line::{self, Line},
    open::Open,
    parameters::MailParameters,
    reply::{Class, Reply},
    step::{Moment, Question, Settings, Step},
    transaction::{Client, Listener, Met, Transaction},
    xclient::Claim,
};

/// What the client calls itself, and whether it said so with EHLO.
#[derive(Clone, Debug)]
struct Hello {
    name: String,
    extended: bool,
}

/// Whether the peer may say XCLIENT, and has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proxy {
    No,
    May,
    Speaks,
}

/// The server's side of a conversation.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    address: IpAddr,
    listener: Listener,
    proxy: Proxy,
    demand: TlsDemand,
    channel: Channel,
    /// What was found out about the client when it connected.
    met: Met,
    hello: Option<Hello>,
    open: Option<Open>,
    errors: u32,
    idle_commands: u32,
}

impl Session {
    /// A session with a client that has just connected.
    #[must_use]
    pub fn new(settings: Arc<Settings>, address: IpAddr, listener: Listener) -> Self {
        let listed = settings.xclient.iter().any(|network| network.contains(&address));
        Self {
            settings,
            address,
            listener,
            proxy: if listed { Proxy::May } else { Proxy::No },
            demand: TlsDemand::None,
            channel: Channel::Clear,
            met: Met::default(),
            hello: None,
            open: None,
            errors: 0,
            idle_commands: 0,
        }
    }

    /// The same for a client of whom this is demanded.
    #[must_use]
    pub fn demanding(mut self, demand: TlsDemand) -> Self {
        self.demand = demand;
        self
    }

    /// This is demanded too: the stricter demand counts.
    pub fn demand_also(&mut self, demand: TlsDemand) {
        self.demand = self.demand.max(demand);
    }

    /// What is said first: 220, or a farewell to a stranger on the private network, to one there that spoke before its turn, or
    /// to a client of whom too little good is known. What early talk counts on the Internet, policy says.
    #[must_use]
    pub fn greeting(&self, moment: &Moment<'_>, client: Repute) -> Step {
        if moment.more_input && self.listener == Listener::Departments {
            let reply = Reply::permanent(54, (5, 1), "you spoke before the greeting");
            return Step::Close(reply.because("EARLY_TALK"));
        }
        if moment.drained {
            return Step::Close(drained());
        }
        match self.listener {
            Listener::Departments if moment.view.policy_version == 0 => {
                Step::Close(Reply::temporary(21, (3, 0), "no policy yet; come back later").because("NO_POLICY"))
            }
            // One that speaks for others has yet to say for whom; as itself it gets no further than MAIL.
            Listener::Departments if moment.view.tenant_at(self.address).is_none() && self.proxy != Proxy::May => {
                Step::Close(
                    Reply::permanent(54, (7, 1), "you are no department's mail server").because("NO_DEPARTMENT"),
                )
            }
            Listener::Internet if client.stance == Some(Stance::Block) => {
                Step::Close(Reply::permanent(54, (7, 1), "an operator has blocked your address").because("BLOCKED"))
            }
            Listener::Internet if client.stance.is_none() && client.score > refuse_above(moment.view) => Step::Close(
                Reply::temporary(21, (7, 0), "much bad mail came from your address; come back later")
                    .because("REPUTATION"),
            ),
            Listener::Departments | Listener::Internet => self.banner(),
        }
    }

    /// What is said first to a client that was asked about: 220, or a refusal when nobody at all would take its mail.
    pub fn met(&mut self, met: Met, refusal: Option<Reply>) -> Step {
        self.met = met;
        refusal.map_or_else(|| self.banner(), Step::Close)
    }

    fn banner(&self) -> Step {
        Step::Reply(Reply::plain(Class::Done, 20, vec![format!("{} ESMTP Postern", self.settings.hostname)]))
    }

    /// The transaction under way.
    #[must_use]
    pub fn transaction(&self) -> Option<&Transaction> {
        self.open.as_ref().map(|open| &open.transaction)
    }

    /// Whether MAIL was accepted and the transaction has not ended.
    #[must_use]
    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// The view that MAIL has fixed for the transaction under way.
    #[must_use]
    pub fn view(&self) -> Option<&Arc<View>> {
        self.transaction().map(|transaction| &transaction.view)
    }

    /// Whether it is a listed proxy that has not said yet for whom it speaks.
    #[must_use]
    pub fn may_name_its_client(&self) -> bool {
        self.proxy == Proxy::May
    }

    /// Where the client came in.
    #[must_use]
    pub fn listener(&self) -> Listener {
        self.listener
    }

    /// Whether the connection is under TLS.
    #[must_use]
    pub fn under_tls(&self) -> bool {
        self.channel != Channel::Clear
    }

    /// Looks at one line of input.
    pub fn step(&mut self, line: &Line, moment: &Moment<'_>) -> Step {
        self.idle_commands += 1;
        let line = match line {
            Line::Complete(line) => line,
            Line::TooLong => {
                return self.refused(Reply::permanent(0, (5, 2), "the line is too long").because("LINE_TOO_LONG"));
            }
            // What follows may be a message, and where it ends nobody knows.
            Line::BrokenChunk => return self.close(Reply::permanent(1, (5, 4), "that is no BDAT command")),
            Line::BareEnd => {
                return self.refused(Reply::permanent(0, (5, 2), "a line ends with CRLF").because("BARE_LINE_END"));
            }
        };
        let command = match Command::parse(line) {
            Ok(command) => command,
            // What follows may be a message, and where it ends nobody knows.
            Err(reply) if line::is_bdat(line) => return self.close(reply),
            Err(reply) => return self.refused(reply),
        };
        if moment.more_input && self.must_wait_for_reply(&command) {
            return self.close(
                if command == Command::StartTls {
                    Reply::permanent(1, (5, 4), "more came with STARTTLS")
                } else {
                    Reply::permanent(54, (5, 1), "you did not wait for the reply")
                }
                .because("EARLY_TALK"),
            );
        }
        match (self.may_come(&command), command) {
            (Ok(()), command) => self.obey(command, moment),
            (Err(reply), Command::Bdat { bytes, .. }) => self.skip(bytes, reply),
            (Err(reply), _) => self.refused(reply),
        }
    }

    fn obey(&mut self, command: Command, moment: &Moment<'_>) -> Step {
        let done = |text: &str| Reply::done(50, (0, 0), text);
        let outcome = match command {
            Command::Ehlo(name) => Ok(self.hello(name, true)),
            Command::Helo(name) => Ok(self.hello(name, false)),
            // What is under way ends; the next message goes to another node.
            Command::Mail { .. } if moment.drained => return Step::Close(drained()),
            Command::Mail { reverse_path, parameters } => {
                return match self.mail(reverse_path, parameters, moment) {
                    Ok(()) => Step::Ask(Question::Sender),
                    Err(reply) => self.refused(reply),
                };
            }
            Command::Rcpt { forward_path, utf8, notification } => return self.rcpt(forward_path, utf8, notification),
            Command::Data => return self.data(moment),
            Command::Bdat { bytes, last } => return self.chunk(bytes, last, moment),
            Command::Rset => {
                self.open = None;
                Ok(done("forgotten"))
            }
            Command::Noop => Ok(done("OK")),
            Command::Vrfy => Ok(Reply::done(52, (0, 0), "send some mail and see")),
            Command::Quit => return self.close(Reply::done(21, (0, 0), "goodbye")),
            Command::Xclient(Ok(claim)) => return self.speaks_for(*claim),
            Command::Xclient(Err(reply)) => Err(reply),
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
            let (offered, tls) = (self.demand.offers(), self.under_tls());
            lines.extend(extensions::keywords(&self.settings.limits, (offered, tls), self.proxy != Proxy::No));
        }
        Reply::plain(Class::Done, 50, lines)
    }

    /// The session begins anew as the client's, and only TLS and what counts against the peer stay. What was said of the
    /// client holds until EHLO or HELO says otherwise.
    fn speaks_for(&mut self, claim: Claim) -> Step {
        if self.idle_commands > self.settings.limits.idle_commands_max {
            return self.too_much("too many commands without a message", "TOO_MANY_COMMANDS");
        }
        let Claim { address, helo, extended } = claim;
        self.open = None;
        self.met = Met::default();
        self.hello = helo.map(|name| Hello { name, extended });
        if let Some(address) = address {
            (self.address, self.proxy) = (address, Proxy::Speaks);
        }
        Step::Anew { client: self.address }
    }

    fn mail(&mut self, path: ReversePath, asked: MailParameters, moment: &Moment<'_>) -> Result<(), Reply> {
        let view = moment.view;
        let hello = self.hello.clone().ok_or_else(hello_first)?;
        if view.policy_version == 0 || !moment.view_fresh {
            return Err(outdated());
        }
        let bytes_max = self.settings.limits.message_bytes_max as u64;
        // RFC 8689 section 2 forbids it in the clear, where what asks for it may have been changed already.
        if asked.handling.require_tls && !self.under_tls() {
            return Err(Reply::permanent(30, (7, 10), "REQUIRETLS needs TLS"));
        }
        let declared_bytes = asked.size_bytes.unwrap_or(0);
        if declared_bytes > bytes_max {
            return Err(Reply::permanent(52, (3, 4), format!("more than {bytes_max} bytes are not taken"))
                .because("MESSAGE_TOO_LARGE"));
        }
        let department = admission::sender(view, self.listener, self.address, &path)?;
        let Met { name, reasons } = self.met.clone();
        let client = Client {
            address: self.address,
            listener: self.listener,
            helo: hello.name,
            extended: hello.extended,
            tls: self.under_tls(),
            declined_tls: hello.extended && self.demand.offers() && !self.under_tls() && self.proxy != Proxy::Speaks,
            name,
            department,
            reasons,
        };
        let transaction = Transaction {
            id: moment.fresh_id,
            view: Arc::clone(view),
            client,
            reverse_path: path,
            handling: asked.handling,
            recipients: Vec::new(),
        };
        self.open = Some(Open::new(transaction, declared_bytes));
        Ok(())
    }

    /// What is said to a MAIL or RCPT after [`Step::Ask`]: yes, with what more speaks for or against the client, or this reply.
    pub fn judged(&mut self, question: Question, answer: Result<Vec<Reason>, Reply>) -> Step {
        match (question, answer) {
            (Question::Sender, Ok(reasons)) => {
                if let Some(open) = &mut self.open {
                    open.transaction.client.reasons.extend(reasons);
                }
                self.answered(Reply::done(50, (1, 0), "sender OK"))
            }
            (Question::Recipient, Ok(_)) => Step::Reply(Reply::done(50, (1, 5), "recipient OK")),
            (Question::Sender, Err(reply)) => {
                self.open = None;
                self.refused(reply)
            }
            (Question::Recipient, Err(reply)) => {
                if let Some(open) = &mut self.open {
                    open.take_back();
                }
                self.no_recipient(reply)
            }
        }
    }

    /// A recipient was refused. A department's own server passes on what its people typed; wrong addresses are no attack.
    fn no_recipient(&mut self, reply: Reply) -> Step {
        match self.listener {
            Listener::Departments => Step::Reply(reply),
            Listener::Internet => self.refused(reply),
        }
    }

    /// Ends the conversation with this reply, whatever is under way.
    pub fn turn_away(&mut self, reply: Reply) -> Step {
        self.close(reply)
    }

    /// RCPT does not count as idle, so that a transaction may have all its recipients; it has a bound of its own.
    fn rcpt(&mut self, address: Address, utf8: bool, notification: Notification) -> Step {
        self.idle_commands = self.idle_commands.saturating_sub(1);
        let limits = &self.settings.limits;
        let Some(open) = &mut self.open else { return self.refused(mail_first()) };
        open.rcpt_commands += 1;
        if open.rcpt_commands > limits.recipients_max.saturating_mul(2) {
            return self.too_much("too many recipients", "TOO_MANY_RECIPIENTS");
        }
        if utf8 && !open.transaction.handling.smtputf8 {
            return self.no_recipient(command::needs_smtputf8());
        }
        match open.add(self.listener, address, notification, limits.recipients_max) {
            Ok(true) => Step::Ask(Question::Recipient),
            Ok(false) => self.judged(Question::Recipient, Ok(Vec::new())),
            Err(reply) => self.no_recipient(reply),
        }
    }

    /// The handshake is done: all that was said in the clear is forgotten (RFC 3207 section 4.2).
    /// `certified`: the client has shown a certificate of a CA that is trusted for this.
    pub fn tls_started(&mut self, certified: bool) {
        self.channel = Channel::Tls { certified };
        self.hello = None;
        self.open = None;
    }

    /// A command was done. Endless harmless commands end too.
    fn answered(&mut self, reply: Reply) -> Step {
        if self.idle_commands > self.settings.limits.idle_commands_max {
            return self.too_much("too many commands without a message", "TOO_MANY_COMMANDS");
        }
        Step::Reply(reply)
    }

    /// A command was not done. Only what is for good counts as an error.
    fn refused(&mut self, reply: Reply) -> Step {
        if reply.class() == Class::Permanent {
            self.errors += 1;
        }
        if self.errors > self.settings.limits.errors_max {
            return self.too_much("too many errors", "TOO_MANY_ERRORS");
        }
        self.answered(reply)
    }

    fn too_much(&mut self, text: &str, rule: &'static str) -> Step {
        self.close(Reply::temporary(21, (7, 0), text).because(rule))
    }

    fn close(&mut self, reply: Reply) -> Step {
        self.open = None;
        Step::Close(reply)
    }
}

/// The worst score of reputation with which a client may come in.
fn refuse_above(view: &View) -> i16 {
    view.settings.client_score_max.unwrap_or(CLIENT_SCORE_MAX)
}
