//! What a client from the Internet meets before its first message: checks that are cheap and come early, so that most of the bad
//! mail is never sent. Each gives a reason with points; policy says at how many a recipient's mail is refused or put off.

mod crowd;
mod directory;
mod lookups;
pub mod names;
mod rates;
mod recipients;
mod tries;

use std::{net::IpAddr, sync::Arc, time::Duration};

use hickory_resolver::TokioResolver;
use ipnet::IpNet;
use proto::{
    address::Domain,
    client_rules::ClientRules,
    greylist::try_key,
    policy::AuthUnavailable,
    reputation::{Repute, Stance, Subject},
    score::Score,
    time::UnixMs,
    verdict::Reason,
    view::View,
};
use tokio::time::{Instant, timeout};

use self::{
    crowd::Crowd,
    lookups::Lookups,
    names::HeloFault,
    rates::{Counted, Meter},
};
pub use self::{crowd::Presence, directory::DirectorySettings, recipients::Recipients, tries::Tries};
use crate::{
    policy::score::reason,
    reputation::Outcomes,
    smtp::{
        reply::Reply,
        transaction::{Listener, Met, Transaction},
    },
    telemetry::metrics,
};

/// Score of reputation of an address down from which it is asked nothing more: much good mail came from it, and hardly any bad.
const TRUSTED_FROM: i16 = -600;
/// First tries that greylisting remembers of one net in a minute: who makes up more must not have those of others forgotten.
const FIRST_TRIES_A_MINUTE: u32 = 60;
/// One client from the Internet has at most this part of what is bounded for a domain or a department at once, and at least one.
const CLIENT_SHARE: u32 = 4;
/// All that is asked about one client at once, apart from its recipients.
pub const ASKING_TIME_MAX: Duration = Duration::from_secs(2);

/// What all connections of a node ask.
#[derive(Clone)]
pub struct Reception {
    hostname: Domain,
    lookups: Lookups,
    meter: Arc<Meter>,
    crowd: Crowd,
    outcomes: Outcomes,
    recipients: Recipients,
    /// First tries, to be reported.
    pub tries: Tries,
}

impl std::fmt::Debug for Reception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reception").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

impl Reception {
    /// `hostname` is our own name; who looks for addresses counts as bad in `outcomes`; `recipients` knows who exists.
    #[must_use]
    pub fn new(hostname: Domain, resolver: TokioResolver, outcomes: Outcomes, recipients: Recipients) -> Self {
        let (meter, crowd, tries) = (Arc::default(), Crowd::default(), Tries::default());
        Self { hostname, lookups: Lookups::new(resolver, ASKING_TIME_MAX), meter, crowd, outcomes, recipients, tries }
    }

    /// Whether a client from the Internet may connect once more; what it gets is held as long as the connection.
    ///
    /// # Errors
    /// 421: too often, or too many of its network are here.
    pub fn connection(&self, client: IpAddr, rules: &ClientRules) -> Result<Option<Presence>, Reply> {
        let [own, net] = [(32, 64), (24, 48)].map(|(v4, v6)| {
            let net = net(client, v4, v6);
            Counted::Connections(net.network(), net.prefix_len())
        });
        let bounds = [
            (rules.rates.client_connections, &own, "from you"),
            (rules.rates.net_connections, &net, "from your network"),
        ];
        for (bound, key, whose) in bounds {
            let Some(a_minute) = bound else { continue };
            if !self.take(key.clone(), a_minute) {
                metrics().refused("connect", "CONNECTION_RATE");
                let text = format!("more than {a_minute} connections a minute {whose}; come back later");
                return Err(Reply::temporary(21, (7, 0), text));
            }
        }
        let Some(most) = rules.at_once.net_connections else { return Ok(None) };
        let presence = self.crowd.enter(net, most).ok_or_else(|| {
            metrics().refused("connect", "CONNECTIONS_AT_ONCE");
            let text = format!("more than {most} connections at once from your network; come back later");
            Reply::temporary(21, (7, 0), text)
        });
        presence.map(Some)
    }

    /// What is found out about a client that has connected; takes as long as its greeting is delayed, and no longer than that
    /// or [`ASKING_TIME_MAX`]. `speaks` ends when the client says something, which is too early; without it nothing is delayed.
    pub async fn client(&self, client: IpAddr, rules: &ClientRules, speaks: Option<impl Future<Output = ()>>) -> Met {
        let delay = Duration::from_millis(rules.greet_delay_ms);
        let early = async {
            match speaks {
                Some(speaks) if !delay.is_zero() => timeout(delay, speaks).await.is_ok(),
                Some(_) | None => false,
            }
        };
        let (mut met, early) = tokio::join!(self.lookups.address(client, rules), early);
        if early {
            met.reasons.insert(0, early_talk(rules));
        }
        met
    }

