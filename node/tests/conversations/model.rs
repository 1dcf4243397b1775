//! A model of the server by the words of RFC 5321, 3030, 3207 and 2920 and of the limits, written apart from the session: it is
//! told what the client says and tells what must be answered, whether a message is taken, and what has ended the
//! transaction before.

use super::said::{Body, CLIENTS, FROM, Said, TO, WRONG};

/// Bounds small enough for short sequences to reach them.
pub(crate) const RECIPIENTS_MAX: usize = 3;
pub(crate) const MESSAGE_BYTES_MAX: usize = 1000;
pub(crate) const HEALTH_BYTES_MAX: usize = 700;
pub(crate) const ERRORS_MAX: u32 = 6;
pub(crate) const IDLE_COMMANDS_MAX: u32 = 14;
/// A chunk that is smaller counts as a command without effect.
const CHUNK_BYTES_MIN: usize = 512;

/// What has ended a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Reset,
    Hello,
    StartTls,
    Taken,
    DataRefused,
    DataOutdated,
    DataNoRoom,
    ChunkRefused,
    ChunkOutdated,
    ChunkNoRoom,
    ChunkOutOfTurn,
    ChunkTooLarge,
    LastChunkTaken,
    LastChunkRefused,
    TooManyErrors,
    TooManyCommands,
    TooManyRecipients,
    TooManySmallChunks,
    BrokenChunk,
    Impatience,
    Quit,
}

impl End {
    pub(crate) const ALL: [Self; 21] = [
        Self::Reset,
        Self::Hello,
        Self::StartTls,
        Self::Taken,
        Self::DataRefused,
        Self::DataOutdated,
        Self::DataNoRoom,
        Self::ChunkRefused,
        Self::ChunkOutdated,
        Self::ChunkNoRoom,
        Self::ChunkOutOfTurn,
        Self::ChunkTooLarge,
        Self::LastChunkTaken,
        Self::LastChunkRefused,
        Self::TooManyErrors,
        Self::TooManyCommands,
        Self::TooManyRecipients,
        Self::TooManySmallChunks,
        Self::BrokenChunk,
        Self::Impatience,
        Self::Quit,
    ];
}

/// The world outside the session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    /// Which of the clients this is.
    pub(crate) client: usize,
    pub(crate) tls_offered: bool,
    pub(crate) view: usize,
    pub(crate) fresh: bool,
    pub(crate) room: bool,
}

/// The views that a sequence may see, by number.
pub(crate) const WHOLE: usize = 0;
pub(crate) const WITHOUT_HEALTH: usize = 1;
pub(crate) const DRAINED: usize = 2;
pub(crate) const NONE: usize = 3;

/// What MAIL has begun.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) view: usize,
    pub(crate) from: usize,
    /// Numbers of recipients, each mailbox once.
    pub(crate) to: Vec<usize>,
    rcpt_commands: usize,
    declared: usize,
    bytes_max: usize,
    /// Bytes of the chunks so far, and whether a line is open; `None` before the first.
    chunks: Option<(usize, bool)>,
}

impl Mail {
    /// How much of its message is kept.
    pub(crate) fn bytes(&self) -> usize {
        self.chunks.map_or(0, |(bytes, _)| bytes)
    }
}

/// A message that must have been delivered.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    pub(crate) mail: Mail,
    pub(crate) bytes: usize,
    pub(crate) tls: bool,
    pub(crate) extended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hello {
    Helo,
    Ehlo,
}

/// The codes that must be said to one command.
pub(crate) type Codes = [Option<u16>; 2];

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) world: World,
    hello: Option<Hello>,
    pub(crate) tls: bool,
    pub(crate) mail: Option<Mail>,
    errors: u32,
    idle: u32,
    pub(crate) closed: bool,
    pub(crate) taken: Option<Taken>,
    /// How the transaction ended in the last command.
    pub(crate) ended: Option<End>,
}

impl Model {
    pub(crate) fn new(world: World) -> Self {
        let (hello, mail, taken, ended) = (None, None, None, None);
        Self { world, hello, tls: false, mail, errors: 0, idle: 0, closed: false, taken, ended }
    }

