//! Every limit of `vmbus_protocol::limits` that the core keeps, at the limit and one past it
//! (checklist 43). `MAX_CHANNELS` and `MAX_SUBCHANNELS` are in `offers` and `subchannels`, the
//! inbox is in the shell's tests.
//!
//! Page quotas are charged by the pages that a header declares, and cost memory for the received
//! ones. A full VM is built here of declared pages: the 256 unfinished lists receive none, and the
//! other lists consist of one run, which takes a few words of memory.

use vmbus_protocol::limits::{
    MAX_GPADL_PAGES, MAX_GPADL_PAGES_PER_CHANNEL, MAX_GPADL_PAGES_PER_VM, MAX_GPADL_RANGES,
    MAX_GPADLS_IN_PROGRESS, MAX_GPADLS_IN_PROGRESS_PER_CHANNEL, MAX_GPADLS_PER_CHANNEL,
    MAX_GPADLS_PER_VM,
};
use vmbus_protocol::offer::status;

use crate::common::{Guest, Range, Reply, post};

fn over_quota(relid: u32, id: u32) -> Reply {
    Reply::Created { relid, id, status: status::QUOTA_EXCEEDED }
}

/// Returns the ranges of the largest possible GPADL, as one run.
fn largest() -> [Range; 1] {
    [Range::pages(0, MAX_GPADL_PAGES)]
}

#[test]
fn test_quota_gpadls_in_progress_per_vm_at_the_limit_and_past_it() {
    let each = u32::try_from(MAX_GPADLS_IN_PROGRESS_PER_CHANNEL).unwrap();
    let limit = u32::try_from(MAX_GPADLS_IN_PROGRESS).unwrap();
    let last = limit / each + 1;
    let mut guest = Guest::v5_3(last);
    for id in 0..limit {
        assert_eq!(guest.ask(&post::header(1 + id / each, id, 1, 32, &[])), []);
    }
    assert_eq!(guest.ask(&post::header(last, limit, 1, 32, &[])), [over_quota(last, limit)]);
    let data = post::range_data(&[Range::pages(0, 3)]);
    assert_eq!(guest.ask(&post::body(7, &data)), [Reply::created(1, 7)]);
    assert_eq!(
        guest.ask(&post::header(last, limit, 1, 32, &[])),
        [],
        "one came in, one may follow"
    );
}

#[test]
fn test_quota_gpadls_in_progress_per_channel_at_the_limit_and_past_it() {
    let limit = u32::try_from(MAX_GPADLS_IN_PROGRESS_PER_CHANNEL).unwrap();
    let mut guest = Guest::v5_3(2);
    for id in 0..limit {
        assert_eq!(guest.ask(&post::header(1, id, 1, 32, &[])), []);
    }
    assert_eq!(guest.ask(&post::header(1, limit, 1, 32, &[])), [over_quota(1, limit)]);
    assert_eq!(
        guest.create(1, limit, 1),
        [over_quota(1, limit)],
        "nor one that is complete at once"
    );
    guest.open(2, limit);
    let data = post::range_data(&[Range::pages(0, 3)]);
    assert_eq!(guest.ask(&post::body(7, &data)), [Reply::created(1, 7)]);
    assert_eq!(
        guest.ask(&post::header(1, limit + 1, 1, 32, &[])),
        [],
        "one came in, one may follow"
    );
}

#[test]
fn test_quota_ranges_of_one_gpadl_at_the_limit_and_past_it() {
    let ranges = |count| vec![Range::pages(3, 1); count];
    let mut guest = Guest::v5_3(1);
    assert_eq!(guest.create_ranges(1, 5, &ranges(MAX_GPADL_RANGES)), [Reply::created(1, 5)]);
    let count = u16::try_from(MAX_GPADL_RANGES + 1).unwrap();
    let data = post::range_data(&ranges(MAX_GPADL_RANGES + 1));
    let (first, rest) = data.split_at(post::HEADER_DATA / 8 * 8);
    guest.post(&post::header(1, 6, count, 65_528, first)).unwrap();
    for data in rest.chunks(post::BODY_DATA) {
        let _ = guest.post(&post::body(6, data));
    }
    let replies = guest.take();
    assert!(replies.len() == 1 && replies[0].is_refusal_of(1, 6), "{replies:?}");
}

#[test]
fn test_quota_pages_of_one_range_at_the_limit_and_past_it() {
    let mut guest = Guest::v5_3(1);
    assert_eq!(guest.create_ranges(1, 5, &largest()), [Reply::created(1, 5)]);
    // A range with one more page cannot be encoded: `range_buflen` has no bits for the size.
    let mut range = Range::pages(0, MAX_GPADL_PAGES);
    range.count += 1;
    let replies = guest.create_ranges(1, 6, &[range]);
    assert!(replies.len() == 1 && replies[0].is_refusal_of(1, 6), "{replies:?}");
}

#[test]
fn test_quota_gpadls_per_channel_at_the_limit_and_past_it() {
    let limit = u32::try_from(MAX_GPADLS_PER_CHANNEL).unwrap();
    let mut guest = Guest::v5_3(2);
    for id in 0..limit {
        assert_eq!(guest.create(1, id, 1), [Reply::created(1, id)]);
    }
    assert_eq!(guest.create(1, limit, 1), [over_quota(1, limit)]);
    guest.open(2, 1);
    assert_eq!(guest.ask(&post::teardown(1, 0)), [Reply::Torndown(0)]);
    assert_eq!(guest.create(1, limit, 1), [Reply::created(1, limit)]);
}

