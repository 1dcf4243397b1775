//! What the clients of the random sequences may say, and what is true of each address: the facts that the model goes by.

use super::model::{HEALTH_BYTES_MAX, MESSAGE_BYTES_MAX, WITHOUT_HEALTH};

/// Address of a client, and whether it is a department's server (of interior) on the private network.
pub(crate) const CLIENTS: [(&str, bool); 2] = [("192.0.2.7", false), ("10.1.0.5", true)];

/// One command with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Ehlo,
    Helo,
    /// A sender by number, and SIZE when it is not 0.
    Mail {
        from: usize,
        size: usize,
    },
    /// A recipient by number.
    Rcpt(usize),
    /// DATA and the message.
    Data(Body),
    /// BDAT and the chunk.
    Chunk {
        body: Body,
        last: bool,
    },
    /// BDAT with more bytes than any message has, and none of them.
    HugeChunk,
    /// BDAT that cannot be read.
    BrokenChunk,
    Rset,
    Noop,
    Vrfy,
    Quit,
    StartTls,
    /// A line that is no command, by number.
    Wrong(usize),
}

impl Said {
    /// As it goes over the wire; the message after DATA comes when it is asked for.
    pub(crate) fn write(self, wire: &mut Vec<u8>) {
        match self {
            Self::Ehlo => wire.extend_from_slice(b"EHLO c.example"),
            Self::Helo => wire.extend_from_slice(b"HELO c.example"),
            Self::Mail { from, size: 0 } => {
                [b"MAIL FROM:<", FROM[from].path.as_bytes(), b">"].iter().for_each(|part| wire.extend_from_slice(part));
            }
            Self::Mail { from, size } => {
                wire.extend_from_slice(format!("MAIL FROM:<{}> SIZE={size}", FROM[from].path).as_bytes());
            }
            Self::Rcpt(to) => {
                [b"RCPT TO:<", TO[to].path.as_bytes(), b">"].iter().for_each(|part| wire.extend_from_slice(part));
            }
            Self::Data(_) => wire.extend_from_slice(b"DATA"),
            Self::Chunk { body, last } => {
                let (bytes, last) = (body.bytes(), if last { " LAST" } else { "" });
                wire.extend_from_slice(format!("BDAT {}{last}\r\n", bytes.len()).as_bytes());
                wire.extend_from_slice(bytes);
                return;
            }
            Self::HugeChunk => wire.extend_from_slice(b"BDAT 1001"),
            Self::BrokenChunk => wire.extend_from_slice(b"BDAT 3 FIRST"),
            Self::Rset => wire.extend_from_slice(b"RSET"),
            Self::Noop => wire.extend_from_slice(b"NOOP"),
            Self::Vrfy => wire.extend_from_slice(b"VRFY anna"),
            Self::Quit => wire.extend_from_slice(b"QUIT"),
            Self::StartTls => wire.extend_from_slice(b"STARTTLS"),
            Self::Wrong(which) => wire.extend_from_slice(WRONG[which].0),
        }
        wire.extend_from_slice(b"\r\n");
    }
}

/// Lines that are no commands, and what is said to them.
pub(crate) const WRONG: [(&[u8], u16); 6] = [
    (b"GET / HTTP/1.1", 500),
    (b"EHLO a b", 501),
    (b"HELP", 502),
    (b"NOOP \xff", 500),
    (b"RS\rET", 500),
    (b"MAIL FROM:<x@a.example> AUTH=<>", 555),
];

/// A message or a chunk of one. Bare ends of lines within make it refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Empty,
    Line,
    /// Its last line is not ended.
    OpenLine,
    /// 600 bytes.
    Long,
    BareLineFeed,
    BareCarriageReturn,
    Nul,
}

impl Body {
    pub(crate) const ALL: [Self; 7] =
        [Self::Empty, Self::Line, Self::OpenLine, Self::Long, Self::BareLineFeed, Self::BareCarriageReturn, Self::Nul];

    pub(crate) fn bytes(self) -> &'static [u8] {
        static LONG: [u8; 600] = {
            let mut bytes = [b'x'; 600];
            (bytes[598], bytes[599]) = (b'\r', b'\n');
            bytes
        };
        match self {
            Self::Empty => b"",
            Self::Line => b"abc\r\n",
            Self::OpenLine => b"abc",
            Self::Long => &LONG,
            Self::BareLineFeed => b"a\nb\r\n",
            Self::BareCarriageReturn => b"a\rb\r\n",
            Self::Nul => b"a\0b\r\n",
        }
    }

    pub(crate) fn leaves_line_open(self) -> bool {
        self == Self::OpenLine
    }

    pub(crate) fn is_broken(self) -> bool {
        matches!(self, Self::BareLineFeed | Self::BareCarriageReturn | Self::Nul)
    }
}

/// A reverse-path.
pub(crate) struct From {
    pub(crate) path: &'static str,
    of_interior: bool,
    of_health: bool,
}

impl From {
    const fn stranger(path: &'static str) -> Self {
        Self { path, of_interior: false, of_health: false }
    }

    /// Promise 5: a department's server for itself, and a stranger for nobody here.
    pub(crate) fn may_send(&self, private: bool, view: usize) -> bool {
        let of_health = self.of_health && view != WITHOUT_HEALTH;
        if private { self.of_interior || self.path.is_empty() } else { !(self.of_interior || of_health) }
    }
}

pub(crate) const FROM: [From; 4] = [
    From::stranger(""),
    From::stranger("x@a.example"),
    From { path: "anna@interior.gov.test", of_interior: true, of_health: false },
    From { path: "ben@health.gov.test", of_interior: false, of_health: true },
];

/// Where a forward-path leads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Interior,
    Health,
    Internet,
    Nowhere,
}

/// A forward-path.
pub(crate) struct To {
    pub(crate) path: &'static str,
    /// The same for two ways to write one.
    pub(crate) mailbox: u8,
    /// The code when the path itself is refused.
    pub(crate) no_path: Option<u16>,
    place: Place,
}

impl To {
    const fn at(place: Place, mailbox: u8, path: &'static str) -> Self {
        Self { path, mailbox, no_path: None, place }
    }

    const fn wrong(code: u16, path: &'static str) -> Self {
        Self { path, mailbox: 0, no_path: Some(code), place: Place::Nowhere }
    }

    /// How large a message it takes; `None` when it takes none. Promise 3: strangers reach departments alone.
    pub(crate) fn bytes_max(&self, private: bool, view: usize) -> Option<usize> {
        match self.place {
            Place::Interior => Some(MESSAGE_BYTES_MAX),
            Place::Health if view == WITHOUT_HEALTH => private.then_some(MESSAGE_BYTES_MAX),
            Place::Health => Some(HEALTH_BYTES_MAX),
            Place::Internet => private.then_some(MESSAGE_BYTES_MAX),
            Place::Nowhere => None,
        }
    }
}

pub(crate) const TO: [To; 9] = [
    To::at(Place::Interior, 1, "anna@interior.gov.test"),
    To::at(Place::Interior, 1, "Anna@Interior.gov.test"),
    To::at(Place::Interior, 2, "carl@interior.gov.test"),
    To::at(Place::Health, 3, "ben@health.gov.test"),
    To::at(Place::Internet, 4, "y@b.example"),
    To::at(Place::Nowhere, 5, "a%b.example@interior.gov.test"),
    To::at(Place::Nowhere, 6, "a@sub.interior.gov.test"),
    To::wrong(550, "postmaster"),
    To::wrong(553, "no-domain"),
];
