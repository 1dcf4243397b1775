//! The section `limits` of the node's settings.

use std::time::Duration;

use proto::{
    policy::MESSAGE_BYTES_MAX,
    yaml::{Fault, Map, Node},
};

use crate::{limits::Limits, redelivery::ROUTE_TIME_MIN};

/// What the section says, over the defaults.
pub(super) fn read(map: &mut Map<'_, '_>, limits: &mut Limits) {
    let Limits {
        connections_max,
        connections_per_client_max,
        line_bytes_max,
        recipients_max,
        message_bytes_max,
        header_bytes_max,
        hops_max,
        own_hops_max,
        parts_max,
        depth_max,
        errors_max,
        idle_commands_max,
        read_timeout,
        stress_timeout,
        connection_time_max,
        data_time_max,
        data_bytes_per_second_min,
        handshake_timeout,
        handshakes_max,
        handshakes_per_client_max,
        drain_grace,
        drain_time_max,
        checks_time_max,
        authentication_time_max,
        analyses_max,
        openers_max,
        opener_time_max,
        virus_time_max: _,
        virus_bytes_max: _,
        virus_tries_max: _,
        virus_cache_max: _,
        virus_cache_time: _,
        virus_signatures_age_max: _,
        dkim_signatures_max,
        connect_timeout,
        relay_timeout,
        relay_time_max,
        relay_idle_max,
        relay_idle_time,
        control_timeout,
        watch_quiet_max,
        redelivery_delay,
        messages_max,
        messages_per_client_max,
        messages_bytes_max,
        messages_wait_max,
    } = limits;
    let message_bytes_top = usize::try_from(MESSAGE_BYTES_MAX).unwrap_or(usize::MAX);
    count(map, "connections_max", connections_max, 1, 1_000_000);
    count(map, "connections_per_client_max", connections_per_client_max, 1, 1_000_000);
    count(map, "line_bytes_max", line_bytes_max, 512, 65_536);
    count(map, "recipients_max", recipients_max, 100, 10_000);
    count(map, "message_bytes_max", message_bytes_max, 65_536, message_bytes_top);
    count(map, "header_bytes_max", header_bytes_max, 4096, 1 << 20);
    count(map, "hops_max", hops_max, 10, 1000);
    count(map, "own_hops_max", own_hops_max, 1, 1000);
    count(map, "parts_max", parts_max, 10, 100_000);
    count(map, "depth_max", depth_max, 2, 64);
    count(map, "dkim_signatures_max", dkim_signatures_max, 1, 100);
    count(map, "analyses_max", analyses_max, 1, 256);
    count(map, "openers_max", openers_max, 1, 256);
    count(map, "messages_max", messages_max, 1, 100_000);
    count(map, "messages_per_client_max", messages_per_client_max, 1, 100_000);
    count(map, "messages_bytes_max", messages_bytes_max, 1 << 20, 1 << 40);
    count(map, "handshakes_max", handshakes_max, 1, 100_000);
    count(map, "handshakes_per_client_max", handshakes_per_client_max, 1, 100_000);
    count(map, "relay_idle_max", relay_idle_max, 0, 100);
    number(map, "errors_max", errors_max, 1, 1000);
    number(map, "idle_commands_max", idle_commands_max, 10, 10_000);
    if let Some(value) = map.optional("data_bytes_per_second_min", |node| node.integer(1..=1_000_000)) {
        *data_bytes_per_second_min = value;
    }
    let durations = [
        ("read_timeout", read_timeout),
        ("stress_timeout", stress_timeout),
        ("connection_time_max", connection_time_max),
        ("data_time_max", data_time_max),
        ("handshake_timeout", handshake_timeout),
        ("drain_grace", drain_grace),
        ("drain_time_max", drain_time_max),
        ("checks_time_max", checks_time_max),
        ("authentication_time_max", authentication_time_max),
        ("opener_time_max", opener_time_max),
        ("connect_timeout", connect_timeout),
        ("relay_timeout", relay_timeout),
        ("relay_time_max", relay_time_max),
        ("relay_idle_time", relay_idle_time),
        ("control_timeout", control_timeout),
        ("watch_quiet_max", watch_quiet_max),
        ("redelivery_delay", redelivery_delay),
        ("messages_wait_max", messages_wait_max),
    ];
    times(map, durations);
    virus(map, limits);
    if limits.relay_time_max >= ROUTE_TIME_MIN {
        let seconds = ROUTE_TIME_MIN.as_secs();
        map.fault(format!("relay_time_max: less than {seconds}s is expected, so that redelivery has more patience"));
    }
}

/// What bounds the scans for malware.
fn virus(map: &mut Map<'_, '_>, limits: &mut Limits) {
    let message_bytes_top = usize::try_from(MESSAGE_BYTES_MAX).unwrap_or(usize::MAX);
    count(map, "virus_bytes_max", &mut limits.virus_bytes_max, 65_536, message_bytes_top);
    count(map, "virus_cache_max", &mut limits.virus_cache_max, 0, 10_000_000);
    number(map, "virus_tries_max", &mut limits.virus_tries_max, 1, 100);
    times(map, [("virus_time_max", &mut limits.virus_time_max), ("virus_cache_time", &mut limits.virus_cache_time)]);
    if let Some(age) = map.optional("virus_signatures_age_max", days) {
        limits.virus_signatures_age_max = age;
    }
}

fn times<const N: usize>(map: &mut Map<'_, '_>, table: [(&'static str, &mut Duration); N]) {
    for (key, limit) in table {
        if let Some(value) = map.optional(key, duration) {
            *limit = value;
        }
    }
}

fn count(map: &mut Map<'_, '_>, key: &'static str, limit: &mut usize, least: usize, most: usize) {
    let value = map.optional(key, |node| node.integer(least as u64..=most as u64));
    if let Some(value) = value.and_then(|value| usize::try_from(value).ok()) {
        *limit = value;
    }
}

fn number(map: &mut Map<'_, '_>, key: &'static str, limit: &mut u32, least: u32, most: u32) {
    let value = map.optional(key, |node| node.integer(u64::from(least)..=u64::from(most)));
    if let Some(value) = value.and_then(|value| u32::try_from(value).ok()) {
        *limit = value;
    }
}

/// `300s`, `5m` or `1h`; from one second to a day.
fn duration(node: &Node<'_, '_>) -> Result<Duration, Fault> {
    let wanted = || node.fault("a time from 1s to 24h is expected, such as 300s, 5m or 1h");
    let text = node.text().map_err(|_| wanted())?;
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wanted)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wanted()),
    };
    let all_digits = (1..=5).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|_| all_digits).ok_or_else(wanted)?;
    let seconds = number * seconds;
    if (1..=86_400).contains(&seconds) { Ok(Duration::from_secs(seconds)) } else { Err(wanted()) }
}

/// `7d`; from one day to a year.
fn days(node: &Node<'_, '_>) -> Result<Duration, Fault> {
    let wanted = || node.fault("a time from 1d to 365d is expected, such as 7d");
    let text = node.text().map_err(|_| wanted())?;
    let number = text.strip_suffix('d').filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    let days: u64 = number.and_then(|number| number.parse().ok()).ok_or_else(wanted)?;
    if (1..=365).contains(&days) { Ok(Duration::from_secs(days * 86_400)) } else { Err(wanted()) }
}
