//! Waits until a connection is to give way.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};

use crate::smtp::places::Pressure;

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
