//! One cluster for all tests of a file, one test at a time. It ends with the test program: the janitor sees to that.

use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::cluster::{Cluster, Options};

static CLUSTER: OnceCell<Result<Mutex<Cluster>, String>> = OnceCell::const_new();

/// The cluster, alone until the guard is dropped. The first test starts it.
///
/// # Errors
/// When it could not be started; it is not tried again.
pub async fn cluster() -> anyhow::Result<MutexGuard<'static, Cluster>> {
    let started = CLUSTER
        .get_or_init(|| async {
            Cluster::start(Options::default()).await.map(Mutex::new).map_err(|e| format!("{e:#}"))
        })
        .await;
    match started {
        Ok(cluster) => Ok(cluster.lock().await),
        Err(problem) => anyhow::bail!("the cluster did not start: {problem}"),
    }
}
