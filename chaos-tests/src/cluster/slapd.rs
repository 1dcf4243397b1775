//! OpenLDAP's slapd with a directory of a few people, whom only who binds may search.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, bail};
use tokio::{net::TcpStream, process::Command};

use super::operator::until;
use crate::{
    janitor::Janitor,
    ports,
    process::{Process, Program},
};

/// Below which all entries are.
pub const BASE: &str = "dc=gov,dc=test";
/// Whom to bind as.
pub const WHO: &str = "cn=node,dc=gov,dc=test";
/// With this.
pub const PASSWORD: &str = "a password of the tests";

/// slapd as a process of the box.
#[derive(Debug)]
pub struct Slapd {
    /// Where it listens.
    pub address: SocketAddr,
    process: Process,
}

impl Slapd {
    /// Starts it with an entry for each of these addresses, and waits until it listens.
    ///
    /// # Errors
    /// When slapd is not installed or does not start.
    pub async fn start(folder: &Path, people: &[&str], janitor: &Janitor) -> anyhow::Result<Self> {
        let path = PathBuf::from("/usr/sbin/slapd");
        if !path.is_file() {
            bail!("slapd is not installed (Debian: slapd)");
        }
        let port = ports::reserve(None)?;
        let address = port.address();
        let settings = write_files(folder, people)?;
        let loaded = Command::new("/usr/sbin/slapadd")
            .arg("-f")
            .arg(&settings)
            .arg("-l")
            .arg(folder.join("people.ldif"))
            .stdin(Stdio::null())
            .output()
            .await
            .context("run slapadd")?;
        if !loaded.status.success() {
            bail!("slapadd: {}", String::from_utf8_lossy(&loaded.stderr));
        }
        let url = format!("ldap://{address}");
        let program = Program {
            name: "slapd".into(),
            path,
            // -d keeps it in the foreground.
            arguments: vec!["-f".into(), settings.into(), "-h".into(), url.into(), "-d".into(), "0".into()],
            environment: Vec::new(),
            log: folder.join("slapd.log"),
        };
        drop(port);
        let process = program.start_foreign(janitor)?;
        until("slapd listens", || async { TcpStream::connect(address).await.ok() }).await?;
        Ok(Self { address, process })
    }

    /// Kills it.
    ///
    /// # Errors
    /// When it is gone already.
    pub async fn kill9(self) -> anyhow::Result<()> {
        self.process.kill9().await
    }
}

fn write_files(folder: &Path, people: &[&str]) -> anyhow::Result<PathBuf> {
    let data = folder.join("data");
    std::fs::create_dir_all(&data).with_context(|| format!("make {}", data.display()))?;
    let settings = folder.join("slapd.conf");
    let text = format!(
        "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
         include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n\
         pidfile {}/pid\ndatabase mdb\nsuffix \"{BASE}\"\nrootdn \"{WHO}\"\nrootpw \"{PASSWORD}\"\ndirectory {}\n\
         access to * by anonymous auth by * none\n",
        folder.display(),
        data.display()
    );
    std::fs::write(&settings, text).with_context(|| format!("write {}", settings.display()))?;
    let mut ldif = format!("dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\ndc: gov\no: Testland\n\n");
    for (number, address) in people.iter().enumerate() {
        ldif += &format!(
            "dn: cn=p{number},{BASE}\nobjectClass: inetOrgPerson\ncn: p{number}\nsn: p{number}\nmail: {address}\n\n"
        );
    }
    std::fs::write(folder.join("people.ldif"), ldif).context("write the entries")?;
    Ok(settings)
}
