//! Whether a recipient exists, by whom the department's file says is to be asked; what was said is remembered.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moka::sync::Cache;
use proto::{
    address::Address,
    department::{Department, DepartmentId, Verification},
};
use tokio::{sync::Semaphore, time::timeout};

use super::directory::{Directory, DirectorySettings};
use crate::actions::relay::Relay;

/// How long a known recipient is remembered.
const KNOWN_FOR: Duration = Duration::from_secs(3600);
/// How long an unknown one is: it may be new.
const UNKNOWN_FOR: Duration = Duration::from_secs(300);
/// Recipients that are remembered, of each kind.
const REMEMBERED_MAX: u64 = 100_000;
/// Questions at once for one department; who comes later waits.
const QUESTIONS_MAX: usize = 16;
/// Longest that one recipient is asked for, waiting included.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(20);

type Key = (DepartmentId, String);

/// Asks about recipients. Cheap to clone.
#[derive(Clone)]
pub struct Recipients {
    relay: Arc<Relay>,
    directories: Arc<HashMap<String, Directory>>,
    known: Cache<Key, ()>,
    unknown: Cache<Key, ()>,
    /// Of each department its own: a directory that hangs holds up nobody else's recipients.
    questions: Arc<Mutex<HashMap<DepartmentId, Arc<Semaphore>>>>,
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recipients").field("directories", &self.directories.len()).finish_non_exhaustive()
    }
}

impl Recipients {
    /// Asks next hops by `relay`, and these directories.
    #[must_use]
    pub fn new(relay: Arc<Relay>, directories: Vec<DirectorySettings>) -> Self {
        let cache = |time| Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(time).build();
        let named = directories.into_iter().map(|settings| (settings.name.clone(), Directory::new(settings)));
        let directories = Arc::new(named.collect());
        Self { relay, directories, known: cache(KNOWN_FOR), unknown: cache(UNKNOWN_FOR), questions: Arc::default() }
    }

    /// Whether a recipient of a department exists; `None` when nobody can say now. Postmaster always does (RFC 5321 section 4.5.1).
    pub(super) async fn exists(&self, department: &Department, address: &Address) -> Option<bool> {
        if department.verification.is_none() || address.local().eq_ignore_ascii_case("postmaster") {
            return Some(true);
        }
        let key = (department.id.clone(), address.key());
        if self.known.contains_key(&key) {
            return Some(true);
        }
        if self.unknown.contains_key(&key) {
            return Some(false);
        }
        let exists = timeout(QUESTION_TIME_MAX, self.ask(department, address)).await.ok().flatten();
        match exists {
            Some(true) => self.known.insert(key, ()),
            Some(false) => self.unknown.insert(key, ()),
            None => {}
        }
        exists
    }

    async fn ask(&self, department: &Department, address: &Address) -> Option<bool> {
        let places = {
            let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
            let places = questions.entry(department.id.clone());
            Arc::clone(places.or_insert_with(|| Arc::new(Semaphore::new(QUESTIONS_MAX))))
        };
        let _place = places.acquire().await.ok()?;
        match &department.verification {
            Verification::None => Some(true),
            Verification::NextHop => self.relay.knows(&department.next_hops, address).await,
            Verification::Directory(name) => match self.directories.get(name) {
                Some(directory) => directory.knows(address).await,
                None => {
                    tracing::warn!(directory = %name, "no directory of that name is in the settings of this node");
                    None
                }
            },
        }
    }
}
