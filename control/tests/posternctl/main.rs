//! `posternctl` as its user meets it: the built program against servers with real mTLS and made-up answers.

mod servers;

use std::{fs, path::Path, process::Output};

use proto::identity::Role;
use serde_json::Value;
use servers::Cluster;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn example_policy() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy").display().to_string()
}

#[tokio::test]
async fn the_first_server_that_answers_is_asked_and_the_silent_one_is_named() {
    let cluster = Cluster::start().await;
    let silent = servers::closed_address();
    let args = ["--server", &silent, "--server", &cluster.control, "cluster", "status", "-o", "json"];
    let output = cluster.run(&args).await;
    assert_eq!(json(&output)["members"][0]["server"]["name"], "alpha");
    let notes = text(&output.stderr);
    assert!(notes.contains(&format!("control server {silent}: does not answer")), "{notes}");

    let output = cluster.run(&["--server", &silent, "cluster", "status"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no control server can be asked"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn members_are_changed_in_words_and_a_server_that_is_being_filled_is_waited_for() {
    let cluster = Cluster::start().await;
    let why = ["--why", "a test"];
    let run = async |args: &[&str]| cluster.run(&[args, &why].concat()).await;
    let added = run(&["cluster", "add", "delta=west@10.0.3.6:7001", "--id", "4"]).await;
    assert!(added.status.success(), "{}", text(&added.stderr));
    let told = text(&added.stdout);
    assert!(told.contains("delta is a learner now") && told.contains("cluster promote delta"), "{told}");
    let early = run(&["cluster", "promote", "delta"]).await;
    assert_eq!(early.status.code(), Some(1));
    assert!(text(&early.stderr).contains("lacks 500 entries"), "{}", text(&early.stderr));
    let waited = run(&["cluster", "promote", "delta", "--wait"]).await;
    assert!(waited.status.success() && text(&waited.stdout).contains("it has a vote"), "{waited:?}");
    let refused = run(&["cluster", "remove", "gamma"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("--force"), "{}", text(&refused.stderr));
    assert!(run(&["cluster", "remove", "gamma", "--force"]).await.status.success());
    assert!(cluster.run(&["cluster", "transfer-leader"]).await.status.success());
    let drained = run(&["node", "drain", "mx1"]).await;
    assert!(drained.status.success() && text(&drained.stderr).contains("sees a node mx1"), "{drained:?}");
    assert_eq!(cluster.run(&["node", "drain", "mx1"]).await.status.code(), Some(2), "no change without a why");
}

#[tokio::test]
async fn a_node_cannot_answer_in_the_place_of_a_control_server() {
    let cluster = Cluster::start().await;
    let impostor = servers::operator_service(&cluster.credentials(Role::Node)).await;
    let output = cluster.run(&["--server", &impostor, "cluster", "status"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not one of this cluster for this role"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_turned_away_with_a_reason() {
    let (cluster, other) = (Cluster::start().await, Cluster::start().await);
    let output = other.run(&["--server", &cluster.control, "cluster", "status"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("not one of this cluster"), "{}", text(&output.stderr));

    // The right CA for the server, but our own certificate is of the other one.
    let ca = cluster.path("operators/anna/ca.pem");
    fs::copy(ca, other.path("operators/anna/ca.pem")).expect("copied");
    let output = other.run(&["--server", &cluster.control, "cluster", "status"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("refuses your certificate"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn forming_tells_the_servers_what_init_wrote_down() {
    let cluster = Cluster::start().await;
    let output = cluster.run(&["cluster", "form", &cluster.path("").display().to_string()]).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "The cluster is formed of alpha (north); alpha leads.\n");
}

#[tokio::test]
async fn a_policy_with_faults_is_not_applied_and_a_good_one_is_waited_for() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("state.yaml"), "state: S\ncolour: red\n").expect("written");
    let bad = folder.path().display().to_string();
    for command in [vec!["policy", "plan", &bad], vec!["policy", "apply", &bad, "--why", "x"]] {
        let output = cluster.run(&command).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stdout).starts_with("state.yaml:2:1: colour: unknown key"), "{}", text(&output.stdout));
    }
    let good = example_policy();
    let plan = cluster.run(&["policy", "plan", &good]).await;
    assert!(text(&plan.stdout).contains("+ department interior (2 domains)"), "{}", text(&plan.stdout));

    let silent = servers::closed_address();
    let output = cluster.run(&["policy", "apply", &good, "--why", "first", "--wait", &silent]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("nothing was applied"), "{}", text(&output.stderr));

    let output =
        cluster.run(&["policy", "apply", &good, "--why", "first", "--wait", &cluster.node, "-o", "json"]).await;
    let applied = json(&output);
    assert_eq!(applied["version"], 8, "one after the plan's base version");
    assert_eq!(applied["nodes"][0]["policy_version"], 8);
}

#[tokio::test]
async fn a_second_release_is_refused_with_the_reason_on_standard_error() {
    let cluster = Cluster::start().await;
    let released = cluster.run(&["quarantine", "release", "01JD0000000000000000000000", "--why", "asked for"]).await;
    assert!(released.status.success(), "{}", text(&released.stderr));
    let again = cluster.run(&["quarantine", "release", "01JD0000000000000000000001", "--why", "asked for"]).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stdout.is_empty());
    assert!(text(&again.stderr).contains("already released by operator/bob"), "{}", text(&again.stderr));
}

#[tokio::test]
async fn the_audit_log_is_read_past_one_answer_and_checked_up_to_its_head() {
    let cluster = Cluster::start().await;
    let all = json(&cluster.run(&["audit", "--max", "5000", "-o", "json"]).await);
    assert_eq!(all["entries"].as_array().expect("entries").len() as u64, servers::AUDIT_RECORDS);
    assert_eq!((&all["more"], &all["breaks"]), (&Value::Bool(false), &serde_json::json!([])));
    assert_eq!(all["head"]["seq"], servers::AUDIT_RECORDS);

    let newest = cluster.run(&["audit", "--max", "1500", "-o", "json"]).await;
    assert_eq!(json(&newest)["entries"].as_array().expect("entries").len(), 1500);
    assert!(text(&newest.stderr).contains("records 1 to 1000 are older"), "{}", text(&newest.stderr));
    let older = json(&cluster.run(&["audit", "--max", "5000", "--before", "1001", "-o", "json"]).await);
    assert_eq!((older["entries"].as_array().expect("entries").len(), &older["more"]), (1000, &Value::Bool(false)));
}

#[tokio::test]
async fn a_list_that_is_cut_says_so() {
    let cluster = Cluster::start().await;
    for command in [["quarantine", "list"], ["policy", "history"]] {
        let output = cluster.run(&command).await;
        assert!(output.status.success() && text(&output.stderr).contains("the list is cut"), "{command:?}");
    }
}

#[tokio::test]
async fn a_scan_prints_one_line_a_message_in_order_over_several_streams() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    for number in 0..20 {
        write(&format!("{number:02}.eml"), &format!("Subject: {number}\n\nhello\n"));
    }
    write("box.mbox", "From a\nSubject: one\n\nx\n\nFrom b\nSubject: fail\n\nx\n");
    let path = folder.path().display().to_string();
    let output = cluster.run(&["scan", "--node", &cluster.node, "--jobs", "3", "--rcpt", "a@b.test", &path]).await;
    assert_eq!(output.status.code(), Some(1), "one message has an error");
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let names: Vec<String> = lines
        .iter()
        .map(|line| line["file"].as_str().expect("text").rsplit('/').next().expect("a name").into())
        .collect();
    let mut expected: Vec<String> = (0..20).map(|number| format!("{number:02}.eml")).collect();
    expected.extend(["box.mbox#1".into(), "box.mbox#2".into()]);
    assert_eq!(names, expected);
    assert_eq!(lines[7]["score"], 6.5);
    // The made-up node gives the subject and recipient back.
    assert_eq!(lines[7]["reasons"][0]["text"], "Subject: 7\r\n\r\nhello\r\n for a@b.test");
    assert_eq!(lines[21]["error"], "told to fail");
    assert!(!text(&output.stdout).contains('\u{202e}'), "the made-up node sends a bidi override as the rule's name");
}

#[tokio::test]
async fn messages_are_reported_in_bounded_parts_and_those_that_teach_nothing_are_named() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut mails: String = (0..119).map(|number| format!("From a\nSubject: {number}\n\nx\n\n")).collect();
    mails.push_str("From b\nSubject: fail\n\nx\n");
    fs::write(folder.path().join("box.mbox"), mails).expect("written");
    let path = folder.path().display().to_string();
    let report =
        |kind: &'static str| ["-o", "json", "report", kind, "--node", &cluster.node, "--why", "it came", &path];
    let output = cluster.run(&report("spam")).await;
    assert_eq!(output.status.code(), Some(1), "one message teaches nothing");
    let told: Value = serde_json::from_str(&text(&output.stdout)).expect("JSON");
    assert_eq!(told["reported"], 119, "{told}");
    assert!(told["failed"][0].as_str().is_some_and(|why| why.ends_with("box.mbox#120: told to fail")), "{told}");
    let refused = cluster.run(&report("wanted")).await;
    assert!(!refused.status.success() && text(&refused.stderr).contains("not a report"));
    let silent = cluster.run(&["report", "spam", "--node", &cluster.node, &path]).await;
    assert_eq!(silent.status.code(), Some(2), "no report without a reason");
}

#[tokio::test]
async fn a_node_that_dies_in_the_middle_of_a_scan_leaves_an_error_for_each_message() {
    let cluster = Cluster::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    for number in 0..5 {
        let subject = if number == 2 { "end" } else { "go on" };
        fs::write(folder.path().join(format!("{number}.eml")), format!("Subject: {subject}\n")).expect("written");
    }
    let path = folder.path().display().to_string();
    let output = cluster.run(&["scan", "--node", &cluster.node, "--jobs", "1", &path]).await;
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let failed: Vec<bool> = lines.iter().map(|line| line.get("error").is_some()).collect();
    assert_eq!(failed, [false, false, true, true, true]);
}
