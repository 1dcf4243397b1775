//! A name server for loads: a few answers, made ready beforehand, over UDP alone, on one thread. What is not in its records does not
//! exist. A filter that asks forty questions about each message would otherwise be held up by whoever answers them.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use anyhow::{Context as _, bail};

use crate::dns::Record;

/// Longest question that is read; longer ones are none that a filter asks.
const QUESTION_BYTES_MAX: usize = 1500;
const HEADER_BYTES: usize = 12;
const TTL_S: u32 = 60;
/// Answers are authoritative (RFC 1035 section 4.1.1).
const ANSWERED: [u8; 2] = [0x84, 0x00];
const NO_SUCH_NAME: [u8; 2] = [0x84, 0x03];
/// The name that the question begins with.
const ASKED_NAME: [u8; 2] = [0xc0, 0x0c];
const IN: u16 = 1;
const SOA: u16 = 6;

/// Of one name: how many records of each type there are, and they as bytes.
type Answers = BTreeMap<u16, (u16, Vec<u8>)>;

/// What it knows.
#[derive(Debug)]
pub struct Names {
    /// By their labels as they are in a question, in lower case.
    names: BTreeMap<Vec<u8>, Answers>,
    /// Says for how long a name does not exist (RFC 2308).
    nothing: Vec<u8>,
}

impl Names {
    /// These records.
    ///
    /// # Errors
    /// When one is not well-formed.
    pub fn new(records: &[Record]) -> anyhow::Result<Self> {
        let mut names: BTreeMap<Vec<u8>, Answers> = BTreeMap::new();
        for record in records {
            let (kind, data) = data(record).with_context(|| format!("{record:?}"))?;
            let of_name = names.entry(labels(&record.name)?).or_default();
            let (count, bytes) = of_name.entry(kind).or_default();
            *count += 1;
            bytes.extend(resource(&ASKED_NAME, kind, &data)?);
        }
        let numbers = [1_u32, 3600, 600, 86_400, TTL_S].map(u32::to_be_bytes).concat();
        let soa = [labels("ns.test")?, labels("hostmaster.test")?, numbers].concat();
        Ok(Self { names, nothing: resource(&[0], SOA, &soa)? })
    }

    /// Answers for ever.
    ///
    /// # Errors
    /// When the socket breaks.
    pub fn serve(&self, socket: &UdpSocket) -> io::Result<()> {
        let mut question = [0; QUESTION_BYTES_MAX];
        loop {
            let (length, from) = socket.recv_from(&mut question)?;
            if let Some(answer) = question.get(..length).and_then(|question| self.answer(question)) {
                // Who has gone needs no answer.
                let _ = socket.send_to(&answer, from);
            }
        }
    }

    /// `None` to what is no question.
    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let mut end = HEADER_BYTES;
        while let length @ 1.. = *question.get(end)? {
            end += usize::from(length) + 1;
        }
        let name = question.get(HEADER_BYTES..=end)?.to_ascii_lowercase();
        let asked = question.get(end + 1..end + 5)?;
        let kind = u16::from_be_bytes(asked.get(..2)?.try_into().ok()?);
        let found = self.names.get(&name);
        let records = found.and_then(|answers| answers.get(&kind));
        let flags = if found.is_some() { ANSWERED } else { NO_SUCH_NAME };
        let (answers, authorities, bytes) = match records {
            Some((count, bytes)) => (*count, 0, bytes),
            None => (0, 1, &self.nothing),
        };
        let mut out = question.get(..2)?.to_vec();
        out.extend(flags);
        out.extend([1, answers, authorities, 0].map(u16::to_be_bytes).concat());
        out.extend_from_slice(question.get(HEADER_BYTES..end + 5)?);
        out.extend_from_slice(bytes);
        Some(out)
    }
}

/// A socket to serve on.
///
/// # Errors
/// When the port is taken.
pub fn listen(at: SocketAddr) -> anyhow::Result<(SocketAddr, UdpSocket)> {
    let socket = UdpSocket::bind(at).with_context(|| format!("listen for DNS on {at}"))?;
    Ok((socket.local_addr().context("a socket has an address")?, socket))
}