    /// What speaks against what a client calls itself, before its first message.
    async fn helo(&self, transaction: &Transaction) -> Option<Reason> {
        let (client, view) = (&transaction.client, &transaction.view);
        let points = view.clients.points;
        let counts = |points: Score| points.0 != 0;
        match names::helo(&client.helo, client.address, &self.hostname, view) {
            Some(HeloFault::False) if counts(points.false_helo) => {
                Some(reason("FALSE_HELO", points.false_helo, format!("the client is not {}", client.helo)))
            }
            Some(HeloFault::Bad) if counts(points.bad_helo) => {
                Some(reason("BAD_HELO", points.bad_helo, format!("{} is no name on the Internet", client.helo)))
            }
            Some(HeloFault::False | HeloFault::Bad) => None,
            None if counts(points.unknown_helo) && self.lookups.is_unknown(&client.helo).await => {
                Some(reason("UNKNOWN_HELO", points.unknown_helo, format!("{} has no address", client.helo)))
            }
            None => None,
        }
    }

    /// Whether the sender's domain may send once more, and what else speaks against the client, of which so much was `known` when
    /// it connected.
    ///
    /// # Errors
    /// 450: too often.
    pub async fn sender(&self, transaction: &Transaction, known: Repute) -> Result<Vec<Reason>, Reply> {
        // Who is trusted neither counts nor is counted: anybody can say a domain's name in MAIL.
        if transaction.client.listener == Listener::Departments || is_trusted(known) {
            return Ok(Vec::new());
        }
        let domain = transaction.reverse_path.address().map(|address| address.domain());
        if let (Some(domain), Some(a_minute)) = (domain, transaction.view.clients.rates.sender_domain_messages)
            && !self.take(Counted::Messages(domain.clone()), a_minute)
        {
            metrics().refused("mail", "SENDER_RATE");
            let text = format!("more than {a_minute} messages a minute from that domain; come back later");
            return Err(Reply::temporary(50, (7, 1), text));
        }
        Ok(self.helo(transaction).await.into_iter().collect())
    }

    /// Whether the last recipient of a transaction may have mail of this client now. Who asks others comes last: what costs nothing
    /// has refused most by then.
    ///
    /// # Errors
    /// 554: too much speaks against it. 450: it comes for the first time, or the department gets too much or too often, or nobody
    /// can say whether the recipient exists. 550: it does not.
    pub async fn recipient(&self, transaction: &Transaction, known: Repute) -> Result<(), Reply> {
        self.welcome(transaction, known)?;
        self.verified(transaction).await?;
        // Last: who was refused takes nothing from others.
        let Some(a_minute) = transaction.view.clients.rates.department_recipients else { return Ok(()) };
        let from = transaction.client.department.clone().map(Counted::RecipientsFrom);
        let of = || transaction.recipients.last()?.department().cloned().map(Counted::Recipients);
        if let Some(key) = from.or_else(of)
            && !self.take(key, a_minute)
        {
            metrics().refused("rcpt", "DEPARTMENT_RATE");
            let text = format!("more than {a_minute} recipients a minute of one department; come back later");
            return Err(Reply::temporary(50, (7, 1), text));
        }
        Ok(())
    }

    /// Whether a message may come now, whose transaction is complete but for it; what it gets is held until its reply.
    ///
    /// # Errors
    /// 451: too many at once.
    pub fn message(&self, transaction: &Transaction, known: Repute) -> Result<Vec<Presence>, Reply> {
        let (client, at_once) = (&transaction.client, &transaction.view.clients.at_once);
        let mut bounds: Vec<(Counted, u32, &str)> = Vec::new();
        let domain = transaction.reverse_path.address().map(|address| address.domain().clone());
        if let (Some(domain), Some(most)) = (domain, at_once.sender_domain_messages)
            && client.listener == Listener::Internet
            && !is_trusted(known)
        {
            bounds.push((Counted::Messages(domain), most, "from that domain"));
        }
        if let Some(most) = at_once.department_messages {
            let from = client.department.clone().map(Counted::RecipientsFrom);
            let of = transaction.recipients.iter().filter_map(|recipient| recipient.department().cloned());
            let keys: Vec<Counted> = from.map_or_else(|| of.map(Counted::Recipients).collect(), |from| vec![from]);
            for key in keys {
                if !bounds.iter().any(|(known, ..)| *known == key) {
                    bounds.push((key, most, "of one department"));
                }
            }
        }
        // One client alone, however slow it is, does not keep out the others.
        if client.listener == Listener::Internet {
            let network = net(client.address, 32, 64).network();
            let share = |(key, most, _): &(Counted, u32, &str)| {
                let key = Counted::OfClient(Box::new(key.clone()), network);
                (key, (most / CLIENT_SHARE).max(1), "of one client")
            };
            let shares: Vec<_> = bounds.iter().map(share).collect();
            bounds.extend(shares);
        }
        let enter = |(key, most, whose): (Counted, u32, &str)| {
            self.crowd.enter(key, most).ok_or_else(|| {
                let text = format!("more than {most} messages at once {whose}; come back later");
                Reply::temporary(51, (7, 1), text).because("MESSAGES_AT_ONCE")
            })
        };
        bounds.into_iter().map(enter).collect()
    }

