//! The part of the report about network cards.

use serde::{Deserialize, Serialize};
use synthvm_net::{LinkState, QueueReport};
use synthvm_netvsp::ChannelCounters;

use super::ChannelReport;
use crate::networks::CardReport;

/// A network card. The guest sends what the card sends to its backend.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkReport {
    /// The id given by the user, or `net` and the card's index.
    pub id: String,
    /// The backend, as on the command line.
    pub backend: String,
    /// The card's permanent address.
    pub mac: String,
    /// Instance GUID of the card's channels.
    pub instance: String,
    /// The largest MTU that the guest is offered.
    pub mtu: u32,
    /// The state of the link.
    pub link: LinkState,
    /// The state that the user chose. With "up", the link is down only if the backend's other end
    /// is gone.
    pub chosen_link: LinkState,
    /// One entry per queue, by index.
    pub queues: Vec<NetworkQueueReport>,
    /// The capture; `None` for a card without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureReport>,
}

/// A queue of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkQueueReport {
    /// Frames sent by the guest. One that is to be segmented counts once.
    pub sent_packets: u64,
    /// Bytes of the frames sent by the guest.
    pub sent_bytes: u64,
    /// Frames received for the guest.
    pub received_packets: u64,
    /// Bytes of the frames received for the guest.
    pub received_bytes: u64,
    /// Dropped frames, by their reasons.
    pub drops: NetworkDrops,
    /// How often the backend had no space, so that a frame of the guest waited.
    pub backend_full: u64,
    /// Sections of the guest's receive buffer for the queue's frames; 0 while none is received.
    pub sections: u32,
    /// Those of them that hold frames which the guest has not completed.
    pub sections_in_use: u32,
    /// Interrupts to the guest by the queue's channel, or by all channels that share the queue; 0
    /// while none is open.
    pub signals_sent: u64,
    /// Interrupts that were suppressed, because the guest was polling the ring or had masked it.
    pub signals_suppressed: u64,
}

/// Dropped frames of a queue, by their reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkDrops {
    /// From the guest: the link was down.
    pub send_link_down: u64,
    /// From the guest: the length or the offload request was invalid.
    pub send_invalid: u64,
    /// From the guest: the host's system refused the frame.
    pub send_failed: u64,
    /// To the guest: the user had the link down.
    pub receive_link_down: u64,
    /// To the guest: the frame was longer than the guest accepts.
    pub receive_too_long: u64,
    /// To the guest: the backend had no space for the frame, because the guest was too slow.
    pub receive_overflow: u64,
    /// To the guest: the frame was malformed.
    pub receive_invalid: u64,
    /// To the guest: it does not want the frame, which is to another address or longer than its
    /// MTU.
    pub receive_unwanted: u64,
    /// To the guest: it completed too few of a channel's frames.
    pub receive_starved: u64,
}

impl NetworkDrops {
    /// Returns the drops as their direction ("tx" from the guest, "rx" to it), reason and number.
    pub(crate) fn by_reason(&self) -> [(&'static str, &'static str, u64); 9] {
        [
            ("tx", "link_down", self.send_link_down),
            ("tx", "invalid", self.send_invalid),
            ("tx", "failed", self.send_failed),
            ("rx", "link_down", self.receive_link_down),
            ("rx", "too_long", self.receive_too_long),
            ("rx", "overflow", self.receive_overflow),
            ("rx", "invalid", self.receive_invalid),
            ("rx", "unwanted", self.receive_unwanted),
            ("rx", "starved", self.receive_starved),
        ]
    }
}

/// The capture of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CaptureReport {
    /// Frames in the file.
    pub recorded: u64,
    /// Frames that the file lacks, because it was too slow or could not be written.
    pub dropped: u64,
}

impl NetworkReport {
    /// Returns the report of a card. `channels` are those of the bus, which have the signals.
    pub(crate) fn new(card: CardReport, channels: &[ChannelReport]) -> Self {
        let instance = card.instance.to_string();
        // All channels of a card share the queue of a backend that has one.
        let is_shared = card.queues.len() == 1;
        let signals = |index: usize| {
            let own = channels.iter().filter(|channel| {
                channel.instance == instance
                    && (is_shared || usize::from(channel.subchannel) == index)
            });
            own.fold((0_u64, 0_u64), |(sent, suppressed), channel| {
                (
                    sent.saturating_add(channel.signals_sent),
                    suppressed.saturating_add(channel.signals_suppressed),
                )
            })
        };
        let queues = card.queues.iter().enumerate();
        let queues = queues.map(|(index, report)| {
            let channel = card.channels.get(index).copied().unwrap_or_default();
            queue(report, channel, signals(index))
        });
        let queues = queues.collect();
        NetworkReport {
            id: card.id,
            backend: card.backend,
            mac: card.address.to_string(),
            mtu: card.mtu,
            link: card.link,
            chosen_link: card.chosen_link,
            queues,
            capture: card.capture.map(|(recorded, dropped)| CaptureReport { recorded, dropped }),
            instance,
        }
    }
}

