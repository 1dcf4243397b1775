//! Each fault is found, with what to do; and a healthy cluster has none.

use proto::{
    time::UnixMs,
    wire::operator::{About, BodyHealth, Member, Node, NodeListResponse, Server, StatusResponse, Watching},
};

use super::{DAY_MS, Finding, Level, Seen, diagnose};

const NOW: u64 = 1_700_000_000_000;

fn about() -> About {
    About {
        applied_index: 5_000,
        last_log_index: 5_000,
        version: "0.1.0".into(),
        disk_free_bytes: Some(50),
        disk_bytes: Some(100),
        now_ms: NOW,
        certificate_until_ms: NOW + 300 * DAY_MS,
        bodies: Some(BodyHealth { round_at_ms: NOW, kept: 7, ..BodyHealth::default() }),
        ..About::default()
    }
}

fn member(id: u64, name: &str, site: &str, role: &str) -> Member {
    let server = Server { id, name: name.into(), site: site.into(), address: format!("{name}.test:7001") };
    Member { server: Some(server), role: role.into(), answers: true, about: Some(about()), ..Member::default() }
}

fn healthy() -> Seen {
    let members = vec![
        member(1, "alpha", "north", "leader"),
        member(2, "beta", "south", "voter"),
        member(3, "gamma", "west", "voter"),
    ];
    let watching =
        vec![Watching { server: "alpha".into(), certificate_until_ms: NOW + 300 * DAY_MS, ..Watching::default() }];
    let node = Node { name: "mx1".into(), version: "0.1.0".into(), watching, ..Node::default() };
    Seen {
        status: StatusResponse {
            leader: 1,
            last_log_index: 5_000,
            policy_version: 3,
            members,
            ..StatusResponse::default()
        },
        nodes: Ok(NodeListResponse { nodes: vec![node], silent: Vec::new() }),
        begun: UnixMs(NOW - 10),
        ended: UnixMs(NOW + 10),
        own: ("operator/anna".into(), UnixMs(NOW + 300 * DAY_MS)),
        cas: vec![UnixMs(NOW + 3_000 * DAY_MS)],
    }
}

fn faults(seen: &Seen) -> Vec<Finding> {
    diagnose(seen).into_iter().filter(|finding| finding.level > Level::Ok).collect()
}

#[test]
fn a_healthy_cluster_has_no_fault_and_says_so_of_each_subject() {
    let found = diagnose(&healthy());
    assert!(found.iter().all(|finding| finding.level == Level::Ok), "{found:?}");
    let about: Vec<&str> = found.iter().map(|finding| finding.about).collect();
    assert_eq!(about, ["group", "servers", "clocks", "disks", "bodies", "callers", "certificates", "nodes"]);
}