#[test]
fn test_quota_gpadls_per_vm_at_the_limit_and_past_it() {
    let per_channel = u32::try_from(MAX_GPADLS_PER_CHANNEL).unwrap();
    let channels = u32::try_from(MAX_GPADLS_PER_VM / MAX_GPADLS_PER_CHANNEL).unwrap();
    assert_eq!(channels * per_channel, u32::try_from(MAX_GPADLS_PER_VM).unwrap());
    let mut guest = Guest::v5_3(channels + 1);
    for relid in 1..=channels {
        for id in 0..per_channel {
            assert_eq!(guest.create(relid, id, 1), [Reply::created(relid, id)]);
        }
    }
    let last = channels + 1;
    assert_eq!(guest.create(last, 0, 1), [over_quota(last, 0)]);
    assert_eq!(guest.ask(&post::teardown(1, 0)), [Reply::Torndown(0)]);
    assert_eq!(guest.create(last, 0, 1), [Reply::created(last, 0)]);
    assert_eq!(guest.create(last, 1, 1), [over_quota(last, 1)]);
}

#[test]
fn test_quota_pages_per_channel_at_the_limit_and_past_it() {
    let full = u32::try_from(MAX_GPADL_PAGES_PER_CHANNEL / MAX_GPADL_PAGES).unwrap();
    let rest = MAX_GPADL_PAGES_PER_CHANNEL % MAX_GPADL_PAGES;
    let mut guest = Guest::v5_3(2);
    for id in 0..full {
        assert_eq!(guest.create_ranges(1, id, &largest()), [Reply::created(1, id)]);
    }
    let refused = guest.create(1, full, rest + 1);
    assert_eq!(refused, [over_quota(1, full)], "one page past it");
    assert_eq!(guest.create(1, full, rest), [Reply::created(1, full)]);
    assert_eq!(guest.create(1, full + 1, 1), [over_quota(1, full + 1)]);
    guest.open(2, full + 2);
}

#[test]
fn test_quota_pages_per_vm_at_the_limit_and_past_it() {
    let of_channel = MAX_GPADL_PAGES_PER_CHANNEL / MAX_GPADL_PAGES;
    let full = MAX_GPADL_PAGES_PER_VM / MAX_GPADL_PAGES;
    let rest = MAX_GPADL_PAGES_PER_VM % MAX_GPADL_PAGES;
    let mut guest = Guest::v5_3(8);
    for number in 0..full {
        let (relid, id) = (1 + (number / of_channel) as u32, number as u32);
        assert_eq!(guest.create_ranges(relid, id, &largest()), [Reply::created(relid, id)]);
    }
    let id = full as u32;
    assert_eq!(guest.create(8, id, rest + 1), [over_quota(8, id)], "one page past it");
    assert_eq!(guest.create(8, id, rest), [Reply::created(8, id)]);
    assert_eq!(guest.create(8, id + 1, 1), [over_quota(8, id + 1)]);
    assert_eq!(guest.ask(&post::teardown(1, 0)), [Reply::Torndown(0)]);
    assert_eq!(guest.create_ranges(8, id + 1, &largest()), [Reply::created(8, id + 1)]);
}

/// Every end of a GPADL refunds its charge: otherwise this loop would exceed the quotas.
#[test]
fn test_quota_is_given_back_by_every_end() {
    let mut guest = Guest::v5_3(1);
    for round in 0..3 * MAX_GPADLS_PER_CHANNEL {
        match round % 5 {
            0 => {
                guest.create(1, 1, 26);
                assert_eq!(guest.ask(&post::teardown(1, 1)), [Reply::Torndown(1)]);
            }
            1 => {
                let mut range = Range::pages(0, 40);
                range.pages[39] = u64::MAX;
                let replies = guest.create_ranges(1, 1, &[range]);
                assert!(replies[0].is_refusal_of(1, 1), "{replies:?}");
            }
            2 => {
                guest.create(1, 1, 26);
                guest.post(&post::header(1, 2, 1, 65_528, &[])).unwrap();
                guest.post(&post::contact(vmbus_protocol::Version::V5_3.word(), 0)).unwrap();
                guest.post(&post::request_offers()).unwrap();
                guest.take();
            }
            3 => {
                guest.post(&post::header(1, 2, 1, 65_528, &[])).unwrap();
                let key = guest.key(1);
                guest.rescind(key);
                guest.post(&post::release(1)).unwrap();
                guest.offer(0);
                guest.take();
            }
            _ => {
                guest.create(1, 1, 26);
                let view = guest.map(1, 1).unwrap();
                guest.post(&post::teardown(1, 1)).unwrap();
                assert_eq!(guest.drop_view(view), [Reply::Torndown(1)]);
            }
        }
    }
    let full = (MAX_GPADL_PAGES_PER_CHANNEL / MAX_GPADL_PAGES) as u32;
    for id in 0..full {
        assert_eq!(guest.create_ranges(1, id, &largest()), [Reply::created(1, id)]);
    }
}
