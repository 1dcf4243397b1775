//! Attacks on the protocol, against real nodes: what is too large, what is too slow, what goes round, and who stands where a
//! department's mail server should.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use chaos_tests::{
    cluster::{Cluster, Options, Side, operator::until},
    letters::Letter,
    runtime::run,
    sink::{Received, Sink, self_made_tls},
    smtp_client::{Conversation, Envelope, Reply},
    zones,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket},
    sync::{Mutex as AsyncMutex, MutexGuard, OnceCell},
    task::JoinSet,
    time::{interval, timeout},
};

const ANNA: &str = "anna@interior.gov.test";
const CARL: &str = "carl@health.gov.test";
const FRIEND: &str = "friend@good.example";
/// Connections that a node takes in here.
const CONNECTIONS_MAX: usize = 600;
/// Longest that a part of an attack may last.
const ATTACK_MAX: Duration = Duration::from_secs(240);

/// The nodes are hurried, and trust the health department's server alone.
async fn cluster() -> anyhow::Result<MutexGuard<'static, Cluster>> {
    static CLUSTER: OnceCell<AsyncMutex<Cluster>> = OnceCell::const_new();
    let start = || async {
        let options = Options {
            clamd: false,
            node_settings: "next_hop_roots: ../../../tls/health.sink.test.pem\n".into(),
            node_limits: format!(", connections_max: {CONNECTIONS_MAX}, read_timeout: 10s, stress_timeout: 1s"),
            ..Options::default()
        };
        Cluster::start(options).await.map(AsyncMutex::new)
    };
    Ok(CLUSTER.get_or_try_init(start).await?.lock().await)
}

/// A number of `/proc/PID/status`, in KiB.
fn memory_kib(pid: u32, key: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("look at a process")?;
    let line = status.lines().find_map(|line| line.strip_prefix(key)).context("the system tells it")?;
    line.split_whitespace().next().context("a number")?.parse().context("a number")
}

fn sockets(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd")).context("look at a process")?.count())
}

fn loopback(third: u8, fourth: usize) -> IpAddr {
    Ipv4Addr::new(127, 0, third, u8::try_from(fourth).unwrap_or(u8::MAX)).into()
}

fn envelope(to: &[&str]) -> Envelope {
    Envelope { from: FRIEND.into(), to: to.iter().map(|to| (*to).to_owned()).collect() }
}

fn signed(cluster: &Cluster, to: &str, subject: &str) -> anyhow::Result<Vec<u8>> {
    cluster.signing.sign(&Letter::new(FRIEND, to, subject).bytes())
}

/// From an honest client to a department.
async fn honest(cluster: &Cluster, message: &[u8]) -> anyhow::Result<Reply> {
    let answers = cluster.send(cluster.smtp(0, Side::Internet), zones::GOOD, &envelope(&[ANNA]), message).await?;
    Ok(answers.last().clone())
}