#[test]
fn each_fault_is_found_with_what_to_do() {
    fn said(seen: &mut Seen, member: usize) -> &mut About {
        seen.status.members[member].about.as_mut().expect("it answers")
    }
    fn bodies(seen: &mut Seen) -> &mut BodyHealth {
        said(seen, 1).bodies.as_mut().expect("it says")
    }
    fn node(seen: &mut Seen) -> &mut Node {
        &mut seen.nodes.as_mut().expect("listed").nodes[0]
    }
    type Harm = fn(&mut Seen);
    let down: Harm = |seen| {
        let gamma = &mut seen.status.members[2];
        (gamma.answers, gamma.about, gamma.problem) = (false, None, "refused".into());
    };
    let table: Vec<(Harm, Level, &str, &str)> = vec![
        (down, Level::Bad, "gamma does not answer", "cluster remove gamma"),
        (|seen| seen.status.leader = 0, Level::Bad, "nobody leads", "reach each other"),
        (|seen| seen.status.members.clear(), Level::Bad, "no group yet", "cluster form"),
        (|seen| seen.status.members.truncate(2), Level::Warn, "2 voters survive the loss of 0", "promote"),
        (|seen| seen.status.members[2].role = "learner".into(), Level::Warn, "gamma has no vote", "promote gamma"),
        (|seen| seen.status.under_way = "a -> b".into(), Level::Warn, "under way: a -> b", "repeat"),
        (|seen| seen.status.policy_version = 0, Level::Warn, "no policy", "policy apply"),
        (|seen| said(seen, 1).version = "0.2.0".into(), Level::Warn, "versions 0.1.0, 0.2.0", "finish the update"),
        (|seen| said(seen, 1).applied_index = 10, Level::Warn, "beta lacks 4990", "filled"),
        (|seen| said(seen, 1).now_ms = NOW - 2_000, Level::Warn, "beta is 1990 ms behind", "chrony"),
        (|seen| said(seen, 1).now_ms = NOW + 2_000, Level::Warn, "beta is 1990 ms ahead", "chrony"),
        (|seen| said(seen, 0).log_time_ms = NOW + DAY_MS, Level::Bad, "86399 s ahead", "clocks of most servers"),
        (|seen| said(seen, 1).undecided_at = Some(70), Level::Bad, "at log index 70", "compare their disks"),
        (|seen| said(seen, 1).disk_free_bytes = Some(15), Level::Warn, "15 % of its disk", "make room"),
        (|seen| said(seen, 1).disk_free_bytes = Some(9), Level::Bad, "9 % of its disk", "make room"),
        (|seen| said(seen, 1).disk_bytes = None, Level::Warn, "does not say", "df"),
        (|seen| bodies(seen).lacking = 4, Level::Bad, "beta lacks 4 bodies", "fetches them by itself"),
        (
            |seen| (bodies(seen).lacking, bodies(seen).nowhere) = (2, 2),
            Level::Bad,
            "2 bodies are on no server",
            "backup",
        ),
        (|seen| bodies(seen).one_site = 1, Level::Bad, "in one site only", "cluster add"),
        (
            |seen| {
                bodies(seen).round_at_ms = 0;
                said(seen, 1).uptime_ms = 3 * DAY_MS;
            },
            Level::Warn,
            "for two days",
            "log",
        ),
        (|seen| bodies(seen).round_at_ms = NOW - 3 * DAY_MS, Level::Warn, "for two days", "log"),
        (
            |seen| said(seen, 1).refused = [("expired".to_owned(), 700)].into(),
            Level::Warn,
            "700 times expired",
            "log says who",
        ),
        (|seen| said(seen, 1).certificate_until_ms = NOW + 20 * DAY_MS, Level::Warn, "server beta ends", "--renew"),
        (|seen| said(seen, 1).certificate_until_ms = NOW + 3 * DAY_MS, Level::Bad, "server beta ends", "--renew"),
        (|seen| node(seen).watching[0].certificate_until_ms = NOW + DAY_MS, Level::Bad, "node mx1 ends", "--renew"),
        (|seen| seen.own.1 = UnixMs(NOW), Level::Bad, "operator/anna) has expired", "--renew"),
        (|seen| seen.cas[0] = UnixMs(NOW + 20 * DAY_MS), Level::Warn, "a CA in your ca.pem", "new-ca"),
        (|seen| node(seen).drained = true, Level::Warn, "mx1 is drained", "undrain mx1"),
        (|seen| node(seen).watching.clear(), Level::Bad, "no node is connected", "postern-node"),
        (|seen| seen.nodes = Err("no quorum".into()), Level::Warn, "cannot be listed: no quorum", ""),
    ];
    for (harm, level, what, todo) in table {
        let mut seen = healthy();
        harm(&mut seen);
        let found = faults(&seen);
        let fits = |it: &Finding| it.level == level && it.what.contains(what) && it.todo.contains(todo);
        assert!(found.iter().any(fits), "{what}: {found:?}");
    }
}

#[test]
fn a_lost_quorum_and_one_site_are_bad() {
    let mut seen = healthy();
    for member in &mut seen.status.members[1..] {
        (member.answers, member.about) = (false, None);
    }
    assert!(faults(&seen).iter().any(|it| it.level == Level::Bad && it.what.contains("1 of 3 voters answer")));
    let mut seen = healthy();
    for member in &mut seen.status.members {
        member.server.as_mut().expect("a server").site = "north".into();
    }
    assert!(faults(&seen).iter().any(|it| it.level == Level::Bad && it.what.contains("one site")));
}