    async fn verified(&self, transaction: &Transaction) -> Result<(), Reply> {
        let Some(recipient) = transaction.recipients.last() else { return Ok(()) };
        let tenant = recipient.department().and_then(|id| transaction.view.tenant(id));
        let Some(department) = tenant.map(|tenant| &tenant.department) else { return Ok(()) };
        match self.recipients.exists(department, &recipient.address).await {
            Some(true) => Ok(()),
            Some(false) => {
                metrics().refused("rcpt", "NO_SUCH_MAILBOX");
                Err(Reply::permanent(50, (1, 1), "no such mailbox"))
            }
            None if recipient.policy.recipient_unavailable.value == AuthUnavailable::Accept => Ok(()),
            None => {
                metrics().refused("rcpt", "RECIPIENT_UNAVAILABLE");
                Err(Reply::temporary(50, (4, 3), "nobody can say now whether that mailbox exists; come back later"))
            }
        }
    }

    /// What is known here of client and recipient.
    fn welcome(&self, transaction: &Transaction, known: Repute) -> Result<(), Reply> {
        let Some(recipient) = transaction.recipients.last() else { return Ok(()) };
        let (rules, client) = (&transaction.view.clients, &transaction.client);
        if client.listener == Listener::Departments || known.stance == Some(Stance::Allow) {
            return Ok(());
        }
        let points: Score = client.reasons.iter().map(|reason| reason.score).sum();
        if points >= recipient.policy.client_refuse_at.value {
            return Err(refusal(&client.reasons, "rcpt"));
        }
        if points >= recipient.policy.greylist_at.value && !is_good(known) {
            let tried = try_key(client.address, &transaction.reverse_path, &recipient.address);
            let (now, delay_ms) = (UnixMs::now(), rules.greylist_delay_ms);
            let has_room =
                || self.take(Counted::FirstTries(net(client.address, 24, 64).network()), FIRST_TRIES_A_MINUTE);
            if !self.tries.passes(tried, &transaction.view.tries, (now, delay_ms), has_room) {
                metrics().refused("rcpt", "GREYLISTED");
                let seconds = delay_ms / 1000;
                let text = format!("you are not known here yet; come back in {seconds} seconds");
                return Err(Reply::temporary(50, (7, 1), text));
            }
        }
        Ok(())
    }

    /// A client has named a recipient that nobody knows.
    ///
    /// # Errors
    /// 421: it names too many. Then it counts as a bad client at all nodes.
    pub fn unknown_recipient(&self, client: IpAddr, rules: &ClientRules) -> Result<(), Reply> {
        let Some(a_minute) = rules.rates.unknown_recipients else { return Ok(()) };
        if self.take(Counted::Unknown(net(client, 32, 64).network()), a_minute) {
            return Ok(());
        }
        metrics().refused("rcpt", "UNKNOWN_RECIPIENTS");
        self.outcomes.saw(&Subject::of_client(client), false);
        Err(Reply::temporary(21, (7, 0), "too many recipients that nobody knows; come back later"))
    }

    fn take(&self, key: Counted, a_minute: u32) -> bool {
        self.meter.take(key, a_minute, Instant::now())
    }
}

/// The reason of a client that has spoken before it was greeted.
#[must_use]
pub fn early_talk(rules: &ClientRules) -> Reason {
    reason("EARLY_TALK", rules.points.early_talk, "you spoke before the greeting")
}

/// The reply to a client against which too much speaks: what weighs most comes first.
#[must_use]
pub fn refusal(reasons: &[Reason], stage: &'static str) -> Reply {
    let mut against: Vec<&Reason> = reasons.iter().filter(|reason| reason.score > Score::ZERO).collect();
    against.sort_by_key(|reason| std::cmp::Reverse(reason.score));
    for reason in &against {
        metrics().refused(stage, &reason.rule);
    }
    let texts: Vec<&str> = against.iter().map(|reason| reason.text.as_str()).collect();
    Reply::permanent(54, (7, 1), format!("refused: {}", texts.join("; ")))
}

/// Whether so much good mail came from there that nothing more is asked.
#[must_use]
pub fn is_good(known: Repute) -> bool {
    known.stance != Some(Stance::Block) && known.score <= TRUSTED_FROM
}

/// The same, or an operator allows it.
fn is_trusted(known: Repute) -> bool {
    known.stance == Some(Stance::Allow) || is_good(known)
}

/// The net of a client with a prefix of this length.
pub(crate) fn net(client: IpAddr, v4: u8, v6: u8) -> IpNet {
    let prefix = if client.is_ipv4() { v4 } else { v6 };
    IpNet::new_assert(client, prefix).trunc()
}

/// The points from which on nobody at all would take a client's mail: it need not be greeted.
#[must_use]
pub fn refused_by_all(view: &View) -> Score {
    let departments = view.tenants().map(|tenant| tenant.policy.client_refuse_at.value);
    departments.max().unwrap_or(view.state_policy.client_refuse_at.value)
}
