//! Single attachments that departments do not let in, through a real cluster: taken out for one, kept from another, and the whole
//! message to be had from the quarantine.

use std::io::{Cursor, Write as _};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chaos_tests::{
    cluster::{Cluster, Options, Side, operator::until},
    letters::{Letter, windows_program},
    runtime::run,
    sink::field,
    smtp_client::{Conversation, Envelope},
    zones,
};

const ANNA: &str = "anna@interior.gov.test";
const KARL: &str = "karl@health.gov.test";
const FRIEND: &str = "friend@good.example";
const NOTED: &str = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: inline\r\n\r\n";

async fn strips(cluster: &Cluster) -> anyhow::Result<()> {
    let file = cluster.policy.join("interior.yaml");
    let text = std::fs::read_to_string(&file).context("read the department's file")?;
    let policy =
        "policy: {blocked_type: strip, blocked_names: ['*.iso'], attachment_bytes_max: 5000, strip_notice: Ask us}\n";
    std::fs::write(&file, text + policy)?;
    cluster.apply_policy(&cluster.policy, "attachments are taken out").await?;
    cluster.operator.in_use("mx1", 2).await.map(drop)
}

fn zipped(name: &str, content: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    archive.start_file(name, zip::write::SimpleFileOptions::default())?;
    archive.write_all(content)?;
    Ok(archive.finish()?.into_inner())
}

/// In chunks that are cut anywhere; gives the transaction.
async fn in_chunks(cluster: &Cluster, to: &[&str], message: &[u8]) -> anyhow::Result<String> {
    let mut conversation =
        Conversation::open(cluster.smtp(0, Side::Internet), Some(zones::GOOD), "mail.good.example").await?;
    conversation.say(&format!("MAIL FROM:<{FRIEND}>")).await?;
    for to in to {
        ensure!(conversation.say(&format!("RCPT TO:<{to}>")).await?.is_yes());
    }
    let (begin, end) = message.split_at(message.len() / 2);
    conversation.raw(&[format!("BDAT {}\r\n", begin.len()).as_bytes(), begin].concat()).await?;
    ensure!(conversation.reply().await?.is_yes());
    conversation.raw(&[format!("BDAT {} LAST\r\n", end.len()).as_bytes(), end].concat()).await?;
    let reply = conversation.reply().await?;
    conversation.quit().await?;
    Ok(reply.transaction().with_context(|| format!("{reply:?}"))?.to_owned())
}

/// What arrived below our own fields, and the notice that stands in the place of the attachment.
fn without(message: &[u8], received: &[u8]) -> anyhow::Result<String> {
    let text = std::str::from_utf8(message).context("ASCII")?;
    let received = std::str::from_utf8(received).context("ASCII")?;
    let from = text.find("--=_b1\r\nContent-Type: application").context("the attachment")? + "--=_b1\r\n".len();
    let behind = text.rfind("\r\n--=_b1--").context("the end")?;
    let (head, tail) = (&text[..from], &text[behind..]);
    let below = received.find(head).context("what stands before it is as it was")? + head.len();
    let notice = received.get(below..).and_then(|rest| rest.strip_prefix(NOTED)).context("a notice")?;
    let notice = notice.strip_suffix(tail).context("what stands behind it is as it was")?;
    Ok(String::from_utf8(STANDARD.decode(notice.replace("\r\n", ""))?)?)
}

#[test]
fn an_attachment_is_taken_out_for_one_department_and_the_whole_message_can_be_released() -> anyhow::Result<()> {
    run(async {
        let cluster = Cluster::start(Options::default()).await?;
        strips(&cluster).await?;
        let letter = Letter::new(FRIEND, ANNA, "Minutes");
        let archive = zipped("setup.exe", &windows_program())?;
        let message = cluster.signing.sign(&letter.attach("minutes.zip", "application/zip", &archive).bytes())?;
        let transaction = in_chunks(&cluster, &[ANNA, KARL], &message).await?;
        let of = transaction.clone();
        let seen = cluster.interior.received.first("the rest", move |seen| seen.transaction == of).await?;
        let bytes = std::fs::read(&seen.file)?;
        let notice = without(&message, &bytes)?;
        for words in ["Ask us", "minutes.zip", "executable", &transaction] {
            ensure!(notice.contains(words), "{words}: {notice}");
        }
        let told = field(&bytes, "X-Postern-Stripped").context("a field")?;
        ensure!(told.contains("minutes.zip"), "{told}");

        let held = cluster.operator.held().await?;
        let of_anna = |recipients: &[String]| recipients.iter().any(|to| to == ANNA);
        ensure!(held.len() == 2, "one for each department: {held:?}");
        ensure!(held.iter().all(|held| held.kind.eq_ignore_ascii_case("quarantined")), "{held:?}");
        let original = held.iter().find(|held| of_anna(&held.recipients)).context("the original")?;
        ensure!(original.reasons.iter().any(|reason| reason.contains("STRIPPED_ORIGINAL")), "{original:?}");
        let leader = cluster.operator.leader().await?;
        cluster.operator.release(&leader, &original.id, "she needs it").await?;
        let whole = until("the whole message", || async {
            cluster.interior.received.all().into_iter().filter(|seen| seen.transaction == transaction).nth(1)
        })
        .await?;
        ensure!(std::fs::read(&whole.file)?.ends_with(&message), "a release is the operator's decision");

        for (name, size) in [("b.ISO", 10), ("b.txt", 6000)] {
            let letter =
                Letter::new(FRIEND, ANNA, "Another").attach(name, "application/octet-stream", &vec![b'x'; size]);
            let message = cluster.signing.sign(&letter.bytes())?;
            let envelope = Envelope { from: FRIEND.to_owned(), to: vec![ANNA.to_owned()] };
            let answers = cluster.send(cluster.smtp(0, Side::Internet), zones::GOOD, &envelope, &message).await?;
            let of = answers.transaction().with_context(|| format!("{answers:?}"))?.to_owned();
            let seen = cluster.interior.received.first("the rest", move |seen| seen.transaction == of).await?;
            ensure!(without(&message, &std::fs::read(&seen.file)?)?.contains(name));
        }
        cluster.stop().await
    })
}
