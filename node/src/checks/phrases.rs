//! The table of phrases that spam uses, in English and German, some in Romance languages and Dutch, by what it is after: lower case,
//! single spaces. All are looked for in one pass.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// Every phrase with the spaces that part it from its neighbours, and the topic of each.
static PHRASES: LazyLock<Option<(AhoCorasick, Vec<usize>)>> = LazyLock::new(|| {
    let each = |(at, topic): (usize, &Topic)| topic.phrases.split('|').map(move |phrase| (format!(" {phrase} "), at));
    let (phrases, topics): (Vec<String>, Vec<usize>) = TOPICS.iter().enumerate().flat_map(each).unzip();
    // Only more phrases than there are numbers could fail, and a test looks for each of these.
    // Each begins with a space: looking for spaces first would only stop at every word.
    let search = AhoCorasick::builder().prefilter(false).kind(Some(AhoCorasickKind::DFA)).build(&phrases);
    Some((search.ok()?, topics))
});

/// How many different phrases of each topic occur as whole words. In `words` each word has a single space on both sides.
#[must_use]
pub fn hits(words: &str) -> [usize; TOPICS.len()] {
    let mut hits = [0; TOPICS.len()];
    let Some((phrases, topics)) = &*PHRASES else { return hits };
    let mut seen = vec![false; topics.len()];
    // Overlapping: neighbours share a space, and one phrase may be part of another.
    for found in phrases.find_overlapping_iter(words) {
        let phrase = found.pattern().as_usize();
        if !std::mem::replace(&mut seen[phrase], true) {
            hits[topics[phrase]] += 1;
        }
    }
    hits
}

/// Phrases with one aim.
#[derive(Debug)]
pub struct Topic {
    /// Name of the rule.
    pub rule: &'static str,
    /// Name of the rule that holds besides when more than one phrase occurs.
    pub rule_more: &'static str,
    /// In words for the verdict.
    pub text: &'static str,
    /// Parted by `|`; looked for as whole words.
    pub phrases: &'static str,
}

