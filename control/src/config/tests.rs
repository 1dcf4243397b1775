//! Faults of the file and of the credentials that it names.

use proto::identity::Role;
use tempfile::TempDir;

use super::Config;
use crate::test_pki::Ca;

fn folder(role: Role, name: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let credentials = folder.path().join("credentials");
    std::fs::create_dir(&credentials).expect("made");
    Ca::new().write(&credentials, "c1", role, name);
    folder
}

const GOOD: &str =
    "id: 1\nname: control-1\nsite: north\ndata: data\nlisten: 127.0.0.1:7001\ncredentials: credentials\n";

fn faults(text: &str, folder: &TempDir) -> Vec<String> {
    let faults = Config::parse("c.yaml", text, folder.path()).expect_err("faults");
    faults.0.iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_file_is_read_with_folders_relative_to_its_own() {
    let folder = folder(Role::Control, "control-1");
    let file = folder.path().join("c.yaml");
    std::fs::write(&file, GOOD).expect("written");
    let config = Config::load(&file).expect("a configuration");
    assert_eq!((config.id, config.data.clone()), (1, folder.path().join("data")));
    assert_eq!((config.advertise.as_str(), config.credentials.identity.name.as_str()), ("127.0.0.1:7001", "control-1"));
    std::fs::write(&file, format!("{GOOD}advertise: control-1.example:7001\n")).expect("written");
    assert_eq!(Config::load(&file).expect("a configuration").advertise, "control-1.example:7001");
}

#[test]
fn all_faults_of_a_file_are_told_at_once() {
    let folder = folder(Role::Control, "control-1");
    let text = "id: 0\nname: con trol\ndata: ''\nlisten: localhost\nadvertise: here\ncredentials: nowhere\nsites: x\n";
    let found = faults(text, &folder);
    let starts = [
        "c.yaml:1:1: site: is missing",
        "c.yaml:1:5: id: a whole number from 1 to",
        "c.yaml:2:7: name: \"con trol\": 1 to 63 of a-z",
        "c.yaml:3:7: data: a folder is expected",
        "c.yaml:4:9: listen: \"localhost\": an IP address with a port",
        "c.yaml:5:12: advertise: \"here\": host:port is expected",
        "c.yaml:6:14: credentials: read ",
        "c.yaml:7:1: sites: unknown key",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (fault, start) in found.iter().zip(starts) {
        assert!(fault.starts_with(start), "{fault} should start with {start}");
    }
}

#[test]
fn a_name_that_cluster_form_would_refuse_does_not_start() {
    let folder = folder(Role::Control, "Alpha");
    let found = faults(&GOOD.replace("name: control-1", "name: Alpha"), &folder);
    assert!(found[0].starts_with("c.yaml:2:7: name: \"Alpha\": 1 to 63 of a-z"), "{found:?}");
}

#[test]
fn the_certificate_must_be_this_control_servers() {
    let other = faults(GOOD, &folder(Role::Control, "control-2"));
    assert_eq!(other, ["c.yaml:2:7: name: the certificate is control-2's: the two must agree"]);
    let node = faults(GOOD, &folder(Role::Node, "control-1"));
    assert!(node[0].contains("the certificate is a node's"), "{node:?}");
}

#[test]
fn a_key_of_another_certificate_is_found_before_anything_starts() {
    let folder = folder(Role::Control, "control-1");
    let other = self::folder(Role::Control, "control-1");
    let key = "credentials/key.pem";
    std::fs::copy(other.path().join(key), folder.path().join(key)).expect("copied");
    assert!(faults(GOOD, &folder)[0].contains("do not fit together"));
}

#[test]
fn an_address_that_nobody_can_reach_needs_another_to_advertise() {
    let folder = folder(Role::Control, "control-1");
    for listen in ["0.0.0.0:7001", "'[::]:7001'", "127.0.0.1:0"] {
        let text = GOOD.replace("127.0.0.1:7001", listen);
        assert!(faults(&text, &folder)[0].contains("advertise"), "{listen}");
        assert!(Config::parse("c.yaml", &format!("{text}advertise: 10.0.0.1:7001\n"), folder.path()).is_ok());
    }
}
