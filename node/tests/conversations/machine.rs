//! The session with its decoders and without a socket: bytes in, reply lines out. What a connection does, but for time.

use std::{net::IpAddr, sync::Arc};

use bytes::{Buf, BytesMut};
use node::smtp::{
    data::DataDecoder,
    line::LineDecoder,
    reply::Reply,
    session::{Moment, Session, Settings, Step},
    transaction::{Listener, Transaction},
};
use proto::{held::TransactionId, view::View};

pub(crate) struct Machine {
    pub(crate) session: Session,
    pub(crate) view: Arc<View>,
    pub(crate) view_fresh: bool,
    pub(crate) closed: bool,
    /// What was delivered.
    pub(crate) messages: Vec<(Transaction, Vec<u8>)>,
    lines: LineDecoder,
    input: BytesMut,
    data: Option<(DataDecoder, Transaction)>,
    output: String,
}

impl Machine {
    pub(crate) fn new(settings: Settings, client: IpAddr, listener: Listener, view: Arc<View>) -> Self {
        let lines = LineDecoder::new(settings.limits.line_bytes_max);
        Self {
            session: Session::new(Arc::new(settings), client, listener),
            view,
            view_fresh: true,
            closed: false,
            messages: Vec::new(),
            lines,
            input: BytesMut::new(),
            data: None,
            output: String::new(),
        }
    }

    pub(crate) fn greeting(&mut self) -> String {
        let view = Arc::clone(&self.view);
        let step = self.session.greeting(&self.moment(&view));
        self.take(step);
        std::mem::take(&mut self.output)
    }

    /// Whether the client is in the midst of a message.
    pub(crate) fn reads_data(&self) -> bool {
        self.data.is_some()
    }

    /// One segment of input; gives all that is said to it.
    pub(crate) fn send(&mut self, segment: &[u8]) -> String {
        self.input.extend_from_slice(segment);
        while !self.closed {
            if self.data.is_some() {
                if !self.read_data() {
                    break;
                }
            } else if let Some(line) = self.lines.cut(&mut self.input) {
                let view = Arc::clone(&self.view);
                let moment = self.moment(&view);
                let step = self.session.step(&line, &moment);
                self.take(step);
            } else {
                break;
            }
        }
        std::mem::take(&mut self.output)
    }

    fn moment<'v>(&self, view: &'v Arc<View>) -> Moment<'v> {
        let fresh_id = TransactionId::parse("01J00000000000000000000000").expect("an id");
        Moment { view, view_fresh: self.view_fresh, fresh_id, more_input: !self.input.is_empty() }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Reply(reply) => self.say(&reply),
            Step::Close(reply) => {
                self.say(&reply);
                self.output.push_str("(closed)\r\n");
                self.closed = true;
            }
            Step::StartTls(reply) => {
                self.say(&reply);
                self.output.push_str("(handshake)\r\n");
                self.session.tls_started();
            }
            Step::ReadData { reply, transaction, bytes_max } => {
                self.say(&reply);
                self.data = Some((DataDecoder::new(bytes_max), *transaction));
            }
        }
    }

    fn read_data(&mut self) -> bool {
        let Some((decoder, _)) = &mut self.data else { return false };
        let ended = decoder.feed(&self.input);
        self.input.advance(ended.unwrap_or(self.input.len()));
        if ended.is_none() {
            return false;
        }
        let Some((decoder, transaction)) = self.data.take() else { return false };
        let reply = match decoder.finish() {
            Ok(bytes) => {
                let reply = Reply::done(50, (0, 0), summary(&transaction, bytes.len()));
                self.messages.push((transaction, bytes.to_vec()));
                reply
            }
            Err(fault) => fault.reply(),
        };
        let step = self.session.finished(reply);
        self.take(step);
        true
    }

    fn say(&mut self, reply: &Reply) {
        self.output.push_str(&reply.to_string());
    }
}

fn summary(transaction: &Transaction, length: usize) -> String {
    let to: Vec<String> =
        transaction.recipients.iter().map(|to| format!("{} ({})", to.address, to.class.as_str())).collect();
    let client = &transaction.client;
    format!(
        "taken: {length} bytes from <{}> to {}; {}{}{}, policy {}",
        transaction.reverse_path,
        to.join(", "),
        client.helo,
        if client.tls { ", TLS" } else { "" },
        client.department.as_ref().map_or_else(String::new, |id| format!(", server of {id}")),
        transaction.view.policy_version,
    )
}
