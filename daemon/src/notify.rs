//! What systemd is told (sd_notify(3)), and signs of life for its watchdog. Without systemd nothing
//! happens.

use std::time::Duration;

use sd_notify::NotifyState;

/// Serving.
pub(crate) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reading the configuration again; [`ready`] follows, also when the old one stays.
pub(crate) fn reloading() {
    // Type=notify-reload wants the time with it.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// Ending; may take so long.
pub(crate) fn stopping(at_most: Duration) {
    let microseconds = u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(microseconds)]);
}

/// Signs of life twice per watchdog period, from a task among the sessions' own: when the runtime
/// stands still, they stop. Must be called within the runtime.
pub(crate) fn spawn_watchdog() {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(period / 2);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    });
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told");
    }
}
