//! Every bound of the node in one place, with the defaults of the plan.

use std::time::Duration;

/// Bounds on what comes from outside. Defaults follow Postfix where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once at each listener.
    pub connections_max: usize,
    /// Connections at once from one client: an IPv4 address or an IPv6 /64.
    pub connections_per_client_max: usize,
    /// A command line with its CRLF, in bytes (RFC 5321 section 4.5.3.1.4 asks for 512 at least).
    pub line_bytes_max: usize,
    /// Recipients of one transaction (RFC 5321 section 4.5.3.1.8 asks for 100 at least).
    pub recipients_max: usize,
    /// A message in bytes, announced with SIZE.
    pub message_bytes_max: usize,
    /// The header section of a message, in bytes.
    pub header_bytes_max: usize,
    /// Received fields before a message is taken for a loop (RFC 5321 section 6.3).
    pub hops_max: usize,
    /// Received fields of our own before a message is taken for a loop.
    pub own_hops_max: usize,
    /// MIME parts of a message.
    pub parts_max: usize,
    /// MIME nesting.
    pub depth_max: usize,
    /// Wrong commands before the connection is closed with 421.
    pub errors_max: u32,
    /// Commands without a finished transaction before the connection is closed with 421.
    pub idle_commands_max: u32,
    /// Waiting for a whole command line or a block of data.
    pub read_timeout: Duration,
    /// Waiting for a command line while all connections of the listener are taken: others want to come in.
    pub stress_timeout: Duration,
    /// A whole connection.
    pub connection_time_max: Duration,
    /// The whole of DATA.
    pub data_time_max: Duration,
    /// A message that comes more slowly than this for long ends with 421.
    pub data_bytes_per_second_min: u64,
    /// A TLS handshake with a client.
    pub handshake_timeout: Duration,
    /// TLS handshakes at once at each listener; one more waits for `messages_wait_max` and is then put off with 454.
    pub handshakes_max: usize,
    /// TLS handshakes at once with one client at a listener.
    pub handshakes_per_client_max: usize,
    /// For so long a drained node still takes mail that comes by a balancer, which hears of it meanwhile from the health
    /// service: longer than a balancer's checks need.
    pub drain_grace: Duration,
    /// Transactions under way when the server stops.
    pub drain_time_max: Duration,
    /// All checks of a message together.
    pub checks_time_max: Duration,
    /// SPF, DKIM, DMARC and ARC together.
    pub authentication_time_max: Duration,
    /// Messages that are parsed, or whose text is analysed, at once: each on a thread, and one that is late still counts.
    pub analyses_max: usize,
    /// Processes that open attachments, each one message at a time.
    pub openers_max: usize,
    /// Opening the attachments of one message; four tenths of `checks_time_max` at most. Five tenths more it may wait until a
    /// process is free or started.
    pub opener_time_max: Duration,
    /// All that clamd is asked about one message; nine tenths of `checks_time_max` at most.
    pub virus_time_max: Duration,
    /// A message in bytes that clamd is asked about; a larger one counts as one that cannot be scanned, and so does one that
    /// clamd says is over its own limits (`StreamMaxLength`, `MaxFileSize`, `MaxScanSize`). That it says so
    /// (`AlertExceedsMax yes`) is tested before it gets mail.
    pub virus_bytes_max: usize,
    /// Scans of the same bytes in a row that clamd may break off, or be late with, before they count as what cannot be scanned.
    pub virus_tries_max: u32,
    /// Parts and messages of which it is remembered that clamd found them clean or infected; none when zero.
    pub virus_cache_max: usize,
    /// How long that is remembered. Signatures that are put beside the official database count after this time.
    pub virus_cache_time: Duration,
    /// Signatures older than this are told of, in the log and by the health service.
    pub virus_signatures_age_max: Duration,
    /// DKIM signatures that are verified.
    pub dkim_signatures_max: usize,
    /// Connecting to a next hop.
    pub connect_timeout: Duration,
    /// Waiting for a reply of a next hop, the final one apart.
    pub relay_timeout: Duration,
    /// The inline delivery to one next hop, which the sender waits for; below five minutes. No other is begun after this
    /// time, so the whole of it takes at most twice as long. Redelivery has its own, longer time.
    pub relay_time_max: Duration,
    /// Connections to one address of a next hop that are kept for the next message; none when zero.
    pub relay_idle_max: usize,
    /// How long they are kept.
    pub relay_idle_time: Duration,
    /// One call to a control server.
    pub control_timeout: Duration,
    /// A watch of the view without any update; then the next control server is tried.
    pub watch_quiet_max: Duration,
    /// Before a held message is tried again for the first time; doubled with each attempt, up to an hour.
    pub redelivery_delay: Duration,
    /// Messages at once at each listener, from 354 to the reply.
    pub messages_max: usize,
    /// Messages at once from one client at a listener, also those whose connection is gone.
    pub messages_per_client_max: usize,
    /// Bytes of all messages at each listener, a quarter of them for one client; the largest message fits in any case. The
    /// pipeline needs about three times that memory.
    pub messages_bytes_max: usize,
    /// Waiting for a place among the messages or the TLS handshakes, or for room for more bytes, before the answer is 451
    /// (454 for a handshake).
    pub messages_wait_max: Duration,
}

impl Limits {
    /// The defaults for a machine with so many processors.
    #[must_use]
    pub fn for_processors(processors: usize) -> Self {
        Self { analyses_max: 2 * processors, openers_max: processors, ..Self::default() }
    }
}

/// For a machine with two processors.
impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 1000,
            connections_per_client_max: 50,
            line_bytes_max: 2048,
            recipients_max: 1000,
            message_bytes_max: 50 * 1024 * 1024,
            header_bytes_max: 102_400,
            hops_max: 50,
            own_hops_max: 5,
            parts_max: 10_000,
            depth_max: 32,
            errors_max: 20,
            idle_commands_max: 100,
            read_timeout: Duration::from_secs(300),
            stress_timeout: Duration::from_secs(10),
            connection_time_max: Duration::from_secs(3600),
            data_time_max: Duration::from_secs(600),
            data_bytes_per_second_min: 500,
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 256,
            handshakes_per_client_max: 16,
            drain_grace: Duration::from_secs(10),
            drain_time_max: Duration::from_secs(60),
            checks_time_max: Duration::from_secs(20),
            authentication_time_max: Duration::from_secs(5),
            analyses_max: 4,
            openers_max: 2,
            opener_time_max: Duration::from_secs(8),
            virus_time_max: Duration::from_secs(15),
            virus_bytes_max: 25 * 1024 * 1024,
            virus_tries_max: 3,
            virus_cache_max: 100_000,
            virus_cache_time: Duration::from_secs(600),
            virus_signatures_age_max: Duration::from_secs(7 * 24 * 3600),
            dkim_signatures_max: 10,
            connect_timeout: Duration::from_secs(10),
            relay_timeout: Duration::from_secs(20),
            relay_time_max: Duration::from_secs(30),
            relay_idle_max: 20,
            relay_idle_time: Duration::from_secs(5),
            control_timeout: Duration::from_secs(5),
            watch_quiet_max: Duration::from_secs(5),
            redelivery_delay: Duration::from_secs(30),
            messages_max: 256,
            messages_per_client_max: 32,
            messages_bytes_max: 512 * 1024 * 1024,
            messages_wait_max: Duration::from_secs(10),
        }
    }
}
