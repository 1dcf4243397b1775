//! How a message of a collection came in. The servers of its reader have each added a `Received` field, and the last of them names the
//! client that handed it over: what a gateway in their place would have seen of it. The message is then what that client sent.

use std::net::{IpAddr, Ipv4Addr};

use mail_parser::{DateTime, Header, HeaderName, HeaderValue, Host, MessageParser, Protocol, Received};
use node::smtp::transaction::{Client, ClientName, Listener};

/// Since this year it says something when mail comes without encryption.
const TLS_SINCE: u16 = 2015;
/// Names of Microsoft's servers.
const MICROSOFT: [&str; 3] = ["outlook.com", "office365.com", "exchangelabs.com"];

/// A message as it came in.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Who handed it over; nobody has looked at it when no field names it.
    pub client: Client,
    /// What was handed over.
    pub bytes: Vec<u8>,
    /// When, as the field says it.
    date: String,
}

impl Arrival {
    /// Reads it off the fields of a message.
    #[must_use]
    pub fn of(message: &[u8]) -> Self {
        let unnamed = Self { client: nobody(), bytes: message.to_vec(), date: String::new() };
        let Some(parsed) = MessageParser::default().parse_headers(message) else { return unnamed };
        let fields: Vec<&Header<'_>> =
            parsed.headers().iter().filter(|header| header.name == HeaderName::Received).collect();
        let Some(at) = fields.iter().position(|field| is_border(field, message)) else { return unnamed };
        let HeaderValue::Received(received) = &fields[at].value else { return unnamed };
        let Some(client) = named(received, &text(fields[at], message)) else { return unnamed };
        let mut bytes = Vec::with_capacity(message.len());
        let mut from = 0;
        for field in &fields[..=at] {
            bytes.extend_from_slice(&message[from..field.offset_field as usize]);
            from = field.offset_end as usize;
        }
        bytes.extend_from_slice(&message[from..]);
        let date = text(fields[at], message).rsplit_once("; ").map(|(_, date)| date.to_owned()).unwrap_or_default();
        Self { client, bytes, date }
    }

    /// The message as a mail server hands it to a filter: with a field of its own that names the client.
    #[must_use]
    pub fn received(&self) -> Vec<u8> {
        let Client { address, helo, name, .. } = &self.client;
        let name = match name {
            ClientName::Unasked => return self.bytes.clone(),
            ClientName::Known(name) => format!("{name} "),
            ClientName::None => "unknown ".to_owned(),
            ClientName::Unanswered => String::new(),
        };
        let with = if self.client.declined_tls { "ESMTP" } else { "ESMTPS" };
        let field = format!(
            "Received: from {helo} ({name}[{address}])\r\n\tby mx.example.test (Postfix) with {with} id 4FGH2K1m2Tz9;\r\n\t{}\r\n",
            self.date
        );
        [field.as_bytes(), &self.bytes].concat()
    }
}

/// A client at which nobody has looked.
#[must_use]
pub fn nobody() -> Client {
    Client {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        listener: Listener::Internet,
        helo: "mail.example.net".into(),
        extended: true,
        tls: true,
        declined_tls: false,
        name: ClientName::Unasked,
        department: None,
        reasons: Vec::new(),
    }
}

/// Whether the server that wrote this field took the message from somebody else's.
fn is_border(field: &Header<'_>, message: &[u8]) -> bool {
    let HeaderValue::Received(received) = &field.value else { return false };
    let (Some(from), Some(by)) = (&received.from, &received.by) else { return false };
    // Who has fetched it, or has shown a password, is no client of a gateway.
    let fetched = text(field, message).contains("fetchmail");
    let inside = matches!(received.with, Some(Protocol::LMTP | Protocol::ESMTPA | Protocol::ESMTPSA))
        || received.from_ip.is_some_and(is_inside);
    let (from, by) = (host(from), host(by));
    let names =
        [Some(from.clone()), received.from_iprev.as_deref().map(str::to_owned), received.helo.as_ref().map(host)];
    let own = names.iter().flatten().any(|name| are_of_one(name, &by) && !sells_mailboxes(name, &by));
    !fetched && !inside && !own && (received.from_ip.is_some() || from.contains('.'))
}

/// Whether a provider of mailboxes has sent it to a mailbox of its own: one customer to another.
fn sells_mailboxes(from: &str, by: &str) -> bool {
    let (from, by) = (from.to_ascii_lowercase(), by.to_ascii_lowercase());
    (from.ends_with(".outbound.protection.outlook.com") && by.ends_with(".mail.protection.outlook.com"))
        || (from.starts_with("mail-") && from.ends_with(".google.com") && by == "mx.google.com")
}