    /// What must be answered to a command, `impatient` when more has come with it.
    pub(crate) fn hears(&mut self, said: Said, impatient: bool) -> Codes {
        (self.taken, self.ended) = (None, None);
        self.idle += 1;
        if impatient && self.must_wait(said) {
            return self.farewell(if matches!(said, Said::StartTls) { 501 } else { 554 }, End::Impatience);
        }
        match said {
            Said::Wrong(which) => self.refuse(WRONG[which].1),
            Said::BrokenChunk => self.farewell(501, End::BrokenChunk),
            Said::Noop => self.answer(250),
            Said::Vrfy => self.answer(252),
            Said::Quit => self.farewell(221, End::Quit),
            Said::Ehlo => self.hello(Hello::Ehlo),
            Said::Helo => self.hello(Hello::Helo),
            Said::Rset => {
                self.end(End::Reset);
                self.answer(250)
            }
            Said::StartTls if !self.world.tls_offered => self.refuse(502),
            Said::StartTls if self.tls || self.hello != Some(Hello::Ehlo) => self.refuse(503),
            Said::StartTls => {
                self.end(End::StartTls);
                (self.tls, self.hello) = (true, None);
                [Some(220), None]
            }
            Said::Mail { from, size } => self.mail(from, size),
            Said::Rcpt(to) => self.rcpt(to),
            Said::Data(body) => self.data(body),
            Said::Chunk { body, last } => self.chunk(body, last),
            Said::HugeChunk => self.huge_chunk(),
        }
    }

    /// RFC 2920 section 3.1: the last of a group, and everything from who was not told of PIPELINING.
    fn must_wait(&self, said: Said) -> bool {
        match said {
            Said::Rcpt(to) if TO[to].no_path.is_some() => false,
            Said::Ehlo | Said::Helo | Said::Data(_) | Said::StartTls => true,
            Said::Wrong(_) | Said::BrokenChunk | Said::Quit | Said::Chunk { .. } | Said::HugeChunk => false,
            Said::Mail { .. } | Said::Rcpt(_) | Said::Rset | Said::Noop | Said::Vrfy => self.hello != Some(Hello::Ehlo),
        }
    }

    fn end(&mut self, how: End) {
        if self.mail.take().is_some() {
            self.ended = Some(how);
        }
    }

    fn farewell(&mut self, code: u16, how: End) -> Codes {
        self.end(how);
        self.closed = true;
        [Some(code), None]
    }

    fn answer(&mut self, code: u16) -> Codes {
        if self.idle > IDLE_COMMANDS_MAX { self.farewell(421, End::TooManyCommands) } else { [Some(code), None] }
    }

    fn refuse(&mut self, code: u16) -> Codes {
        self.errors += u32::from(code >= 500);
        if self.errors > ERRORS_MAX { self.farewell(421, End::TooManyErrors) } else { self.answer(code) }
    }

    fn hello(&mut self, hello: Hello) -> Codes {
        self.end(End::Hello);
        self.hello = Some(hello);
        self.answer(250)
    }

    fn mail(&mut self, from: usize, size: usize) -> Codes {
        if self.hello.is_none() || self.mail.is_some() {
            return self.refuse(503);
        }
        let World { view, fresh, client, .. } = self.world;
        if view == DRAINED {
            return self.farewell(421, End::Quit);
        }
        if view == NONE || !fresh {
            return self.refuse(451);
        }
        if size > MESSAGE_BYTES_MAX {
            return self.refuse(552);
        }
        if !FROM[from].may_send(CLIENTS[client].1, view) {
            return self.refuse(550);
        }
        let (to, chunks) = (Vec::new(), None);
        self.mail = Some(Mail { view, from, to, rcpt_commands: 0, declared: size, bytes_max: 0, chunks });
        self.answer(250)
    }