/// Each label after its length, and the empty one.
fn labels(name: &str) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    for label in name.trim_end_matches('.').split('.') {
        out.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length)).context("a label's length")?);
        out.extend(label.to_ascii_lowercase().into_bytes());
    }
    out.push(0);
    Ok(out)
}

fn resource(owner: &[u8], kind: u16, data: &[u8]) -> anyhow::Result<Vec<u8>> {
    let length = u16::try_from(data.len()).context("the length of a record")?;
    let head = [kind.to_be_bytes(), IN.to_be_bytes()].concat();
    Ok([owner, &head, &TTL_S.to_be_bytes(), &length.to_be_bytes(), data].concat())
}

/// Its type and data (RFC 1035 section 3.3, RFC 3596).
fn data(record: &Record) -> anyhow::Result<(u16, Vec<u8>)> {
    let address = || record.value.parse::<IpAddr>().context("it is no address");
    Ok(match record.kind.as_str() {
        "A" | "AAAA" => match address()? {
            IpAddr::V4(v4) => (1, v4.octets().to_vec()),
            IpAddr::V6(v6) => (28, v6.octets().to_vec()),
        },
        "PTR" => (12, labels(&record.value)?),
        "MX" => {
            let (preference, host) = record.value.split_once(' ').context("an MX value is PREFERENCE HOST")?;
            let preference: u16 = preference.parse().context("an MX preference is a number")?;
            (15, [preference.to_be_bytes().to_vec(), labels(host)?].concat())
        }
        "TXT" => {
            let strings = record.value.as_bytes().chunks(255);
            (16, strings.flat_map(|part| [&[u8::try_from(part.len()).unwrap_or(255)], part].concat()).collect())
        }
        other => bail!("records of type {other:?} are not served"),
    })
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::{
        op::{Message, MessageType, OpCode, Query, ResponseCode},
        rr::{Name, RecordType},
    };

    use super::Names;
    use crate::{dns::Record, zones};

    fn ask(names: &Names, name: &str, kind: RecordType) -> Message {
        let mut question = Message::new(7, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        let answer = names.answer(&question.to_vec().expect("encoded")).expect("a question");
        Message::from_vec(&answer).expect("a message")
    }

    fn told(answer: &Message) -> Vec<String> {
        answer.answers.iter().map(|record| record.data.to_string()).collect()
    }

    #[test]
    fn what_is_known_is_told_and_all_else_does_not_exist() {
        let key = zones::SigningKey::fresh().expect("a key");
        let mut records = zones::records(&key);
        let long = Record { name: "long.example".into(), kind: "TXT".into(), value: "x".repeat(300) };
        records.push(long.clone());
        let names = Names::new(&records).expect("well-formed");
        let answer = ask(&names, "GOOD.example.", RecordType::TXT);
        assert_eq!(
            (answer.metadata.response_code, told(&answer)),
            (ResponseCode::NoError, vec!["v=spf1 ip4:127.0.10.1 -all".into()])
        );
        assert_eq!(told(&ask(&names, "good.example.", RecordType::MX)), ["10 mail.good.example."]);
        assert_eq!(told(&ask(&names, "mail.good.example.", RecordType::A)), ["127.0.10.1"]);
        assert_eq!(told(&ask(&names, "1.10.0.127.in-addr.arpa.", RecordType::PTR)), ["mail.good.example."]);
        assert_eq!(told(&ask(&names, "long.example.", RecordType::TXT)), [long.value]);
        let other = ask(&names, "good.example.", RecordType::AAAA);
        assert_eq!((other.metadata.response_code, other.authorities.len()), (ResponseCode::NoError, 1));
        let unknown = ask(&names, "4.3.2.1.zen.spamhaus.org.", RecordType::A);
        assert_eq!((unknown.metadata.response_code, unknown.authorities.len()), (ResponseCode::NXDomain, 1));
    }

    #[test]
    fn what_is_no_question_gets_no_answer() {
        let names = Names::new(&[]).expect("well-formed");
        for wrong in [&b""[..], &[0; 12], &[0; 16], &[255; 40]] {
            assert_eq!(names.answer(wrong), None, "{wrong:?}");
        }
    }
}
