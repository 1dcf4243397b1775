//! Near-copies: what tells that two messages are of one campaign, though words, links and addresses in them differ. Told by the least
//! hashes of runs of words (Broder, "On the resemblance and containment of documents", 1997), some of them taken together; and by
//! the files that are attached.

use proto::{
    learning::features::{hash, mix},
    reputation::{Repute, Stance, Subject, known::Known},
    score::Score,
    time::UnixMs,
    verdict::Reason,
};
use sha2::{Digest as _, Sha256};

use super::{criteria::weights::GROUP_MAX, facts::Facts};
use crate::policy::score::reason;

/// Parts of a digest. Of two messages that share four fifths of their runs nine of ten times two parts are the same, of two that share a
/// fifth once in a thousand.
const BANDS: usize = 6;
/// Least hashes that one part is made of.
const ROWS: usize = 3;
/// Words of a run.
const RUN: usize = 3;
/// A shorter text is like too many others.
const WORDS_MIN: usize = 25;
/// Words that are looked at.
const WORDS_MAX: usize = 3_000;
/// Attached files that are looked at.
const FILES_MAX: usize = 4;
/// The rules, with the most that each is worth.
pub const RULES: [(&str, Score, &str); 3] = [
    ("CAMPAIGN_BAD", GROUP_MAX, "near-copies of it were bad lately"),
    ("CAMPAIGN_BLOCKED", BLOCKED, "an operator blocks its near-copies"),
    ("CAMPAIGN_ALLOWED", ALLOWED, "an operator vouches for its near-copies"),
];
/// Score of reputation from which on near-copies are worth points: three bad ones are not enough.
const BAD_FROM: i16 = 250;
/// What an operator's word is worth.
const BLOCKED: Score = Score::points(20, 0);
const ALLOWED: Score = Score(-500);
/// A smaller file is like too many others, in bytes.
const FILE_BYTES_MIN: usize = 512;

/// What is alike in near-copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Of the text; near-copies have some of them in common. Empty when there is too little of it.
    pub text: Vec<Subject>,
    /// Of each attached file.
    pub files: Vec<Subject>,
}

impl Digest {
    /// Of a message.
    #[must_use]
    pub fn of(facts: &Facts<'_>) -> Self {
        let attached = facts.message.parts.iter().filter(|part| part.attached && part.content.len() >= FILE_BYTES_MIN);
        let file = |content: &[u8]| -> Option<Subject> {
            let digest: [u8; 32] = Sha256::digest(content).into();
            Some(Subject::Campaign(*digest.first_chunk()?))
        };
        let files = attached.take(FILES_MAX).filter_map(|part| file(&part.content)).collect();
        Self { text: of_words(&facts.words), files }
    }

    /// Each part of it.
    #[must_use]
    pub fn into_subjects(self) -> Vec<Subject> {
        self.text.into_iter().chain(self.files).collect()
    }

    /// What is known of near-copies: of the text two parts must be known as bad, of the files one. What an operator says of any of them
    /// holds, and a block holds against all.
    fn known(&self, reputation: &Known, now: UnixMs) -> (Repute, Option<&Subject>) {
        let subjects = self.text.iter().chain(&self.files);
        let all: Vec<(Repute, &Subject)> =
            subjects.map(|subject| (reputation.repute(subject.key(), now), subject)).collect();
        let stances = || all.iter().filter(|(known, _)| known.stance.is_some());
        if let Some((said, subject)) =
            stances().find(|(known, _)| known.stance == Some(Stance::Block)).or_else(|| stances().next())
        {
            return (*said, Some(subject));
        }
        let (text, files) = all.split_at(self.text.len());
        let mut text = text.to_vec();
        text.sort_by_key(|(known, _)| std::cmp::Reverse(known.score));
        let worst = text.get(1).into_iter().chain(files).max_by_key(|(known, _)| known.score);
        worst.map_or((Repute::default(), None), |(known, subject)| (*known, Some(subject)))
    }

