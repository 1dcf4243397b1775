//! DATA and BDAT: the message of a transaction, and how the transaction ends.

use super::{
    super::{
        data::DataFault,
        fixed::{mail_first, outdated},
        reply::{Class, Reply},
        step::{Moment, Step},
    },
    Session,
};

/// A chunk that is smaller counts as a command without effect, in bytes.
const CHUNK_BYTES_MIN: u64 = 512;

impl Session {
    pub(super) fn data(&mut self, moment: &Moment<'_>) -> Step {
        let Some(open) = self.open.take() else { return self.refused(mail_first()) };
        // A client may have kept the transaction open for long.
        if !moment.view_fresh {
            return self.refused(outdated());
        }
        self.idle_commands = self.idle_commands.saturating_sub(1);
        Step::ReadData {
            reply: Reply::plain(Class::Continue, 54, vec!["end with CRLF.CRLF".into()]),
            bytes_max: open.bytes_max(self.settings.limits.message_bytes_max),
            transaction: Box::new(open.transaction),
        }
    }

    /// A chunk does not count as idle unless it is so small that only an attack would send it.
    pub(super) fn chunk(&mut self, bytes: u64, last: bool, moment: &Moment<'_>) -> Step {
        let Some(mut open) = self.open.take() else { return self.skip(bytes, mail_first()) };
        if !moment.view_fresh {
            return self.skip(bytes, outdated());
        }
        if bytes > self.settings.limits.message_bytes_max as u64 {
            return self.close(DataFault::TooLarge.reply());
        }
        if bytes >= CHUNK_BYTES_MIN {
            self.idle_commands = self.idle_commands.saturating_sub(1);
        }
        let bytes_max = open.bytes_max(self.settings.limits.message_bytes_max);
        if last {
            return Step::ReadChunk { bytes, last: Some(Box::new(open.transaction)), bytes_max };
        }
        if self.idle_commands > self.settings.limits.idle_commands_max {
            return self.too_much("too many small chunks", "SMALL_CHUNKS");
        }
        open.in_chunks = true;
        self.open = Some(open);
        Step::ReadChunk { bytes, last: None, bytes_max }
    }

    /// What became of the bytes after [`Step::ReadChunk`] without a transaction: so many are there in all, or the message is
    /// refused, and with it the transaction ends.
    pub fn chunk_read(&mut self, outcome: Result<u64, Reply>) -> Step {
        match outcome {
            Ok(bytes) => Step::Reply(Reply::done(50, (0, 0), format!("{bytes} bytes so far"))),
            Err(reply) => {
                self.open = None;
                self.refused(reply)
            }
        }
    }

    /// A chunk that is not wanted is read all the same, unless it is longer than any message: then the connection ends.
    pub(super) fn skip(&mut self, bytes: u64, reply: Reply) -> Step {
        self.open = None;
        if bytes > self.settings.limits.message_bytes_max as u64 {
            return Step::Close(reply);
        }
        let step = self.refused(reply);
        if let Step::Reply(reply) = step { Step::SkipChunk { bytes, reply } } else { step }
    }

    /// What became of the message after [`Step::ReadData`] or the last [`Step::ReadChunk`].
    pub fn finished(&mut self, reply: Reply) -> Step {
        self.idle_commands = 0;
        self.open = None;
        Step::Reply(reply)
    }
}