    fn rcpt(&mut self, number: usize) -> Codes {
        let private = CLIENTS[self.world.client].1;
        let to = &TO[number];
        if let Some(code) = to.no_path {
            return self.refuse(code);
        }
        let Some(mail) = self.mail.as_mut().filter(|mail| mail.chunks.is_none()) else { return self.refuse(503) };
        self.idle -= 1;
        mail.rcpt_commands += 1;
        if mail.rcpt_commands > 2 * RECIPIENTS_MAX {
            return self.farewell(421, End::TooManyRecipients);
        }
        let code = match to.bytes_max(private, mail.view) {
            None => 550,
            Some(_) if mail.to.iter().any(|known| TO[*known].mailbox == to.mailbox) => 250,
            Some(_) if mail.to.len() == RECIPIENTS_MAX => 452,
            Some(most) if mail.declared > most => 552,
            Some(most) => {
                mail.to.push(number);
                mail.bytes_max = mail.bytes_max.max(most);
                250
            }
        };
        // What a department's people typed wrongly is no attack of its server.
        if code == 250 || private { [Some(code), None] } else { self.refuse(code) }
    }

    fn data(&mut self, body: Body) -> Codes {
        match &self.mail {
            None => return self.refuse(503),
            Some(mail) if mail.chunks.is_some() => return self.refuse(503),
            Some(mail) if mail.to.is_empty() => return self.refuse(554),
            Some(_) => {}
        }
        if !self.world.fresh {
            self.end(End::DataOutdated);
            return self.refuse(451);
        }
        let mail = self.mail.clone().expect("seen above");
        self.idle = 0;
        if !self.world.room {
            self.end(End::DataNoRoom);
            return [Some(451), None];
        }
        let bytes = body.bytes().len() + if body.leaves_line_open() { 2 } else { 0 };
        let code = self.outcome(mail, body, bytes);
        self.end(if code == 250 { End::Taken } else { End::DataRefused });
        [Some(354), Some(code)]
    }

    fn outcome(&mut self, mail: Mail, body: Body, bytes: usize) -> u16 {
        if body.is_broken() {
            550
        } else if bytes > mail.bytes_max {
            552
        } else {
            self.taken = Some(Taken { mail, bytes, tls: self.tls, extended: self.hello == Some(Hello::Ehlo) });
            250
        }
    }

    fn chunk(&mut self, body: Body, last: bool) -> Codes {
        let out_of_turn = match &self.mail {
            None => Some(503),
            Some(mail) => mail.to.is_empty().then_some(554),
        };
        if let Some(code) = out_of_turn {
            self.end(End::ChunkOutOfTurn);
            return self.refuse(code);
        }
        if !self.world.fresh {
            self.end(End::ChunkOutdated);
            return self.refuse(451);
        }
        let bytes = body.bytes().len();
        self.idle -= u32::from(bytes >= CHUNK_BYTES_MIN);
        if !last && self.idle > IDLE_COMMANDS_MAX {
            return self.farewell(421, End::TooManySmallChunks);
        }
        let mut mail = self.mail.clone().expect("seen above");
        if mail.chunks.is_none() && !self.world.room {
            self.end(End::ChunkNoRoom);
            return self.refuse(451);
        }
        let (before, was_open) = mail.chunks.unwrap_or_default();
        let sum = before + bytes;
        let open = if bytes == 0 { was_open } else { body.leaves_line_open() };
        mail.chunks = Some((sum, open));
        if last {
            self.idle = 0;
            let code = self.outcome(mail, body, sum + if open { 2 } else { 0 });
            self.end(if code == 250 { End::LastChunkTaken } else { End::LastChunkRefused });
            return [Some(code), None];
        }
        let code = if body.is_broken() {
            550
        } else if sum > mail.bytes_max {
            552
        } else {
            self.mail = Some(mail);
            return [Some(250), None];
        };
        self.end(End::ChunkRefused);
        self.refuse(code)
    }

    /// More than any message may have: nobody reads that much to throw it away.
    fn huge_chunk(&mut self) -> Codes {
        let code = match &self.mail {
            None => 503,
            Some(mail) if mail.to.is_empty() => 554,
            Some(_) if !self.world.fresh => 451,
            Some(_) => 552,
        };
        self.farewell(code, End::ChunkTooLarge)
    }
}