fn named(received: &Received<'_>, text: &str) -> Option<Client> {
    let address = received.from_ip?;
    // An address that stands for a name loses its brackets, and only with them it may.
    let spelled = |name: &Host<'_>| match name {
        Host::IpAddr(own) if text.contains(&format!("[{own}] (")) || text.contains(&format!("=[{own}]")) => {
            format!("[{own}]")
        }
        Host::IpAddr(_) | Host::Name(_) => host(name),
    };
    let (from, helo) = (spelled(received.from.as_ref()?), received.helo.as_ref().map(spelled));
    // Sendmail writes who is logged in at the client before its name.
    let logged_in =
        text.split_once('[').and_then(|(before, _)| Some(before.trim_end().rsplit_once('(')?.1.rsplit_once('@')?.1));
    let iprev = received.from_iprev.as_deref().or(logged_in);
    let iprev = iprev.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
    let unknown = [Some(from.as_str()), iprev.as_deref()].contains(&Some("unknown"));
    let exim = text.contains("(Exim");
    let name = match iprev {
        _ if unknown || text.contains("may be forged") => ClientName::None,
        Some(name) => ClientName::Known(name),
        // Exim writes the name of the address first when it has one, and qmail does before what the client calls itself.
        None if (exim || helo.is_some()) && from.contains('.') && from.parse::<IpAddr>().is_err() => {
            ClientName::Known(from.to_ascii_lowercase())
        }
        // These do not write it.
        None if text.contains("Microsoft SMTP") || text.contains("yahoo.com") => ClientName::Unanswered,
        None => ClientName::None,
    };
    let old = received.date.as_ref().is_none_or(|date: &DateTime| date.year < TLS_SINCE);
    let encrypted = received.tls_version.is_some()
        || matches!(received.with, Some(Protocol::ESMTPS | Protocol::ESMTPSA | Protocol::UTF8SMTPS))
        || ["TLS", "cipher", "with SMTPS"].iter().any(|mark| text.contains(mark));
    let literal = helo.unwrap_or(from);
    let tls = old || encrypted;
    Some(Client { address, helo: literal, name, tls, declined_tls: !tls, ..nobody() })
}

