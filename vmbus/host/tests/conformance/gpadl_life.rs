//! GPADLs in use and on their way out: checklist 44 and 51, kmcl 9 to 11 and 19.

use vmbus_gpadl::MapError;
use vmbus_host::core::Ignored;

use crate::common::{Guest, Reply, post};

// 44, kmcl 9
#[test]
fn test_gpadl_teardown_with_views_is_answered_by_the_last_one() {
    let mut guest = Guest::v5_3(1);
    guest.create(1, 5, 3);
    let view = guest.map(1, 5).unwrap();
    let clone = view.clone();
    assert_eq!(guest.ask(&post::teardown(1, 5)), []);
    assert_eq!(guest.drop_view(view), []);
    assert!(clone.is_tearing_down());
    assert_eq!(guest.drop_view(clone), [Reply::Torndown(5)]);
    assert_eq!(guest.map(1, 5).unwrap_err(), MapError::Unknown(5));
    assert_eq!(guest.create(1, 5, 3), [Reply::created(1, 5)]);
}

// 44: with no view it is immediate; a view that came and went changes nothing.
#[test]
fn test_gpadl_teardown_without_views_is_answered_immediately() {
    let mut guest = Guest::v5_3(1);
    guest.create(1, 5, 3);
    drop(guest.map(1, 5).unwrap());
    guest.settle();
    assert_eq!(guest.ask(&post::teardown(1, 5)), [Reply::Torndown(5)]);
}

// 44, kmcl 10
#[test]
fn test_gpadl_teardown_that_means_nothing_is_ignored() {
    let mut guest = Guest::v5_3(2);
    guest.create(1, 5, 3);
    guest.post(&post::header(1, 6, 1, 80, &[])).unwrap();
    let view = guest.map(1, 5).unwrap();
    for (relid, id, why) in [
        (1, 7, "unknown handle"),
        (2, 5, "another channel's handle"),
        (1, 6, "in progress"),
        (1, 0, "handle 0"),
    ] {
        assert_eq!(guest.post(&post::teardown(relid, id)), Err(Ignored::Gpadl(id)), "{why}");
    }
    guest.post(&post::teardown(1, 5)).unwrap();
    let _ = guest.post(&post::teardown(1, 5));
    let _ = guest.post(&post::teardown(1, 5));
    assert_eq!(guest.take(), []);
    assert_eq!(guest.drop_view(view), [Reply::Torndown(5)], "twice asked, once answered");
    assert_eq!(guest.post(&post::teardown(1, 5)), Err(Ignored::Gpadl(5)));
}

// A handle on its way out is in use.
#[test]
fn test_gpadl_handle_that_is_going_is_refused_until_torndown() {
    let mut guest = Guest::v5_3(1);
    guest.create(1, 5, 3);
    let view = guest.map(1, 5).unwrap();
    guest.post(&post::teardown(1, 5)).unwrap();
    let replies = guest.create(1, 5, 3);
    assert!(replies.len() == 1 && replies[0].is_refusal_of(1, 5), "{replies:?}");
    assert_eq!(guest.map(1, 5).unwrap_err(), MapError::Going(5));
    assert_eq!(guest.drop_view(view), [Reply::Torndown(5)]);
}

// 47, kmcl 19
#[test]
fn test_gpadl_of_another_channel_cannot_be_mapped_or_opened() {
    let mut guest = Guest::v5_3(2);
    guest.create(1, 5, 8);
    assert_eq!(guest.map(2, 5).unwrap_err(), MapError::Unknown(5));
    assert_eq!(guest.map(1, 6).unwrap_err(), MapError::Unknown(6));
    let replies = guest.ask(&post::open(2, 5, 4, 0));
    assert!(replies.len() == 1 && replies[0].is_open_failure_of(2, 2), "{replies:?}");
}

// kmcl 4.4: one mapping at a time.
#[test]
fn test_gpadl_mapped_twice_is_refused() {
    let mut guest = Guest::v5_3(1);
    guest.create(1, 5, 8);
    let view = guest.map(1, 5).unwrap();
    assert_eq!(guest.map(1, 5).unwrap_err(), MapError::Mapped(5));
    drop(view);
    assert!(guest.map(1, 5).is_ok());
}

// kmcl 11
#[test]
fn test_gpadl_of_the_ring_torn_down_before_close_waits_for_the_device() {
    let mut guest = Guest::open_held(1);
    assert_eq!(guest.ask(&post::teardown(1, 10)), []);
    assert_eq!(guest.ask(&post::close(1)), []);
    guest.closed();
    assert_eq!(guest.take(), [Reply::Torndown(10)]);
}

// 51, kmcl 11
#[test]
fn test_gpadl_of_the_ring_torn_down_after_close_waits_for_the_device() {
    let mut guest = Guest::closing();
    assert_eq!(guest.ask(&post::teardown(1, 10)), []);
    guest.closed();
    assert_eq!(guest.take(), [Reply::Torndown(10)]);
}

// 51
#[test]
fn test_gpadl_of_a_channel_whose_device_gave_up_is_torn_down() {
    let mut guest = Guest::v5_3(1);
    guest.open(1, 10);
    guest.fault(1);
    assert_eq!(guest.ask(&post::teardown(1, 10)), [Reply::Torndown(10)]);
    assert_eq!(guest.ask(&post::close(1)), []);
    guest.open(1, 11);
}

// 44: views do not wait for each other across GPADLs.
#[test]
fn test_gpadl_teardowns_are_answered_in_the_order_of_release() {
    let mut guest = Guest::v5_3(1);
    let views: Vec<_> = [5, 6, 7]
        .map(|id| {
            guest.create(1, id, 3);
            guest.map(1, id).unwrap()
        })
        .into();
    for id in [5, 6, 7] {
        assert_eq!(guest.ask(&post::teardown(1, id)), []);
    }
    let mut answers = Vec::new();
    for view in views.into_iter().rev() {
        drop(view);
        guest.settle();
        answers.extend(guest.take());
    }
    assert_eq!(answers, [7, 6, 5].map(Reply::Torndown));
}
