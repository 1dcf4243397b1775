//! A directory (LDAP, RFC 4511) that knows a department's recipients.

use std::{fmt, sync::Arc, time::Duration};

use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, Scope, SearchOptions, ldap_escape};
use proto::address::Address;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

/// A connection, a bind and a search, each.
const STEP_TIME_MAX: Duration = Duration::from_secs(3);
/// After a connection could not be made none is tried for so long: who asks meanwhile is told at once that nobody can say.
const AWAY_FOR: Duration = Duration::from_secs(5);
/// RFC 4511 appendix A: there were more entries than were asked for, which is enough.
const SIZE_LIMIT_EXCEEDED: u32 = 4;

/// How a directory is asked; out of the node's settings.
#[derive(Clone, PartialEq, Eq)]
pub struct DirectorySettings {
    /// Name, by which a department's file asks for it.
    pub name: String,
    /// `ldap://host:port` or `ldaps://host:port`.
    pub url: String,
    /// Where to search from.
    pub base: String,
    /// A filter (RFC 4515) in which `{address}` stands for the recipient.
    pub filter: String,
    /// Whom to bind as, with the password; anonymously when not said.
    pub bind: Option<(String, String)>,
}

/// Without the password.
impl fmt::Debug for DirectorySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectorySettings").field("name", &self.name).field("url", &self.url).finish_non_exhaustive()
    }
}

/// A client of one directory with one connection, on which searches run at the same time.
#[derive(Clone)]
pub(super) struct Directory {
    settings: Arc<DirectorySettings>,
    connection: Arc<Mutex<Connection>>,
}

#[derive(Default)]
struct Connection {
    ldap: Option<Ldap>,
    /// When it could not be made.
    failed: Option<Instant>,
}

impl Directory {
    pub(super) fn new(settings: DirectorySettings) -> Self {
        Self { settings: Arc::new(settings), connection: Arc::default() }
    }

    /// Whether there is an entry for the address; `None` when the directory does not say. A connection that has died since it
    /// was last used is made anew once.
    pub(super) async fn knows(&self, address: &Address) -> Option<bool> {
        for _ in 0..2 {
            let (mut ldap, fresh) = match self.connected().await {
                Ok(connected) => connected,
                Err(problem) => {
                    tracing::warn!(directory = %self.settings.name, %problem, "a directory cannot be asked");
                    return None;
                }
            };
            match timeout(STEP_TIME_MAX, search(&mut ldap, &self.settings, address)).await {
                Ok(Ok(known)) => return Some(known),
                Ok(Err(problem)) if fresh => {
                    tracing::warn!(directory = %self.settings.name, %problem, "a directory did not answer a search");
                    self.forget().await;
                    return None;
                }
                Ok(Err(_)) => self.forget().await,
                Err(_) => {
                    tracing::warn!(directory = %self.settings.name, "a directory did not answer a search in time");
                    self.forget().await;
                    return None;
                }
            }
        }
        None
    }

    async fn forget(&self) {
        self.connection.lock().await.ldap = None;
    }

    /// A connection, and whether it is a new one.
    async fn connected(&self) -> Result<(Ldap, bool), String> {
        let mut connection = self.connection.lock().await;
        if let Some(ldap) = connection.ldap.as_mut()
            && !ldap.is_closed()
        {
            return Ok((ldap.clone(), false));
        }
        if connection.failed.is_some_and(|failed| failed.elapsed() < AWAY_FOR) {
            return Err("there was no connection a moment ago".to_owned());
        }
        let opened = match timeout(2 * STEP_TIME_MAX, open(&self.settings)).await {
            Ok(opened) => opened.map_err(|error| error.to_string()),
            Err(_) => Err("no connection in time".to_owned()),
        };
        connection.failed = opened.is_err().then(Instant::now);
        connection.ldap = opened.as_ref().ok().cloned();
        opened.map(|ldap| (ldap, true))
    }
}

async fn open(settings: &DirectorySettings) -> Result<Ldap, LdapError> {
    let limits = LdapConnSettings::new().set_conn_timeout(STEP_TIME_MAX);
    let (driver, mut ldap) = LdapConnAsync::with_settings(limits, &settings.url).await?;
    tokio::spawn(async move {
        if let Err(error) = driver.drive().await {
            tracing::debug!(%error, "the connection to a directory has ended");
        }
    });
    if let Some((who, password)) = &settings.bind {
        ldap.with_timeout(STEP_TIME_MAX).simple_bind(who, password).await?.success()?;
    }
    Ok(ldap)
}

async fn search(ldap: &mut Ldap, settings: &DirectorySettings, address: &Address) -> Result<bool, LdapError> {
    let filter = settings.filter.replace("{address}", &ldap_escape(address.to_string()));
    let ldap = ldap.with_timeout(STEP_TIME_MAX).with_search_options(SearchOptions::new().sizelimit(1));
    // No attributes are wanted (RFC 4511 section 4.5.1.8).
    let found = ldap.search(&settings.base, Scope::Subtree, &filter, vec!["1.1"]).await?;
    if found.1.rc == SIZE_LIMIT_EXCEEDED {
        return Ok(true);
    }
    let (entries, _) = found.success()?;
    Ok(!entries.is_empty())
}

#[cfg(test)]
mod tests {
    use proto::address::Address;
    use tokio::{net::TcpListener, time::Instant};

    use super::{AWAY_FOR, Directory, DirectorySettings};

    #[tokio::test]
    async fn a_directory_that_could_not_be_reached_is_left_alone_for_a_while() {
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = port.local_addr().expect("an address");
        let directory = Directory::new(DirectorySettings {
            name: "people".to_owned(),
            url: format!("ldap://{address}"),
            base: "dc=test".to_owned(),
            filter: "(mail={address})".to_owned(),
            bind: None,
        });
        let anna = Address::parse("anna@interior.gov.test").expect("an address");
        drop(port);
        assert_eq!(directory.knows(&anna).await, None, "nobody is there");
        let port = TcpListener::bind(address).await.expect("the same port");
        let asked = async || {
            tokio::select! {
                biased;
                _ = port.accept() => true,
                known = directory.knows(&anna) => {
                    assert_eq!(known, None);
                    false
                }
            }
        };
        assert!(!asked().await, "it is not tried again yet");
        directory.connection.lock().await.failed = Instant::now().checked_sub(AWAY_FOR);
        assert!(asked().await, "now it is");
    }
}
