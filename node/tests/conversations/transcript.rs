//! The transcripts' form:
//!
//! ```text
//! # a comment
//! listener: departments        internet when left out
//! client: 10.1.0.5             192.0.2.7 when left out
//! tls: offered                 none when left out; required; certificate; certificate shown
//! known: bad                   the client: good, bad, blocked, allowed; nothing when left out
//! claimed: bad                 the same of whom XCLIENT names
//! limit: errors_max 3
//! segments: matter             the outcome depends on which bytes arrive together
//!
//! S: 220 …                     what the server says, all of it
//! C: EHLO a.example            what the client sends; lines that follow each other arrive together
//! V: stale                     the view changes: none, stale, fixture, without-health, drained
//! ```
//!
//! In a client's line `\r \n \0 \\ \xHH` are bytes, `{x*300}` is x three hundred times, and `\c` at its end leaves the
//! CRLF out. An empty line between two `C:` lines parts them into two segments.

use std::sync::Arc;

use node::{
    limits::Limits,
    smtp::{demand::TlsDemand, transaction::Listener},
};
use proto::{
    reputation::{Repute, Stance},
    view::View,
};

use crate::{fixture, machine::Machine};

pub(crate) struct Transcript<'t> {
    name: &'t str,
    text: &'t str,
    pub(crate) segments_matter: bool,
}

impl<'t> Transcript<'t> {
    pub(crate) fn parse(name: &'t str, text: &'t str) -> Self {
        Self { name, text, segments_matter: text.lines().any(|line| line == "segments: matter") }
    }

    /// The transcript as it really goes.
    pub(crate) fn run(&self) -> String {
        self.run_split(usize::MAX)
    }

    /// The same with each segment cut into pieces of `size` bytes.
    pub(crate) fn run_split(&self, size: usize) -> String {
        let mut machine = self.machine();
        let mut actual = String::new();
        let mut segment: Vec<u8> = Vec::new();
        let mut greeted = false;
        for line in self.text.lines() {
            if let Some(text) = line.strip_prefix("C: ").or_else(|| (line == "C:").then_some("")) {
                segment.extend(self.bytes(text));
                actual.push_str(line);
                actual.push('\n');
                continue;
            }
            for piece in segment.chunks(size) {
                said(&mut actual, &machine.send(piece));
            }
            segment.clear();
            if line.starts_with("S:") {
                if !greeted {
                    said(&mut actual, &machine.greeting());
                    greeted = true;
                }
                continue;
            }
            if let Some(view) = line.strip_prefix("V: ") {
                self.look(&mut machine, view);
            }
            actual.push_str(line);
            actual.push('\n');
        }
        for piece in segment.chunks(size) {
            said(&mut actual, &machine.send(piece));
        }
        actual
    }

    fn machine(&self) -> Machine {
        let mut limits = Limits::default();
        let (mut listener, mut client, mut tls) = (Listener::Internet, "192.0.2.7", (TlsDemand::None, false));
        let (mut known, mut claimed) = (Repute::default(), Repute::default());
        for line in self.text.lines().take_while(|line| !line.starts_with("S:")) {
            let Some((key, value)) = line.split_once(": ") else { continue };
            match (key, value) {
                ("listener", "departments") => listener = Listener::Departments,
                ("client", address) => client = address,
                ("tls", "offered") => tls = (TlsDemand::Offered, false),
                ("tls", "required") => tls = (TlsDemand::Required, false),
                ("tls", "certificate") => tls = (TlsDemand::ClientCertificate, false),
                ("tls", "certificate shown") => tls = (TlsDemand::ClientCertificate, true),
                ("known", word) => known = self.known(word),
                ("claimed", word) => claimed = self.known(word),
                ("limit", limit) => self.limit(&mut limits, limit),
                _ if line.starts_with('#') || line == "segments: matter" || key == "V" => {}
                _ => panic!("{}: {line:?} is no header line", self.name),
            }
        }
        let client = client.parse().expect("a client's address");
        let (demand, certified) = tls;
        let machine = Machine::new(fixture::settings(limits), client, listener, fixture::view());
        let mut machine = machine.demanding(demand);
        (machine.client, machine.certified, machine.claimed) = (known, certified, claimed);
        machine
    }

    fn known(&self, word: &str) -> Repute {
        match word {
            "good" => Repute { stance: None, score: -1000 },
            "bad" => Repute { stance: None, score: 951 },
            "blocked" => Repute { stance: Some(Stance::Block), score: 0 },
            "allowed" => Repute { stance: Some(Stance::Allow), score: 1000 },
            _ => panic!("{}: {word} is nothing that is known of a client", self.name),
        }
    }

    fn limit(&self, limits: &mut Limits, text: &str) {
        let (name, value) = text.split_once(' ').expect("a limit and its value");
        let value: usize = value.parse().expect("a number");
        let short = u32::try_from(value).expect("a small number");
        match name {
            "errors_max" => limits.errors_max = short,
            "idle_commands_max" => limits.idle_commands_max = short,
            "recipients_max" => limits.recipients_max = value,
            "message_bytes_max" => limits.message_bytes_max = value,
            "line_bytes_max" => limits.line_bytes_max = value,
            _ => panic!("{}: {name} is no limit of a session", self.name),
        }
    }

    fn look(&self, machine: &mut Machine, view: &str) {
        machine.view_fresh = view != "stale";
        machine.view = match view {
            "none" => Arc::new(View::empty()),
            "fixture" | "stale" => fixture::view(),
            "drained" => fixture::view_with_drain(),
            "without-health" => fixture::view_without_health(),
            _ => panic!("{}: {view} is no view", self.name),
        };
    }

    fn bytes(&self, text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if let Some((unit, count, after)) = repeated(rest) {
                bytes.extend(unit.repeat(count).into_bytes());
                rest = after;
                continue;
            }
            rest = &rest[first.len_utf8()..];
            if first != '\\' {
                bytes.extend(first.to_string().into_bytes());
                continue;
            }
            let escape = rest.chars().next().expect("an escape");
            rest = &rest[escape.len_utf8()..];
            match escape {
                'r' => bytes.push(b'\r'),
                'n' => bytes.push(b'\n'),
                '0' => bytes.push(0),
                '\\' => bytes.push(b'\\'),
                'c' => return bytes,
                'x' => {
                    bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two hex digits"));
                    rest = &rest[2..];
                }
                other => panic!("{}: \\{other} is no escape", self.name),
            }
        }
        bytes.extend(b"\r\n");
        bytes
    }
}

fn repeated(text: &str) -> Option<(&str, usize, &str)> {
    let (inside, after) = text.strip_prefix('{')?.split_once('}')?;
    let (unit, count) = inside.rsplit_once('*')?;
    Some((unit, count.parse().ok()?, after))
}

fn said(actual: &mut String, output: &str) {
    for line in output.split_terminator("\r\n") {
        actual.push_str("S: ");
        actual.push_str(line);
        actual.push('\n');
    }
}
