//! What a session is given, and what it has its connection do.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use proto::{address::Domain, held::TransactionId, view::View};

use super::{reply::Reply, transaction::Transaction};
use crate::limits::Limits;

/// What all sessions of a server share.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node's name, by which operators drain it.
    pub node: String,
    /// What the server calls itself.
    pub hostname: Domain,
    /// Who may say with XCLIENT for whom it speaks.
    pub xclient: Vec<IpNet>,
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
    /// Whether the client is to go to another node.
    pub drained: bool,
    /// For a transaction that begins with this line.
    pub fresh_id: TransactionId,
    /// Whether the client has sent more than this line already.
    pub more_input: bool,
}

/// What only the edges know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// May the transaction that has just begun go on?
    Sender,
    /// May its last recipient have mail of this client?
    Recipient,
}

/// What the connection must do.
#[derive(Clone, Debug)]
pub enum Step {
    /// Send this; the next line comes.
    Reply(Reply),
    /// The session would say yes. Ask who may look around, and hand the answer to [`super::session::Session::judged`].
    Ask(Question),
    /// Send this, do the handshake, call [`super::session::Session::tls_started`].
    StartTls(Reply),
    /// Send `reply`, read the message, have it delivered, and hand the outcome to [`super::session::Session::finished`].
    ReadData {
        /// 354.
        reply: Reply,
        /// What the message belongs to. The session has already forgotten it, whatever comes of the message.
        transaction: Box<Transaction>,
        /// The largest that one of the recipients' policies allows, and no more than the server's bound.
        bytes_max: usize,
    },
    /// Read so many bytes of the message and hand what came of them to [`super::session::Session::chunk_read`]; with the last ones there is a
    /// transaction, and the outcome of the delivery goes to [`super::session::Session::finished`].
    ReadChunk {
        /// How many.
        bytes: u64,
        /// What the message belongs to, when it ends with these bytes. The session has already forgotten it.
        last: Option<Box<Transaction>>,
        /// As of [`Step::ReadData`], for the whole message.
        bytes_max: usize,
    },
    /// Read so many bytes, keep nothing of them, then send this.
    SkipChunk {
        /// How many.
        bytes: u64,
        /// Why they are not wanted.
        reply: Reply,
    },
    /// The connection is another client's now: begin anew with [`super::session::Session::greeting`], with its share of
    /// connections and what is known of it.
    Anew {
        /// The client's address.
        client: IpAddr,
    },
    /// Send this and close.
    Close(Reply),
}
