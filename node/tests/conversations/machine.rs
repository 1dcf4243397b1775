//! The session with its decoders and without a socket: bytes in, reply lines out. What a connection does, but for time.

use std::{net::IpAddr, sync::Arc};

use bytes::{Buf, BytesMut};
use node::smtp::{
    data::{DataDecoder, DataFault},
    demand::TlsDemand,
    line::LineDecoder,
    reply::Reply,
    session::Session,
    step::{Moment, Settings, Step},
    transaction::{Listener, Recipient, Transaction},
};
use proto::{
    envelope::{Handling, Notification},
    held::TransactionId,
    reputation::Repute,
    view::View,
};

/// What is read instead of a command.
enum Reading {
    Data(DataDecoder, Transaction),
    Chunk {
        left: u64,
        last: Option<Transaction>,
    },
    Skip {
        left: u64,
        reply: Reply,
    },
    /// A first chunk that there is no memory for.
    NoRoom {
        left: u64,
    },
}

pub(crate) struct Machine {
    pub(crate) session: Session,
    pub(crate) view: Arc<View>,
    pub(crate) view_fresh: bool,
    /// What is known of the client.
    pub(crate) client: Repute,
    /// What is known of whom XCLIENT names.
    pub(crate) claimed: Repute,
    pub(crate) closed: bool,
    /// Whether it shows a certificate in the handshake.
    pub(crate) certified: bool,
    /// Whether there is memory for another message.
    pub(crate) room: bool,
    /// What was delivered.
    pub(crate) messages: Vec<(Transaction, Vec<u8>)>,
    lines: LineDecoder,
    input: BytesMut,
    reading: Option<Reading>,
    /// What of a message has come in chunks.
    chunks: Option<DataDecoder>,
    /// How many bytes of it have come.
    received: u64,
    output: String,
}

impl Machine {
    pub(crate) fn new(settings: Settings, client: IpAddr, listener: Listener, view: Arc<View>) -> Self {
        let lines = LineDecoder::new(settings.limits.line_bytes_max);
        Self {
            session: Session::new(Arc::new(settings), client, listener),
            view,
            view_fresh: true,
            client: Repute::default(),
            claimed: Repute::default(),
            closed: false,
            certified: false,
            room: true,
            messages: Vec::new(),
            lines,
            input: BytesMut::new(),
            reading: None,
            chunks: None,
            received: 0,
            output: String::new(),
        }
    }

    pub(crate) fn demanding(mut self, demand: TlsDemand) -> Self {
        self.session = self.session.demanding(demand);
        self
    }

    pub(crate) fn greeting(&mut self) -> String {
        let view = Arc::clone(&self.view);
        let step = self.session.greeting(&self.moment(&view), self.client);
        self.take(step);
        std::mem::take(&mut self.output)
    }

    /// Whether the client is in the midst of a message that DATA has begun.
    pub(crate) fn reads_data(&self) -> bool {
        matches!(self.reading, Some(Reading::Data(..)))
    }

    /// How many bytes of a chunk are still to come.
    pub(crate) fn chunk_left(&self) -> u64 {
        match &self.reading {
            Some(Reading::Chunk { left, .. } | Reading::Skip { left, .. } | Reading::NoRoom { left }) => *left,
            Some(Reading::Data(..)) | None => 0,
        }
    }

    /// Bytes that are kept of messages that have not ended.
    pub(crate) fn kept_bytes(&self) -> usize {
        let data = if let Some(Reading::Data(decoder, _)) = &self.reading { decoder.stored_bytes() } else { 0 };
        self.chunks.as_ref().map_or(data, DataDecoder::stored_bytes)
    }

    /// Bytes that have come and were not looked at.
    pub(crate) fn unread_bytes(&self) -> usize {
        self.input.len()
    }