/// The field as it is written, on one line.
fn text(field: &Header<'_>, message: &[u8]) -> String {
    let bytes = message.get(field.offset_start as usize..field.offset_end as usize).unwrap_or_default();
    String::from_utf8_lossy(bytes).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn host(host: &Host<'_>) -> String {
    match host {
        Host::Name(name) => name.trim_end_matches('.').to_owned(),
        Host::IpAddr(address) => address.to_string(),
    }
}

fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

/// Whether two servers are of one owner, going by their names.
fn are_of_one(one: &str, other: &str) -> bool {
    let owner = |name: &str| {
        let name = name.to_ascii_lowercase();
        let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
        let second = dots.nth(1);
        let label = second.map_or(name.as_str(), |at| &name[at + 1..]).to_owned();
        let short = label.split('.').next().is_some_and(|label| label.len() <= 3);
        let third = dots.next().map_or(0, |at| at + 1);
        match second {
            Some(_) if short => name[third..].to_owned(),
            Some(_) | None => label,
        }
    };
    let (one, other) = (owner(one), owner(other));
    let microsoft = |name: &String| MICROSOFT.contains(&name.as_str());
    one.contains('.') && (one == other || microsoft(&one) && microsoft(&other))
}

#[cfg(test)]
mod tests {
    use node::smtp::transaction::ClientName;

    use super::Arrival;

    fn known(name: &str) -> ClientName {
        ClientName::Known(name.to_owned())
    }

    /// The name, the greeting and TLS of the client, and how many fields are left.
    fn seen(fields: &[&str]) -> (ClientName, String, bool, usize) {
        let fields: String = fields.iter().map(|field| format!("Received: {field}\r\n")).collect();
        let arrival = Arrival::of(format!("Return-Path: <a@b.test>\r\n{fields}Subject: x\r\n\r\nbody\r\n").as_bytes());
        let text = String::from_utf8(arrival.bytes).expect("text");
        assert!(text.starts_with("Return-Path:") && text.ends_with("Subject: x\r\n\r\nbody\r\n"), "{text}");
        (arrival.client.name, arrival.client.helo, arrival.client.tls, text.matches("Received:").count())
    }

    #[test]
    fn each_server_s_way_to_write_it_is_read() {
        let now = "; Wed, 18 Nov 2026 11:06:40 +0000";
        let cases = [
            (
                "from mx.b.test (root@mx7.b.test [192.0.2.7]) by in.reader.test (8.11.6/8.11.6) with ESMTP id 1",
                known("mx7.b.test"),
                "mx.b.test",
                false,
            ),
            (
                "from [192.0.2.7] (mx7.b.test [192.0.2.7]) by in.reader.test (Postfix) with ESMTP id 1",
                known("mx7.b.test"),
                "[192.0.2.7]",
                false,
            ),
            (
                "from 192.0.2.7 (mx7.b.test [192.0.2.7]) by in.reader.test (Postfix) with ESMTP id 1",
                known("mx7.b.test"),
                "192.0.2.7",
                false,
            ),
            (
                "from mail-ot1-f43.google.com (mail-ot1-f43.google.com. [192.0.2.7]) by mx.google.com with ESMTPS id 1",
                known("mail-ot1-f43.google.com"),
                "mail-ot1-f43.google.com",
                true,
            ),
            (
                "from mx.b.test (mx7.b.test [192.0.2.7]) by in.reader.test (Postfix) with ESMTPS id 1",
                known("mx7.b.test"),
                "mx.b.test",
                true,
            ),
            (
                "from mx.b.test (unknown [192.0.2.7]) by in.reader.test (Postfix) with ESMTP id 1",
                ClientName::None,
                "mx.b.test",
                false,
            ),
            (
                "from mx.b.test (mx.b.test [192.0.2.7] (may be forged)) by in.reader.test (8.16.1/8.16.1) with ESMTP id 1",
                ClientName::None,
                "mx.b.test",
                false,
            ),
            (
                "from mx.b.test ([192.0.2.7]) by in.reader.test (8.16.1/8.16.1) with ESMTP id 1",
                ClientName::None,
                "mx.b.test",
                false,
            ),
            (
                "from mx7.b.test ([192.0.2.7] helo=mx.b.test) by in.reader.test with esmtp (Exim 4.69) id 1",
                known("mx7.b.test"),
                "mx.b.test",
                false,
            ),
            (
                "from mx.b.test (mx7.b.test. [192.0.2.7]) by mx.google.com with ESMTPS id 1",
                known("mx7.b.test"),
                "mx.b.test",
                true,
            ),
            (
                "from mx.b.test (192.0.2.7) by x.mail.protection.outlook.com (192.0.2.8) with Microsoft\r\n SMTP Server (version=TLS1_2, cipher=X) id 1",
                ClientName::Unanswered,
                "mx.b.test",
                true,
            ),
        ];
        for (field, name, helo, tls) in cases {
            assert_eq!(seen(&[&format!("{field}{now}")]), (name, helo.to_owned(), tls, 0), "{field}");
        }
    }

    #[test]
    fn servers_of_the_reader_are_passed_by_and_what_the_client_says_itself_stays() {
        let now = "; Wed, 18 Nov 2026 11:06:40 +0000";
        let fields = [
            format!("from localhost (localhost [127.0.0.1]) by box.reader.test (Postfix) with ESMTP id 1{now}"),
            format!("from box.reader.test [192.0.2.9] by localhost with POP3 (fetchmail-5.9.0) for a@localhost{now}"),
            format!(
                "from in.reader.test (192-0-2-9.isp.test [192.0.2.9]) by box.reader.test (Postfix) with ESMTP id 2{now}"
            ),
            format!("from mx.b.test (mx.b.test [192.0.2.7]) by in.reader.test (Postfix) with ESMTPS id 3{now}"),
            format!("from evil (unknown [192.0.2.66]) by mx.b.test (Postfix) with ESMTP id 4{now}"),
        ];
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        assert_eq!(seen(&fields), (known("mx.b.test"), "mx.b.test".to_owned(), true, 1));
    }

    #[test]
    fn who_shows_a_password_is_no_client_of_a_gateway() {
        let fields = [
            "from laptop (x.dsl.test [192.0.2.66]) by mx.reader.test (Postfix) with ESMTPSA id 1; Wed, 18 Nov 2026 11:06:40 +0000",
            "from mx.b.test (mx.b.test [192.0.2.7]) by laptop (Postfix) with ESMTPS id 3; Wed, 18 Nov 2026 11:06:40 +0000",
        ];
        assert_eq!(seen(&fields), (known("mx.b.test"), "mx.b.test".to_owned(), true, 0));
    }

    #[test]
    fn what_names_nobody_says_nothing_and_keeps_all() {
        let bytes = b"Received: by 10.0.0.1 with SMTP id 1; Wed, 18 Nov 2026 11:06:40 +0000\r\n\r\nx\r\n";
        let arrival = Arrival::of(bytes);
        assert_eq!((arrival.client.name, arrival.bytes), (ClientName::Unasked, bytes.to_vec()));
    }

    #[test]
    fn old_mail_came_without_tls_and_that_says_nothing() {
        let field = "from mx.b.test (mx.b.test [192.0.2.7]) by in.reader.test (Postfix) with SMTP id 1; Wed, 18 Nov 2009 11:06:40 +0000";
        assert!(seen(&[field]).2);
    }
}