    /// What that is worth. Near-copies of good mail speak for nobody: whoever has one can make more of them.
    #[must_use]
    pub fn reason(&self, reputation: &Known, now: UnixMs) -> Option<Reason> {
        let (known, subject) = self.known(reputation, now);
        let subject = subject?;
        match known.stance {
            Some(Stance::Block) => Some(reason("CAMPAIGN_BLOCKED", BLOCKED, format!("an operator blocks {subject}"))),
            Some(Stance::Allow) => {
                Some(reason("CAMPAIGN_ALLOWED", ALLOWED, format!("an operator vouches for {subject}")))
            }
            None if known.score >= BAD_FROM => {
                let points = Score(i32::from(known.score) * GROUP_MAX.0 / 1_000);
                Some(reason("CAMPAIGN_BAD", points, format!("near-copies of it were bad lately ({subject})")))
            }
            None => None,
        }
    }
}

/// Words that each copy may have of its own do not count: addresses, links, and what has digits in it.
fn of_words(words: &str) -> Vec<Subject> {
    let same = |word: &&str| !word.bytes().any(|byte| byte.is_ascii_digit() || matches!(byte, b'@' | b'/'));
    let hashes: Vec<u64> = words.split_ascii_whitespace().filter(same).take(WORDS_MAX).map(hash).collect();
    if hashes.len() < WORDS_MIN {
        return Vec::new();
    }
    let mut least = [u64::MAX; BANDS * ROWS];
    for run in hashes.windows(RUN) {
        let run = run.iter().fold(0, |all, word| mix(all ^ *word));
        for (least, seed) in least.iter_mut().zip(1_u64..) {
            *least = (*least).min(mix(run ^ mix(seed)));
        }
    }
    // What is alike in another place of the digest is not alike.
    let band = |(place, rows): (u64, &[u64])| {
        let together = rows.iter().fold(mix(place ^ u64::MAX), |all, row| mix(all ^ *row));
        Subject::Campaign(together.to_be_bytes())
    };
    (0..).zip(least.chunks(ROWS)).map(band).collect()
}

#[cfg(test)]
mod tests {
    use proto::{
        policy::PolicyLayer,
        reputation::{Manual, Stance, Subject, Tally, known::Known, tick},
        time::UnixMs,
        view::{View, ViewChange},
    };

    use super::Digest;
    use crate::{
        checks::facts::Facts,
        policy::samples::{message, transaction, view},
    };

    const NOW: UnixMs = UnixMs(1_800_000_000_000);
    const LETTER: &str = "Dear {name}, we are happy to tell you that your parcel is waiting at our depot because the address \
        on the label could not be read. Please confirm your address and pay the small fee for the second delivery within two \
        days at {link} or the parcel goes back to the sender. Thank you for your patience, the delivery team of your town.";

    fn digest(text: &str) -> Digest {
        digest_of(&format!("From: a@b.test\nSubject: x\n\n{text}\n"))
    }

    fn digest_of(text: &str) -> Digest {
        let transaction = transaction(view(PolicyLayer::default()), &["anna@interior.gov.test"]);
        Digest::of(&Facts::of(&message(text), &transaction))
    }

    fn common(one: &Digest, other: &Digest) -> usize {
        one.text.iter().filter(|part| other.text.contains(part)).count()
    }

    #[test]
    fn near_copies_have_parts_in_common_and_other_letters_have_none() {
        let copy = |name: &str, link: &str| LETTER.replace("{name}", name).replace("{link}", link);
        let first = digest(&copy("Anna", "http://a.example/x1"));
        assert_eq!(first.text.len(), 6);
        for other in
            [copy("Mr Karl Beispiel", "http://b.example/9"), copy("you", "www.c.example/77").replace("two", "three")]
        {
            assert!(common(&first, &digest(&other)) >= 2, "{other}");
        }
        let letter = "Dear Anna, here are the minutes of the meeting on Monday about the new depot of the town. Please look at the \
            third point before Friday and tell me whether the address on the label of the plan is right. Thank you, Karl.";
        assert_eq!(common(&first, &digest(letter)), 0);
        assert_eq!(digest("Call me back, please."), Digest::default(), "there is too little of it");
    }

