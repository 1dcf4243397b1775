//! A server that is killed without warning comes back by itself with everything that it has acknowledged.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use proto::{identity::Credentials, mutation::Outcome};

use super::rig::{Rig, mutation};
use crate::{
    raft::{Group, GroupConfig},
    state::testing::{held_id, hold, node, quarantined},
};

/// Names the folder of the server that the child process is to run.
const FOLDER: &str = "POSTERN_TEST_KILL_FOLDER";
const ACKNOWLEDGED: &str = "acknowledged ";

#[expect(clippy::disallowed_methods, reason = "this process is either the test or the server that the test kills")]
fn folder() -> Option<PathBuf> {
    std::env::var(FOLDER).ok().map(PathBuf::from)
}

/// The server that is killed: holds messages without end and tells each one that was acknowledged.
async fn serve_until_killed(config: GroupConfig) {
    let members = BTreeMap::from([(config.id, config.server.clone())]);
    let group = Group::open(config).await.expect("the gate lets it pass");
    let formed = group.state().position().expect("readable").is_some() || group.status().last_log_index > 0;
    if !formed {
        group.form(members).await.expect("formed");
    }
    group.linearize().await.expect("it elects itself");
    let mut next = group.state().held_count() + 1;
    loop {
        let numbers = next..next + 20;
        let proposals = numbers.clone().map(|number| {
            let group = group.clone();
            tokio::spawn(async move { group.propose(mutation(node("n1"), hold(&[quarantined(number)]))).await })
        });
        for (number, proposal) in numbers.zip(proposals.collect::<Vec<_>>()) {
            assert_eq!(proposal.await.expect("no panic"), Ok(Outcome::Done));
            println!("{ACKNOWLEDGED}{number}");
        }
        next += 20;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_server_has_acknowledged_is_there_when_it_comes_back() {
    let rig = Rig::new(1).await;
    let config = rig.config(1);
    let home = config.data_dir.parent().expect("a folder").to_path_buf();
    if let Some(folder) = folder() {
        let credentials = Credentials::load(&folder.join("tls")).expect("credentials");
        return serve_until_killed(GroupConfig { credentials, data_dir: folder.join("data"), ..config }).await;
    }
    let mut acknowledged = 0;
    for kill_after in [1, 50, 333] {
        let mut server = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "raft::tests::kill::what_a_killed_server_has_acknowledged_is_there_when_it_comes_back"])
            .args(["--nocapture", "--test-threads=1"])
            .env(FOLDER, &home)
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
        let mut left = kill_after;
        while left > 0 {
            let line = lines.next().expect("the server goes on").expect("text");
            if let Some((_, number)) = line.split_once(ACKNOWLEDGED) {
                acknowledged = acknowledged.max(number.parse().expect("a number"));
                left -= 1;
            }
        }
        server.kill().expect("SIGKILL");
        server.wait().expect("ended");
    }
    assert!(acknowledged >= 380, "{acknowledged}");
    let group = Group::open(config).await.expect("the gate lets it pass");
    group.linearize().await.expect("it elects itself");
    for number in 1..=acknowledged {
        assert!(group.state().held(held_id(number)).is_some(), "{number} of {acknowledged} is missing");
    }
    group.stop().await;
}
