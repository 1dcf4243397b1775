//! A connection's messages: read under its bounds, and delivered.

use std::time::Duration;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Connection, pressure::crowded_out};
use crate::smtp::{
    data::DataFault,
    places::{MessagePlace, Pressure},
    reply::Reply,
    step::Step,
    stream::{Incoming, Stream, StreamError},
    transaction::Transaction,
};

/// While all places are taken a message that has been slow for longer than `patience` ends.
fn slow_gives_way(pressure: Pressure, incoming: &mut Incoming, patience: Duration) -> Result<(), StreamError> {
    if pressure == Pressure::Crowded && incoming.is_slow(Instant::now(), patience) {
        Err(StreamError::TooSlow)
    } else {
        Ok(())
    }
}

/// Without room nothing is kept of the message, which is still read to its end.
async fn make_room(place: &mut MessagePlace, incoming: &mut Incoming, bytes: usize) {
    let began = Instant::now();
    if !place.make_room(bytes).await {
        incoming.give_up();
        place.clear();
    }
    incoming.waited(began.elapsed());
}

impl Connection {
    /// Reads one message and has it delivered.
    pub(super) async fn message<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut Stream<S>,
        go_on: &Reply,
        transaction: Transaction,
        bytes_max: usize,
    ) -> Result<Reply, StreamError> {
        let mut place = match self.place(&transaction).await {
            Ok(place) => place,
            Err(reply) => return Ok(reply),
        };
        stream.queue(go_on).await?;
        let mut incoming = Incoming::new(bytes_max);
        let patience = self.service.settings.limits.stress_timeout;
        loop {
            let wanted = tokio::select! {
                biased;
                wanted = stream.message(&mut incoming, place.room_bytes()) => wanted?,
                () = crowded_out(&mut self.messages_pressure, patience) => {
                    slow_gives_way(Pressure::Crowded, &mut incoming, patience)?;
                    continue;
                }
            };
            let Some(bytes) = wanted else { break };
            slow_gives_way(*self.messages_pressure.borrow(), &mut incoming, patience)?;
            make_room(&mut place, &mut incoming, bytes).await;
        }
        Ok(self.deliver(transaction, incoming, place).await)
    }

    /// Reads a chunk of a message, and with the last one has the message delivered.
    pub(super) async fn chunk<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut Stream<S>,
        bytes: u64,
        last: Option<Box<Transaction>>,
        bytes_max: usize,
    ) -> Result<Step, StreamError> {
        let mut left = bytes;
        let (mut incoming, mut place) = if let Some(begun) = self.chunks.take() {
            *begun
        } else {
            let place = match last.as_deref().or_else(|| self.session.transaction()) {
                Some(transaction) => self.place(transaction).await,
                // The session gives no chunk without one.
                None => Err(DataFault::NoRoom.reply()),
            };
            match place {
                Ok(place) => (Incoming::chunked(bytes_max), place),
                Err(reply) => {
                    self.discard(stream, bytes).await?;
                    return Ok(self.session.chunk_read(Err(reply)));
                }
            }
        };
        let patience = self.service.settings.limits.stress_timeout;
        loop {
            let wanted = tokio::select! {
                biased;
                wanted = stream.chunk(&mut incoming, &mut left, place.room_bytes()) => wanted?,
                () = crowded_out(&mut self.messages_pressure, patience) => {
                    slow_gives_way(Pressure::Crowded, &mut incoming, patience)?;
                    continue;
                }
            };
            if wanted.is_some() || last.is_none() {
                slow_gives_way(*self.messages_pressure.borrow(), &mut incoming, patience)?;
            }
            let Some(bytes) = wanted else { break };
            make_room(&mut place, &mut incoming, bytes).await;
        }
        match last {
            Some(transaction) => {
                let reply = self.deliver(*transaction, incoming, place).await;
                Ok(self.session.finished(reply))
            }
            None => {
                let so_far = incoming.so_far().map_err(DataFault::reply);
                self.chunks = Some(Box::new((incoming, place)));
                Ok(self.session.chunk_read(so_far))
            }
        }
    }

    /// Reads a chunk that nobody wants.
    pub(super) async fn discard<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut Stream<S>,
        bytes: u64,
    ) -> Result<(), StreamError> {
        let patience = self.service.settings.limits.stress_timeout;
        let (mut left, mut unwanted) = (bytes, Incoming::refused());
        loop {
            tokio::select! {
                biased;
                read = stream.chunk(&mut unwanted, &mut left, 0) => return read.map(drop),
                () = crowded_out(&mut self.pressure, patience) => slow_gives_way(Pressure::Crowded, &mut unwanted, patience)?,
            }
        }
    }

    /// A place for the message of a transaction, with what else is bounded of those that are under way.
    async fn place(&self, transaction: &Transaction) -> Result<MessagePlace, Reply> {
        let mut place = self.seat.message().await.ok_or_else(|| DataFault::NoRoom.reply())?;
        // Only what has a place is under way.
        let held = self.service.reception.message(transaction, self.known)?;
        if !held.is_empty() {
            place.holding(held);
        }
        Ok(place)
    }

    /// Has a message delivered. The delivery is a task of its own: it goes on when this connection does not, and its panic
    /// is an answer of 451 and not a lost connection.
    async fn deliver(&self, transaction: Transaction, incoming: Incoming, place: MessagePlace) -> Reply {
        let bytes = match incoming.finish() {
            Ok(bytes) => bytes,
            Err(fault) => return fault.reply(),
        };
        let delivery = (self.service.deliver)(transaction, bytes);
        let task = tokio::spawn(async move {
            let reply = delivery.await;
            drop(place);
            reply
        });
        task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a delivery broke off; the sender keeps the message");
            Reply::temporary(51, (3, 0), "internal error; come back later")
        })
    }
}