#[test]
fn what_is_too_large_is_refused_and_costs_no_memory() -> anyhow::Result<()> {
    run(async {
        let cluster = cluster().await?;
        let (server, pid) = (cluster.smtp(0, Side::Internet), cluster.pid("mx1").await?);
        ensure!(honest(&cluster, &signed(&cluster, ANNA, "Before")?).await?.code == 250);
        let before_kib = memory_kib(pid, "VmRSS:")?;
        let mut open = Vec::new();
        for number in 0..100 {
            let mut client = Conversation::open(server, Some(loopback(20, 1 + number / 40)), "a.example").await?;
            let told = client.say(&format!("EHLO {}", "x".repeat(1 << 20))).await?;
            ensure!(told.code == 500, "{told}");
            if number < 3 {
                let told = client.say(&format!("MAIL FROM:<x@a.example>{}", " A=B".repeat(1_000_000))).await?;
                ensure!(told.code == 500, "{told}");
            }
            ensure!(client.say("MAIL FROM:<x@a.example>").await?.code == 250);
            open.push(client);
        }
        let grown_kib = memory_kib(pid, "VmRSS:")?.saturating_sub(before_kib);
        ensure!(grown_kib < 100 * 128, "{grown_kib} KiB for 100 connections");
        println!("100 connections that sent 1 MiB of EHLO each: {grown_kib} KiB more");
        drop(open);

        let told = recipients(server, 100_000).await?;
        ensure!(told == (1000, 1000, 421), "accepted, put off, last: {told:?}");

        let mut client = Conversation::open(server, Some(zones::NAMELESS), "a.example").await?;
        let told = client.say("MAIL FROM:<x@a.example> SIZE=99999999999999999999").await?;
        ensure!(told.code == 501 || told.code == 552, "{told}");
        let told = client.say("MAIL FROM:<x@a.example> SIZE=999999999").await?;
        ensure!(told.code == 552, "{told}");
        for begin in ["MAIL FROM:<x@a.example> SIZE=100", "MAIL FROM:<x@a.example> SIZE=0"] {
            for line in [begin, &format!("RCPT TO:<{ANNA}>"), "DATA"] {
                ensure!(client.say(line).await?.is_yes());
            }
            let lines = format!("{}\r\n", "x".repeat(998)).repeat(1024);
            for _ in 0..60 {
                client.raw(lines.as_bytes()).await?;
            }
            let told = client.say(".").await?;
            ensure!(told.code == 552, "{told}");
        }
        client.quit().await?;

        let letter = Letter::new(FRIEND, ANNA, "A long header");
        let field = format!("X-Long: {}\r\n", format!("{}\r\n ", "x".repeat(900)).repeat(11_000));
        let told = honest(&cluster, &[field.into_bytes(), letter.bytes()].concat()).await?;
        ensure!(told.code / 100 == 5 || told.text.contains("accepted as"), "a header of 10 MiB: {told}");
        ensure!(cluster.interior.received.all().iter().all(|seen| seen.message_id != letter.message_id));
        let peak_kib = memory_kib(pid, "VmHWM:")?;
        println!("peak of the node: {} MiB", peak_kib / 1024);
        ensure!(peak_kib < 512 * 1024, "{peak_kib} KiB");
        Ok(())
    })
}

/// Names so many recipients in one breath; how many were accepted, how many put off, and the last code.
async fn recipients(server: SocketAddr, count: usize) -> anyhow::Result<(usize, usize, u16)> {
    let mut client = Conversation::open(server, Some(zones::NAMELESS), "a.example").await?;
    client.say("MAIL FROM:<x@a.example>").await?;
    let (mut accepted, mut put_off) = (0, 0);
    for batch in 0..count / 100 {
        let lines: String = (0..100).map(|n| format!("RCPT TO:<r{}@health.gov.test>\r\n", batch * 100 + n)).collect();
        client.raw(lines.as_bytes()).await?;
        for _ in 0..100 {
            match client.reply().await?.code {
                250 => accepted += 1,
                452 => put_off += 1,
                code => return Ok((accepted, put_off, code)),
            }
        }
    }
    bail!("nobody ended it")
}

