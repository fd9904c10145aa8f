//! The tables of network cards.

use synthvm_net::LinkState;

use super::rates::{Rates, bytes, short};
use super::{Align, InspectReport, NetworkReport, Table};

const L: Align = Align::Left;
const R: Align = Align::Right;

/// Returns the table of the cards.
pub(super) fn cards(now: &InspectReport) -> Table {
    let mut table = Table::new(&[
        ("CARD", L),
        ("ADDRESS", L),
        ("LINK", L),
        ("MTU", R),
        ("CAPTURED", R),
        ("BACKEND", L),
    ]);
    for card in &now.networks {
        table.row([
            card.id.clone(),
            card.mac.clone(),
            link(card).to_owned(),
            card.mtu.to_string(),
            card.capture.map_or("-".to_owned(), |capture| capture.recorded.to_string()),
            card.backend.clone(),
        ]);
    }
    table
}

/// Returns the table of the cards' queues.
pub(super) fn queues(now: &InspectReport, before: &InspectReport, rates: &Rates) -> Table {
    let (sent, received) = if rates.known() { ("TX/S", "RX/S") } else { ("", "") };
    let mut table = Table::new(&[
        ("CARD", L),
        ("QUEUE", R),
        ("TX", R),
        ("TX BYTES", R),
        ("RX", R),
        ("RX BYTES", R),
        ("SENT", R),
        ("SUPPRESSED", R),
        ("SECTIONS", R),
        (sent, R),
        (received, R),
    ]);
    for card in &now.networks {
        let earlier = before.networks.iter().find(|other| other.id == card.id);
        for (index, queue) in card.queues.iter().enumerate() {
            let earlier = earlier.and_then(|card| card.queues.get(index).copied());
            let earlier = earlier.unwrap_or_default();
            let rate = |now, before| rates.per_second(now, before).map(short).unwrap_or_default();
            table.row([
                card.id.clone(),
                index.to_string(),
                queue.sent_packets.to_string(),
                bytes(queue.sent_bytes),
                queue.received_packets.to_string(),
                bytes(queue.received_bytes),
                queue.signals_sent.to_string(),
                queue.signals_suppressed.to_string(),
                format!("{}/{}", queue.sections_in_use, queue.sections),
                rate(queue.sent_packets, earlier.sent_packets),
                rate(queue.received_packets, earlier.received_packets),
            ]);
        }
    }
    table
}

/// Returns the table of dropped frames; `None` if there are none.
pub(super) fn drops(now: &InspectReport) -> Option<Table> {
    let mut table =
        Table::new(&[("CARD", L), ("QUEUE", R), ("DIRECTION", L), ("REASON", L), ("FRAMES", R)]);
    let mut any = false;
    for card in &now.networks {
        for (index, queue) in card.queues.iter().enumerate() {
            let drops = queue.drops.by_reason().into_iter().filter(|(.., count)| *count != 0);
            for (direction, reason, count) in drops {
                any = true;
                table.row([
                    card.id.clone(),
                    index.to_string(),
                    direction.to_uppercase(),
                    reason.replace('_', " "),
                    count.to_string(),
                ]);
            }
        }
    }
    any.then_some(table)
}

fn link(card: &NetworkReport) -> &'static str {
    match (card.link, card.chosen_link) {
        (LinkState::Up, _) => "up",
        (LinkState::Down, LinkState::Down) => "down",
        (LinkState::Down, LinkState::Up) => "down (no peer)",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{NetworkDrops, NetworkQueueReport, Style, render};
    use super::*;

    fn report(packets: u64) -> InspectReport {
        let queue = NetworkQueueReport {
            sent_packets: packets,
            sent_bytes: 3 << 20,
            received_packets: packets / 2,
            signals_sent: 1_000_000,
            sections: 9,
            sections_in_use: 3,
            drops: NetworkDrops { send_failed: 3, receive_too_long: 7, ..Default::default() },
            ..Default::default()
        };
        let card = NetworkReport {
            id: "net0".into(),
            backend: "socket,listen=/tmp/cable".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: 1500,
            queues: vec![queue, NetworkQueueReport::default()],
            ..Default::default()
        };
        InspectReport { networks: vec![card], ..Default::default() }
    }

    #[test]
    fn test_render_shows_cards_and_queues_in_100_columns() {
        let (before, now) = (report(1_000), report(1_000_000));
        let text = render(&now, Some((&before, Duration::from_secs(1))), Style::Plain);
        for line in text.lines().skip_while(|line| !line.starts_with("Network")) {
            assert!(line.chars().count() <= 100, "{line}");
        }
        let rows: Vec<Vec<&str>> = text
            .lines()
            .filter(|line| line.starts_with("  net0"))
            .map(|line| line.split_whitespace().collect())
            .collect();
        let card = ["net0", "02:00:00:00:00:01", "up", "1500", "-", "socket,listen=/tmp/cable"];
        assert_eq!(rows[0], card, "{text}");
        let first = ["net0", "0", "1000000", "3.0M", "500000", "0", "1000000", "0", "3/9"];
        assert_eq!(rows[1][..9], first, "{text}");
        assert_eq!(rows[2][..3], ["net0", "1", "0"], "{text}");
        assert_eq!(rows[3], ["net0", "0", "TX", "failed", "3"], "{text}");
        assert_eq!(rows[4], ["net0", "0", "RX", "too", "long", "7"], "{text}");
        assert_eq!(rows.len(), 5, "{text}");
        let without = render(&InspectReport::default(), None, Style::Plain);
        assert!(!without.contains("Network"), "{without}");
    }

    #[test]
    fn test_link_that_is_down_tells_the_reason() {
        let link = |link, chosen_link| {
            super::link(&NetworkReport { link, chosen_link, ..Default::default() })
        };
        assert_eq!(link(LinkState::Up, LinkState::Up), "up");
        assert_eq!(link(LinkState::Down, LinkState::Down), "down");
        assert_eq!(link(LinkState::Down, LinkState::Up), "down (no peer)");
    }
}
