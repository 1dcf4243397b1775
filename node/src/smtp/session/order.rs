//! Which command may come when, and after which the client must wait.

use super::{Proxy, Session};
use crate::smtp::{
    command::Command,
    fixed::{hello_first, mail_first, out_of_turn},
    reply::Reply,
};

impl Session {
    /// After these the client may send nothing until it has the reply (RFC 2920 section 3.1, RFC 3207 section 4); a client
    /// that was not told of PIPELINING, after none. Who does not wait is blind to our answers: a bot or an attack.
    pub(super) fn must_wait_for_reply(&self, command: &Command) -> bool {
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        match command {
            Command::Ehlo(_) | Command::Helo(_) | Command::Data | Command::StartTls | Command::Xclient(_) => true,
            Command::Quit | Command::Bdat { .. } => false,
            Command::Mail { .. } | Command::Rcpt { .. } | Command::Rset | Command::Noop | Command::Vrfy => !extended,
        }
    }

    /// The table of what may come when.
    pub(super) fn may_come(&self, command: &Command) -> Result<(), Reply> {
        let bad_sequence = |text: &str| Err(out_of_turn(text));
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        match command {
            Command::Ehlo(_) | Command::Helo(_) | Command::Rset | Command::Noop | Command::Quit | Command::Vrfy => {
                Ok(())
            }
            Command::Mail { .. } | Command::Rcpt { .. } | Command::Data | Command::Bdat { .. }
                if let Some(reply) = self.demand.refusal(self.channel) =>
            {
                Err(reply)
            }
            Command::Xclient(_) if self.proxy == Proxy::No => {
                Err(Reply::permanent(50, (7, 0), "you may not say XCLIENT"))
            }
            Command::Xclient(_) if self.open.is_some() => bad_sequence("a transaction is under way; RSET ends it"),
            Command::Xclient(_) => Ok(()),
            Command::StartTls if !self.demand.offers() => Err(Reply::permanent(2, (5, 1), "no TLS here")),
            Command::StartTls if self.under_tls() => bad_sequence("TLS is on already"),
            Command::StartTls if !extended => Err(hello_first()),
            Command::Mail { .. } if self.hello.is_none() => Err(hello_first()),
            Command::Mail { .. } if self.open.is_some() => bad_sequence("a transaction is under way; RSET ends it"),
            Command::StartTls | Command::Mail { .. } => Ok(()),
            Command::Rcpt { .. } | Command::Data | Command::Bdat { .. } => match &self.open {
                None => Err(mail_first()),
                Some(open) if open.in_chunks && !matches!(command, Command::Bdat { .. }) => {
                    bad_sequence("the message comes in chunks; RSET gives it up")
                }
                Some(open) if open.transaction.recipients.is_empty() && !matches!(command, Command::Rcpt { .. }) => {
                    Err(Reply::permanent(54, (5, 1), "no recipient was accepted"))
                }
                Some(_) => Ok(()),
            },
        }
    }
}
