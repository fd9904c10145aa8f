//! Counts log lines: with it a test shows that a guest cannot raise their rate.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// Has a guest cause a line of this `kind` `times` times on this thread. Expects no more lines than
/// the rate allows, each with the number of lines that were left out before it, as field `left_out`
/// or `suppressed`.
///
/// # Panics
/// The lines are not limited, or do not say how many were left out.
pub fn expect_limited(kind: &str, times: u64, cause: impl FnMut()) {
    // With one subscriber in the process, tracing asks the thread that comes first to a line
    // whether anybody listens, and keeps the answer: that of another test, which has none. With
    // two it asks the subscribers.
    static SECOND: LazyLock<Dispatch> =
        LazyLock::new(|| Dispatch::new(&*Box::leak(Box::<Count>::default())));
    LazyLock::force(&SECOND);
    let count: &'static Count = Box::leak(Box::default());
    let start = Instant::now();
    let mut cause = cause;
    tracing::subscriber::with_default(count, || (0..times).for_each(|_| cause()));
    // 10 lines in each second that has begun.
    let most = 10 * (start.elapsed().as_secs() + 1);
    let (lines, left_out) =
        (count.lines.load(Ordering::Relaxed), count.left_out.load(Ordering::Relaxed));
    assert!(times > most, "{kind}: too slow for this test");
    assert!((1..=most).contains(&lines), "{kind}: {lines} lines in {:?}", start.elapsed());
    assert_eq!(
        count.silent.load(Ordering::Relaxed),
        0,
        "{kind}: a line does not say how many were left out"
    );
    assert!(lines + left_out <= times, "{kind}: {left_out} lines left out of {times}");
}

#[derive(Default)]
struct Count {
    lines: AtomicU64,
    left_out: AtomicU64,
    /// Lines without a count.
    silent: AtomicU64,
}

impl Subscriber for &'static Count {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut left_out = LeftOut(None);
        event.record(&mut left_out);
        self.lines.fetch_add(1, Ordering::Relaxed);
        match left_out.0 {
            Some(lines) => self.left_out.fetch_add(lines, Ordering::Relaxed),
            None => self.silent.fetch_add(1, Ordering::Relaxed),
        };
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct LeftOut(Option<u64>);

impl Visit for LeftOut {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if matches!(field.name(), "suppressed" | "left_out") {
            self.0 = Some(value);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