fn queue(
    report: &QueueReport,
    channel: ChannelCounters,
    (sent, suppressed): (u64, u64),
) -> NetworkQueueReport {
    let QueueReport { counters, receive_link_down } = *report;
    NetworkQueueReport {
        sent_packets: counters.sent_frames,
        sent_bytes: counters.sent_bytes,
        received_packets: counters.received_frames,
        received_bytes: counters.received_bytes,
        drops: NetworkDrops {
            send_link_down: counters.send_link_down,
            send_invalid: counters.send_invalid,
            send_failed: counters.send_failed,
            receive_link_down,
            receive_too_long: counters.receive_too_long,
            receive_overflow: counters.receive_overflow,
            receive_invalid: counters.receive_invalid,
            receive_unwanted: channel.unwanted,
            receive_starved: channel.starved,
        },
        sections: channel.sub_allocations,
        sections_in_use: channel.in_use,
        backend_full: counters.full,
        signals_sent: sent,
        signals_suppressed: suppressed,
    }
}

#[cfg(test)]
mod tests {
    use synthvm_net::Counters;
    use synthvm_netvsp::protocol::MacAddress;
    use vmbus_protocol::Guid;

    use super::*;

    #[test]
    fn test_report_of_a_card_has_the_signals_of_its_own_channels() {
        let instance = Guid::new(1, 2, 3, [4; 8]);
        let counters = Counters {
            sent_frames: 1,
            sent_bytes: 2,
            received_frames: 3,
            received_bytes: 4,
            full: 5,
            send_link_down: 6,
            send_invalid: 7,
            send_failed: 8,
            receive_too_long: 9,
            receive_overflow: 10,
            receive_invalid: 11,
        };
        let queue = QueueReport { counters, receive_link_down: 12 };
        let card = CardReport {
            id: "lan".into(),
            backend: "switch,name=a".into(),
            address: MacAddress([2, 0, 0, 0, 0, 1]),
            instance,
            mtu: 1500,
            link: LinkState::Down,
            chosen_link: LinkState::Up,
            queues: vec![queue, QueueReport::default()],
            channels: vec![
                ChannelCounters { sub_allocations: 100, in_use: 20, unwanted: 13, starved: 14 },
                ChannelCounters::default(),
            ],
            capture: Some((13, 14)),
        };
        let channel = |instance: Guid, subchannel, signals_sent| ChannelReport {
            instance: instance.to_string(),
            subchannel,
            signals_sent,
            ..Default::default()
        };
        let other = Guid::new(1, 2, 3, [5; 8]);
        let channels = [channel(other, 0, 1), channel(instance, 1, 2), channel(instance, 0, 3)];
        let report = NetworkReport::new(card.clone(), &channels);
        assert_eq!(report.capture, Some(CaptureReport { recorded: 13, dropped: 14 }));
        assert_eq!([report.queues[0].signals_sent, report.queues[1].signals_sent], [3, 2]);
        let shared = CardReport { queues: vec![queue], ..card };
        let shared = NetworkReport::new(shared, &channels);
        assert_eq!(shared.queues[0].signals_sent, 5, "the queue of both channels");
        assert_eq!(report.queues[0].backend_full, 5);
        let drops: Vec<_> = report.queues[0].drops.by_reason().map(|(.., count)| count).into();
        assert_eq!(drops, [6, 7, 8, 12, 9, 10, 11, 13, 14]);
        assert_eq!((report.queues[0].sections, report.queues[0].sections_in_use), (100, 20));
        assert_eq!(report.mac, "02:00:00:00:00:01");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!((&json["link"], &json["chosen_link"]), (&"down".into(), &"up".into()));
        assert_eq!(serde_json::from_value::<NetworkReport>(json).unwrap(), report);
    }
}
