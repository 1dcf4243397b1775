//! Rules as people write them, and mail as it comes, both made up from one vocabulary: so literals of rules are in mail, as words of
//! a language are.

use fastrand::Rng;
use proto::{
    rules::{Condition, Rule},
    score::Score,
};

/// Words that are in most mail.
const COMMON: &str = "the and you for your with this that have from please account email information click here free offer order \
    service customer online bank payment money credit card price product company business website contact address number date \
    invoice delivery package update security password login confirm verify important urgent today now new best time people world \
    news view browser unsubscribe privacy policy terms rights reserved team support help thank dear hello regards meeting report \
    project question answer week month year office minister department citizen letter form application document attached";
/// What rarer words are made of.
const SYLLABLES: &str = "ba be bi bo bu da de di do du fa fe fi fo ga ge go ha he hi ka ke ko la le li lo lu ma me mi mo na ne ni no \
    pa pe po ra re ri ro sa se si so ta te ti to va ve vi vo wa we xa za zo";
/// Rarer words, and hosts, that there are.
const RARE: usize = 6_000;

struct Words {
    random: Rng,
    common: Vec<&'static str>,
    rare: Vec<String>,
}

impl Words {
    fn new(seed: u64, turn: u64) -> Self {
        // The words are those of the seed; what is made of them is not.
        let mut random = Rng::with_seed(seed);
        let syllables: Vec<&str> = SYLLABLES.split_ascii_whitespace().collect();
        let mut word = || (0..random.usize(3..6)).map(|_| syllables[random.usize(..syllables.len())]).collect();
        let rare = (0..RARE).map(|_| word()).collect();
        Self { random: Rng::with_seed(seed ^ turn), common: COMMON.split_ascii_whitespace().collect(), rare }
    }

    fn common(&mut self) -> &'static str {
        self.common[self.random.usize(..self.common.len())]
    }

    fn rare(&mut self) -> String {
        self.rare[self.random.usize(..self.rare.len())].clone()
    }

    /// A word as it comes in a text: two of three are common.
    fn word(&mut self) -> String {
        if self.random.u8(..3) == 0 { self.rare() } else { self.common().to_owned() }
    }

    fn text(&mut self, words: usize) -> String {
        let all: Vec<String> = (0..words).map(|_| self.word()).collect();
        all.join(" ")
    }
}

/// So many rules.
pub(super) fn rules(count: usize, seed: u64) -> Vec<Rule> {
    let mut words = Words::new(seed, 1);
    (0..count).map(|number| rule(number, &mut words)).collect()
}

fn rule(number: usize, words: &mut Words) -> Rule {
    let (a, b, c) = (words.common(), words.common(), words.common());
    let (r, s) = (words.rare(), words.rare());
    // Ten sorts, in turn, but for the step of those who take every hundredth.
    let (field, value) = match (number + number / 100) % 10 {
        0 => ("body", format!(r"\b{a}\s+{b}\s+{r}\b")),
        1 => ("body", format!(r"\b(?:{a}|{b}) (?:your|the) {c}s?\b")),
        2 => ("body", format!(r"\b{r}\W{{0,4}}{s}\b")),
        3 => ("subject", format!(r"^(re: )?{a}\b.*\b{b}")),
        4 => ("link_host", format!(r"(^|\.){r}-?{s}\.(test|example|invalid)$")),
        5 => ("link", format!(r"^https?://[^/]+/{r}/[a-z0-9]{{8,40}}\.php")),
        6 => ("header", format!(r"X-Mailer: ^{r} [0-9.]+")),
        7 => ("author", format!(r"@{r}[0-9]*\.(test|example)$")),
        8 => ("html", format!(r#"<a [^>]{{0,100}}href=["']?https?://{r}"#)),
        _ => ("header", format!(r"Message-ID: @{r}\.{s}>$")),
    };
    Rule {
        name: format!("OWN_{number}"),
        group: format!("group{}", number % 20),
        score: Score::points(1, 0),
        text: "a rule of the benchmark".to_owned(),
        all: vec![Condition { field: field.to_owned(), value }],
        any: Vec::new(),
        none: Vec::new(),
    }
}

/// So many messages: letters and newsletters in turn.
pub(super) fn mail(count: usize, seed: u64) -> Vec<Vec<u8>> {
    let mut words = Words::new(seed, 2);
    (0..count).map(|number| message(number, &mut words).replace('\n', "\r\n").into_bytes()).collect()
}

fn message(number: usize, words: &mut Words) -> String {
    let (host, program, subject) = (words.rare(), words.rare(), words.text(6));
    let header = format!(
        "Return-Path: <{number}@{host}.example>\nReceived: from mail.{host}.example by mx.example.test; Sun, 22 Nov 2026 10:00:00 \
         +0000\nFrom: {} <{number}@{host}.example>\nTo: somebody@example.test\nSubject: {subject}\nDate: Sun, 22 Nov 2026 10:00:00 \
         +0000\nMessage-ID: <{number}@{host}.example>\nX-Mailer: {program} 3.{number}\nMIME-Version: 1.0\n",
        words.rare()
    );
    if number.is_multiple_of(2) {
        return format!("{header}Content-Type: text/plain; charset=utf-8\n\n{}\n", words.text(400));
    }
    let paragraph = |words: &mut Words| {
        let (text, host, path, more) = (words.text(40), words.rare(), words.rare(), words.text(3));
        format!(
            "<tr><td style=\"font-size:14px;color:#333\"><p>{text}</p><a href=\"https://www.{host}.example/{path}/{more}\">{more}</a></td></tr>\n"
        )
    };
    let body: String = (0..20).map(|_| paragraph(words)).collect();
    format!("{header}Content-Type: text/html; charset=utf-8\n\n<html><body><table>\n{body}</table></body></html>\n")
}
