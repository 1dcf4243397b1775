//! Threat row 7: a million random sequences of commands against the model. Whatever has ended a transaction, nothing of it is
//! left: no recipient, no view, no byte of its message, no word of it in the session.

use std::{
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use node::{
    limits::Limits,
    smtp::{
        demand::TlsDemand,
        step::Settings,
        transaction::{Listener, Transaction},
    },
};
use proto::view::{View, ViewChange};

use crate::{
    fixture,
    machine::Machine,
    model::{
        DRAINED, ERRORS_MAX, End, HEALTH_BYTES_MAX, IDLE_COMMANDS_MAX, MESSAGE_BYTES_MAX, Model, NONE, RECIPIENTS_MAX,
        Taken, WHOLE, WITHOUT_HEALTH, World,
    },
    said::{Body, CLIENTS, FROM, Said, TO, WRONG},
};

const SEQUENCES: u64 = 1_000_000;
/// In one of so many sequences the session is also searched for words of what has ended.
const SEARCHED_EVERY: u64 = 16;
/// Each way to end a transaction must have been seen so often, or the sequences are not as random as they should be.
const ENDS_MIN: u64 = 500;

static VIEWS: LazyLock<[Arc<View>; 4]> = LazyLock::new(|| {
    let whole = fixture::view();
    let health = whole.tenants().find(|tenant| tenant.department.id.as_str() == "health").expect("health");
    let mut health = health.department.clone();
    health.policy.message_bytes_max = Some(HEALTH_BYTES_MAX as u64);
    let small = ViewChange { index: 4, policy_version: 1, departments: vec![health], ..ViewChange::default() };
    let whole = Arc::new(whole.after(small));
    [whole, fixture::view_without_health(), fixture::view_with_drain(), Arc::new(View::empty())]
});

/// A command, what changes in the world before it, and whether the next one is sent with it.
#[derive(Clone, Copy, Debug)]
struct Act {
    change: Option<Change>,
    said: Said,
    hasty: bool,
}

#[derive(Clone, Copy, Debug)]
enum Change {
    View(usize),
    Outdated,
    NoRoom,
    AsBefore,
}

/// The random sequence of a seed. Half of the commands are what a client would say next, so that deep places are reached.
fn sequence(seed: u64) -> (World, Vec<Act>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let world = World {
        client: rng.usize(..CLIENTS.len()),
        tls_offered: rng.u8(..) < 224,
        view: WHOLE,
        fresh: true,
        room: true,
    };
    let mood = rng.u8(..64);
    let (mut stage, mut changed) = (0, false);
    let acts = (0..rng.usize(3..22) + if mood < 4 { 8 } else { 0 }).map(|_| {
        let change = match rng.u8(..) {
            0..=3 => Some(Change::View([WITHOUT_HEALTH, DRAINED, NONE][rng.usize(..3)])),
            4..=7 => Some(Change::Outdated),
            8..=11 => Some(Change::NoRoom),
            12..=90 if changed => Some(Change::AsBefore),
            _ => None,
        };
        changed = change.map_or(changed, |change| !matches!(change, Change::AsBefore));
        let said = match (rng.u8(..), mood, stage) {
            // Some clients insist: on recipients, or on small chunks.
            (0..=252, 0..=1, 2 | 3) => recipient(&mut rng),
            (0..=252, 2..=3, 3 | 4) => Said::Chunk { body: Body::Line, last: false },
            (0..=180, ..) => expected(&mut rng, stage),
            _ => anything(&mut rng),
        };
        stage = match said {
            Said::Ehlo | Said::Helo | Said::Rset | Said::Data(_) | Said::Chunk { last: true, .. } => 1,
            Said::Mail { .. } => 2,
            Said::Rcpt(_) => 3,
            Said::Chunk { .. } => 4,
            Said::StartTls => 0,
            Said::HugeChunk | Said::BrokenChunk | Said::Noop | Said::Vrfy | Said::Quit | Said::Wrong(_) => stage,
        };
        Act { change, said, hasty: rng.u8(..) < 12 }
    });
    (world, acts.collect())
}

fn expected(rng: &mut fastrand::Rng, stage: u8) -> Said {
    match (stage, rng.u8(..8)) {
        (0, 0) => Said::Helo,
        (0, _) => Said::Ehlo,
        (1, 0) => Said::Mail { from: 1, size: rng.usize(500..1100) },
        (1, _) => Said::Mail { from: rng.usize(..FROM.len()), size: 0 },
        (2, _) | (3, 0..=2) => recipient(rng),
        (3, 3..=5) => Said::Data(body(rng)),
        _ => Said::Chunk { body: body(rng), last: rng.u8(..3) == 0 },
    }
}

fn anything(rng: &mut fastrand::Rng) -> Said {
    match rng.u8(..64) {
        0..=4 => Said::Ehlo,
        5..=7 => Said::Helo,
        8..=13 => Said::Mail { from: rng.usize(..FROM.len()), size: 0 },
        14..=21 => recipient(rng),
        22..=27 => Said::Data(body(rng)),
        28..=35 => Said::Chunk { body: body(rng), last: rng.bool() },
        36 => Said::HugeChunk,
        37 => Said::BrokenChunk,
        38..=42 => Said::Rset,
        43..=46 => Said::Noop,
        47..=48 => Said::Vrfy,
        49 => Said::Quit,
        50..=54 => Said::StartTls,
        _ => Said::Wrong(rng.usize(..WRONG.len())),
    }
}

fn recipient(rng: &mut fastrand::Rng) -> Said {
    Said::Rcpt(if rng.bool() { rng.usize(..4) } else { rng.usize(..TO.len()) })
}

fn body(rng: &mut fastrand::Rng) -> Body {
    if rng.bool() { Body::Line } else { Body::ALL[rng.usize(..Body::ALL.len())] }
}

static SETTINGS: LazyLock<Settings> = LazyLock::new(|| {
    let limits = Limits {
        recipients_max: RECIPIENTS_MAX,
        message_bytes_max: MESSAGE_BYTES_MAX,
        errors_max: ERRORS_MAX,
        idle_commands_max: IDLE_COMMANDS_MAX,
        ..Limits::default()
    };
    fixture::settings(limits)
});

fn machine(world: World) -> Machine {
    let (client, private) = CLIENTS[world.client];
    let listener = if private { Listener::Departments } else { Listener::Internet };
    let demand = if world.tls_offered { TlsDemand::Offered } else { TlsDemand::None };
    let client = client.parse().expect("an address");
    let mut machine =
        Machine::new(SETTINGS.clone(), client, listener, Arc::clone(&VIEWS[world.view])).demanding(demand);
    machine.greeting();
    machine
}

/// A sequence under way.
struct Play {
    machine: Machine,
    model: Model,
    searched: bool,
    /// How often a transaction ended in which way.
    ends: [u64; End::ALL.len()],
    wire: Vec<u8>,
    codes: Vec<u16>,
    taken: Vec<Taken>,
}

/// Plays a sequence to its end, or to the first difference between session and model.
fn play(world: World, acts: &[Act], searched: bool) -> Result<[u64; End::ALL.len()], String> {
    let (machine, model, ends) = (machine(world), Model::new(world), [0; End::ALL.len()]);
    let mut play = Play { machine, model, searched, ends, wire: Vec::new(), codes: Vec::new(), taken: Vec::new() };
    let mut rest = acts;
    while let Some(first) = rest.first()
        && !play.model.closed
    {
        let hasty = rest.windows(2).take_while(|pair| pair[0].hasty && pair[1].change.is_none()).count();
        let (group, later) = rest.split_at(hasty + 1);
        if let Some(change) = first.change {
            play.change(change);
        }
        play.group(group).map_err(|why| format!("{why}\n  at {:?}", group.last().map(|act| act.said)))?;
        rest = later;
    }
    Ok(play.ends)
}

impl Play {
    fn change(&mut self, change: Change) {
        let world = &mut self.model.world;
        match change {
            Change::View(view) => world.view = view,
            Change::Outdated => world.fresh = false,
            Change::NoRoom => world.room = false,
            Change::AsBefore => (world.view, world.fresh, world.room) = (WHOLE, true, true),
        }
        (self.machine.view, self.machine.view_fresh) = (Arc::clone(&VIEWS[world.view]), world.fresh);
        self.machine.room = world.room;
    }

    /// Says commands that arrive together, and compares what comes back.
    fn group(&mut self, group: &[Act]) -> Result<(), String> {
        self.wire.clear();
        self.codes.clear();
        self.taken.clear();
        let mut message = None;
        for (at, act) in group.iter().enumerate() {
            act.said.write(&mut self.wire);
            if self.model.closed {
                continue;
            }
            let codes = self.model.hears(act.said, at + 1 < group.len());
            self.codes.extend(codes.into_iter().flatten());
            self.taken.extend(self.model.taken.take());
            if let Some(end) = self.model.ended {
                self.ends[end as usize] += 1;
            }
            if let (Said::Data(body), [Some(354), _]) = (act.said, codes) {
                message = Some(body);
            }
        }
        let mut said = self.machine.send(&self.wire);
        if let Some(body) = message {
            if self.machine.session.in_transaction() || !self.machine.reads_data() {
                return Err(format!("after DATA: {said:?}"));
            }
            said += &self.machine.send(body.bytes());
            said += &self.machine.send(if body.leaves_line_open() { b"\r\n.\r\n" } else { b".\r\n" });
        }
        self.compare_replies(&said)?;
        self.compare_messages()?;
        self.compare_what_is_kept()
    }

    fn compare_replies(&self, said: &str) -> Result<(), String> {
        let mut expected = self.codes.iter();
        for line in said.lines().filter(|line| line.as_bytes().get(3) == Some(&b' ')) {
            let code = line[..3].parse().unwrap_or_default();
            if expected.next() != Some(&code) {
                return Err(format!("expected {:?}, heard {said:?}", self.codes));
            }
        }
        let as_told = expected.next().is_none()
            && self.machine.closed == self.model.closed
            && self.machine.session.under_tls() == self.model.tls;
        if as_told { Ok(()) } else { Err(format!("expected {:?}, heard {said:?}, model {:?}", self.codes, self.model)) }
    }

    fn compare_messages(&mut self) -> Result<(), String> {
        let messages = std::mem::take(&mut self.machine.messages);
        let alike = messages.len() == self.taken.len()
            && messages
                .iter()
                .zip(&self.taken)
                .all(|((transaction, bytes), taken)| bytes.len() == taken.bytes && is_alike(transaction, taken));
        if alike { Ok(()) } else { Err(format!("expected {:?}, delivered {messages:?}", self.taken)) }
    }

    /// What the session and its connection hold is what the transaction under way needs, and nothing when there is none.
    fn compare_what_is_kept(&self) -> Result<(), String> {
        let session = &self.machine.session;
        let (view, bytes) = self.model.mail.as_ref().map_or((None, 0), |mail| (Some(&VIEWS[mail.view]), mail.bytes()));
        let same_view = match (session.view(), view) {
            (Some(held), Some(expected)) => Arc::ptr_eq(held, expected),
            (held, expected) => held.is_none() && expected.is_none(),
        };
        if !same_view || session.in_transaction() != self.model.mail.is_some() || self.machine.kept_bytes() != bytes {
            return Err(format!("{} bytes kept, model {:?}, {session:?}", self.machine.kept_bytes(), self.model));
        }
        if self.searched && self.model.mail.is_none() && format!("{session:?}").contains('@') {
            return Err(format!("an address is left: {session:?}"));
        }
        Ok(())
    }
}

fn is_alike(transaction: &Transaction, taken: &Taken) -> bool {
    let mail = &taken.mail;
    let from = transaction.reverse_path.address().map(ToString::to_string).unwrap_or_default();
    Arc::ptr_eq(&transaction.view, &VIEWS[mail.view])
        && from.eq_ignore_ascii_case(FROM[mail.from].path)
        && transaction.recipients.len() == mail.to.len()
        && transaction
            .recipients
            .iter()
            .zip(&mail.to)
            .all(|(recipient, number)| recipient.address.to_string().eq_ignore_ascii_case(TO[*number].path))
        && (transaction.client.tls, transaction.client.extended) == (taken.tls, taken.extended)
        && transaction.client.department.is_some() == (transaction.client.listener == Listener::Departments)
}

/// The shortest sequence that still goes wrong, found by leaving out one command after the other.
fn shrunk(world: World, mut acts: Vec<Act>) -> (Vec<Act>, String) {
    let fault = |acts: &[Act]| match catch_unwind(AssertUnwindSafe(|| play(world, acts, true))) {
        Ok(outcome) => outcome.err(),
        Err(_) => Some("panic".to_owned()),
    };
    let mut why = fault(&acts).unwrap_or_default();
    let mut at = 0;
    while at < acts.len() {
        let mut fewer = acts.clone();
        fewer.remove(at);
        match fault(&fewer) {
            Some(still) => (acts, why, at) = (fewer, still, 0),
            None => at += 1,
        }
    }
    (acts, why)
}

fn story(seed: u64) -> String {
    let (world, acts) = sequence(seed);
    let (acts, why) = shrunk(world, acts);
    let mut story = format!("seed {seed}, {world:?}:\n");
    for act in acts {
        let with_next = if act.hasty { " with" } else { "" };
        // A String takes every write.
        writeln!(story, "  {:?} {:?}{with_next}", act.change, act.said).unwrap_or_default();
    }
    story + &why
}

#[test]
fn in_a_million_sequences_of_commands_nothing_outlives_its_transaction_whatever_ended_it() {
    let next = AtomicU64::new(0);
    let work = || -> Result<[u64; End::ALL.len()], u64> {
        let mut ends = [0; End::ALL.len()];
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEQUENCES {
                return Ok(ends);
            }
            let (world, acts) = sequence(seed);
            let played = catch_unwind(AssertUnwindSafe(|| play(world, &acts, seed.is_multiple_of(SEARCHED_EVERY))));
            let Ok(Ok(played)) = played else {
                next.store(SEQUENCES, Ordering::Relaxed);
                return Err(seed);
            };
            ends.iter_mut().zip(played).for_each(|(sum, more)| *sum += more);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(|thread| thread.join().expect("it catches panics")).collect()
    });
    let mut ends = [0; End::ALL.len()];
    for outcome in outcomes {
        match outcome {
            Ok(played) => ends.iter_mut().zip(played).for_each(|(sum, more)| *sum += more),
            Err(seed) => panic!("{}", story(seed)),
        }
    }
    for end in End::ALL {
        let seen = ends[end as usize];
        println!("{seen:9} transactions ended by {end:?}");
        assert!(seen >= ENDS_MIN, "only {seen} transactions were ended by {end:?}");
    }
}
