//! What one client may have of the openers at once, so that its dear messages keep nobody else's waiting.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use ipnet::IpNet;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The places of each net that has any, or waits for one.
#[derive(Debug)]
pub(super) struct Shares {
    most: usize,
    by_net: Mutex<HashMap<IpNet, Weak<Semaphore>>>,
}

impl Shares {
    /// Each net has one in so many of the places.
    pub(super) fn new(places: usize, one_in: usize) -> Self {
        Self { most: (places / one_in).max(1), by_net: Mutex::default() }
    }

    /// Waits until the net has less than its share.
    ///
    /// # Errors
    /// Never: nobody closes them.
    pub(super) async fn enter(&self, net: IpNet) -> Result<OwnedSemaphorePermit, AcquireError> {
        let own = {
            let mut by_net = self.by_net.lock().unwrap_or_else(PoisonError::into_inner);
            let known = by_net.get(&net).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                by_net.retain(|_, places| places.strong_count() > 0);
                let own = Arc::new(Semaphore::new(self.most));
                by_net.insert(net, Arc::downgrade(&own));
                own
            })
        };
        own.acquire_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::Shares;

    #[tokio::test]
    async fn a_net_has_its_share_and_who_leaves_makes_room() {
        let net = |text: &str| text.parse().expect("a net");
        for (places, most) in [(1, 1), (2, 1), (7, 1), (8, 2), (64, 16)] {
            let shares = Shares::new(places, 4);
            let mut held = Vec::new();
            while let Some(place) = shares.enter(net("192.0.2.0/24")).now_or_never() {
                held.push(place.expect("a place"));
            }
            assert_eq!(held.len(), most, "of {places}");
            assert!(shares.enter(net("198.51.100.0/24")).now_or_never().is_some(), "each net for itself");
            held.pop();
            assert!(shares.enter(net("192.0.2.0/24")).now_or_never().is_some());
            held.clear();
            drop(shares.enter(net("2001:db8::/64")).now_or_never());
            assert_eq!(shares.by_net.lock().expect("a lock").len(), 1, "nothing stays of who has gone");
        }
    }
}
