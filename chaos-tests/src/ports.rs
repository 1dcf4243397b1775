//! Free ports on loopback, kept until the process that is to listen there is started.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

use anyhow::Context as _;

/// Below the range that Linux gives to outgoing connections, so that a server that was killed finds its port free again.
const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;
static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody else gets while this lives.
#[derive(Debug)]
pub struct Reserved {
    address: SocketAddr,
    _listener: TcpListener,
}

impl Reserved {
    /// `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Reserves a port, `preferred` if it is free.
///
/// # Errors
/// When none of the range is free.
pub fn reserve(preferred: Option<u16>) -> anyhow::Result<Reserved> {
    if let Some(reserved) = preferred.and_then(bind) {
        return Ok(reserved);
    }
    // Programs that run at the same time begin at different places.
    let start = u16::try_from(std::process::id().wrapping_mul(97) % u32::from(COUNT)).unwrap_or_default();
    (0..COUNT)
        .find_map(|_| bind(FIRST + (start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))) % COUNT))
        .with_context(|| format!("no port from {FIRST} to {} is free on 127.0.0.1", FIRST + COUNT - 1))
}

fn bind(port: u16) -> Option<Reserved> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
    Some(Reserved { address: listener.local_addr().ok()?, _listener: listener })
}

#[cfg(test)]
mod tests {
    use super::reserve;

    #[test]
    fn a_taken_port_gives_another_one() {
        let first = reserve(None).expect("a port");
        let second = reserve(Some(first.address().port())).expect("a port");
        assert_ne!(first.address(), second.address());
        let port = first.address().port();
        drop(first);
        assert_eq!(reserve(Some(port)).expect("a port").address().port(), port);
    }
}