    /// One segment of input; gives all that is said to it.
    pub(crate) fn send(&mut self, segment: &[u8]) -> String {
        self.input.extend_from_slice(segment);
        while !self.closed {
            if let Some(reading) = self.reading.take() {
                if !self.read(reading) {
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
        let drained = view.is_drained("mx1");
        Moment { view, view_fresh: self.view_fresh, drained, fresh_id, more_input: !self.input.is_empty() }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Reply(reply) => self.say(&reply),
            Step::Close(reply) => {
                self.say(&reply);
                self.output.push_str("(closed)\r\n");
                self.closed = true;
            }
            Step::Ask(question) => {
                let step = self.session.judged(question, Ok(Vec::new()));
                return self.take(step);
            }
            Step::Anew { .. } => {
                let view = Arc::clone(&self.view);
                let step = self.session.greeting(&self.moment(&view), self.claimed);
                self.take(step);
            }
            Step::StartTls(reply) => {
                self.say(&reply);
                self.output.push_str("(handshake)\r\n");
                self.session.tls_started(self.certified);
            }
            Step::ReadData { .. } if !self.room => {
                let step = self.session.finished(DataFault::NoRoom.reply());
                return self.take(step);
            }
            Step::ReadChunk { bytes, .. } if !self.room && self.chunks.is_none() => {
                self.reading = Some(Reading::NoRoom { left: bytes });
                return;
            }
            Step::ReadData { reply, transaction, bytes_max } => {
                self.say(&reply);
                self.reading = Some(Reading::Data(DataDecoder::new(bytes_max), *transaction));
            }
            Step::ReadChunk { bytes, last, bytes_max } => {
                self.chunks.get_or_insert_with(|| DataDecoder::chunked(bytes_max));
                self.reading = Some(Reading::Chunk { left: bytes, last: last.map(|transaction| *transaction) });
                return;
            }
            Step::SkipChunk { bytes, reply } => self.reading = Some(Reading::Skip { left: bytes, reply }),
        }
        if !self.session.in_transaction() {
            (self.chunks, self.received) = (None, 0);
        }
    }

    /// Whether it has come to its end.
    fn read(&mut self, reading: Reading) -> bool {
        match reading {
            Reading::Data(decoder, transaction) => self.read_data(decoder, transaction),
            Reading::Chunk { mut left, last } => {
                let chunk = self.cut(&mut left);
                self.received += chunk.len() as u64;
                let decoder = self.chunks.as_mut().expect("begun with the first chunk");
                decoder.feed(&chunk);
                if left > 0 {
                    self.reading = Some(Reading::Chunk { left, last });
                    return false;
                }
                let step = match last {
                    Some(transaction) => {
                        let decoder = self.chunks.take().expect("begun with the first chunk");
                        self.deliver(decoder, transaction)
                    }
                    None => {
                        let so_far = decoder.fault().map_or(Ok(self.received), |fault| Err(fault.reply()));
                        self.session.chunk_read(so_far)
                    }
                };
                self.take(step);
                true
            }
            Reading::Skip { mut left, reply } => {
                self.cut(&mut left);
                if left > 0 {
                    self.reading = Some(Reading::Skip { left, reply });
                    return false;
                }
                self.say(&reply);
                true
            }
            Reading::NoRoom { mut left } => {
                self.cut(&mut left);
                if left > 0 {
                    self.reading = Some(Reading::NoRoom { left });
                    return false;
                }
                let step = self.session.chunk_read(Err(DataFault::NoRoom.reply()));
                self.take(step);
                true
            }
        }
    }

    fn cut(&mut self, left: &mut u64) -> BytesMut {
        let here = self.input.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
        *left -= here as u64;
        self.input.split_to(here)
    }

    fn read_data(&mut self, mut decoder: DataDecoder, transaction: Transaction) -> bool {
        let ended = decoder.feed(&self.input);
        self.input.advance(ended.unwrap_or(self.input.len()));
        if ended.is_none() {
            self.reading = Some(Reading::Data(decoder, transaction));
            return false;
        }
        let step = self.deliver(decoder, transaction);
        self.take(step);
        true
    }

    fn deliver(&mut self, decoder: DataDecoder, transaction: Transaction) -> Step {
        let reply = match decoder.finish() {
            Ok(bytes) => {
                let reply = Reply::done(50, (0, 0), summary(&transaction, bytes.len()));
                self.messages.push((transaction, bytes.to_vec()));
                reply
            }
            Err(fault) => fault.reply(),
        };
        self.session.finished(reply)
    }

    fn say(&mut self, reply: &Reply) {
        self.output.push_str(&reply.to_string());
    }
}

fn summary(transaction: &Transaction, length: usize) -> String {
    let ascii = |text: String| if text.is_ascii() { text } else { text.escape_default().to_string() };
    let recipient = |to: &Recipient| {
        let Notification { notify, original } = &to.notification;
        let notify = notify.map(|notify| format!(", NOTIFY={notify}")).unwrap_or_default();
        let original = original.as_ref().map(|original| format!(", ORCPT={original}")).unwrap_or_default();
        format!("{} ({}{notify}{original})", ascii(to.address.to_string()), to.class.as_str())
    };
    let to: Vec<String> = transaction.recipients.iter().map(recipient).collect();
    let Handling { smtputf8, require_tls, returned, envelope_id } = &transaction.handling;
    let asked = [
        smtputf8.then(|| "SMTPUTF8".to_owned()),
        require_tls.then(|| "REQUIRETLS".to_owned()),
        returned.map(|returned| format!("RET={returned}")),
        envelope_id.as_ref().map(|id| format!("ENVID={id}")),
    ];
    let asked: String = asked.into_iter().flatten().map(|one| format!(" {one}")).collect();
    let client = &transaction.client;
    format!(
        "taken: {length} bytes from <{}>{asked} to {}; {}{}{}{}, policy {}",
        ascii(transaction.reverse_path.to_string()),
        to.join(", "),
        client.helo,
        if client.extended { "" } else { " by HELO" },
        if client.tls { ", TLS" } else { "" },
        client.department.as_ref().map_or_else(String::new, |id| format!(", server of {id}")),
        transaction.view.policy_version,
    )
}
