//! What those who hold places are to give way to: others who want them, and the end of the listener.

use std::time::Duration;

use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};

/// What those who hold a place are to give way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Nothing.
    None,
    /// All places are taken.
    Crowded,
    /// The listener stops.
    Stopping,
}

/// It is crowded from when the last place is taken until a tenth is free again: one who comes and goes changes nothing.
pub(super) fn look(pressure: &watch::Sender<Pressure>, places: &[(&Semaphore, usize)]) {
    pressure.send_if_modified(|pressure| {
        let all = |enough: fn(usize, usize) -> bool| {
            places.iter().all(|(places, most)| enough(places.available_permits(), *most))
        };
        let now = match *pressure {
            Pressure::Stopping => Pressure::Stopping,
            Pressure::None if all(|free, _| free > 0) => Pressure::None,
            Pressure::Crowded if all(|free, most| free > 0 && free * 10 >= most) => Pressure::None,
            Pressure::None | Pressure::Crowded => Pressure::Crowded,
        };
        std::mem::replace(pressure, now) != now
    });
}

/// Waits until all places have been taken for so long without a break.
pub(super) async fn crowded_out(pressure: &mut watch::Receiver<Pressure>, patience: Duration) {
    pressed(pressure, false, patience).await;
}

/// The same, or until the listener stops, for those who stop with it.
pub(super) async fn pressed(pressure: &mut watch::Receiver<Pressure>, stops: bool, patience: Duration) -> Pressure {
    let urgent = |now: &Pressure| *now == Pressure::Crowded || (stops && *now == Pressure::Stopping);
    loop {
        match pressure.wait_for(urgent).await.map(|now| *now) {
            Ok(Pressure::Stopping) => return Pressure::Stopping,
            // The places are there as long as this one.
            Err(_) => return std::future::pending().await,
            Ok(Pressure::None | Pressure::Crowded) => {}
        }
        if timeout(patience, pressure.wait_for(|now| *now != Pressure::Crowded)).await.is_err() {
            return Pressure::Crowded;
        }
    }
}