/// A byte a second, until the server has enough.
async fn drip(server: SocketAddr, from: IpAddr) -> anyhow::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    let (mut reader, mut writer) = socket.connect(server).await?.into_split();
    // Who does not wait for the greeting is turned away at once. None ever comes when the kernel had no room for the connection
    // and this side believes in it all the same.
    let greeting = timeout(ATTACK_MAX / 2, reader.read(&mut [0; 100])).await.unwrap_or(Ok(0))?;
    if greeting == 0 {
        return Ok(());
    }
    let dripping = async {
        let mut beat = interval(Duration::from_secs(1));
        loop {
            beat.tick().await;
            if writer.write_all(b"E").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut heard = Vec::new();
    tokio::select! {
        // A reset is an end, too.
        _ = reader.read_to_end(&mut heard) => Ok(()),
        () = dripping => Ok(()),
    }
}

#[test]
fn two_thousand_slow_clients_and_a_flood_of_fast_ones_do_not_keep_the_honest_one_out() -> anyhow::Result<()> {
    run(async {
        let cluster = cluster().await?;
        let (server, pid) = (cluster.smtp(0, Side::Internet), cluster.pid("mx1").await?);
        ensure!(honest(&cluster, &signed(&cluster, ANNA, "Before")?).await?.code == 250);
        let (before_kib, before) = (memory_kib(pid, "VmRSS:")?, sockets(pid)?);
        let mut slow = JoinSet::new();
        for number in 0..2000 {
            slow.spawn(drip(server, loopback(21, 1 + number % 50)));
        }
        // A few descriptors of before may have been closed meanwhile.
        let full = || async { (sockets(pid).ok()? + 50 >= before + CONNECTIONS_MAX).then_some(()) };
        until("all places are taken", full).await?;
        let mut most = 0;
        for number in 0..5 {
            let told = honest(&cluster, &signed(&cluster, ANNA, &format!("Beside slow ones {number}"))?).await?;
            ensure!(told.code == 250, "{told}");
            most = most.max(sockets(pid)?);
        }
        ensure!(most <= before + CONNECTIONS_MAX + 100, "{most} sockets");
        let ended = async {
            while let Some(one) = slow.join_next().await {
                one.context("a slow client")??;
            }
            anyhow::Ok(())
        };
        timeout(ATTACK_MAX, ended).await.context("each slow client is ended by the server")??;

        let mut fast = JoinSet::new();
        for number in 0..200 {
            fast.spawn(async move {
                for _ in 0..25 {
                    let socket = TcpSocket::new_v4()?;
                    socket.bind(SocketAddr::new(loopback(22, 1 + number), 0))?;
                    drop(socket.connect(server).await?);
                }
                anyhow::Ok(())
            });
        }
        for number in 0..5 {
            let told = honest(&cluster, &signed(&cluster, ANNA, &format!("Beside a flood {number}"))?).await?;
            ensure!(told.code == 250, "{told}");
        }
        while let Some(one) = fast.join_next().await {
            one.context("a fast client")??;
        }
        let grown_kib = memory_kib(pid, "VmHWM:")?.saturating_sub(before_kib);
        println!("2,000 slow and 5,000 fast connections: {grown_kib} KiB more at the peak, {most} descriptors");
        ensure!(grown_kib < 256 * 1024, "{grown_kib} KiB");
        Ok(())
    })
}

/// Passes each connection on to the next of the servers, as the good server; where it listens, and how many connections it had.
async fn forwarder(servers: Vec<SocketAddr>) -> anyhow::Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let server = servers[seen.fetch_add(1, Ordering::SeqCst) % servers.len()];
            tokio::spawn(async move {
                let socket = TcpSocket::new_v4()?;
                socket.bind((zones::GOOD, 0).into())?;
                let mut far = socket.connect(server).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    Ok((address, count))
}

/// The policy with another next hop of the health department.
async fn with_health_at(cluster: &Cluster, host: &str, port: u16, tls: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    for name in ["state.yaml", "interior.yaml", "health.yaml"] {
        let text = std::fs::read_to_string(cluster.policy.join(name))?;
        let lines = text.lines().map(|line| {
            let moved = name == "health.yaml" && line.starts_with("next_hops:");
            let hop = || format!("next_hops: [{{host: \"{host}\", port: {port}, tls: {tls}}}]");
            if moved { hop() } else { line.to_owned() }
        });
        std::fs::write(folder.path().join(name), lines.collect::<Vec<_>>().join("\n") + "\n")?;
    }
    cluster.apply_policy(folder.path(), "the health department's server has moved").await.map(drop)
}

#[test]
fn a_message_that_goes_round_is_refused_before_long() -> anyhow::Result<()> {
    run(async {
        let cluster = cluster().await?;
        let letter = signed(&cluster, ANNA, "Too many hops")?;
        let hops = |hop: &str, count: usize| [hop.repeat(count).into_bytes(), letter.clone()].concat();
        let far = "Received: from a.example by b.example with ESMTP id 1; Sun, 22 Nov 2026 08:00:00 +0000\r\n";
        let own = "Received: from a.example by mx1.gov.test with ESMTP id 1; Sun, 22 Nov 2026 08:00:00 +0000\r\n";
        ensure!(honest(&cluster, &hops(far, 50)).await?.code == 250);
        for (hop, count) in [(far, 51), (own, 6)] {
            let told = honest(&cluster, &hops(hop, count)).await?;
            ensure!(told.code == 554 && told.text.starts_with("5.4.6"), "{told}");
        }

        let (address, count) =
            forwarder(vec![cluster.smtp(1, Side::Internet), cluster.smtp(0, Side::Internet)]).await?;
        with_health_at(&cluster, "127.0.0.1", address.port(), "none").await?;
        let message = signed(&cluster, CARL, "Round and round")?;
        let server = cluster.smtp(0, Side::Internet);
        let answers = cluster.send(server, zones::GOOD, &envelope(&[CARL]), &message).await;
        cluster.apply_policy(&cluster.policy, "as before").await?;
        let told = answers?.last().clone();
        println!("two gateways that point at each other: {} times handed on; {told}", count.load(Ordering::SeqCst));
        ensure!(told.code / 100 == 5 && told.text.contains("5.4.6"), "{told}");
        let rounds = count.load(Ordering::SeqCst);
        ensure!((2..=13).contains(&rounds), "{rounds}");
        Ok(())
    })
}

/// Who pretends to be a department's mail server; the Message-IDs that it got.
async fn liar(tls: bool) -> anyhow::Result<(u16, Arc<Mutex<Vec<String>>>)> {
    let listener = TcpListener::bind((zones::LIAR, 0)).await?;
    let address = listener.local_addr()?;
    let folder = tempfile::tempdir()?;
    let acceptor = tls.then(|| self_made_tls("poisoned.gov.test", address, folder.path())).transpose()?;
    let got = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&got);
    let report = move |seen: Received| log.lock().expect("a lock").push(seen.message_id);
    tokio::spawn(Arc::new(Sink::new("mail.private.test", None, acceptor, report)).serve(listener));
    Ok((address.port(), got))
}

#[test]
fn mail_for_a_department_that_cannot_be_reached_safely_goes_nowhere_else() -> anyhow::Result<()> {
    run(async {
        let cluster = cluster().await?;
        let ((with_tls, first), (in_clear, second)) = (liar(true).await?, liar(false).await?);
        let nobody = TcpListener::bind((zones::LIAR, 0)).await?.local_addr()?.port();
        let mut held: Vec<String> = Vec::new();
        for (what, host, port) in [
            ("the path is cut", zones::LIAR, nobody),
            ("another's certificate", zones::LIAR, with_tls),
            ("TLS is hidden", zones::LIAR, in_clear),
            ("the DNS lies", "poisoned.gov.test", with_tls),
            ("the DNS says nothing", "nowhere.gov.test", 25),
        ] {
            with_health_at(&cluster, host, port, "required").await?;
            let message = signed(&cluster, CARL, what)?;
            let outside = cluster.smtp(0, Side::Internet);
            let alone = cluster.send(outside, zones::GOOD, &envelope(&[CARL]), &message).await?;
            ensure!(alone.last().code / 100 == 4, "{what}: {alone:?}");
            let between = Letter::new(ANNA, CARL, what).bytes();
            let from = Envelope { from: ANNA.into(), to: vec![CARL.into()] };
            let inside = cluster.send(cluster.smtp(1, Side::Departments), zones::INTERIOR, &from, &between).await?;
            ensure!(inside.last().code / 100 == 4, "{what}: {inside:?}");
            // One half is delivered, so the other is held and tried again.
            let both = cluster.send(outside, zones::GOOD, &envelope(&[ANNA, CARL]), &message).await?;
            held.push(both.transaction().with_context(|| format!("{what}: {both:?}"))?.to_owned());
        }
        let lies: Vec<String> = [first, second].iter().flat_map(|got| got.lock().expect("a lock").clone()).collect();
        ensure!(lies.is_empty(), "a liar got {lies:?}");
        ensure!(cluster.internet.received.all().is_empty(), "nothing leaves by the Internet's route");
        let asked = cluster.dns.asked.all();
        // A name that our own test client says in EHLO is looked up; no department is.
        let hosts = ["mx1.gov.test", "mx2.gov.test"];
        let of_departments = |name: &str| name.ends_with("gov.test") && !hosts.contains(&name);
        ensure!(!asked.iter().any(|asked| asked.kind == "MX" && of_departments(&asked.name)), "{asked:?}");

        let health = cluster.health.address;
        with_health_at(&cluster, &health.ip().to_string(), health.port(), "required").await?;
        for transaction in &held {
            let arrived = |seen: &Received| seen.transaction == *transaction && seen.tls;
            cluster.health.received.first_within(ATTACK_MAX, "what was held", arrived).await?;
        }
        cluster.apply_policy(&cluster.policy, "as before").await?;
        Ok(())
    })
}