/// All topics.
pub const TOPICS: [Topic; 13] = [
    Topic {
        rule: "PHRASES_ADVANCE_FEE",
        rule_more: "PHRASES_ADVANCE_FEE_MORE",
        text: "it promises a share of a fortune",
        phrases: "next of kin|inheritance|beneficiary|million dollars|million united states dollars|\
                  million us dollars|million euro|million euros|millionen euro|deceased|late husband|\
                  business proposal|transfer of funds|fund transfer|utmost confidentiality|strictly confidential|\
                  foreign partner|barrister|diplomatic courier|atm card|compensation fund|unclaimed funds|unclaimed|\
                  western union|moneygram|security company|dear beloved|god bless you|erbschaft|nachlass|\
                  rechtsanwalt in|vertrauliche angelegenheit|geschäftsvorschlag|verstorbenen|i am writing to seek|\
                  your assistance|foreign account|charity donation|donation of|spende in höhe",
    },
    Topic {
        rule: "PHRASES_LOTTERY",
        rule_more: "PHRASES_LOTTERY_MORE",
        text: "it says that the reader has won something",
        phrases: "you have won|you've won|have been selected as|lottery|winning number|winning numbers|\
                  claim your prize|prize money|lucky winner|congratulations you|you are a winner|claims agent|\
                  claim your reward|free gift card|gift card|sie haben gewonnen|lotterie|gewinnbenachrichtigung|\
                  ihr gewinn|gewinn abholen|gewinnen sie|sweepstake|sweepstakes|jackpot|your email has won|cash prize|\
                  exclusive reward",
    },
    Topic {
        rule: "PHRASES_PILLS",
        rule_more: "PHRASES_PILLS_MORE",
        text: "it sells medicine",
        phrases: "viagra|cialis|levitra|v1agra|vi@gra|c1alis|online pharmacy|canadian pharmacy|no prescription|\
                  without prescription|without a prescription|prescription drugs|cheap meds|discount meds|\
                  erectile dysfunction|potency|weight loss|lose weight|burn fat|penis|enlargement|male enhancement|\
                  rezeptfrei|ohne rezept|potenzmittel|online apotheke|online-apotheke|abnehmen ohne|\
                  human growth hormone|hgh|phentermine|valium|xanax|cbd gummies|keto|testosterone|diabetes cure|\
                  blood sugar|tinnitus|prostate|toenail fungus|neuropathy|tramadol|soma",
    },
    Topic {
        rule: "PHRASES_PHISHING",
        rule_more: "PHRASES_PHISHING_MORE",
        text: "it presses the reader to give account data",
        phrases: "verify your account|confirm your account|update your account|account has been suspended|\
                  account has been limited|account will be suspended|account suspended|account will be closed|\
                  unusual activity|unusual sign-in|suspicious activity|unauthorized access|confirm your identity|\
                  verify your identity|verify your email|verify your information|update your information|\
                  billing information|update your payment|payment information|mailbox is full|mailbox quota|\
                  storage quota|quota exceeded|password expires|password will expire|password has expired|\
                  keep same password|keep current password|log in to your account|click here to verify|\
                  account verification|security alert|dear customer|dear valued customer|dear user|\
                  dear account holder|dear member|restore access|restore your account|account access|online banking|\
                  wallet|seed phrase|konto wurde gesperrt|konto gesperrt|konto bestätigen|bestätigen sie ihr konto|\
                  ihre daten aktualisieren|sehr geehrter kunde|ungewöhnliche aktivität|ihr postfach|passwort läuft ab|\
                  zahlungsdaten|identität bestätigen|your package|delivery attempt|could not be delivered|\
                  schedule your delivery|shipping fee|customs fee|ihr paket|zustellung fehlgeschlagen|zollgebühr",
    },
    Topic {
        rule: "PHRASES_PHISHING_ABROAD",
        rule_more: "PHRASES_PHISHING_ABROAD_MORE",
        text: "it presses for account data or fees in a Romance language or Dutch",
        phrases: "votre compte|compte a été|compte est suspendu|vérifiez votre|confirmer vos informations|votre colis|\
                  frais de livraison|mettre à jour vos|carte vitale|action requise|su cuenta|cuenta ha sido|\
                  verifique su|confirme su|su paquete|actualice sus datos|sua conta|conta foi|sua encomenda|\
                  seu pedido|mercadoria retida|taxa de importação|taxado|regularize|pontos expiram|resgate|\
                  atualize seus dados|cartão bloqueado|il suo conto|il tuo conto|suo account|tuo pacco|aggiorna i tuoi|\
                  uw pakket|uw rekening|uw account|bevestig uw|uw betaling|verzendkosten|uw gegevens",
    },
    Topic {
        rule: "PHRASES_CRYPTO",
        rule_more: "PHRASES_CRYPTO_MORE",
        text: "it is about tokens and wallets",
        phrases: "airdrop|presale|token sale|claim your tokens|claim your reward|claim your rewards|claim now|\
                  connect your wallet|connect wallet|wallet address|your wallet|hardware wallet|usdt|ethereum|\
                  cryptocurrency|crypto|kryptowährung|staking|solana|xrp|free spins|casino|welcome bonus|welcome package",
    },
    Topic {
        rule: "PHRASES_URGENCY",
        rule_more: "PHRASES_URGENCY_MORE",
        text: "it presses for time",
        phrases: "act now|act immediately|limited time|within 24 hours|within 48 hours|expires today|urgent response|\
                  urgent reply|reply urgently|immediate action|immediately click|last chance|don't miss out|hurry|\
                  before it's too late|only today|offer expires|while supplies last|final notice|jetzt handeln|\
                  nur heute|innerhalb von 24 stunden|letzte mahnung|letzte chance|sofort handeln",
    },
    Topic {
        rule: "PHRASES_MONEY",
        rule_more: "PHRASES_MONEY_MORE",
        text: "it promises money",
        phrases: "make money|earn money|extra income|extra cash|work from home|work at home|home based business|\
                  financial freedom|get paid|cash bonus|double your|guaranteed income|passive income|per week|\
                  no investment|risk free|risk-free|money back guarantee|100% free|100% guaranteed|completely free|\
                  absolutely free|free trial|no obligation|no cost|no fees|be your own boss|multi level marketing|mlm|\
                  geld verdienen|nebenverdienst|von zu hause|passives einkommen|schnelles geld|garantierter gewinn|\
                  kostenlos testen|millionaire|get rich|thousands of dollars|earn up to|stock alert|hot stock|\
                  penny stock|investment opportunity|forex|trading bot|bitcoin investment",
    },
    Topic {
        rule: "PHRASES_CREDIT",
        rule_more: "PHRASES_CREDIT_MORE",
        text: "it offers credit or insurance",
        phrases: "low interest|lowest rates|interest rate|interest rates|mortgage rates|refinance|mortgage|\
                  consolidate your debt|debt consolidation|eliminate debt|out of debt|bad credit|credit card debt|\
                  pre-approved|preapproved|loan offer|business loan|personal loan|apply for a loan|life insurance|\
                  auto insurance|health insurance|car warranty|kredit ohne schufa|sofortkredit|günstiger kredit|\
                  darlehen|kreditangebot|home loan|credit report|credit score|tax relief|free quote|free quotes",
    },
    Topic {
        rule: "PHRASES_SEX",
        rule_more: "PHRASES_SEX_MORE",
        text: "it offers sex",
        phrases: "sexy|naked|nude|porn|xxx|hot girls|hot singles|singles in your area|adult dating|hookup|horny|\
                  webcam|barely legal|cum|fuck|milf|meet women|lonely housewives|lonely wives|heisse frauen|\
                  einsame frauen|erotik|sexkontakte|russian women|ukrainian women|dating site",
    },
    Topic {
        rule: "PHRASES_GOODS",
        rule_more: "PHRASES_GOODS_MORE",
        text: "it sells what nobody asked for",
        phrases: "replica watches|rolex|luxury watches|designer handbags|louis vuitton|oem software|cheap software|\
                  online casino|casino|free spins|slot machine|sports betting|university diploma|diploma|bulk email|\
                  email addresses|mass email|million email|email marketing|toner|cable descrambler|cartridges|\
                  order now|buy now|special offer|amazing offer|lowest price|lowest prices|best price|great deals|\
                  save up to|exclusive deal|we are a manufacturer|leading manufacturer|our factory|\
                  first page of google|seo services|website traffic|rank your|ranking on google|web design services|\
                  app development|leads|database of|attendees list|repliken|uhren günstig|freispiele|top-angebot|\
                  jetzt bestellen|click here|click below|hier klicken",
    },
    Topic {
        rule: "PHRASES_BULK",
        rule_more: "PHRASES_BULK_MORE",
        text: "it speaks like mass mail",
        phrases: "this is not spam|not spam|you are receiving this email because|you received this email because|\
                  you are receiving this because|to be removed|remove me|removed from our|to remove your|\
                  remove your email|removal instructions|opt-out|opt out|opt-in|opted in|one time mailing|\
                  one-time mailing|dear friend|dear sir/madam|dear sir|bill s.1618|s. 1618|in compliance with|\
                  unsubscribe link below|our mailing list|reply with remove|remove in the subject|bulk mail|\
                  if you no longer wish|no longer wish to receive|dies ist kein spam|aus dem verteiler",
    },
    Topic {
        rule: "PHRASES_EXTORTION",
        rule_more: "PHRASES_EXTORTION_MORE",
        text: "it threatens the reader",
        phrases: "i recorded you|your webcam|i hacked|hacked your|infected your device|malware on your|rat software|\
                  your contacts|i will send the video|bitcoin address|btc address|my bitcoin wallet|bitcoin wallet|\
                  send bitcoin|in bitcoin|i have full access|pay me|masturbat|embarrassing video|\
                  ich habe sie aufgezeichnet|bitcoin-adresse|zugriff auf ihr gerät|ihre webcam",
    },
];