    /// So many good and bad outcomes of these, and what an operator says of some.
    fn known(counts: &[(&Subject, u64, u64)], manual: &[(&Subject, Stance)]) -> Known {
        let tick = tick(NOW);
        let levels = |good: u64, bad: u64| Tally { good: good * 256, bad: bad * 256, tick }.levels();
        let until = NOW.plus_ms(1_000);
        let change = ViewChange {
            index: 1,
            subjects: counts.iter().map(|(one, good, bad)| (one.key(), Some(levels(*good, *bad)))).collect(),
            manual: manual.iter().map(|(one, stance)| (one.key(), Some(Manual { stance: *stance, until }))).collect(),
            ..ViewChange::default()
        };
        View::empty().after(change).reputation
    }

    #[test]
    fn two_parts_of_a_text_that_were_bad_speak_against_it_and_one_does_not() {
        let copy = digest(LETTER);
        let [one, two, three] = [0, 1, 2].map(|at| &copy.text[at]);
        let rule = |counts: &[(&Subject, u64, u64)], manual: &[(&Subject, Stance)]| {
            let reason = copy.reason(&known(counts, manual), NOW);
            reason.map(|reason| (reason.rule, reason.score.0))
        };
        assert_eq!(rule(&[], &[]), None);
        assert_eq!(rule(&[(one, 0, 500)], &[]), None, "any letter may have one in common");
        assert_eq!(rule(&[(one, 0, 500), (two, 0, 3)], &[]), None, "three bad ones are not enough");
        let (name, points) = rule(&[(one, 0, 500), (two, 0, 40)], &[]).expect("a reason");
        assert!(name == "CAMPAIGN_BAD" && (300..=400).contains(&points), "{name} {points}");
        assert_eq!(rule(&[(one, 500, 500), (two, 500, 500)], &[]), None, "much of it was good");
        assert_eq!(rule(&[(one, 500, 0), (two, 500, 0), (three, 500, 0)], &[]), None, "it speaks for nobody");
        let said = rule(&[], &[(two, Stance::Block), (one, Stance::Allow)]).expect("a reason");
        assert_eq!(said, ("CAMPAIGN_BLOCKED".to_owned(), 2_000));
        let said = rule(&[(one, 0, 500), (two, 0, 500)], &[(three, Stance::Allow)]).expect("a reason");
        assert_eq!(said, ("CAMPAIGN_ALLOWED".to_owned(), -500));
    }

    #[test]
    fn one_file_that_was_bad_is_enough() {
        let copy = Digest { text: Vec::new(), files: vec![Subject::Campaign([7; 8]), Subject::Campaign([8; 8])] };
        let bad = known(&[(&copy.files[1], 0, 40)], &[]);
        let reason = copy.reason(&bad, NOW).expect("a reason");
        assert!(reason.rule == "CAMPAIGN_BAD" && reason.text.contains("campaign:0808080808080808"), "{reason:?}");
    }

    #[test]
    fn an_attached_file_is_the_same_file_in_every_letter() {
        let with = |text: &str, file: &str| {
            digest_of(&format!(
                "From: a@b.test\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=x\n\n--x\n\n{text}\n--x\nContent-Type: \
                 application/pdf\nContent-Disposition: attachment; filename=a.pdf\n\n{}\n--x--\n",
                file.repeat(200)
            ))
        };
        let one = with("hello", "%PDF");
        assert_eq!(one.files.len(), 1);
        assert_eq!(one.files, with("good day", "%PDF").files);
        assert_ne!(one.files, with("hello", "%PDG").files);
        let small = digest_of(
            "From: a@b.test\nContent-Type: application/pdf\nContent-Disposition: attachment; filename=a.pdf\n\n%PDF\n",
        );
        assert_eq!(small.files, [], "many have such a small one in common");
    }
}