/// Hosts whose links hide where they go.
pub const SHORTENERS: [&str; 26] = [
    "bit.ly",
    "tinyurl.com",
    "goo.gl",
    "t.co",
    "ow.ly",
    "is.gd",
    "buff.ly",
    "rebrand.ly",
    "cutt.ly",
    "t.ly",
    "rb.gy",
    "shorturl.at",
    "tiny.cc",
    "bl.ink",
    "s.id",
    "v.gd",
    "qrco.de",
    "lnkd.in",
    "shorturl.gg",
    "urlz.fr",
    "tr.im",
    "snip.ly",
    "clck.ru",
    "kutt.it",
    "surl.li",
    "u.to",
];

/// Providers where anybody gets an address.
pub const FREEMAIL: [&str; 26] = [
    "gmail.com",
    "googlemail.com",
    "yahoo.com",
    "yahoo.de",
    "ymail.com",
    "hotmail.com",
    "outlook.com",
    "live.com",
    "msn.com",
    "aol.com",
    "gmx.de",
    "gmx.net",
    "gmx.com",
    "web.de",
    "mail.ru",
    "yandex.ru",
    "yandex.com",
    "qq.com",
    "163.com",
    "126.com",
    "proton.me",
    "protonmail.com",
    "icloud.com",
    "freenet.de",
    "mail.com",
    "t-online.de",
];

#[cfg(test)]
mod tests {
    use super::{TOPICS, hits};

    fn at(rule: &str) -> usize {
        TOPICS.iter().position(|topic| topic.rule == rule).expect("a topic")
    }

    #[test]
    fn every_phrase_is_found_as_whole_words_and_not_within_one() {
        for (at, topic) in TOPICS.iter().enumerate() {
            for phrase in topic.phrases.split('|') {
                assert!(hits(&format!(" so {phrase} then "))[at] > 0, "{phrase}");
                assert_eq!(hits(&format!(" so{phrase}then "))[at], 0, "{phrase}");
            }
        }
    }

    #[test]
    fn neighbours_and_phrases_in_phrases_count_each_and_repetitions_do_not() {
        let pills = at("PHRASES_PILLS");
        assert_eq!(hits(" viagra cialis viagra ")[pills], 2);
        assert_eq!(hits(" specialist ")[pills], 0);
        assert_eq!(hits(" unclaimed funds ")[at("PHRASES_ADVANCE_FEE")], 2);
        assert_eq!(hits(" "), [0; TOPICS.len()]);
    }
}
